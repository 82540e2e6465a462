"""What a step of the loop does to the weights, by hand: accumulation, clipping, decay, and which weights it reaches."""

import pytest
import torch
from reference import training as oracle
from support.runs import settings_of
from support.toys import Two, network_of

from semiseg.data.batches import Batches
from semiseg.data.plan import Plan
from semiseg.draws import Draws, seed_of
from semiseg.errors import UserError
from semiseg.experiments.experiment import prepare_dataset, train_run
from semiseg.methods import METHODS, build_method
from semiseg.methods.method import UnlabelledConfig
from semiseg.models.model import build_network, load_model
from semiseg.networks.ensemble import Ensemble, fresh_copy
from semiseg.runs.checkpoint import read_checkpoint
from semiseg.schedules import learning_rate
from semiseg.training.session import TrainingConfig, optimiser_of
from semiseg.training.steps import refuse_strays
from semiseg.transforms.augment import augment

SGD = {"optimiser": "sgd", "lr": 0.1, "schedule": "constant", "warm_up": 0.0, "clip": 1e9, "weight_decay": 0.0}
NESTEROV = 1.99
"""How many gradients the first step of SGD with Nesterov's momentum of 0.99 goes."""


def first_step(data, out, **training):
    """The weights that a run starts with, those after its only step, and the run's folder and settings."""
    settings = settings_of(
        data, "supervised", steps=1, method_settings={"ema": 0.0}, training={**SGD, **training}, seed=3
    )
    run = train_run(settings, out, device="cpu", workers=1)
    torch.manual_seed(seed_of(3, "initialisation"))
    before = build_network(Plan.load(run.plan)).state_dict()
    after = read_checkpoint(run.last).part("method.network")
    return before, after, run, settings


def test_the_gradients_of_accumulated_batches_are_averaged(plain_cohort, tmp_path):
    before, after, run, settings = first_step(plain_cohort(), tmp_path / "run", accumulation=2)
    plan = Plan.load(run.plan)
    labelled = [case for case in prepare_dataset(settings, 1) if case.name in run.read_splits().train]
    batches = Batches(labelled, (), plan, 3)
    network = build_network(plan)
    network.load_state_dict(before)
    method = build_method("supervised", network, {"ema": 0.0})
    for slot in (0, 1):
        draws = Draws(3, 0, slot)
        (method(augment(batches[slot], plan.augmentation, draws), draws, 0.0).total / 2).backward()
    for name, weight in network.named_parameters():
        expected = before[name] - 0.1 * NESTEROV * weight.grad
        torch.testing.assert_close(after[name], expected, atol=1e-6, rtol=1e-4, msg=name)


def test_a_gradient_longer_than_clip_is_shortened_to_it(plain_cohort, tmp_path):
    data = plain_cohort()
    before, after, run, _ = first_step(data, tmp_path / "clipped", clip=1e-3)
    moved = torch.cat([(after[name] - before[name]).flatten() for name in after])
    torch.testing.assert_close(float(moved.norm()), 0.1 * NESTEROV * 1e-3, rtol=1e-2, atol=0.0)
    assert run.read_log()[0]["gradient_norm"] > 1e-2  # before it was clipped


def test_without_clip_a_gradient_stays_as_it_is(plain_cohort, tmp_path):
    data = plain_cohort()
    before, after, run, settings = first_step(data, tmp_path / "whole", clip=None)
    plan = Plan.load(run.plan)
    labelled = [case for case in prepare_dataset(settings, 1) if case.name in run.read_splits().train]
    network = build_network(plan)
    network.load_state_dict(before)
    method, draws = build_method("supervised", network, {"ema": 0.0}), Draws(3, 0, 0)
    method(augment(Batches(labelled, (), plan, 3)[0], plan.augmentation, draws), draws, 0.0).total.backward()
    norm = float(torch.cat([weight.grad.flatten() for weight in network.parameters()]).norm())
    assert run.read_log()[0]["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(after[name], before[name] - 0.1 * NESTEROV * weight.grad, atol=1e-6, rtol=1e-4)
    _, shortened, *_ = first_step(data, tmp_path / "shortened", clip=norm / 2)
    assert not all(torch.equal(after[name], shortened[name]) for name in after)


def test_weights_are_decayed_and_biases_and_scales_are_not(plain_cohort, tmp_path):
    data = plain_cohort()
    before, plain, *_ = first_step(data, tmp_path / "plain")
    _, decayed, *_ = first_step(data, tmp_path / "decayed", weight_decay=0.5)
    for name, weight in before.items():
        shrunk = 0.1 * NESTEROV * 0.5 * weight if weight.ndim > 1 else torch.zeros_like(weight)
        torch.testing.assert_close(decayed[name], plain[name] - shrunk, atol=1e-6, rtol=1e-4, msg=name)
    assert any(weight.ndim == 1 for weight in before.values())
    _, everywhere, *_ = first_step(data, tmp_path / "all", weight_decay=0.5, weight_decay_of="all")
    for name, weight in before.items():
        expected = plain[name] - 0.1 * NESTEROV * 0.5 * weight
        torch.testing.assert_close(everywhere[name], expected, atol=1e-6, rtol=1e-4, msg=name)


def test_augment_false_leaves_batches_as_they_are(plain_cohort, tmp_path):
    data = plain_cohort()
    settings = [settings_of(data, "supervised", steps=1, method_settings={"augment": on}) for on in (True, False)]
    runs = [train_run(one, tmp_path / str(number), device="cpu", workers=1) for number, one in enumerate(settings)]
    assert runs[0].read_log()[0]["loss"] != runs[1].read_log()[0]["loss"]


def test_every_network_that_a_method_owns_is_trained_saved_and_resumed(plain_cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "two", Two)
    data = plain_cohort(labelled=4)
    settings = settings_of(data, "two", steps=4)
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    saved = read_checkpoint(run.last)
    torch.manual_seed(seed_of(0, "initialisation"))
    network = build_network(Plan.load(run.plan))
    start = {"network": network.state_dict(), "second": fresh_copy(network).state_dict()}
    for part, weights in start.items():
        trained = saved.part(f"method.{part}")
        still = [name for name, weight in weights.items() if torch.equal(weight, trained[name])]
        assert not still, f"{part}: {still}"
    trainable = 2 * len(start["network"])
    assert len({name.split(".")[1] for name in saved.tensors if name.startswith("optimiser.")}) == trainable


def test_a_run_of_two_networks_predicts_with_their_mean_and_the_next_one_starts_from_the_first(plain_cohort, tmp_path):
    data = plain_cohort(labelled=4)
    run = train_run(settings_of(data, "cps", steps=2), tmp_path / "run", device="cpu", workers=1)
    model = load_model(run.path)
    assert isinstance(model.network, Ensemble)
    image = torch.randn(1, 1, 8, 8)
    each = [network(image).softmax(1) for network in model.network.networks]
    assert not torch.equal(*each)
    torch.testing.assert_close(model.network(image).softmax(1), sum(each) / 2)
    again = settings_of(data, "supervised", steps=1, init=str(run.path), training={**SGD, "lr": 1e-12})
    after = read_checkpoint(train_run(again, tmp_path / "next", device="cpu", workers=1).last).part("method.network")
    first = model.network.networks[0].state_dict()
    for name, weight in after.items():
        torch.testing.assert_close(weight, first[name])


class Late(Two):
    """Makes its second network trainable only when it is asked for an objective."""

    def __init__(self, network, config):
        super().__init__(network, config)
        self.second.requires_grad_(False)

    def objective(self, batch, draws, progress):
        self.second.requires_grad_(True)
        return super().objective(batch, draws, progress)


class Hiding(Two):
    """Keeps a network where no module looks."""

    def __init__(self, network, config):
        super().__init__(network, config)
        self.others = [fresh_copy(network)]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Late,
            r"Late: got a gradient for second\.encoder\.stages\.0\.0\.weight, which is not optimised, expected none",
        ),
    ],
)
def test_a_network_that_would_silently_stay_as_it_is_is_an_error(plain_cohort, tmp_path, monkeypatch, kind, message):
    monkeypatch.setitem(METHODS, "mine", kind)
    with pytest.raises(UserError, match=message):
        train_run(settings_of(plain_cohort(), "mine", steps=1), tmp_path / "run", device="cpu", workers=1)


def test_no_stray_among_what_the_optimiser_has():
    method = Two(network_of(2), UnlabelledConfig())
    optimiser = optimiser_of(method, TrainingConfig())
    known = [weight for group in optimiser.param_groups for weight in group["params"]]
    for weight in known:
        weight.grad = torch.zeros_like(weight)
    refuse_strays(method, known)
    assert {id(weight) for weight in known} == {
        id(w) for part in (method.network, method.second) for w in part.parameters()
    }


@pytest.mark.parametrize("schedule", ["poly", "cosine", "exponential", "constant"])
def test_the_learning_rate_follows_its_schedule(plain_cohort, tmp_path, schedule):
    """As it is logged, which is what the optimiser had; and a step goes as far as its rate says."""
    training = {**SGD, "schedule": schedule, "warm_up": 0.25}
    settings = settings_of(plain_cohort(), "supervised", steps=8, method_settings={"ema": 0.0}, training=training)
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    rates = [line["lr"] for line in run.read_log() if line["kind"] == "train"]
    assert rates == pytest.approx([0.1 * learning_rate(step / 8, schedule, 0.25) for step in range(8)])
    assert rates[0] == 0
    assert rates[1] == pytest.approx(0.05)


def test_the_learning_rate_falls_by_a_factor_an_epoch(plain_cohort, tmp_path):
    """An epoch of two steps, after a warm-up of four: .95, as often as epochs have passed."""
    training = {**SGD, "schedule": "exponential", "decay": 0.95, "decay_every": 2, "warm_up": 1 / 3}
    settings = settings_of(plain_cohort(), "supervised", steps=12, method_settings={"ema": 0.0}, training=training)
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    rates = [line["lr"] for line in run.read_log() if line["kind"] == "train"]
    assert rates[4::2] == pytest.approx([oracle.rate_after(epochs, 0.1) for epochs in range(4)])
    assert rates[5] == pytest.approx(0.1 * 0.95**0.5)  # within an epoch it falls evenly
