"""
Reading in a process of its own: for libraries that a bad file can bring down, or that nobody wants in this process.

The child runs `python -P -m MODULE PATH ARGUMENT...`. On its standard input it gets one question a line (JSON); for
each it writes a line of JSON to its standard output and, where that has "nbytes", so many bytes behind it. The first
answer comes unasked. An answer {"error": {"code", "message", "hint"}} is raised here; {"exception": TEXT} says why the
child is about to end. The child ends when its input does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
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
        *,
        arguments: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._what = what
        self._patience = patience
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child runs
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, a module of ours
            [sys.executable, "-P", "-m", module, path, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})},
            start_new_session=True,  # a Ctrl-C is for the parent, which then ends the child
        )
        assert self._process.stdout is not None
        with contextlib.suppress(AttributeError, OSError):
            # A wider pipe, where the system has that: a fourth of the time for large answers.
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, 2**20)
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
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            pieces.append(self._some())
        end, _, self._rest = pieces.pop().partition(b"\n")
        try:
            answer = json.loads(b"".join([*pieces, end]))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._failed("answers nonsense")
        if (exception := answer.get("exception")) is not None:
            raise self._death(str(exception))
        if error := answer.get("error"):
            raise refusal(error["code"], error["message"], self.path, error.get("hint", ""))
        size = answer.get("nbytes", 0)
        if out is None:
            out = np.empty(size, np.uint8)
        elif out.size != size:
            raise self._failed(f"gives {size} bytes where {out.size} are needed")
        at = min(len(self._rest), size)
        out[:at] = np.frombuffer(self._rest[:at], np.uint8)
        self._rest = self._rest[at:]
        while at < size:
            at += self._into(out[at:])
        return answer, out

    def _some(self) -> bytes:
        piece = np.empty(2**16, np.uint8)
        return piece[: self._into(piece)].tobytes()

    def _into(self, out: Bytes) -> int:
        """Puts what there is into the beginning of `out`; how many bytes, at least one."""
        assert self._process.stdout is not None
        if not self._selector.select(self._patience):
            raise self._failed(f"gave no answer for {self._patience:.0f} s")
        if not (size := os.readv(self._process.stdout.fileno(), [out.data])):
            raise self._death()
        return size

    def _failed(self, how: str) -> Exception:
        # Nothing that it says later would be the answer to what is then asked.
        self._process.kill()
        return refusal("T2T614", f"{self._what} {how}", self.path)

    def _death(self, exception: str = "") -> Exception:
        """How the child ended: by the exception that it reported, else by the last line that it printed."""
        try:
            code = self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            return self._failed("says nothing more, but does not end")
        how = f"died with {signal_name(-code)}" if code < 0 else f"ended with status {code}"
        why = exception or (self._last_line() if code > 0 else "")
        message = f"{self._what} {how}{': ' if why else ''}{why}"
        return refusal("T2T614", message, self.path, "the file is damaged, or that library is")

    def _last_line(self) -> str:
        self._noise.seek(max(self._noise.seek(0, os.SEEK_END) - 2**16, 0))
        said = self._noise.read().decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else ""


Answer = Callable[[dict[str, Any]], tuple[dict[str, Any], memoryview | bytes]]


def serve(start: Callable[[], tuple[Mapping[str, Any], Answer | None]]) -> None:
    """
    The child's side. `start` gives the first thing to say and what answers each question: a document, and bytes
    ("nbytes" is added). Without an answerer the child says the one thing and ends.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    replies = _replies()  # first: libraries print while they are imported
    try:
        hello, answer = start()
        _say(replies, hello)
        if answer is None:
            return
        for line in sys.stdin.buffer:
            document, data = answer(json.loads(line))
            _say(replies, {**document, "nbytes": len(data)}, data)
    except Exception as error:
        # The traceback is no last line: what libraries printed is still in buffers, and is written out behind it.
        with contextlib.suppress(OSError):
            _say(replies, {"exception": "".join(traceback.format_exception_only(error)).strip().partition("\n")[0]})
        raise


def _end_with_parent() -> None:
    """Ends this process when its standard input does: while a library hangs, nobody reads that."""
    closed = select.poll()
    closed.register(0, 0)  # that the other end has closed is told unasked
    closed.poll()
    os._exit(1)


def signal_name(number: int) -> str:
    """`SIGABRT`, or `signal 42` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _replies() -> BinaryIO:
    """Standard output for us alone: whatever else writes to it in this process goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _say(replies: BinaryIO, document: Mapping[str, Any], data: memoryview | bytes = b"") -> None:
    replies.write(json.dumps(document).encode() + b"\n")
    replies.write(data)
    replies.flush()
