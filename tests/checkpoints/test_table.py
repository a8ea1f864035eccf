"""One test for each way in which a table can be wrong."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2t.checkpoints import table
from t2t.checkpoints.protobuf import Corrupt
from tests.checkpoints.writing import MAGIC, block, handle, number, sealed, stored, table_of
from tests.checkpoints.writing import table as table_with

ROWS = [(b"", b"x"), (b"a", b"1"), (b"ab", b"22"), (b"b", b"")]


def refused(data: bytes, code: str = "T2T604") -> str:
    """The refusal's text; it has to come without a large allocation, whatever numbers the file holds."""
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt) as caught:
            list(table.entries(data))
        assert tracemalloc.get_traced_memory()[1] < len(data) * 4 + 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
    return str(caught.value)


def one_block(content: bytes) -> bytes:
    return table_of([(b"\xff", stored(content))])


def with_footer(*numbers: int) -> bytes:
    valid = table_with(ROWS)
    return valid[:-48] + b"".join(map(number, numbers)).ljust(40, b"\0") + MAGIC


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_a_table_reads_as_written(blocks: int, compression: int) -> None:
    assert list(table.entries(table_with(ROWS, blocks, compression))) == ROWS


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=300)), st.integers(1, 5), st.integers(0, 1))
def test_any_table_reads_as_written(content: dict[bytes, bytes], blocks: int, compression: int) -> None:
    rows = sorted(content.items())

    assert list(table.entries(table_with(rows, blocks, compression))) == rows


@given(st.binary(max_size=200))
def test_any_bytes_as_a_block_read_or_are_corrupt(content: bytes) -> None:
    with contextlib.suppress(Corrupt):
        list(table.entries(one_block(content)))


def test_an_empty_table_reads() -> None:
    assert list(table.entries(table_with([]))) == []


def test_a_block_without_restarts_is_empty() -> None:
    """LevelDB for Java writes such."""
    assert list(table.entries(one_block(struct.pack("<I", 0)))) == []


def test_the_crc32c_is_unmasked() -> None:
    assert table.unmasked(0xC78AB0E5) == 0xE3069283
    assert table.unmasked(0xA282EAD8) == 0


@pytest.mark.parametrize(("size", "text"), [(0, "empty file"), (47, "a table has at least 48 bytes, but this has 47")])
def test_a_file_without_room_for_a_footer_is_refused(size: int, text: str) -> None:
    assert refused(bytes(size)) == text


def test_a_file_without_the_magic_number_is_refused() -> None:
    assert refused(table_with(ROWS)[:-1] + b"\0") == "the file does not end with the magic number of a table"


def test_a_footer_whose_padding_is_not_zero_is_refused() -> None:
    data = bytearray(table_with(ROWS))
    data[-9] = 1
    assert refused(bytes(data)) == "the footer's padding is not zero"


def test_a_footer_with_a_number_that_is_longer_than_needed_is_refused() -> None:
    valid = table_with(ROWS)
    footer = bytearray(valid[-48:])
    at = bytes(footer).index(0)
    footer[at - 1] |= 0x80
    assert refused(valid[:-48] + bytes(footer)) == "a number in the footer has more bytes than it needs"


@pytest.mark.parametrize("value", [2**50, 2**64 - 3])
@pytest.mark.parametrize("place", range(4))
def test_a_handle_that_leads_out_of_the_file_is_refused(place: int, value: int) -> None:
    metaindex = len(stored(block(ROWS)))
    size = len(table_with(ROWS)) - 48
    numbers = [metaindex, 8, metaindex + 13, size - metaindex - 13 - 5]
    assert list(table.entries(with_footer(*numbers))) == ROWS
    numbers[place] = value
    end = value + numbers[place ^ 1] + 5
    assert refused(with_footer(*numbers)) == f"a block ends at byte {end}, but the footer starts at {size}"


def test_a_block_that_overlaps_the_footer_is_refused() -> None:
    size = len(table_with(ROWS)) - 48
    assert (
        refused(with_footer(size - 4, 0, 0, 0)) == f"a block ends at byte {size + 1}, but the footer starts at {size}"
    )


@pytest.mark.parametrize("offset", [2**50, 2**64 - 3])
def test_a_data_block_that_is_not_where_the_last_one_ended_is_refused(offset: int) -> None:
    data = table_of([(b"z", stored(block(ROWS)))], index=block([(b"z", handle(offset, 5))], 1))
    assert refused(data) == f"a block should start at byte 0, but the index block says {offset}"


def test_a_data_block_with_a_lying_size_is_refused() -> None:
    content = block(ROWS)
    data = table_of([(b"z", stored(content))], index=block([(b"z", handle(0, 2**50))], 1))
    end = len(content) + 5
    assert refused(data) == f"the metaindex block should start at byte {2**50 + 5}, but the footer says {end}"


def test_bytes_that_belong_to_no_block_are_refused() -> None:
    valid = table_with(ROWS)
    data = valid[:-48] + b"hidden" + valid[-48:]
    end = len(valid) - 48
    assert refused(data) == f"the blocks end at byte {end}, but the footer starts at {end + 6}"


def test_a_block_that_is_read_twice_is_refused() -> None:
    """A small file could unpack to any number of entries."""
    content = stored(block(ROWS))
    twice = block([(b"y", handle(0, len(content) - 5)), (b"z", handle(0, len(content) - 5))], 1)
    data = table_of([(b"z", content)], index=twice)
    assert refused(data) == f"a block should start at byte {len(content)}, but the index block says 0"


def test_a_damaged_block_fails_its_checksum() -> None:
    data = bytearray(table_with(ROWS))
    data[4] ^= 1
    assert refused(bytes(data)) == "checksum mismatch in the block at 0 (stored 0x{:08x}, computed 0x{:08x})".format(
        *(table.unmasked(struct.unpack("<I", crc)[0]) for crc in (stored(block(ROWS))[-4:], resealed(bytes(data))))
    )


def resealed(data: bytes) -> bytes:
    return sealed(data[: len(block(ROWS))], 0)[-4:]


def test_a_damaged_metaindex_fails_its_checksum() -> None:
    valid = table_with(ROWS)
    at = len(stored(block(ROWS)))
    data = valid[:at] + b"\1" + valid[at + 1 :]
    assert refused(data).startswith(f"checksum mismatch in the block at {at} (stored 0x")


def test_a_metaindex_with_entries_is_refused() -> None:
    data = table_of([(b"z", stored(block(ROWS)))], metaindex=block([(b"filter", b"")]))
    assert refused(data) == "the metaindex block has entries, but TensorFlow writes none"


@pytest.mark.parametrize("compression", [2, 7, 255])
def test_another_compression_is_refused(compression: int) -> None:
    data = table_of([(b"z", sealed(block(ROWS), compression))])
    assert refused(data) == f"the block at 0 has the compression type {compression}, but only 0 and 1 exist"


def test_a_snappy_block_with_a_lying_length_is_refused() -> None:
    data = table_of([(b"z", sealed(number(2**32 - 1) + b"\0a", 1))])
    assert refused(data, "T2T611") == "the block at 0 unpacks to 4294967295 bytes, but at most 67108864 are read"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "corrupt input (empty)"),
        (number(2**33), "input buffer (size = 8589934592) is larger than allowed (size = 4294967295)"),
        (b"\x05abc", "corrupt input (expected valid offset but got offset 866; dst position: 0)"),
    ],
)
def test_a_block_that_is_not_snappy_is_refused(content: bytes, reason: str) -> None:
    assert refused(table_of([(b"z", sealed(content, 1))])) == f"the block at 0 is not snappy: {reason}"


def test_a_block_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(block(ROWS))
    monkeypatch.setattr(table, "MAX_BLOCK", size)
    assert list(table.entries(table_with(ROWS))) == ROWS

    monkeypatch.setattr(table, "MAX_BLOCK", size - 1)
    assert refused(table_with(ROWS), "T2T611") == f"the block at 0 has {size} bytes, but at most {size - 1} are read"


def test_a_block_that_unpacks_to_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(b"a", bytes(1000))]
    size = len(block(rows))
    monkeypatch.setattr(table, "MAX_BLOCK", size)
    assert list(table.entries(table_with(rows, compression=1))) == rows

    monkeypatch.setattr(table, "MAX_BLOCK", size - 1)
    text = f"the block at 0 unpacks to {size} bytes, but at most {size - 1} are read"
    assert refused(table_with(rows, compression=1), "T2T611") == text


@pytest.mark.parametrize(
    ("content", "at"),
    [
        (number(0) + number(1) + number(2**32 - 1) + b"a", 0),  # a length that wraps in 32 bits
        (number(0) + number(2**32 - 1) + number(0) + b"a", 0),
        (number(0) + number(9) + number(0) + b"a", 0),  # a key that ends behind the entries
        (b"\0\1\0a" + number(2) + number(1) + number(0) + b"b", 4),  # shares more than the last key has
        (b"\0\1\0a\0", 4),  # an entry that is cut off
    ],
)
def test_an_entry_that_leads_out_of_its_block_is_refused(content: bytes, at: int) -> None:
    data = one_block(content + struct.pack("<II", 0, 1))
    assert refused(data) == f"a corrupt entry at byte {at} of its block"


def test_an_entry_with_a_number_that_has_no_end_is_refused() -> None:
    assert refused(one_block(b"\x80\x80\x80" + struct.pack("<II", 0, 1))) == "the number at byte 0 has no end"


@pytest.mark.parametrize("count", [2, 100, 2**31])
def test_more_restarts_than_a_block_has_room_for_are_refused(count: int) -> None:
    assert refused(one_block(struct.pack("<I", count))) == f"a block of 4 bytes cannot have {count} restarts"


def test_entries_without_restarts_are_refused() -> None:
    assert refused(one_block(b"\0\1\0a" + struct.pack("<I", 0))) == "a block of 8 bytes cannot have 0 restarts"


def test_a_block_without_room_for_the_number_of_restarts_is_refused() -> None:
    assert refused(one_block(b"\0\0")) == "a block of 2 bytes cannot have 0 restarts"


@pytest.mark.parametrize("restart", [2, 4, 2**31])
def test_a_restart_where_no_entry_starts_is_refused(restart: int) -> None:
    content = b"\0\1\0a" + struct.pack("<III", 0, restart, 2)
    assert refused(one_block(content)) == "a restart offset is not where an entry starts"


def test_a_restart_that_shares_is_refused() -> None:
    content = b"\0\1\0a" + b"\1\1\0b" + struct.pack("<III", 0, 4, 2)
    assert refused(one_block(content)) == "the entry at byte 4 of its block is a restart, but shares 1 bytes"


def test_a_key_that_stands_twice_is_refused() -> None:
    """TensorFlow takes the first."""
    assert refused(table_with([(b"a", b"1"), (b"a", b"2")])) == "a stands twice"
    assert refused(table_with([(b"a", b"1"), (b"a", b"2")], blocks=2)) == "a stands twice"


def test_keys_out_of_order_are_refused() -> None:
    assert refused(table_with([(b"b", b""), (b"a\n", b"")])) == "a\\n stands behind b"


def test_separators_out_of_order_are_refused() -> None:
    blocks = [(b"z", stored(block(ROWS[:2]))), (b"y", stored(block(ROWS[2:])))]
    assert refused(table_of(blocks)) == "y stands behind z"


def test_a_separator_before_the_last_key_of_its_block_is_refused() -> None:
    """TensorFlow would not find the keys behind it."""
    data = table_of([(b"aa", stored(block(ROWS)))])
    assert refused(data) == "the block at 0 holds a key behind the one that the index block gives as its last"


def test_a_key_over_the_limit_is_refused() -> None:
    rows = [(b"k" * table.MAX_KEY, b"")]
    assert list(table.entries(table_with(rows))) == rows

    rows = [(b"k" * (table.MAX_KEY + 1), b"")]
    assert refused(table_with(rows), "T2T611") == "a key has 131073 bytes, but at most 131072 are read"


@pytest.mark.parametrize(("limit", "value"), [("MAX_ENTRIES", 4), ("MAX_SIZE", 8)])
def test_more_entries_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(table, limit, value)
    assert list(table.entries(table_with(ROWS))) == ROWS

    monkeypatch.setattr(table, limit, value - 1)
    text = f"the table has more than {table.MAX_ENTRIES} entries or {table.MAX_SIZE} bytes of them"
    assert refused(table_with(ROWS), "T2T611") == text
