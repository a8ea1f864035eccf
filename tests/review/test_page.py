"""The page: whole, safe whatever stands in files, small, and readable in a browser of any width, light and dark."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from t2t import api
from t2t.job import Job
from t2t.problems import Location, Problem
from t2t.review import page
from t2t.review import report as reports
from t2t.review.report import Report
from tests.review.browser import Browser, browser
from tests.review.parsed import Element, parsed
from tests.review.projects import large, varied

#: All that a page is made of; nothing that loads, sends or embeds.
ELEMENTS = set(
    """
    html head meta title style body script header main section footer nav figure figcaption div p span small strong sup
    h1 h2 h3 h4 a ul li dl dt dd table thead tbody tr th td code pre del ins details summary label input output i wbr
    svg symbol use g path rect circle text
    """.split()  # noqa: SIM905 - as a list it would take a line for each
)

#: The most bytes that a page of 600 rows may have.
LIMIT = 1_000_000

HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;</style></script>\u202e\x1b[31m\n"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, by what it is of."""
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("proven", "differs", "large", "unproven"):
            (folder / name).mkdir()
            patch.syspath_prepend(folder / name)
            wrong = {"differs": 3}.get(name)
            own = folder / name
            project = varied(own) if name == "unproven" else large(own, 300 if name == "large" else 5, wrong=wrong)
            made[name] = Path(api.report(project.mapping, folder / f"{name}.html")[0])
        (folder / "differs" / "large.yaml").rename(folder / "differs" / "<b>.yaml")
    return made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report with what HTML would read as its own wherever a file can put it."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        project = large(folder, 5, wrong=2)
        with Job(project.mapping, {}) as job:
            recording = job.recording()
            assert recording is not None
            assert job.mapping.verify is not None
            job.fill(job.torch_tensors())
            diagnosis = job.diagnosis(recording, lambda done, total: None)
            diagnosed = partial(dataclasses.replace, diagnosis=diagnosis)
            options: dict[str, Any] = {"diagnosed": diagnosed, "note": lambda problem: None}
            found = reports.evidence(job.module, job.plan, recording, job.mapping.verify, **options)
            report = reports.make(job.plan, job.inventory, found, reports.Surroundings(job.checkpoint))
    poisoned: Report = _poisoned(report)
    return poisoned


def _poisoned(value: Any) -> Any:
    """The same facts with HOSTILE in every text that is no word of ours."""
    if isinstance(value, tuple):
        return tuple(_poisoned(one) for one in value)
    if isinstance(value, Problem):
        return dataclasses.replace(value, message=HOSTILE, hint=HOSTILE, details=(HOSTILE,), at=Location(HOSTILE, 3))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        ours = {"verdict", "how", "kind", "dtype"}
        names = [field.name for field in dataclasses.fields(value) if field.init and field.name not in ours]
        if type(value).__name__ in {"Verify", "Values", "Rule", "Spread", "Histogram", "Channels"}:
            return value
        return dataclasses.replace(value, **{name: _poisoned(getattr(value, name)) for name in names})
    return HOSTILE if isinstance(value, str) and value and value not in {"agrees", "differs", "unlike"} else value


@functools.cache
def read(place: Path) -> Element:
    return parsed(place.read_text("utf-8"))


KINDS = ("proven", "differs", "large", "unproven")


# --- whole and safe ---


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_well_formed_and_made_of_known_elements(pages: dict[str, Path], kind: str) -> None:
    whole = read(pages[kind])

    assert {element.name for element in whole.all()} <= ELEMENTS
    assert pages[kind].read_text("utf-8").startswith(reports.BEGINNING)
    assert whole.one("html").attributes == {"lang": "en"}
    assert len(whole.all("h1")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_refers_to_nothing_outside(pages: dict[str, Path], kind: str) -> None:
    text, whole = pages[kind].read_text("utf-8"), read(pages[kind])
    ids = [element.attributes["id"] for element in whole.all() if "id" in element.attributes]

    assert "://" not in text
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttp|innerHTML|eval\(", text)
    assert len(set(ids)) == len(ids)
    for element in whole.all():
        assert not {"src", "srcset", "action", "style", "data", "poster"} & element.attributes.keys()
        assert not [key for key in element.attributes if key.startswith("on")]
        if (href := element.attributes.get("href")) is not None:
            assert href.startswith("#")
            assert href[1:] in ids


@pytest.mark.parametrize("kind", KINDS)
def test_its_policy_lets_in_only_what_is_in_it(pages: dict[str, Path], kind: str) -> None:
    whole = read(pages[kind])
    policy = whole.one("meta", http_equiv="Content-Security-Policy").attributes["content"]

    def digest(name: str) -> str:
        return base64.b64encode(hashlib.sha256(whole.one(name).text.encode()).digest()).decode()

    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest('style')}'; script-src 'sha256-{digest('script')}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = [element.name for element in whole.one("head").all()]
    assert head == ["meta", "meta", "meta", "meta", "meta", "title", "style"]


def test_nothing_from_a_file_is_markup(hostile: Report) -> None:
    text = page.html(hostile)
    whole = parsed(text)

    assert whole.all("img") == []
    assert {element.name for element in whole.all()} <= ELEMENTS
    assert not [key for element in whole.all() for key in element.attributes if key.startswith("on")]
    assert len(whole.all("script")) == 1
    assert len(whole.all("style")) == 1
    assert "\u202e" not in text
    assert "\x1b" not in text
    for section in ("outputs", "layers", "rows", "origin", "diagnosis"):
        assert r"""<img src=x onerror=alert(1)>"'&amp;</style></script>\u202e\x1b[31m""" in whole.one(id=section).text


def test_names_and_reasons_of_a_mapping_are_shown_as_they_are(pages: dict[str, Path]) -> None:
    whole = read(pages["unproven"])

    assert "a table of <script>alert(1)</script>" in whole.one(id="rows").text
    assert "padding </style>" in whole.one(id="coverage").text
    assert '&quot;"onload=x/bias' in [code.text for code in whole.one(id="rows").all("code")]


def test_600_rows_are_less_than_a_megabyte(pages: dict[str, Path]) -> None:
    assert len(read(pages["large"]).one("table", class_="rows").one("tbody").all("tr")) == 600
    assert pages["large"].stat().st_size < LIMIT


def test_equal_axes_are_drawn_once(pages: dict[str, Path]) -> None:
    whole = read(pages["large"])

    assert len(whole.all("symbol")) == 2
    assert len(whole.all("use")) == 600


# --- what it says ---


@pytest.mark.parametrize(
    ("kind", "word", "sections"),
    [
        ("proven", "Proven", ["outputs", "layers", "coverage", "rows", "origin"]),
        ("differs", "Differs", ["diagnosis", "outputs", "layers", "coverage", "rows", "origin"]),
        ("unproven", "Not proven", ["coverage", "rows", "origin"]),
    ],
)
def test_its_headline_and_its_sections(pages: dict[str, Path], kind: str, word: str, sections: list[str]) -> None:
    whole = read(pages[kind])

    assert whole.one("h1").text == word
    assert whole.one("head").one("title").text == f"{whole.one('p', class_='eyebrow').text}: {word.lower()}"
    assert [section.attributes["id"] for section in whole.all("section")] == sections
    assert [link.attributes["href"] for link in whole.one("nav").all("a")] == [f"#{name}" for name in sections]


def test_a_difference_says_where_and_what_would_have_passed(pages: dict[str, Path]) -> None:
    whole = read(pages["differs"])
    header = whole.one("header").text
    row = whole.one("table", class_="layers").one("tr", class_="first")

    assert "It goes wrong at encoder.3." in header
    assert "T2T501" in header
    assert row.one("th").text == "encoder.3 Linearfirst to differ"
    assert "encoder.3 is the first that differs." in whole.one(id="layers").text
    gone, come = (whole.one(name).text for name in ("del", "ins"))
    assert gone.strip().startswith("12")
    assert "axes: a b -> a b" in gone
    assert "torch: encoder.3.weight, axes: b a -> a b}" in come


def test_unproven_says_why(pages: dict[str, Path]) -> None:
    lead = read(pages["unproven"]).one("p", class_="lead").text

    assert lead == (
        "The rows fit the checkpoint and varied_model:Varied, shape by shape. Whether they are right, nobody has "
        "tested: the mapping has no verify section."
    )


def test_each_row_has_its_variable_its_axes_its_parameter_and_its_line(pages: dict[str, Path]) -> None:
    rows = read(pages["unproven"]).one("table", class_="rows").one("tbody").all("tr")
    (head,) = [row for row in rows if row.one("th").text.startswith("head.weight")]
    variable, axes, line = head.all("td")

    assert variable.text == "head/kernelfloat32 [24, 5]"
    assert axes.one("title").text == "(h 2, w 3, c 4), o 5 to o 5, (c 4, h 2, w 3)"
    assert head.one("th").text == "head.weightfloat32 [5, 24]"
    assert line.text == "7"
    (stacked,) = [row for row in rows if row.one("th").text.startswith("stacked")]
    assert stacked.one("summary").text == "and 2 more"


def test_layers_are_a_chart_and_a_table_that_opens_on_demand_where_they_are_many(pages: dict[str, Path]) -> None:
    few, many = (read(pages[kind]).one(id="layers") for kind in ("proven", "large"))

    assert few.all("details") == []
    assert many.one("summary").text == "All 300 layers"
    assert len(many.one("svg", class_="columns").all("rect")) == 300
    assert len(few.one("table").one("tbody").all("tr")) == 5


# --- for everybody ---


@pytest.mark.parametrize("kind", KINDS)
def test_drawings_have_titles_and_tables_have_heads(pages: dict[str, Path], kind: str) -> None:
    whole = read(pages[kind])
    drawings = whole.all("svg")

    assert drawings
    for svg in drawings:
        if svg.attributes.get("aria-hidden") != "true":
            assert svg.attributes["role"] == "img"
            first = svg.content[0]
            assert isinstance(first, Element)
            assert (first.name, bool(first.text)) == ("title", True)
    for table in whole.all("table"):
        assert all(head.attributes.get("scope") in {"col", "row"} for head in table.all("th"))
        assert all(row.all("th") for row in table.all("tr"))


@pytest.mark.parametrize("kind", KINDS)
def test_headings_go_down_one_step_at_a_time(pages: dict[str, Path], kind: str) -> None:
    levels = [int(one.name[1]) for one in read(pages[kind]).all() if re.fullmatch("h[1-6]", one.name)]

    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


# --- in a browser ---


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


#: Each text's contrast with what is behind it (WCAG 2.2, 1.4.3), the lowest first: [ratio, text, colours].
CONTRAST = """
(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const seen = (colour) => { const p = parts(colour); return p.length < 4 || p[3] > 0; };
  const behind = (element) => {
    if (element.tagName === "text") {
      const [x, y] = [element.getAttribute("x"), element.getAttribute("y") - 4].map(Number);
      for (const rect of [...element.closest("symbol").querySelectorAll("rect")].reverse()) {
        const [rx, ry, w, h] = ["x", "y", "width", "height"].map((key) => Number(rect.getAttribute(key)));
        const fill = getComputedStyle(rect).fill;
        if (fill !== "none" && rx <= x && x <= rx + w && ry <= y && y <= ry + h) return fill;
      }
      element = document.body;
    }
    for (; element; element = element.parentElement) {
      const back = getComputedStyle(element).backgroundColor;
      if (seen(back)) return back;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.textContent.trim();
    if (!text || ["SCRIPT", "STYLE", "title"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const own = element.tagName === "text" ? style.fill : style.color;
    const [a, b] = [light(own), light(behind(element))].sort((one, two) => two - one);
    found.push([(a + 0.05) / (b + 0.05), text.slice(0, 40), own, behind(element)]);
  }
  return found.sort((one, two) => one[0] - two[0]).slice(0, 5);
})()
"""

#: What reaches beyond the window, and cannot be scrolled to in a box of its own.
OUTSIDE = """
[...document.querySelectorAll("body *")]
  .filter((one) => !one.closest("svg, pre") && one.getBoundingClientRect().right > innerWidth + 0.5)
  .map((one) => one.outerHTML.slice(0, 90))
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_has_nothing_to_complain_of(pages: dict[str, Path], window: Browser, kind: str, scheme: str) -> None:
    for width in (1280, 768, 360):
        window.open(pages[kind], width=width, scheme=scheme)

        assert window.errors == []
        assert window.requests == [pages[kind].resolve().as_uri()]
        assert window.run("document.documentElement.scrollWidth") == width
        assert window.run(OUTSIDE) == []
    for ratio, *what in window.run(CONTRAST):
        assert ratio >= 4.5, what


def test_dark_is_dark_and_light_is_light(pages: dict[str, Path], window: Browser) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    window.open(pages["proven"], scheme="light")
    light = window.run(back)
    window.look(scheme="dark")

    assert (light, window.run(back)) == ("rgb(250, 249, 246)", "rgb(20, 23, 26)")


def test_hostile_names_do_nothing_in_a_browser(hostile: Report, window: Browser, tmp_path: Path) -> None:
    place = tmp_path / "hostile.html"
    place.write_text(page.html(hostile), encoding="utf-8")
    window.open(place, width=360)

    assert window.errors == []
    assert len(window.requests) == 1
    assert window.run("document.querySelectorAll('img').length") == 0
    assert window.run("document.documentElement.scrollWidth") == 360


def test_the_page_reads_without_its_script(pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["unproven"], script=False)

    assert window.run("getComputedStyle(document.querySelector('.finder')).display") == "none"
    assert window.run("[...document.querySelectorAll('#rows tbody tr')].filter((r) => r.offsetHeight).length") == 20
    assert window.errors == []


SHOWN = "[...document.querySelectorAll('#rows tbody tr')].filter((row) => row.offsetHeight).length"


def test_rows_can_be_filtered(pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["unproven"])

    def typed(text: str) -> tuple[int, str]:
        field = f"const f = document.querySelector('#filter'); f.value = '{text}'; f.dispatchEvent(new Event('input'))"
        window.run(f"(() => {{ {field} }})()")
        return window.run(SHOWN), window.run("document.querySelector('#found').textContent")

    assert typed("NORM weight") == (1, "1 of 20")
    assert typed("buffer") == (4, "4 of 20")
    assert typed("nowhere") == (0, "0 of 20")
    assert typed("") == (20, "")


def test_layers_can_be_sorted(pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["differs"])
    names = "[...document.querySelectorAll('.layers tbody th code')].map((one) => one.textContent)"
    figures = "[...document.querySelectorAll('.layers tbody tr')].map((row) => Number(row.cells[4].dataset.v))"
    first = window.run(names)

    def clicked(place: int) -> list[float]:
        window.run(f"document.querySelectorAll('.layers thead button')[{place}].click()")
        found: list[float] = window.run(figures)
        return found

    assert clicked(4) == sorted(window.run(figures))
    assert clicked(4) == sorted(window.run(figures), reverse=True)
    assert window.run("document.querySelector('.layers [aria-sort]').getAttribute('aria-sort')") == "descending"
    clicked(0)
    assert window.run(names) == first
    assert window.errors == []


def test_the_heads_of_long_tables_stay(pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["large"])
    window.run("document.querySelectorAll('#rows tbody tr')[300].scrollIntoView()")

    assert window.run("Math.round(document.querySelector('#rows thead th').getBoundingClientRect().top)") == 0


def test_it_can_be_printed(pages: dict[str, Path], window: Browser, tmp_path: Path) -> None:
    window.open(pages["differs"], scheme="dark")
    window.printed(tmp_path / "page.pdf")

    assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    window.ask("Emulation.setEmulatedMedia", media="print", features=dark)
    for ratio, *what in window.run(CONTRAST):  # on paper it is light, whatever the screen is
        assert ratio >= 4.5, what
    assert window.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.run("getComputedStyle(document.documentElement).getPropertyValue('--b0')") == "#e3edf8"
    assert window.run("getComputedStyle(document.querySelector('nav')).display") == "none"
