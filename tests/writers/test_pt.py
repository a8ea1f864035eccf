"""The torch checkpoint: what torch.load reads is what went in, in bytes that depend on nothing else."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2t import api
from t2t.execute import Block, Room
from t2t.module import read_file
from t2t.problems import OutputError
from t2t.tensors import DTYPES
from t2t.writers import Entry, Written, pt
from t2t.writers.pt import write
from tests.commands import ROOT, Project, python, server, small
from tests.given import OURS, Array, blocks, entries
from tests.writers.interruptions import Loaded, trials, writing

STORABLE = [name for name, dtype in DTYPES.items() if dtype.kind != "other"]
RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, Array] = {
    "b": RANDOM.random(5, np.float32),
    "a": RANDOM.random((3, 2)),
    "flag": np.array([True, False, True]),
    "empty": np.empty((0, 3), np.float32),
    "scalar": np.array(7, np.int64),
    "half": np.arange(3).astype(np.float16),
}


def put(
    place: Path | str, arrays: Mapping[str, Array], ties: Mapping[str, str] | None = None, **options: Any
) -> Written:
    """Writes these arrays; `ties` are more names, each with the name whose values it has."""
    ties = ties or {}
    tied = [Entry(name, arrays[first].dtype.name, arrays[first].shape, first) for name, first in ties.items()]
    given_ = {**arrays, **{name: arrays[first] for name, first in ties.items()}}
    return write(str(place), [*entries(arrays), *tied], OURS, blocks(given_), **options)


def load(place: Path | str) -> dict[str, torch.Tensor]:
    """As anybody loads it; both ways must give the same."""
    plain = torch.load(place, weights_only=True)
    mapped: dict[str, torch.Tensor] = torch.load(place, weights_only=True, mmap=True)
    assert plain.keys() == mapped.keys()
    assert all(data(plain[name]) == data(mapped[name]) for name in plain)
    return mapped


def data(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.reshape(-1).view(torch.uint8).numpy())


# --- what torch reads ---


def test_torch_reads_what_went_in(tmp_path: Path) -> None:
    written = put(tmp_path / "f.pt", ARRAYS)
    found = load(tmp_path / "f.pt")

    assert written == Written(str(tmp_path / "f.pt"), (tmp_path / "f.pt").stat().st_size)
    assert type(found) is dict
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        own = torch.empty(array.shape, dtype=torch.from_numpy(array).dtype)
        assert (found[name].dtype, found[name].shape, found[name].stride()) == (own.dtype, own.shape, own.stride())
        assert data(found[name]) == array.tobytes()
        assert not found[name].requires_grad
    assert os.listdir(tmp_path) == ["f.pt"]


@pytest.mark.parametrize("dtype", STORABLE)
def test_torch_reads_every_dtype_and_wrote_the_same_description_itself(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[dtype].numpy)
    put(tmp_path / "f", {"x": array})
    found = load(tmp_path / "f")["x"]
    torch.save({"x": found}, tmp_path / "torchs")
    with zipfile.ZipFile(tmp_path / "f") as ours, zipfile.ZipFile(tmp_path / "torchs") as theirs:
        described = ours.read("archive/data.pkl"), theirs.read("torchs/data.pkl")

    assert found.dtype == getattr(torch, dtype)
    assert data(found) == array.tobytes()
    assert described[0] == described[1]


def test_a_whole_state_dict_is_described_as_torch_does(tmp_path: Path) -> None:
    """The same pickle, byte by byte, ties and all."""
    module = torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 7, bias=False))
    module[2].weight = module[0].weight
    state = module.state_dict()
    arrays = {name: tensor.numpy() for name, tensor in state.items() if name != "2.weight"}
    put(tmp_path / "f", arrays, {"2.weight": "0.weight"})
    torch.save(dict(state), tmp_path / "torchs")
    with zipfile.ZipFile(tmp_path / "f") as ours, zipfile.ZipFile(tmp_path / "torchs") as theirs:
        for name in ("data.pkl", "byteorder", "version", *(f"data/{i}" for i in range(6))):
            assert ours.read(f"archive/{name}") == theirs.read(f"torchs/{name}"), name

    assert module.load_state_dict(load(tmp_path / "f"), strict=True).missing_keys == []


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(max_size=6),
        st.tuples(
            st.sampled_from(["float64", "float32", "int16", "bool", "complex128", "uint16"]),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        max_size=6,
    ),
    st.integers(1, 5),
)
def test_whatever_the_names_and_shapes_are_torch_reads_them(
    tmp_path: Path, given_: dict[str, tuple[str, list[int]]], step: int
) -> None:
    """Names that no other format takes among them: the empty one, halves of surrogate pairs."""
    arrays = {
        name: np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
        for name, (dtype, shape) in given_.items()
    }
    write(str(tmp_path / "f"), entries(arrays), OURS, blocks(arrays, step))
    found = load(tmp_path / "f")

    assert list(found) == list(arrays)
    assert all(data(found[name]) == arrays[name].tobytes() for name in arrays)
    assert all(found[name].shape == arrays[name].shape for name in arrays)


def test_tied_names_share_one_storage(tmp_path: Path) -> None:
    """Also where the name that is written comes last; and equal values that are not tied do not."""
    arrays = {"b": np.ones(3, np.float32), "c": np.ones(3, np.float32)}
    given_ = [Entry("a", "float32", (3,), "b"), *entries(arrays)]
    write(str(tmp_path / "f"), given_, OURS, blocks({**arrays, "a": arrays["b"]}))
    found = load(tmp_path / "f")
    with torch.no_grad():
        found["a"].fill_(7)

    assert [found[name].tolist() for name in "abc"] == [[7, 7, 7], [7, 7, 7], [1, 1, 1]]
    with zipfile.ZipFile(tmp_path / "f") as archive:
        assert [name for name in archive.namelist() if "/data/" in name] == ["archive/data/0", "archive/data/1"]


def test_what_is_proven_is_read_by_a_map_and_shares_what_is_tied(tmp_path: Path) -> None:
    put(tmp_path / "f", ARRAYS, {"c": "b"})
    found = read_file(str(tmp_path / "f"), "pt")

    assert found.keys() == {*ARRAYS, "c"}
    assert found["c"].data_ptr() == found["b"].data_ptr()
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(tmp_path / "f") in maps.read()


# --- the archive ---


def test_a_stranger_reads_the_archive(tmp_path: Path) -> None:
    """Checksums, sizes and names as Python's zipfile sees them; each record begins at a multiple of 64."""
    put(tmp_path / "f", ARRAYS)
    whole = (tmp_path / "f").read_bytes()
    with zipfile.ZipFile(tmp_path / "f") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "archive/t2t.json",
            "archive/data.pkl",
            "archive/byteorder",
            *(f"archive/data/{number}" for number in range(len(ARRAYS))),
            "archive/version",
        ]
        for info in archive.infolist():
            head = whole[info.header_offset : info.header_offset + 30]
            start = (
                info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:], "little")
            )
            assert start % 64 == 0
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert whole[start : start + info.file_size] == archive.read(info)
        assert archive.read("archive/t2t.json") == b'{"t2t": "1"}'


@pytest.mark.parametrize(("large", "many"), [(100, 0xFFFF), (0, 0xFFFF), (0xFFFFFFFF, 3), (100, 3)])
def test_sizes_and_offsets_beyond_32_bits_have_fields_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, many: int
) -> None:
    """As if 100 bytes were 4 GiB, or 3 records 65535: the same layout, which zipfile and torch read."""
    arrays = {**ARRAYS, "long": np.arange(1000.0)}
    put(tmp_path / "plain", arrays)
    monkeypatch.setattr(pt, "LARGE", large)
    monkeypatch.setattr(pt, "MANY", many)
    put(tmp_path / "f", arrays)
    found = load(tmp_path / "f")

    with zipfile.ZipFile(tmp_path / "f") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == len(arrays) + 4
    assert all(data(found[name]) == arrays[name].tobytes() for name in arrays)
    assert (tmp_path / "f").stat().st_size > (tmp_path / "plain").stat().st_size


def test_a_large_records_own_header_is_the_one_that_zipfile_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers of streams have nothing else; ours has padding behind it, which its length counts."""
    monkeypatch.setattr(pt, "LARGE", 8000)
    put(tmp_path / "f", {"small": np.arange(999.0), "large": np.arange(1000.0)})
    whole = (tmp_path / "f").read_bytes()
    with zipfile.ZipFile(tmp_path / "f") as archive:
        for name, is_large in (("archive/data/0", False), ("archive/data/1", True)):
            info = archive.getinfo(name)
            info.extra = b""
            expected = info.FileHeader(zip64=is_large)
            found = whole[info.header_offset :][: len(expected)]

            assert (found[:28], found[30:]) == (expected[:28], expected[30:]), name
            assert (b"\xff\xff\xff\xff" in found) is is_large


def test_the_same_input_gives_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from pathlib import Path
from tests.writers.test_pt import put
names = {"b", "a", "ccc", "größe"}
put(sys.argv[1], {name: np.ones(3, np.float32) for name in sorted(names)}, {"tied": "a"})
"""
    files = []
    for seed, locale, name in (("1", "C", "a.pt"), ("2", "C.UTF-8", "another name")):
        done = python("-c", code, str(tmp_path / name), cwd=ROOT, env={"PYTHONHASHSEED": seed, "LC_ALL": locale})
        assert (done.code, done.err) == (0, "")
        files.append((tmp_path / name).read_bytes())

    assert files[0] == files[1]


def test_tensors_may_come_in_any_order_and_in_pieces(tmp_path: Path) -> None:
    put(tmp_path / "whole", ARRAYS)
    backwards = dict(reversed(ARRAYS.items()))
    write(str(tmp_path / "pieces"), entries(ARRAYS), OURS, blocks(backwards, 2))

    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


# --- what is refused, and what goes wrong on the way ---


def test_a_file_of_ours_is_replaced_and_anothers_is_not(tmp_path: Path) -> None:
    place = tmp_path / "f"
    put(place, ARRAYS)
    put(place, {"x": np.ones(3, np.float32)})

    assert list(load(place)) == ["x"]

    torch.save({"y": torch.ones(3)}, place)
    with pytest.raises(OutputError) as caught:
        put(place, ARRAYS)

    assert str(caught.value) == (
        f"{place}: T2T801: a file that t2t did not write stands there; "
        "give --force to replace it, or choose another place"
    )
    assert list(load(place)) == ["y"]

    put(place, ARRAYS, force=True)

    assert load(place).keys() == ARRAYS.keys()


def test_a_proof_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "f"
    put(place, {"x": np.zeros(3, np.float32)})
    before = place.read_bytes()
    proven: list[Mapping[str, torch.Tensor]] = []

    def prove(path: str) -> None:
        proven.append(read_file(path, "pt"))
        raise ValueError("not proven")

    with pytest.raises(ValueError, match="not proven"):
        put(place, ARRAYS, prove=prove)

    assert proven[0].keys() == ARRAYS.keys()
    assert place.read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]


def damaged(place: Path, arrays: Mapping[str, Array], damage: Callable[[int], None]) -> str:
    """What is said when the temporary file is changed (by its descriptor) at the first sync after the last write."""
    fsync = os.fsync

    def damage_and_sync(fd: int) -> None:
        patch.undo()
        damage(fd)
        fsync(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", damage_and_sync)
        with pytest.raises(OutputError) as caught:
            put(place, arrays, prove=lambda path: pytest.fail("it is not proven"))
    assert os.listdir(place.parent) == []
    return str(caught.value)


def flip(fd: int, position: int) -> None:
    (byte,) = os.pread(fd, 1, position)
    os.pwrite(fd, bytes([byte ^ 1]), position)


def test_a_bit_that_changes_anywhere_is_found(tmp_path: Path) -> None:
    """In the values it is told by the tensor's name; only what nobody reads is no harm: nothing is left out here."""
    array = np.ones(3, np.float32)
    put(tmp_path / "f", {"x": array})
    whole = (tmp_path / "f").read_bytes()
    (tmp_path / "f").unlink()
    start = whole.index(array.tobytes())
    said = {}
    for position in [*range(0, len(whole), 7), *range(start, start + array.nbytes)]:
        said[position] = damaged(tmp_path / "f", {"x": array}, lambda fd, at=position: flip(fd, at))  # type: ignore[misc]

    flipped = bytearray(array.tobytes())
    flipped[0] ^= 1
    assert said[start] == (
        f"{tmp_path}/f: T2T805: x reads back with checksum {google_crc32c.value(bytes(flipped)):08x}, written was "
        f"{google_crc32c.value(array.tobytes()):08x}; the disk may be failing"
    )
    assert said[0] == (
        f"{tmp_path}/f: T2T805: the archive reads back as something else than what was written, from byte 0 on; "
        "the disk may be failing"
    )
    assert all("T2T805" in text for text in said.values())


def test_a_file_that_is_cut_off_is_found(tmp_path: Path) -> None:
    found = damaged(tmp_path / "f", {"x": np.ones(3, np.float32)}, lambda fd: os.ftruncate(fd, 100))

    assert re.fullmatch(
        re.escape(f"{tmp_path}/f: T2T805: the archive reads back as something else than what was written, from byte ")
        + r"\d+ on; the disk may be failing",
        found,
    )


def test_what_torch_refuses_or_reads_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a newer torch read the format otherwise: the description that is written is not what it takes."""
    place = tmp_path / "f"
    pickled = pt._pickled
    says = f"{place}: T2T805: torch {torch.__version__}"
    monkeypatch.setattr(pt, "_pickled", lambda given_, keys: b"cos\nsystem\n.")
    with pytest.raises(OutputError) as caught:
        put(place, ARRAYS)
    assert str(caught.value) == f"{says} refuses the file: Weights only load failed; a newer one may read it"

    others = [Entry("b", "int32", (5,))]
    monkeypatch.setattr(pt, "_pickled", lambda given_, keys: pickled(others, keys))
    with pytest.raises(OutputError) as caught:
        put(place, {"b": ARRAYS["b"]})
    assert str(caught.value) == f"{says} reads b as int32 [5], written was float32 [5]; a newer one may read it"

    with pytest.raises(OutputError) as caught:
        put(place, ARRAYS)
    assert str(caught.value) == f"{says} reads b as int32 [5], written was float32 [5]; a newer one may read it"
    assert os.listdir(tmp_path) == []


def test_an_error_while_tensors_come_leaves_nothing(tmp_path: Path) -> None:
    def torn(room: Room) -> Iterator[Block]:
        yield from blocks({"x": np.ones(3, np.float32)})(room)
        raise OSError("the checkpoint is torn")

    with pytest.raises(OSError, match="torn"):
        write(str(tmp_path / "f"), entries({"x": np.ones(3, np.float32), "y": np.ones(3)}), OURS, torn)

    assert os.listdir(tmp_path) == []


# --- the whole conversion ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    sys.modules.pop("small", None)
    made = small(tmp_path)
    made.edit("map:", "output: {format: pt}\nmap:")
    yield made
    sys.modules.pop("small", None)


def refused(project: Project, code: int, line: str, *arguments: str, **more: Any) -> None:
    """The command says this one line beside its notes, and the folder is as before."""
    before = {name: (project.folder / name).lstat().st_mtime_ns for name in project.listing()}
    done = server().run("small.yaml", *arguments, cwd=project.folder, **more)
    told = [text for text in (done.out + done.err).splitlines() if not text.startswith("note: T2T700 ")]

    assert (done.code, told) == (code, [line])
    assert {name: (project.folder / name).lstat().st_mtime_ns for name in project.listing()} == before


def test_convert_writes_the_state_dict_in_its_order_with_a_proof_from_the_file(project: Project) -> None:
    done = api.convert("small.yaml")
    found = load("small.pt")

    assert (done.path, done.nbytes) == ("small.pt", Path("small.pt").stat().st_size)
    assert list(found) == list(project.state)
    assert all(np.array_equal(found[name].numpy(), array) for name, array in project.state.items())


def test_a_proven_file_says_so_and_a_wrong_one_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded example, and the same with a plain transpose behind the Flatten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    (tmp_path / "mappings").mkdir()
    for name in ("modules", "checkpoints", "recordings"):
        (tmp_path / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    right = f"{(ROOT / 'mappings' / 'madry.yaml').read_text()}\noutput: {{format: pt}}\n"
    wrong = right.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    assert wrong != right
    (tmp_path / "mappings" / "madry.yaml").write_text(right)

    done = api.convert("mappings/madry.yaml")
    with zipfile.ZipFile(done.path) as archive:
        assert b'"t2t.proof": "proven"' in archive.read("archive/t2t.json")
    assert done.comparison is not None
    before = Path(done.path).read_bytes()
    (tmp_path / "mappings" / "madry.yaml").write_text(wrong)
    with pytest.raises(Exception, match="T2T501"):
        api.convert("mappings/madry.yaml")
    assert Path(done.path).read_bytes() == before


def test_ties_of_the_module_share_one_storage(project: Project) -> None:
    text = (project.folder / "small.py").read_text()
    (project.folder / "small.py").write_text(f"{text}        self.again = self.layers[0]\n")
    rows = "- {torch: again.weight, tie: layers.0.weight}\n- {torch: again.bias, tie: layers.0.bias}\n"
    project.mapping.write_text(project.mapping.read_text() + rows)

    api.convert("small.yaml")
    found = load("small.pt")

    assert found.keys() == {*project.state, "again.weight", "again.bias"}
    assert found["again.weight"].data_ptr() == found["layers.0.weight"].data_ptr()
    assert np.array_equal(found["again.weight"].numpy(), project.state["layers.0.weight"])
    assert found["again.weight"].is_contiguous()


def test_the_outputs_dtype_is_the_files(project: Project) -> None:
    project.edit("{format: pt}", "{format: pt, dtype: bfloat16}")
    api.convert("small.yaml")

    for name, tensor in load("small.pt").items():
        assert torch.equal(tensor, torch.from_numpy(project.state[name]).bfloat16()), name


def test_a_place_that_cannot_be_is_refused_before_a_variable_is_read(project: Project) -> None:
    project.data.write_bytes(bytes(project.data.stat().st_size))
    (project.folder / "file").write_text("not a directory")
    (project.folder / "directory").mkdir()
    os.mkfifo(project.folder / "fifo")
    torch.save({}, "theirs.pt")
    os.link(project.mapping, "hard.pt")
    missing = "cannot be written: No such file or directory; make its directory first"
    taken = "a file that t2t did not write stands there; give --force to replace it, or choose another place"

    refused(project, 3, f"missing/out.pt: T2T802: {missing}", "-o", "missing/out.pt")
    refused(project, 3, "file/x: T2T802: cannot be written: Not a directory; its directory is a file", "-o", "file/x")
    refused(project, 3, "directory: T2T801: a directory stands there; name a file", "-o", "directory", "--force")
    refused(
        project,
        3,
        "fifo: T2T801: something that is not a regular file stands there; name a file",
        "-o",
        "fifo",
        "--force",
    )
    refused(project, 3, f"theirs.pt: T2T801: {taken}", "-o", "theirs.pt")
    refused(
        project,
        2,
        "T2T001 the output hard.pt is an input: small.yaml; choose another output with -o",
        "-o",
        "hard.pt",
        "--force",
    )


@pytest.mark.parametrize("limit", [100, 4096, 200_000])
def test_no_space_leaves_the_old_file(project: Project, limit: int) -> None:
    """At the first byte, and in the middle."""
    folder = project.folder
    project = small(folder, (256, 256))
    project.edit("map:", "output: {format: pt}\nmap:")
    assert server().run("small.yaml", cwd=folder).code == 0

    refused(
        project,
        3,
        "small.pt: T2T803: no space: File too large; nothing was written",
        limits={"fsize": max(limit, 4096)},
    )


def test_its_mode_is_any_new_files_and_a_link_is_followed(project: Project) -> None:
    (project.folder / "below").mkdir()
    (project.folder / "small.pt").symlink_to("below/real.pt")
    for umask in (0o022, 0o077, 0):
        assert server().run("small.yaml", cwd=project.folder, umask=umask).code == 0
        assert stat.S_IMODE((project.folder / "below" / "real.pt").lstat().st_mode) == 0o666 & ~umask
    assert os.readlink("small.pt") == "below/real.pt"
    assert os.listdir("below") == ["real.pt"]


#: Prints how far the peak of memory rises during a conversion, in bytes; what the imports took is not in it.
PEAK = """
import re
import t2t.api, t2t.module, t2t.execute, t2t.writers.pt

def status(key):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{key}:\\s+(\\d+) kB", file.read())[1]) * 1024

t2t.convert("warm.yaml")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
t2t.convert("small.yaml")
print(status("VmHWM") - before)
"""


def test_memory_is_that_of_the_largest_tensors_not_of_all(project: Project) -> None:
    (project.folder / "warm.yaml").write_text(project.mapping.read_text().replace("small.ckpt", "warm/small.ckpt"))
    (project.folder / "warm").mkdir()
    small(project.folder / "warm")
    small(project.folder, (2048,) * 7).edit("map:", "output: {format: pt}\nmap:")

    done = python("-c", PEAK, cwd=project.folder)

    assert (done.code, done.err) == (0, "")
    assert 2048 * 2048 * 4 < int(done.out) <= 2 * 2048 * 2048 * 4 + 16_000_000


def loaded() -> Loaded | None:
    try:
        return {name: tensor.numpy().copy() for name, tensor in load("small.pt").items()}
    except FileNotFoundError:
        return None


@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGINT, {0, 130}), (signal.SIGTERM, {0, 143, -15}), (signal.SIGKILL, {0, -9})]
)
def test_a_signal_at_any_moment_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, codes: set[int]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = trials(writing(tmp_path, "{format: pt}"), number, loaded, 4)

    assert {done.code for done, _ in found} <= codes
    assert {state for _, state in found} <= {"old", "new"}
    assert all(state == "new" for done, state in found if done.code == 0)
    assert any(done.code != 0 for done, _ in found)
