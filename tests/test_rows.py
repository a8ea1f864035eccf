"""Rows become rules: indices, tables, recipes; and every way in which they cannot."""

from __future__ import annotations

from typing import Any

import pytest

from t2t import mapping, recipes
from t2t.mapping import Drop, Require
from t2t.names import TemplateError, template
from t2t.problems import Location
from tests.given import lines, read

HEAD = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c}\n"


def pairs(text: str) -> list[tuple[Any, str]]:
    """What each rule reads, and what it writes."""
    rules = read(HEAD + text).rules
    return [(rule.sources if len(rule.sources) != 1 else rule.sources[0], rule.target) for rule in rules]


def told(text: str) -> list[str]:
    return lines(mapping.read((HEAD + text).encode(), "m.yaml")[1])


# --- indices ---


@pytest.mark.parametrize(
    ("text", "values", "name"),
    [
        ("a<i>b", {"i": 0}, "a0b"),
        ("<p>", {"p": "query"}, "query"),
        ("<2i-2>", {"i": 1}, "0"),
        ("<q+3b+c>", {"q": 11, "b": 2, "c": 1}, "18"),
        ("<10s + l>", {"s": 3, "l": 4}, "34"),
        ("block_<i:03>", {"i": 7}, "block_007"),
        ("<2i+1:02>", {"i": 7}, "15"),
        ("lstm<_j>/cell<_j>", {"j": 0}, "lstm/cell"),
        ("lstm<_j>/cell<_j>", {"j": 12}, "lstm_12/cell_12"),
        ("dense<_2i+1>", {"i": 1}, "dense_3"),
        ("x<3>", {}, "x3"),
    ],
)
def test_an_index_is_filled(text: str, values: dict[str, Any], name: str) -> None:
    assert template(text).filled(values) == name
    assert template(text).letters == values.keys()


@pytest.mark.parametrize(
    "text", ["<>", "<I>", "<i*2>", "<i2>", "<i:3>", "<i:00>", "<+>", "<i+>", "<i i>", "<_>", "<-->"]
)
def test_what_is_not_an_index_is_refused(text: str) -> None:
    with pytest.raises(TemplateError, match="is not an index"):
        template(text)


def test_letters_run_in_the_order_of_for_and_a_table_runs_as_one() -> None:
    both = "for: {i: 0..1, p: [a, b]}\nmap:\n- {tf: 'x<i>/<p>', torch: 'y.<i>.<p>'}\n"
    table = (
        "for: {s n: [[1, 0..1], [2, [5, 7, 9]]]}\n"
        "map:\n- {tf: 'x<n>', torch: 'y<s>.<n>'}\n- {tf: 'z<s>', torch: 'w<s>'}\n"
    )

    assert pairs(both) == [("x0/a", "y.0.a"), ("x0/b", "y.0.b"), ("x1/a", "y.1.a"), ("x1/b", "y.1.b")]
    assert pairs(table) == [
        *[("x0", "y1.0"), ("x1", "y1.1"), ("x5", "y2.5"), ("x7", "y2.7"), ("x9", "y2.9")],
        *[("z1", "w1"), ("z2", "w2")],  # the table's rows that are the same in s are one
    ]


def test_the_designs_resnet_sample_names_each_convolution_once() -> None:
    """conv2d is the stem; 1 to 52 are four stages of 3, 4, 6 and 3 blocks, a projection before each stage's first."""
    text = (
        "for:\n  c: 1..3\n  s p: [[1, 1], [2, 11], [3, 24], [4, 43]]\n"
        "  l q b: [[1, 1, 0..2], [2, 11, 0..3], [3, 24, 0..5], [4, 43, 0..2]]\nmap:\n"
        "- {tf: 'conv2d_<p>', torch: 'layer<s>.0.downsample.0'}\n"
        "- {tf: 'conv2d_<q+3b+c>', torch: 'layer<l>.<b>.conv<c>'}\n"
    )
    found = dict(pairs(text))

    assert sorted(int(name.removeprefix("conv2d_")) for name in found) == list(range(1, 53))
    assert len(set(found.values())) == 52
    assert found["conv2d_11"] == "layer2.0.downsample.0"
    assert found["conv2d_52"] == "layer4.2.conv3"


def test_a_letter_that_only_variables_have_makes_a_join() -> None:
    text = (
        "for: {i: 0..1, k: 0..11}\nmap:\n- {tf: ['e<i>/w_<k>', 'e<i>/x'], torch: 't<i>', join: v, axes: v d -> v d}\n"
    )
    names = tuple(f"w_{k}" for k in range(12))

    assert pairs(text) == [
        ((*(f"e0/{name}" for name in names), "e0/x"), "t0"),
        ((*(f"e1/{name}" for name in names), "e1/x"), "t1"),
    ]


def test_a_join_takes_of_a_table_the_rows_that_fit() -> None:
    text = "for: {p q: [[1, 0..1], [2, 0]]}\nmap:\n- {tf: ['v<p>_<q>'], torch: 'b<p>', join: x, axes: x -> x}\n"

    assert pairs(text) == [(("v1_0", "v1_1"), "b1"), ("v2_0", "b2")]


def test_bounds_and_drops_take_indices_too() -> None:
    text = (
        "for: {i: 0..1}\nmap:\n- {tf: a, torch: 'b<i>', slice: ['<2i>:<2i+2>'], into: [':', '-1:']}\n"
        "drop:\n- {tf: 'a<i>', slice: ['<i+4>:'], why: w}\n"
    )
    made = read(HEAD + text)

    assert [rule.slice for rule in made.rules] == [((0, 2),), ((2, 4),)]
    assert [rule.into for rule in made.rules] == [((None, None), (-1, None))] * 2
    at = Location("m.yaml", 8, 3)
    assert made.drop == (Drop("a0", ((4, None),), "w", at), Drop("a1", ((5, None),), "w", at))


def test_select_adds_its_suffix_but_where_a_row_wants_the_plain_variable() -> None:
    text = (
        "t2t: 1\n"
        "model: m:M\nsource: {checkpoint: c, select: /EMA}\nmap:\n"
        "- {tf: a, torch: b}\n- {tf: c, torch: d, select: none}\n"
    )
    rules = read(text).rules

    assert [(rule.sources, rule.shadowed) for rule in rules] == [(("a/EMA",), ("a",)), (("c",), ())]


def test_requirements_are_read() -> None:
    made = read(HEAD + "map:\n- {tf: a, torch: b}\nrequire:\n- {torch: '**.bn', eps: 0.001, stride: [2, 2]}\n")

    assert made.require == (
        Require(
            "**.bn",
            {"eps": 0.001, "stride": [2, 2]},
            Location("m.yaml", 7, 3),
            {"torch": Location("m.yaml", 7, 11), "eps": Location("m.yaml", 7, 25), "stride": Location("m.yaml", 7, 40)},
        ),
    )


# --- recipes ---


def test_a_use_stands_for_the_recipes_rows_with_the_names_joined() -> None:
    text = "for: {i: 0..1}\nmap:\n- {tf: 'h<i>/mlp', torch: 'h.<i>.mlp', use: dense, dtype: float16}\n"
    rules = read(HEAD + text).rules

    assert [(rule.source, rule.target, rule.dtype, rule.optional) for rule in rules] == [
        ("h0/mlp/kernel", "h.0.mlp.weight", "float16", False),
        ("h1/mlp/kernel", "h.1.mlp.weight", "float16", False),
        ("h0/mlp/bias", "h.0.mlp.bias", "float16", True),
        ("h1/mlp/bias", "h.1.mlp.bias", "float16", True),
    ]
    assert rules[0].at == Location("m.yaml", 6, 3)
    assert rules[0].use == (Location("m.yaml", 6, 3), "h0/mlp", "h.0.mlp", "dense")


def test_an_empty_name_adds_nothing() -> None:
    assert pairs("map:\n- {tf: '', torch: '', use: dense}\n") == [("kernel", "weight"), ("bias", "bias")]


def test_recipes_use_recipes_and_hand_down_dims_and_letters() -> None:
    text = (
        "recipes:\n"
        "  block: [{tf: 'conv<n>', torch: conv, use: flatten_dense}, {tf: lstm, torch: rnn, use: "
        "lstm, with: {suffix: 'l<n>'}}]\n"
        "map:\n- {tf: a, torch: b, use: block, with: {n: 1}, dims: {h: 2, w: 3}}\n"
    )
    rules = read(HEAD + text).rules

    assert [(rule.source, rule.target) for rule in rules] == [
        ("a/conv1/kernel", "b.conv.weight"),
        ("a/conv1/bias", "b.conv.bias"),
        ("a/lstm/kernel", "b.rnn.weight_ih_l1"),
        ("a/lstm/recurrent_kernel", "b.rnn.weight_hh_l1"),
        ("a/lstm/bias", "b.rnn.bias_ih_l1"),
        (None, "b.rnn.bias_hh_l1"),
    ]
    assert [rule.dims for rule in rules[:2]] == [{"h": 2, "w": 3}, {}]


def test_a_recipe_of_the_file_runs_over_its_letters_as_if_its_rows_were_written_out() -> None:
    text = (
        "for: {i: 0..1, c: 1..2}\nrecipes:\n  unit: [{tf: 'c<c>', torch: 'c<c>'}]\n"
        "map:\n- {tf: 'u<i>', torch: 'u.<i>', use: unit}\n"
    )

    assert pairs(text) == [("u0/c1", "u.0.c1"), ("u0/c2", "u.0.c2"), ("u1/c1", "u.1.c1"), ("u1/c2", "u.1.c2")]


def test_a_number_may_fill_an_addend_and_a_bound() -> None:
    text = "map:\n- {tf: c, torch: r, use: tf1.lstm_cell, with: {suffix: l0, x: 3, forget: 1.0}}\n"
    rules = read(HEAD + text).rules

    assert [rule.slice for rule in rules] == [((None, 3),), ((3, None),), (), ()]
    assert rules[2].add == {"g": {"f": 1.0}}
    assert [rule.target for rule in rules] == ["r.weight_ih_l0", "r.weight_hh_l0", "r.bias_ih_l0", "r.bias_hh_l0"]


def test_the_text_of_each_built_in_recipe_is_its_rows() -> None:
    texts = recipes.texts()

    assert list(texts) == list(recipes.builtin().tree["recipes"])
    for name, text in texts.items():
        first, *own = text.splitlines()
        assert first.startswith(f"{name}:")
        assert len(own) == len(recipes.builtin().tree["recipes"][name])


# --- what the file alone shows to be wrong ---

FINE = "map:\n- {tf: a, torch: b}\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        # letters
        ("for: {i: 0..3}\n" + FINE, ["4:7: T2T113 letter i is used by no row; remove it from for"]),
        (
            "for: {i: 3..0}\nmap: [{tf: 'a<i>', torch: 'b<i>'}]",
            ["4:10: T2T113 for i: the range 3..0 is empty; the end is included"],
        ),
        (
            "for: {i: 0-3}\nmap: [{tf: 'a<i>', torch: 'b<i>'}]",
            ["4:10: T2T113 for i: '0-3' is not a range; write 0..11, or a list of values"],
        ),
        ("for: {i: [1, 1]}\nmap: [{tf: 'a<i>', torch: 'b<i>'}]", ["4:10: T2T113 for i: has 1 twice; each value once"]),
        (
            "for: {i: 0..3, i j: [[0, 1]]}\nmap: [{tf: 'a<i>', torch: 'b<i>'}]",
            ["4:16: T2T113 letter i is declared twice; rename one"],
        ),
        (
            "for: {i j: [[0]]}\nmap: [{tf: 'a<i>', torch: 'b<i><j>'}]",
            ["4:12: T2T113 for i j: row 0 has 1 cells, but there are 2 letters"],
        ),
        (
            "for: {i j: [[0..2, 0..3]]}\nmap: [{tf: 'a<i>', torch: 'b<i><j>'}]",
            ["4:12: T2T113 for i j: row 0 has ranges of 3 and 4; they run together"],
        ),
        (
            "for: {i: 0..999999999}\nmap: [{tf: 'a<i>', torch: 'b<i>'}]",
            ["4:10: T2T113 for i: the range 0..999999999 has more than 200000 values"],
        ),
        # indices
        (
            "map: [{tf: 'a<i', torch: b}]",
            ["4:12: T2T111 a<i opens a < that it does not close; an index is written <i>"],
        ),
        (
            "for: {i: 0..3}\nmap: [{tf: 'a<i-1>', torch: 'b<i>'}]",
            ["5:12: T2T111 <i-1> is -1 where i = 0; an index is 0 or more"],
        ),
        (
            "for: {layer: 0..3}\nmap: [{tf: 'a<layr>', torch: 'b<layer>'}]",
            ["5:12: T2T111 <layr> is not declared in for; did you mean layer"],
        ),
        (
            "for: {p: [q, k]}\nmap: [{tf: 'a<p+1>', torch: 'b<p>'}]",
            ["5:12: T2T111 <p+1> is a sum, and p stands for q; use <letter>"],
        ),
        (
            "for: {k: 0..15}\nmap: [{tf: 'w_<k>', torch: b}]",
            [
                "5:12: T2T111 <k> is only in tf: 16 variables for one parameter; "
                "use it in torch too, or write tf as a list with join"
            ],
        ),
        (
            "for: {i: 0..999, j: 0..999}\nmap: [{tf: 'a<i>/<j>', torch: 'b<i>.<j>'}]",
            ["5:7: T2T110 the rows stand for more than 200000 names"],
        ),
        # recipes
        (
            "map: [{tf: a, torch: b, use: conf2d}]",
            ["4:30: T2T112 there is no recipe conf2d; did you mean conv2d, conv3d, conv1d"],
        ),
        ("map: [{tf: a, torch: b, use: lstm}]", ["4:30: T2T112 recipe lstm needs suffix; write with: {suffix: ...}"]),
        (
            "map: [{tf: a, torch: b, use: lstm, with: {suffx: l0}}]",
            [
                "4:42: T2T112 recipe lstm needs suffix; write with: {suffix: ...}",
                "4:42: T2T112 with gives suffx, which recipe lstm doesn't have; it has suffix",
            ],
        ),
        (
            "recipes: {a: [{tf: x, torch: y, use: b}], b: [{tf: x, torch: y, use: a}]}\n"
            "map: [{tf: a, torch: b, use: a}]",
            ["5:30: T2T112 recipe a uses itself: a -> b -> a"],
        ),
        (
            "recipes: {conv2d: [{tf: x, torch: y}]}\nmap: [{tf: a, torch: b, use: conv2d}]",
            ["4:11: T2T112 recipe conv2d is built in; give yours another name"],
        ),
        ("recipes: {mine: [{tf: x, torch: y}]}\n" + FINE, ["4:11: T2T112 recipe mine is used by no row; remove it"]),
        (
            "map: [{tf: a, torch: b, use: dense, dims: {h: 7}}]",
            ["4:43: T2T301 dims name h, which recipe dense doesn't have"],
        ),
        (
            "recipes:\n"
            + "".join(f"  r{n}: [{{tf: x, torch: y, use: r{n + 1}}}]\n" for n in range(5))
            + "  r5: [{tf: x, torch: y}]\nmap: [{tf: a, torch: b, use: r0}]",
            ["11:30: T2T112 recipes use recipes more than 4 deep: r0 -> r1 -> r2 -> r3 -> r4"],
        ),
        (
            "map: [{tf: c, torch: r, use: tf1.lstm_cell, with: {suffix: l0, x: 3, forget: much}}]",
            ["4:51: T2T111 'much' is not a number; an add or a scale is a number"],
        ),
        # rows
        (
            "map: [{tf: a, torch: b, axes: g -> g, order: {g: icfo -> iffo}}]",
            [
                "4:46: T2T309 b: order 'icfo -> iffo' is not a permutation; name each entry once on each "
                "side, by one letter"
            ],
        ),
        (
            "map: [{tf: a, torch: b, axes: g -> g, order: {g: iifo -> iifo}}]",
            ["4:46: T2T309 b: order 'iifo -> iifo' names an entry twice; one letter each"],
        ),
        (
            "map: [{tf: a, torch: b, axes: g -> g, order: {g: icfo -> ifco}, add: {g: {z: 1.0}}}]",
            ["4:70: T2T310 b: add names the entry z of g, whose order has i, f, c, o; add one of these"],
        ),
        (
            "map: [{tf: a, torch: b, axes: g -> g, add: {g: {f: 1.0}}}]",
            ["4:44: T2T310 b: add names the entry f of g, which has no order; write order too: it names the entries"],
        ),
        (
            "map: [{tf: [a, b], torch: c, join: z, axes: v d -> v d}]",
            [
                "4:36: T2T308 c: join names z, which is no axis of its own on the left of 'v d -> v d'; "
                "join along one of the variable's axes"
            ],
        ),
        (
            "map: [{tf: a, torch: b, axes: [x y -> (x y), z w -> z w]}]",
            [
                "4:31: T2T302 b: axes 'z w -> z w' are for rank 2, but 'x y -> (x y)' before them give rank 1; "
                "a step names each axis that the one before it gives"
            ],
        ),
        ("map: [{tf: [a, b], torch: c}]", ["4:7: T2T105 key 'join' is missing"]),
        ("map: [{tf: a, torch: b, axes: v -> v, join: v}]", ["4:12: T2T106 tf: expected a list, got 'a'"]),
        ("map: [{tf: a, torch: b, slice: [4]}]", ["4:33: T2T106 expected 'start:stop', got '4'"]),
        (
            "map: [{tf: a, torch: b, slice: ['4:x']}]",
            ["4:32: T2T307 slice '4:x' is not start:stop; for example ['0:4']"],
        ),
        (
            "map: [{tf: a, torch: b, scale: 1_0}]",
            ["4:32: T2T106 scale: '1_0' is not a number; write a number, or in a recipe the letter of one: <forget>"],
        ),
        ("map: [{tf: a, torch: 'b<-1>'}]", ["4:22: T2T111 <-1> is -1; an index is 0 or more"]),
        ("map: [{tf: '', torch: b}]", ["4:12: T2T106 tf: expected some text, got ''"]),
        (
            FINE + "output: {format: pt, shard_size: 5 GB}",
            ["6:34: T2T108 shard_size does not go with the format pt; only safetensors files come in shards"],
        ),
        (
            FINE + "output: {shard_size: 5 parsec}",
            ["6:22: T2T106 shard_size: '5 parsec' is not a size; write 5 GB, 500 MiB or bytes"],
        ),
    ],
)
def test_what_the_file_alone_shows_is_refused(text: str, problems: list[str]) -> None:
    assert told(text) == problems


@pytest.mark.parametrize(("given", "size"), [("5000", 5000), ("5 GB", 5 * 10**9), ("500 MiB", 500 * 2**20)])
def test_a_shard_size_is_bytes(given: str, size: int) -> None:
    assert read(HEAD + FINE + f"output: {{shard_size: {given}}}").output.shard_size == size
