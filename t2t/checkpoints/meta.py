"""
Which variables the original trains, from the graph that TF1 stores beside a checkpoint.

    MetaGraphDef   1 meta info, 2 graph (skipped, unread), 4 collections: map<string, CollectionDef>
    map entry      1 key, 2 CollectionDef
    CollectionDef  2 bytes list { 1 VariableDef, ... }       the collection "trainable_variables"
    VariableDef    1 name ("w:0"), 4 SaveSliceInfoDef { 1 name under which a part of "w" is saved }
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from t2t.checkpoints.files import is_address, open_regular, reason, refusal
from t2t.checkpoints.protobuf import BYTES, VARINT, Corrupt, expect, fields, varint
from t2t.names import OUTPUT_SUFFIX

MAX_COLLECTION = 64 * 2**20

#: The longest field header: a tag and a length.
_HEADER_SIZE = 20


def trainable(path: str) -> frozenset[str] | None:
    """
    The names of the trainable variables in the file `<prefix>.meta`, as the checkpoint spells them.

    None where there is no such file or it has no such collection, and for an address: a graph can be larger than the
    weights, and is not fetched. Raises CheckpointError: T2T602, T2T604 or T2T611.
    """
    if is_address(path) or not os.path.lexists(path):
        return None
    fd, found = open_regular(path)
    with open(fd, "rb", buffering=0) as file:
        try:
            names = None
            for collection in _collections(file, found.st_size):
                names = _trainable_in(collection) if names is None else names
            return names
        except Corrupt as error:
            hint = error.hint or "the weights do not need this file: move it away, or copy it again"
            raise refusal(error.code, f"not the graph of a checkpoint: {error}", path, hint) from error
        except OSError as error:
            raise refusal("T2T602", f"cannot be read: {reason(error)}", path) from error


def _collections(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The map entries of the field `collection_def`. The graph, which can have gigabytes, is jumped over."""
    at = 0
    while at < size:
        file.seek(at)
        header = file.read(_HEADER_SIZE)
        tag, behind = varint(header, 0, len(header))
        number, wire = tag >> 3, tag & 7
        # All fields are messages today. Of a number, which a later version may have, this is the value.
        length, behind = varint(header, behind, len(header))
        if wire == BYTES:
            if length > size - at - behind:
                raise Corrupt(f"protobuf field {number} claims {length} bytes, but {size - at - behind} are left")
            if number == 4:
                if length > MAX_COLLECTION:
                    raise Corrupt(f"a collection has {length} bytes, but at most {MAX_COLLECTION} are read", "T2T611")
                file.seek(at + behind)
                yield file.read(length)
            behind += length
        else:
            expect(number, wire, VARINT)
        at += behind


def _trainable_in(entry: bytes) -> frozenset[str] | None:
    """The names in a collection called "trainable_variables", None in any other."""
    key = collection = b""
    for number, wire, value in fields(entry):
        if number in (1, 2):
            expect(number, wire, BYTES)
            key, collection = (value, collection) if number == 1 else (key, value)
    if key != b"trainable_variables":
        return None
    return frozenset(
        _variable_name(variable)
        for kind, wire, values in fields(collection)
        if (kind, wire) == (2, BYTES)
        for number, item_wire, variable in fields(values)
        if (number, item_wire) == (1, BYTES)
    )


def _variable_name(variable: bytes) -> str:
    name = part_of = b""
    for number, wire, value in fields(variable):
        if number == 1:
            expect(number, wire, BYTES)
            name = value
        elif number == 4:
            expect(number, wire, BYTES)
            part_of = next((text for kind, w, text in fields(value) if (kind, w) == (1, BYTES)), b"")
    return (part_of or name).decode("utf-8", "surrogateescape").removesuffix(OUTPUT_SUFFIX)
