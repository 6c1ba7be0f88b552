"""What an older or newer writer wrote, decoded into the class of today: as the specification says."""

from decimal import Decimal
from typing import Any, Final

import pytest

from tests.unit.contract.workshop import NAMESPACE, Workshop, field, record
from towpath.contract.codec import UndecodableRecord, WriterSchema, derived_id, wire_prefix
from towpath.contract.compatibility import breaks

NULLABLE: Final = ["null", "string"]
CARD: Final = {"type": "record", "name": "Card", "fields": [field("token")]}
CASH: Final = {"type": "record", "name": "Cash", "fields": [field("till", "int", default=1)]}
N: Final = {"type": "record", "name": "N", "fields": [field("a", "int")]}


def decoded(workshop: Workshop, old: dict[str, Any], new: dict[str, Any], body: bytes) -> Any:
    """Return what `body`, written under `old`, is to a reader of `new`."""
    workshop.put(old, version=1)
    workshop.put(new)
    codec = workshop.codec()
    name = f"{NAMESPACE}.{new['name']}"
    return codec.decode(wire_prefix(derived_id(workshop.contracts().versions(name)[1], name)) + body)


@pytest.mark.parametrize(
    ("written", "body"),
    [(["null", CARD], b"\x02\x04ab"), (["null", CARD], b"\x00"), (CARD, b"\x04ab")],
    ids=["from a union", "null", "from the record alone"],
)
def test_a_union_may_gain_a_record(workshop: Workshop, written: Any, body: bytes) -> None:
    """The commonest compatible change: what was written before the second record came is still read."""
    found = decoded(
        workshop,
        record("Payment", field("by", written)),
        record("Payment", field("by", ["null", CARD, CASH])),
        body,
    )
    module = workshop.classes()
    assert found == module.Payment(by=None if body == b"\x00" else module.Card(token="ab"))


DEFAULTS: Final = [
    field("raw", "bytes", default="\u00ff\u0000"),
    field("mark", {"type": "fixed", "name": "Mark", "size": 2}, default="ab"),
    field("cash", CASH, default={}),
    field("either", [{**CARD, "name": "Coin", "fields": [field("token", default="t")]}, "null"], default={}),
    field("ratio", "double", default=1),
    field("small", "float", default=0.1),
    field("list", {"type": "array", "items": "bytes"}, default=["\u00fe"]),
    field("prices", {"type": "map", "values": "double"}, default={"a": 2}),
    field("price", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, default="\u0001\u0000"),
    field("day", {"type": "int", "logicalType": "date"}, default=3),
    field("note", ["string", "null"], default=None),
]


def test_defaults_are_filled_in_as_values_of_their_types(workshop: Workshop) -> None:
    """Each is what the record would hold had it been written, so that it can be written again."""
    found = decoded(workshop, record("A", field("x", "int")), record("A", field("x", "int"), *DEFAULTS), b"\x02")
    module = workshop.classes()
    assert found == module.A(x=1)
    assert (found.raw, found.mark, found.cash) == (b"\xff\x00", b"ab", module.Cash(till=1))
    assert (found.either, type(found.ratio), found.list) == (module.Coin(token="t"), float, (b"\xfe",))
    assert (found.prices, type(found.prices["a"]), found.note) == ({"a": 2.0}, float, None)
    assert (found.price, found.day.isoformat()) == (Decimal("2.56"), "1970-01-04")
    codec = workshop.codec()
    built = workshop.classes().A(x=1)
    assert codec.decode(codec.encode(built)) == built


def test_two_records_never_share_what_a_program_can_change(workshop: Workshop) -> None:
    """A map that a default fills in belongs to its record alone."""
    new = record("A", field("x", "int"), field("m", {"type": "map", "values": "int"}, default={"a": 1}))
    first = decoded(workshop, record("A", field("x", "int")), new, b"\x02")
    second = workshop.classes().A(x=1)
    first.m["b"] = 2
    assert workshop.classes().A(x=1) == second


def test_fields_that_change_places_by_their_aliases_are_a_break(workshop: Workshop) -> None:
    """The specification exchanges the values, Java leaves them where they were: neither is read without a word."""
    old = record("A", field("a", "int"), field("b", "int"))
    new = record("A", field("a", "int", aliases=["b"]), field("b", "int", aliases=["a"]))
    with pytest.raises(UndecodableRecord, match="a, b: aliases lead in a circle"):
        decoded(workshop, old, new, b"\x02\x04")
    schemas = workshop.contracts()
    found = breaks("shop.order.A", reader=schemas.schemas, writer=schemas.versions("shop.order.A")[1])
    assert [item.place for item in found] == ["A.a", "A.b"]
    assert "libraries read one or the other" in found[0].problem


def test_an_alias_takes_the_value_from_a_new_field_of_the_old_name(workshop: Workshop) -> None:
    """`b` was called `a`; a field that is called `a` now, with a default, is another one."""
    new = record("A", field("a", "int", default=7), field("b", "int", aliases=["a"]))
    found = decoded(workshop, record("A", field("a", "int")), new, b"\x02")
    assert (found.a, found.b) == (7, 1)


def test_a_record_whose_alias_is_another_field_of_its_own_reads_itself(workshop: Workshop) -> None:
    """Aliases rename what another form wrote; what was written under the same form needs none."""
    workshop.put(record("A", field("hash"), field("maybe_hash", ["null", "string"], aliases=["hash"])))
    codec, built = workshop.codec(), workshop.classes().A
    for one in (built(hash="x", maybe_hash=None), built(hash="x", maybe_hash="y")):
        assert codec.decode(codec.encode(one)) == one


def test_a_field_written_under_both_names_is_a_break(workshop: Workshop) -> None:
    """Which of the two values is meant, nobody can say; Java refuses the pair."""
    old = record("A", field("a", "int"), field("b", "int"))
    with pytest.raises(UndecodableRecord, match="written twice"):
        decoded(workshop, old, record("A", field("b", "int", aliases=["a"])), b"\x02\x04")
    contracts = workshop.contracts()
    found = breaks("shop.order.A", reader=contracts.schemas, writer=contracts.versions("shop.order.A")[1])
    assert "writes both" in str(found[0])


def test_a_break_inside_a_union_is_not_forgotten(workshop: Workshop) -> None:
    """What failed as one branch of a union still fails where it is met again."""
    required = {**N, "fields": [*N["fields"], field("new", "int")]}
    other = {"type": "record", "name": "Alt", "aliases": ["N"], "fields": [field("a", "int")]}
    workshop.put(record("A", field("u", N), field("v", "N")), version=1)
    workshop.put(record("A", field("u", ["null", required, other]), field("v", "N")))
    contracts = workshop.contracts()
    found = breaks("shop.order.A", reader=contracts.schemas, writer=contracts.versions("shop.order.A")[1])
    assert len(found) == 1
    assert str(found[0]).startswith("A.v: the reader takes shop.order.N, the writer wrote shop.order.N")
    assert "which the reader calls shop.order.Alt by an alias" in str(found[0])


def test_nested_records_match_by_their_names_without_namespace(workshop: Workshop) -> None:
    """A service that moved its types to another namespace is still read, as the specification says."""
    old = record("A", field("n", {**N, "namespace": "elsewhere"}), field("u", ["null", "elsewhere.N"]))
    new = record("A", field("n", N), field("u", ["null", "N"]))
    found = decoded(workshop, old, new, b"\x02\x02\x04")
    module = workshop.classes()
    assert found == module.A(n=module.N(a=1), u=module.N(a=2))
    contracts = workshop.contracts()
    assert breaks("shop.order.A", reader=contracts.schemas, writer=contracts.versions("shop.order.A")[1]) == ()


def test_a_topics_own_record_may_move_by_its_alias(workshop: Workshop) -> None:
    """Name and namespace change; what lies in the topic is read, its fields renamed as well."""
    workshop.put(record("Placed", field("order_id", aliases=["id"]), aliases=["shop.legacy.OrderCreated"]))
    codec = workshop.codec()
    written = {"type": "record", "name": "OrderCreated", "namespace": "shop.legacy", "fields": [field("id")]}
    codec.learn(WriterSchema(99, written))
    assert codec.decode(wire_prefix(99) + b"\x04ab") == workshop.classes().Placed(order_id="ab")


@pytest.mark.parametrize(
    ("written", "wanted", "body", "value"),
    [
        ("int", "long", b"\x03", -2),
        ("int", "float", b"\x03", -2.0),
        ("int", "double", b"\x03", -2.0),
        ("long", "double", b"\x03", -2.0),
        ("float", "double", b"\x00\x00\x80\x3f", 1.0),
        ("string", "bytes", b"\x02a", b"a"),
        ("bytes", "string", b"\x02a", "a"),
        ("int", ["null", "string", "double"], b"\x03", -2.0),
        (NULLABLE, "string", b"\x02\x02a", "a"),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}, b"\x02\x03\x00", (-2.0,)),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, b"\x02\x02a\x03\x00", {"a": -2}),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "int"}, b"\x01\x02\x03\x00", (-2,)),
    ],
)
def test_promotions_reach_inside_collections_and_unions(
    workshop: Workshop, written: Any, wanted: Any, body: bytes, value: Any
) -> None:
    """What Avro promotes is promoted wherever it stands, and is of the reader's type."""
    found = decoded(workshop, record("A", field("x", written)), record("A", field("x", wanted)), body)
    assert (found.x, type(found.x)) == (value, type(value))


@pytest.mark.parametrize(
    ("written", "wanted", "body", "words"),
    [
        (NULLABLE, "string", b"\x00", "null where the reader takes string"),
        ("string", "int", b"\x02a", "string where the reader takes int"),
        (
            {"type": "enum", "name": "E", "symbols": ["a", "b"]},
            {"type": "enum", "name": "E", "symbols": ["a"]},
            b"\x02",
            "a symbol that shop.order.E does not know",
        ),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1},
            b"\x02\x01",
            "decimal where the reader takes decimal",
        ),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            {"type": "long", "logicalType": "local-timestamp-millis"},
            b"\x02",
            "timestamp-millis where the reader takes local-timestamp-millis",
        ),
        (N, CARD, b"\x02", "shop.order.N where the reader takes shop.order.Card"),
    ],
)
def test_what_the_reader_cannot_take_is_refused_with_its_reason(
    workshop: Workshop, written: Any, wanted: Any, body: bytes, words: str
) -> None:
    """The dead letter says which type met which, where it occurs in the data."""
    with pytest.raises(UndecodableRecord, match=words):
        decoded(workshop, record("A", field("x", written)), record("A", field("x", wanted)), body)
