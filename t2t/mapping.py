"""
A mapping: what the YAML file says, as frozen values.

`read` is the one door from text to values. It reports everything that can be known from the file alone; whether names
exist and shapes fit is the plan's business. Rows become rules in `t2t.rows`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Any, Literal

from t2t import document as yaml_text
from t2t import rows, verification
from t2t.boxes import Bounds
from t2t.document import Document
from t2t.letters import Letters
from t2t.names import shown
from t2t.problems import Location, Problem, in_file_order
from t2t.rules import Lost, Rule
from t2t.verification import Verify, resolved

_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"([0-9]{1,15}) ?(kB|MB|GB|KiB|MiB|GiB)")


@dataclass(frozen=True, slots=True)
class Ignore:
    """Variables that no row may need: those that `pattern` matches or, where it is None, every slot and counter."""

    pattern: str | None
    why: str
    at: Location


@dataclass(frozen=True, slots=True)
class Drop:
    """Elements of a variable that no parameter gets; the rest of it is read by rows."""

    name: str
    slice: tuple[Bounds, ...]
    why: str
    at: Location


@dataclass(frozen=True, slots=True)
class Require:
    """What the modules that the glob matches must have: attributes by name, with the value each must equal."""

    pattern: str
    attributes: Dict[str, Any]
    at: Location
    places: Dict[str, Location]


def same_setting(found: Any, wanted: Any) -> bool:
    """`==` of a plain value and a required one, where 2 is (2, 2) and a list is a tuple; True is not 1."""
    if isinstance(found, list | tuple) and not isinstance(wanted, list | tuple):
        return bool(found) and all(same_setting(item, wanted) for item in found)
    if isinstance(wanted, list | tuple) and not isinstance(found, list | tuple):
        return bool(wanted) and all(same_setting(found, item) for item in wanted)
    if isinstance(found, list | tuple):
        return len(found) == len(wanted) and all(same_setting(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(found, bool) != isinstance(wanted, bool):
        return False
    try:
        return bool(found == wanted)
    except (RuntimeError, ValueError, TypeError):  # a tensor of several elements has no truth
        return False


@dataclass(frozen=True, slots=True)
class Output:
    """
    The file to write: its path ("" for the default), its format, the dtype of its floating tensors.

    `shard_size` is the most bytes of tensors that one file may hold, None for one file whatever its size. `dtype_at` is
    where the dtype stands.
    """

    path: str = ""
    format: str = "safetensors"
    dtype: str | None = None
    shard_size: int | None = None
    dtype_at: Location | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """
    One mapping file. Paths are resolved against the file's directory; `digest` is the sha256 (hex) of its bytes.

    `arguments` is None where something is wrong with them: the model is not built with others. `lost` are names that
    rows with a problem may have meant.

    `names` says what the variables go by in it: their keys in the checkpoint, or what they were called in their model.
    `select` is what is added to the name of each variable that a row reads.
    """

    path: str
    digest: str
    model: str
    model_at: Location
    arguments: Dict[str, Any] | None
    source_at: Location
    checkpoint: str
    names: Literal["key", "full_name"]
    select: str
    dtype: str | None
    map_at: Location
    rules: tuple[Rule, ...]
    lost: Lost
    ignore: tuple[Ignore, ...]
    drop: tuple[Drop, ...]
    require: tuple[Require, ...]
    verify: Verify | None
    output: Output


def read(data: bytes, path: str) -> tuple[Mapping | None, list[Problem]]:
    """
    The mapping in `data`, and everything that is wrong with it, in file order.

    The mapping is None only where nothing of it can be used (it isn't YAML, or not a mapping with a list of rows). With
    problems it is still good for finding more of them, never for converting.
    """
    return made(*yaml_text.parse(data, path), data)


def made(document: Document, problems: list[Problem], data: bytes) -> tuple[Mapping | None, list[Problem]]:
    """The same of a file that is parsed already, with what was wrong with it then; `data` are its bytes."""
    path, tree = document.path, document.tree
    if not isinstance(tree, dict) or not isinstance(tree.get("map"), list):
        return None, problems
    source, output = _section(tree, "source"), _section(tree, "output")
    select = source["select"] if isinstance(source.get("select"), str) else ""
    rules, lost, letters, row_problems = rows.read(document, select)
    ignore, ignore_problems = _ignore(document)
    drop, drop_problems = _drop(document, letters)
    problems += [*row_problems, *ignore_problems, *drop_problems, *letters.unused()]
    # A part that the schema refuses is left out here: its problem is already told.
    verify = None
    if "verify" in tree and ("verify",) not in document.spoilt:
        verify, verify_problems = verification.read(document)
        problems += verify_problems
    shard_size, size_problems = _shard_size(document, output)
    problems += size_problems
    mapping = Mapping(
        path=path,
        digest=hashlib.sha256(data).hexdigest(),
        model=str(tree.get("model", "")),
        model_at=document.at("model"),
        arguments=_section(tree, "with") if ("with",) not in document.spoilt else None,
        source_at=document.at_key("source"),
        checkpoint=resolved(path, source.get("checkpoint")),
        names="full_name" if source.get("names") == "full_name" else "key",
        select=select,
        dtype=tree.get("dtype") if ("dtype",) not in document.spoilt else None,
        map_at=document.at_key("map"),
        rules=tuple(rules),
        lost=lost,
        ignore=tuple(ignore),
        drop=tuple(drop),
        require=tuple(_require(document)),
        verify=verify,
        output=Output(
            resolved(path, output.get("file")),
            output.get("format", "safetensors"),
            output.get("dtype"),
            shard_size,
            document.at("output", "dtype") if "dtype" in output else None,
        ),
    )
    return mapping, in_file_order(problems)


def _section(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """The keys and values under `key`; none where the schema has refused what stands there."""
    section = tree.get(key)
    return section if isinstance(section, dict) else {}


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
            place = document.at("ignore", index, "tf")
            problems += rows.name_problems(entry["tf"], place)
            if "<" in entry["tf"]:
                message = f"{shown(entry['tf'])} holds an index, which patterns don't"
                problems.append(Problem("T2T111", message, place, "write a glob: * inside a part, ** for parts"))
            found.append(Ignore(entry["tf"], why, at))
        elif entry.get("slots") is True:
            found.append(Ignore(None, why, at))
    return found, problems


def _drop(document: Document, letters: Letters) -> tuple[list[Drop], list[Problem]]:
    entries = document.tree.get("drop", [])
    found: list[Drop] = []
    problems: list[Problem] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if ("drop", index) in document.spoilt:
            continue
        at = document.at("drop", index)
        problems += rows.name_problems(entry["tf"], document.at("drop", index, "tf"))
        named, name_problems = rows.named_slices(entry, document, ("drop", index), letters)
        found += [Drop(name, bounds, str(entry["why"]), at) for name, bounds in named]
        problems += name_problems
    return found, problems


def _require(document: Document) -> list[Require]:
    entries = document.tree.get("require", [])
    return [
        Require(
            pattern=entry["torch"],
            attributes={key: value for key, value in entry.items() if key != "torch"},
            at=document.at("require", index),
            places={key: document.at("require", index, key) for key in entry},
        )
        for index, entry in enumerate(entries if isinstance(entries, list) else [])
        if ("require", index) not in document.spoilt
    ]


def _shard_size(document: Document, output: dict[str, Any]) -> tuple[int | None, list[Problem]]:
    """`shard_size` in bytes: a number, or a text with a unit."""
    given = output.get("shard_size")
    if given is None or ("output",) in document.spoilt:
        return None, []
    at = document.at("output", "shard_size")
    if output.get("format", "safetensors") != "safetensors":
        message = f"shard_size does not go with the format {output['format']}"
        return None, [Problem("T2T108", message, at, "only safetensors files come in shards")]
    match = _SIZE.fullmatch(str(given))
    size = given if isinstance(given, int) else int(match[1]) * _UNITS[match[2]] if match else 0
    if size < 1:
        return None, [Problem("T2T106", f"shard_size: '{given}' is not a size", at, "write 5 GB, 500 MiB or bytes")]
    return size, []
