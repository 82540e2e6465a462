"""The run of docs/promises.md, repeated: its numbers come out as they stand there, on any processor."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg.runs.folder import RunFolder

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "promises.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## 9. ")[2].partition("\n## ")[0]
LOSS, DICE = 3e-3, 2e-3
"""Tolerances that the page states: of losses as a share, of Dice as they are."""


def commands():
    (block,) = re.findall(r"^```bash\n(.*?)^```$", SECTION, re.M | re.S)
    return [shlex.split(line)[2:] for line in block.splitlines()]  # behind OMP_NUM_THREADS=1 semiseg


def documented():
    """Method to the numbers of its row."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", SECTION, re.M)
    return {method: [float(cell) for cell in cells.split(" | ")] for method, cells in rows}


def found(folder):
    numbers = {}
    for method in documented():
        run = RunFolder(folder / "golden" / method)
        loss = {line.step: sum(line.terms.values()) for line in run.train_lines()}
        scores = json.loads((run.scores / "summary.json").read_text())
        numbers[method] = [loss[10], loss[20], loss[80], scores["classes"]["lung"]["dice"]["mean"]]
    return numbers


PROCESSORS = {
    "this one": {},
    # without AMX and AVX-512, which all who have them can leave unused
    "an older one": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_documented_run_gives_the_documented_numbers(tmp_path, processor):
    (settings,) = re.findall(r"^```yaml\n(# golden\.yaml\n.*?)^```$", SECTION, re.M | re.S)
    (tmp_path / "golden.yaml").write_text(settings)
    alone = {"OMP_NUM_THREADS": "1", "SEMISEG_WORKERS": "1", "SEMISEG_DEVICE": "cpu", **PROCESSORS[processor]}
    for words in commands():
        line = [sys.executable, "-m", "semiseg", *words, "--quiet"]
        done = subprocess.run(
            line, env={**os.environ, **alone}, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
    for method, numbers in found(tmp_path).items():
        expected = documented()[method]
        assert numbers[:3] == pytest.approx(expected[:3], rel=LOSS), method
        assert numbers[3] == pytest.approx(expected[3], abs=DICE), method


def test_the_page_has_a_row_for_each_run():
    rows = documented()
    assert [words[words.index("--method") + 1] for words in commands() if "--method" in words] == [*rows]
    assert len({tuple(row) for row in rows.values()}) == len(rows) == 2
