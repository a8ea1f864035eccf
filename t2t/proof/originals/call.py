"""An original that is a function of somebody's: it takes the checkpoint's path and gives what runs the model."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from . import walk
from .original import Array, Original, OriginalFailedError, Request, named

#: Frames of Python's own and of this package are not where a person looks for a mistake.
NOT_THEIRS = frozenset({__name__.partition(".")[0]}) | sys.stdlib_module_names


@contextmanager
def call(request: Request) -> Iterator[Original]:
    """
    `function(checkpoint) -> run`, `run(inputs) -> outputs`: arrays by name on both sides.

    The function is called anew for each draw; `run` once for each step.
    """
    path = request["path"]
    # At the end, so that a `tensorflow.py` in the current directory never stands in for the real one.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    function = _found(path, request["allow_import"])
    running: list[Any] = []

    def restart() -> None:
        running[:] = [_called(f"{path} failed", function, request["checkpoint"])]
        if not callable(running[0]):
            kind = type(running[0]).__name__
            raise OriginalFailedError("run", f"{path} returned {kind}, not a function that runs the model")

    def compute(given: dict[str, Array]) -> Any:
        own = {request["feed"][name]: array for name, array in given.items()}
        return _called(f"what {path} returned failed", running[0], own)

    def run(given: dict[str, Array]) -> dict[str, Array]:
        computed = compute(given)
        if not isinstance(computed, Mapping):
            kind = type(computed).__name__
            raise OriginalFailedError("run", f"what {path} returned computes {kind}, not arrays by name")
        for name, own in request["fetch"].items():
            named("fetch", name, own, map(str, computed), f"what {path} returned computes no")
        return {name: np.asarray(computed[own]) for name, own in request["fetch"].items()}

    restart()
    layers, named_tensors = partial(walk.layers, compute), partial(walk.named, compute)
    yield Original(run, restart, _versions(), (), layers, named_tensors)


def _versions() -> dict[str, str]:
    """Of the libraries that the function works with, as far as it has imported them by now."""
    known = ("tensorflow", "tf_keras", "keras", "torch", "jax", "onnxruntime")
    versions = {name: getattr(sys.modules.get(name), "__version__", None) for name in known}
    return {name: str(version) for name, version in versions.items() if version}


def _found(path: str, allow_import: list[str]) -> Any:
    name, _, attributes = path.partition(":")
    found = _called(f"{path} cannot be imported", importlib.import_module, name)
    for attribute in attributes.split("."):
        inner = _called(f"{path} cannot be found", getattr, found, attribute)
        # `allowed.module:os.system` would otherwise lead out of what is allowed.
        if isinstance(inner, ModuleType) and allow_import and not _is_under(inner.__name__, allow_import):
            message = f"{path} may not be imported: {inner.__name__} is not under {', '.join(allow_import)}"
            raise OriginalFailedError("import", message, f"--allow-import {inner.__name__} allows it")
        found = inner
    if not callable(found):
        raise OriginalFailedError("run", f"{path} is a {type(found).__name__}, not a function")
    return found


def _is_under(module: str, prefixes: list[str]) -> bool:
    return any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes)


def _called(subject: str, function: Any, *arguments: Any) -> Any:
    """What the function returns; its errors are told with the innermost line that is not a library's."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        place = ""
        for frame, line in traceback.walk_tb(error.__traceback__):
            file, package = frame.f_code.co_filename, str(frame.f_globals.get("__name__")).partition(".")[0]
            if package not in NOT_THEIRS and "site-packages" not in file:
                place = f"{file}:{line}: "
        text = " ".join(str(error).split())
        raise OriginalFailedError("run", f"{subject}: {place}{type(error).__name__}: {text}") from error
