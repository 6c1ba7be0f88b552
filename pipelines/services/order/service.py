"""order carries orders from step to step, and is the door through which customers and clerks come in."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from pipelines.services.order import postgres
from pipelines.services.order.rules import OrderStatus, Step, after, may, total_cents
from pipelines.services.postgres import Connection
from schemas.records.order import (
    BeginCancellation,
    CancellationBegun,
    CancellationRefused,
    CompleteCancellation,
    ConfirmOrder,
    OrderApproved,
    OrderCancellationRequested,
    OrderCancelled,
    OrderConfirmed,
    OrderDeclined,
    OrderPlaced,
    OrderRejected,
    OrderResumed,
    RejectOrder,
    ResumeOrder,
)
from towpath.errors import NotFoundError, ProgrammerError, RefusedError
from towpath.service import Codec, Context, OutboxMessage, Record, Service, from_record, handle, undo, write

EVENTS = "order.events"
SIGNALS = "place_order.signals"


# Commands


def confirm_orders(contexts: Sequence[Context[ConfirmOrder]]) -> list[Record]:
    """Promise the goods."""
    orders = _locked(contexts)
    _step(contexts, orders, Step.CONFIRM)
    return _told([OrderConfirmed(order_id=one.command.order_id, confirmed_at=one.now) for one in contexts], contexts)


def reject_orders(contexts: Sequence[Context[RejectOrder]]) -> list[Record]:
    """Write that orders will not be fulfilled, and why."""
    orders = _locked(contexts)
    _step(contexts, orders, Step.REJECT, lambda command: str(command.reason))
    return _told(
        [
            OrderRejected(order_id=one.command.order_id, reason=one.command.reason, rejected_at=one.now)
            for one in contexts
        ],
        contexts,
    )


def begin_cancellations(contexts: Sequence[Context[BeginCancellation]]) -> list[Record]:
    """Hold orders back, so that they are neither sent nor cancelled twice meanwhile."""
    orders = _locked(contexts)
    replies: list[Record] = []
    held = []
    for context in contexts:
        order_id = context.command.order_id
        order = orders.get(order_id)
        if order and order.refund_cents is not None and may(order.status, Step.BEGIN_CANCELLATION):
            held.append(context)
            replies.append(CancellationBegun(order_id=order_id))
        else:
            reason = f"the order is {order.status}" if order else "there is no such order"
            replies.append(CancellationRefused(order_id=order_id, reason=reason))
    _step(held, orders, Step.BEGIN_CANCELLATION, lambda command: str(command.reason))
    return replies


def resume_orders(contexts: Sequence[Context[ResumeOrder]]) -> list[Record]:
    """Let orders go on that were held back."""
    held = [context for context in contexts if context.do_reply is not None]
    _step(held, _locked(held), Step.RESUME)
    return [OrderResumed(order_id=context.command.order_id) for context in contexts]


def complete_cancellations(contexts: Sequence[Context[CompleteCancellation]]) -> list[Record]:
    """Write that orders are cancelled for good."""
    orders = _locked(contexts)
    _step(contexts, orders, Step.COMPLETE_CANCELLATION)
    return _told(
        [
            OrderCancelled(
                order_id=one.command.order_id,
                refunded_cents=orders[one.command.order_id].refund_cents or 0,
                cancelled_at=one.now,
            )
            for one in contexts
        ],
        contexts,
    )


def _locked(contexts: Sequence[Context[Any]]) -> dict[str, postgres.Order]:
    if not contexts:
        return {}
    return postgres.lock_orders(contexts[0].connection, [context.command.order_id for context in contexts])


def _step(
    contexts: Sequence[Context[Any]],
    orders: dict[str, postgres.Order],
    step: Step,
    reason: Callable[[Any], str] = lambda _: "",
) -> None:
    """Take every order of `contexts` one step on. Raises ImpossibleStep for one that cannot take it."""
    if not contexts:
        return
    changed = []
    for context in contexts:
        order = orders.get(context.command.order_id)
        reached = after(context.command.order_id, order.status if order else None, step)
        changed.append(postgres.Change(context.command.order_id, reached, reason(context.command) or None))
    postgres.save(contexts[0].connection, changed, contexts[0].now)
    postgres.changes.append(
        contexts[0].connection,
        [
            (context.idempotency_key, change.order_id, change.status.value)
            for context, change in zip(contexts, changed, strict=True)
        ],
    )


def _told(replies: Sequence[Record], contexts: Sequence[Context[Any]]) -> list[Record]:
    """Tell the world, too, what the saga is told."""
    for reply, context in zip(replies, contexts, strict=True):
        context.emit(reply, key=context.command.order_id)
    return list(replies)


# Doors


def place_order(connection: Connection, codec: Codec, order: OrderPlaced, *, event_id: UUID) -> OutboxMessage:
    """Accept an order, in the connection's own transaction; committing it starts place_order.

    Returns the message that does: once committed, it may also be handed over to Kafka.

    Raises ProgrammerError where the total is not that of the lines, psycopg's UniqueViolation for an order id that is
    taken.
    """
    cost_cents = total_cents(order.lines)
    if cost_cents != order.total_cents:
        raise ProgrammerError(
            f"order {order.order_id}: its lines cost {cost_cents} cents, its total says {order.total_cents}"
        )
    postgres.add_order(connection, order)
    message = from_record(codec, EVENTS, order.order_id, order, id=event_id)
    write(connection, [message])
    return message


def approve_order(connection: Connection, codec: Codec, order_id: str, *, approver: str, event_id: UUID) -> None:
    """Approve an order that waits for it."""
    signal = OrderApproved(order_id=order_id, approver=approver)
    write(connection, [from_record(codec, SIGNALS, order_id, signal, id=event_id)])


def decline_order(
    connection: Connection, codec: Codec, order_id: str, *, approver: str, reason: str, event_id: UUID
) -> None:
    """Decline an order that waits for approval."""
    signal = OrderDeclined(order_id=order_id, approver=approver, reason=reason)
    write(connection, [from_record(codec, SIGNALS, order_id, signal, id=event_id)])


def request_cancellation(
    connection: Connection,
    codec: Codec,
    order_id: str,
    *,
    reason: str,
    requested_by: str,
    authorisation_id: str,
    event_id: UUID,
    refund_cents: int | None = None,
) -> None:
    """Ask for a confirmed order to be cancelled; committing it starts cancel_order.

    `refund_cents` None gives everything back. Raises NotFoundError for an order that does not exist, RefusedError for
    one that is not confirmed, or whose cancellation is asked for already.
    """
    order = postgres.lock_orders(connection, [order_id]).get(order_id)
    if order is None:
        raise NotFoundError(f"there is no order {order_id}")
    if order.status is not OrderStatus.CONFIRMED or order.refund_cents is not None:
        raise RefusedError(
            f"order {order_id} cannot be cancelled: it is {order.status}"
            f"{', and its cancellation is asked for already' if order.refund_cents is not None else ''}",
            kept="the order as it was",
        )
    refund_cents = order.total_cents if refund_cents is None else refund_cents
    postgres.set_refund(connection, order_id, refund_cents)
    event = OrderCancellationRequested(
        order_id=order_id,
        customer_id=order.customer_id,
        reason=reason,
        requested_by=requested_by,
        lines=postgres.lines_of(connection, order_id),
        total_cents=order.total_cents,
        refund_cents=refund_cents,
        currency=order.currency,
        authorisation_id=authorisation_id,
    )
    write(connection, [from_record(codec, EVENTS, order_id, event, id=event_id)])


service = Service(
    "order",
    handlers=[
        handle(ConfirmOrder, confirm_orders, succeeds=OrderConfirmed),
        handle(RejectOrder, reject_orders, succeeds=OrderRejected),
        handle(BeginCancellation, begin_cancellations, succeeds=CancellationBegun, fails=CancellationRefused),
        undo(ResumeOrder, resume_orders, of=BeginCancellation, succeeds=OrderResumed),
        handle(CompleteCancellation, complete_cancellations, succeeds=OrderCancelled),
    ],
)
