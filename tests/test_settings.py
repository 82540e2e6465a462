import pytest

from semiseg.errors import UserError
from semiseg.experiments.run_settings import RunSettings, read_settings
from semiseg.files import parse_yaml
from semiseg.methods import METHODS
from semiseg.methods.roam import RoamConfig
from semiseg.methods.strong import PUBLISHED_WARP
from semiseg.settings import flat, unusual
from semiseg.transforms.augment import Augmentation
from semiseg.transforms.warp import WarpConfig

DATA = {"data": {"path": "x"}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"data": {"path": "x", "labeled": "3"}},
            r"data\.labeled: unknown setting; did you mean 'labelled'\?",
        ),
        ({**DATA, "training": {"step": 5}}, r"training\.step: unknown setting; did you mean 'steps'\?"),
        (
            {**DATA, "training": {"steps": 0}},
            r"training\.steps: got 0, input should be greater than or equal to 1",
        ),
        ({**DATA, "dims": "4"}, r"dims: got '4'"),
    ],
)
def test_mistakes_name_the_key_and_suggest(given, message):
    with pytest.raises(UserError, match=message):
        RunSettings.parse(given, where="")


def test_a_group_given_in_part_keeps_the_rest_of_its_default():
    """`--set plan.augmentation.warp.probability=0.5` must not switch rotation off."""
    default, changed = Augmentation(), Augmentation.parse({"warp": {"probability": 0.5}}, where="")
    assert changed.warp == default.warp.model_copy(update={"probability": 0.5})
    assert changed.intensity == default.intensity
    assert RoamConfig.parse({"warp": {"shift": 0.2}}, where="").warp == PUBLISHED_WARP.model_copy(update={"shift": 0.2})


def test_a_group_given_in_part_keeps_the_rest_of_the_preset():
    warp = RoamConfig.parse({"preset": "2020", "warp": {"shift": 0.2}}, where="").warp
    assert warp == WarpConfig(probability=0, shift=0.2)


def test_method_settings_are_checked_and_written_out_whole():
    settings = RunSettings.parse({**DATA, "method": {"name": "roam", "alpha": 0.3}}, where="")
    resolved = settings.resolved()["method"]
    assert resolved["alpha"] == 0.3
    assert resolved.keys() == {"name", *RoamConfig.model_fields}
    with pytest.raises(UserError, match=r"method\.alfa: unknown setting; did you mean 'alpha'"):
        RunSettings.parse({**DATA, "method": {"name": "roam", "alfa": 1}}, where="").resolved()
    with pytest.raises(UserError, match="--method: got 'rome', expected one of: supervised, roam, equireg"):
        RunSettings.parse({**DATA, "method": {"name": "rome"}}, where="").resolved()


@pytest.mark.parametrize("name", METHODS)
def test_resolved_settings_resolve_to_themselves(name):
    presets = [None, *METHODS[name].Config.presets]
    for preset in presets:
        first = RunSettings.parse({**DATA, "method": {"name": name, "preset": preset}}, where="")
        again = RunSettings.parse(first.resolved(), where="")
        assert again.resolved() == first.resolved()


def test_a_preset_fills_in_and_what_is_given_wins():
    config = RoamConfig.parse({"preset": "2020", "alpha": 0.2}, where="method")
    assert (config.alpha, config.mix_skips, config.augment, config.ema) == (0.2, False, False, 0.0)
    assert config.weight * 28 == pytest.approx(75)
    with pytest.raises(UserError, match=r"preset '1999': expected one of: 2020"):
        RoamConfig.parse({"preset": "1999"}, where="method")


def test_file_then_assignments(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("training: {steps: 7, lr: 0.1}\nseed: 3\n")
    values = read_settings(path, {"training.steps": 9, "method.name": "roam"})
    assert values == {"training": {"steps": 9, "lr": 0.1}, "seed": 3, "method": {"name": "roam"}}
    assert flat(values)["training.steps"] == 9
    with pytest.raises(UserError, match="'seed' is a value"):
        read_settings(path, {"seed.x": 1})
    path.write_text("a: [")
    with pytest.raises(UserError, match=r"run\.yaml.*expected a YAML file"):
        read_settings(path, {})


def test_a_message_does_not_print_a_value_of_any_size():
    """Ten levels of YAML aliases are ten thousand million values in 300 bytes; repr would not end."""
    bomb: list[object] = ["lol"] * 9
    for _ in range(10):
        bomb = [bomb] * 9
    with pytest.raises(UserError, match=r"seed: got \[+\.\.\.\]") as told:
        RunSettings.parse({"data": {"path": "x"}, "seed": bomb}, where="")
    assert len(str(told.value)) < 2000
    with pytest.raises(UserError, match=r"seed: got 'aaa.*\.\.\..*aaa'") as told:
        RunSettings.parse({"data": {"path": "x"}, "seed": "a" * 100000}, where="")
    assert len(str(told.value)) < 400


def laughs(levels):
    """Ten of the level below at each level, by YAML's aliases."""
    lines = ["a0: &a0 [" + ", ".join("x" * 10) + "]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &a [1, *a]", "a value that holds itself"),
        ("a: &a {b: {c: *a}}", "a value that holds itself"),
        (laughs(10), r"a value that is repeated and holds \d{6,} others"),
        ("a: [1, .inf]", "the number inf"),
        ("a: {.nan: 1}", "the number nan"),
        ('a: "\\ud800"', "the text .*, which is not Unicode"),
    ],
)
def test_values_that_no_file_of_ours_holds(text, found):
    with pytest.raises(ValueError, match=found):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["a: &a [1, 2]\nb: [*a, *a]\nc: *a", laughs(3), "a: [[], {}, null]"])
def test_aliases_of_a_reasonable_size_are_taken(text):
    assert unusual(parse_yaml(text)) == ""
    assert unusual([[1] * 1000] * 1000) == ""
