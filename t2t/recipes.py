"""
The recipes that t2t brings: data in recipes.yaml, in the mapping language itself.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

from t2t import document as yaml_text
from t2t.document import Document


@functools.cache
def builtin() -> Document:
    """The recipes that t2t brings, as a document."""
    file = Path(__file__).with_name("recipes.yaml")
    return yaml_text.built_in(file.read_bytes(), file.name)


def texts() -> dict[str, str]:
    """Each built-in recipe as it is written, comments included."""
    written = Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8").splitlines()
    document = builtin()
    names = list(document.tree["recipes"])
    starts = [document.keys["recipes", name][0] - 1 for name in names]
    found = {}
    for name, start, end in zip(names, starts, [*starts[1:], len(written)], strict=True):
        own = itertools.takewhile(lambda line: line.startswith("  - "), written[start + 1 : end])
        found[name] = "\n".join(line.removeprefix("  ") for line in (written[start], *own))
    return found
