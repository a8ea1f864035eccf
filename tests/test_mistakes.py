"""
Many mistakes in one mapping, all reported by one run, each with its place and the way out; and nothing written.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands import ROOT, Done, server, t2t

#: The example's mapping, with what people do wrong.
MISTAKES = """\
t2t: 2
model: mappings.modules.madry:Madry
source: {checkpoint: checkpoints/madry/checkpoint-700}
sources: {}

map:
- {tf: Variable,   torch: conv1.weight, permute: [3, 2, 0, 0]}
- {tf: Variabel_1, torch: conv1.bias}
- {tf: Variable_2, torch: conv2.weight, permute: [2, 3, 0, 1]}
- {tf: Variable_3, torch: conv2.bias, axes: a b -> b a}
- {tf: Variable_4, torch: fc1.weight, axes: (h w c) o -> o (c h w), dims: {h: 7, w: 6}}
- {tf: Variable_6, torch: fc2.weight}
- {tf: Variable_6, torch: fc2.weight, permute: [1, 0]}
- {tf: Variable_7, torch: fc2.baes, transpoze: true}
- {tf: global_step, torch: fc3.step, dtype: float32, reuse: true}
- {tf: "Variable_7:0", torch: fc3.weight, axes: i o -> o o}
- {torch: fc3.bias, keep: init}

ignore:
- {slots: true, why: Adam's counters, why: and more}
- {tf: global_stop, why: step counter}
- {tf: gone/**, why: it was there once}
"""


#: What convert says of it, each line after `mappings/m.yaml:`.
FOUND = """\
1:6: T2T107 version 2 of the language, this t2t reads version 1; a newer t2t may read it
4:1: T2T104 unknown key 'sources'; did you mean source
6:1: T2T205 variable Variable_5 (float32 [1024], 1024 elements) is used by no row; map it, or name it under ignore \
with a why
6:1: T2T204 parameter fc1.bias (float32 [1024]) is written by no row; map it, or give it fill or keep
7:50: T2T306 conv1.weight: permute [3, 2, 0, 0] is not a permutation; use each of 0, 1, 2, 3 once
8:8: T2T201 Variabel_1 is not a variable of the checkpoint; did you mean Variable_1, Variable_7, Variable_6
9:50: T2T304 conv2.weight: axes 'a b c d -> c d a b' turn Variable_2 [5, 5, 32, 64] into [c=32, d=64, a=5, b=5], \
but the parameter is [64, 32, 5, 5]
10:45: T2T302 conv2.bias: axes 'a b -> b a' are for rank 2, the variable has rank 1: [64]; name each axis of the \
variable once on the left side
11:75: T2T303 fc1.weight: axis 0 (h w c) has length 3136, but dims say h=7 x w=6
12:8: T2T206 Variable_6 is read 2 times, also in line 13; if that is meant, write reuse: true in each of these rows
12:27: T2T305 fc2.weight: Variable_6 [1024, 10] has rank 2 and the row no axes; write how they move; for no move: \
axes: a b -> a b
13:8: T2T206 Variable_6 is read 2 times, also in line 12; if that is meant, write reuse: true in each of these rows
13:27: T2T203 fc2.weight is written twice, first in line 12; remove one of the rows
14:8: T2T206 Variable_7 is read 2 times, also in line 16; if that is meant, write reuse: true in each of these rows
14:27: T2T202 fc2.baes is not a parameter or persistent buffer of the module; did you mean fc2.bias, fc1.bias, \
conv2.bias
14:37: T2T104 unknown key 'transpoze'; known keys: tf, torch, use, with, permute, axes, dims, slice, into, join, \
flip, order, scale, add, dtype, select, reuse, optional, fill, tie, keep, why
15:28: T2T202 fc3.step is not a parameter or persistent buffer of the module
15:61: T2T207 reuse: true, but only this row reads global_step; remove reuse
16:8: T2T109 Variable_7:0 ends in :0, which names in a mapping don't; write Variable_7
16:8: T2T206 Variable_7 is read 2 times, also in line 14; if that is meant, write reuse: true in each of these rows
16:31: T2T202 fc3.weight is not a parameter or persistent buffer of the module; did you mean fc2.weight, \
fc1.weight, conv2.weight
16:49: T2T301 fc3.weight: axes 'i o -> o o' name o 2 times on the right side
17:3: T2T105 key 'why' is missing
17:11: T2T202 fc3.bias is not a parameter or persistent buffer of the module; did you mean fc2.bias, fc1.bias, \
conv2.bias
20:39: T2T103 key 'why' stands twice, first in line 20; keep one of them
21:3: T2T208 ignore pattern global_stop matches no variable of the checkpoint; did you mean global_step
22:3: T2T208 ignore pattern gone/** matches no variable of the checkpoint; remove it: it is stale
"""

#: What only the module can tell.
OF_THE_PARAMETERS = {"T2T202", "T2T204", "T2T304"}

#: What convert learns from the module's shapes, check learns from the graph.
OF_THE_GRAPH = (
    "9:50: T2T504 conv2.weight: axes 'a b c d -> c d a b' exchange o and i: Variable_2 [5, 5, 32, 64] is the kernel "
    "(h w i o) of Conv2D Conv2D_1; write axes: h w i o -> o i h w, or, where the module itself keeps i o h w, axes: "
    "h w i o -> i o h w"
)

NO_LOCK = "6:1: T2T210 parameters not checked: no lock; t2t lock writes one, convert checks them by itself"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the example in it, where mappings can be added."""
    (tmp_path / "mappings").mkdir()
    for name in ("modules", "checkpoints", "recordings", "madry.yaml"):
        (tmp_path / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    return tmp_path


def lines(done: Done) -> list[str]:
    return [line.removeprefix("mappings/m.yaml:") for line in done.out.splitlines()]


def test_one_run_reports_every_mistake(folder: Path) -> None:
    (folder / "mappings" / "m.yaml").write_text(MISTAKES)

    done = t2t("mappings/m.yaml", "--all", cwd=folder)

    assert lines(done) == FOUND.splitlines()
    assert (done.code, done.err) == (1, "note: T2T700 importing mappings.modules.madry:Madry\n")
    assert os.listdir(folder) == ["mappings"]
    assert len({line.split()[1] for line in lines(done)}) >= 15


def test_check_reports_all_but_the_parameters_and_says_so(folder: Path) -> None:
    (folder / "mappings" / "m.yaml").write_text(MISTAKES)

    done = server().run("check", "mappings/m.yaml", "--all", cwd=folder)

    *found, last = lines(done)
    expected = [line for line in FOUND.splitlines() if line.split()[1] not in OF_THE_PARAMETERS]
    expected.append(OF_THE_GRAPH)
    assert sorted(found) == sorted([*expected, NO_LOCK])
    assert (done.code, done.err, last) == (1, "", f"1 mapping checked: {len(expected)} errors, 1 note")


def test_the_mapping_without_mistakes_has_none(folder: Path) -> None:
    """The problems above come from the mistakes alone."""
    done = server().run("check", "mappings/madry.yaml", cwd=folder)

    assert (done.code, lines(done)) == (0, [f"mappings/madry.yaml:{NO_LOCK}", "1 mapping checked: 1 note"])


#: One change of the example's text each, and the one line that it gives.
ONE_LINE = {
    "a tab": (
        "map:\n- {",
        "map:\n\t- {",
        "7:1: T2T101 a tab where YAML has spaces; indent with spaces",
    ),
    "a tag": (
        "- {tf: Variable_7",
        "- !!python/object:os.system {tf: Variable_7",
        "14:3: T2T102 tag !!python/object:os.system is not allowed in a mapping; remove it",
    ),
    "a tag on a name": (
        "tf: Variable_7",
        "tf: !!str Variable_7",
        "14:8: T2T102 tag !!str is not allowed in a mapping; remove it",
    ),
    "an anchor": (
        "- {tf: Variable_7",
        "- &last {tf: Variable_7",
        "14:3: T2T102 anchor &last is not allowed in a mapping; remove it",
    ),
    "an open brace": (
        "conv1.bias}",
        "conv1.bias",
        "9:3: T2T101 not YAML: while parsing a flow mapping, did not find expected ',' or '}'",
    ),
    "an open quote": (
        'fetch: {logits: "add_3:0"}}',
        'fetch: {logits: "add_3:0}}',
        "25:1: T2T101 not YAML: while scanning a quoted scalar, found unexpected end of stream",
    ),
    "a second document": (
        "ignore:",
        "---\nignore:",
        "16:1: T2T101 a second document begins; a mapping is one document",
    ),
    "a control character": (
        "conv1.bias",
        "conv1.\x1bbias",
        "8:33: T2T101 control character '\\x1b' in the file; remove it",
    ),
    "a list as a key": (
        "{tf: Variable_7, ",
        "{[tf]: Variable_7, ",
        "14:4: T2T101 a key that is not text; quote it",
    ),
    "no version": (
        "t2t: 1\n",
        "",
        "2:1: T2T105 key 't2t' is missing; for example t2t: 1",
    ),
}


@pytest.mark.parametrize(("old", "new", "line"), ONE_LINE.values(), ids=ONE_LINE)
def test_one_mistake_is_one_line(folder: Path, old: str, new: str, line: str) -> None:
    """Whether it stops the parser or not; the place is where a person finds it; nothing is written."""
    text = (ROOT / "mappings" / "madry.yaml").read_text("utf-8")
    assert old in text
    (folder / "mappings" / "m.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")

    done = server().run("mappings/m.yaml", cwd=folder)

    assert lines(done) == [line]
    assert done.code == 1
    assert os.listdir(folder) == ["mappings"]


NO_MAPPING = {
    "empty": (b"", "1:1: T2T101 the file is empty; a mapping begins with t2t: 1"),
    "only a comment": (b"# nothing\n", "1:1: T2T101 the file is empty; a mapping begins with t2t: 1"),
    "a list": (b"- {tf: a, torch: b}\n", "1:1: T2T106 expected keys and values, got a list of 1"),
    "nothing": (b"null\n", "1:1: T2T106 expected keys and values, got nothing"),
    "not UTF-8": (b"t2t: 1\nmodel: \xff\n", "2:8: T2T101 byte 0xff is not UTF-8; save the file as UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbft2t: 1\n", "1:1: T2T101 byte order mark in the file; remove it"),
    "UTF-16": ("t2t: 1\n".encode("utf-16"), "1:1: T2T101 byte 0xff is not UTF-8; save the file as UTF-8"),
    "too deep": (b"[" * 100_000, "1:34: T2T110 values are nested more than 32 deep"),
}


@pytest.mark.parametrize(("data", "line"), NO_MAPPING.values(), ids=NO_MAPPING)
def test_what_is_no_mapping_at_all_is_one_line(folder: Path, data: bytes, line: str) -> None:
    (folder / "mappings" / "m.yaml").write_bytes(data)

    done = server().run("mappings/m.yaml", cwd=folder)

    assert (done.code, lines(done), done.err) == (1, [line], "")
    assert os.listdir(folder) == ["mappings"]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("./mappings", "Is a directory; name a mapping, a .yaml file"),
        ("nowhere.yaml", "No such file or directory; name a mapping, a .yaml file"),
    ],
)
def test_what_cannot_be_read_is_one_line(folder: Path, place: str, why: str) -> None:
    done = server().run(place, cwd=folder)

    line = f"{place}:1:1: T2T602 the mapping cannot be read: {why}\n"
    assert (done.code, done.out, done.err) == (3, "", line)
