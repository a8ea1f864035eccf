"""Mappings written in every style that somebody may have: a random one of each call."""

from __future__ import annotations

import json
from random import Random

_WORDS = (
    *("a", "conv<i>", "encoder/layer_<i>/kernel", "h w i o -> o i h w", "1e-5", "true", "-1", "0..3", "1:30", ""),
    *(
        "it's",
        "Adam's moments",
        "really?",
        "a, b",
        "[x]",
        "{y}",
        "a: b",
        " lead",
        "a#b",
        "b:c",
        "https://a.b/c",
        "café",
    ),
    *("漢字", "é" * 30, "n" * 70, "e\u0301"),
)
_ROWS = (
    *(("tf", "torch"), ("tf", "torch", "axes"), ("tf", "torch", "use"), ("torch", "fill"), ("torch", "tie")),
    *(("tf", "why"), ("tf", "torch", "dims", "axes")),
)


def mapping(random: Random) -> str:
    """The text of a mapping (not of one that fits any checkpoint, or the schema); line ends are those of one system."""
    return _Writer(random).mapping()


class _Writer:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.newline = random.choice(["\n", "\n", "\r\n"])

    def mapping(self) -> str:
        sections = ["map", "ignore", "with", "recipes", "verify", "for"]
        self.random.shuffle(sections)
        text = self._maybe(0.3, f"# head{self.newline}") + "t2t:" + self._spaces(1) + "1" + self._break(0)
        for section in sections[: self.random.randint(1, 5)]:
            text += f"{section}:"
            if section in {"map", "ignore"}:
                text += self._break(0) + self._rows(self.random.choice([0, 0, 2, 3]))
            elif section == "recipes":
                indent = self.random.choice([1, 2, 4])
                text += self._break(0) + " " * indent + "own:" + self._break(indent)
                text += self._rows(indent + self.random.choice([0, 2]))
            else:
                text += self._value(3, 0)
        return text.rstrip() if self.random.random() < 0.1 else text

    # --- spaces ---

    def _maybe(self, chance: float, text: str) -> str:
        return text if self.random.random() < chance else ""

    def _spaces(self, least: int = 0) -> str:
        return " " * self.random.choice([least, least, 1, self.random.randint(least, 3)])

    def _break(self, indent: int) -> str:
        """The end of a line: a comment or spaces before it, blank lines and comments behind it."""
        random = self.random
        end = self._maybe(
            0.15, f"{self._spaces(1)}# {random.choice(['x', 'a: b', '- {', '']):s} {random.randint(0, 9)}"
        )
        text = (end or self._maybe(0.1, "  ")) + self.newline
        while random.random() < 0.08:
            text += random.choice(["", " ", "    "]) + self.newline
        while random.random() < 0.06:
            text += " " * random.choice([0, 2, indent, indent + 2, indent + 7])
            text += f"# line {random.randint(0, 9)}{self.newline}"
        return text

    def _between(self, indent: int) -> str:
        """What may stand between two tokens of a flow collection."""
        if self.random.random() < 0.06:
            return self._break(indent) + " " * (indent + self.random.randint(1, 6))
        return self._spaces()

    # --- values ---

    def _scalar(self, *, flow: bool) -> str:
        word = self.random.choice(_WORDS)
        may_be_plain = word.strip() == word != "" and ": " not in word and word[0] not in "[{"
        may_be_plain &= not (flow and set(word) & set(",[]{}?"))
        if may_be_plain and self.random.random() < 0.6:
            return word
        quoted = word.replace("'", "''")
        return (
            f"'{quoted}'" if self.random.random() < 0.5 else json.dumps(word, ensure_ascii=self.random.random() < 0.5)
        )

    def _flow(self, depth: int, indent: int) -> str:
        kind = self.random.choice(["scalar", "scalar", "list", "keys"])
        if kind == "scalar" or not depth:
            return self._scalar(flow=True)
        entries = [self._flow(depth - 1, indent) for _ in range(self.random.randint(0, 3))]
        if kind == "keys":
            keys = self.random.sample(["k1", "key two", '"q"', "axes", "tf"], len(entries))
            entries = [f"{key}:{self._spaces(1)}{entry}" for key, entry in zip(keys, entries, strict=True)]
        return self._collected(entries, "[]" if kind == "list" else "{}", indent)

    def _collected(self, entries: list[str], brackets: str, indent: int) -> str:
        text = brackets[0] + self._between(indent)
        for number, entry in enumerate(entries):
            text += entry + self._spaces()
            text += "," + self._between(indent) if number < len(entries) - 1 else self._maybe(0.1, ", ")
        return text + self._between(indent) + brackets[1]

    def _value(self, depth: int, indent: int) -> str:
        """What follows a key and its colon, to the end of its last line."""
        kind = self.random.choice(["flow", "flow", "block", "lines", "below", "list", "keys"])
        if kind == "flow" or not depth:
            return self._spaces(1) + self._flow(2, indent) + self._break(indent)
        if kind == "block":
            return self._block_scalar(indent)
        if kind == "lines":
            further = " " * (indent + self.random.randint(1, 5))
            text = self.random.choice(
                [f"several words{self.newline}{further}go on", f'"one\\{self.newline}{further}two"']
            )
            return " " + text + self._break(indent)
        inner = indent + self.random.randint(1, 5)
        if kind == "below":
            return self._break(indent) + " " * inner + self._scalar(flow=False) + self._break(indent)
        if kind == "list":
            return self._break(indent) + self._list(depth, inner - self.random.randint(0, inner - indent))
        keys = self.random.sample(["u", "vee", "'w w'"], self.random.randint(1, 3))
        return self._break(indent) + "".join(f"{' ' * inner}{key}:{self._value(depth - 1, inner)}" for key in keys)

    def _block_scalar(self, indent: int) -> str:
        left = " " * (indent + self.random.randint(1, 4))
        lines = [f"{left}text  ", f"{left} # no comment", "", left]
        text = f" {self.random.choice('|>')}{self.random.choice(['', '-', '+'])}{self.newline}{left}first{self.newline}"
        return text + "".join(self.random.choice(lines) + self.newline for _ in range(self.random.randint(0, 3)))

    def _list(self, depth: int, indent: int) -> str:
        text = ""
        for _ in range(self.random.randint(1, 3)):
            text += " " * indent + "-"
            if self.random.random() < 0.5:
                text += self._spaces(1) + self._flow(2, indent) + self._break(indent)
                continue
            gap = self.random.randint(1, 3)
            inner = indent + 1 + gap
            text += " " * gap + "p:" + self._value(depth - 1, inner)
            text += self._maybe(0.5, f"{' ' * inner}q: 1{self.newline}")
        return text

    # --- rows ---

    def _rows(self, indent: int) -> str:
        return "".join(" " * indent + self._row(indent) for _ in range(self.random.randint(1, 5)))

    def _row(self, indent: int) -> str:
        keys = self.random.choice(_ROWS)
        is_flow = self.random.random() < 0.7
        values = [self._flow(1, indent + 2) if key == "dims" else self._scalar(flow=is_flow) for key in keys]
        if is_flow:
            pairs = [f"{key}:{self._spaces(1)}{value}" for key, value in zip(keys, values, strict=True)]
            return "-" + self._spaces(1) + self._collected(pairs, "{}", indent) + self._break(indent)
        gap = self.random.randint(1, 4)
        inner = indent + 1 + gap
        text = "-" + (self._break(indent) + " " * inner if self.random.random() < 0.1 else " " * gap)
        for number, (key, value) in enumerate(zip(keys, values, strict=True)):
            text += " " * (inner if number else 0) + f"{key}:{self._spaces(1)}{value}" + self._break(inner)
        return text
