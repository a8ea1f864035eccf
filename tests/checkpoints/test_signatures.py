"""What t2t does not read is named for what it is, by files that their own libraries wrote, and is never opened."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import cramjam
import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch

from t2t.checkpoints.locate import locate
from t2t.checkpoints.signatures import HEAD_SIZE, READ, described
from t2t.problems import CheckpointError
from tests.checkpoints.writing import floats, header, message

FORMATS = "t2t reads TensorFlow V1 and V2 checkpoints, SavedModels, Keras .h5 and .keras, and .npz"
TORCH = ("a PyTorch file (a pickle), which t2t never reads", FORMATS)
PICKLE = ("a Python pickle, which t2t never reads", FORMATS)
GRAPH = ("a TensorFlow graph (a frozen .pb, or one without weights)", FORMATS)
META = ("a TensorFlow graph (a .meta file), without weights", "give the checkpoint that was saved with it")
UNPACK = "unpack it first"


class Cat:
    """Something that only a pickle can hold."""


def torch_file(*, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.ckpt.index"))
    return file.getvalue()


def zipped(*members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            archive.writestr(member, b"content")
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def hdf5() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened["w"] = np.zeros(3)
    return file.getvalue()


def node(name: bytes, op: bytes) -> bytes:
    return message((1, name), (2, op))


OP = message((2, message((1, message((1, b"Add"))))))
FILES = {
    "torch": (torch_file(zipped=True), TORCH),
    "torch before 1.6": (torch_file(zipped=False), TORCH),
    **{
        f"pickle {protocol} of {name}": (pickle.dumps(value, protocol), PICKLE)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        for name, value in {
            "a dict": {"w": [1.0]},
            "a list": [{"w": 1.0}],
            "an array": np.zeros(3),
            "an ordered dict": collections.OrderedDict(w=1),
            "an object": Cat(),
        }.items()
    },
    "onnx": (message((1, 8), (2, b"pytorch"), (7, b"")), ("an ONNX model", FORMATS)),
    "onnx without a producer": (message((1, 3), (7, b"\x0a\0")), ("an ONNX model", FORMATS)),
    "onnx that is not over": (message((1, 3), (7, bytes(5000))), ("an ONNX model", FORMATS)),
    "tflite": (b"\x1c\0\0\0TFL3\x14\0", ("a TFLite model", FORMATS)),
    "gguf": (b"GGUF\3\0\0\0", ("a GGUF file", FORMATS)),
    "safetensors": (safetensors.numpy.save({"w": np.zeros(3)}), ("a safetensors file", FORMATS)),
    "safetensors, nothing in it": (b"\2\0\0\0\0\0\0\0{}", ("a safetensors file", FORMATS)),
    "graph": (message((1, node(b"x", b"Placeholder"))), GRAPH),
    "graph with a long first node": (message((1, node(b"w", b"Const") + message((5, bytes(5000))))), GRAPH),
    "meta": (message((1, OP), (2, b"")), META),
    "saved model": (
        message((1, 1), (2, message((1, OP)))),
        ("a SavedModel's graph", "give the SavedModel's directory"),
    ),
    "graph as text": (
        b'node {\n  name: "x"\n  op: "Placeholder"\n}\n',
        ("a TensorFlow graph as text, without weights", "give the checkpoint that was saved with it"),
    ),
    "state file": (
        b'model_checkpoint_path: "model.ckpt-7"\n',
        ("a checkpoint state file under another name", "give the prefix that it names"),
    ),
    "events": (
        bytes.fromhex("1800000000000000a37f4b22") + b"\x09\0\0\x80\x4c\xd8\xd6\xd9\x41\x1a\x0dbrain.Event:2",
        ("a TensorBoard event file", "it lies beside the checkpoint: give that one"),
    ),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        ("a Git LFS pointer, not the file itself", "run git lfs pull"),
    ),
    "html": (b"\n<!DOCTYPE html><html>", ("an HTML page", "download the file itself")),
    "html with a mark": (b"\xef\xbb\xbf<HTML>", ("an HTML page", "download the file itself")),
    "xml": (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
        ("an XML page", "download the file itself"),
    ),
    "json": (json.dumps({"hidden_size": 768}, indent=2).encode(), ("JSON text", FORMATS)),
    "json of a list": (b"[\n  {", ("JSON text", FORMATS)),
    "gzip": (gzip.compress(b"x"), ("a gzip archive", UNPACK)),
    "tar": (tar(), ("a tar archive", UNPACK)),
    "bzip2": (bz2.compress(b"x"), ("a bzip2 archive", UNPACK)),
    "xz": (lzma.compress(b"x"), ("an xz archive", UNPACK)),
    "zstandard": (bytes(cramjam.zstd.compress(b"x")), ("a Zstandard archive", UNPACK)),
    "lz4": (bytes(cramjam.lz4.compress(b"x")), ("an LZ4 archive", UNPACK)),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", ("a 7z archive", UNPACK)),
    "rar": (b"Rar!\x1a\x07\x01\0", ("a RAR archive", UNPACK)),
    "zip": (zipped("a\x1b.ckpt"), ("a zip archive (its first member is a\\x1b.ckpt)", UNPACK)),
    "matlab 5": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", ("a MATLAB .mat file", FORMATS)),
    "matlab 7.3": (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", ("a MATLAB .mat file", FORMATS)),
    "npy": (npy(), ("a NumPy .npy array, which has no name", "store it in an .npz, under its variable's name")),
    "hdf5": (hdf5(), ("an HDF5 file", FORMATS)),
    "npz": (zipped("w.npy"), ("a NumPy .npz archive", FORMATS)),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), ("a .keras archive", FORMATS)),
}


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=FILES)
def test_a_file_is_named_for_what_it_is(content: bytes, expected: tuple[str, str]) -> None:
    assert READ == FORMATS
    assert described(content[:HEAD_SIZE]) == expected


NOTHING = {
    "nothing": b"",
    "text": b"hello, this is a file\n",
    "two words, one below the other, as a class in an old pickle": b"cat\ndog\nhouse\n",
    "an ini file": b"[section]\nkey = value\n",
    "zeros": bytes(HEAD_SIZE),
    "ones": b"\xff" * HEAD_SIZE,
    "values": floats(*range(100)).data,
    "a checkpoint's header": header(),
    "a message of another kind": message((1, b"name"), (2, b"value")),
    "a message of two texts in a message": message((1, message((1, b"a"), (2, b"not an operation")))),
    "a message of numbers": message((1, 7), (2, 7)),
    "a header of safetensors that would be too long": b"\xff" * 8 + b'{"a":',
    "a message that is cut off": b"\x0a",
    "a number without an end": b"\x08" + b"\xff" * 20,
}


@pytest.mark.parametrize("content", NOTHING.values(), ids=NOTHING)
def test_what_could_be_anything_is_given_no_name(content: bytes) -> None:
    assert described(content[:HEAD_SIZE]) is None


def test_no_beginning_is_too_short_or_too_odd() -> None:
    """Every file above, cut off at each byte, and with each of its first bytes changed."""
    random = np.random.default_rng(0)
    for content, _ in FILES.values():
        head = content[:HEAD_SIZE]
        for size in range(len(head)):
            described(head[:size])
        for at in range(min(len(head), 32)):
            described(head[:at] + random.bytes(1) + head[at + 1 :])


REAL = {
    "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB/models/onnx/"
    "version-slim-320_without_postprocessing.onnx": "an ONNX model",
    "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB/models/pretrained/version-slim-320.pth": TORCH[
        0
    ],
    "dtln/lhwcv+DTLN_pytorch/pretrained/model.pth": TORCH[0],
    "fsrcnn/Saafke+FSRCNN_Tensorflow/models/FSRCNN_x2.pb": GRAPH[0],
    "mlperf-tiny/mlcommons+tiny/image_classification/trained_models/pretrainedResnet.tflite": "a TFLite model",
    "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_pre/mems_0.npy": "a NumPy .npy array, which has no name",
    "toy-transformers/CyberZHG+keras-bert/test_checkpoint/bert_config.json": "JSON text",
}


@pytest.mark.parametrize("path", REAL, ids=lambda path: Path(path).name)
def test_real_files_are_named(shared_data: Path, path: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        locate(str(shared_data / path))

    hint = "store it in an .npz, under its variable's name" if path.endswith(".npy") else FORMATS
    assert str(caught.value) == f"{shared_data / path}: T2T603: this is {REAL[path]}; {hint}"


def test_graphs_of_real_checkpoints_are_named(shared_data: Path) -> None:
    """Under whatever name: the names that TensorFlow gives them lead to the checkpoint."""
    metas = sorted(shared_data.rglob("*.meta"))
    saved = sorted(shared_data.rglob("saved_model.pb"))

    assert min(len(metas), len(saved)) > 3
    assert {described(path.read_bytes()[:HEAD_SIZE]) for path in metas} == {META}
    assert {described(path.read_bytes()[:HEAD_SIZE]) for path in saved} == {
        ("a SavedModel's graph", "give the SavedModel's directory")
    }


def test_data_and_indexes_of_real_checkpoints_are_taken_for_nothing_else(shared_data: Path) -> None:
    paths = [path for pattern in ("*.index", "*.data-*") for path in sorted(shared_data.rglob(pattern))]

    assert len(paths) > 20
    for path in paths:
        with path.open("rb") as file:
            assert described(file.read(HEAD_SIZE)) is None, path
