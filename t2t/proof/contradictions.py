"""
Where a row says something else of a variable than the graph does with it.

    order        a convolution's or a product's kernel: the axes of the row against those that the operation means
    flattened    a kernel behind a flattened map: the order in which the map's elements became rows
    vector       what a normalization or a sum takes a vector for, against the name of what it is written to
    forget gate  what an LSTM cell adds when it runs, and does not store

Only what is certain is told, by what torch's own layers call their parameters and how they keep them. A row that does
something unusual in so many words (`h w i o -> h w i o`, `(h w c) o -> o (h w c)`, `gamma -> gamma`) is a decision, and
believed. One whose words are right and whose order is nobody's (`h w i o -> o i w h`) may be a decision or a slip: that
is a warning. Every error names the decision that it takes for a mistake; but where torch's own module is known, nothing
is left to decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from t2t import boxes
from t2t.axes import Transform, parse, shown_steps
from t2t.coverage import Part
from t2t.names import shown
from t2t.problems import Location, Problem
from t2t.proof.uses import Flattened, Role, Use
from t2t.rules import Rule

CODE = "T2T504"

#: How torch keeps the kernel whose axes an operation means so.
_KEPT = {
    "i o": "o i",
    "o i": "o i",
    "k i o": "o i k",
    "h w i o": "o i h w",
    "d h w i o": "o i d h w",
    "k o i": "i o k",
    "h w o i": "i o h w",
    "d h w o i": "i o d h w",
    "h w i m": "(i m) 1 h w",
}

#: How torch's layers call what a vector is.
_CALLED: dict[Role, str] = {
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}
_IN_WORDS: dict[Role, str] = {"mean": "the moving mean", "variance": "the moving variance", "bias": "the bias"}

#: Behind a flatten of more elements nothing is compared: a shape can claim any number, and each becomes an integer.
MAX_ROWS = 2**24

#: The modules whose weight is as a product means it, in or out first.
_PRODUCT_MODULES = {"Linear": "o i", "Conv1D": "i o"}


def contradictions(part: Part, uses: Sequence[Use], kind: str, *, is_turned: bool) -> list[Problem]:
    """
    What the row of this part gets wrong of its one variable; nothing where it reads several, or some of one.

    `kind` names the class of the module that the target belongs to, "" where that is not known. `is_turned` says that
    the mapping's pictures have their height and width exchanged.
    """
    if not _is_whole(part) or len(part.transforms) != 1 or part.transforms[0].flips:
        return []
    if any(use.role != "kernel" for use in uses):
        return _vector(part, uses)
    if len({use.axes for use in uses}) != 1 or part.transforms[0].orders:
        return []
    use = uses[0]
    if use.axes not in {"i o", "o i"}:
        return _convolution(part, use, kind, is_turned=is_turned)
    is_one = len({str(use.flattened) for use in uses}) == 1
    return (_flattened(part, use) if is_one else []) or _product(part, use, kind)


def _is_whole(part: Part) -> bool:
    """Whether it is all of one variable, and all of its target."""
    is_one = len(part.reads) == 1 and part.joined is None and part.into is None
    return is_one and part.reads[0].box == boxes.whole(part.reads[0].ref.shape)


def place(rule: Rule) -> Location:
    """Where the row says how its axes move."""
    return next((rule.places[key] for key in ("axes", "permute", "use") if key in rule.places), rule.at)


def moves(transform: Transform) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """
    How elements move, however it is written: the elementary axes but for those of size 1, neighbours that stay so as
    one, and the order that they come to stand in.
    """
    order = [axis for axis in transform.permutation if transform.elementary[axis] != 1]
    kept = sorted(order)
    runs: list[list[int]] = []
    for axis in order:
        if runs and kept.index(axis) == kept.index(runs[-1][-1]) + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    runs_in_order = sorted(runs)
    sizes = tuple(math.prod(transform.elementary[axis] for axis in run) for run in runs_in_order)
    return sizes, tuple(runs_in_order.index(run) for run in runs)


# --- kernels ---


def _convolution(part: Part, use: Use, kind: str, *, is_turned: bool) -> list[Problem]:
    rule, transform, shape = part.rule, part.transforms[0], part.reads[0].ref.shape
    wanted = parse(f"{use.axes} -> {_KEPT[use.axes]}")
    right_one, hint = wanted.resolve(shape, {}), f"write axes: {wanted}"
    if len(part.shape) != len(shape) or rule.target.rpartition(".")[2] != "weight":
        return []
    if moves(transform) == moves(right_one):
        if part.shape == right_one.output or is_turned:
            return []
        what = f"give {list(part.shape)}, not {list(right_one.output)}"
        return [_kept_otherwise(part, use, what, hint, kind)]
    order = _order(transform, use.axes.split())
    if order is None:
        return []
    right = [name for group in wanted.right for name in group if shape[use.axes.split().index(name)] != 1]
    channels = [name for name in right if name in "iom"]
    spatial = [name for name in right if name not in channels]
    if set(order[: len(channels)]) != set(channels) and not kind.startswith("Conv"):
        return []  # a module of its own that keeps it in an order of its own
    wrong = []
    if order[: len(channels)] != channels:
        wrong.append(_exchanged(order[: len(channels)], channels))
    if order[len(channels) :] != spatial and not is_turned:
        wrong.append(_exchanged(order[len(channels) :], spatial))
    if not wrong:
        return []
    return [_kept_otherwise(part, use, f"exchange {', '.join(wrong)}", hint, kind)]


def _kept_otherwise(part: Part, use: Use, what: str, hint: str, kind: str) -> Problem:
    """A module of its own may keep the kernel so: a row that knows what its axes are is only asked."""
    rule, names = part.rule, use.axes.split()
    message = f"{_says(rule)} {what}: {_kernel(part, use)}"
    if kind.startswith("Conv"):
        return Problem(CODE, message, place(rule), hint)
    spelled = _spelled(part, names)
    kept = spelled.partition(" -> ")[2]
    if rule.axes and _is_named(rule.axes[0].left, names, part.reads[0].ref.shape):
        hint += f"; where the module itself keeps {kept}, it is right as it is"
        return Problem(CODE, message, place(rule), hint, "warning")
    return Problem(CODE, message, place(rule), f"{hint}, or, where the module itself keeps {kept}, axes: {spelled}")


def _is_named(left: Sequence[Sequence[str]], names: Sequence[str], shape: Sequence[int]) -> bool:
    """Whether a row gives the variable's axes these names; those of size 1 may have any."""
    return all(size == 1 or list(group) == [name] for group, name, size in zip(left, names, shape, strict=True))


def _spelled(part: Part, names: Sequence[str]) -> str:
    """The row's axes by these names of the variable's: what says in so many words that it is meant."""
    shape, order = part.reads[0].ref.shape, _order(part.transforms[0], names)
    if order is None:
        order = [name for name, size in zip(names, shape, strict=True) if size != 1]
    sizes = dict(zip(names, shape, strict=True))
    ones, right = [name for name in names if sizes[name] == 1], []
    for size in part.shape:
        group: list[str] = []
        while math.prod(sizes[name] for name in group) < size and order:
            group.append(order.pop(0))
        group = group or ones[:1]
        ones = [name for name in ones if name not in group]
        right.append(f"({' '.join(group)})" if len(group) > 1 else group[0] if group else "1")
    return f"{' '.join('1' if name in ones else name for name in names)} -> {' '.join(right)}"


def _exchanged(order: Sequence[str], right: Sequence[str]) -> str:
    if set(order) != set(right):
        return "channels and places"
    moved = [name for name, other in zip(right, order, strict=True) if name != other]
    return f"{', '.join(moved[:-1])} and {moved[-1]}"


def _order(transform: Transform, names: Sequence[str]) -> list[str] | None:
    """The variable's axes in the parameter's order, but for those of size 1; None where one of them is split."""
    real = [axis for axis, size in enumerate(transform.elementary) if size != 1]
    whole = [name for name, size in zip(names, transform.input, strict=True) if size != 1]
    if [transform.elementary[axis] for axis in real] != [size for size in transform.input if size != 1]:
        return None
    return [whole[real.index(axis)] for axis in transform.permutation if axis in real]


def _product(part: Part, use: Use, kind: str) -> list[Problem]:
    """A kernel of rank 2: by the names that the row gives its axes, or by the module that it belongs to."""
    rule, transform = part.rule, part.transforms[0]
    order = _order(transform, use.axes.split())
    if order is None or len(order) != 2 or len(part.shape) != 2 or rule.target.rpartition(".")[2] != "weight":
        return []
    named = " ".join(name for group in rule.axes[0].left for name in group) if "axes" in rule.places else ""
    if kind in _PRODUCT_MODULES:
        wanted = _PRODUCT_MODULES[kind]
    elif named in {"i o", "o i"} and named != use.axes:
        wanted = "o i"  # the names are wrong: what they led to is
    else:
        return []
    if " ".join(order) == wanted:
        return []
    why = f"of which a {kind} keeps {wanted}" if kind in _PRODUCT_MODULES else f"which the row takes for {named}"
    message = f"{_says(rule)} give {' '.join(order)}: {_kernel(part, use)}, {why}"
    hint = f"write axes: {use.axes} -> {wanted}"
    if kind not in _PRODUCT_MODULES:
        hint += f", or, where the module itself keeps {' '.join(order)}, axes: {use.axes} -> {' '.join(order)}"
    return [Problem(CODE, message, place(rule), hint)]


def _flattened(part: Part, use: Use) -> list[Problem]:
    """A kernel whose rows are the elements of a map: by the order that they come to stand in."""
    front, rule, transform = use.flattened, part.rule, part.transforms[0]
    if front is None or front.places == 1 or front.channels == 1 or len(part.shape) != 2:
        return []
    if front.places * front.channels > MAX_ROWS:
        return []
    axis = use.axes.split().index("i")
    order = _rows(transform, axis)
    if order is None:
        return []
    rows = np.arange(front.places * front.channels)
    turned = rows.reshape(front.places, front.channels).T.ravel()
    if np.array_equal(order, turned):
        return []
    is_split = len([name for name in rule.axes[0].left[axis] if name]) > 1 if rule.axes else False
    if not np.array_equal(order, rows):
        return [_flatten_problem(part, use, front, "take the map in front of it for another")]
    if is_split:
        return []  # the row says so: the module flattens with its channels last
    return [_flatten_problem(part, use, front, "ignore the flatten in front of it")]


def _flatten_problem(part: Part, use: Use, front: Flattened, what: str) -> Problem:
    """An error; a warning, where the row has the map's sizes right: a module may flatten in an order of its own."""
    rule, known = part.rule, front.spatial or (0, 0)
    names = {1: "l", 2: "h w", 3: "d h w"}[len(known)]
    sizes = ", ".join(f"{name}: {size or '?'}" for name, size in zip(names.split(), known, strict=True))
    left = f"({names} c) o" if use.axes == "i o" else f"o ({names} c)"
    message = (
        f"{_says(rule)} {what}: {_kernel(part, use)}, whose inputs are the map {front} of {front.source}, channels last"
    )
    hint = (
        f"write axes: {left} -> o (c {names}), dims: {{{sizes}}}, or, where the module itself flattens {names} c, "
        f"axes: {left} -> o ({names} c)"
    )
    if not front.spatial:
        hint += f"; {names.replace(' ', ' x ')} is {front.places}"
    ref = part.reads[0].ref
    way = f"{shown(ref.name)} {list(ref.shape)} <- {use.operation} <- {front.reshape} <- {front.source} [{front}]"
    if _is_of_map(part.transforms[0], use.axes.split().index("i"), front):
        hint += "; where it flattens as the row says, it is right as it is"
        return Problem(CODE, message, place(rule), hint, "warning", (way,))
    return Problem(CODE, message, place(rule), hint, details=(way,))


def _rows(transform: Transform, axis: int) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Which element of the variable's axis comes to stand at 0, 1, 2 ...; None where another axis stands between."""
    span = _span(transform, axis)
    if span is None:
        return None
    sizes, (start, length) = transform.elementary, span
    own = [one for one in transform.permutation if start <= one < start + length]
    places = [position for position, one in enumerate(transform.permutation) if one in own and sizes[one] != 1]
    between = transform.permutation[places[0] : places[-1] + 1] if places else ()
    if any(one not in own and sizes[one] != 1 for one in between):
        return None
    elements = np.arange(math.prod(sizes[start : start + length]))
    return elements.reshape(sizes[start : start + length]).transpose([one - start for one in own]).ravel()


def _span(transform: Transform, axis: int) -> tuple[int, int] | None:
    """Where the elementary axes of the variable's axis begin, and how many they are."""
    sizes, start = transform.elementary, 0
    for position, wanted in enumerate(transform.input):
        count = start
        product = 1
        while count < len(sizes) and (product < wanted or (product == wanted and sizes[count] == 1)):
            product *= sizes[count]
            count += 1
        if product != wanted:
            return None
        if position == axis:
            return start, count - start
        start = count
    return None


def _is_of_map(transform: Transform, axis: int, front: Flattened) -> bool:
    """Whether the axis is split into the sizes that the map has."""
    start, length = _span(transform, axis) or (0, 0)
    sizes = [size for size in transform.elementary[start : start + length] if size != 1]
    if front.spatial is not None:
        return sizes == [size for size in (*front.spatial, front.channels) if size != 1]
    return sizes[-1:] == [front.channels] and math.prod(sizes[:-1]) == front.places


# --- vectors ---


def _vector(part: Part, uses: Sequence[Use]) -> list[Problem]:
    """A vector that is the same thing to every operation, by the last name of what it is written to."""
    rule, (use, *more) = part.rule, uses
    role, last = use.role, part.rule.target.rpartition(".")[2]
    if any(other.role != role for other in more):
        return []
    name, shape = shown(part.reads[0].ref.name), part.reads[0].ref.shape
    if last not in _CALLED.values() or last == _CALLED[role] or len(shape) != 1:
        return []
    if rule.axes and rule.axes[0].left == ((role,),):
        return []  # the row says so: the module calls it otherwise
    message = f"{shown(rule.target)} gets {name}, which is {_IN_WORDS.get(role, role)} of {use.operation}"
    hint = f"write it to {shown(rule.target.removesuffix(last) + _CALLED[role])}"
    hint += f", or, where the module itself calls it {last}, axes: {_spelled(part, [role])}"
    return [Problem(CODE, message, rule.place("torch"), hint)]


def forget_bias(
    part: Part, uses: Sequence[Use], others: Mapping[str, Sequence[Part]], settings: Mapping[str, object]
) -> list[Problem]:
    """
    What an LSTM cell adds to its forget gate, where neither the row of its bias nor the module does.

    `others` are all parts by target, `settings` those of the module, none where it is not known: then a row that adds 0
    says that the module adds it.
    """
    rule = part.rule
    added = {use.forget: use for use in uses if use.role == "bias"}
    before, name, suffix = rule.target.rpartition("bias_ih")
    other = others.get(f"{before}bias_hh{suffix}", ())
    if len(added) != 1 or not name or not _is_whole(part) or any(own.rule.sources or own.rule.fill for own in other):
        return []
    (forget, use), own = next(iter(added.items())), settings.get("forget_bias", 0)
    if not forget or isinstance(rule.add, int | float) or not isinstance(own, int | float):
        return []
    axis, order = next(((axis, order) for axis, order in rule.order.items() if len(order.before) == 4), ("g", None))
    letter = order.before[2] if order else "f"
    given = (rule.add or {}).get(axis, {}).get(letter)
    if (given or 0) + own == forget or (given == 0 and not settings):
        return []
    entry = f"{axis}: {{{letter}: {forget!r}}}"
    hint = f"write add: {{{entry}}}"
    if rule.use is not None:
        hint = f"give the recipe {shown(rule.use[3])} that number, or write out its rows, with add: {{{entry}}}"
    elif not rule.order:
        hint = f"write axes: (g u) -> (g u), dims: {{g: 4}}, order: {{g: icfo -> ifco}}, add: {{{entry}}}"
    if not settings:
        hint += f"; where the module adds it itself, add: {{{axis}: {{{letter}: 0.0}}}}"
    says = f"the row adds {given or 0:g}" + (f" and the module {own:g}" if own else "")
    message = (
        f"{shown(rule.target)} gets {shown(part.reads[0].ref.name)}, the bias of an LSTM cell that adds {forget:g} to "
        f"its forget gate when it runs ({use.adds}), but {says}"
    )
    return [Problem(CODE, message, rule.place("add"), hint)]


# --- words ---


def _says(rule: Rule) -> str:
    return f"{shown(rule.target)}: axes '{shown(shown_steps(rule.axes))}'" if rule.axes else shown(rule.target)


def _kernel(part: Part, use: Use) -> str:
    ref = part.reads[0].ref
    return f"{shown(ref.name)} {list(ref.shape)} is the kernel ({use.axes}) of {use.operation}"
