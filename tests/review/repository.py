"""
A little git repository as a team would have it: three models, their mappings, and their checkpoints, which git ignores.

    models.py
    mappings/dense.yaml, conv.yaml, blocks.yaml     formatted, without problems
    checkpoints/dense.ckpt ...                      as TensorFlow lays them out, a few kB; only where they were made
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.checkpoints.writing import Tensor, bundle
from tests.commands import ENVIRONMENT, Done

MODELS = '''\
"""What the weights are for."""

from torch import nn


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4 * 2 * 2, 3)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 4)
        self.key = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)


class Blocks(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
'''

DENSE = """\
t2t: 1
model: models:Dense
source: {checkpoint: ../checkpoints/dense.ckpt}

map:
- {tf: hidden/kernel, torch: hidden.weight, axes: i o -> o i}
- {tf: hidden/bias,   torch: hidden.bias}
- {tf: out/kernel,    torch: out.weight, axes: i o -> o i}
- {tf: out/bias,      torch: out.bias}
"""

CONV = """\
t2t: 1
model: models:Conv
source: {checkpoint: ../checkpoints/conv.ckpt}

map:
- {tf: conv/kernel, torch: conv.weight, axes: h w i o -> o i h w}
- {tf: conv/bias,   torch: conv.bias}
- {tf: norm,        torch: norm, use: batch_norm}
- {tf: out,         torch: out,  use: flatten_dense, dims: {h: 2, w: 2}}
"""

BLOCKS = """\
t2t: 1
model: models:Blocks
with: {depth: 3}
source: {checkpoint: ../checkpoints/blocks.ckpt}

for: {i: 0..2}

map:
- {tf: block_<i>/query/kernel, torch: blocks.<i>.query.weight, axes: i o -> o i}
- {tf: block_<i>/query/bias,   torch: blocks.<i>.query.bias}
- {tf: block_<i>/key/kernel,   torch: blocks.<i>.key.weight, axes: i o -> o i}
- {tf: block_<i>/key/bias,     torch: blocks.<i>.key.bias}
- {tf: block_<i>/norm/gamma,   torch: blocks.<i>.norm.weight}
- {tf: block_<i>/norm/beta,    torch: blocks.<i>.norm.bias}

ignore:
- {tf: global_step, why: step counter}
"""

MAPPINGS = {"dense": DENSE, "conv": CONV, "blocks": BLOCKS}

#: What git reads of its own configuration: nothing of this machine's.
GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """The variables of each checkpoint."""
    blocks: dict[str, tuple[int, ...]] = {"global_step": ()}
    for i in range(3):
        for name in ("query", "key"):
            blocks |= {f"block_{i}/{name}/kernel": (4, 4), f"block_{i}/{name}/bias": (4,)}
        blocks |= {f"block_{i}/norm/gamma": (4,), f"block_{i}/norm/beta": (4,)}
    norm = {f"norm/{name}": (4,) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    return {
        "dense": {"hidden/kernel": (4, 4), "hidden/bias": (4,), "out/kernel": (4, 3), "out/bias": (3,)},
        "conv": {"conv/kernel": (3, 3, 2, 4), "conv/bias": (4,), **norm, "out/kernel": (16, 3), "out/bias": (3,)},
        "blocks": blocks,
    }


@dataclass(frozen=True)
class Repository:
    """A repository and what is done to it."""

    folder: Path

    def mapping(self, name: str) -> Path:
        """One of the three."""
        return self.folder / "mappings" / f"{name}.yaml"

    def edit(self, name: str, old: str, new: str) -> None:
        """Changes a mapping's text."""
        text = self.mapping(name).read_text("utf-8")
        assert old in text
        self.mapping(name).write_text(text.replace(old, new), encoding="utf-8")

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> Done:
        """A command in the repository, with no configuration but its own."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**ENVIRONMENT, **GIT, **(env or {})},
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=600,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """What git says, which succeeds."""
        done = self.run("git", *arguments, env=env)
        assert done.code == 0, done
        return done.out

    def commit(self, message: str, env: Mapping[str, str] | None = None) -> Done:
        """Commits everything, if the hooks let it; `git commit`'s end."""
        self.git("add", "--all")
        return self.run("git", "commit", "-q", "-m", message, env=env)


def make(folder: Path, *, checkpoints: bool = True) -> Repository:
    """The repository with one commit."""
    (folder / "mappings").mkdir(parents=True)
    (folder / "models.py").write_text(MODELS, encoding="utf-8")
    (folder / ".gitignore").write_text("checkpoints/\n__pycache__/\n", encoding="utf-8")
    for name, text in MAPPINGS.items():
        (folder / "mappings" / f"{name}.yaml").write_text(text, encoding="utf-8")
    if checkpoints:
        write_checkpoints(folder / "checkpoints")
    made = Repository(folder)
    made.git("init", "-q", "-b", "main")
    assert made.commit("three mappings").code == 0
    return made


def write_checkpoints(folder: Path) -> None:
    """The three checkpoints, of random values."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, variables in shapes().items():
        arrays = {variable: np.asarray(random.random(shape), np.float32) for variable, shape in variables.items()}
        bundle(folder / f"{name}.ckpt", {key: Tensor(1, array.shape, array.tobytes()) for key, array in arrays.items()})
