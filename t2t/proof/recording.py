"""
A recording: inputs, and what TensorFlow computed from them, kept so that nobody needs TensorFlow to prove a mapping.

The file is a .npz archive with the same bytes for the same recording:

    recording             uint8, JSON: what it was made from, the versions, the inputs' sha256s, the outputs' names
    input_<i>             input number i (by name), where it came from a file; it is the same in every draw
    output_<i>_draw_<j>   output number i (by name) of draw j; of run j, where each draw has several steps in a row
    labels                where there are any
    samples               where layers were recorded: see `t2t.proof.layers`

Inputs that a seed or a constant makes are not stored: they are made again on load and held against their sha256.
Members go by number because a name of a mapping can be anything, and a name of an archive's member cannot.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from typing import Any, NoReturn

import numpy as np

from t2t.checkpoints.files import is_address, open_regular, reason, refusal
from t2t.names import shown
from t2t.problems import CheckpointError, Location, MappingError, Problem
from t2t.proof import arrays, layers
from t2t.proof.arrays import Array
from t2t.proof.inputs import made
from t2t.proof.layers import Inside
from t2t.verification import MAX_RUNS, Reference, Verify
from t2t.writers.atomic import output_error, replacing

FORMAT = 1
_META = "recording"
_SAMPLES = "samples"
#: What `made_from` says: see `parts` and `original_digest`.
_PARTS = {"checkpoint", "inputs", "feed", "fetch", "draws", "labels", "graph"}


@dataclass(frozen=True, slots=True)
class Draw:
    """
    One run of the original: inputs and outputs by the mapping's names, in TensorFlow's layout and dtypes.

    It is a whole draw, or one step of it.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Recording:
    """
    Every run, and what they belong to. `made_from` are digests, see `parts`; with them, under `graph`, that of the
    original's file. `made_by` are versions: of tensorflow (or what else computes), numpy and t2t.

    `generated` names the inputs that the mapping makes again; they are stored as a hash. `draws` holds every step of
    every draw, in order: `steps` runs belong to one draw. `inside` are the original's layers in the last step of draw
    0, as far as they could be had: no part of what is proven.
    """

    made_from: Mapping[str, str]
    draws: tuple[Draw, ...]
    labels: Array | None
    made_by: Mapping[str, str]
    generated: frozenset[str] = frozenset()
    steps: int = 1
    inside: Inside = field(default_factory=Inside)

    @property
    def key(self) -> str:
        """sha256 (hex) over `made_from`: which recording this is."""
        return _sha256(dict(self.made_from))


def by_draw(recording: Recording) -> list[Recording]:
    """Each draw as a recording of its own, without labels: the first that differs is enough."""
    starts = range(0, len(recording.draws), recording.steps)
    return [replace(recording, draws=recording.draws[i : i + recording.steps], labels=None) for i in starts]


def parts(verify: Verify, source_digest: str) -> dict[str, str]:
    """
    What decides the stored arrays, each by its sha256 (hex): checkpoint, inputs, feed, fetch, draws and labels.

    Files count by content, everything else as written. With steps there is `steps`; with an original that is no TF1
    graph, or one of its signatures, `reference`. Rows, tolerances and the torch side are not in it: changing them
    leaves a recording as good as it was. Nor is the original's file, which may be gone by then: `find` compares it
    where it is there. Raises CheckpointError (T2T904) for an input's file that cannot be read.
    """
    given = {
        entry.name: _digest(made(verify, entry, 0))
        if entry.path
        else [entry.shape, entry.dtype, entry.range, entry.values, entry.seed, entry.value]
        for entry in verify.inputs
    }
    truth, reference = labels(verify), verify.reference
    decided = {
        "checkpoint": source_digest,
        "inputs": _sha256(given),
        "feed": _sha256(dict(reference.feed)),
        "fetch": _sha256(dict(reference.fetch)),
        "draws": _sha256(verify.draws),
        "labels": _sha256(None if truth is None else _digest(truth)),
    }
    if verify.steps != 1:
        decided["steps"] = _sha256(verify.steps)
    if reference.kind != "graph":
        called = reference.written if reference.kind == "call" else ""
        decided["reference"] = _sha256([reference.kind, reference.signature, called])
    return decided


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def inputs(verify: Verify, draw: int, step: int = 0) -> dict[str, Array]:
    """
    Every input of one step of one draw, by name. The rule that draws them stands in `t2t.proof.inputs`.

    Raises CheckpointError (T2T904) for a file that cannot be read, MappingError (T2T503) for impossible values.
    """
    return {entry.name: made(verify, entry, draw, step) for entry in verify.inputs}


def runs(verify: Verify) -> list[dict[str, Array]]:
    """The inputs of every run, `steps` for each draw; an array of a file is read once, and the same in all of them."""
    first = inputs(verify, 0)
    numbers = [(draw, step) for draw in range(verify.draws) for step in range(verify.steps)]
    return [
        {entry.name: first[entry.name] if entry.path else made(verify, entry, draw, step) for entry in verify.inputs}
        for draw, step in numbers
    ]


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


def check_labels(verify: Verify, recording: Recording) -> None:
    """Raises MappingError (T2T503) where the first draw's output does not have one row for each label."""
    if verify.labels is None or recording.labels is None:
        return
    have, output = list(recording.labels.shape), recording.draws[0].outputs[verify.labels.output]
    if list(output.shape[:-1]) != have or output.size == 0:
        text = f"labels are {have}, but {shown(verify.labels.output)} is {list(output.shape)}"
        hint = "the output has one axis more than the labels, the classes, and it comes last"
        raise MappingError(Problem("T2T503", text, verify.at, hint))


def save(path: str, recording: Recording, *, force: bool = False) -> None:
    """
    Write the recording in one step: whoever reads `path` sees the old file or the whole new one.

    The directory is created where only it is missing. Raises OutputError: T2T801 when another kind of file is in the
    way (unless `force`), T2T802 or T2T803 when it cannot be written.
    """
    data = _packed(recording)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(os.path.realpath(path)))
    except OSError as error:
        raise output_error(path, error) from None
    with replacing(path, len(data), _is_recording, force=force) as temporary:
        temporary.write(data, 0)


def load(path: str, verify: Verify, again: str = "") -> Recording:
    """
    The recording at `path`, its generated inputs made again.

    Whether it belongs to this checkpoint and these inputs is `find`'s business; `again` is what its errors hint at.
    Raises CheckpointError (T2T904) for anything that is not a whole recording, and where this numpy draws other inputs
    than the one that recorded.
    """
    members = arrays.read_all(path)
    meta = _meta(path, members.pop(_META, None))
    try:
        inside = layers.unpacked(meta, members.pop(_SAMPLES, None) if "samples" in meta else None)
    except ValueError as error:
        _refuse(path, f"{shown(path)} is a recording whose description is not whole: {error}")
    names, draws = sorted(meta["inputs"]), meta["draws"]
    stored = {name: f"input_{i}" for i, name in enumerate(names) if name not in meta["generated"]}
    outputs = {name: f"output_{i}" for i, name in enumerate(sorted(meta["outputs"]))}
    expected = {*stored.values(), *(f"{member}_draw_{j}" for member in outputs.values() for j in range(draws))}
    expected |= {"labels"} if meta["labels"] else set()
    if members.keys() != expected:
        wrong = sorted(members.keys() ^ expected)
        _refuse(path, f"{shown(wrong[0])} is {'missing in' if wrong[0] in expected else 'not a part of'} the recording")
    entries = {entry.name: entry for entry in verify.inputs}
    for what, held, named in (("inputs", names, entries), ("outputs", list(outputs), verify.reference.fetch)):
        if held != sorted(named):
            both = f"{', '.join(map(shown, held))}, the mapping names {', '.join(map(shown, sorted(named)))}"
            _refuse(path, f"the recording holds the {what} {both}", again)
    taken, steps = [], meta["steps"]
    for j in range(draws):
        given = {
            name: members[stored[name]] if name in stored else made(verify, entries[name], *divmod(j, steps))
            for name in entries
        }
        for name, array in given.items():
            if _digest(array) != meta["inputs"][name][j]:
                numpy = f"numpy {np.__version__} makes other numbers than numpy {meta['made_by'].get('numpy', '?')} did"
                why = "it was changed after it was recorded" if name in stored else numpy
                _refuse(path, f"{shown(name)} of draw {j} is not what was recorded: {shown(why)}", again)
        taken.append(Draw(given, {name: members[f"{member}_draw_{j}"] for name, member in outputs.items()}))
    generated = frozenset(meta["generated"])
    return Recording(meta["made_from"], tuple(taken), members.get("labels"), meta["made_by"], generated, steps, inside)


def find(path: str, verify: Verify, source_digest: str, original: str, again: str) -> Recording | Problem:
    """
    The recording at `path` if it is of this checkpoint, this original (the path of its file, which may be missing) and
    these inputs, else the problem (T2T502) that says why not. `again` is the command that makes the right one.

    Raises CheckpointError (T2T904) for a file that is not a recording.
    """
    if not os.path.lexists(path):
        return Problem("T2T502", f"not proven: no recording at {shown(path)}", verify.at, again)
    made_from = stored_parts(path)
    wanted = parts(verify, source_digest)
    if digest := original_digest(verify.reference, original):
        wanted["graph"] = digest
    optional = {"steps", "reference"} & made_from.keys()
    other = [part for part in [*wanted, *sorted(optional - wanted.keys())] if made_from.get(part) != wanted.get(part)]
    if other:
        words = _PART_WORDS | (
            {} if verify.reference.kind == "graph" else {"graph": f"another {verify.reference.kind}"}
        )
        text = " and ".join(words.get(part, f"another {part}") for part in other)
        return Problem("T2T502", f"not proven: recording {shown(path)} was made from {text}", verify.at, again)
    return load(path, verify, again)


_PART_WORDS = {"inputs": "other inputs", "steps": "another number of steps", "reference": "another kind of original"}


def stored_parts(path: str) -> dict[str, str]:
    """What the recording at `path` was made from. Raises CheckpointError (T2T904) for anything else."""
    made_from: dict[str, str] = _meta(path, arrays.read_all(path, _META).get(_META))["made_from"]
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
        return file_digest and _sha256([reference.written, file_digest])
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


def _digest(array: Array) -> str:
    """sha256 (hex) of dtype, shape and elements, whatever the machine's byte order."""
    start = f"{array.dtype.name} {list(array.shape)}\n".encode()
    return hashlib.sha256(start + _plain(array).tobytes()).hexdigest()


def _plain(array: Array) -> Array:
    """The array in C order and little-endian, as it is hashed and stored."""
    return array.astype(array.dtype.newbyteorder("<"), order="C")


def _packed(recording: Recording) -> bytes:
    """The archive's bytes: fixed order, no time stamps, nothing of this machine."""
    first = recording.draws[0]
    names, outputs = sorted(first.inputs), sorted(first.outputs)
    meta = {
        "t2t_recording": FORMAT,
        "made_from": dict(recording.made_from),
        "made_by": dict(recording.made_by),
        "draws": len(recording.draws),
        "inputs": {name: [_digest(draw.inputs[name]) for draw in recording.draws] for name in names},
        "generated": sorted(recording.generated),
        "outputs": outputs,
        "labels": recording.labels is not None,
    }
    if recording.steps != 1:
        meta["steps"] = recording.steps
    told, samples = layers.packed(recording.inside)
    meta |= told
    text = json.dumps(meta, sort_keys=True, indent=1)
    members: dict[str, Array] = {_META: np.frombuffer(text.encode(), np.uint8)}
    members |= {f"input_{i}": first.inputs[name] for i, name in enumerate(names) if name not in recording.generated}
    for i, name in enumerate(outputs):
        members |= {f"output_{i}_draw_{j}": draw.outputs[name] for j, draw in enumerate(recording.draws)}
    if recording.labels is not None:
        members["labels"] = recording.labels
    if samples is not None:
        members[_SAMPLES] = samples
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in members.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, _plain(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content.getvalue())
    return target.getvalue()


def _is_recording(path: str) -> bool:
    try:
        _meta(path, arrays.read_all(path, _META).get(_META))
    except CheckpointError:
        return False
    return True


def _meta(path: str, member: Array | None) -> dict[str, Any]:
    """What a recording says of itself; every key is there and of its kind."""
    if member is None or member.dtype != np.uint8:
        _refuse(path, f"{shown(path)} is not a recording of t2t")
    try:
        meta = json.loads(member.tobytes().decode())
    except (ValueError, RecursionError):
        _refuse(path, f"{shown(path)} is not a recording of t2t: its description is not JSON")
    if not isinstance(meta, dict) or meta.get("t2t_recording") != FORMAT:
        found = meta.get("t2t_recording") if isinstance(meta, dict) else None
        _refuse(path, f"{shown(path)} is not a recording of version {FORMAT}: it says {shown(str(found))}")
    draws, given, made_by = meta.get("draws"), meta.get("inputs"), meta.get("made_by")
    steps = meta.setdefault("steps", 1)
    is_whole = (
        isinstance(meta.get("made_from"), dict)
        and meta["made_from"].keys() >= _PARTS
        and _is_texts(list(meta["made_from"].values()))
        and _is_count(draws)
        and _is_count(steps)
        and draws % steps == 0
        and isinstance(given, dict)
        and all(_is_texts(hashes) and len(hashes) == draws for hashes in given.values())
        and isinstance(made_by, dict)
        and _is_texts(list(made_by.values()))
        and _is_texts(meta.get("generated"))
        and _is_texts(meta.get("outputs"))
        and isinstance(meta.get("labels"), bool)
    )
    if not is_whole:
        _refuse(path, f"{shown(path)} is a recording whose description is not whole")
    return meta


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_RUNS


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _refuse(path: str, message: str, hint: str = "") -> NoReturn:
    raise CheckpointError(Problem("T2T904", message, Location(path), hint)) from None
