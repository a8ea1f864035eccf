"""What goes on inside a function of TensorFlow 2, which runs eagerly: its graph is run up to any tensor in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import layers
from .original import Array, Layer, Leaf, named


@dataclass(frozen=True, slots=True)
class Inside:
    """
    A wrapped function's graph, run with the variables themselves: it goes on from the state that they are in.

    `inputs` are its tensors that take `values`: those that are fed, and what it captures. `captured` are the variables
    and constants among the latter, with their names, by the operation that stands for each.
    """

    tf: Any
    wrapped: Any
    fed: list[Any]
    inputs: list[Any]
    values: list[Any]
    outputs: list[Any]
    captured: dict[str, tuple[Any, str]]

    def layers(self) -> list[Layer]:
        """The layers, and what goes into and comes out of each. Raises OriginalFailedError where there is none."""
        found = layers.find_any(self.fed, self.outputs, self._is_variable)
        return layers.described(found, self._leaf, self._fetch)

    def named(self, wanted: dict[str, str]) -> dict[str, Array]:
        """Tensors by the names that `layers` gives their operations: `conv/Conv2D:0`."""
        tensors = {
            f"{layers.own_name(operation)}:{i}": tensor
            for operation in self.wrapped.graph.get_operations()
            for i, tensor in enumerate(operation.outputs)
        }
        for path, own in wanted.items():
            named("layers", path, own, tensors, "the graph has no tensor")
        return self._fetch({path: tensors[own] for path, own in wanted.items()})

    def _is_variable(self, operation: Any) -> bool:
        return operation.name in self.captured or operation.type in layers.VARIABLES

    def _leaf(self, variable: Any) -> Leaf:
        if variable.name in self.captured:
            value, own = self.captured[variable.name]
            return Leaf(own.removesuffix(":0"), np.asarray(value.numpy()))
        own = layers.own_name(variable)
        if variable.type == "Const":
            return Leaf(own, np.asarray(self.tf.make_ndarray(variable.get_attr("value"))))
        with self.wrapped.graph.as_default():
            value = self.tf.identity(variable.outputs[0])
        return Leaf(own, self._fetch({"value": value})["value"])

    def _fetch(self, tensors: dict[str, Any]) -> dict[str, Array]:
        # The outputs are asked for, too, so that what is assigned on the way is.
        pruned = self.wrapped.prune(self.inputs, [*tensors.values(), *self.outputs])
        computed = pruned(*self.values)
        return {name: np.asarray(value) for name, value in zip(tensors, computed, strict=False)}


def traced(tf: Any, compute: Callable[..., list[Any]], arrays: Sequence[Array]) -> Inside:
    """A function of tensors that gives a list of tensors, for inputs like `arrays`. Calls in it are no secret."""
    specs = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
    function = tf.function(compute, autograph=False).get_concrete_function(*specs)
    inputs, outputs = [tensor.name for tensor in function.inputs], [tensor.name for tensor in function.outputs]
    definition = layers.inlined(function.graph.as_graph_def(), [*inputs, *outputs])
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    # What is captured is a variable's handle, or the tensor that a constant was.
    names = {id(variable.handle): (variable, variable.name) for variable in function.graph.variables}
    captured = {}
    for name, value in zip(inputs[len(arrays) :], function.captured_inputs, strict=True):
        if id(value) in names:
            captured[name.removesuffix(":0")] = names[id(value)]
        elif value.dtype.is_floating and value.shape.rank:
            captured[name.removesuffix(":0")] = (value, "")
    placed = [whole.graph.get_tensor_by_name(name) for name in inputs]
    return Inside(
        tf=tf,
        wrapped=whole,
        fed=placed[: len(arrays)],
        inputs=placed,
        values=[tf.constant(array) for array in arrays] + list(function.captured_inputs),
        outputs=[whole.graph.get_tensor_by_name(name) for name in outputs],
        captured=captured,
    )


def holds_variables(function: Any) -> bool:
    """Whether variables are operations of the function's own graph, as in what TensorFlow 1 saved."""
    return any(operation.type in layers.VARIABLES for operation in function.graph.get_operations())


def wrapped(tf: Any, function: Any, given: dict[str, Array], fetch: Sequence[str]) -> Inside:
    """
    A signature that TensorFlow 1 saved, whose graph holds its variables: no other one would have their values.

    `given` are its inputs, `fetch` its outputs, by their names in the signature.
    """
    keywords = function._arg_keywords
    inputs = list(function.inputs)
    return Inside(
        tf=tf,
        wrapped=function,
        fed=inputs[: len(keywords)],
        inputs=inputs,
        values=[tf.constant(given[own]) for own in keywords] + list(function.captured_inputs),
        outputs=[function.structured_outputs[own] for own in fetch],
        captured={},
    )
