"""
HTML from Python values: whatever is not `Markup` already is text, and stays text whatever stands in it.

    tag("td", name, class_="name")    <td class="name">&lt;b&gt;</td>
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

#: As they are set.
MINUS, TIMES, DASH = "\u2212", "\u00d7", "\u2013"

#: Elements that have no end.
_VOID = {"meta", "br", "input", "col"}


class Markup(str):
    """Text that is HTML: `tag` and `joined` make it, and nothing that a file holds is."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """The text for HTML: no markup, and no characters that show nothing or change the direction of what follows."""
    if not text.isprintable():
        plain = " ".join(text.splitlines())
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    return Markup(html.escape(text))


def joined(*content: str | None) -> Markup:
    """One after the other; what is not Markup is escaped, None is nothing."""
    parts = (part if isinstance(part, Markup) else escaped(part) for part in content if part is not None)
    return Markup("".join(parts))


def tag(element: str, /, *content: str | None, **attributes: object) -> Markup:
    """
    An element. Attributes lose an underscore at the end (`class_`), others become hyphens; None leaves one out, True
    gives it no value.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if element in _VOID:
        return Markup(f"<{element}{said}>")
    return Markup(f"<{element}{said}>{joined(*content)}</{element}>")


def _attribute(key: str, value: object) -> str:
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escaped(str(value))}"'


# --- what all parts of a page say alike ---


def name(text: str) -> Markup:
    """A name, which may break behind its separators."""
    parts = escaped(text).replace("/", "/<wbr>").replace(".", ".<wbr>")
    return tag("code", Markup(parts))


def tensor(dtype: str, shape: Sequence[int]) -> Markup:
    """`float32 [3, 3, 16, 32]`."""
    return tag("span", f"{dtype} {list(shape)}", class_="shape")


def figure(value: float) -> str:
    """A number in a table: short, and never cut to 0."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "not finite"
    return f"{value:.3g}" if 0.01 <= abs(value) < 10000 else f"{value:.1e}"


def power(exponent: int) -> Markup:
    """A power of ten as it is set."""
    return joined("10", tag("sup", f"{exponent}".replace("-", MINUS)))


def large(value: float) -> Markup:
    """A number as it is set in a headline, its power of ten raised."""
    mantissa, e, exponent = figure(value).partition("e")
    if not e or not math.isfinite(value):
        return escaped(figure(value))
    return joined(f"{mantissa} {TIMES} ", power(int(exponent)))


def share(value: float) -> str:
    """A share of something: in percent or, above that, as a multiple."""
    if not math.isfinite(value):
        return "not finite"
    percent = value * 100
    text = (
        f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1g} %" if percent >= 0.1 else "below 0.1 %"
    )
    if value <= 1:
        return text
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.{0 if rounded >= 10 else 1}f} times" if rounded < 1e7 else "over 10 million times"


def table(head: Sequence[tuple[str, str]], rows: Iterable[Markup], **attributes: object) -> Markup:
    """A table: (title, class) of each column, and its rows."""
    titles = (
        tag("th", title, scope="col", class_=look or None, data_n=True if look[:1] == "n" else None)
        for title, look in head
    )
    return tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *rows), **attributes)


def count(number: int, what: str) -> str:
    """`1 variable`, `2,000 variables`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
