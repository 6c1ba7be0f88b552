"""The sagas that say what e8b8867 could not: choices, fallbacks, reminders, times, lists of sagas, votes, chains.

Like those in shapes.py, they must stay what they were when the bytes were written.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sagas import catalog, orders, payments
from sagas.place_order import release_stock, reserve_stock
from schemas.records.catalog import (
    OutOfStock,
    ReleaseStock,
    ReserveStock,
    StockLevelChanged,
    StockLine,
    StockReleased,
    StockReserved,
)
from schemas.records.order import (
    OrderApproved,
    OrderCancelled,
    OrderConfirmed,
    OrderDeclined,
    OrderLine,
    OrderPlaced,
    OrderRejected,
    OrderResumed,
)
from schemas.records.payment import (
    AuthorisationVoided,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    RefundRefused,
)
from tests.unit.orchestrator.family import authorise_payment, confirm_order, void_authorisation
from tests.unit.upgrade.shapes import capture
from towpath.saga import (
    COMPENSATE,
    PROCEED,
    Prolong,
    Remind,
    Saga,
    Undo,
    UndoEach,
    UndoSubsaga,
    days,
    hours,
    minutes,
    one_of,
    seconds,
    tolerated,
)
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted

Endings = tuple[SubsagaCompleted[StockReserved] | SubsagaCompensated, ...]


def size(order: OrderPlaced) -> str:
    """Choose by the total."""
    return "large" if order.total_cents > 10_000 else "small"


def overdue(order: OrderPlaced, number: int) -> OrderResumed:
    """Remind whoever approves."""
    return OrderResumed(order_id=f"{order.order_id} {number}")


def next_day(order: OrderPlaced) -> datetime:
    """Wait until the day after the order."""
    return order.placed_at + timedelta(days=1)


def told(order: OrderPlaced, paid: PaymentAuthorised | StockReserved | OutOfStock) -> OrderRejected:
    """Say what the order was settled by."""
    return OrderRejected(order_id=order.order_id, reason=type(paid).__name__, rejected_at=order.placed_at)


def came_to(order: OrderPlaced, *_: object) -> OrderCancelled:
    """Say what the saga came to."""
    return OrderCancelled(order_id=order.order_id, refunded_cents=order.total_cents, cancelled_at=order.placed_at)


def course() -> Saga[OrderPlaced]:
    """Return a choice, reminders, more time, a fallback that may be declined, a time, an event, a result."""
    made = Saga("course", version=1, starts_on=OrderPlaced, deadline=days(40), cancel_on=OrderDeclined)
    large, small = made.choose("size", by=size, options=("large", "small"))
    agreed = made.wait(
        "approval",
        after=large,
        succeeds=OrderApproved,
        within=hours(10),
        on_timeout=COMPENSATE,
        reminds=Remind(overdue, event=OrderResumed, every=hours(2), times=3),
        prolonged=Prolong(StockLevelChanged, by=hours(5), times=2),
    )
    sure = made.merge("sure", agreed, small)
    first = made.step(
        payments,
        authorise_payment,
        after=sure,
        undo=Undo(void_authorisation, succeeds=AuthorisationVoided, attempts=2),
        succeeds=PaymentAuthorised,
        fails=PaymentDeclined,
        within=seconds(30),
        attempts=2,
    )
    paid = made.step(
        catalog,
        reserve_stock,
        instead_of=first,
        undo=Undo(release_stock, succeeds=StockReleased, attempts=2, in_order=False),
        succeeds=one_of(StockReserved, tolerated(OutOfStock)),
        within=seconds(30),
        attempts=2,
    )
    later = made.delay("next_day", until=next_day, at_most=days(20), after=paid)
    done = made.pivot(orders, confirm_order, after=later, succeeds=OrderConfirmed, within=seconds(10), attempts=2)
    made.publish(told, event=OrderRejected, needs=paid, after=done, key="tell")
    made.result(came_to, event=OrderCancelled, needs=paid & done)
    return made


def lines_of(order: OrderPlaced) -> Sequence[OrderLine]:
    """Return what was ordered."""
    return order.lines


def one_line(order: OrderPlaced, line: OrderLine) -> OrderPlaced:
    """Order one line alone."""
    return replace(order, lines=(line,))


def line_key(order: OrderPlaced, line: OrderLine) -> str:
    """Key each line's saga by its order and product."""
    return f"{order.order_id}-{line.sku}"


def reserved(order: OrderPlaced, stock: StockReserved) -> StockReserved:
    """Say what the saga of a line came to."""
    return replace(stock, reservation_id=f"{order.order_id} {stock.reservation_id}")


def hold_line() -> Saga[OrderPlaced]:
    """Return the saga of one line, which has a result."""
    made = Saga("hold_line", version=1, starts_on=OrderPlaced, deadline=hours(1))
    held = made.step(
        catalog,
        reserve_stock,
        undo=Undo(release_stock, succeeds=StockReleased, attempts=2),
        succeeds=StockReserved,
        fails=OutOfStock,
        within=seconds(10),
        attempts=2,
    )
    made.result(reserved, event=StockReserved, needs=held)
    return made


def counted(order: OrderPlaced, lines: Endings) -> OrderCancelled:
    """Count the lines that there are."""
    there = sum(isinstance(each, SubsagaCompleted) for each in lines)
    return OrderCancelled(order_id=order.order_id, refunded_cents=there, cancelled_at=order.placed_at)


def buy_lines() -> Saga[OrderPlaced]:
    """Return a saga for each line, of which some may fail."""
    made = Saga("buy_lines", version=1, starts_on=OrderPlaced, deadline=days(9))
    lines = made.subsaga_each(
        hold_line(),
        one_line,
        over=lines_of,
        limit=3,
        keyed_by=line_key,
        returns=StockReserved,
        may_fail=True,
        within=hours(2),
        undo=UndoSubsaga(within=minutes(5), in_order=False),
    )
    made.pivot(orders, confirm_order, after=lines, succeeds=OrderConfirmed, fails=OrderDeclined, within=seconds(10))
    made.result(counted, event=OrderCancelled, needs=lines)
    return made


def customer(order: OrderPlaced) -> str:
    """Key the saga by who ordered."""
    return order.customer_id


def count_vote(order: OrderPlaced, so_far: RefundRefused | None, vote: OrderApproved | OrderResumed) -> RefundRefused:
    """Write down who voted."""
    who = vote.approver if isinstance(vote, OrderApproved) else "the end"
    return RefundRefused(order_id=order.order_id, reason=f"{so_far.reason}, {who}" if so_far else who)


def two_voted(order: OrderPlaced, votes: RefundRefused) -> bool:
    """Say whether two have voted."""
    return votes.reason.count(",") >= (1 if order.lines else 9)


def offer_line(order: OrderPlaced, line: OrderLine) -> ReserveStock:
    """Ask for one line."""
    return ReserveStock(order_id=order.order_id, lines=(StockLine(sku=line.sku, quantity=line.quantity),))


def withdraw_line(order: OrderPlaced, line: OrderLine) -> ReleaseStock:
    """Ask for it no longer."""
    return ReleaseStock(order_id=f"{order.order_id} {line.sku}")


def one_more(order: OrderPlaced) -> OrderPlaced | None:
    """Go on while there is something left to pay."""
    return replace(order, total_cents=order.total_cents - 1_000) if order.total_cents > 1_000 else None


def agree() -> Saga[OrderPlaced]:
    """Return votes, of which two are enough; offers, of which one is; what is past the pivot; the next instance."""
    made = Saga("agree", version=1, starts_on=OrderPlaced, deadline=days(9), keyed_by=customer)
    voted = made.gather(
        "votes",
        of=OrderApproved,
        into=RefundRefused,
        by=count_vote,
        enough=two_voted,
        ended_by=OrderResumed,
        fails=OrderDeclined,
        limit=5,
        within=hours(24),
        on_timeout=PROCEED,
        reminds=Remind(overdue, event=OrderResumed, every=hours(5), times=2),
    )
    won = made.each(
        catalog,
        offer_line,
        over=lines_of,
        limit=3,
        enough=1,
        after=voted,
        undo=UndoEach(withdraw_line, succeeds=StockReleased, attempts=2),
        succeeds=StockReserved,
        fails=OutOfStock,
        within=seconds(30),
        attempts=2,
    )
    done = made.pivot(orders, confirm_order, after=won, succeeds=OrderConfirmed, within=seconds(10), attempts=2)
    made.retriable(payments, capture, after=done, succeeds=PaymentCaptured, within=seconds(10), attempts=2)
    made.then_starts(one_more)
    return made


COURSE_SHAPES: dict[str, Callable[[], Saga[Any]]] = {
    "course": course,
    "buy_lines": buy_lines,
    "hold_line": hold_line,
    "agree": agree,
}
