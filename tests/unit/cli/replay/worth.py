"""What an order is worth, for the tests of `replay shadow --value`."""

from schemas.records.order import OrderPlaced


def total(order: OrderPlaced) -> float:
    """Return the order's total, in euros."""
    return order.total_cents / 100


def none(_: object) -> None:
    """Return nothing."""


def raising(start: object) -> float:
    """Ask for what a start does not have."""
    return float(start.nothing)  # type: ignore[attr-defined]
