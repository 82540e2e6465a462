import math
import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import surfaces

from semiseg.errors import InputError
from semiseg.evaluation.metrics import compare, far_from

SPACING = (1.0, 2.0, 5.0)


def box(shape, *spans):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def point(*index, shape=(9, 9, 9)):
    return box(shape, *((i, i + 1) for i in index))


@pytest.mark.parametrize(("axis", "expected_mm"), [(0, 3.0), (1, 6.0), (2, 15.0)])
def test_two_points_three_voxels_apart_along_each_axis(axis, expected_mm):
    moved = [2, 2, 2]
    moved[axis] += 3
    scores = compare(point(*moved), point(2, 2, 2), SPACING)
    assert scores.dice == scores.iou == scores.surface_dice == 0
    for name in ("hd95_mm", "hausdorff_mm", "assd_mm", "msd_mm"):
        assert getattr(scores, name) == pytest.approx(expected_mm)
    assert scores.prediction_ml == scores.truth_ml == pytest.approx(0.010)  # 1 x 2 x 5 mm


def test_hand_computed_shift_of_a_row():
    # Rows of 4 voxels, 2 mm apart, the prediction one voxel later: at 2 4 6 8 mm against 0 2 4 6 mm.
    truth, prediction = box((1, 8, 1), (0, 1), (0, 4), (0, 1)), box((1, 8, 1), (0, 1), (1, 5), (0, 1))
    scores = compare(prediction, truth, SPACING, tolerance_mm=1.0)
    assert scores.dice == pytest.approx(2 * 3 / 8)
    assert scores.iou == pytest.approx(3 / 5)
    # Directed distances are 0 0 0 2 both ways; the 95th percentile lies 0.85 of the way from 0 to 2.
    assert scores.hd95_mm == pytest.approx(1.7)
    assert scores.hausdorff_mm == pytest.approx(2.0)
    assert scores.assd_mm == pytest.approx(0.5)
    assert scores.msd_mm == pytest.approx(0.5)
    assert scores.surface_dice == pytest.approx(6 / 8)
    assert compare(prediction, truth, SPACING, tolerance_mm=2.0).surface_dice == 1
    assert scores.difference_ml == 0


def test_directions_differ_when_the_prediction_has_a_stray_voxel():
    # Truth: 1 voxel at 0 mm. Prediction: the same, and a stray one 10 mm away along the last axis.
    truth = point(0, 0, 0)
    prediction = truth | point(0, 0, 2)
    scores = compare(prediction, truth, SPACING)
    assert scores.msd_mm == pytest.approx(5.0)  # (0 + 10) / 2, prediction to truth
    assert compare(truth, prediction, SPACING).msd_mm == 0
    assert scores.assd_mm == pytest.approx(10 / 3)  # pooled 0, 10 and 0; not the mean of 5 and 0
    assert scores.hausdorff_mm == pytest.approx(10.0)
    assert scores.hd95_mm == pytest.approx(9.5)  # the larger direction, not the pooled 9.0
    assert scores.difference_ml == pytest.approx(0.010)


def test_the_edge_of_the_image_counts_as_background():
    # Everything is foreground: only the centre of 3 x 3 x 3 is not surface. The prediction is that centre.
    truth = np.ones((3, 3, 3), dtype=bool)
    scores = compare(point(1, 1, 1, shape=(3, 3, 3)), truth, (1, 1, 1))
    assert scores.msd_mm == pytest.approx(1.0)  # were the edge not background, there would be no surface at all
    assert scores.hausdorff_mm == pytest.approx(np.sqrt(3))


def test_surface_neighbours_share_a_face():
    # A full 5 x 5 slab but for one corner voxel: the voxel diagonal to that corner stays inside.
    truth = np.ones((5, 5), dtype=bool)
    truth[0, 0] = False
    inner = np.zeros((5, 5), dtype=bool)
    inner[1, 1] = True
    assert compare(inner, truth, (1, 1)).msd_mm == pytest.approx(1.0)  # 0 if corners made neighbours


def test_a_mask_against_itself_is_perfect():
    mask = box((9, 9, 9), (0, 4), (2, 9), (3, 5))
    scores = compare(mask, mask, SPACING, tolerance_mm=0.0)
    assert (scores.dice, scores.iou, scores.surface_dice) == (1, 1, 1)
    assert (scores.hd95_mm, scores.hausdorff_mm, scores.assd_mm, scores.msd_mm) == (0, 0, 0, 0)
    assert scores.truth_ml == pytest.approx(4 * 7 * 2 * 0.010)
    with pytest.raises(FrozenInstanceError):
        scores.dice = 0.5


@pytest.mark.parametrize(
    ("predicted", "true", "overlap"), [(False, False, 1.0), (True, False, 0.0), (False, True, 0.0)]
)
def test_empty_masks_have_no_distances(predicted, true, overlap):
    filled, empty = point(1, 1, 1), np.zeros((9, 9, 9), dtype=bool)
    scores = compare(filled if predicted else empty, filled if true else empty, SPACING)
    assert scores.dice == scores.iou == scores.surface_dice == overlap
    assert scores.hd95_mm is scores.hausdorff_mm is scores.assd_mm is scores.msd_mm is None
    assert scores.prediction_ml == pytest.approx(0.010 * predicted)
    assert scores.truth_ml == pytest.approx(0.010 * true)


def test_a_spacing_rounded_to_32_bits_stays_within_tolerance():
    spacing = (1.0000001, 1.0, 1.0)
    assert compare(point(2, 2, 2), point(3, 2, 2), spacing, tolerance_mm=1.0).surface_dice == 1
    assert compare(point(2, 2, 2), point(3, 2, 2), (1.01, 1.0, 1.0), tolerance_mm=1.0).surface_dice == 0


def test_integers_count_as_masks():
    mask = box((4, 4), (0, 2), (0, 2))
    assert compare(mask.astype(np.uint8) * 3, mask, (1, 1)).dice == 1


def masks(shape):
    return hnp.arrays(bool, shape)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_agrees_with_measuring_every_pair(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5))
    prediction, truth = data.draw(masks(shape)), data.draw(masks(shape))
    assume(prediction.any() and truth.any())
    spacing = data.draw(st.tuples(*[st.sampled_from([0.5, 1.0, 1.7, 4.0])] * len(shape)))
    scores = compare(prediction, truth, spacing, tolerance_mm=1.2)
    for name, value in surfaces.scores(prediction, truth, spacing, 1.2).items():
        assert getattr(scores, name) == pytest.approx(value), name
    assert scores.dice == pytest.approx(2 * (prediction & truth).sum() / (prediction.sum() + truth.sum()))
    assert scores.iou == pytest.approx((prediction & truth).sum() / (prediction | truth).sum())


def test_agrees_with_monai():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

        # MONAI's surface leaves the image's edge out, so both masks stay clear of it.
        truth, prediction = (
            box((14, 12, 10), (2, 9), (2, 8), (3, 8)),
            box((14, 12, 10), (4, 11), (2, 9), (2, 7)),
        )
        pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
        options = {"include_background": True, "spacing": SPACING}
        hd95 = compute_hausdorff_distance(*pair, percentile=95, **options)
        hausdorff = compute_hausdorff_distance(*pair, **options)
        msd = compute_average_surface_distance(*pair, **options)
    scores = compare(prediction, truth, SPACING)
    assert scores.hd95_mm == pytest.approx(float(hd95))
    assert scores.hausdorff_mm == pytest.approx(float(hausdorff))
    assert scores.msd_mm == pytest.approx(float(msd))


@pytest.mark.parametrize(
    ("prediction", "spacing", "tolerance", "message"),
    [
        (np.zeros((3, 4), bool), (1, 1), 1.0, "prediction: got shape (3, 4), expected the truth's (4, 4)"),
        (np.zeros((4, 4)), (1, 1), 1.0, "prediction: got float64 values, expected a boolean or integer mask"),
        (np.zeros((4, 4), bool), (1, 1, 1), 1.0, "spacing_mm: got (1, 1, 1), expected 2 positive lengths"),
        (np.zeros((4, 4), bool), (1, 0), 1.0, "spacing_mm: got (1, 0), expected 2 positive lengths"),
        (np.zeros((4, 4), bool), (1, np.nan), 1.0, "expected 2 positive lengths"),
        (np.zeros((4, 4), bool), (1, 1), -1.0, "tolerance_mm: got -1.0, expected a length of 0 mm or more"),
        (np.zeros((4, 4), bool), (1, 1), np.nan, "tolerance_mm: got nan"),
        (np.zeros((4, 4), bool), (1, 1), np.inf, "tolerance_mm: got inf"),
        (np.zeros((4, 4), bool), (1, np.inf), 1.0, "expected 2 positive lengths"),
    ],
)
def test_senseless_input_is_explained(prediction, spacing, tolerance, message):
    with pytest.raises(InputError) as caught:
        compare(prediction, np.zeros((4, 4), bool), spacing, tolerance)
    assert message in str(caught.value)


@given(data=st.data())
def test_far_is_what_no_voxel_of_the_mask_is_near_to(data):
    shape, spacing_mm = (6, 5, 7), (4.0, 7.0, 2.5)
    where = data.draw(st.sets(st.tuples(*(st.integers(0, n - 1) for n in shape)), min_size=1, max_size=4))
    mask = np.zeros(shape, bool)
    for index in where:
        mask[index] = True
    far = far_from(mask, spacing_mm, 12.0)
    for index in np.ndindex(shape):
        nearest = min(math.dist(np.multiply(index, spacing_mm), np.multiply(each, spacing_mm)) for each in where)
        assert far[index] == (nearest > 12.0)
