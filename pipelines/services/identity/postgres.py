"""Keeps customers, and the verifications that were asked for."""

from collections.abc import Iterable

from pipelines.services.identity.rules import Customer
from pipelines.services.postgres import Connection, Table

verifications = Table("verification", {"idempotency_key": "uuid", "order_id": "text", "customer_id": "text"})


def add_customer(connection: Connection, customer: Customer, name: str) -> None:
    """Add a customer."""
    connection.execute(
        "INSERT INTO customer (customer_id, name, verified, credit_limit_cents) VALUES (%s, %s, %s, %s)",
        (customer.customer_id, name, customer.verified, customer.credit_limit_cents),
    )


def customers(connection: Connection, ids: Iterable[str]) -> dict[str, Customer]:
    """Return those of the customers `ids` that exist."""
    rows = connection.execute(
        "SELECT customer_id, verified, credit_limit_cents FROM customer WHERE customer_id = ANY(%s)",
        (list(set(ids)),),
    )
    return {row[0]: Customer(*row) for row in rows}


def executed_twice(connection: Connection) -> int:
    """Return how many commands had a second effect."""
    found = connection.execute("SELECT count(*) - count(DISTINCT idempotency_key) FROM verification").fetchone()
    return int(found[0]) if found else 0
