"""Where an order stands, folded from the order service's own events."""

from dataclasses import dataclass, replace
from datetime import datetime

from schemas.records.order import OrderCancelled, OrderConfirmed, OrderPlaced, OrderRejected
from towpath.view import Occurrence, View


@dataclass(frozen=True, slots=True)
class OrderStatus:
    """One order as its customer sees it."""

    order_id: str
    customer_id: str
    status: str
    total_cents: int
    refunded_cents: int
    reason: str | None
    placed_at: datetime
    updated_at: datetime


Event = OrderPlaced | OrderConfirmed | OrderRejected | OrderCancelled


def fold(row: OrderStatus | None, event: Event, at: Occurrence) -> OrderStatus | None:
    """Return the order's row after `event`; whatever precedes the placing of an order says nothing of it."""
    if isinstance(event, OrderPlaced):
        return OrderStatus(
            order_id=event.order_id,
            customer_id=event.customer_id,
            status="placed",
            total_cents=event.total_cents,
            refunded_cents=0,
            reason=None,
            placed_at=event.placed_at,
            updated_at=at.at,
        )
    if row is None:
        return None
    match event:
        case OrderConfirmed():
            return replace(row, status="confirmed", updated_at=at.at)
        case OrderRejected():
            return replace(row, status="rejected", reason=event.reason, updated_at=at.at)
        case OrderCancelled():
            return replace(row, status="cancelled", refunded_cents=event.refunded_cents, updated_at=at.at)


view = View(
    name="order_status",
    topics=("order.events",),
    row=OrderStatus,
    key="order_id",
    folds=frozenset({OrderPlaced, OrderConfirmed, OrderRejected, OrderCancelled}),
    fold=fold,
)
