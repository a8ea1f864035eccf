"""HTML from values: what is text stays text, and numbers are short and true."""

from __future__ import annotations

import html
import math

import pytest

from t2t.review import markup
from t2t.review.markup import Markup, escaped, figure, joined, share, tag
from tests.review.parsed import parsed

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></svg>",
    "' onload='x",
    "&lt;b&gt; & &amp;",
    "<!-- -->",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_and_attributes_stay_text(text: str) -> None:
    made = tag("p", text, tag("b", text), title=text, class_="c")
    (paragraph,) = parsed(made).all("p")

    assert paragraph.content[0] == text
    assert paragraph.one("b").text == text
    assert paragraph.attributes == {"title": text, "class": "c"}
    assert len(parsed(made).all()) == 2


def test_what_cannot_be_seen_is_written_out() -> None:
    assert escaped("a\u202eb\x1b[0m\x00") == r"a\u202eb\x1b[0m\x00"
    assert escaped("two\nlines") == "two lines"
    assert escaped("\udce9") == r"\udce9"


def test_markup_is_not_escaped_again_and_nothing_is_left_out() -> None:
    assert joined(Markup("<b>"), "<i>", None) == "<b>&lt;i&gt;"
    assert joined(tag("b", "x"), "y") == "<b>x</b>y"


def test_attributes_may_be_absent_or_have_no_value() -> None:
    assert tag("p", hidden=True, class_=None, data_v=3, for_="x") == '<p hidden data-v="3" for="x"></p>'
    assert tag("meta", name="a", http_equiv="b") == '<meta name="a" http-equiv="b">'


def test_a_name_reads_as_it_is_and_may_break_behind_its_separators() -> None:
    made = markup.name("a/b.c<d>")

    assert made == "<code>a/<wbr>b.<wbr>c&lt;d&gt;</code>"
    assert parsed(made).text == "a/b.c<d>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.5e-7, "1.5e-07"),
        (0.0123456, "0.0123"),
        (-3.0, "-3"),
        (12345.0, "1.2e+04"),
        (math.inf, "not finite"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_figure_in_a_headline() -> None:
    assert html.unescape(markup.large(1.3e-5)) == "1.3 \u00d7 10<sup>\u22125</sup>"
    assert markup.large(22.6) == "22.6"
    assert markup.large(math.nan) == "not finite"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (1e-5, "below 0.1 %"),
        (0.0061, "0.6 %"),
        (0.5, "50 %"),
        (1.0, "100 %"),
        (1.04, "1.0 times"),
        (123456.0, "120,000 times"),
        (1e9, "over 10 million times"),
        (math.inf, "not finite"),
    ],
)
def test_shares(value: float, text: str) -> None:
    assert share(value) == text


def test_counts() -> None:
    assert markup.count(1, "layer") == "1 layer"
    assert markup.count(2000, "layer") == "2,000 layers"
