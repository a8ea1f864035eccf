"""NumPy archives: equal to numpy in every value, and every way in which one can be bad."""

from __future__ import annotations

import io
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from google_crc32c import value as crc32c

from t2t.checkpoints.npz import Npz
from t2t.problems import CheckpointError

Array = np.ndarray[Any, Any]

RNG = np.random.default_rng(0)
DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16")


def npy(array: Array, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(text)) + text.encode() + data


def packed(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def open_and_read(path: Path, name: str) -> None:
    with Npz(str(path)) as checkpoint:
        assert name, "it opens"
        checkpoint.read(checkpoint.inventory.variables[name])


def refused(path: Path, read: str = "") -> str:
    """The one problem of opening, or of reading a variable; found without a large allocation."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            open_and_read(path, read)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    (problem,) = caught.value.problems
    return str(problem).replace(f"{path.parent}/", "")


# --- what is read ---


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_value_is_the_one_that_numpy_reads(tmp_path: Path, save: Callable[..., None]) -> None:
    arrays: dict[str, Any] = {}
    for dtype in DTYPES:
        values = RNG.integers(0, 2 if dtype == "?" else 100, (3, 4, 5)).astype(dtype)
        arrays[f"c/{dtype}"] = values
        arrays[f"fortran/{dtype}"] = np.asfortranarray(values)
        arrays[f"big/{dtype}"] = values.astype(values.dtype.newbyteorder(">"))
        arrays[f"big_fortran/{dtype}"] = np.asfortranarray(arrays[f"big/{dtype}"])
    arrays |= {"scalar": np.float32(7), "none": np.zeros((3, 0, 2), "f4"), "large": RNG.random((700, 900))}
    arrays |= {"one_column": np.asfortranarray(np.arange(5.0)[:, None]), "w10": np.ones(1), "w9": np.ones(1)}
    save(tmp_path / "x.npz", **arrays)
    np_read = np.load(tmp_path / "x.npz")

    with Npz(str(tmp_path / "x.npz")) as checkpoint:
        variables = checkpoint.inventory.variables
        assert set(variables) == set(np_read.files)
        for name, ref in variables.items():
            expected = np.ascontiguousarray(np_read[name].astype(np_read[name].dtype.newbyteorder("=")))
            assert (ref.shape, ref.nbytes) == (np_read[name].shape, expected.nbytes), name
            for values in (checkpoint.read(ref), checkpoint.view(ref), checkpoint.read(ref, np.empty(10**7, np.uint8))):
                assert values.dtype == expected.dtype, name
                assert values.flags.c_contiguous, name
                assert values.tobytes() == expected.tobytes(), name
            assert checkpoint.checksum(ref) == crc32c(expected.tobytes()), name
        assert [name for name in variables if name.startswith("w")] == ["w9", "w10"]
        assert variables["c/f4"].dtype == "float32"
        assert not checkpoint.inventory.is_cheap
        assert len(checkpoint.inventory.digest) == 64


def test_every_version_of_the_header_is_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype="f4").reshape(2, 3)
    path = packed(tmp_path / "x.npz", *((f"v{major}.npy", npy(values, (major, 0))) for major in (1, 2, 3)))

    with Npz(str(path)) as checkpoint:
        assert all(np.array_equal(checkpoint.read(ref), values) for ref in checkpoint.inventory.variables.values())


def test_names_lose_what_says_nothing(tmp_path: Path) -> None:
    one = npy(np.ones(1))
    names = ("w:0.npy", "b.npy", "b:0.npy", "/a/../b.npy")
    path = packed(tmp_path / "x.npz", *((name, one) for name in names))

    with Npz(str(path)) as checkpoint:
        found = {ref.key: name for name, ref in checkpoint.inventory.variables.items()}
    assert found == {"w:0.npy": "w", "b.npy": "b", "b:0.npy": "b:0", "/a/../b.npy": "/a/../b"}


def test_optimizer_slots_are_told_apart(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"w": np.ones(3), "w/Adam": np.ones(3)}
    np.savez(tmp_path / "x.npz", **arrays)

    with Npz(str(tmp_path / "x.npz")) as checkpoint:
        assert {name: ref.slot_of for name, ref in checkpoint.inventory.variables.items()} == {"w": None, "w/Adam": "w"}


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("text", npy(np.array(["ab", "c"])), "text is not read"),
        ("text", npy(np.array([b"ab", b"c"])), "text is not read"),
        ("date", npy(np.array(["2020-01-01"], "M8[D]")), "values of dtype <M8[D] are not read"),
        (
            "bfloat16",
            npy(np.ones(3, ml_dtypes.bfloat16)),
            "its dtype is <V2, 2 bytes of which numpy does not say what they are: save it as float32",
        ),
        ("long", npy(np.ones(3, np.longdouble)), "values of dtype <f16 are not read"),
    ],
)
def test_what_cannot_be_read_is_listed(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    path = packed(tmp_path / "x.npz", (f"{name}.npy", data), ("w.npy", npy(np.ones(2))))

    with Npz(str(path)) as checkpoint:
        assert list(checkpoint.inventory.variables) == sorted([name, "w"])
        assert checkpoint.inventory.variables[name].unreadable == why
        assert len(checkpoint.inventory.digest) == 64
    assert refused(path, name) == f"x.npz: T2T606: {name}: {why}"


def test_a_member_that_is_no_array_is_listed(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", ("README.txt", b"hello"), ("w.npy", npy(np.ones(2))))

    assert refused(path, "README.txt") == "x.npz: T2T606: README.txt: it is no .npy array"


def test_nothing_is_read_after_closing(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.ones(3))
    checkpoint = Npz(str(tmp_path / "x.npz"))
    checkpoint.close()
    checkpoint.close()

    with pytest.raises(ValueError, match="closed"):
        checkpoint.read(checkpoint.inventory.variables["w"])


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.ones(3))
    with Npz(str(tmp_path / "x.npz")) as checkpoint:
        checkpoint.check_unchanged()
        np.savez(tmp_path / "x.npz", w=np.ones(4))
        with pytest.raises(CheckpointError, match="T2T609"):
            checkpoint.check_unchanged()


# --- what is refused ---

PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"
NOT_A_HEADER = "T2T605: w: its header is not a dictionary of descr, fortran_order and shape"
PICKLE = "T2T606: w: an array of Python objects (a pickle), which t2t never reads; save it as an array of numbers"

BAD_ARRAYS = {
    "objects": (npy(np.array([{}, 1], object)), PICKLE),
    "structures": (npy(np.zeros(2, [("a", "f4")])), "T2T606: w: an array of structures is not read"),
    "nameless": (npy(np.zeros(2, "V7")), "T2T606: w: values of dtype '|V7' are not read"),
    "a shape of 2**40": (
        header(PLAIN.replace("3,", "1099511627776,"), bytes(12)),
        "T2T605: w: 12 bytes are stored, but float32 [1099511627776] needs 4398046511104",
    ),
    "a shape too long": (
        header(PLAIN.replace("3,", "4294967296, 4294967296, 4294967296"), bytes(12)),
        "T2T605: w: 12 bytes are stored, but float32 [4294967296, 4294967296, 4294967296] "
        "needs 316912650057057350374175801344",
    ),
    "bytes too many": (header(PLAIN, bytes(13)), "T2T605: w: 13 bytes are stored, but float32 [3] needs 12"),
    "bytes too few": (header(PLAIN, bytes(11)), "T2T605: w: 11 bytes are stored, but float32 [3] needs 12"),
    "an axis below 0": (header(PLAIN.replace("3,", "-3,"), bytes(12)), "T2T605: w: its shape is (-3,)"),
    "an axis that is a bool": (header(PLAIN.replace("3,", "True,"), bytes(12)), "T2T605: w: its shape is (True,)"),
    "no literal": (header("__import__('os').abort()"), NOT_A_HEADER),
    "nested deep": (header("(" * 60_000), NOT_A_HEADER),
    "minus after minus": (header("-" * 60_000 + "1"), NOT_A_HEADER),
    "digits": (header("9" * 60_000), NOT_A_HEADER),
    "a key too many": (header(PLAIN.replace("}", "'x': 1}"), bytes(12)), NOT_A_HEADER),
    "kinds mixed up": (
        header(PLAIN.replace("False", "0"), bytes(12)),
        "T2T605: w: its header has a descr, fortran_order or shape of the wrong kind",
    ),
    "a strange dtype": (
        header(PLAIN.replace("<f4", "f4,f4")),
        "T2T605: w: its dtype is 'f4,f4', which is none of numpy's",
    ),
    "another version": (
        header(PLAIN, bytes(12), version=4),
        "T2T605: w: its .npy version is 4.0, but there are only 1.0, 2.0 and 3.0",
    ),
    "a long header": (
        header(" " * 65_537, version=2),
        "T2T611: w: its header has 65537 bytes, but at most 65536 are read",
    ),
    "a header of 4 GB": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        "T2T611: w: its header has 4294967295 bytes, but at most 65536 are read",
    ),
    "half a header": (b"\x93NUMPY\x01\x00\xff\x00{", "T2T605: w: its header ends at byte 265, but it has 11"),
    "something else": (b"hello", "T2T605: w: it does not begin as a .npy does"),
    "nothing": (b"", "T2T605: w: it does not begin as a .npy does"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_an_array_that_is_not_what_it_says_is_refused(tmp_path: Path, what: str, method: int) -> None:
    data, message = BAD_ARRAYS[what]

    assert refused(packed(tmp_path / "x.npz", ("w.npy", data), method=method)) == f"x.npz: {message}"


def test_a_header_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", ("w.npy", header(PLAIN.ljust(65_536), bytes(12), version=2)))

    with Npz(str(path)) as checkpoint:
        assert checkpoint.inventory.variables["w"].shape == (3,)


def test_more_axes_than_numpy_has_are_listed(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", ("w.npy", header(PLAIN.replace("3,", "1, " * 33), bytes(4))))

    assert refused(path, "w") == "x.npz: T2T606: w: its shape is one that numpy arrays cannot have"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", ("w.npy", npy(np.ones(1))), ("w.npy", npy(np.zeros(1))))

    assert refused(path) == "x.npz: T2T605: two members are named w.npy"


def test_a_link_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        info = zipfile.ZipInfo("w.npy")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    assert refused(tmp_path / "x.npz") == "x.npz: T2T605: member w.npy is a symbolic link"


def patched(path: Path, **fields: tuple[int, str, int]) -> Path:
    """The archive's one member with other fields (offset, format, value) in both of its records."""
    data = bytearray(path.read_bytes())
    record = data.rindex(b"PK\x01\x02")
    for name, (offset, format_, value) in fields.items():
        struct.pack_into(format_, data, record + offset, value)
        if name != "offset":
            struct.pack_into(format_, data, offset - 2, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flags": (8, "<H", 1)}, "T2T606: member w.npy is encrypted; decrypt it first"),
        (
            {"method": (10, "<H", 12)},
            "T2T606: member w.npy is compressed by method 12; only stored and deflated ones are read; pack it again",
        ),
        (
            {"packed": (20, "<I", 135)},
            "T2T605: member w.npy is stored as it is, but 135 bytes are to be 136",
        ),
        (
            {"packed": (20, "<I", 2**30), "size": (24, "<I", 2**30)},
            "T2T605: member w.npy lies at bytes 0 to 1073741854 of 244; the file is damaged: copy it again",
        ),
        (
            {"offset": (42, "<I", 200)},
            "T2T605: member w.npy lies at bytes 200 to 366 of 244; the file is damaged: copy it again",
        ),
        (
            {"offset": (42, "<I", 1)},
            "T2T605: member w.npy is damaged: Bad magic number for file header; the file is damaged: copy it again",
        ),
    ],
    ids=["encrypted", "bzip2", "sizes differ", "larger than the file", "beyond the end", "elsewhere"],
)
def test_a_member_that_is_no_plain_file_is_refused(
    tmp_path: Path, fields: dict[str, tuple[int, str, int]], message: str
) -> None:
    path = patched(packed(tmp_path / "x.npz", ("w.npy", npy(np.ones(1)))), **fields)

    assert refused(path) == f"x.npz: {message}"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    size = 64 * 2**20 + 1
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}"
    path = packed(tmp_path / "x.npz", ("w.npy", header(text) + bytes(size)), method=zipfile.ZIP_DEFLATED)
    unpacked = size + len(header(text))
    (info,) = zipfile.ZipFile(path).infolist()

    assert refused(path) == (
        f"x.npz: T2T611: member w.npy: {info.compress_size} bytes are to become {unpacked}; "
        "at most 100 times as many are read"
    )


def test_bytes_of_two_members_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", ("a.npy", npy(np.ones(1))), ("b.npy", npy(np.zeros(1))))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, 0)
    path.write_bytes(data)

    assert refused(path) == "x.npz: T2T605: bytes of member b.npy are also those of a.npy"


def test_a_damaged_value_is_found(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", ("w.npy", npy(np.arange(100.0))))
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)

    assert refused(path, "w") == (
        "x.npz: T2T608: member w.npy: checksum mismatch (crc32); the file is damaged: copy it again"
    )


def test_no_damage_gives_anything_but_a_refusal(tmp_path: Path) -> None:
    """Each byte flipped in turn, each length: refused, or every value is right."""
    arrays: dict[str, Any] = {"a": RNG.random((3, 2)), "b": np.asfortranarray(RNG.random((2, 5)).astype("f4"))}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        good = (tmp_path / "x.npz").read_bytes()
        flips = [good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :] for i in range(len(good))]
        refusals = 0
        for data in [*flips, *(good[:i] for i in range(0, len(good), 7))]:
            (tmp_path / "x.npz").write_bytes(data)
            try:
                with Npz(str(tmp_path / "x.npz")) as checkpoint:
                    for ref in checkpoint.inventory.variables.values():
                        values = checkpoint.read(ref)
                        if ref.name in arrays:
                            assert np.array_equal(values, arrays[ref.name])
            except CheckpointError:
                refusals += 1
        assert refusals > len(flips) / 3


def test_no_zip_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04" + bytes(100))

    assert refused(tmp_path / "x.npz") == (
        "x.npz: T2T604: the zip archive is damaged: File is not a zip file; the file is damaged: copy it again"
    )
