"""
Running t2t as people do, in a process of its own; and a small model to run it on.

`t2t` is the real thing, `python -m t2t`, and costs an import of torch. `server().run` is for everything that can begin
after the imports: the same `main`, in a fork of a process that has them.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t import api
from tests.checkpoints.writing import Tensor, bundle

ROOT = Path(__file__).resolve().parents[1]

#: What would change how t2t behaves is not taken over: its streams are buffered, as they are for anybody.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"PYTHONUNBUFFERED", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"} and not name.startswith("T2T_")
}

MODEL = """\
from torch import nn


class Small(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, sizes[1:]))
"""


@dataclass(frozen=True)
class Done:
    """How a command ended. `seconds` is known for forks only."""

    code: int
    out: str
    err: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """
    One run in a fork. `limits` are fsize, nofile and as (bytes beyond what importing took). `signal` comes after
    `delay` seconds.
    """

    arguments: Sequence[str]
    cwd: Path
    umask: int = 0o022
    limits: Mapping[str, int] = field(default_factory=dict)
    signal: int = 0
    delay: float = 0.0


def t2t(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, before: Sequence[str] = (), **more: Any
) -> Done:
    """`python -m t2t`, with additions to the environment; `before` is a command that starts it (setpriv, sh -c ...)."""
    return python("-m", "t2t", *arguments, cwd=cwd, env=env, before=before, **more)


def python(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, before: Sequence[str] = (), **more: Any
) -> Done:
    """Python in a child; what it says is bytes that need not be UTF-8."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    done = subprocess.run(
        [*before, sys.executable, *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
        timeout=120,
        check=False,
        encoding="utf-8",
        errors="surrogateescape",
        **streams,
    )
    return Done(done.returncode, done.stdout or "", done.stderr or "")


class Server:
    """The other side of tests/fork_server.py."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="t2t-trials-")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=ENVIRONMENT,
        )
        assert self._answer() == "ready\n"

    def run(self, *arguments: str, cwd: Path, **more: Any) -> Done:
        """One trial; `more` are the fields of Trial."""
        return self.together(Trial(arguments, cwd, **more))[0]

    def together(self, *trials: Trial) -> list[Done]:
        """Trials that run at the same time."""
        stems = [os.path.join(self._folder.name, str(number)) for number in range(len(trials))]
        documents = [
            {**vars(trial), "cwd": str(trial.cwd), "out": f"{stem}.out", "err": f"{stem}.err"}
            for trial, stem in zip(trials, stems, strict=True)
        ]
        assert self._process.stdin is not None
        print(json.dumps(documents), file=self._process.stdin, flush=True)
        answers = json.loads(self._answer())
        return [
            Done(code, Path(f"{stem}.out").read_text("utf-8"), Path(f"{stem}.err").read_text("utf-8"), seconds)
            for (code, seconds), stem in zip(answers, stems, strict=True)
        ]

    def close(self) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@functools.cache
def server() -> Server:
    """One for all tests; it ends with them."""
    started = Server()
    atexit.register(started.close)
    return started


@dataclass(frozen=True)
class Project:
    """A folder with small.py, small.yaml and small.ckpt; `state` is what the module's state_dict has to become."""

    folder: Path
    state: Mapping[str, np.ndarray]

    @property
    def data(self) -> Path:
        return self.folder / "small.ckpt.data-00000-of-00001"

    @property
    def mapping(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def output(self) -> Path:
        return self.folder / "small.safetensors"

    def edit(self, old: str, new: str) -> None:
        """Changes the mapping's text."""
        text = self.mapping.read_text("utf-8")
        assert old in text
        self.mapping.write_text(text.replace(old, new), encoding="utf-8")

    def listing(self) -> list[str]:
        """Every name below the folder, but for what Python caches."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if "__pycache__" not in str(p))


def small(folder: Path, sizes: Sequence[int] = (4, 3, 2)) -> Project:
    """A model of dense layers, its checkpoint and its mapping, which has no verify section."""
    random = np.random.default_rng(0)
    variables: dict[str, np.ndarray] = {}
    state: dict[str, np.ndarray] = {}
    rows = []
    for i, (inside, outside) in enumerate(itertools.pairwise(sizes)):
        kernel = variables[f"dense_{i}/kernel"] = random.random((inside, outside), np.float32)
        bias = variables[f"dense_{i}/bias"] = random.random(outside, np.float32)
        state |= {f"layers.{i}.weight": np.ascontiguousarray(kernel.T), f"layers.{i}.bias": bias}
        rows += [
            f"- {{tf: dense_{i}/kernel, torch: layers.{i}.weight, axes: i o -> o i}}",
            f"- {{tf: dense_{i}/bias, torch: layers.{i}.bias}}",
        ]
    store(folder, variables)
    (folder / "small.py").write_text(MODEL)
    header = f"t2t: 1\nmodel: small:Small\nwith: {{sizes: {list(sizes)}}}\nsource: {{checkpoint: small.ckpt}}\nmap:\n"
    (folder / "small.yaml").write_text(header + "\n".join(rows) + "\n")
    return Project(folder, state)


def locked_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The same in the current directory, with small.lock.json beside it, and small.py not imported; for a fixture."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    sys.modules.pop("small", None)
    made = small(folder)
    api.lock("small.yaml")
    sys.modules.pop("small", None)
    yield made
    sys.modules.pop("small", None)


def store(folder: Path, variables: Mapping[str, np.ndarray]) -> None:
    """small.ckpt, with these float32 variables."""
    tensors = {name: Tensor(1, array.shape, array.tobytes()) for name, array in variables.items()}
    bundle(folder / "small.ckpt", tensors)
