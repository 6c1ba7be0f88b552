"""Reads what the four services know, each from its own database, for the invariants."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from pipelines.demo.invariants import OrderFacts, PaymentFacts
from pipelines.services.catalog.postgres import executed_twice as catalog_executed_twice
from pipelines.services.catalog.postgres import unbalanced as unbalanced_shelves
from pipelines.services.identity.postgres import executed_twice as identity_executed_twice
from pipelines.services.order.postgres import executed_twice as order_executed_twice
from pipelines.services.payment.card_network.postgres import unbalanced as unbalanced_books
from pipelines.services.payment.postgres import executed_twice as payment_executed_twice
from pipelines.services.postgres import Connection
from towpath.errors import WorldError
from towpath.settings import Settings

_EXECUTED_TWICE = {
    "identity": identity_executed_twice,
    "catalog": catalog_executed_twice,
    "order": order_executed_twice,
    "payment": payment_executed_twice,
}


@contextmanager
def connected(settings: Settings, service: str) -> Iterator[Connection]:
    """Give a connection to a service's database; what was done is committed at the end. Raises WorldError."""
    try:
        connection = psycopg.connect(
            settings.postgres.database_url(service),
            connect_timeout=10,
            **dict[str, Any](settings.postgres.connection_options()),
        )
    except psycopg.OperationalError as error:
        raise WorldError(f"the database of {service}: {str(error).strip()}", next_step="towpath status") from error
    with connection:
        yield connection


def order_facts(settings: Settings) -> dict[str, OrderFacts]:
    """Return every order."""
    with connected(settings, "order") as connection:
        pieces: dict[str, dict[str, int]] = {}
        for order_id, sku, quantity in connection.execute(
            "SELECT order_id, sku, sum(quantity)::bigint FROM order_line GROUP BY order_id, sku"
        ):
            pieces.setdefault(order_id, {})[sku] = quantity
        rows = connection.execute("SELECT order_id, status, total_cents, coalesce(refund_cents, 0) FROM customer_order")
        return {
            order_id: OrderFacts(status, total, refund, pieces.get(order_id, {}))
            for order_id, status, total, refund in rows
        }


@dataclass(frozen=True, slots=True)
class Payments:
    """The money of every order, and what is wrong between payment's books and the card network's."""

    by_order: dict[str, PaymentFacts]
    unbalanced: list[str]


def payment_facts(settings: Settings) -> Payments:
    """Return the money of every order."""
    with connected(settings, "payment") as connection:
        rows = connection.execute(
            "SELECT order_id, amount_cents, voided, captured_cents, refunded_cents FROM authorisation"
        )
        return Payments({row[0]: PaymentFacts(*row[1:]) for row in rows}, unbalanced_books(connection))


@dataclass(frozen=True, slots=True)
class Shelves:
    """What is set aside by order and by article, and what is wrong between reservations and shelves."""

    by_order: dict[str, dict[str, int]]
    by_article: dict[str, int]
    unbalanced: list[str]


def stock_facts(settings: Settings) -> Shelves:
    """Return what is set aside."""
    with connected(settings, "catalog") as connection:
        by_order: dict[str, dict[str, int]] = {}
        for order_id, sku, pieces in connection.execute(
            "SELECT order_id, sku, quantity - restocked FROM reservation JOIN reservation_line USING (order_id)"
            " WHERE NOT released AND quantity > restocked"
        ):
            by_order.setdefault(order_id, {})[sku] = pieces
        by_article = dict(connection.execute("SELECT sku, reserved FROM product WHERE reserved > 0"))
        return Shelves(by_order, by_article, unbalanced_shelves(connection))


def executed_twice(settings: Settings) -> int:
    """Return how many commands had a second effect, in all services together."""
    count = 0
    for service, counted in _EXECUTED_TWICE.items():
        with connected(settings, service) as connection:
            count += counted(connection)
    return count
