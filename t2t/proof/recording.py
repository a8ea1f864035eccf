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
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from t2t.names import shown
from t2t.problems import CheckpointError, MappingError, Problem
from t2t.proof import arrays, layers, origin
from t2t.proof.arrays import Array
from t2t.proof.inputs import made
from t2t.proof.layers import Inside
from t2t.verification import Verify
from t2t.writers.atomic import output_error, replacing

_SAMPLES = "samples"


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
    Every run, and what they belong to. `made_from` are digests, see `origin.parts`; with them, under `graph`, that of
    the original's file. `made_by` are versions: of tensorflow (or what else computes), numpy and t2t.

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
        return origin.sha256(dict(self.made_from))


def by_draw(recording: Recording) -> list[Recording]:
    """Each draw as a recording of its own, without labels: the first that differs is enough."""
    starts = range(0, len(recording.draws), recording.steps)
    return [replace(recording, draws=recording.draws[i : i + recording.steps], labels=None) for i in starts]


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
    meta = origin.description(path, members.pop(origin.META, None))
    try:
        inside = layers.unpacked(meta, members.pop(_SAMPLES, None) if "samples" in meta else None)
    except ValueError as error:
        origin.refuse(path, f"{shown(path)} is a recording whose description is not whole: {error}")
    names, draws = sorted(meta["inputs"]), meta["draws"]
    stored = {name: f"input_{i}" for i, name in enumerate(names) if name not in meta["generated"]}
    outputs = {name: f"output_{i}" for i, name in enumerate(sorted(meta["outputs"]))}
    expected = {*stored.values(), *(f"{member}_draw_{j}" for member in outputs.values() for j in range(draws))}
    expected |= {"labels"} if meta["labels"] else set()
    if members.keys() != expected:
        wrong = sorted(members.keys() ^ expected)
        origin.refuse(
            path, f"{shown(wrong[0])} is {'missing in' if wrong[0] in expected else 'not a part of'} the recording"
        )
    entries = {entry.name: entry for entry in verify.inputs}
    for what, held, named in (("inputs", names, entries), ("outputs", list(outputs), verify.reference.fetch)):
        if held != sorted(named):
            both = f"{', '.join(map(shown, held))}, the mapping names {', '.join(map(shown, sorted(named)))}"
            origin.refuse(path, f"the recording holds the {what} {both}", again)
    taken, steps = [], meta["steps"]
    for j in range(draws):
        given = {
            name: members[stored[name]] if name in stored else made(verify, entries[name], *divmod(j, steps))
            for name in entries
        }
        for name, array in given.items():
            if origin.digest(array) != meta["inputs"][name][j]:
                numpy = f"numpy {np.__version__} makes other numbers than numpy {meta['made_by'].get('numpy', '?')} did"
                why = "it was changed after it was recorded" if name in stored else numpy
                origin.refuse(path, f"{shown(name)} of draw {j} is not what was recorded: {shown(why)}", again)
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
    wanted = origin.parts(verify, source_digest)
    if digest := origin.original_digest(verify.reference, original):
        wanted["graph"] = digest
    if text := origin.other_parts(origin.stored_parts(path), wanted, verify):
        return Problem("T2T502", f"not proven: recording {shown(path)} was made from {text}", verify.at, again)
    return load(path, verify, again)


def _packed(recording: Recording) -> bytes:
    """The archive's bytes: fixed order, no time stamps, nothing of this machine."""
    first = recording.draws[0]
    names, outputs = sorted(first.inputs), sorted(first.outputs)
    meta = {
        "t2t_recording": origin.FORMAT,
        "made_from": dict(recording.made_from),
        "made_by": dict(recording.made_by),
        "draws": len(recording.draws),
        "inputs": {name: [origin.digest(draw.inputs[name]) for draw in recording.draws] for name in names},
        "generated": sorted(recording.generated),
        "outputs": outputs,
        "labels": recording.labels is not None,
    }
    if recording.steps != 1:
        meta["steps"] = recording.steps
    told, samples = layers.packed(recording.inside)
    meta |= told
    text = json.dumps(meta, sort_keys=True, indent=1)
    members: dict[str, Array] = {origin.META: np.frombuffer(text.encode(), np.uint8)}
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
            np.lib.format.write_array(content, origin.plain(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content.getvalue())
    return target.getvalue()


def _is_recording(path: str) -> bool:
    try:
        origin.description(path, arrays.read_all(path, origin.META).get(origin.META))
    except CheckpointError:
        return False
    return True
