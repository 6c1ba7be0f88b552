"""A saga that says all that a saga can, on a real broker, its result read from a real PostgreSQL by the client."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sagas.place_order import release_stock, reserve_stock
from schemas.records.catalog import OutOfStock, ReserveStock, StockReleased, StockReserved
from schemas.records.order import (
    ConfirmOrder,
    OrderApproved,
    OrderCancelled,
    OrderConfirmed,
    OrderLine,
    OrderPlaced,
    OrderResumed,
)
from tests.integration.orchestrator.town import Town, client_of, unique_name
from towpath.contract.record import Record
from towpath.saga import COMPENSATE, NO_EFFECT, Participant, Remind, Saga, Undo, minutes, one_of, seconds, tolerated
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted
from towpath.saga.keys import saga_id_of
from towpath.settings import Settings

pytestmark = pytest.mark.stack
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = OrderPlaced(
    order_id="order-1",
    customer_id="customer-1",
    lines=tuple(OrderLine(sku=sku, quantity=1, unit_price_cents=90_000) for sku in ("desk", "lamp", "sofa")),
    total_cents=270_000,
    currency="EUR",
    card_token="card-1",
    placed_at=NOW,
)
Ending = SubsagaCompleted[object] | SubsagaCompensated


def customer(order: OrderPlaced) -> str:
    """Key the saga by who ordered."""
    return order.customer_id


def size(order: OrderPlaced) -> str:
    """Choose by the total."""
    return "large" if order.total_cents > 100_000 else "small"


def overdue(order: OrderPlaced, number: int) -> OrderResumed:
    """Remind whoever approves."""
    return OrderResumed(order_id=f"reminder-{number}")


def lines(order: OrderPlaced) -> tuple[OrderLine, ...]:
    """Return what was ordered."""
    return order.lines


def one_line(order: OrderPlaced, line: OrderLine) -> OrderPlaced:
    """Order one line alone."""
    return replace(order, lines=(line,))


def sku(order: OrderPlaced, line: OrderLine) -> str:
    """Key the sub-saga of a line by its product."""
    return line.sku


def reserve_gift(order: OrderPlaced) -> ReserveStock:
    """Ask for something that there is not."""
    return ReserveStock(order_id="gift", lines=())


def confirm(order: OrderPlaced) -> ConfirmOrder:
    """Confirm."""
    return ConfirmOrder(order_id=order.order_id)


def told(order: OrderPlaced, gift: StockReserved | OutOfStock) -> OrderResumed:
    """Say whether there was a gift."""
    return OrderResumed(order_id="gift" if isinstance(gift, StockReserved) else "no gift")


def came_to(order: OrderPlaced, goods: tuple[Ending, ...]) -> OrderCancelled:
    """Count the lines that there were."""
    there = sum(isinstance(each, SubsagaCompleted) for each in goods)
    return OrderCancelled(order_id=order.order_id, refunded_cents=there, cancelled_at=NOW)


class Course(Town):
    """The saga, its sub-saga and the services."""

    def __init__(self, servers: str) -> None:
        name = unique_name()
        catalog, orders = Participant(f"catalog_{name}"), Participant(f"orders_{name}")
        self.participants = (catalog, orders)
        self.child = Saga(f"line_{name}", version=1, starts_on=OrderPlaced, deadline=minutes(9))
        self.child.step(
            catalog,
            reserve_stock,
            undo=Undo(release_stock, succeeds=StockReleased),
            succeeds=StockReserved,
            fails=OutOfStock,
            within=minutes(1),
        )
        self.saga = self._saga(name, catalog, orders)
        self.sagas = (self.saga, self.child)
        super().__init__(servers, name)

    def _saga(self, name: str, catalog: Participant, orders: Participant) -> Saga[OrderPlaced]:
        made = Saga(f"course_{name}", version=1, starts_on=OrderPlaced, deadline=minutes(30), keyed_by=customer)
        large, small = made.choose("size", by=size, options=("large", "small"))
        approved = made.wait(
            "approval",
            after=large,
            succeeds=OrderApproved,
            within=minutes(5),
            on_timeout=COMPENSATE,
            reminds=Remind(overdue, event=OrderResumed, every=seconds(1), times=9),
        )
        sure = made.merge("sure", approved, small)
        goods = made.subsaga_each(
            self.child, one_line, over=lines, limit=9, keyed_by=sku, may_fail=True, after=sure, within=minutes(5)
        )
        gift = made.step(
            catalog,
            reserve_gift,
            after=sure,
            undo=NO_EFFECT,
            succeeds=one_of(StockReserved, tolerated(OutOfStock)),
            within=minutes(1),
        )
        done = made.pivot(orders, confirm, after=goods & gift, succeeds=OrderConfirmed, within=minutes(1))  # fmt: skip
        made.publish(told, event=OrderResumed, needs=gift, after=done, key="told")
        made.result(came_to, event=OrderCancelled, needs=goods)
        return made

    def reply_to(self, asked: Record) -> Record | None:
        """Answer at once: there is no lamp, and no gift."""
        if not isinstance(asked, ReserveStock):
            return OrderConfirmed(order_id="order-1", confirmed_at=NOW)
        if asked.order_id != "gift" and asked.lines[0].sku != "lamp":
            return StockReserved(order_id="order-1", reservation_id="r-1")
        return OutOfStock(order_id="order-1", sku="lamp", requested=1, available=0)

    def take(self, event: Record, published: list[str]) -> None:
        """A person approves once reminded."""
        published.append(event.order_id if isinstance(event, OrderResumed) else type(event).__name__)
        if published == ["reminder-1"]:
            approval = OrderApproved(order_id="order-1", approver="grace")
            self.say(f"{self.saga.name}.signals", approval, "customer-1", id="approval")


def test_a_saga_that_says_everything_ends_and_its_result_is_read(settings: Settings, kafka_servers: str) -> None:
    """Keyed by a function; a choice, reminders until somebody approves, a sub-saga for each line of which one fails, a
    failure that is tolerated, an event, a result: all through topics and timers, and the ending through PostgreSQL.
    """
    course = Course(kafka_servers)
    saga_id = saga_id_of(course.saga.name, "order-1-placed")
    client = client_of(settings)
    with course.services() as published:
        course.say(course.started, ORDER, "order-1", id="order-1-placed")
        ended = course.await_ending(settings, client, saga_id)
    assert (ended.status, ended.key) == ("completed", "customer-1")
    assert ended.result == OrderCancelled(order_id="order-1", refunded_cents=2, cancelled_at=NOW)
    assert published[0] == "reminder-1"
    assert "no gift" in published
    below = {
        each.key: each.status for name in ("desk", "lamp", "sofa") for each in client.find(course.child.name, name)
    }
    assert below == {"desk": "completed", "lamp": "compensated", "sofa": "completed"}
