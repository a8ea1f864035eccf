"""
A report as one HTML page that needs nothing else: no network, no fonts, no script to be read.

What comes from files is text, whatever stands in it (see `t2t.review.markup`), and the page's own policy lets nothing
run or load but the style and the few lines of script that are in it, by their digests.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources

import t2t
from t2t.problems import Problem
from t2t.review import drawings, page_proof
from t2t.review.accounts import Group, Row, Source
from t2t.review.drawings import Symbols
from t2t.review.markup import Markup, count, figure, large, name, share, table, tag, tensor
from t2t.review.report import BEGINNING, Report, excess

#: So many variables that one parameter is made of are listed; of more, the first ones.
MAX_SOURCES = 4

#: What each way to account for something is called.
_HOW = {
    "mapped": ("read by rows", "from variables"),
    "dropped": ("dropped, parts of mapped ones", ""),
    "ignored": ("ignored", ""),
    "slots": ("optimizer's slots and counters", ""),
    "filled": ("", "filled"),
    "tied": ("", "tied: another name of a Parameter"),
    "kept": ("", "kept as built"),
}


def html(report: Report) -> str:
    """The page."""
    style, script = (
        resources.files("t2t.review").joinpath(file).read_text("utf-8") for file in ("page.css", "page.js")
    )
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}"
    policy += "; base-uri 'none'; form-action 'none'"
    symbols = Symbols()
    parts = [
        page_proof.diagnosis(report),
        page_proof.outputs(report),
        page_proof.layers(report),
        _coverage(report),
        _rows(report.rows, symbols),
        _notes(report.notes),
        _origin(report.origin),
    ]
    sections = [part for part in parts if part is not None]
    head = [
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{report.title}: {page_proof.verdict_word(report).lower()}"),
        tag("style", Markup(style)),
    ]
    foot = tag(
        "footer",
        f"Made by t2t {t2t.__version__}. The same files give the same page; it loads nothing and tells nobody.",
    )
    main = tag("main", *sections, foot)
    body = tag("body", symbols.defined(), _header(report, sections), main, tag("script", Markup(script)))
    return f'{BEGINNING}1">\n' + "\n".join(head) + f"\n</head>\n{body}\n</html>\n"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# --- the verdict ---


def _header(report: Report, sections: Sequence[Markup]) -> Markup:
    look = {"proven": "ok", "differs": "bad", "unproven": "warn"}[report.verdict]
    return tag(
        "header",
        tag("p", name(report.title), class_="eyebrow"),
        tag("h1", _icon(look), page_proof.verdict_word(report)),
        tag("p", *_lead(report), class_="lead"),
        page_proof.problems(report),
        tag("dl", *_figures(report), class_="figures"),
        _contents(sections),
        class_=look,
    )


def _icon(look: str) -> Markup:
    ways = {"ok": "M7 12.5l3.5 3.5L17 9", "bad": "M8 8l8 8M16 8l-8 8", "warn": "M12 7v6M12 16.5v.5"}
    shapes = [tag("circle", cx=12, cy=12, r=11), tag("path", d=ways[look])]
    return tag("svg", *shapes, class_="icon", viewBox="0 0 24 24", aria_hidden="true")


def _lead(report: Report) -> Iterator[str]:
    if report.verdict == "proven":
        yield "On the recorded inputs, "
        yield name(report.model)
        yield " computes what TensorFlow computed, within the tolerance that the mapping gives."
    elif report.verdict == "differs":
        yield "On the recorded inputs, "
        yield name(report.model)
        yield " does not compute what TensorFlow computed."
        if report.trace is not None and report.first is not None:
            yield " It goes wrong at "
            yield name(report.trace.calls[report.first].module or "the module itself")
            yield "."
    else:
        yield "The rows fit the checkpoint and "
        yield name(report.model)
        yield f", shape by shape. Whether they are right, nobody has tested: {report.why}."


def _figures(report: Report) -> Iterator[Markup]:
    worst = max((output.worst for output in report.outputs), key=excess, default=None)
    if worst is not None:
        yield _figure("largest difference", large(worst.max_delta), f"tolerance {figure(worst.tolerance)}")
        yield _figure("of the tolerance", share(excess(worst)), f"in {worst.output}")
    if metric := report.metric:
        note = f"TensorFlow {metric.reference:.2%}, {metric.count:,} labels"
        yield _figure(metric.name, f"{metric.torch:.2%}", note)
    yield _figure("parameters", f"{len({row.target for row in report.rows}):,}", "each is written, once")
    mapped = next(group for group in report.variables if group.how == "mapped")
    left = sum(group.count for group in report.variables if group.how in {"ignored", "slots"})
    yield _figure("variables", f"{mapped.count:,}", f"{left:,} more have a reason" if left else "each is read")


def _figure(title: str, value: str, note: str) -> Markup:
    return tag("div", tag("dt", title), tag("dd", value, tag("small", note)))


def _contents(sections: Sequence[Markup]) -> Markup:
    titles = {
        "diagnosis": "Diagnosis",
        "outputs": "Outputs",
        "layers": "Layers",
        "coverage": "Coverage",
        "rows": "Rows",
        "notes": "Notes",
        "origin": "Provenance",
    }
    there = [
        key
        for key in titles
        if any(section.endswith("</section>") and f'id="{key}"' in section[:80] for section in sections)
    ]
    return tag("nav", *(tag("a", titles[key], href=f"#{key}") for key in there), aria_label="Contents")


# --- coverage ---


def _coverage(report: Report) -> Markup:
    sides = [
        _side("Variables of the checkpoint", report.variables, 0),
        _side("Parameters and buffers of the module", report.parameters, 1),
    ]
    told = "Every element on both sides is read or written by a row, or the mapping says why it is not."
    return tag("section", tag("h2", "Coverage"), tag("p", told), tag("div", *sides, class_="cards"), id="coverage")


def _side(title: str, groups: Sequence[Group], side: int) -> Markup:
    bars = []
    for what in ("count", "bytes"):
        parts = [(group.how, group.count if what == "count" else group.nbytes, _named(group, side)) for group in groups]
        parts = [part for part in parts if what == "bytes" or part[0] != "dropped"]
        total = sum(size for _, size, _ in parts)
        said = ", ".join(f"{named} {size / total:.1%}" for _, size, named in parts if total)
        drawn = drawings.shares(parts, f"{title} by {what}: {said}")
        bars += [tag("p", f"by {what}", class_="label"), drawn]
    rows = [
        tag(
            "tr",
            tag("th", tag("i", class_=f"swatch {group.how}"), " ", _named(group, side), scope="row"),
            tag("td", f"{group.count:,}", class_="n"),
            tag("td", f"{group.elements:,}", class_="n"),
            tag("td", _size(group.nbytes), class_="n"),
        )
        for group in groups
    ]
    whole = [group for group in groups if group.how != "dropped"]
    totals = (f"{sum(group.count for group in whole):,}", f"{sum(group.elements for group in groups):,}")
    sums = [*totals, _size(sum(group.nbytes for group in groups))]
    rows.append(
        tag("tr", tag("th", "in all", scope="row"), *(tag("td", text, class_="n") for text in sums), class_="sum")
    )
    listed = table([("", ""), ("count", "n"), ("elements", "n"), ("size", "n")], rows, class_="plain")
    return tag("figure", tag("figcaption", tag("h3", title)), *bars, listed, class_="card")


def _named(group: Group, side: int) -> str:
    called = _HOW[group.how][side]
    if group.how == "filled":
        return f"{called} {group.why}"
    return f"{called}: {group.why}" if group.why else called


def _size(nbytes: int) -> str:
    """Bytes in decimal units."""
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


# --- rows ---


def _rows(rows: Sequence[Row], symbols: Symbols) -> Markup:
    told = "Where each parameter comes from: the variable's axes above, the parameter's below. "
    told += "A single line of boxes stays as it is; boxes in one frame are one axis, by what it is made of."
    head = [("variable", ""), ("axes", ""), ("parameter", ""), ("line", "n")]
    finder = tag(
        "p",
        tag(
            "label", "Only rows with ", tag("input", id="filter", type="search", autocomplete="off", spellcheck="false")
        ),
        " ",
        tag("output", id="found", for_="filter"),
        hidden=True,
        class_="finder",
    )
    listed = table(head, (_row(row, symbols) for row in rows), class_="rows")
    return tag("section", tag("h2", "Rows"), tag("p", told), finder, listed, id="rows")


def _row(row: Row, symbols: Symbols) -> Markup:
    drawn = symbols.use(drawings.axes(row.stages), drawings.axes_title(row.stages)) if row.stages else None
    words = tag("span", "; ".join(row.words), class_="words") if row.words else None
    part = tag("span", row.into, class_="part") if row.into else None
    kind = tag("span", "buffer", class_="kind") if row.kind == "buffer" else None
    cells = [
        tag("td", *_sources(row.sources), class_="tf"),
        tag("td", drawn, words, class_="move"),
        tag("th", name(row.target), part, tensor(row.dtype, row.shape), kind, scope="row"),
        tag("td", f"{row.line}", tag("small", row.recipe) if row.recipe else None, class_="n line"),
    ]
    return tag("tr", *cells)


def _sources(sources: Sequence[Source]) -> Iterator[Markup]:
    for source in sources[:MAX_SOURCES]:
        part = tag("span", source.part, class_="part") if source.part else None
        yield tag("div", name(source.name), part, tensor(source.dtype, source.shape))
    if len(sources) > MAX_SOURCES:
        rest = (tag("div", name(source.name)) for source in sources[MAX_SOURCES:])
        yield tag("details", tag("summary", f"and {len(sources) - MAX_SOURCES:,} more"), *rest)
    if not sources:
        yield tag("span", "no variable", class_="none")


# --- the rest ---


def _notes(notes: Sequence[Problem]) -> Markup | None:
    if not notes:
        return None
    return tag("section", tag("h2", "Notes"), tag("ul", *map(_note, notes), class_="problems"), id="notes")


def _note(note: Problem) -> Markup:
    details = tag("ul", *(tag("li", detail) for detail in note.details)) if note.details else None
    more = tag("details", tag("summary", count(len(note.details), "detail")), details) if details else None
    line = f" (line {note.at.line})" if note.at and note.at.line else None
    hint = f"; {note.hint}" if note.hint else None
    return tag("li", tag("code", note.code), f" {note.message}", hint, line, more)


def _origin(origin: Sequence[tuple[str, str]]) -> Markup:
    rows = [tag("tr", tag("th", word, scope="row"), tag("td", name(text))) for word, text in origin]
    told = "What this page was made from. Digests are SHA-256."
    listed = tag("table", tag("tbody", *rows), class_="plain origin")
    return tag("section", tag("h2", "Provenance"), tag("p", told), listed, id="origin")
