"""
What t2t says of mappings that are none, that do not fit, or that would have it run code.

The numbers are those of the fault catalogue (70-90). Every refusal below is one command in a process of its own: its
exit status, the whole of what it says, the folder as it was before (an older output is in it), a few seconds.

Not here, or not whole, and why:

    70   root may read every mapping: a loop of links stands in for one that may not be read
    75   the time is that of the parser alone, in this process
    77   plain text is a name, whatever YAML 1.1 makes of it: nothing is refused
    79   the language has no regular expressions: what looks like one is a name, and globs are tried instead
    83   a variable that is read twice is an error unless the rows say `reuse`, not a warning
    84   a pattern that matches nothing is an error, not a warning
    85   the language has no reshape and no split: groups and slices are tried instead
    86   `inspect` says nothing of square variables: the proof tells
    88   there is no allow_lossy: no row can let values be lost
    89   not finite is an error, unless --allow-nonfinite is given
    90   what `model`, `new`, `get` and `call` name is code, and runs where --allow-import does not forbid it
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from t2t.document import parse
from tests.checkpoints.writing import Tensor, bundle
from tests.commands import MODEL, ROOT, Project, server, small, store
from tests.test_faults_checkpoints import MODULE, SECONDS, Step, run

IMPORTING = "note: T2T700 importing small:Small"
NO_LOCK = "T2T210 parameters not checked: no lock; t2t lock writes one, convert checks them by itself"

#: Lines 1 to 7 of the mapping that the faults are put into.
WITH = "with: {sizes: [4, 3]}"
SOURCE = "source: {checkpoint: small.ckpt}"
KERNEL = "- {tf: dense_0/kernel, torch: layers.0.weight, axes: i o -> o i}"
BIAS = "- {tf: dense_0/bias, torch: layers.0.bias}"

ROW_KEYS = (
    "tf, torch, use, with, permute, axes, dims, slice, into, join, flip, order, scale, add, dtype, select, reuse, "
    "optional, fill, tie, keep, why"
)
FILE_KEYS = "t2t, model, with, source, dtype, for, recipes, map, ignore, drop, require, verify, output"

#: TensorFlow's numbers for dtypes.
NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "complex64": 8, "int64": 9}


#: What stands in the mapping, what comes in its place, and each line that the command then says of small.yaml.
Fault = tuple[str, ...]


def project(folder: Path, sizes: Sequence[int] = (4, 3)) -> Project:
    """A model of dense layers, its checkpoint, its mapping, and what an earlier run wrote."""
    made = small(folder, sizes)
    assert server().run("small.yaml", cwd=folder).code == 0
    return made


def told(folder: Path, *lines: str, imported: Sequence[str] = ("small:Small",), flags: Sequence[str] = ()) -> None:
    """A conversion finds these problems of small.yaml, and nothing else; the folder stays as it is."""
    done = run(folder, "small.yaml", *flags)

    found = [line.removeprefix("small.yaml:") for line in done.out.splitlines()]
    assert (done.code, found) == (1, list(lines))
    assert done.err == "".join(f"note: T2T700 importing {path}\n" for path in imported)


def edits(mapping: Path, faults: Sequence[Fault]) -> Iterator[list[str]]:
    """Puts one fault after the other into the mapping, and gives what is to be said of it."""
    text = mapping.read_text("utf-8")
    for old, new, *lines in faults:
        assert text.count(old) == 1, old
        mapping.write_text(text.replace(old, new), encoding="utf-8")
        yield lines


def refused(
    folder: Path, *faults: Fault, sizes: Sequence[int] = (4, 3), imported: Sequence[str] = ("small:Small",)
) -> None:
    """A project below the folder is converted with each of the faults."""
    own = folder / f"project {len(list(folder.iterdir()))}"
    own.mkdir()
    for lines in edits(project(own, sizes).mapping, faults):
        told(own, *lines, imported=imported)


def checked(folder: Path, *faults: Fault) -> None:
    """The same with `t2t check`, which imports nothing."""
    own = folder / f"project {len(list(folder.iterdir()))}"
    own.mkdir()
    for lines in edits(project(own).mapping, faults):
        done = run(own, "check", "small.yaml")
        *found, last = [line.removeprefix("small.yaml:") for line in done.out.splitlines()]
        count = f"{len(lines)} error{'s' if len(lines) > 1 else ''}"
        assert (done.code, [line for line in found if NO_LOCK not in line], done.err) == (1, lines, "")
        assert last == f"1 mapping checked: {count}, 1 note"


def holder(folder: Path, buffers: Mapping[str, tuple[str, Sequence[int]]], rows: str, **arrays: np.ndarray) -> None:
    """A module of buffers, a checkpoint of these arrays, a mapping of these rows from line 6 on."""
    (folder / "small.py").write_text(MODULE.replace("Holder", "Small"))
    tensors = {n: Tensor(NUMBERS[a.dtype.name], a.shape, a.tobytes()) for n, a in arrays.items()}
    bundle(folder / "small.ckpt", tensors)
    given = json.dumps({name: list(buffer) for name, buffer in buffers.items()})
    (folder / "small.yaml").write_text(
        f"t2t: 1\nmodel: small:Small\nwith: {{buffers: {given}}}\n{SOURCE}\nmap:\n{rows}\n"
    )


# --- 70-76: the file ---


def no_mapping_there(folder: Path) -> None:
    """Nothing to read is exit 3, a file of something else a finding."""
    made = project(folder)
    (folder / "d").mkdir()
    os.mkfifo(folder / "fifo.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    for path, why in {
        "gone.yaml": "No such file or directory; name a mapping, a .yaml file",
        "./d": "Is a directory; name a mapping, a .yaml file",
        "gone/x.yaml": "No such file or directory; name a mapping, a .yaml file",
        "fifo.yaml": "Not a regular file; name a mapping, a .yaml file",
        "loop.yaml": "Too many levels of symbolic links",
    }.items():
        for command in ("convert", "explain"):
            done = run(folder, command, path, *(["layers.0.bias"] if command == "explain" else []))
            line = f"{path}:1:1: T2T602 the mapping cannot be read: {why}\n"
            assert (done.code, done.out, done.err) == (3, "", line)
    for text, line in {
        "": "1:1: T2T101 the file is empty; a mapping begins with t2t: 1",
        "# nothing\n\n": "1:1: T2T101 the file is empty; a mapping begins with t2t: 1",
        "null\n": "1:1: T2T106 expected keys and values, got nothing",
        "- a\n- b\n": "1:1: T2T106 expected keys and values, got a list of 2",
        "text": "1:1: T2T106 expected keys and values, got 'text'",
    }.items():
        made.mapping.write_text(text)
        told(folder, line, imported=[])


def not_yaml(folder: Path) -> None:
    utf8 = "save the file as UTF-8"
    mapping = project(folder).mapping
    text = mapping.read_text("utf-8")
    for data, line in {
        text.replace(KERNEL, f"\t{KERNEL}").encode(): "6:1: T2T101 a tab where YAML has spaces; indent with spaces",
        f"{text}# \xff".encode("latin-1"): f"8:3: T2T101 byte 0xff is not UTF-8; {utf8}",
        text.encode("utf-16"): f"1:1: T2T101 byte 0xff is not UTF-8; {utf8}",
        b"\xef\xbb\xbf" + text.encode(): "1:1: T2T101 byte order mark in the file; remove it",
        text.replace(
            "small.ckpt", "small.\0"
        ).encode(): r"4:28: T2T101 control character '\x00' in the file; remove it",
        text.replace("small.ckpt", "\x1b[2J").encode(): r"4:22: T2T101 control character '\x1b' in the file; remove it",
        text.replace("map:", "---\nmap:").encode(): "5:1: T2T101 a second document begins; a mapping is one document",
        text.replace("small.ckpt", "'small.ckpt").encode(): (
            "8:1: T2T101 not YAML: while scanning a quoted scalar, found unexpected end of stream"
        ),
        text.replace("3]}", "3]").encode(): (
            "4:1: T2T101 not YAML: while parsing a flow mapping, did not find expected ',' or '}'"
        ),
    }.items():
        mapping.write_bytes(data)
        told(folder, line, imported=[])


def a_key_that_stands_twice(folder: Path) -> None:
    """PyYAML takes the last without a word."""
    twice = "T2T103 key '{}' stands twice, first in line {}; keep one of them"
    refused(
        folder,
        ("axes: i o -> o i", "axes: i o -> o i,\n   axes: o i -> o i", f"7:4: {twice.format('axes', 6)}"),
        (SOURCE, f"{SOURCE}\nsource: {{checkpoint: other.ckpt}}", f"5:1: {twice.format('source', 4)}"),
        ("t2t: 1", 't2t: 1\n"t2t": 1', f"2:1: {twice.format('t2t', 1)}"),
    )


def keys_that_are_wrong(folder: Path) -> None:
    """Unknown, missing, of another type, of a later version."""
    refused(
        folder,
        ("axes:", "axis:", "6:48: T2T104 unknown key 'axis'; did you mean axes"),
        ("axes: i o -> o i", "transpoze: true", f"6:48: T2T104 unknown key 'transpoze'; known keys: {ROW_KEYS}"),
        ("map:", "ignor: []\nmap:", "5:1: T2T104 unknown key 'ignor'; did you mean ignore"),
        (
            "map:",
            "ignore: [{slots: true}]\nmap:",
            "5:10: T2T105 key 'why' is missing; for example why: \"step counter\"",
        ),
        ("t2t: 1\n", "", "1:1: T2T105 key 't2t' is missing; for example t2t: 1"),
        ("axes: i o -> o i", "axes: {i: o}", "6:54: T2T106 axes: expected text or a list, got keys i"),
        ("axes: i o -> o i", "permute: 10", "6:57: T2T106 permute: expected a list, got 10"),
        ("map:", "ignore: 5\nmap:", "5:9: T2T106 ignore: expected a list, got 5"),
        (
            "t2t: 1",
            "t2t: 2",
            "1:6: T2T107 version 2 of the language, this t2t reads version 1; a newer t2t may read it",
        ),
        (
            "t2t: 1",
            "t2t: one",
            "1:6: T2T107 version 'one' of the language, this t2t reads version 1; write t2t: 1",
        ),
    )
    missing = "1:1: T2T105 key 'model' is missing; for example model: \"mappings.modules.madry:Madry\""
    refused(folder, ("model: small:Small\n", "", missing), imported=[])


def tags(folder: Path) -> None:
    """A file named canary would be in the folder if one of them had been constructed."""

    def refusal(place: str, tag: str) -> str:
        return f"{place}: T2T102 tag {tag} is not allowed in a mapping; remove it"

    refused(
        folder,
        *(
            (row, row.replace("- ", f"- {tag} "), refusal(place, tag))
            for place, row in (("6:3", KERNEL), ("7:3", BIAS))
            for tag in ("!!python/object:os.system", "!!map", "!own")
        ),
    )
    command = "['touch canary']"
    checked(
        folder,
        *(
            ("[4, 3]", f"{tag} {value}", refusal("3:15", tag.replace("!<", "").replace(">", "")))
            for tag, value in {
                "!!python/object/apply:os.system": command,
                "!!python/object/new:os.system": command,
                "!!python/name:os.system": "''",
                "!!python/module:antigravity": "''",
                "!<tag:example.org,2026:x>": "{}",
            }.items()
        ),
    )


def anchors_and_aliases(folder: Path) -> None:
    """Whether they would explode, never end, or only be read past by a reviewer."""
    anchor = "T2T102 anchor &{} is not allowed in a mapping; remove it"
    alias = "T2T102 alias *{} is not allowed in a mapping; write it out"
    merge = "T2T102 merge key << is not allowed in a mapping; write the keys out"
    named = BIAS.replace("- ", "- &x ")
    refused(
        folder,
        (BIAS, named, f"7:3: {anchor.format('x')}"),
        (BIAS, f"{named}\n- *x", f"7:3: {anchor.format('x')}", f"8:3: {alias.format('x')}"),
    )
    checked(
        folder,
        ("[4, 3]", "&s [4, *s]", f"3:15: {anchor.format('s')}", f"3:22: {alias.format('s')}"),
        ("{sizes: [4, 3]}", "{<<: {sizes: [4, 3]}}", f"3:8: {merge}"),
    )
    levels = "\n".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    mapping = project(folder).mapping
    mapping.write_text(mapping.read_text().replace(WITH, f"with:\n  a0: &a0 x\n{levels}"))
    done = run(folder, "check", "small.yaml")
    lines = done.out.splitlines()
    # 12 anchors and 99 aliases, of which 20 are shown.
    assert (done.code, done.err, lines[0]) == (1, "", f"small.yaml:4:7: {anchor.format('a0')}")
    assert lines[20:] == ["and 92 more; --all shows them", "1 mapping checked: 111 errors, 1 note"]
    assert cpu_seconds(mapping.read_bytes()) < 0.1


def cpu_seconds(data: bytes) -> float:
    """What reading a mapping takes, the schema in memory."""
    parse(b"t2t: 1", "small.yaml")
    began = time.process_time()
    assert parse(data, "small.yaml")[1]
    return time.process_time() - began


def too_much(folder: Path) -> None:
    """libyaml's own tree builder would end the process with a signal."""
    deep, large = (
        "values are nested more than 32 deep",
        "the file is larger than 1048576 bytes, the most that a mapping has",
    )
    many = "the file has more than 200000 values"
    mapping = project(folder).mapping
    for data, line in {
        b"[" * 100_000: f"1:34: T2T110 {deep}",
        b"{a: " * 100_000: f"1:133: T2T110 {deep}",
        b"- " * 100_000: f"1:67: T2T110 {deep}",
        b"# " + b"x" * 10**7: f"1:1: T2T110 {large}",
        b"[" + b"a," * 10**6 + b"]": f"1:1: T2T110 {large}",
        b"[" + b"a," * 500_000 + b"]": f"1:400000: T2T110 {many}",
        b"- a\n" * 250_000: f"200000:3: T2T110 {many}",
    }.items():
        mapping.write_bytes(data)
        told(folder, line, imported=[])
        assert cpu_seconds(data) < 5  # of a reader that goes back and forth it would be minutes


# --- 77-81: values and names ---


def text_that_looks_like_something_else(folder: Path) -> None:
    """Variables and parameters of these names are found, and the values are theirs."""
    names = [
        *("no", "on", "off", "yes", "y", "True", "Null", "true", "null", "~"),
        *("6", "010", "0x10", "0o7", "1_0", "1e3", "1:30", "2020-01-01", "=", "-"),
    ]
    store(folder, {name: np.array([i, -i], np.float32) for i, name in enumerate(names)})
    module = "\n".join(
        [
            "import torch\nfrom torch import nn\n\n",
            "class Small(nn.Module):",
            "    def __init__(self, names):",
            "        super().__init__()",
            "        self.table = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in names})\n",
        ]
    )
    (folder / "small.py").write_text(module)
    head = f"t2t: 1\nmodel: small:Small\nwith: {{names: {json.dumps(names)}}}\n{SOURCE}\nmap:\n"
    (folder / "small.yaml").write_text(head + "".join(f"- {{tf: {name}, torch: table.{name}}}\n" for name in names))
    done = server().run("small.yaml", cwd=folder)
    written = load_file(folder / "small.safetensors")

    assert (done.code, done.err) == (0, f"{IMPORTING}\n")
    assert {name: array.tolist() for name, array in written.items()} == {
        f"table.{name}": [i, -i] for i, name in enumerate(names)
    }


def numbers_that_are_none(folder: Path) -> None:
    def bias(text: str) -> str:
        return f"{BIAS[:-1]}, {text}}}"

    digits = "1" * 5000
    finite = "- {{torch: layers.0.bias, fill: {}}}\nignore: [{{tf: dense_0/bias, why: a test}}]"
    refused(
        folder,
        (BIAS, bias(f"permute: [{digits}]"), "7:54: T2T106 a number of 5000 digits"),
        ("t2t: 1", f"t2t: {digits}", "1:6: T2T106 a number of 5000 digits"),
        (BIAS, finite.format(".inf"), "7:32: T2T106 fill: expected a number, got '.inf'"),
        (BIAS, finite.format(".nan"), "7:32: T2T106 fill: expected a number, got '.nan'"),
        (BIAS, finite.format("1e999"), "7:32: T2T106 number 1e999 is out of range"),
        (BIAS, finite.format("true"), "7:32: T2T106 fill: expected a number, got true"),
        (
            BIAS,
            finite.format("1e39"),
            "7:32: T2T405 layers.0.bias is float32, which cannot hold 1e+39 exactly; what it would hold is inf",
        ),
        (BIAS, bias("add: .inf"), "7:49: T2T106 add: expected a number or keys and values, got '.inf'"),
        (BIAS, bias("add: -1e400"), "7:49: T2T106 number -1e400 is out of range"),
        ("axes: i o -> o i", "permute: [true, 0]", "6:58: T2T106 expected an integer, got true"),
        ("axes: i o -> o i", "permute: [1.0, 0]", "6:58: T2T106 expected an integer, got 1.0"),
        ("axes: i o -> o i", "permute: [-1, 0]", "6:58: T2T106 expected 0 or more, got -1"),
        ("-> o i}", "-> o i, flip: [-1]}", "6:73: T2T106 expected 0 or more, got -1"),
        (
            "-> o i}",
            "-> o i, flip: [2]}",
            "6:72: T2T309 layers.0.weight: flip names 2, which axes 'i o -> o i' don't have",
        ),
        ("-> o i}", "-> o i, dims: {o: true}}", "6:76: T2T106 o: expected an integer, got true"),
        ("-> o i}", "-> o i, dims: {o: -3}}", "6:76: T2T106 o: expected 0 or more, got -3"),
    )


def expressions_that_are_names(folder: Path) -> None:
    """A variable of 60 000 times the letter a is no work for a glob of many stars, that no name ends as it wants."""
    missing = "is not a variable of the checkpoint; did you mean dense_0/bias"
    stars = "*a" * 40 + "*b"
    stale = "matches no variable of the checkpoint; remove it: it is stale"
    made = project(folder)
    bundle(
        folder / "small.ckpt",
        {
            "a" * 60_000: Tensor(1, (), bytes(4)),
            "dense_0/kernel": Tensor(1, (4, 3), made.state["layers.0.weight"].T.tobytes()),
            "dense_0/bias": Tensor(1, (3,), made.state["layers.0.bias"].tobytes()),
        },
    )
    text = made.mapping.read_text()
    made.mapping.write_text(f"{text}ignore: [{{tf: 'a*', why: a test}}, {{tf: '{stars}', why: a test}}]\n")
    told(folder, f"8:35: T2T208 ignore pattern {stars} {stale}")
    made.mapping.write_text(
        text.replace("tf: dense_0/bias", "tf: '(d+)+_0/bias'") + "ignore: [{tf: 'a*', why: a test}]\n"
    )
    told(folder, f"7:8: T2T201 (d+)+_0/bias {missing}")


def unknown_variables(folder: Path) -> None:
    missing = "is not a variable of the checkpoint"
    refused(
        folder,
        (
            "tf: dense_0/bias",
            "tf: dense_0/bais",
            f"7:8: T2T201 dense_0/bais {missing}; did you mean dense_0/bias, dense_2/bias, dense_1/bias",
        ),
        (
            "tf: dense_0/bias",
            "tf: other",
            "5:1: T2T205 variable dense_0/bias (float32 [3], 3 elements) is used by no row; map it, or name it under "
            "ignore with a why",
            f"7:8: T2T201 other {missing}",
        ),
        sizes=(4, 3, 2, 2),
    )


def unknown_parameters(folder: Path) -> None:
    missing = "is not a parameter or persistent buffer of the module"
    refused(
        folder,
        (
            "torch: layers.0.bias",
            "torch: layers.0.bais",
            f"7:29: T2T202 layers.0.bais {missing}; did you mean layers.0.bias, layers.2.bias, layers.1.bias",
        ),
        (
            "torch: layers.0.bias",
            "torch: other",
            "5:1: T2T204 parameter layers.0.bias (float32 [3]) is written by no row; map it, or give it fill or keep",
            f"7:29: T2T202 other {missing}",
        ),
        sizes=(4, 3, 2, 2),
    )


# --- 82-84: who accounts for what ---


def a_parameter_written_twice(folder: Path) -> None:
    again = "T2T203 layers.0.bias is written twice, first in line 7; remove one of the rows"
    halves = [f"- {{torch: layers.0.bias, into: ['{part}'], fill: 0}}" for part in ("0:2", "1:3")]
    ignored = "ignore: [{tf: dense_0/bias, why: a test}]"
    refused(
        folder,
        (BIAS, f"{BIAS}\n- {{torch: layers.0.bias, fill: 0}}", f"8:11: {again}"),
        (BIAS, f"{BIAS}\n- {{torch: layers.0.bias, keep: init, why: a test}}", f"8:11: {again}"),
        (
            BIAS,
            "\n".join([*halves, ignored]),
            "8:32: T2T203 layers.0.bias[1:3] is written twice, also in line 7, as [0:2]; write each element once",
        ),
    )
    values = np.ones(2, np.float32)
    holder(folder, {"p": ("float32", (2,))}, "- {tf: [v, w], torch: p}", v=values, w=values)
    told(folder, "6:3: T2T105 key 'join' is missing")


def a_variable_read_twice(folder: Path) -> None:
    twice = "if that is meant, write reuse: true in each of these rows"
    ignored = "ignore: [{tf: dense_0/bias, why: a test}]"
    row = "- {tf: dense_0/kernel, torch: layers.0.bias, slice: ['0:1'], axes: 1 o -> o}"
    refused(
        folder,
        (
            BIAS,
            f"{row}\n{ignored}",
            f"6:3: T2T206 dense_0/kernel[:, :] is read again in line 7, as [0:1, :]; {twice}",
            f"7:53: T2T206 dense_0/kernel[0:1, :] is read again in line 6, as [:, :]; {twice}",
        ),
        (
            BIAS,
            f"{row[:-1]}, reuse: true}}\n{ignored}",
            f"6:3: T2T206 dense_0/kernel[:, :] is read again in line 7, as [0:1, :]; {twice}",
        ),
        (
            BIAS,
            f"{BIAS[:-1]}, reuse: true}}",
            "7:51: T2T207 reuse: true, but only this row reads dense_0/bias; remove reuse",
        ),
    )


def silence(folder: Path) -> None:
    """What nobody mentions, and mentions of what is not there."""
    missing = "is not a variable of the checkpoint"
    refused(
        folder,
        (
            BIAS,
            "",
            "5:1: T2T205 variable dense_0/bias (float32 [3], 3 elements) is used by no row; map it, or name it under "
            "ignore with a why",
            "5:1: T2T204 parameter layers.0.bias (float32 [3]) is written by no row; map it, or give it fill or keep",
        ),
        (
            "axes: i o -> o i}",
            "slice: ['1:'], axes: i o -> o i, into: [':', '1:']}",
            "6:55: T2T205 dense_0/kernel[0:1, :] (3 of 12 elements) is read by no row; map it too, or name it under "
            "drop with a why",
            "6:87: T2T204 parameter layers.0.weight[:, 0:1] (3 of 12 elements) is written by no row; map it too, or "
            "fill it",
        ),
        (
            BIAS,
            f"{BIAS}\nignore:\n- {{tf: gone/**, why: a test}}\n- {{tf: dense_0/baes, why: a test}}",
            "9:3: T2T208 ignore pattern gone/** matches no variable of the checkpoint; remove it: it is stale",
            "10:3: T2T208 ignore pattern dense_0/baes matches no variable of the checkpoint; did you mean dense_0/bias",
        ),
        (
            BIAS,
            f"{BIAS}\ndrop:\n- {{tf: gone, slice: ['0:1'], why: x}}\n- {{tf: dense_0/bias, slice: ['0:1'], why: x}}",
            f"9:3: T2T201 drop: gone {missing}",
            "10:3: T2T212 drop names dense_0/bias[0:1], of which line 7 reads [:]; drop what no row reads",
        ),
        (
            BIAS,
            f"{BIAS}\nrequire:\n- {{torch: gone.*, eps: 1}}\n- {{torch: layers.0, in_features: 5}}",
            "9:3: T2T208 require pattern gone.* matches no module; remove it: it is stale",
            "10:34: T2T505 layers.0.in_features is 4, but require says 5; build it so, or change the requirement",
        ),
    )


# --- 85-86: axes ---


def axes_that_do_not_fit(folder: Path) -> None:
    name, both = "layers.0.weight", "both sides need the same names"
    once = "name each axis of the variable once on the left side"
    cases = {
        "permute: [0, 0]": f"6:57: T2T306 {name}: permute [0, 0] is not a permutation; use each of 0, 1 once",
        "permute: [0, 2]": f"6:57: T2T306 {name}: permute [0, 2] is not a permutation; use each of 0, 1 once",
        "permute: [1, 0, 2]": (
            f"6:57: T2T302 {name}: permute is for rank 3, but dense_0/kernel is [4, 3]; write one entry for each axis"
        ),
        "permute: [0, 1]": (
            f"6:57: T2T304 {name}: axes 'a b -> a b' turn dense_0/kernel [4, 3] into [a=4, b=3], "
            "but the parameter is [3, 4]"
        ),
        "axes: i o -> o": f"6:54: T2T301 {name}: axes 'i o -> o' have i only on the left; {both}",
        "axes: i o -> o i i": f"6:54: T2T301 {name}: axes 'i o -> o i i' name i 2 times on the right side",
        "axes: h i o -> o i h": (
            f"6:54: T2T302 {name}: axes 'h i o -> o i h' are for rank 3, the variable has rank 2: [4, 3]; {once}"
        ),
        "axes: i o -> (o i)": (
            f"6:54: T2T304 {name}: axes 'i o -> (o i)' turn dense_0/kernel [4, 3] into [(o i)=12], "
            "but the parameter is [3, 4]"
        ),
        "axes: i (a b) -> (a b) i": (
            f"6:54: T2T303 {name}: axis 1 (a b) of length 3 can be split in more than one way; "
            "give the sizes of all but one of a, b in dims"
        ),
        "axes: i (a b) -> (a b) i, dims: {a: 2}": (f"6:80: T2T303 {name}: axis 1 (a b) has length 3, but dims say a=2"),
        "axes: i o -> o i, dims: {i: 3}": f"6:72: T2T303 {name}: axis 0 i has length 4, but dims say i=3",
        "axes: [i o -> o i, a -> a]": (
            f"6:54: T2T302 {name}: axes 'a -> a' are for rank 1, but 'i o -> o i' before them give rank 2; "
            "a step names each axis that the one before it gives"
        ),
        "axes: i o -> o i, slice: ['9:']": (
            f"6:73: T2T307 {name}: the slice of dense_0/kernel has the bound 9 on axis 0, whose size is 4"
        ),
        "axes: i o -> o i, order: {o: ab -> ba}": (
            f"6:73: T2T309 {name}: order 'o: ab -> ba' is of 2 entries, but o has 3"
        ),
        "dtype: float32": (
            f"6:31: T2T305 {name}: dense_0/kernel [4, 3] has rank 2 and the row no axes; "
            "write how they move; for no move: axes: a b -> a b"
        ),
    }
    refused(folder, *(("axes: i o -> o i", text, line) for text, line in cases.items()))
    row = "- {tf: [v, w], torch: p, join: i, axes: i o -> i o}"
    line = "6:32: T2T308 p: v [4, 3] and w [3, 2] cannot be joined along i; the other sizes must be equal"
    arrays = {"v": np.ones((4, 3), np.float32), "w": np.ones((3, 2), np.float32)}
    holder(folder, {"p": ("float32", (7, 3))}, row, **arrays)
    told(folder, line)


def a_shape_that_is_right_by_chance(folder: Path) -> None:
    """The example without its flatten: every shape fits, and nothing is written, for the outputs differ."""
    (folder / "mappings").mkdir()
    for name in ("modules", "checkpoints", "recordings"):
        (folder / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    mapping = folder / "mappings" / "madry.yaml"
    text = (ROOT / "mappings" / "madry.yaml").read_text("utf-8")
    right = "axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}"
    assert text.count(right) == 1
    mapping.write_text(text, encoding="utf-8")
    assert server().run("mappings/madry.yaml", cwd=folder).code == 0
    old = (folder / "madry.safetensors").read_bytes()
    mapping.write_text(text.replace(right, "permute: [1, 0]"), encoding="utf-8")
    done = server().run("mappings/madry.yaml", cwd=folder)
    checks = server().run("check", "mappings/madry.yaml", cwd=folder)

    # The original's graph, which lies beside the checkpoint, has the flatten.
    assert (checks.code, checks.out.count("T2T504 fc1.weight: axes 'a b -> b a' ignore the flatten")) == (1, 1)
    assert done.code == 1
    assert done.err == "note: T2T700 importing mappings.modules.madry:Madry\n"
    assert done.out == (
        "mappings/madry.yaml:20:1: T2T501 logits: max|Δ| 22.6 exceeds 1.83e-04 (1e-06 + 1e-05 x 18.2 max|TF|), "
        "accuracy 0.0972 against TensorFlow's 0.9694; run t2t verify mappings/madry.yaml: it finds the first "
        "layer that differs, and what would have passed\n"
    )
    assert sorted(os.listdir(folder)) == ["madry.safetensors", "mappings"]
    assert (folder / "madry.safetensors").read_bytes() == old


# --- 87-89: what happens to values ---


def transforms_that_there_are_not(folder: Path) -> None:
    """Names are never formatted, an index is a sum of letters, and what a row stands for has a limit."""
    missing = "is not a parameter or persistent buffer of the module"
    no_index = "is not an index; an index is a sum of letters and numbers, <i>, <2i-2>, <q+3b+c>; "
    no_index += "<i:03> and <_i> are forms of it"
    many = " ".join(f"a{i}" for i in range(10_000))
    letters = "- {{tf: 'a<{0}>', torch: 'b.<{0}>'}}"
    refused(
        folder,
        (BIAS, f"{BIAS[:-1]}, transform: t}}", f"7:44: T2T104 unknown key 'transform'; known keys: {ROW_KEYS}"),
        *(
            (
                "torch: layers.0.bias",
                f"torch: 'layers.0.bias{text}'",
                f"7:29: T2T202 layers.0.bias{text} {missing}; did you mean layers.0.bias",
            )
            for text in ("{x.__class__}", "${HOME}", "{{7*7}}")
        ),
        *(
            ("map:", f"drop: [{{tf: \"{text}\", slice: ['0:1'], why: x}}]\nmap:", f"5:13: T2T111 {text} {no_index}")
            for text in ("<i.__class__>", "<__import__('os').system('touch canary')>", "<i!r>", "<1e9>", "<i*j>")
        ),
        ("map:", "for: {i: 0..1000000000}\nmap:\n" + letters.format("i"),
              "5:10: T2T113 for i: the range 0..1000000000 has more than 200000 values"),
        ("map:", "for: {i: 0..9999, j: 0..9999}\nmap:\n" + letters.format("i>.<j"),
              "7:3: T2T110 the rows stand for more than 200000 names"),
        ("axes: i o -> o i", f"axes: {many} -> a",
              f"6:54: T2T301 layers.0.weight: axes '{many[:117]}...' have 10000 axes on one side, at most 32 are "
              "possible"),
    )  # fmt: skip


def ten_thousand_steps(folder: Path) -> None:
    """There and back, and there: they are taken, in a time that can be waited for."""
    steps = ", ".join([*["i o -> o i", "o i -> i o"] * 5_000, "i o -> o i"])
    made = project(folder)
    made.edit("axes: i o -> o i", f"axes: [{steps}]")
    done = server().run("small.yaml", cwd=folder)

    assert (done.code, done.err) == (0, f"{IMPORTING}\n")
    assert done.seconds < SECONDS
    assert np.array_equal(load_file(made.output)["layers.0.weight"], made.state["layers.0.weight"])


def casts_that_lose(folder: Path) -> None:
    """NumPy would make infinities, wrap, or drop a part, with a warning at most."""
    lost = "cannot hold {} of {} values of v ({}), the largest is {}; choose a wider dtype"
    cases: list[tuple[np.ndarray[Any, Any], str, str]] = [
        (np.array([1, 1e5]), "float16", "T2T402 p: float16 " + lost.format(1, 2, "float64", "100000")),
        (np.array([1e39, 1, -1e300]), "float32", "T2T402 p: float32 " + lost.format(2, 3, "float64", "-1e+300")),
        (np.array([1, 2**31, 0]), "int32", "T2T402 p: int32 " + lost.format(1, 3, "int64", "2.14748e+09")),
        (np.array([300, 1], np.int32), "uint8", "T2T402 p: uint8 " + lost.format(1, 2, "int32", "300")),
        (np.array([2, 1], np.int32), "bool", "T2T402 p: bool " + lost.format(1, 2, "int32", "2")),
        (np.array([1.5, 2], np.float32), "int32", "T2T402 p: int32 " + lost.format(1, 2, "float32", "1.5")),
        (
            np.array([1 + 2j], np.complex64),
            "float32",
            "T2T401 p: v is complex64, float32 would drop its imaginary part",
        ),
    ]
    for array, dtype, line in cases:
        holder(folder, {"p": (dtype, array.shape)}, f"- {{tf: v, torch: p, dtype: {dtype}}}", v=array)
        told(folder, f"6:28: {line}")
    holder(folder, {"p": ("float32", (2,))}, "- {tf: v, torch: p}", v=np.ones(2))
    told(folder, "6:3: T2T401 p is float32, but v is float64; if a cast is meant, write dtype: float32")
    single = np.ones(2, np.float32)
    holder(folder, {"p": ("float32", (2,))}, "- {tf: v, torch: p, dtype: float64}", v=single)
    told(folder, "6:28: T2T401 p is float32, but dtype says float64; write dtype: float32")
    nan = np.array([1, np.nan], np.float32)
    holder(folder, {"p": ("int32", (2,))}, "- {tf: v, torch: p, dtype: int32}", v=nan)
    line = "6:28: T2T402 p: int32 " + lost.format(1, 2, "float32", "nan")
    told(folder, line, flags=["--allow-nonfinite"])


def values_that_are_not_finite(folder: Path) -> None:
    """With --allow-nonfinite every bit stays: which NaN it is, and the sign of a zero."""
    words = [0x7FC00001, 0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001, 0x3F800000]
    array = np.frombuffer(struct.pack("<8I", *words), np.float32)
    holder(folder, {"p": ("float32", (2, 4))}, "- {tf: v, torch: p, axes: a b -> b a}", v=array.reshape(4, 2))
    told(
        folder,
        "6:8: T2T403 v holds 3 NaN and 2 Inf among 8 elements; if that is meant, give --allow-nonfinite",
    )
    done = server().run("small.yaml", "--allow-nonfinite", cwd=folder)
    written = load_file(folder / "small.safetensors")["p"]

    assert (done.code, done.err) == (0, f"{IMPORTING}\n")
    assert written.view(np.uint32).T.reshape(-1).tolist() == words
    assert math.copysign(1, written[1, 2]) == -1


# --- 90: code ---

CALL = "verify: {inputs: {x: {value: 1}}, reference: {call: 'canary:make', fetch: {y: z}}, torch: {arguments: [x]}}"


def code_where_none_belongs(folder: Path) -> None:
    """A file named canary would be in the folder if any of it had run."""
    model = "T2T106 model: expected 'package.module:attribute', got"
    refused(
        folder,
        ("t2t: 1", "t2t: 1\ninclude: /etc/passwd", f"2:1: T2T104 unknown key 'include'; known keys: {FILE_KEYS}"),
        ("t2t: 1", "t2t: 1\nimport: canary", f"2:1: T2T104 unknown key 'import'; known keys: {FILE_KEYS}"),
        (
            "small.ckpt}",
            "small.ckpt, call: 'canary:make'}",
            "4:34: T2T104 unknown key 'call'; known keys: checkpoint, names, select",
        ),
    )
    paths = ("./evil.py", "/etc/passwd:x", "../evil:Net", "os", "!touch canary", "os:system()")
    refused(folder, *(("small:Small", f"'{path}'", f"2:8: {model} '{path}'") for path in paths), imported=[])


def code_that_is_not_allowed(folder: Path) -> None:
    """Of what may name code, `new` takes classes only, and --allow-import limits them all."""
    mapping = project(folder).mapping
    (folder / "small.py").write_text(f"import os\n{MODEL}")
    text, touch = mapping.read_text("utf-8"), "{command: touch canary}"
    sizes, whole = "{sizes: [4, 3]}", f"small:Small\n{WITH}"
    system = f"{{sizes: {{new: 'os:system', with: {touch}}}}}"
    popen = "{sizes: {new: 'subprocess:Popen', with: {args: [touch, canary]}}}"
    no_class = "2:8: T2T702 new: os:system is not a class; new: names a class, get: anything else"
    mapping.write_text(text.replace(sizes, system))
    told(folder, no_class, imported=["small:Small", "os:system"])
    for old, new, path in (
        (sizes, system, "os:system"),
        (sizes, popen, "subprocess:Popen"),
        (sizes, "{sizes: {get: 'os:environ'}}", "os:environ"),
        (whole, f"os:system\nwith: {touch}", "os:system"),
        (whole, f"small:os.system\nwith: {touch}", "small:os.system"),
    ):
        owner = "subprocess" if "subprocess" in path else "os"
        line = f"2:8: T2T705 {path} may not be imported: {owner} is not under small; --allow-import {owner} allows it"
        mapping.write_text(text.replace(old, new))
        imported = [path] if old == whole else ["small:Small", path]
        told(folder, line, imported=imported, flags=["--allow-import", "small"])


def code_that_nobody_asked_for(folder: Path) -> None:
    """Whatever a mapping names, `check` and `explain` import none of it."""
    mapping = project(folder).mapping
    (folder / "canary.py").write_text("open('canary', 'w')\n")
    text = mapping.read_text("utf-8")
    for old, new in {
        f"small:Small\n{WITH}": "os:system\nwith: {command: touch canary}",
        "small:Small": "canary:make",
        "[4, 3]": "{new: 'canary:Make', with: {args: {get: 'canary:args'}}}",
        "map:": f"{CALL}\nmap:",
    }.items():
        assert text.count(old) == 1
        mapping.write_text(text.replace(old, new))
        for command in (["check", "small.yaml"], ["explain", "small.yaml", "layers.0.bias"]):
            done = run(folder, *command)
            assert (done.code, done.err) == (0, "")


FAULTS: dict[int, tuple[Step, ...]] = {
    70: (no_mapping_there,),
    71: (not_yaml,),
    72: (a_key_that_stands_twice,),
    73: (keys_that_are_wrong,),
    74: (tags,),
    75: (anchors_and_aliases,),
    76: (too_much,),
    77: (text_that_looks_like_something_else,),
    78: (numbers_that_are_none,),
    79: (expressions_that_are_names,),
    80: (unknown_variables,),
    81: (unknown_parameters,),
    82: (a_parameter_written_twice,),
    83: (a_variable_read_twice,),
    84: (silence,),
    85: (axes_that_do_not_fit,),
    86: (a_shape_that_is_right_by_chance,),
    87: (transforms_that_there_are_not, ten_thousand_steps),
    88: (casts_that_lose,),
    89: (values_that_are_not_finite,),
    90: (code_where_none_belongs, code_that_is_not_allowed, code_that_nobody_asked_for),
}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=f"{number:03}") for number, steps in FAULTS.items()])
def test_fault(steps: Sequence[Callable[[Path], None]], tmp_path: Path) -> None:
    """Every one of them, each in a folder of its own."""
    for step in steps:
        own = tmp_path / step.__name__
        own.mkdir()
        step(own)
