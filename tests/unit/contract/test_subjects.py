"""Subjects by each of Confluent's strategies; schemas that refer to others, made whole."""

from collections.abc import Sequence

import pytest

from tests.unit.contract.workshop import field, record
from towpath.contract.catalogue import Catalogue, Compatibility, Topic, TopicKind
from towpath.contract.subjects import SubjectStrategy, inline, subjects_of
from towpath.errors import ContractError


def topic(name: str, values: Sequence[str]) -> Topic:
    """Return a topic that carries `values`."""
    mode = Compatibility.FULL_TRANSITIVE
    return Topic(name, TopicKind.EVENTS, "order", "order_id", 4, 30, tuple(values), ("order",), (), mode)


CATALOGUE = Catalogue({one.name: one for one in (topic("b.events", ["x.A"]), topic("a.events", ["x.A", "x.B"]))})


def test_each_strategy_names_its_subjects() -> None:
    """A record in two topics has one subject, or one in each."""
    assert subjects_of("x.A", CATALOGUE, SubjectStrategy.RECORD) == ("x.A",)
    assert subjects_of("x.A", CATALOGUE, SubjectStrategy.TOPIC_RECORD) == ("a.events-x.A", "b.events-x.A")
    alone = Catalogue({"b.events": CATALOGUE.topic("b.events")})
    assert subjects_of("x.A", alone, SubjectStrategy.TOPIC) == ("b.events-value",)


def test_a_topic_of_several_records_has_no_subject_by_topic() -> None:
    """Each would have to read what the others wrote; the error names the setting."""
    with pytest.raises(ContractError) as caught:
        subjects_of("x.A", CATALOGUE, SubjectStrategy.TOPIC)
    assert caught.value.cause == "a.events carries 2 records, and by topic a subject has one"
    assert caught.value.next_step is not None
    assert 'subject_strategy = "topic_record"' in caught.value.next_step


def test_each_type_is_written_out_where_it_is_first_used() -> None:
    """In lists, maps, unions and other references; by its short name too, where the namespace is the same."""
    line = record("Line", field("sku"), field("unit", "Unit"))
    unit = {"type": "enum", "name": "Unit", "namespace": "shop.order", "symbols": ["PIECE"]}
    order = record(
        "Order",
        field("lines", {"type": "array", "items": "Line"}),
        field("by_sku", {"type": "map", "values": "shop.order.Line"}),
        field("gift", ["null", "Unit"], default=None),
        field("next", ["null", "Order"], default=None),
        field("other", "elsewhere.Unknown"),
    )
    whole = inline(order, {"shop.order.Line": line, "shop.order.Unit": unit})
    types = [one["type"] for one in whole["fields"]]
    assert types[0]["items"] == {**line, "fields": [field("sku"), field("unit", unit)]}
    assert types[1]["values"] == "shop.order.Line"
    assert types[2] == ["null", "shop.order.Unit"]
    assert types[3:] == [["null", "shop.order.Order"], "elsewhere.Unknown"]
