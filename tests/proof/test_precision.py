"""
Comparing in another dtype: its tolerance, what it casts, what fails for want of a kernel, and float32 in full.

Three models of the gallery are compared in every dtype with what their originals computed; torch's own finfo knows the
roundoffs, and torch's own flags say how float32 is multiplied. CUDA is not needed: what is done for it is done on a
CPU, too.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import t2t
from benchmarks.gallery import CHECKPOINTS
from t2t import results
from t2t.console import Console
from t2t.problems import MappingError, ModuleError, UsageError
from t2t.proof import precision
from t2t.proof.compare import compare
from t2t.proof.precision import PRECISIONS, cast, full_float32, tolerant
from t2t.proof.recording import Draw, Recording
from t2t.verification import Verify
from tests.commands import ROOT, server
from tests.gallery.shared import MAPPINGS, RECORDINGS, data

VerifyOf = Callable[..., Verify]

DRAWN = Recording({}, (Draw({"x": np.ones((2, 3), np.float32)}, {"y": np.ones((2, 3), np.float32)}),), None, {})


# --- the table ---


def test_the_roundoffs_are_torchs_and_narrow_dtypes_get_sixteen() -> None:
    assert {name: one.roundoff for name, one in PRECISIONS.items()} == {
        name: torch.finfo(getattr(torch, name)).eps / 2 for name in PRECISIONS
    }
    allowed = {name: one.rel / one.roundoff for name, one in PRECISIONS.items() if one.rel is not None}
    assert allowed == {name: pytest.approx(16, rel=0.05) for name in ("bfloat16", "float16")}


def test_a_narrow_dtype_has_its_own_tolerance_unless_verify_allows_more(verify_of: VerifyOf) -> None:
    usual, strict, loose = verify_of(), verify_of(rel="1e-7"), verify_of(rel="0.5")

    assert [tolerant(usual, name).rel for name in PRECISIONS] == [1e-5, 1e-5, 6e-2, 8e-3]
    assert [tolerant(strict, name).rel for name in PRECISIONS] == [1e-7, 1e-7, 6e-2, 8e-3]
    assert [tolerant(loose, name).rel for name in PRECISIONS] == [0.5] * 4
    assert (tolerant(usual, "bfloat16").abs, usual.rel) == (usual.abs, 1e-5)


def test_another_dtype_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError) as error:
        t2t.verify("no such mapping.yaml", dtype="int8")
    assert str(error.value) == (
        "T2T001 dtype int8: no comparison runs in it; dtypes are float64, float32, bfloat16, float16"
    )
    with pytest.raises(UsageError) as error:
        t2t.verify("no such mapping.yaml", dtype="bfloat61")
    assert "did you mean bfloat16" in str(error.value)
    done = server().run("verify", "mappings/madry.yaml", "--dtype", "tf32", cwd=ROOT)
    assert (done.code, done.out) == (2, "")
    assert "argument --dtype: invalid choice: " in done.err


def test_only_verify_takes_a_dtype() -> None:
    options: Any = {"dtype": "bfloat16"}
    for job in (t2t.convert, t2t.load):
        with pytest.raises(TypeError, match="unknown option 'dtype'"):
            job(MAPPINGS / "madry.yaml", **options)
    done = server().run("mappings/madry.yaml", "--dtype", "bfloat16", cwd=ROOT)
    assert (done.code, done.err.splitlines()[-1]) == (2, "t2t: error: unrecognized arguments: --dtype bfloat16")


# --- models with an original ---


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [(None, 0, 1e-5), ("float64", 0, 1e-5), ("bfloat16", 1e-3, 6e-2), ("float16", 1e-4, 8e-3)],
)
@pytest.mark.parametrize("name", ["madry", "kws", "ultralight_rfb"])
def test_a_right_mapping_is_proven_in_every_dtype(name: str, dtype: str | None, least: float, most: float) -> None:
    """It is that dtype that computes: what a narrow one gives is by far not as close as float32's."""
    checkpoint = data(CHECKPOINTS[name]) if CHECKPOINTS[name] else None

    done = t2t.verify(MAPPINGS / f"{name}.yaml", checkpoint=checkpoint, dtype=dtype)

    assert done.proven
    assert (done.dtype, done.device) == (dtype, "cpu")
    assert least < max(delta.max_delta / delta.scale for delta in done.outputs) < most


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_wrong_mapping_is_proven_in_none(dtype: str, tmp_path: Path) -> None:
    mapping = MAPPINGS / "madry.yaml"
    right = mapping.read_text("utf-8")
    wrong = right.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    assert wrong != right
    (tmp_path / "wrong.yaml").write_text(wrong.replace("checkpoints/", f"{MAPPINGS}/checkpoints/"), "utf-8")

    done = t2t.verify(tmp_path / "wrong.yaml", recording=RECORDINGS / "madry.npz", dtype=dtype)

    (problem,) = done.problems()
    rel = f"{tolerant(done.verify, dtype).rel:g}"
    assert re.fullmatch(
        rf"logits: max\|Δ\| [\d.]+ exceeds \S+ \(1e-06 \+ {rel} x [\d.]+ max\|TF\|\) in {dtype}, "
        r"accuracy 0\.0\d+ against TensorFlow's 0\.9694",
        problem.message,
    )
    assert problem.hint == f"if it is proven without --dtype, the mapping is right, and this is what {dtype} changes"


def test_the_tolerance_stands_in_the_verdict_and_in_the_document() -> None:
    said = server().run("verify", "mappings/madry.yaml", "--dtype", "bfloat16", cwd=ROOT)
    document = server().run("verify", "mappings/madry.yaml", "--dtype", "bfloat16", "--format", "json", cwd=ROOT)
    usual = server().run("verify", "mappings/madry.yaml", "--format", "json", cwd=ROOT)

    assert (said.code, said.out.splitlines()[-1]) == (0, "proven in bfloat16 within 0.06 (rel)")
    told = json.loads(document.out)
    assert (told["proven"], told["dtype"], told["device"]) == (True, "bfloat16", "cpu")
    (output,) = told["outputs"]
    assert output["tolerance"] == pytest.approx(1e-6 + 6e-2 * output["scale"])
    told = json.loads(usual.out)
    assert (told["proven"], told["dtype"], told["device"]) == (True, None, "cpu")
    assert told["outputs"][0]["tolerance"] == pytest.approx(1e-6 + 1e-5 * told["outputs"][0]["scale"])


def test_an_operation_without_such_a_kernel_is_told_as_that() -> None:
    with pytest.raises(ModuleError) as error:
        t2t.verify(MAPPINGS / "dtln.yaml", checkpoint=data(CHECKPOINTS["dtln"]), dtype="bfloat16")

    (problem,) = error.value.problems
    assert (problem.code, problem.message.partition(": ")[0]) == ("T2T707", "forward() of DTLN failed")
    assert problem.message.endswith("RuntimeError: Unsupported dtype BFloat16")
    assert problem.hint == (
        "this operation has no bfloat16 kernel on cpu: compare in another dtype, or leave --dtype out"
    )


# --- what is cast ---


class Mixed(nn.Module):
    """Something of every kind that a module holds."""

    whole: torch.Tensor
    part: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.wave = nn.Parameter(torch.ones(3, dtype=torch.complex64))
        self.register_buffer("whole", torch.arange(3))
        self.register_buffer("part", torch.full((3,), 0.5), persistent=False)
        self.plain = torch.ones(3, 3)
        self.product = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.plain if self.product else x


def test_floating_parameters_buffers_and_inputs_are_cast_and_nothing_else(verify_of: VerifyOf) -> None:
    module, verify = Mixed(), verify_of()
    seen: list[torch.dtype] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))

    cast(module, "bfloat16", verify)
    compare(module, DRAWN, verify, "bfloat16")
    whole = Recording({}, (Draw({"x": np.ones((2, 3), np.int32)}, {"y": np.ones((2, 3), np.float32)}),), None, {})
    compare(module, whole, verify, "bfloat16")
    compare(module, DRAWN, verify)

    assert (module.weight.dtype, module.part.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (module.wave.dtype, module.whole.dtype, module.plain.dtype) == (torch.complex64, torch.int64, torch.float32)
    assert seen == [torch.bfloat16, torch.int32, torch.float32]


def test_a_tensor_that_is_not_cast_is_told_with_the_way_out(verify_of: VerifyOf) -> None:
    module, verify = Mixed(), verify_of()
    module.product = True
    cast(module, "bfloat16", verify)

    with pytest.raises(ModuleError) as error:
        compare(module, DRAWN, verify, "bfloat16")

    (problem,) = error.value.problems
    assert (problem.code, problem.at) == ("T2T707", verify.at)
    assert problem.message.startswith("forward() of Mixed failed: ")
    assert problem.hint == (
        "--dtype casts parameters, buffers and inputs to bfloat16, and no tensor that forward() makes or finds "
        "elsewhere: if it runs without --dtype, give those the dtype of what they meet"
    )


@pytest.mark.parametrize(
    ("dtype", "held", "largest", "hint"),
    [
        ("float16", torch.float32, 70000.0, "compare in bfloat16, which has float32's range"),
        ("bfloat16", torch.float64, 1e39, "leave --dtype out"),
    ],
)
def test_values_that_the_dtype_cannot_hold_are_refused(
    verify_of: VerifyOf, dtype: str, held: torch.dtype, largest: float, hint: str
) -> None:
    module, verify = Mixed(), verify_of()
    module.weight = nn.Parameter(torch.tensor([1.0, -largest, float("inf")], dtype=held))

    with pytest.raises(MappingError) as error:
        cast(module, dtype, verify)

    assert str(error.value) == (
        f"{verify.at}: T2T402 weight: {dtype} cannot hold 1 of 3 values, the largest is {largest:.6g}; {hint}"
    )
    assert (module.weight.dtype, module.part.dtype) == (held, torch.float32)


# --- float32 in full ---


def _newer() -> list[Any]:
    """The flags of torch 2.9 and later, one for each kind of operation."""
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has the older flags only")
    cuda, cudnn, mkldnn = backends.cuda, backends.cudnn, backends.mkldnn
    return [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


@pytest.fixture
def flags_put_back() -> Iterator[None]:
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.set_float32_matmul_precision(before)


def _older() -> tuple[str, bool, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("matmul", "cudnn"), [("highest", True), ("high", True), ("medium", False)])
def test_no_tf32_while_it_is_compared_and_the_flags_as_before_afterwards(
    verify_of: VerifyOf, flags_put_back: None, matmul: str, cudnn: bool
) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn
    before, seen = _older(), []

    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(_older())
            torch.set_float32_matmul_precision("medium")
            return x

    compare(Looks(), DRAWN, verify_of())

    assert seen == [("highest", False, False)]
    assert _older() == before


def test_the_newer_flags_are_as_before_where_somebody_has_set_them(flags_put_back: None) -> None:
    """Then torch refuses to say what the older ones are."""
    newer = _newer()
    before = [one.fp32_precision for one in newer]
    for one, value in zip(newer, ("tf32", "tf32", "ieee", "bf16", "none", "none"), strict=True):
        one.fp32_precision = value
    mine = [one.fp32_precision for one in newer]
    with pytest.raises(RuntimeError):
        torch.get_float32_matmul_precision()
    try:
        with contextlib.suppress(ZeroDivisionError), full_float32():
            seen = {one.fp32_precision for one in newer}
            raise ZeroDivisionError
        assert seen == {"ieee"}
        assert [one.fp32_precision for one in newer] == mine
    finally:
        for one, value in zip(newer, before, strict=True):
            one.fp32_precision = value


# --- other devices ---


def test_the_device_is_named_where_it_is_not_the_cpu(verify_of: VerifyOf, capsys: pytest.CaptureFixture[str]) -> None:
    """CUDA's part is played by a name: the verdict of a comparison that ran there."""
    done = compare(Mixed(), DRAWN, verify_of())
    for device, dtype, last in (
        ("cpu", None, "proven"),
        ("cuda:0", None, "proven on cuda:0"),
        ("cuda:0", "float16", "proven in float16 within 1e-05 (rel) on cuda:0"),
    ):
        results.comparison(Console("concise"), replace(done, device=device, dtype=dtype))
        assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_that_is_not_there_is_one_line() -> None:
    done = server().run("verify", "mappings/madry.yaml", "--device", "cuda", cwd=ROOT)

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("T2T001 device cuda cannot be used: ")
    assert done.err.endswith("; leave it out to use the CPU, or install a torch that has it\n")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [None, *PRECISIONS])
def test_a_right_mapping_is_proven_on_cuda(dtype: str | None) -> None:
    done = t2t.verify(MAPPINGS / "madry.yaml", device="cuda", dtype=dtype)

    assert (done.proven, done.device) == (True, "cuda:0")


def test_the_hint_goes_by_what_torch_says() -> None:
    """Its own words for it, as torch 2.13 says them."""
    told = "this operation has no float16 kernel on cuda: compare in another dtype, or leave --dtype out"
    kernels: list[Callable[[], object]] = [
        lambda: torch.fft.rfft(torch.zeros(8, dtype=torch.bfloat16)),
        lambda: torch.linalg.inv(torch.eye(3, dtype=torch.bfloat16)),
        lambda: torch.linalg.qr(torch.eye(3, dtype=torch.bfloat16)),
    ]
    for kernel in kernels:
        with pytest.raises((RuntimeError, NotImplementedError)) as error:
            kernel()
        assert precision.hint(error.value, "float16", "cuda") == told
    assert precision.hint(RuntimeError("shapes differ"), "float16", "cuda") != told
