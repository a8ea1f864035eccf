"""Files that come with t2t and lie beside its package in the repository: in a wheel they lie in it."""

from __future__ import annotations

from pathlib import Path


def text(name: str) -> str:
    """The file's text, from the wheel or, in an editable install, from the repository."""
    for folder in (Path(__file__).parent, Path(__file__).parent.parent):
        file = folder / name
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"t2t is installed without {name}")
