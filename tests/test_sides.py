"""Left and right of one structure, by name."""

import pytest

from semiseg.data.label_tables import QUICKNAT_28
from semiseg.sides import pairs


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left thalamus", "right thalamus"),
        ("Left-Putamen", "Right-Putamen"),
        ("lung_L", "lung_R"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("kidney (left)", "kidney (right)"),
        ("LEFT", "RIGHT"),
    ],
)
def test_names_that_differ_in_their_side_alone_are_a_pair(left, right):
    assert pairs(["background", left, "other", right]) == {right: left}
    assert pairs([right, left]) == {right: left}


@pytest.mark.parametrize(
    "names",
    [
        ["left lung", "right kidney"],  # not the same structure
        ["left lung", "lung"],
        ["right lung"],
        ["bright spot", "upright", "cleft", "gyrus rectus"],  # parts of words are no side
        ["left to right shunt", "right to left shunt"],
    ],
)
def test_others_are_none(names):
    assert pairs(names) == {}


def test_the_whole_brain_has_twelve_pairs():
    found = pairs(QUICKNAT_28)
    assert len(found) == 12
    assert all(right.startswith("right ") and left == f"left {right[6:]}" for right, left in found.items())
