"""The verdict on a run says what databases and topics say, and fails for each thing that can go wrong."""

from dataclasses import replace
from typing import Any

import pytest

from pipelines.views import order_status
from schemas.records.order import OrderConfirmed
from tests.unit.orchestrator.desktop import CODEC, order_placed
from towpath.clock import ManualClock
from towpath.contract.record import Record
from towpath.demo.demo import Check, Outcome
from towpath.demo.timeline import hops
from towpath.demo.verdict import Ending, Verdict, endings, fold_topics, judge, lost_keys, percentile
from towpath.errors import PeerError
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.records import HistoryEntry
from towpath.stream.broker.record import ConsumedRecord

NOW = ManualClock().now()


def consumed(
    record: Record, offset: int, *, topic: str = "order.events", at: int = 0, **headers: str
) -> ConsumedRecord:
    """Return `record` as it lies in a topic."""
    own = {"type": record.SCHEMA_NAME, "id": f"event-{offset}"}
    return ConsumedRecord(topic, 0, offset, at, b"order-1", CODEC.encode(record), headers_of(**{**own, **headers}))


def entry(status: str, offset: int, *, at: int, saga_id: str = "saga-1") -> ConsumedRecord:
    """Return an entry of the history of place_order, written 5 ms after its input."""
    written = HistoryEntry(
        saga="place_order",
        version=1,
        saga_id=saga_id,
        key="order-1",
        input_id=str(offset),
        at_milliseconds=at,
        happened="replied",
        step="",
        direction="do",
        status=status,
    )
    return consumed(written, offset, topic="place_order.history", at=at + 5)


def test_an_instance_ends_with_the_first_entry_that_says_so() -> None:
    """A late reply that is refused afterwards does not make the order slower."""
    history = [
        entry("running", 0, at=1_000),
        entry("completed", 1, at=1_400),
        entry("completed", 2, at=9_000),
    ]
    (ending,) = endings(history, CODEC, "place_order")["order-1"]
    assert (ending.status, ending.seconds) == ("completed", 0.405)


ENDED = Ending("order-1", "saga-1", "completed", 0, 100)


@pytest.mark.parametrize(
    ("instances", "outcomes"),
    [
        ({}, {"order-1": Outcome("confirmed", None)}),
        ({"order-1": [replace(ENDED, status="running")]}, {"order-1": Outcome("placed", None)}),
        ({"order-1": [ENDED, replace(ENDED, saga_id="saga-2")]}, {"order-1": Outcome("confirmed", None)}),
        ({"order-1": [ENDED]}, {}),
    ],
    ids=["never started", "never ended", "started twice", "unknown to its owner"],
)
def test_a_key_that_did_not_come_to_exactly_one_end_is_lost(
    instances: dict[str, list[Ending]], outcomes: dict[str, Outcome]
) -> None:
    """Whichever way it got lost."""
    assert lost_keys({"order-1"}, instances, outcomes) == {"order-1"}


def verdict(**changes: Any) -> Verdict:
    """Return the verdict on one good order, but for `changes`."""
    facts: dict[str, Any] = {
        "run_keys": {"order-1"},
        "placed": {"order-1"},
        "instances": {"order-1": [ENDED]},
        "outcomes": {"order-1": Outcome("confirmed", None)},
        "checks": [Check("money_conserved", True, ""), Check("stock_conserved", True, "")],
        "executed_twice": 0,
        "views_exact": True,
        "traffic_seconds": 0.5,
        "elapsed_seconds": 1.0,
    }
    return judge(**{**facts, **changes})


def test_a_good_run_holds() -> None:
    """And counts its orders."""
    good = verdict()
    assert good.holds
    assert (good.orders, good.completed, good.compensated, good.order_seconds_p50) == (1, 1, 0, 0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"instances": {}},
        {"instances": {"order-1": [replace(ENDED, status="stuck", ended_milliseconds=None)]}},
        {"executed_twice": 1},
        {"checks": [Check("money_conserved", False, ""), Check("stock_conserved", True, "")]},
        {"checks": [Check("money_conserved", True, "")]},
        {"views_exact": False},
    ],
    ids=["lost", "stuck", "twice", "money", "stock not checked", "view"],
)
def test_anything_that_is_wrong_breaks_the_verdict(changes: dict[str, Any]) -> None:
    """An invariant that nobody checked does not hold."""
    assert not verdict(**changes).holds


def test_folding_the_topic_drops_what_was_captured_twice() -> None:
    """Debezium may repeat a row: the id says so."""
    placed = consumed(order_placed(), 0)
    confirmed = consumed(OrderConfirmed(order_id="order-1", confirmed_at=NOW), 1)
    repeated = placed._replace(offset=2)
    rows = fold_topics(order_status.view, [placed, confirmed, repeated], CODEC)
    assert rows["order-1"].status == "confirmed"


FOREIGN = b"\x00\x00\x00\x00\x63made up"
"""Of schema 99, which nobody knows."""


def test_what_cannot_be_decoded_or_is_dead_counts_for_nothing_and_is_named() -> None:
    """Neither is in a view's row; what was sent again under the same id is."""
    placed = consumed(order_placed(), 0)
    confirmed = consumed(OrderConfirmed(order_id="order-1", confirmed_at=NOW), 2)
    foreign, empty = consumed(order_placed(), 1)._replace(value=FOREIGN), placed._replace(offset=4, value=None)
    stepped_over: set[str] = set()
    log = [placed, foreign, confirmed, confirmed._replace(offset=3), empty]
    rows = fold_topics(order_status.view, log, CODEC, dead={confirmed.position}, stepped_over=stepped_over)
    assert rows["order-1"].status == "confirmed"
    assert stepped_over == {foreign.position, confirmed.position}
    with pytest.raises(PeerError):
        fold_topics(order_status.view, log, CODEC)


def test_what_is_no_entry_of_a_history_is_stepped_over_and_named() -> None:
    """Bytes that nobody can decode, and a record of another kind."""
    foreign = entry("completed", 1, at=1_100)._replace(value=FOREIGN)
    other = consumed(order_placed(), 2, topic="place_order.history")
    stepped_over: set[str] = set()
    history = [entry("running", 0, at=1_000), foreign, other, entry("completed", 3, at=1_400)]
    (ending,) = endings(history, CODEC, "place_order", stepped_over)["order-1"]
    assert ending.status == "completed"
    assert stepped_over == {foreign.position, other.position}


def test_hops_are_the_records_of_one_key_in_the_order_of_time() -> None:
    """History and state are not on the way."""
    records = [
        consumed(OrderConfirmed(order_id="order-1", confirmed_at=NOW), 1, at=1_030, direction="undo", step="confirm"),
        consumed(order_placed(), 0, at=1_000),
        entry("running", 0, at=1_001),
    ]
    told = hops(records, "order-1", "place_order")
    assert [(hop.milliseconds, hop.record, hop.undo) for hop in told] == [
        (0, "OrderPlaced", False),
        (30, "OrderConfirmed", True),
    ]


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)])
def test_percentiles_go_by_nearest_rank(share: float, value: float) -> None:
    """Of 1 to 100."""
    assert percentile([float(number) for number in range(1, 101)], share) == value
    assert percentile([], share) == 0.0
