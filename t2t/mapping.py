"""
A mapping: what the YAML file says, as frozen values.

`read` is the one door from text to values. It reports everything that can be known from the file alone; whether names
exist and shapes fit is the plan's business. A `Rule` is one assignment, with the place of each of its keys, so that
every later message can point at it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import Any, Literal

from t2t import axes as notation
from t2t import document as yaml_text
from t2t import verification
from t2t.axes import Axes, AxesError
from t2t.document import Document
from t2t.names import OUTPUT_SUFFIX, VALUE_SUFFIX, shown
from t2t.problems import Location, Problem, in_file_order
from t2t.verification import Verify, resolved


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One assignment: `target` (a name of the module's state_dict) gets a variable, a number, another name's Parameter, or
    keeps the value that it was built with. Exactly one of `source`, `fill`, `tie`, `keep` is set.

    `axes` is None where the row gives none; `dims` are sizes of its axes. `is_whole` is False for a row with a problem
    of its own: it counts as using its names, and nothing else of it is checked.
    """

    target: str
    at: Location
    places: Dict[str, Location]
    source: str | None = None
    axes: Axes | None = None
    dims: Dict[str, int] = field(default_factory=dict)
    dtype: str | None = None
    reuse: bool = False
    fill: float | int | None = None
    tie: str | None = None
    keep: bool = False
    why: str = ""
    is_whole: bool = True

    def place(self, key: str) -> Location:
        """Where the row's value of this key stands; the row itself where it has none."""
        return self.places.get(key, self.at)


@dataclass(frozen=True, slots=True)
class Ignore:
    """Variables that no row may need: those that `pattern` matches or, where it is None, every slot and counter."""

    pattern: str | None
    why: str
    at: Location


@dataclass(frozen=True, slots=True)
class Output:
    """The file to write: its path ("" for the default), its format, and the dtype of its floating tensors."""

    path: str = ""
    format: str = "safetensors"
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """
    One mapping file. Paths are resolved against the file's directory; `digest` is the sha256 (hex) of its bytes.

    `names` says what the variables go by in it: their keys in the checkpoint, or what they were called in their model.
    """

    path: str
    digest: str
    model: str
    model_at: Location
    arguments: Dict[str, Any]
    checkpoint: str
    names: Literal["key", "full_name"]
    dtype: str | None
    map_at: Location
    rules: tuple[Rule, ...]
    ignore: tuple[Ignore, ...]
    verify: Verify | None
    output: Output


def read(data: bytes, path: str) -> tuple[Mapping | None, list[Problem]]:
    """
    The mapping in `data`, and everything that is wrong with it, in file order.

    The mapping is None only where nothing of it can be used (it isn't YAML, or not a mapping with a list of rows). With
    problems it is still good for finding more of them, never for converting.
    """
    document, problems = yaml_text.parse(data, path)
    tree = document.tree
    if not isinstance(tree, dict) or not isinstance(tree.get("map"), list):
        return None, problems
    rules = []
    for index, row in enumerate(tree["map"]):
        rule, row_problems = _rule(document, index, row)
        problems += row_problems
        rules += [rule] if rule else []
    ignore, ignore_problems = _ignore(document)
    problems += ignore_problems
    # A part that the schema refuses is left out here: its problem is already told.
    verify = None
    if "verify" in tree and ("verify",) not in document.spoilt:
        verify, verify_problems = verification.read(document)
        problems += verify_problems
    source, output = _section(tree, "source"), _section(tree, "output")
    mapping = Mapping(
        path=path,
        digest=hashlib.sha256(data).hexdigest(),
        model=str(tree.get("model", "")),
        model_at=document.at("model"),
        arguments=_section(tree, "with"),
        checkpoint=resolved(path, source.get("checkpoint")),
        names="full_name" if source.get("names") == "full_name" else "key",
        dtype=tree.get("dtype") if ("dtype",) not in document.spoilt else None,
        map_at=document.at_key("map"),
        rules=tuple(rules),
        ignore=tuple(ignore),
        verify=verify,
        output=Output(resolved(path, output.get("file")), output.get("format", "safetensors"), output.get("dtype")),
    )
    return mapping, in_file_order(problems)


def _section(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """The keys and values under `key`; none where the schema has refused what stands there."""
    section = tree.get(key)
    return section if isinstance(section, dict) else {}


def _rule(document: Document, index: int, row: Any) -> tuple[Rule | None, list[Problem]]:
    if not isinstance(row, dict) or not isinstance(row.get("torch"), str):
        return None, []
    at = document.at("map", index)
    places = {key: document.at("map", index, key) for key in row}
    problems: list[Problem] = []
    for key in ("tf", "torch", "tie"):
        if isinstance(row.get(key), str):
            problems += _name_problems(row[key], places[key])
    axes, dims = None, {}
    is_whole = ("map", index) not in document.spoilt
    if is_whole:
        try:
            if "axes" in row:
                axes, dims = notation.parse(row["axes"]), row.get("dims", {})
                unknown = [name for name in dims if not any(name in group for group in axes.left)]
                if unknown:
                    raise AxesError("T2T301", f"dims name {shown(', '.join(unknown))}, which axes '{axes}' don't have")
            elif "permute" in row:
                axes = notation.from_permutation(row["permute"])
        except AxesError as error:
            place = places["axes" if "axes" in row else "permute"]
            problems.append(Problem(error.code, f"{shown(row['torch'])}: {error.cause}", place, error.hint))
    rule = Rule(
        target=row["torch"],
        at=at,
        places=places,
        # A suffix is refused above; without it the name is looked up all the same, and not told a second time.
        source=row["tf"].removesuffix(OUTPUT_SUFFIX).removesuffix(VALUE_SUFFIX)
        if isinstance(row.get("tf"), str)
        else None,
        axes=axes,
        dims=dims,
        dtype=row.get("dtype"),
        reuse=row.get("reuse") is True,
        fill=row.get("fill"),
        tie=row["tie"] if isinstance(row.get("tie"), str) else None,
        keep=row.get("keep") == "init",
        why=str(row.get("why", "")),
        is_whole=is_whole and not problems,
    )
    return rule, problems


def _name_problems(name: str, at: Location) -> list[Problem]:
    for suffix in (OUTPUT_SUFFIX, VALUE_SUFFIX):
        if name.endswith(suffix):
            hint = f"write {shown(name.removesuffix(suffix))}"
            return [Problem("T2T109", f"{shown(name)} ends in {suffix}, which names in a mapping don't", at, hint)]
    if "<" in name:
        hint = "write one row for each name; for: is not read yet"
        return [Problem("T2T109", f"{shown(name)} holds a placeholder that nothing fills", at, hint)]
    return []


def _ignore(document: Document) -> tuple[list[Ignore], list[Problem]]:
    entries = document.tree.get("ignore", [])
    found: list[Ignore] = []
    problems: list[Problem] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue
        at = document.at("ignore", index)
        why = str(entry.get("why", ""))
        if isinstance(entry.get("tf"), str):
            problems += _name_problems(entry["tf"], document.at("ignore", index, "tf"))
            found.append(Ignore(entry["tf"], why, at))
        elif entry.get("slots") is True:
            found.append(Ignore(None, why, at))
    return found, problems
