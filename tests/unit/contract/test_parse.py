"""Avro files are read strictly: what Avro would ignore is refused by name."""

from typing import Any

import pytest

from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.parse import parse
from towpath.errors import ContractError


@pytest.mark.parametrize(
    ("avro", "words"),
    [
        (record("A", {"name": "x", "type": "string", "defualt": ""}), "did you mean 'default'"),
        ({"type": "record", "name": "A", "fieldz": []}, "did you mean 'fields'"),
        (
            record("A", field("x", {"type": "long", "logicalType": "timestamp-milis"})),
            "did you mean 'timestamp-millis'",
        ),
        (record("A", field("x", {"type": "int", "logicalType": "timestamp-micros"})), "carried by ['long']"),
        (record("A", field("x", {"type": "bytes", "logicalType": "decimal"})), "needs a precision"),
        (record("A", field("x", {"type": "strng"})), "did you mean 'string'"),
        (record("A", field("x", {"type": "array", "item": "string"})), "did you mean 'items'"),
        (record("A", field("x", ["null", "null"])), "a union needs different types"),
        (record("A", field("x", ["null", ["string", "int"]])), "holds no union"),
        (record("A", field("x"), field("x")), "two fields have the same name"),
        (record("A", field("Order-Id")), "letters, digits and _"),
        (record("A", field("x", "int", default="1")), "default '1' does not fit"),
        (record("A", field("x", ["null", "string"], default=1)), "fits no type of the union"),
        (record("A", field("x", "boolean", default=0)), "default 0 does not fit"),
        ({"type": "record", "name": "A", "namespace": "a"}, "'fields' is missing"),
        ({"type": "enum", "name": "A", "symbols": ["UP", "UP"]}, "stands there twice"),
        ({"type": "enum", "name": "A", "symbols": ["open", "shut"], "default": "shutt"}, "did you mean 'shut'"),
        ({"type": "string"}, "one record, enum or fixed"),
        (["null", "string"], "one record, enum or fixed"),
        (record("A", field("x", 7)), "7 is no Avro type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_refused_by_name(avro: Any, words: str) -> None:
    """Each mistake that Avro's own readers let pass is an error that names it and what was meant."""
    with pytest.raises(ContractError) as caught:
        parse(avro, source="order/A.avsc")
    assert words in caught.value.cause
    assert caught.value.cause.startswith("order/A.avsc")


def test_names_take_the_namespace_of_what_holds_them() -> None:
    """A nested type without a namespace has that of the record around it, as in the specification."""
    nested = {"type": "enum", "name": "Size", "symbols": ["small", "large"]}
    found = parse(record("A", field("size", nested), field("again", "Size")), source="A.avsc")
    assert list(found) == ["shop.order.A", "shop.order.Size"]


def test_a_record_may_contain_itself(workshop: Workshop) -> None:
    """A tree is written with the type's own name, and read back as a tree."""
    children = {"type": "array", "items": "shop.order.Node"}
    workshop.put(record("Node", field("name"), field("children", children, default=[])))
    codec = workshop.codec()
    node = workshop.classes().Node
    tree = node(name="root", children=(node(name="left", children=(node(name="leaf"),)), node(name="right")))
    assert codec.decode(codec.encode(tree)) == tree


@pytest.mark.parametrize("attribute", ["doc", "default", "aliases", "logical"])
def test_the_fingerprint_tells_every_change_that_a_reader_would_notice(attribute: str) -> None:
    """Defaults, aliases and logical types change it, though Avro's canonical form drops them; words do not."""
    from towpath.contract.schema import Schemas

    changed = {
        "doc": field("x", "long", doc="another sentence"),
        "default": field("x", "long", default=0),
        "aliases": field("x", "long", aliases=["y"]),
        "logical": field("x", {"type": "long", "logicalType": "timestamp-micros"}),
    }[attribute]
    before = Schemas(parse(record("A", field("x", "long")), source="A")).fingerprint("shop.order.A")
    after = Schemas(parse(record("A", changed), source="A")).fingerprint("shop.order.A")
    assert (before == after) is (attribute == "doc")
