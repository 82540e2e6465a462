"""Every recipe is complete, resolves, and can be asked for by name; `test_recipe_runs.py` trains them."""

import pytest
from support.fingerprints import facts

from semiseg.data.plan import _PREPROCESSING
from semiseg.data.planning import plan_from
from semiseg.errors import UserError
from semiseg.experiments.recipes import load_recipe, recipe_names
from semiseg.experiments.run_settings import RunSettings, read_settings
from semiseg.training.session import TrainingConfig

NAMES = [
    *("brats19-equireg", "brats19-supervised", "covid-roam-semi", "covid-roam-supervised"),
    *("malc-roam-semi", "malc-roam-supervised"),
]


def test_all_published_experiments_are_there():
    assert recipe_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_where_it_comes_from_and_resolves(name):
    text = load_recipe(name).text()
    for word in ("source:", "data:", "run time:", "published:", "differs:"):
        assert f"# {word}" in text
    settings = RunSettings.parse(read_settings(None, {"recipe": name, "data.path": "scans"}), where="")
    resolved = settings.resolved()
    assert resolved["recipe"] == name
    assert settings.score
    assert resolved["method"]["preset"] == "2020"


@pytest.mark.parametrize(
    ("first", "second"),
    [("brats19-equireg", "brats19-supervised"), ("covid-roam-semi", "covid-roam-supervised"),
     ("malc-roam-semi", "malc-roam-supervised")],
)  # fmt: skip
def test_scans_are_prepared_once_for_both_recipes_of_a_dataset(first, second):
    """N4 of 369 patients takes hours; and only with the same images is a difference one of method."""
    plans = [load_recipe(name).settings["plan"] for name in (first, second)]
    one, other = ({key: value for key, value in plan.items() if key in _PREPROCESSING} for plan in plans)
    assert one == other


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_a_recipe_fits_the_memory_that_it_asks_for(name):
    settings = RunSettings.parse(read_settings(None, {"recipe": name, "data.path": "scans"}), where="")
    scans = facts((240, 240, 155), channels=("FLAIR", "T1", "T1ce", "T2")[: 4 if "brats" in name else 1])
    plan = plan_from(scans, dims=settings.dims, memory_gb=settings.memory_gb, overrides=settings.plan)
    assert plan.patch == tuple(settings.plan["patch"])


@pytest.mark.parametrize("name", [name for name in NAMES if "roam" in name])
def test_recipes_of_roam_train_as_its_authors_do(name):
    """Every parameter times 1 - .02 * .002 after each step of Adam, gradients as they are; 8 slices a step in all."""
    settings = load_recipe(name).settings
    training = TrainingConfig.parse(settings["training"], "training")
    assert (training.optimiser, training.weight_decay_of, training.schedule) == ("adamw", "all", "constant")
    assert training.lr == (0.002 if "malc" in name else 0.02)
    assert training.lr * training.weight_decay == pytest.approx(0.02 * 0.002)
    assert training.clip is None
    assert settings["plan"]["batch"] + settings["plan"].get("unlabelled_batch", 0) == 8
    assert ("unlabelled_batch" in settings["plan"]) == name.endswith("semi")


@pytest.mark.parametrize("name", ["brats19-equireg", "brats19-supervised"])
def test_recipes_of_the_thesis_train_as_it_does(name):
    settings = RunSettings.parse(read_settings(None, {"recipe": name, "data.path": "scans"}), where="")
    for labelled, patience in {3: 10_000, 14: 20_000, 27: 30_000, 60: 40_000, 268: 40_000}.items():
        assert settings.training.patience_at(labelled, 268) == patience
    network = settings.plan["network"]
    assert (network["momentum"], network["epsilon"]) == (0.01, 0.001)  # Keras: .99 and 1e-3
    assert network["name"] == "fcdensenet"
    assert (settings.training.optimiser, settings.training.lr) == ("adam", 1e-3)
    if name == "brats19-equireg":
        assert (settings.plan["batch"], settings.plan["unlabelled_batch"]) == (2, 6)
        assert (settings.data.unlabelled_of, settings.data.unlabelled_part) == ("all", None)
        assert settings.resolved()["method"]["one_pass"]


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("training: {steps: 7, lr: 0.5}\nplan: {batch: 1}\n")
    values = read_settings(config, {"recipe": "malc-roam-semi", "data.path": "x", "training.steps": 5})
    assert values["training"]["steps"] == 5
    assert values["training"]["lr"] == 0.5
    assert values["training"]["weight_decay"] == 0.02
    assert values["plan"]["batch"] == 1
    assert values["plan"]["patch"] == [256, 256]


def test_a_fold_replaces_validation_and_test_scans_and_the_other_way_round(tmp_path):
    folded = read_settings(None, {"recipe": "malc-roam-semi", "data.path": "x", "data.fold": "2/5"})["data"]
    assert (folded["fold"], folded.get("val"), folded.get("test")) == ("2/5", None, None)
    (tmp_path / "mine.yaml").write_text("data: {val: 1}\n")
    counted = read_settings(tmp_path / "mine.yaml", {"recipe": "covid-roam-semi", "data.test": "3"})["data"]
    assert (counted.get("fold"), counted["val"], counted["test"]) == (None, 1, "3")
    assert read_settings(None, {"recipe": "covid-roam-semi"})["data"]["fold"] == "1/5"


def test_another_method_takes_the_training_and_not_the_method_settings():
    values = read_settings(None, {"recipe": "malc-roam-semi", "method.name": "supervised", "data.path": "x"})
    assert values["method"] == {"name": "supervised"}
    assert values["training"]["steps"] == 30000
    RunSettings.parse(values, where="").resolved()


def test_a_plan_file_is_not_changed_by_the_recipe():
    values = read_settings(None, {"recipe": "malc-roam-semi", "plan_file": "plan.json", "data.path": "x"})
    assert values["plan"] == {}


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(
        UserError, match=r"--recipe: got 'malc-roam-sem', expected one of .*; did you mean 'malc-roam-semi'"
    ):
        load_recipe("malc-roam-sem")


def test_the_ct_window_is_the_published_one():
    rule = load_recipe("covid-roam-semi").settings["plan"]["normalisation"]
    level, width = -504.4, 2204.3
    assert rule["low"] == pytest.approx(level - width / 2)
    assert rule["high"] == pytest.approx(level + width / 2)
    assert pytest.approx([(x - rule["mean"]) / rule["deviation"] for x in (rule["low"], rule["high"])]) == (0.0, 1.0)
