import json
import shutil

import pytest
import yaml
from support.finished import make_bench, make_dataset, make_ranking, make_run

from semiseg.bench.choice import Choice
from semiseg.bench.grid import BenchSettings, bench_settings
from semiseg.errors import InputError, UserError
from semiseg.manifest import write_manifest
from semiseg.report import sources
from semiseg.report.page import report_folders
from semiseg.report.sources import bench_config, open_studies, runs_study
from semiseg.report.study import Result


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    data = make_dataset(root / "data")
    make_run(root / "a" / "run", data)
    make_run(root / "b" / "run", data, method="roam")
    return root


def test_runs_go_by_as_much_of_their_path_as_tells_them_apart(root):
    (study,) = open_studies([root / "a" / "run", root / "b" / "run"])
    assert [arm.name for arm in study.arms] == ["a/run", "b/run"]
    assert study.title == "Runs: a/run, b/run"
    (alone,) = open_studies([root / "a" / "run"])
    assert alone.title == "run"
    assert alone.arms[0].results[0].evaluation == root / "a" / "run" / "scores"
    assert set(alone.cases) == set("abcde")
    with pytest.raises(UserError, match="got it twice"):
        open_studies([root / "a" / "run", root / "b" / ".." / "a" / "run"])


def test_scores_in_a_folder_of_their_own_go_with_the_run_that_predicted(root, tmp_path):
    run = make_run(tmp_path / "run", root / "data")
    scores = tmp_path / "elsewhere"
    shutil.move(run / "scores", scores)
    other = root / "a" / "run"
    study = open_studies([other, run, scores])[0]
    assert [arm.results[0].evaluation for arm in study.arms] == [other / "scores", scores]
    assert study.arms[1].results[0].predictions == run / "predictions"
    with pytest.raises(UserError, match=r"elsewhere: got results of .*run, expected those of one of the runs given"):
        open_studies([other, scores])
    shutil.copytree(scores, tmp_path / "again")
    with pytest.raises(UserError, match="second evaluation"):
        open_studies([run, scores, tmp_path / "again"])


def test_scores_go_with_their_run_when_both_have_moved(root, tmp_path, monkeypatch):
    run = make_run(tmp_path / "old", root / "data")
    manifest = json.loads((run / "predictions" / "manifest.json").read_text())
    (run / "predictions" / "manifest.json").write_text(json.dumps(manifest | {"weights": ["1f"]}))
    shutil.move(run / "scores", tmp_path / "elsewhere")
    run = run.rename(tmp_path / "new")
    inputs = json.loads((tmp_path / "elsewhere" / "manifest.json").read_text().replace("/old/", "/new/"))
    (tmp_path / "elsewhere" / "manifest.json").write_text(json.dumps(inputs))
    monkeypatch.setattr(sources, "_weights", lambda path: {run: "1f"}.get(path))
    (study,) = open_studies([root / "a" / "run", run, tmp_path / "elsewhere"])
    assert study.arms[1].results[0].evaluation == tmp_path / "elsewhere"


def test_results_of_several_models_together_belong_to_none_of_them(root, tmp_path):
    ranked = make_ranking(tmp_path / "ranked", root / "a" / "run")
    write_manifest(ranked, "rank", [], [], 1.0, models=[str(root / "a" / "run"), str(root / "b" / "run")])
    with pytest.raises(UserError, match=r"got results of .*a/run and .*b/run, expected"):
        open_studies([root / "a" / "run", root / "b" / "run", ranked])


def test_a_ranking_is_found_inside_its_run_and_beside_it(root, tmp_path):
    run = make_run(tmp_path / "run", root / "data")
    beside = make_ranking(tmp_path / "ranked", run)
    (study,) = open_studies([run, beside])
    (core, shell) = study.correlations["run"]
    assert (core.name, core.score) == ("core", "estimated_dice")
    assert core.true == (0.9, 0.7, 0.5, 0.8)
    assert shell.estimated == pytest.approx((0.75, 0.55, 0.15, 0.65))
    make_ranking(run / "rank", run, estimates=False)
    (study,) = open_studies([run])
    assert study.correlations["run"][0].score == "equivariance_dice"


def test_a_bench_without_a_finished_run_is_still_reported(root, tmp_path):
    (study,) = open_studies([make_bench(tmp_path / "bench", root / "data", runs=0 + 1)])
    assert len(study.lines) == 2 * 3 + 2
    shutil.rmtree(tmp_path / "bench" / "runs")
    (study,) = open_studies([tmp_path / "bench"])
    assert (study.arms, study.lines) == ((), ())
    assert len(study.unfinished) == 2 * 3 + 3 * 2


def test_the_settings_of_a_bench_make_the_same_bench(root, tmp_path):
    choice = {"against": "roam", "family": ("equireg",), "before_scores": Choice(against="supervised")}
    bench = make_bench(tmp_path / "bench", root / "data", runs=1, **choice)
    settings = BenchSettings.parse(yaml.safe_load((bench / "bench.yaml").read_text()), where="")
    again = bench_settings(yaml.safe_load(bench_config(settings)))
    assert again.run == settings.run
    assert list(again.methods) == list(settings.methods)
    assert (again.labelled, again.runs, again.upper_runs) == (("2", "4"), 1, 3)
    assert {key: getattr(again, key) for key in choice} == choice


def test_a_bench_is_shown_as_it_was_chosen(root, tmp_path):
    """Against roam, with equireg alone in the family, and that after scores were there."""
    choice = {"against": "roam", "family": ("equireg",), "before_scores": Choice(against="supervised")}
    (study,) = open_studies([make_bench(tmp_path / "bench", root / "data", runs=8, **choice)])
    kinds = [(line.method, line.against, line.verdict.kind) for line in study.lines if line.verdict]
    assert kinds == [("supervised", "roam", "not judged"), ("equireg", "roam", "worse")] * 2
    (note,) = study.notes
    assert note.startswith("chosen after scores were there: against roam, family: equireg; before: against supervised")
    text = report_folders([tmp_path / "bench"], tmp_path / "report.html").read_text()
    assert f"C{note[1:]}." in text
    assert "in Dice points from roam with the same labels" in text
    assert "Worse than roam: -" in text


def test_mistakes_are_named(root, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: got no such folder, expected a run .*name the --out of"):
        open_studies([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="at least one"):
        runs_study([], "t")
    with pytest.raises(UserError, match="no name twice"):
        runs_study([Result("x", root / "a" / "run"), Result("x", root / "b" / "run")], "t")
    (tmp_path / "bench.yaml").write_text("runs: [")
    with pytest.raises(InputError, match=r"bench\.yaml: .*expected the settings of a bench"):
        open_studies([tmp_path])
