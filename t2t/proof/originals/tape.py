"""
What TensorFlow does while somebody's function runs: operation by operation, as it goes, or in sessions.

Nothing says which tensors come from what is fed: the function makes them of arrays as it likes. So it runs once more,
with the same values in reverse order: an array that it gives to TensorFlow both times is a constant, and one that it
gives only once is data. That finds what the function computes outside of TensorFlow, too, and its state; it takes no
reader of checkpoints, and no array of weights is taken for an input. An array that is the same in reverse is data
where it comes up as it is fed.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from .original import Array, Layer, OriginalFailedError, cause
from .sessions import InSession

Compute = Callable[[dict[str, Array]], Any]

#: What is in a tensor: its dtype, its shape, a hash of its bytes.
Content = tuple[np.dtype[Any], tuple[int, ...], bytes]

_ASSIGNING = re.compile(r"Assign(Add|Sub)?(VariableOp)?|(Resource)?Scatter(Nd)?(Update|Add|Sub|Mul|Div|Min|Max)")


@dataclass(frozen=True, eq=False, slots=True)
class Operation:
    """One that ran: its type, the name scope that it ran in, its tensors; whether a recurrent layer ran it."""

    kind: str
    scope: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    is_within: bool


@dataclass(frozen=True, eq=False, slots=True)
class Recurrent:
    """A recurrent layer of Keras that has run: its path, its class, its weights, the first it took and gave."""

    path: str
    kind: str
    weights: tuple[Any, ...]
    input: Any
    output: Any


class Tape:
    """
    What ran, first to last. Tensors go by their numbers, which TensorFlow never gives twice.

    `leaves` are those that no operation made of others, with their content, None where that is no numbers. `failures`
    are of what looked into a session.
    """

    def __init__(self, tf: Any, *, is_kept: bool = True) -> None:
        self._tf = tf
        self._is_kept = is_kept
        self._made: set[int] = set()
        self._depth = 0
        self._has_moved = False
        self._opened: dict[Any, InSession] = {}
        self.leaves: dict[int, Content | None] = {}
        self.entries: list[Operation | Recurrent | Layer] = []
        self.failures: list[Exception] = []

    def operation(  # noqa: PLR0917 - TensorFlow's own signature, partly by name
        self,
        kind: Any,
        inputs: Any,
        attributes: Any,  # noqa: ARG002
        outputs: Any,
        op_name: Any = None,  # noqa: ARG002
        graph: Any = None,
    ) -> None:
        """TensorFlow calls this for each operation; with a graph for one that is put there and does not run."""
        if graph is not None:
            return
        try:
            self._note(kind.decode() if isinstance(kind, bytes) else str(kind), tuple(inputs), tuple(outputs))
        except Exception as error:  # noqa: BLE001 - told when the function is done, which could take it for its own
            self.failures.append(error)

    def _note(self, kind: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        for tensor in inputs:
            if tensor._id not in self._made and tensor._id not in self.leaves:
                self.leaves[tensor._id] = _content_of(tensor)
        if kind == "ReadVariableOp" or any(_is_numeric(tensor) for tensor in inputs):
            self._made.update(tensor._id for tensor in outputs)
        else:
            # An iterator's next element, say.
            self.leaves |= {tensor._id: _content_of(tensor) for tensor in outputs}
        if self._is_kept:
            self.entries.append(
                Operation(kind, self._tf.get_current_name_scope(), inputs, outputs, is_within=self._depth > 0)
            )

    def recurrent(self, call: Any) -> Any:
        """The `__call__` of recurrent layers, watched."""

        @wraps(call)
        def watched(layer: Any, *args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            try:
                value = call(layer, *args, **kwargs)
            finally:
                self._depth -= 1
            given, computed = args[0] if args else next(iter(kwargs.values()), None), value
            while isinstance(computed, list | tuple):
                computed = computed[0]
            if self._is_kept and not self._depth and hasattr(computed, "numpy"):
                path = str(getattr(layer, "path", layer.name))
                self.entries.append(Recurrent(path, type(layer).__name__, tuple(layer.weights), given, computed))
            return value

        return watched

    def session_run(self, session: Any, fetches: Any, feed: Any) -> None:
        """Look into a session before its run, in the state that it is in."""
        try:
            if self._has_moved:
                what = "its session runs more than once in a step, and a run changes its variables"
                raise RuntimeError(f"{what}: looking into one run would change the next")
            self._has_moved = _assigns(self._tf, session, fetches)
            inside, values = opened(self._tf, session, fetches, feed, self._opened)
            self.entries += inside.layers(values)
        except Exception as error:  # noqa: BLE001 - told when the function is done, which could take it for its own
            self.failures.append(error)


@contextmanager
def watching(tf: Any, tape: Tape, *, with_sessions: bool = True) -> Iterator[None]:
    """Fill the tape. What TensorFlow calls after each operation is no public part of it."""
    from tensorflow.python.framework import op_callbacks

    were_eager = tf.config.functions_run_eagerly()
    with ExitStack() as stack:
        stack.callback(tf.config.run_functions_eagerly, were_eager)
        tf.config.run_functions_eagerly(True)
        for name in ("keras", "tf_keras"):
            recurrent = getattr(getattr(sys.modules.get(name), "layers", None), "RNN", None)
            if recurrent is not None:
                stack.enter_context(_patched(recurrent, "__call__", tape.recurrent(recurrent.__call__)))
        if with_sessions:
            stack.enter_context(sessions(tf, tape.session_run))
        op_callbacks.add_op_callback(tape.operation)
        stack.callback(op_callbacks.remove_op_callback, tape.operation)
        yield


@contextmanager
def sessions(tf: Any, look: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """Have `look(session, fetches, feed_dict)` called before each run of a session, but for those that it makes."""
    owner = next(one for one in tf.compat.v1.Session.__mro__ if "run" in vars(one))
    run = owner.run
    is_looking = False

    @wraps(run)
    def looked_at(session: Any, fetches: Any, feed_dict: Any = None, *args: Any, **kwargs: Any) -> Any:
        nonlocal is_looking
        if not is_looking:
            is_looking = True
            try:
                look(session, fetches, feed_dict)
            finally:
                is_looking = False
        return run(session, fetches, feed_dict, *args, **kwargs)

    with _patched(owner, "run", looked_at):
        yield


@contextmanager
def _patched(owner: Any, name: str, function: Any) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


# --- sessions ---


def opened(
    tf: Any, session: Any, fetches: Any, feed: Any, known: dict[Any, InSession]
) -> tuple[InSession, dict[str, Any]]:
    """What looks into the session, from `known` where it is there, and what is fed, by the tensors' names."""
    given = [(session.graph.as_graph_element(key), value) for key, value in (feed or {}).items()]
    fed = {tensor.name: tensor for tensor, _ in given}
    fetched = {tensor.name: tensor for tensor in _fetched(tf, session, fetches)}
    key = session, *fed, None, *fetched
    if key not in known:
        known[key] = InSession(tf, session, fed, fetched)
    return known[key], {tensor.name: value for tensor, value in given}


def _fetched(tf: Any, session: Any, fetches: Any) -> list[Any]:
    elements = (session.graph.as_graph_element(one) for one in tf.nest.flatten(fetches, expand_composites=True))
    return [element for element in elements if hasattr(element, "op")]


def _assigns(tf: Any, session: Any, fetches: Any) -> bool:
    """Whether what is fetched changes a variable on the way."""
    waiting, seen = [tensor.op for tensor in _fetched(tf, session, fetches)], set()
    while waiting:
        operation = waiting.pop()
        if operation not in seen:
            seen.add(operation)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return any(is_assigning(operation.type) for operation in seen)


def is_assigning(kind: str) -> bool:
    """Whether operations of this type change the variable that is their first input."""
    return _ASSIGNING.fullmatch(kind) is not None


# --- what the function gives to TensorFlow ---


def constants(tf: Any, compute: Compute, given: dict[str, Array]) -> set[Content]:
    """What is in the arrays that `compute` gives to TensorFlow whatever is fed."""
    tape = Tape(tf, is_kept=False)
    # The same values: others could be none that it takes.
    reverse = {name: np.flip(array.reshape(-1)).reshape(array.shape).copy() for name, array in given.items()}
    try:
        with watching(tf, tape, with_sessions=False):
            compute(reverse)
    except OriginalFailedError as error:
        what = "which arrays depend on the inputs cannot be told, as it fails with their values in reverse order"
        raise OriginalFailedError("run", f"{what}: {cause(error)}") from error
    for failure in tape.failures:
        raise failure
    found = {content for content in tape.leaves.values() if content is not None}
    # A small integer looks like an axis or a size, which are constants.
    same = [
        array
        for name, array in given.items()
        if np.array_equal(array, reverse[name]) and (array.ndim > 1 or array.dtype.kind == "f")
    ]
    return found - {content(array.astype(dtype)) for array in same for dtype in {one[0] for one in found}}


def content(array: Array) -> Content:
    """What is in an array."""
    return array.dtype, array.shape, hashlib.sha256(array.tobytes()).digest()


def _content_of(tensor: Any) -> Content | None:
    return content(np.asarray(tensor.numpy())) if _is_numeric(tensor) else None


def _is_numeric(tensor: Any) -> bool:
    dtype = tensor.dtype
    return bool(dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex)
