"""
Run a request, and store what the original computes.

The request is JSON: `kind` (a key of KINDS), `path` (of the original; for a call its import path), `checkpoint`,
`signature`, `feed` and `fetch` (the mapping's name -> the original's), `draws`, `steps`, `layers` (a module's path -> a
tensor of the original; where it is missing, nothing inside is looked at) and three paths: `inputs` (.npz, members
`<name's position in feed>_<run>`, where run = draw * steps + step; an input that never changes has run 0 only),
`outputs` (the same for fetch, every run) and `result`. The result is JSON: `versions` and `notes`, with `layers` and
`named` where they are asked for, or what `OriginalFailedError` reports; or the kind "disk" and `errno`.

`layers` and `named` are of the last step of draw 0, run anew when all outputs are there. A layer has `operation`,
`kind`, `variables` ({name, digest, shape} each; digest "" and shape [] where the name is certain), `input`, `output`,
and lists of tensors around it, `before` and `after`, which have an `operation`, too. A tensor is {shape, scale,
member}: `scale` is the largest finite magnitude in all of it, `member` names an array in `outputs`: float32 or float64,
its elements at `samples.positions`. It is null where there is none.

That second run may bring the process down. So all else is stored before it, with a result in which `inside` is "begun";
where this is what the process leaves, however it ended, its outputs are whole, and only its layers are missing. Both
files are then replaced, each as a whole.

It ends when its parent does: the parent holds the other end of its standard input.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np

from . import call, keras_file, lite, onnx_file, samples, saved_model, sessions
from .original import MAX_LAYERS, Array, Layer, Leaf, Original, OriginalFailedError, Request, cause

KINDS: dict[str, Callable[[Request], AbstractContextManager[Original]]] = {
    "graph": sessions.graph,
    "frozen": sessions.frozen,
    "saved_model": saved_model.saved_model,
    "keras": keras_file.keras_file,
    "tflite": lite.lite,
    "onnx": onnx_file.onnx_file,
    "call": call.call,
}

#: The dtypes that a comparison of numbers can use; those of WIDENED are stored as float32, which is exact.
PLAIN = frozenset({"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32"})
PLAIN |= {"uint16", "uint8", "bool"}
WIDENED = frozenset({"bfloat16", "float8_e5m2", "float8_e4m3fn"})


def main(request_path: str) -> int:
    """Run the request; 0 when every output is stored, 1 when the result says why not."""
    with suppress(AttributeError, OSError):
        # Where the system can end this process itself, it does: a library may let no thread of it run any more.
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    report: dict[str, Any]
    try:
        _run(request)
        return 0
    except OriginalFailedError as failure:
        report = failure.report
    except OSError as error:
        report = {"kind": "disk", "message": error.strerror or str(error), "errno": error.errno}
    _store_report(request, report)
    return 1


def _end_with_parent() -> None:
    # os.read holds no lock of sys.stdin, which the interpreter would want back at its end.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _store(request: Request, report: dict[str, Any], outputs: dict[str, Array]) -> None:
    with _replacing(request["outputs"]) as file:
        np.savez(file, **outputs)  # type: ignore[arg-type]
    _store_report(request, report)


def _store_report(request: Request, report: dict[str, Any]) -> None:
    with _replacing(request["result"]) as file:
        file.write(json.dumps(report).encode())


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """A file that takes this place when it is whole."""
    with open(f"{path}.new", "wb") as file:
        yield file
    os.replace(f"{path}.new", path)


def _run(request: Request) -> None:
    outputs: dict[str, Array] = {}
    with KINDS[request["kind"]](request) as original, np.load(request["inputs"], allow_pickle=False) as inputs:

        def given(run: int) -> dict[str, Array]:
            members = {name: f"{position}_{run}" for position, name in enumerate(request["feed"])}
            return {
                name: inputs[member if member in inputs else f"{position}_0"]
                for position, (name, member) in enumerate(members.items())
            }

        for run in range(request["draws"] * request["steps"]):
            if run and run % request["steps"] == 0:
                original.restart()
            computed = original.run(given(run))
            for position, name in enumerate(request["fetch"]):
                outputs[f"{position}_{run}"] = _plain(name, request["fetch"][name], computed[name])
        report = {"versions": {**original.versions, "numpy": np.__version__}, "notes": [*original.notes]}
        if "layers" not in request:
            _store(request, report, outputs)
            return
        _store(request, {**report, "inside": "begun"}, outputs)
        inside, notes = _inside(request, original, given)
        members = inside.pop("members")
        try:
            _store(request, {**report, "notes": [*original.notes, *notes], **inside}, {**outputs, **members})
        except OSError as error:
            notes.append(f"no layers are recorded: {error.strerror or error}")
            _store_report(request, {**report, "notes": [*original.notes, *notes]})


def _inside(
    request: Request, original: Original, given: Callable[[int], dict[str, Array]]
) -> tuple[dict[str, Any], list[str]]:
    """
    What went on inside in the last step of draw 0: `layers` and `named` of the report, and their `members`; notes.

    Outputs are what a recording is for: whatever fails here is a note. Only a tensor that the mapping names, and the
    original does not have, is the mapping's fault.
    """
    last = request["steps"] - 1
    wanted: dict[str, str] = request.get("layers") or {}
    members: dict[str, Array] = {}
    notes: list[str] = []

    def run_up_to_last() -> dict[str, Array]:
        original.restart()
        for step in range(last):
            original.run(given(step))
        return given(last)

    layers: list[dict[str, Any]] = []
    if original.layers is not None:
        try:
            layers, members = _layers_report(original.layers(run_up_to_last()))
            if len(layers) == MAX_LAYERS:
                notes.append(f"only the first {MAX_LAYERS} layers are recorded")
        except Exception as error:  # noqa: BLE001 - a library's own inside fails in as many ways as there are versions
            notes.append(f"no layers are recorded: {cause(error)}")
    named: dict[str, Any] = {}
    if wanted and original.named is None:
        what = "what verify's layers name is not recorded"
        notes.append(f"{what}: nothing inside an original of kind {request['kind']} has a name")
    elif wanted:
        assert original.named is not None
        try:
            found = original.named(run_up_to_last(), wanted)
            for number, path in enumerate(wanted):
                named[path] = _sample(
                    samples.floating(_plain(path, wanted[path], found[path])), f"named_{number}", members
                )
        except Exception as error:
            if isinstance(error, OriginalFailedError) and error.report["kind"] == "names":
                raise
            notes.append(f"what verify's layers name is not recorded: {cause(error)}")
    return {"layers": layers, "named": named, "members": members}, notes


def _layers_report(layers: list[Layer]) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """`layers` of the report, and the members that it names."""
    members: dict[str, Array] = {}
    described: dict[int, dict[str, Any]] = {}
    report = []
    taken: dict[int, dict[str, Any] | None] = {}

    def sample(array: Array | None, member: str) -> dict[str, Any] | None:
        # What one layer gives the next one takes.
        if id(array) not in taken:
            taken[id(array)] = _sample(array, member, members)
        return taken[id(array)]

    for number, layer in enumerate(layers[:MAX_LAYERS]):
        for leaf in layer.variables:
            # One variable goes into many layers, and sorting it takes its time.
            if id(leaf) not in described:
                described[id(leaf)] = _leaf_report(leaf)
        report.append(
            {
                "operation": layer.operation,
                "kind": layer.kind,
                "variables": [described[id(leaf)] for leaf in layer.variables],
                "input": sample(layer.input, f"layer_{number}_input"),
                "output": sample(layer.output, f"layer_{number}_output"),
                **{
                    name: [
                        {"operation": operation, **told}
                        for place, (operation, array) in enumerate(side)
                        if (told := sample(array, f"layer_{number}_{name}_{place}")) is not None
                    ]
                    for name, side in (("before", layer.before), ("after", layer.after))
                },
            }
        )
    return report, members


def _leaf_report(leaf: Leaf) -> dict[str, Any]:
    if leaf.values is None:
        return {"name": leaf.name, "digest": "", "shape": []}
    return {"name": leaf.name, "digest": samples.digest(leaf.values), "shape": list(np.shape(leaf.values))}


def _sample(array: Array | None, member: str, members: dict[str, Array]) -> dict[str, Any] | None:
    """A tensor as the report has it, or None for what is no real floating number; its elements go to `members`."""
    if array is None or not (array.dtype.kind == "f" or array.dtype.name in WIDENED):
        return None
    flat = samples.floating(array).reshape(-1)
    finite = np.abs(flat[np.isfinite(flat)])
    members[member] = flat[samples.positions(flat.size)]
    return {"shape": list(array.shape), "scale": float(finite.max(initial=0.0)), "member": member}


def _plain(name: str, own: str, array: Array) -> Array:
    if array.dtype.name not in PLAIN | WIDENED:
        dtype = "string" if array.dtype.kind in "OSU" else array.dtype.name
        raise OriginalFailedError("names", f"{name}: {own} is {dtype}, and only real numbers compare")
    return np.asarray(array, np.float32 if array.dtype.name in WIDENED else array.dtype)
