"""HDF5 files against h5py itself, and everything in them that is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from t2t.checkpoints import hdf5
from t2t.checkpoints.hdf5 import HDF5, pieces
from t2t.problems import CheckpointError, T2TError

REAL = [
    "dtln/breizhn+DTLN/model.h5",
    "mlperf-tiny/mlcommons+tiny/image_classification/trained_models/pretrainedResnet.h5",
    "mlperf-tiny/mlcommons+tiny/visual_wake_words/trained_models/vww_96.h5",
]


def everything(path: Path) -> dict[str, Any]:
    """Each dataset's values, as h5py reads them."""
    found = {}

    def add(group: Any) -> None:
        for name, member in group.items():
            if isinstance(member, h5py.Group):
                add(member)
            else:
                found[f"{group.name}/{name}".lstrip("/")] = member[()]

    with h5py.File(path) as file:
        add(file)
    return found


def agree(path: Path) -> int:
    expected = everything(path)
    with HDF5(str(path)) as reader:
        refs = reader.inventory.variables
        assert {ref.key for ref in refs.values()} == set(expected)
        for ref in refs.values():
            values, other = reader.read(ref), np.asarray(expected[ref.key])
            assert values.shape == ref.shape == other.shape
            assert values.dtype.isnative
            assert ref.nbytes == values.nbytes
            assert np.array_equal(values, other, equal_nan=values.dtype.kind in "fc"), ref.name
    return len(expected)


def writes(path: Path, fill: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        HDF5(str(path), **options)
    (problem,) = caught.value.problems
    return str(problem).replace(f"{path.parent}/", "")


def unread(path: Path, name: str) -> str:
    with HDF5(str(path)) as reader, pytest.raises(CheckpointError) as caught:
        reader.read(reader.inventory.variables[name])
    (problem,) = caught.value.problems
    return str(problem).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(("file", "count"), list(zip(REAL, (20, 117, 385), strict=True)))
def test_real_files_read_as_h5py_reads_them(shared_data: Path, file: str, count: int) -> None:
    assert agree(shared_data / file) == count


def test_names_of_a_real_whole_model(shared_data: Path) -> None:
    with HDF5(str(shared_data / REAL[1])) as reader:
        refs = reader.inventory.variables
        kernel = refs["conv2d/conv2d/kernel"]
        assert (kernel.key, kernel.full_name) == ("model_weights/conv2d/conv2d/kernel:0", "conv2d/kernel")
        slots = [ref for ref in refs.values() if ref.slot_of]
        assert len(slots) == 68
        assert all(refs[str(ref.slot_of)].shape == ref.shape for ref in slots)


def some_of_all(file: h5py.File) -> None:
    random = np.random.default_rng(0)
    for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8", "c16", "?"):
        for order in "<>":
            for name, shape in {"matrix": (3, 5), "scalar": (), "empty": (0,), "empty3": (2, 0, 3)}.items():
                values = random.integers(0, 2 if kind == "?" else 100, shape)
                file[f"{kind}{order}/{name}"] = np.asarray(values).astype(f"{order}{kind}")
    many = random.standard_normal((100, 50)).astype("f4")
    ways: dict[str, dict[str, Any]] = {
        "gzip": {"compression": "gzip", "shuffle": True},
        "lzf": {"compression": "lzf"},
        "fletcher": {"fletcher32": True},
        "chunks": {"chunks": (7, 9)},
    }
    for name, how in ways.items():
        file.create_dataset(f"stored/{name}", data=many, **how)
    file.create_dataset("stored/never", (40, 5), "f4", fillvalue=3)
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file["stored"].id, b"compact", h5py.h5t.NATIVE_FLOAT, space, compact)
    file["stored/compact"][:] = 4
    file["nam\u00e9/two words"] = many
    file["second"] = file["stored/lzf"]  # a second name of one dataset


def test_every_dtype_and_way_of_storing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = writes(tmp_path / "x.h5", some_of_all)
    assert agree(path) == 14 * 2 * 4 + 8
    monkeypatch.setattr(hdf5, "PIECE", 64)  # in many pieces: the same
    assert agree(path) == 14 * 2 * 4 + 8


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (5, 6, 7), (2, 1, 40)])
@pytest.mark.parametrize("band", [1, 3])
def test_pieces_follow_one_another_and_are_no_larger_than_they_must_be(
    shape: tuple[int, ...], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "PIECE", 48)
    array = np.arange(np.prod(shape)).reshape(shape).astype("f4")
    found = []
    for start, count in pieces(shape, 4, band):
        part = array[tuple(slice(s, s + c) for s, c in zip(start, count, strict=True))]
        found.append(part.reshape(-1))
        assert part.nbytes <= 48 or band > 1
    assert np.array_equal(np.concatenate(found), array.reshape(-1))


def test_what_has_no_numbers_is_listed_and_not_read(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["fine"] = np.ones(3)
        file["text"] = "abc"
        file["fixed"] = np.array([b"a", b"b"])
        file.create_dataset("lists", (2,), h5py.vlen_dtype("f4"))
        file["records"] = np.zeros(2, [("a", "f4"), ("b", "i4")])
        file["opaque"] = np.zeros(2, "V2")
        file["references"] = np.array([file["fine"].ref], h5py.ref_dtype)
        file["enumeration"] = np.zeros(2, h5py.enum_dtype({"a": 0, "b": 1}))
        file["nothing"] = h5py.Empty("f4")
        file["long"] = np.ones(2, np.longdouble)

    path = writes(tmp_path / "x.h5", fill)
    reasons = {
        "text": "it holds text",
        "fixed": "it holds text",
        "lists": "it holds lists of varying length",
        "records": "it holds records",
        "opaque": "it holds opaque bytes",
        "references": "it holds references to other members",
        "enumeration": "it holds an enumeration",
        "nothing": "it has no values at all (a null dataspace)",
        "long": "it holds numbers of 16 bytes (float128)",
    }
    with HDF5(str(path)) as reader:
        refs = reader.inventory.variables
        assert {name: ref.unreadable for name, ref in refs.items() if ref.unreadable} == reasons
    assert unread(path, "records") == "x.h5: T2T606: records: it holds records"


def test_values_that_lie_elsewhere_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\1" * 400)

    def fill(file: h5py.File) -> None:
        file.create_dataset("external", (10,), "f4", external=[(str(secret), 0, 40)])
        layout = h5py.VirtualLayout((10,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a", (10,))
        file.create_virtual_dataset("virtual", layout)
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((10,))
        created.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # zstd, a plugin
        h5py.h5d.create(file.id, b"plugin", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((10,)), created)

    path = writes(tmp_path / "x.h5", fill)
    assert unread(path, "external") == ("x.h5: T2T606: external: its values lie in other files (external storage)")
    assert unread(path, "virtual") == ("x.h5: T2T606: virtual: its values lie in other datasets (a virtual dataset)")
    assert unread(path, "plugin") == (
        "x.h5: T2T606: plugin: it is stored with the HDF5 filter 32015, which t2t does not use"
    )


def loop(file: h5py.File) -> None:
    file.create_group("a/b")
    file["a/b/c"] = file["a"]


def root_loop(file: h5py.File) -> None:
    file["a"] = file["/"]


def deep(file: h5py.File) -> None:
    file.create_group("/".join("g" * 150))


def bomb(file: h5py.File) -> None:
    file.create_dataset("a/bomb", (2**40,), "f4", chunks=(2**10,))


def unwritten(file: h5py.File) -> None:
    file.create_dataset("late", (2**40,), "f4")


def large_chunk(file: h5py.File) -> None:
    file.create_dataset("chunk", (1,), "f4", chunks=(2**28,), maxshape=(None,))


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (
            lambda file: file.__setitem__("a", h5py.SoftLink("/b")),
            "T2T606: a is a soft link, which t2t does not follow",
        ),
        (
            lambda file: file.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/b")),
            "T2T606: a is a link to another file, which t2t does not follow",
        ),
        (loop, "T2T606: the group a/b/c is a once more, a loop or a second name"),
        (root_loop, "T2T606: the group a is the file's root once more, a loop or a second name"),
        (deep, f"T2T611: {'/'.join('g' * 60)[:117]}... lies more than 100 groups deep"),
        (bomb, "T2T605: a/bomb would be 4398046511104 bytes, but only 0 are stored"),
        (unwritten, "T2T605: late would be 4398046511104 bytes, but only 0 are stored"),
        (large_chunk, "T2T605: chunk has 4 bytes, but pieces of [268435456] elements"),
    ],
    ids=["soft", "external", "loop", "root", "deep", "bomb", "unwritten", "chunk"],
)
def test_a_structure_that_is_refused(tmp_path: Path, fill: Callable[[h5py.File], None], expected: str) -> None:
    assert refused(writes(tmp_path / "x.h5", fill)) == f"x.h5: {expected}"


def test_no_values_of_the_size_of_the_file_are_missed(tmp_path: Path) -> None:
    path = writes(tmp_path / "x.h5", lambda file: file.__setitem__("a", np.ones(100_000)))
    path.write_bytes(path.read_bytes()[:-1000])
    assert refused(path).startswith(
        "x.h5: T2T607: the HDF5 library: Unable to synchronously open file (truncated file:"
    )
    path.write_bytes(b"not that")
    assert refused(path) == "x.h5: T2T603: not an HDF5 file"
    assert refused(tmp_path / "none.h5") == "none.h5: T2T602: cannot be opened: no such file or directory"
    assert refused(tmp_path) == f"{tmp_path}: T2T602: not a regular file".replace(f"{tmp_path.parent}/", "")


def test_a_stored_checksum_is_checked(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    path = writes(tmp_path / "x.h5", lambda file: file.create_dataset("a", data=values, fletcher32=True))
    data = bytearray(path.read_bytes())
    data[data.index(values[500].tobytes())] ^= 1
    path.write_bytes(data)
    assert unread(path, "a") == (
        "x.h5: T2T608: a: the HDF5 library: Can't synchronously read data (filter returned failure during read); "
        "the file is damaged: copy it again"
    )


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = writes(tmp_path / "x.h5", lambda file: file.__setitem__("a", np.ones(3)))
    with HDF5(str(path)) as reader:
        reader.check_unchanged()
        writes(path, lambda file: file.__setitem__("a", np.zeros(300)))
        with pytest.raises(CheckpointError, match="T2T609: the file changed while it was read"):
            reader.check_unchanged()


def test_a_member_of_an_archive(tmp_path: Path) -> None:
    inner = writes(tmp_path / "x.h5", lambda file: file.__setitem__("a", np.arange(3)))
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "in/x.h5")
    with HDF5(str(path), member="in/x.h5") as reader:
        assert reader.files == (str(path),)
        assert reader.read(reader.inventory.variables["a"]).tolist() == [0, 1, 2]
    assert refused(path, member="other").startswith("x.zip: T2T604: the HDF5 library: There is no item named 'other'")


def test_damage_ends_in_a_refusal_or_in_values_and_never_in_this_process(tmp_path: Path) -> None:
    whole = writes(tmp_path / "x.h5", small).read_bytes()
    random = np.random.default_rng(1)
    outcomes = []
    for _ in range(25):
        data = bytearray(whole)
        for at in random.integers(0, len(whole), 1 + int(random.integers(4))):
            data[at] ^= 1 << int(random.integers(8))
        path = tmp_path / "damaged.h5"
        path.write_bytes(data[: int(random.integers(len(data)))] if random.random() < 0.2 else data)
        try:
            with HDF5(str(path)) as reader:
                for ref in reader.inventory.variables.values():
                    reader.read(ref)
            outcomes.append("read")
        except T2TError as error:
            outcomes.append(error.problems[0].code)
    assert len(set(outcomes)) > 2


def small(file: h5py.File) -> None:
    file.attrs["layer_names"] = ["d"]
    file.create_group("d").attrs["weight_names"] = ["k:0", "b:0"]
    file["d/k:0"] = np.ones((3, 4), "f4")
    file.create_dataset("d/b:0", data=np.ones(4, "f4"), compression="gzip")


def test_in_a_plain_file_slots_are_known_by_convention(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = np.zeros(3, "f4")
        file["beta1_power"] = np.float32(0.9)

    with HDF5(str(tmp_path / "x.h5")) as checkpoint:
        slots = {name: ref.slot_of for name, ref in checkpoint.inventory.variables.items()}
    assert slots == {"beta1_power": "", "w": None}
