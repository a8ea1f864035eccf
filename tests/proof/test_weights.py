"""Whether a file that brings its own weights is of the checkpoint's training: real pairs, and what tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from t2t import checkpoints
from t2t.names import shown
from t2t.problems import OriginalError
from t2t.proof.arrays import Array
from t2t.proof.constants import constants
from t2t.proof.originals import samples
from t2t.proof.weights import check_training, folded
from t2t.verification import Verify

VerifyOf = Callable[..., Verify]

TINY = "mlperf-tiny/mlcommons+tiny"
FSRCNN = "fsrcnn/Saafke+FSRCNN_Tensorflow"
FACES = "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB"
ONNX = f"{FACES}/models/onnx/version-RFB-320_without_postprocessing.onnx"
DTLN = "dtln/breizhn+DTLN"


@pytest.mark.parametrize(
    ("checkpoint", "kind", "original"),
    [
        (f"{TINY}/image_classification/trained_models/pretrainedResnet.h5", "tflite", None),
        (
            f"{TINY}/visual_wake_words/trained_models/vww_96.h5",
            "tflite",
            f"{TINY}/visual_wake_words/trained_models/vww_96_float.tflite",
        ),
        (f"{FSRCNN}/CKPT_dir/x2/fsrcnn_ckpt", "frozen", f"{FSRCNN}/models/FSRCNN_x2.pb"),
        (f"{FACES}/tf/export_models/RFB", "onnx", ONNX),
        (f"{DTLN}/DTLN_norm_40h_saved_model", "saved_model", f"{DTLN}/DTLN_norm_40h_saved_model"),
        (f"{DTLN}/model.h5", "keras", f"{DTLN}/model.h5"),
    ],
)
def test_a_model_that_was_made_from_the_checkpoint_is_taken(
    verify_of: VerifyOf, shared_data: Path, checkpoint: str, kind: str, original: str | None
) -> None:
    """The tflite files have their batch norms folded into the kernels."""
    verify = verify_of(reference=f"{{{kind}: m, fetch: {{y: y}}}}")
    path = shared_data / (original or checkpoint.replace(".h5", ".tflite"))

    with checkpoints.open(shared_data / checkpoint) as opened:
        check_training(verify, str(path), opened)


@pytest.mark.parametrize(
    "case",
    [
        (
            f"{TINY}/keyword_spotting/trained_models/kws_ref_model",
            "tflite",
            f"{TINY}/keyword_spotting/trained_models/kws_ref_model_float32.tflite",
            55,
            15,
        ),
        (f"{FSRCNN}/CKPT_dir/x2/fsrcnn_ckpt", "frozen", f"{FSRCNN}/models/FSRCNN_x3.pb", 12, 30),
        (f"{FACES}/tf/export_models/slim", "onnx", ONNX, 151, 209),
        (f"{DTLN}/model.h5", "saved_model", f"{DTLN}/DTLN_norm_40h_saved_model", 20, 22),
    ],
)
def test_a_model_of_another_training_is_refused(
    verify_of: VerifyOf, shared_data: Path, case: tuple[str, str, str, int, int]
) -> None:
    checkpoint, kind, original, variables, held = case
    verify = verify_of(reference=f"{{{kind}: m, fetch: {{y: y}}}}")
    with checkpoints.open(shared_data / checkpoint) as opened, pytest.raises(OriginalError) as error:
        check_training(verify, str(shared_data / original), opened)

    assert str(error.value) == (
        f"{verify.at}: T2T905 the {kind} model is of another training than the checkpoint: none of {variables} "
        f"variables has its values among the model's {held} constants; name the model that was made from this "
        "checkpoint, or describe the original by call"
    )
    assert error.value.problems[0].details == (f"looked for in {shown(str(shared_data / original))}",)


# --- one variable, one constant ---


def taken(tmp_path: Path, verify_of: VerifyOf, variable: Array, constant: Array) -> bool:
    """Whether a model that holds one constant is taken for a checkpoint of one variable."""
    np.savez(tmp_path / "c.npz", w=variable)
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_of(constant))
    with checkpoints.open(tmp_path / "c.npz") as opened:
        try:
            check_training(verify_of(reference="{onnx: m, fetch: {y: y}}"), str(path), opened)
        except OriginalError:
            return False
    return True


def onnx_of(array: Array) -> bytes:
    """An ONNX model with this constant in it and nothing else."""

    def field(number: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    dims = b"".join(bytes([8, size]) for size in array.shape)  # each below 128
    kind = {"float32": 1, "float16": 10, "float64": 11}[array.dtype.name]
    tensor = dims + bytes([16, kind]) + field(9, array.astype(array.dtype.newbyteorder("<")).tobytes())
    return field(7, field(5, tensor))


def test_the_order_of_the_values_is_no_matter_and_their_number_and_each_of_them_is(
    tmp_path: Path, verify_of: VerifyOf
) -> None:
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((3, 3, 4, 5), np.float32)
    other = kernel.copy()
    other[1, 1] = generator.standard_normal((4, 5))

    assert taken(tmp_path, verify_of, kernel, kernel.transpose(3, 2, 0, 1))
    assert taken(tmp_path, verify_of, kernel[0, 0, 0:4].reshape(-1), kernel[0, 0].T)
    assert taken(tmp_path, verify_of, kernel, kernel.astype(np.float16))
    assert not taken(tmp_path, verify_of, kernel, kernel[:2].transpose(3, 2, 0, 1))
    assert not taken(tmp_path, verify_of, kernel, generator.standard_normal(kernel.shape, np.float32))
    assert not taken(tmp_path, verify_of, kernel, other.transpose(3, 2, 0, 1))


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_kernel_may_be_folded_channel_by_channel(tmp_path: Path, verify_of: VerifyOf, where: str) -> None:
    """As a batch norm is; a transposed kernel's channels come last but one, a depthwise one's are two axes."""
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((3, 3, 4, 5), np.float32)
    scale = generator.standard_normal(5).astype(np.float32)  # of either sign

    def placed(folded: Array) -> Array:
        return np.moveaxis(folded, -1, 0) if where == "first" else folded

    assert taken(tmp_path, verify_of, kernel, placed(kernel * scale))
    assert taken(tmp_path, verify_of, kernel.swapaxes(2, 3), placed(kernel * scale))
    depthwise = placed((kernel * scale).reshape(3, 3, 20))
    assert taken(tmp_path, verify_of, kernel, depthwise[:, None] if where == "first" else depthwise[None])
    # Other numbers in each place are no folding.
    assert not taken(tmp_path, verify_of, kernel, placed(kernel * generator.uniform(1, 2, kernel.shape)).astype("f4"))


def test_what_could_be_anybodys_is_not_looked_for(tmp_path: Path, verify_of: VerifyOf) -> None:
    """Zeros, ones and a few values prove nothing, and where there is nothing else nothing is refused."""
    zeros, some = np.zeros((8, 8), np.float32), np.arange(15, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal((8, 8), np.float32)

    assert taken(tmp_path, verify_of, zeros, noise)
    assert taken(tmp_path, verify_of, some, noise)
    assert taken(tmp_path, verify_of, np.arange(64).reshape(8, 8), noise)
    assert not taken(tmp_path, verify_of, noise, zeros)


def test_the_constants_of_this_test_are_read_as_they_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((3, 50, 2), np.float32)
    (tmp_path / "m.onnx").write_bytes(onnx_of(array))

    (read,) = constants("onnx", str(tmp_path / "m.onnx"))

    np.testing.assert_array_equal(read, array, strict=True)


def test_kernels_with_a_norm_folded_in_are_told_from_each_other(verify_of: VerifyOf, shared_data: Path) -> None:
    """Each is the kernel times gamma / sqrt(variance + eps) of the norm behind it, as numpy computes it."""
    trained = shared_data / TINY / "image_classification/trained_models/pretrainedResnet.h5"
    verify = verify_of(reference="{tflite: m, fetch: {y: y}}")
    with checkpoints.open(trained, names="full_name") as opened:
        found = folded(verify, str(trained.with_suffix(".tflite")), opened)
        read = {name: opened.read(ref) for name, ref in opened.inventory.variables.items()}

    # The first three stages have a norm behind each of their convolutions, but for the two shortcuts.
    plain = {"conv2d_5/kernel", "conv2d_8/kernel"}
    assert set(found.values()) == {name for name in read if name.startswith("conv2d") and "kernel" in name} - plain
    stored = {samples.digest(array): array for array in constants("tflite", str(trained.with_suffix(".tflite")))}
    of_first = next(stored[digest] for digest, name in found.items() if name == "conv2d/kernel")
    scale = read["batch_normalization/gamma"] / np.sqrt(read["batch_normalization/moving_variance"] + 1e-3)
    expected = np.moveaxis(read["conv2d/kernel"] * scale, -1, 0)
    np.testing.assert_allclose(of_first, expected, rtol=1e-5, atol=1e-7)


def test_only_a_file_with_constants_has_folded_ones(verify_of: VerifyOf, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.arange(16, dtype=np.float32))
    with checkpoints.open(tmp_path / "w.npz") as opened:
        assert folded(verify_of(), "no such file", opened) == {}
