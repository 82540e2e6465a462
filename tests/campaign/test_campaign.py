"""A traceback is a defect of ours: of thousands of damaged and hostile inputs, each ends with one clear message.

`python -m campaign --help` (in `tests/`) tells how to try one input alone.
"""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import semiseg.files
import semiseg.models.layers
from campaign import kills
from campaign.case import Case
from campaign.flags import COMMANDS, flags
from campaign.inputs import every_case, sample
from campaign.judge import half_written, try_case
from campaign.kills import FULL, WORKS, Moment, Work
from campaign.world import World, words
from semiseg.errors import InputError, UserError

TESTS = Path(__file__).resolve().parents[1]


def campaign(*arguments: str) -> tuple[int, str]:
    """Run it as people do, without what pytest adds; its exit code and what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    line = [sys.executable, "-m", "campaign", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=TESTS, env=environment)
    return done.returncode, f"{done.stdout}{done.stderr}"


def test_a_sample_of_the_inputs():
    code, said = campaign("--sample", "60")
    assert code == 0, said
    assert said.splitlines()[-1] == "campaign: 60 tried, 60 well, 0 badly"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_input():
    code, said = campaign()
    print(said)
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_kill_and_every_full_disk():
    code, said = campaign("--kills")
    print(said)
    assert code == 0, said


def test_there_are_thousands_of_inputs_of_every_kind_for_every_command():
    first, again = every_case(), every_case()
    assert [case.name for case in first] == [case.name for case in again]
    assert len(first) > 4000
    assert {case.words[0] for case in first} >= {*COMMANDS}
    assert {case.words[0] for case in sample(first, 60)} >= {*COMMANDS} - {"demo"}
    tried = {case.name.rpartition("/")[0] for case in first}
    for flag in flags():
        name = flag.name.removeprefix("--")
        assert f"flag/{flag.command}/{name}" in tried or name in ("quiet", "resume") or flag.command == "demo"


# The judge itself: what it is fed here goes badly.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), study_alone=True)


def writes(name: str, text: str = "x"):
    """In the place of what `layers` calls."""

    def write(*_: object) -> list[object]:
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return []

    return write


def raises(error: BaseException):
    def fail(*_: object) -> None:
        raise error

    return fail


def says(*lines: str, code: int = 3):
    def say(*_: object) -> None:
        print("\n".join(lines), file=sys.stderr)
        os._exit(code)

    return say


def for_ever(*_: object) -> None:
    while True:
        pass


def removes(*_: object) -> list[object]:
    Path("D/images/case0.nii.gz").unlink()
    return []


WELL = {
    "a message": raises(InputError("model.json: got 5, expected 6; repair it")),
    "nothing to complain of": writes("out/a.json", "{}"),
}
BADLY = {
    "a traceback: ValueError: odd": raises(ValueError("odd")),
    "a traceback: SystemError": raises(SystemError()),
    "exit 2, expected 0 or 3": raises(UserError("model.json: odd")),
    "exit -6, expected 0 or 3": lambda *_: os.abort(),
    "names none of model.json": raises(InputError("it is odd")),
    "0 messages": says("model.json is odd"),
    "2 messages": says("error: model.json: odd", "error: model.json: very odd"),
    "20016 characters on standard error": says(f"error: model.json {'x' * 20000}"[:20015]),
    "a raw warning: a.py:1: RuntimeWarning: divide": says("a.py:1: RuntimeWarning: divide", code=0),
    "touched above.txt": writes("../above.txt"),
    "touched here/D/dataset.json": writes("D/dataset.json"),
    "touched here/new": writes("new/file"),
    "touched here/D/images/case0.nii.gz": removes,
    "left a.json half-written": writes("out/a.json", "{"),
    "left a.npy half-written": writes("out/a.npy"),
    "left a.nii.gz half-written": writes("out/a.nii.gz"),
    "left a.safetensors half-written": writes("out/a.safetensors"),
    "left a.csv half-written": writes("out/a.csv", "a,b"),
    "left the temporary .a.tmp.json": writes("out/.a.tmp.json", "{}"),
    "no end within": for_ever,
}


def tried(world: World, instead, **more) -> list[str]:
    def before() -> None:
        semiseg.models.layers.list_layers = instead

    case = Case("judged", words("layers unet"), more.pop("exits", (0, 3)), ("model.json",), before=before, **more)
    return try_case(case, world)["complaints"]


@pytest.mark.parametrize("kind", WELL)
def test_what_goes_well(world, kind):
    assert tried(world, WELL[kind]) == []


@pytest.mark.parametrize("complaint", BADLY)
def test_what_goes_badly(world, complaint):
    with patch("campaign.child.LIMIT_S", 2):
        found = tried(world, BADLY[complaint])
    assert any(complaint.replace("no end within", "no end within 30 s") in one or complaint in one for one in found)


def test_nonsense_is_not_taken_silently(world):
    assert tried(world, writes("out/a.json", "{}"), exits=(3,)) == ["exit 0, expected 3"]
    assert tried(world, writes("out/a.json", "{}"), then=lambda _: "weights that are none") == ["weights that are none"]


def test_files_are_read_to_their_end(tmp_path):
    (tmp_path / "a.txt").write_text("a line\n")
    assert half_written(tmp_path / "a.txt") is None
    (tmp_path / "a.txt").write_text("half a li")
    assert "a.txt half-written" in half_written(tmp_path / "a.txt")


# The disturbances themselves


def written_at_once(path: Path, text: str) -> None:
    """In the place of `write_text`: not under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(text)


def not_atomic() -> None:
    semiseg.files.write_text = written_at_once


def swallowed() -> None:
    """A full disk is passed over."""
    whole = semiseg.files.write_text

    def write(path: Path, text: str) -> None:
        try:
            whole(path, text)
        except OSError:
            print("no room", file=sys.stderr)

    semiseg.files.write_text = write


def disturbed(world: World, work: Work) -> dict[str, list[str]]:
    """Complaints about `work` by kind of disturbance."""
    found: dict[str, list[str]] = {"kill": [], "full": []}
    with patch.dict(WORKS, {"it": work}):
        undisturbed = kills._undisturbed(world, "it")
        for what, *rest in undisturbed["moments"]:
            found[what] += kills._disturbed(world, Moment("it", what, *rest), undisturbed["left"])["complaints"]
    return found


def test_disturbances_find_what_is_not_atomic(world):
    line = "@plan out"
    assert disturbed(world, Work(line, within=r"^(out|\.semiseg)")) == {"kill": [], "full": []}
    found = disturbed(world, Work(line, within=r"^(out|\.semiseg)", before=not_atomic))
    assert any("left out half-written" in one or "afterwards exit" in one for one in found["kill"])
    found = disturbed(world, Work(line, within=r"^(out|\.semiseg)", before=swallowed))
    assert any("exit 0, though the disk was full" in one for one in found["full"])
    assert FULL == 2
