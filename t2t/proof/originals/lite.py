"""An original that is a .tflite file, run by the interpreter of ai_edge_litert or of TensorFlow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from .around import around
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
    named,
)


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

    #: What was fed since the start, where somebody may want to look inside.
    fed: list[dict[str, Array]] = []

    def restart() -> None:
        # The interpreter's own reset leaves resource variables as they are.
        nonlocal interpreter
        interpreter = _interpreter(request["path"])[0]
        fed.clear()

    def run(given: dict[str, Array]) -> dict[str, Array]:
        if "layers" in request:
            fed.append(given)
        invoke(interpreter, given)
        return {name: interpreter.get_tensor(outputs[own]) for name, own in request["fetch"].items()}

    def invoke(interpreter: Any, given: dict[str, Array]) -> None:
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

    def inside(given: dict[str, Array]) -> _Inside:
        """The model in the state that it is in, run by an interpreter that keeps what is inside, which costs memory."""
        keeping = _interpreter(request["path"], experimental_preserve_all_tensors=True)[0]
        fetched = {outputs[own] for own in request["fetch"].values()}
        held = _Inside(keeping, {inputs[own] for own in request["feed"].values()}, fetched)
        for each in (*fed, given):
            invoke(keeping, each)
        return held

    def layers(given: dict[str, Array]) -> list[Layer]:
        return inside(given).layers()

    def of_names(given: dict[str, Array], wanted: dict[str, str]) -> dict[str, Array]:
        return inside(given).named(wanted)

    yield Original(run, restart, versions, (), layers, of_names)


def _interpreter(path: str, **more: Any) -> tuple[Any, dict[str, str]]:
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
            path, num_threads=1, experimental_op_resolver_type=resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES, **more
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


# --- what goes on inside ---

#: Operations whose output is their first input in another form: what the form is computed from does not matter.
_FORMS = frozenset({"RESHAPE", "BROADCAST_TO", "TILE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE"})


class _Inside:
    """
    An interpreter that keeps all tensors, before its first run; `fed` and `fetched` are numbers of tensors.

    What tells the operations of a model is no public part of the interpreter.
    """

    def __init__(self, interpreter: Any, fed: set[int], fetched: set[int]) -> None:
        self._interpreter = interpreter
        self._fed = fed
        self._fetched = fetched
        self._operations = [
            (str(one["op_name"]), [int(n) for n in one["inputs"] if n >= 0], [int(n) for n in one["outputs"] if n >= 0])
            for one in interpreter._get_ops_details()
        ]
        made = {number for _, _, outputs in self._operations for number in outputs}
        taken = {number for _, inputs, _ in self._operations for number in inputs}
        #: What no operation makes, as it was in the beginning: constants, and states, which a run changes.
        self._start = {
            number: array
            for number in sorted(taken - made - fed)
            if (array := self._array(number)) is not None and array.ndim and array.size
        }

    def layers(self) -> list[Layer]:
        """The layers of the last run. Raises OriginalFailedError where there is none."""
        behind: dict[int, tuple[Leaf, ...]] = {}
        #: The node of each tensor that is data; of each node its tensor, the nodes before it, the layer that it is.
        places: dict[int, int] = {}
        nodes: list[tuple[int, list[int], Layer | None]] = []
        for number in sorted(self._fed):
            places[number] = len(nodes)
            nodes.append((number, [], None))
        for number, array in self._start.items():
            if _is_same(array, self._array(number)):
                behind[number] = (Leaf(self._name(number), array),)
            else:
                places[number] = len(nodes)
                nodes.append((number, [], None))
        for kind, inputs, outputs in self._operations:
            values = inputs[:1] if kind in _FORMS else inputs
            given = [number for number in values if number in places]
            leaves = tuple({id(leaf): leaf for number in values for leaf in behind.get(number, ())}.values())
            if not given and kind != "READ_VARIABLE":
                behind |= dict.fromkeys(outputs, leaves)
            elif outputs:
                layer = self._layer(kind, leaves, given, outputs[0]) if leaves else None
                nodes.append((outputs[0], sorted({places[number] for number in given}), layer))
                places |= dict.fromkeys(outputs, len(nodes) - 1)
        own = {at: layer for at, (_, _, layer) in enumerate(nodes) if layer is not None}
        if not own:
            raise OriginalFailedError("run", "no constant goes into what is computed from the inputs")
        ends = {places[number] for number in self._fetched if number in places}
        near = around([before for _, before, _ in nodes], own, ends)
        tensors = [number for number, _, _ in nodes]
        return [
            replace(layer, before=self._tensors(tensors, near[at][0]), after=self._tensors(tensors, near[at][1]))
            for at, layer in own.items()
        ]

    def named(self, wanted: dict[str, str]) -> dict[str, Array]:
        """Tensors of the last run by their names."""
        numbers = {detail["name"]: int(detail["index"]) for detail in self._interpreter.get_tensor_details()}
        for path, own in wanted.items():
            named("layers", path, own, numbers, "the model has no tensor")
        arrays = {path: self._array(numbers[own]) for path, own in wanted.items()}
        return {path: self._value(numbers[wanted[path]]) if one is None else one for path, one in arrays.items()}

    def _layer(self, kind: str, leaves: tuple[Leaf, ...], given: list[int], output: int) -> Layer:
        first = next((array for number in given if (array := self._array(number)) is not None), None)
        return Layer(self._name(output), kind, leaves, first, self._array(output))

    def _tensors(self, numbers: list[int], places: tuple[int, ...]) -> tuple[tuple[str, Array], ...]:
        arrays = [(self._name(numbers[at]), self._array(numbers[at])) for at in places]
        return tuple((name, array) for name, array in arrays if array is not None)

    def _name(self, number: int) -> str:
        return str(self._interpreter._get_tensor_details(number, 0)["name"])

    def _value(self, number: int) -> Array:
        return np.asarray(self._interpreter.get_tensor(number))

    def _array(self, number: int) -> Array | None:
        """The tensor's floating numbers, or those that its integers stand for; None where there are none."""
        detail = self._interpreter._get_tensor_details(number, 0)
        scales, zeros, axis = (
            detail["quantization_parameters"][key] for key in ("scales", "zero_points", "quantized_dimension")
        )
        is_floating = np.dtype(detail["dtype"]).kind == "f"
        if not is_floating and not len(scales):
            return None
        array = self._value(number)
        if is_floating:
            return array
        along = [-1 if dimension == axis else 1 for dimension in range(array.ndim)] if len(scales) > 1 else []
        return np.asarray((array.astype(np.float64) - zeros.reshape(along)) * scales.reshape(along), np.float32)


def _is_same(one: Array, other: Array | None) -> bool:
    return other is not None and np.array_equal(one, other, equal_nan=True)
