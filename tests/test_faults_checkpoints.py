"""
What t2t says of checkpoints that are not there, are something else, or lie about what they hold.

The numbers are those of the fault catalogue (1-17: finding the checkpoint; 18-32: the index; 33-59: entries and data).
Every refusal below is one command in a process of its own: its exit status, the whole of what it says, the folder as it
was before, at most 200 MB of address space beyond what importing took, and a few seconds. The bytes come from
`tests/checkpoints/writing.py`, which shares no code with the readers.

Not here, or not whole, and why:

    4    there is no --allow-missing-shards: a shard that is missing is always an error
    8    there is no --follow-checkpoint-path: the message says which path to give
    18   every length of a real index and of its data: tests/checkpoints/test_damage.py
    19   every bit of them: the same
    31   five million entries: tests/checkpoints/test_table.py, with a lower limit
    44   slow checksums: tests/checkpoints/test_bundle.py
    47   how fast aligned values are read: benchmarks/
    48   there is no --normalize-bool
    55   what TensorFlow itself cuts into parts: tests/checkpoints/test_partitioned.py
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.checkpoints.writing import (
    MAGIC,
    Fixed32,
    Tensor,
    block,
    bundle,
    entry,
    floats,
    handle,
    header,
    masked,
    message,
    number,
    sealed,
    shape_of,
    stored,
    table,
    table_of,
)
from tests.commands import Done, server, small, t2t

INDEX, DATA = "x.index", "x.data-00000-of-00001"
FORMATS = "t2t reads TensorFlow V1 and V2 checkpoints, SavedModels, Keras .h5 and .keras, and .npz"
CUT_OFF = "the file is cut off, or of another save: copy it again"
INCOMPLETE = "the save or the copy is incomplete"
CHANGED_HINT = "give that path itself as the checkpoint"
IMPORTING = "note: T2T700 importing small:Small"

#: What a command may take beyond what importing took: bytes of address space, and seconds.
MEMORY = 200 * 10**6
SECONDS = 10.0

Step = Callable[[Path], None]
#: Names, and what each of them is.
Variables = dict[str, tuple[str, list[int]]]

#: What `save` saves.
A: Variables = {"a": ("float32", [2])}

#: A module of buffers, and the mapping that fills them with variables of the same names.
MODULE = """\
import torch
from torch import nn


class Holder(nn.Module):
    def __init__(self, buffers):
        super().__init__()
        for name, (dtype, shape) in buffers.items():
            self.register_buffer(name, torch.ones(shape, dtype=getattr(torch, dtype)))
"""


def contents(folder: Path) -> dict[str, str]:
    """Every name below the folder, and a digest of what it holds; Python's caches of the small model aside."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "__pycache__" in name:
            continue
        state = os.lstat(path)
        is_plain = stat.S_ISREG(state.st_mode) and state.st_size < 2**26
        other = str((state.st_ino, state.st_mode, state.st_size, state.st_mtime_ns))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_plain else other
    return found


def run(folder: Path, *arguments: str, memory: int = MEMORY) -> Done:
    """The command, which leaves the folder as it is, and is done soon and with little memory."""
    before = contents(folder)

    done = server().run(*arguments, cwd=folder, limits={"as": memory})

    assert contents(folder) == before
    assert done.seconds < SECONDS
    return done


def refused(folder: Path, *lines: str, path: str = "x", code: int = 3, memory: int = MEMORY) -> None:
    """`t2t inspect` says these lines and nothing else."""
    done = run(folder, "inspect", path, memory=memory)

    assert (done.code, done.out, done.err.splitlines()) == (code, "", list(lines))


def inspected(folder: Path, path: str = "x", memory: int = MEMORY) -> dict[str, Any]:
    """What `t2t inspect` says as JSON, when all is well."""
    done = run(folder, "inspect", "--format", "json", path, memory=memory)

    assert (done.code, done.err) == (0, "")
    document: dict[str, Any] = json.loads(done.out)
    return document


def unread(folder: Path, line: str, path: str = "x") -> None:
    """`t2t inspect --checksums` says this line on stderr: the values cannot be read."""
    done = run(folder, "inspect", "--checksums", path)

    assert (done.code, done.err) == (3, f"{line}\n")


def listed(folder: Path, variables: Variables | None = None, *notes: str, path: str = "x") -> None:
    """`t2t inspect` lists these variables (as in A where none are given); `notes` are what it says beside them."""
    document = inspected(folder, path)

    found = {ref["name"]: (ref["dtype"], ref["shape"]) for ref in document["variables"]}
    said = [f"{note['severity']}: {note['path']}: {note['code']}: {note['message']}" for note in document["notes"]]
    assert (found, said) == (A if variables is None else variables, list(notes))


def save(folder: Path, prefix: str = "x") -> None:
    """A checkpoint of one variable."""
    (folder / prefix).parent.mkdir(parents=True, exist_ok=True)
    bundle(folder / prefix, {"a": floats(1, 2)})


def index_of(folder: Path, data: bytes) -> None:
    """x, with these bytes as its index."""
    save(folder)
    (folder / INDEX).write_bytes(data)


def remove(folder: Path) -> None:
    """Everything in the folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


# --- 1-17: finding the checkpoint ---


def a_prefix_that_is_not_there(folder: Path) -> None:
    """What was tried is named, and what is near."""
    text = "x-8: T2T601: no checkpoint there: neither x-8.index nor x-8 exists"
    refused(folder, text, path="x-8")
    save(folder, "x-7")
    refused(folder, f"{text}; did you mean x-7", path="x-8")
    refused(folder, "no/x: T2T601: there is no directory no", path="no/x")
    refused(folder, ": T2T601: the path is empty", path="")


def what_leads_to_a_checkpoint(folder: Path) -> None:
    save(folder)
    (folder / "x.meta").write_bytes(b"")
    save(folder, "d/y")
    (folder / "d/checkpoint").write_text('model_checkpoint_path: "y"\n')
    save(folder, "m/variables/variables")
    (folder / "m/saved_model.pb").write_bytes(message((1, 1)))
    for path in (
        *("x", "x.index", "x.data-00000-of-00001", "x.meta", str(folder / "x")),
        *("d", "d/", "d/checkpoint", "d/y", "m", "m/variables", "m/saved_model.pb", "m/variables/variables.index"),
    ):
        listed(folder, path=path)


def data_without_an_index(folder: Path) -> None:
    save(folder)
    (folder / INDEX).unlink()
    for path in ("x", INDEX, DATA):
        refused(folder, f"x: T2T601: x.index is missing, but {DATA} is there; {INCOMPLETE}", path=path)


def a_shard_that_is_missing(folder: Path) -> None:
    """Each of them is named, and nothing is converted, although no variable lies there."""
    bundle(folder / "x", {"a": floats(1, 2)}, shards=4)
    for shard in (1, 3):
        (folder / f"x.data-0000{shard}-of-00004").unlink()
    lines = [
        f"x.data-0000{shard}-of-00004: T2T607: shard {shard} of 4 missing: x.data-0000{shard}-of-00004; {INCOMPLETE}"
        for shard in (1, 3)
    ]
    refused(folder, *lines)

    small(folder)
    done = run(folder, "small.yaml", "--checkpoint", "x")
    assert (done.code, done.out, done.err.splitlines()) == (3, "", [IMPORTING, *lines])


def shards_of_two_saves(folder: Path) -> None:
    bundle(folder / "x", {"a": floats(0)}, shards=3)
    bundle(folder / "x", {"a": floats(1, 2)}, shards=2)

    note = "data files of another save (of 3 shards) lie beside those of this checkpoint (of 2 shards)"
    listed(folder, A, f"warning: {INDEX}: T2T613: {note}")
    assert run(folder, "inspect", "--strict", "x").code == 1


def a_state_file_that_is_none(folder: Path) -> None:
    give = "give the checkpoint's prefix instead"
    none = "not a checkpoint state file (a text protobuf)"
    state = folder / "checkpoint"
    for content, line in {
        b"": f"checkpoint: T2T610: the state file is empty; {give}",
        b" \n\n": f"checkpoint: T2T610: the state file is empty; {give}",
        b'all_model_checkpoint_paths: "x"': f"checkpoint: T2T610: the state file has no model_checkpoint_path; {give}",
        b'model_checkpoint_path: "x"\n\n<html>\n': f"checkpoint:3: T2T610 {none}",
        b"\0" * 100: f"checkpoint:1: T2T610 {none}",
        b'\nmodel_checkpoint_path: "x\n"': f"checkpoint:2: T2T610 {none}",
        b"\n\n\x93\xff": f"checkpoint:3: T2T610 {none}",
    }.items():
        state.write_bytes(content)
        for path in ("checkpoint", "."):
            refused(folder, line if path == "checkpoint" else f"./{line}", path=path)
    os.truncate(state, 10**9)
    refused(
        folder, "checkpoint: T2T611: the file has 1000000000 bytes, but at most 16777216 are read", path="checkpoint"
    )


def a_state_file_from_another_machine(folder: Path) -> None:
    save(folder)
    (folder / "checkpoint").write_text('model_checkpoint_path: "/gone/from/here/x"\n')
    text = "the state file names /gone/from/here/x, which does not exist"
    note = f"note: checkpoint: T2T610: {text}; x is read instead"
    listed(folder, A, note, path="checkpoint")

    (folder / INDEX).rename(folder / "y.index")
    refused(
        folder,
        f"checkpoint: T2T610: {text}; give one of those that it holds: y",
        path="checkpoint",
    )


def a_state_file_that_leads_elsewhere(folder: Path) -> None:
    save(folder, "other/x")
    save(folder, "d/y")
    state = folder / "d/checkpoint"
    outside = str(folder / "other/x")
    for target, why in {
        "../other/x": "which t2t does not follow",
        "sub/../../other/x": "which t2t does not follow",
        outside: "which is in another directory",
        "/etc/../etc/passwd": "which t2t does not follow",
        "/etc/passwd": "which is in another directory",
    }.items():
        state.write_text(f'model_checkpoint_path: "{target}"\n')
        refused(folder, f"d/checkpoint: T2T610: the state file names {target}, {why}; {CHANGED_HINT}", path="d")


def a_state_file_of_a_checkpoint_that_was_deleted(folder: Path) -> None:
    for step in range(7):
        save(folder, f"x-{step}")
    (folder / "checkpoint").write_text('model_checkpoint_path: "x-9"\n')

    hint = "give one of those that it holds: x-0, x-1, x-2, x-3, x-4 and 2 more"
    line = f"checkpoint: T2T610: the state file names x-9, which does not exist; {hint}"
    refused(folder, line, path="checkpoint")


def a_pointer_or_a_page_in_its_place(folder: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 6\n"
    for content, what in {
        pointer: "a Git LFS pointer, not the file itself; run git lfs pull",
        b"\r\n<!DOCTYPE html>\n<html>": "an HTML page; download the file itself",
        b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>': "an XML page; download the file itself",
    }.items():
        for name in (INDEX, "y"):
            index_of(folder, b"")
            (folder / name).write_bytes(content)
            refused(folder, f"{name}: T2T603: this is {what}", path=name.removesuffix(".index"))
    # A pointer in the place of the data has the wrong size, which the index knows.
    bundle(folder / "x", {"a": floats(*range(100))})
    (folder / DATA).write_bytes(pointer)
    line = f"{DATA}: T2T603: this is a Git LFS pointer, not the file itself; run git lfs pull"
    refused(folder, line)


def empty_files(folder: Path) -> None:
    index_of(folder, b"")
    refused(folder, f"{INDEX}: T2T604: empty file")
    bundle(folder / "x", {"a": floats()})
    assert (folder / DATA).stat().st_size == 0
    listed(folder, {"a": ("float32", [0])})


def what_is_no_regular_file(folder: Path) -> None:
    """A FIFO would be waited for without end, if it were opened as a file is."""
    for name in (INDEX, DATA, "checkpoint", "y"):
        path = "x" if name.startswith("x.") else name
        for kind in ("fifo", "socket", "device", "directory"):
            remove(folder)
            save(folder)
            (folder / name).unlink(missing_ok=True)
            if kind == "fifo":
                os.mkfifo(folder / name)
            elif kind == "socket":
                # A socket's address holds 107 bytes: only the name alone fits wherever the folder lies.
                with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(folder):
                    listener.bind(name)
            elif kind == "device":
                (folder / name).symlink_to("/dev/zero")
            elif name in (INDEX, DATA):
                (folder / name).mkdir()
            else:
                continue
            refused(folder, f"{name}: T2T602: not a regular file", path=path)


def links(folder: Path) -> None:
    """As the caches of model hubs have them."""
    save(folder, "blobs/x")
    for name in (INDEX, DATA):
        (folder / name).symlink_to(f"blobs/{name}")
    listed(folder)

    for name, path in ((INDEX, "x"), (DATA, "x"), ("y", "y")):
        for target, text in {
            "gone": "no such file or directory",
            name: "too many levels of symbolic links",
        }.items():
            remove(folder)
            save(folder)
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
            line = f"{name}: T2T602: cannot be opened: {text}"
            if target == "gone" and name == "y":
                line = "y: T2T602: a symbolic link to gone, which does not exist"
            if target == "gone" and name == DATA:
                line = f"{DATA}: T2T607: shard 0 of 1 missing: {DATA}; {INCOMPLETE}"
            refused(folder, line, path=path)


def files_that_may_not_be_read(folder: Path) -> None:
    powerless: list[str] = []
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and there is no setpriv to give that up with")
        drop = "-dac_override,-dac_read_search"
        powerless = ["setpriv", f"--inh-caps={drop}", f"--bounding-set={drop}"]
    save(folder)
    (folder / INDEX).chmod(0)
    done = t2t("inspect", "x", cwd=folder, before=powerless)
    line = f"{INDEX}: T2T602: cannot be opened: permission denied\n"
    assert (done.code, done.out, done.err) == (3, "", line)


def odd_names(folder: Path) -> None:
    """Every name is literal; what a message shows of it is harmless."""
    for name in ("a b", "x[1]*?", "line\nbreak", "\udcff\udcfe", "\x1b]0;title\x07", "ü", "-x", "x.index", "%s{0}"):
        save(folder, name)
        listed(folder, path=name if name[0] != "-" else f"./{name}")
        remove(folder)
    for name, shown in {"line\nbreak": "line\\nbreak", "\x1b[31m": "\\x1b[31m", "\udcff": "\\udcff"}.items():
        text = f"no checkpoint there: neither {shown}.index nor {shown} exists"
        refused(folder, f"{shown}: T2T601: {text}", path=name)


def files_of_other_kinds(folder: Path) -> None:
    """Named for what they are; nothing of them is run."""
    canary = folder / "canary"

    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {canary}",)

    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save(Trap(), zipped)
    torch.save(Trap(), legacy, _use_new_zipfile_serialization=False)
    node = message((1, b"x"), (2, b"Placeholder"))
    kinds: dict[str, tuple[bytes, str]] = {
        "model.pt": (zipped.getvalue(), f"a PyTorch file (a pickle), which t2t never reads; {FORMATS}"),
        "old.pth": (legacy.getvalue(), f"a PyTorch file (a pickle), which t2t never reads; {FORMATS}"),
        **{
            f"{protocol}.pkl": (
                pickle.dumps({"a": Trap()}, protocol),
                f"a Python pickle, which t2t never reads; {FORMATS}",
            )
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        },
        "model.onnx": (message((1, 8), (2, b"pytorch"), (7, b"")), f"an ONNX model; {FORMATS}"),
        "model.tflite": (b"\x1c\0\0\0TFL3\x14\0", f"a TFLite model; {FORMATS}"),
        "model.gguf": (b"GGUF\3\0\0\0", f"a GGUF file; {FORMATS}"),
        "frozen.pb": (
            message((1, node)),
            f"a TensorFlow graph (a frozen .pb, or one without weights); {FORMATS}",
        ),
        "model.gz": (gzip.compress(b"x"), "a gzip archive; unpack it first"),
    }
    for name, (content, what) in kinds.items():
        (folder / name).write_bytes(content)
        refused(folder, f"{name}: T2T603: this is {what}", path=name)
    (folder / "text").write_bytes(b"hello")
    refused(folder, f"text: T2T603: not a checkpoint that t2t knows; {FORMATS}", path="text")
    assert not canary.exists()
    pickle.loads(kinds["4.pkl"][0])
    assert canary.exists()


# --- 18-32: the index ---


def a_truncated_index(folder: Path) -> None:
    save(folder)
    data = (folder / INDEX).read_bytes()
    for size in (0, 1, 7, 8, 47, 48, len(data) // 2, len(data) - 8, len(data) - 1):
        index_of(folder, data[:size])
        text = f"a table has at least 48 bytes, but this has {size}" if size else "empty file"
        if size >= 48:
            text = "the file does not end with the magic number of a table"
        refused(folder, f"{INDEX}: T2T604: {text}")


def a_flipped_bit_of_the_index(folder: Path) -> None:
    """One bit of every other byte: every one is seen, and none is more than one line."""
    save(folder)
    data = bytearray((folder / INDEX).read_bytes())
    for at in range(0, len(data), 2):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at // 2 % 8
        index_of(folder, bytes(flipped))
        done = run(folder, "inspect", "x")
        assert (done.code, done.out) == (3, ""), at
        assert done.err.startswith(f"{INDEX}: T2T60"), at
        assert (done.err.count("\n"), done.err[-1], "Traceback" in done.err) == (1, "\n", False), at


def handles_that_lead_nowhere(folder: Path) -> None:
    """In the index block, then in the footer, which stands at the end of the file."""
    rows = [(b"", header()), (b"a", entry(floats(1), 0))]
    content = block(rows)
    data = stored(content)
    for offset, size, text in (
        (2**50, 10, f"a block should start at byte 0, but the index block says {2**50}"),
        (0, 2**50, f"the metaindex block should start at byte {2**50 + 5}, but the footer says {len(data)}"),
        (2**64 - 3, 10, f"a block should start at byte 0, but the index block says {2**64 - 3}"),
        (0, 2**64 - 3, f"the metaindex block should start at byte {2**64 + 2}, but the footer says {len(data)}"),
    ):
        index_of(folder, table_of([(b"a", data)], index=block([(b"a", handle(offset, size))])))
        refused(folder, f"{INDEX}: T2T604: {text}")

    whole = table(rows)
    for handles, end in {
        (2**50, 8, 0, 8): 2**50 + 13,
        (0, 2**50, 0, 8): 2**50 + 5,
        (2**64 - 3, 8, 0, 8): 2**64 + 10,
        (len(whole) - 50, 8, 0, 8): len(whole) - 37,
    }.items():
        text = f"a block ends at byte {end}, but the footer starts at {len(whole) - 48}"
        footer = b"".join(map(number, handles)).ljust(40, b"\0") + MAGIC
        index_of(folder, whole[:-48] + footer)
        refused(folder, f"{INDEX}: T2T604: {text}")


def numbers_without_end(folder: Path) -> None:
    whole = table([(b"", header())])
    for content, text in {
        b"\x80" * 40: "the number at byte 0 has more than 10 bytes",
        b"\xff" * 9 + b"\x7f" + bytes(30): "the number at byte 0 has more than 64 bits",
        bytes(3) + b"\x80" * 37: "the number at byte 3 has more than 10 bytes",
    }.items():
        index_of(folder, whole[:-48] + content + MAGIC)
        refused(folder, f"{INDEX}: T2T604: {text}")
    bundle(folder / "x", {}, rows={b"a": b"\x08" + b"\x80" * 11})
    refused(folder, f"{INDEX}: T2T605: a: the number at byte 1 has more than 10 bytes")
    bundle(folder / "x", {}, rows={b"a": b"\x08\x80"})
    refused(folder, f"{INDEX}: T2T605: a: the number at byte 1 has no end")


def one_block(folder: Path, content: bytes, compression: int = 0) -> None:
    """x, with a data block of these bytes, which are stored as they are."""
    index_of(folder, table_of([(b"z", sealed(content, compression))]))


def an_unknown_compression(folder: Path) -> None:
    for kind in (2, 7, 255):
        one_block(folder, block([(b"", header())]), kind)
        line = f"{INDEX}: T2T604: the block at 0 has the compression type {kind}, but only 0 and 1 exist"
        refused(folder, line)


def snappy_that_lies(folder: Path) -> None:
    right = stored(block([(b"", header())]), 1)[:-5]
    for content, line in {
        number(8 * 2**30) + right[1:]: "T2T604: the block at 0 is not snappy: ",
        number(2**32 - 1) + right[1:]: f"T2T611: the block at 0 unpacks to {2**32 - 1} bytes, but at most 67108864 are",
        number(2**26) + right[1:]: f"T2T604: the block at 0 claims to unpack from {len(right) + 3} bytes to {2**26}\n",
        right[:-1]: "T2T604: the block at 0 is not snappy: ",
        b"\xff" * 50: "T2T604: the block at 0 is not snappy: ",
        b"": "T2T604: the block at 0 is not snappy: ",
    }.items():
        one_block(folder, content, 1)
        done = run(folder, "inspect", "x")
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
        assert done.err.startswith(f"{INDEX}: {line}"), done


def corrupt_rows(folder: Path) -> None:
    def row(shared: int, rest: int, length: int, content: bytes = b"") -> bytes:
        return number(shared) + number(rest) + number(length) + content

    first = row(0, 0, len(header()), header())
    for rows, at in (
        (first + row(9, 1, 1, b"bv"), len(first)),
        (first + row(0, 200, 1, b"bv"), len(first)),
        (first + row(0, 1, 2**32 - 1, b"bv"), len(first)),
        (first + row(0, 2**32, 2**32, b"bv"), len(first)),
        (first + row(0, 1, 2**64 - 2, b"bv"), len(first)),
        (row(1, 0, 1, b"v"), 0),
    ):
        one_block(folder, rows + struct.pack("<2I", 0, 1))
        text = f"a corrupt entry at byte {at} of its block"
        if not at:
            text = "the entry at byte 0 of its block is a restart, but shares 1 bytes"
        refused(folder, f"{INDEX}: T2T604: {text}")


def wrong_restarts(folder: Path) -> None:
    content = number(0) + number(0) + number(len(header())) + header()
    size = len(content) + 8
    for end, text in {
        struct.pack("<2I", 0, 0): f"a block of {size} bytes cannot have 0 restarts",
        struct.pack("<2I", 0, 1000): f"a block of {size} bytes cannot have 1000 restarts",
        struct.pack("<2I", 0, 2**31): f"a block of {size} bytes cannot have {2**31} restarts",
        struct.pack("<2I", 0, 2**32 - 1): f"a block of {size} bytes cannot have {2**32 - 1} restarts",
        struct.pack("<2I", 2**31, 1): "a restart offset is not where an entry starts",
        struct.pack("<2I", 1, 1): "a restart offset is not where an entry starts",
        struct.pack("<3I", 0, size, 2): "a restart offset is not where an entry starts",
    }.items():
        one_block(folder, content + end)
        refused(folder, f"{INDEX}: T2T604: {text}")
    # A restart whose row shares bytes, in a block that is right but for that.
    rows = [(b"", header()), (b"ab", entry(floats(1), 0)), (b"ac", entry(floats(), 4))]
    right = block(rows, interval=2)
    assert struct.unpack("<I", right[-4:]) == (2,)
    shared = block(rows)
    at = shared.index(b"c" + rows[2][1]) - 3
    one_block(folder, shared[:-8] + struct.pack("<3I", 0, at, 2))
    refused(folder, f"{INDEX}: T2T604: the entry at byte {at} of its block is a restart, but shares 1 bytes")
    # No row and no restart.
    index_of(folder, table_of([(b"z", stored(bytes(4)))]))
    refused(folder, f"{INDEX}: T2T604: the table has no header, so it is no checkpoint's index")


def rows_of(folder: Path, *keys: bytes, blocks: int = 1) -> None:
    """x, with these keys in this order; their tensors are empty."""
    rows = [(b"", header()), *((key, entry(floats(), 0)) for key in keys)]
    index_of(folder, table(rows, blocks))


def keys_in_disorder(folder: Path) -> None:
    for blocks in (1, 3):
        rows_of(folder, b"b", b"a", blocks=blocks)
        refused(folder, f"{INDEX}: T2T604: a stands behind b")
    rows_of(folder, b"\xff", b"a")
    refused(folder, f"{INDEX}: T2T604: a stands behind \\udcff")


def a_key_that_stands_twice(folder: Path) -> None:
    for blocks in (1, 3):
        rows_of(folder, b"layer/w", b"layer/w", blocks=blocks)
        refused(folder, f"{INDEX}: T2T604: layer/w stands twice")


def no_header(folder: Path) -> None:
    index_of(folder, table([(b"a", entry(floats(1), 0))]))
    refused(folder, f"{INDEX}: T2T604: the table has no header, so it is no checkpoint's index")
    index_of(folder, table_of([]))
    refused(folder, f"{INDEX}: T2T604: the table has no header, so it is no checkpoint's index")


def versions(folder: Path) -> None:
    for version, line in {
        message((1, 2), (2, 2)): "T2T606: written for a newer checkpoint format (readers of version 2 or later)",
        message((1, -1)): "T2T604: the header's version has the producer -1",
        message((1, 1), (3, 1)): "T2T606: written for other readers than those of format version 1",
        message((1, 1), (3, b"\x07\x01")): "T2T606: written for other readers than those of format version 1",
    }.items():
        bundle(folder / "x", {"a": floats(1, 2)}, first=message((1, 1), (3, version)))
        refused(folder, f"{INDEX}: {line}")
    for first in (message((1, 1), (3, message((1, 99)))), message((1, 1)), message((1, 1), (3, b""))):
        bundle(folder / "x", {"a": floats(1, 2)}, first=first)
        listed(folder)


def headers_that_cannot_be(folder: Path) -> None:
    for first, line in {
        message((1, 0)): "T2T604: the header gives 0 data files",
        b"": "T2T604: the header gives 0 data files",
        message((1, -1)): "T2T604: the header gives -1 data files",
        message((1, 2**30)): f"T2T611: the header gives {2**30} data files, but at most 100000 are read",
        message((1, 1), (2, 7)): "T2T604: the header gives the byte order as 7, but only 0 and 1 exist",
    }.items():
        bundle(folder / "x", {"a": floats(1, 2)}, first=first)
        refused(folder, f"{INDEX}: {line}")


def very_many_rows(folder: Path) -> None:
    """Thousands of blocks of one row are read; names of which a small file has hundreds of megabytes are not."""
    count = 5000
    rows = [(b"", header()), *((f"v{i:05}".encode(), entry(floats(), 0)) for i in range(count))]
    index_of(folder, table(rows, blocks=count + 1))
    assert len(inspected(folder)["variables"]) == count

    # Each row has two bytes of its own and shares the rest.
    size = 100_000
    common = bytes([97]) * size
    out = number(0) + number(0) + number(len(header())) + header() + number(0) + number(size) + number(0) + common
    for i in range(1, 3000):
        out += number(size) + number(2) + number(0) + struct.pack(">H", i)
    one_block(folder, out + struct.pack("<2I", 0, 1))
    assert (folder / INDEX).stat().st_size < 2**17
    line = f"{INDEX}: T2T611: the table has more than 5000000 entries or 268435456 bytes of them"
    refused(folder, line, memory=2 * 2**28)

    rows_of(folder, b"a" * (2**17 + 1))
    refused(folder, f"{INDEX}: T2T611: a key has 131073 bytes, but at most 131072 are read")
    with (folder / INDEX).open("wb") as file:
        file.truncate(2**28 + 1)
    refused(folder, f"{INDEX}: T2T611: the file has 268435457 bytes, but at most 268435456 are read")


def separators_too_small(folder: Path) -> None:
    """A search by them would miss a variable; here everything is read, so none is lost, and it is said."""
    first = stored(block([(b"", header()), (b"m", entry(floats(), 0))]))
    second = stored(block([(b"n", entry(floats(), 0))]))
    index_of(folder, table_of([(b"c", first), (b"n", second)]))
    text = "the block at 0 holds a key behind the one that the index block gives as its last"
    refused(folder, f"{INDEX}: T2T604: {text}")


# --- 33-59: entries and data ---


def project(folder: Path, buffers: Variables, **keys: str) -> None:
    """holder.py and x.yaml, which fills these buffers from x; `keys` are more keys for a buffer's row."""
    (folder / "holder.py").write_text(MODULE)
    rows = []
    for name, (_, shape) in buffers.items():
        letters = " ".join("ijklm"[: len(shape)])
        axes = f", axes: {letters} -> {letters}" if len(shape) > 1 else ""
        rows.append(f"- {{tf: {name}, torch: {name}{axes}{keys.get(name, '')}}}\n")
    given = json.dumps({"buffers": {name: list(buffer) for name, buffer in buffers.items()}})
    head = f"t2t: 1\nmodel: holder:Holder\nwith: {given}\nsource: {{checkpoint: x}}\nmap:\n"
    (folder / "x.yaml").write_text(head + "".join(rows))


def convert(folder: Path) -> None:
    """Converts by x.yaml; the result stays there."""
    done = server().run("x.yaml", cwd=folder)

    assert (done.code, done.err) == (0, "note: T2T700 importing holder:Holder\n")


def converted(folder: Path) -> dict[str, np.ndarray]:
    """What converting by x.yaml writes."""
    convert(folder)
    found: dict[str, np.ndarray] = load_file(folder / "x.safetensors")
    return found


def not_converted(folder: Path, *lines: str, code: int = 3) -> None:
    """Nothing is written, what stood there still does, and these are the reasons, beside the note of the import."""
    done = run(folder, "convert", "x.yaml")

    said = [line for line in (done.out + done.err).splitlines() if not line.startswith("note: T2T700 ")]
    assert (done.code, said) == (code, list(lines))


def saved_and_converted(folder: Path, *tensors: Tensor) -> None:
    """x with the float32 variables a, b ..., and a conversion of them beside it."""
    named = dict(zip("abcdefgh", tensors, strict=False))
    bundle(folder / "x", named)
    project(folder, {name: ("float32", list(tensor.shape)) for name, tensor in named.items()})
    assert {name: array.tobytes() for name, array in converted(folder).items()} == {
        name: tensor.data for name, tensor in named.items()
    }


def entries_that_are_none(folder: Path) -> None:
    for value, text in {
        b"\x0b": "protobuf field 1 has the wire type 3",
        b"\x0c": "protobuf field 1 has the wire type 4",
        b"\x0e\x01": "protobuf field 1 has the wire type 6",
        b"\x0f\x01": "protobuf field 1 has the wire type 7",
        b"\x12\x7f": "protobuf field 2 claims 127 bytes, but 0 are left",
        b"\x12" + number(2**62): f"protobuf field 2 claims {2**62} bytes, but 0 are left",
        b"\x35\1\2": "protobuf field 6 claims 4 bytes, but 2 are left",
        b"\0\0": "a protobuf field has the number 0",
        message((1, b"1")): "protobuf field 1 has the wire type 2, but needs 0",
    }.items():
        bundle(folder / "x", {"a": floats(1, 2)}, rows={b"layer/w": value})
        refused(folder, f"{INDEX}: T2T605: layer/w: {text}")
    bundle(folder / "x", {"a": floats(1, 2)}, fields={"a": [(15, 7), (16, b"new"), (17, Fixed32(1))]})
    listed(folder)


def unknown_dtypes(folder: Path) -> None:
    """They are listed, and only in the way of whoever wants them."""
    for dtype in (0, 99, 101):
        bundle(folder / "x", {"a": floats(1, 2), "b": floats(3)}, fields={"a": [(1, dtype)]})
        listed(folder, {"a": (f"unknown({dtype})", [2]), "b": ("float32", [1])})
        (ref, _) = inspected(folder)["variables"]
        assert ref["unreadable"] == f"its dtype is unknown({dtype}), which TensorFlow does not have"

        project(folder, {"a": ("float32", [2]), "b": ("float32", [1])})
        text = f"a (unknown({dtype})) cannot become a parameter: {ref['unreadable']}"
        not_converted(folder, f"x.yaml:6:8: T2T406 {text}", code=1)


def what_cannot_become_a_parameter(folder: Path) -> None:
    data = b"\5hello" + struct.pack("<I", masked(struct.pack("<I", 5)))
    for dtype, name in ((7, "string"), (20, "resource"), (21, "variant")):
        why = f"its dtype is {name}, whose values mean nothing outside of TensorFlow"
        text = f"a ({name}) cannot become a parameter: {why}"
        if dtype == 7:
            text = "a: string tensors cannot become parameters"
        bundle(folder / "x", {"a": Tensor(dtype, (1,), data if dtype == 7 else b"")})
        project(folder, {"a": ("float32", [1])})
        not_converted(folder, f"x.yaml:6:8: T2T406 {text}", code=1)


def shapes_that_cannot_be(folder: Path) -> None:
    for shape, text in {
        shape_of((-1,)): "an axis has the size -1",
        shape_of((2, -(2**63))): f"an axis has the size -{2**63}",
        message((3, 1)): "the rank is unknown",
        shape_of((1,) * 255): "the rank is 255, but TensorFlow has at most 254",
        shape_of((1,) * 10_000): "the rank is 10000, but TensorFlow has at most 254",
    }.items():
        bundle(folder / "x", {}, rows={b"a": message((1, 1), (2, shape), (5, 4))})
        refused(folder, f"{INDEX}: T2T605: a: {text}")
    bundle(folder / "x", {"a": Tensor(1, (1,) * 254, b"1234")})
    listed(folder, {"a": ("float32", [1] * 254)})


def products_beyond_64_bits(folder: Path) -> None:
    for shape in ((2**33, 2**33), (2**62, 4), (2**62, 2, 2), (2**63 - 1,) * 254):
        bundle(folder / "x", {}, rows={b"a": message((1, 1), (2, shape_of(shape)), (5, 4))})
        text = f"its shape of {len(shape)} axes has more than {2**63 - 1} elements"
        refused(folder, f"{INDEX}: T2T605: a: {text}")
    for shape in ((0, 2**32, 2**32), (2**32, 2**32, 0), (2**63 - 1, 0)):
        bundle(folder / "x", {"a": Tensor(1, shape, b"")})
        listed(folder, {"a": ("float32", list(shape))})


def a_claim_of_terabytes(folder: Path) -> None:
    size = 2**40
    claim = message((1, 1), (2, shape_of((size,))), (4, 8), (5, 4 * size))
    bundle(folder / "x", {"a": floats(1, 2)}, rows={b"b": claim})
    refused(folder, f"{DATA}: T2T607: b: needs bytes 8 to {4 * size + 8}, but the file has 8; {CUT_OFF}")


def sizes_that_do_not_fit(folder: Path) -> None:
    for shape, size, text in (
        ((2, 3), 20, "20 bytes are stored, but float32 [2, 3] needs 24"),
        ((2, 3), 28, "28 bytes are stored, but float32 [2, 3] needs 24"),
        ((), 0, "0 bytes are stored, but float32 [] needs 4"),
        ((0,), 4, "4 bytes are stored, but float32 [0] needs 0"),
        ((2**61,), 0, f"0 bytes are stored, but float32 [{2**61}] needs {2**63}"),
    ):
        bundle(folder / "x", {}, rows={b"a": message((1, 1), (2, shape_of(shape)), (5, size))})
        refused(folder, f"{INDEX}: T2T605: a: {text}")


def places_outside_the_file(folder: Path) -> None:
    for fields, text in {
        ((4, -8),): "its bytes have the offset -8 and the size 8",
        ((5, -8),): "its bytes have the offset 0 and the size -8",
    }.items():
        bundle(folder / "x", {"a": floats(1, 2)}, fields={"a": fields})
        refused(folder, f"{INDEX}: T2T605: a: {text}")
    for offset in (1, 8, 2**40, 2**63 - 8, 2**63 - 1):
        bundle(folder / "x", {"a": floats(1, 2)}, fields={"a": [(4, offset)]})
        text = f"a: needs bytes {offset} to {offset + 8}, but the file has 8"
        refused(folder, f"{DATA}: T2T607: {text}; {CUT_OFF}")


def shards_that_do_not_exist(folder: Path) -> None:
    for shard in (-1, 1, 7, 2**31, -(2**63)):
        bundle(folder / "x", {"a": floats(1, 2)}, fields={"a": [(3, shard)]})
        refused(folder, f"{INDEX}: T2T605: a: its bytes are in shard {shard}, but there are 1 shards")


def data_that_are_cut_off(folder: Path) -> None:
    saved_and_converted(folder, floats(1, 2), floats(3), floats(4))
    for size, name, start, end, more in ((15, "c", 12, 16, 0), (8, "b", 8, 12, 1), (0, "a", 0, 8, 2)):
        os.truncate(folder / DATA, size)
        others = f" (the same for {more} more variable{'s' if more > 1 else ''})" if more else ""
        text = f"{name}: needs bytes {start} to {end}, but the file has {size}{others}"
        not_converted(folder, f"{DATA}: T2T607: {text}; {CUT_OFF}")


def flip(path: Path, offset: int, bit: int = 0) -> bytes:
    """Changes one bit of the file; the file's bytes after that."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)
    return bytes(data)


def a_flipped_bit_of_the_data(folder: Path) -> None:
    """Every ninth: one of each byte, each at another place."""
    saved_and_converted(folder, floats(0), floats(1, 2))
    crc = google_crc32c.value(floats(1, 2).data)
    for bit in range(0, 64, 9):
        data = flip(folder / DATA, 4 + bit // 8, bit % 8)
        numbers = f"(stored 0x{crc:08x}, computed 0x{google_crc32c.value(data[4:]):08x})"
        text = f"b: checksum mismatch, shard 0, offset 4 {numbers}; the file is damaged: copy it again"
        not_converted(folder, f"{DATA}: T2T608: {text}")
        flip(folder / DATA, 4 + bit // 8, bit % 8)
    assert set(converted(folder)) == {"a", "b"}

    flip(folder / DATA, 4)
    done = server().run("x.yaml", "--no-checksums", cwd=folder)
    assert (done.code, load_file(folder / "x.safetensors")["b"][0] != 1) == (0, True)


def a_checksum_that_is_missing(folder: Path) -> None:
    for tensor, computed in ((floats(1, 2), google_crc32c.value(floats(1, 2).data)), (floats(), 0)):
        bundle(folder / "x", {"a": tensor})
        data = entry(tensor, 0)
        bundle(folder / "x", {"a": tensor}, rows={b"a": data[:-5]})
        project(folder, {"a": ("float32", list(tensor.shape))})
        text = f"a: checksum mismatch, shard 0, offset 0 (stored 0x{unmasked_zero():08x}, computed 0x{computed:08x})"
        not_converted(folder, f"{DATA}: T2T608: {text}; the file is damaged: copy it again")


def unmasked_zero() -> int:
    """The checksum that stands in the field when it holds 0: the inverse of the rotation and the constant."""
    rotated = (0 - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def tensors_that_share_bytes(folder: Path) -> None:
    bundle(folder / "x", {"a": floats(1, 2), "b": floats(3)}, fields={"b": [(4, 4)]})
    refused(folder, f"{INDEX}: T2T605: b: its bytes are also those of a")

    big = Tensor(4, (2**20,), bytes(2**20))
    rows = dict.fromkeys((f"v{i:05}".encode() for i in range(10_000)), entry(big, 0))
    bundle(folder / "x", {"a": big}, rows=rows)
    refused(folder, f"{INDEX}: T2T605: v00000: its bytes are also those of a")

    bundle(folder / "x", {"a": floats(1, 2), "b": floats(), "c": floats()}, fields={"b": [(4, 0)], "c": [(4, 0)]})
    listed(folder, {**A, "b": ("float32", [0]), "c": ("float32", [0])})


def holes(folder: Path) -> None:
    """Between tensors, and behind the last."""
    saved_and_converted(folder, floats(1, 2), floats(3))
    (folder / DATA).write_bytes(floats(1, 2).data + bytes(34) + floats(3).data + bytes(100))
    index_of_b = {b"b": entry(floats(3), 42)}
    data = (folder / DATA).read_bytes()
    bundle(folder / "x", {"a": floats(1, 2)}, rows=index_of_b)
    (folder / DATA).write_bytes(data)

    assert [file["spare"] for file in inspected(folder)["files"]] == [None, 134]
    assert {name: array.tolist() for name, array in converted(folder).items()} == {"a": [1, 2], "b": [3]}


def an_odd_offset(folder: Path) -> None:
    tensors = {"a": Tensor(4, (1,), b"\7"), "b": Tensor(2, (2,), struct.pack("<2d", 0.1, -0.0))}
    bundle(folder / "x", tensors)
    assert [ref["offset"] for ref in inspected(folder)["variables"]] == [0, 1]
    project(folder, {"a": ("uint8", [1]), "b": ("float64", [2])})

    assert {name: array.tobytes() for name, array in converted(folder).items()} == {
        name: tensor.data for name, tensor in tensors.items()
    }


def bools_that_are_none(folder: Path) -> None:
    for byte in (2, 128, 255):
        bundle(folder / "x", {"a": Tensor(10, (3,), bytes([0, 1, byte]))})
        project(folder, {"a": ("bool", [3])})
        text = f"a: a bool is stored as the byte {byte}, but can only be 0 or 1"
        not_converted(folder, f"{DATA}: T2T606: {text}")


def every_shape(folder: Path) -> None:
    shapes: list[tuple[int, ...]] = [(), (1,), (0,), (0, 7), (16, 0, 18), (1, 1), (2, 3), (1, 2, 1, 3)]
    random = np.random.default_rng(0)
    arrays = {f"v{i}": random.random(shape, np.float32) for i, shape in enumerate(shapes)}
    bundle(folder / "x", {name: Tensor(1, array.shape, array.tobytes()) for name, array in arrays.items()})
    variables: Variables = {name: ("float32", list(array.shape)) for name, array in arrays.items()}
    listed(folder, variables)
    project(folder, variables)

    for name, array in converted(folder).items():
        assert array.shape == arrays[name].shape
        assert array.tobytes() == arrays[name].tobytes()


def rare_floats(folder: Path) -> None:
    """Every bit pattern that is finite, as it is; the one kind that torch lacks is refused."""
    halves = [i for i in range(2**16) if i >> 7 & 0xFF != 0xFF]
    # Numbers of dtypes, and of the bit patterns that are NaN or Inf there.
    eights = {
        24: ("float8_e5m2", {*range(124, 128), *range(252, 256)}),
        25: ("float8_e4m3fn", {127, 255}),
        26: ("float8_e4m3fnuz", {128}),
        28: ("float8_e5m2fnuz", {128}),
    }
    tensors = {"v14": Tensor(14, (len(halves),), struct.pack(f"<{len(halves)}H", *halves))}
    variables: Variables = {"v14": ("bfloat16", [len(halves)])}
    for dtype, (name, nonfinite) in eights.items():
        data = bytes(i for i in range(256) if i not in nonfinite)
        tensors[f"v{dtype}"] = Tensor(dtype, (len(data),), data)
        variables[f"v{dtype}"] = (name, [len(data)])
    bundle(folder / "x", tensors)
    listed(folder, variables)
    project(folder, variables)
    convert(folder)

    content = (folder / "x.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    described = json.loads(content[8 : 8 + size])
    for name, tensor in tensors.items():
        start, end = described[name]["data_offsets"]
        assert content[8 + size + start : 8 + size + end] == tensor.data, name

    (folder / "x.safetensors").unlink()
    bundle(folder / "x", {"a": Tensor(27, (2,), b"\1\2")})
    project(folder, {"a": ("float32", [2])})
    not_converted(
        folder,
        "x.yaml:6:8: T2T406 a: float8_e4m3b11fnuz has no torch counterpart; "
        "write dtype: float32 (or another) on the row",
        code=1,
    )


def names_that_would_do_harm(folder: Path) -> None:
    names = {
        "a\0b": "a\\x00b",
        "a\nb": "a\\nb",
        "\x1b]0;title\x07\x1b[31m": "\\x1b]0;title\\x07\\x1b[31m",
        "\udcff\udcfe": "\\udcff\\udcfe",
        "\u202eevil": "\\u202eevil",
        "x" * 70_000: "x" * 117 + "...",
    }
    for name, shown in names.items():
        bundle(folder / "x", {name: floats(1, 2)})
        listed(folder, {name: ("float32", [2])})
        done = run(folder, "inspect", "x")
        (*_, row, _) = done.out.splitlines()
        assert (done.code, done.err, row.split()) == (0, "", [shown, "float32", "[2]", "2", "8", "B"])
        bundle(folder / "x", {name: floats(1, 2)}, fields={name: [(3, 9)]})
        refused(folder, f"{INDEX}: T2T605: {shown}: its bytes are in shard 9, but there are 1 shards")


# Strings, dtypes, byte orders, parts and object graphs.


def strings(*items: bytes, big: bool = False, lengths: bytes | None = None, crc: int | None = None) -> bytes:
    """The stored bytes of a string tensor; the lengths' bytes and their checksum can be given."""
    written = b"".join(number(len(item)) for item in items) if lengths is None else lengths
    order = ">" if big else "<"
    stored_crc = masked(counted(*items, big=big)) if crc is None else crc
    return written + struct.pack(f"{order}I", stored_crc) + b"".join(items)


def counted(*items: bytes, big: bool = False) -> bytes:
    """What the checksum of the lengths is over."""
    return struct.pack(f"{'>' if big else '<'}{len(items)}I", *map(len, items))


def text_entry(shape: tuple[int, ...], data: bytes, *items: bytes, offset: int = 0, big: bool = False) -> bytes:
    """The entry of a string tensor: its checksum is over the lengths as they are counted, then over what is stored."""
    behind = data[len(b"".join(number(len(item)) for item in items)) :]
    checksum = Fixed32(masked(counted(*items, big=big) + behind))
    return entry(Tensor(7, shape, data), offset, (6, checksum))


def strings_that_lie(folder: Path) -> None:
    items = (b"ab", b"", b"x" * 300)
    right = strings(*items)
    bundle(folder / "x", {"a": Tensor(7, (3,), right)}, rows={b"a": text_entry((3,), right, *items)})
    done = run(folder, "inspect", "--checksums", "x")
    assert (done.code, done.err) == (0, "")

    for data, text in {
        strings(b"ab", b"", lengths=number(2**45) + b"\0\0"): f"a string should have {2**45} bytes, but all have 15",
        strings(*items, lengths=b"\x80" * 11 + b"\0\0"): "the length of a string has more than 10 bytes",
        strings(*items, lengths=number(2) + number(0) + number(299)): (
            "its strings should have 301 bytes, but 302 are stored"
        ),
        strings(*items, lengths=number(2) + number(0) + number(301)): (
            "its strings should have 303 bytes, but 302 are stored"
        ),
        strings(*items, lengths=b"\2\0"): "a string should have 11227 bytes, but all have 308",
        b"\xff" * 20: "it should have 3 lengths of strings, but 0 are stored",
    }.items():
        bundle(folder / "x", {"a": Tensor(7, (3,), data)}, rows={b"a": text_entry((3,), data, *items)})
        listed(folder, {"a": ("string", [3])})
        unread(folder, f"{DATA}: T2T605: a: {text}, shard 0, offset 0")
    data = strings(*items, crc=0)
    bundle(folder / "x", {"a": Tensor(7, (3,), data)}, rows={b"a": text_entry((3,), data, *items)})
    crcs = f"stored 0x{unmasked_zero():08x}, computed 0x{google_crc32c.value(counted(*items)):08x}"
    text = f"checksum mismatch in the strings' lengths ({crcs}), shard 0, offset 0"
    unread(folder, f"{DATA}: T2T608: a: {text}; the file is damaged: copy it again")
    bundle(folder / "x", {"a": Tensor(7, (3,), right)}, rows={b"a": text_entry((3,), right, *items)})
    flip(folder / DATA, len(right) - 1)
    computed = counted(*items) + right[4:-1] + b"y"
    crcs = f"stored 0x{google_crc32c.value(counted(*items) + right[4:]):08x}, "
    crcs += f"computed 0x{google_crc32c.value(computed):08x}"
    text = f"checksum mismatch, shard 0, offset 0 ({crcs})"
    unread(folder, f"{DATA}: T2T608: a: {text}; the file is damaged: copy it again")
    for count, size in ((2**62, 10), (7, 10)):
        value = message((1, 7), (2, shape_of((count,))), (5, size))
        bundle(folder / "x", {}, rows={b"a": value})
        (folder / DATA).write_bytes(bytes(size))
        text = f"{size} bytes are stored, but string [{count}] needs at least {count + 4}"
        refused(folder, f"{INDEX}: T2T605: a: {text}")
    count = 2**24 + 1
    bundle(folder / "x", {"a": Tensor(7, (count,), bytes(count + 4))})
    unread(folder, f"{DATA}: T2T611: a: it has {count} strings, but at most {2**24} are read")


def narrow_integers(folder: Path) -> None:
    """They are one byte each, of which the low bits count."""
    for dtype, name, ours in (
        (29, "int4", "int8"),
        (30, "uint4", "uint8"),
        (31, "int2", "int8"),
        (32, "uint2", "uint8"),
    ):
        data = bytes([0, 1, 0xFF])
        bundle(folder / "x", {"a": Tensor(dtype, (3,), data)})
        listed(folder, {"a": (name, [3])})
        project(folder, {"a": (ours, [3])})
        text = f"a: {name} has no torch counterpart; write dtype: {ours} (or another) on the row"
        not_converted(folder, f"x.yaml:6:8: T2T406 {text}", code=1)

        project(folder, {"a": (ours, [3])}, a=f", dtype: {ours}")
        bits = int(name[-1])
        last = -1 if name[0] == "i" else 2**bits - 1
        assert converted(folder)["a"].tolist() == [0, 1, last]
        (folder / "x.safetensors").unlink()


#: TensorFlow's number of a dtype, and the numpy dtype of its values.
PLAIN = {
    1: "f4",
    2: "f8",
    3: "i4",
    4: "u1",
    5: "i2",
    6: "i1",
    8: "c8",
    9: "i8",
    10: "?",
    17: "u2",
    19: "f2",
    22: "u4",
    23: "u8",
}


def the_other_byte_order(folder: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {f"v{dtype}": (random.random((2, 3)) * 100).astype(kind) for dtype, kind in PLAIN.items()}
    tensors = {
        name: Tensor(int(name[1:]), (2, 3), array.astype(array.dtype.newbyteorder(">")).tobytes())
        for name, array in arrays.items()
    }
    halves = (0x3F80, 0xC049)
    tensors["v14"] = Tensor(14, (2,), struct.pack(">2H", *halves))
    bundle(folder / "x", tensors, first=header(1, (2, 1)))
    names = {"f4": "float32", "f8": "float64", "i4": "int32", "u1": "uint8", "i2": "int16", "i1": "int8"}
    names |= {"c8": "complex64", "i8": "int64", "?": "bool", "u2": "uint16", "f2": "float16", "u4": "uint32"}
    names |= {"u8": "uint64"}
    buffers = {f"v{dtype}": (names[kind], [2, 3]) for dtype, kind in PLAIN.items()} | {"v14": ("bfloat16", [2])}
    listed(folder, buffers)
    project(folder, buffers)
    convert(folder)
    content = (folder / "x.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    places = json.loads(content[8 : 8 + size])
    for name, expected in {**{n: a.tobytes() for n, a in arrays.items()}, "v14": struct.pack("<2H", *halves)}.items():
        start, end = places[name]["data_offsets"]
        assert content[8 + size + start : 8 + size + end] == expected, name
    (folder / "x.safetensors").unlink()

    # The checksum is over the bytes as they are stored.
    flip(folder / DATA, 0)
    done = run(folder, "convert", "x.yaml")
    assert (done.code, f"{DATA}: T2T608: v1: checksum mismatch, shard 0, offset 0 " in done.err) == (3, True)

    items = (b"ab", b"x" * 300)
    data = strings(*items, big=True)
    row = text_entry((2,), data, *items, big=True)
    bundle(folder / "x", {"a": Tensor(7, (2,), data)}, first=header(1, (2, 1)), rows={b"a": row})
    done = run(folder, "inspect", "--checksums", "x")
    assert (done.code, done.err) == (0, "")


Place = tuple[tuple[int, int], ...]


def part_key(name: str, place: Place) -> str:
    """The key of a part, for numbers of one byte (-64 to 63)."""
    numbers = bytes((value % 256) ^ 0x80 for extent in place for value in extent)
    return (b"\0" + name.encode() + b"\0\1\1" + bytes([len(place)]) + numbers).decode("utf-8", "surrogateescape")


def place_of(place: Place) -> bytes:
    """A TensorSliceProto."""
    return message(*((1, message((1, start), *([(2, length)] if length >= 0 else []))) for start, length in place))


def whole(shape: tuple[int, ...], *places: Place) -> bytes:
    """The entry of a partitioned variable."""
    return message((1, 1), (2, shape_of(shape)), *((7, place_of(place)) for place in places))


def parts_that_do_not_fit(folder: Path) -> None:
    top, bottom = ((0, 2), (0, -1)), ((2, 2), (0, -1))

    def save_parts(shape: tuple[int, ...], *places: Place, parts: dict[Place, Tensor] | None = None) -> None:
        if parts is None:
            parts = {place: floats(*range(4), shape=(2, 2)) for place in (top, bottom)}
        tensors = {part_key("v", place): tensor for place, tensor in parts.items()}
        bundle(folder / "x", tensors, rows={b"v": whole(shape, *places)})

    save_parts((4, 2), top, bottom)
    listed(folder, {"v": ("float32", [4, 2])})

    upper = floats(*range(4), shape=(2, 2))
    wrong: tuple[tuple[dict[Place, Tensor], str], ...] = (
        ({top: upper}, "its part [2:4, :] is not in the index"),
        (
            {top: upper, bottom: Tensor(3, (2, 2), bytes(16))},
            "its part [2:4, :] is int32 [2, 2], but should be float32 [2, 2]",
        ),
        (
            {top: upper, bottom: floats(1, 2, shape=(1, 2))},
            "its part [2:4, :] is float32 [1, 2], but should be float32 [2, 2]",
        ),
    )
    for parts, text in wrong:
        save_parts((4, 2), top, bottom, parts=parts)
        refused(folder, f"{INDEX}: T2T605: v: {text}")
    big = 2**63 - 1
    for places, text in {
        (top, ((1, 2), (0, -1))): "its parts [0:2, :] and [1:3, :] overlap",
        (top, top): "its parts [0:2, :] and [0:2, :] overlap",
        (top,): "its parts leave a hole: they have 4 elements, but the shape has 8",
        (((-1, 2), (0, -1)), bottom): "its part [-1:1, :] is not inside axis 0, which has the size 4",
        (top, ((3, 2), (0, -1))): "its part [3:5, :] is not inside axis 0, which has the size 4",
        (top, ((2, big), (0, -1))): f"its part [2:{big + 2}, :] is not inside axis 0, which has the size 4",
        (top, ((2, 2),)): "its part [2:4] has 1 axes, but the shape has 2",
    }.items():
        save_parts((4, 2), *places)
        refused(folder, f"{INDEX}: T2T605: v: {text}")
    # No slice at all: it is a whole variable, and its bytes are not there.
    save_parts((4, 2))
    refused(folder, f"{INDEX}: T2T605: v: 0 bytes are stored, but float32 [4, 2] needs 32")
    # Very many.
    bundle(folder / "x", {}, rows={b"v": message((1, 1), (2, shape_of((10**6,)))) + message((7, b"")) * 10**6})
    refused(folder, f"{INDEX}: T2T611: v: it has more than 100000 parts, the most that are read")

    # A bit of a part.
    project(folder, {"v": ("float32", [4, 2])})
    save_parts((4, 2), top, bottom)
    convert(folder)
    data = flip(folder / DATA, 16)
    crc, computed = google_crc32c.value(upper.data), google_crc32c.value(data[16:])
    numbers = f"(stored 0x{crc:08x}, computed 0x{computed:08x})"
    text = f"v [2:4, :]: checksum mismatch, shard 0, offset 16 {numbers}; the file is damaged: copy it again"
    not_converted(folder, f"{DATA}: T2T608: {text}")


def a_patchwork(folder: Path) -> None:
    """Parts of a matrix in shuffled order over several shards; they were cut out of it by numpy."""
    matrix = np.random.default_rng(0).random((5, 7), np.float32)
    places: list[Place] = [((0, 2), (0, 3)), ((0, 2), (3, 4)), ((2, 3), (0, 5)), ((2, 1), (5, 2)), ((3, 2), (5, 2))]
    order = [3, 0, 4, 2, 1]
    tensors = {}
    for i in order:
        (row, rows), (column, columns) = places[i]
        part = matrix[row : row + rows, column : column + columns]
        tensors[part_key("v", places[i])] = Tensor(1, part.shape, part.tobytes(), shard=i % 3)
    row_of_v = whole(matrix.shape, *(places[i] for i in (1, 4, 0, 3, 2)))
    bundle(folder / "x", tensors, shards=3, rows={b"v": row_of_v})
    listed(folder, {"v": ("float32", [5, 7])})
    project(folder, {"v": ("float32", [5, 7])})

    assert converted(folder)["v"].tobytes() == matrix.tobytes()


def parts_of_nothing(folder: Path) -> None:
    place = ((0, 2), (0, -1))
    bundle(folder / "x", {"a": floats(1, 2), part_key("gone", place): floats(*range(4), shape=(2, 2))})
    listed(folder, A, f"warning: {INDEX}: T2T616: gone [0:2, :]: parts that belong to no variable")


def graph_entry(graph: bytes, offset: int) -> tuple[bytes, bytes]:
    """The stored bytes of an object graph, and its entry."""
    data = strings(graph)
    return data, text_entry((), data, graph, offset=offset)


def with_graph(folder: Path, graph: bytes, tensors: dict[str, Tensor]) -> None:
    """x, with these tensors and this object graph behind them."""
    end = sum(len(tensor.data) for tensor in tensors.values())
    data, row = graph_entry(graph, end)
    bundle(folder / "x", tensors, rows={b"_CHECKPOINTABLE_OBJECT_GRAPH": row})
    with (folder / DATA).open("ab") as file:
        file.write(data)


def attribute(key: str, name: str) -> tuple[int, bytes]:
    """A variable's attribute, a field of its node."""
    return 2, message((1, b"VARIABLE_VALUE"), (2, name.encode()), (3, key.encode()))


def child(node: int, name: str = "a") -> tuple[int, bytes]:
    return 1, message((1, node), (2, name.encode()))


SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def object_graphs_that_lie(folder: Path) -> None:
    """Names fall back to the keys, with one warning; values are read all the same."""
    right = attribute(f"a{SUFFIX}", "dense/kernel")
    tensors = {f"a{SUFFIX}": floats(1, 2)}
    start = f"warning: {INDEX}: T2T618: the object graph cannot be read, so full names are not known: "
    for graph, text in {
        b"\xff" * 20: "the number at byte 0 has more than 10 bytes",
        b"\x0a\x7f": "protobuf field 1 claims 127 bytes, but 0 are left",
        message((1, message(child(7))), (1, message(right))): "it names the node 7, but has 2 nodes",
        message((1, message(child(-1))), (1, message(right))): "it names the node -1",
        message((1, message(attribute("gone", "w")))): "it names gone, which the checkpoint does not hold",
    }.items():
        with_graph(folder, graph, tensors)
        listed(folder, A, start + text)
    for graph in (
        message((1, message(child(1))), (1, message(child(0), right))),  # a cycle
        message((1, message(child(0), right))),
        message((1, message(child(1))), (1, message()), (1, message(right))),
        message((1, message(right))) + message((1, b"")) * 1_000_000,
    ):
        with_graph(folder, graph, tensors)
        (ref,) = inspected(folder)["variables"]
        assert (ref["name"], ref["full_name"]) == ("a", "dense/kernel")

    # A mapping by full names cannot be used then, and says why.
    with_graph(folder, b"\xff" * 20, tensors)
    project(folder, {"a": ("float32", [2])})
    mapping = folder / "x.yaml"
    text = mapping.read_text().replace("checkpoint: x}", "checkpoint: x, names: full_name}")
    mapping.write_text(text.replace("tf: a,", "tf: dense/kernel,"))
    done = run(folder, "convert", "x.yaml")
    assert done.code == 1
    assert "x.yaml:6:8: T2T201 dense/kernel is not a variable of the checkpoint" in done.out


def full_names_that_are_shared(folder: Path) -> None:
    keys = ("a", "b", "c")
    for values, is_shared in (((1, 2, 3), True), ((1, 1, 1), False)):
        tensors = {f"{key}{SUFFIX}": floats(value) for key, value in zip(keys, values, strict=True)}
        graph = message((1, message(*(attribute(f"{key}{SUFFIX}", "lstm/Variable") for key in keys))))
        with_graph(folder, graph, tensors)
        project(folder, {"w": ("float32", [1])})
        text = (folder / "x.yaml").read_text().replace("checkpoint: x}", "checkpoint: x, names: full_name}")
        (folder / "x.yaml").write_text(text.replace("tf: w,", "tf: lstm/Variable,"))
        if is_shared:
            message_ = "lstm/Variable is the full name of 3 variables with different values: a, b, c"
            hint = "write which of these is meant: they go by their keys"
            not_converted(folder, f"x.yaml:6:8: T2T211 {message_}; {hint}", code=1)
        else:
            assert converted(folder)["w"].tolist() == [1]


def old(path: Path, values: dict[str, Tensor]) -> None:
    """A V1 checkpoint, one file of it, with these float32 variables."""
    metas = []
    stored_rows = {}
    for name, tensor in values.items():
        place: Place = ((0, -1),) * len(tensor.shape)
        slices = (4, place_of(place))
        metas.append((1, message((1, name.encode()), (2, shape_of(tensor.shape)), (3, 1), slices)))
        saved = message((1, name.encode()), (2, place_of(place)), (3, message((5, tensor.data))))
        stored_rows[part_key(name, place).encode("utf-8", "surrogateescape")] = message((2, saved))
    stored_rows[b""] = message((1, message(*metas, (2, message((1, 1))))))
    path.write_bytes(table(sorted(stored_rows.items())))


def checkpoints_of_v1(folder: Path) -> None:
    old(folder / "x", {"a": floats(1, 2)})
    listed(folder)
    project(folder, {"a": ("float32", [2])})
    assert converted(folder)["a"].tolist() == [1, 2]
    remove(folder)

    for shard, name in enumerate("ab"):
        old(folder / f"x-0000{shard}-of-00002", {name: floats(1, 2)})
    (folder / "checkpoint").write_text('model_checkpoint_path: "x-?????-of-00002"\n')
    for path in ("x-?????-of-00002", "x", "x-00001-of-00002", "checkpoint", "."):
        listed(folder, {**A, "b": ("float32", [2])}, path=path)
    (folder / "x-00001-of-00002").unlink()
    text = "shard 1 of 2 missing: x-00001-of-00002"
    refused(folder, f"x-00001-of-00002: T2T607: {text}; {INCOMPLETE}", path="x-?????-of-00002")

    # The file is cut off: its magic number, by which it is known, stands at its end.
    old(folder / "y", {"a": floats(1, 2)})
    data = (folder / "y").read_bytes()
    (folder / "y").write_bytes(data[:-1])
    text = "y: T2T604: this begins as a TensorFlow checkpoint does, but does not end as one"
    refused(folder, f"{text}; the file is cut off: copy it again", path="y")
    for at in range(0, len(data), 3):
        (folder / "y").write_bytes(data)
        flip(folder / "y", at, at % 8)
        done = run(folder, "inspect", "--checksums", "y")
        assert (done.code, done.err.count("\n"), "Traceback" in done.err) == (3, 1, False), (at, done)


FAULTS: dict[int, tuple[Step, ...]] = {
    1: (a_prefix_that_is_not_there,),
    2: (what_leads_to_a_checkpoint,),
    3: (data_without_an_index,),
    4: (a_shard_that_is_missing,),
    5: (shards_of_two_saves,),
    6: (a_state_file_that_is_none,),
    7: (a_state_file_from_another_machine,),
    8: (a_state_file_that_leads_elsewhere,),
    9: (a_state_file_of_a_checkpoint_that_was_deleted,),
    10: (a_pointer_or_a_page_in_its_place,),
    11: (empty_files,),
    12: (what_is_no_regular_file,),
    13: (links,),
    14: (files_that_may_not_be_read,),
    15: (odd_names,),
    16: (checkpoints_of_v1,),
    17: (files_of_other_kinds,),
    18: (a_truncated_index,),
    19: (a_flipped_bit_of_the_index,),
    20: (handles_that_lead_nowhere,),
    21: (numbers_without_end,),
    22: (an_unknown_compression,),
    23: (snappy_that_lies,),
    24: (corrupt_rows,),
    25: (wrong_restarts,),
    26: (keys_in_disorder,),
    27: (a_key_that_stands_twice,),
    28: (no_header,),
    29: (versions,),
    30: (headers_that_cannot_be,),
    31: (very_many_rows,),
    32: (separators_too_small,),
    33: (entries_that_are_none,),
    34: (unknown_dtypes,),
    35: (what_cannot_become_a_parameter,),
    36: (shapes_that_cannot_be,),
    37: (products_beyond_64_bits,),
    38: (a_claim_of_terabytes,),
    39: (sizes_that_do_not_fit,),
    40: (places_outside_the_file,),
    41: (shards_that_do_not_exist,),
    42: (data_that_are_cut_off,),
    43: (a_flipped_bit_of_the_data,),
    44: (a_checksum_that_is_missing,),
    45: (tensors_that_share_bytes,),
    46: (holes,),
    47: (an_odd_offset,),
    48: (bools_that_are_none,),
    49: (strings_that_lie,),
    50: (every_shape,),
    51: (narrow_integers,),
    52: (rare_floats,),
    53: (the_other_byte_order,),
    54: (parts_that_do_not_fit,),
    55: (a_patchwork,),
    56: (parts_of_nothing,),
    57: (object_graphs_that_lie,),
    58: (full_names_that_are_shared,),
    59: (names_that_would_do_harm,),
}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=f"{number:03}") for number, steps in FAULTS.items()])
def test_fault(steps: Sequence[Step], tmp_path: Path) -> None:
    """Every one of them, each in a folder of its own."""
    for step in steps:
        own = tmp_path / step.__name__
        own.mkdir()
        step(own)
