"""Settings are chosen on scans that no benchmark tests on."""

from pathlib import Path

import pytest
import yaml

from semiseg.data.dataset import Case
from semiseg.data.splits import make_splits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SUBJECTS = [Case(f"subject{k:02d}", (Path("image"),), Path("label")) for k in range(1, 16)]
"""The whole brains, by name: which scans are set apart depends on nothing else."""
CHOSEN_ON = {"labelled": "3", "val": "3", "test": "6"}
"""What settings for the whole brain are chosen with."""


@pytest.mark.parametrize("draw", range(8))
def test_no_scan_that_settings_were_chosen_on_is_tested_on(draw):
    benches = {path: yaml.safe_load(path.read_text())["data"] for path in BENCHMARKS.glob("bench-wholebrain*.yaml")}
    assert benches
    chosen = make_splits(SUBJECTS, **CHOSEN_ON, draw=draw, base=Path())
    used = {case.name for case in (*chosen.labelled, *chosen.unlabelled, *chosen.val)}
    assert len(used) == 9
    for path, data in benches.items():
        bench = make_splits(SUBJECTS, labelled="3", test=str(data["test"]), val=data.get("val"), draw=draw, base=Path())
        tested = {case.name for case in bench.test}
        assert len(tested) == 6, path
        assert not used & tested, path
