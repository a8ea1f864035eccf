"""
Reading in a process of its own: for libraries that a bad file can bring down, or that nobody wants in this process.

The child runs `python -P -m MODULE PATH`. On its standard input it gets one question a line (JSON); for each it writes
a line of JSON to its standard output and, where that has "nbytes", so many bytes behind it. The first answer comes
unasked. An answer {"error": {"code", "message", "hint"}} is raised here. The child ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from t2t.checkpoints.files import refusal

#: Seconds without a byte from the child after which it counts as hanging.
PATIENCE = 60.0

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Child:
    """
    A reader in a process of its own. `what` names it in messages ("the HDF5 library"), `path` is the file it reads.

    Raises CheckpointError T2T614 when it dies, hangs or answers nonsense; whatever it refuses itself, as it refuses it.
    """

    def __init__(
        self,
        module: str,
        path: str,
        what: str,
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.path = path
        self._what = what
        self._patience = patience
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child runs
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})},
            start_new_session=True,  # a Ctrl-C is for the parent, which then ends the child
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._rest = b""
        try:
            self.hello = self._answer(None)[0]
        except BaseException:
            self.close()
            raise

    def ask(self, question: Mapping[str, Any], out: Bytes | None = None) -> tuple[dict[str, Any], Bytes]:
        """The answer and its bytes; those go into `out` where it is given, and must then be exactly as many."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None
        return self._answer(out)

    def close(self) -> None:
        """Ends the child."""
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self._process.kill()
        self._process.wait()
        self._noise.close()

    def _answer(self, out: Bytes | None) -> tuple[dict[str, Any], Bytes]:
        while b"\n" not in self._rest:
            self._rest += self._some(2**16)
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            raise refusal("T2T614", f"{self._what} answers nonsense", self.path) from None
        if error := answer.get("error"):
            raise refusal(error["code"], error["message"], self.path, error.get("hint", ""))
        size = answer.get("nbytes", 0)
        if out is None:
            out = np.empty(size, np.uint8)
        elif out.size != size:
            raise refusal("T2T614", f"{self._what} gives {size} bytes where {out.size} are needed", self.path)
        at = min(len(self._rest), size)
        out[:at] = np.frombuffer(self._rest[:at], np.uint8)
        self._rest = self._rest[at:]
        while at < size:
            piece = self._some(size - at)
            out[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        return answer, out

    def _some(self, most: int) -> bytes:
        assert self._process.stdout is not None
        if not self._selector.select(self._patience):
            raise refusal("T2T614", f"{self._what} gave no answer for {self._patience:.0f} s", self.path)
        piece = os.read(self._process.stdout.fileno(), min(most, 2**20))
        if not piece:
            raise self._death()
        return piece

    def _death(self) -> Exception:
        code = self._process.wait()
        self._noise.seek(0)
        said = self._noise.read().decode("utf-8", "replace").strip().splitlines()
        how = f"died with {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        last = f": {said[-1]}" if code > 0 and said else ""
        return refusal("T2T614", f"{self._what} {how}{last}", self.path, "the file is damaged, or that library is")


Answer = Callable[[dict[str, Any]], tuple[dict[str, Any], memoryview | bytes]]


def serve(start: Callable[[], tuple[Mapping[str, Any], Answer | None]]) -> None:
    """
    The child's side. `start` gives the first thing to say and what answers each question: a document, and bytes
    ("nbytes" is added). Without an answerer the child says the one thing and ends.
    """
    replies = _replies()  # first: libraries print while they are imported
    hello, answer = start()
    _say(replies, hello)
    if answer is None:
        return
    for line in sys.stdin.buffer:
        document, data = answer(json.loads(line))
        _say(replies, {**document, "nbytes": len(data)}, data)


def _replies() -> BinaryIO:
    """Standard output for us alone: whatever else writes to it in this process goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _say(replies: BinaryIO, document: Mapping[str, Any], data: memoryview | bytes = b"") -> None:
    replies.write(json.dumps(document).encode() + b"\n")
    replies.write(data)
    replies.flush()
