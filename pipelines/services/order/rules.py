"""How far an order may go from where it is. Pure: all steps are in one table."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol


class OrderStatus(StrEnum):
    """How far an order is."""

    PLACED = "placed"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class Step(StrEnum):
    """What can happen to an order."""

    CONFIRM = "confirm"
    REJECT = "reject"
    BEGIN_CANCELLATION = "begin cancellation"
    RESUME = "resume"
    COMPLETE_CANCELLATION = "complete cancellation"


_STEPS: dict[tuple[OrderStatus, Step], OrderStatus] = {
    (OrderStatus.PLACED, Step.CONFIRM): OrderStatus.CONFIRMED,
    (OrderStatus.PLACED, Step.REJECT): OrderStatus.REJECTED,
    (OrderStatus.CONFIRMED, Step.BEGIN_CANCELLATION): OrderStatus.CANCELLING,
    (OrderStatus.CANCELLING, Step.RESUME): OrderStatus.CONFIRMED,
    (OrderStatus.CANCELLING, Step.COMPLETE_CANCELLATION): OrderStatus.CANCELLED,
}


class ImpossibleStep(Exception):
    """An order cannot take this step from where it is; whoever asked for it has its own rules wrong."""


class PricedLine(Protocol):
    """A line of an order."""

    @property
    def quantity(self) -> int:
        """Return the pieces."""
        ...

    @property
    def unit_price_cents(self) -> int:
        """Return the price of one piece, in cents."""
        ...


def after(order_id: str, status: OrderStatus | None, step: Step) -> OrderStatus:
    """Return where `step` takes an order. Raises ImpossibleStep; a status of None is an order that does not exist."""
    reached = _STEPS.get((status, step)) if status is not None else None
    if reached is None:
        raise ImpossibleStep(f"order {order_id} is {status or 'not known'}: it cannot {step}")
    return reached


def may(status: OrderStatus, step: Step) -> bool:
    """Return whether an order can take a step."""
    return (status, step) in _STEPS


def total_cents(lines: Iterable[PricedLine]) -> int:
    """Return what the lines cost together, in cents."""
    return sum(line.quantity * line.unit_price_cents for line in lines)
