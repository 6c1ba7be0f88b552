"""What an order is worth, for the tests of `replay shadow --value`."""

from schemas.records.order import OrderPlaced


def total(order: OrderPlaced) -> float:
    """Return the order's total, in euros."""
    return order.total_cents / 100
