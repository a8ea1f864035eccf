"""An original that is an ONNX model, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .original import Array, Original, OriginalFailedError, Port, Request, cause, check_fits, library, named

#: onnxruntime's words for dtypes, where they are not numpy's.
DTYPES = {"float": "float32", "double": "float64"}


@contextmanager
def onnx_file(request: Request) -> Iterator[Original]:
    """The model, on the CPU, as it stands: no graph is optimised. It has no state from run to run."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise OriginalFailedError("run", f"the model cannot be loaded: {cause(error)}") from error
    ports = {}
    for node in session.get_inputs():
        dtype = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        ports[node.name] = Port(node.name, DTYPES.get(dtype, dtype), shape)
    outputs = [node.name for node in session.get_outputs()]
    for name, own in request["feed"].items():
        named("feed", name, own, ports, "the model has no input")
    for name, own in request["fetch"].items():
        named("fetch", name, own, outputs, "the model has no output")

    def run(given: dict[str, Array]) -> dict[str, Array]:
        values = {}
        for name, own in request["feed"].items():
            check_fits(name, ports[own], given[name])
            values[own] = given[name]
        try:
            computed = session.run(list(request["fetch"].values()), values)
        except Exception as error:  # its errors have no common class
            raise OriginalFailedError("run", f"the model cannot be run: {cause(error)}") from error
        return {name: np.asarray(array) for name, array in zip(request["fetch"], computed, strict=True)}

    yield Original(run, lambda: None, {"onnxruntime": runtime.__version__})
