from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2t.checkpoints.protobuf import Corrupt, fields, signed, varint
from tests.checkpoints import writing


def refused(data: bytes) -> str:
    with pytest.raises(Corrupt) as caught:
        list(fields(data))
    return str(caught.value)


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_number_reads_as_written(value: int) -> None:
    data = writing.number(value)

    read, end = varint(data, 0, len(data))
    assert (read, end) == (value % 2**64, len(data))
    assert signed(read) == (value if value < 2**63 else value - 2**64)


def test_every_wire_type_reads() -> None:
    data = writing.message((1, 300), (2, b"ab"), (3, writing.Fixed32(7))) + b"\x21" + bytes(range(8))

    assert list(fields(data)) == [(1, 0, 300), (2, 2, b"ab"), (3, 5, 7), (4, 1, 0x0706050403020100)]


def test_a_number_of_eleven_bytes_is_refused() -> None:
    assert refused(b"\x08" + b"\x80" * 10 + b"\x01") == "the number at byte 1 has more than 10 bytes"


def test_a_number_of_more_than_64_bits_is_refused() -> None:
    assert refused(b"\x08" + b"\xff" * 9 + b"\x02") == "the number at byte 1 has more than 64 bits"


@pytest.mark.parametrize("data", [b"\x08", b"\x08\x80", b"\x80"])
def test_a_number_that_is_cut_off_is_refused(data: bytes) -> None:
    assert refused(data) == f"the number at byte {1 if data[0] == 8 else 0} has no end"


@pytest.mark.parametrize("wire", [3, 4, 6, 7])
def test_other_wire_types_are_refused(wire: int) -> None:
    assert refused(bytes([1 << 3 | wire, 0])) == f"protobuf field 1 has the wire type {wire}"


def test_the_field_number_0_is_refused() -> None:
    assert refused(b"\x00\x00") == "a protobuf field has the number 0"


@pytest.mark.parametrize(
    ("data", "claimed", "left"), [(b"\x0a\x05abc", 5, 3), (b"\x0d\1\2\3", 4, 3), (b"\x09" + bytes(7), 8, 7)]
)
def test_a_field_that_is_cut_off_is_refused(data: bytes, claimed: int, left: int) -> None:
    assert refused(data) == f"protobuf field 1 claims {claimed} bytes, but {left} are left"


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_corrupt(data: bytes) -> None:
    try:
        for _, wire, value in fields(data):
            assert isinstance(value, bytes if wire == 2 else int)
    except Corrupt:
        pass
