"""small, medium and large: what each decides of a plan, and that what is set by name wins."""

from pathlib import Path

import pytest
import yaml
from support.fingerprints import BRAIN, HIPPOCAMPUS, facts

from semiseg.bench.grid import Run, bench_settings, run_settings
from semiseg.data.planning import plan_from, plan_memory_gb
from semiseg.errors import UserError
from semiseg.experiments.run_settings import RunSettings

CT = facts((512, 512, 300), (0.8, 0.8, 1.0), channels=("CT",), classes=10, window=True)
THICK = facts((320, 320, 24), (0.7, 0.7, 6.0))
SCANS = {"hippocampus": HIPPOCAMPUS, "brain": BRAIN, "ct": CT, "thick": THICK}
ATRIA = Path(__file__).resolve().parents[2] / "benchmarks" / "bench-atria.yaml"


def settings_of(**values):
    return RunSettings.parse({"data": {"path": "scans"}, **values}, where="")


def plan_of(scans, **values):
    settings = settings_of(**values)
    return plan_from(
        scans,
        dims=settings.dims,
        memory_gb=settings.memory_gb,
        unlabelled_ratio=settings.unlabelled_ratio,
        overrides=settings.plan,
    )


@pytest.mark.parametrize("scans", SCANS.values(), ids=SCANS)
def test_medium_is_the_plan_without_a_size(scans):
    assert plan_of(scans) == plan_of(scans, size="medium") == plan_from(scans)
    assert settings_of(size="medium") == settings_of()


@pytest.mark.parametrize("scans", SCANS.values(), ids=SCANS)
def test_small_is_the_network_and_batch_of_the_atria(scans):
    plan = plan_of(scans, size="small")
    asked = yaml.safe_load(ATRIA.read_text(encoding="utf-8"))
    assert plan == plan_of(scans, dims=asked["dims"], plan=asked["plan"])
    assert (plan.dims, plan.batch, plan.unlabelled_batch) == (2, 4, 4)
    assert plan.network.widths == (16, 32, 64, 128)
    assert plan_memory_gb(plan) <= plan.memory_gb == 8


@pytest.mark.parametrize("scans", SCANS.values(), ids=SCANS)
def test_large_has_a_larger_budget_and_keeps_it(scans):
    plan = plan_of(scans, size="large")
    assert plan == plan_from(scans, memory_gb=24)
    assert plan_memory_gb(plan_from(scans)) <= plan_memory_gb(plan) <= 24


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"size": "large", "memory_gb": 8.0}, {"memory_gb": 8.0}),
        ({"size": "small", "memory_gb": 2.0}, {"memory_gb": 2.0, "dims": 2}),
        ({"size": "small", "dims": "3"}, {"dims": 3, "batch": 4}),
        ({"size": "small", "dims": 3}, {"dims": 3, "batch": 4}),
        ({"size": "small", "dims": "auto"}, {"dims": 3, "batch": 4}),
        ({"size": "small", "plan": {"dims": 3}}, {"dims": 3, "batch": 4}),
        ({"size": "small", "plan": {"batch": 2}}, {"batch": 2, "unlabelled_batch": 2}),
        ({"size": "small", "plan": {"unlabelled_batch": 1}}, {"batch": 4, "unlabelled_batch": 1}),
        ({"size": "small", "unlabelled_ratio": 2}, {"batch": 4, "unlabelled_batch": 8}),
        ({"size": "small", "plan": {"patch": [32, 32]}}, {"patch": (32, 32), "batch": 4}),
    ],
    ids=str,
)
def test_what_is_given_wins(given, expected):
    plan = plan_of(BRAIN, **given)
    assert {key: getattr(plan, key) for key in expected} == expected
    if given["size"] == "small":
        assert plan.network.widths == (16, 32, 64, 128)
        assert plan.network.stride(plan.dims) == (8,) * plan.dims


@pytest.mark.parametrize(
    "network",
    [{"widths": [8, 16]}, {"widths": [8, 16, 32], "strides": [[2, 2], [2, 1]]}, {"name": "fcdensenet"}],
    ids=str,
)
def test_another_network_is_kept_whole(network):
    plan = plan_of(BRAIN, size="small", plan={"network": network})
    assert plan == plan_of(BRAIN, dims="2", plan={"network": network, "batch": 4})


def test_a_part_of_the_network_goes_with_the_rest():
    network = plan_of(BRAIN, size="small", plan={"network": {"norm": "batch"}}).network
    assert (network.norm, network.widths) == ("batch", (16, 32, 64, 128))


@pytest.mark.parametrize("values", [{"size": "small"}, {"size": "large"}, {"size": "small", "dims": "3"}], ids=str)
def test_saved_settings_are_read_back_the_same(values):
    settings = settings_of(**values)
    assert settings_of(**settings.model_dump(mode="json", exclude={"data"})) == settings
    assert settings.resolved()["size"] == values["size"]


@pytest.mark.parametrize("size", ["small", "large"])
def test_beside_a_plan_file_there_is_nothing_to_decide(size):
    assert settings_of(size=size, plan_file="plan.json") == settings_of(plan_file="plan.json").model_copy(
        update={"size": size}
    )


@pytest.mark.parametrize("size", ["tiny", 3, None, ["small"]], ids=str)
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match=r"size: got .*, input should be 'small', 'medium' or 'large'"):
        settings_of(size=size)


@pytest.mark.parametrize(("plan", "message"), [(3, "plan: got 3"), ({"network": 3}, "plan.network: got 3")], ids=str)
def test_mistakes_beside_it_are_told_as_ever(plan, message):
    with pytest.raises(UserError, match=message):
        settings_of(size="small", plan=plan).resolved()


def test_a_bench_makes_one_plan_of_its_size_and_its_runs_take_that():
    settings = bench_settings({"data": {"path": "scans"}, "size": "small"}, labelled=["2"])
    assert (settings.run["dims"], settings.run["plan"]["batch"]) == ("2", 4)
    assert run_settings(settings, Run("roam", "2", 0), Path("plan.json")).plan == {}
