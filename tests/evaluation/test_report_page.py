"""The HTML page: self-contained by its text, and opened in a real browser on a desktop and a phone."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from evaluation.report import ReportOptions, build_report, write_report
from tests.support.browser import find_browser, headless_browser
from tests.support.reports import write_everything

VOID = {"meta", "link", "img", "line", "rect", "circle", "polygon", "polyline"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_everything(folder / "in", seeds=(1, 2))
    options = ReportOptions(
        [folder / "in"], baseline="drqv2 + none", title="<Masks> & returns", replicates=20, pictures=3
    )
    report = build_report(options)
    write_report(report, folder / "out")
    return report, folder / "out" / "report.html"


class Reader(HTMLParser):
    """Collects what refers elsewhere, the text of cells, and whether tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.cells, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [values[name] for name in ("src", "href", "srcset", "action") if name in values]
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if any(tag in self.open for tag in ("td", "th")):
            self.cells[-1] += data


def test_the_page_needs_nothing_else(page):
    text = page[1].read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert "script" not in reader.tags and "url(" not in text and "@import" not in text
    assert not re.search(r"https?://", text)
    targets = [link[1:] for link in reader.links if link.startswith("#")]
    assert len(set(targets)) == len(targets) and all(f'id="{target}"' in text for target in targets)
    assert "<title>&lt;Masks&gt; &amp; returns</title>" in text


def expected_cells(report):
    for chapter in report.chapters:
        for table in chapter.tables:
            for row in table.rows:
                for cell in row:
                    yield f"{cell.text} {cell.detail}".rstrip()


def test_all_tables_are_in_the_page(page):
    reader = Reader()
    reader.feed(page[1].read_text())
    shown = [html.unescape(cell) for cell in reader.cells]
    wanted = list(expected_cells(page[0]))
    assert len(wanted) > 500 and set(wanted) <= set(shown)
    assert len(wanted) <= len(shown)


MEASURE = """(() => {
  const box = e => { const b = e.getBoundingClientRect(); return [b.width, b.height]; };
  return {
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    images: [...document.images].map(i => [i.complete, i.naturalWidth, ...box(i)]),
    plots: [...document.querySelectorAll('.panel svg')].map(box),
    marks: document.querySelectorAll('.panel svg rect, .panel svg polyline').length,
    tables: [...document.querySelectorAll('.scroll')].map(s => [...box(s), s.querySelectorAll('td').length]),
    cells: [...document.querySelectorAll('td')].map(c => c.textContent),
    outside: [...document.querySelectorAll('h1,h2,h3,p,figcaption,.facts,.key,.panel,.scroll,.picture')]
      .map(e => e.getBoundingClientRect())
      .filter(b => b.left < -1 || b.right > window.innerWidth + 1).length,
    ground: getComputedStyle(document.body).backgroundColor,
    series: getComputedStyle(document.querySelector('.panel .fill')).fill,
  };
})()"""


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed")
def test_in_a_real_browser(page, tmp_path):
    report, path = page
    looks = {}
    with headless_browser(find_browser(), tmp_path / "profile") as browser:
        for name, width, dark in (("desktop", 1280, False), ("dark", 1280, True), ("phone", 390, False)):
            browser.open(path, width, dark=dark)
            found = looks[name] = browser.evaluate(MEASURE)
            browser.screenshot(tmp_path / f"{name}.png")
            assert found["overflow"] <= 0 and found["outside"] == 0, name
            assert len(found["images"]) == 3
            assert all(done and natural and w > 100 and h > 50 for done, natural, w, h in found["images"])
            assert len(found["plots"]) == 3 + 4 + 3 and all(w > 250 and h > 80 for w, h in found["plots"])
            assert found["marks"] >= 3 * 4 * 3 + 9
            assert all(w > 200 and h > 40 and cells for w, h, cells in found["tables"])
            assert set(expected_cells(report)) <= set(found["cells"])
        assert browser.complaints == []
    assert looks["desktop"]["ground"] != looks["dark"]["ground"]
    assert looks["desktop"]["series"] != looks["dark"]["series"]
    for name, width, bright in (("desktop", 1280, True), ("dark", 1280, False), ("phone", 390, True)):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert picture.shape[1] == width and picture.shape[0] > 3000
        assert (np.median(picture) > 200) == bright and picture.std() > 10
