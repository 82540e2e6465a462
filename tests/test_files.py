"""Nothing half-written is ever left under its final name."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semiseg.errors import UserError
from semiseg.files import (
    STALE_S,
    cache_folder,
    is_temporary,
    new_folder,
    remove_stale,
    replacing,
    write_json,
    write_text,
)

Writer = subprocess.Popen[str]


@pytest.fixture
def writer() -> Iterator[Callable[..., Writer]]:
    """Starts a process that is in the middle of writing a file, or a folder with one file in it."""
    begun: list[Writer] = []

    def start(path: Path, how: str = "replacing") -> Writer:
        code = f"""if True:
            import time
            from pathlib import Path
            from semiseg.files import {how}
            with {how}(Path({str(path)!r})) as place:
                (place / "image.npy" if place.is_dir() else place).write_text("half")
                print("begun", flush=True)
                time.sleep(600)
            """
        begun.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout is not None
        assert begun[-1].stdout.readline() == "begun\n"
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"é": [1]})
    assert path.read_text(encoding="utf-8") == '{\n  "é": [\n    1\n  ]\n}\n'
    with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012 - the block is what is tested
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert '"é"' in path.read_text(encoding="utf-8")
    assert os.listdir(path.parent) == ["a.json"]  # noqa: PTH208


def test_whoever_reads_the_old_file_goes_on_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has a place where no folder can be made")
def test_a_place_where_no_folder_can_be_made_is_told() -> None:
    with pytest.raises(UserError, match="/proc/nowhere/x: got a place where no folder can be made"):
        write_json(Path("/proc/nowhere/x/a.json"), {})


def test_the_ending_says_the_format(tmp_path: Path) -> None:
    with replacing(tmp_path / "case.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.name.startswith(".")  # no listing of scans finds it
        temporary.touch()


def test_what_a_killed_process_was_writing_is_removed_by_the_next_that_writes_there(
    tmp_path: Path, writer: Callable[..., Writer]
) -> None:
    killed = writer(tmp_path / "last.safetensors"), writer(tmp_path / "0123abcd", "new_folder")
    assert [is_temporary(name) for name in names(tmp_path)] == [True, True]
    for process in killed:
        process.kill()
        process.wait()
    write_text(tmp_path / "plan.json", "{}")
    assert names(tmp_path) == ["plan.json"]


def test_what_a_living_process_is_writing_stays(tmp_path: Path, writer: Callable[..., Writer]) -> None:
    file, folder = writer(tmp_path / "last.safetensors"), writer(tmp_path / "0123abcd", "new_folder")
    write_text(tmp_path / "plan.json", "{}")
    with replacing(tmp_path / "env.json") as own:
        own.touch()
        remove_stale(tmp_path)
        assert own.exists()
    assert len(names(tmp_path)) == 4
    file.kill()
    file.wait()
    remove_stale(tmp_path)
    (left,) = (tmp_path / name for name in names(tmp_path) if is_temporary(name))
    assert names(left) == ["image.npy"]
    assert f"-{folder.pid}-" in left.name


def test_what_is_written_elsewhere_stays_for_a_day(tmp_path: Path) -> None:
    """Another machine's processes are unknown here: its numbers mean nothing."""
    dead = 2**22 + 1  # beyond the highest number of a process
    young, old, busy = (tmp_path / f".semiseg-{'0' * 8}-{dead}-{index:08x}.tmp" for index in range(3))
    day_ago = time.time() - STALE_S - 10
    for path in (young, old):
        path.write_text("half")
    busy.mkdir()
    (busy / "image.npy").touch()
    foreign = tmp_path / ".0123456789ab.tmp"
    foreign.touch()
    for path in (old, busy, foreign):
        os.utime(path, (day_ago, day_ago))
    remove_stale(tmp_path)
    assert names(tmp_path) == sorted([young.name, busy.name, foreign.name])
    os.utime(busy / "image.npy", (day_ago, day_ago))
    remove_stale(tmp_path)
    assert names(tmp_path) == sorted([young.name, foreign.name])
    remove_stale(tmp_path, alone=True)
    assert names(tmp_path) == [foreign.name]
    remove_stale(tmp_path / "nowhere")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a") as folder:  # noqa: PT012 - the block is what is tested
        (folder / "x").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []
    for text in ("first", "second"):
        with new_folder(tmp_path / "a") as folder:
            (folder / "x").write_text(text)
            assert not (tmp_path / "a" / "y").exists()
    assert (tmp_path / "a" / "x").read_text() == "first"  # whoever was faster wrote the same
    with pytest.raises(OSError, match="not empty"), new_folder(tmp_path / "a", same=False) as folder:
        (folder / "x").write_text("third")
    assert names(tmp_path) == ["a"]


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "elsewhere" / "cache"))
    assert cache_folder() == tmp_path / "elsewhere" / "cache"
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("SEMISEG_CACHE")
    assert cache_folder() == tmp_path / "semiseg"


def test_a_cache_that_anybody_could_have_filled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path, words: str) -> None:
        monkeypatch.setenv("SEMISEG_CACHE", str(folder))
        with pytest.raises(UserError, match=f"^{folder}: got .*{words}.*set SEMISEG_CACHE to a folder of your own"):
            cache_folder()

    everybody, own = tmp_path / "tmp", tmp_path / "own"
    everybody.mkdir()
    everybody.chmod(0o1777)
    refused(everybody, "every user may write to")
    monkeypatch.setenv("SEMISEG_CACHE", str(everybody / "mine"))
    assert cache_folder().is_dir()
    for folder in (everybody / "planted" / "cache", own):
        folder.mkdir(parents=True)
    (everybody / "link").symlink_to(own)
    states = {
        path: os.stat_result((0o40755, 0, 0, 0, 999, *[0] * 5)) for path in (everybody / "planted", everybody / "link")
    }
    known = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda path: states.get(path) or known(path))
    refused(everybody / "planted" / "cache", "planted of user 999, who made it where everybody may")
    refused(everybody / "link", "link of user 999")
