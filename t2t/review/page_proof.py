"""
The parts of a report's page that show what running the module gave: outputs, layers, what would have passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from t2t.review import drawings
from t2t.review.drawings import COOL, HEATS, Bar, Scale
from t2t.review.figures import PER_DECADE, Channels, Spread
from t2t.review.markup import DASH, MINUS, Markup, count, escaped, figure, joined, name, power, share, table, tag
from t2t.review.report import Looked, Output, Report, excess, shown_end

if TYPE_CHECKING:
    from t2t.proof.difference import Call, End

#: More layers than these are in a table that opens on demand; the chart shows them all.
OPEN_LAYERS = 48

#: Names of operations are cut to so many characters, at the beginning.
MAX_OPERATION = 40


# --- outputs ---


def outputs(report: Report) -> Markup | None:
    """Each output against its tolerance, and how its differences are spread."""
    if not report.outputs:
        return None
    head = [
        ("output", ""),
        ("shape", "op"),
        ("runs", "n op"),
        ("max|Δ|", "n"),
        ("tolerance", "n"),
        ("of the tolerance", ""),
    ]
    rows = [_output_row(output) for output in report.outputs]
    return tag(
        "section",
        tag("h2", "Outputs"),
        tag("p", "What the module gives, held against what TensorFlow gave for the same inputs, element by element."),
        table(head, rows, class_="plain"),
        tag("div", *(_output_figures(output) for output in report.outputs), class_="cards"),
        id="outputs",
    )


def _output_row(output: Output) -> Markup:
    worst = output.worst
    used = excess(worst)
    look = "agrees" if output.holds else "differs"
    meter = drawings.bar(min(used, 1.0), 1.0, look)
    cells = [
        tag("th", name(worst.output), scope="row"),
        tag("td", str(list(worst.shape)), class_="shape op"),
        tag("td", f"{output.runs}", class_="n op"),
        tag("td", figure(worst.max_delta), class_="n"),
        tag("td", figure(worst.tolerance), class_="n"),
        tag("td", meter, tag("span", share(used), class_=f"said {look}")),
    ]
    return tag("tr", *cells)


def _output_figures(output: Output) -> Markup:
    worst, spread = output.worst, output.spread
    at = f"element {list(worst.worst)} of draw {worst.draw}" + (f", step {worst.step}" if worst.step else "")
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("h3", name(worst.output)),
            tag("p", f"{count(spread.elements, 'element')}; ", _equal(spread)),
        ),
        _spread(spread, worst.tolerance, worst.output),
        _heat_map(spread.channels, worst.tolerance, f"largest |Δ| by the last axis of {worst.output}"),
        tag("p", f"The worst is {at}: TensorFlow {worst.reference:.7g}, torch {worst.torch:.7g}.", class_="small"),
        class_="card",
    )


def _equal(spread: Spread) -> str:
    lost = f", {spread.nonfinite:,} not finite" if spread.nonfinite else ""
    return f"{spread.zeros:,} equal to the last bit{lost}"


def _spread(spread: Spread, tolerance: float, of: str) -> Markup | None:
    if not spread.counts:
        return None
    ends = [10.0 ** (place / PER_DECADE) for place, _ in spread.counts]
    scale = Scale.of([ends[0], ends[-1] * 10 ** (1.01 / PER_DECADE), tolerance, tolerance * 2], decades=30)
    title = f"How large the differences of {of} are: from {ends[0]:.0e} on, tolerance {tolerance:.1e}"
    drawn = drawings.spread(spread.counts, PER_DECADE, scale, tolerance, title)
    return tag(
        "div",
        drawn,
        _axis(scale),
        tag("p", "elements by |Δ|; the line is the tolerance", class_="label"),
        class_="chart",
    )


def _axis(scale: Scale) -> Markup:
    """Powers of ten, evenly along a chart."""
    ticks = (tag("span", tag("span", power(exponent))) for exponent in _ticks(scale))
    return tag("div", *ticks, class_="x even", aria_hidden="true")


def _ticks(scale: Scale) -> list[int]:
    length = scale.high - scale.low
    step = next((step for step in (1, 2, 3, 4, 5, 7) if length % step == 0 and length // step <= 6), length)
    return list(range(scale.low, scale.high + 1, step))


def _heat_map(channels: Channels | None, tolerance: float, title: str) -> Markup | None:
    if channels is None or channels.count < 2:
        return None
    said = "a cell for each" if channels.width == 1 else f"a cell for {channels.width} neighbours"
    unknown = sum(value is None for value in channels.largest)
    lost = f"; of {unknown} nothing is recorded" if unknown else ""
    legend = [
        joined("1/1000 ", *_swatches(range(COOL)), " tolerance"),
        joined(" ", *_swatches(range(COOL, HEATS)), " 100 times"),
    ]
    return tag(
        "div",
        drawings.cells(channels, tolerance, title),
        tag("p", f"largest |Δ| of {count(channels.count, 'channel')}, {said}{lost}", class_="label"),
        tag("p", *legend, class_="label legend"),
        class_="chart",
    )


def _swatches(steps: Iterable[int]) -> Iterator[Markup]:
    return (tag("i", class_=f"swatch q{step}") for step in steps)


# --- layers ---


def layers(report: Report) -> Markup | None:
    """Each call in the order of execution, the first that differs, and what both sides' values look like there."""
    trace = report.trace
    if trace is None or not trace.calls:
        return None
    bars = [_bar(call) for call in trace.calls]
    numbers = [number for one in bars for number in (one.value, one.tolerance or 0.0)]
    scale = Scale.of(numbers)
    rows = [_layer_row(report, number, bars[number], scale) for number in range(len(bars))]
    head = [
        ("#", "n"),
        ("layer", ""),
        ("TensorFlow's operation", "op"),
        ("in", "n"),
        ("out", "n"),
        ("|Δ| / max|TF|", ""),
    ]
    listed = table(head, rows, class_="sorts layers")
    if len(rows) > OPEN_LAYERS:
        listed = tag("details", tag("summary", f"All {count(len(rows), 'layer')}"), listed)
    return tag(
        "section",
        tag("h2", "Layers"),
        tag("p", _layers_told(report)),
        _overview(bars, scale, report.first),
        listed,
        _looked_at(report),
        id="layers",
    )


def _layers_told(report: Report) -> Markup:
    assert report.trace is not None
    what = "What goes in and what comes out of each layer, in the order in which torch runs them, as a share of the "
    what += "largest value that TensorFlow has there. "
    what += "It is looked at in samples of the first draw; another order of the axes is no difference."
    if report.first is None:
        nowhere = " No layer that is recorded differs." if report.verdict == "proven" else ""
        return joined(what, nowhere)
    first = report.trace.calls[report.first]
    says = "is the first that differs" if report.first == report.trace.first else "is where it goes wrong"
    return joined(what, " ", tag("strong", name(first.module), f" {says}."))


def _bar(call: Call) -> Bar:
    end = shown_end(call)
    title = _called(call)
    if end is None or end.verdict == "unlike":
        return Bar(0.0, None, "unlike", f"{title}: cannot be held against the recording")
    scale = end.scale or 1.0
    look = "differs" if call.differs else "agrees"
    return Bar(end.max_delta / scale, end.tolerance / scale, look, f"{title}: {_end_text(end)}")


def _called(call: Call) -> str:
    path = call.module or "the module itself"
    return f"{path}, call {call.number + 1}" if call.number else path


def _end_text(end: End | None) -> str:
    if end is None:
        return ""
    return "?" if end.verdict == "unlike" else figure(end.max_delta / (end.scale or 1.0))


def _overview(bars: Sequence[Bar], scale: Scale, first: int | None) -> Markup | None:
    if len(bars) < 3:
        return None
    title = (
        f"Differences of {len(bars)} layers in the order of execution, on a scale from 1e{scale.low} to 1e{scale.high}"
    )
    labels = tag("div", *(tag("span", power(exponent)) for exponent in _ticks(scale)), class_="y", aria_hidden="true")
    words = {"agrees": " agrees", "differs": " differs", "unlike": " cannot be compared", "line": " tolerance"}
    there = [look for look in words if look == "line" or any(one.look == look for one in bars)]
    keys = [tag("span", tag("i", class_=f"swatch {look}"), words[look]) for look in there]
    drawn = drawings.columns(bars, scale, first, title)
    return tag("figure", tag("div", labels, drawn, class_="overview"), tag("figcaption", *keys, class_="label keys"))


def _layer_row(report: Report, number: int, one: Bar, scale: Scale) -> Markup:
    assert report.trace is not None
    call = report.trace.calls[number]
    mark_at = None if one.tolerance is None else scale.share(one.tolerance)
    mark = None
    if number == report.first:
        mark = tag("span", "first to differ" if number == report.trace.first else "goes wrong here", class_="mark")
    operation = next((end.operation for end in (call.output, call.input) if end is not None), "")
    cells = [
        tag("td", f"{number + 1}", class_="n", data_v=number),
        tag("th", name(_called(call)), " ", tag("span", call.kind, class_="shape"), mark, scope="row"),
        tag("td", name(_ended(operation)), class_="op"),
        *(_end_cell(end) for end in (call.input, call.output)),
        tag(
            "td",
            drawings.bar(scale.share(one.value), mark_at, one.look),
            class_="wide",
            data_v=f"{one.value:.6e}",
        ),
    ]
    return tag("tr", *cells, class_="first" if number == report.first else None)


def _ended(operation: str) -> str:
    """The end of a long name; TensorFlow Lite joins those of all operations that became one."""
    last = operation.rpartition(";")[2]
    return last if len(last) <= MAX_OPERATION else f"…{last[1 - MAX_OPERATION :]}"


def _end_cell(end: End | None) -> Markup:
    look = "n" if end is None or end.verdict != "differs" else "n differs"
    value = -1.0 if end is None or end.verdict == "unlike" else end.max_delta / (end.scale or 1.0)
    return tag("td", _end_text(end) or DASH, class_=look, data_v=f"{value:.6e}")


def _looked_at(report: Report) -> Markup | None:
    if not report.looked:
        return None
    how = "The layers that come nearest to their tolerance."
    if report.first is not None:
        how = "The first layer that differs, and those that are farthest beyond their tolerance."
    return joined(
        tag("h3", "A closer look"),
        tag("p", how),
        tag("div", *(_look(report, one) for one in report.looked), class_="cards"),
    )


def _look(report: Report, one: Looked) -> Markup:
    assert report.trace is not None
    call = report.trace.calls[one.number]
    end = call.input if one.is_input else call.output
    assert end is not None
    side = "what goes in" if one.is_input else "what comes out"
    histogram = one.values
    title = f"Values of {_called(call)} on both sides, from {histogram.low:.3g} to {histogram.high:.3g}"
    lost = "".join(
        f", {number} of {whose} not finite"
        for whose, number in zip(("TensorFlow's", "torch's"), histogram.nonfinite, strict=True)
        if number
    )
    shapes = f"TensorFlow {list(end.shape)}, torch {list(end.own)}: "
    shapes += f"max|Δ| {figure(end.max_delta)} of {figure(end.tolerance)}"
    keys = tag(
        "p",
        tag("span", tag("i", class_="swatch tf"), " TensorFlow's values"),
        tag("span", tag("i", class_="swatch torch"), f" torch's{lost}"),
        class_="label keys",
    )
    ends = tag("div", tag("span", f"{histogram.low:.3g}"), tag("span", f"{histogram.high:.3g}"), class_="x")
    return tag(
        "figure",
        tag("figcaption", tag("h4", name(_called(call))), tag("p", f"{side}; {shapes}", class_="small")),
        tag(
            "div",
            drawings.histogram(histogram, title),
            ends,
            keys,
            class_="chart",
        ),
        _heat_map(one.channels, end.tolerance, f"largest |Δ| by channel of {_called(call)}"),
        class_="card",
    )


# --- what would have passed ---


def diagnosis(report: Report) -> Markup | None:
    """The rows that would have passed in place of the file's, or how much was tried."""
    found = report.diagnosis
    if found is None:
        return None
    said: list[Markup | None] = []
    if found.repairs:
        together = ", all of it together" if len(found.repairs) > 1 else ""
        lead = (
            f"With this the outputs agree{together}:" if found.passes else "This mends a part of it, and is not enough:"
        )
        said.append(tag("p", lead))
        said.append(tag("ul", *(tag("li", repair.what) for repair in found.repairs)))
    if found.lines:
        said.append(tag("pre", tag("code", *_changed(report)), tabindex="0"))
    if not found.passes:
        said.append(tag("p", f"{found.in_vain[:1].upper()}{found.in_vain[1:]}."))
        tried = list(dict.fromkeys(found.tried))
        if tried:
            items = tag("ul", *(tag("li", what) for what in tried))
            said.append(tag("details", tag("summary", f"What was tried: {count(len(tried), 'change')}"), items))
    title = "What would have passed" if found.passes else "What was tried"
    return tag("section", tag("h2", title), *said, id="diagnosis")


def _changed(report: Report) -> Iterator[Markup]:
    """The mapping's lines that go, and those that come in their place."""
    assert report.diagnosis is not None
    for number, text in report.quoted:
        yield tag("del", f"{number:>4} {MINUS} {text}")
    for text in report.diagnosis.lines:
        yield tag("ins", f"     + - {text}")


def problems(report: Report) -> Markup | None:
    """The findings, word for word, as the command says them."""
    if not report.findings:
        return None
    items = (
        tag("li", tag("code", problem.code), f" {problem.message}", _at(problem.at.line if problem.at else None))
        for problem in report.findings
    )
    return tag("ul", *items, class_="problems")


def _at(line: int | None) -> str | None:
    return f" (line {line})" if line else None


def verdict_word(report: Report) -> Markup:
    """The headline."""
    return escaped({"proven": "Proven", "differs": "Differs", "unproven": "Not proven"}[report.verdict])
