"""
Damage that gets past the checksums: inputs are taken apart, changed inside, and put together again, valid around it.

`mutated(target, data, random, noise)` does that; `noise` changes some bytes in any way (libFuzzer's, or `edited`).
Nothing here shares code with the readers.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import cramjam

from tests.checkpoints import writing

Noise = Callable[[bytes], bytes]
Rows = list[tuple[bytes, bytes]]

_FOOTER = 48
#: Numbers at which something may go wrong.
_ODD = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def mutated(target: str, data: bytes, random: Random, noise: Noise) -> bytes:
    """The input for a target, damaged. Bytes that cannot be taken apart get plain noise."""
    if random.random() < 0.15 or target not in _STRUCTURES:
        return noise(data)
    try:
        return _STRUCTURES[target](data, random, noise)
    except Exception:  # noqa: BLE001 - of input that cannot be taken apart anything may be raised
        return noise(data)


def edited(data: bytes, random: Random) -> bytes:
    """A few bytes flipped, put in, left out or repeated."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        at = random.randrange(len(out) + 1)
        size = random.choice((1, 1, 2, 4, 8, 32))
        kind = random.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif kind == 2:
            out[at:at] = random.randbytes(size)
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = out[at : at + size]
        else:
            del out[at:]
    return bytes(out)


# Tables.


def _table(data: bytes, random: Random, noise: Noise) -> bytes:
    if random.random() < 0.3:
        return _sealed_again(noise(data))
    return _written(_changed_rows(_rows(data), random, noise), random, noise)


def _bundle(data: bytes, random: Random, noise: Noise) -> bytes:
    end = 4 + int.from_bytes(data[:4], "big")
    index, stored = data[4:end], data[end:]
    if random.random() < 0.2:
        stored = noise(stored)
    if random.random() < 0.8:
        index = _table(index, random, noise)
    if random.random() < 0.7:
        with contextlib.suppress(ValueError, IndexError, cramjam.DecompressionError):
            index = _with_right_checksums(index, stored, random)
    return len(index).to_bytes(4, "big") + index + stored


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if shift > 70:
            raise ValueError("no number")
    return value | data[at] << shift, at + 1


def _places(data: bytes) -> list[tuple[int, int]]:
    """(offset, size) of the metaindex, the index and the data blocks, as far as they lie within the table."""
    numbers = []
    at = len(data) - _FOOTER
    if at < 0:
        raise ValueError("no table")
    for _ in range(4):
        number, at = _varint(data, at)
        numbers.append(number)
    places = [(numbers[0], numbers[1]), (numbers[2], numbers[3])]
    for _, value in _in_block(_content(data, *places[1])):
        offset, behind = _varint(value, 0)
        places.append((offset, _varint(value, behind)[0]))
    return places


def _content(data: bytes, offset: int, size: int) -> bytes:
    if offset + size + 5 > len(data):
        raise ValueError("no block")
    content = data[offset : offset + size]
    if data[offset + size] == 1:
        if cramjam.snappy.decompress_raw_len(content) > 2**20:
            raise ValueError("too large")
        return bytes(cramjam.snappy.decompress_raw(content))
    return content


def _in_block(block: bytes) -> Rows:
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    rows = []
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + rest]
        rows.append((key, block[at + rest : at + rest + length]))
        at += rest + length
    return rows


def _rows(data: bytes) -> Rows:
    return [row for place in _places(data)[2:] for row in _in_block(_content(data, *place))]


def _sealed_again(data: bytes) -> bytes:
    """The same bytes, with the checksum that each block that is still there should have."""
    out = bytearray(data)
    for offset, size in _places(data):
        end = offset + size + 1
        if end + 4 <= len(out):
            out[end : end + 4] = struct.pack("<I", writing.masked(bytes(out[offset:end])))
    return bytes(out)


def _changed_rows(rows: Rows, random: Random, noise: Noise) -> Rows:
    rows = rows or [(b"", b"")]
    for _ in range(random.choice((1, 1, 2, 3))):
        i = random.randrange(len(rows))
        key, value = rows[i]
        kind = random.randrange(8)
        if kind == 0:
            rows[i] = noise(key), value
        elif kind == 1:
            rows[i] = key, noise(value)
        elif kind == 2:
            rows.insert(i, (noise(key), value))
        elif kind == 3:
            rows[i] = key, rows[random.randrange(len(rows))][1]
        elif kind == 4 and len(rows) > 1:
            del rows[i]
        else:
            rows[i] = key, changed_message(value, random, noise)
    return sorted(rows) if random.random() < 0.8 else rows


def _written(rows: Rows, random: Random, noise: Noise) -> bytes:
    blocks = random.choice((1, 1, 1, 2, 5))
    compression = random.choice((0, 0, 0, 1))
    size = max(1, -(-len(rows) // blocks))
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    contents = [writing.block(chunk, random.choice((16, 1, 3))) for chunk in chunks]
    if random.random() < 0.15 and contents:
        i = random.randrange(len(contents))
        contents[i] = noise(contents[i])
    stored = [writing.stored(content, compression) for content in contents]
    if compression and random.random() < 0.3 and stored:
        i = random.randrange(len(stored))
        stored[i] = writing.sealed(noise(stored[i][:-5]), 1)
    return writing.table_of([(chunk[-1][0], block) for chunk, block in zip(chunks, stored, strict=True)])


def _with_right_checksums(index: bytes, stored: bytes, random: Random) -> bytes:
    """The index, in which each entry's checksum is that of the bytes that the entry is of."""
    rows = []
    for key, value in _rows(index):
        items = message_items(value) if key else []
        offset = next((item for field, item in items if field == 4 and isinstance(item, int)), 0)
        size = next((item for field, item in items if field == 5 and isinstance(item, int)), 0)
        if items and offset + size <= len(stored) and random.random() < 0.95:
            right = writing.Fixed32(writing.masked(stored[offset : offset + size]))
            items = [(field, right if field == 6 else item) for field, item in items]
            rows.append((key, writing.message(*items)))
        else:
            rows.append((key, value))
    return writing.table(rows)


# Protobuf.


def message_items(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message, as `writing.message` takes them; raises ValueError or IndexError."""
    at = 0
    items: list[tuple[int, int | bytes]] = []
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            items.append((tag >> 3, value))
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("no message")
            items.append((tag >> 3, data[at : at + size]))
            at += size
        elif tag & 7 == 5:
            items.append((tag >> 3, writing.Fixed32(struct.unpack_from("<I", data, at)[0])))
            at += 4
        else:
            raise ValueError("no message")
    return items


def changed_message(data: bytes, random: Random, noise: Noise, depth: int = 0) -> bytes:
    """The message with a field changed, added, repeated or left out, at any depth."""
    try:
        items = message_items(data)
    except (ValueError, IndexError, struct.error):
        return noise(data)
    if not items:
        return writing.message((random.randrange(1, 20), _odd(random)))
    i = random.randrange(len(items))
    field, value = items[i]
    kind = random.randrange(8)
    if kind == 0:
        items.insert(random.randrange(len(items) + 1), (field, value))
    elif kind == 1:
        del items[i]
    elif kind == 2:
        items[i] = random.randrange(1, 20), value
    elif kind == 3:
        items.append((random.randrange(1, 20), _odd(random)))
    elif isinstance(value, writing.Fixed32):
        items[i] = field, writing.Fixed32(_odd(random) & 0xFFFFFFFF)
    elif isinstance(value, int):
        items[i] = field, random.choice((_odd(random), value + 1, value ^ 1 << random.randrange(64)))
    elif depth < 12 and random.random() < 0.8:
        items[i] = field, changed_message(value, random, noise, depth + 1)
    else:
        items[i] = field, noise(value)
    return writing.message(*items)


def _odd(random: Random) -> int:
    return random.choice((*_ODD, random.randrange(40)))


# Text.


_WORD = re.compile(rb"[\w./:*-]+|\s+|.", re.DOTALL)


def _text(data: bytes, random: Random, noise: Noise) -> bytes:
    """Words repeated, swapped or changed: what is left is still nearly YAML or a text protobuf."""
    words = _WORD.findall(data)
    if not words or random.random() < 0.3:
        return noise(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        i, k = random.randrange(len(words)), random.randrange(len(words))
        kind = random.randrange(5)
        if kind == 0:
            words[i], words[k] = words[k], words[i]
        elif kind == 1:
            words[i] = words[k]
        elif kind == 2:
            words[i:i] = words[k : k + random.randrange(1, 12)]
        elif kind == 3:
            words[i] = b""
        else:
            words[i] = noise(words[i])
    return b"".join(words)


# JSON.


def _json(data: bytes, random: Random, noise: Noise) -> bytes:
    """Something in the document changed, moved, put in or left out."""
    document = json.loads(data)
    places: list[tuple[Any, Any]] = []
    found = [document]
    while found:
        inside = found.pop()
        keys: list[Any] = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        places += [(inside, key) for key in keys]
        found += [inside[key] for key in keys if isinstance(inside[key], (dict, list)) and inside[key]]
    for _ in range(random.choice((1, 1, 2, 3))):
        inside, key = random.choice(places)
        other, other_key = random.choice(places)
        with contextlib.suppress(IndexError, KeyError):
            value = inside[key]
            kind = random.randrange(6)
            if kind == 0 and isinstance(inside, dict):
                inside[noise(str(key).encode()).decode("utf-8", "replace")] = value
            elif kind == 1:
                del inside[key]
            elif kind == 2:
                inside[key] = json.loads(json.dumps(other[other_key]))
            elif kind == 3 and isinstance(value, str):
                inside[key] = noise(value.encode()).decode("utf-8", "replace")
            elif kind == 4:
                inside[key] = random.choice(
                    (None, True, "", [], {}, -1, 1.5, _odd(random), [value], "\ud800", "a/../b")
                )
            elif isinstance(value, int):
                inside[key] = _odd(random)
    return json.dumps(document).encode()


# Zip archives.


def _zip(data: bytes, random: Random, noise: Noise) -> bytes:
    """One member changed, in an archive whose directory and checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    if not members:
        return noise(data)
    i = random.randrange(len(members))
    name, content, compression = members[i]
    if random.random() < 0.15:
        name = noise(name.encode()).decode("utf-8", "replace") or "x"
    elif random.random() < 0.8:
        # What is at the beginning of a member decides how the rest is read.
        cut = random.choice((128, len(content)))
        content = noise(content[:cut]) + content[cut:]
    else:
        compression = zipfile.ZIP_DEFLATED if compression == zipfile.ZIP_STORED else zipfile.ZIP_STORED
    members[i] = name, content, compression
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content, kind in members:
            with _quiet():
                archive.writestr(zipfile.ZipInfo(member), content, kind)
    written = out.getvalue()
    return noise(written) if random.random() < 0.1 else written


def _quiet() -> contextlib.AbstractContextManager[object]:
    import warnings

    return warnings.catch_warnings(action="ignore")  # of two members of one name


_STRUCTURES: dict[str, Callable[[bytes, Random, Noise], bytes]] = {
    "index": _table,
    "bundle": _bundle,
    "v1": _table,
    "graph": changed_message,
    "meta": changed_message,
    "object_graph": changed_message,
    "state": _text,
    "mapping": _text,
    "npz": _zip,
    "keras_archive": _zip,
    "keras_layout": _json,
    "keras_shards": _json,
    "lock": _json,
}
