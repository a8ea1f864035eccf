"""
Random mappings, rewritten: a diff says nothing of what means the same, and names what does not.

Whether two rows do the same is asked of einops and numpy, on arrays whose elements are all different.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import einops
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t.review.diff import MappingDiff
from tests.review.versions import SHAPES, compared, lock, mapping

Groups = tuple[tuple[int, ...], ...]

#: Every element of every variable is another.
ARRAYS = {
    name: np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 1000 * number
    for number, (name, shape) in enumerate(SHAPES.items())
}

ALIKE = {"b": "c", "sq": "sq2", **{f"layer_{i}/kernel": "sq" for i in range(3)}}


@dataclass(frozen=True)
class Row:
    """What a row does, its axes as numbers: no spelling of it."""

    source: str
    target: str
    left: Groups
    right: Groups
    sizes: tuple[int, ...]
    flip: frozenset[int] = frozenset()
    start: int = 0
    scale: float | None = None
    add: float | None = None

    def result(self) -> np.ndarray[Any, Any]:
        """What the parameter gets, by einops and numpy."""
        names = [f"a{axis}" for axis in range(len(self.sizes))]
        sides = [" ".join(f"({' '.join(names[a] for a in g)})" for g in side) for side in (self.left, self.right)]
        sizes = dict(zip(names, self.sizes, strict=True))
        part = ARRAYS[self.source][self.start :]
        split = np.flip(einops.rearrange(part, f"{sides[0]} -> {' '.join(names)}", **sizes), tuple(self.flip))
        moved: np.ndarray[Any, Any] = einops.rearrange(split, f"{' '.join(names)} -> {sides[1]}", **sizes)
        return moved * (self.scale or 1) + (self.add or 0)

    def keys(self, style: random.Random) -> str:
        """Everything but its names, in some spelling."""
        names = style.sample([a + b for a in "hwcoxyz" for b in ("", "_in", "2")], len(self.sizes))
        is_bare = all(len(group) == 1 for group in self.left + self.right)
        if is_bare and style.random() < 0.3:
            keys = [f"permute: {[group[0] for group in self.right]}"]
            flips = [str(axis) for axis in sorted(self.flip)]
        else:
            sides = [" ".join(_group([names[a] for a in g], style) for g in side) for side in (self.left, self.right)]
            dims = {names[a]: self.sizes[a] for group in self.left for a in group[:-1]}
            keys = [f"axes: {sides[0]} -> {sides[1]}"]
            keys += [f"dims: {{{', '.join(f'{name}: {size}' for name, size in dims.items())}}}"] if dims else []
            flips = [names[axis] for axis in self.flip]
        style.shuffle(flips)
        keys += [f"flip: [{', '.join(flips)}]"] if flips else []
        keys += [f'slice: ["{self.start}:"]'] if self.start else []
        keys += [f"{key}: {value}" for key, value in (("scale", self.scale), ("add", self.add)) if value is not None]
        style.shuffle(keys)
        return ", ".join(keys)


def _group(names: Sequence[str], style: random.Random) -> str:
    return names[0] if len(names) == 1 and style.random() < 0.9 else f"({' '.join(names)})"


def written(rows: Sequence[Row], style: random.Random) -> str:
    """The file of these rows: some under a `for`, some in a recipe, in some order, in some spelling."""
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        what = replace(row, source="", target="")
        families.setdefault((what, row.source.startswith("layer_"), None if "layer" in row.source else row), []).append(
            row
        )
    lines: list[str] = []
    recipes: list[str] = []
    letter = ""
    for family in families.values():
        named = [(row.source, row.target) for row in family]
        if [name for name, _ in named] == [f"layer_{i}/kernel" for i in range(3)] and style.random() < 0.7:
            letter = letter or style.choice("ijn")
            named = [(f"layer_<{letter}>/kernel", f"layers.<{letter}>.weight")]
        for source, target in named:
            keys = family[0].keys(style)
            if style.random() < 0.3:
                folder, _, name = source.rpartition("/")
                module, _, parameter = target.rpartition(".")
                recipes.append(f"  r{len(recipes)}:\n  - {{torch: {parameter}, {keys}, tf: {name}}}\n")
                lines.append(f'{{tf: "{folder}", torch: {module}, use: r{len(recipes) - 1}}}')
            else:
                lines.append(f"{{tf: {source}, torch: {target}, {keys}}}")
    style.shuffle(lines)
    more = f"for: {{{letter}: {style.choice(['0..2', '[0, 1, 2]'])}}}\n" if letter else ""
    return mapping(lines, more + ("recipes:\n" + "".join(recipes) if recipes else ""))


# --- what is drawn ---


@st.composite
def movements(draw: st.DrawFn, source: str, target: str) -> Row:
    start = draw(st.sampled_from([0, 0, 0, 1, 2]))
    shape = ARRAYS[source][start:].shape
    sizes: list[int] = []
    left: list[tuple[int, ...]] = []
    for size in shape:
        factors = [size, 1] if draw(st.integers(0, 9)) == 0 else [size]
        if size % 2 == 0 and draw(st.booleans()):
            factors = draw(st.sampled_from([[2, size // 2], [size // 2, 2]]))
        left.append(tuple(range(len(sizes), len(sizes) + len(factors))))
        sizes += factors
    order = draw(st.permutations(range(len(sizes))))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=3)) | {len(order)})
    right = tuple(tuple(order[a:b]) for a, b in zip([0, *cuts], cuts, strict=False))
    flip = draw(st.frozensets(st.integers(0, len(sizes) - 1), max_size=2))
    scale, add = draw(st.sampled_from([None, 2, 0.5])), draw(st.sampled_from([None, 1, 0.25]))
    return Row(source, target, tuple(left), right, tuple(sizes), flip, start, scale, add)


@st.composite
def mappings(draw: st.DrawFn) -> list[Row]:
    names = draw(st.lists(st.sampled_from(["b", "sq", "w", "k", "d", "layer"]), min_size=1, max_size=4, unique=True))
    rows: list[Row] = []
    for name in names:
        if name == "layer":
            layer = draw(movements("layer_0/kernel", ""))
            own = [replace(layer, source=f"layer_{i}/kernel", target=f"layers.{i}.weight") for i in range(3)]
        else:
            own = [draw(movements(name, f"p.{name}"))]
        rows += own
    return rows


def mutations(row: Row) -> Iterator[Row]:
    """The row with one thing changed."""
    if row.source in ALIKE:
        yield replace(row, source=ALIKE[row.source])
    flat = [axis for group in row.right for axis in group]
    for axis in range(len(row.sizes)):
        yield replace(row, flip=row.flip ^ {axis})
        other = (axis + 1) % len(row.sizes)
        swapped = {axis: other, other: axis}
        yield replace(row, right=tuple(tuple(swapped.get(a, a) for a in group) for group in row.right))
    for group in row.left:
        if len(group) == 2:
            sizes = list(row.sizes)
            sizes[group[0]], sizes[group[1]] = sizes[group[1]], sizes[group[0]]
            yield replace(row, sizes=tuple(sizes))
    yield replace(row, right=(tuple(flat),) if len(row.right) > 1 else tuple((axis,) for axis in flat))
    yield replace(row, scale=4)
    yield replace(row, add=8)


styles = st.randoms(use_true_random=False)


def names(found: MappingDiff) -> list[tuple[str, str]]:
    return [(change.kind, change.target) for change in found.changes]


@settings(max_examples=40, deadline=None)
@given(mappings(), styles)
def test_a_rewriting_is_no_change(rows: list[Row], style: random.Random) -> None:
    before, after = written(rows, style), written(rows, style)
    held = lock(before, {}), lock(after, {})

    for locks in (held, (held[0], held[0]), (None, held[1]), (None, None)):
        found = compared(before, after, locks)
        assert names(found) == []
        assert found.is_same
        assert found.as_written == (0 if any(locks) else len(rows))
        assert not found.is_stale


@settings(max_examples=80, deadline=None)
@given(st.data(), mappings(), styles)
def test_a_row_that_does_something_else_is_named_and_no_other(
    data: st.DataObject, rows: list[Row], style: random.Random
) -> None:
    position = data.draw(st.integers(0, len(rows) - 1))
    old = rows[position]
    new = data.draw(st.sampled_from(list(mutations(old))))
    before, after = written(rows, style), written([*rows[:position], new, *rows[position + 1 :]], style)
    held = lock(before, {}), lock(after, {})
    results = old.result(), new.result()
    is_same = results[0].shape == results[1].shape and bool((results[0] == results[1]).all())
    wanted = [] if is_same else [("changed", old.target)]

    assert names(compared(before, after, held)) == wanted
    assert names(compared(before, after, (held[0], held[0]))) == wanted
    assert compared(before, after, (held[0], held[0])).is_stale != is_same
    if not is_same:
        assert names(compared(before, after)) == wanted
