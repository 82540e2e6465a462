"""Volumes of labels in millilitres, and z-scores, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.pixelwise import plan_of

from semiseg.data.prepare import PreparedCase
from semiseg.models.volumes import PRIOR_DEVIATION, PRIOR_SCANS, reference_volumes


def case(folder, name, voxels, spacing_mm=(2.0, 1.0, 1.0)):
    label = np.full((4, 10, 10), -100, np.int16)  # not annotated, but for the first slices
    label[:3] = 0
    label.flat[:voxels] = 1
    np.save(folder / f"{name}.npy", label)
    return PreparedCase(name, folder / "none.npy", folder / f"{name}.npy", None, spacing_mm, label.shape)


def test_mean_and_deviation_of_the_logarithm(tmp_path):
    cases = [case(tmp_path, "x", 100), case(tmp_path, "y", 200)]
    (found,) = reference_volumes(cases, plan_of(2))
    assert (found.name, found.scans, found.found_in) == ("object", 2, 2)
    assert found.log_mean == pytest.approx((math.log(0.2) + math.log(0.4)) / 2)
    squares = 2 * (math.log(2) / 2) ** 2 + PRIOR_SCANS * PRIOR_DEVIATION**2
    assert found.log_deviation == pytest.approx(math.sqrt(squares / 3 * 1.5))
    assert found.z_score(math.exp(found.log_mean + 2 * found.log_deviation)) == pytest.approx(2)
    assert found.z_score(0.1) < -1


def test_scans_without_the_structure_are_counted_and_nothing_rests_on_one(tmp_path):
    cases = [case(tmp_path, "x", 100), case(tmp_path, "y", 0)]
    assert reference_volumes(cases, plan_of(2)) == []
    (found,) = reference_volumes([*cases, replace(cases[0], name="z")], plan_of(2))
    assert (found.scans, found.found_in) == (3, 2)
    assert found.log_deviation > 0  # two equal volumes do not make every other one impossible
