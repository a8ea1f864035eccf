"""
In which dtype a comparison runs, and how far its outputs may then be from TensorFlow's.

The original computed in float32. A module in float32 or float64 has to agree with it as closely as `verify` says; a
narrower dtype rounds every weight, every input and every result, so it has a bound of its own. That bound is for the
comparison in that dtype alone: nothing that is proven without `dtype` becomes easier to prove.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from t2t.names import did_you_mean, shown
from t2t.problems import MappingError, Problem, UsageError
from t2t.verification import Verify

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Precision:
    """
    One dtype of the comparison. `roundoff` is its unit roundoff: the largest relative error of rounding one number,
    half the distance from 1 to the next (Higham, Accuracy and Stability of Numerical Algorithms, 2.1).

    `rel` is the tolerance, relative to max|TF|, that holds unless `verify` allows more; None leaves it to `verify`.
    """

    roundoff: float
    rel: float | None
    reason: str


#: Every dtype that a comparison runs in. A network rounds in every layer, and the errors add up: a narrow dtype gets 16
#: roundoffs, where networks that are right in float32 came to 9 (bfloat16) and 13 (float16); docs/proof.md has them.
#: TF32 is no dtype: it is float32 whose products have a roundoff of 2^-11, and would fail what float32 proves.
#: `full_float32` keeps it out.
PRECISIONS = {
    "float64": Precision(2**-53, None, "the original's own float32 is what differs"),
    "float32": Precision(2**-24, None, "the original's dtype: both sides round alike, in another order"),
    "bfloat16": Precision(
        2**-8, 6e-2, "16 roundoffs: weights, inputs and each layer's result lose 16 of float32's bits"
    ),
    "float16": Precision(2**-11, 8e-3, "16 roundoffs: they lose 13 bits, and what is above 65504 altogether"),
}

#: How torch says that an operation exists, but not in this dtype.
_NO_KERNEL = ("not implemented for", "unsupported dtype", "dtypes not supported", "not supported for")


def check_dtype(dtype: str) -> None:
    """Raises UsageError (T2T001) for what no comparison runs in."""
    if dtype not in PRECISIONS:
        hint = did_you_mean(dtype, PRECISIONS) or f"dtypes are {', '.join(PRECISIONS)}"
        raise UsageError(Problem("T2T001", f"dtype {shown(dtype)}: no comparison runs in it", None, hint))


def tolerant(verify: Verify, dtype: str) -> Verify:
    """The section with the tolerance of this dtype, where its own is less."""
    rel = PRECISIONS[dtype].rel
    return verify if rel is None else replace(verify, rel=max(rel, verify.rel))


def cast(module: nn.Module, dtype: str, verify: Verify) -> None:
    """
    Gives the module's parameters and buffers this dtype, if they are floating; integers and complex numbers stay.

    Raises MappingError (T2T402), before anything is cast, for values that the dtype cannot hold.
    """
    import torch

    wanted: torch.dtype = getattr(torch, dtype)
    problems = []
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not tensor.is_floating_point() or torch.finfo(tensor.dtype).max <= torch.finfo(wanted).max:
            continue
        values = tensor.detach()
        lost = values.isfinite() & ~values.to(wanted).isfinite()
        if count := int(lost.sum()):
            largest = float(values[lost].abs().max())
            message = (
                f"{shown(name)}: {dtype} cannot hold {count} of {values.numel()} values, the largest is {largest:.6g}"
            )
            hint = "compare in bfloat16, which has float32's range" if dtype == "float16" else "leave --dtype out"
            problems.append(Problem("T2T402", message, verify.at, hint))
    if problems:
        raise MappingError(problems)
    # module.to(dtype) would take complex numbers' imaginary parts.
    {"float64": module.double, "float32": module.float, "bfloat16": module.bfloat16, "float16": module.half}[dtype]()


def hint(error: BaseException, dtype: str, device: str) -> str:
    """What to do about a forward() that failed in this dtype: the operation that fails stands in `error`."""
    if any(text in str(error).lower() for text in _NO_KERNEL):
        return f"this operation has no {dtype} kernel on {device}: compare in another dtype, or leave --dtype out"
    return (
        f"--dtype casts parameters, buffers and inputs to {dtype}, and no tensor that forward() makes or finds "
        "elsewhere: if it runs without --dtype, give those the dtype of what they meet"
    )


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """
    Multiplies float32 in float32: neither in TF32 (which cuDNN's convolutions use unless told otherwise) nor, on a CPU,
    in bfloat16. Afterwards all is as it was.
    """
    flags = [(put, get(), off) for get, put, off in _flags()]
    try:
        for put, _, off in flags:
            put(off)
        yield
    finally:
        for put, before, _ in flags:
            put(before)


Flag = tuple[Callable[[], Any], Callable[[Any], Any], Any]


def _flags() -> list[Flag]:
    """
    What says how float32 is multiplied: how to ask for it, how to set it, and its strict value.

    torch 2.9 has a flag for each kind of operation beside the older two. Who sets one of the new ones gets errors from
    asking for the old ones; who sets none may still get them from a mixture that is ours. So the old ones come first.
    """
    import torch
    from torch import backends

    def flag(owner: Any, name: str, strict: object) -> Flag:
        return lambda: getattr(owner, name), lambda value: setattr(owner, name, value), strict

    older = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        flag(backends.cudnn, "allow_tf32", False),
    ]
    try:
        for get, _, _ in older:
            get()
    except RuntimeError:
        parts = [(backends.cuda, "matmul"), (backends.cudnn, "conv"), (backends.cudnn, "rnn")]
        parts += [(backends.mkldnn, name) for name in ("matmul", "conv", "rnn")]
        return [flag(getattr(owner, name), "fp32_precision", "ieee") for owner, name in parts]
    return older
