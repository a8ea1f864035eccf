"""Shards: split, named and indexed as the libraries that read them do, and replaced as one output."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2t import api
from t2t.execute import Block, Room
from t2t.module import read_file
from t2t.problems import MappingError, OutputError, UsageError
from t2t.writers import Entry, Written, shards
from t2t.writers import safetensors as writer
from t2t.writers.safetensors import write
from tests.commands import ROOT, Done, Project, Trial, server, small, t2t
from tests.given import OURS, Array, blocks, entries
from tests.writers.interruptions import Loaded, trials, writing

RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, Array] = {
    "b": RANDOM.random(5, np.float32),  # 20 bytes
    "a": RANDOM.random((3, 2)),  # 48
    "flag": np.array([True, False, True]),  # 3
    "empty": np.empty((0, 3), np.float32),  # 0
    "large": RANDOM.random((5, 5)),  # 200
    "scalar": np.array(7, np.int64),  # 8
    "half": np.arange(3).astype(np.float16),  # 6
}


def put(place: Path, arrays: Mapping[str, Array] = ARRAYS, size: int = 70, **options: Any) -> Written:
    return write(str(place), entries(arrays), OURS, blocks(arrays), shard_size=size, **options)


def load(index: Path) -> dict[str, Array]:
    """What the index names, each file with the library: the keys of each are those that the index says."""
    weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
    found: dict[str, Array] = {}
    for name in sorted(set(weight_map.values())):
        held = safetensors.numpy.load_file(index.parent / name)
        assert held.keys() == {key for key, file in weight_map.items() if file == name}
        found |= held
    return found


def same(one: Mapping[str, Array], two: Mapping[str, Array]) -> bool:
    return one.keys() == two.keys() and all(
        (one[name].dtype, one[name].shape, one[name].tobytes())
        == (two[name].dtype, two[name].shape, two[name].tobytes())
        for name in one
    )


# --- which tensor lies where ---


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 60))
def test_files_are_filled_as_huggingface_hub_fills_them(sizes: Sequence[int], shard_size: int) -> None:
    hub = pytest.importorskip("huggingface_hub")
    given_ = [Entry(f"t{number}", "uint8", (size,)) for number, size in enumerate(sizes)]
    expected = hub.split_state_dict_into_shards_factory(
        {entry.name: entry for entry in given_},
        get_storage_size=shards.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_size,
    )

    files = shards.split(given_, shard_size)

    assert [[entry.name for entry in file] for file in files] == [*expected.filename_to_tensors.values()] or (
        sizes == [] and files == [[]]
    )
    if len(files) > 1:
        document = json.loads(shards.index("dir/model.safetensors", files, {}))
        assert document["weight_map"] == expected.tensor_to_filename
        assert document["metadata"] == expected.metadata


def test_without_a_size_there_is_one_file() -> None:
    assert shards.split(entries(ARRAYS), None) == [entries(ARRAYS)]


def test_tied_names_stay_together_and_count_as_often_as_they_are_stored() -> None:
    """Where one of them alone would fit, too; and where both are too large for a file, they have one of their own."""
    first, second = Entry("a", "uint8", (10,)), Entry("z", "uint8", (10,), "a")
    others = [Entry("m", "uint8", (10,)), Entry("n", "uint8", (10,))]

    def names(size: int, *given_: Entry) -> list[list[str]]:
        return [[entry.name for entry in file] for file in shards.split(given_, size)]

    assert names(20, first, *others, second) == [["a", "z"], ["m", "n"]]
    assert names(15, others[0], first, others[1], second) == [["a", "z"], ["m"], ["n"]]
    assert names(30, others[0], first, second, others[1]) == [["m", "a", "z"], ["n"]]
    assert names(20, second, first) == [["z", "a"]]


@pytest.mark.parametrize(
    ("place", "first", "index"),
    [
        ("model.safetensors", "model-00001-of-00012.safetensors", "model.safetensors.index.json"),
        ("a/b.c/größe [1].x.y", "größe [1].x-00001-of-00012.y", "größe [1].x.y.index.json"),
        ("model", "model-00001-of-00012", "model.index.json"),
    ],
)
def test_the_place_gives_the_names(place: str, first: str, index: str) -> None:
    assert shards.names(place, 12)[0] == first
    assert shards.names(place, 12)[11] == first.replace("00001", "00012")
    assert shards.index_name(place) == index


# --- what libraries read ---


def test_the_library_reads_every_shard_and_the_index_says_which(tmp_path: Path) -> None:
    written = put(tmp_path / "m.safetensors")
    index = tmp_path / "m.safetensors.index.json"

    assert sorted(os.listdir(tmp_path)) == [*(f"m-0000{i}-of-00003.safetensors" for i in (1, 2, 3)), index.name]
    assert written == Written(str(index), sum(path.stat().st_size for path in tmp_path.iterdir()), 3)
    assert same(load(index), ARRAYS)
    document = json.loads(index.read_text("utf-8"))
    assert document["metadata"] == {"total_size": sum(array.nbytes for array in ARRAYS.values()), **OURS}
    assert list(document["weight_map"]) == sorted(ARRAYS)
    for shard in tmp_path.glob("m-*"):
        with safetensors.safe_open(shard, framework="np") as file:
            assert file.metadata() == OURS


def test_transformers_loads_them_strictly(tmp_path: Path) -> None:
    trainer_utils = pytest.importorskip("transformers.trainer_utils")
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    arrays = {name: RANDOM.random(tuple(tensor.shape), np.float32) for name, tensor in module.state_dict().items()}
    put(tmp_path / "model.safetensors", arrays, 30)

    trainer_utils.load_sharded_checkpoint(module, tmp_path, strict=True)

    assert len(os.listdir(tmp_path)) == 5
    assert all(np.array_equal(tensor.numpy(), arrays[name]) for name, tensor in module.state_dict().items())


def test_what_is_proven_is_read_through_the_index_that_will_be_there(tmp_path: Path) -> None:
    proven: list[tuple[str, dict[str, torch.Tensor]]] = []
    put(tmp_path / "m.x", prove=lambda path: proven.append((path, read_file(path))))
    ((path, found),) = proven

    assert os.path.basename(path) == "m.x.index.json"
    assert os.path.dirname(path) != str(tmp_path)
    assert found.keys() == ARRAYS.keys()
    assert all(found[name].numpy().tobytes() == array.tobytes() for name, array in ARRAYS.items())


def test_what_fits_in_one_shard_is_the_plain_file(tmp_path: Path) -> None:
    """Byte by byte the one without a shard size."""
    written = put(tmp_path / "m.x", size=285)
    write(str(tmp_path / "plain"), entries(ARRAYS), OURS, blocks(ARRAYS))

    assert written == Written(str(tmp_path / "m.x"), (tmp_path / "m.x").stat().st_size)
    assert sorted(os.listdir(tmp_path)) == ["m.x", "plain"]
    assert (tmp_path / "m.x").read_bytes() == (tmp_path / "plain").read_bytes()


def test_tensors_may_come_in_any_order_and_in_pieces(tmp_path: Path) -> None:
    """With more shards than are open at a time, each tensor's pieces between those of others."""
    arrays = {f"t{number}": RANDOM.random(40, np.float32) for number in range(50)}

    def interleaved(room: Room) -> Iterator[Block]:
        for start in range(0, 40, 8):
            for name, array in reversed(arrays.items()):
                yield Block(name, start, array[start : start + 8])

    put(tmp_path / "m.x", arrays, 160)
    write(str(tmp_path / "n.x"), entries(arrays), OURS, interleaved, shard_size=160)

    assert len(os.listdir(tmp_path)) == 102
    assert same(load(tmp_path / "n.x.index.json"), arrays)
    for number in range(1, 51):
        ours, theirs = (tmp_path / f"{stem}-{number:05d}-of-00050.x" for stem in "mn")
        assert ours.read_bytes() == theirs.read_bytes()


# --- what is replaced ---


def test_an_older_output_goes_whole_whatever_its_form(tmp_path: Path) -> None:
    """More shards, fewer, none and one again: nothing of the one before is left, and the single file says so."""
    other = {"x": np.ones(3, np.float32)}
    notes: list[str] = []
    listings = []
    for size in (70, 20, 300, 70, 300):
        put(tmp_path / "m.x", size=size, note=lambda note: notes.append(str(note)))
        listings.append(sorted(os.listdir(tmp_path)))
    three, four = ([f"m-{i:05d}-of-{n:05d}.x" for i in range(1, n + 1)] for n in (3, 4))

    assert listings == [
        [*three, "m.x.index.json"],
        [*four, "m.x.index.json"],
        ["m.x"],
        [*three, "m.x.index.json"],
        ["m.x"],
    ]
    assert (
        notes == [f"{tmp_path}/m.x: T2T806: removed m.x.index.json and what else t2t wrote there in shards before"] * 2
    )
    put(tmp_path / "m.x", other)
    assert list(safetensors.numpy.load_file(tmp_path / "m.x")) == ["x"]


def test_what_is_not_ours_or_of_another_output_stays(tmp_path: Path) -> None:
    """Shards of another number that somebody else wrote, of another stem, and what only looks like one."""
    theirs = {"y": np.ones(3, np.float32)}
    names = ["m-00001-of-00009.x", "n-00001-of-00003.x", "m-00001-of-00003.y", "m-1-of-3.x", "m-00001-of-00003.x.txt"]
    safetensors.numpy.save_file(theirs, tmp_path / names[0])
    for name in names[1:]:
        write(str(tmp_path / name), entries(theirs), OURS, blocks(theirs))
    (tmp_path / "m-00002-of-00009.x").mkdir()
    (tmp_path / "m-00003-of-00009.x").symlink_to("m-1-of-3.x")
    before = sorted(os.listdir(tmp_path))

    put(tmp_path / "m.x")
    put(tmp_path / "m.x", size=300)

    assert sorted(os.listdir(tmp_path)) == sorted([*before, "m.x"])


def test_an_older_shard_that_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is in place: that is said too."""
    put(tmp_path / "m.x")
    unlink = os.unlink

    def fail(path: str) -> None:
        if path.endswith("m-00002-of-00003.x"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path)

    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(OutputError) as caught:
        put(tmp_path / "m.x", size=300)

    assert str(caught.value) == (
        f"{tmp_path}/m.x: T2T802: the file is written, but m-00002-of-00003.x of an older output cannot be removed: "
        "Permission denied; remove it: loaders would find both"
    )
    assert same(safetensors.numpy.load_file(tmp_path / "m.x"), ARRAYS)
    assert not (tmp_path / "m.x.index.json").exists()


@pytest.mark.parametrize("name", ["m.x", "m-00002-of-00003.x", "m.x.index.json"])
def test_anothers_file_in_the_way_is_replaced_with_force_only(tmp_path: Path, name: str) -> None:
    theirs = {"y": np.ones(3, np.float32)}
    safetensors.numpy.save_file(theirs, tmp_path / name, {"format": "pt"})
    with pytest.raises(OutputError) as caught:
        put(tmp_path / "m.x", prove=lambda path: pytest.fail("nothing may be written"))

    assert str(caught.value) == (
        f"{tmp_path}/{name}: T2T801: a file that t2t did not write stands there; "
        "give --force to replace it, or choose another place"
    )
    assert os.listdir(tmp_path) == [name]
    put(tmp_path / "m.x", force=True)
    assert len(os.listdir(tmp_path)) == 4
    assert same(load(tmp_path / "m.x.index.json"), ARRAYS)


# --- what is refused, and what goes wrong on the way ---


def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """All of it at once, in whichever shard it would lie."""
    given_ = [Entry("z", "complex128", (9,)), Entry("good", "float32", (9,)), Entry("__metadata__", "float32", (9,))]

    def never(room: Room) -> Iterable[Block]:
        pytest.fail("nothing may be asked for")

    with pytest.raises(OutputError) as caught:
        write(str(tmp_path / "m.x"), given_, OURS, never, shard_size=40)

    assert [str(problem) for problem in caught.value.problems] == [
        f"{tmp_path}/m.x: T2T804: z: safetensors cannot hold complex128; leave it out of the module, or cast it",
        f"{tmp_path}/m.x: T2T804: safetensors cannot hold a tensor named '__metadata__'; rename it in the module",
    ]
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        put(tmp_path / "m\udcff.x")

    assert str(caught.value) == (
        f"{tmp_path}/m\udcff.x: T2T802: the output's path is not UTF-8, which the library that reads it back needs; "
        "choose another place"
    )
    assert os.listdir(tmp_path) == []


def test_a_header_over_the_formats_limit_is_told_by_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_HEADER", 100)
    arrays = {"x": np.ones(2, np.float32), "y" * 50: np.ones(2, np.float32)}

    with pytest.raises(OutputError) as caught:
        put(tmp_path / "m.x", arrays, 8)

    assert str(caught.value) == (
        f"{tmp_path}/m-00002-of-00002.x: T2T804: the header has 136 bytes, safetensors allows 100"
    )
    assert os.listdir(tmp_path) == []


def test_a_proof_that_fails_leaves_the_old_output(tmp_path: Path) -> None:
    put(tmp_path / "m.x", {name: array * 2 for name, array in ARRAYS.items() if name != "flag"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(path: str) -> None:
        raise ValueError("not proven")

    with pytest.raises(ValueError, match="not proven"):
        put(tmp_path / "m.x", prove=refuse)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("damaged", "text"),
    [
        (
            "m-00002-of-00003.x",
            r"T2T805: large reads back as \('F64', \[5, 5\]\) with checksum [0-9a-f]{8}, written was .*",
        ),
        ("m.x.index.json", r"T2T805: the index reads back as something else than what was written"),
    ],
)
def test_a_disk_that_gives_back_something_else_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str, text: str
) -> None:
    """The last byte of a shard, of the index: changed when it has been synced."""
    fsync = os.fsync
    files = shards.split(entries(ARRAYS), 70)
    assert [entry.name for entry in files[1]] == ["large"]

    def sync_and_damage(fd: int) -> None:
        fsync(fd)
        if os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == damaged:
            size = os.fstat(fd).st_size
            (byte,) = os.pread(fd, 1, size - 1)
            os.pwrite(fd, bytes([byte ^ 1]), size - 1)

    monkeypatch.setattr(os, "fsync", sync_and_damage)
    with pytest.raises(OutputError) as caught:
        put(tmp_path / "m.x", prove=lambda path: pytest.fail("it is not proven"))

    assert re.fullmatch(f"{re.escape(str(tmp_path))}/{damaged}: {text}; the disk may be failing", str(caught.value))
    assert os.listdir(tmp_path) == []


# --- the whole conversion ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Two kernels of 4 kB and their biases, in shards of 5 kB: the first kernel and bias, the others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    sys.modules.pop("small", None)
    made = small(tmp_path, (32, 32, 32))
    made.edit("map:", "output: {shard_size: 5000}\nmap:")
    yield made
    sys.modules.pop("small", None)


INDEX = "small.safetensors.index.json"
SHARDS = ["small-00001-of-00002.safetensors", "small-00002-of-00002.safetensors"]


def refused(project: Project, code: int, line: str, *arguments: str, **more: Any) -> None:
    """The command says this one line beside its notes, and the folder is as before."""
    before = {name: (project.folder / name).lstat().st_mtime_ns for name in project.listing()}
    done = server().run("small.yaml", *arguments, cwd=project.folder, **more)
    told = [text for text in (done.out + done.err).splitlines() if not text.startswith("note: T2T700 ")]

    assert (done.code, told) == (code, [line])
    after = {name: (project.folder / name).lstat().st_mtime_ns for name in project.listing()}
    assert {name: time for name, time in after.items() if name in before} == before
    assert after.keys() == before.keys()


def test_convert_names_the_index_and_counts_every_byte(project: Project) -> None:
    done = api.convert("small.yaml")

    assert done.path == INDEX
    assert done.nbytes == sum(os.path.getsize(name) for name in (*SHARDS, INDEX))
    assert {name for name in os.listdir() if name.startswith("small") and "safetensors" in name} == {*SHARDS, INDEX}
    assert same(load(Path(INDEX)), project.state)


def test_the_order_of_rows_changes_nothing_in_the_index(project: Project) -> None:
    """Shards follow the state_dict's order; only what says which mapping it was differs."""
    (project.folder / "a").mkdir()
    (project.folder / "b").mkdir()
    api.convert("small.yaml", "a/m.safetensors")
    header, _, rows = project.mapping.read_text().partition("map:\n")
    project.mapping.write_text(f"{header}map:\n" + "\n".join(reversed(rows.splitlines())) + "\n")
    api.convert("small.yaml", "b/m.safetensors")

    one, two = (json.loads((project.folder / name / "m.safetensors.index.json").read_text()) for name in "ab")
    assert one["weight_map"] == two["weight_map"]
    assert (
        list(one["weight_map"].values()) == ["m-00001-of-00002.safetensors"] * 2 + ["m-00002-of-00002.safetensors"] * 2
    )


def test_the_outputs_dtype_counts_in_the_shards(project: Project) -> None:
    """In bfloat16 everything is half as large: two shards of half the size."""
    project.edit("{shard_size: 5000}", "{shard_size: 2500, dtype: bfloat16}")
    done = api.convert("small.yaml")

    assert json.loads(Path(done.path).read_text())["metadata"]["total_size"] == 2 * (32 * 32 + 32) * 2
    for name, tensor in read_file(done.path).items():
        assert torch.equal(tensor, torch.from_numpy(project.state[name]).bfloat16()), name


def example(folder: Path, mapping: str, output: str) -> None:
    (folder / "mappings").mkdir(exist_ok=True)
    for name in ("modules", "checkpoints", "recordings"):
        if not (folder / "mappings" / name).exists():
            (folder / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    (folder / "mappings" / "madry.yaml").write_text(f"{mapping}\noutput: {output}\n")


def test_the_proof_runs_on_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded example; and the same with a plain transpose behind the Flatten, which is not written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    right = (ROOT / "mappings" / "madry.yaml").read_text()
    wrong = right.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    assert wrong != right
    example(tmp_path, right, "{shard_size: 1000000}")

    done = api.convert("mappings/madry.yaml")
    assert done.comparison is not None
    assert json.loads(Path(done.path).read_text())["metadata"]["t2t.proof"] == "proven"
    before = {path: path.read_bytes() for path in tmp_path.glob("madry*")}
    assert len(before) == 3
    example(tmp_path, wrong, "{shard_size: 1000000}")
    with pytest.raises(MappingError, match="T2T501"):
        api.convert("mappings/madry.yaml")
    assert {path: path.read_bytes() for path in tmp_path.glob("madry*")} == before


def test_tied_names_are_in_one_shard(project: Project) -> None:
    text = (project.folder / "small.py").read_text()
    (project.folder / "small.py").write_text(f"{text}        self.again = self.layers[0]\n")
    rows = "- {torch: again.weight, tie: layers.0.weight}\n- {torch: again.bias, tie: layers.0.bias}\n"
    project.mapping.write_text(project.mapping.read_text() + rows)

    api.convert("small.yaml")
    weight_map = json.loads(Path(INDEX).read_text())["weight_map"]
    found = load(Path(INDEX))

    assert weight_map["again.weight"] == weight_map["layers.0.weight"]
    assert weight_map["again.bias"] == weight_map["layers.0.bias"]
    assert np.array_equal(found["again.weight"], project.state["layers.0.weight"])
    assert found["again.weight"].flags.c_contiguous


def test_an_input_is_never_replaced_by_a_shard_or_the_index(project: Project) -> None:
    """By a hard link; --force or not."""
    for name in (*SHARDS, INDEX):
        os.link(project.data, name)
        before = Path(name).read_bytes()
        for flags in ([], ["--force"]):
            line = f"T2T001 the output {name} is an input: {project.data.name}; choose another output with -o"
            refused(project, 2, line, *flags)
        assert Path(name).read_bytes() == before
        os.unlink(name)
    os.link(project.mapping, "small.safetensors")
    with pytest.raises(UsageError, match=r"the output small\.safetensors is an input: small\.yaml"):
        api.convert("small.yaml", force=True)


def test_a_place_that_cannot_be_is_refused_before_a_variable_is_read(project: Project) -> None:
    project.data.write_bytes(bytes(project.data.stat().st_size))
    (project.folder / "file").write_text("not a directory")
    os.mkfifo(SHARDS[1])
    missing = "cannot be written: No such file or directory; make its directory first"

    refused(project, 3, f"missing/x.y: T2T802: {missing}", "-o", "missing/x.y")
    refused(
        project, 3, f"{SHARDS[1]}: T2T801: something that is not a regular file stands there; name a file", "--force"
    )
    refused(
        project,
        3,
        "file/x: T2T802: cannot be written: Not a directory; its directory is a file",
        "-o",
        "file/x",
    )


@pytest.mark.parametrize("limit", [4096, 200_000])
def test_no_space_leaves_the_old_output(project: Project, limit: int) -> None:
    """At the first shard, and in the middle of a large one."""
    project = small(project.folder, (256, 256, 256))
    project.edit("map:", "output: {shard_size: 270000}\nmap:")
    assert server().run("small.yaml", cwd=project.folder).code == 0
    assert set(SHARDS) < set(os.listdir())

    refused(
        project, 3, "small.safetensors: T2T803: no space: File too large; nothing was written", limits={"fsize": limit}
    )


def test_shards_are_written_with_few_files_open(project: Project) -> None:
    """200 of them, with 64 open files allowed."""
    project = small(project.folder, (3,) * 101)
    project.edit("map:", "output: {shard_size: 1}\nmap:")

    done = server().run("small.yaml", cwd=project.folder, limits={"nofile": 64})

    assert (done.code, done.err) == (0, "note: T2T700 importing small:Small\n")
    assert len([name for name in os.listdir() if "-of-00200" in name]) == 200
    assert same(load(Path(INDEX)), project.state)


def test_the_same_input_gives_the_same_bytes(project: Project) -> None:
    (project.folder / "below").mkdir()
    runs: list[tuple[Path, str, dict[str, str]]] = [
        (project.folder, "small.yaml", {"PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONUTF8": "0"}),
        (project.folder / "below", "../small.yaml", {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8"}),
    ]
    written = []
    for cwd, mapping, env in runs:
        path = os.pathsep.join(filter(None, [str(project.folder), os.environ.get("PYTHONPATH")]))
        done: Done = t2t(mapping, cwd=cwd, env={**env, "PYTHONPATH": path})
        assert done.code == 0, done
        written.append([(cwd / name).read_bytes() for name in (*SHARDS, INDEX)])

    assert written[0] == written[1]


def test_modes_are_any_new_files(project: Project) -> None:
    for umask in (0o022, 0o077):
        assert server().run("small.yaml", cwd=project.folder, umask=umask).code == 0
        assert {stat.S_IMODE(os.lstat(name).st_mode) for name in (*SHARDS, INDEX)} == {0o666 & ~umask}


def loaded() -> Loaded | None:
    """Through the index, if there is one."""
    return load(Path(INDEX)) if os.path.exists(INDEX) else None


@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGINT, {0, 130}), (signal.SIGTERM, {0, 143, -15}), (signal.SIGKILL, {0, -9})]
)
def test_a_signal_at_any_moment_never_leaves_an_index_over_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, codes: set[int]
) -> None:
    """What each call of the system may leave is tested with t2t.writers.together; here the whole command is stopped."""
    monkeypatch.chdir(tmp_path)
    found = trials(writing(tmp_path, "{shard_size: 3 MB}"), number, loaded, 4)

    assert {done.code for done, _ in found} <= codes
    assert {state for _, state in found} <= ({"old", "new", "none"} if number == signal.SIGKILL else {"old", "new"})
    assert all(state == "new" for done, state in found if done.code == 0)
    assert any(done.code != 0 for done, _ in found)
    assert len([name for name in os.listdir() if "-of-00005" in name]) == 5


def test_two_runs_at_once_leave_one_whole_output(project: Project) -> None:
    for _ in range(3):
        for done in server().together(*[Trial(["small.yaml"], project.folder)] * 3):
            assert (done.code, done.err) == (0, "note: T2T700 importing small:Small\n")
        assert same(load(Path(INDEX)), project.state)
        assert not [name for name in project.listing() if name.endswith(".tmp")]
