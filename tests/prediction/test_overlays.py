"""Overlays show what lies where: orientation, colours, slices, and the files that a user finds."""

import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import semiseg, train_run_on, write_study
from support.plans import AFFINES, make_plan
from support.scans import write_nifti

from semiseg.colours import PALETTE, class_colours
from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import from_ras
from semiseg.data.label_tables import QUICKNAT_28
from semiseg.errors import InputError
from semiseg.prediction.look import Look
from semiseg.prediction.overlays import (
    FILM_FRAMES,
    MOST_SLICES,
    TINT,
    Style,
    Truth,
    _legend,
    draw_overlays,
    facing,
    outlined,
    panel_size,
    shown_slices,
    true_labels,
)

SHAPE = (18, 20, 16)
COLOURS = list(class_colours(["background", *map(str, range(1, 28))]).values())


def anatomy():
    """A dark scan in RAS orientation with a bright block left, front and bottom, labelled 1, and its label."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:7, 13:18, 4:7] = 1
    return np.float32(20 + 200 * label + np.arange(SHAPE[0])[:, None, None]), label


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def draw(folder, affine=AFFINES["RAS"], *, truth=True, plan=None, shown=None, look=Look()):  # noqa: B008
    """Draw one case whose prediction is its truth; returns the folder of overlays."""
    image, label = (np.ascontiguousarray(from_ras(part, affine)) for part in anatomy())
    scan = write_nifti(folder / "scan.nii.gz", image, affine)
    true = write_nifti(folder / "truth" / "scan.nii.gz", label, affine)
    write_nifti(folder / "out" / "scan.nii.gz", label if shown is None else shown, affine)
    known = {"scan": Truth(true)} if truth else {}
    draw_overlays(folder / "out", [Case("scan", (scan,))], plan or make_plan(), "roam", known, look=look)
    return folder / "out" / "overlays"


def is_class(pixels, index):
    """Where the pure colour of a class, its outline, is."""
    return (np.asarray(pixels) == COLOURS[index]).all(-1)


def test_the_patients_left_is_on_the_right_and_front_and_top_are_up():
    plane = np.zeros((3, 4))
    plane[0, -1] = 1  # axial or coronal: left, and front or top; sagittal: back and top
    assert facing(plane).shape == (4, 3)
    assert np.argwhere(facing(plane)).tolist() == [[0, 2]]


@pytest.mark.parametrize(("axis", "row", "column"), [(0, "low", "left"), (1, "low", "right"), (2, "high", "right")])
def test_a_block_left_in_front_and_below_is_drawn_there(tmp_path, axis, row, column):
    plan = make_plan(dims=2, slice_axis=axis, patch=(8, 8), network={"strides": [(2, 2)] * 3})
    folder = draw(tmp_path, plan=plan, truth=False)
    number = {0: 4, 1: 15, 2: 5}[axis]
    page = pixels_of(folder / "scan" / f"slice_{number:03d}.png")
    top, height = 20, panel_size(*sizes(axis))[1]
    panel = page[top : top + height, page.shape[1] // 2 :]  # the prediction's, without legend and title
    rows, columns = np.nonzero(is_class(panel, 1))
    assert rows.size
    assert (rows.mean() > panel.shape[0] / 2) == (row == "low")
    assert (columns.mean() > panel.shape[1] / 2) == (column == "right")


def sizes(axis):
    rest = [other for other in range(3) if other != axis]
    return (SHAPE[rest[0]], SHAPE[rest[1]]), (1.0, 1.0)


def test_the_same_scan_stored_in_another_order_gives_the_same_pictures(tmp_path):
    one, other = draw(tmp_path / "a", AFFINES["RAS"]), draw(tmp_path / "b", AFFINES["LPS"])
    names = sorted(path.name for path in (one / "scan").iterdir())
    assert names == [f"slice_{k:03d}.png" for k in range(2, 9)]  # 4 to 6, two more on both sides
    for name in names:
        assert np.array_equal(*(pixels_of(place / "scan" / name) for place in (one, other)))


def test_panels_have_square_millimetres():
    assert panel_size((100, 50), (1.0, 2.0)) == (320, 320)
    assert panel_size((400, 100), (1.0, 1.0)) == (400, 100)
    assert panel_size((1000, 1), (1.0, 100.0)) == (512, 51)


def test_a_class_is_tinted_inside_a_solid_outline():
    label = np.zeros((5, 5), int)
    label[1:4, 1:4] = 2
    label[0, 0] = -100
    pixels = outlined(np.full((5, 5), 100, np.uint8), label, (5, 5), Style(np.array(COLOURS, np.float32), TINT))
    colour = np.array(COLOURS[2])
    assert np.array_equal(is_class(pixels, 2), (label == 2) & (np.indices((5, 5)) != 2).any(0))
    assert np.abs(pixels[2, 2] - (100 + TINT * (colour - 100))).max() <= 0.5
    assert (pixels[label <= 0] == 100).all()


def test_classes_are_outlined_and_filled_where_asked_for(tmp_path):
    outlines, filled = (
        pixels_of(draw(tmp_path / name, look=Look(fill=fill)) / "scan" / "slice_005.png").astype(int)
        for name, fill in (("outlines", False), ("filled", True))
    )
    different = np.abs(outlines - filled).sum(-1) > 0
    assert different.any()
    grey = np.ptp(outlines[different], axis=-1) == 0
    assert grey.all()  # the scan alone inside the outline


def test_the_two_sides_of_a_structure_share_an_entry_of_the_legend():
    legend = _legend({"left lung": COLOURS[1], "liver": COLOURS[2], "right lung": COLOURS[3], "right eye": COLOURS[4]})
    assert [(entry.text, entry.colours) for entry in legend] == [
        ("lung, L R", (COLOURS[1], COLOURS[3])),
        ("liver", (COLOURS[2],)),
        ("right eye", (COLOURS[4],)),
    ]


def test_the_colours_of_28_classes_can_be_told_apart():
    assert tuple(COLOURS[1 : 1 + len(PALETTE)]) == PALETTE
    for names in (map(str, range(1, 28)), list(QUICKNAT_28)[1:]):
        colours = np.array([*class_colours(["background", *names]).values()])[1:]
        distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(27)
        assert distance.min() > 35


def test_slices_with_a_label_are_shown_with_two_more_on_both_sides():
    label = np.zeros((4, 5, 30), int)
    assert shown_slices([label], 2) == [15]
    label[1, 1, 10], label[0, 0, 1] = 1, -100
    other = label * 0
    other[2, 2, 28] = 3
    assert shown_slices([label], 2) == [8, 9, 10, 11, 12]
    assert shown_slices([label, other], 2) == list(range(8, 30))
    assert shown_slices([label, other], 1) == [0, 1, 2, 3, 4]
    many = shown_slices([np.ones((1, 1, 500), int)], 2)
    assert (len(many), many[0], many[-1]) == (MOST_SLICES, 0, 499)


def test_a_volume_is_a_film_too_and_stale_slices_go(tmp_path):
    folder = draw(tmp_path)
    (folder / "scan" / "slice_777.png").touch()
    draw(tmp_path, truth=False)
    assert not (folder / "scan" / "slice_777.png").exists()
    with Image.open(folder / "scan.gif") as film:
        assert film.n_frames == 7 <= FILM_FRAMES
        film.seek(4)
        frame = np.asarray(film.convert("RGB")).astype(int)
    page = pixels_of(folder / "scan" / "slice_006.png").astype(int)
    assert frame.shape == page.shape
    assert np.abs(frame - page).mean() < 2


def test_a_panel_for_the_truth_and_for_the_other_model(tmp_path):
    folder = draw(tmp_path)
    out, before = tmp_path / "out", pixels_of(folder / "scan" / "slice_005.png").shape[1]
    write_nifti(out / "beside" / "scan.nii.gz", 2 * anatomy()[1])
    case = Case("scan", (tmp_path / "scan.nii.gz",))
    truth = {"scan": Truth(tmp_path / "truth" / "scan.nii.gz")}
    draw_overlays(out, [case], make_plan(), "roam", truth, ("roam", out / "beside"))
    page = pixels_of(folder / "scan" / "slice_005.png")
    width = (page.shape[1] - 4) // 4
    assert before == 4 + 3 * width
    panels = [page[20:300, 4 + k * width : 4 + (k + 1) * width] for k in range(4)]
    assert [is_class(panel, 1).any() for panel in panels] == [False, True, True, False]
    assert [is_class(panel, 2).any() for panel in panels] == [False, False, False, True]
    assert np.array_equal(is_class(panels[1], 1), is_class(panels[2], 1))


def test_a_label_map_that_does_not_fit_is_left_out_and_said(tmp_path, capsys):
    folder = draw(tmp_path, truth=False)
    image = (folder / "scan" / "slice_005.png").read_bytes()
    write_nifti(tmp_path / "truth" / "scan.nii.gz", np.zeros((2, 2, 2), np.uint8))
    case, truth = Case("scan", (tmp_path / "scan.nii.gz",)), {"scan": Truth(tmp_path / "truth" / "scan.nii.gz")}
    draw_overlays(tmp_path / "out", [case], make_plan(), "roam", truth)
    assert (folder / "scan" / "slice_005.png").read_bytes() == image
    message = capsys.readouterr().err
    assert "scan: truth left out of the overlay" in message
    assert "got shape (2, 2, 2), expected (18, 20, 16)" in message


def test_labels_of_a_dataset_go_by_its_names(tmp_path):
    """Another site has other numbers for the same structures."""
    _, label = anatomy()
    path = write_nifti(tmp_path / "theirs.nii.gz", label * np.uint8(50))
    theirs = Dataset(tmp_path, "plain", (), classes={"nothing": 0, "b": 50})
    image, _ = anatomy()
    case = Case("scan", (write_nifti(tmp_path / "scan.nii.gz", image),))
    write_nifti(tmp_path / "out" / "scan.nii.gz", label * 0)
    draw_overlays(tmp_path / "out", [case], make_plan(), "roam", {"scan": Truth(path, theirs)})
    page = pixels_of(tmp_path / "out" / "overlays" / "scan" / "slice_005.png")
    assert is_class(page, 2).any()
    assert not is_class(page, 1).any()


def test_a_picture_looks_as_its_file_does(tmp_path):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:10, :15] = 255  # upper left
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    mask = np.zeros((60, 40, 1), np.uint8)
    mask[:15, :10] = 1
    Image.fromarray(mask[..., 0].T).save(tmp_path / "truth.png")
    (tmp_path / "out").mkdir()
    Image.fromarray(mask[..., 0].T).save(tmp_path / "out" / "slice.png")
    plan = make_plan(dims=2, slice_axis=2, patch=(8, 8), network={"strides": [(2, 2)] * 3})
    draw_overlays(tmp_path / "out", [Case("slice", (tmp_path / "slice.png",))], plan, "roam", {})
    page = pixels_of(tmp_path / "out" / "overlays" / "slice.png")
    width = (page.shape[1] - 12) // 2
    panel = page[20:-24, -4 - width : -4]
    rows, columns = np.nonzero(is_class(panel, 1))
    assert rows.max() < panel.shape[0] / 3
    assert columns.max() < panel.shape[1] / 3
    assert page[25:60, 10:60].min() > 240  # and the scan's own bright corner too


def test_truth_is_found_in_datasets_and_folders(tmp_path, plain_cohort):
    root = plain_cohort(labelled=2, unlabelled=1)
    found = true_labels(None, [root, root / "images", root / "images" / "case0.nii.gz"])
    assert {name: truth.path for name, truth in found.items()} == {
        f"case{k}": root / "labels" / f"case{k}.nii.gz" for k in range(2)
    }
    assert found["case0"].dataset.classes == {"background": 0, "ball": 1}
    assert {truth.dataset for truth in true_labels(root / "labels", []).values()} == {None}
    assert true_labels(root, []).keys() == found.keys()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--truth .*empty: got no label file, expected CASE.nii.gz"):
        true_labels(tmp_path / "empty", [])


def test_predict_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")
    study = write_study(tmp_path / "study")
    run = train_run_on(study, tmp_path / "run")
    out = tmp_path / "out"
    words = ["predict", run, study, "--out", out, "--cases", run / "splits.json", "--quiet"]
    code, _, err = semiseg(*words, "--overlay", "--beside", run / "model")
    assert code == 0, err
    (name,) = json.loads((run / "splits.json").read_text())[0]["test"]
    assert (out / "beside" / f"{name}.nii.gz").exists()
    before = pixels_of(next((out / "overlays" / name).iterdir())).shape[1]
    assert (out / "overlays" / f"{name}.gif").exists()
    assert semiseg(*words, "--overlay", "--overwrite")[0] == 0
    after = pixels_of(next((out / "overlays" / name).iterdir())).shape[1]
    assert (before - 4) * 3 == (after - 4) * 4  # scan, truth, run, other
    for flag, value in (("--truth", study), ("--beside", run)):
        code, _, err = semiseg(*words, flag, value)
        assert code == 2
        assert f"error: {flag}: got {value} without --overlay, expected both; add --overlay" in err
    code, _, err = semiseg(*words, "--overlay", "--truth", tmp_path / "none")
    assert (code, "--truth: got" in err, "no such file or folder" in err) == (2, True, True)
    code, _, err = semiseg(*words, "--overlay", "--beside", "demo-brain", "--out", tmp_path / "out2")
    assert code == 2
    assert "--beside demo-brain: got classes {'background': 0, 'grey matter': 1" in err
    assert not (tmp_path / "out2").exists()
