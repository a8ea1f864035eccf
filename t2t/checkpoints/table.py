"""
The sorted string table (LevelDB's SSTable, in TensorFlow's dialect) that a checkpoint's index is.

    table   = data block*, metaindex block, index block, footer
    footer  = varint metaindex offset, size, varint index offset, size, zeros up to 40 bytes, 8 bytes of magic
    block   = content, 1 byte compression (0 none, 1 snappy), u32 masked crc32c of content and compression byte
    content = entry*, u32 restart offset*, u32 number of restarts
    entry   = varint length shared with the previous key, varint length of the rest, varint length of the value,
              rest of the key, value

All numbers are little-endian; sizes in handles exclude the 5 bytes behind the content. At a restart offset the whole
key is stored. The index block's values are the handles (offset, size) of the data blocks, its keys separate the blocks
and are no keys of the table. Keys ascend over the whole table, as unsigned bytes.

Every byte is accounted for: blocks have to tile the file and TensorFlow's metaindex is empty, so no flipped bit goes
unseen. https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator

import google_crc32c
import numpy as np

from t2t.checkpoints.protobuf import Corrupt, varint
from t2t.names import shown

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
TRAILER_SIZE = 5

MAX_BLOCK = 64 * 2**20
#: Snappy copies at most 64 bytes by an element of 2.
MAX_RATIO = 64
MAX_KEY = 128 * 2**10
MAX_ENTRIES = 5_000_000
#: The sum of all keys and values. Keys share their beginnings, so a small table could hold very many long ones.
MAX_SIZE = 256 * 2**20


def unmasked(stored: int) -> int:
    """The crc32c behind the form in which tables and bundles store it (a rotation and a constant)."""
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) in ascending order of the keys; raises Corrupt at the first thing that is wrong."""
    table = Table(lambda offset, size: data[offset : offset + size], len(data), MAX_BLOCK)
    size = 0
    for count, (key, value) in enumerate(table.scan(), 1):
        size += len(key) + len(value)
        if count > MAX_ENTRIES or size > MAX_SIZE:
            raise Corrupt(f"the table has more than {MAX_ENTRIES} entries or {MAX_SIZE} bytes of them", "T2T611")
        yield key, value


class Table:
    """
    A table of `size` bytes, of which `read(offset, size)` gives any; only the footer and the index block are read here.

    No block of more than `max_block` bytes is read, before or after unpacking. Raises Corrupt.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, max_block: int) -> None:
        if size < FOOTER_SIZE:
            raise Corrupt(f"a table has at least {FOOTER_SIZE} bytes, but this has {size}" if size else "empty file")
        self._read = read
        self._end = size - FOOTER_SIZE
        self._max_block = max_block
        footer = read(self._end, FOOTER_SIZE)
        if not footer.endswith(MAGIC):
            raise Corrupt("the file does not end with the magic number of a table")
        metaindex, index = _footer(footer)
        if next(_entries(self._block(*metaindex)), None) is not None:
            raise Corrupt("the metaindex block has entries, but TensorFlow writes none")
        self.blocks = _handles(_entries(self._block(*index)), metaindex, index, self._end)
        self._separators = [separator for separator, _, _ in self.blocks]

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all blocks, the order of the keys checked."""
        previous = None
        for i, (_, offset, _) in enumerate(self.blocks):
            for key, value in self._checked(i):
                if previous is not None and key <= previous:
                    raise _disorder(previous, key)
                previous = key
                yield key, value
            if previous is not None and previous > self._separators[i]:
                raise _behind(offset)

    def place(self, key: bytes) -> int:
        """The number of the block that holds `key`, if the table has it."""
        return bisect.bisect_left(self._separators, key)

    def block(self, number: int) -> dict[bytes, bytes]:
        """One block's keys and values; the keys ascend, and lie between its separator and the one before."""
        if number >= len(self.blocks):
            return {}
        before = self._separators[number - 1] if number else None
        found: dict[bytes, bytes] = {}
        for key, value in self._checked(number):
            if before is not None and key <= before:
                raise _disorder(before, key)
            found[key] = value
            before = key
        if before is not None and before > self._separators[number]:
            raise _behind(self.blocks[number][1])
        return found

    def _checked(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        _, offset, size = self.blocks[number]
        return _entries(self._block(offset, size))

    def _block(self, offset: int, size: int) -> bytes:
        """The block's content, checked and decompressed."""
        end = offset + size
        if end + TRAILER_SIZE > self._end:
            raise Corrupt(f"a block ends at byte {end + TRAILER_SIZE}, but the footer starts at {self._end}")
        if size > self._max_block:
            raise Corrupt(f"the block at {offset} has {size} bytes, but at most {self._max_block} are read", "T2T611")
        data = self._read(offset, size + TRAILER_SIZE)
        stored = unmasked(int.from_bytes(data[size + 1 :], "little"))
        computed = google_crc32c.value(data[: size + 1])
        if computed != stored:
            message = f"checksum mismatch in the block at {offset} (stored 0x{stored:08x}, computed 0x{computed:08x})"
            raise Corrupt(message)
        compression = data[size]
        if compression == 0:
            return data[:size]
        if compression == 1:
            return _uncompressed(data[:size], offset, self._max_block)
        raise Corrupt(f"the block at {offset} has the compression type {compression}, but only 0 and 1 exist")


def _footer(footer: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    end = FOOTER_SIZE - len(MAGIC)
    numbers = []
    at = 0
    for _ in range(4):
        start = at
        number, at = varint(footer, start, end)
        if at - start > 1 and footer[at - 1] == 0:
            # Another spelling of the same number: the one change to a footer that would not change what it says.
            raise Corrupt("a number in the footer has more bytes than it needs")
        numbers.append(number)
    if any(footer[at:end]):
        raise Corrupt("the footer's padding is not zero")
    return (numbers[0], numbers[1]), (numbers[2], numbers[3])


def _handles(
    rows: Iterator[tuple[bytes, bytes]], metaindex: tuple[int, int], index: tuple[int, int], end: int
) -> list[tuple[bytes, int, int]]:
    """(separator, offset, size) of each data block, after checking that all blocks tile the file up to the footer."""
    handles = []
    at = 0
    previous = None
    for separator, value in rows:
        if previous is not None and separator <= previous:
            raise _disorder(previous, separator)
        previous = separator
        offset, behind = varint(value, 0, len(value))
        size, _ = varint(value, behind, len(value))
        if offset != at:
            raise Corrupt(f"a block should start at byte {at}, but the index block says {offset}")
        handles.append((separator, offset, size))
        at = offset + size + TRAILER_SIZE
    for name, (offset, size) in (("metaindex", metaindex), ("index", index)):
        if offset != at:
            raise Corrupt(f"the {name} block should start at byte {at}, but the footer says {offset}")
        at = offset + size + TRAILER_SIZE
    if at != end:
        raise Corrupt(f"the blocks end at byte {at}, but the footer starts at {end}")
    return handles


def _behind(offset: int) -> Corrupt:
    return Corrupt(f"the block at {offset} holds a key behind the one that the index block gives as its last")


def _uncompressed(content: bytes, offset: int, limit: int) -> bytes:
    import cramjam  # most indexes are not compressed

    try:
        size = cramjam.snappy.decompress_raw_len(content)
        if size > limit:
            raise Corrupt(f"the block at {offset} unpacks to {size} bytes, but at most {limit} are read", "T2T611")
        if size > MAX_RATIO * len(content) + MAX_RATIO:  # no element of snappy's can stand for more
            raise Corrupt(f"the block at {offset} claims to unpack from {len(content)} bytes to {size}")
        return bytes(cramjam.snappy.decompress_raw(content))
    except cramjam.DecompressionError as error:
        raise Corrupt(f"the block at {offset} is not snappy: {str(error).removeprefix('snappy: ')}") from error


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of one block's content. The order of the keys is not checked here."""
    end, restarts = _restarts(block)
    key = b""
    at = k = 0
    restart = restarts[0] if restarts.size else -1
    while at < end:
        # The restart array stands behind the entries: three more bytes can always be looked at.
        shared, rest, length = block[at], block[at + 1], block[at + 2]
        if shared | rest | length < 0x80:
            start = at + 3
        else:
            shared, start = varint(block, at, end)
            rest, start = varint(block, start, end)
            length, start = varint(block, start, end)
        if at == restart:
            if shared:
                raise Corrupt(f"the entry at byte {at} of its block is a restart, but shares {shared} bytes")
            k += 1
            restart = restarts[k] if k < restarts.size else -1
        key_end = start + rest
        value_end = key_end + length
        if value_end > end or shared > len(key):
            raise Corrupt(f"a corrupt entry at byte {at} of its block")
        if shared + rest > MAX_KEY:
            raise Corrupt(f"a key has {shared + rest} bytes, but at most {MAX_KEY} are read", "T2T611")
        key = key[:shared] + block[start:key_end]
        yield key, block[key_end:value_end]
        at = value_end
    if k < restarts.size and not (end == 0 and restarts.tolist() == [0]):
        raise Corrupt("a restart offset is not where an entry starts")


def _restarts(block: bytes) -> tuple[int, np.ndarray[tuple[int], np.dtype[np.uint32]]]:
    """Where the entries end, and the restart offsets behind them."""
    count = int.from_bytes(block[-4:], "little") if len(block) >= 4 else -1
    end = len(block) - 4 - 4 * count
    if count < 0 or end < 0 or (count == 0 and end > 0):
        raise Corrupt(f"a block of {len(block)} bytes cannot have {max(count, 0)} restarts")
    return end, np.frombuffer(block, "<u4", count, end)


def _disorder(previous: bytes, key: bytes) -> Corrupt:
    name = shown_key(key)
    return Corrupt(f"{name} stands twice" if key == previous else f"{name} stands behind {shown_key(previous)}")


def shown_key(key: bytes) -> str:
    """A key as a message may hold it."""
    return shown(key.decode("utf-8", "surrogateescape"))
