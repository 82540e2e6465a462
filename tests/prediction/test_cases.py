import csv
import json

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from support.plans import AFFINES, blocks, make_plan
from support.scans import write_nifti
from torch import nn

from semiseg.data.dataset import Case
from semiseg.data.images import PICTURE_AFFINE
from semiseg.data.prepare import prepare_cases
from semiseg.devices import chosen_device
from semiseg.errors import OutOfMemory, UserError
from semiseg.manifest import file_hash
from semiseg.models.model import LoadedModel
from semiseg.models.windows import predict_probabilities
from semiseg.prediction import cases as module
from semiseg.prediction.cases import predict_cases

CLASSES = {"background": 0, "left": 17, "right": 530}
LOW, HIGH = 10.0, 20.0
"""Intensities of the classes 17 and 530 in the test scans; the background has 0."""


class Thresholds(nn.Module):
    """Tells the three intensities of the test scans apart, whatever the window and the dimensions."""

    def __init__(self, sharpness=200.0, favoured=None):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(sharpness))
        self.favoured = favoured
        self.sizes, self.totals = [], []

    def forward(self, x):
        self.sizes.append(tuple(x.shape))
        self.totals.append(float(x.sum()))
        if self.favoured is not None:
            logits = torch.zeros(len(x), 3, *x.shape[2:])
            logits[:, self.favoured] = 50
            return logits
        distance = torch.stack([(x[:, 0] - value).abs() for value in (0, LOW, HIGH)], dim=1)
        return -self.scale * distance


def plain_plan(**changes):
    """Leaves intensities as they are, so that a network can read the classes off them."""
    rule = {"scheme": "window", "low": -1000, "high": 1000}
    return make_plan(**{"classes": CLASSES, "normalisation": [rule], "patch": (24, 24, 24)} | changes)


def flat_plan(slice_axis, **changes):
    return plain_plan(**{"dims": 2, "slice_axis": slice_axis, "patch": (24, 24)} | changes)


def write_case(folder, name="scan", affine=AFFINES["RAS"], label=None):
    label = blocks() if label is None else label
    image = np.array([0, LOW, HIGH], np.float32)[label]
    path = write_nifti(folder / f"{name}.nii.gz", image, affine)
    return Case(name, (path,)), np.array(list(CLASSES.values()))[label]


PLANS = {
    "3-D": plain_plan(),
    "3-D windows": plain_plan(patch=(16, 8, 16)),
    "3-D cropped": plain_plan(crop_nonzero=True),
    "3-D to a box": plain_plan(crop_nonzero=True, crop_box=(None, (1, 99), (2, 99))),
    "2-D sagittal": flat_plan(0),
    "2-D axial": flat_plan(2),
    "2-D windows": flat_plan(1, patch=(8, 16)),
}


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("plan", PLANS)
def test_round_trip(tmp_path, affine, plan):
    case, truth = write_case(tmp_path / "in", affine=AFFINES[affine])
    model = LoadedModel(Thresholds(), PLANS[plan], "model")
    result = predict_cases([model], [case], tmp_path / "out", device="cpu")
    assert (result.done, result.skipped, result.failed, result.exit_code) == (("scan",), (), {}, 0)
    source, written = nib.load(case.images[0]), nib.load(tmp_path / "out" / "scan.nii.gz")
    assert written.shape == source.shape
    np.testing.assert_array_equal(written.affine, source.affine)
    assert written.header.get_zooms() == source.header.get_zooms()
    assert written.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(written.dataobj), truth)


def test_an_array_is_written_back_as_nifti(tmp_path):
    case, truth = write_case(tmp_path)
    stack = np.asarray(nib.load(case.images[0]).dataobj).transpose(2, 1, 0)
    np.save(tmp_path / "ct.npy", stack)
    model = LoadedModel(Thresholds(), plain_plan(), "model")
    result = predict_cases([model], [Case("ct", (tmp_path / "ct.npy",))], tmp_path / "out", device="cpu")
    assert result.done == ("ct",)
    written = nib.load(tmp_path / "out" / "ct.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), truth)
    np.testing.assert_array_equal(written.affine, PICTURE_AFFINE)
    assert written.header.get_zooms() == (1, 1, 1)


def test_a_scan_that_is_windowed_already_is_named(tmp_path, capsys):
    case, truth = write_case(tmp_path / "in")
    array = np.asarray(nib.load(case.images[0]).dataobj)
    ct = Case("ct", (write_nifti(tmp_path / "in" / "ct.nii.gz", np.where(array == 0, np.float32(-5), array)),))
    rule = {"scheme": "window", "low": 0, "high": 255, "eight_bit": True}
    model = LoadedModel(Thresholds(), plain_plan(normalisation=[rule]), "model")
    predict_cases([model], [case, ct], tmp_path / "out", device="cpu")
    said = capsys.readouterr().err
    assert "scan: all values lie in 0 to 255 or 0 to 1, taken as the plan's window already applied" in said
    assert said.count("taken as") == 1
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj), truth)


def test_models_that_prepare_differently_see_their_own_images():
    """Replicates share one prepared image; another crop, size or correction makes another."""
    changes = [{}, {}, {"patch": (16, 16, 16)}, {"bias_correction": True}, {"resize": (9, None, None)}]
    changes += [{"mask_zeros": True}, {"crop_box": ((1, 9), None, None)}]
    groups = module.same_preparation([LoadedModel(Thresholds(), plain_plan(**change), "m") for change in changes])
    assert [len(group) for group in groups] == [3, 1, 1, 1, 1]


@pytest.mark.parametrize("affine", AFFINES)
def test_prepared_labels_come_back(tmp_path, affine):
    """prepare, then a network that knows the prepared label, then predict: the input's own label map."""
    case, truth = write_case(tmp_path / "in", affine=AFFINES[affine])
    write_nifti(tmp_path / "labels" / "scan.nii.gz", truth.astype(np.uint16), AFFINES[affine])
    plan = plain_plan(spacing_mm=(0.5, 0.5, 0.5), patch=(80, 80, 160))
    prepared = prepare_cases([Case("scan", case.images, tmp_path / "labels" / "scan.nii.gz")], plan)[0]
    label = torch.from_numpy(np.array(prepared.open_label(), np.int64))

    class Oracle(nn.Module):
        def forward(self, x):
            one_hot = nn.functional.one_hot(label, 3).permute(3, 0, 1, 2)[None].float()
            gaps = [(window - side) for window, side in zip(x.shape[2:], label.shape, strict=True)]
            pads = [side for gap in reversed(gaps) for side in ((gap + 1) // 2, gap // 2)]
            return 50 * nn.functional.pad(one_hot, pads)

    plan = plan.model_copy(update={"patch": tuple(-(-side // 8) * 8 for side in label.shape)})
    predict_cases([LoadedModel(Oracle(), plan, "oracle")], [case], tmp_path / "out", device="cpu")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj), truth)


def test_small_scans_are_padded_as_in_training_and_large_ones_windowed():
    image = np.zeros((1, 5, 20, 9), np.float32)
    for plan, sizes in (
        (plain_plan(), [(1, 1, 24, 24, 24)]),
        (flat_plan(0, batch=2, unlabelled_batch=2), [(4, 1, 24, 24), (1, 1, 24, 24)]),
    ):
        network = Thresholds()
        probability = predict_probabilities(network, image, plan)
        assert probability.shape == (3, 5, 20, 9)
        assert network.sizes == sizes
    network = Thresholds()
    windows = predict_probabilities(network, image, plain_plan(patch=(8, 8, 8)))
    assert windows.shape == (3, 5, 20, 9)
    assert {size[2:] for size in network.sizes} == {(8, 8, 8)}
    torch.testing.assert_close(windows.sum(0), torch.ones(5, 20, 9))


def test_network_is_left_as_it_was():
    network = nn.Sequential(nn.Conv3d(1, 3, 1), nn.BatchNorm3d(3))
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    predict_probabilities(network, np.random.default_rng(0).random((1, 4, 4, 4)), plain_plan())
    assert network.training
    assert not network[1].training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize(
    ("plan", "order"),
    [(plain_plan(patch=(64, 64, 16)), (0, 1, 2)), (flat_plan(2, patch=(64, 64)), (2, 0, 1))],
)
def test_views_are_brought_back(plan, order):
    """Test-time augmentation of a perfect network changes nothing but the edges of a structure."""
    label = np.zeros((64, 64, 16), int)
    label[40:54, 12:30, 3:13] = 2  # off the centre, so that a view that is not brought back would miss it
    label = np.ascontiguousarray(label.transpose(order))
    network = Thresholds(sharpness=1.0)
    probability = predict_probabilities(network, np.array([0, LOW, HIGH])[label][None], plan, tta=True)
    torch.testing.assert_close(probability.sum(0), torch.ones(label.shape))
    mask = torch.from_numpy(label == 2).float()[None]
    near = torch.nn.functional.max_pool3d(mask, 5, 1, 2)[0] > 0
    core = -torch.nn.functional.max_pool3d(-mask, 5, 1, 2)[0] > 0
    assert (probability[2][core] > 0.99).all()
    assert (probability[0][~near] > 0.99).all()
    edges = near & ~core
    assert not torch.allclose(probability[2][edges], mask[0][edges])
    areas = np.array(network.totals).reshape(5, -1).sum(1)
    np.testing.assert_allclose(areas / areas[0], [1, 1, 1, 1.1**plan.dims, 0.9**plan.dims], rtol=0.01)


def test_models_are_averaged_on_probabilities(tmp_path):
    case, _ = write_case(tmp_path / "in")
    votes = [0, 0, 1, 1, 1]  # with different preparations: each model counts once
    plans = [plain_plan(), plain_plan(), plain_plan(), plain_plan(spacing_mm=(2, 2, 2)), flat_plan(1)]
    models = [LoadedModel(Thresholds(favoured=vote), plan, "m") for vote, plan in zip(votes, plans, strict=True)]
    predict_cases(models, [case], tmp_path / "out", probabilities=True, device="cpu")
    probability = nib.load(tmp_path / "out" / "scan_prob.nii.gz")
    assert probability.shape == (18, 20, 16, 3)
    assert probability.get_data_dtype() == np.uint8
    assert probability.dataobj.slope == pytest.approx(1 / 255)
    np.testing.assert_allclose(probability.get_fdata()[9, 9, 9], [0.4, 0.6, 0], atol=1 / 255)
    assert (np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj) == 17).all()


def test_models_of_different_datasets_are_refused(tmp_path):
    case, _ = write_case(tmp_path / "in")
    model = LoadedModel(Thresholds(), plain_plan(), "first")
    other = LoadedModel(Thresholds(), plain_plan(classes={"background": 0, "left": 1, "right": 2}), "second")
    with pytest.raises(UserError, match=r"second: got classes .*'left': 1.*, expected .*'left': 17.* as in first"):
        predict_cases([model, other], [case], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_existing_files_are_skipped_unless_told(tmp_path):
    first, _ = write_case(tmp_path / "in", "first")
    second, truth = write_case(tmp_path / "in", "second")
    model = LoadedModel(Thresholds(), plain_plan(), "model")
    out = tmp_path / "out"
    predict_cases([model], [second], out, device="cpu")
    result = predict_cases([model], [first, second], out, device="cpu")
    assert (result.done, result.skipped) == (("first",), ("second",))
    assert result.text() == "1 predicted, 1 already there"
    result = predict_cases([model], [second], out, device="cpu", probabilities=True)
    assert result.done == ("second",)  # its probabilities were not there
    assert predict_cases([model], [first, second], out, device="cpu", overwrite=True).skipped == ()
    np.testing.assert_array_equal(np.asarray(nib.load(out / "second.nii.gz").dataobj), truth)


def test_predictions_of_another_model_are_not_taken_for_those_of_this_one(tmp_path):
    first, _ = write_case(tmp_path / "in", "first")
    second, _ = write_case(tmp_path / "in", "second")
    out = tmp_path / "out"
    predict_cases([LoadedModel(Thresholds(), plain_plan(), "model")], [first], out, device="cpu")
    before = (out / "manifest.json").read_bytes()
    other = [LoadedModel(Thresholds(sharpness=100.0), plain_plan(), "model")]  # the same place, trained again
    with pytest.raises(UserError, match=r"out: got predictions made with other weights, .* pass --overwrite"):
        predict_cases(other, [first, second], out, device="cpu")
    with pytest.raises(UserError, match=r"made with other weights, tta, keep_largest"):
        predict_cases(other, [first], out, device="cpu", tta=True, keep_largest=True)
    assert (out / "manifest.json").read_bytes() == before
    assert not (out / "second.nii.gz").exists()
    assert predict_cases(other, [first], out, device="cpu", overwrite=True).done == ("first",)
    (out / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match=r"manifest\.json: got .*, expected what semiseg left there"):
        predict_cases(other, [first], out, device="cpu")


def test_a_full_disk_stops_at_once(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    case, _ = write_case(tmp_path / "in")
    monkeypatch.setattr(module, "write_like", full)
    with pytest.raises(OSError, match="No space left"):
        predict_cases([LoadedModel(Thresholds(), plain_plan(), "model")], [case], tmp_path / "out", device="cpu")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["begun.json"]


def test_bad_files_do_not_stop_the_others(tmp_path, capsys):
    good, _ = write_case(tmp_path / "in", "good")
    missing = Case("missing", (tmp_path / "in" / "missing.nii.gz",))
    channels = Case("channels", good.images * 2)
    nan = Case("nan", (write_nifti(tmp_path / "in" / "nan.nii.gz", np.full((4, 4, 4), np.nan, np.float32)),))
    model = LoadedModel(Thresholds(), plain_plan(), "model")
    out = tmp_path / "out"
    result = predict_cases([model], [missing, channels, nan, good], out, device="cpu")
    assert result.done == ("good",)
    assert result.exit_code == 4
    assert result.text() == "1 predicted, 0 already there, 3 failed (see failed.csv)"
    with (out / "failed.csv").open() as file:
        failed = {row["case"]: row["error"] for row in csv.DictReader(file)}
    assert failed == dict(result.failed)
    assert "missing.nii.gz: got no such file" in failed["missing"]
    assert "got 2 channel(s), expected 1 (MRI)" in failed["channels"]
    assert "NaN or infinity in 64 voxels" in failed["nan"]
    assert "missing: failed: " in capsys.readouterr().err
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["good.nii.gz"]
    predict_cases([model], [good], out, device="cpu")
    assert not (out / "failed.csv").exists()


def test_tables_and_manifest(tmp_path):
    case, _ = write_case(tmp_path / "in")
    model = LoadedModel(Thresholds(), plain_plan(classes={"background": 0, "left atrium": 17, "r": 530}), "m")
    predict_cases([model], [case], tmp_path / "out", device="cpu")
    out = tmp_path / "out"
    assert json.loads((out / "labels.json").read_text()) == {"background": 0, "left atrium": 17, "r": 530}
    snap = [line for line in (out / "labels.txt").read_text().splitlines() if not line.startswith("#")]
    assert snap[0] == '0 0 0 0 0 0 0 "background"'
    assert snap[1].startswith("17 ")
    assert snap[1].endswith(' 1 1 1 "left atrium"')
    slicer = [line.split() for line in (out / "labels.ctbl").read_text().splitlines()[1:]]
    assert [(row[0], row[1], row[5]) for row in slicer] == [
        ("0", "background", "0"),
        ("17", "left_atrium", "255"),
        ("530", "r", "255"),
    ]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["requested"] == ["scan"]
    assert manifest["outputs"] == ["scan.nii.gz", "labels.json", "labels.txt", "labels.ctbl"]
    assert list(manifest["inputs"].values()) == [file_hash(case.images[0])]


def test_keep_largest(tmp_path):
    label = blocks()
    label[0, 0, 0] = 1
    case, truth = write_case(tmp_path / "in", label=label)
    truth[0, 0, 0] = 0
    model = LoadedModel(Thresholds(), plain_plan(), "model")
    predict_cases([model], [case], tmp_path / "out", keep_largest=True, device="cpu")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj), truth)


def test_out_of_memory_says_what_to_lower(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    case, _ = write_case(tmp_path / "in")
    monkeypatch.setattr(module, "predict_probabilities", full)
    with pytest.raises(OutOfMemory, match=r"scan.nii.gz: got out of memory on cpu, .*lower batch and patch"):
        predict_cases([LoadedModel(Thresholds(), plain_plan(), "m")], [case], tmp_path / "out", device="cpu")


def test_devices():
    assert chosen_device("cpu") == torch.device("cpu")
    assert chosen_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UserError, match=r"--device: got 'gpu' \(.*\), expected auto, cpu, cuda"):
        chosen_device("gpu")


@pytest.mark.parametrize(("right", "mode"), [(2, "P"), (530, "I;16")])
def test_pictures_give_pictures(tmp_path, right, mode):
    classes = {"background": 0, "left": 17, "right": right}
    label = np.zeros((30, 21), int)  # rows x columns, both larger than the patch
    label[3:9, 2:5], label[20:, 15:19] = 1, 2
    path = tmp_path / "2020.01%0.jpeg.png"
    Image.fromarray(np.array([0, LOW, HIGH], np.uint8)[label]).save(path)
    model = LoadedModel(Thresholds(), flat_plan(2, classes=classes), "model")
    out, case = tmp_path / "out", Case("2020.01%0.jpeg", (path,))
    assert predict_cases([model], [case], out, probabilities=True, device="cpu").done == ("2020.01%0.jpeg",)
    with Image.open(out / "2020.01%0.jpeg.png") as picture:
        assert picture.mode == mode
        np.testing.assert_array_equal(np.asarray(picture), np.array([*classes.values()])[label])
    probability = nib.load(out / "2020.01%0.jpeg_prob.nii.gz").get_fdata()
    np.testing.assert_array_equal(probability[:, :, 0].argmax(-1), label.T)
    assert predict_cases([model], [case], out, probabilities=True, device="cpu").skipped == ("2020.01%0.jpeg",)


def test_hdf5_gives_nifti(tmp_path):
    label = blocks()
    with h5py.File(tmp_path / "Data_1000.h5", "w") as file:
        file["data"] = np.array([0, LOW, HIGH])[label]
    case = Case("1000", (tmp_path / "Data_1000.h5",))
    predict_cases([LoadedModel(Thresholds(), flat_plan(1), "model")], [case], tmp_path / "out", device="cpu")
    written = nib.load(tmp_path / "out" / "1000.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.array(list(CLASSES.values()))[label])
    assert nib.aff2axcodes(written.affine) == ("A", "I", "L")


def test_a_patch_that_no_machine_holds_is_told_before_anything_is_set_aside(tmp_path):
    """On a system that promises memory which it does not have, the process would be killed."""
    model = LoadedModel(Thresholds(), plain_plan(patch=(2**20, 2**20, 2**10)), "model")
    case = Case("a", (write_nifti(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.float32)),))
    with pytest.raises(OutOfMemory, match=r"plan: got a patch and batch that need at least .*e\+08 GB"):
        predict_cases([model], [case], tmp_path / "out", device="cpu")
