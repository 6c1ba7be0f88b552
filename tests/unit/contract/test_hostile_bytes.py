"""Bytes made to hurt: whatever arrives, the codec returns a record or refuses, in bounded time and memory."""

import tracemalloc
from typing import Any, Final

import pytest

from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.codec import Codec, UndecodableRecord
from towpath.errors import ContractError

NODE: Final = record("Node", field("v", "int"), field("next", ["null", "shop.order.Node"]))


def prefix_of(codec: Codec, built: Any) -> bytes:
    """Return the wire prefix under which a record is written."""
    return codec.encode(built)[:5]


def varint(number: int) -> bytes:
    """Return a whole number as Avro writes it."""
    zigzag = number << 1 if number >= 0 else (~number << 1) | 1
    written = bytearray()
    while zigzag > 127:
        written.append(zigzag & 127 | 128)
        zigzag >>= 7
    return bytes([*written, zigzag])


def test_a_record_nested_without_end_is_refused(workshop: Workshop) -> None:
    """Ten kilobytes that nest a record in itself 5,000 times would end the process, at each start anew."""
    workshop.put(NODE)
    codec = workshop.codec()
    prefix = prefix_of(codec, workshop.classes().Node(v=0, next=None))
    with pytest.raises(UndecodableRecord, match="nested deeper than 128 levels"):
        codec.decode(prefix + b"\x00\x02" * 5_000 + b"\x00\x00")


def test_what_is_skipped_may_not_nest_without_end_either(workshop: Workshop) -> None:
    """A field that the reader does not want is walked all the same."""
    holder = record("Holder", field("x", "int"), field("chain", NODE))
    workshop.put(holder, version=1)
    workshop.put(record("Holder", field("x", "int")))
    codec = workshop.codec()
    from towpath.contract.codec import derived_id, wire_prefix

    old = workshop.contracts().versions("shop.order.Holder")[1]
    prefix = wire_prefix(derived_id(old, "shop.order.Holder"))
    assert codec.decode(prefix + b"\x02" + b"\x00\x02" * 100 + b"\x00\x00") == workshop.classes().Holder(x=1)
    with pytest.raises(UndecodableRecord, match="nested deeper"):
        codec.decode(prefix + b"\x02" + b"\x00\x02" * 5_000 + b"\x00\x00")


def test_what_could_not_be_read_back_is_not_written(workshop: Workshop) -> None:
    """The limit holds for the writer as well: 129 levels are both written and read, one more is neither."""
    workshop.put(NODE)
    codec = workshop.codec()
    known = workshop.classes().Node
    chain = known(v=0, next=None)
    for level in range(128):
        chain = known(v=level, next=chain)
    assert codec.encode(codec.decode(codec.encode(chain))) == codec.encode(chain)
    with pytest.raises(ContractError, match="nested deeper than 128 levels"):
        codec.encode(known(v=-1, next=chain))


@pytest.mark.parametrize("power", [24, 40, 62])
def test_items_that_take_no_bytes_are_counted(workshop: Workshop, power: int) -> None:
    """Ten bytes can claim any number of nulls: memory and time would follow the claim."""
    workshop.put(record("Nothing", field("x", {"type": "array", "items": "null"})))
    codec = workshop.codec()
    prefix = prefix_of(codec, workshop.classes().Nothing(x=()))
    assert codec.decode(prefix + varint(3) + b"\x00") == workshop.classes().Nothing(x=(None, None, None))
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableRecord, match="items that take no bytes"):
            codec.decode(prefix + varint(2**power) + b"\x00")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("items", ["fixed", "record", "arrays"])
def test_items_without_bytes_are_counted_in_every_disguise(workshop: Workshop, items: str) -> None:
    """An empty fixed, a record of nothing, and many small claims in one message are the same attack."""
    inner: Any = {
        "fixed": {"type": "fixed", "name": "Empty", "size": 0},
        "record": {"type": "record", "name": "Empty", "fields": [field("n", "null")]},
        "arrays": {"type": "array", "items": "null"},
    }[items]
    workshop.put(record("Nothing", field("x", {"type": "array", "items": inner})))
    codec = workshop.codec()
    prefix = prefix_of(codec, workshop.classes().Nothing(x=()))
    body = varint(2**30) + b"\x00" if items != "arrays" else varint(200) + (varint(1000) + b"\x00") * 200 + b"\x00"
    with pytest.raises(UndecodableRecord, match="items that take no bytes"):
        codec.decode(prefix + body)


@pytest.mark.parametrize("schema", ["int", "string", "double", {"type": "fixed", "name": "F", "size": 4}])
def test_a_claim_of_items_that_are_not_there_ends_with_the_bytes(workshop: Workshop, schema: Any) -> None:
    """A list cannot be longer than the bytes that hold it."""
    workshop.put(record("Many", field("x", {"type": "array", "items": schema})))
    codec = workshop.codec()
    prefix = prefix_of(codec, workshop.classes().Many(x=()))
    with pytest.raises(UndecodableRecord):
        codec.decode(prefix + varint(2**50) + b"\x00" * 64)


def test_a_decimal_of_many_bytes_is_refused_before_it_is_a_number(workshop: Workshop) -> None:
    """Turning 200 KB of digits into a decimal takes half a minute of processor time."""
    workshop.put(record("Price", field("x", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2})))
    codec = workshop.codec()
    from decimal import Decimal

    prefix = prefix_of(codec, workshop.classes().Price(x=Decimal(1)))
    with pytest.raises(UndecodableRecord, match="a decimal of more than 8 digits"):
        codec.decode(prefix + varint(200_000) + b"\x7f" * 200_000)


SIZE: Final = {"type": "enum", "name": "Size", "symbols": ["small", "large"]}
DECIMAL: Final = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}


@pytest.mark.parametrize(
    ("schema", "body", "words"),
    [
        (SIZE, b"\x01", "a negative length or index"),
        (SIZE, b"\x04", "IndexError"),
        (["null", "string"], b"\x01", "a negative length or index"),
        (["null", "string"], b"\x04", "a branch that the union does not have"),
        ("boolean", b"\x02", "neither 0 nor 1"),
        ("long", b"\x80" * 11 + b"\x01", "more than ten bytes"),
        ("long", b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        ("int", b"\x80\x80\x80\x80\x20", "more than 32 bits"),
        ("string", b"\x01a", "a negative length"),
        ("string", b"\x06ab", "end too early"),
        ("bytes", b"\x01a", "a negative length"),
        (DECIMAL, b"\x06\x01\x86\xa0", "a decimal of more than 4 digits"),
        (DECIMAL, b"\x00", "or of none"),
        ({"type": "int", "logicalType": "time-millis"}, b"\x01", "outside the day"),
        ({"type": "string", "logicalType": "uuid"}, b"\x02x", "no UUID"),
        ({"type": "long", "logicalType": "timestamp-micros"}, b"\xfe" + b"\xff" * 8 + b"\x01", "OverflowError"),
        ({"type": "int", "logicalType": "date"}, b"\xfe\xff\xff\xff\x0f", "OverflowError"),
        ({"type": "array", "items": "int"}, b"\x01\x01\x02\x00", "a negative length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_bytes_are_never_a_value(workshop: Workshop, schema: Any, body: bytes, words: str) -> None:
    """What the specification does not allow is refused, not read as whatever comes out."""
    workshop.put(record("A", field("x", schema)))
    codec = workshop.codec()
    from towpath.contract.codec import derived_id, wire_prefix

    prefix = wire_prefix(derived_id(workshop.contracts().schemas, "shop.order.A"))
    with pytest.raises(UndecodableRecord, match=words):
        codec.decode(prefix + body)
