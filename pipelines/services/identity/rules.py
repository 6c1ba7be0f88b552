"""Who may order, and for how much. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer. `credit_limit_cents` is the most that one order of theirs may cost."""

    customer_id: str
    verified: bool
    credit_limit_cents: int


def reason_to_refuse(customer: Customer | None, total_cents: int) -> str | None:
    """Return why this customer may not order for `total_cents`, in words fit for the customer; None: they may."""
    if customer is None:
        return "the customer is not known"
    if not customer.verified:
        return "the customer's identity is not verified"
    if total_cents > customer.credit_limit_cents:
        return "the order is above the customer's limit"
    return None
