"""An original that is a SavedModel: one of its signatures, run eagerly, or where that cannot be loaded in a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .functions import Inside, holds_variables, traced, wrapped
from .original import Array, Layer, Original, OriginalFailedError, Request, cause, check_fits, library, named
from .sessions import InSession, port, runner, tensors, versions

DEFAULT_SIGNATURE = "serving_default"


@contextmanager
def saved_model(request: Request) -> Iterator[Original]:
    """
    The signature that the request names, with the variables that lie in the SavedModel.

    `tf.saved_model.load` needs to know every object in it, optimizers too, and refuses many an older one; the graph
    itself still runs in a session, as TensorFlow 1 loads it. A note says so.
    """
    tf = library("tensorflow")
    signature = request["signature"] or DEFAULT_SIGNATURE
    tags = _tags(request["path"], signature)
    failure = ""
    try:
        loaded = tf.saved_model.load(request["path"], tags)
        function = loaded.signatures[signature]
    except Exception as error:  # noqa: BLE001 - it fails in as many ways as there are objects; the note tells
        failure = cause(error)
    if not failure:
        yield _eager(tf, request, signature, function, loaded)
        return
    note = f"tf.saved_model.load failed: {failure}; the SavedModel's graph is run in a TensorFlow 1 session instead"
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        try:
            meta = v1.saved_model.load(session, tags, request["path"])
        except Exception as error:
            raise OriginalFailedError("run", f"the SavedModel cannot be loaded: {cause(error)}") from error
        definition = meta.signature_def[signature]
        inputs = {name: info.name for name, info in definition.inputs.items()}
        outputs = {name: info.name for name, info in definition.outputs.items()}
        _check_names(request, signature, inputs, outputs)
        fed = tensors(graph, {name: inputs[own] for name, own in request["feed"].items()}, "feed")
        fetched = tensors(graph, {name: outputs[own] for name, own in request["fetch"].items()}, "fetch")

        def restart() -> None:
            saver = meta.saver_def
            if saver.restore_op_name:
                variables = os.path.join(request["path"], "variables", "variables")
                session.run(saver.restore_op_name, {saver.filename_tensor_name: variables})

        inside = InSession(tf, session, fed, fetched)
        run = runner(tf, session, fed, fetched)
        yield Original(run, restart, versions(tf), (note,), inside.layers, inside.named)


def _tags(path: str, signature: str) -> list[str]:
    """The tags of the first graph that has the signature."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    stored = SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        try:
            stored.ParseFromString(file.read())
        except Exception as error:
            raise OriginalFailedError("run", f"saved_model.pb cannot be read: {cause(error)}") from error
    # Each signature of TensorFlow's own making begins with two underscores.
    known = [name for graph in stored.meta_graphs for name in graph.signature_def if not name.startswith("__")]
    for graph in stored.meta_graphs:
        if signature in graph.signature_def:
            return list(graph.meta_info_def.tags)
    held = f"it has {', '.join(known) or 'none'}"
    raise OriginalFailedError("names", f"the SavedModel has no signature {signature}, {held}", "", signature, known)


def _check_names(request: Request, signature: str, inputs: Any, outputs: Any) -> None:
    for name, own in request["feed"].items():
        named("feed", name, own, inputs, f"signature {signature} has no input")
    for name, own in request["fetch"].items():
        named("fetch", name, own, outputs, f"signature {signature} has no output")


def _eager(tf: Any, request: Request, signature: str, function: Any, loaded: Any) -> Original:
    specs = function.structured_input_signature[1]
    _check_names(request, signature, specs, function.structured_outputs)
    start = [(variable, variable.numpy()) for variable in function.variables]

    def restart() -> None:
        for variable, value in start:
            variable.assign(value)

    def run(given: dict[str, Array]) -> dict[str, Array]:
        assert loaded is not None  # its variables live as long as it does
        values = {}
        for name, own in request["feed"].items():
            check_fits(name, port(specs[own], own), given[name])
            values[own] = tf.constant(given[name])
        try:
            computed = function(**values)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise OriginalFailedError("run", f"signature {signature} cannot be run: {cause(error)}") from error
        return {name: computed[own].numpy() for name, own in request["fetch"].items()}

    def inside(given: dict[str, Array]) -> Inside:
        if holds_variables(function):
            own = {own: given[name] for name, own in request["feed"].items()}
            return wrapped(tf, function, own, list(request["fetch"].values()))

        def compute(*values: Any) -> list[Any]:
            computed = function(**dict(zip(request["feed"].values(), values, strict=True)))
            return [computed[own] for own in request["fetch"].values()]

        return traced(tf, compute, [given[name] for name in request["feed"]])

    def layers(given: dict[str, Array]) -> list[Layer]:
        return inside(given).layers()

    def tensors_named(given: dict[str, Array], wanted: dict[str, str]) -> dict[str, Array]:
        return inside(given).named(wanted)

    return Original(run, restart, versions(tf), (), layers, tensors_named)
