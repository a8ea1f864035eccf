"""
Which variables belong to an optimizer, by the conventions of those who wrote the checkpoint.

A slot holds something about one variable (a moment, an accumulator), a counter something about the training as a whole.
Only what cannot be anything else is recognised: a mapping says `slots: true` for all of it without a look at each.

    w/Adam, w/Adam_1, w/adam_m         TF1: V/<slot>[_n] with V's shape, also behind a scope (training/w/Adam)
    w/Adafactor, w_slot_vr             TF1: the same, or V's shape without one of its axes
    beta1_power, x/beta2_power_1       TF1: counters
    w/.OPTIMIZER_SLOT/optimizer/m      TF2: slots
    optimizer/iter, optimizer/beta_1   TF2 and Keras 3: counters, below an optimizer

An object graph says more than names (object_graph.py), and comes first.

Not slots: an average of a variable, which may well be what is wanted (`w/ExponentialMovingAverage`, a slot `average`);
`global_step` and `save_counter`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from t2t.checkpoints.object_graph import AVERAGE, ObjectGraph
from t2t.tensors import Shape, TensorRef

_SLOT = re.compile(
    "(?:Adam|AdamW|AdaMax|Momentum|RMSProp|Adagrad|AdagradDA|ProximalAdagrad|Adadelta|Ftrl|LARSOptimizer"
    "|adam_[mv]|lamb_[mv]|lars_[mv])(?:_[0-9]+)?"
)
#: Adafactor keeps sums over rows and over columns, so the shape is the variable's or has an axis less.
_FACTORED = re.compile("Adafactor(?:_[0-9]+)?")
_FACTORED_SUFFIX = re.compile("_slot_(?:vr|vc|v|m)\\Z")
_AVERAGE = re.compile("ExponentialMovingAverage(?:_[0-9]+)?")
_COUNTER = re.compile("beta[12]_power(?:_[0-9]+)?")
_TF2_SLOT = "/.OPTIMIZER_SLOT/"
_TF2_COUNTER = re.compile("iter|_iterations|beta_1|beta_2|decay|_?learning_rate|momentum|rho|epsilon")
_LOSS_SCALE = ("loss_scale/current_loss_scale", "loss_scale/good_steps")

#: An optimizer's scope has at most this many parts. A name can have very many, and each would be tried.
_MAX_SCOPE = 8


def with_slots(variables: Mapping[str, TensorRef], graph: ObjectGraph | None = None) -> dict[str, TensorRef]:
    """
    The same variables in the same order, `slot_of` set where one is a slot or a counter, `average_of` where one is an
    average.
    """
    optimizers = {"optimizer"} | {
        name.rpartition(_TF2_SLOT)[2].rpartition("/")[0] for name in variables if _TF2_SLOT in name
    }
    by_key = {ref.key: name for name, ref in variables.items()} if graph else {}
    marked = {}
    for name, ref in variables.items():
        slot_of, average_of = _slot_of(ref, variables, optimizers), _average_of(ref, variables)
        if graph and ref.key in graph.averages:
            slot_of, average_of = None, by_key.get(graph.averages[ref.key], average_of)
        elif graph and ref.key in graph.slots:
            slot_of, average_of = by_key.get(graph.slots[ref.key], slot_of or ""), None
        known = slot_of is not None or average_of is not None
        marked[name] = replace(ref, slot_of=slot_of, average_of=average_of) if known else ref
    return marked


def _slot_of(ref: TensorRef, variables: Mapping[str, TensorRef], optimizers: set[str]) -> str | None:
    if _TF2_SLOT in ref.name:
        return None if ref.name.endswith(f"/{AVERAGE}") else ref.name.rpartition(_TF2_SLOT)[0]
    owner, _, last = ref.name.rpartition("/")
    if ref.shape == () and (_COUNTER.fullmatch(last) or _is_tf2_counter(owner, last, optimizers)):
        return ""
    if _SLOT.fullmatch(last):
        return _owner(owner, variables, ref.shape)
    if _FACTORED.fullmatch(last):
        return _owner(owner, variables, ref.shape, factored=True)
    if suffix := _FACTORED_SUFFIX.search(ref.name):
        return _owner(ref.name[: suffix.start()], variables, ref.shape, factored=True)
    return None


def _average_of(ref: TensorRef, variables: Mapping[str, TensorRef]) -> str | None:
    if _TF2_SLOT in ref.name:
        return ref.name.rpartition(_TF2_SLOT)[0] if ref.name.endswith(f"/{AVERAGE}") else None
    owner, _, last = ref.name.rpartition("/")
    return _owner(owner, variables, ref.shape) if _AVERAGE.fullmatch(last) else None


def _owner(name: str, variables: Mapping[str, TensorRef], shape: Shape, factored: bool = False) -> str | None:
    """The variable of that name and shape; optimizers may live in a scope, which stands before its whole name."""
    parts = name.split("/", _MAX_SCOPE)
    for start in range(len(parts)):
        variable = variables.get("/".join(parts[start:]))
        if variable is not None and (variable.shape == shape or (factored and _lacks_an_axis(shape, variable.shape))):
            return variable.name
    return None


def _lacks_an_axis(shape: Shape, whole: Shape) -> bool:
    return len(shape) + 1 == len(whole) and any(shape == whole[:i] + whole[i + 1 :] for i in range(len(whole)))


def _is_tf2_counter(owner: str, last: str, optimizers: set[str]) -> bool:
    if _TF2_COUNTER.fullmatch(last):
        return owner in optimizers
    optimizer, _, part = owner.rpartition("/")
    return f"{part}/{last}" in _LOSS_SCALE and optimizer in optimizers
