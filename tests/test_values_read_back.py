"""Every value of every file that is read back, in turn another one: it is taken, or it is one message, no traceback."""

import copy
import json
import shutil

import pytest
import yaml
from support.finished import CASES, make_bench, make_dataset, make_plan, make_run

from semiseg.bench.grid import BenchSettings
from semiseg.data.corrections import RECORD, read_corrections, refuse_changed
from semiseg.data.label_tables import apply_table
from semiseg.data.layouts import open_dataset
from semiseg.data.plan import Plan
from semiseg.data.splits import Splits
from semiseg.errors import UserError
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.experiments.run_settings import RunSettings, read_settings
from semiseg.manifest import claim, read_manifest
from semiseg.models.model import build_network, load_model, save_model
from semiseg.models.volumes import Volume
from semiseg.prediction.cases import refuse_other_predictions
from semiseg.rank.ranking import Transforms
from semiseg.rank.scans import volumes_of
from semiseg.report.page import _machines, _splits, report_folders
from semiseg.report.sources import open_studies
from semiseg.runs.folder import RunFolder

OTHERS = [
    None, 5, -1, 0, 0.5, 1e308, 10**30, True, "x", "", "a\nb", "../../etc/passwd", "\ud800", "9" * 5000, [], [1],
    [["a"]], [None], {}, {"a": 1}, {"": {}}, [{}], float("inf"), float("nan"),
]  # fmt: skip
GONE = object()
VOLUME = Volume(name="core", value="1", kind="class", scans=3, found_in=3, log_mean=1.0, log_deviation=0.5)


def places(value, path=(), depth=7):
    """Paths to every value; of a list, to the first."""
    yield path
    if depth and isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key), depth - 1)
    elif depth and isinstance(value, list) and value:
        yield from places(value[0], (*path, 0), depth - 1)


def changed(document, path, value):
    if not path:
        return value
    document = copy.deepcopy(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset, a run with scores and predictions, a model, a review, a bench."""
    root = tmp_path_factory.mktemp("values")
    data = make_dataset(root / "data")
    run = make_run(root / "run", data)
    plan = make_plan()
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"widths": (2, 4), "strides": ((2, 2),)})})
    facts = {"classes": plan.classes, "volumes": [VOLUME.model_dump()]}
    save_model(run / "model", build_network(plan).state_dict(), plan, facts)
    shutil.copytree(run / "model", root / "model")
    manifest = json.loads((run / "predictions" / "manifest.json").read_text())
    manifest |= {
        "requested": [*CASES],
        "weights": ["0" * 32],
        "tta": False,
        "labels": {"relabel": {"9": 1}, "other_is_background": True, "regions": {"whole": [1, 4]}},
    }
    (run / "predictions" / "manifest.json").write_text(json.dumps(manifest))
    (run / "predictions" / "labels.json").write_text(json.dumps(plan.classes))
    rows = [{"case": name, "label": f"{name}.nii.gz", "hash": "0" * 32, "from": "dataset"} for name in CASES]
    (run / "provenance.json").write_text(json.dumps(rows))
    (root / "review").mkdir()
    one = {"number": 1, "label": "001_a.nii.gz", "voxels": "0" * 32, "images": ["0" * 32], "files": ["001_a.nii.gz"]}
    (root / "review" / RECORD).write_text(json.dumps({"weights": ["0" * 32], "cases": {"a": one}}))
    Transforms().save(root / "transforms.json")
    shutil.copy(make_bench(root / "bench", data, runs=1) / "bench.yaml", root / "bench.yaml")
    (root / "classes.yaml").write_text("core: [1, 3]\nshell: 4\nother: background\n")
    settings = RunSettings.parse({"data": {"path": str(data)}}, where="").resolved()
    (root / "settings.yaml").write_text(yaml.safe_dump(settings))
    return root


def scored(root, out):
    evaluate_folder(root / "run" / "predictions", root / "data", out)


READERS = {
    "data/dataset.json": lambda root, _: open_dataset(root / "data"),
    "run/plan.json": lambda root, _: Plan.load(root / "run" / "plan.json"),
    "run/splits.json": lambda root, _: (
        Splits.load(root / "run" / "splits.json", open_dataset(root / "data")),
        [list(_splits(study)) for study in open_studies([root / "run"])],
    ),
    "run/result.json": lambda root, _: (RunFolder(root / "run").read_result(), open_studies([root / "run"])),
    "run/env.json": lambda root, _: list(map(_machines, open_studies([root / "run"]))),
    "run/config.yaml": lambda root, _: RunFolder(root / "run").read_config(),
    "run/provenance.json": lambda root, _: refuse_changed(
        root / "run" / "provenance.json", json.loads((root / "run" / "provenance.json").read_text())
    ),
    "run/predictions/manifest.json": lambda root, out: (
        claim(root / "run" / "predictions", "predict", []),
        refuse_other_predictions(root / "run" / "predictions", {"weights": ["0" * 32], "tta": False}),
        read_manifest(root / "run" / "predictions"),
        scored(root, out / "scores"),
    ),
    "run/predictions/labels.json": lambda root, out: scored(root, out / "scores"),
    "run/scores/manifest.json": lambda root, _: open_studies([root / "run"]),
    "model/model.json": lambda root, _: (load_model(root / "model"), volumes_of(root / "model")),
    "review/review.json": lambda root, _: read_corrections(root / "review"),
    "transforms.json": lambda root, _: Transforms.load(root / "transforms.json"),
    "bench.yaml": lambda root, _: BenchSettings.read(root / "bench.yaml"),
    "classes.yaml": lambda root, _: apply_table(open_dataset(root / "data"), str(root / "classes.yaml")),
    "settings.yaml": lambda root, _: RunSettings.parse(read_settings(root / "settings.yaml", {}), "").resolved(),
}
REPORTS = {
    **dict.fromkeys(("run/env.json", "run/config.yaml", "run/scores/manifest.json", "run/splits.json"), "run"),
    "bench/bench.yaml": "bench",
}
"""What a whole report reads too, which takes a second each time."""
MANY = 40
"""Values of a file, of which each becomes a part of the others only, in turn."""


@pytest.mark.parametrize("name", READERS)
def test_every_value_is_taken_or_is_one_message(root, tmp_path, name):
    try_all(root, tmp_path, name, READERS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", REPORTS)
def test_every_value_that_a_report_reads(root, tmp_path, name):
    try_all(root, tmp_path, name, lambda root, out: report_folders([root / REPORTS[name]], out / "r.html"), parts=12)


def try_all(root, tmp_path, name, read, parts=4):
    path, is_json = root / name, name.endswith(".json")
    text = path.read_text(encoding="utf-8")
    document = json.loads(text) if is_json else yaml.safe_load(text)
    refused = 0
    try:
        every = list(places(document))
        for number, place in enumerate(every):
            others = OTHERS[number % parts :: parts] if len(every) > MANY else OTHERS
            for value in [*others, *([GONE] if place else [])]:
                other = changed(document, place, value)
                path.write_text(json.dumps(other) if is_json else yaml.safe_dump(other), encoding="utf-8")
                try:
                    read(root, tmp_path / str(number))
                except UserError:
                    refused += 1
                except Exception as error:
                    raise AssertionError(
                        f"{name}: {'.'.join(map(str, place))} = {value!r:.80}: {error!r:.300}"
                    ) from error
    finally:
        path.write_text(text, encoding="utf-8")
    assert refused > len(OTHERS) / 2
