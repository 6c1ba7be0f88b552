"""What a selection and a predicate take of records, and what they say of those that they cannot judge."""

import json

import pytest

from schemas.records.order import OrderConfirmed
from tests.unit.orchestrator.desktop import CODEC
from tests.unit.replay.test_sending import PARTITIONS, TOPIC, broker_with, ids
from towpath.cli import replay_planning
from towpath.errors import ConfigurationError
from towpath.replay.plan import chosen
from towpath.replay.selection import Judged, Selection, compile_predicate, guarded
from towpath.settings import load_settings


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 30),
        (Selection(since_milliseconds=1_010), 20),
        (Selection(until_milliseconds=1_010), 10),
        (Selection(types=frozenset({"OrderRejected"})), 10),
        (Selection(types=frozenset({OrderConfirmed.SCHEMA_NAME})), 20),
        (Selection(ids=frozenset({"e1", "e2", "other"})), 2),
        (Selection(headers={"id": "e1"}), 1),
        (Selection(headers={"tenant": "x"}), 0),
        (Selection(partitions=frozenset(range(PARTITIONS))), 30),
        (Selection(topics=(TOPIC,), from_offset=0, to_offset=30), 30),
        (Selection(topics=("payment.events",)), 0),
        (Selection(from_offset=30), 0),
        (Selection(to_offset=1), PARTITIONS),
        (Selection(keys=frozenset(f"o-{number}" for number in range(10))), 30),
    ],
)
def test_a_selection_takes_what_it_asks_for(selection: Selection, count: int) -> None:
    """Time, type, id, header, topic, partition, offset and key, whatever it is read from; a plan keeps it as it is."""
    records = broker_with(30).records(TOPIC)
    assert sum(map(selection.takes, records)) == count
    assert Selection.from_json(json.loads(json.dumps(selection.to_json()))) == selection


def test_a_predicate_asks_decoded_fields() -> None:
    """What its type does not have makes it not hold; what cannot be read is refused."""
    predicate = compile_predicate('record.reason == "reason 3" && key.startsWith("o-")', CODEC.to_json)
    found = chosen(broker_with(30).records(TOPIC), Selection(), CODEC.decode, predicate)
    assert ids(found) == ["e3"]
    with pytest.raises(ConfigurationError, match="cannot be read"):
        compile_predicate("record.", CODEC.to_json)


def test_records_that_an_expression_cannot_be_judged_for_are_counted() -> None:
    """A field that a type lacks leaves it out; one that is misspelt leaves all out, and that is told."""
    records, judged = broker_with(30).records(TOPIC), Judged()
    predicate = compile_predicate('record.reason != ""', CODEC.to_json, judged)
    assert len(list(chosen(records, Selection(), CODEC.decode, predicate))) == judged.judged == 10
    assert judged.not_judged == 20
    assert judged.first.startswith("order.events[")


@pytest.mark.parametrize("asked", [Selection(where='record.order_id != ""'), Selection(function="mine:any")])
def test_records_that_no_predicate_can_be_asked_of_are_counted(
    monkeypatch: pytest.MonkeyPatch, asked: Selection
) -> None:
    """Whoever asked for all of a customer's records must not believe to have them."""
    monkeypatch.setattr(replay_planning, "load_function", lambda *_: lambda *_: True)
    broker = broker_with(3)
    broker.append(TOPIC, b"\0\0\0\xff\xff of a newer release", key=b"o-1")
    broker.append(TOPIC, None, key=b"o-1")
    judged = Judged()
    choose_them = replay_planning.chooser(load_settings(environment=False), asked, CODEC, judged)
    assert len(list(choose_them(broker.records(TOPIC)))) == 3
    assert (judged.judged, judged.not_judged) == (3, 2)


def test_an_expression_that_is_no_question_is_refused() -> None:
    """A text is neither yes nor no."""
    predicate = compile_predicate("key", CODEC.to_json)
    with pytest.raises(ConfigurationError, match="not true or false"):
        list(chosen(broker_with(3).records(TOPIC), Selection(), CODEC.decode, predicate))


def test_a_function_that_raises_is_told_with_the_record() -> None:
    """By its place, and what to do."""
    predicate = guarded("shop:large", lambda record, lies: record.nothing)
    with pytest.raises(ConfigurationError, match=r"shop:large raised AttributeError for order.events\["):
        list(chosen(broker_with(3).records(TOPIC), Selection(), CODEC.decode, predicate))
