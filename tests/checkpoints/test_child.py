"""A process that reads: what it answers, and every way in which it can fail."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from t2t.checkpoints.child import Child
from t2t.problems import CheckpointError

BEGIN = """
import os, signal, sys, time
from t2t.checkpoints.child import serve
"""

#: Answers with as many bytes as it is asked for, each the length of its last argument; prints where nobody should.
ECHO = """
def start():
    print("a library prints")
    os.write(1, b"and again")
    def answer(question):
        if "crash" in question:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "raise" in question:
            print("a library prints, and nothing is written out before the process ends")
            raise KeyError("nothing")
        if "raise lines" in question:
            raise ValueError("one line\\nand another")
        if "wait" in question:
            time.sleep(60)
        if "refuse" in question:
            return {"error": {"code": "T2T606", "message": "not this", "hint": "that"}}, b""
        return {"said": question}, bytes([len(sys.argv[-1])]) * question.get("size", 0)
    return {"path": sys.argv[1], "arguments": sys.argv[2:], "variable": os.environ.get("T2T_TEST")}, answer
serve(start)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "the_child_of_a_test.py"
    path.write_text(BEGIN + ECHO)
    return path


def child(module: Path, patience: float = 20.0) -> Child:
    return Child(module.stem, "x", "the library", {"T2T_TEST": "set"}, patience, arguments=["-v", "abc"])


def refused(made: Child, question: dict[str, int]) -> str:
    with pytest.raises(CheckpointError) as caught:
        made.ask(question)
    made.close()
    return str(caught.value)


def test_questions_and_answers(module: Path) -> None:
    made = child(module)
    assert made.hello == {"path": "x", "arguments": ["-v", "abc"], "variable": "set"}
    answer, data = made.ask({"size": 3_000_000})
    assert answer == {"said": {"size": 3_000_000}, "nbytes": 3_000_000}
    assert data.size == 3_000_000
    assert set(data.tolist()) == {3}
    out = np.zeros(10, np.uint8)
    assert made.ask({"size": 10}, out)[1] is out
    assert out.tolist() == [3] * 10
    assert made.ask({})[1].size == 0
    made.close()
    assert made._process.returncode is not None  # it is gone


def test_a_refusal_is_raised_and_the_child_goes_on(module: Path) -> None:
    made = child(module)
    with pytest.raises(CheckpointError, match="x: T2T606: not this; that"):
        made.ask({"refuse": 1})
    assert made.ask({"size": 1})[1].tolist() == [3]
    made.close()


def test_a_crash_is_told_from_an_exception(module: Path) -> None:
    hint = "the file is damaged, or that library is"
    assert refused(child(module), {"crash": 1}) == f"x: T2T614: the library died with SIGSEGV; {hint}"
    assert refused(child(module), {"raise": 1}) == (
        f"x: T2T614: the library ended with status 1: KeyError: 'nothing'; {hint}"
    )
    assert refused(child(module), {"raise lines": 1}) == (
        f"x: T2T614: the library ended with status 1: ValueError: one line; {hint}"
    )


def test_a_child_that_hangs_is_ended(module: Path) -> None:
    before = time.monotonic()
    made = child(module)
    made._patience = 0.3
    assert refused(made, {"wait": 1}) == "x: T2T614: the library gave no answer for 0 s"
    assert time.monotonic() - before < 10


def test_more_or_fewer_bytes_than_needed_are_refused(module: Path) -> None:
    made = child(module)
    with pytest.raises(CheckpointError, match="x: T2T614: the library gives 3 bytes where 4 are needed"):
        made.ask({"size": 3}, np.empty(4, np.uint8))
    made.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print('nonsense', flush=True)", "x: T2T614: the library answers nonsense"),
        ("print(3, flush=True)", "x: T2T614: the library answers nonsense"),
        (
            "def start(): print('a library prints'); raise KeyError('nothing')\nserve(start)",
            "x: T2T614: the library ended with status 1: KeyError: 'nothing'; the file is damaged, or that library is",
        ),
        ("raise SystemExit(3)", "x: T2T614: the library ended with status 3; the file is damaged, or that library is"),
        (
            "os.kill(os.getpid(), signal.SIGABRT)",
            "x: T2T614: the library died with SIGABRT; the file is damaged, or that library is",
        ),
    ],
)
def test_a_child_that_never_begins(module: Path, body: str, expected: str) -> None:
    module.write_text(textwrap.dedent(BEGIN) + body)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CheckpointError) as caught:
        child(module)
    assert str(caught.value) == expected
    assert len(os.listdir("/proc/self/fd")) == before
