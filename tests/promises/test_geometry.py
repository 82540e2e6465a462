"""Whatever the orientation, the affine, the values: what comes back lies where the scan lies, and means what it meant.

Nothing is resampled here, so nothing may change: a network that copies gives back the label map voxel by voxel.
"""

from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.plans import make_plan
from torch import nn

from semiseg.data.dataset import Case
from semiseg.data.prepare import prepare_cases
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.models.model import LoadedModel
from semiseg.prediction.cases import predict_cases

ORDERS = [np.eye(3)[:, order] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
"""The 48 ways in which axes can run along those of the patient."""
PLANS = {
    "volume": {"patch": (16, 16, 16)},
    "windows": {"patch": (8, 8, 8)},
    "cropped": {"patch": (16, 16, 16), "crop_nonzero": True},
    "sagittal slices": {"dims": 2, "slice_axis": 0, "patch": (16, 16)},
    "coronal slices": {"dims": 2, "slice_axis": 1, "patch": (16, 16)},
    "axial slices": {"dims": 2, "slice_axis": 2, "patch": (8, 16)},
}


class Copy(nn.Module):
    """Certain that each voxel is of the class whose index is its intensity."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 50 * nn.functional.one_hot(x[:, 0].round().long(), self.classes).movedim(-1, 1).float()


@dataclass(frozen=True)
class Drawn:
    """A label map, as class indices and as the values in the file, and how the file is written."""

    index: np.ndarray
    values: tuple[int, ...]
    affine: np.ndarray
    codes: tuple[int, int]
    """Of qform and sform."""
    ending: str

    @property
    def label(self) -> np.ndarray:
        return np.array(self.values)[self.index]

    def write(self, path: Path, array: np.ndarray) -> Path:
        path = path.with_name(path.name + self.ending)
        image = nib.Nifti1Image(array, None)
        image.header.set_qform(self.affine, self.codes[0])
        image.header.set_sform(self.affine, self.codes[1])
        image.header.set_xyzt_units("mm")
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
        return path


@st.composite
def affines(draw):
    """Any of the 48 orders, tilted by up to 40 degrees about any axis, any spacing, anywhere."""
    number = st.floats(-1, 1, width=32)
    axis = np.array(draw(st.tuples(number, number, number)))
    length = np.linalg.norm(axis)
    tilt = Rotation.from_rotvec(np.deg2rad(draw(st.floats(0, 40))) * axis / length if length > 1e-3 else np.zeros(3))
    spacing = draw(st.tuples(*[st.floats(0.2, 6)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = tilt.as_matrix() @ draw(st.sampled_from(ORDERS)) * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@st.composite
def label_maps(draw):
    values = (0, *draw(st.lists(st.integers(-(2**15), 2**18).filter(bool), min_size=1, max_size=5, unique=True)))
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    index = generator.integers(0, len(values), shape)
    index.flat[: len(values)] = np.arange(len(values))[: index.size]  # every value is there, if there is room
    codes = draw(st.sampled_from([(1, 0), (0, 1), (1, 1), (1, 2), (4, 2), (0, 4)]))
    return Drawn(index, values, draw(affines()), codes, draw(st.sampled_from([".nii", ".nii.gz"])))


def through(drawn: Drawn, plan: str, folder: Path) -> tuple[Case, Path]:
    """The case, prepared (its label lies where its image does), and the file that is predicted for it."""
    image = drawn.write(folder / "images" / "scan", drawn.index.astype(np.float32))
    label = drawn.write(folder / "labels" / "scan", drawn.label.astype(np.int32))
    case = Case("scan", (image,), label)
    classes = {"background": 0, **{f"class {value}": value for value in drawn.values[1:]}}
    rule = {"scheme": "window", "low": -1000, "high": 1000}
    made = make_plan(**{"classes": classes, "normalisation": [rule], **PLANS[plan]})
    (prepared,) = prepare_cases([case], made, cache=folder / "cache")
    np.testing.assert_array_equal(prepared.open_label(), prepared.open_image()[0].round())
    model = LoadedModel(Copy(len(classes)), made, "copy")
    result = predict_cases([model], [case], folder / "out", device="cpu")
    assert result.failed == {}
    return case, folder / "out" / "scan.nii.gz"


@pytest.mark.parametrize("plan", PLANS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(drawn=label_maps())
def test_a_copy_has_the_values_and_the_geometry_of_its_scan(tmp_path_factory, plan, drawn):
    case, written = through(drawn, plan, tmp_path_factory.mktemp("scan"))
    source, made = nib.load(case.images[0]), nib.load(written)
    np.testing.assert_array_equal(np.asarray(made.dataobj), drawn.label)
    np.testing.assert_array_equal(made.affine, source.affine)
    for form in ("get_qform", "get_sform"):
        expected, found = (getattr(one, form)(coded=True) for one in (source, made))
        assert found[1] == expected[1]
        np.testing.assert_array_equal(found[0], expected[0])
    assert made.header.get_zooms() == source.header.get_zooms()
    assert made.header.get_xyzt_units() == source.header.get_xyzt_units()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(drawn=label_maps())
def test_two_libraries_read_the_same_from_it(tmp_path_factory, drawn):
    case, written = through(drawn, "volume", tmp_path_factory.mktemp("scan"))
    source, made = (sitk.ReadImage(str(path)) for path in (case.images[0], written))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(made).T, drawn.label)
    for kind in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(made, kind)() == getattr(source, kind)(), kind
    affine = nib.load(written).affine
    for corner in product(*[(0, side - 1) for side in drawn.index.shape]):
        there = np.array(made.TransformIndexToPhysicalPoint(corner)) * (-1, -1, 1)  # from LPS to RAS
        assert np.abs(there - (affine @ (*corner, 1))[:3]).max() < 1e-3 * np.abs(drawn.affine).max()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(drawn=label_maps())
def test_what_another_library_wrote_comes_back_to_it(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("scan")

    class FromSimpleITK(Drawn):
        def write(self, path: Path, array: np.ndarray) -> Path:
            image = sitk.GetImageFromArray(array.T)
            spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
            to_lps = np.diag([-1, -1, 1])
            image.SetSpacing(spacing.tolist())
            image.SetDirection((to_lps @ self.affine[:3, :3] / spacing).ravel().tolist())
            image.SetOrigin((to_lps @ self.affine[:3, 3]).tolist())
            path = path.with_name(path.name + self.ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(path))
            return path

    case, written = through(FromSimpleITK(**vars(drawn)), "axial slices", folder)
    source, made = (sitk.ReadImage(str(path)) for path in (case.images[0], written))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(made).T, drawn.label)
    assert made.GetDirection() == source.GetDirection()
    assert (made.GetOrigin(), made.GetSpacing()) == (source.GetOrigin(), source.GetSpacing())


def test_and_scores_as_the_truth_that_it_is(tmp_path):
    index = np.random.default_rng(0).integers(0, 3, (7, 9, 5))
    drawn = Drawn(index, (0, 17, 530), np.diag([-0.9, 1.1, 3.0, 1.0]), (1, 1), ".nii.gz")
    through(drawn, "coronal slices", tmp_path)
    summary = evaluate_folder(tmp_path / "out", tmp_path / "labels", tmp_path / "scores").summary
    assert {name: entry["dice"]["mean"] for name, entry in summary["classes"].items()} == {
        "class 17": 1.0,
        "class 530": 1.0,
    }


def test_sheared_axes_are_kept_too(tmp_path):
    """Of a tilted gantry; only the sform can say so."""
    affine = np.array([[-1.0, 0, 0.3, 5], [0, 0.8, 0.2, -7], [0, 0, 2.5, 9], [0, 0, 0, 1]])
    index = np.random.default_rng(1).integers(0, 2, (6, 7, 8))
    _, written = through(Drawn(index, (0, 300), affine, (0, 1), ".nii"), "windows", tmp_path)
    made = nib.load(written)
    np.testing.assert_array_equal(made.affine, affine.astype(np.float32))
    np.testing.assert_array_equal(np.asarray(made.dataobj), np.array([0, 300])[index])
