"""
Run a request, and store what the original computes.

The request is JSON: `kind` (a key of KINDS), `path` (of the original; for a call its import path), `checkpoint`,
`signature`, `feed` and `fetch` (the mapping's name -> the original's), `draws`, `steps`, and three paths: `inputs`
(.npz, members `<name's position in feed>_<run>`, where run = draw * steps + step; an input that never changes has run 0
only), `outputs` (the same for fetch, every run) and `result`. The result is JSON: `versions` and `notes`, or what
`OriginalFailedError` reports; or the kind "disk" and `errno`.

It ends when its parent does: the parent holds the other end of its standard input.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from . import call, keras_file, lite, onnx_file, saved_model, sessions
from .original import Array, Original, OriginalFailedError, Request

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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    report: dict[str, Any]
    try:
        report = _run(request)
        code = 0
    except OriginalFailedError as failure:
        report, code = failure.report, 1
    except OSError as error:
        report, code = {"kind": "disk", "message": error.strerror or str(error), "errno": error.errno}, 1
    with open(request["result"], "w", encoding="utf-8") as file:
        json.dump(report, file)
    return code


def _end_with_parent() -> None:
    # os.read holds no lock of sys.stdin, which the interpreter would want back at its end.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _run(request: Request) -> dict[str, Any]:
    outputs: dict[str, Array] = {}
    with KINDS[request["kind"]](request) as original, np.load(request["inputs"], allow_pickle=False) as inputs:
        for run in range(request["draws"] * request["steps"]):
            if run and run % request["steps"] == 0:
                original.restart()
            given = {}
            for position, name in enumerate(request["feed"]):
                member = f"{position}_{run}"
                given[name] = inputs[member if member in inputs else f"{position}_0"]
            computed = original.run(given)
            for position, name in enumerate(request["fetch"]):
                outputs[f"{position}_{run}"] = _plain(name, request["fetch"][name], computed[name])
    np.savez(request["outputs"], **outputs)  # type: ignore[arg-type]
    return {"versions": {**original.versions, "numpy": np.__version__}, "notes": original.notes}


def _plain(name: str, own: str, array: Array) -> Array:
    if array.dtype.name not in PLAIN | WIDENED:
        dtype = "string" if array.dtype.kind in "OSU" else array.dtype.name
        raise OriginalFailedError("names", f"{name}: {own} is {dtype}, and only real numbers compare")
    return np.asarray(array, np.float32 if array.dtype.name in WIDENED else array.dtype)
