"""Two versions of a view that the reference project does not have: of a topic that no saga and no service reads."""

from dataclasses import dataclass
from typing import Any

from schemas.records.identity import CustomerRegistered
from schemas.records.order import OrderPlaced
from schemas.records.payment import PaymentCaptured
from towpath.view import Occurrence, View


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer, and how often they registered."""

    customer_id: str
    name: str
    registrations: int


@dataclass(frozen=True, slots=True)
class CustomerWithMark:
    """What the first version has, and whether the identity was checked."""

    customer_id: str
    name: str
    registrations: int
    verified: bool


def fold(row: Customer | None, event: CustomerRegistered, _: Occurrence) -> Customer:
    """Count the registrations; the last name counts."""
    return Customer(event.customer_id, event.name, 1 if row is None else row.registrations + 1)


def fold_with_mark(row: CustomerWithMark | None, event: CustomerRegistered, _: Occurrence) -> CustomerWithMark:
    """Count as the first version does."""
    count = 1 if row is None else row.registrations + 1
    return CustomerWithMark(event.customer_id, event.name, count, event.verified)


_COMMON: dict[str, Any] = {
    "name": "customers",
    "topics": ("identity.events",),
    "key": "customer_id",
    "folds": frozenset({CustomerRegistered}),
}
first = View(row=Customer, fold=fold, **_COMMON)
second = View(row=CustomerWithMark, fold=fold_with_mark, version=2, **_COMMON)
paid = View(
    name="paid",
    topics=("payment.events",),
    row=Customer,
    key="customer_id",
    folds=frozenset({PaymentCaptured}),
    fold=lambda *_: None,
)
"""Has no rows: only where it stands matters."""
held = View(
    name="held_orders",
    topics=("order.events",),
    row=Customer,
    key="customer_id",
    folds=frozenset({OrderPlaced}),
    fold=lambda *_: None,
)
"""Likewise, of a topic that has a dead-letter topic: a worker can fold it."""
third = View(
    row=CustomerWithMark,
    fold=fold_with_mark,
    version=3,
    from_row=lambda row: CustomerWithMark(**row),
    **{**_COMMON, "topics": ("identity.events", "order.events")},
)
"""Folds a topic that the others do not: their rows cannot stand for what it would have folded."""
