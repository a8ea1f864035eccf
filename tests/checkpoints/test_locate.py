"""From what somebody typed to the checkpoint that is meant, and every way in which there is none."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from t2t import checkpoints
from t2t.checkpoints.locate import Found, locate
from t2t.problems import CheckpointError
from tests.checkpoints.writing import block, bundle, floats, stored, table_of


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in these tests are relative to a directory of their own."""
    monkeypatch.chdir(tmp_path)


def save(prefix: str) -> None:
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    bundle(Path(prefix), {"a": floats(1)})


def state(folder: str, path: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')


def refused(path: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.open(path)
    (problem,) = caught.value.problems
    return str(problem)


ONE_OF_ITS_FILES = ["x", "x.index", "x.meta", "x.data-00000-of-00001", "x.data-00007-of-00009"]


@pytest.mark.parametrize("path", ONE_OF_ITS_FILES)
def test_a_prefix_or_one_of_its_files_is_the_checkpoint(path: str) -> None:
    save("x")

    with checkpoints.open(path) as checkpoint:
        assert checkpoint.path == "x"


@pytest.mark.parametrize("prefix", ["a b[1]*?", "\n", "x.index", "x.meta", "checkpoint", "\udcff", "ü"])
def test_names_are_literal(prefix: str) -> None:
    save(prefix)

    assert locate(prefix) == locate(f"{prefix}.index") == Found("bundle", prefix)


def test_a_path_object_will_do() -> None:
    save("x")

    with checkpoints.open(Path("x")) as checkpoint:
        assert checkpoint.path == "x"


@pytest.mark.parametrize("path", ["d", "d/", "d/checkpoint"])
def test_a_state_file_leads_to_the_newest(path: str) -> None:
    save("d/sub/x-1")
    save("d/x-2")
    state("d", "x-2")

    assert locate(path) == Found("bundle", "d/x-2")
    state("d", "sub/x-1")
    assert locate(path) == Found("bundle", "d/sub/x-1")


def test_the_state_file_of_the_current_directory_is_found() -> None:
    save("x")
    state(".", "x")

    assert locate("checkpoint") == Found("bundle", "x")
    assert locate(".") == Found("bundle", "./x")


@pytest.mark.parametrize("path", ["m", "m/saved_model.pb", "m/variables", "m/variables/variables"])
def test_a_saved_model_is_its_variables(path: str) -> None:
    save("m/variables/variables")
    Path("m/saved_model.pb").touch()

    assert locate(path) == Found("bundle", "m/variables/variables")


def test_a_directory_with_a_state_file_and_a_saved_model_is_refused() -> None:
    save("m/variables/variables")
    save("m/x")
    state("m", "x")

    text = "the directory holds several checkpoints: m/checkpoint, m/variables/variables"
    assert refused("m") == f"m: T2T601: {text}; give one of them"


def test_a_saved_model_without_variables_is_refused() -> None:
    Path("m").mkdir()
    Path("m/saved_model.pb").touch()

    text = "the SavedModel has no variables (no variables/variables.index)"
    assert refused("m") == f"m: T2T601: {text}; its weights may be constants of its graph, which t2t does not read"


def test_a_directory_without_a_state_file_lists_its_prefixes() -> None:
    Path("d").mkdir()
    text = "the directory has no file 'checkpoint' and is no SavedModel"
    assert refused("d") == f"d: T2T601: {text}; nothing that looks like one lies there"
    for i in range(7):
        save(f"d/x-{i}")

    hint = "give one of those that it holds: x-0, x-1, x-2, x-3, x-4 and 2 more"
    assert refused("d") == f"d: T2T601: {text}; {hint}"


# Nothing there.


@pytest.mark.parametrize(("path", "text"), [("", "the path is empty"), ("a\0b", "the path holds a NUL character")])
def test_a_path_that_is_none_is_refused(path: str, text: str) -> None:
    assert refused(path).endswith(f": T2T601: {text}")


def test_a_missing_prefix_names_what_was_tried_and_the_nearest() -> None:
    text = "no checkpoint there: neither model.ckpt-8.index nor model.ckpt-8 exists"
    Path("d").mkdir()
    assert refused("d/model.ckpt-8") == f"d/model.ckpt-8: T2T601: {text}"

    save("d/model.ckpt-7")
    assert refused("d/model.ckpt-8") == f"d/model.ckpt-8: T2T601: {text}; did you mean d/model.ckpt-7"


def test_a_missing_directory_is_named() -> None:
    assert refused("no/where/x") == "no/where/x: T2T601: there is no directory no/where"


@pytest.mark.parametrize("path", ["x", "x.index", "x.meta", "x.data-00000-of-00001"])
def test_data_without_its_index_is_an_incomplete_copy(path: str) -> None:
    save("x")
    os.remove("x.index")
    Path("x.meta").write_bytes(b"graph")

    text = "x.index is missing, but x.data-00000-of-00001 is there"
    assert refused(path) == f"x: T2T601: {text}; the save or the copy is incomplete"


def test_an_index_without_its_data_is_an_incomplete_copy() -> None:
    save("x")
    os.remove("x.data-00000-of-00001")

    file = "x.data-00000-of-00001"
    assert refused("x") == f"{file}: T2T607: shard 0 of 1 missing: {file}; the save or the copy is incomplete"


# Not regular files.


@pytest.mark.parametrize("path", ["fifo", "fifo.index", "fifo-state/checkpoint"])
def test_a_fifo_is_refused_without_waiting(path: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    os.mkfifo(path)

    assert refused(path) == f"{path}: T2T602: not a regular file"


def test_a_fifo_in_place_of_a_shard_is_refused_without_waiting() -> None:
    save("x")
    os.remove("x.data-00000-of-00001")
    os.mkfifo("x.data-00000-of-00001")

    assert refused("x") == "x.data-00000-of-00001: T2T602: not a regular file"


def test_a_socket_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert refused("socket") == "socket: T2T602: not a regular file"


def test_a_device_is_refused() -> None:
    assert refused("/dev/null") == "/dev/null: T2T602: not a regular file"


def test_an_index_that_is_a_directory_is_refused() -> None:
    Path("x.index").mkdir()

    assert refused("x") == "x.index: T2T602: not a regular file"


def test_a_dangling_or_looping_link_is_refused() -> None:
    Path("x").symlink_to("gone")
    Path("y").symlink_to("y")
    Path("z.index").symlink_to("gone")

    assert refused("x") == "x: T2T602: a symbolic link to gone, which does not exist"
    assert refused("y") == "y: T2T602: cannot be opened: too many levels of symbolic links"
    assert refused("z") == "z.index: T2T602: cannot be opened: no such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused() -> None:
    save("x")
    os.chmod("x.index", 0)

    assert refused("x") == "x.index: T2T602: cannot be opened: permission denied"


def test_a_name_that_is_too_long_is_refused() -> None:
    assert refused("x" * 300).endswith(": T2T602: cannot be opened: file name too long")


# Other formats.

READS = "t2t reads TensorFlow V1 and V2 checkpoints, SavedModels, Keras .h5 and .keras, and .npz"
HDF5 = b"\x89HDF\r\n\x1a\n"
V1 = table_of([(b"z", stored(block([(b"", b"\n\0")])))])


def zip_of(*members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member in members:
            archive.writestr(member, b"1")
    return out.getvalue()


OTHERS = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1",
        "this is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    "html": (b"<html>", "this is an HTML page; download the file itself"),
    "torch": (zip_of("model/data.pkl"), f"this is a PyTorch file (a pickle), which t2t never reads; {READS}"),
    "zip": (zip_of("a\x1b"), "this is a zip archive (its first member is a\\x1b); unpack it first"),
    "zip of some arrays": (zip_of("a.npy", "b"), f"this is a NumPy .npz archive; {READS}"),
    "zip of no weights": (zip_of("metadata.json"), f"this is a .keras archive; {READS}"),
    "pickle": (b"\x80\x04}.", f"this is a Python pickle, which t2t never reads; {READS}"),
    "tar of an HDF5 file": (
        (b"x".ljust(257, b"\0") + b"ustar\0").ljust(512, b"\0") + HDF5,
        "this is a tar archive; unpack it first",
    ),
    "empty": (b"", "empty file"),
    "text": (b"hello", f"not a checkpoint that t2t knows; {READS}"),
    "HDF5 where none begins": (bytes(1536) + HDF5, f"not a checkpoint that t2t knows; {READS}"),
}


@pytest.mark.parametrize(("content", "text"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_named_by_their_content(content: bytes, text: str) -> None:
    Path("x").write_bytes(content)

    assert refused("x") == f"x: T2T603: {text}"


def test_a_zip_that_is_cut_off_is_damaged() -> None:
    Path("x").write_bytes(zip_of("a.npy")[:-1])

    text = "the zip archive is damaged: File is not a zip file; the file is damaged: copy it again"
    assert refused("x") == f"x: T2T604: {text}"


FORMATS = {
    "a table": (V1, "v1"),
    "HDF5": (HDF5, "hdf5"),
    "HDF5 behind 512 bytes": (bytes(512) + HDF5, "hdf5"),
    "HDF5 behind 32 KiB": (bytes(2**15) + HDF5, "hdf5"),
    "Keras 3": (zip_of("metadata.json", "config.json", "model.weights.h5"), "keras"),
    "Keras 3 without its weights": (zip_of("metadata.json", "config.json"), "keras"),
    "Keras 3 with numpy weights": (zip_of("model.weights.npz"), "keras"),
    "Keras 3 in shards": (zip_of("model.weights.json", "model_00000.weights.h5", "model_00001.weights.h5"), "keras"),
    "one HDF5 file in a zip": (zip_of("README", "a/w.h5"), "keras"),
    "one npz in a zip": (zip_of("w.npz"), "keras"),
    "arrays": (zip_of("a.npy", "b/", "b/c.npy"), "npz"),
    "a list of files": (b' {"metadata": {}, "weight_map": {}}', "keras_shards"),
}


@pytest.mark.parametrize(("content", "name"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("path", ["x", "x.npz", "x.h5", "checkpoint.keras"])
def test_a_format_is_told_by_the_content_and_not_by_the_name(path: str, content: bytes, name: str) -> None:
    Path(path).write_bytes(content)

    assert locate(path) == Found(name, path)


def test_real_files_of_other_formats_are_found(shared_data: Path, tmp_path: Path) -> None:
    np.savez("arrays.npz", a=np.zeros(3))
    single = shared_data / "v1-single-file/KennyCandy+HAR/models/model.ckpt"
    keras = shared_data / "keras-zip/keras-team+keras/pre_pr22362_nested_container.keras"
    formats = {
        shared_data / "dtln/breizhn+DTLN/model.h5": "hdf5",
        single: "v1",
        keras: "keras",
        tmp_path / "arrays.npz": "npz",
    }
    for path, name in formats.items():
        assert locate(str(path)) == Found(name, str(path))

    assert (locate(str(single.parent)).format, locate(str(single.parent)).path) == ("v1", str(single))
    text = refused(str(shared_data / "dtln/lhwcv+DTLN_pytorch/pretrained/model.pth"))
    assert "T2T603: this is a PyTorch file (a pickle), which " in text


# The parts of a V1 checkpoint.

PARTS = ["x-?????-of-00002", "x", "x-00000-of-00002", "x-00001-of-00002"]


@pytest.mark.parametrize("path", PARTS)
@pytest.mark.parametrize("folder", ["", "d[1]/"])
def test_all_parts_of_a_v1_checkpoint_are_meant(folder: str, path: str) -> None:
    for other in ("", "d[1]/"):
        Path(f"./{other}").mkdir(exist_ok=True)
        for part in ("x-00000-of-00002", "x-00001-of-00002", "xx-00000-of-00003", "x-00000-of-00003.meta"):
            Path(f"{other}{part}").write_bytes(V1)

    assert locate(folder + path) == Found("v1", f"{folder}x-?????-of-00002")


def test_the_parts_of_several_saves_are_refused_but_for_a_pattern() -> None:
    for part in ("x-00000-of-00001", "x-00000-of-00002"):
        Path(part).write_bytes(V1)

    text = "x has parts of several saves: x-?????-of-00001, x-?????-of-00002; give one of them"
    assert refused("x") == f"x: T2T601: {text}"
    assert locate("x-?????-of-00002") == Found("v1", "x-?????-of-00002")


def test_parts_of_something_else_are_named_by_their_content() -> None:
    Path("x-00000-of-00001").write_bytes(b"<html>")

    text = "this is an HTML page; download the file itself"
    assert refused("x") == f"x-00000-of-00001: T2T603: {text}"


def test_a_file_whose_name_has_question_marks_is_that_file() -> None:
    Path("x-?????-of-00002").write_bytes(V1)
    Path("x-00000-of-00002").write_bytes(V1)

    assert locate("x-?????-of-00002") == Found("v1", "x-?????-of-00002")


def test_a_pattern_without_parts_is_refused() -> None:
    text = "no checkpoint there: neither x-?????-of-00002.index nor x-?????-of-00002 exists"
    assert refused("x-?????-of-00002") == f"x-?????-of-00002: T2T601: {text}"


# What a state file may lead to.


def test_an_absolute_path_that_is_gone_is_read_beside_the_state_file_with_a_note() -> None:
    save("d/model.ckpt-7")
    state("d", "/cns/home/somebody/model.ckpt-7")

    with checkpoints.open("d") as checkpoint:
        (note,) = checkpoint.notes
    assert checkpoint.path == "d/model.ckpt-7"
    assert note.severity == "note"
    assert str(note) == (
        "d/checkpoint: T2T610: the state file names /cns/home/somebody/model.ckpt-7, which does not exist; "
        "d/model.ckpt-7 is read instead"
    )


def test_an_absolute_path_into_the_same_directory_is_followed(tmp_path: Path) -> None:
    save("d/x")
    state("d", str(tmp_path / "d/x"))

    assert locate("d") == Found("bundle", str(tmp_path / "d/x"))


def test_an_absolute_path_into_another_directory_is_not_followed(tmp_path: Path) -> None:
    save("d/x")
    save("other/x")
    target = tmp_path / "other/x"
    state("d", str(target))

    text = f"the state file names {target}, which is in another directory"
    assert refused("d") == f"d/checkpoint: T2T610: {text}; give that path itself as the checkpoint"


@pytest.mark.parametrize("target", ["../other/x", "sub/../../other/x", "..", "/a/../b/x", "sub/", "\\000"])
def test_a_path_that_leads_elsewhere_is_not_followed(target: str) -> None:
    save("other/x")
    state("d", target)

    shown = target.replace("\\000", "\\x00")
    text = f"the state file names {shown}, which t2t does not follow"
    assert refused("d") == f"d/checkpoint: T2T610: {text}; give that path itself as the checkpoint"


@pytest.mark.parametrize("target", ["x-9", "/gone/x-9"])
def test_a_checkpoint_that_was_deleted_lists_those_that_are_left(target: str) -> None:
    save("d/x-7")
    save("d/x-8")
    state("d", target)

    text = f"the state file names {target}, which does not exist; give one of those that it holds: x-7, x-8"
    assert refused("d") == f"d/checkpoint: T2T610: {text}"


def test_a_state_file_may_name_all_parts_of_a_v1_checkpoint() -> None:
    state("d", "model.ckpt-?????-of-00002")
    text = (
        "the state file names model.ckpt-?????-of-00002, which does not exist; nothing that looks like one lies there"
    )
    assert refused("d") == f"d/checkpoint: T2T610: {text}"

    Path("d/model.ckpt-00001-of-00002").write_bytes(V1)
    assert locate("d") == Found("v1", "d/model.ckpt-?????-of-00002")


def test_a_state_file_may_name_a_file_of_another_format() -> None:
    state("d", "weights")
    Path("d/weights").write_bytes(HDF5)
    assert locate("d") == Found("hdf5", "d/weights")

    Path("d/weights").write_bytes(b"<html>")
    assert refused("d") == "d/weights: T2T603: this is an HTML page; download the file itself"


def test_an_address_in_a_state_file_is_not_followed() -> None:
    save("d/x")
    state("d", "gs://bucket/d/x")

    found = locate("d")
    assert found.path == "d/x"
    text = "the state file names gs://bucket/d/x, which is in another place; d/x is read instead"
    assert [str(note) for note in found.notes] == [f"d/checkpoint: T2T610: {text}"]
    state("d", "gs://bucket/d/y")
    text = "the state file names gs://bucket/d/y, which does not exist; give one of those that it holds: x"
    assert refused("d") == f"d/checkpoint: T2T610: {text}"


def test_the_graph_beside_a_v1_checkpoint_means_it(tmp_path: Path) -> None:
    from tests.checkpoints.writing_v1 import Saved, floats, write

    write(tmp_path / "x", [Saved(b"a", 1, (2,), floats(1, 2))])
    (tmp_path / "x.meta").write_bytes(b"")

    assert locate(str(tmp_path / "x.meta")) == Found("v1", str(tmp_path / "x"))


def test_a_directory_lists_files_that_may_be_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"")

    with pytest.raises(CheckpointError) as caught:
        locate(str(tmp_path))

    assert str(caught.value).endswith("; give one of those that it holds: model.h5")
