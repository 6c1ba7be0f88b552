"""Start events under another key than their topic's, and instances that follow each other, on the log."""

from dataclasses import replace
from pathlib import Path

from sagas import orders
from schemas.records.order import OrderConfirmed, OrderPlaced
from tests.unit.orchestrator.desktop import Desktop, Sent, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import ENGINE, OWN, confirm_order, declare_topics, write_topic
from towpath.contract.catalogue import Catalogue
from towpath.orchestrator.topics import topic_findings
from towpath.saga import Saga, days, seconds
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


def test_the_catalogue_must_let_a_saga_start_itself(tmp_path: Path) -> None:
    """Its own topic of signals lists the start event, from and to itself; the start topic may have other partitions."""
    declare_topics(tmp_path)
    values, producers, _ = OWN["buy.replies"]
    write_topic(tmp_path, "buy.replies", values, producers, ["buy"])
    write_topic(tmp_path, "order.events", ["craftygoods.order.OrderPlaced"], ["order"], ["buy"], partitions=5)
    sagas = {"buy": {1: subscription().definition}}
    found = topic_findings(sagas, Catalogue.read(tmp_path))
    assert [(each.subject, each.problem) for each in found] == [("buy.signals", "it is not declared")]
    signals = ["craftygoods.order.OrderPlaced", f"{ENGINE}.ParentAsked"]
    write_topic(tmp_path, "buy.signals", signals, ["buy"], ["buy"])
    assert topic_findings(sagas, Catalogue.read(tmp_path)) == ()
