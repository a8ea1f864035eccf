"""
The code that a mapping names: found by its import path, and run without disturbing the process.

This is the only code of a stranger's that ever runs in t2t's own process, and only for `convert`, `load` and `verify`.
`--allow-import` limits what may be found. What it prints goes to stderr, and what it changes about the process is put
back; its errors are told with the line of theirs that failed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

import numpy as np
import torch

from t2t.names import did_you_mean, shown
from t2t.problems import Location, ModuleError, Problem

#: Frames of these packages, and of Python's own, are not where a person looks for a mistake.
_NOT_THE_USERS = frozenset({"torch", "t2t"}) | sys.stdlib_module_names


def resolve(model: str, at: Location | None, allow_import: Sequence[str] = ()) -> Callable[..., object]:
    """
    The class or function that `package.module:attribute` names; importing it runs its file.

    The current directory is importable, after everything else on sys.path, and stays so: a module may import more
    when it runs. Raises ModuleError (T2T701, T2T702, T2T705).
    """
    found = _attribute(model, at, allow_import)
    if callable(found) and not isinstance(found, torch.nn.Module):
        return found
    raise ModuleError(Problem("T2T702", f"{shown(model)} is a {type(found).__name__}, not a class or function", at))


def _attribute(path: str, at: Location | None, allow_import: Sequence[str]) -> object:
    """What `package.module:attribute` names, whatever it is."""
    name, colon, attributes = path.partition(":")
    if not (colon and all(part.isidentifier() for part in (*name.split("."), *attributes.split(".")))):
        message = f"{shown(path)} is not an import path"
        raise ModuleError(Problem("T2T701", message, at, "write package.module:attribute"))
    _check_allowed(name, path, at, allow_import)
    found: object = _imported(name, path, at)
    for attribute in attributes.split("."):
        # Looking up an attribute can run code too: some packages import their parts that way.
        try:
            with undisturbed():
                inner = getattr(found, attribute)
        except AttributeError:
            # The file, because a module of that name may be another one than the user meant.
            file = f" in {found.__file__}" if isinstance(found, ModuleType) and found.__file__ else ""
            message = f"{shown(path)} cannot be found: there is no attribute {shown(attribute)}{file}"
            raise ModuleError(Problem("T2T702", message, at, did_you_mean(attribute, dir(found)))) from None
        except BaseException as error:
            if not is_theirs(error):
                raise
            raise failed("T2T701", f"{shown(path)} cannot be imported", error, at) from error
        if isinstance(inner, ModuleType):
            # `allowed.module:os.system` would otherwise lead out of what is allowed.
            _check_allowed(inner.__name__, path, at, allow_import)
        found = inner
    return found


def _check_allowed(module: str, path: str, at: Location | None, allow_import: Sequence[str]) -> None:
    if allow_import and not any(f"{module}.".startswith(f"{prefix}.") for prefix in allow_import):
        allowed = ", ".join(shown(prefix) for prefix in allow_import)
        message = f"{shown(path)} may not be imported: {shown(module)} is not under {allowed}"
        raise ModuleError(Problem("T2T705", message, at, f"--allow-import {shown(module)} allows it"))


def _imported(name: str, path: str, at: Location | None) -> ModuleType:
    # At the end, so that a `yaml.py` in the current directory never stands in for the real one.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    try:
        with undisturbed():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise failed("T2T701", f"{shown(path)} cannot be imported", error, at) from error
        message = f"{shown(path)} cannot be imported: there is no module {shown(error.name)}"
        hint = "run t2t in the directory that it can be imported from, or name that directory in PYTHONPATH"
        raise ModuleError(Problem("T2T701", message, at, hint)) from error
    except BaseException as error:
        if not is_theirs(error):
            raise
        raise failed("T2T701", f"{shown(path)} cannot be imported", error, at) from error


def is_theirs(error: BaseException) -> bool:
    """
    Whether the user's code failed. A SystemExit is no wish of t2t's, a panic of a library in Rust no Exception.

    It is not where somebody interrupts t2t meanwhile, or where t2t itself ends what is under way.
    """
    ours = isinstance(error, KeyboardInterrupt) or type(error).__module__.partition(".")[0] == "t2t"
    return isinstance(error, Exception) or not ours


def failed(code: str, subject: str, error: BaseException, at: Location | None, hint: str = "") -> ModuleError:
    """The error of the user's code as a problem about `subject`."""
    return ModuleError(Problem(code, f"{subject}: {cause(error)}", at, hint))


def cause(error: BaseException) -> str:
    """`file:line: ValueError: text`, where file:line is the innermost line that is not of a package or of Python."""
    place, text = "", str(error)
    if isinstance(error, SyntaxError):
        # Of a file with NUL bytes not even the name is told.
        place, text = "".join(f"{part}:" for part in (error.filename, error.lineno) if part), error.msg
        place += " " if place else ""
    else:
        for frame, line in traceback.walk_tb(error.__traceback__):
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if package not in _NOT_THE_USERS and "site-packages" not in frame.f_code.co_filename:
                place = f"{frame.f_code.co_filename}:{line}: "
    text = " ".join(text.split())
    return f"{place}{type(error).__name__}{': ' if text else ''}{shown(text)}"


def argument(value: object, at: Location | None, allow_import: Sequence[str]) -> object:
    """An argument as the constructor gets it: `new` constructed, `get` fetched, lists and mappings inside out."""
    if isinstance(value, Mapping):
        if value.keys() == {"get"}:
            return _attribute(str(value["get"]), at, allow_import)
        if "new" in value and value.keys() <= {"new", "with"}:
            path = str(value["new"])
            made = _attribute(path, at, allow_import)
            if not isinstance(made, type):
                hint = "new: names a class, get: anything else"
                raise ModuleError(Problem("T2T702", f"new: {shown(path)} is not a class", at, hint))
            return made(**{k: argument(v, at, allow_import) for k, v in value.get("with", {}).items()})
        return {k: argument(v, at, allow_import) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [argument(item, at, allow_import) for item in value]
    return value


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """
    Run the user's code: what it prints goes to stderr, and the process's state is put back afterwards.

    That is: current directory, warnings filters, generators, how numpy takes errors, torch's default dtype, default
    device and grad mode.
    """
    directory, python, numpy = os.getcwd(), random.getstate(), np.random.get_state()
    dtype, device, grad = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    # Asking for the states of CUDA's generators would start CUDA.
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with (
        warnings.catch_warnings(),
        np.errstate(),
        contextlib.redirect_stdout(sys.stderr),
        torch.random.fork_rng(devices=cuda),
    ):
        try:
            yield
        finally:
            os.chdir(directory)
            torch.set_default_dtype(dtype)
            if torch.get_default_device() != device:
                torch.set_default_device(None if device.type == "cpu" else device)
            torch.set_grad_enabled(grad)
            random.setstate(python)
            np.random.set_state(numpy)
