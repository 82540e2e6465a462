import base64
import csv
import html.parser
import io
import json
import struct

import nibabel as nib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.image import imread

from semiseg.data.dataset import Case
from semiseg.errors import InputError, UserError
from semiseg.report import figures
from semiseg.report.page import Result, Spread, case_means, read_log, read_scores, write_report

CLASSES = {"core": 1, "shell <b>&": 4}
COLUMNS = ("case", "class", "value", "state", "dice", "hd95_mm", "in_truth")
DICE = {"a": (0.9, 0.8), "b": (0.7, 0.6), "c": (0.5, 0.2), "d": (0.8, 0.7)}


class Page(html.parser.HTMLParser):
    """What a browser would find: tables as rows of cell texts, images, and every address it would load."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.addresses, self.tags, self.text = {}, [], [], [], ""
        self._table = self._row = None
        self._open = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.addresses += [attributes[key] for key in ("src", "srcset", "href") if key in attributes]
        if tag == "img":
            self.images.append(attributes)
        elif tag == "table":
            self._table = self.tables[attributes["id"]] = []
        elif tag == "tr":
            self._row = []
            self._table.append(self._row)
        elif tag in ("td", "th"):
            self._row.append("")
            self._open = 1

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._row[-1] = " ".join(self._row[-1].split())
            self._open = 0

    def handle_data(self, data):
        self.text += data
        if self._open:
            self._row[-1] += data


def save(array, path, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine), path)
    return path


def make_result(folder, method, shift, *, validation=True):
    """A result whose Dice is `shift` above the table's, with the truth as predictions."""
    run, evaluation, predictions = (folder / method / part for part in ("run", "scores", "predictions"))
    run.mkdir(parents=True)
    evaluation.mkdir()
    lines = [
        {"step": step, "kind": "train", "loss": 1 / step, "lr": 0.01, "terms": {"supervised": 1 / step}}
        for step in range(1, 41)
    ]
    if validation:
        checks = [{"step": step, "kind": "validation", "dice_mean": step / 80} for step in (20, 40)]
        lines += checks
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.yaml").write_text("steps: 40\nname: <script>alert(1)</script>\n")
    with (evaluation / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for case, values in DICE.items():
            for (name, value), dice in zip(CLASSES.items(), values, strict=True):
                hd95 = "" if (case, name) == ("c", "core") else 3.0
                writer.writerow([case, name, value, "scored", dice + shift, hd95, True])
        writer.writerow(["e", "core", 1, "scored", 0.0, "", False])  # a false positive: class not in the truth
    for case in DICE:
        save(make_label(), predictions / f"{case}.nii.gz")
    facts = {
        "labelled": 3,
        "validation": 2 * validation,
        "unlabelled": 20 if shift else 0,
        "duration_s": 12.3,
    }
    (run / "result.json").write_text(json.dumps(facts))
    return Result(method, run, evaluation, predictions)


def make_label():
    label = np.zeros((20, 16, 6), np.uint8)
    label[4:14, 4:12, 2:5] = 4
    label[7:11, 6:10, 3] = 1
    return label


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    cases = [
        Case(
            name,
            images=(save(rng.random((20, 16, 6), np.float32), folder / "images" / f"{name}_0000.nii.gz"),),
            label=save(make_label(), folder / "labels" / f"{name}.nii.gz"),
        )
        for name in DICE
    ]
    results = [make_result(folder, "supervised", 0.0), make_result(folder, "roam", 0.05, validation=False)]
    out = write_report(
        results,
        cases,
        folder / "report.html",
        title="Scores & outlines",
        remarks=["Simulated scans."],
        commands=["semiseg demo --out here"],
    )
    return folder, results, cases, out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written):
    return Page(written[3])


def test_summary_table_compares_scan_by_scan_with_the_first_method(page):
    header, supervised, roam = page.tables["summary"]
    assert header[:4] == ["Method", "Dice", "Difference", "Scans better"]
    # Case means .85 .65 .35 .75: mean .65, sample deviation .2160.
    assert supervised == ["supervised", "0.650 ± 0.216", "–", "–", "3 + 2", "0", "12"]
    assert roam == ["roam", "0.700 ± 0.216", "+0.050 ± 0.000", "4 of 4", "3", "20", "12"]


def test_class_table_leaves_out_false_positives_and_counts_absent_distances(page):
    table = page.tables["classes"]
    assert table[1] == ["core"]
    assert table[2] == ["supervised", "0.725 ± 0.171", "3.0 ± 0.0", "4 (3 with HD95)"]
    assert table[4] == ["shell <b>&"]
    assert table[6] == ["roam", "0.625 ± 0.263", "3.0 ± 0.0", "4"]


def test_nothing_is_loaded_and_nothing_is_run(page, written):
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert "http-equiv" in written[3]
    assert "<script>alert(1)</script>" in page.text  # shown, not run


def test_every_image_is_a_png_with_an_alternative_text(page):
    assert len(page.images) == 3 * 4 + 2  # best, median, worst: image, truth, two methods; two plots
    for image in page.images:
        data = base64.b64decode(image["src"].partition(",")[2])
        assert data.startswith(b"\x89PNG")
        assert len(image["alt"]) > 10


def test_best_median_and_worst_scan_are_shown_with_their_dice(page):
    heads = [line.strip() for line in page.text.splitlines() if line.strip().startswith(("Best:", "Med", "Wor"))]
    assert heads == ["Best: a", "Median: b", "Worst: c"]
    assert [image["alt"] for image in page.images[:4]] == [
        "a, axial slice 3: image",
        "a, axial slice 3: truth",
        "a, axial slice 3: supervised, Dice 0.850",
        "a, axial slice 3: roam, Dice 0.900",
    ]


def test_plots_name_their_last_values_and_validation_only_where_there_was_some(page):
    validation, loss = (image["alt"] for image in page.images[-2:])
    assert validation == "validation Dice over training steps; at the end supervised 0.500"
    smoothed = (1 / 40 + 1 / 39) / 2
    assert loss == (f"loss: supervised over training steps; at the end supervised {smoothed:.3f}, roam {smoothed:.3f}")


def test_remarks_commands_and_settings_are_there(page):
    for text in ("Simulated scans.", "semiseg demo --out here", "steps: 40", "Scores & outlines"):
        assert text in page.text


def test_one_method_has_no_difference(written, tmp_path):
    _, results, cases, _ = written
    page = Page(write_report(results[:1], cases[:1], tmp_path / "one.html", title="one").read_text())
    assert page.tables["summary"][0][1:3] == ["Dice", "Labelled scans"]
    assert len(page.images) == 3 + 2
    assert "Best: a" in page.text


def test_a_case_without_prediction_is_drawn_without_outline(written, tmp_path):
    _, _, cases, _ = written
    result = make_result(tmp_path, "supervised", 0.0)
    (result.predictions / "a.nii.gz").unlink()
    page = Page(write_report([result], cases, tmp_path / "report.html", title="t").read_text())
    image, truth, missing = (image["src"] for image in page.images[:3])
    assert missing not in (image, truth)  # everything that should be there is filled as wrong


def test_two_methods_of_one_name_are_refused(written, tmp_path):
    _, results, cases, _ = written
    with pytest.raises(UserError, match="no name twice"):
        write_report([results[0], results[0]], cases, tmp_path / "r.html", title="t")
    with pytest.raises(UserError, match="at least one"):
        write_report([], cases, tmp_path / "r.html", title="t")


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.csv.*run them again"):
        read_scores(tmp_path)
    (tmp_path / "metrics.csv").write_text("case,class\na,core\n")
    with pytest.raises(InputError, match=r"metrics\.csv, line 2.*evaluate again"):
        read_scores(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "tr')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2.*resume"):
        read_log(tmp_path, "train")


def test_case_means_and_spread(written):
    means = case_means(read_scores(written[1][0].evaluation))
    assert means == pytest.approx({"a": 0.85, "b": 0.65, "c": 0.35, "d": 0.75})  # e has no class in the truth
    assert Spread.of([None]) == Spread(None, None, 0)
    assert Spread.of([0.5, None]) == Spread(0.5, None, 1)


def test_slices_are_shown_with_left_on_the_left_and_anterior_up():
    image = np.zeros((10, 20))
    image[0, 19] = 1.0  # left, anterior
    pixels = decode(figures.overlay(image, np.zeros((10, 20), int), {}, (2.0, 1.0), width=100))
    assert pixels.shape[:2] == (100, 100)  # square in millimetres
    rows, columns = np.nonzero(pixels[..., 0] > 200)
    assert rows.max() < 15
    assert columns.max() < 25


def test_outlines_surround_their_class_in_its_colour():
    label = np.zeros((20, 20), int)
    label[5:15, 5:15] = 7
    pixels = decode(figures.overlay(np.zeros((20, 20)), label, {7: "#ff0000"}, (1.0, 1.0), width=200))
    rows, columns = np.nonzero(pixels[..., 0] > 200)
    assert (rows.min(), rows.max()) == pytest.approx((50, 150), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((50, 150), abs=2)
    assert pixels[100, 100, 0] == 0


def test_voxels_that_differ_from_the_truth_are_filled():
    label, truth = np.zeros((2, 20, 20), int)
    truth[:10] = 1
    pixels = decode(figures.overlay(np.zeros((20, 20)), label, {}, (1.0, 1.0), truth=truth, width=200))
    assert pixels[100, 50, 0] > 100
    assert pixels[100, 150, 0] == 0


def test_telling_slice_prefers_the_rare_class():
    assert figures.telling_slice(make_label()) == 3
    assert figures.telling_slice(np.zeros((4, 4, 9), int)) == 4


def test_curves_differ_by_theme_and_leave_pyplot_alone():
    series = {"supervised": ([1, 2], [0.1, 0.2])}
    light, dark = (figures.curves(series, "Dice", theme=theme, order=["supervised"]) for theme in ("light", "dark"))
    assert light != dark
    assert decode(light)[0, 0, 3] == 0  # transparent ground
    assert struct.unpack(">II", light[16:24]) == (768, 480)
    assert not Gcf.get_all_fig_managers()


def decode(png):
    return (imread(io.BytesIO(png)) * 255).astype(int)
