"""
Every real checkpoint at hand, through the one door `checkpoints.open`, gives what the format's own library reads.

V2 bundles are compared in test_against_tensorflow.py, bit for bit; here they are opened and read.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t import checkpoints
from t2t.checkpoints.locate import locate
from t2t.tensors import DTYPES
from tests.conftest import SHARED_DATA

Array = np.ndarray[Any, Any]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")

#: What TensorFlow's reader gives for each path on its command line, as one .npz each.
WITH_TENSORFLOW = """
import sys, numpy as np, tensorflow as tf
for path, out in zip(sys.argv[1::2], sys.argv[2::2]):
    reader = tf.train.load_checkpoint(path)
    np.savez(out, **{name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})
"""
TIME_LIMIT = 300


def _found() -> dict[str, list[str]]:
    """The paths of all checkpoints, relative to the folder, by format. Told by their bytes, not by t2t."""
    found: dict[str, list[str]] = {"bundle": [], "v1": [], "hdf5": [], "keras": [], "npz": []}
    if not SHARED_DATA.is_dir():
        return found
    root = SHARED_DATA.resolve()
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.suffix in (".npy", ".pb", ".meta", ".pth", ".onnx", ".tflite", ".tsv", ".json"):
            continue
        name = str(path.relative_to(root))
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(max(path.stat().st_size - 8, 0))
            tail = file.read(8)
        if path.suffix == ".index":
            if list(path.parent.glob(f"{path.stem}.data-00000-of-*")):
                found["bundle"].append(name.removesuffix(".index"))
        elif tail == TABLE_MAGIC:
            found["v1"].append(name)
        elif head == HDF5_MAGIC:
            found["hdf5"].append(name)
        elif head[:2] == b"PK":
            found["npz" if path.suffix == ".npz" else "keras"].append(name)
    return found


FOUND = _found()
EACH = [(kind, name) for kind, names in FOUND.items() for name in names]


def _values(path: Path) -> dict[str, Array]:
    """All variables of a checkpoint that can be read, by the file's own names for them."""
    with checkpoints.open(path) as checkpoint:
        refs = checkpoint.inventory.variables.values()
        return {ref.key: checkpoint.read(ref) for ref in refs if not ref.unreadable}


def _assert_same(ours: dict[str, Array], theirs: dict[str, Array]) -> None:
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (values.dtype, values.shape), name
        assert ours[name].tobytes() == values.tobytes(), name


def _hdf5_values(file: Any) -> dict[str, Array]:
    import h5py

    datasets: dict[str, Array] = {}

    def visit(name: str, member: Any) -> None:
        if isinstance(member, h5py.Dataset):
            datasets[name] = np.asarray(member[()])

    file.visititems(visit)
    return datasets


def test_the_real_checkpoints_are_the_ones_that_were_counted(shared_data: Path) -> None:
    assert {kind: len(names) for kind, names in FOUND.items()} == {
        "bundle": 70,
        "v1": 4,
        "hdf5": 3,
        "keras": 3,
        "npz": 1,
    }


@pytest.mark.parametrize(("kind", "name"), EACH, ids=[name for _, name in EACH])
def test_a_real_checkpoint_is_found_listed_and_read(kind: str, name: str, shared_data: Path) -> None:
    path = shared_data / name

    assert locate(str(path)).format == kind
    with checkpoints.open(path) as checkpoint:
        variables = checkpoint.inventory.variables
        assert variables or "zero" in name or "empty" in name
        assert [problem for problem in checkpoint.notes if problem.severity == "error"] == []
        for ref in variables.values():
            if not ref.unreadable:
                values = checkpoint.read(ref)
                assert values.shape == ref.shape
                assert values.dtype == (DTYPES[ref.dtype].numpy or object)
        checkpoint.check_unchanged()


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow")
def test_a_real_v1_checkpoint_reads_as_in_tensorflow(shared_data: Path, tmp_path: Path) -> None:
    paths = [shared_data / name for name in FOUND["v1"]]
    outs = [tmp_path / f"{i}.npz" for i in range(len(paths))]
    arguments = [str(part) for pair in zip(paths, outs, strict=True) for part in pair]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", WITH_TENSORFLOW, *arguments], check=True, env=environment, timeout=TIME_LIMIT)

    for path, out in zip(paths, outs, strict=True):
        with np.load(out) as theirs:
            _assert_same(_values(path), dict(theirs))


@pytest.mark.parametrize("name", FOUND["hdf5"])
def test_a_real_hdf5_file_reads_as_in_h5py(name: str, shared_data: Path) -> None:
    import h5py

    with h5py.File(shared_data / name) as file:
        theirs = _hdf5_values(file)

    _assert_same(_values(shared_data / name), theirs)


@pytest.mark.parametrize("name", FOUND["keras"])
def test_a_real_keras_archive_reads_as_in_h5py(name: str, shared_data: Path) -> None:
    import h5py

    with zipfile.ZipFile(shared_data / name) as archive:
        data = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(data)) as file:
        theirs = _hdf5_values(file)

    _assert_same(_values(shared_data / name), theirs)


@pytest.mark.parametrize("name", FOUND["npz"])
def test_a_real_npz_archive_reads_as_in_numpy(name: str, shared_data: Path) -> None:
    with np.load(shared_data / name) as theirs:
        _assert_same(
            {key.removesuffix(".npy"): values for key, values in _values(shared_data / name).items()}, dict(theirs)
        )


ULTRALIGHT = "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB"

#: The table of equal tensors, the checkpoint, and what a stranger made of it in torch.
PORTS = [
    ("dtln_h5", "dtln/breizhn+DTLN/model.h5", "dtln/lhwcv+DTLN_pytorch/pretrained/model.pth", 20),
    (
        "ultralight_RFB",
        f"{ULTRALIGHT}/tf/export_models/RFB/variables/variables",
        f"{ULTRALIGHT}/models/pretrained/version-RFB-320.pth",
        209,
    ),
    (
        "ultralight_slim",
        f"{ULTRALIGHT}/tf/export_models/slim/variables/variables",
        f"{ULTRALIGHT}/models/pretrained/version-slim-320.pth",
        159,
    ),
]


def _equal_tensors(table: Path) -> Iterator[tuple[str, list[int], str, list[int], list[int] | None]]:
    """(torch tensor, its shape, TensorFlow's name, its shape, permutation) of each row that names two tensors."""
    for line in table.read_text().splitlines()[1:]:
        torch_name, torch_shape, tf_name, *rest = line.split("\t")
        if rest and rest[0]:  # torch counts batches, which TensorFlow does not
            axes = rest[1].removesuffix("+reshape").removeprefix("permute")
            yield (
                torch_name,
                json.loads(torch_shape),
                tf_name.removesuffix(":0").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"),
                json.loads(rest[0]),
                None if axes == "identity" else json.loads(axes),
            )


@pytest.mark.parametrize(("table", "path", "port", "count"), PORTS, ids=[port[0] for port in PORTS])
def test_the_values_are_those_that_a_stranger_ported_to_torch(
    table: str, path: str, port: str, count: int, shared_data: Path
) -> None:
    import torch

    ported = torch.load(shared_data / port, map_location="cpu", weights_only=True)
    with checkpoints.open(shared_data / path) as checkpoint:
        variables = checkpoint.inventory.variables
        rows = list(_equal_tensors(shared_data / "port_match" / f"{table}.tsv"))
        assert len(rows) == count
        for torch_name, torch_shape, name, shape, axes in rows:
            ref = variables[name]
            values = checkpoint.read(ref)
            assert list(ref.shape) == shape, name
            turned = values if axes is None else values.transpose(axes)
            assert turned.reshape(torch_shape).tobytes() == ported[torch_name].numpy().tobytes(), name
