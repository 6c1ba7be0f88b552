"""The sagas whose state older versions of Towpath have left behind: every kind of step, on the records of the project.

The definitions must stay what they were when the bytes were written: to change one is to write other bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sagas import cancel_order, catalog, orders, payments, place_order
from schemas.records.catalog import (
    ItemsRestocked,
    OutOfStock,
    ReleaseStock,
    ReserveStock,
    RestockItems,
    StockLine,
    StockReleased,
    StockReserved,
)
from schemas.records.order import (
    ConfirmOrder,
    OrderApproved,
    OrderConfirmed,
    OrderDeclined,
    OrderLine,
    OrderPlaced,
    OrderRejected,
    RejectOrder,
)
from schemas.records.payment import AuthorisePayment, CapturePayment, PaymentAuthorised, PaymentCaptured
from tests.unit.orchestrator.family import buy, hold_goods
from towpath.saga import HALT, NO_EFFECT, Cause, Saga, UndoEach, UndoStart, days, hours, minutes, seconds


def lines_of(order: OrderPlaced) -> Sequence[OrderLine]:
    """Return what was ordered."""
    return order.lines


def reserve_line(order: OrderPlaced, line: OrderLine) -> ReserveStock:
    """Set one line aside."""
    return ReserveStock(order_id=order.order_id, lines=(StockLine(sku=line.sku, quantity=line.quantity),))


def release_line(order: OrderPlaced, line: OrderLine) -> ReleaseStock:
    """Put one line back."""
    return ReleaseStock(order_id=f"{order.order_id} {line.sku}")


def restock_line(order: OrderPlaced, line: OrderLine) -> RestockItems:
    """Send one line."""
    return RestockItems(order_id=order.order_id, lines=(StockLine(sku=line.sku, quantity=line.quantity),))


def authorise(order: OrderPlaced, lines: tuple[StockReserved, ...]) -> AuthorisePayment:
    """Block the amount."""
    return AuthorisePayment(
        order_id=order.order_id,
        customer_id=f"{order.customer_id} {len(lines)}",
        amount_cents=order.total_cents,
        currency=order.currency,
        card_token=order.card_token,
    )


def confirm(order: OrderPlaced, payment: PaymentAuthorised | None) -> ConfirmOrder:
    """Confirm."""
    return ConfirmOrder(order_id=order.order_id if payment is not None else "free")


def capture(order: OrderPlaced) -> CapturePayment:
    """Take the amount."""
    return CapturePayment(order_id=order.order_id, authorisation_id="a", amount_cents=order.total_cents)


def reject(order: OrderPlaced, cause: Cause) -> RejectOrder:
    """Reject the order."""
    return RejectOrder(order_id=order.order_id, reason=str(cause))


def is_large(order: OrderPlaced, _: tuple[StockReserved, ...]) -> bool:
    """Say whether it must be paid in advance."""
    return order.total_cents > 10_000


def wholesale() -> Saga[OrderPlaced]:
    """Return lists on both sides of the pivot, a condition, a delay, a wait that halts."""
    made = Saga(
        "wholesale",
        version=1,
        starts_on=OrderPlaced,
        deadline=days(4),
        undo=UndoStart(reject, by=orders, succeeds=OrderRejected, within=seconds(10), attempts=2),
    )
    lines = made.each(
        catalog,
        reserve_line,
        over=lines_of,
        limit=3,
        succeeds=StockReserved,
        fails=OutOfStock,
        undo=UndoEach(release_line, succeeds=StockReleased, fails=OrderDeclined, attempts=2),
        within=seconds(10),
        attempts=2,
    )
    paid = made.step(
        payments,
        authorise,
        needs=lines,
        when=is_large,
        succeeds=PaymentAuthorised,
        undo=NO_EFFECT,
        within=seconds(10),
        attempts=2,
    )
    rest = made.delay("rest", lasts=minutes(5), after=lines)
    asked = made.wait(
        "asked", after=rest, succeeds=OrderApproved, fails=OrderDeclined, within=hours(1), on_timeout=HALT
    )
    decided = made.pivot(
        orders, confirm, needs=paid, after=asked, succeeds=OrderConfirmed, within=seconds(10), attempts=2
    )
    made.retriable_each(
        catalog, restock_line, after=decided, over=lines_of, limit=3, succeeds=ItemsRestocked, within=seconds(10)
    )
    made.retriable(payments, capture, after=decided, succeeds=PaymentCaptured, within=seconds(10), attempts=2)
    return made


SHAPES: dict[str, Callable[[], Saga[Any]]] = {
    "place_order": lambda: place_order.saga,
    "cancel_order": lambda: cancel_order.saga,
    "wholesale": wholesale,
    "buy": buy,
    "hold_goods": hold_goods,
}
