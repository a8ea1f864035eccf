"""The lock's file: what is written is read as the same, and whatever is not a whole lock is refused with its reason."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2t import api
from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.checkpoints.slots import with_slots
from t2t.names import natural
from t2t.problems import CheckpointError, OutputError
from t2t.proof.compare import Comparison, OutputDelta
from t2t.review import lock as locks
from t2t.review import locking
from t2t.review.lock import Figures, Lock, Proof
from t2t.tensors import DTYPES, CheckpointInventory, ModuleInventory, ParameterRef, TensorRef
from tests.commands import ROOT, python, small
from tests.fuzzing.mutating import edited, mutated
from tests.gallery.published import MODELS, adam_weight_decay

LOCKS = sorted((ROOT / "mappings").glob("*.lock.json"))
SCHEMA = json.loads((ROOT / "schemas" / "lock.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

every_lock = pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name.partition(".")[0])
by_rule = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
AGAIN = "write it again with t2t lock"

#: A lock in which everything stands that can stand in one.
WHOLE = ROOT / "tests" / "fuzzing" / "corpus" / "lock" / "whole"


# --- what is written is read as the same ---


@every_lock
def test_a_lock_of_the_gallery_is_read_and_written_as_the_same_bytes(path: Path) -> None:
    data = path.read_bytes()
    read = locks.read(str(path))

    assert locking.text(read) == data
    assert read.path == str(path)
    assert VALIDATOR.is_valid(json.loads(data))
    assert data.isascii()
    assert data.endswith(b"}\n")


#: What a reader of checkpoints or a module may call something: what was no UTF-8, controls, words that mean something.
ODD = ["", "w", "w/Adam", "w/Adam_1", "w/ExponentialMovingAverage", "beta1_power", "a/.OPTIMIZER_SLOT/adam/m",
       "\udcff", "\x1b[31m", '"}\n', "\u2028", "é", "\U0001f600", "layer_10", "__proto__", "t2t.lock"]  # fmt: skip
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff")
NAMES = st.sampled_from(ODD) | st.text(CHARACTERS, max_size=8)
CRCS = st.integers(0, 2**32 - 1)
SHAPES = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 4), max_size=4).map(tuple)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
FIGURE = st.floats(0, 1e300).map(locks.rounded)
TEXTS = st.dictionaries(NAMES, NAMES, max_size=3)


@st.composite
def inventories(draw: st.DrawFn) -> CheckpointInventory:
    """Variables as a reader gives them; for some of them it says what their names alone do not."""
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    refs = {}
    for name in names:
        dtype, shape = draw(st.sampled_from(sorted(DTYPES))), draw(SHAPES)
        nbytes = math.prod(shape) * DTYPES[dtype].itemsize
        crc = draw(CRCS | st.none())
        refs[name] = TensorRef(name, dtype, shape, nbytes=nbytes, crc32c=crc, key=name)
    refs = with_slots(refs)
    for name in names:
        said: dict[str, Any] = {
            "key": NAMES.filter(bool),
            "full_name": NAMES.map(lambda other, own=name: f"{own}/{other}"),  # type: ignore[misc]
            "nbytes": st.integers(0, 2**70),
            "unreadable": NAMES,
            "slot_of": NAMES | st.none(),
            "average_of": NAMES | st.none(),
        }
        more = draw(st.fixed_dictionaries({}, optional=said)) if draw(st.booleans()) else {}
        refs[name] = replace(refs[name], **more)
    return CheckpointInventory(refs, shared_names=draw(st.dictionaries(NAMES, st.lists(NAMES).map(tuple), max_size=2)))


@st.composite
def made_locks(draw: st.DrawFn) -> Lock:
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    parameters: dict[str, ParameterRef] = {}
    for name in names:
        tied = draw(st.none() | st.sampled_from(list(parameters))) if parameters else None
        kind: Any = draw(st.sampled_from(["parameter", "buffer"]))
        parameters[name] = ParameterRef(name, draw(st.sampled_from(sorted(DTYPES))), draw(SHAPES), kind, tied)
    accuracy = draw(st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)))
    outputs = st.dictionaries(NAMES, st.builds(Figures, FIGURE, FIGURE, FIGURE), max_size=2)
    proof = st.builds(Proof, st.just(""), TEXTS, outputs, st.just(accuracy)) | st.builds(Proof, NAMES.filter(bool))
    inventory = draw(inventories())
    crcs = {name: draw(CRCS) for name in names}
    if draw(st.booleans()):  # names and shapes alone
        crcs, inventory, proof = {}, locks.names_alone(inventory), st.builds(Proof, NAMES.filter(bool))
    return Lock(
        path="m.lock.json",
        model=draw(NAMES),
        arguments=draw(st.dictionaries(NAMES, PLAIN, max_size=3)),
        names=draw(st.sampled_from(["key", "full_name"])),
        written=draw(NAMES),
        source=inventory.digest,
        checkpoint=inventory,
        module=ModuleInventory(parameters),
        steps={name: f"{draw(st.integers(0, 2**64 - 1)):016x}" for name in names},
        outputs=crcs,
        require=draw(st.dictionaries(NAMES, st.dictionaries(NAMES, st.dictionaries(NAMES, PLAIN, max_size=2)))),
        proof=draw(proof),
        made_by=draw(TEXTS),
    )


@settings(by_rule, max_examples=100)
@given(made_locks())
def test_any_lock_is_read_as_the_same(made: Lock) -> None:
    data = locking.text(made)
    read = locks.parse(data, made.path)

    assert read == made
    assert list(read.module.parameters.items()) == list(made.module.parameters.items())
    assert list(read.checkpoint.variables) == sorted(made.checkpoint.variables, key=natural)
    assert locking.text(read) == data
    tree = json.loads(data)
    assert list(VALIDATOR.iter_errors(tree)) == []
    entries = len(tree["parameters"]) + len(tree["variables"])
    assert data.count(b"\n") >= entries  # one a line, whatever is in its name


def lock(*refs: TensorRef, checksum: Callable[[TensorRef], int] | None = None) -> Lock:
    """A small lock of these variables."""
    inventory = CheckpointInventory({ref.name: ref for ref in refs}, checksum=checksum)
    module = ModuleInventory({"p": ParameterRef("p", "float32", (2,))})
    inside: dict[str, Any] = {"steps": {"p": "0" * 16}, "outputs": {"p": 1}, "require": {}, "made_by": {}}
    return Lock(
        "m.lock.json", "m:M", {}, "key", "w", inventory.digest, inventory, module, proof=Proof(unproven="no"), **inside
    )


def test_where_the_format_stores_no_checksums_they_are_computed_and_then_known() -> None:
    ref = TensorRef("w", "float32", (2,), nbytes=8, key="w")
    made = lock(ref, TensorRef("v", "variant", (), unreadable="dtype variant", key="v"), checksum=lambda ref: 0xABC)

    read = locks.parse(locking.text(made), "x")

    assert read.checkpoint.variables["w"] == replace(ref, crc32c=0xABC)
    assert read.checkpoint.variables["v"].crc32c is None
    assert read.checkpoint.is_cheap
    assert read.checkpoint.digest == made.source


def test_what_names_and_shapes_tell_is_not_written() -> None:
    refs = {name: TensorRef(name, "float32", (2,), nbytes=8, key=name) for name in ("w", "w/Adam")}
    text = locking.text(lock(*with_slots(refs).values())).decode()

    assert '    "w/Adam": ["float32", [2], null]\n' in text
    assert locks.parse(text.encode(), "x").checkpoint.variables["w/Adam"].slot_of == "w"


def test_a_name_may_have_64_kib() -> None:
    long = "\x1b\udcff" * 2**15
    made = lock(TensorRef(long, "float32", (), nbytes=4, key=long))

    assert locks.parse(locking.text(made), made.path) == made


def test_variables_stand_in_their_numbers_order() -> None:
    refs = [TensorRef(f"layer_{number}", "float32", (), nbytes=4, key=f"layer_{number}") for number in (10, 9, 1)]

    read = locks.parse(locking.text(lock(*refs)), "x")

    assert list(read.checkpoint.variables) == ["layer_1", "layer_9", "layer_10"]


# --- how large, and the same everywhere ---


def test_the_lock_of_a_model_of_619_variables_is_small() -> None:
    """BERT as Google published it, with its optimizer's slots."""
    shapes = MODELS["bert_base"].variables(small=False)
    shapes |= adam_weight_decay(shapes)
    assert len(shapes) == 619
    refs = {}
    for name, shape in shapes.items():
        dtype = "float32" if shape else "int64"
        nbytes, crc = math.prod(shape) * DTYPES[dtype].itemsize, int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        refs[name] = TensorRef(name, dtype, shape, nbytes=nbytes, crc32c=crc, key=name)
    path = ROOT / "mappings" / "bert_base.yaml"
    read, _ = mapping_file.read(path.read_bytes(), str(path))
    assert read is not None
    plan, _ = planning.make(read, CheckpointInventory(with_slots(refs)), None)
    module = ModuleInventory({step.target: ParameterRef(step.target, step.dtype, step.shape) for step in plan.steps})
    outputs = dict.fromkeys(module.parameters, 2**32 - 1)

    more: dict[str, Any] = {"require": {}, "proof": Proof(unproven="no"), "made_by": {"t2t": "0.1.0"}}
    data = locking.text(locking.made("x", plan, module, outputs=outputs, **more))

    assert len(module.parameters) > 200
    assert len(data) < 100_000


WRITES = "from t2t import api; print(api.lock('small.yaml').path)"


def test_it_has_the_same_bytes_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of sets is there, the language and the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small(tmp_path)
    sys.modules.pop("small", None)
    here = Path(api.lock("small.yaml").path).read_bytes()
    sys.modules.pop("small", None)
    again = Path(api.lock("small.yaml").path).read_bytes()

    env = {"PYTHONHASHSEED": "7", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONPATH": f"{ROOT}:."}
    done = python("-c", WRITES, cwd=tmp_path, env=env)

    assert (done.code, done.out) == (0, "small.lock.json\n"), done.err
    assert here == again == (tmp_path / "small.lock.json").read_bytes()


# --- where it stands ---


def test_it_stands_beside_its_mapping() -> None:
    assert locks.place("mappings/model.yaml") == "mappings/model.lock.json"
    assert locks.place("a.b/model.v2.yml") == "a.b/model.v2.lock.json"


def test_it_replaces_a_lock_of_any_version_and_nothing_else(tmp_path: Path) -> None:
    made = replace(lock(TensorRef("w", "float32", (), nbytes=4, key="w")), path=str(tmp_path / "m.lock.json"))
    place = Path(made.path)
    for before in (None, locking.text(made), b'{"t2t.lock": 99, "all": "else"}', b'\n{\r\n\t"t2t.lock": "old"'):
        if before is not None:
            place.write_bytes(before)
        locking.save(made)
        assert place.read_bytes() == locking.text(made)
    place.write_bytes(b'{"lockfileVersion": 3}')

    with pytest.raises(OutputError) as error:
        locking.save(made)

    (problem,) = error.value.problems
    assert (problem.code, place.read_bytes()) == ("T2T801", b'{"lockfileVersion": 3}')
    locking.save(made, force=True)
    assert locks.read(made.path) == made


# --- what is refused ---


def refused(data: bytes) -> str:
    with pytest.raises(CheckpointError) as error:
        locks.parse(data, "m.lock.json")
    (problem,) = error.value.problems
    assert problem.code == "T2T620"
    assert str(problem).isprintable()
    start, end = "m.lock.json", f"; {AGAIN}"
    assert str(problem).startswith(start)
    assert str(problem).endswith(end)
    return str(problem)[len(start) : -len(end)].replace(" T2T620", "").replace(": T2T620:", ":")


def test_the_whole_text_of_a_refusal() -> None:
    with pytest.raises(CheckpointError) as error:
        locks.parse(b"{", "m.lock.json")

    assert str(error.value) == (
        "m.lock.json:1:2: T2T620 not JSON: Expecting property name enclosed in double quotes; "
        "write it again with t2t lock"
    )


TEXT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ":1:1: not JSON: Expecting value"),
    "a mapping": (b"t2t: 1\nmodel: a:A\n", ":1:1: not JSON: Expecting value"),
    "no UTF-8": (b'{"t2t.lock": "\xff"}', ":: not JSON: it cannot be decoded"),
    "UTF-16": ('{"t2t.lock": 1}'.encode("utf-16"), ":: not JSON: it cannot be decoded"),
    "a merge's marks": (b'{"t2t.lock": 1,\n<<<<<<< HEAD\n"model": "a"', ":2:1: not JSON: Expecting property name "
                        "enclosed in double quotes"),
    "deep": (b'{"t2t.lock": ' + b"[" * 100_000, ":: not JSON: it cannot be decoded"),
    "a long number": (b'{"t2t.lock": ' + b"9" * 10_000 + b"}", ":: not JSON: it cannot be decoded"),
    "not a number": (b'{"t2t.lock": NaN}', ":: NaN is no number of a lock"),
    "infinity": (b'{"t2t.lock": -Infinity}', ":: -Infinity is no number of a lock"),
    "out of range": (b'{"t2t.lock": 1, "with": {"x": 1e999}}', ":: 1e999 is no number of a lock"),
    "a key twice": (b'{"t2t.lock": 1, "with": {"a\\n": 1, "a\\n": 2}}', ":: a\\n stands twice in the lock"),
    "a list": (b"[]", ":: m.lock.json is not a lock: it has no t2t.lock"),
    "npm's": (b'{"lockfileVersion": 3}', ":: m.lock.json is not a lock: it has no t2t.lock"),
    "another version": (b'{"t2t.lock": 2}', ":: the lock's version is 2, this t2t reads 1"),
    "a truth": (b'{"t2t.lock": true}', ":: the lock's version is True, this t2t reads 1"),
    "a text": (b'{"t2t.lock": "1\\u001b"}', ":: the lock's version is 1\\x1b, this t2t reads 1"),
    "a nest": (b'{"t2t.lock": ' + b"[" * 900 + b"]" * 900 + b"}", ":: the lock's version is no number, this t2t "
               "reads 1"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), TEXT.values(), ids=TEXT)
def test_what_is_no_lock_is_refused(data: bytes, message: str) -> None:
    assert refused(data) == message


@every_lock
def test_a_lock_that_is_cut_off_is_refused_wherever_it_ends(path: Path) -> None:
    data = path.read_bytes()
    random = Random(0)
    for end in [*range(min(len(data) - 2, 400)), *(random.randrange(len(data) - 2) for _ in range(100))]:
        assert ": not JSON: " in refused(data[:end])


def tree() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(WHOLE.read_bytes())
    return loaded


def without(*path: str) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return edit


def having(value: Any, *path: str | int) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return edit


def no_checksums(document: Any) -> None:
    for entry in document["parameters"].values():
        entry[3] = None


W, P = ("variables", "dense/kernel"), ("parameters", "fc.weight")
NO_CRC = "the checksum of fc.weight is not eight hexadecimal digits"
NO_ACCURACY = "figures of the proof are tensorflow, torch, and nothing else"
NO_ENTRY = "is not what it must be: a dtype, a shape, digests"
NOTHING_ELSE = "figures of the proof are max_delta, scale, tolerance, and nothing else"
EDITED = "its variables are not those that its source is the digest of: somebody edited the lock"
TREES: dict[str, tuple[Callable[[Any], None], str]] = {
    **{
        f"no {key}": (without(key), f"{key} is missing in the lock")
        for key in ("made_by", "model", "with", "proof", "parameters", "names", "source", "variables")
    },
    "an unknown key": (having(1, "stray\x1b"), "stray\\x1b is no key of a lock"),
    "with as a list": (having([], "with"), "with is not a JSON object"),
    "model as a number": (having(3, "model"), "model is not what it must be"),
    "a short source": (having("12", "source"), "source is not what it must be"),
    "a source in capitals": (having("A" * 64, "source"), "source is not what it must be"),
    "names": (having("keys", "names"), "names is keys, neither key nor full_name"),
    "made_by": (having({"t2t": 1}, "made_by"), "made_by holds something else than text"),
    "shared": (having({"a": [1]}, "shared"), "shared does not hold lists of names"),
    "shared as null": (having(None, "shared"), "shared is missing in the lock"),
    "require": (having({"a": {"b": 1}}, "require"), "require is not attributes by pattern and module"),
    "require as null": (having(None, "require"), "require is not attributes by pattern and module"),
    "no proof": (having({}, "proof"), "proof is neither figures nor the reason why there are none"),
    "both proofs": (having("x", "proof", "unproven"), "proof is neither figures nor the reason why there are none"),
    "recording": (having({"a": None}, "proof", "recording"), "recording holds something else than text"),
    "a reason that is none": (having({"unproven": 1}, "proof"), "unproven is not what it must be"),
    "an empty reason": (having({"unproven": ""}, "proof"), "unproven is not what it must be"),
    "a figure more": (having(1, "proof", "outputs", "y", "more"), NOTHING_ELSE),
    "no figures": (having(None, "proof", "outputs", "y"), NOTHING_ELSE),
    "a figure as text": (having("1", "proof", "outputs", "y", "scale"), "a figure of the proof is not a number"),
    "a figure as truth": (having(True, "proof", "outputs", "y", "scale"), "a figure of the proof is not a number"),
    "a huge figure": (having(10**400, "proof", "outputs", "y", "scale"), "a figure of the proof is not a number"),
    "accuracy": (having({"torch": 1}, "proof", "accuracy"), NO_ACCURACY),
    "an entry that is short": (having(["float32"], *W), f"the entry of dense/kernel {NO_ENTRY}"),
    "an entry that is long": (having(["float32", [], None, {}, {}], *W), f"the entry of dense/kernel {NO_ENTRY}"),
    "an entry that is text": (having("abc", *W), f"the entry of dense/kernel {NO_ENTRY}"),
    "an unknown dtype": (having("float33", *W, 0), f"the entry of dense/kernel {NO_ENTRY}"),
    "a dtype as a list": (having([], *P, 0), f"the entry of fc.weight {NO_ENTRY}"),
    "a negative size": (having([-1], *W, 1), f"the entry of dense/kernel {NO_ENTRY}"),
    "a size of 2**63": (having([2**63], *W, 1), f"the entry of dense/kernel {NO_ENTRY}"),
    "a size as a truth": (having([True], *P, 1), f"the entry of fc.weight {NO_ENTRY}"),
    "a size with a point": (having([1.0], *P, 1), f"the entry of fc.weight {NO_ENTRY}"),
    "300 axes": (having([2**62] * 300, *W, 1), f"the entry of dense/kernel {NO_ENTRY}"),
    "a checksum as a number": (having(7, *W, 2), "the checksum of dense/kernel is not eight hexadecimal digits"),
    "a checksum in capitals": (having("ABCDEF01", *P, 3), NO_CRC),
    "a checksum with an end": (having("abcdef01\n", *P, 3), NO_CRC),
    "a parameter without one": (having(None, *P, 3), "fc.weight has no checksum, but tied.weight has one"),
    "a proof of no values": (no_checksums, "it holds a proof, but no checksum of what was proven"),
    "a digest": (having("0" * 15, *P, 2), "the digest of fc.weight is not sixteen hexadecimal digits"),
    "a kind": (having(["float32", [], "0" * 16, "0" * 8, {"kind": "x"}], *P),
               "the entry of fc.weight says something that no lock says"),
    "an extra": (having(["float32", [], "0" * 16, "0" * 8, {"more": 1}], *P),
                 "the entry of fc.weight says something that no lock says"),
    "tied to nothing": (having(["float32", [], "0" * 16, "0" * 8, {"tied_to": "gone"}], *P),
                        "fc.weight is tied to gone, which is no parameter of the lock"),
    "tied to itself": (having(["float32", [], "0" * 16, "0" * 8, {"tied_to": "fc.weight"}], *P),
                       "fc.weight is tied to fc.weight, which is no parameter of the lock"),
    "a variable's extra": (having(["float32", [], None, {"shard": 1}], *W),
                           "the entry of dense/kernel says something that no lock says"),
    "bytes as a truth": (having(["float32", [], None, {"nbytes": True}], *W),
                         "the entry of dense/kernel says something that no lock says"),
    "a key that is null": (having(["float32", [], None, {"key": None}], *W),
                           "the entry of dense/kernel says something that no lock says"),
    "another checksum": (having("00000000", *W, 2), EDITED),
    "another shape": (having([1, 2, 3], *W, 1), EDITED),
    "another dtype": (having("int32", *W, 0), EDITED),
    "a variable less": (without("variables", "global_step"), EDITED),
    "a variable more": (having(["float32", [], None], "variables", "more"), EDITED),
    "half a character": (having(["float32", [], None], "variables", "\ud800"), EDITED),
    "another source": (having("0" * 64, "source"), EDITED),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), TREES.values(), ids=TREES)
def test_a_lock_that_was_changed_is_refused_with_what_is_wrong(edit: Callable[[Any], None], message: str) -> None:
    document = tree()
    edit(document)

    assert refused(json.dumps(document).encode()) == f":: {message}"


def test_the_lock_that_was_changed_is_whole_before() -> None:
    whole = locks.parse(WHOLE.read_bytes(), "x")

    assert locking.text(whole) == WHOLE.read_bytes()
    assert tree().keys() == SCHEMA["properties"].keys()
    assert whole.checkpoint.variables["dense/kernel"].full_name == "model/dense/kernel"


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "m.lock.json"
    with path.open("wb") as file:
        file.truncate(2**24 + 1)

    with pytest.raises(CheckpointError) as error:
        locks.read(str(path))

    most = "the file is larger than 16777216 bytes, the most that a lock has"
    assert str(error.value) == f"{path}: T2T620: {most}; {AGAIN}"


def test_what_is_no_file_is_refused_and_nobody_waits(tmp_path: Path) -> None:
    path = tmp_path / "m.lock.json"
    told = []
    for make in (lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("nowhere")):
        make()  # type: ignore[no-untyped-call]
        with pytest.raises(CheckpointError) as error:
            locks.read(str(path))
        told.append(str(error.value).removeprefix(f"{path}: "))
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    assert told == [
        "T2T602: cannot be opened: no such file or directory",
        "T2T602: not a regular file",
        "T2T602: not a regular file",
        "T2T602: cannot be opened: no such file or directory",
    ]


# --- damage ---


def seeds() -> Iterator[bytes]:
    yield WHOLE.read_bytes()
    yield (ROOT / "mappings" / "madry.lock.json").read_bytes()


@settings(by_rule, max_examples=400)
@given(st.sampled_from(list(seeds())), st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_damage_is_read_or_refused(data: bytes, numbers: list[int]) -> None:
    for number in numbers:
        random = Random(number)
        data = mutated("lock", data, random, lambda part: edited(part, random))  # noqa: B023 - called at once
    try:
        read = locks.parse(data, "m.lock.json")
    except CheckpointError as error:
        (problem,) = error.problems
        assert (problem.code, str(problem).isprintable()) == ("T2T620", True)
        return
    assert locking.text(locks.parse(locking.text(read), "m.lock.json")) == locking.text(read)


ODD_VALUES: list[Any] = [None, True, False, 0, 1, -1, 1.5, 1.0, 2**63, 10**400, "", "x", "0" * 8, "0" * 16, "0" * 64,
                         "\ud800", [], [[]], [1, 2], {}, {"x": 1}, {"unproven": "x"}, {"unproven": ""}, "float32",
                         "buffer", "key"]  # fmt: skip


def changed(document: Any, random: Random) -> None:
    """Something in the document left out, put in, renamed, or replaced by something of another kind."""
    places: list[tuple[Any, Any]] = []
    found = [document]
    while found:
        inside = found.pop()
        keys: list[Any] = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        places += [(inside, key) for key in keys]
        found += [inside[key] for key in keys if isinstance(inside[key], dict | list)]
    inside, key = random.choice(places)
    kind = random.randrange(5)
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, dict):
        inside[random.choice(["x", "kind", "key", "unproven", "accuracy", "shared"])] = random.choice(ODD_VALUES)
    elif kind == 1:
        inside.insert(key, random.choice(ODD_VALUES))
    elif kind == 2:
        inside[key] = copy.deepcopy(random.choice(places)[0])
    else:
        inside[key] = random.choice(ODD_VALUES)


def test_what_the_schema_refuses_the_reader_refuses_and_nearly_the_other_way_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of what names and digests have to fit each other for, only the reader knows; here they fit whatever they are."""
    monkeypatch.setattr(CheckpointInventory, "digest", tree()["source"])
    taken = refused_by_both = 0
    stricter = set()
    for number in range(1500):
        random = Random(number)
        document = tree()
        for _ in range(random.choice((1, 1, 2))):
            changed(document, random)
        is_valid = VALIDATOR.is_valid(document)
        try:
            locks.parse(json.dumps(document).encode(), "x")
        except CheckpointError as error:
            refused_by_both += not is_valid
            if is_valid:
                stricter.add(error.problems[0].message)
        else:
            assert is_valid, list(VALIDATOR.iter_errors(document))
            taken += 1

    assert taken > 150
    assert refused_by_both > 500
    known = (NO_ENTRY, "no checksum", "tied to", "source is the digest", "not a number", "figures of the proof are")
    assert [told for told in stricter if not any(text in told for text in known)] == []


def test_every_property_of_the_schema_is_described_and_has_an_example() -> None:
    found = 0
    nodes: list[Any] = [SCHEMA]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            for key in ("properties", "definitions"):
                for name, below in node.get(key, {}).items():
                    assert below.get("description"), name
                    assert below.get("examples"), name
                    if key == "properties":
                        assert [
                            e for e in below["examples"] if not VALIDATOR.evolve(schema=_whole(below)).is_valid(e)
                        ] == []
                    found += 1
            nodes += [value for key, value in node.items() if key != "examples"]

    assert found > 20


def _whole(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "definitions": SCHEMA["definitions"]}


def test_the_page_shows_lines_of_a_lock() -> None:
    page = (ROOT / "docs" / "lock.md").read_text(encoding="utf-8")
    shown = page.partition("```json\n")[2].partition("```")[0].splitlines()

    assert len(shown) > 8
    assert set(shown) <= set((ROOT / "mappings" / "madry.lock.json").read_text().splitlines())


# --- the figures of a proof ---


def delta(output: str, max_delta: float, scale: float, draw: int = 0) -> OutputDelta:
    tolerance = VERIFY.abs + VERIFY.rel * scale
    return OutputDelta(output, draw, (1,), max_delta, scale, tolerance, (0,), scale, scale, max_delta <= tolerance)


VERIFY: Any = SimpleNamespace(abs=1e-6, rel=1e-5)


def test_a_proof_s_figures_are_those_of_the_run_that_comes_nearest_to_its_tolerance() -> None:
    deltas = (
        delta("a", 1.234e-5, 18.04),
        delta("b", 0.0, 0.0),
        delta("a", 1.2e-5, 1.249, 1),
        delta("a", 1e-5, 99.0, 2),
    )
    recording: Any = SimpleNamespace(made_from={"checkpoint": "1"})

    proof = locking.proof(recording, Comparison(deltas, None, VERIFY))

    assert proof == Proof("", {"checkpoint": "1"}, {"a": Figures(1.2e-5, 1.2, 1.3e-5), "b": Figures(0.0, 0.0, 1e-6)})


def test_figures_have_two_digits() -> None:
    assert [locks.rounded(value) for value in (0.0, 1.2345e-5, 17.96, 99.6, 1e300)] == [0.0, 1.2e-5, 18.0, 100.0, 1e300]
