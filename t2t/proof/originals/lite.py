"""An original that is a .tflite file, run by the interpreter of ai_edge_litert or of TensorFlow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .original import Array, Original, OriginalFailedError, Port, Request, cause, check_fits, library, named


@contextmanager
def lite(request: Request) -> Iterator[Original]:
    """The model, or the signature that the request names; inputs of another size are resized where the model can."""
    interpreter, versions = _interpreter(request["path"])
    if request["signature"]:
        inputs, outputs = _signature(interpreter, request["signature"])
    else:
        inputs = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
        outputs = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    for name, own in request["feed"].items():
        named("feed", name, own, inputs, "the model has no input")
    for name, own in request["fetch"].items():
        named("fetch", name, own, outputs, "the model has no output")
    for own in inputs:
        if own not in request["feed"].values():
            raise OriginalFailedError("names", f"the model has an input {own}, which nothing is fed to")

    def restart() -> None:
        # The interpreter's own reset leaves resource variables as they are.
        nonlocal interpreter
        interpreter = _interpreter(request["path"])[0]

    def run(given: dict[str, Array]) -> dict[str, Array]:
        details = {detail["index"]: detail for detail in interpreter.get_input_details()}
        try:
            if any(tuple(details[inputs[own]]["shape"]) != given[name].shape for name, own in request["feed"].items()):
                for name, own in request["feed"].items():
                    interpreter.resize_tensor_input(inputs[own], given[name].shape)
                interpreter.allocate_tensors()
            for name, own in request["feed"].items():
                check_fits(name, Port(own, np.dtype(details[inputs[own]]["dtype"]).name, None), given[name])
                interpreter.set_tensor(inputs[own], given[name])
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise OriginalFailedError("run", f"the model cannot be run: {cause(error)}") from error
        return {name: interpreter.get_tensor(outputs[own]) for name, own in request["fetch"].items()}

    yield Original(run, restart, versions)


def _interpreter(path: str) -> tuple[Any, dict[str, str]]:
    if importlib.util.find_spec("ai_edge_litert"):
        module = library("ai_edge_litert.interpreter")
        from importlib.metadata import version

        versions = {"ai_edge_litert": version("ai-edge-litert")}
    else:
        tensorflow = library("tensorflow")
        module, versions = tensorflow.lite, {"tensorflow": tensorflow.__version__}
    # The plain kernels: a delegate's may compute with fewer digits, and cannot resize.
    resolver = getattr(module, "OpResolverType", None) or module.experimental.OpResolverType
    try:
        interpreter = module.Interpreter(
            path, num_threads=1, experimental_op_resolver_type=resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise OriginalFailedError("run", f"the model cannot be loaded: {cause(error)}") from error
    return interpreter, versions


def _signature(interpreter: Any, signature: str) -> tuple[dict[str, int], dict[str, int]]:
    known = interpreter.get_signature_list()
    named("signature", signature, signature, known, "the model has no signature")
    runner = interpreter.get_signature_runner(signature)
    details = runner.get_input_details(), runner.get_output_details()
    inputs, outputs = ({name: detail["index"] for name, detail in side.items()} for side in details)
    return inputs, outputs
