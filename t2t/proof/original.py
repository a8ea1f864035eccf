"""
The original's run: the child process of `t2t.proof.record`, and the only file that imports TensorFlow.

    python -P original.py REQUEST.json

It imports nothing of t2t, so that it runs from wherever this file lies without a word about paths. The request is JSON:
`graph`, `checkpoint` (a prefix), `feed` and `fetch` (name -> tensor), `draws`, and three paths: `inputs` (.npz, members
`<name's position in feed>_<draw>`), `outputs` (the same for fetch) and `result`. The result is JSON: the versions, or
the failure's `kind` ("tensorflow", "names", "run"), its message, hint and candidates; or the kind "disk" and `errno`.

It ends when its parent does: the parent holds the other end of its standard input.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

#: The dtypes that a comparison of numbers can use; those of WIDENED are stored as float32, which is exact.
PLAIN = frozenset({"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32"})
PLAIN |= {"uint16", "uint8", "bool"}
WIDENED = frozenset({"bfloat16", "float8_e5m2", "float8_e4m3fn"})


class OriginalFailedError(Exception):
    """Why the original could not be run: a kind, a message, a hint, and names that somebody may have meant."""

    def __init__(self, kind: str, message: str, hint: str = "", name: str = "", candidates: list[str] | None = None):
        super().__init__(message)
        self.report = {"kind": kind, "message": message, "hint": hint, "name": name, "candidates": candidates or []}


def main(request_path: str) -> int:
    """Run the request; 0 when every output is stored, 1 when the result says why not."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
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


def _run(request: dict[str, Any]) -> dict[str, Any]:
    tf = _tensorflow()
    import numpy as np

    with tf.Graph().as_default() as graph:
        try:
            tf.compat.v1.train.import_meta_graph(request["graph"], clear_devices=True)
        except Exception as error:
            raise OriginalFailedError("run", f"the graph cannot be imported: {_cause(error)}") from error
        fed = {name: _tensor(graph, name, tensor, "feed") for name, tensor in request["feed"].items()}
        fetched = {name: _tensor(graph, name, tensor, "fetch") for name, tensor in request["fetch"].items()}
        for name, tensor in fetched.items():
            if tensor.dtype.name not in PLAIN | WIDENED:
                raise OriginalFailedError(
                    "names", f"{name}: {tensor.name} is {tensor.dtype.name}, and only real numbers compare"
                )
        with tf.compat.v1.Session() as session, np.load(request["inputs"], allow_pickle=False) as inputs:
            missing = _restore(tf, session, request["checkpoint"])
            outputs = {}
            for draw in range(request["draws"]):
                values = {}
                for position, (name, tensor) in enumerate(fed.items()):
                    values[tensor] = inputs[f"{position}_{draw}"]
                    _check_fits(name, tensor, values[tensor])
                try:
                    computed = session.run(list(fetched.values()), values)
                except tf.errors.FailedPreconditionError as error:
                    raise _uninitialised(error, fetched, missing) from error
                except (tf.errors.OpError, ValueError, TypeError) as error:
                    raise OriginalFailedError("run", f"the graph cannot be run: {_cause(error)}") from error
                for position, array in enumerate(computed):
                    wide = np.float32 if array.dtype.name in WIDENED else array.dtype
                    outputs[f"{position}_{draw}"] = np.asarray(array, wide)
    np.savez(request["outputs"], **outputs)  # type: ignore[arg-type]
    return {"tensorflow": tf.__version__, "numpy": np.__version__}


def _tensorflow() -> Any:
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        if error.name == "tensorflow":
            raise OriginalFailedError("tensorflow", "tensorflow is not installed") from error
        raise OriginalFailedError("run", f"tensorflow cannot be imported: {_cause(error)}") from error
    except Exception as error:
        raise OriginalFailedError("run", f"tensorflow cannot be imported: {_cause(error)}") from error
    return tensorflow


def _tensor(graph: Any, name: str, tensor: str, section: str) -> Any:
    try:
        return graph.as_graph_element(tensor, allow_tensor=True, allow_operation=False)
    except (KeyError, ValueError) as error:
        known = [output.name for operation in graph.get_operations() for output in operation.outputs]
        message = f"{section} {name}: the graph has no tensor {tensor}"
        if f"{tensor}:0" in known:
            raise OriginalFailedError("names", message, f"write {tensor}:0", tensor) from error
        raise OriginalFailedError("names", message, "", tensor, known) from error


def _check_fits(name: str, tensor: Any, array: Any) -> None:
    """TensorFlow would cast what is fed without a word."""
    if tensor.dtype.name != array.dtype.name:
        message = f"{name} is {array.dtype.name}, but {tensor.name} is {tensor.dtype.name}"
        raise OriginalFailedError("names", message, f"give the input dtype {tensor.dtype.name}")
    if not tensor.shape.is_compatible_with(array.shape):
        raise OriginalFailedError("names", f"{name} is {list(array.shape)}, but {tensor.name} is {_dims(tensor.shape)}")


def _dims(shape: Any) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _restore(tf: Any, session: Any, checkpoint: str) -> dict[str, str]:
    """
    Restore the graph's variables that the checkpoint holds in their shape; the others, each with the reason.

    The graph's own Saver would ask for all of them, optimizer slots too, which many a checkpoint leaves out.
    """
    v1 = tf.compat.v1
    try:
        stored = v1.train.NewCheckpointReader(checkpoint).get_variable_to_shape_map()
    except Exception as error:
        raise OriginalFailedError("run", f"tensorflow cannot open the checkpoint: {_cause(error)}") from error
    restored, missing = {}, {}
    collections = (v1.global_variables, v1.local_variables, v1.model_variables, v1.trainable_variables)
    for variable in (variable for collection in collections for variable in collection()):
        part = variable._get_save_slice_info()
        name = part.full_name if part else variable.op.name
        shape = part.full_shape if part else variable.shape
        if name not in stored:
            missing[variable.op.name] = "the checkpoint does not hold it"
        elif not shape.is_compatible_with(stored[name]) if part is None else list(shape) != stored[name]:
            missing[variable.op.name] = f"it is {_dims(shape)} in the graph and {stored[name]} in the checkpoint"
        else:
            restored[variable.op.name] = variable
    if restored:
        try:
            v1.train.Saver(list(restored.values())).restore(session, checkpoint)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise OriginalFailedError("run", f"the variables cannot be restored: {_cause(error)}") from error
    return missing


def _uninitialised(error: Exception, fetched: dict[str, Any], missing: dict[str, str]) -> OriginalFailedError:
    for name, tensor in fetched.items():
        for operation in _ancestors(tensor.op):
            if operation.name in missing:
                message = f"{name} depends on variable {operation.name}, which was not restored: "
                return OriginalFailedError("run", message + missing[operation.name])
    return OriginalFailedError("run", f"the graph cannot be run: {_cause(error)}")


def _ancestors(operation: Any) -> Iterator[Any]:
    """The operation and everything that it is computed from."""
    waiting, seen = [operation], {operation}
    while waiting:
        operation = waiting.pop()
        yield operation
        new = {tensor.op for tensor in operation.inputs} | set(operation.control_inputs)
        waiting += sorted(new - seen, key=lambda op: str(op.name))
        seen |= new


def _cause(error: Exception) -> str:
    """The line that says what happened: in TensorFlow's own errors the one behind the node, else the first."""
    text = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    behind = [after for line, after in itertools.pairwise(lines) if line.startswith("Node: ")]
    return behind[0] if behind else lines[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
