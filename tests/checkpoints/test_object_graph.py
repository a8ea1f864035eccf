"""Names from the object graph: those that TensorFlow finds with its own classes, and none from a broken one."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.numpy import load_file

import t2t
from t2t import checkpoints
from t2t.checkpoints import object_graph
from t2t.checkpoints.full_names import by_full_name
from t2t.checkpoints.object_graph import ObjectGraph, decode
from t2t.checkpoints.protobuf import Corrupt
from t2t.names import VALUE_SUFFIX
from t2t.problems import MappingError
from t2t.tensors import CheckpointInventory, TensorRef
from tests.checkpoints import writing
from tests.checkpoints.writing import message

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


# --- against TensorFlow and Keras ---


class Said(NamedTuple):
    """What TensorFlow and Keras say of the checkpoints that they wrote, and of real ones; by prefix."""

    folder: Path
    of: dict[str, dict[str, Any]]


def real_prefixes() -> list[str]:
    from tests.conftest import SHARED_DATA

    found = sorted(SHARED_DATA.resolve().rglob("*.index")) if SHARED_DATA.is_dir() else []
    return [str(path)[:-6] for path in found if list(path.parent.glob(f"{path.stem}.data-00000-of-*"))]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    environment["KERAS_BACKEND"] = "tensorflow"
    script = Path(__file__).with_name("with_keras.py")
    command = [sys.executable, str(script), str(folder), *real_prefixes()]
    subprocess.run(command, check=True, env=environment, timeout=300, capture_output=True)
    return Said(folder, json.loads((folder / "manifest.json").read_text()))


def inventory_of(prefix: str) -> CheckpointInventory:
    with checkpoints.open(prefix) as checkpoint:
        assert [note for note in checkpoint.notes if note.code == "T2T618"] == []
        return checkpoint.inventory


def test_full_names_are_those_that_tensorflow_finds(said: Said) -> None:
    count = 0
    for prefix, truth in said.of.items():
        refs = inventory_of(prefix).variables.values()

        assert {ref.key: ref.full_name for ref in refs if ref.full_name} == truth["full_names"], prefix
        count += len(truth["full_names"])
    assert count > 150


def test_a_full_name_is_used_where_all_its_variables_hold_the_same_values(said: Said) -> None:
    for prefix, truth in said.of.items():
        groups = defaultdict(set)
        for key, name in truth["full_names"].items():
            groups[name].add(truth["sums"][key])
        named = by_full_name(inventory_of(prefix))
        names = {ref.full_name for ref in named.variables.values() if ref.name == ref.full_name}

        if not prefix.endswith("modules"):  # one of its names is another's key
            assert names == {name for name, sums in groups.items() if len(sums) == 1}, prefix
        assert set(named.shared_names) == {name for name, sums in groups.items() if len(sums) > 1}, prefix
        for name, keys in named.shared_names.items():
            assert len({named.variables[key].name for key in keys}) > 1
            assert {named.variables[key].full_name for key in keys} == {name}


def test_slots_are_those_that_tensorflow_finds(said: Said) -> None:
    for prefix, truth in said.of.items():
        refs = inventory_of(prefix).variables
        by_key = {ref.key: ref for ref in refs.values()}

        for slot, variable in truth["slots"].items():
            assert by_key[slot].slot_of == by_key[variable].name, (prefix, slot)


def test_the_optimizers_of_keras_keep_what_keras_says(said: Said) -> None:
    kinds = set()
    for prefix, truth in said.of.items():
        if not truth["keras"]:
            continue
        refs = inventory_of(prefix).variables
        names = {ref.full_name: name for name, ref in refs.items()}
        for full_name, (owner, attribute) in truth["keras"].items():
            ref = refs[names[full_name]]
            if attribute == "_model_variables_moving_average":
                found = (ref.slot_of, ref.average_of)
                assert found == (None, names[owner]), (prefix, full_name)
            elif full_name.startswith("adafactor/") and ref.slot_of == "":
                pass  # it calls them kernel and bias, all alike: they belong to the optimizer, and no more is known
            else:
                assert (ref.slot_of, ref.average_of) == (names[owner] if owner else "", None), (prefix, full_name)
            kinds.add(attribute)
        marked = {ref.full_name for ref in refs.values() if (ref.slot_of, ref.average_of) != (None, None)}
        assert marked == set(truth["keras"]), prefix
    assert {"", "_momentums", "_velocities", "_accumulators", "_model_variables_moving_average"} <= kinds


def test_the_weights_that_keras_3_keys_under_the_optimizer_are_no_slots(said: Said) -> None:
    refs = inventory_of(str(said.folder / "Adam")).variables

    assert refs["trainer/_trainable_variables/0"].full_name == "net/dense/kernel"
    assert refs["trainer/_trainable_variables/0"].slot_of is None
    named = by_full_name(CheckpointInventory(refs)).variables
    assert named["adam/net_dense_kernel_momentum"].slot_of == "net/dense/kernel"
    assert named["adam/net_dense_kernel_average"].average_of == "net/dense/kernel"
    assert named["adam/iteration"].slot_of == ""


def test_what_keras_exports_twice_is_one_variable(said: Said) -> None:
    with checkpoints.open(said.folder / "export/variables/variables", names="full_name") as checkpoint:
        refs = checkpoint.inventory.variables

        assert list(refs) == [
            *("net/dense/bias", "net/dense/kernel", "net/dense_kernel/bias", "net/dense_kernel/kernel"),
            *("net/norm/beta", "net/norm/gamma", "net/norm/moving_mean", "net/norm/moving_variance"),
        ]
        assert refs["net/dense/kernel"].key.startswith("_all_variables/")
        assert checkpoint.read(refs["net/dense/kernel"]).shape == (3, 2)


def test_names_of_modules(said: Said) -> None:
    """A cycle, a variable in two places, names with / and ., a full name that is another's key, or empty."""
    named = by_full_name(inventory_of(str(said.folder / "modules")))

    assert {name: ref.key.removesuffix(VALUE_SUFFIX) for name, ref in named.variables.items()} == {
        **{name: name for name in [*(f"list/{i}" for i in range(12)), "a", "b"]},
        "scope/one": "one",
        "odd": "x..y.Sz",
        "zero": "zeros/0",
    }
    assert named.shared_names == {"item": tuple(f"list/{i}" for i in range(12))}


def test_what_tf1_keeps_for_its_variables(said: Said) -> None:
    for prefix in said.of:
        if "/tf1-" not in prefix:
            continue
        refs = inventory_of(prefix).variables
        slot = prefix.rpartition("-")[2]
        owned = {name: ref.slot_of for name, ref in refs.items() if ref.slot_of}

        assert {name: ref.average_of for name, ref in refs.items() if ref.average_of} == {
            "b/ExponentialMovingAverage": "b",
            "s/w/ExponentialMovingAverage": "s/w",
        }
        assert owned == {name: name.rpartition(f"/{slot}")[0] for name in refs if f"/{slot}" in name}
        rest = {name for name, ref in refs.items() if ref.slot_of is None and ref.average_of is None}
        assert rest == {"b", "s/w", "global_step"}


def test_what_the_original_calls_its_variables(shared_data: Path) -> None:
    path = shared_data / "dtln/breizhn+DTLN/DTLN_norm_40h_saved_model/variables/variables"
    with checkpoints.open(path, names="full_name") as checkpoint:
        refs = checkpoint.inventory.variables

    assert len(refs) == 26
    assert refs["dense/kernel"].key == f"layer_with_weights-3/kernel{VALUE_SUFFIX}"


def test_a_real_port_is_mapped_by_full_names(said: Said, shared_data: Path, tmp_path: Path) -> None:
    """Its rows say which variable each parameter is, by key; here they go by what TensorFlow calls those."""
    rows = csv.DictReader((shared_data / "port_match/ultralight_slim.tsv").read_text().splitlines(), delimiter="\t")
    prefix = next(prefix for prefix in said.of if prefix.endswith("export_models/slim/variables/variables"))
    text = f"t2t: 1\nmodel: m:M\nsource: {{checkpoint: {prefix}, names: full_name}}\nmap:\n"
    count = 0
    for row in rows:
        if row["tf_name"] in said.of[prefix]["full_names"]:
            move = f", {row['transform'].replace('permute', 'permute: ')}" if "permute" in row["transform"] else ""
            text += f"- {{tf: {said.of[prefix]['full_names'][row['tf_name']]}, torch: {row['torch_name']}{move}}}\n"
            count += 1
    (tmp_path / "m.yaml").write_text(text)

    assert count > 100
    problems = t2t.check(tmp_path / "m.yaml")
    assert [str(problem) for problem in problems if problem.code not in ("T2T210", "T2T205")] == []
    assert sum(problem.code == "T2T205" for problem in problems) == len(said.of[prefix]["full_names"]) - count


# --- bytes ---


def child(node: int, name: str = "x") -> tuple[int, bytes]:
    return 1, message((1, node), (2, name.encode()))


def variable(key: str, full_name: str) -> tuple[int, bytes]:
    return 2, message((1, b"VARIABLE_VALUE"), (2, full_name.encode()), (3, key.encode()))


def slot(of: int, name: str, node: int) -> tuple[int, bytes]:
    return 3, message((1, of), (2, name.encode()), (3, node))


def graph(*nodes: list[tuple[int, bytes]]) -> bytes:
    return message(*((1, message(*node)) for node in nodes))


def test_a_graph_with_a_cycle() -> None:
    data = graph(
        [child(1), slot(1, "m", 2), slot(1, "average", 3), slot(0, "m", 2)],
        [child(0), variable("w", "dense/w")],
        [variable("w/m", "dense/w/m")],
        [variable("w/average", "")],
    )

    assert decode(data) == ObjectGraph({"w": "dense/w", "w/m": "dense/w/m"}, {"w/m": "w"}, {"w/average": "w"})


def test_an_optimizer_of_keras_2_11() -> None:
    data = graph(
        [child(1, "_variables"), child(2, "_iterations")],
        [child(3, "0"), child(4, "1"), child(2, "2")],
        [variable("iterations", "Adam/iteration")],
        [variable("m", "Adam/m/dense/kernel")],
        [variable("a", "Adam/average/dense/kernel")],
        [variable("w", "dense/kernel")],
    )

    assert decode(data).slots == {"iterations": "", "m": "w"}
    assert decode(data).averages == {"a": "w"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff", "the number at byte 0 has no end"),
        (message((1, 5)), "protobuf field 1 has the wire type 0, but needs 2"),
        (graph([child(1)]), "it names the node 1, but has 1 nodes"),
        (graph([child(-1)]), "it names the node -1"),
        (graph([slot(0, "m", 2**40)]), f"it names the node {2**40}, but has 1 nodes"),
        (graph([slot(-(2**63), "m", 0)]), f"it names the node {-(2**63)}"),
        (graph([(1, message((1, b"0")))]), "protobuf field 1 has the wire type 2, but needs 0"),
        (graph([variable("k", "a"), variable("k", "b")]), "k is called a and b"),
    ],
)
def test_a_broken_graph(data: bytes, text: str) -> None:
    with pytest.raises(Corrupt) as caught:
        decode(data)
    assert str(caught.value) == text


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_graph, "MAX_NODES", 2)

    assert decode(graph([], [])) == ObjectGraph({}, {}, {})
    with pytest.raises(Corrupt, match="it has more than 2 nodes"):
        decode(graph([], [], []))


def test_many_nodes_take_no_minutes() -> None:
    nodes = [message(child(min(i + 1, 99_999)), variable(f"v/{i}", f"w/{i}")) for i in range(100_000)]
    data = b"".join(b"\n" + writing.number(len(node)) + node for node in nodes)
    began = time.process_time()

    assert len(decode(data).full_names) == 100_000
    assert time.process_time() - began < 10


def test_a_hostile_name_costs_no_time() -> None:
    long = "adam/" + "_" * 200_000
    data = graph(
        [child(1, "_variables"), child(2, "_iterations"), child(4, "_trainable_variables")],
        [child(3)],
        [],
        [variable("k", long)],
        [child(5)],
        [variable("w", "w")],
    )
    began = time.process_time()

    assert decode(data).slots == {"k": ""}
    assert time.process_time() - began < 1


# --- in a bundle ---


def string(data: bytes) -> writing.Tensor:
    """A string scalar whose checksum is wrong; that of its length is right."""
    checksum = struct.pack("<I", writing.masked(struct.pack("<I", len(data))))
    return writing.Tensor(7, (), writing.number(len(data)) + checksum + data)


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (writing.floats(1), "it is float32 [1], not a string"),
        (writing.Tensor(7, (), b"\xff" * 5), "it should have 1 lengths of strings, but 0 are stored"),
        (writing.Tensor(7, (), b"\x7f" + b"\0" * 9), "its strings should have 127 bytes, but 5 are stored"),
        (string(graph([child(1)])), "it names the node 1, but has 1 nodes"),
        (string(graph([variable("b", "c")])), "it names b, which the checkpoint does not hold"),
        (string(b"\xff\xff"), "the number at byte 0 has no end"),
    ],
)
def test_of_a_broken_graph_no_name_is_used_and_a_warning_says_so(stored: writing.Tensor, text: str, x: Path) -> None:
    writing.bundle(x, {"a": writing.floats(1), KEY: stored})
    with checkpoints.open(x, checksums=False, names="full_name") as checkpoint:
        assert list(checkpoint.inventory.variables) == ["a"]
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [1]
        assert [str(note) for note in checkpoint.notes] == [
            f"{x}.index: T2T618: the object graph cannot be read, so full names are not known: {text}; variables go by "
            "their keys; if that is not enough, save or copy the checkpoint again"
        ]


def test_a_damaged_graph_is_noticed_by_its_checksum(x: Path) -> None:
    writing.bundle(x, {"a": writing.floats(1), KEY: string(graph([variable("a", "b")]))})
    with checkpoints.open(x, checksums=False) as checkpoint:
        assert checkpoint.inventory.variables["a"].full_name == "b"
    with checkpoints.open(x) as checkpoint:
        assert checkpoint.inventory.variables["a"].full_name is None
        assert "checksum mismatch (stored 0x" in checkpoint.notes[0].message


def test_a_mapping_by_full_name_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """k and l are copies; m and n share a name and nothing else, so they go by their keys."""
    monkeypatch.chdir(tmp_path)
    stored = string(graph(*([variable(key, full)] for key, full in zip("klmn", ["d/w", "d/w", "s", "s"], strict=True))))
    tensors = {"k": writing.floats(1, 2), "l": writing.floats(1, 2), "m": writing.floats(3), "n": writing.floats(4)}
    crc = writing.masked(struct.pack("<I", len(stored.data) - 5) + stored.data[1:])
    writing.bundle(tmp_path / "x", {**tensors, KEY: stored}, fields={KEY: [(6, writing.Fixed32(crc))]})
    (tmp_path / "named.py").write_text(
        "import torch\n\n\nclass M(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a = torch.nn.Parameter(torch.zeros(2))\n        self.b = torch.nn.Parameter(torch.zeros(1))\n"
    )
    head = "t2t: 1\nmodel: named:M\nsource: {checkpoint: x, names: full_name}\nmap:\n- {tf: d/w, torch: a}\n"
    (tmp_path / "m.yaml").write_text(head + "- {tf: n, torch: b}\nignore: [{tf: m, why: unused}]\n")
    t2t.convert("m.yaml", "m.safetensors")

    assert {name: array.tolist() for name, array in load_file("m.safetensors").items()} == {"a": [1, 2], "b": [4]}

    (tmp_path / "m.yaml").write_text(head + "- {tf: s, torch: b}\n")
    with pytest.raises(MappingError) as caught:
        t2t.convert("m.yaml", "m.safetensors")
    assert [str(problem) for problem in caught.value.problems] == [
        "m.yaml:6:8: T2T211 s is the full name of 2 variables with different values: m, n; "
        "write which of these is meant: they go by their keys"
    ]


# --- by full name ---


def named(*refs: TensorRef, **more: Any) -> CheckpointInventory:
    return by_full_name(CheckpointInventory({ref.name: ref for ref in refs}, **more))


def ref(name: str, full_name: str | None, crc32c: int | None = 1, **more: Any) -> TensorRef:
    return TensorRef(name, "float32", (2,), crc32c=crc32c, full_name=full_name, key=name, **more)


def test_slots_averages_and_trainables_follow_their_variables() -> None:
    refs = [
        *(ref("k/10", "w"), ref("k/2", "w"), ref("s", "w/m", slot_of="k/10"), ref("t", None, slot_of="")),
        ref("e", "w/e", average_of="k/2"),
    ]
    made = named(*refs, trainable=frozenset({"k/10", "t"}))

    assert list(made.variables) == ["t", "w", "w/e", "w/m"]
    assert made.variables["w"].key == "k/2"
    assert (made.variables["w/m"].slot_of, made.variables["t"].slot_of) == ("w", "")
    assert made.variables["w/e"].average_of == "w"
    assert made.trainable == frozenset({"w", "t"})
    assert made.shared_names == {}


def test_a_name_of_different_values_is_nobodys() -> None:
    made = named(ref("a", "w", 1), ref("b", "w", 2), ref("c", "w", 1))

    assert list(made.variables) == ["a", "b", "c"]
    assert made.shared_names == {"w": ("a", "b", "c")}


def test_a_name_that_another_goes_by_is_not_taken() -> None:
    """a keeps its name, so b cannot be called a; so c cannot be called b, and d is free to be called z."""
    made = named(ref("a", None), ref("b", "a"), ref("c", "b"), ref("d", "z"), ref("x", "y"), ref("y", "x"))

    assert {name: ref.key for name, ref in made.variables.items()} == dict(zip("abczxy", "abcdyx", strict=True))


def test_values_are_read_only_where_copies_are_possible_and_no_checksum_is_stored() -> None:
    read: list[str] = []

    def checksum(ref: TensorRef) -> int:
        read.append(ref.name)
        return len(ref.key) % 2

    other = TensorRef("q", "int8", (2,), full_name="v")
    refs = [ref("k", "w", None), ref("l", "w", None), ref("p", "v", None), other, ref("z", "u", None)]
    made = named(*refs, ref("mm", "t", None), ref("n", "t", None), checksum=checksum)

    assert read == ["k", "l", "mm", "n"]
    assert list(made.variables) == ["mm", "n", "p", "q", "u", "w"]
    assert made.shared_names == {"t": ("mm", "n"), "v": ("p", "q")}


def test_what_cannot_be_read_is_no_copy() -> None:
    refs = [ref("k", "w", None, unreadable="it is gone"), ref("l", "w", None, unreadable="it is gone")]

    assert named(*refs, checksum=lambda ref: 1).shared_names == {"w": ("k", "l")}
