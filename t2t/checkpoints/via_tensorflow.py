"""
A second opinion: the same checkpoint, read by TensorFlow in a process of its own.

`ViaTensorFlow` gives values as TensorFlow reads them, `differences` compares both readers variable by variable. Our own
reader has opened the file before and found nothing wrong with it: TensorFlow's ends the whole process at many a bad
file, so nothing else is ever shown to it, and its end is reported like any other.

Run as a program (`python -P -m t2t.checkpoints.via_tensorflow PREFIX`) this is the child, and only there TensorFlow is
imported.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from t2t.checkpoints.child import PATIENCE, Answer, Bytes, Child, serve
from t2t.checkpoints.files import refusal
from t2t.names import shown
from t2t.problems import CheckpointError, Location, Problem, UsageError
from t2t.tensors import DTYPES, CheckpointInventory, TensorRef

if TYPE_CHECKING:
    from t2t.checkpoints import Checkpoint

#: Both, or TensorFlow prints and its results drift.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}

#: Formats that TensorFlow's reader knows.
FORMATS = ("bundle", "v1")

#: What stands for every dtype in the list of a TensorFlow that is too old for one of them.
UNKNOWN = "?"

#: After so many deaths the rest is not compared.
MAX_DEATHS = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of one variable: a problem, or why it was not compared; both None where all bytes are equal."""

    ref: TensorRef
    problem: Problem | None = None
    not_compared: str | None = None


class ViaTensorFlow:
    """
    An open checkpoint whose values TensorFlow reads; names, dtypes and shapes are our own reader's, and checked.

    Takes the checkpoint over and closes it. Raises UsageError for a format that TensorFlow does not read,
    CheckpointError T2T614 where TensorFlow is missing, dies or hangs, T2T506 where it sees other dtypes or shapes.
    """

    def __init__(self, own: Checkpoint, format: str, patience: float = PATIENCE) -> None:  # noqa: A002 - its name
        if format not in FORMATS or "://" in own.path:
            message = "this is neither a V1 nor a V2 checkpoint, and TensorFlow's reader reads no other"
            raise UsageError(Problem("T2T001", message, Location(own.path), "leave it to t2t's own reader"))
        self._own = own
        self.path, self.notes, self.files = own.path, own.notes, own.files
        self.inventory: CheckpointInventory = own.inventory
        self._patience = patience
        self._child = _start(own.path, patience)
        self._listed = self.names()

    @property
    def version(self) -> str:
        """TensorFlow's."""
        return str(self._child.hello["version"])

    def names(self) -> dict[str, tuple[str, list[int]]]:
        """What TensorFlow lists: dtype and shape by key."""
        return {key: (dtype, shape) for key, dtype, shape in self._child.hello["variables"]}

    def read(self, ref: TensorRef, out: Bytes | None = None) -> np.ndarray[Any, Any]:
        """The variable's values as TensorFlow reads them; see `t2t.checkpoints.Checkpoint`."""
        if ref.unreadable:
            return self._own.read(ref, out)  # which says why not
        try:
            return self._read(ref, out)
        except CheckpointError as error:
            raise CheckpointError(_of(ref, error.problems[0])) from None

    def _read(self, ref: TensorRef, out: Bytes | None = None) -> np.ndarray[Any, Any]:
        """The same, but what goes wrong doesn't say with which variable."""
        listed = self._listed.get(ref.key) or self._listed.get(ref.name)
        if listed and (listed[0] not in (ref.dtype, UNKNOWN) or listed[1] != list(ref.shape)):
            raise self._other_kind(ref, *listed)
        dtype = DTYPES[ref.dtype].numpy
        buffer = None if dtype is None else (np.empty(ref.nbytes, np.uint8) if out is None else out[: ref.nbytes])
        answer, data = self._child.ask({"key": ref.key, "name": ref.name, "dtype": ref.dtype}, buffer)
        if (answer["dtype"], answer["shape"]) != (ref.dtype, list(ref.shape)):
            raise self._other_kind(ref, answer["dtype"], answer["shape"])
        if dtype is not None:
            return data.view(dtype).reshape(ref.shape)
        strings = np.empty(ref.elements, object)
        content, at = data.tobytes(), 0
        for i, length in enumerate(answer["lengths"]):
            strings[i] = content[at : at + length]
            at += length
        return strings.reshape(ref.shape)

    def _other_kind(self, ref: TensorRef, dtype: str, shape: list[int]) -> CheckpointError:
        message = f"t2t reads {ref.dtype} {list(ref.shape)}, TensorFlow {dtype} {shape}"
        hint = "one of the two readers is wrong: please report it"
        return CheckpointError(Problem("T2T506", message, Location(self.path), hint))

    def view(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        """The same, read-only."""
        array = self.read(ref)
        array.flags.writeable = False
        return array

    def check_unchanged(self) -> None:
        """Raises CheckpointError T2T609 if a file was replaced or written to since the checkpoint was opened."""
        self._own.check_unchanged()

    def close(self) -> None:
        """Ends TensorFlow and closes the files."""
        self._child.close()
        self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def differences(self) -> Iterator[Difference]:
        """
        Each variable, compared byte by byte (so a NaN equals the same NaN); then what only TensorFlow lists.

        Where TensorFlow dies, that is the variable's problem (T2T614), and a new process goes on with the next one.
        """
        listed = self._listed
        deaths = 0
        for ref in self.inventory.variables.values():
            if ref.unreadable:
                yield Difference(ref, not_compared=ref.unreadable)
            elif deaths > MAX_DEATHS:
                yield Difference(ref, not_compared=f"TensorFlow died {deaths} times")
            elif ref.key not in listed and ref.name not in listed:
                message = f"{shown(ref.name)}: TensorFlow lists no such variable"
                yield Difference(ref, Problem("T2T506", message, Location(self.path)))
            else:
                try:
                    yield self._compared(ref)
                except CheckpointError as error:
                    problem = error.problems[0]
                    if problem.code == "T2T614":
                        deaths += 1
                        self._child.close()
                        self._child = _start(self.path, self._patience)
                    yield Difference(ref, problem)
        known = {text for ref in self.inventory.variables.values() for text in (ref.key, ref.name)}
        for key, (dtype, shape) in listed.items():
            if key not in known and key != "_CHECKPOINTABLE_OBJECT_GRAPH":
                ref = TensorRef(key, dtype, tuple(shape), key=key)
                message = f"{shown(key)}: only TensorFlow lists this variable ({dtype} {shape})"
                yield Difference(ref, Problem("T2T506", message, Location(self.path)))

    def _compared(self, ref: TensorRef) -> Difference:
        ours = self._own.read(ref)
        try:
            theirs = self._read(ref)
        except CheckpointError as error:
            problem = error.problems[0]
            if problem.code == "T2T606":  # TensorFlow says itself that it cannot
                return Difference(ref, not_compared=problem.message)
            raise CheckpointError(_of(ref, problem)) from None
        if ours.dtype == object:
            count = sum(a != b for a, b in zip(ours.flat, theirs.flat, strict=True))
        else:
            a, b = (array.reshape(-1).view(np.uint8) for array in (ours, theirs))
            unequal = (a != b).reshape(-1, ours.dtype.itemsize) if ours.size else np.zeros((0, 1), bool)
            count = int(unequal.any(axis=1).sum())
        if not count:
            return Difference(ref)
        message = f"{shown(ref.name)}: {count} of {ours.size} elements differ between t2t and TensorFlow"
        hint = "one of the two readers is wrong: please report it with the checkpoint"
        return Difference(ref, Problem("T2T506", message, Location(self.path), hint))


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """
    A checkpoint read by t2t and by TensorFlow `version`: how many variables are equal in every byte (`nbytes` in all),
    why which others were not compared, and a problem (T2T506, T2T614) for each that differs or that TensorFlow died of.
    """

    version: str
    equal: int
    nbytes: int
    not_compared: Mapping[str, str]
    problems: tuple[Problem, ...]


def cross_check(path: str | os.PathLike[str], *, progress: Callable[[int], None] = lambda _: None) -> CrossCheck:
    """
    Reads every variable twice, by t2t and by TensorFlow in a process of its own, and compares all bytes.

    Raises CheckpointError, and UsageError for a format that TensorFlow does not read.
    """
    from t2t import checkpoints

    equal = nbytes = 0
    not_compared, problems = {}, []
    with checkpoints.open(os.fspath(path), reader="tensorflow") as opened:
        assert isinstance(opened, ViaTensorFlow)
        for difference in opened.differences():
            if difference.not_compared is not None:
                not_compared[difference.ref.name] = difference.not_compared
            elif difference.problem is not None:
                problems.append(difference.problem)
            else:
                equal += 1
                nbytes += difference.ref.nbytes
            progress(difference.ref.nbytes)
        return CrossCheck(opened.version, equal, nbytes, not_compared, tuple(problems))


def _of(ref: TensorRef, problem: Problem) -> Problem:
    return replace(problem, message=f"{shown(ref.name)}: {problem.message}")


def _start(path: str, patience: float) -> Child:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:  # an empty folder of that name is a package, too
        raise refusal("T2T614", "TensorFlow is not installed", path, "pip install tensorflow, or leave its reader out")
    return Child("t2t.checkpoints.via_tensorflow", path, "TensorFlow", ENVIRONMENT, patience)


# --- the child ---


def start(path: str) -> tuple[dict[str, Any], Answer | None]:
    """Opens the checkpoint at `path`: what to say first, and what answers the questions."""
    try:
        import tensorflow as tf

        reader = tf.train.load_checkpoint(path)
        shapes, dtypes = reader.get_variable_to_shape_map(), _dtypes(reader)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it
        return _failed("T2T614", error), None
    variables = [[key, dtypes.get(key, UNKNOWN), [*shapes[key]]] for key in sorted(shapes)]

    def answer(question: dict[str, Any]) -> tuple[dict[str, Any], memoryview | bytes]:
        key = question["key"] if question["key"] in shapes else question["name"]
        try:
            if key not in dtypes and not _knows(tf, question["dtype"]):  # get_tensor would end the process
                message = f"TensorFlow {tf.__version__} does not know the dtype {question['dtype']}"
                hint = "leave it to t2t's own reader"
                return {"error": {"code": "T2T606", "message": message, "hint": hint}}, b""
            value = np.asarray(reader.get_tensor(key))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it
            return _failed("T2T606", error), b""
        dtype = dtypes[key] if key in dtypes else _dtype_of(tf, value, question["dtype"])
        document = {"dtype": dtype, "shape": [*value.shape]}
        if dtype == "string":
            items = [item if isinstance(item, bytes) else bytes(item) for item in value.reshape(-1)]
            return {**document, "lengths": [len(item) for item in items]}, b"".join(items)
        return document, value.tobytes()

    return {"version": tf.__version__, "variables": variables}, answer


def _dtypes(reader: Any) -> dict[str, str]:
    """The dtype of each key; nothing where TensorFlow is too old for one of them, and so lists none."""
    try:
        return {key: dtype.name.removesuffix("_ref") for key, dtype in reader.get_variable_to_dtype_map().items()}
    except TypeError:
        return {}


def _knows(tf: Any, dtype: str) -> bool:
    try:
        tf.as_dtype(dtype)
    except TypeError:
        return False
    return True


def _dtype_of(tf: Any, value: np.ndarray[Any, Any], stated: str) -> str:
    """What TensorFlow calls the dtype of a value; `stated` where its values come in that dtype of numpy."""
    expected = np.dtype(tf.as_dtype(stated).as_numpy_dtype)
    if expected.names:  # of a quantized dtype: [("qint8", int8)]
        expected = expected[0]
    return stated if expected == value.dtype else str(tf.as_dtype(value.dtype).name)


def _failed(code: str, error: object) -> dict[str, Any]:
    said = str(error).strip().splitlines()
    message = f"TensorFlow says {type(error).__name__}: {said[0] if said else ''}".rstrip(": ")
    return {"error": {"code": code, "message": message}}


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    serve(lambda: start(sys.argv[1]))
