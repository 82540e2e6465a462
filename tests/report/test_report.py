import base64
import hashlib
import html
import html.parser
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import yaml
from support.command_line import semiseg
from support.finished import make_bench, make_dataset, make_label, make_ranking, make_run, save

from semiseg.bench import statistics
from semiseg.errors import InputError, UserError
from semiseg.report import page as page_module
from semiseg.report.page import VENDOR, niivue, report_folders, write_report
from semiseg.report.sources import open_studies

VIEWER = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


class Page(html.parser.HTMLParser):
    """What a browser would find: tables as rows of cell texts, images, addresses, ids, headings."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.addresses, self.tags, self.text = {}, [], [], [], ""
        self.charts, self.ids, self.headings, self.source = [], [], [], text
        self._row = self._table = None
        self._open = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[key] for key in ("src", "srcset", "href") if key in attributes]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(attributes)
        elif tag == "svg" and "aria-label" in attributes:
            self.charts.append(attributes["aria-label"])
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


@pytest.fixture(scope="module", autouse=True)
def fewer_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 300)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    data = make_dataset(root / "data")
    make_run(root / "supervised", data)
    make_run(root / "roam", data, method="roam", shift=0.05, validation=False, term="guess")
    make_bench(root / "bench", data, runs=9, leave_out=[f"roam-4-{k}" for k in range(5, 9)])
    return root


@pytest.fixture(scope="module")
def page(folder):
    """Of two runs."""
    return Page(report_folders([folder / "supervised", folder / "roam"], folder / "r.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def bench(folder):
    ranked = make_ranking(folder / "ranked", folder / "bench" / "runs" / "roam-2-0")
    return Page(report_folders([folder / "bench", ranked]).read_text("utf-8"))


def test_summary_table_compares_scan_by_scan_with_the_first_method(page):
    header, supervised, roam = page.tables["s1-summary"]
    assert header[:4] == ["Method", "Dice", "Difference", "Scans better"]
    # Case means .85 .65 .35 .75: mean .65, sample deviation .2160; the region does not count.
    assert "Scores on held-out scans" in page.text
    assert supervised == ["supervised", "0.650 ± 0.216", "–", "–", "0.20 ± 0.00", "3 + 2", "0", "12"]
    assert roam == ["roam", "0.700 ± 0.216", "+0.050 ± 0.000", "4 of 4", "0.30 ± 0.00", "3", "20", "12"]


def test_class_table_leaves_out_false_positives_and_counts_absent_distances(page):
    table = {(row[0], row[1]): row[2:] for row in page.tables["s1-classes"][1:]}
    assert table["core", "supervised"] == ["0.725 ± 0.171", "3.0 ± 0.0", "0.10 ± 0.00", "4 (3 with HD95)"]
    assert table["shell <b>&", "roam"] == ["0.625 ± 0.263", "3.0 ± 0.0", "0.15 ± 0.00", "4"]
    assert list(table)[-2:] == [("whole", "supervised"), ("whole", "roam")]  # regions last


@pytest.mark.parametrize("which", ["page", "bench"])
def test_nothing_is_loaded_and_no_foreign_markup_gets_in(which, request):
    page = request.getfixturevalue(which)
    outside = [address for address in page.addresses if not address.startswith(("data:", "#"))]
    assert outside == []
    assert not {"iframe", "b", "object", "form"} & ({*page.tags} - ({"b"} if which == "bench" else set()))
    policy = html.unescape(re.search('Content-Security-Policy" content="([^"]*)"', page.source)[1])
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "'unsafe-eval'" not in policy
    assert "script-src 'sha256-" in policy
    if which == "page":
        assert "<script>alert(1)</script>" in page.text  # shown, not run


@pytest.mark.parametrize("which", ["page", "bench"])
def test_headings_are_in_order_and_links_lead_to_what_is_there(which, request):
    page = request.getfixturevalue(which)
    assert page.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(set(page.ids)) == len(page.ids)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= {*page.ids}


def test_every_picture_has_an_alternative_text(page):
    # Worst, median and best in three planes, the other in one: image, truth, two methods.
    assert len(page.images) == (3 * 3 + 1) * 4
    for image in page.images:
        assert base64.b64decode(image["src"].partition(",")[2]).startswith(b"\xff\xd8\xff")
        assert len(image["alt"]) > 10
    assert [image["alt"] for image in page.images[:4]] == [
        "c, axial slice 3: image",
        "c, axial slice 3: truth",
        "c, axial slice 3: supervised, Dice 0.350",
        "c, axial slice 3: roam, Dice 0.400",
    ]
    heads = re.findall(r"(Worst|Median|Best): (\w)", page.text)
    assert heads == [("Worst", "c"), ("Median", "d"), ("Best", "a")]


def test_every_point_of_a_box_plot_leads_to_its_picture(page):
    # mean, core, shell and whole, of two methods: four scans each
    links = re.findall(r'<a href="#(s1-[abcd])"><circle', page.source)
    assert len(links) == 4 * 2 * 4
    assert set(links) <= {*page.ids}
    assert "Dice of mean over classes, a point a scan; medians: supervised 0.700, roam 0.750" in page.charts


def test_training_charts_name_their_last_values_and_validation_only_where_there_was_some(page):
    validation, supervised, guess = (chart for chart in page.charts if "over training steps" in chart)
    assert validation == "validation Dice over training steps; at the end supervised 0.500"
    smoothed = (1 / 40 + 1 / 39) / 2
    assert supervised == f"loss: supervised over training steps; at the end supervised {smoothed:.3f}"
    assert guess == f"loss: guess over training steps; at the end roam {smoothed:.3f}"


def test_what_repeats_it_is_there(page, folder):
    data = folder / "data"
    for text in (
        "semiseg train 'x y'",
        f"semiseg train {data} --config {folder}/roam/config.yaml --out again/roam",
        f"semiseg predict again/roam {data} --cases again/roam/splits.json --out again/roam/predictions",
        f"semiseg evaluate again/roam/predictions {data} --out again/roam/scores",
        "torch 2.0",
        "1 labelled, 0 for validation, 0 unlabelled, 4 test",
        "a, b, c, d",
    ):
        assert text in page.text


def test_a_bench_begins_with_its_verdicts(bench):
    verdicts = re.findall(r'<li class="([\w-]+)"><b>([^<]*)</b>([^<]*)</li>', bench.source)
    assert [(kind, name) for kind, name, _ in verdicts] == [
        ("helped", "roam, 2 + 2 labelled"),
        ("no-evidence", "equireg, 2 + 2 labelled"),
        ("too-few-runs", "roam, 4 + 2 labelled"),  # four of its nine are missing
        ("no-evidence", "equireg, 4 + 2 labelled"),
    ]
    assert verdicts[0][2].startswith("Unlabelled scans helped: +")
    assert bench.source.index("helped") < bench.source.index("<table")
    assert "4 runs not finished and left out: roam-4-5, roam-4-6, roam-4-7, roam-4-8." in bench.text


def test_a_bench_has_a_row_a_line_and_an_efficiency_curve(bench):
    rows = bench.tables["s1-summary"]
    assert len(rows) == 1 + 2 * 3 + 2
    assert [row[:3] for row in rows[1:]][-2:] == [
        ["supervised", "8 + 2 (all)", "3"],
        ["supervised, 2x steps", "8 + 2 (all)", "3"],
    ]
    costs = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert {(row["HD95, mm"], row["Training, min"], row["Memory, GB"]) for row in costs} == {("3.0", "0.2", "1.5")}
    assert {(row["Passes"], row["Precision"], row["Layout"]) for row in costs} == {("–", "–", "–")}  # older results
    (curve,) = (chart for chart in bench.charts if chart.startswith("Dice against the number of labelled scans"))
    assert re.search(r"supervised \(lower bound\) 0\.5\d\d with 2, 0\.5\d\d with 4; roam", curve)
    assert re.search(r"all labels \(8 \+ 2\) 0\.6\d\d$", curve)
    assert bench.source.count('class="band"') == 3 + 1  # three methods, one level


def test_a_bench_shows_methods_of_the_fewest_labels_beside_the_upper_bound(bench):
    captions = [image["alt"].partition(": ")[2].partition(", Dice")[0] for image in bench.images[:6]]
    assert captions == [
        *("image", "truth", "supervised, 2 labels", "roam, 2 labels", "equireg, 2 labels", "supervised, all labels")
    ]


def test_estimates_are_shown_against_the_truth(bench):
    scatters = [chart for chart in bench.charts if chart.startswith("True Dice against")]
    assert len(scatters) == 2
    assert scatters[0] == (
        "True Dice against estimated Dice, roam, 2 labels, a point a scan. Rank correlation: core: rho 1.00 (n = 4)"
    )


def test_several_folders_are_sections_of_one_report(folder, tmp_path):
    page = Page(report_folders([folder / "supervised", folder / "bench"], tmp_path / "both.html").read_text("utf-8"))
    assert "supervised and Comparison: bench" in page.text
    assert {"s1-summary", "s2-summary", "s1", "s2"} <= {*page.ids}
    assert page.source.count('id="viewer-program"') == 1


def test_a_run_without_scores_shows_its_training(folder, tmp_path):
    run = make_run(tmp_path / "bare", folder / "data", scored=False)
    page = Page(report_folders([run]).read_text("utf-8"))
    assert (run / "report.html").exists()
    assert page.tables["s1-summary"][1] == ["bare", "not scored", "–", "3 + 2", "0", "12"]
    assert "No scores yet" in page.text
    assert page.images == []
    assert len(page.charts) == 2
    assert "viewer-program" not in page.ids


def test_scans_that_are_gone_leave_a_report_without_pictures(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "nowhere")
    page = Page(report_folders([run]).read_text("utf-8"))
    assert page.images == []
    assert "0.650" in page.tables["s1-summary"][1][1]


def test_a_run_of_somebody_else_does_not_choose_which_scans_are_shown(tmp_path, capsys):
    """Its settings name a folder here, with scans of the same names: none of them ends in the file."""
    theirs, ours = make_dataset(tmp_path / "theirs"), make_dataset(tmp_path / "ours")
    run = make_run(tmp_path / "run", theirs)
    for path in (*ours.glob("images/*"), *ours.glob("labels/*")):
        scan = nib.load(path)
        save(np.asanyarray(scan.dataobj)[::-1].copy(), path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": {**config["data"], "path": str(ours)}}))
    page = Page(report_folders([run]).read_text("utf-8"))
    assert page.images == []
    assert "viewer-program" not in page.ids
    assert "5 of 5 scored scans are not shown, as the files in" in capsys.readouterr().err
    # no more than a label that is theirs helps
    for name in "abcde":
        shutil.copy(theirs / "labels" / f"{name}.nii.gz", ours / "labels")
    assert Page(report_folders([run]).read_text("utf-8")).images == []
    for name in "abcde":
        shutil.copy(theirs / "images" / f"{name}.nii.gz", ours / "images")
    assert Page(report_folders([run]).read_text("utf-8")).images  # the scans that were scored, in another place


def test_predictions_that_were_made_after_the_scores_are_not_shown_with_them(tmp_path, capsys):
    run = make_run(tmp_path / "run", make_dataset(tmp_path / "data"))
    save(make_label(-1), run / "predictions" / "a.nii.gz")
    report_folders([run])
    assert "a: no picture: " in (err := capsys.readouterr().err)
    assert "a.nii.gz: got another prediction than was scored" in err
    assert "b: no picture" not in err


def test_a_run_given_twice_is_refused(folder):
    for again in (folder / "supervised", folder / "supervised" / ".." / "supervised"):
        with pytest.raises(UserError, match="supervised: got it twice, expected every folder once; leave one out"):
            report_folders([folder / "supervised", again])


def test_a_table_of_scores_without_a_row_is_damage(tmp_path):
    run = make_run(tmp_path / "run", make_dataset(tmp_path / "data"))
    table = run / "scores" / "metrics.csv"
    for text in ("", table.read_text().partition("\n")[0] + "\n"):
        table.write_text(text)
        with pytest.raises(InputError, match=r"metrics\.csv: got no "):
            report_folders([run])


def test_scores_of_scans_that_were_trained_on_are_told(folder, tmp_path):
    run = make_run(tmp_path / "run", folder / "data")
    (split,) = json.loads((run / "splits.json").read_text())
    (run / "splits.json").write_text(json.dumps([{**split, "train": ["a"], "val": ["b"], "test": ["c", "d"]}]))
    text = Page(report_folders([run]).read_text("utf-8")).text
    assert "run: 2 of 5 scans." in text
    assert "Scores on held-out scans" not in text


def test_the_file_stays_below_its_limit(folder, tmp_path, monkeypatch):
    studies = open_studies([folder / "supervised"])
    monkeypatch.setattr(page_module, "LARGEST", 1000)
    with pytest.raises(UserError, match=r"r\.html: got .* MB, expected less than 20; report fewer"):
        write_report(studies, tmp_path / "r.html", title="t")
    assert not (tmp_path / "r.html").exists()


def test_without_room_there_are_no_pictures_of_other_scans_and_no_volumes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "PICTURE_BYTES", 0)
    monkeypatch.setattr(page_module, "VOLUME_BYTES", 0)
    page = Page(report_folders([folder / "supervised"], tmp_path / "r.html").read_text("utf-8"))
    assert len(page.images) == 3 * 3 * 3
    assert "1 scored scan has no picture here" in page.text
    assert "viewer-program" not in page.ids
    assert not re.search(r'<a href="#s1-b"', page.source)  # its point leads nowhere


def test_the_viewer_is_the_published_one_and_comes_with_its_licence():
    source = (VENDOR / "niivue.umd.js").read_bytes()
    assert hashlib.sha256(source).hexdigest() == VIEWER
    licence = (VENDOR / "LICENSE.txt").read_text(encoding="utf-8")
    assert VIEWER in licence
    assert "Copyright (c) 2021, Niivue" in licence
    assert "</script" not in niivue()
    assert "<!--" not in niivue()


def test_the_command_writes_a_file_and_names_it(folder, tmp_path):
    out = tmp_path / "mine.html"
    code, printed, _ = semiseg("report", folder / "supervised", "--out", out, "--quiet")
    assert (code, printed.strip()) == (0, str(out))
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    code, _, error = semiseg("report", tmp_path)
    assert code == 2
    assert "expected a run (config.yaml), a bench (bench.yaml)" in error
