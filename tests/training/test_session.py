"""The optimiser of a run: what its settings mean, by hand."""

from types import SimpleNamespace

import pytest
import torch
from reference import training as oracle

from semiseg.errors import UserError
from semiseg.methods import build_method
from semiseg.methods.supervised import Supervised
from semiseg.training import session
from semiseg.training.session import TrainingConfig, optimiser_of


def one_parameter(name, lr, weight_decay, steps=20):
    """A 2-D parameter after steps with gradients that depend on it."""
    network = torch.nn.Linear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.1, -1.0]]))
        network.bias.fill_(0.3)
    method = build_method("supervised", network, {"ema": 0.0})
    optimiser = optimiser_of(method, TrainingConfig(optimiser=name, lr=lr, weight_decay=weight_decay))
    for _ in range(steps):
        optimiser.zero_grad()
        (network.weight**4 / 4 - network.weight).sum().backward()
        optimiser.step()
        yield network.weight


def test_shrinking_weights_after_each_step_of_adam_is_adamw():
    """The published 1 - 0.02 * 0.002: of the step too, so its rate is a 25 000th smaller."""
    lr, kept = 2e-3, 1 - 0.02 * 2e-3
    *_, decoupled = one_parameter("adamw", lr * kept, 0.02 / kept)
    for published in one_parameter("adam", lr, 0.0):
        with torch.no_grad():
            published.mul_(kept)
    torch.testing.assert_close(decoupled, published, rtol=1e-10, atol=0)
    *_, plain = one_parameter("adamw", lr, 0.02)
    torch.testing.assert_close(plain, published, rtol=1e-4, atol=0)
    *_, undecayed = one_parameter("adamw", lr, 0.0)
    assert float((undecayed - published).abs().max().detach()) > 1e-4


@pytest.mark.parametrize(("lr", "decay", "shrink"), [(2e-3, 0.02, 4e-5), (0.02, 0.002, 4e-5)])
def test_every_parameter_is_shrunk_as_by_the_authors_of_roam(lr, decay, shrink):
    """MALC's and COVID's settings: 1 - 0.02 * 0.002 in both. Biases and scales of normalisation too; the last step is
    shrunk with the rest there, so values agree to a 25 000th of a step."""
    assert lr * decay == pytest.approx(shrink)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)).double()
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    parameters = list(network.parameters())
    start = torch.cat([weight.detach().flatten() for weight in parameters]).tolist()
    config = TrainingConfig(optimiser="adamw", lr=lr, weight_decay=decay, weight_decay_of="all")
    optimiser = optimiser_of(build_method("supervised", network, {"ema": 0.0}), config)
    kept = optimiser_of(build_method("supervised", network, {"ema": 0.0}), TrainingConfig(lr=lr, weight_decay=decay))
    assert [group["weight_decay"] for group in kept.param_groups] == [decay, 0.0]
    for expected in oracle.adam_then_shrunk(start, lambda values: [v**3 - 1 for v in values], lr, shrink, steps=30):
        optimiser.zero_grad()
        sum((weight**4 / 4 - weight).sum() for weight in parameters).backward()
        optimiser.step()
        found = torch.cat([weight.detach().flatten() for weight in parameters]).tolist()
        assert found == pytest.approx(expected, abs=30 * lr * shrink)
    plain = [*oracle.adam_then_shrunk(start, lambda values: [v**3 - 1 for v in values], lr, 0.0, steps=30)][-1]
    assert max(abs(a - b) for a, b in zip(plain, found, strict=True)) > 50 * 30 * lr * shrink


def test_adam_adds_the_decay_to_the_gradient():
    """By hand: the first step of Adam is lr times the sign of gradient + decay * weight."""
    start = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.1, -1.0]], dtype=torch.float64)
    (moved,) = one_parameter("adam", 0.01, 2.0, steps=1)
    gradient = start**3 - 1 + 2 * start
    torch.testing.assert_close(moved.detach(), start - 0.01 * gradient.sign(), atol=1e-8, rtol=0)
    assert not torch.equal(gradient.sign(), (start**3 - 1).sign())


@pytest.mark.parametrize(
    ("device", "taken"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", []), ("mps:0", []), ("cuda:0", ["cuda:0"])]
)
def test_the_gpu_that_was_asked_for_is_the_one_that_is_taken(monkeypatch, device, taken):
    """Without a GPU here: what would be told to torch and to accelerate."""
    told = []
    monkeypatch.setattr(session, "chosen_device", torch.device)
    monkeypatch.setattr(session, "chosen_precision", lambda precision, _kind: precision)
    monkeypatch.setattr(session, "Accelerator", lambda **given: given)
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: told.append(str(chosen)))
    given = session.start(device, "16")
    assert told == taken
    assert given == {"cpu": device == "cpu", "mixed_precision": "fp16", "step_scheduler_with_optimizer": False}


def test_defaults_that_every_benchmark_rests_on():
    config = TrainingConfig()
    assert (config.steps, config.lr, config.clip, config.validation_interval) == (5000, 5e-3, 12.0, 500)
    assert TrainingConfig(steps=7).validation_interval == 1
    assert TrainingConfig(validate_every=3).validation_interval == 3


@pytest.mark.parametrize("patients", [268, 100, 40, 7])
def test_patience_by_the_share_of_labels(patients):
    config = TrainingConfig(patience={f"{percent}%": steps for percent, steps in oracle.PATIENCE.items()})
    for labelled in range(1, patients + 1):
        assert config.patience_at(labelled, patients) == oracle.patience_of(labelled, patients)
    published = {3: 10_000, 14: 20_000, 27: 30_000, 268: 40_000}  # 1, 5, 10 and 100 % of 268, and between them
    for labelled, steps in {**published, 1: 10_000, 4: 20_000, 15: 30_000, 28: 40_000}.items():
        assert config.patience_at(labelled, 268) == steps
    assert TrainingConfig(patience={"50%": 7}).patience_at(9, 10) == 7
    assert (TrainingConfig(patience=5).patience_at(1, 9), TrainingConfig().patience_at(1, 9)) == (5, None)


@pytest.mark.parametrize(
    "value", [0, -3, True, 2.5, "long", {}, {"5%": 0}, {"5": 10}, {"0%": 10}, {"101%": 10}, {"1%": True}, {0.05: 10}]
)
def test_a_patience_that_is_none(value):
    with pytest.raises(
        UserError, match=r"training\.patience: got .*, expected a (number of steps from 1|share at least)"
    ):
        TrainingConfig.parse({"patience": value}, "training")


@pytest.mark.parametrize("setting", [{"decay": 0.5}, {"decay_every": 10}])
def test_a_decay_belongs_to_the_exponential_schedule(setting):
    TrainingConfig.parse({"schedule": "exponential", **setting}, "training")
    (name,) = setting
    with pytest.raises(UserError, match=rf"training: {name} .*: expected none with schedule poly; leave it out"):
        TrainingConfig.parse(setting, "training")


class WithTemperature(Supervised):
    """Owns a number beside its network."""

    def __init__(self, network, config):
        super().__init__(network, config)
        self.temperature = torch.nn.Parameter(torch.tensor(1.0))


def test_a_single_number_is_trained_too_and_not_decayed():
    method = WithTemperature(torch.nn.Linear(3, 2), Supervised.Config())
    decayed, plain = optimiser_of(method, TrainingConfig(weight_decay=0.5)).param_groups
    assert [weight.ndim for weight in decayed["params"]] == [2]
    assert sorted(weight.ndim for weight in plain["params"]) == [0, 1]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)


@pytest.mark.parametrize(("told", "stops"), [(0.0, False), (1.0, True), (2.0, True)])
def test_a_signal_to_one_process_stops_all(told, stops):
    """told: how many of the processes were told to stop, as their sum says."""
    several = SimpleNamespace(
        num_processes=2, device="cpu", reduce=lambda flag, how: flag * 0 + told if how == "sum" else flag
    )
    assert session.anywhere(False, several) is stops
    alone = SimpleNamespace(num_processes=1)
    assert (session.anywhere(True, alone), session.anywhere(False, alone)) == (True, False)


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_lie_as_the_layout_says(dims):
    weights = torch.randn(4, 3, *[3] * dims)
    last = weights.to(memory_format=session.memory_format("channels_last", dims))
    assert last.stride(1) == 1
    assert weights.to(memory_format=session.memory_format("contiguous", dims)).stride() == weights.stride()
