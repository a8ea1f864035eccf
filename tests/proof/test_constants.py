"""The constants in other people's model files: what their own libraries read, and a refusal for the rest."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from t2t.problems import OriginalError, T2TError
from t2t.proof.constants import KINDS, constants

TINY = "mlperf-tiny/mlcommons+tiny"
FACES = "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB"
FILES = {
    "tflite": f"{TINY}/keyword_spotting/trained_models/kws_ref_model_float32.tflite",
    "frozen": "fsrcnn/Saafke+FSRCNN_Tensorflow/models/FSRCNN_x2.pb",
    "onnx": f"{FACES}/models/onnx/version-slim-320_without_postprocessing.onnx",
}


def test_a_tflites_constants_are_what_its_interpreter_holds(shared_data: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai_edge_litert is not here")
    path = str(shared_data / FILES["tflite"])
    interpreter = litert.Interpreter(
        path, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    held = set()
    for detail in interpreter.get_tensor_details():
        try:
            array = interpreter.get_tensor(detail["index"])
        except ValueError:  # it is computed, and nothing was
            continue
        if array.dtype == np.float32:
            held.add((array.shape, array.tobytes()))

    assert {(array.shape, array.tobytes()) for array in constants("tflite", path)} == held
    assert len(held) == 15


def test_an_onnx_models_constants_are_what_its_authors_trained(shared_data: Path) -> None:
    """Their own .pth beside it, all of it but the counters."""
    torch = pytest.importorskip("torch")
    stored = torch.load(
        shared_data / f"{FACES}/models/pretrained/version-slim-320.pth", map_location="cpu", weights_only=True
    )
    floating = [tensor for tensor in stored.values() if tensor.is_floating_point()]
    trained = {(tuple(tensor.shape), tensor.numpy().tobytes()) for tensor in floating}

    read = {(array.shape, array.tobytes()) for array in constants("onnx", str(shared_data / FILES["onnx"]))}

    assert len(read & trained) == len(trained) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_model_is_refused_or_read_in_part(shared_data: Path, tmp_path: Path, kind: str) -> None:
    """Cut anywhere, or with bytes changed: a T2TError or fewer constants, never anything else."""
    whole, path = (shared_data / FILES[kind]).read_bytes(), tmp_path / "m"
    generator, refused = random.Random(0), 0
    for number in range(150):
        data = bytearray(whole)
        if number % 2:
            del data[generator.randrange(len(data)) :]
        else:
            places = range(4000) if number % 4 else range(len(data))
            for _ in range(20):
                data[generator.choice(places)] = generator.randrange(256)
        path.write_bytes(data)
        try:
            constants(kind, str(path))
        except T2TError:
            refused += 1

    assert refused > 10


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("tflite", b"", "byte 0 is outside of the file"),
        ("tflite", b"\xff" * 64, "byte 4294967295 is outside of the file"),
        ("onnx", b"\x3a\x05abc", "protobuf field 7 claims 5 bytes, but 3 are left"),
        ("frozen", b"\x0babc", "protobuf field 1 has the wire type 3"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path: Path, kind: str, data: bytes, message: str) -> None:
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(OriginalError) as error:
        constants(kind, str(tmp_path / "m"))

    assert str(error.value) == (
        f"{tmp_path}/m: T2T902: this is no {kind} model: {message}; "
        f"name a {kind} model in verify's reference, or copy the file again"
    )
