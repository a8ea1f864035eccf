"""
The locks of the gallery's mappings of published weights: of names and shapes alone, for the weights are not here.

    python -m tests.gallery.published_locks            # writes mappings/<name>.lock.json

Names and shapes are those of `published` and `resnet50`, at the published sizes, in an index without data; three are
taken from what keras.applications saves (see `with_vision`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from t2t import api
from t2t.review import lock as locks
from t2t.review import locking
from t2t.review.lock import Lock
from tests.checkpoints.writing import Tensor, bundle
from tests.commands import ENVIRONMENT
from tests.gallery import resnet50
from tests.gallery.published import MODELS, Shapes
from tests.gallery.shared import MAPPINGS, ROOT

#: By the mapping's name: the variables that are published, at their sizes.
BY_RULE: dict[str, Callable[[], Shapes]] = {
    **{name: lambda model=model: model.stored(small=False) for name, model in MODELS.items()},  # type: ignore[misc]
    "resnet50_official": resnet50.official,
    "resnet50_slim": resnet50.slim,
}

#: By the mapping's name: which of the files of `with_vision` has the published names and sizes.
BY_KERAS = {
    "efficientnet_b0": "efficientnet_b0.h5",
    "inception_v3": "inception_v3.h5",
    "resnet50_keras": "resnet50.h5",
}


def index(prefix: Path, shapes: Shapes) -> Path:
    """Writes the index of a checkpoint with these variables; there is no data beside it."""
    tensors = {name: Tensor(9 if name == "global_step" else 1, shape, b"") for name, shape in shapes.items()}
    sizes = {name: [(5, _nbytes(tensors[name]))] for name in shapes}
    bundle(prefix, tensors, fields=sizes)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").unlink()
    return prefix


def _nbytes(tensor: Tensor) -> int:
    count = 8 if tensor.dtype == 9 else 4
    for size in tensor.shape:
        count *= size
    return count


def write_keras(folder: Path) -> None:
    """The files of `with_vision`, half a gigabyte."""
    quiet = ENVIRONMENT | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-m", "tests.gallery.with_vision", str(folder)]
    subprocess.run(command, env=quiet, check=True, timeout=300, capture_output=True, cwd=ROOT)


def write(name: str, checkpoint: Path, out: str) -> Lock:
    """The lock of a mapping by a checkpoint with the published names and shapes."""
    return api.lock(MAPPINGS / f"{name}.yaml", out, names_only=True, checkpoint=checkpoint)


def is_committed(made: Lock, name: str) -> bool:
    """Whether the committed lock of that mapping has the same bytes, but for the versions that made it."""
    committed = MAPPINGS / f"{name}.lock.json"
    return locking.text(replace(made, made_by=locks.read(str(committed)).made_by)) == committed.read_bytes()


def main() -> None:
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_keras(folder)
        made = {name: index(folder / f"{name}.ckpt", rule()) for name, rule in BY_RULE.items()}
        made |= {name: folder / file for name, file in BY_KERAS.items()}
        for name, checkpoint in made.items():
            print(write(name, checkpoint, locks.place(f"mappings/{name}.yaml")).path)  # noqa: T201 - a command


if __name__ == "__main__":
    main()
