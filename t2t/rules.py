"""
A rule: one assignment, as frozen values. Rows become rules in `t2t.rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from t2t.axes import Axes, Order
from t2t.boxes import Bounds
from t2t.problems import Location


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One assignment: `target` (a name of the module's state_dict) gets variables, a number, another name's Parameter, or
    keeps the value that it was built with. Exactly one of `sources`, `fill`, `tie`, `keep` is set.

    Of each source `slice` is read; with `join` they are put together along that axis. `axes` are empty where the row
    gives none; `dims` are sizes of their axes. `into` says which part of the target this is. `shadowed` are the
    variables that `select` replaced. `use` tells apart the uses of recipes: place, names, recipe. `is_whole` is False
    for a row with a problem of its own: it counts as using its names, and nothing else of it is checked.
    """

    target: str
    at: Location
    places: Mapping[str, Location]
    sources: tuple[str, ...] = ()
    slice: tuple[Bounds, ...] = ()
    into: tuple[Bounds, ...] = ()
    join: str | None = None
    flip: tuple[str | int, ...] = ()
    axes: tuple[Axes, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict)
    order: Mapping[str, Order] = field(default_factory=dict)
    scale: float | None = None
    add: float | Mapping[str, Mapping[str, float]] | None = None
    dtype: str | None = None
    reuse: bool = False
    optional: bool = False
    shadowed: tuple[str, ...] = ()
    use: tuple[Location, str, str, str] | None = None
    fill: float | None = None
    tie: str | None = None
    keep: bool = False
    why: str = ""
    is_whole: bool = True

    @property
    def source(self) -> str | None:
        """The variable that it reads, the first where it joins several; None where it reads none."""
        return self.sources[0] if self.sources else None

    def place(self, key: str) -> Location:
        """Where the row's value of this key stands; the row itself where it has none."""
        return self.places.get(key, self.at)


@dataclass(frozen=True, slots=True)
class Lost:
    """
    The names that rows without a rule may have meant, as globs: what is wrong with those rows is told, and enough.
    """

    variables: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
