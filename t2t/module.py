"""
The torch module: built without computing its weights, listed, filled.

    build("mappings.modules.madry:Madry", {})    -> Built: a module whose parameters have shapes and no values
    inventory(built.module)                      -> what its state_dict holds
    assign(built.module, tensors)                -> the same module, filled

`assign` serves a module that was just built, `copy_into` one that is already in use. Both check everything before they
write anything, and neither broadcasts, casts or leaves a tensor on the meta device.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import safetensors
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode

from t2t.names import did_you_mean, shown
from t2t.problems import Location, ModuleError, Problem, UsageError
from t2t.tensors import DTYPES, ModuleInventory, ParameterRef
from t2t.usercode import argument, cause, failed, is_theirs, resolve, undisturbed


@dataclass(frozen=True, slots=True)
class Built:
    """A module that was just built; `assign` fills it, wherever its parameters are."""

    module: nn.Module
    on_meta: bool  # some parameter has a shape and no values yet
    notes: tuple[Problem, ...] = ()


def build(
    model: str,
    arguments: Mapping[str, object],
    *,
    at: Location | None = None,
    allow_import: Sequence[str] = (),
    weights: bool = False,
    seed: int = 0,
) -> Built:
    """
    Build the module that `model` names with keyword `arguments`, its parameters on the meta device where that works.

    A parameter goes to meta when it is registered; buffers, plain tensors and everything else in the constructor are
    real. A constructor that needs its parameters' values runs a second time, with them, and a note (T2T706) says why.
    `weights=True` asks for that at once. Generators start from `seed` and are put back afterwards: the same call gives
    the same buffers. `arguments` may hold `{"new": path, "with": {...}}` and `{"get": path}` at any depth.

    Raises ModuleError (T2T701 to T2T703, T2T705).
    """
    maker = resolve(model, at, allow_import)
    if isinstance(maker, type) and not issubclass(maker, nn.Module):
        message = f"{shown(model)} is not a torch.nn.Module"
        raise ModuleError(Problem("T2T702", message, at, "name a module's class, or a function that returns one"))

    def construct() -> nn.Module:
        with undisturbed():
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            module = maker(**{name: argument(value, at, allow_import) for name, value in arguments.items()})
        if isinstance(module, nn.Module):
            return module
        message = f"{shown(model)} returns a {type(module).__name__}, not a torch.nn.Module"
        raise ModuleError(Problem("T2T702", message, at))

    try:
        with contextlib.nullcontext(str) if weights else _parameters_on_meta() as doubt:
            module = construct()
        built = Built(module, any(parameter.is_meta for parameter in module.parameters()))
        reason = "" if weights else _needs_weights(module) or doubt()
    except ModuleError:
        raise
    except BaseException as error:
        if not is_theirs(error):
            raise
        if weights:
            raise failed("T2T703", f"{shown(model)} cannot be built", error, at) from error
        reason = cause(error)
    if not reason:
        return built
    note = Problem("T2T706", f"{shown(model)} was built with its weights: {reason}", at, severity="note")
    built = build(model, arguments, at=at, allow_import=allow_import, weights=True, seed=seed)
    return Built(built.module, built.on_meta, notes=(note,))


#: Fills with random numbers. Their meta versions are written in Python: the first call imports sympy, for seconds.
_FILLS = frozenset(
    getattr(home, name)
    for home in (torch.Tensor, nn.init)
    for name in ("uniform_", "normal_", "random_", "exponential_", "kaiming_uniform_", "constant_")
    if hasattr(home, name)
)


class _WithoutValues(TorchFunctionMode):
    """
    Leaves out what would fill a tensor that has no values; `needed` says what else asks for values, or "".

    The constructor may catch the error, or there is none: functional.linear(real, meta) is real, and not initialised.
    """

    needed = ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            tensor = args[0] if args else kwargs["tensor"]  # nn.init passes everything by name
            if tensor.is_meta:
                return tensor
        on_meta = {tensor.is_meta for tensor in _tensors_in(args, kwargs)}
        if True not in on_meta:
            return func(*args, **kwargs)
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            self.needed = self.needed or f"its constructor catches {cause(error)}"
            raise
        written = _tensors_in(args[:1] if result is None else result)  # x[0] = y returns None
        if func is torch.Tensor.data_ptr or (False in on_meta and not all(tensor.is_meta for tensor in written)):
            self.needed = self.needed or "its constructor computes with the content of a parameter"
        return result


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[Callable[[], str]]:
    """
    Move each Parameter to the meta device as a module registers it.

    The object stays the same and changes its content (`swap_tensors`). Replacing it, with a memory of which one became
    which, would keep ties between modules too, but not what the constructor holds elsewhere: a list of weights, a
    closure. `param.data = ...` cannot cross from CPU to meta. The hook is torch's own and global, hence the thread's
    id: what other threads build meanwhile is none of our business.

    Gives a function that says, when the module is built, what its constructor did that only values allow, or "". It may
    hold a parameter's memory elsewhere (two Parameters, a buffer or an alias over one tensor), which meta takes apart.
    """
    builder = threading.get_ident()
    memory: dict[int, tuple[str, Any]] = {}  # torch types nothing of StorageWeakRef, which holds no memory
    shared: list[str] = []
    mode = _WithoutValues()

    def move(_: nn.Module, name: str, parameter: nn.Parameter) -> None:
        # Other devices are the constructor's wish. The inventory refuses the rest: other classes (lazy, quantised),
        # other layouts, and what is expanded, which meta would give memory for each of its elements.
        if threading.get_ident() == builder and type(parameter) is nn.Parameter and parameter.device.type == "cpu":
            if parameter.layout is not torch.strided or _is_expanded(parameter):
                return
            held: Any = StorageWeakRef(parameter.untyped_storage())  # type: ignore[no-untyped-call]
            if held.cdata in memory and not memory[held.cdata][1].expired():
                shared.append(name)
            memory[held.cdata] = name, held
            _swap(parameter, _fresh(parameter, torch.empty_like(parameter, device="meta")))

    def doubt() -> str:
        for name in [*shared, *(name for name, held in memory.values() if not held.expired())]:
            return f"something else holds the memory of {shown(name)}"
        return mode.needed

    with register_module_parameter_registration_hook(move), mode:
        yield doubt


def _swap(parameter: nn.Parameter, fresh: nn.Parameter) -> None:
    """Give the Parameter the content of a fresh one; the object stays. RuntimeError where that cannot be."""
    torch.utils.swap_tensors(parameter, fresh)  # type: ignore[no-untyped-call]


def _fresh(parameter: nn.Parameter, content: torch.Tensor) -> nn.Parameter:
    """Another Parameter with this content, and with requires_grad and the attributes that somebody set."""
    fresh = nn.Parameter(content.detach(), requires_grad=parameter.requires_grad)
    vars(fresh).update(vars(parameter))
    return fresh


def _needs_weights(module: nn.Module) -> str:
    """Why a module built on meta is not what its constructor meant, or ""."""
    if left := next(_left_on_meta(module), None):
        return f"{shown(left)} is computed from a parameter"
    for name, parameter in module.named_parameters():
        # A new content has no hooks: a mask on a gradient would be lost without a word.
        if parameter.is_meta and (parameter._backward_hooks or parameter._post_accumulate_grad_hooks):
            return f"{shown(name)} has a hook"
    for name, part in module.named_modules():
        # C++ holds a ScriptModule's weights; a parametrization swallows what fails on meta, and then lacks buffers.
        if isinstance(part, torch.jit.ScriptModule | ParametrizationList):
            return f"{shown(name)} is a {type(part).__name__}"
    return ""


def _left_on_meta(module: nn.Module) -> Iterator[str]:
    """Names of buffers and plain attributes that are or hold a tensor on meta, the module's parameters not counted."""
    parameters = {id(parameter) for parameter in module.parameters()}
    for prefix, part in module.named_modules():
        for name, value in {**part._buffers, **vars(part)}.items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            if any(tensor.is_meta and id(tensor) not in parameters for tensor in _tensors_in(value)):
                yield f"{prefix}.{name}" if prefix else name


def _tensors_in(*values: object) -> Iterator[torch.Tensor]:
    """The tensors among these and inside them, at any depth, cycles or not. No code of theirs runs."""
    waiting, seen = [*values], set[int]()
    while waiting:
        value = waiting.pop()
        kind = type(value)  # isinstance would ask for value.__class__, which may be a property
        if issubclass(kind, torch.Tensor):
            yield cast(torch.Tensor, value)
        # A module in a plain list, too: its parameters are in no state_dict.
        elif issubclass(kind, dict | list | tuple | set | frozenset | nn.Module) and id(value) not in seen:
            seen.add(id(value))
            waiting += gc.get_referents(value)


def inventory(module: nn.Module, at: Location | None = None) -> ModuleInventory:
    """
    What the module's state_dict holds, in its order. No value is read.

    Raises ModuleError (T2T704) with every entry that t2t cannot fill.
    """
    try:
        with undisturbed():  # a module may have its own, and hooks in it
            registered: dict[str, torch.Tensor] = dict(module.named_buffers(remove_duplicate=False))
            registered.update(module.named_parameters(remove_duplicate=False))
            entries: dict[str, object] = {str(k): entry for k, entry in module.state_dict(keep_vars=True).items()}
    except BaseException as error:
        if not is_theirs(error):
            raise
        raise failed("T2T704", "the module's state_dict cannot be read", error, at) from error
    problems = []
    refs: dict[str, ParameterRef] = {}
    firsts: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, entry in entries.items():
        if not isinstance(entry, torch.Tensor) or entry is not registered.get(name):
            problems.append(_refused(name, "is made by its state_dict and is neither a parameter nor a buffer", at))
        elif problem := _refusal(name, entry, at):
            problems.append(problem)
        else:
            kind: Literal["parameter", "buffer"] = "parameter" if isinstance(entry, nn.Parameter) else "buffer"
            first = firsts.setdefault(id(entry), name)
            refs[name] = ParameterRef(name, _dtype(entry), tuple(entry.shape), kind, None if first == name else first)
            tensors[first] = entry
    for name, tensor in registered.items():
        if name in entries:
            continue
        if isinstance(tensor, nn.Parameter):
            problems.append(_refused(name, "is a parameter that its state_dict leaves out", at))
        elif tensor.is_meta:
            problems.append(_refused(name, "is a buffer on the meta device and outside the state_dict", at))
    problems += _overlaps(tensors, at)
    if problems:
        raise ModuleError(problems)
    return ModuleInventory(refs)


def _refused(name: str, fact: str, at: Location | None, hint: str = "") -> Problem:
    return Problem("T2T704", f"{shown(name)} {fact}", at, hint)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refusal(name: str, tensor: torch.Tensor, at: Location | None) -> Problem | None:
    """Why this parameter or buffer cannot be filled, None where it can."""
    if is_lazy(tensor):
        return _refused(name, "has no shape before the first forward pass", at, "give the lazy layer its sizes")
    if type(tensor) not in (torch.Tensor, nn.Parameter):
        return _refused(name, f"is a {type(tensor).__name__}, not a plain tensor", at)
    if tensor.is_nested:
        return _refused(name, "is nested, not a plain tensor", at)
    if tensor.is_quantized or tensor.layout is not torch.strided:
        kind = "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        return _refused(name, f"is {kind}, not a plain tensor", at)
    if (dtype := DTYPES.get(_dtype(tensor))) is None or dtype.kind == "other":
        return _refused(name, f"has dtype {_dtype(tensor)}, which t2t does not write", at)
    if tensor.is_meta and not isinstance(tensor, nn.Parameter):
        return _refused(name, "is a buffer that the constructor leaves on the meta device", at)
    if _is_expanded(tensor):
        hint = "use .clone() where the constructor expands it"
        return _refused(name, f"is expanded: shape {list(tensor.shape)} lies in less memory", at, hint)
    return None


def _is_expanded(tensor: torch.Tensor) -> bool:
    """Whether several elements of a plain tensor lie at one place."""
    # Sorted by stride, every axis has to step over all that the axes before it span.
    span = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and tensor.numel():
            if stride < span:
                return True
            span = stride * (size - 1) + span
    return False


def _overlaps(tensors: Mapping[str, torch.Tensor], at: Location | None) -> Iterator[Problem]:
    """Different tensors over the same memory: whichever is written last would win."""
    spans: dict[torch.UntypedStorage, list[tuple[int, int, str]]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
            start, width = int(tensor.storage_offset()), tensor.element_size()
            span = (start * width, (start + int(last) + 1) * width, name)
            spans.setdefault(tensor.untyped_storage(), []).append(span)
    for found in spans.values():
        for (_, end, name), (start, _, other) in itertools.pairwise(sorted(found)):
            if start < end:
                hint = "tie them by assigning the Parameter itself"
                yield _refused(other, f"shares memory with {shown(name)} and is another object", at, hint)


def assign(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """
    Fill a module that was just built; `tensors` holds every name of its state_dict, tied names with equal values.

    A parameter on meta takes the tensor over, without a copy, and stays the same object under every name and in every
    list; what has memory already (buffers, a module built with its weights) is copied into. Non-persistent buffers are
    not touched. Raises ModuleError (T2T404, T2T704) before anything is written, but for a tensor that stays on meta
    because the constructor hid it.
    """
    targets = _checked(module, tensors, complete=True)
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    with torch.no_grad():
        for target, value in targets:
            if isinstance(target, nn.Parameter) and target.is_meta:
                _materialise(module, names[id(target)], target, value)
            else:
                target.copy_(value)
    if problems := [_refused(name, "is still on the meta device", None) for name in _left_on_meta(module)]:
        raise ModuleError(problems)


def _materialise(module: nn.Module, names: Sequence[str], parameter: nn.Parameter, value: torch.Tensor) -> None:
    fresh = _fresh(parameter, value)
    try:
        _swap(parameter, fresh)
    except RuntimeError:
        # nn.RNNBase holds weak references, which swap_tensors refuses. A new object goes to every owner: nn.RNNBase
        # hears of it in __setattr__ and renews its flat weights, and who doesn't hear is found when all are filled.
        for name in names:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, fresh)


def copy_into(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """
    Copy values into a module that is in use: strides, device, dtype, requires_grad and ties stay, no hook runs.

    A name that `tensors` lacks keeps its values. Raises ModuleError (T2T404, T2T704) before anything is written.
    """
    with torch.no_grad():
        for target, value in _checked(module, tensors, complete=False):
            target.copy_(value)


def _checked(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], complete: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each distinct parameter or buffer with its value, or every reason why there is none."""
    refs = inventory(module).parameters
    entries = module.state_dict(keep_vars=True)
    values: dict[str, torch.Tensor] = {}
    problems = [_refused(name, "has no tensor to fill it", None) for name in refs if complete and name not in tensors]
    for name, value in tensors.items():
        if name not in refs:
            problems.append(_refused(name, "is not in the module's state_dict", None, did_you_mean(name, refs)))
            continue
        target, first = entries[name], refs[name].tied_to or name
        mine, given = (f"{_dtype(tensor)} {list(tensor.shape)}" for tensor in (target, value))
        if mine != given:
            fact = f"is {mine}, but its tensor is {given}"
            problems.append(_refused(name, fact, None, "nothing is broadcast or cast here"))
        elif value.is_meta or (target.is_meta and not complete):
            problems.append(_refused(name, "cannot be copied: one side is on the meta device", None))
        elif target.is_inference() and not torch.is_inference_mode_enabled():
            problems.append(_refused(name, "was made in inference mode and cannot be written outside", None))
        elif not _same_bytes(values.setdefault(first, value), value):
            message = f"{shown(name)} and {shown(first)} are one tensor of the module, but their values differ"
            problems.append(Problem("T2T404", message))
    if problems:
        raise ModuleError(problems)
    return [(entries[name], value) for name, value in values.items()]


def _same_bytes(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Equal as bytes, where a NaN equals itself."""
    if one is two:
        return True
    first, second = (tensor.detach().reshape(-1).contiguous().view(torch.uint8) for tensor in (one, two))
    return torch.equal(first, second)


def to_torch(array: np.ndarray, dtype: str) -> torch.Tensor:
    """
    The array as a tensor of the same shape and `dtype` (a name of t2t.tensors.DTYPES, and the array's own).

    It shares the array's memory, unless that is read-only: torch has no read-only tensors, and a write to a mapped file
    would end the process. Negative strides, which torch doesn't have either, are copied too.
    """
    numpy = DTYPES[dtype].numpy
    assert numpy is not None
    assert array.dtype == numpy, (array.dtype, dtype)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    if numpy.isbuiltin != 1:
        # numpy knows bfloat16 and the float8s from ml_dtypes only, and torch.from_numpy doesn't know them.
        array = array.view(f"u{numpy.itemsize}")
    return torch.from_numpy(array).view(getattr(torch, dtype))


def check_device(device: str) -> None:
    """Raises UsageError (T2T001) where torch has no such device, and for meta."""
    try:
        tensor = torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        text = str(error).strip().splitlines()[0].split(". ")[0]
        message = f"device {shown(device)} cannot be used: {shown(text)}"
        hint = "leave it out to use the CPU, or install a torch that has it"
        raise UsageError(Problem("T2T001", message, None, hint)) from None
    if tensor.is_meta:
        raise UsageError(Problem("T2T001", f"device {shown(device)} holds no values"))


def values(module: nn.Module, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values that these entries of the state_dict have now, as arrays that share their memory."""
    entries = module.state_dict() if names else {}
    return {name: _to_numpy(entries[name].cpu()) for name in names}


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    numpy = DTYPES[_dtype(tensor)].numpy
    assert numpy is not None
    tensor = tensor.contiguous()
    if numpy.isbuiltin == 1:
        return tensor.numpy()
    return tensor.view(getattr(torch, f"uint{8 * numpy.itemsize}")).numpy().view(numpy)


def read_file(path: str, format: str = "safetensors") -> dict[str, torch.Tensor]:  # noqa: A002 - the mapping's word
    """
    The tensors of a file that a writer has just written, over a map of it: nothing is copied before it is used.

    Of shards, `path` is their index, beside which they lie. A pt file is read by torch's restricted unpickler, and is
    known to be what t2t wrote: none is read from anybody else.
    """
    if format == "pt":
        tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return tensors
    if not path.endswith(".index.json"):
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    with open(path, "rb") as index:
        weight_map: dict[str, str] = json.load(index)["weight_map"]
    shards = {name: read_file(os.path.join(os.path.dirname(path), name)) for name in set(weight_map.values())}
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def cast_like(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors in the dtypes that the module has under their names; those that have it already as they are."""
    entries = module.state_dict()
    return {name: tensor.to(entries[name].dtype) for name, tensor in tensors.items()}
