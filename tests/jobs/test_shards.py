"""predict and evaluate in shards: together they leave exactly what one command leaves."""

import json
import shutil
from unittest.mock import patch

import pytest
from support.bench_grid import InProcess
from support.command_line import rows_of, semiseg

from semiseg.errors import UserError
from semiseg.evaluation.case import score_case
from semiseg.jobs.shards import Shard

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def whole(study, run_folder, tmp_path_factory):
    """Predictions and scores without shards."""
    out = tmp_path_factory.mktemp("whole")
    with patch.dict("os.environ", SEMISEG_DEVICE="cpu"):
        assert semiseg("predict", run_folder, study, "--out", out / "predictions", "--quiet")[0] == 0
    assert semiseg("evaluate", out / "predictions", study, "--out", out / "scores", "--quiet")[0] == 0
    return out


def bytes_of(folder):
    """Of every file but the manifest, which holds a duration."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def manifest_of(folder):
    return {**json.loads((folder / "manifest.json").read_text()), "duration_s": None}


def shared(*words):
    """A command with --launcher, whose shards run in this process; the runs and the result."""
    launcher = InProcess()
    with patch("semiseg.jobs.launchers.launcher_named", lambda *_, **__: launcher):
        return *semiseg(*words), launcher.done


def test_a_shard_is_every_nth_case():
    assert Shard.parse("2/3").of("abcdefg") == ["b", "e"]
    assert sorted(one for index in (1, 2, 3) for one in Shard(index, 3).of("abcdefg")) == list("abcdefg")
    for text in ("0/3", "4/3", "1", "a/b", "1/3/4", "1/9999999999", "\u0661/\u0663"):
        with pytest.raises(UserError, match=f"--shard: got '{text}', expected I/N"):
            Shard.parse(text)


def test_predictions_in_shards_are_the_same(study, run_folder, whole, tmp_path):
    words = ("predict", run_folder, study, "--out", tmp_path / "out", "--quiet")
    for shard, names in (("2/2", {1, 3, 5}), ("1/2", {0, 2, 4, 6})):
        code, _, err = semiseg(*words, "--shard", shard)
        assert code == 0, err
        assert {f"case{index}.nii.gz" for index in names} <= {path.name for path in (tmp_path / "out").iterdir()}
        assert not (tmp_path / "out" / "manifest.json").exists()
    code, text, err = semiseg(*words)
    assert (code, text) == (0, f"{tmp_path / 'out'}: 0 predicted, 7 already there\n"), err
    assert bytes_of(tmp_path / "out") == bytes_of(whole / "predictions")
    assert manifest_of(tmp_path / "out").keys() == manifest_of(whole / "predictions").keys()
    assert manifest_of(tmp_path / "out")["requested"] == manifest_of(whole / "predictions")["requested"]


def test_shards_of_other_weights_or_settings_are_refused(study, run_folder, tmp_path):
    words = ("predict", run_folder, study, "--out", tmp_path / "out", "--quiet")
    assert semiseg(*words, "--shard", "1/2")[0] == 0
    for more in (("--shard", "2/2"), ()):
        code, _, err = semiseg(*words, "--keep-largest", *more)
        assert code == 2
        assert "got predictions made with other keep_largest, expected the same for all" in err
    code, _, err = semiseg(*words, "--shard", "2/2", "--overlay")
    assert code == 2
    assert "draw when all shards are there" in err


def test_a_launcher_starts_the_shards_and_puts_them_together(study, run_folder, whole, tmp_path):
    out = tmp_path / "out"
    words = ("predict", run_folder, study, "--out", out, "--jobs", "3", "--quiet")
    code, text, err, done = shared(*words)
    assert (code, done) == (0, ["1of3", "2of3", "3of3"]), err
    assert text == f"{out}: 0 predicted, 7 already there\n"
    assert bytes_of(out) == bytes_of(whole / "predictions")
    (out / "case0.nii.gz").write_bytes(b"")
    code, _, err, _ = shared(*words, "--overwrite")
    assert code == 0, err
    assert bytes_of(out) == bytes_of(whole / "predictions")


def test_scores_in_shards_are_the_same(study, whole, tmp_path):
    out = tmp_path / "out"
    words = ("evaluate", whole / "predictions", study, "--out", out, "--tolerance-mm", "2.0", "--quiet")
    assert semiseg(*words, "--overwrite")[0] == 0
    expected, made = bytes_of(out), manifest_of(out)
    shutil.rmtree(out)
    code, text, err = semiseg(*words, "--shard", "2/2")
    assert code == 0, err
    assert text.splitlines()[1].split()[1] == "2"  # of five cases with labels
    code, _, err, done = shared(*words, "--launcher", "dask", "--jobs", "2")
    assert (code, done) == (0, ["1of2", "2of2"]), err
    assert bytes_of(out) == expected
    assert manifest_of(out) == made


def test_scores_of_shards_are_used_only_for_the_same_files_and_settings(study, whole, tmp_path):
    predictions, out = tmp_path / "predictions", tmp_path / "out"
    shutil.copytree(whole / "predictions", predictions)
    words = ("evaluate", predictions, study, "--out", out, "--quiet")
    for shard in ("1/2", "2/2"):
        assert semiseg(*words, "--shard", shard)[0] == 0
    shutil.copy(study / "labels" / "case1.nii.gz", predictions / "case1.nii.gz")  # perfect now
    with patch("semiseg.evaluation.evaluate.score_case", wraps=score_case) as scoring:
        assert semiseg(*words)[0] == 0
    assert [call.args[0].case for call in scoring.call_args_list] == ["case1"]
    rows = {row["case"]: row for row in rows_of(out / "metrics.csv")}
    assert float(rows["case1"]["dice"]) == 1
    assert rows["case0"] == {row["case"]: row for row in rows_of(whole / "scores" / "metrics.csv")}["case0"]
    assert not (out / "shards").exists()


def test_scores_of_shards_that_were_changed_are_refused(study, whole, tmp_path):
    out = tmp_path / "out"
    words = ("evaluate", whole / "predictions", study, "--out", out, "--quiet")
    assert semiseg(*words, "--shard", "1/2")[0] == 0
    part = out / "shards" / "1of2" / "scores.json"
    part.write_text(part.read_text().replace('"dice": ', '"dice": 1'))
    code, _, err = semiseg(*words)
    assert code == 3
    assert f"{part}: got values that were changed, expected scores of a shard; remove it" in err
    part.unlink()
    assert semiseg(*words)[0] == 0


def test_a_shard_that_fails_says_why(study, run_folder, tmp_path):
    out = tmp_path / "out"
    words = ("predict", run_folder, study, "--out", out, "--quiet", "--jobs", "2")
    code, _, err, done = shared(*words, "--checkpoint", "best", "--cases", tmp_path / "none.txt")
    assert (code, done) == (4, ["1of2", "2of2"])
    assert f"error: {out}: 2 of 2 jobs failed: error: --cases {tmp_path / 'none.txt'}" in err
    assert str(out / "shards" / "logs" / "1of2.log") in err


def test_a_case_that_fails_does_not_stop_the_others(study, run_folder, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("case0", "case1", "case2"):
        content = (study / "images" / f"{name}.nii.gz").read_bytes()
        (scans / f"{name}.nii.gz").write_bytes(content[:200] if name == "case1" else content)
    code, text, _, _ = shared("predict", run_folder, scans, "--out", tmp_path / "out", "--jobs", "2", "--quiet")
    assert code == 4
    assert text == f"{tmp_path / 'out'}: 0 predicted, 2 already there, 1 failed (see failed.csv)\n"
    assert [row["case"] for row in rows_of(tmp_path / "out" / "failed.csv")] == ["case1"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--shard", "1/2", "--jobs", "2"), "--shard: got it with --launcher or --jobs"),
        (("--scheduler", "tcp://x:1"), "--scheduler: got 'tcp://x:1' without --launcher"),
        (("--slurm", "time=1"), "--slurm: got ['time=1'] without --launcher"),
        (("--launcher", "cloud"), "--launcher: got 'cloud'"),
    ],
)
def test_flags_that_make_no_sense_together(flags, said, study, tmp_path):
    code, _, err = semiseg("evaluate", study / "labels", study, "--out", tmp_path / "out", *flags)
    assert code == 2
    assert said in err
