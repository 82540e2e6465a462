"""What folders of results hold: runs, benches, and the scores, predictions and rankings beside them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from semiseg.bench.grid import ALL, BenchSettings, Run, is_finished, planned_runs
from semiseg.bench.lines import notes, summarise
from semiseg.bench.results import Finished, read_finished
from semiseg.data.dataset import Case
from semiseg.data.layouts import open_dataset
from semiseg.errors import UserError
from semiseg.files import is_there
from semiseg.manifest import Made, read_manifest
from semiseg.progress import say
from semiseg.rank.correlation import Correlation, rank_correlation, read_ranking
from semiseg.report.study import Arm, Result, Study
from semiseg.runs.contents import read_scores
from semiseg.runs.folder import METRICS, RunFolder

ESTIMATES = ("estimated_dice", "equivariance_dice")
"""Columns of ranking.csv that are shown against the true Dice; the first one that has values."""


@dataclass(frozen=True)
class _Beside:
    """An evaluation or a ranking in a folder of its own, and the models that it is of: paths and hashes of weights."""

    folder: Path
    models: tuple[str, ...]
    weights: tuple[str, ...] = ()

    def belongs_to(self, run: Path) -> bool:
        """Whether this run alone made it, wherever it lay at that time."""
        if len(self.models) != 1:
            return False
        places = {run.resolve(), (run / "model").resolve()}
        return Path(self.models[0]).resolve() in places or _weights(run) in self.weights


def open_studies(folders: Sequence[Path]) -> list[Study]:
    """A study of all runs together, one of every bench; scores and rankings go with the run that they were made by.

    A folder is a run, a bench (bench.yaml), a ranking (ranking.csv) or an evaluation (metrics.csv). A run's own scores
    are in `scores`, its own predictions in `predictions`; rankings directly inside a run are found.

    Raises UserError for a folder that is given twice, is none of these or belongs to none of the runs, InputError for a
    damaged one.
    """
    kinds: dict[Path, str] = {}
    for folder in map(Path, folders):
        if any(folder.resolve() == other.resolve() for other in kinds):
            raise UserError(f"{folder}: got it twice, expected every folder once; leave one out")
        kinds[folder] = _kind(folder)
    of = {kind: [folder for folder, own in kinds.items() if own == kind] for kind in dict.fromkeys(kinds.values())}
    runs = of.get("run", [])
    evaluations = [_beside(folder, _predictions_of_evaluation(folder)) for folder in of.get("evaluation", [])]
    rankings = [_beside(folder, folder) for folder in of.get("ranking", [])]
    rankings += [_beside(path.parent, path.parent) for run in runs for path in sorted(run.glob("*/ranking.csv"))]
    studies = [_bench(folder, rankings) for folder in of.get("bench", [])]
    if runs:
        studies.insert(0, _runs(runs, evaluations, rankings))
    shown = [result.run for study in studies for arm in study.arms for result in arm.results]
    for beside in (*evaluations, *rankings):
        if not any(beside.belongs_to(run) for run in shown):
            made_by = " and ".join(beside.models) or "an unknown model"
            raise UserError(
                f"{beside.folder}: got results of {made_by}, expected those of one of the runs given; name that run too"
            )
    return studies


def runs_study(
    results: Sequence[Result],
    title: str,
    rankings: Sequence[_Beside] = (),
    commands: Sequence[str] | None = None,
) -> Study:
    """Finished or unfinished runs, each an arm; the first one is what the others are compared with.

    commands: that repeat the results; default: what each run's settings say. Raises UserError without results or with
    two of one name.
    """
    names = [result.method for result in results]
    if not results or len(set(names)) < len(names):
        raise UserError(f"report: got the methods {names}, expected at least one and no name twice; rename one")
    arms = tuple(Arm(result.method, result.method, (result,)) for result in results)
    return Study(
        title,
        arms,
        cases=_cases([result for result in results if result.evaluation]),
        correlations=_correlations(arms, rankings),
        commands=tuple(commands or (line for result in results for line in _run_commands(result))),
        settings={result.method: RunFolder(result.run).config_text() for result in results},
    )


def _kind(folder: Path) -> str:
    kinds = {
        "bench.yaml": "bench",
        "config.yaml": "run",
        "ranking.csv": "ranking",
        "metrics.csv": "evaluation",
    }
    for name, kind in kinds.items():
        if (folder / name).is_file():
            return kind
    found = "no such folder" if not folder.is_dir() else "a folder without any of these"
    raise UserError(
        f"{folder}: got {found}, expected a run (config.yaml), a bench (bench.yaml), a ranking (ranking.csv) or "
        "scores (metrics.csv); name the --out of `semiseg train`, `bench`, `rank` or `evaluate`"
    )


def _runs(folders: Sequence[Path], evaluations: Sequence[_Beside], rankings: Sequence[_Beside]) -> Study:
    results = [_result(folder, name, evaluations) for folder, name in zip(folders, _names(folders), strict=True)]
    names = [result.method for result in results]
    return runs_study(results, names[0] if len(names) == 1 else "Runs: " + ", ".join(names), rankings)


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as many of their parents' as tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return names  # the same folder twice, which is refused


def _result(run: Path, name: str, evaluations: Sequence[_Beside]) -> Result:
    scored = [beside.folder for beside in evaluations if beside.belongs_to(run)]
    if len(scored) > 1:
        raise UserError(
            f"{scored[1]}: got a second evaluation of {run}, expected one of each run; "
            f"leave out {scored[0]} or this one"
        )
    if scored:
        return Result(name, run, scored[0], _predictions_of_evaluation(scored[0]))
    own = RunFolder(run).scores
    return Result(name, run, own, run / "predictions") if (own / METRICS).exists() else Result(name, run)


def _predictions_of_evaluation(evaluation: Path) -> Path | None:
    """The folder that `evaluate` read: it holds one of the files, and the manifest of `predict`."""
    made = read_manifest(evaluation) or Made()
    folders = dict.fromkeys(Path(path).parent for path in made.inputs)
    return next((folder for folder in folders if (read_manifest(folder) or Made()).command == "predict"), None)


def _beside(folder: Path, made: Path | None) -> _Beside:
    """made: the folder whose manifest names the models."""
    facts = (read_manifest(made) if made else None) or Made()
    return _Beside(folder, facts.models, facts.weights)


@lru_cache(maxsize=64)
def _weights(run: Path) -> str | None:
    """Hash of those of the run's model; None where it has none."""
    from semiseg.models.model import load_model, weights_hash

    try:
        return weights_hash(load_model(run))
    except UserError:
        return None


def _bench(folder: Path, rankings: Sequence[_Beside]) -> Study:
    path = folder / "bench.yaml"
    settings = BenchSettings.read(path)
    finished: dict[tuple[str, str, int], list[Finished]] = {}
    unfinished = []
    for run in planned_runs(settings):
        place = folder / "runs" / run.name
        if is_finished(place):
            finished.setdefault((run.method, run.labelled, run.budget), []).append(read_finished(run, place))
        else:
            unfinished.append(run.name)
    found = sorted((folder / "runs").glob("*/*/ranking.csv"))
    rankings = [*rankings, *(_beside(path.parent, path.parent) for path in found)]
    arms = tuple(_arm(folder, [one.run for one in group]) for group in finished.values())
    everything = [one for group in finished.values() for one in group]
    lines = summarise(everything, settings.choice)
    return Study(
        f"Comparison: {folder.resolve().name}",
        arms,
        cases=_cases([arms[0].results[0]]) if arms else {},
        lines=tuple(lines),
        against=settings.against,
        notes=tuple(notes(lines, settings.choice, settings.before_scores)),
        unfinished=tuple(unfinished),
        correlations=_correlations(arms, rankings),
        commands=("# with the settings below in the file bench-settings.yaml",
                  shlex.join(["semiseg", "bench", settings.run["data"]["path"], "--config", "bench-settings.yaml",
                              "--out", "again"])),
        settings={"bench-settings.yaml": bench_config(settings)},
    )  # fmt: skip


def bench_config(settings: BenchSettings) -> str:
    """What `semiseg bench --config` takes to make the same bench again."""
    compared = settings.model_dump(mode="json", exclude={"run"})
    common = {key: value for key, value in settings.run.items() if key != "method"}
    return yaml.safe_dump({**compared, **common}, sort_keys=False, allow_unicode=True)


def _arm(folder: Path, runs: Sequence[Run]) -> Arm:
    first = runs[0]
    longer = f", {first.budget}x steps" if first.budget != 1 else ""
    labels = "all labels" if first.labelled == ALL else f"{first.labelled} labels"
    places = [RunFolder(folder / "runs" / run.name) for run in runs]
    name = f"{first.method}, {labels}{longer}"
    results = tuple(Result(name, one.path, one.scores, one.path / "predictions") for one in places)
    return Arm(name, first.method, results, first.labelled, first.budget)


def _cases(results: Sequence[Result]) -> dict[str, Case]:
    """The scans that were scored, as far as they are still there, and are those that were scored."""
    found: dict[str, Case] = {}
    for result in results:
        data: Mapping[str, Any] = RunFolder(result.run).read_config()["data"]
        if not is_there(Path(data["path"])):
            continue
        dataset = open_dataset(data["path"], data.get("layout"), data.get("unlabelled"), data.get("channels"))
        scored = {score.case for score in result.scores()} - found.keys()
        others = []
        for case in dataset.cases:
            if case.label is None or case.name not in scored:
                continue
            if result.has_seen(*case.images, case.label):
                found[case.name] = case
            else:
                others.append(case.name)
        if others:
            say(
                f"{result.run}: {len(others)} of {len(scored)} scored scans are not shown, as the files in "
                f"{data['path']} are not those that were scored ({', '.join(others):.200})"
            )
    return found


def _correlations(arms: Sequence[Arm], rankings: Sequence[_Beside]) -> dict[str, list[Correlation]]:
    """Of every arm with a ranking by one of its runs, on the scans that both have."""
    found: dict[str, list[Correlation]] = {}
    for arm in arms:
        for result in arm.results:
            for beside in rankings:
                if result.evaluation and beside.belongs_to(result.run) and arm.name not in found:
                    both = _correlation(beside.folder / "ranking.csv", result.evaluation)
                    found |= {arm.name: both} if both else {}
    return found


def _correlation(ranking: Path, evaluation: Path) -> list[Correlation]:
    rows = read_ranking(ranking, ("case", "class", "value", "kind"))
    if not {row["case"] for row in rows} & {score.case for score in read_scores(evaluation / METRICS)}:
        return []  # scans without labels
    score = next((name for name in ESTIMATES if any(row.get(name) for row in rows)), ESTIMATES[-1])
    return [each for each in rank_correlation(ranking, evaluation / METRICS, score) if each.cases]


def _run_commands(result: Result) -> list[str]:
    """As it was called, then as its settings say."""
    run = RunFolder(result.run)
    config = run.read_config()
    again, data = f"again/{Path(result.method).name}", str(config["data"]["path"])
    words = list(run.read_environment().get("command", []))
    lines = [f"# {result.method}"]
    if len(words) > 1 and Path(words[0]).name in ("semiseg", "cli.py"):
        lines += [f"# began as: {shlex.join(['semiseg', *words[1:]])}"]
    lines.append(shlex.join(["semiseg", "train", data, "--config", str(run.config), "--out", again]))
    if result.evaluation and not config.get("score"):
        cases = ["--cases", f"{again}/splits.json"]
        lines.append(shlex.join(["semiseg", "predict", again, data, *cases, "--out", f"{again}/predictions"]))
        lines.append(shlex.join(["semiseg", "evaluate", f"{again}/predictions", data, "--out", f"{again}/scores"]))
    return lines
