"""The types of records in a metadata log, whole batches only."""

import struct

import pytest

from towpath.stack.metadata_log import record_types

CONTROL, COMPRESSED = 32, 2


def batch(*types: int, attributes: int = 0) -> bytes:
    """Return a batch with one record of each of these types, as KRaft writes it."""
    body = b"".join(record(offset, type_) for offset, type_ in enumerate(types))
    fields = (0, 2, 0, attributes, len(types) - 1, 0, 0, -1, -1, -1, len(types))
    rest = struct.pack(">ibIhiqqqhii", *fields) + body
    return struct.pack(">qi", 0, len(rest)) + rest


def record(offset: int, type_: int) -> bytes:
    """Return a record whose value is a frame of version 1 with this type."""
    value = bytes([1, type_, 0, 9, 9])
    content = bytes([0, 0, offset * 2, 1, len(value) * 2]) + value + bytes([0])
    return bytes([len(content) * 2]) + content


def test_types_come_in_order() -> None:
    """Of every record of every batch."""
    assert list(record_types(batch(27, 0) + batch(17, 5, 5))) == [27, 0, 17, 5, 5]


@pytest.mark.parametrize("attributes", [CONTROL, COMPRESSED])
def test_what_is_no_metadata_is_passed_over(attributes: int) -> None:
    """Control records are Raft's own; what is compressed would have to be opened first."""
    assert list(record_types(batch(17, attributes=attributes) + batch(5))) == [5]


def test_half_a_batch_is_none() -> None:
    """A log that is being written to ends anywhere, or in zeros."""
    whole = batch(5, 17)
    assert list(record_types(whole + batch(17)[:-1])) == [5, 17]
    assert list(record_types(whole + bytes(500))) == [5, 17]
    assert list(record_types(whole[:30])) == []
