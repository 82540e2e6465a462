"""How many small mistakes the tests notice: mutants drawn with a fixed seed, each run against the tests of its wing.

    pip install cosmic-ray==8.7.0
    OMP_NUM_THREADS=1 nice python benchmarks/mutation.py
    OMP_NUM_THREADS=1 nice python benchmarks/mutation.py --only losses.py transforms/ --again survived

Works on a temporary copy of the checkout, which it leaves as it is. Every result is appended to a file of JSON lines
(file, line, operator, outcome, seconds, the test that failed, diff); a run that was interrupted goes on from there.
The operators are those of cosmic-ray but for what cannot matter (see `counts`), and two of our own: a statement that
only has an effect is left out, a keyword argument is left out. A place in the code is drawn first, then one of its
mutants, so a place with ten possible mutants is drawn no more often than a place with one.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src/semiseg")
DEFAULTS = "tests/cli/test_docs.py::test_a_table_of_settings_has_every_setting_with_its_default"
RANGES = "tests/test_ranges.py"
TESTS = {
    "losses.py": ["tests/test_losses.py"],
    "evaluation/metrics.py": ["tests/evaluation/test_metrics.py"],
    "transforms": ["tests/transforms", RANGES],
    "methods": [RANGES, DEFAULTS, "tests/methods/test_traces.py", "tests/methods"],
    "training/launch.py": ["tests/training/test_launch.py"],
    "training/pictures.py": ["tests/training/test_pictures.py"],
    "training": [RANGES, DEFAULTS, "tests/training", "tests/experiments/test_experiment.py"],
}
"""What is mutated, below `SOURCE`, and the tests that should notice, the quick ones first; the first name that fits."""
OF_ONE_METHOD = {
    **{name: name for name in ("bcp", "cps", "equireg", "fixmatch", "own", "roam", "supervised", "uamt", "unimatch")},
    "mean_teacher": "mean_teacher or MeanTeacher",
}
"""Page of a method to its tests among those of all methods, as pytest's -k has it."""
LEAST = 3
"""Mutants of a file, where there are so many places; the others are shared out by lines."""
LANE = "not slow and not realdata and not slurm"
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow")
ORDER = ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")
GROUPS = [
    ("ReplaceBinaryOperator_", ARITHMETIC),
    ("ReplaceBinaryOperator_", ("BitOr", "BitAnd", "BitXor")),
    ("ReplaceComparisonOperator_", ORDER),
    ("ReplaceComparisonOperator_", ("Is", "IsNot")),
]
"""Operators are exchanged within a group: `a >> b` of two floats is an error that says nothing about tests."""
ALONE = (
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ExceptionReplacer"),
    *("RemoveDecorator", "ZeroIterationForLoop"),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not"),
)


class DropStatement(Operator):
    """A call whose result nobody takes, `x += 1`, or an assignment to an item or attribute becomes `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "simple_stmt" and self._acts(node.children[0]):
            yield node.start_pos, node.end_pos

    @staticmethod
    def _acts(statement: Any) -> bool:
        if statement.type != "expr_stmt":
            return statement.type in ("atom_expr", "power")
        target, assigns = statement.children[:2]
        return target.type in ("atom_expr", "power") or (assigns.type == "operator" and assigns.value != "=")

    def mutate(self, node: Any, _index: int) -> Any:
        node.children[0] = get_ast(node.get_first_leaf().prefix + "pass")
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DropKeyword(Operator):
    """`f(a, b=1)` becomes `f(a)`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        children = [node.children[index] for index in self._keywords(node)]  # now: `mutate` takes one of them away
        yield from [(child.start_pos, child.end_pos) for child in children]

    @staticmethod
    def _keywords(node: Any) -> list[int]:
        if node.type not in ("arglist", "trailer"):
            return []
        return [k for k, c in enumerate(node.children) if c.type == "argument" and c.children[1] == "="]

    def mutate(self, node: Any, index: int) -> Any:
        place = self._keywords(node)[index]
        comma = node.children[place + 1 : place + 2] == [","]
        del node.children[place : place + 1 + comma]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


@dataclass(frozen=True)
class Mutant:
    file: str
    """Below `SOURCE`."""
    line: int
    operator: str
    diff: str
    """The lines that go, marked -, and those that come, marked +."""
    code: str
    """Of the whole mutated file."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.operator, self.diff


def _operators() -> dict[str, Operator]:
    wanted = [*ALONE, *(f"{prefix}{a}_{b}" for prefix, group in GROUPS for a, b in permutations(group, 2))]
    ours = {"DropStatement": DropStatement(), "DropKeyword": DropKeyword()}
    return {name: get_operator(f"core/{name}")() for name in wanted} | ours


OPERATORS = _operators()


def places_of(code: str, name: str) -> dict[str, list[tuple[str, int]]]:
    """Where code can be mutated, and how there: operators and their occurrences.

    A place is called by what does not change when other lines of the file do, so that the same ones are drawn again.
    """
    nodes, idle, lines = list(ast_nodes(get_ast(code))), idle_spans(code), code.splitlines()
    found: dict[tuple[tuple[int, int], str], list[tuple[str, int]]] = defaultdict(list)
    for operator_name, operator in OPERATORS.items():
        spans = [span for node in nodes for span in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(spans):
            if not any(first <= start and end <= last for first, last in idle):
                found[start, operator_name.partition("_")[0]].append((operator_name, occurrence))
    places, alike = dict[str, list[tuple[str, int]]](), Counter[str]()
    for (line, column), kind in sorted(found):
        place = f"{name} {lines[line - 1]} {column} {kind}"
        alike[place] += 1
        places[f"{place} {alike[place]}"] = found[(line, column), kind]
    return places


def mutant_at(file: str, code: str, place: list[tuple[str, int]], choice: random.Random) -> Mutant | None:
    """One of the place's mutants that count, if there is any."""
    for name, occurrence in choice.sample(place, len(place)):
        changed = mutate_code(code, OPERATORS[name], occurrence)
        if changed is not None and counts(code, changed):
            both = zip(code.splitlines(), changed.splitlines(), strict=False)
            line = next(number for number, (old, new) in enumerate(both, 1) if old != new)
            return Mutant(file, line, name, diff_of(code, changed), changed)
    return None


def idle_spans(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a change cannot matter: annotations, which nothing evaluates, and `strict` of zip, a mere assertion."""
    nodes: list[ast.expr | ast.keyword] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            nodes.append(node.annotation)
        elif isinstance(node, ast.FunctionDef) and node.returns:
            nodes.append(node.returns)
        elif isinstance(node, ast.Call):
            nodes += [keyword for keyword in node.keywords if keyword.arg == "strict"]
    return [((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0)) for n in nodes]


def counts(code: str, changed: str) -> bool:
    """Whether the mutant can be compiled, and to another programme."""
    try:
        return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(code))
    except SyntaxError:
        return False


def diff_of(code: str, changed: str) -> str:
    lines = list(difflib.unified_diff(code.splitlines(), changed.splitlines(), n=0, lineterm=""))[2:]
    return "\n".join(line[0] + line[1:].strip() for line in lines if not line.startswith("@@") and line[1:].strip())


def drawn(count: int, seed: int) -> list[Mutant]:
    """Spread over the files by lines; which of a file's places depends on nothing but the seed and the file."""
    found_files = {path for name in TESTS for path in [ROOT / SOURCE / name, *(ROOT / SOURCE / name).glob("**/*.py")]}
    files = sorted(str(path.relative_to(ROOT / SOURCE)) for path in found_files if path.suffix == ".py")
    codes = {file: (ROOT / SOURCE / file).read_text() for file in files}
    found: dict[str, list[Mutant]] = {}
    for file, code in codes.items():
        ways = {random.Random(place): way for place, way in places_of(code, f"{seed} {file}").items()}
        enough = LEAST + 2 * count * len(code) // sum(map(len, codes.values()))
        order = sorted(ways, key=random.Random.random)[:enough]
        mutants = [mutant for choice in order if (mutant := mutant_at(file, code, ways[choice], choice))]
        found[file] = list({mutant.key: mutant for mutant in mutants}.values())
    share = {file: min(LEAST, len(found[file])) for file in files}
    while sum(share.values()) < min(count, sum(map(len, found.values()))):
        left = [file for file in files if share[file] < len(found[file])]
        share[max(left, key=lambda file: len(codes[file].splitlines()) / (share[file] + 1))] += 1
    chosen = [mutant for file in files for mutant in found[file][: share[file]]]
    return sorted(chosen, key=lambda mutant: (mutant.file, mutant.line))


def tests_of(file: str) -> list[str]:
    tests = next(tests for name, tests in TESTS.items() if file == name or file.startswith(f"{name}/"))
    alone = OF_ONE_METHOD.get(Path(file).stem) if file.startswith("methods/") else None
    return [*tests, "-k", alone] if alone else tests


def run_tests(copy: Path, tests: list[str], limit_s: float) -> tuple[str, float, str]:
    """Outcome, seconds, and the test that failed first."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    # no bytecode: two mutants of one second and one length would be taken for the same
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)  # examples that failed for another mutant
    begin = time.monotonic()
    with subprocess.Popen(
        [*command, "-m", LANE, *tests],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "timeout", time.monotonic() - begin, ""
    failed = [line.split()[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    outcome = "killed" if process.returncode else "survived"
    return outcome, time.monotonic() - begin, failed[0] if failed else output[-200:] if process.returncode else ""


def copied(folder: Path) -> Path:
    """The checkout without what git ignores."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    where = [sys.executable, "-c", "import semiseg; print(semiseg.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    found = subprocess.run(where, check=True, capture_output=True, text=True, env=environment).stdout
    if not Path(found).is_relative_to(folder):
        raise SystemExit(f"semiseg: got {found.strip()}, expected the copy in {folder}; is it installed not editable?")
    return folder


def report(mutants: list[Mutant], outcomes: dict[tuple[str, str, str], str]) -> None:
    """A row a file, in Markdown; then the survivors."""
    counts_of: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant in mutants:
        if mutant.key in outcomes:
            counts_of[mutant.file][outcomes[mutant.key]] += 1
            counts_of["all"][outcomes[mutant.key]] += 1
    counts_of["all"] = counts_of.pop("all", Counter())
    print("\n| file | mutants | killed | by the clock | survived |\n|---|---|---|---|---|")
    for file, of_file in counts_of.items():
        numbers = (of_file.total(), *(of_file[name] for name in ("killed", "timeout", "survived")))
        print(f"| `{file}` | {' | '.join(map(str, numbers))} |")
    for mutant in mutants:
        if outcomes.get(mutant.key) == "survived":
            print(f"\n{mutant.file}:{mutant.line} {mutant.operator}\n{mutant.diff}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants of all files together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="files or folders below src/semiseg")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "mutation.jsonl")
    parser.add_argument("--again", choices=("survived", "timeout", "killed"), help="run mutants of this outcome again")
    parser.add_argument("--report", action="store_true", help="only print what is known so far")
    arguments = parser.parse_args()
    mutants = [m for m in drawn(arguments.count, arguments.seed) if m.file.startswith(tuple(arguments.only))]
    outcomes: dict[tuple[str, str, str], str] = {}
    if arguments.results.exists():
        for line in arguments.results.read_text().splitlines():
            row = json.loads(line)  # a later line wins
            outcomes[row["file"], row["operator"], row["diff"]] = row["outcome"]
    todo = [m for m in mutants if outcomes.get(m.key, arguments.again) == arguments.again]
    if todo and not arguments.report:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder, arguments.results.open("a") as results:
            copy, limits_s = copied(Path(folder)), dict[str, float]()
            for number, mutant in enumerate(todo, 1):
                tests = tests_of(mutant.file)
                if (wing := " ".join(tests)) not in limits_s:
                    outcome, duration_s, failed = run_tests(copy, tests, 600)
                    if outcome != "survived":
                        raise SystemExit(f"{wing}: {outcome} without a mutant ({failed}); mend the tests first")
                    limits_s[wing] = 30 + 5 * duration_s
                    print(f"{wing}: {duration_s:.1f} s without a mutant", flush=True)
                path = copy / SOURCE / mutant.file
                code = path.read_text()
                path.write_text(mutant.code)
                outcome, duration_s, failed = run_tests(copy, tests, limits_s[wing])
                path.write_text(code)
                outcomes[mutant.key] = outcome
                row = {**asdict(mutant), "outcome": outcome, "duration_s": round(duration_s, 1), "failed": failed}
                del row["code"]
                print(json.dumps(row), file=results, flush=True)
                print(f"{number}/{len(todo)} {mutant.file}:{mutant.line} {mutant.operator}: {outcome}", flush=True)
    report(mutants, outcomes)


if __name__ == "__main__":
    main()
