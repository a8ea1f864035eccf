"""`t2t inspect`: what it lists, what it reads, what it warns of."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from t2t import api
from t2t.checkpoints import inspection
from t2t.console import Console
from t2t.problems import UsageError
from t2t.tensors import CheckpointInventory, TensorRef
from tests.checkpoints.writing import Tensor, bundle, floats
from tests.commands import Done, server
from tests.given import Memory

HEADER = ["variable", "dtype", "shape", "elements", "size"]


def inspect(*arguments: str, at: Path) -> Done:
    return server().run("inspect", *arguments, cwd=at)


def listed(done: Done) -> list[str]:
    """The first column of the table, without its title."""
    assert (done.code, done.err) == (0, "")
    first, *lines = done.out.splitlines()
    assert first.split()[:5] == HEADER
    return [line.split()[0] for line in lines if ": " not in line]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A bundle of two layers, an optimizer's slots and averages, beside bytes that are nobody's."""
    prefix = bundle(
        tmp_path / "net.ckpt",
        {
            "conv1/w": floats(*range(12), shape=(3, 4)),
            "conv1/w/Adam": floats(*range(12), shape=(3, 4)),
            "conv1/w/ExponentialMovingAverage": floats(*range(12), shape=(3, 4)),
            "conv10/w": floats(1, 2),
            "conv2/w": floats(1, 2, 3),
            "global_step": Tensor(9, (), struct.pack("<q", 1000)),
        },
    )
    with open(f"{prefix}.data-00000-of-00001", "ab") as file:
        file.write(bytes(7))
    return tmp_path


# --- the list ---


def test_what_nobody_maps_is_folded(net: Path) -> None:
    assert inspect("net.ckpt", at=net).out.splitlines() == [
        "variable     dtype    shape   elements  size",
        "conv1/w      float32  [3, 4]        12  48 B",
        "conv2/w      float32  [3]            3  12 B",
        "conv10/w     float32  [2]            2   8 B",
        "global_step  int64    []             1   8 B",
        "float32: 5 variables, 41 elements, 164 B",
        "int64: 1 variable, 1 element, 8 B",
        "optimizer slots and counters: 1 variable, 12 elements, 48 B; --all lists them",
        "moving averages: 1 variable, 12 elements, 48 B; --all lists them",
        "all: 6 variables, 42 elements, 172 B",
    ]
    assert listed(inspect("net.ckpt", "--all", at=net)) == [
        "conv1/w", "conv1/w/Adam", "conv1/w/ExponentialMovingAverage", "conv2/w", "conv10/w", "global_step"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["conv*/w"], ["conv1/w", "conv2/w", "conv10/w"]),
        (["**/Adam"], ["conv1/w/Adam"]),
        (
            ["conv10/w", "conv1/**", "conv1/w"],
            ["conv1/w", "conv1/w/Adam", "conv1/w/ExponentialMovingAverage", "conv10/w"],
        ),
    ],
    ids=" ".join,
)
def test_globs_choose_and_fold_nothing(net: Path, patterns: list[str], names: list[str]) -> None:
    done = inspect("net.ckpt", *patterns, at=net)

    assert listed(done) == names
    assert done.out.splitlines()[-1].startswith(f"listed: {len(names)} variable")


def test_a_glob_that_matches_nothing_is_a_mistake(net: Path) -> None:
    for arguments in (["conv1/v"], ["conv1/w", "conv1/v"], ["--values", "conv1/v"]):
        done = inspect("net.ckpt", *arguments, at=net)

        assert (done.code, done.out) == (2, "")
        assert done.err == "T2T001 no variable is matched by conv1/v; did you mean conv1/w, conv10/w, conv2/w\n"


def test_a_name_with_a_star_is_matched_by_itself() -> None:
    checkpoint = Memory({"a*b": np.zeros(1), "axb": np.zeros(1)})

    assert [ref.name for ref in inspection.inspect(checkpoint, ["a*b"]).refs] == ["a*b", "axb"]
    with pytest.raises(UsageError):
        inspection.inspect(Memory({"a[0]": np.zeros(1)}), ["a?0?"])


def test_the_largest_come_first_if_asked(net: Path) -> None:
    assert listed(inspect("net.ckpt", "--sort", "size", at=net)) == ["conv1/w", "conv2/w", "conv10/w", "global_step"]
    assert listed(inspect("net.ckpt", "--sort", "size", "conv10/w", "conv2/w", at=net)) == ["conv2/w", "conv10/w"]


def test_the_models_names_instead_of_the_files() -> None:
    checkpoint = Memory({"layers/0/vars/0": np.zeros(2), "layers/1/vars/0": np.zeros(2), "x": np.zeros(2)})
    refs = dict(checkpoint.inventory.variables)
    for name, full_name in (("layers/0/vars/0", "z/kernel"), ("layers/1/vars/0", "b/kernel")):
        refs[name] = replace(refs[name], full_name=full_name)
    checkpoint.inventory = CheckpointInventory(refs)

    found = inspection.inspect(checkpoint, names="full_name")

    assert [found.labels[ref.name] for ref in found.refs] == ["b/kernel", "x", "z/kernel"]
    assert [ref.name for ref in inspection.inspect(checkpoint, ["z/*"], names="full_name").refs] == ["layers/0/vars/0"]
    assert [ref.name for ref in inspection.inspect(checkpoint).refs] == list(refs)


def test_verbose_says_where_the_bytes_lie(net: Path) -> None:
    done = inspect("net.ckpt", "-v", at=net)

    index = (net / "net.ckpt.index").stat().st_size
    assert done.out.splitlines()[:7] == [
        "checkpoint: net.ckpt",
        f"  net.ckpt.index: {index} bytes",
        "  net.ckpt.data-00000-of-00001: 179 bytes, 7 of them in no variable",
        "variable     dtype    shape   elements  size  shard  offset",
        "conv1/w      float32  [3, 4]        12  48 B      0       0",
        "conv2/w      float32  [3]            3  12 B      0     152",
        "conv10/w     float32  [2]            2   8 B      0     144",
    ]


def test_bytes_of_no_variable_are_counted_shard_by_shard() -> None:
    refs = [TensorRef("a", "float32", (2,), 0, 4, 8), TensorRef("b", "float32", (0,), 0, 6, 0)]
    refs.append(TensorRef("c", "float32", (1,), 1, 0, 4))
    sizes = {"x.data-00000-of-00002": 20, "x.data-00001-of-00002": 4, "x.index": 5}
    checkpoint: Any = SimpleNamespace(inventory=CheckpointInventory({ref.name: ref for ref in refs}), files=[*sizes])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "state_of", lambda path: (0, 0, sizes[path], 0))
        uses = inspection.file_uses(checkpoint)

    assert [(use.path, use.spare) for use in uses] == list(zip(sizes, (12, 0, None), strict=True))


# --- JSON ---


def test_json_has_everything(net: Path) -> None:
    short, long = (inspect("net.ckpt", *flags, at=net) for flags in (["--json"], ["--format", "json"]))
    document = json.loads(short.out)

    assert (short.code, short.out) == (0, long.out)
    assert [entry["name"] for entry in document["variables"]][:3] == [
        "conv1/w", "conv1/w/Adam", "conv1/w/ExponentialMovingAverage"
    ]  # fmt: skip
    plain, slot, average = document["variables"][:3]
    assert plain == {
        "name": "conv1/w", "key": "conv1/w", "full_name": None, "dtype": "float32", "shape": [3, 4], "elements": 12,
        "bytes": 48, "shard": 0, "offset": 0, "crc32c": plain["crc32c"], "slot_of": None, "average_of": None,
        "trainable": None, "unreadable": None,
    }  # fmt: skip
    assert (slot["slot_of"], average["average_of"]) == ("conv1/w", "conv1/w")
    assert len(document["digest"]) == 64
    assert document["files"][1] == {"path": "net.ckpt.data-00000-of-00001", "bytes": 179, "spare": 7}


def test_json_reads_nothing_for_a_digest(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.ones(3))

    with api.open_checkpoint(tmp_path / "x.npz") as opened:
        assert not opened.inventory.is_cheap
    assert json.loads(inspect("x.npz", "--json", at=tmp_path).out)["digest"] is None


def test_json_of_figures_is_json(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.array([1.0, np.nan]), huge=np.array([1.7e308, 1.7e308]), text=np.array(["a"]))

    document = json.loads(inspect("x.npz", "--json", "--values", "**", "--checksums", at=tmp_path).out)

    assert document["values"]["w"] == {
        "minimum": 1.0, "maximum": 1.0, "mean": 1.0, "deviation": 0.0, "zeros": 0, "nans": 1, "infinities": 0
    }  # fmt: skip
    assert document["values"]["huge"]["mean"] == "inf"
    assert document["values"]["text"] is None
    assert document["checked"] == {
        "variables": 2, "bytes": 32, "with_checksum": 0, "unread": {"text": "text is not read"}
    }  # fmt: skip
    assert document["problems"] == []


# --- checksums ---


def test_every_checksum_is_tested(net: Path) -> None:
    done = inspect("net.ckpt", "--checksums", at=net)

    assert (done.code, done.out, done.err) == (0, "6 variables, 172 bytes: every checksum holds\n", "")
    assert inspect("net.ckpt", "--checksums", "conv10/w", at=net).out == "1 variable, 8 bytes: every checksum holds\n"


def test_every_damaged_variable_is_named(net: Path) -> None:
    shard = net / "net.ckpt.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    data[150] ^= 1
    shard.write_bytes(data)

    done = inspect("net.ckpt", "--checksums", at=net)
    document = json.loads(inspect("net.ckpt", "--checksums", "--json", at=net).out)

    assert done.code == 3
    assert [line.partition(" (")[0] for line in done.err.splitlines()] == [
        "net.ckpt.data-00000-of-00001: T2T608: conv1/w: checksum mismatch, shard 0, offset 0",
        "net.ckpt.data-00000-of-00001: T2T608: conv10/w: checksum mismatch, shard 0, offset 144",
    ]
    assert done.out == "4 variables, 116 bytes as they were written, 2 problems\n"
    assert [problem["code"] for problem in document["problems"]] == ["T2T608", "T2T608"]


def test_a_format_without_checksums_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.ones(3), text=np.array(["a"]))

    done = inspect("x.npz", "--checksums", at=tmp_path)

    assert done.out.splitlines() == [
        "text was not read: text is not read",
        "1 variable, 24 bytes: all could be read; the format has no checksum for each",
    ]


# --- values ---

RNG = np.random.default_rng(1)


@pytest.mark.parametrize(
    "values",
    [
        RNG.standard_normal((3, 5)).astype("f4"),
        RNG.standard_normal(3_000_000),
        RNG.standard_normal(50).astype("f2"),
        RNG.standard_normal(50).astype(ml_dtypes.bfloat16),
        RNG.standard_normal(50).astype(ml_dtypes.float8_e4m3fn),
        RNG.integers(-100, 100, 1000).astype("i1"),
        np.array([2**63 - 1, 2**62 + 1, -(2**63)]),
        np.array([2**64 - 1, 0], "u8"),
        np.array([True, False, True]),
        np.float32(3),
    ],
    ids=lambda values: f"{np.asarray(values).dtype}",
)
def test_figures_are_those_of_numpy(values: np.ndarray[Any, Any]) -> None:
    values = np.asarray(values)
    checkpoint = Memory({"w": values})

    found = inspection.statistics(checkpoint, checkpoint.inventory.variables["w"])

    assert found is not None
    wide = values.astype(np.float64)
    exact = values if values.dtype.kind in "iu" else wide
    assert (found.minimum, found.maximum) == (exact.min().item(), exact.max().item())
    assert found.mean == pytest.approx(wide.mean(), rel=1e-9, abs=1e-12)
    assert found.deviation == pytest.approx(wide.std(), rel=1e-9)
    assert (found.zeros, found.nans, found.infinities) == (int((wide == 0).sum()), 0, 0)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    checkpoint = Memory({"w": np.array([1, np.nan, 3, np.inf, -np.inf, 0, -0.0, np.nan], "f4")})

    found = inspection.statistics(checkpoint, checkpoint.inventory.variables["w"])

    assert found is not None
    assert found.deviation == pytest.approx(np.std([1, 3, 0, 0]))
    assert replace(found, deviation=None) == inspection.Statistics(0, 3, 1, None, 2, 2, 2)


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        (np.array([np.nan, np.inf]), (0, 1, 1)),
        (np.zeros((0, 3)), (0, 0, 0)),
        (np.array([1j, 0, complex(np.nan, 1), complex(1, np.inf)]), (1, 1, 1)),
    ],
    ids=["nothing finite", "nothing", "complex"],
)
def test_values_without_an_order_have_no_bounds(values: np.ndarray[Any, Any], counts: tuple[int, ...]) -> None:
    checkpoint = Memory({"w": values})

    found = inspection.statistics(checkpoint, checkpoint.inventory.variables["w"])

    assert found == inspection.Statistics(None, None, None, None, *counts)


def test_figures_are_a_table(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz", a=np.array([[0.5, np.nan], [0, 1.5]], "f4"), step=np.int64(1_000_000), text=np.array(["a"])
    )

    assert inspect("x.npz", "--values", "a", "--values", "*t*", at=tmp_path).out.splitlines() == [
        "variable  dtype    shape         min        max     mean      std  zeros  NaN  Inf",
        "a         float32  [2, 2]          0        1.5  0.66667  0.62361      1    1    0",
        "step      int64    []      1,000,000  1,000,000    1e+06        0      0    0    0",
        "text      string   [1]                                                              no numbers",
    ]


# --- statistics that were never updated ---

HINT = "in training, nothing ran the updates of the moving averages: the model may be right in training mode only"


def norm(scope: str, mean: float, variance: float, size: int = 3) -> dict[str, Tensor]:
    return {f"{scope}/moving_mean": floats(*[mean] * size), f"{scope}/moving_variance": floats(*[variance] * size)}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        (norm("a/bn", 0, 1), (1, 1, "a/bn/moving_mean")),
        (norm("a/bn", 0, 1) | norm("b/bn", 0, 1, 5) | norm("c/bn", 0.1, 1), (2, 3, "a/bn/moving_mean")),
        (norm("a/bn", 0.1, 1), None),
        (norm("a/bn", 0, 0.9), None),
        ({"a/bn/moving_mean": floats(0, 0)}, None),
        ({"a/bn/mean": floats(0, 0), "a/bn/variance": floats(1, 1)}, None),
    ],
    ids=["one", "two of three", "mean moved", "variance moved", "no variance", "other names"],
)
def test_normalizations_that_were_never_trained_are_warned_of(
    tmp_path: Path, variables: Mapping[str, Tensor], found: tuple[int, int, str] | None
) -> None:
    """Nothing is read for it: the data file is damaged, and nobody notices."""
    bundle(tmp_path / "x.ckpt", variables)
    shard = tmp_path / "x.ckpt.data-00000-of-00001"
    shard.write_bytes(bytes(b ^ 255 for b in shard.read_bytes()))

    done = inspect("x.ckpt", at=tmp_path)
    strict = inspect("x.ckpt", "--strict", at=tmp_path)

    if found is None:
        assert (done.code, strict.code, done.err) == (0, 0, "")
    else:
        assert (done.code, strict.code) == (0, 1)
        assert done.err == (
            f"warning: x.ckpt: T2T617: {found[0]} of {found[1]} normalizations have statistics that were never updated "
            f"(mean all 0, variance all 1), the first is {found[2]}; {HINT}\n"
        )


def test_without_stored_checksums_it_takes_the_values(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"bn/moving_mean": np.zeros(3, "f4"), "bn/moving_variance": np.ones(3, "f4")}
    np.savez(tmp_path / "x.npz", **arrays)

    assert inspect("x.npz", at=tmp_path).err == ""
    assert "T2T617: 1 of 1 normalizations" in inspect("x.npz", "--values", "**", at=tmp_path).err


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("elements", [1, 3, 2**20, 2**20 + 1])
def test_the_checksum_of_one_value_is_known_without_it(dtype: str, elements: int) -> None:
    import google_crc32c

    from t2t.tensors import DTYPES

    numpy = DTYPES[dtype].numpy
    for value in (0, 1):
        data = np.full(elements, value, numpy).tobytes()
        assert inspection._crc32c_of(dtype, value, len(data)) == google_crc32c.value(data)


# --- the screen ---


def test_a_bar_is_drawn_only_where_values_are_read(net: Path) -> None:
    """And nothing of it is in a pipe."""
    for flags in ([], ["--checksums"], ["--values", "conv1/w"]):
        assert inspect("net.ckpt", *flags, at=net).err == ""


def test_the_table_is_aligned_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    Console("concise").table(["variable", "size", ""], [["a", "1", "why"], ["long name", "1,000", ""]])

    assert capsys.readouterr().out == "variable    size\na              1  why\nlong name  1,000\n"


def test_globs_and_values_do_not_go_together(tmp_path: Path) -> None:
    done = inspect("x.npz", "--values", "a", "b", at=tmp_path)

    assert (done.code, done.err.splitlines()) == (
        2,
        ["T2T001 globs and --values do not go together: b stands beside --values; give each glob its own --values"],
    )


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("dense/*",), "a glob"),
        (("--values", "dense/*"), "--values"),
        (("--checksums",), "--checksums"),
        (("--names", "full_name"), "--names full_name"),
    ],
)
def test_a_cross_check_ignores_no_flag(tmp_path: Path, words: tuple[str, ...], flag: str) -> None:
    done = inspect("x.npz", "--cross-check", *words, at=tmp_path)

    message = (
        f"T2T001 --cross-check compares every byte by the file's own names: {flag} says nothing to it; leave it out"
    )
    assert (done.code, done.err.splitlines()) == (2, [message])


def test_a_glob_that_stays_inside_one_part_is_told_of_the_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{"dense/kernel": np.zeros(2)})  # type: ignore[arg-type]
    done = inspect("x.npz", "*zzz", at=tmp_path)

    assert (done.code, done.err.splitlines()) == (
        2,
        [
            "T2T001 no variable is matched by *zzz; "
            "* stays inside one part of a name, ** is any number of parts: '**/*zzz'",
        ],
    )


def test_by_full_names_it_lists_what_a_mapping_sees(tmp_path: Path) -> None:
    from tests.checkpoints import writing
    from tests.checkpoints.test_object_graph import KEY, graph, string, variable

    stored = string(graph(*([variable(key, full)] for key, full in zip("klmn", ["d/w", "d/w", "s", "s"], strict=True))))
    crc = writing.masked(struct.pack("<I", len(stored.data) - 5) + stored.data[1:])
    tensors = {"k": writing.floats(1), "l": writing.floats(1), "m": writing.floats(3), "n": writing.floats(4)}
    writing.bundle(tmp_path / "x", {**tensors, KEY: stored}, fields={KEY: [(6, writing.Fixed32(crc))]})

    done = inspect("x", "--names", "full_name", at=tmp_path)

    assert [line.split()[0] for line in done.out.splitlines()[1:4]] == ["d/w", "m", "n"]
