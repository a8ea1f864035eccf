"""
A bundle's string tensors.

    stored = varint length*, u32 masked crc32c of the lengths, the bytes of all strings

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/tensor_bundle/tensor_bundle.cc
"""

from __future__ import annotations

from typing import Literal

import google_crc32c
import numpy as np

from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.reader import Bytes
from t2t.checkpoints.table import unmasked


def decode(stored: Bytes, count: int, big_endian: bool, checked: bool) -> tuple[list[bytes], int]:
    """
    The strings of a tensor and the crc32c of it all; raises Corrupt.

    Stored are the lengths (varints), a u32 masked crc32c of them, the strings. Checksums are not over the varints, but
    over each length as a u32, or as a u64 where it has more than 32 bits.
    """
    lengths, at = _lengths(stored, count)
    end = at + 4
    total = sum(lengths)
    if end + total != stored.size:
        raise Corrupt(f"its strings should have {total} bytes, but {max(stored.size - end, 0)} are stored", "T2T605")
    order: Literal["big", "little"] = "big" if big_endian else "little"
    if max(lengths, default=0) < 2**32:
        counted = np.array(lengths, ">u4" if big_endian else "<u4").tobytes()
    else:
        counted = b"".join(length.to_bytes(4 if length < 2**32 else 8, order) for length in lengths)
    crc = google_crc32c.value(counted)
    claimed = unmasked(int.from_bytes(stored[at:end].tobytes(), order))
    if checked and claimed != crc:
        message = f"checksum mismatch in the strings' lengths (stored 0x{claimed:08x}, computed 0x{crc:08x})"
        raise Corrupt(message, "T2T608", "the file is damaged: copy it again")
    crc = google_crc32c.extend(crc, stored[at:]) if checked else 0
    strings = []
    for length in lengths:
        strings.append(stored[end : end + length].tobytes())
        end += length
    return strings, crc


def _lengths(stored: Bytes, count: int) -> tuple[list[int], int]:
    """So many varints, each at most as large as there are bytes, and where they end."""
    head = stored[: min(10 * count, stored.size)]
    ends = np.flatnonzero(head < 0x80)[:count]
    if ends.size < count:
        raise Corrupt(f"it should have {count} lengths of strings, but {ends.size} are stored", "T2T605")
    if count == 0:
        return [], 0
    starts = np.concatenate(([0], ends[:-1] + 1))
    if int((ends - starts).max()) > 9:
        raise Corrupt("the length of a string has more than 10 bytes", "T2T605")
    at = int(ends[-1]) + 1
    head = head[:at]
    if at == count:
        return head.tolist(), at  # nearly always: no string has more than 127 bytes
    shifts = 7 * (np.arange(at, dtype=np.uint64) - np.repeat(starts, ends - starts + 1).astype(np.uint64))
    lengths = np.bitwise_or.reduceat((head & 0x7F).astype(np.uint64) << shifts, starts)
    longest = int(lengths.max())
    if longest > stored.size or int(head[ends[ends - starts == 9]].max(initial=0)) > 1:
        raise Corrupt(f"a string should have {longest} bytes, but all have {stored.size}", "T2T605")
    return [int(length) for length in lengths], at
