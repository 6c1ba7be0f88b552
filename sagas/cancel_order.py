"""A confirmed order is cancelled: hold it, give back the money (all of it or a part), restock, mark it cancelled.

Until the money is given back, the order can go on as if nobody had asked. After that it is cancelled for good.
"""

from sagas import catalog, orders, payments
from schemas.records.catalog import ItemsRestocked, RestockItems, StockLine
from schemas.records.order import (
    BeginCancellation,
    CancellationBegun,
    CancellationRefused,
    CompleteCancellation,
    OrderCancellationRequested,
    OrderCancelled,
    OrderResumed,
    ResumeOrder,
)
from schemas.records.payment import PaymentRefunded, RefundPayment, RefundRefused
from towpath.saga import Saga, Undo, days, seconds


def begin_cancellation(request: OrderCancellationRequested) -> BeginCancellation:
    """Hold the order, so that it is neither shipped nor cancelled twice meanwhile."""
    return BeginCancellation(order_id=request.order_id, reason=request.reason)


def resume_order(request: OrderCancellationRequested) -> ResumeOrder:
    """Let the order go on."""
    return ResumeOrder(order_id=request.order_id)


def refund_payment(request: OrderCancellationRequested) -> RefundPayment:
    """Give back what was agreed: the total, or less a fee."""
    return RefundPayment(
        order_id=request.order_id,
        authorisation_id=request.authorisation_id,
        amount_cents=request.refund_cents,
        reason=request.reason,
    )


def restock_items(request: OrderCancellationRequested) -> RestockItems:
    """Put the pieces back on the shelf."""
    lines = tuple(StockLine(sku=line.sku, quantity=line.quantity) for line in request.lines)
    return RestockItems(order_id=request.order_id, lines=lines)


def complete_cancellation(request: OrderCancellationRequested) -> CompleteCancellation:
    """Mark the order as cancelled."""
    return CompleteCancellation(order_id=request.order_id)


saga = Saga("cancel_order", version=1, starts_on=OrderCancellationRequested, deadline=days(4))

held = saga.step(
    orders,
    begin_cancellation,
    undo=Undo(resume_order, succeeds=OrderResumed),
    holds="order",
    succeeds=CancellationBegun,
    fails=CancellationRefused,
    within=seconds(10),
)

refund = saga.pivot(
    payments,
    refund_payment,
    after=held,
    succeeds=PaymentRefunded,
    fails=RefundRefused,
    within=seconds(30),
)

restocked = saga.retriable(
    catalog,
    restock_items,
    after=refund,
    holds="stock",
    succeeds=ItemsRestocked,
    within=seconds(10),
)

saga.retriable(
    orders,
    complete_cancellation,
    after=refund & restocked,
    succeeds=OrderCancelled,
    within=seconds(10),
)
