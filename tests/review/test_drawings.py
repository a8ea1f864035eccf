"""Drawings, read back from their SVG: what they show is what numpy does, and what numbers say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t import axes as notation
from t2t.axes import Transform
from t2t.proof.difference import Values
from t2t.review import drawings, figures
from t2t.review.accounts import Stage
from t2t.review.drawings import BOX, COOL, HEATS, Bar, Scale, Symbols
from t2t.review.figures import Channels
from tests.review.parsed import Element, parsed


def stage(text: str, shape: Sequence[int], dims: dict[str, int] | None = None, **more: object) -> Stage:
    """The stage of these axes; the order of an axis as (letters, entries)."""
    axes = notation.parse(text)
    made: Transform = axes.resolve(tuple(shape), dims or {})
    place = {name: number for number, name in enumerate(axes.names)}
    top, bottom = (tuple(tuple(place[n] for n in group) for group in side) for side in (axes.left, axes.right))
    return Stage(tuple(axes.names), made.elementary, top, bottom, **more)  # type: ignore[arg-type]


def number(element: Element, key: str) -> float:
    return float(element.attributes[key] or "")


def boxes(drawn: Element) -> list[list[tuple[float, float, str]]]:
    """The lines of boxes from above: (left, right, label) of each elementary axis, frames and unit axes left out."""
    lines: dict[float, list[tuple[float, float, str]]] = {}
    texts = [
        (number(text, "x"), number(text, "y"), text.text) for text in drawn.all("text") if "size" not in text.classes()
    ]
    for rect in drawn.all("rect"):
        if not re.match(r"a[0-7]", rect.attributes["class"] or ""):
            continue
        x, y, width = (number(rect, key) for key in ("x", "y", "width"))
        inside = [t for tx, ty, t in texts if x < tx < x + width and y < ty < y + BOX]
        lines.setdefault(y, []).append((x, x + width, " ".join(inside)))
    return [sorted(line) for _, line in sorted(lines.items())]


def ends(path: Element) -> tuple[float, float]:
    """Where a wire begins and where it ends, from left."""
    numbers = [float(one) for one in re.findall(r"-?[\d.]+", path.attributes["d"] or "")]
    return numbers[0], numbers[-2]


def drawn(*stages: Stage) -> Element:
    body, width, height = drawings.axes(stages)
    svg = parsed(body)
    for rect in svg.all("rect"):
        assert 0 <= number(rect, "x") <= number(rect, "x") + number(rect, "width") <= width + 0.1
    assert height > 0
    return svg


def test_axes_that_stay_are_one_line_of_boxes() -> None:
    svg = drawn(stage("a b -> a b", (3, 4)))

    assert [[label for *_, label in line] for line in boxes(svg)] == [["a 3", "b 4"]]
    assert svg.all("path") == []


def test_the_flatten_is_seen() -> None:
    svg = drawn(stage("(h w c) o -> o (c h w)", (3136, 1024), {"h": 7, "w": 7}))

    assert [[label for *_, label in line] for line in boxes(svg)] == [
        ["h 7", "w 7", "c 64", "o 1024"],
        ["o 1024", "c 64", "h 7", "w 7"],
    ]
    assert [text.text for text in svg.all("text", class_="size")] == ["= 3136", "= 3136"]
    assert len(svg.all("rect", class_="frame")) == 2


def test_the_gates_are_seen() -> None:
    gates = {1: ("icfo", (0, 2, 1, 3))}
    svg = drawn(stage("x (g u) -> (g u) x", (3, 8), {"g": 4}, orders=gates))

    assert [[label for *_, label in line] for line in boxes(svg)] == [
        ["x 3", "i c f o", "u 2"],
        ["i f c o", "u 2", "x 3"],
    ]


def test_a_flip_is_two_lines_across() -> None:
    svg = drawn(stage("h o -> o h", (3, 4), flips=frozenset((0,))))
    lines = [ends(path) for path in svg.all("path", class_="a0")]
    (left, right), (left2, right2) = sorted(lines)

    assert left < left2
    assert right > right2
    assert len(svg.all("path", class_="a1")) == 1


def test_variables_that_are_joined_have_a_dashed_axis_above_only() -> None:
    svg = drawn(stage("n a b -> n b a", (6, 2, 3), joined=0))

    assert [rect.classes() for rect in svg.all("rect", class_="joined")] == [["a0", "joined"]]


def test_a_unit_axis_and_a_scalar_have_boxes() -> None:
    assert [rect.classes() for rect in drawn(stage("1 i o -> i o", (1, 2, 3))).all("rect", class_="unit")] == [["unit"]]
    assert drawn(stage("->", ())).one("text").text == "scalar"


def test_steps_are_drawn_below_each_other() -> None:
    svg = drawn(stage("a b -> b a", (2, 3)), stage("x y -> (x y)", (3, 2)))
    places = [group.attributes["transform"] or "" for group in svg.all("g")]
    offsets = [float(place.rstrip(")").split()[1]) for place in places]

    assert len(offsets) == 2
    assert offsets[0] == 0
    assert offsets[1] > 2 * BOX


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_wire_leads_from_an_axis_to_itself(data: st.DataObject) -> None:
    """Labels at both ends agree, and the lower line's sizes are those of numpy's transposed array."""
    sizes = tuple(data.draw(st.lists(st.integers(2, 40), min_size=2, max_size=6)))
    order = tuple(data.draw(st.permutations(range(len(sizes)))))
    names = "abcdef"[: len(sizes)]
    moved = stage(f"{' '.join(names)} -> {' '.join(names[i] for i in order)}", sizes)
    lines = boxes(drawn(moved))
    if moved.is_still:
        assert len(lines) == 1
        return
    shape = (
        np.empty(sizes, np.uint8).transpose(order).shape if math.prod(sizes) < 10**6 else tuple(sizes[i] for i in order)
    )

    assert [int(label.split()[1]) for *_, label in lines[0]] == list(sizes)
    assert [int(label.split()[1]) for *_, label in lines[1]] == list(shape)
    for path in drawn(moved).all("path"):
        above, below = ends(path)
        labels = [next(t for x, x2, t in line if x < at < x2) for line, at in zip(lines, (above, below), strict=True)]
        assert labels[0] == labels[1]


@pytest.mark.parametrize(
    ("made", "title"),
    [
        (stage("a b -> a b", (3, 4)), "a 3, b 4"),
        (stage("(h w c) o -> o (c h w)", (24, 5), {"h": 2, "w": 3}), "(h 2, w 3, c 4), o 5 to o 5, (c 4, h 2, w 3)"),
        (stage("h o -> o h", (3, 4), flips=frozenset((0,))), "h 3, o 4 to o 4, h 3, h 3 turned round"),
        (stage("g -> g", (4,), orders={0: ("icfo", (0, 2, 1, 3))}), "g 4 to g 4, g from icfo to ifco"),
        (Stage(("",), (7,), ((0,),), ((0,),)), "7"),
        (stage("->", ()), "scalar"),
    ],
)
def test_the_title_says_the_same(made: Stage, title: str) -> None:
    assert drawings.axes_title([made]) == title


def test_steps_in_words_and_no_axes() -> None:
    assert drawings.axes_title([stage("a b -> b a", (2, 3)), stage("x -> x", (6,))]) == "a 2, b 3 to b 3, a 2, then x 6"
    assert drawings.axes_title([]) == "no axes"


def test_equal_drawings_are_defined_once() -> None:
    symbols = Symbols()
    one = drawings.axes([stage("a b -> b a", (2, 3))])
    used = [symbols.use(one, "first"), symbols.use(drawings.axes([stage("a b -> b a", (2, 3))]), "second")]
    used.append(symbols.use(drawings.axes([stage("a b -> b a", (2, 4))]), "third"))
    ids = [symbol.attributes["id"] for symbol in parsed(symbols.defined()).all("symbol")]

    assert ids == ["d0", "d1"]
    assert [parsed(use).one("use").attributes["href"] for use in used] == ["#d0", "#d0", "#d1"]
    assert [parsed(use).one("title").text for use in used] == ["first", "second", "third"]


def test_names_of_axes_cannot_be_markup() -> None:
    hostile = Stage(("</text><script>",), (7,), ((0,),), ((0,),))

    assert drawn(hostile).one("text").text == "</text><script> 7"


# --- bars ---


@pytest.mark.parametrize(
    ("numbers", "scale"),
    [
        ([1e-7, 3e-5], Scale(-7, -4)),
        ([1.0], Scale(-1, 0)),
        ([], Scale(-1, 0)),
        ([0.0, math.inf, math.nan, 2.0], Scale(0, 1)),
        ([1e-30, 1.0], Scale(-12, 0)),
    ],
)
def test_a_scale_holds_whole_powers_of_ten(numbers: list[float], scale: Scale) -> None:
    assert Scale.of(numbers) == scale


def test_where_numbers_lie_on_a_scale() -> None:
    scale = Scale(-4, 0)

    assert [scale.share(value) for value in (1e-4, 1e-2, 1.0)] == [0.0, 0.5, 1.0]
    assert [scale.share(value) for value in (0.0, 1e-9, 5.0, math.inf, math.nan)] == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_columns_are_as_tall_as_their_figures_and_the_first_that_differs_has_a_band() -> None:
    bars = [Bar(1e-4, 1e-2, "agrees", "one"), Bar(0.0, None, "unlike", "two"), Bar(1.0, 1e-2, "differs", "<three>")]
    svg = parsed(drawings.columns(bars, Scale(-4, 0), 2, "layers")).one("svg")
    columns = [rect for rect in svg.all("rect") if "band" not in rect.classes()]

    assert [number(one, "height") for one in columns] == [1, 1, 100]
    assert [one.classes() for one in columns] == [["agrees"], ["unlike"], ["differs"]]
    assert [one.one("title").text for one in columns] == ["one", "two", "<three>"]
    assert number(svg.one("rect", class_="band"), "x") == 20
    assert svg.one("path", class_="limit").attributes["d"] == "M0 50h10M20 50h10"
    assert len(svg.all("path", class_="grid")) == 5


def test_a_bar_that_lies_has_a_mark_where_there_is_a_tolerance() -> None:
    known, unknown = (parsed(drawings.bar(0.25, mark, "agrees")).one("svg") for mark in (0.5, None))

    assert number(known.one("rect", class_="agrees"), "width") == 25
    assert known.one("path", class_="mark").attributes["d"] == "M50 -1v10"
    assert [rect.classes() for rect in unknown.all("rect")] == [["track"]]


def test_a_spread_has_its_columns_by_their_side_of_the_tolerance() -> None:
    svg = parsed(drawings.spread([(-8, 4), (-4, 2), (0, 1)], 4, Scale(-3, 1), 1e-1, "spread"))
    rects = svg.all("rect")

    assert [one.classes() for one in rects] == [["agrees"], ["differs"], ["differs"]]
    assert [number(one, "height") for one in rects] == [100, 50, 25]
    assert [number(one, "x") for one in rects] == [40.7, 80.7, 120.7]
    assert svg.one("path", class_="limit").attributes["d"] == "M80 0V100"


def test_a_histogram_has_both_sides() -> None:
    values = Values(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), np.arange(3))
    svg = parsed(drawings.histogram(figures.histogram(values), "both"))

    assert [(number(one, "x"), number(one, "height")) for one in svg.all("rect", class_="tf")] == [
        (0.4, 100),
        (310.4, 50),
    ]
    assert (svg.one("path", class_="torch").attributes["d"] or "").startswith("M0 100V50h10V100h10")
    assert (svg.one("path", class_="torch").attributes["d"] or "").endswith("V0h10V100")


# --- areas ---


def test_shares_fill_the_bar_and_the_smallest_can_be_seen() -> None:
    svg = parsed(drawings.shares([("mapped", 10**9, "many"), ("slots", 1, "one"), ("kept", 0, "none")], "all"))
    rects = svg.all("rect")
    widths = [number(one, "width") for one in rects]

    assert [one.one("title").text for one in rects] == ["many", "one"]
    assert sum(widths) == pytest.approx(1000, abs=0.2)
    assert widths[1] > 4
    assert parsed(drawings.shares([("mapped", 0, "none")], "empty")).all("rect") == []


@pytest.mark.parametrize(
    ("value", "look"),
    [
        (None, "unknown"),
        (0.0, "q0"),
        (1e-9, "q0"),
        (0.9e-2, "q1"),
        (0.9e-1, "q2"),
        (1.0, f"q{COOL - 1}"),
        (1.01, f"q{COOL}"),
        (99.0, f"q{COOL + 1}"),
        (101.0, f"q{HEATS - 1}"),
        (1e9, f"q{HEATS - 1}"),
        (math.inf, f"q{HEATS - 1}"),
    ],
)
def test_a_cell_is_warm_where_it_is_over_the_tolerance(value: float | None, look: str) -> None:
    assert drawings.heat(value, 1.0) == look


def test_without_a_tolerance_everything_but_zero_is_over_it() -> None:
    assert [drawings.heat(value, 0.0) for value in (0.0, 1e-30)] == ["q0", f"q{HEATS - 1}"]


def test_a_heat_map_has_a_cell_for_each_channel() -> None:
    svg = parsed(drawings.cells(Channels(40, 2, tuple([0.0] * 18 + [None, 5.0])), 1.0, "map"))
    rects = svg.all("rect")

    assert len(rects) == 20
    assert rects[0].one("title").text == "channels 0 to 1: 0"
    assert rects[18].one("title").text == "channels 36 to 37: not recorded"
    assert rects[19].one("title").text == "channels 38 to 39: 5"
    assert [one.classes() for one in rects[17:]] == [["q0"], ["unknown"], [f"q{COOL}"]]
