"""Keeps orders."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from pipelines.services.order.rules import OrderStatus
from pipelines.services.postgres import Connection, Table
from schemas.records.order import OrderLine, OrderPlaced

changes = Table("order_change", {"idempotency_key": "uuid", "order_id": "text", "status": "text"})
_lines = Table(
    "order_line",
    {"order_id": "text", "line": "int4", "sku": "text", "quantity": "int8", "unit_price_cents": "int8"},
)


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands. `refund_cents` is None while no cancellation is asked for."""

    order_id: str
    customer_id: str
    status: OrderStatus
    total_cents: int
    currency: str
    refund_cents: int | None


def add_order(connection: Connection, order: OrderPlaced) -> None:
    """Add an order that was just placed, with its lines."""
    connection.execute(
        "INSERT INTO customer_order (order_id, customer_id, total_cents, currency, placed_at, changed_at)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (order.order_id, order.customer_id, order.total_cents, order.currency, order.placed_at, order.placed_at),
    )
    _lines.append(
        connection,
        [
            (order.order_id, number, line.sku, line.quantity, line.unit_price_cents)
            for number, line in enumerate(order.lines, 1)
        ],
    )


def lock_orders(connection: Connection, ids: Iterable[str]) -> dict[str, Order]:
    """Return those of the orders `ids` that exist, locked, in one order for everybody."""
    rows = connection.execute(
        "SELECT order_id, customer_id, status, total_cents, currency, refund_cents FROM customer_order"
        " WHERE order_id = ANY(%s) ORDER BY order_id FOR UPDATE",
        (list(ids),),
    )
    return {row[0]: Order(row[0], row[1], OrderStatus(row[2]), *row[3:]) for row in rows}


def lines_of(connection: Connection, order_id: str) -> tuple[OrderLine, ...]:
    """Return the lines of an order, in their order."""
    rows = connection.execute(
        "SELECT sku, quantity, unit_price_cents FROM order_line WHERE order_id = %s ORDER BY line", (order_id,)
    )
    return tuple(OrderLine(sku=sku, quantity=quantity, unit_price_cents=price) for sku, quantity, price in rows)


@dataclass(frozen=True, slots=True)
class Change:
    """An order's new status, and the reason where the step gives one (None keeps the old one)."""

    order_id: str
    status: OrderStatus
    reason: str | None = None


def save(connection: Connection, changed: Collection[Change], at: datetime) -> None:
    """Write where orders are now. One that goes on after all forgets why it was to be cancelled."""
    if changed:
        connection.execute(
            "UPDATE customer_order AS old SET status = new.status, changed_at = %s,"
            " reason = CASE WHEN new.status = 'confirmed' THEN NULL ELSE coalesce(new.reason, old.reason) END,"
            " refund_cents = CASE WHEN new.status = 'confirmed' THEN NULL ELSE old.refund_cents END"
            " FROM unnest(%s::text[], %s::text[], %s::text[]) AS new (order_id, status, reason)"
            " WHERE old.order_id = new.order_id",
            (
                at,
                [change.order_id for change in changed],
                [change.status.value for change in changed],
                [change.reason for change in changed],
            ),
        )


def set_refund(connection: Connection, order_id: str, refund_cents: int) -> None:
    """Write that a cancellation is asked for, and what it gives back."""
    connection.execute("UPDATE customer_order SET refund_cents = %s WHERE order_id = %s", (refund_cents, order_id))


def standing(connection: Connection, order_id: str) -> tuple[str, str | None] | None:
    """Return status and reason of an order, None if there is none of that id."""
    row = connection.execute("SELECT status, reason FROM customer_order WHERE order_id = %s", (order_id,)).fetchone()
    return None if row is None else (row[0], row[1])


def all_standings(connection: Connection) -> dict[str, tuple[str, str | None]]:
    """Return status and reason of every order."""
    rows = connection.execute("SELECT order_id, status, reason FROM customer_order")
    return {order_id: (status, reason) for order_id, status, reason in rows}


def executed_twice(connection: Connection) -> int:
    """Return how many commands had a second effect."""
    found = connection.execute("SELECT count(*) - count(DISTINCT idempotency_key) FROM order_change").fetchone()
    return int(found[0]) if found else 0
