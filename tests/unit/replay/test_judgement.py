"""Who of the reference project's parties recognises what, by its own catalogue and code."""

from pathlib import Path

import pytest

from towpath.contract.catalogue import Catalogue
from towpath.errors import RefusedError
from towpath.parties import load_parties
from towpath.replay.judgement import Consumer, Judgement, consumers_of
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

SETTINGS = load_settings(Path(__file__).resolve().parents[3], environment=False)
CATALOGUE = Catalogue.load(SETTINGS)
PARTIES = load_parties(SETTINGS, CATALOGUE)


def record(type_: str, at: int) -> ConsumedRecord:
    """Return a record of a type and a time."""
    return ConsumedRecord("order.events", 0, 0, at, b"k", b"", (("type", type_.encode()),))


def test_sagas_views_and_services_tell_each_in_its_own_way() -> None:
    """Of the topics of the reference project all consumers can."""
    found = {(one.name, one.topic): one.recognises for one in consumers_of(
        CATALOGUE, PARTIES, ["order.events", "payment.commands", "place_order.history"]
    )}  # fmt: skip
    assert "ids" in (found["view order_status", "order.events"] or "")
    assert "instance" in (found["saga place_order", "order.events"] or "")
    assert "inbox" in (found["service payment", "payment.commands"] or "")
    assert "ids" in (found["view sagas", "place_order.history"] or "")
    assert ("saga place_order", "place_order.history") not in found, "its workers write it"


@pytest.mark.parametrize("topic", ["place_order.state", "place_order.timers", "order.events.dead"])
def test_what_is_no_message_is_never_replayed(topic: str) -> None:
    """A saga's memory, its clock, the quarantine."""
    with pytest.raises(RefusedError, match="no message that may come again"):
        consumers_of(CATALOGUE, PARTIES, [topic])


def test_what_a_consumer_has_forgotten_is_counted() -> None:
    """By its partition and the record's time, of the types that it reads."""
    consumers = (
        Consumer("view a", "order.events", frozenset({"x"}), "ids"),
        Consumer("b", "order.events", frozenset({"y"}), None),
    )
    judgement = Judgement(consumers, {("view a", TopicPartition("order.events", 0)): (10, "forgotten")})
    for type_, at in (("x", 9), ("x", 10), ("x", 11), ("y", 1)):
        judgement.meet(record(type_, at), "order.events")
    assert [(one.consumer, one.records, one.beyond, one.harmless) for one in judgement.recognitions()] == [
        ("view a", 3, 2, True),
        ("b", 1, 0, False),
    ]


def test_what_a_consumer_has_forgotten_since_it_was_planned_is_said_when_it_is_run() -> None:
    """Where it still knows all that the plan sends, nothing is; what was too old already was said then."""
    place, consumers = TopicPartition("order.events", 0), (Consumer("view a", "order.events", frozenset({"x"}), "ids"),)
    planned = Judgement(consumers, {("view a", place): (10, "forgotten")})
    for at in (9, 11, 15):
        planned.meet(record("x", at), "order.events")
    for until, other in ((10, 0), (10, 99)):
        forgotten = {("view a", place): (until, "forgotten"), ("view a", place._replace(partition=1)): (other, "")}
        assert Judgement(consumers, forgotten).since(planned.recognitions()) == ()
    (reason,) = Judgement(consumers, {("view a", place): (11, "forgotten")}).since(planned.recognitions())
    assert reason.startswith("view a can no longer tell of records of order.events[0]")
