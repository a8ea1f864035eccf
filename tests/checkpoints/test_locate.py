"""From what somebody typed to the checkpoint that is meant, and every way in which there is none."""

from __future__ import annotations

import os
import socket
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
    assert refused("d") == f"d: T2T601: {text}; no prefix.index lies there"
    for i in range(7):
        save(f"d/x-{i}")

    hint = "give one of the prefixes that it holds: x-0, x-1, x-2, x-3, x-4 and 2 more"
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

NOT_YET = "this t2t reads TensorFlow V2 checkpoints"


def zip_of(member: bytes) -> bytes:
    return b"PK\3\4" + bytes(22) + len(member).to_bytes(2, "little") + bytes(2) + member


OTHERS = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1",
        "this is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    "html": (b"<html>", "this is an HTML page; download the file itself"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", f"this is an HDF5 file, which is not supported yet; {NOT_YET}"),
    "v1": (
        table_of([(b"z", stored(block([(b"", b"\n\0")])))]),
        f"this is a TensorFlow V1 checkpoint, which is not supported yet; {NOT_YET}",
    ),
    "keras": (zip_of(b"metadata.json"), f"this is a .keras archive, which is not supported yet; {NOT_YET}"),
    "npz": (zip_of(b"w.npy"), f"this is a NumPy .npz archive, which is not supported yet; {NOT_YET}"),
    "torch": (zip_of(b"model/data.pkl"), f"this is a PyTorch file (a pickle), which t2t never reads; {NOT_YET}"),
    "zip": (zip_of(b"a\x1b"), f"this is a zip archive (its first member is a\\x1b); {NOT_YET}"),
    "pickle": (b"\x80\x04}.", f"this is a Python pickle, which t2t never reads; {NOT_YET}"),
    "gguf": (b"GGUF\3", f"this is a GGUF file; {NOT_YET}"),
    "tflite": (b"\x1c\0\0\0TFL3", f"this is a TFLite model; {NOT_YET}"),
    "safetensors": (b'\x40\0\0\0\0\0\0\0{"a":', f"this is a safetensors file; {NOT_YET}"),
    "gzip": (b"\x1f\x8b\x08", "this is a gzip archive; unpack it first"),
    "tar": (bytes(257) + b"ustar\0", "this is a tar archive; unpack it first"),
    "empty": (b"", "empty file"),
    "text": (b"hello", f"not a TensorFlow checkpoint; {NOT_YET}"),
}


@pytest.mark.parametrize(("content", "text"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_named_by_their_content(content: bytes, text: str) -> None:
    Path("x").write_bytes(content)

    assert refused("x") == f"x: T2T603: {text}"


def test_real_files_of_other_kinds_are_named(shared_data: Path, tmp_path: Path) -> None:
    np.savez("arrays.npz", a=np.zeros(3))
    kinds = {
        shared_data / "dtln/breizhn+DTLN/model.h5": "an HDF5 file",
        shared_data / "v1-single-file/KennyCandy+HAR/models/model.ckpt": "a TensorFlow V1 checkpoint",
        shared_data / "v1-single-file/KennyCandy+HAR/models": "a TensorFlow V1 checkpoint",
        shared_data / "keras-zip/keras-team+keras/pre_pr22362_nested_container.keras": "a .keras archive",
        shared_data / "dtln/lhwcv+DTLN_pytorch/pretrained/model.pth": "a PyTorch file (a pickle)",
        tmp_path / "arrays.npz": "a NumPy .npz archive",
    }
    for path, kind in kinds.items():
        assert f"T2T603: this is {kind}, which " in refused(str(path))


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

    text = f"the state file names {target}, which does not exist; give one of the prefixes that it holds: x-7, x-8"
    assert refused("d") == f"d/checkpoint: T2T610: {text}"


def test_a_state_file_that_names_a_v1_checkpoint_is_refused() -> None:
    state("d", "model.ckpt-?????-of-00002")

    text = "this is a TensorFlow V1 checkpoint, which is not supported yet"
    assert refused("d") == f"d/checkpoint: T2T603: {text}; {NOT_YET}"


def test_a_state_file_that_names_another_file_says_what_that_is() -> None:
    state("d", "weights")
    Path("d/weights").write_bytes(b"\x89HDF\r\n\x1a\n")

    assert refused("d") == f"d/weights: T2T603: this is an HDF5 file, which is not supported yet; {NOT_YET}"
