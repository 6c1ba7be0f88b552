"""Start events under another key than their topic's, and instances that follow each other, on the log."""

from dataclasses import replace
from pathlib import Path

import pytest

from sagas import catalog, orders
from sagas.place_order import release_stock, reserve_stock
from schemas.records.catalog import OutOfStock, StockReleased, StockReserved
from schemas.records.order import OrderApproved, OrderConfirmed, OrderPlaced
from tests.unit.orchestrator.desktop import Desktop, Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import ENGINE, OWN, confirm_order, declare_topics, write_topic
from towpath.contract.catalogue import Catalogue
from towpath.orchestrator import record_context
from towpath.orchestrator import records as wire
from towpath.orchestrator.topics import topic_findings
from towpath.saga import Saga, Undo, days, seconds
from towpath.saga.keys import saga_id_of


def customer(order: OrderPlaced) -> str:
    """Key a saga by who ordered."""
    return order.customer_id


def next_delivery(order: OrderPlaced) -> OrderPlaced | None:
    """Deliver again while there is something left to pay."""
    return replace(order, total_cents=order.total_cents - 10_00) if order.total_cents > 10_00 else None


def subscription(version: int = 1) -> Saga[OrderPlaced]:
    """Return a saga of one delivery, and what starts the next."""
    made = Saga("buy", version=version, starts_on=OrderPlaced, deadline=days(9), keyed_by=customer)
    made.pivot(orders, confirm_order, succeeds=OrderConfirmed, within=seconds(10))
    made.then_starts(next_delivery)
    return made


def carried(desk: Desktop, sent: list[Sent]) -> list[Sent]:
    """Carry what the saga sends to itself, as the log does."""
    own = [message for message in sent if message.topic == "buy.signals"]
    return [more for each in own for more in desk.give(each.topic, each.record, key=each.key, **each.headers)]


def placed(desk: Desktop) -> list[Sent]:
    """Let an order be placed under its own key."""
    order = order_placed()
    return desk.give("order.events", order, id="event-1", type=order.SCHEMA_NAME, traceparent="00-1")


def confirmed(desk: Desktop, command: Sent) -> list[Sent]:
    """Let the order be confirmed."""
    return desk.reply(command, OrderConfirmed(order_id="order-1", confirmed_at=order_placed().placed_at))


def test_a_start_event_goes_to_the_partition_of_its_saga() -> None:
    """It begins nothing where it was read; under the saga's key it does, with the id that it always had."""
    desk = desktop(subscription())
    (passed_on,) = placed(desk)
    assert (passed_on.topic, passed_on.key) == ("buy.signals", "customer-1")
    assert (passed_on.headers["id"], passed_on.headers["traceparent"]) == ("event-1", "00-1")
    assert desk.stored() == {}
    (command,) = commands(carried(desk, [passed_on]))
    assert (command.key, command.headers["saga_id"]) == ("customer-1", saga_id_of("buy", "event-1"))


def test_it_may_be_passed_on_twice() -> None:
    """A start event that is read again is the same instance's."""
    desk = desktop(subscription())
    first, second = placed(desk), placed(desk)
    assert len(commands(carried(desk, first))) == 1
    assert carried(desk, second) == []


def test_one_that_has_the_right_key_already_begins_where_it_is() -> None:
    """Nothing travels twice that need not."""
    desk = desktop(subscription())
    order = order_placed()
    sent = desk.give("order.events", order, key="customer-1", id="event-1", type=order.SCHEMA_NAME)
    assert [command.key for command in commands(sent)] == ["customer-1"]


def test_the_next_instance_begins_once_the_last_has_completed() -> None:
    """Each has an id, a history and a deadline of its own; the last one starts none."""
    desk = desktop(subscription())
    (command,) = commands(carried(desk, placed(desk)))
    sent = confirmed(desk, command)
    assert [entry.status for entry in history(sent)] == ["completed"]
    (started,) = [message for message in sent if message.topic == "buy.signals"]
    assert (started.key, started.headers["traceparent"]) == ("customer-1", "00-1")
    (second,) = commands(carried(desk, sent))
    assert second.headers["saga_id"] == saga_id_of("buy", started.headers["id"]) != command.headers["saga_id"]
    assert carried(desk, sent) == []
    last = confirmed(desk, second)
    assert [message.topic for message in last] == ["buy.history"]


def test_the_next_instance_is_of_the_newest_version() -> None:
    """A chain moves to a new version by itself, at its next link."""
    desk = desktop(subscription())
    (command,) = commands(carried(desk, placed(desk)))
    sent = confirmed(desk, command)
    newer = desktop(subscription(), subscription(2))
    assert [entry.version for entry in history(carried(newer, sent))] == [2]


def links(*, with_pivot: bool = False) -> Saga[OrderPlaced]:
    """Return a chain whose instances can be cancelled: until they end, or until they are past their pivot."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=days(9), cancel_on=OrderApproved)
    if with_pivot:
        made.pivot(catalog, reserve_stock, succeeds=StockReserved, within=seconds(10))
    else:
        back = Undo(release_stock, succeeds=StockReleased)
        made.step(catalog, reserve_stock, undo=back, succeeds=StockReserved, fails=OutOfStock, within=seconds(10))
    made.then_starts(next_delivery)
    return made


def begun(desk: Desktop, total_cents: int = 40_00, id_: str = "event-1") -> list[Sent]:
    """Let an order be placed under the saga's own key."""
    return desk.give("order.events", order_placed(total_cents=total_cents), id=id_)


def reserved(desk: Desktop, sent: list[Sent]) -> list[Sent]:
    """Let an instance complete; what starts the next is among what that sent."""
    (command,) = commands(sent)
    return desk.reply(command, StockReserved(order_id="order-1", reservation_id="r-1"))


def cancelled(desk: Desktop) -> list[wire.HistoryEntry]:
    """Let somebody wish that it ends; return what the history says of that."""
    return history(desk.give("buy.signals", OrderApproved(order_id="order-1", approver="ada"), id="end-1"))


def test_a_chain_goes_on_however_many_of_its_instances_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have ended are no obstacle: the oldest are known by their ids alone."""
    monkeypatch.setattr(record_context, "INSTANCES_PER_KEY_MAX", 2)
    desk = desktop(links())
    sent = begun(desk, 60_00)
    for _ in range(5):
        sent = carried(desk, reserved(desk, sent))
    assert len(commands(sent)) == 1
    assert sum(key.startswith(b"i") for key in desk.stored()) == 6
    desk.reply(sent[0], StockReserved(order_id="order-1", reservation_id="r-1"))
    desk.clock.advance(5 * 3600)
    desk.fire_timers()
    assert [key[:1] for key in desk.stored()] == [b"f"]


def test_a_chain_that_is_cancelled_between_two_instances_does_not_go_on() -> None:
    """As a signal that comes before its saga's start: it is kept for the next, and for that one alone."""
    desk = desktop(links())
    ended = reserved(desk, begun(desk))
    assert cancelled(desk) == []
    sent = carried(desk, ended)
    assert [entry.status for entry in history(sent)] == ["running", "compensating"]
    assert history(sent)[1].cause == "cancelled by OrderApproved"


def test_a_wish_that_was_kept_for_an_instance_that_never_comes_cancels_no_other() -> None:
    """A start from elsewhere is not cancelled by it; it is refused after a day."""
    desk = desktop(links())
    reserved(desk, begun(desk))
    assert cancelled(desk) == []
    assert [entry.status for entry in history(begun(desk, 10_00, "event-2"))] == ["running"]
    desk.clock.advance(25 * 3600)
    assert "its saga never started" in [entry.reason for entry in history(desk.fire_timers())]


def test_the_wish_to_end_a_chain_that_goes_no_further_is_refused() -> None:
    """The last instance has ended, and so has one that was cancelled: the same wish once more is kept for nobody."""
    desk = desktop(links())
    reserved(desk, begun(desk, 10_00))
    assert [entry.reason for entry in cancelled(desk)] == ["the saga has ended"]
    desk = desktop(links())
    begun(desk)
    (undo,) = commands(desk.give("buy.signals", OrderApproved(order_id="order-1", approver="ada"), id="end-1"))
    desk.reply(undo, StockReleased(order_id="order-1"))
    assert [entry.reason for entry in cancelled(desk)] == ["the saga has ended"]


def test_a_wish_that_came_too_late_is_not_taken_by_the_next_when_it_comes_again() -> None:
    """It was refused once, past the pivot."""
    desk = desktop(links(with_pivot=True))
    sent = begun(desk)
    assert "past its point of no return" in cancelled(desk)[0].reason
    ended = reserved(desk, sent)
    assert [entry.reason for entry in cancelled(desk)] == ["the saga has ended"]
    assert [entry.status for entry in history(carried(desk, ended))] == ["running"]


def test_the_catalogue_must_let_a_saga_start_itself(tmp_path: Path) -> None:
    """Its own topic of signals lists the start event, from and to itself."""
    declare_topics(tmp_path)
    values, producers, _ = OWN["buy.replies"]
    write_topic(tmp_path, "buy.replies", values, producers, ["buy"])
    write_topic(tmp_path, "order.events", ["craftygoods.order.OrderPlaced"], ["order"], ["buy"])
    sagas = {"buy": {1: subscription().definition}}
    found = topic_findings(sagas, Catalogue.read(tmp_path))
    assert [(each.subject, each.problem) for each in found] == [("buy.signals", "it is not declared")]
    signals = ["craftygoods.order.OrderPlaced", f"{ENGINE}.ParentAsked"]
    write_topic(tmp_path, "buy.signals", signals, ["buy"], ["buy"])
    assert topic_findings(sagas, Catalogue.read(tmp_path)) == ()
