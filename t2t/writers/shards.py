"""
An output in shards: which tensor lies in which file, what the files are called, and the index that says so.

    model-00001-of-00003.safetensors ... model.safetensors.index.json

    {"metadata": {"total_size": bytes of all tensors, ...}, "weight_map": {name: file, ...}}

The names and the index are those of the transformers and huggingface_hub libraries, which read them, and a file is
filled as they fill it. `place` is always the file that there would be without shards, `model.safetensors`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from t2t.names import shown
from t2t.problems import Location, OutputError, Problem
from t2t.tensors import DTYPES
from t2t.writers import Entry
from t2t.writers.atomic import sync_directory
from t2t.writers.ours import is_ours

#: What the index's name has behind the name of the place.
INDEX = ".index.json"


def split(entries: Sequence[Entry], shard_size: int | None) -> list[list[Entry]]:
    """
    The entries of each file, in their order: a file is full when the next entry would take its tensors over
    `shard_size` bytes. A larger entry has a file of its own. Entries that are tied stay together, and count as often as
    they are stored.
    """
    if shard_size is None:
        return [list(entries)]
    tied: dict[str, list[Entry]] = {}
    for entry in entries:
        tied.setdefault(entry.tied_to or entry.name, []).append(entry)
    files: list[list[Entry]] = []
    current: list[Entry] = []
    filled = 0
    for group in tied.values():
        size = sum(map(nbytes, group))
        if size > shard_size:
            files.append(group)
            continue
        if filled + size > shard_size:
            files.append(current)
            current, filled = [], 0
        current += group
        filled += size
    return [*files, current] if current or not files else files


def nbytes(entry: Entry) -> int:
    """The bytes of an entry's values."""
    return math.prod(entry.shape) * DTYPES[entry.dtype].itemsize


def names(place: str, count: int) -> list[str]:
    """What `count` files are called, in the directory of `place`."""
    stem, ending = os.path.splitext(os.path.basename(place))
    return [f"{stem}-{number:05d}-of-{count:05d}{ending}" for number in range(1, count + 1)]


def index_name(place: str) -> str:
    """What the index is called, in the directory of `place`."""
    return os.path.basename(place) + INDEX


def places(place: str, entries: Sequence[Entry], shard_size: int | None) -> list[str]:
    """Every path that an output at `place` takes: the place alone or, with shards, theirs and the index's too."""
    count = len(split(entries, shard_size))
    if count == 1:
        return [place]
    directory = os.path.dirname(place)
    return [place, *(os.path.join(directory, name) for name in (*names(place, count), index_name(place)))]


def index(place: str, files: Sequence[Sequence[Entry]], metadata: Mapping[str, str]) -> bytes:
    """The index of these files, as JSON."""
    named = dict(zip(names(place, len(files)), files, strict=True))
    document = {
        "metadata": {**metadata, "total_size": sum(nbytes(entry) for file in files for entry in file)},
        "weight_map": {entry.name: name for name, file in named.items() for entry in file},
    }
    return json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"


def replaced(place: str, new: Sequence[str]) -> list[str]:
    """
    What stands in the directory of `place` and is replaced by an output there, the index of an older one first.

    That is whatever has a name of the `new` files or that of the place itself, and each shard and index of this place
    that t2t wrote: a loader that looks for files by their names would find weights of two outputs.
    """
    directory, name = os.path.split(place)
    stem, ending = map(re.escape, os.path.splitext(name))
    shard = re.compile(rf"{stem}-\d{{5}}-of-\d{{5}}{ending}")
    found = []
    for entry in os.scandir(directory or "."):
        is_named = entry.name in {*new, name}
        is_part = entry.name == index_name(place) or shard.fullmatch(entry.name) is not None
        with suppress(OSError):  # what cannot be read is not known to be ours
            if is_named or (is_part and entry.is_file(follow_symlinks=False) and is_ours(entry.path)):
                found.append(entry.name)
    return sorted(found, key=lambda name: (not name.endswith(INDEX), name))


def remove_older(place: str, note: Callable[[Problem], None]) -> None:
    """Removes the shards that t2t wrote for this place before the single file that now stands there, with a note."""
    target = os.path.realpath(place)
    directory, name = os.path.split(target)
    older = [found for found in replaced(target, ()) if found != name]
    try:
        for found in older:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, found))
    except OSError as error:
        message = f"the file is written, but {shown(found)} of an older output cannot be removed: {error.strerror}"
        raise OutputError(Problem("T2T802", message, Location(place), "remove it: loaders would find both")) from None
    if older:
        sync_directory(directory)
        message = f"removed {shown(older[0])} and what else t2t wrote there in shards before"
        note(Problem("T2T806", message, Location(place), severity="note"))
