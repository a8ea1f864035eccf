"""
Values that look wrong: each kind fires, its neighbour does not, and a stranger's trained weights look right.

What is right is said by weights that somebody else trained: the gallery's mappings read them, with their rows as they
are and with two of them exchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import t2t
from benchmarks.gallery import CHECKPOINTS
from t2t import execute
from t2t.problems import Problem
from t2t.proof.values import Values
from t2t.tensors import ParameterRef
from tests.commands import server, small, store
from tests.gallery.shared import MAPPINGS, data
from tests.given import Memory, lines, parameters, planned

Array = np.ndarray[Any, Any]


def told(arrays: dict[str, Array], **kinds: Any) -> list[str]:
    """
    What there is to say of a module whose state_dict is this: each variable becomes the entry of its name, in upper
    case before. `kinds` are those that are no parameters.
    """
    return lines(problems(arrays, **kinds))


def problems(arrays: dict[str, Array], **kinds: Any) -> list[Problem]:
    memory = Memory({name.upper(): array for name, array in arrays.items()})
    rows = "".join(f"- {{tf: {name.upper()}, torch: {name}{_axes(array)}}}\n" for name, array in arrays.items())
    refs = [
        ParameterRef(
            name, array.dtype.name, array.shape, kinds.get(name, "buffer" if "running" in name else "parameter")
        )
        for name, array in arrays.items()
    ]
    module = parameters(*refs)
    values = Values(module)
    for _ in execute.tensors(planned(rows, memory, module), memory, {}, allow_nonfinite=True, seen=values.see):
        pass
    assert len(memory.reads) == len(arrays)
    found = values.problems()
    assert {problem.severity for problem in found} <= {"warning"}
    return found


def _axes(array: Array) -> str:
    return {0: "", 1: "", 2: ", axes: i o -> i o", 4: ", axes: a b c d -> a b c d"}[array.ndim]


def norms(count: int, size: int = 32) -> dict[str, Array]:
    """Normalizations as training leaves them, under torch's names."""
    random = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for i in range(count):
        scale, offset = random.uniform(0.7, 1.3, size), random.normal(0, 0.2, size)
        mean, variance = random.normal(0, 1, size), random.uniform(0.1, 2, size)
        given = {"weight": scale, "bias": offset, "running_mean": mean, "running_var": variance}
        arrays |= {f"norm{i}.{name}": array.astype(np.float32) for name, array in given.items()}
    return arrays


def exchanged(arrays: dict[str, Array], one: str, other: str) -> dict[str, Array]:
    return arrays | {one: arrays[other], other: arrays[one]}


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


# --- weights ---

ZERO = "look whether the checkpoint is the one that was meant; zeros that a model begins with are harmless"


def test_weights_that_are_all_zero_are_counted_and_the_first_is_named() -> None:
    arrays = {"a.weight": zeros(3, 4), "b.weight": ones(3, 4), "c.weight": zeros(2, 3, 4, 5), "c.bias": zeros(2)}

    (problem,) = problems(arrays)

    assert lines([problem]) == [
        f"5:8: T2T408 2 of 3 weights are all zero, the first is a.weight (from A.WEIGHT); {ZERO}"
    ]
    assert problem.details == ("a.weight (from A.WEIGHT)", "c.weight (from C.WEIGHT)")


@pytest.mark.parametrize("shape", [(3, 4), (1, 100_000), (5000, 1)])
def test_one_element_anywhere_is_enough(shape: tuple[int, int]) -> None:
    for place in ((0, 0), (shape[0] - 1, shape[1] - 1)):
        weight = zeros(*shape)
        weight[place] = 1e-30
        assert told({"a.weight": weight}) == []
    negative = -zeros(*shape)
    assert told({"a.weight": negative}) == [
        f"5:8: T2T408 1 of 1 weights is all zero, the first is a.weight (from A.WEIGHT); {ZERO}"
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_zeros_of_every_floating_dtype(dtype: Any) -> None:
    some = np.zeros((3, 4), dtype)
    some[2, 3] = 1

    assert len(told({"a.weight": np.zeros((3, 4), dtype)})) == 1
    assert told({"a.weight": some}) == []


def test_zeros_that_are_usual_are_no_finding() -> None:
    """Biases as they begin (of any rank), what is empty, integers, and a state that a module keeps between steps."""
    assert told({"a.bias": zeros(4), "a.weight": ones(4, 4)}) == []
    assert told({"a.bias": zeros(4, 4), "b.beta": zeros(4, 4)}) == []
    assert told({"a.weight": zeros(0, 4)}) == []
    assert told({"a.weight": np.zeros((4, 4), np.int32)}) == []
    assert told({"a.state": zeros(4, 4)}, **{"a.state": "buffer"}) == []
    assert len(told({"a.state": zeros(4, 4)})) == 1


def test_a_join_names_its_first_variable() -> None:
    memory = Memory({"a": zeros(3), "b": zeros(3)})
    module = parameters(ParameterRef("w", "float32", (2, 3)))
    values = Values(module)
    plan = planned("- {tf: [a, b], torch: w, join: n, axes: n d -> n d}\n", memory, module)
    dict(execute.tensors(plan, memory, {}, seen=values.see))

    assert lines(values.problems()) == [
        f"5:8: T2T408 1 of 1 weights is all zero, the first is w (from a and 1 more); {ZERO}"
    ]


def test_what_the_mapping_itself_fills_or_keeps_is_as_it_was_asked_for() -> None:
    memory = Memory({"a": ones(2, 3)})
    names = {"a": (2, 3), "w": (2, 3), "k": (2, 3)}
    module = parameters(*(ParameterRef(name, "float32", shape) for name, shape in names.items()))
    values = Values(module)
    rows = "- {tf: a, torch: a, axes: i o -> i o}\n- {torch: w, fill: 0}\n- {torch: k, keep: init, why: k}\n"
    dict(execute.tensors(planned(rows, memory, module), memory, {"k": zeros(2, 3)}, seen=values.see))

    assert values.problems() == []


# --- means and variances ---


def test_right_normalizations_are_no_finding() -> None:
    assert told(norms(6)) == []


def test_a_variance_below_zero_is_told_with_its_least() -> None:
    arrays = norms(3)
    arrays["norm1.running_var"][5] = -1e-9

    assert told(arrays) == [
        "12:8: T2T408 1 of 3 variances is below 0 somewhere, the first is norm1.running_var (from "
        "NORM1.RUNNING_VAR): 1 of 32 values, the least is -1e-09; look whether the row reads the variance"
    ]
    arrays["norm1.running_var"][5] = 0
    assert told(arrays) == []
    # The mean has values below 0 as well: nothing says that the two are exchanged.
    arrays["norm1.running_var"] = arrays["norm1.running_mean"]
    (message,) = told(arrays)
    assert message.startswith("12:8: T2T408 1 of 3 variances is below 0 somewhere, the first is norm1.running_var ")


def test_a_variance_that_is_all_zero_is_told() -> None:
    arrays = norms(3) | {"norm1.running_var": zeros(32), "norm2.running_var": zeros(32)}

    assert told(arrays) == [
        "12:8: T2T408 2 of 3 variances are all zero, the first is norm1.running_var (from NORM1.RUNNING_VAR); look "
        "whether the row reads the variance; a normalization divides by its root"
    ]
    for name in ("norm1", "norm2"):
        arrays[f"{name}.running_var"] = arrays[f"{name}.running_var"].copy()
        arrays[f"{name}.running_var"][-1] = 1e-30
    assert told(arrays) == []


def test_mean_and_variance_that_look_exchanged_are_told_with_both_sides() -> None:
    arrays = norms(3)
    arrays["norm1.running_mean"] = np.linspace(-1, 1, 32, dtype=np.float32)

    assert told(exchanged(arrays, "norm1.running_mean", "norm1.running_var")) == [
        "12:8: T2T408 mean and variance look exchanged in 1 of 3 normalizations, the first is norm1: norm1.running_var "
        "(from NORM1.RUNNING_VAR) has 16 of 32 values below 0, norm1.running_mean (from NORM1.RUNNING_MEAN) has none; "
        "exchange the variables of their two rows"
    ]
    arrays["norm1.running_mean"] = np.linspace(0.1, 1, 32, dtype=np.float32)
    assert told(exchanged(arrays, "norm1.running_mean", "norm1.running_var")) == []


def test_statistics_that_were_never_updated_are_told_once() -> None:
    arrays = norms(4)
    for i in (2, 3):
        arrays |= {f"norm{i}.running_mean": zeros(32), f"norm{i}.running_var": ones(32)}

    assert told(arrays) == [
        "15:8: T2T617 2 of 4 normalizations have statistics that were never updated (mean all 0, variance all 1), the "
        "first is norm2.running_mean (from NORM2.RUNNING_MEAN); in training, nothing ran the updates of the moving "
        "averages: the model may be right in training mode only"
    ]
    for i in (2, 3):
        arrays[f"norm{i}.running_var"][0] = 0.99
    assert told(arrays) == []


# --- scales and offsets ---


def test_a_scale_and_an_offset_that_look_exchanged_are_told_with_both_sides() -> None:
    arrays = norms(5)
    arrays |= {"norm3.weight": np.linspace(0.5, 1.5, 11, dtype=np.float32)}
    arrays |= {"norm3.bias": np.linspace(-0.2, 0.4, 11, dtype=np.float32)}
    del arrays["norm3.running_mean"], arrays["norm3.running_var"]

    assert told(exchanged(arrays, "norm3.weight", "norm3.bias")) == [
        "17:8: T2T408 scale and offset look exchanged in 1 of 5 normalizations, the first is norm3: norm3.weight (from "
        "NORM3.WEIGHT) lies around 0.1 (-0.2 to 0.4), norm3.bias (from NORM3.BIAS) lies around 1 (0.5 to 1.5); in 4 "
        "others it is the other way round; exchange the variables of their two rows, unless the original has them like "
        "that"
    ]


@pytest.mark.parametrize("what", ["offset touches 0", "scale all above 0", "offset small", "scale large", "two norms"])
def test_what_lies_between_is_no_evidence(what: str) -> None:
    arrays = norms(2 if what == "two norms" else 5, 9)
    turned = {"norm1.weight": np.linspace(-0.3, 0.3, 9), "norm1.bias": np.linspace(0.6, 1.4, 9)}
    if what == "offset touches 0":
        turned["norm1.bias"] = np.linspace(0, 2, 9)
    if what == "scale all above 0":
        turned["norm1.weight"] = np.linspace(0.01, 0.3, 9)
    if what == "offset small":
        turned["norm1.bias"] = np.linspace(0.01, 0.8, 9)
    if what == "scale large":
        turned["norm1.weight"] = np.linspace(-0.1, 1.4, 9)

    assert told(arrays | {name: array.astype(np.float32) for name, array in turned.items()}) == []


def test_few_signs_are_no_evidence_and_a_scale_of_zeros_is() -> None:
    assert told(exchanged(norms(5, 7), "norm1.weight", "norm1.bias")) == []
    assert len(told(exchanged(norms(5, 8), "norm1.weight", "norm1.bias"))) == 1
    assert len(told(norms(5, 4) | {"norm1.weight": zeros(4), "norm1.bias": ones(4)})) == 1


def test_all_of_them_exchanged_is_evidence_too_and_one_alone_is_none() -> None:
    def turned(count: int) -> list[str]:
        arrays = norms(count)
        for i in range(count):
            arrays = exchanged(arrays, f"norm{i}.weight", f"norm{i}.bias")
        return told(arrays)

    (message,) = turned(3)
    assert message.startswith(
        "5:8: T2T408 scale and offset look exchanged in 3 of 3 normalizations, the first is norm0"
    )
    assert message.endswith("; exchange the variables of their two rows, unless the original has them like that")
    assert "others" not in message
    assert turned(1) == []


def test_normalizations_that_are_all_as_they_begin_are_told() -> None:
    arrays = {f"{n}.{name}": value for n in "abc" for name, value in (("weight", ones(8)), ("bias", zeros(8)))}

    assert told(arrays) == [
        "5:8: T2T408 all 3 normalizations have a scale of all 1 and an offset of all 0, the first is a.weight (from "
        "A.WEIGHT); look whether the checkpoint is a trained one: that is how they begin"
    ]
    assert told({name: array for name, array in arrays.items() if name[0] == "a"}) == []
    arrays["b.bias"] = np.linspace(-1, 1, 8, dtype=np.float32)
    assert told(arrays) == []


def test_two_vectors_of_other_shapes_are_no_normalization() -> None:
    arrays = {"a.weight": ones(8), "a.bias": zeros(7), "b.weight": ones(8), "b.bias": zeros(8)}

    assert told(arrays) == []


def test_other_names_for_the_same() -> None:
    arrays = {f"{n}.{name}": value for n in "ab" for name, value in (("gamma", ones(8)), ("beta", zeros(8)))}
    arrays |= {"a.moving_mean": zeros(8), "a.moving_variance": ones(8)}

    assert [line.split()[1] for line in told(arrays)] == ["T2T617", "T2T408"]


def test_nan_and_inf_are_another_codes_business() -> None:
    arrays = norms(2)
    arrays["norm0.running_var"][0], arrays["norm1.running_var"][0] = np.nan, -np.inf

    assert told(arrays) == []


# --- in a job ---


def test_a_command_warns_and_goes_on(tmp_path: Path) -> None:
    project = small(tmp_path)
    store(
        tmp_path,
        {"dense_0/kernel": zeros(4, 3), "dense_0/bias": ones(3), "dense_1/kernel": ones(3, 2), "dense_1/bias": ones(2)},
    )
    text = (
        "1 of 2 weights is all zero, the first is layers.0.weight (from dense_0/kernel); look whether the checkpoint "
        "is the one that was meant; zeros that a model begins with are harmless"
    )

    done = server().run("small.yaml", cwd=project.folder)
    again = server().run("small.yaml", "--format", "json", cwd=project.folder)

    assert done.code == 0
    assert done.err.splitlines()[-1] == f"warning: small.yaml:6:8: T2T408 {text}"
    (note,) = [note for note in json.loads(again.out)["notes"] if note["severity"] == "warning"]
    assert (note["code"], f"{note['message']}; {note['hint']}") == ("T2T408", text)


@pytest.mark.parametrize("job", [t2t.load, t2t.verify])
def test_load_and_verify_tell_it_too(job: Callable[..., object]) -> None:
    pytest.importorskip("transformers", reason="the model is a class of transformers")
    notes: list[Problem] = []

    job(MAPPINGS / "toy_gpt2.yaml", checkpoint=data(CHECKPOINTS["toy_gpt2"]), note=notes.append)

    assert [note.code for note in notes if note.severity == "warning"] == ["T2T408"]


# --- weights of others ---

#: What was never trained, and how many normalizations say so.
UNTRAINED = {"toy_gpt2": 7, "toy_xlnet_empty": 4, "toy_xlnet_pre": 4, "toy_xlnet_tune": 4}


def _warnings(mapping: Path, checkpoint: str) -> list[str]:
    notes: list[Problem] = []
    for _ in t2t.iter_tensors(mapping, checkpoint=data(checkpoint) if checkpoint else None, note=notes.append):
        pass
    return [note.message for note in notes if note.severity == "warning"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_right_mapping_of_trained_weights_has_no_finding(name: str) -> None:
    if name.startswith("toy"):
        pytest.importorskip("transformers", reason="the models are classes of transformers")

    found = _warnings(MAPPINGS / f"{name}.yaml", CHECKPOINTS[name])

    all_new = f"all {UNTRAINED.get(name)} normalizations have a scale of all 1 and an offset of all 0, the first is "
    starts = [all_new] if name in UNTRAINED else []
    assert len(found) == len(starts)
    assert all(text.startswith(start) for text, start in zip(found, starts, strict=True))


def test_untrained_is_what_torch_says_of_those_norms() -> None:
    """torch's own LayerNorm begins with just these values."""
    pytest.importorskip("transformers", reason="the model is a class of transformers")
    from torch import nn

    module = t2t.load(MAPPINGS / "toy_gpt2.yaml", checkpoint=data(CHECKPOINTS["toy_gpt2"]))
    found = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]

    assert len(found) == UNTRAINED["toy_gpt2"]
    for part in found:
        begins = nn.LayerNorm(part.normalized_shape).state_dict()
        assert all((value == begins[name]).all() for name, value in part.state_dict().items())


@pytest.mark.parametrize(
    ("exchange", "start"),
    [
        ("gamma beta", "scale and offset look exchanged in 1 of 9 normalizations, the first is norm: norm.weight "),
        (
            "moving_mean moving_variance",
            "mean and variance look exchanged in 1 of 9 normalizations, the first is norm: ",
        ),
    ],
)
def test_two_rows_of_a_trained_model_exchanged_are_told(exchange: str, start: str, tmp_path: Path) -> None:
    """In the keyword spotter that MLPerf Tiny trained."""
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    one, other = exchange.split()
    names |= {one: names[other], other: names[one]}
    rows = [f"- {{tf: batch_normalization/{tf}, torch: norm.{torch}}}" for tf, torch in names.items()]
    rows += ["- {torch: norm.num_batches_tracked, fill: 0}"]
    text = (MAPPINGS / "kws.yaml").read_text("utf-8")
    right = "- {tf: batch_normalization, torch: norm, use: batch_norm}"
    assert right in text
    (tmp_path / "wrong.yaml").write_text(text.replace(right, "\n".join(rows)), "utf-8")

    (found,) = _warnings(tmp_path / "wrong.yaml", CHECKPOINTS["kws"])

    assert found.startswith(start)
