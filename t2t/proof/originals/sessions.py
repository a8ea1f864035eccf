"""Originals that are a TensorFlow 1 graph and run in a session: with a checkpoint's variables, or frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import layers
from .original import (
    Array,
    Layer,
    Leaf,
    Original,
    OriginalFailedError,
    Port,
    Request,
    cause,
    check_fits,
    library,
    sizes,
)

#: How many placeholders a hint names.
MAX_TOLD = 5


@contextmanager
def graph(request: Request) -> Iterator[Original]:
    """A MetaGraphDef (.meta), whose variables are restored from the checkpoint."""
    tf = library("tensorflow")
    with tf.Graph().as_default() as loaded:
        try:
            own = tf.compat.v1.train.import_meta_graph(request["path"], clear_devices=True)
        except Exception as error:
            raise OriginalFailedError("run", f"the graph cannot be imported: {cause(error)}") from error
        fed, fetched = tensors(loaded, request["feed"], "feed"), tensors(loaded, request["fetch"], "fetch")
        with tf.compat.v1.Session() as session:
            renamed = _renamed(tf, loaded, own)
            savers, missing = _restorable(tf, request["checkpoint"], renamed)

            def restart() -> None:
                for saver in savers:
                    _restore(tf, saver, session, request["checkpoint"])

            restart()
            notes: tuple[str, ...] = ()
            if renamed:
                name, other = next(iter(renamed.items()))
                what = f"the graph's own Saver restores {len(renamed)} variables under other names"
                notes = (f"{what}: {name} is {other} of the checkpoint",)
            stored = {variable.op.name: name for variable, _, name in _variables(tf, renamed)}
            inside = InSession(tf, session, fed, fetched, stored)
            run = _runner(tf, session, fed, fetched, missing)
            yield Original(run, restart, versions(tf), notes, inside.layers, inside.named)


@contextmanager
def frozen(request: Request) -> Iterator[Original]:
    """A GraphDef (.pb) whose variables are constants."""
    tf = library("tensorflow")
    definition = tf.compat.v1.GraphDef()
    with tf.Graph().as_default() as loaded, open(request["path"], "rb") as file:
        try:
            definition.ParseFromString(file.read())
            tf.import_graph_def(definition, name="")
        except Exception as error:
            raise OriginalFailedError("run", f"the graph cannot be imported: {cause(error)}") from error
        fed, fetched = tensors(loaded, request["feed"], "feed"), tensors(loaded, request["fetch"], "fetch")
        missing = {
            operation.name: "a frozen graph has none"
            for operation in loaded.get_operations()
            if operation.type in {"Variable", "VariableV2", "VarHandleOp"}
        }
        with tf.compat.v1.Session() as session:
            inside = InSession(tf, session, fed, fetched)
            run = _runner(tf, session, fed, fetched, missing)
            yield Original(run, lambda: None, versions(tf), (), inside.layers, inside.named)


def versions(tf: Any) -> dict[str, str]:
    """What computes."""
    return {"tensorflow": tf.__version__}


def tensors(loaded: Any, wanted: dict[str, str], section: str) -> dict[str, Any]:
    """The graph's tensors that `feed` or `fetch` names, by the mapping's names."""
    return {name: _tensor(loaded, name, tensor, section) for name, tensor in wanted.items()}


def _tensor(loaded: Any, name: str, tensor: str, section: str) -> Any:
    try:
        return loaded.as_graph_element(tensor, allow_tensor=True, allow_operation=False)
    except (KeyError, ValueError) as error:
        known = [output.name for operation in loaded.get_operations() for output in operation.outputs]
        message = f"{section} {name}: the graph has no tensor {tensor}"
        if f"{tensor}:0" in known:
            raise OriginalFailedError("names", message, f"write {tensor}:0", tensor) from error
        hint = ""
        if section == "feed":
            fed = [port(op.outputs[0]) for op in loaded.get_operations() if op.type.startswith("Placeholder")]
            told = [
                f"{one.name} {one.dtype} {'?' if one.shape is None else sizes(one.shape)}" for one in fed[:MAX_TOLD]
            ]
            hint = f"its placeholders are {', '.join(told)}{', ...' if len(fed) > MAX_TOLD else ''}" if told else ""
        raise OriginalFailedError("names", message, hint, tensor, known) from error


def port(tensor: Any, name: str = "") -> Port:
    """What can be fed to a tensor, or to an input of this name and kind."""
    return Port(
        name or tensor.name, tensor.dtype.name, None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    )


def _runner(tf: Any, session: Any, fed: dict[str, Any], fetched: dict[str, Any], missing: dict[str, str]) -> Any:
    return runner(tf, session, fed, fetched, lambda error: _uninitialised(error, fetched, missing))


def runner(tf: Any, session: Any, fed: dict[str, Any], fetched: dict[str, Any], uninitialised: Any = None) -> Any:
    """What runs the session. `uninitialised` explains a variable without a value."""

    def run(given: dict[str, Array]) -> dict[str, Array]:
        for name, tensor in fed.items():
            check_fits(name, port(tensor), given[name])
        try:
            computed = session.run(list(fetched.values()), {tensor: given[name] for name, tensor in fed.items()})
        except (tf.errors.OpError, ValueError, TypeError) as error:
            if uninitialised and isinstance(error, tf.errors.FailedPreconditionError):
                raise uninitialised(error) from error
            raise OriginalFailedError("run", f"the graph cannot be run: {cause(error)}") from error
        return {name: np.asarray(array) for name, array in zip(fetched, computed, strict=True)}

    return run


#: What the copy of a graph lies under, beside the graph itself.
_COPY = "inside_t2t"


class InSession:
    """
    What goes on inside a graph that runs in a session.

    `stored` are the checkpoint's names of variables by the graph's; without it, a variable is described by its values.
    Calls of functions are replaced by what the functions do, in a copy of the graph that uses the same variables.
    """

    def __init__(
        self,
        tf: Any,
        session: Any,
        fed: dict[str, Any],
        fetched: dict[str, Any],
        stored: dict[str, str] | None = None,
    ) -> None:
        self._tf = tf
        self._session = session
        self._fed = fed
        self._fetched = fetched
        self._stored = stored
        self._prefix = ""
        self._is_opened = False

    def layers(self, given: dict[str, Array]) -> list[Layer]:
        """The layers, and what goes into and comes out of each with these inputs."""
        self._open()
        feed = {tensor: given[name] for name, tensor in self._fed.items()}

        def evaluate(tensors: list[Any]) -> list[bool]:
            return [bool(value) for value in self._session.run(tensors, feed)]

        fetched = list(self._fetched.values())
        found = layers.find_any(
            self._fed.values(), fetched, lambda operation: operation.type in layers.VARIABLES, evaluate
        )
        leaves: dict[str, Leaf] = {}

        def leaf(variable: Any) -> Leaf:
            # The parts of a partitioned variable are one.
            made = self._leaf(variable)
            return leaves.setdefault(made.name, made)

        return layers.described(found, leaf, lambda wanted: self._session.run(wanted, feed), self._prefix)

    def named(self, given: dict[str, Array], wanted: dict[str, str]) -> dict[str, Array]:
        """Tensors by their names in the graph, or by those that `layers` gives their operations."""
        self._open()
        graph = self._session.graph
        names: dict[str, Any] = {}
        for operation in graph.get_operations() if self._prefix else ():
            if operation.name.startswith(self._prefix):
                own = layers.own_name(operation, self._prefix)
                names |= {f"{own}:{i}": tensor for i, tensor in enumerate(operation.outputs)}
        found = {
            path: names[own] if own in names else _tensor(graph, path, own, "layers") for path, own in wanted.items()
        }
        try:
            computed = self._session.run(list(found.values()), {tensor: given[n] for n, tensor in self._fed.items()})
        except (self._tf.errors.OpError, ValueError) as error:
            what = f"{', '.join(wanted.values())} cannot be fetched"
            why = "nothing inside a loop, or in the branch of a condition that is not taken, can be"
            raise OriginalFailedError("run", f"{what}; {why}") from error
        return {path: np.asarray(array) for path, array in zip(found, computed, strict=True)}

    def _leaf(self, variable: Any) -> Leaf:
        own = layers.own_name(variable, self._prefix)
        if variable.type == "Const":
            return Leaf(own, np.asarray(self._tf.make_ndarray(variable.get_attr("value"))))
        if self._stored is not None:
            return Leaf(self._stored.get(own, own))
        value = variable.outputs[0]
        if variable.type == "VarHandleOp":
            with self._session.graph.as_default():
                value = self._tf.raw_ops.ReadVariableOp(resource=value, dtype=variable.get_attr("dtype"))
        return Leaf(variable.get_attr("shared_name").decode() or own, np.asarray(self._session.run(value)))

    def _open(self) -> None:
        """Go over to the copy, once, where the graph itself does not let everything be fetched."""
        if self._is_opened:
            return
        self._is_opened = True
        if not layers.is_hidden(self._fetched.values()):
            return
        graph = self._session.graph
        definition = graph.as_graph_def(add_shapes=True)
        for node in definition.node:
            # The copy of a variable is the same one where both say what they share.
            if node.op in layers.VARIABLES and not node.attr["shared_name"].s:
                node.attr["shared_name"].s = node.name.encode()
        kept = [tensor.op.name for tensor in (*self._fed.values(), *self._fetched.values())]
        definition = layers.inlined(definition, kept)
        with graph.as_default():
            self._tf.import_graph_def(definition, name=_COPY)
        self._prefix = f"{_COPY}/"
        self._fed, self._fetched = (
            {name: graph.get_tensor_by_name(self._prefix + tensor.name) for name, tensor in side.items()}
            for side in (self._fed, self._fetched)
        )


#: Operations between a restored tensor and the variable that it is assigned to.
_PASSED = frozenset({"Identity", "Reshape", "Cast"})


def _renamed(tf: Any, loaded: Any, saver: Any) -> dict[str, str]:
    """
    What the graph's own Saver calls variables in the checkpoint, where that is not their name.

    An evaluation graph restores a variable from its moving average so: `w` is `w/ExponentialMovingAverage`. The Saver
    is operations of the graph: RestoreV2 reads tensors by a constant list of names, and each is assigned to a variable.
    """
    if saver is None or not saver.saver_def.restore_op_name:
        return {}
    try:
        root = loaded.get_operation_by_name(saver.saver_def.restore_op_name)
    except KeyError:
        return {}
    renamed = {}
    for operation in _ancestors(root):
        if operation.type not in {"Assign", "AssignVariableOp"}:
            continue
        variable, tensor = operation.inputs[0].op, operation.inputs[1]
        while tensor.op.type in _PASSED:
            tensor = tensor.op.inputs[0]
        if tensor.op.type not in {"RestoreV2", "RestoreSlice", "Restore"} or tensor.op.inputs[1].op.type != "Const":
            continue
        names = np.atleast_1d(tf.make_ndarray(tensor.op.inputs[1].op.get_attr("value")))
        slices = tensor.op.inputs[2].op if len(tensor.op.inputs) > 2 else None
        cut = (
            np.atleast_1d(tf.make_ndarray(slices.get_attr("value"))) if slices and slices.type == "Const" else names[:0]
        )
        stored = names[tensor.value_index].decode()
        is_part = tensor.value_index < len(cut) and bool(cut[tensor.value_index])
        if stored != variable.name and not is_part:
            renamed[variable.name] = stored
    return renamed


def _restorable(tf: Any, checkpoint: str, renamed: dict[str, str]) -> tuple[list[Any], dict[str, str]]:
    """
    What restores the graph's variables that the checkpoint holds in their shape; the others, each with the reason.

    The graph's own Saver would ask for all of them, optimizer slots too, which many a checkpoint leaves out. What it
    calls them (`renamed`) counts all the same.
    """
    v1 = tf.compat.v1
    try:
        stored = v1.train.NewCheckpointReader(checkpoint).get_variable_to_shape_map()
    except Exception as error:
        raise OriginalFailedError("run", f"tensorflow cannot open the checkpoint: {cause(error)}") from error
    restored, under, missing = {}, {}, {}
    for variable, part, name in _variables(tf, renamed):
        shape = part.full_shape if part else variable.shape
        if name not in stored:
            what = f"{name}, which the graph's Saver reads for it" if variable.op.name in renamed else "it"
            missing[variable.op.name] = f"the checkpoint does not hold {what}"
        elif not shape.is_compatible_with(stored[name]) if part is None else list(shape) != stored[name]:
            missing[variable.op.name] = f"it is {sizes(shape)} in the graph and {stored[name]} in the checkpoint"
        elif variable.op.name in renamed:
            under[name] = variable
        else:
            restored[variable.op.name] = variable
    return [v1.train.Saver(given) for given in (list(restored.values()), under) if given], missing


def _variables(tf: Any, renamed: dict[str, str]) -> Iterator[tuple[Any, Any, str]]:
    """The graph's variables, which part of a variable each is (None: all of it), and their names in the checkpoint."""
    v1 = tf.compat.v1
    collections = (v1.global_variables, v1.local_variables, v1.model_variables, v1.trainable_variables)
    for variable in (variable for collection in collections for variable in collection()):
        part = variable._get_save_slice_info()
        yield variable, part, part.full_name if part else renamed.get(variable.op.name, variable.op.name)


def _restore(tf: Any, saver: Any, session: Any, checkpoint: str) -> None:
    try:
        saver.restore(session, checkpoint)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise OriginalFailedError("run", f"the variables cannot be restored: {cause(error)}") from error


def _uninitialised(error: Exception, fetched: dict[str, Any], missing: dict[str, str]) -> OriginalFailedError:
    for name, tensor in fetched.items():
        for operation in _ancestors(tensor.op):
            if operation.name in missing:
                message = f"{name} depends on variable {operation.name}, which was not restored: "
                return OriginalFailedError("run", message + missing[operation.name])
    return OriginalFailedError("run", f"the graph cannot be run: {cause(error)}")


def _ancestors(operation: Any) -> Iterator[Any]:
    """The operation and everything that it is computed from."""
    waiting, seen = [operation], {operation}
    while waiting:
        operation = waiting.pop()
        yield operation
        new = {tensor.op for tensor in operation.inputs} | set(operation.control_inputs)
        waiting += sorted(new - seen, key=lambda op: str(op.name))
        seen |= new
