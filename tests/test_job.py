"""What a failed proof hints at, where the mapping itself may be why the two differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import t2t
from t2t.problems import MappingError
from tests.proof.test_mutate import folder, record, write

__all__ = ["folder"]  # the fixture

USUAL = "run t2t verify m.yaml: it finds the first layer that differs, and what would have passed"
ROWS = "map:\n" + "".join(
    f"- {{tf: {name}/{variable}, torch: {name}.{parameter}{axes}}}\n"
    for name in ("first", "second")
    for variable, parameter, axes in (("kernel", "weight", ", axes: i o -> o i"), ("bias", "bias", ""))
)


@pytest.fixture
def values(folder: Path) -> dict[str, np.ndarray]:
    """Values that bfloat16 rounds by a thousandth and more."""
    draw = np.random.default_rng(0).uniform(0.5, 1, (2, 4, 3)).astype(np.float32)
    return {f"{name}/{v}": draw[n, : 3 if v == "kernel" else 4][-1 if v == "bias" else slice(None)]
            for n, name in enumerate(("first", "second")) for v in ("kernel", "bias")}  # fmt: skip


def net(values: dict[str, np.ndarray], x: np.ndarray, suffix: str = "") -> np.ndarray:
    hidden = np.maximum(x @ values[f"first/kernel{suffix}"] + values[f"first/bias{suffix}"], 0)
    return np.asarray(hidden @ values[f"second/kernel{suffix}"] + values[f"second/bias{suffix}"])


def hint(problem: pytest.ExceptionInfo[MappingError]) -> str:
    (one,) = problem.value.problems
    assert one.code == "T2T501"
    return one.hint


def test_a_file_of_a_narrower_dtype_is_named_as_the_cause_and_only_where_it_is_one(
    values: dict[str, np.ndarray],
) -> None:
    write("m", "Net", ROWS + "output: {dtype: bfloat16}", values)
    record("m", lambda x: net(values, x))
    with pytest.raises(MappingError) as narrow:
        t2t.convert("m.yaml")

    assert hint(narrow) == f"the file's tensors are bfloat16: say in verify's rel how much that may change; {USUAL}"
    assert t2t.load("m.yaml") is not None  # what is loaded is not cast
    record("m", lambda x: net(values, x) + 1)
    with pytest.raises(MappingError) as other:
        t2t.load("m.yaml")
    assert hint(other) == USUAL


def test_what_finds_out_more_is_told_with_the_same_flags(values: dict[str, np.ndarray], folder: Path) -> None:
    write("m", "Net", ROWS, values)
    record("m", lambda x: net(values, x) + 1)
    Path("recordings").rename("other place")
    found = []
    for options in ({}, {"checkpoint": "c"}, {"checkpoint": folder / "c", "recording": "other place/m.npz"}):
        given = {"recording": Path("other place/m.npz"), **options}
        with pytest.raises(MappingError) as raised:
            t2t.convert("m.yaml", **given)  # type: ignore[arg-type]
        found.append(hint(raised))

    said = "it finds the first layer that differs, and what would have passed"
    assert found == [
        f"run t2t verify m.yaml --recording other place/m.npz: {said}",
        f"run t2t verify m.yaml --checkpoint c --recording other place/m.npz: {said}",
        f"run t2t verify m.yaml --checkpoint {folder}/c --recording other place/m.npz: {said}",
    ]


def test_averages_against_an_original_of_plain_variables_are_named_as_the_cause(values: dict[str, np.ndarray]) -> None:
    write("m", "Net", ROWS, {**values, **{f"{name}/EMA": value / 2 for name, value in values.items()}})
    mapping = Path("m.yaml")
    mapping.write_text(mapping.read_text().replace("{checkpoint: c}", "{checkpoint: c, select: /EMA}"))
    record("m", lambda x: net(values, x))
    with pytest.raises(MappingError) as averaged:
        t2t.convert("m.yaml")

    assert hint(averaged) == (
        "source.select reads /EMA, the original what its graph's Saver says: "
        f"record it with the graph that was saved for evaluation, or with call; {USUAL}"
    )
