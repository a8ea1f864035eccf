"""
What the codes stand for, each with an example that is wrong and one that is right: docs/codes.md, read by its layout.

    ## Shapes (exit 1)
    ### T2T302
    text
    ```yaml
    # wrong
    ...
    # right
    ...
    ```

The wheel has that file too. Who reads it on a page and who asks `t2t help` is told the same.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from t2t import packaged
from t2t.problems import CODES

_SECTION = re.compile(r"^## (?P<area>.+?)$|^### (?P<code>T2T\d{3})\n(?P<body>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(
    r"\A\n(?P<text>.*?)\n\n```(?P<language>\w+)\n# wrong\n(?P<wrong>.*?)# right\n(?P<right>.*?)```\n*\Z", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Code:
    """
    One code: what it stands for, where it belongs ("Shapes (exit 1)"), more about it, and both examples.

    `language` is "yaml" for the examples that are mappings, whole but for what all mappings begin with.
    """

    code: str
    meaning: str
    area: str
    text: str
    language: str
    wrong: str
    right: str


@functools.cache
def explained() -> dict[str, Code]:
    """Every code, in order."""
    found: dict[str, Code] = {}
    area = ""
    for section in _SECTION.finditer(packaged.text("docs/codes.md")):
        code = section["code"]
        if code is None:
            area = section["area"]
            continue
        example = _EXAMPLE.match(section["body"])
        assert example is not None, f"docs/codes.md: {code} is not laid out as the others"
        found[code] = Code(code, CODES[code], area, **example.groupdict())
    return found


def find(name: str) -> Code | None:
    """The code that `name` is: T2T305, t2t305 or 305."""
    return explained().get(f"T2T{name.upper().removeprefix('T2T')}")


def nearest(name: str) -> list[str]:
    """Codes of the same area that are near, where `name` has the form of a code."""
    digits = name.upper().removeprefix("T2T")
    if not re.fullmatch("[0-9]{3}", digits):
        return []
    area = [code for code in CODES if code[3] == digits[0]]
    return sorted(area, key=lambda code: (abs(int(code[3:]) - int(digits)), code))[:3]


def lines(code: Code) -> list[str]:
    """A code in words."""
    told = [f"{code.code}: {code.meaning}", code.area, "", *code.text.splitlines()]
    for what, example in (("wrong", code.wrong), ("right", code.right)):
        told += ["", f"{what}:", *(f"    {line}".rstrip() for line in example.splitlines())]
    return told
