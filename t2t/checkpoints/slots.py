"""
Which variables belong to an optimizer, by the conventions of those who wrote the checkpoint.

A slot holds something about one variable (a moment, an accumulator), a counter something about the training as a whole.
Only what cannot be anything else is recognised: a mapping says `slots: true` for all of it without a look at each.

    w/Adam, w/Adam_1, w/adam_m         TF1: V/<slot>[_n] with V's shape, also behind a scope (training/w/Adam)
    beta1_power, x/beta2_power_1       TF1: counters
    w/.OPTIMIZER_SLOT/optimizer/m      TF2: slots
    optimizer/iter, optimizer/beta_1   TF2 and Keras 3: counters, below an optimizer

Not slots: an average of a variable (it may well be what is wanted), `global_step` and `save_counter`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from t2t.tensors import TensorRef

_SLOT = re.compile(
    "(?:Adam|AdamW|AdaMax|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl|adam_[mv]|lamb_[mv]|lars_[mv])(?:_[0-9]+)?"
)
_COUNTER = re.compile("beta[12]_power(?:_[0-9]+)?")
_TF2_SLOT = "/.OPTIMIZER_SLOT/"
_TF2_COUNTER = re.compile("iter|_iterations|beta_1|beta_2|decay|_?learning_rate|momentum|rho|epsilon")
_LOSS_SCALE = ("loss_scale/current_loss_scale", "loss_scale/good_steps")

#: An optimizer's scope has at most this many parts. A name can have very many, and each would be tried.
_MAX_SCOPE = 8


def with_slots(variables: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    """The same variables in the same order, `slot_of` set where one is a slot or a counter."""
    optimizers = {"optimizer"} | {
        name.rpartition(_TF2_SLOT)[2].rpartition("/")[0] for name in variables if _TF2_SLOT in name
    }
    marked = {}
    for name, ref in variables.items():
        slot_of = _slot_of(ref, variables, optimizers)
        marked[name] = ref if slot_of is None else replace(ref, slot_of=slot_of)
    return marked


def _slot_of(ref: TensorRef, variables: Mapping[str, TensorRef], optimizers: set[str]) -> str | None:
    if _TF2_SLOT in ref.name:
        return ref.name.rpartition(_TF2_SLOT)[0]
    owner, _, last = ref.name.rpartition("/")
    if ref.shape == () and (_COUNTER.fullmatch(last) or _is_tf2_counter(owner, last, optimizers)):
        return ""
    if _SLOT.fullmatch(last):
        # Optimizers may live in a scope of their own, which then stands before the variable's whole name.
        parts = owner.split("/", _MAX_SCOPE)
        for start in range(len(parts)):
            variable = variables.get("/".join(parts[start:]))
            if variable is not None and variable.shape == ref.shape:
                return variable.name
    return None


def _is_tf2_counter(owner: str, last: str, optimizers: set[str]) -> bool:
    if _TF2_COUNTER.fullmatch(last):
        return owner in optimizers
    optimizer, _, part = owner.rpartition("/")
    return f"{part}/{last}" in _LOSS_SCALE and optimizer in optimizers
