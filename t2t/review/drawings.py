"""
Drawings of a report, as SVG without a colour of its own: classes say what a shape is, the style sheet how it looks.

A drawing that stretches with the page has no text in it; its labels stand beside it. Each has a title, or is hidden
from those who hear the page where its figures stand right beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from t2t.review.accounts import Stage
from t2t.review.figures import Channels, Histogram
from t2t.review.markup import Markup, joined, tag

#: Elementary axes are told apart by so many colours, in turn.
COLOURS = 8

#: How large things are, in pixels: of axes, a letter, a box, the way between two lines of boxes, between two groups.
LETTER, BOX, GAP, APART, LABEL = 6.7, 20, 24, 9, 12
LEAST, CELL = 26, 15

#: Steps of a heat map's scale, and how many of them are within the tolerance.
HEATS, COOL = 7, 4


@dataclass(slots=True)
class Symbols:
    """Drawings that are defined once, and used wherever they occur again."""

    _drawn: dict[Markup, tuple[int, float, float]] = field(default_factory=dict)

    def use(self, drawing: tuple[Markup, float, float], title: str) -> Markup:
        """The drawing (its shapes, its width and its height) at this place of the page."""
        body, width, height = drawing
        number, *_ = self._drawn.setdefault(body, (len(self._drawn), width, height))
        use = tag("use", href=f"#d{number}")
        return tag("svg", tag("title", title), use, class_="axes", role="img", width=_n(width), height=_n(height))

    def defined(self) -> Markup:
        """All of them, for one place in the page."""
        symbols = (
            tag("symbol", body, id=f"d{number}", viewBox=f"0 0 {_n(width)} {_n(height)}")
            for body, (number, width, height) in self._drawn.items()
        )
        return tag("svg", *symbols, class_="symbols", aria_hidden="true", width="0", height="0")


# --- axes ---


def axes(stages: Sequence[Stage]) -> tuple[Markup, float, float]:
    """The variable's axes above, the parameter's below, and lines from the one to the other; steps below each other."""
    drawn = [_stage(stage) for stage in stages]
    width = max(one[1] for one in drawn)
    parts, y = [], 0.0
    for body, own, height in drawn:
        parts.append(tag("g", body, transform=f"translate({_n((width - own) / 2)} {_n(y)})"))
        y += height + LABEL
    return joined(*parts), width, y - LABEL


def axes_title(stages: Sequence[Stage]) -> str:
    """The same in words."""
    return ", then ".join(map(_stage_title, stages)) or "no axes"


def _stage_title(stage: Stage) -> str:
    def side(groups: Iterable[tuple[int, ...]]) -> str:
        named = [[_label(stage, axis) for axis in group] for group in groups]
        return ", ".join(f"({', '.join(group)})" if len(group) != 1 else group[0] for group in named) or "scalar"

    moved = side(stage.top) if stage.is_still else f"{side(stage.top)} to {side(stage.bottom)}"
    turned = "".join(f", {_label(stage, axis)} turned round" for axis in sorted(stage.flips))
    sorted_ = "".join(
        f", {stage.names[axis]} from {letters} to {''.join(letters[entry] for entry in entries)}"
        for axis, (letters, entries) in stage.orders.items()
    )
    return f"{moved}{turned}{sorted_}"


def _label(stage: Stage, axis: int) -> str:
    return f"{stage.names[axis]} {stage.sizes[axis]}".strip()


def _stage(stage: Stage) -> tuple[Markup, float, float]:
    has_labels = bool(stage.orders) or any(len(group) > 1 for group in (*stage.top, *stage.bottom))
    above = LABEL if has_labels else 0
    top, top_width = _placed(stage, stage.top)
    if stage.is_still:
        height = BOX + 2 + above
        return joined(*_line(stage, stage.top, top, 1, above + 1, is_top=True)), top_width + 2, height
    bottom, bottom_width = _placed(stage, stage.bottom)
    width = max(top_width, bottom_width) + 2
    left, right = (width - top_width) / 2, (width - bottom_width) / 2
    y, under = above + 1, above + 1 + BOX + GAP
    lines = [
        wire
        for axis in range(len(stage.sizes))
        for wire in _wires(stage, axis, (left + top[axis], y + BOX), (right + bottom[axis], under))
    ]
    boxes = [
        *_line(stage, stage.top, top, left, y, is_top=True),
        *_line(stage, stage.bottom, bottom, right, under, is_top=False),
    ]
    return joined(*lines, *boxes), width, under + BOX + 1 + above


def _width(stage: Stage, axis: int) -> float:
    if axis in stage.orders:
        return max(LEAST, CELL * len(stage.orders[axis][1]))
    return max(LEAST, LETTER * len(_label(stage, axis)) + 10)


def _placed(stage: Stage, groups: Sequence[tuple[int, ...]]) -> tuple[dict[int, float], float]:
    """Where each axis begins, and how wide all of them are."""
    places, x = {}, 0.0
    for group in groups:
        for axis in group:
            places[axis] = x
            x += _width(stage, axis)
        x += APART + (0 if group else LEAST - 6)
    return places, max(x - APART, LEAST)


def _line(
    stage: Stage, groups: Sequence[tuple[int, ...]], places: dict[int, float], x: float, y: float, *, is_top: bool
) -> list[Markup]:
    """One line of boxes from `x`; a group of several has a frame and says how long it is."""
    made, at = [], x
    labels = y - 3 if is_top else y + BOX + LABEL - 2
    if not groups:
        return [_rect("unit", x, y, LEAST), _text("scalar", x + LEAST / 2, y + 14, "size")]
    for group in groups:
        if not group:
            made += [_rect("unit", at, y, LEAST - 6), _text("1", at + LEAST / 2 - 3, y + 14)]
            at += LEAST - 6 + APART
            continue
        width = sum(_width(stage, axis) for axis in group)
        for axis in group:
            made += _box(stage, axis, x + places[axis], y, labels, is_top=is_top)
        if len(group) > 1:
            size = math.prod(stage.sizes[axis] for axis in group)
            made.append(_rect("frame", at, y, width))
            if not any(axis in stage.orders for axis in group):
                made.append(_text(f"= {size}", at + width / 2, labels, "size"))
        at += width + APART
    return made


def _box(stage: Stage, axis: int, x: float, y: float, labels: float, *, is_top: bool) -> list[Markup]:
    width = _width(stage, axis)
    look = f"a{axis % COLOURS}" + (" joined" if is_top and axis == stage.joined else "")
    if axis not in stage.orders:
        return [_rect(look, x, y, width), _text(_label(stage, axis), x + width / 2, y + 14)]
    letters, entries = stage.orders[axis]
    told = letters if is_top else "".join(letters[entry] for entry in entries)
    cell = width / len(told)
    made = [_rect(look, x, y, width), _text(_label(stage, axis), x + width / 2, labels, "size")]
    for number, letter in enumerate(told):
        made.append(_text(letter, x + cell * (number + 0.5), y + 14))
        if number:
            edge = x + cell * number
            made.append(tag("path", class_=f"a{axis % COLOURS}", d=f"M{_n(edge)} {_n(y)}v{BOX}"))
    return made


def _wires(stage: Stage, axis: int, start: tuple[float, float], stop: tuple[float, float]) -> list[Markup]:
    """From an axis above to where it is below: one line, one for each entry that is sorted, two across for a flip."""
    width, (x, y), (x2, y2) = _width(stage, axis), start, stop
    ends = [(x + width / 2, x2 + width / 2)]
    if axis in stage.orders:
        cell = width / len(stage.orders[axis][1])
        entries = enumerate(stage.orders[axis][1])
        ends = [(x + cell * (before + 0.5), x2 + cell * (after + 0.5)) for after, before in entries]
    elif axis in stage.flips:
        ends = [(x + 4, x2 + width - 4), (x + width - 4, x2 + 4)]
    half = (y2 - y) / 2
    return [
        tag(
            "path",
            class_=f"a{axis % COLOURS}",
            d=f"M{_n(a)} {_n(y)}C{_n(a)} {_n(y + half)} {_n(b)} {_n(y + half)} {_n(b)} {_n(y2)}",
        )
        for a, b in ends
    ]


def _rect(look: str, x: float, y: float, width: float) -> Markup:
    return tag("rect", class_=look, x=_n(x), y=_n(y), width=_n(width), height=BOX, rx=3)


def _text(text: str, x: float, y: float, look: str | None = None) -> Markup:
    return tag("text", text, x=_n(x), y=_n(y), class_=look)


# --- bars ---


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic scale over whole powers of ten, from 10^low to 10^high."""

    low: int
    high: int

    @classmethod
    def of(cls, numbers: Iterable[float], decades: int = 12) -> Scale:
        """The scale that holds these numbers; of very small ones only those within so many decades of the largest."""
        logs = [math.log10(number) for number in numbers if 0 < number < math.inf]
        high = math.ceil(max(logs, default=0))
        low = math.floor(min(logs, default=-1))
        return cls(min(max(low, high - decades), high - 1), high)

    def share(self, number: float) -> float:
        """Where the number lies, from 0 to 1; what isn't finite is at the end."""
        if math.isnan(number) or number == math.inf:
            return 1.0
        log = math.log10(number) if number > 0 else -math.inf
        return min(max((log - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Bar:
    """
    One layer: its figure and its tolerance as shares of max|TF|, None where there is nothing to compare, what it looks
    like, and what it is called.
    """

    value: float
    tolerance: float | None
    look: str
    title: str


def bar(length: float, mark: float | None, look: str) -> Markup:
    """A bar that lies, for the line that has its figures; its length and the mark of the tolerance are from 0 to 1."""
    shapes = [tag("rect", class_="track", width=100, height=8)]
    if mark is not None:
        shapes.append(tag("rect", class_=look, width=_n(max(length * 100, 0.6)), height=8))
        shapes.append(tag("path", class_="mark", d=f"M{_n(mark * 100)} -1v10"))
    return tag("svg", *shapes, class_="bar", viewBox="0 -1 100 10", preserveAspectRatio="none", aria_hidden="true")


def columns(bars: Sequence[Bar], scale: Scale, first: int | None, title: str) -> Markup:
    """All layers side by side; the one that is the first to differ stands in a band, the tolerance is a line."""
    step, height = 10, 100
    width = step * len(bars)
    made = [
        tag("path", class_="grid", d=f"M0 {_n(height - scale.share(10.0**power) * height)}H{width}")
        for power in range(scale.low, scale.high + 1)
    ]
    if first is not None:
        made.append(tag("rect", class_="band", x=first * step, width=step, height=height))
    for number, one in enumerate(bars):
        tall = max(scale.share(one.value) * height, 1)
        place = {
            "x": _n(number * step + step * 0.14),
            "y": _n(height - tall),
            "width": _n(step * 0.72),
            "height": _n(tall),
        }
        made.append(tag("rect", tag("title", one.title), class_=one.look, **place))
    limits = [(i * step, one.tolerance) for i, one in enumerate(bars) if one.tolerance is not None]
    way = "".join(f"M{x} {_n(height - scale.share(limit) * height)}h{step}" for x, limit in limits)
    made.append(tag("path", class_="limit", d=way))
    return _stretched(title, made, width, height, "columns")


def spread(counts: Sequence[tuple[int, int]], per_decade: int, scale: Scale, tolerance: float, title: str) -> Markup:
    """How many differences are how large: columns over powers of ten, and the tolerance as a line."""
    width, height = (scale.high - scale.low) * per_decade * 10, 100
    most = max((count for _, count in counts), default=1)
    edge = scale.share(tolerance) * width
    made = []
    for place, count in counts:
        x = (place - scale.low * per_decade) * 10
        tall = max(count / most * height, 1.5)
        is_over = place / per_decade >= math.log10(tolerance) if tolerance > 0 else True
        made.append(_column(x + 0.7, 8.6, tall, height, "differs" if is_over else "agrees"))
    made.append(tag("path", class_="limit", d=f"M{_n(edge)} 0V{height}"))
    return _stretched(title, made, width, height, "histogram")


def histogram(of: Histogram, title: str) -> Markup:
    """Both sides' values: TensorFlow's as filled columns, torch's as an outline over them."""
    height, count = 100, len(of.torch)
    most = max(*of.tensorflow, *of.torch, 1)
    tall = [[number / most * height for number in side] for side in (of.tensorflow, of.torch)]
    made = [_column(i * 10 + 0.4, 9.2, one, height, "tf") for i, one in enumerate(tall[0]) if one]
    way = "".join(f"V{_n(height - one)}h10" for one in tall[1])
    made.append(tag("path", class_="torch", d=f"M0 {height}{way}V{height}"))
    return _stretched(title, made, count * 10, height, "histogram")


def _column(x: float, width: float, tall: float, height: float, look: str) -> Markup:
    return tag("rect", class_=look, x=_n(x), y=_n(height - tall), width=_n(width), height=_n(tall))


def _stretched(title: str, made: Iterable[Markup], width: float, height: float, look: str) -> Markup:
    box = f"0 0 {_n(width)} {_n(height)}"
    return tag("svg", tag("title", title), *made, class_=look, role="img", viewBox=box, preserveAspectRatio="none")


# --- areas ---


def shares(parts: Sequence[tuple[str, float, str]], title: str) -> Markup:
    """A bar in parts: (its look, how much it is, what it is called) each; even the smallest can be seen."""
    total = sum(size for _, size, _ in parts) or 1.0
    widths = [max(size / total * 1000, 5.0) if size else 0.0 for _, size, _ in parts]
    unit, x, made = 1000 / (sum(widths) or 1.0), 0.0, []
    for (look, _, name), width in zip(parts, widths, strict=True):
        if width:
            made.append(tag("rect", tag("title", name), class_=look, x=_n(x), width=_n(width * unit), height=10))
            x += width * unit
    return _stretched(title, made, 1000, 10, "shares")


def heat(value: float | None, tolerance: float) -> str:
    """
    The class of a cell: the cool ones up to the tolerance, in powers of ten, the warm ones above it; "unknown" where
    nothing is known.
    """
    if value is None:
        return "unknown"
    if value == 0:
        return "q0"
    log = math.log10(value / tolerance) if tolerance > 0 and value < math.inf else math.inf
    return f"q{min(max(math.ceil(log) + COOL - 1, 0), HEATS - 1) if log < math.inf else HEATS - 1}"


def cells(channels: Channels, tolerance: float, title: str) -> Markup:
    """A heat map: a cell for each channel, in lines from left to right."""
    count = len(channels.largest)
    across = 16 if count <= 16 else 32 if count <= 128 else 64
    made = []
    for number, value in enumerate(channels.largest):
        first = number * channels.width
        last = min(first + channels.width, channels.count) - 1
        name = f"channel {first}" if first == last else f"channels {first} to {last}"
        said = "not recorded" if value is None else f"{value:.2g}"
        look = heat(value, tolerance)
        place = {"x": number % across * 10, "y": number // across * 10}
        made.append(tag("rect", tag("title", f"{name}: {said}"), class_=look, width=9, height=9, **place))
    box = f"0 0 {across * 10 - 1} {-(-count // across) * 10 - 1}"
    return tag("svg", tag("title", title), *made, class_=f"cells c{across}", role="img", viewBox=box)


def _n(number: float) -> str:
    """A number as short as a tenth of a pixel allows."""
    return f"{number:.1f}".removesuffix(".0")
