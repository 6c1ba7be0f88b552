"""Which kinds of records a KRaft metadata log holds, read from its bytes. Pure.

Forms: Kafka's record batch, version 2, whose values are framed as version, type and type's version (KIP-631); both
protocols are public. Only whole batches count: the log may be written to while it is read.
"""

import struct
from collections.abc import Iterator

METADATA_LOG = "__cluster_metadata-0"
"""Its folder, in the data folder of a node; made when the node first runs."""

BROKER_REGISTRATION_CHANGE = 17
"""`BrokerRegistrationChangeRecord`: a broker is fenced or let in (KIP-841)."""

_BATCH_HEADER_BYTES = 61
_BEFORE_LENGTH_BYTES = 12
_COMPRESSED, _CONTROL = 0b111, 0b100000


def record_types(log: bytes) -> Iterator[int]:
    """Yield the types of the records in `log`, which begins with a batch."""
    start = 0
    while start + _BATCH_HEADER_BYTES <= len(log):
        (length,) = struct.unpack_from(">i", log, start + 8)
        end = start + _BEFORE_LENGTH_BYTES + length
        # Segments are filled with zeros ahead of what is written.
        if length <= 0 or end > len(log):
            return
        (attributes,) = struct.unpack_from(">h", log, start + 21)
        (records,) = struct.unpack_from(">i", log, start + 57)
        if not attributes & (_COMPRESSED | _CONTROL):
            yield from _types_in(log, start + _BATCH_HEADER_BYTES, records)
        start = end


def _types_in(log: bytes, place: int, records: int) -> Iterator[int]:
    for _ in range(records):
        length, place = _signed(log, place)
        end = place + length
        place += 1  # attributes
        for _ in range(2):  # differences of time and offset to the batch's
            _, place = _signed(log, place)
        key_length, place = _signed(log, place)
        _, place = _signed(log, place + max(key_length, 0))
        _, place = _unsigned(log, place)  # version of the frame
        type_, _ = _unsigned(log, place)
        yield type_
        place = end


def _unsigned(log: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = log[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _signed(log: bytes, place: int) -> tuple[int, int]:
    value, place = _unsigned(log, place)
    return (value >> 1) ^ -(value & 1), place
