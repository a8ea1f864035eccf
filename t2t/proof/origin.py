"""
What a recording was made from: the digests that tell whether it belongs to a checkpoint, an original and its inputs.

A recording keeps them in its description, and a lock the same ones; none of its arrays is needed to compare them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from typing import Any, NoReturn

import numpy as np

from t2t.checkpoints.files import is_address, open_regular, reason, refusal
from t2t.names import shown
from t2t.problems import CheckpointError, Location, MappingError, Problem
from t2t.proof import arrays
from t2t.proof.arrays import Array
from t2t.proof.inputs import made
from t2t.verification import MAX_RUNS, Reference, Verify

FORMAT = 1
META = "recording"
#: What `made_from` says: see `parts` and `original_digest`.
PARTS = {"checkpoint", "inputs", "feed", "fetch", "draws", "labels", "graph"}


def parts(verify: Verify, source_digest: str) -> dict[str, str]:
    """
    What decides the stored arrays, each by its sha256 (hex): checkpoint, inputs, feed, fetch, draws and labels.

    Files count by content, everything else as written. With steps there is `steps`; with an original that is no TF1
    graph, or one of its signatures, `reference`. Rows, tolerances and the torch side are not in it: changing them
    leaves a recording as good as it was. Nor is the original's file, which may be gone by then: `find` compares it
    where it is there. Raises CheckpointError (T2T904) for an input's file that cannot be read.
    """
    given = {
        entry.name: digest(made(verify, entry, 0))
        if entry.path
        else [entry.shape, entry.dtype, entry.range, entry.values, entry.seed, entry.value]
        for entry in verify.inputs
    }
    truth, reference = labels(verify), verify.reference
    decided = {
        "checkpoint": source_digest,
        "inputs": sha256(given),
        "feed": sha256(dict(reference.feed)),
        "fetch": sha256(dict(reference.fetch)),
        "draws": sha256(verify.draws),
        "labels": sha256(None if truth is None else digest(truth)),
    }
    if verify.steps != 1:
        decided["steps"] = sha256(verify.steps)
    if reference.kind != "graph":
        called = reference.written if reference.kind == "call" else ""
        decided["reference"] = sha256([reference.kind, reference.signature, called])
    return decided


def sha256(content: Any) -> str:
    """sha256 (hex) of a value as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def labels(verify: Verify) -> Array | None:
    """
    The true labels, None where the mapping names none.

    Raises CheckpointError (T2T904) for a file that cannot be read, MappingError (T2T503) where they are no integers.
    """
    if verify.labels is None:
        return None
    array = arrays.read(verify.labels.path, verify.labels.member)
    if array.dtype.kind not in "iu":
        text = f"labels in {shown(verify.labels.file)} are {array.dtype.name} {list(array.shape)}, not integers"
        raise MappingError(Problem("T2T503", text, verify.at, "a label is the number of the right class"))
    return array


def other_parts(made_from: Mapping[str, str], wanted: Mapping[str, str], verify: Verify) -> str:
    """What a recording `made_from` these was made from instead of what is `wanted`, in words; "" if nothing."""
    optional = {"steps", "reference"} & made_from.keys()
    other = [part for part in [*wanted, *sorted(optional - wanted.keys())] if made_from.get(part) != wanted.get(part)]
    words = _PART_WORDS | ({} if verify.reference.kind == "graph" else {"graph": f"another {verify.reference.kind}"})
    return " and ".join(words.get(part, f"another {part}") for part in other)


_PART_WORDS = {
    "inputs": "other inputs",
    "labels": "other labels",
    "steps": "another number of steps",
    "reference": "another kind of original",
}


def stored_parts(path: str) -> dict[str, str]:
    """What the recording at `path` was made from. Raises CheckpointError (T2T904) for anything else."""
    made_from: dict[str, str] = description(path, arrays.read_all(path, META).get(META))["made_from"]
    return made_from


def original_digest(reference: Reference, path: str) -> str | None:
    """
    sha256 (hex) of the original's file at `path`, None where it isn't there or is an address.

    Of a SavedModel it is saved_model.pb, whose variables are the checkpoint's business; of a call, the import path and
    the file that Python would import, None where it would find none. Raises CheckpointError (T2T602) where a file
    cannot be read.
    """
    if reference.kind == "call":
        source = _source_file(reference.written.partition(":")[0])
        file_digest = _file_digest(source) if source else None
        return file_digest and sha256([reference.written, file_digest])
    path = os.path.join(path, "saved_model.pb") if reference.kind == "saved_model" else path
    return None if is_address(path) or not os.path.exists(path) else _file_digest(path)


def _source_file(module: str) -> str | None:
    """The file that importing the module would run, found without running anything, not even its packages' files."""
    places: Sequence[str] | None = [*sys.path, os.getcwd()]
    found = None
    for part in module.split("."):
        try:
            # By its last name alone: a namespace package asks sys.modules for the package that a dotted name lies in.
            found = PathFinder.find_spec(part, places)
        except (ImportError, ValueError):
            return None
        if found is None:
            return None
        places = None if found.submodule_search_locations is None else list(found.submodule_search_locations)
    return found.origin if found and found.origin and os.path.isfile(found.origin) else None


def _file_digest(path: str) -> str:
    with open(open_regular(path)[0], "rb") as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise refusal("T2T602", f"the original cannot be read: {reason(error)}", path) from None


def digest(array: Array) -> str:
    """sha256 (hex) of dtype, shape and elements, whatever the machine's byte order."""
    start = f"{array.dtype.name} {list(array.shape)}\n".encode()
    return hashlib.sha256(start + plain(array).tobytes()).hexdigest()


def plain(array: Array) -> Array:
    """The array in C order and little-endian, as it is hashed and stored."""
    return array.astype(array.dtype.newbyteorder("<"), order="C")


def description(path: str, member: Array | None) -> dict[str, Any]:
    """What a recording says of itself; every key is there and of its kind."""
    if member is None or member.dtype != np.uint8:
        refuse(path, f"{shown(path)} is not a recording of t2t")
    try:
        told = json.loads(member.tobytes().decode())
    except (ValueError, RecursionError):
        refuse(path, f"{shown(path)} is not a recording of t2t: its description is not JSON")
    if not isinstance(told, dict) or told.get("t2t_recording") != FORMAT:
        found = told.get("t2t_recording") if isinstance(told, dict) else None
        refuse(path, f"{shown(path)} is not a recording of version {FORMAT}: it says {shown(str(found))}")
    draws, given, made_by = told.get("draws"), told.get("inputs"), told.get("made_by")
    steps = told.setdefault("steps", 1)
    is_whole = (
        isinstance(told.get("made_from"), dict)
        and told["made_from"].keys() >= PARTS
        and _is_texts(list(told["made_from"].values()))
        and _is_count(draws)
        and _is_count(steps)
        and draws % steps == 0
        and isinstance(given, dict)
        and all(_is_texts(hashes) and len(hashes) == draws for hashes in given.values())
        and isinstance(made_by, dict)
        and _is_texts(list(made_by.values()))
        and _is_texts(told.get("generated"))
        and _is_texts(told.get("outputs"))
        and isinstance(told.get("labels"), bool)
    )
    if not is_whole:
        refuse(path, f"{shown(path)} is a recording whose description is not whole")
    return told


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_RUNS


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def refuse(path: str, message: str, hint: str = "") -> NoReturn:
    """Raises CheckpointError (T2T904) that says why the file is no recording."""
    raise CheckpointError(Problem("T2T904", message, Location(path), hint)) from None
