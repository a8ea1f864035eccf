"""What every kind of original is to the one who runs it, and how it fails."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Request = dict[str, Any]


#: More layers than this are not recorded: the first ones are.
MAX_LAYERS = 2000


@dataclass(frozen=True, slots=True)
class Leaf:
    """
    A variable behind a layer, or a constant that was one.

    `name` is as the checkpoint spells it, or a full name, or "" where it has none. `values` are its whole value, by
    which it is found where the name alone is not certain; None where it is.
    """

    name: str = ""
    values: Array | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """
    One operation that variables go into: its name, its type ("Conv2D"), what goes in and what comes out.

    `input` is its first floating input that depends on what is fed, `output` its first output: whole arrays, with the
    original's axes. None where there is none, or where it cannot be had, as inside a loop. `before` and `after` are
    tensors around it, each with its operation's name: what the whole of which it is a part may take and give (see
    `around`).
    """

    operation: str
    kind: str
    variables: tuple[Leaf, ...]
    input: Array | None
    output: Array | None
    before: tuple[tuple[str, Array], ...] = ()
    after: tuple[tuple[str, Array], ...] = ()


@dataclass(frozen=True, slots=True)
class Original:
    """
    An original that is open.

    `run` takes arrays by the mapping's input names and gives them by its output names; a stateful original goes on
    from where the last run left it. `restart` puts its state back to what it was in the beginning. `versions` are of
    the libraries that compute, `notes` what somebody should know about how it was opened.

    `layers` runs once more with these inputs, and gives what went on inside in the order of execution, at most
    MAX_LAYERS. `named` does the same for tensors by the original's own names, and takes and gives them by whatever
    keys (raises OriginalFailedError, kind "names", for one that it does not have). Either may fail in any way; where
    it is None, `notes` say why.
    """

    run: Callable[[dict[str, Array]], dict[str, Array]]
    restart: Callable[[], None]
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    layers: Callable[[dict[str, Array]], list[Layer]] | None = None
    named: Callable[[dict[str, Array], dict[str, str]], dict[str, Array]] | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """One input of the original: its own name, its dtype, and its sizes (None: any), if it has a rank."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


class OriginalFailedError(Exception):
    """
    Why the original could not be run: a kind, a message, a hint, and names that somebody may have meant.

    The kinds: "missing" (the library `name`), "import" (one that is not allowed), "names" (the mapping's fault), "run"
    (everything else).
    """

    def __init__(self, kind: str, message: str, hint: str = "", name: str = "", candidates: Iterable[str] = ()):
        super().__init__(message)
        self.report = {"kind": kind, "message": message, "hint": hint, "name": name, "candidates": list(candidates)}


def library(name: str, why: str = "") -> Any:
    """The library, imported. `why` it is needed goes into the message that says that it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name.partition(".")[0]:
            raise OriginalFailedError("missing", f"{error.name} is not installed{why}", name=error.name) from error
        raise OriginalFailedError("run", f"{name} cannot be imported: {cause(error)}") from error
    except Exception as error:
        raise OriginalFailedError("run", f"{name} cannot be imported: {cause(error)}") from error


def named(section: str, name: str, wanted: str, among: Iterable[str], subject: str) -> None:
    """Raise OriginalFailedError unless the original (`subject`: what has no what) has the name that is wanted."""
    known = list(among)
    if wanted not in known:
        raise OriginalFailedError("names", f"{section} {name}: {subject} {wanted}", "", wanted, known)


def check_fits(name: str, port: Port, array: Array) -> None:
    """Most libraries would cast what is fed without a word."""
    if port.dtype != array.dtype.name:
        message = f"{name} is {array.dtype.name}, but {port.name} is {port.dtype}"
        raise OriginalFailedError("names", message, f"give the input dtype {port.dtype}")
    if port.shape is None:
        return
    pairs = zip(port.shape, array.shape, strict=False)
    if len(port.shape) != array.ndim or any(size not in (None, given) for size, given in pairs):
        raise OriginalFailedError("names", f"{name} is {list(array.shape)}, but {port.name} is {sizes(port.shape)}")


def sizes(shape: Iterable[int | None]) -> str:
    """A shape as messages show it, with ? for a size that is free."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def cause(error: BaseException) -> str:
    """The line that says what happened: in TensorFlow's own errors the one behind the node, else the first."""
    text = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    lines = [line for line in lines if line != "Graph execution error:"] or [type(error).__name__]
    behind = [after for line, after in itertools.pairwise(lines) if line.startswith("Node: ")]
    return behind[0] if behind else lines[0]
