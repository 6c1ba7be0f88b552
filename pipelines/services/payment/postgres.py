"""Keeps the authorisations of orders, and what became of them."""

from collections.abc import Iterable, Sequence
from typing import LiteralString

from pipelines.services.payment.rules import Authorisation
from pipelines.services.postgres import Connection, Table

authorisations = Table(
    "authorisation",
    {
        "order_id": "text",
        "hold_key": "uuid",
        "authorisation_id": "text",
        "customer_id": "text",
        "amount_cents": "int8",
        "currency": "text",
    },
)
movements = Table(
    "payment_movement", {"idempotency_key": "uuid", "order_id": "text", "kind": "text", "amount_cents": "int8"}
)

_CAPTURED = """
UPDATE authorisation AS old SET captured_cents = captured_cents + new.cents
  FROM unnest(%s::text[], %s::bigint[]) AS new (order_id, cents) WHERE old.order_id = new.order_id
"""
_REFUNDED = """
UPDATE authorisation AS old SET refunded_cents = refunded_cents + new.cents
  FROM unnest(%s::text[], %s::bigint[]) AS new (order_id, cents) WHERE old.order_id = new.order_id
"""


def lock_authorisations(connection: Connection, orders: Iterable[str]) -> dict[str, Authorisation]:
    """Return those of the orders' authorisations that exist, by order and locked, in one order for everybody."""
    rows = connection.execute(
        "SELECT order_id, hold_key, authorisation_id, amount_cents, voided, captured_cents, refunded_cents"
        " FROM authorisation WHERE order_id = ANY(%s) ORDER BY order_id FOR UPDATE",
        (list(orders),),
    )
    return {row[0]: Authorisation(*row) for row in rows}


def mark_voided(connection: Connection, orders: Sequence[str]) -> None:
    """Write that the amounts of `orders` are free again."""
    if orders:
        connection.execute("UPDATE authorisation SET voided = true WHERE order_id = ANY(%s)", (list(orders),))


def add_captured(connection: Connection, cents: Sequence[tuple[str, int]]) -> None:
    """Write how much was taken, by order."""
    _add(connection, _CAPTURED, cents)


def add_refunded(connection: Connection, cents: Sequence[tuple[str, int]]) -> None:
    """Write how much was given back, by order."""
    _add(connection, _REFUNDED, cents)


def _add(connection: Connection, statement: LiteralString, cents: Sequence[tuple[str, int]]) -> None:
    if cents:
        connection.execute(statement, ([order for order, _ in cents], [amount for _, amount in cents]))


def executed_twice(connection: Connection) -> int:
    """Return how many commands had a second effect."""
    found = connection.execute("SELECT count(*) - count(DISTINCT idempotency_key) FROM payment_movement").fetchone()
    return int(found[0]) if found else 0
