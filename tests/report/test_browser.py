"""The report in a real browser, with no way to a network and nothing to complain about."""

import time

import pytest
from PIL import Image
from support.browser import PROGRAM, Browser
from support.finished import make_bench, make_dataset, make_ranking

from semiseg.report.page import report_folders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine (apt install chromium)"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    data = make_dataset(root / "data")
    bench = make_bench(root / "bench", data, runs=6)
    return report_folders([bench, make_ranking(root / "ranked", bench / "runs" / "roam-2-0")])


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def page(browser, report):
    browser.resize(1200)
    browser.prefer("light")
    browser.open(report)
    return browser


def cells(page, column):
    rows = page.run(
        f"[...document.querySelectorAll('#s1-summary tbody tr')].map(row => row.cells[{column}].dataset.value)"
    )
    return [float(value) if value else None for value in rows]


def colours_of_canvas(page, folder):
    """As they are on the screen, a second after the last change."""
    time.sleep(1)
    page.run("document.querySelector('.viewer canvas').scrollIntoView()")
    box = page.run(
        "(() => { const box = document.querySelector('.viewer canvas').getBoundingClientRect();"
        "return [box.x + scrollX, box.y + scrollY, box.width, box.height] })()"
    )
    page.screenshot(folder / "canvas.png", box)
    with Image.open(folder / "canvas.png") as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}


def vivid(colours):
    """How many are no grey."""
    return sum(max(colour) - min(colour) > 60 for colour in colours)


def test_it_loads_without_a_complaint_and_without_a_network(page, report):
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report.resolve().as_uri()]
    assert page.run("document.images.length") > 10
    assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_a_network_would_be_refused(page):
    assert page.run("fetch('https://example.org').then(() => 'loaded', () => 'refused')") == "refused"
    page.run("document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    assert page.run("typeof window.ran") == "undefined"


def test_tables_sort_by_pointer_and_keyboard_with_empty_cells_last(page):
    heading = "document.querySelectorAll('#s1-summary th[scope=col]')[6]"
    before = cells(page, 6)
    assert None in before
    page.run(f"{heading}.querySelector('button').click()")
    values = [value for value in before if value is not None]
    assert cells(page, 6) == [*sorted(values, reverse=True), *[None] * (len(before) - len(values))]
    assert page.run(f"{heading}.ariaSort") == "descending"
    page.run(f"{heading}.querySelector('button').focus()")
    for kind in ("rawKeyDown", "char", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    assert cells(page, 6)[: len(values)] == sorted(values)
    assert page.run(f"{heading}.ariaSort") == "ascending"
    page.run("document.querySelector('#s1-summary th button').click()")
    assert (
        page.run("[...document.querySelectorAll('#s1-summary tbody th')].map(cell => cell.textContent)[0]") == "equireg"
    )
    assert page.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_a_point_leads_to_its_picture_even_inside_a_closed_part(page):
    hidden = page.run("document.querySelector('.others .case').id")
    assert not page.run(f"document.getElementById('{hidden}').checkVisibility()")
    page.run(f"document.querySelector('svg a[href=\"#{hidden}\"]').dispatchEvent(new MouseEvent('click'))")
    page.wait_for(f"document.getElementById('{hidden}').checkVisibility()")
    top = page.run(f"document.getElementById('{hidden}').getBoundingClientRect().top")
    assert -1 <= top < 900


def test_the_viewer_is_only_there_when_opened_and_draws_something(page, tmp_path):
    assert page.run("typeof window.niivue") == "undefined"
    assert page.run("[...document.querySelectorAll('.viewer')].every(place => place.hidden)")
    page.run("document.querySelector('button[data-volumes]').click()")
    page.wait_for("document.querySelector('.viewer[data-ready]') !== null")
    with_truth = colours_of_canvas(page, tmp_path)
    assert len(with_truth) > 50
    page.run(
        "const input = document.querySelector('.viewer input');input.value = 0; input.dispatchEvent(new Event('input'))"
    )
    alone = colours_of_canvas(page, tmp_path)
    assert len(alone) > 50
    assert vivid(with_truth) > 10 > vivid(alone)
    page.run(
        "const select = document.querySelector('.viewer select'); select.selectedIndex = 2;"
        "document.querySelector('.viewer input').value = 1; select.dispatchEvent(new Event('change'))"
    )
    assert vivid(colours_of_canvas(page, tmp_path)) > 10
    assert page.problems == []
    assert [url for url in page.requests if url.startswith("http")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_on_a_phone(browser, report, scheme):
    browser.resize(360, 740)
    browser.prefer(scheme)
    browser.open(report)
    browser.run("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.problems == []


def test_ink_and_ground_are_apart_in_both_schemes_and_paper_is_white(browser, report):
    def ground(scheme, media=""):
        browser.prefer(scheme, media)
        browser.open(report)
        colours = browser.run("['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])")
        return [sum(map(int, colour[4:-1].split(","))) / 3 for colour in colours]

    for scheme, brighter in (("light", 0), ("dark", 1)):
        pair = ground(scheme)
        assert pair[brighter] - pair[1 - brighter] > 180
    assert ground("dark", "print")[0] == 255
    assert browser.pdf().startswith(b"%PDF")
