"""What changed in the weights: nothing by another spelling, and exactly what a change changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from t2t.review import diff, told
from t2t.review import lock as locks
from t2t.review.diff import Diff, MappingDiff, compare
from t2t.review.diff import compared as all_compared
from t2t.review.lock import Figures, Proof
from t2t.review.revisions import Pairs, Version
from t2t.tensors import CheckpointInventory
from tests.given import lines
from tests.review.versions import SHAPES, compared, inventory, lock, locked, mapping

Shapes = dict[str, tuple[int, ...]]


def told_of(found: MappingDiff) -> list[str]:
    """The lines of one mapping, without what sums them up."""
    return told.diff(Diff("old", "new", (found,), 0, (), ()))[:-1]


def changes(found: MappingDiff) -> list[str]:
    return [line.strip() for line in told_of(found)[1:] if not line.startswith("  proof")]


# --- what is the same ---

LAYERS = [
    row
    for i in range(3)
    for row in (
        f"{{tf: layer_{i}/kernel, torch: layers.{i}.weight, axes: i o -> o i}}",
        f"{{tf: layer_{i}/bias, torch: layers.{i}.bias}}",
    )
]
FOR = [
    "{tf: layer_<i>/kernel, torch: layers.<i>.weight, axes: i o -> o i}",
    "{tf: layer_<i>/bias, torch: layers.<i>.bias}",
]
NORM = [
    "{tf: bn/gamma, torch: bn.weight}",
    "{tf: bn/beta, torch: bn.bias}",
    "{tf: bn/moving_mean, torch: bn.running_mean}",
    "{tf: bn/moving_variance, torch: bn.running_var}",
    "{torch: bn.num_batches_tracked, fill: 0}",
]
PART = '{tf: w, torch: p, slice: ["2:"], axes: i o -> i o}'
GATES = "{tf: b, torch: p, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}, add: {g: {f: 1.0}}}"

SAME: dict[str, tuple[str, str]] = {
    "axes by other names": (
        mapping(["{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {h: 4}, flip: [h]}"]),
        mapping(["{tf: d, torch: p, axes: (x y) z -> z (y x), dims: {x: 4}, flip: [x]}"]),
    ),
    "permute instead of axes": (
        mapping(["{tf: k, torch: p, axes: h w i o -> o i h w}"]),
        mapping(["{tf: k, torch: p, permute: [3, 2, 0, 1]}"]),
    ),
    "axes that say that nothing moves": (
        mapping(["{tf: b, torch: p, flip: [0]}"]),
        mapping(["{tf: b, torch: p, flip: [0], axes: a -> a}"]),
    ),
    "rows in another order": (mapping(LAYERS), mapping(LAYERS[::-1])),
    "parts in another order": (
        mapping(['{torch: p, into: ["0:1"], fill: 0}', '{tf: sq, torch: p, into: ["1:"], axes: v d -> v d}']),
        mapping(['{tf: sq, torch: p, into: ["1:"], axes: v d -> v d}', '{torch: p, into: ["0:1"], fill: 0}']),
    ),
    "a for": (mapping(LAYERS), mapping(FOR, "for: {i: 0..2}\n")),
    "a for, written out": (mapping(FOR, "for: {i: 0..2}\n"), mapping(LAYERS)),
    "a for of another letter": (
        mapping(FOR, "for: {i: 0..2}\n"),
        mapping([row.replace("<i>", "<n>") for row in FOR], "for: {n: [0, 1, 2]}\n"),
    ),
    "a letter of a drop": (
        mapping([PART], 'for: {i: 0..1}\ndrop:\n- {tf: w, slice: ["<i>:<i+1>"], why: no}\n'),
        mapping([PART], 'for: {n: 0..1}\ndrop:\n- {tf: w, slice: ["<n>:<n+1>"], why: no}\n'),
    ),
    "a recipe of one's own": (
        mapping(LAYERS),
        mapping(
            ["{tf: layer_<i>, torch: layers.<i>, use: fc}"],
            "for: {i: 0..2}\nrecipes:\n"
            "  fc:\n  - {tf: kernel, torch: weight, axes: a b -> b a}\n  - {tf: bias, torch: bias}\n",
        ),
    ),
    "a recipe that is built in": (mapping(LAYERS[:2]), mapping(["{tf: layer_0, torch: layers.0, use: dense}"])),
    "a recipe with optional rows": (mapping(NORM), mapping(["{tf: bn, torch: bn, use: batch_norm}"])),
    "comments and layout": (
        mapping(["{tf: sq, torch: p, axes: i o -> o i}"]),
        "# Why.\nmodel: a:A\nt2t: 1\n\nsource:\n  checkpoint: c\nignore: [{why: not of this test, tf: '**'}]\n"
        "map:\n- axes: i   o -> o   i\n  torch: 'p' # here\n  tf: \"sq\"\n",
    ),
    "the letters of an order": (
        mapping([GATES]),
        mapping([GATES.replace("icfo -> ifco", "abcd -> acbd").replace("f: 1.0", "c: 1.0")]),
    ),
    "a join along an axis of another name": (
        mapping(["{tf: [emb/0, emb/1], torch: p, join: v, axes: v d -> d v}"]),
        mapping(["{tf: [emb/0, emb/1], torch: p, join: a, axes: a b -> b a}"]),
    ),
    "axes of two steps by other names": (
        mapping(["{tf: d, torch: p, axes: [(h w) o -> (w h) o, a b -> b a], dims: {h: 4}}"]),
        mapping(["{tf: d, torch: p, axes: [(y x) z -> (x y) z, q r -> r q], dims: {y: 4}}"]),
    ),
    "a flip of an axis by its number": (
        mapping(["{tf: w, torch: p, axes: i o -> o i, flip: [i]}"]),
        mapping(["{tf: w, torch: p, axes: i o -> o i, flip: [0]}"]),
    ),
    "keys in another order": (
        mapping(["{tf: b, torch: p}"], "require:\n- {torch: x, eps: 1e-5, bias: true}\n"),
        mapping(["{torch: p, tf: b}"], "require:\n- {bias: true, eps: 0.00001, torch: x}\n"),
    ),
}


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "as written"])
@pytest.mark.parametrize(("before", "after"), SAME.values(), ids=SAME)
def test_another_spelling_is_no_change(before: str, after: str, is_locked: bool) -> None:
    module: Shapes = {"p": (5, 4)} if "into" in before else {"bn.num_batches_tracked": ()} if "fill" in before else {}
    found = locked(before, after, module) if is_locked else compared(before, after)

    assert before != after
    assert changes(found) == []
    assert found.is_same
    assert found.as_written == (0 if is_locked else found.assignments)


#: Only who knows the shapes knows that these are the same.
SAME_BY_SHAPE: dict[str, tuple[str, str]] = {
    "a group that nothing takes apart": (
        mapping(["{tf: w, torch: p, axes: (g i) o -> o (g i), dims: {g: 2}}"]),
        mapping(["{tf: w, torch: p, axes: i o -> o i}"]),
    ),
    "bounds from the end": (
        mapping(['{tf: w, torch: p, slice: ["2:"], axes: i o -> o i}']),
        mapping(['{tf: w, torch: p, slice: ["-4:6"], axes: i o -> o i}']),
    ),
    "a size that is known": (
        mapping(["{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {h: 4}}"]),
        mapping(["{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {w: 6}}"]),
    ),
    "a dtype that it has": (mapping(["{tf: b, torch: p}"]), mapping(["{tf: b, torch: p, dtype: float32}"])),
    "a row that does not apply": (
        mapping(["{tf: b, torch: p}"]),
        mapping(["{tf: b, torch: p}", "{tf: nowhere, torch: q, optional: true}"]),
    ),
}


@pytest.mark.parametrize(("before", "after"), SAME_BY_SHAPE.values(), ids=SAME_BY_SHAPE)
def test_where_shapes_are_known_more_is_the_same(before: str, after: str) -> None:
    assert changes(locked(before, after)) == []
    assert changes(compared(before, after)) != []


def test_what_is_the_same_is_told_in_a_line() -> None:
    before, after = SAME["a for"]

    assert told_of(locked(before, after)) == ["m.yaml: 6 assignments identical"]
    assert told_of(compared(before, after)) == [
        "m.yaml: 6 assignments identical, compared as written (no lock knows the shapes)"
    ]


# --- what changed ---

CHANGED: dict[str, tuple[str, str, str]] = {
    "axes": (
        "{tf: sq, torch: p, axes: i o -> o i}",
        "{tf: sq, torch: p, axes: i o -> i o}",
        "axes i o -> o i => i o -> i o",
    ),
    "axes of two steps": (
        "{tf: sq, torch: p, axes: [a b -> b a, c d -> c d]}",
        "{tf: sq, torch: p, axes: [a b -> b a, c d -> d c]}",
        "axes [a b -> b a, c d -> c d] => [a b -> b a, c d -> d c]",
    ),
    "permute": (
        "{tf: k, torch: p, permute: [3, 2, 0, 1]}",
        "{tf: k, torch: p, permute: [3, 2, 1, 0]}",
        "axes a b c d -> d c a b => a b c d -> d c b a",
    ),
    "dims": (
        "{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {h: 4}}",
        "{tf: d, torch: p, axes: (h w) o -> o (w h), dims: {h: 6}}",
        "axes (h w) o -> o (w h), dims {h: 4} => (h w) o -> o (w h), dims {h: 6}",
    ),
    "dims of two steps": (
        "{tf: d, torch: p, axes: [(h w) o -> (w h) o, (x y) z -> z (y x)], dims: {h: 4, x: 3}}",
        "{tf: d, torch: p, axes: [(h w) o -> (w h) o, (x y) z -> z (y x)], dims: {h: 6, x: 3}}",
        "axes [(h w) o -> (w h) o, (x y) z -> z (y x)], dims {h: 4, x: 3}"
        " => [(h w) o -> (w h) o, (x y) z -> z (y x)], dims {h: 6, x: 3}",
    ),
    "source": ("{tf: b, torch: p}", "{tf: c, torch: p}", "from b => c"),
    "slice": (
        '{tf: w, torch: p, slice: [":4"], axes: i o -> i o}',
        '{tf: w, torch: p, slice: ["2:"], axes: i o -> i o}',
        "from w[:4] => w[2:]",
    ),
    "join": (
        "{tf: [emb/0, emb/1], torch: p, join: v, axes: v d -> v d}",
        "{tf: [emb/1, emb/0], torch: p, join: v, axes: v d -> v d}",
        "from [emb/0, emb/1] joined along v => [emb/1, emb/0] joined along v",
    ),
    "flip": ("{tf: b, torch: p}", "{tf: b, torch: p, flip: [0]}", "axes in order => in order, flip [0]"),
    "flip of another axis": (
        "{tf: sq, torch: p, axes: i o -> o i, flip: [i]}",
        "{tf: sq, torch: p, axes: i o -> o i, flip: [o]}",
        "axes i o -> o i, flip [i] => i o -> o i, flip [o]",
    ),
    "order": (
        GATES,
        GATES.replace("icfo -> ifco", "icfo -> fico"),
        "axes (g u) -> (g u), dims {g: 4}, order {g: icfo -> ifco}, add {g: {f: 1.0}}"
        " => (g u) -> (g u), dims {g: 4}, order {g: icfo -> fico}, add {g: {f: 1.0}}",
    ),
    "order alone": (
        GATES.replace(", add: {g: {f: 1.0}}", ""),
        GATES.replace(", add: {g: {f: 1.0}}", "").replace("-> ifco", "-> fico"),
        "axes (g u) -> (g u), dims {g: 4}, order {g: icfo -> ifco}"
        " => (g u) -> (g u), dims {g: 4}, order {g: icfo -> fico}",
    ),
    "add": ("{tf: b, torch: p, add: 1}", "{tf: b, torch: p, add: 2}", "axes in order, add 1 => in order, add 2"),
    "add to an entry": (
        GATES,
        GATES.replace("f: 1.0", "o: 1.0"),
        "axes (g u) -> (g u), dims {g: 4}, order {g: icfo -> ifco}, add {g: {f: 1.0}}"
        " => (g u) -> (g u), dims {g: 4}, order {g: icfo -> ifco}, add {g: {o: 1.0}}",
    ),
    "scale": ("{tf: b, torch: p, scale: 2}", "{tf: b, torch: p, scale: 0.5}", "scale 2 => 0.5"),
    "a new scale": ("{tf: b, torch: p}", "{tf: b, torch: p, scale: 0.5}", "scale (none) => 0.5"),
    "no scale any more": ("{tf: b, torch: p, scale: 0.5}", "{tf: b, torch: p}", "scale 0.5 => (none)"),
    "fill": ("{torch: p, fill: 0}", "{torch: p, fill: 1}", "fill 0 => 1"),
    "tie": ("{torch: p, tie: q}", "{torch: p, tie: r}", "tie q => r"),
    "keep": ("{torch: p, fill: 0}", "{torch: p, keep: init, why: x}", "fill 0 => (none); keep (none) => init"),
    "no variable any more": (
        "{tf: b, torch: p}",
        "{torch: p, keep: init, why: x}",
        "from b => (none); axes in order => (none); keep (none) => init",
    ),
    "into": ('{tf: b, torch: p, into: ["0:8"]}', '{tf: b, torch: p, into: ["1:9"]}', "into [0:8] => [1:9]"),
}


def module_of(name: str) -> Shapes:
    return {"p": (9,)} if name == "into" else {"p": (8,)} if name in ("fill", "keep", "no variable any more") else {}


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "as written"])
@pytest.mark.parametrize("name", CHANGED)
def test_a_change_of_one_row_is_one_line(name: str, is_locked: bool) -> None:
    old, new, facets = CHANGED[name]
    rest = ["{tf: c, torch: q}", "{tf: c, torch: r}"] if name == "tie" else ["{tf: layer_0/bias, torch: other}"]
    before, after = mapping([*rest, old]), mapping([*rest, new])
    if is_locked and name not in ("tie", "into"):  # of those two no module can have both
        found = locked(before, after, module_of(name))
        assert found.as_written == 0
    else:
        found = compared(before, after)

    assert changes(found) == [f"~ p (line {5 + len(rest)}): {facets}"]
    assert not found.is_same


#: Beside those above, what the quick look for rows in the same words has to see.
IN_OTHER_WORDS: dict[str, tuple[str, str]] = {
    "a number as it is written": ("{tf: b, torch: p, scale: 2}", "{tf: b, torch: p, scale: 2.0}"),
    "a fill as it is written": ("{torch: p, fill: 1}", "{torch: p, fill: 1.0}"),
    "the order of what is added": (
        GATES.replace("{f: 1.0}", "{f: 1.0, o: 2.0}"),
        GATES.replace("{f: 1.0}", "{o: 2.0, f: 1.0}"),
    ),
    "the axis of a join": (
        "{tf: [sq, sq2], torch: p, join: a, axes: a b -> a b}",
        "{tf: [sq, sq2], torch: p, join: b, axes: a b -> a b}",
    ),
    "a dtype": ("{tf: b, torch: p}", "{tf: b, torch: p, dtype: float16}"),
    "optional, which says nothing": ("{tf: b, torch: p}", "{tf: b, torch: p, optional: true}"),
}


@pytest.mark.parametrize("by_lock", ["", "of the old", "of both"])
@pytest.mark.parametrize("name", [*CHANGED, *SAME, *IN_OTHER_WORDS])
def test_a_quick_look_sees_what_a_close_one_does(name: str, by_lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = {**SAME, **IN_OTHER_WORDS, **{key: (old, new) for key, (old, new, _) in CHANGED.items()}}[name]
    before, after = (text if name in SAME else mapping([text, "{tf: c, torch: q}"]) for text in (one, other))
    module: Shapes = {"p": (5, 4)} if "into" in before else {"bn.num_batches_tracked": ()} if "fill" in before else {}
    module = module_of(name) if name in CHANGED else {"p": (8,)} if name == "a fill as it is written" else module
    if name in ("tie", "into"):
        by_lock = ""  # of those two no module can have both
    held = lock(before, module) if by_lock else None
    locks_of = (held, held if by_lock == "of both" else None)
    quick = compared(before, after, locks_of)
    monkeypatch.setattr(diff, "_same", lambda old, new: set())
    close = compared(before, after, locks_of)

    assert quick == close


def test_where_all_rows_are_the_same_another_dtype_of_the_file_changes_them() -> None:
    rows = ["{tf: b, torch: p}", "{torch: q, fill: 0}"]

    assert changes(compared(mapping(rows), mapping(rows, "dtype: float16\n"))) == [
        "~ p (line 5): dtype (none) => float16"
    ]


def test_one_altered_row_of_a_for_names_each_parameter() -> None:
    before = mapping(FOR, "for: {i: 0..2}\n")
    after = mapping([FOR[0].replace("o i", "i o"), FOR[1]], "for: {i: 0..2}\n")

    assert told_of(locked(before, after)) == [
        "m.yaml: 3 changed, 3 assignments identical",
        "  ~ layers.0.weight (line 5): axes i o -> o i => i o -> i o",
        "  ~ layers.1.weight (line 5): axes i o -> o i => i o -> i o",
        "  ~ layers.2.weight (line 5): axes i o -> o i => i o -> i o",
        "  proof logits max|Δ| 1.3e-05 <= 0.00018",
    ]


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "as written"])
def test_entries_that_came_and_went(is_locked: bool) -> None:
    before = mapping(["{tf: b, torch: p}", "{tf: sq, torch: q, axes: i o -> o i}"])
    after = mapping(["{torch: r, fill: 0}", "{tf: b, torch: p}"])
    held = lock(before, {}), lock(after, {"r": (2,)})
    about = "; dtype float32; shape [{}]" if is_locked else ""

    assert changes(compared(before, after, held if is_locked else (None, None))) == [
        f"+ r (line 5): fill 0{about.format(2)}",
        f"- q: from sq; axes i o -> o i{about.format('4, 4')}",
    ]


def test_a_part_of_an_entry() -> None:
    rows = ['{torch: p, into: ["0:1"], fill: 0}', '{tf: sq, torch: p, into: ["1:"], axes: v d -> v d}']
    before, after = mapping(rows), mapping([rows[1].replace("v d}", "v d, scale: 2}"), rows[0]])
    module: Shapes = {"p": (5, 4)}

    assert changes(locked(before, after, module)) == ["~ p (line 5): [1:5, 0:4] scale (none) => 2"]
    assert changes(compared(before, after)) == ["~ p (line 5): [1:] scale (none) => 2"]


def test_two_rows_for_one_entry_both_count() -> None:
    """That is a mistake, which `check` finds; the second of them changes what is said all the same."""
    before = mapping(["{tf: b, torch: p}", "{tf: c, torch: p}"])
    after = mapping(["{tf: b, torch: p}", "{tf: d, torch: p, scale: 2}"])

    assert changes(compared(before, after)) == ["~ p (line 5): from b; c => b; d; scale (none) => 2"]


def test_the_file_s_dtype() -> None:
    before = mapping(["{tf: b, torch: p}"])
    after = before.replace("t2t: 1\n", "t2t: 1\ndtype: float16\n").replace(
        "t2t: 1\ndtype", "dtype: float16 # \nt2t: 1\n#"
    )
    assert "\ndtype" not in after

    assert changes(compared(before, after)) == ["~ p (line 7): dtype (none) => float16"]
    assert changes(locked(before, after)) == ["~ p (line 7): dtype float32 => float16"]


def test_the_output_s_dtype_changes_what_is_stored() -> None:
    before = mapping(["{tf: b, torch: p}"])
    after = mapping(["{tf: b, torch: p}"], "output: {dtype: bfloat16}\n")

    assert changes(locked(before, after)) == [
        "~ p (line 5): dtype float32 => float32, stored as bfloat16",
        "+ output.dtype bfloat16",
    ]


def test_so_it_does_where_both_versions_have_one_lock() -> None:
    before = mapping(["{tf: b, torch: p}"])
    after = mapping(["{tf: b, torch: p}"], "output: {dtype: bfloat16}\n")
    found = compared(before, after, (lock(before, {}), lock(before, {})))

    assert changes(found)[0] == "~ p (line 5): dtype float32 => float32, stored as bfloat16"
    assert found.is_stale


def test_other_weights_under_the_same_rows() -> None:
    """The rows say the same, and the shapes are others."""
    text = mapping(["{tf: w, torch: p, axes: i o -> o i}"])
    other = inventory(shapes={**SHAPES, "w": (6, 2)})
    found = compared(text, text, (lock(text, {}), lock(text, {}, checkpoint=other)))

    row, weights = changes(found)
    assert row == "~ p (line 5): axes i o -> o i => i o -> o i, of other sizes; shape [4, 6] => [2, 6]"
    assert weights.startswith("~ weights ")


def test_other_dtypes_under_the_same_rows() -> None:
    text = mapping(["{tf: b, torch: p}"])
    found = compared(text, text, (lock(text, {}), lock(text, {}, dtype="float64")))

    row, weights = changes(found)
    assert row == "~ p (line 5): dtype float32 => float64"
    assert weights.startswith("~ weights ")


def test_select_is_in_the_names_that_are_read() -> None:
    before = mapping(["{tf: b, torch: p}"])
    after = before.replace("{checkpoint: c}", "{checkpoint: c, select: /avg}")

    assert changes(compared(before, after)) == ["~ p (line 5): from b => b/avg", "+ source.select /avg"]


# --- what stands beside the rows ---

VERIFY = """\
verify:
  inputs: {x: {shape: [1, 4], range: [0, 1], seed: 0}}
  reference: {graph: m.meta, feed: {x: "x:0"}, fetch: {y: "y:0"}}
  torch: {arguments: [x]}
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("model: a:A", "model: a:B", "~ model a:A => a:B"),
        ("with: {n: 1}", "with: {n: 2}", "~ with.n 1 => 2"),
        ("with: {n: 1}", 'with: {n: "1"}', '~ with.n 1 => "1"'),
        ("with: {n: 1}", "with: {n: 1.0}", "~ with.n 1 => 1.0"),
        ("with: {n: true}", 'with: {n: "true"}', '~ with.n true => "true"'),
        ("with: {n: [a, b]}", 'with: {n: ["a, b"]}', '~ with.n [a, b] => ["a, b"]'),
        ("with: {n: {a: {b: 1}}}", "with: {n: {a.b: 1}}", ['+ with.n."a.b" 1', "- with.n.a.b 1"]),
        ("with: {n: []}", "with: {n: {}}", "~ with.n [] => {}"),
        ("with: {n: null}", "with: {n: ''}", '~ with.n null => ""'),
        ("with: {n: {new: a:B, with: {c: 1}}}", "with: {n: {new: a:B, with: {c: 2}}}", "~ with.n.with.c 1 => 2"),
        ("with: {n: [{a: 1, b: 2}]}", "with: {n: [{b: 2, a: 3}]}", "~ with.n [{a: 1, b: 2}] => [{a: 3, b: 2}]"),
        ("with: {n: 1}", "with: {n: 1, m: 2}", "+ with.m 2"),
        ("source: {checkpoint: c}", "source: {checkpoint: d}", "~ source.checkpoint c => d"),
        ("source: {checkpoint: c}", "source: {checkpoint: c, names: full_name}", "+ source.names full_name"),
        ("output: {dtype: float32}", "output: {format: pt, dtype: float32}", "+ output.format pt"),
        ("output: {shard_size: 5 GB}", "output: {shard_size: 6 GB}", "~ output.shard_size 5 GB => 6 GB"),
        ("ignore:\n- {slots: true, why: x}", "ignore:\n- {slots: true, why: y}", "~ ignore slots: true x => y"),
        ("ignore:\n- {tf: u, why: x}", "ignore:\n- {tf: u, why: x}\n- {tf: v*, why: y}", "+ ignore v* y"),
        ("ignore:\n- {tf: u, why: x}\n- {tf: v, why: y}", "ignore:\n- {tf: v, why: y}", "- ignore u x"),
        (
            "ignore:\n- {tf: u, why: x}",
            "ignore:\n- {tf: 'slots: true', why: x}",
            ['+ ignore "slots: true" x', "- ignore u x"],
        ),
        (
            'drop:\n- {tf: w, slice: ["0:2"], why: x}',
            'drop:\n- {tf: w, slice: ["0:3"], why: x}',
            ["+ drop w[0:3] x", "- drop w[0:2] x"],
        ),
        (
            'for: {n: 0..1}\ndrop:\n- {tf: w_<n>, slice: ["0:2"], why: x}',
            'for: {n: 0..2}\ndrop:\n- {tf: w_<n>, slice: ["0:2"], why: x}',
            "+ drop w_2[0:2] x",
        ),
        (
            "require:\n- {torch: '**.bn', eps: 1e-3}",
            "require:\n- {torch: '**.bn', eps: 1e-5}",
            "~ require **.bn eps 0.001 => 1e-05",
        ),
        (
            "require:\n- {torch: a, stride: 1}",
            "require:\n- {torch: a, stride: [1, 1], bias: true}",
            ["~ require a stride 1 => [1, 1]", "+ require a bias true"],
        ),
        (
            "require:\n- {torch: a, x: 1}\n- {torch: a, x: 2}",
            "require:\n- {torch: a, x: 1}\n- {torch: a, x: 3}",
            "~ require a x 1; 2 => 1; 3",
        ),
        (VERIFY, VERIFY.replace("seed: 0", "seed: 1"), "~ verify.inputs.x.seed 0 => 1"),
        (VERIFY, VERIFY + "  rel: 1e-4\n", "+ verify.rel 0.0001"),
        (VERIFY, VERIFY.replace("[x]", "{x: x}"), ["+ verify.torch.arguments.x x", "- verify.torch.arguments [x]"]),
    ],
)
def test_facts(old: str, new: str, line: str | list[str]) -> None:
    def text(part: str) -> str:
        sections = {"model": "model: a:A", "source": "source: {checkpoint: c}", "map": "map:\n- {tf: b, torch: p}"}
        return "t2t: 1\n" + "\n".join(({**sections, part.partition(":")[0]: part}).values()) + "\n"

    def extended(part: str) -> str:
        if part.startswith("for"):
            one, two = part.split("\n", 1)
            return text(two) + one + "\n"
        return text(part)

    found = compared(extended(old), extended(new))

    assert sorted(changes(found)) == sorted([line] if isinstance(line, str) else line)
    assert told_of(found)[0].startswith("m.yaml: 1 assignment identical, ")
    assert not found.is_same


# --- locks ---

OLD = mapping(["{tf: b, torch: p}", "{tf: sq, torch: q, axes: i o -> o i}"])
NEW = mapping(["{tf: b, torch: p}", "{tf: sq, torch: q, permute: [0, 1]}"])
CHANGE = "  ~ q (line 6): axes i o -> o i => a b -> a b"
PROOF = "proof logits max|Δ| 1.3e-05 <= 0.00018"


def test_the_figures_of_both_locks() -> None:
    other = Proof("", {"source": "0" * 64}, {"logits": Figures(2e-05, 18.0, 1.8e-04), "b": Figures(0, 1, 1e-6)})
    found = compared(OLD, NEW, (lock(OLD, {}), lock(NEW, {}, proof=other)))

    assert told_of(found) == [
        "m.yaml: 1 changed, 1 assignment identical",
        CHANGE,
        f"  {PROOF} => logits max|Δ| 2e-05 <= 0.00018, b max|Δ| 0 <= 1e-06",
    ]


def test_a_proof_that_is_gone() -> None:
    found = compared(OLD, OLD, (lock(OLD, {}), lock(OLD, {}, proof=Proof("the mapping has no verify section"))))

    assert told_of(found) == [
        "m.yaml: 2 assignments identical",
        f"  {PROOF} => not proven: the mapping has no verify section",
    ]
    assert found.is_same  # of the weights it is


def test_a_lock_of_the_old_rows_is_stale() -> None:
    """As in a pull request whose author forgot it: the shapes are known all the same."""
    held = lock(OLD, {})
    found = compared(OLD, NEW, (held, held))

    assert told_of(found) == [
        "m.yaml: 1 changed, 1 assignment identical",
        CHANGE,
        f"  {PROOF}, but the lock is stale",
    ]
    assert compared(OLD, OLD, (held, held)).is_stale is False
    assert compared(NEW, OLD, (held, held)).is_stale is False


@pytest.mark.parametrize(
    "change",
    [
        ("model: a:A", "model: a:B"),
        ("source: {", "with: {n: 1}\nsource: {"),
        ("{checkpoint: c", "{names: full_name, checkpoint: c"),
    ],
    ids=["model", "arguments", "names"],
)
def test_a_lock_of_another_model_is_stale(change: tuple[str, str]) -> None:
    held = lock(OLD, {})

    assert compared(OLD, OLD.replace(*change), (held, held)).is_stale


@pytest.mark.parametrize("side", ["base", "head"])
def test_a_lock_on_one_side_knows_the_shapes_of_both(side: str) -> None:
    """Bounds from the end are the same by shape alone."""
    before = mapping(['{tf: w, torch: p, slice: ["2:"], axes: i o -> o i}'])
    after = mapping(['{tf: w, torch: p, slice: ["-4:6"], axes: i o -> o i}'])
    found = compared(before, after, (lock(before, {}), None) if side == "base" else (None, lock(after, {})))

    figures = PROOF.removeprefix("proof ")
    told = f"{figures} => not locked" if side == "base" else f"not locked => {figures}"
    assert told_of(found) == ["m.yaml: 1 assignment identical", f"  proof {told}"]


def test_rows_that_do_not_fit_the_lock_are_compared_as_they_are_written() -> None:
    """The others are compared by shape: of them only that knows that they are the same."""
    before = mapping(['{tf: w, torch: p, slice: ["2:"], axes: i o -> o i}', "{tf: b, torch: q}"])
    after = mapping(['{tf: w, torch: p, slice: ["-4:6"], axes: i o -> o i}', "{tf: bb, torch: q}", "{tf: c, torch: r}"])
    held = lock(before, {})

    assert told_of(compared(before, after, (held, held))) == [
        "m.yaml: 1 added, 1 changed, 1 assignment identical, 2 compared as written (rows that do not fit the lock)",
        "  ~ q (line 6): from b => bb",
        "  + r (line 7): from c; axes in order",
        f"  {PROOF}, but the lock is stale",
    ]
    assert told_of(compared(after, before, (held, held))) == [
        "m.yaml: 1 removed, 1 changed, 1 assignment identical, 2 compared as written (rows that do not fit the lock)",
        "  ~ q (line 6): from bb => b",
        "  - r: from c; axes in order",
        f"  {PROOF}",
    ]


def test_a_recipe_that_fits_nowhere_is_compared_as_it_is_written() -> None:
    """Its optional rows are not left out: nobody knows whether they apply."""
    before = mapping(["{tf: bn, torch: bn, use: batch_norm}"])
    after = mapping(["{tf: nb, torch: bn, use: batch_norm}"])
    held = lock(before, {"bn.num_batches_tracked": ()})
    found = compared(before, after, (held, held))

    assert found.as_written == 5
    assert [(change.target, change.kind) for change in found.changes] == [
        (f"bn.{name}", "changed") for name in ("weight", "bias", "running_mean", "running_var")
    ]


def test_a_lock_that_cannot_be_read_is_said_and_the_rest_compared() -> None:
    old, new = (Version("main:m.yaml", OLD.encode(), b"{"), Version("m.yaml", NEW.encode(), b"[1]"))
    found, problems = compare("m.yaml", old, new)

    assert found is not None
    assert told_of(found)[1:] == [CHANGE]
    assert lines(problems) == [
        "main:m.lock.json:1:2: T2T620 not JSON: Expecting property name enclosed in double quotes; "
        "write it again with t2t lock",
        "m.lock.json: T2T620: m.lock.json is not a lock: it has no t2t.lock; write it again with t2t lock",
    ]
    assert {problem.severity for problem in problems} == {"warning"}


def test_a_lock_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MAX_BYTES", 100)
    _, problems = compare("m.yaml", None, Version("m.yaml", OLD.encode(), b"{" + b" " * 100))

    assert lines(problems) == [
        "m.lock.json: T2T620: the file is larger than 100 bytes, the most that a lock has; write it again with t2t lock"
    ]


# --- whole mappings ---


def test_mappings_that_came_and_went() -> None:
    version = Version("m.yaml", OLD.encode(), lock(OLD, {}))
    new, _ = compare("m.yaml", None, version)
    gone, _ = compare("m.yaml", version, None)

    assert new is not None
    assert gone is not None
    assert told_of(new) == ["m.yaml: new, 2 assignments", f"  {PROOF}"]
    assert told_of(gone) == ["m.yaml: removed, 2 assignments", f"  {PROOF}"]


def test_a_version_that_is_no_mapping_is_left_out_and_the_others_compared() -> None:
    broken = Version("main:a.yaml", b"t2t: 1\nmap: [", None)
    whole = Version("b.yaml", OLD.encode(), None)
    found = all_compared("main", None, Pairs((("a.yaml", broken, whole), ("b.yaml", None, whole)), 3))

    assert (found.base, found.head, found.same) == ("main", "what is here", 3)
    assert [one.path for one in found.mappings] == ["b.yaml"]
    assert found.left_out == ("a.yaml",)
    assert [(str(problem), problem.severity) for problem in found.problems] == [
        ("main:a.yaml:2:7: T2T101 not YAML: while parsing a flow node, did not find expected node content", "warning")
    ]  # what is compared may be what mends it
    assert [problem.severity for problem in compare("a.yaml", whole, broken)[1]] == ["error"]
    assert [problem.severity for problem in compare("a.yaml", broken, broken)[1]] == ["warning", "error"]


def test_the_same_rows_of_other_weights_are_no_other_rows_and_other_weights() -> None:
    before, after = (locked_of(OLD, crc) for crc in (1, 2))
    found = compared(OLD, f"{OLD}# trained again\n", (before, after))

    assert (found.changes, found.is_same) == ((), False)
    ((name, old, new),) = [(fact.name, fact.before, fact.after) for fact in found.facts]
    assert name == "weights"
    assert old != new
    assert compared(OLD, f"{OLD}# the same\n", (before, before)).is_same


def locked_of(text: str, crc: int) -> bytes:
    known = inventory()
    refs = {name: replace(ref, crc32c=crc) for name, ref in known.variables.items()}
    return lock(text, {}, checkpoint=CheckpointInventory(refs))


def test_a_proof_of_other_inputs_is_stale() -> None:
    verify = (
        "verify:\n  inputs: {x: {shape: [1, 4], range: [0, 1], seed: %d}}\n  reference: {graph: g, fetch: {y: y}}\n"
    )
    held = lock(OLD + verify % 0, {})

    assert compared(OLD + verify % 0, OLD + verify % 1, (held, held)).is_stale
    assert not compared(OLD + verify % 0, OLD + verify % 0 + "# more\n", (held, held)).is_stale
