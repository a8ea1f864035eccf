"""HTML read strictly by Python's own parser: each element closed where it must be, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "input", "wbr", "br"}


@dataclass
class Element:
    """One element: its name, its attributes, and what it holds in order."""

    name: str
    attributes: dict[str, str | None]
    content: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.content)

    def all(self, name: str = "", **attributes: str) -> list[Element]:
        """The elements in it, those with these attributes (`class_` one of its classes)."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [one for one in self._below() if (not name or one.name == name) and one._has(wanted)]

    def one(self, name: str = "", **attributes: str) -> Element:
        """The only one of them."""
        (found,) = self.all(name, **attributes)
        return found

    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()

    def _has(self, wanted: dict[str, str]) -> bool:
        return all(
            value in self.classes() if key == "class" else self.attributes.get(key) == value
            for key, value in wanted.items()
        )

    def _below(self) -> Iterator[Element]:
        for part in self.content:
            if isinstance(part, Element):
                yield part
                yield from part._below()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({key for key, _ in attrs}) == len(attrs), (tag, attrs)
        element = Element(tag, dict(attrs))
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def parsed(text: str) -> Element:
    """The whole; fails where an element is left open or closed out of turn."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert [one.name for one in reader.open] == [""]
    return reader.open[0]
