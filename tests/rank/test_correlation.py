"""Scores against true Dice: hand-made tables, ties, and names that a class and a region share."""

import csv
import io

import pytest
from PIL import Image

from semiseg.errors import InputError, UserError
from semiseg.rank.correlation import draw_correlation, rank_correlation

RANKED = ("case", "class", "value", "kind", "equivariance_dice", "border_entropy", "volume_ml", "disagreement")
SCORED = ("case", "class", "value", "state", "dice", "in_truth")


def write(path, columns, rows):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    path.write_text(text.getvalue())
    return path


def tables(folder, ranked, scored):
    """Short rows: (case, class, value, kind, score) and (case, class, value, dice) with an optional state, in_truth."""
    full = [(*row[:4], "" if row[4] is None else row[4], "", "", "") for row in ranked]
    states = [(*row[:3], *(row[4:5] or ["ok"]), row[3], row[5] if len(row) > 5 else True) for row in scored]
    return write(folder / "ranking.csv", RANKED, full), write(folder / "metrics.csv", SCORED, states)


def test_ties_get_their_mean_rank(tmp_path):
    """Ranks 4, 2.5, 2.5, 1 against 4, 3, 1.5, 1.5: covariance 3.75, both variances 4.5."""
    estimated, true = (0.9, 0.8, 0.8, 0.5), (0.95, 0.9, 0.7, 0.7)
    files = tables(
        tmp_path,
        [(f"c{i}", "a", 1, "class", x) for i, x in enumerate(estimated)],
        [(f"c{i}", "a", 1, x) for i, x in reversed(list(enumerate(true)))],
    )
    (found,) = rank_correlation(*files)
    assert (found.cases, found.estimated, found.true) == (("c0", "c1", "c2", "c3"), estimated, true)
    assert found.rho == pytest.approx(3.75 / 4.5)
    assert found.text == "a: rho 0.83 (n = 4)"


def test_opposite_order_and_what_has_no_correlation(tmp_path):
    cases = range(3)
    files = tables(
        tmp_path,
        [(f"c{i}", "down", 1, "class", 0.1 * i) for i in cases]
        + [(f"c{i}", "flat", 2, "class", 0.5) for i in cases]
        + [(f"c{i}", "few", 3, "class", 0.1 * i if i else None) for i in cases],
        [(f"c{i}", name, value, 1 - 0.1 * i) for i in cases for name, value in (("down", 1), ("flat", 2), ("few", 3))],
    )
    down, flat, few = rank_correlation(*files)
    assert down.rho == pytest.approx(-1)
    assert (flat.rho, len(flat.cases)) == (None, 3)
    assert (few.rho, few.cases) == (None, ("c1", "c2"))  # without a score there is no pair
    assert few.text == "few: rho - (n = 2)"


def test_classes_and_regions_of_one_name_and_their_means(tmp_path):
    """The true mean is that over what the truth has; a scan that was not compared counts nowhere."""
    ranked, scored = [], []
    for case, core, rim, whole, united in (("x", 0.1, 0.2, 0.3, 0.4), ("y", 0.5, 0.6, 0.7, 0.8)):
        ranked += [
            (case, "mean", "", "mean", 0.5),
            (case, "regions_mean", "", "mean", 0.6),
            (case, "core", 1, "class", 0.1),
            (case, "rim", 2, "class", 0.2),
            (case, "whole", "2+1", "region", 0.3),
            (case, "core", "1+4", "region", 0.4),
        ]
        scored += [
            (case, "core", 1, core),
            (case, "rim", 2, rim, "ok", case == "x"),
            (case, "whole", "1+2", whole),
            (case, "core", "1+4", united),
        ]
    ranked += [("z", "core", 1, "class", 0.9), ("z", "mean", "", "mean", 0.9)]
    scored += [("z", "core", 1, 0.0, "missing")]
    mean, regions_mean, core, rim, whole, united = rank_correlation(*tables(tmp_path, ranked, scored))
    assert core.true == (0.1, 0.5)
    assert united.true == (0.4, 0.8)
    assert (united.name, united.kind) == ("core", "region")
    assert whole.true == (0.3, 0.7)
    assert rim.true == (0.2, 0.6)  # found where it is not: still a Dice to foretell
    assert mean.true == pytest.approx((0.15, 0.5))
    assert regions_mean.true == pytest.approx((0.35, 0.75))
    assert mean.estimated == (0.5, 0.5)


def test_another_score(tmp_path):
    ranking, metrics = tables(tmp_path, [], [(f"c{i}", "a", 1, 0.1 * i) for i in range(3)])
    write(ranking, RANKED, [(f"c{i}", "a", 1, "class", "", 1 - 0.2 * i, "", "") for i in range(3)])
    (found,) = rank_correlation(ranking, metrics, score="border_entropy")
    assert found.rho == pytest.approx(-1)
    assert found.score == "border_entropy"
    with pytest.raises(UserError, match=r"score: got 'entropy', expected one of: equivariance_dice, border_entropy"):
        rank_correlation(ranking, metrics, score="entropy")


def test_files_that_are_something_else(tmp_path):
    ranking, metrics = tables(tmp_path, [("x", "a", 1, "class", 0.5)], [("y", "a", 1, 0.5)])
    with pytest.raises(InputError, match=r"metrics\.csv: got no case of .*ranking\.csv, expected scores of the same"):
        rank_correlation(ranking, metrics)
    with pytest.raises(InputError, match=r"metrics\.csv: got no column kind, equivariance_dice, expected the ranking"):
        rank_correlation(metrics, metrics)
    with pytest.raises(InputError, match=r"none\.csv: got .*No such file.*, expected the ranking\.csv of"):
        rank_correlation(tmp_path / "none.csv", metrics)


def test_the_picture_says_what_it_shows(tmp_path):
    names = ("mean", *"abcde")
    files = tables(
        tmp_path,
        [(f"c{i}", name, 1, "class", 0.2 * i) for name in names for i in range(4)],
        [(f"c{i}", name, 1, 0.25 * i) for name in names for i in range(4)],
    )
    correlations = rank_correlation(*files)
    text = draw_correlation(correlations, tmp_path / "plots" / "ranking.png")
    assert text.startswith("True Dice against equivariance_dice, a point a scan")
    assert text.endswith("d: rho 1.00 (n = 4); e: rho 1.00 (n = 4).")
    with Image.open(tmp_path / "plots" / "ranking.png") as picture:
        picture.load()
        assert picture.info["Description"] == text
        assert picture.width > picture.height > 500  # four panels in the first row, two in the second
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000)}
        assert any(blue > red + 60 for red, _, blue in colours)


def test_a_score_that_is_no_share_and_a_structure_without_pairs_can_be_drawn(tmp_path):
    ranking, metrics = tables(tmp_path, [], [(f"c{i}", "a", 1, 0.1 * i) for i in range(3)])
    rows = [(f"c{i}", name, 1, "class", "", "", 100 * i, "") for i in range(3) for name in ("a", "b")]
    correlations = rank_correlation(write(ranking, RANKED, rows), metrics, score="volume_ml")
    text = draw_correlation(correlations, tmp_path / "volume.png")
    assert text.endswith("Rank correlation: a: rho 1.00 (n = 3); b: rho - (n = 0).")
