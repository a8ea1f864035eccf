"""
A lock: what a mapping meant when somebody had everything at hand, in a file beside it that can be reviewed.

    mappings/madry.yaml        mappings/madry.lock.json

It holds both inventories, a digest of what is done to each parameter, a checksum of what comes out, what `require`
found, and the figures of the proof. With it a machine that has neither weights nor torch knows all names and shapes.

The file is JSON with an entry a line, so that a diff of it can be read; schemas/lock.schema.json describes it:

    "parameters": {"fc1.weight": ["float32", [1024, 3136], "<digest of its step>", "<crc32c of its bytes>"], ...}
    "variables":  {"Variable_4": ["float32", [3136, 1024], "<crc32c>"], ...}

A last entry holds what seldom is: {"kind": "buffer"}, {"tied_to": NAME}, {"slot_of": NAME}. A checksum is against
mistakes, not against somebody who wants to deceive: whoever can write the lock can write the mapping.

A lock of names and shapes alone is made where the weights are not at hand: every checksum in it is null, and it holds
no proof.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from t2t.checkpoints.entries import MAX_RANK
from t2t.checkpoints.files import is_address, open_regular, reason, refusal
from t2t.checkpoints.slots import with_slots
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import DTYPES, CheckpointInventory, ModuleInventory, ParameterRef, TensorRef

if TYPE_CHECKING:
    from t2t.verification import Verify

T = TypeVar("T")

FORMAT = 1
#: The first key of a lock: nothing else has it.
KEY = "t2t.lock"
ENDING = ".lock.json"

#: The largest lock that is read, in bytes: some 100 000 variables.
MAX_BYTES = 2**24

_AGAIN = "write it again with t2t lock"
_SOME = re.compile("(?s:.+)")
_DIGEST = re.compile("[0-9a-f]{16}")
_CRC32C = re.compile("[0-9a-f]{8}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Figures:
    """The worst of one output's differences (max|Δ|), where it is held against `tolerance`; max|TF| is `scale`."""

    max_delta: float
    scale: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Proof:
    """
    What proved it: what the recording was made from (see `t2t.proof.origin.parts`), the figures of each output and,
    where there are labels, both accuracies.

    `unproven` says why there is none; everything else is empty then.
    """

    unproven: str = ""
    made_from: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Figures] = field(default_factory=dict)
    accuracy: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """
    `model` and `arguments` built the module. `steps` are digests (see `assignments`) and `outputs` the crc32c of what
    is stored, by parameter; of names and shapes alone there are none. `require` holds, by pattern and module, the
    attributes that were required and found.

    `written` is the checkpoint as the mapping names it, "" where it names none; `source` is the digest of its
    inventory. `made_by` are versions.
    """

    path: str
    model: str
    arguments: Mapping[str, Any]
    names: str
    written: str
    source: str
    checkpoint: CheckpointInventory
    module: ModuleInventory
    steps: Mapping[str, str]
    outputs: Mapping[str, int]
    require: Mapping[str, Mapping[str, Mapping[str, Any]]]
    proof: Proof
    made_by: Mapping[str, str]

    @property
    def is_of_names(self) -> bool:
        """Whether it is of names and shapes alone: made without the weights, so of no values."""
        return bool(self.module.parameters) and not self.outputs


def place(mapping: str) -> str:
    """The path of a mapping's lock."""
    return os.path.splitext(mapping)[0] + ENDING


def as_written(mapping: MappingFile) -> str:
    """The checkpoint that the mapping names, from the mapping's own folder; "" where it names none."""
    path = mapping.checkpoint
    return path if not path or is_address(path) else os.path.relpath(path, os.path.dirname(mapping.path) or ".")


def tolerance(verify: Verify, scale: float) -> float:
    """How far an output of this scale may differ, to two digits as all figures: two of the same `verify` are equal."""
    return rounded(verify.abs + verify.rel * scale)


def rounded(value: float) -> float:
    """A figure of the proof to two digits: the rest differs from machine to machine, and would be a diff of its own."""
    return float(f"{value:.1e}")


def marked(refs: Iterable[TensorRef]) -> dict[str, TensorRef]:
    """The variables as far as names, dtypes and shapes tell what they are: the rest is written down."""
    bare = {
        ref.name: TensorRef(
            ref.name, ref.dtype, ref.shape, nbytes=ref.elements * DTYPES[ref.dtype].itemsize, key=ref.name
        )
        for ref in refs
    }
    return with_slots(bare)


def names_alone(inventory: CheckpointInventory) -> CheckpointInventory:
    """The inventory without checksums: another checkpoint with the same names, dtypes and shapes has the same."""
    variables = {name: replace(ref, crc32c=None) for name, ref in inventory.variables.items()}
    return CheckpointInventory(variables, shared_names=inventory.shared_names)


# --- reading ---


def read(path: str) -> Lock:
    """
    The lock at `path`. Raises CheckpointError: T2T620 for anything that is not a whole one, T2T602 where no file can be
    read.
    """
    with open(open_regular(path)[0], "rb") as file:
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise refusal("T2T602", f"cannot be read: {reason(error)}", path) from None
    return parse(data, path)


def parse(data: bytes, path: str) -> Lock:
    """The lock in `data`; `path` is named in what is wrong. Raises CheckpointError (T2T620)."""
    reader = _Reader(path)
    if len(data) > MAX_BYTES:
        reader.refuse(f"the file is larger than {MAX_BYTES} bytes, the most that a lock has")
    try:
        tree = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reader.unique,
            parse_float=reader.number,
            parse_constant=reader.number,
        )
    except (ValueError, RecursionError) as error:
        told = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be decoded"
        place = (error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else (None, None)
        reader.refuse(f"not JSON: {told}", *place)
    if not isinstance(tree, dict) or KEY not in tree:
        reader.refuse(f"{shown(path)} is not a lock: it has no {KEY}")
    if (version := tree[KEY]) != FORMAT or isinstance(version, bool):
        told = shown(str(version)) if isinstance(version, int | float | str) else "no number"
        reader.refuse(f"the lock's version is {told}, this t2t reads {FORMAT}")
    return reader.lock(tree)


def _is_shape(sizes: list[Any]) -> bool:
    return len(sizes) <= MAX_RANK and all(type(size) is int and 0 <= size < 2**63 for size in sizes)


class _Reader:
    """Takes a lock apart; whatever isn't as it must be is refused by its place in the file's own words."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refuse(self, message: str, line: int | None = None, column: int | None = None) -> NoReturn:
        raise CheckpointError(Problem("T2T620", message, Location(self.path, line, column), _AGAIN)) from None

    def unique(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                self.refuse(f"{shown(key)} stands twice in the lock")
            found[key] = value
        return found

    def number(self, text: str) -> float:
        if not math.isfinite(value := float(text)):
            self.refuse(f"{shown(text)} is no number of a lock")
        return value

    def lock(self, tree: Mapping[str, Any]) -> Lock:
        known = {
            KEY,
            "made_by",
            "model",
            "with",
            "proof",
            "require",
            "parameters",
            "names",
            "checkpoint",
            "source",
            "shared",
        }
        if unknown := sorted(tree.keys() - known - {"variables"}):
            self.refuse(f"{shown(unknown[0])} is no key of a lock")
        parameters = {name: self.parameter(name, entry) for name, entry in self.section(tree, "parameters").items()}
        for name, (ref, _, _) in parameters.items():
            if ref.tied_to is not None and (ref.tied_to == name or ref.tied_to not in parameters):
                self.refuse(f"{shown(name)} is tied to {shown(ref.tied_to)}, which is no parameter of the lock")
        names = self.text(tree, "names")
        if names not in ("key", "full_name"):
            self.refuse(f"names is {shown(names)}, neither key nor full_name")
        outputs = {name: crc for name, (_, _, crc) in parameters.items() if crc is not None}
        if outputs and (without := [name for name in parameters if name not in outputs]):
            self.refuse(f"{shown(without[0])} has no checksum, but {shown(next(iter(outputs)))} has one")
        inventory = self.inventory(tree)
        lock = Lock(
            path=self.path,
            model=self.text(tree, "model"),
            arguments=self.section(tree, "with"),
            names=names,
            written=self.text(tree, "checkpoint"),
            source=self.text(tree, "source", _SHA256),
            checkpoint=inventory,
            module=ModuleInventory({name: ref for name, (ref, _, _) in parameters.items()}),
            steps={name: step for name, (_, step, _) in parameters.items()},
            outputs=outputs,
            require=self.required(tree.get("require", {})),
            proof=self.proof(self.section(tree, "proof")),
            made_by=self.texts(self.section(tree, "made_by"), "made_by"),
        )
        try:
            is_whole = inventory.digest == lock.source
        except UnicodeEncodeError:  # half of a pair of surrogates, which no name of a checkpoint has
            is_whole = False
        if not is_whole:
            self.refuse("its variables are not those that its source is the digest of: somebody edited the lock")
        if lock.is_of_names and not lock.proof.unproven:
            self.refuse("it holds a proof, but no checksum of what was proven")
        return lock

    def section(self, tree: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = tree.get(key)
        if not isinstance(value, dict):
            self.refuse(f"{key} is missing in the lock" if value is None else f"{key} is not a JSON object")
        return value

    def text(self, tree: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None = None) -> str:
        value = tree.get(key)
        if not isinstance(value, str) or (pattern and not pattern.fullmatch(value)):
            self.refuse(f"{key} is missing in the lock" if value is None else f"{key} is not what it must be")
        return value

    def texts(self, given: Mapping[str, Any], key: str) -> dict[str, str]:
        if not all(isinstance(value, str) for value in given.values()):
            self.refuse(f"{key} holds something else than text")
        return dict(given)

    def tensor(self, name: str, entry: Any, count: int) -> tuple[str, tuple[int, ...], list[Any], dict[str, Any]]:
        """dtype, shape, `count` more values, and what seldom is."""
        is_list = isinstance(entry, list) and count + 2 <= len(entry) <= count + 3
        dtype, shape = (entry[0], entry[1]) if is_list else ("", None)
        extras = entry[count + 2] if is_list and len(entry) == count + 3 else {}
        is_dtype = isinstance(dtype, str) and dtype in DTYPES
        if not (is_dtype and isinstance(shape, list) and _is_shape(shape) and isinstance(extras, dict)):
            self.refuse(f"the entry of {shown(name)} is not what it must be: a dtype, a shape, digests")
        return dtype, tuple(shape), entry[2 : count + 2], extras

    def crc32c(self, name: str, value: Any) -> int:
        if not isinstance(value, str) or not _CRC32C.fullmatch(value):
            self.refuse(f"the checksum of {shown(name)} is not eight hexadecimal digits")
        return int(value, 16)

    def parameter(self, name: str, entry: Any) -> tuple[ParameterRef, str, int | None]:
        dtype, shape, (step, crc), extras = self.tensor(name, entry, 2)
        kind, tied = extras.get("kind", "parameter"), extras.get("tied_to")
        is_known = kind in ("parameter", "buffer") and (tied is None or isinstance(tied, str))
        if not is_known or extras.keys() - {"kind", "tied_to"}:
            self.refuse(f"the entry of {shown(name)} says something that no lock says")
        if not isinstance(step, str) or not _DIGEST.fullmatch(step):
            self.refuse(f"the digest of {shown(name)} is not sixteen hexadecimal digits")
        return ParameterRef(name, dtype, shape, kind, tied), step, None if crc is None else self.crc32c(name, crc)

    def inventory(self, tree: Mapping[str, Any]) -> CheckpointInventory:
        entries = {name: self.tensor(name, entry, 1) for name, entry in self.section(tree, "variables").items()}
        derived = marked(TensorRef(name, dtype, shape) for name, (dtype, shape, _, _) in entries.items())
        kinds = {"key": str, "full_name": str, "nbytes": int, "unreadable": str}
        refs = {}
        for name, (_, _, (crc,), extras) in entries.items():
            for key, value in extras.items():
                is_name = key in ("slot_of", "average_of") and (value is None or isinstance(value, str))
                if not is_name and (key not in kinds or type(value) is not kinds[key]):
                    self.refuse(f"the entry of {shown(name)} says something that no lock says")
            crc32c = None if crc is None else self.crc32c(name, crc)
            refs[name] = replace(derived[name], crc32c=crc32c, **extras)
        shared = self.section(tree, "shared") if "shared" in tree else {}
        if not all(isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in shared.values()):
            self.refuse("shared does not hold lists of names")
        return CheckpointInventory(refs, shared_names={name: tuple(keys) for name, keys in shared.items()})

    def required(self, given: Any) -> dict[str, dict[str, dict[str, Any]]]:
        is_whole = isinstance(given, dict) and all(
            isinstance(parts, dict) and all(isinstance(found, dict) for found in parts.values())
            for parts in given.values()
        )
        if not is_whole:
            self.refuse("require is not attributes by pattern and module")
        return dict(given)

    def proof(self, given: Mapping[str, Any]) -> Proof:
        if given.keys() == {"unproven"}:
            return Proof(unproven=self.text(given, "unproven", _SOME))
        if not {"recording", "outputs"} <= given.keys() <= {"recording", "outputs", "accuracy"}:
            self.refuse("proof is neither figures nor the reason why there are none")
        outputs = {
            name: Figures(*self.numbers(figures, ("max_delta", "scale", "tolerance")))
            for name, figures in self.section(given, "outputs").items()
        }
        accuracy = self.numbers(given["accuracy"], ("tensorflow", "torch")) if "accuracy" in given else None
        both = (accuracy[0], accuracy[1]) if accuracy else None
        return Proof("", self.texts(self.section(given, "recording"), "recording"), outputs, both)

    def numbers(self, given: Any, keys: Sequence[str]) -> list[float]:
        if not isinstance(given, dict) or list(given) != list(keys):
            self.refuse(f"figures of the proof are {', '.join(keys)}, and nothing else")
        if not all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in given.values()):
            self.refuse("a figure of the proof is not a number")
        return [float(value) for value in given.values()]
