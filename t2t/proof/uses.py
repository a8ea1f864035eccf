"""
What a graph does with a variable: which operations compute with it, as what, and how they are set.

From the variable its readers are followed through operations that change no value's place. What only training does
(gradients, updates) does not count: the operations that a fetched result depends on do or, where nothing says which
results are meant, those that are not called as gradients are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Literal

from t2t.checkpoints.dataflow import Dataflow, Operation, Result
from t2t.checkpoints.graph import Sizes
from t2t.tensors import Shape

#: What an operation takes a variable for.
Role = Literal["kernel", "bias", "gamma", "beta", "mean", "variance"]

#: How each operation means the axes of a kernel: by its rank, a Conv2D of a kernel of rank 3 being a Conv1D.
CONVOLUTION = {3: "k i o", 4: "h w i o", 5: "d h w i o"}
TRANSPOSED = {3: "k o i", 4: "h w o i", 5: "d h w o i"}
DEPTHWISE = {4: "h w i m"}
_CONVOLUTIONS = {
    "Conv2D": CONVOLUTION,
    "Conv3D": CONVOLUTION,
    "Conv2DBackpropInput": TRANSPOSED,
    "Conv3DBackpropInput": TRANSPOSED,
    "Conv3DBackpropInputV2": TRANSPOSED,
    "DepthwiseConv2dNative": DEPTHWISE,
}
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
_NORMALIZATIONS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_NORMALIZED: dict[int, Role] = {1: "gamma", 2: "beta", 3: "mean", 4: "variance"}
_SUMS = frozenset({"Add", "AddV2", "BiasAdd"})

#: What gives a variable's values on as they are.
_PASSING = frozenset(
    {"Identity", "ReadVariableOp", "Cast", "Enter", "StopGradient", "Switch", "Merge", "Snapshot", "CheckNumerics"}
    | {"RefEnter", "RefIdentity", "RefSwitch", "RefMerge", "PreventGradient"}
)
#: What keeps the order of a map's elements: activations, dropout, sums and products, normalizations.
_ELEMENTWISE = _PASSING | frozenset(
    {"Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Sigmoid", "Tanh", "Softplus", "Softsign"}
    | {"Add", "AddV2", "BiasAdd", "Sub", "Mul", "RealDiv", "Neg", "Maximum", "Minimum", "ClipByValue"}
    | {"Select", "SelectV2", "Exit"}
)
_KERNELS = frozenset(_CONVOLUTIONS)
_POOLINGS = frozenset({"MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D", "MaxPoolV2"})
_MAP_TO_MAP = _ELEMENTWISE | _NORMALIZATIONS | frozenset({"LRN"})
#: What changes a map's sizes, too, and lets its channels stay last.
_RESIZING = frozenset({"ConcatV2", "Pad", "PadV2", "Squeeze", "BatchToSpaceND"})
_CHANNELS_LAST = frozenset({"", "NHWC", "NDHWC"})

#: How far back what stands before a MatMul is looked for.
_MAX_STEPS = 200


@dataclass(frozen=True, slots=True)
class Flattened:
    """
    A map that becomes rows before a product: its sizes but for the channels, which come last; how many places it has
    where they are not known one by one; the operations that give it and that flatten it.
    """

    spatial: tuple[int, ...] | None
    places: int
    channels: int
    source: Operation
    reshape: Operation

    def __str__(self) -> str:
        """The sizes, as a person writes them."""
        sizes = self.spatial or (f"({self.places} places)",)
        return " x ".join(map(str, (*sizes, self.channels)))


@dataclass(frozen=True, slots=True)
class Use:
    """
    One operation that computes with the variable, and how it means the axes of a kernel ("" for none).

    `strides` and `dilations` are those of the map's axes. `forget` is what the operation `adds` adds to the forget gate
    of an LSTM cell whose bias this is.
    """

    operation: Operation
    role: Role
    axes: str = ""
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    padding: str = ""
    sizes: tuple[int, ...] | None = None
    epsilon: float | None = None
    flattened: Flattened | None = None
    forget: float | None = None
    adds: str = ""


def places(flow: Dataflow, key: str, name: str, shape: Shape) -> list[int]:
    """
    Where the graph may have the variable: what it reads the checkpoint's `key` into, and what it calls `name`.

    Mostly that is the same. Keras 3 writes copies of its variables into a SavedModel; only one of them is used.
    """
    found = dict.fromkeys(at for at in (flow.restored.get(key), flow.variables.get(name)) if at is not None)
    return [position for position in found if _shape(flow.operations[position]) == shape]


def uses(flow: Dataflow, position: int, shape: Shape, needed: Set[int] | None) -> list[Use]:
    """What the operations among `needed` (None: all that do not look like training) do with the variable there."""
    found: list[Use] = []
    for reader, slot, is_expanded in _readers(flow, position, shape, needed):
        found += _use(flow, reader, slot, shape, is_expanded=is_expanded)
    return found


def _readers(flow: Dataflow, position: int, shape: Shape, needed: Set[int] | None) -> Iterator[tuple[int, int, bool]]:
    """Who reads the values at last, by which input, and whether they got an axis of size 1 on the way."""
    to_do, seen = [(position, False)], {(position, False)}
    while to_do:
        at, is_expanded = to_do.pop()
        for reader, slot in flow.readers.get(at, ()):
            operation = flow.operations[reader]
            if reader not in needed if needed is not None else _is_training(operation):
                continue
            if (slot == 0 and _is_passing(flow, operation, shape)) or operation.op in {"Merge", "RefMerge"}:
                following = (reader, is_expanded)
            elif slot == 0 and operation.op == "ExpandDims" and _number(flow, operation.inputs[1:2]) in {0, 1}:
                following = (reader, True)
            else:
                yield reader, slot, is_expanded
                continue
            if following not in seen:
                seen.add(following)
                to_do.append(following)


def _is_passing(flow: Dataflow, operation: Operation, shape: Shape) -> bool:
    """Whether it gives its first input on as it is; as a Tensordot does, whose Transpose and Reshape change nothing."""
    if operation.op == "Transpose" and len(operation.inputs) == 2:
        order = flow.operations[operation.inputs[1][0]].constant
        return order is not None and order.values == tuple(range(len(shape)))
    return operation.op in _PASSING or (operation.op == "Reshape" and operation.sizes() == shape)


def _is_training(operation: Operation) -> bool:
    return any(part.startswith("gradient") for part in operation.name.split("/"))


def _use(flow: Dataflow, reader: int, slot: int, shape: Shape, *, is_expanded: bool) -> Iterator[Use]:
    operation = flow.operations[reader]
    rank = len(shape)
    if operation.op in _CONVOLUTIONS and slot == 1 and is_expanded == (rank == 3):
        if axes := _CONVOLUTIONS[operation.op].get(rank):
            yield _convolution(flow, operation, axes)
    elif operation.op in _PRODUCTS and slot == 1 and rank == 2 and not is_expanded:
        is_turned = bool(operation.attributes.get("transpose_b") or operation.attributes.get("adj_y"))
        in_front = _flattened(flow, operation, shape[1 if is_turned else 0])
        yield Use(operation, "kernel", "o i" if is_turned else "i o", flattened=in_front)
    elif operation.op in _NORMALIZATIONS and slot in _NORMALIZED:
        epsilon = operation.attributes.get("epsilon", 1e-4)
        yield Use(operation, _NORMALIZED[slot], epsilon=epsilon if isinstance(epsilon, float) else None)
    elif rank == 1:
        yield from _of_vector(flow, reader, slot)


def _convolution(flow: Dataflow, operation: Operation, axes: str) -> Use:
    """A convolution. Behind a Pad or a SpaceToBatchND, what it says itself of padding and dilations is not all."""
    rank = len(axes.split()) - 2
    data = operation.inputs[-1:] if "Backprop" in operation.op else operation.inputs[:1]
    before = {flow.operations[position].op for position, _ in data}
    is_spread = "SpaceToBatchND" in before
    is_padded = bool(before & {"SpaceToBatchND", "Pad", "PadV2", "MirrorPad"})
    return Use(
        operation,
        "kernel",
        axes,
        strides=_spatial(operation, operation.numbers("strides"), rank) or (),
        dilations=() if is_spread else _spatial(operation, operation.numbers("dilations"), rank) or (1,) * rank,
        padding="" if is_padded else operation.text("padding"),
        sizes=_spatial(operation, _sizes(flow, data), rank),
    )


def _spatial(operation: Operation, of_axes: tuple[int, ...] | None, rank: int) -> tuple[int, ...] | None:
    """Those of the map's axes among one number for each axis; of a Conv1D the last one."""
    if of_axes is None:
        return None
    numbers = of_axes[1:-1] if operation.text("data_format") in _CHANNELS_LAST else of_axes[2:]
    return numbers[-rank:] if len(numbers) >= rank else None


# --- vectors ---


def _of_vector(flow: Dataflow, reader: int, slot: int) -> Iterator[Use]:
    """
    A bias; or a part of a normalization that is written out, with scale = rsqrt(variance + epsilon) * gamma:
    x * scale + (beta - mean * scale); or plainly, (x - mean) * rsqrt(variance + epsilon) * gamma + beta.
    """
    operation = flow.operations[reader]
    if len(operation.inputs) != 2:
        return
    other = flow.operations[operation.inputs[1 - slot][0]]
    if operation.op in _SUMS:
        epsilon = _number(flow, operation.inputs[1 - slot : 2 - slot])
        followers = {flow.operations[position].op for position, _ in flow.readers.get(reader, ())}
        if epsilon is not None and "Rsqrt" in followers:
            yield Use(operation, "variance", epsilon=epsilon)
        elif (operation.op == "BiasAdd" and slot == 1) or _sums_products(flow, other):
            yield _bias(flow, reader, operation)
        elif other.op == "Mul" and any(_is_normalized(flow, flow.operations[at]) for at, _ in other.inputs[:2]):
            yield Use(operation, "beta")
    elif operation.op == "Mul":
        reading = flow.readers.get(reader, ())
        if other.op == "Rsqrt" or _is_normalized(flow, other):
            yield Use(operation, "gamma")
        elif _is_scale(flow, other) and any(flow.operations[at].op == "Sub" and by == 1 for at, by in reading):
            yield Use(operation, "mean")
    elif operation.op == "Sub" and slot == 0 and other.op == "Mul":
        scaled = [flow.operations[position] for position, _ in other.inputs[:2]]
        yield from [Use(operation, "beta")] if any(_is_scale(flow, one) for one in scaled) else []


def _sums_products(flow: Dataflow, operation: Operation) -> bool:
    """Whether it is a product of matrices or a convolution, or the sum of two products, as a recurrent cell has it."""
    if operation.op in _SUMS and len(operation.inputs) == 2:
        return all(flow.operations[position].op in _PRODUCTS for position, _ in operation.inputs)
    return operation.op in _PRODUCTS or operation.op in _CONVOLUTIONS


def _is_scale(flow: Dataflow, operation: Operation) -> bool:
    """Whether it is the rsqrt of a normalization, or that times gamma."""
    return operation.op == "Rsqrt" or (
        operation.op == "Mul" and any(flow.operations[position].op == "Rsqrt" for position, _ in operation.inputs[:2])
    )


def _is_normalized(flow: Dataflow, operation: Operation) -> bool:
    """Whether it is the difference to a mean, times an rsqrt or by a square root."""
    if operation.op not in {"Mul", "RealDiv"} or len(operation.inputs) != 2:
        return False
    one, two = (flow.operations[position].op for position, _ in operation.inputs)
    return (
        (one, two) in {("Sub", "Rsqrt"), ("Rsqrt", "Sub")} if operation.op == "Mul" else (one, two) == ("Sub", "Sqrt")
    )


def _bias(flow: Dataflow, reader: int, operation: Operation) -> Use:
    """A bias; of an LSTM cell with what is added to its forget gate, the third of the four parts of the sum."""
    for split, slot in flow.readers.get(reader, ()):
        made = flow.operations[split]
        if made.op != "Split" or slot != 1 or made.attributes.get("num_split") != 4:
            continue
        for adder, place in flow.readers.get(split, ()):
            sum_ = flow.operations[adder]
            if sum_.op not in {"Add", "AddV2"} or sum_.inputs[place] != (split, 2) or len(sum_.inputs) != 2:
                continue
            number = _number(flow, sum_.inputs[1 - place : 2 - place])
            if number is not None and any(
                flow.operations[position].op == "Sigmoid" for position, _ in flow.readers.get(adder, ())
            ):
                return Use(operation, "bias", forget=number, adds=sum_.name)
    return Use(operation, "bias")


# --- the map in front ---


def _flattened(flow: Dataflow, product: Operation, rows: int) -> Flattened | None:
    """The map that becomes this product's rows; None where none does, where its channels come first, or is unknown."""
    if product.attributes.get("transpose_a") or product.attributes.get("adj_x"):
        return None
    reshape = _back(flow, product.inputs[:1], _ELEMENTWISE, frozenset({"Reshape"}))
    if reshape is None or len(reshape.inputs) != 2 or not _is_flat(flow, reshape):
        return None
    of_map = reshape.inputs[:1]
    sizes = _sizes(flow, of_map)
    is_known = sizes is not None and len(sizes) in {3, 4, 5} and -1 not in sizes[1:]
    source = _back(flow, of_map, _MAP_TO_MAP | _RESIZING if is_known else _MAP_TO_MAP, _KERNELS | _POOLINGS)
    if source is None or source.text("data_format") not in _CHANNELS_LAST:
        return None
    if sizes is not None and is_known:
        is_all = math.prod(sizes[1:]) == rows
        return Flattened(sizes[1:-1], math.prod(sizes[1:-1]), sizes[-1], source, reshape) if is_all else None
    channels = _channels(flow, source)
    # Without the map's sizes, only a shape that is made of the batch's size and the rest says that all is flattened.
    is_all = flow.operations[reshape.inputs[1][0]].op == "Pack"
    if not channels or rows % channels or not is_all:
        return None
    return Flattened(None, rows // channels, channels, source, reshape)


def _is_flat(flow: Dataflow, reshape: Operation) -> bool:
    """Whether it gives two axes."""
    if (sizes := reshape.sizes()) is not None:
        return len(sizes) == 2
    wanted = flow.operations[reshape.inputs[1][0]]
    if wanted.op == "Pack":
        return len(wanted.inputs) == 2 and flow.operations[wanted.inputs[0][0]].op == "StridedSlice"
    return wanted.constant is not None and wanted.constant.shape == (2,)


def _back(flow: Dataflow, results: tuple[Result, ...], through: Set[str], to: Set[str]) -> Operation | None:
    """The nearest operation that is one of `to`, backwards through those of `through` only."""
    to_do = [position for position, _ in results]
    seen = set(to_do)
    while to_do and len(seen) < _MAX_STEPS:
        operation = flow.operations[to_do.pop(0)]
        if operation.op in to:
            return operation
        for position, _ in operation.inputs if operation.op in through else ():
            if position not in seen:
                seen.add(position)
                to_do.append(position)
    return None


def _channels(flow: Dataflow, source: Operation) -> int:
    """How many channels the map has that this operation gives, by the kernel that made it; 0 where that is unknown."""
    if "Pool" in source.op:
        found = _back(flow, source.inputs[:1], _MAP_TO_MAP | _POOLINGS, _KERNELS)
        if found is None:
            return 0
        source = found
    kernel = _back(flow, source.inputs[1:2], _PASSING, frozenset({"Variable", "VariableV2", "VarHandleOp", "Const"}))
    shape = _shape(kernel) if kernel else None
    if shape is None or len(shape) not in {4, 5}:
        return 0
    *_, before, last = shape
    return last * before if source.op == "DepthwiseConv2dNative" else before if "Backprop" in source.op else last


# --- what is known of results ---


def _shape(stored: Operation) -> Sizes:
    """The shape of a variable, or of the constant that it became."""
    return stored.constant.shape if stored.constant else stored.numbers("shape")


def _sizes(flow: Dataflow, results: tuple[Result, ...]) -> Sizes:
    return flow.operations[results[0][0]].sizes(results[0][1]) if results else None


def _number(flow: Dataflow, results: tuple[Result, ...]) -> float | None:
    """The value of a constant scalar, None for anything else."""
    if len(results) != 1:
        return None
    source = _back(flow, results, _PASSING, frozenset({"Const"}))
    values = source.constant.values if source and source.constant else None
    return values[0] if values is not None and len(values) == 1 else None
