import json

import pytest
from support.command_line import semiseg, train_run_on, write_study

from semiseg.errors import UserError
from semiseg.models.layers import list_layers, table
from semiseg.networks.editable import Layer

SMALL = {"widths": [4, 8, 16]}


def test_layers_in_the_order_in_which_they_run_with_shapes_and_skips():
    first, second = ("encoder.stages.0",), ("encoder.stages.0", "encoder.stages.1")
    assert list_layers("roam-unet", 3, SMALL) == [
        Layer("input", "input", (1, 64, 64, 64), ()),
        Layer("encoder.stages.0", "1", (4, 64, 64, 64), ()),
        Layer("encoder.stages.1", "2", (8, 32, 32, 32), first),
        Layer("encoder.stages.2", "3", (16, 16, 16, 16), second),
        Layer("decoder.stages.0", "", (8, 32, 32, 32), first),
        Layer("decoder.stages.1", "last", (4, 64, 64, 64), ()),
    ]


def test_two_axes_unless_told():
    assert [layer.shape for layer in list_layers("fcdensenet", None, {"blocks": [1, 1], "growth": 4, "first": 8})] == [
        (1, 256, 256), (12, 256, 256), (4, 128, 128), (20, 256, 256),
    ]  # fmt: skip


def test_table():
    layers = [Layer("input", "input", (1, 8, 8), ()), Layer("a", "", (2, 4, 4), None)]
    assert table(layers).splitlines() == [
        "layer  ROAM   output     skips around it",
        "input  input  1 x 8 x 8  -",
        "a      -      2 x 4 x 4  not named",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["unit"], "network.name: got 'unit', expected unet, roam-unet"),
        (["unet", "--dims", "4"], "--dims: got '4', expected one of: 2, 3"),
        (["unet", "--set", "method.alpha=3"], "--set method: got a setting of something else, expected network.KEY"),
        (["unet", "--set", "network.width=[8]"], "network.width: unknown setting; did you mean 'widths'"),
    ],
)
def test_mistakes(words, message):
    code, out, err = semiseg("layers", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_run_and_its_model_have_the_layers_of_their_plan(tmp_path):
    run = train_run_on(write_study(tmp_path / "study"), tmp_path / "run")
    layers = list_layers(str(run))
    assert [layer.shape for layer in layers] == [(1, 8, 8), (4, 8, 8), (8, 4, 4), (4, 8, 8)]
    assert list_layers(str(run / "model")) == layers
    code, out, _ = semiseg("layers", run, "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == [layer.name for layer in layers]
    with pytest.raises(UserError, match="got --dims or --set beside a run or model"):
        list_layers(str(run), 2)
