"""The codec: wire format, strict values, older writers, and bytes that are not what they claim."""

import dataclasses
import io
import json
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any

import avro.io
import avro.schema
import pytest

from tests.unit.contract.test_generate import CARD, CASH, EVERYTHING, SIZE, one_of_everything
from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.codec import Codec, UndecodableRecord, UnknownSchema, WriterSchema, schema_id_of, wire_prefix
from towpath.contract.datum import encode_datum
from towpath.contract.files import load_classes, load_contracts, schema_sets
from towpath.contract.json_form import write_json
from towpath.contract.sample import sample
from towpath.errors import ContractError, PeerError, ProgrammerError
from towpath.settings import load_settings

SEED = 7


@pytest.fixture
def everything(workshop: Workshop) -> Workshop:
    """Return a project with every type in one record."""
    for schema in (SIZE, CARD, CASH, EVERYTHING):
        workshop.put(schema)
    return workshop


def test_the_wire_format_is_the_registrys(workshop: Workshop) -> None:
    """0x00, the id in four bytes, most significant first, then Avro's own binary form and nothing else."""
    workshop.put(record("Order", field("order_id"), field("quantity", "int")))
    codec = workshop.codec()
    payload = codec.encode(workshop.classes().Order(order_id="ab", quantity=-2))
    assert payload[0] == 0
    assert struct.unpack(">I", payload[1:5]) == (schema_id_of(payload),)
    assert payload[5:] == b"\x04ab\x03"


def test_every_type_survives_the_round_trip(everything: Workshop) -> None:
    """What is decoded equals what was encoded, type for type."""
    codec = everything.codec()
    module = everything.classes()
    found = one_of_everything(module)
    full = dataclasses.replace(
        found,
        note="ä漢\U0001f6a3\x00",
        tags=(),
        grid=((1, 2), (), (-(2**31), 2**31 - 1)),
        weights={"a": 0.1},
        cards={"x": module.Card(token="t")},
        paid_by=module.Cash(),
        spare=module.Card(token="s"),
        maybe_at=datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        sizes=(module.Size.SMALL, module.Size.LARGE),
        total=2**63 - 1,
        ratio=3,
    )
    for item in (found, full, dataclasses.replace(full, paid_by=module.Card(token="c"))):
        decoded = codec.decode(codec.encode(item))
        assert decoded == item
        assert type(decoded.paid_by) is type(item.paid_by)  # type: ignore[attr-defined]
        assert isinstance(decoded.size, module.Size)  # type: ignore[attr-defined]


def test_all_records_of_the_project_and_the_engine_survive_the_round_trip() -> None:
    """Random data of every schema becomes a record, bytes, and the same record again."""
    contracts = load_contracts(schema_sets(load_settings()))
    codec = Codec.of(contracts)
    chance = Random(SEED)
    for schema in contracts.schemas.records():
        name = schema.name
        for _ in range(50):
            datum = sample(contracts.schemas, name, chance)
            built = codec.from_json(name, write_json(contracts.schemas, name, datum))
            payload = codec.encode(built)
            assert codec.decode(payload) == built, f"{name}, seed {SEED}"
            assert payload[5:] == encode_datum(contracts.schemas, name, datum), f"{name}, seed {SEED}"


def test_apaches_library_reads_what_the_codec_writes(everything: Workshop) -> None:
    """The bytes mean the same to a consumer that shares no code with us."""
    codec = everything.codec()
    schemas = everything.contracts().schemas
    payload = codec.encode(one_of_everything(everything.classes()))
    schema = avro.schema.parse(json.dumps(schemas.avro("shop.order.Everything")))
    datum = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(payload[5:])))
    assert isinstance(datum, dict)
    assert (datum["total"], datum["size"], datum["price"]) == (12, "large", Decimal("12.50"))
    assert datum["at"] == datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"total": 2**63}, "total takes an int of 64 bits, not a larger one"),
        ({"count": 2**31}, "count takes an int of 32 bits, not a larger one"),
        ({"count": True}, "count takes an int of 32 bits, not bool"),
        ({"count": 1.0}, "count takes an int of 32 bits, not float"),
        ({"flag": 1}, "flag takes a bool, not int"),
        ({"name": None}, "name takes a str, not NoneType"),
        ({"name": b"x"}, "name takes a str, not bytes"),
        ({"note": 5}, "note takes a str, not int"),
        ({"ratio": True}, "ratio takes a float, not bool"),
        ({"ratio": "1"}, "ratio takes a float, not str"),
        ({"small": 1e300}, "small takes a float of 32 bits, not a larger one"),
        ({"blob": "x"}, "blob takes bytes, not str"),
        ({"size": "small"}, "size takes shop.order.Size, not str"),
        ({"digest": b"abc"}, "digest takes 4 bytes, not bytes"),
        ({"tags": "abc"}, "tags takes a tuple, not str"),
        ({"tags": ["a"]}, "tags takes a tuple, not list"),
        ({"tags": ("a", 1)}, "tags[1] takes a str, not int"),
        ({"grid": ((1,), (2**31,))}, "grid[1][0] takes an int of 32 bits, not a larger one"),
        ({"weights": {"a": "b"}}, "weights{} takes a float, not str"),
        ({"weights": ()}, "weights takes a dict, not tuple"),
        ({"paid_by": "card"}, "paid_by takes shop.order.Card or shop.order.Cash or None, not str"),
        ({"at": datetime(2026, 1, 1)}, "at takes a datetime with a time zone, not datetime"),
        ({"at": 5}, "at takes a datetime with a time zone, not int"),
        ({"day": datetime(2026, 1, 1, tzinfo=UTC)}, "day takes a date, not datetime"),
        ({"key": "0"}, "key takes a UUID, not str"),
        ({"price": Decimal("1.005")}, "price takes a Decimal of 8 digits, 2 after the point"),
        ({"price": Decimal("1234567.00")}, "price takes a Decimal of 8 digits, 2 after the point"),
        ({"price": Decimal(1234567)}, "price takes a Decimal of 8 digits, 2 after the point"),
        ({"price": 1.5}, "price takes a Decimal of 8 digits, 2 after the point, not float"),
        ({"till": None}, "till takes shop.order.Cash, not NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_breaks_its_contract_is_never_written(
    everything: Workshop, change: dict[str, Any], words: str
) -> None:
    """The error names the field and what it takes, never the value, and is the programmer's."""
    codec = everything.codec()
    broken = dataclasses.replace(one_of_everything(everything.classes()), **change)
    with pytest.raises(ContractError) as caught:
        codec.encode(broken)
    assert words in caught.value.cause
    assert isinstance(caught.value, ProgrammerError)


def test_a_record_of_another_class_is_refused_in_a_field(everything: Workshop) -> None:
    """Two records with the same fields are still two types."""
    everything.put({**CASH, "name": "Coin"})
    codec = everything.codec()
    module = everything.classes()
    with pytest.raises(ContractError, match=r"till takes shop\.order\.Cash, not Coin"):
        codec.encode(dataclasses.replace(one_of_everything(module), till=module.Coin(till=7)))


def test_random_data_reaches_every_branch(everything: Workshop) -> None:
    """Null and each record of a union, empty and full lists, and both ends of a number come up."""
    schemas = everything.contracts().schemas
    chance = Random(SEED)
    found = [sample(schemas, "shop.order.Everything", chance) for _ in range(200)]
    assert {datum["paid_by"] and datum["paid_by"][0] for datum in found} == {None, "shop.order.Card", "shop.order.Cash"}
    assert {len(datum["tags"]) for datum in found} == {0, 1, 2, 3}
    assert {-(2**63), 2**63 - 1} <= {datum["total"] for datum in found}
    assert {datum["size"] for datum in found} == {"small", "large"}


def test_times_are_kept_as_instants(everything: Workshop) -> None:
    """Another zone is the same instant; a field of milliseconds keeps whole milliseconds, before 1970 as after."""
    codec = everything.codec()
    at = datetime(1969, 7, 20, 20, 17, 40, 123456, tzinfo=timezone(timedelta(hours=-5)))
    decoded: Any = codec.decode(
        codec.encode(dataclasses.replace(one_of_everything(everything.classes()), at=at, at_millis=at))
    )
    assert decoded.at == at
    assert decoded.at.tzinfo is UTC
    assert decoded.at_millis == at.replace(microsecond=123000)


def test_what_an_older_version_wrote_becomes_the_class_of_today(workshop: Workshop) -> None:
    """New fields take their defaults, renamed ones are found, promoted ones widen, dropped ones are gone."""
    workshop.put(record("Order", field("id"), field("quantity", "int"), field("legacy")), version=1)
    workshop.put(
        record(
            "Order",
            field("order_id", aliases=["id"]),
            field("quantity", "long"),
            field("currency", default="EUR"),
            field("note", ["null", "string"], default=None),
        )
    )
    codec = workshop.codec()
    old = workshop.contracts().versions("shop.order.Order")[1]
    from towpath.contract.avro_readers import write_body
    from towpath.contract.codec import derived_id

    datum = {"id": "o-1", "quantity": 3, "legacy": "x"}
    body = write_body(old.avro("shop.order.Order"), datum)
    decoded = codec.decode(wire_prefix(derived_id(old, "shop.order.Order")) + body)
    assert decoded == workshop.classes().Order(order_id="o-1", quantity=3, currency="EUR", note=None)


def test_a_renamed_record_is_found_by_its_alias(workshop: Workshop) -> None:
    """A writer that still uses the old full name is read into the new class."""
    workshop.put(record("OrderPlaced", field("order_id"), aliases=["shop.order.OrderCreated"]))
    codec = workshop.codec()
    codec.learn(WriterSchema(99, record("OrderCreated", field("order_id"))))
    assert codec.decode(wire_prefix(99) + b"\x04ab") == workshop.classes().OrderPlaced(order_id="ab")


def test_an_unknown_id_is_told_with_the_id(workshop: Workshop) -> None:
    """Who reads the dead letter can ask the registry for it; once learned, it is read."""
    workshop.put(record("Order", field("order_id")))
    codec = workshop.codec()
    with pytest.raises(UnknownSchema) as caught:
        codec.decode(wire_prefix(4711) + b"\x04ab")
    assert caught.value.schema_id == 4711
    assert isinstance(caught.value, PeerError)
    assert not codec.knows(4711)
    codec.learn(WriterSchema(4711, record("Order", field("order_id"), field("more", "int"))))
    assert codec.decode(wire_prefix(4711) + b"\x04ab\x02") == workshop.classes().Order(order_id="ab")


def test_a_writer_of_something_else_cannot_be_learned(workshop: Workshop) -> None:
    """A schema that no class can hold is refused where it is learned."""
    workshop.put(record("Order", field("order_id")))
    with pytest.raises(ContractError, match=r"no class for records of type shop\.order\.Parcel"):
        workshop.codec().learn(WriterSchema(5, record("Parcel", field("x"))))


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x01\x02a", b'{"order_id": 1}'], ids=repr
)
def test_bytes_without_the_wire_format_are_undecodable(workshop: Workshop, payload: bytes) -> None:
    """JSON, an empty value or a cut prefix never reaches an agent."""
    workshop.put(record("Order", field("order_id")))
    with pytest.raises(UndecodableRecord):
        workshop.codec().decode(payload)


def test_cut_padded_and_flipped_bytes_are_never_another_exception(everything: Workshop) -> None:
    """Whatever bytes arrive, the codec returns a record or blames the record: it never leaks a library's error."""
    codec = everything.codec()
    payload = codec.encode(one_of_everything(everything.classes()))
    for length in range(5, len(payload)):
        with pytest.raises(UndecodableRecord):
            codec.decode(payload[:length])
    with pytest.raises(UndecodableRecord, match="1 bytes are left over"):
        codec.decode(payload + b"\x00")
    chance = Random(SEED)
    refused = 0
    for _ in range(3000):
        place = chance.randrange(5, len(payload))
        changed = payload[:place] + chance.randbytes(1) + payload[place + 1 :]
        try:
            codec.decode(changed)
        except UndecodableRecord:
            refused += 1
    assert refused > 100, f"seed {SEED}"


def test_a_text_that_is_not_utf8_is_undecodable(workshop: Workshop) -> None:
    """A broken text is found at the border, not later in an agent."""
    workshop.put(record("Order", field("order_id")))
    codec = workshop.codec()
    prefix = codec.encode(workshop.classes().Order(order_id="ab"))[:5]
    with pytest.raises(UndecodableRecord, match="UnicodeDecodeError"):
        codec.decode(prefix + b"\x04\xff\xfe")


def test_offline_ids_depend_on_nothing_but_the_schema(workshop: Workshop) -> None:
    """Recorded histories hold payloads: a new schema beside them must not give theirs another id."""
    workshop.put(record("Order", field("order_id")))
    before = workshop.codec().encode(workshop.classes().Order(order_id="x"))
    workshop.put(record("Another", field("a")))
    assert workshop.codec().encode(workshop.classes().Order(order_id="x")) == before


def test_a_record_without_an_id_is_refused_with_the_way_to_get_one(workshop: Workshop) -> None:
    """A record that no topic carries cannot be written by accident."""
    workshop.put(record("Order", field("order_id")))
    contracts = workshop.generate()
    codec = Codec(contracts.schemas, load_classes(contracts), {}, ())
    with pytest.raises(ContractError, match="no topic lists it"):
        codec.encode(workshop.classes().Order(order_id="x"))


def test_the_type_is_known_without_decoding(workshop: Workshop) -> None:
    """A router needs the name only."""
    workshop.put(record("Order", field("order_id")))
    codec = workshop.codec()
    assert codec.type_of(codec.encode(workshop.classes().Order(order_id="x"))) == "shop.order.Order"
    with pytest.raises(UnknownSchema):
        codec.type_of(wire_prefix(1) + b"")
