"""Whatever is wrong with a file that is read back, it is one message that names the file; never a traceback."""

from pathlib import Path

import pytest
from support.finished import make_dataset, make_run

from semiseg.bench.grid import BenchSettings
from semiseg.data.corrections import read_corrections, refuse_changed
from semiseg.data.label_tables import apply_table
from semiseg.data.layouts import open_dataset
from semiseg.data.layouts.listing import read_description
from semiseg.data.plan import Plan
from semiseg.data.splits import SplitNames
from semiseg.errors import UserError
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.evaluation.parts import read_parts
from semiseg.experiments.run_settings import read_settings
from semiseg.files import read_json, read_yaml
from semiseg.manifest import claim
from semiseg.models.model import load_model, model_facts
from semiseg.prediction.cases import refuse_other_predictions
from semiseg.prediction.segment import _chosen
from semiseg.rank.ranking import Transforms
from semiseg.report.sources import open_studies
from semiseg.runs.folder import RunFolder

TEXTS = {
    "empty": b"",
    "nested": b"[" * 100000,
    "nested object": b'{"a":' * 100000,
    "latin-1": "caf\xe9: 1".encode("latin-1"),
    "binary": bytes(range(256)),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "null": b"null",
    "number": b"5",
    "text": b'"x"',
    "list": b"[]",
    "list of numbers": b"[5, 6]",
    "list of lists": b'[[["a"]]]',
    "object": b"{}",
    "other keys": b'{"cases": 5, "plan": [1], "format": 1, "labels": 5, "weights": {}, "methods": {"x": [1]}}',
    "a date that is none": b"seed: 2001-99-99",
    "a tag": b"!!python/object/apply:os.system ['true']",
    "half a character": b'{"plan": {}, "format": "\\ud800", "labels": {"\\udce9": 1}, "cases": {}}',
    "half a character as a name": b'{"\\ud800": 1}',
    "infinity": b'{"plan": {"memory_gb": Infinity}, "format": 1, "seed": -Infinity, "cases": 1e999}',
    "aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nseed: *b",
}
MAY_PASS = {"object", "null", "empty", "list"}
"""Texts that some files may hold."""


def in_folder(name, read):
    def reader(path: Path) -> None:
        target = path.parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        read(target)

    return reader


def predictions(path: Path) -> None:
    data = make_dataset(path.parent / "data")
    folder = make_run(path.parent / "run", data) / "predictions"
    path.rename(folder / "manifest.json")
    evaluate_folder(folder, data, path.parent / "out")


READERS = {
    "JSON": lambda path: _typed(read_json(path, "a thing", "mend it")),
    "YAML": lambda path: _typed(read_yaml(path, "a thing", "mend it")),
    "plan": Plan.load,
    "splits": SplitNames.load,
    "model": in_folder("m/model.json", lambda path: load_model(path.parent)),
    "result": in_folder("r/result.json", lambda path: RunFolder(path.parent).read_result()),
    "environment": in_folder("r/env.json", lambda path: _typed(RunFolder(path.parent).read_environment())),
    "config of a run": in_folder("r/config.yaml", lambda path: RunFolder(path.parent).read_config()),
    "log": in_folder("r/metrics.jsonl", lambda path: RunFolder(path.parent).train_lines()),
    "review": in_folder("v/review.json", lambda path: read_corrections(path.parent)),
    "provenance": lambda path: refuse_changed(path, [{"case": "a", "label": "a.nii.gz", "hash": "0"}]),
    "bench": in_folder("b/bench.yaml", BenchSettings.read),
    "config": lambda path: _settings(path),
    "dataset": in_folder("d/dataset.json", lambda path: read_description(path.parent)),
    "transforms": Transforms.load,
    "shard": in_folder("o/shards/1of2/scores.json", lambda path: read_parts(path.parents[2], {}, {})),
    "manifest": in_folder("o/manifest.json", lambda path: claim(path.parent, "predict", [])),
    "predictions of a model": in_folder(
        "o/manifest.json", lambda path: refuse_other_predictions(path.parent, {"a": 1})
    ),
    "cases": in_folder("cases.json", lambda path: _chosen([], path)),
    "studies": in_folder("s/bench.yaml", lambda path: open_studies([path.parent])),
}


def _typed(value: object) -> None:
    if not isinstance(value, dict) or not value:
        raise UserError("the caller refuses another type")


def _settings(path: Path) -> None:
    from semiseg.experiments.run_settings import RunSettings

    RunSettings.parse(read_settings(path, {}), where="")


HARMLESS = {
    "log": set(TEXTS),  # damaged lines are left out
    "dataset": MAY_PASS,
    "JSON": {"other keys"},
    "YAML": {"other keys", "aliases", "infinity"},
    "environment": {"other keys"},
    "predictions of a model": {"object", "other keys"},
    "transforms": {"object"},
}
"""Reader to the texts that it takes."""


def message_of(read, path: Path) -> str | None:
    """What a user is told; None where the file is taken. Any other exception is a defect."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_one_message(tmp_path, reader, text):
    path = tmp_path / "file.json"
    path.write_bytes(TEXTS[text])
    message = message_of(READERS[reader], path)
    if message is None:
        assert text in HARMLESS.get(reader, set())
    else:
        assert 0 < len(message) < 8000


@pytest.mark.parametrize("text", ["nested", "latin-1", "null", "number", "list", "other keys"])
def test_a_damaged_manifest_of_predictions_is_one_message(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_bytes(TEXTS[text])
    with pytest.raises(UserError, match=r"manifest\.json"):
        predictions(path)


@pytest.mark.parametrize("text", [t for t in TEXTS if t != "aliases"])
def test_a_damaged_table_of_classes_is_one_message(tmp_path, text):
    path = tmp_path / "classes.yaml"
    path.write_bytes(TEXTS[text])
    with pytest.raises(UserError, match=r"classes\.yaml"):
        apply_table(open_dataset(make_dataset(tmp_path)), str(path))


@pytest.mark.parametrize("text", TEXTS)
def test_facts_about_a_model_are_empty_where_they_cannot_be_read(tmp_path, text):
    (tmp_path / "model.json").write_bytes(TEXTS[text])
    assert isinstance(model_facts(tmp_path), dict)
