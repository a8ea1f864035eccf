"""
Variables by the names that they had in their model, where a checkpoint knows them.

A TF2 checkpoint keys a variable by where it hangs (`layer_with_weights-3/kernel`), and its object graph knows what it
was called (`dense/kernel`). Full names need not be unique: copies of one variable become one, and a name that variables
of different values share is nobody's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from t2t.checkpoints.object_graph import ObjectGraph
from t2t.names import natural
from t2t.tensors import CheckpointInventory, TensorRef


def with_full_names(variables: Mapping[str, TensorRef], graph: ObjectGraph) -> dict[str, TensorRef]:
    """The same variables in the same order, `full_name` set where the graph knows it."""
    return {
        name: replace(ref, full_name=graph.full_names[ref.key]) if ref.key in graph.full_names else ref
        for name, ref in variables.items()
    }


def by_full_name(inventory: CheckpointInventory) -> CheckpointInventory:
    """
    The inventory with each variable under its full name; one without keeps its name.

    Of copies (equal full name, dtype, shape and checksum) the first stays. Variables of different values that share a
    full name keep theirs, and `shared_names` lists them; so does one whose full name another variable goes by. Where
    the format stores no checksums, the values of variables that may be copies are read.
    Raises CheckpointError where such values cannot be read.
    """
    groups: dict[str, list[TensorRef]] = defaultdict(list)
    for ref in sorted(inventory.variables.values(), key=lambda ref: natural(ref.name)):
        if ref.full_name:
            groups[ref.full_name].append(ref)
    shared = {name: refs for name, refs in groups.items() if not _are_copies(inventory, refs)}
    # Who loses its name keeps its old one, and that may be the full name of the next.
    stays = [ref.name for ref in inventory.variables.values() if not ref.full_name or ref.full_name in shared]
    usable = {name: refs for name, refs in groups.items() if name not in shared}
    while stays:
        old = stays.pop()
        if old in usable:
            stays += [ref.name for ref in usable.pop(old)]
    new = {ref.name: name for name, refs in usable.items() for ref in refs}
    dropped = {ref.name for refs in usable.values() for ref in refs[1:]}

    def called(name: str | None) -> str | None:
        return new.get(name, name) if name else name

    refs = [
        replace(ref, name=new.get(name, name), slot_of=called(ref.slot_of), average_of=called(ref.average_of))
        for name, ref in inventory.variables.items()
        if name not in dropped
    ]
    trainable = inventory.trainable
    return replace(
        inventory,
        variables={ref.name: ref for ref in sorted(refs, key=lambda ref: natural(ref.name))},
        trainable=None if trainable is None else frozenset(new.get(name, name) for name in trainable),
        shared_names={name: tuple(ref.name for ref in shared[name]) for name in sorted(shared, key=natural)},
    )


def _are_copies(inventory: CheckpointInventory, refs: Sequence[TensorRef]) -> bool:
    """Whether all of them hold the same values; nothing is read where a name, a dtype or a shape says it already."""
    if len(refs) == 1:
        return True
    if len({(ref.dtype, ref.shape) for ref in refs}) > 1:
        return False
    first, *others = (_crc32c(inventory, ref) for ref in refs)
    return first is not None and all(other == first for other in others)


def _crc32c(inventory: CheckpointInventory, ref: TensorRef) -> int | None:
    if ref.crc32c is not None or ref.unreadable or inventory.checksum is None:
        return ref.crc32c
    return inventory.checksum(ref)
