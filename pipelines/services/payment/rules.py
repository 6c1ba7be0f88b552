"""What may be done with the money of an order. Pure."""

from dataclasses import dataclass
from uuid import UUID


class ImpossiblePayment(Exception):
    """A step that money cannot take; whoever asked for it has its own rules wrong."""


@dataclass(frozen=True, slots=True)
class Authorisation:
    """An amount that is blocked on a card for an order, and what became of it."""

    order_id: str
    hold_key: UUID
    authorisation_id: str
    amount_cents: int
    voided: bool
    captured_cents: int
    refunded_cents: int


def check_capture(authorisation: Authorisation | None, order_id: str, authorisation_id: str, cents: int) -> None:
    """Raise ImpossiblePayment unless so much can be taken."""
    if authorisation is None or authorisation.authorisation_id != authorisation_id:
        raise ImpossiblePayment(f"order {order_id} has no authorisation {authorisation_id}")
    if authorisation.voided or authorisation.captured_cents:
        state = "voided" if authorisation.voided else "captured"
        raise ImpossiblePayment(f"order {order_id}: its authorisation is {state} already")
    if not 0 < cents <= authorisation.amount_cents:
        raise ImpossiblePayment(f"order {order_id}: {cents} of {authorisation.amount_cents} cents cannot be taken")


def reason_to_refuse_refund(authorisation: Authorisation | None, authorisation_id: str, cents: int) -> str | None:
    """Return why so much cannot be given back, None where it can."""
    if authorisation is None or authorisation.authorisation_id != authorisation_id:
        return "there is no such payment"
    if cents <= 0:
        return "nothing was asked for"
    left_cents = authorisation.captured_cents - authorisation.refunded_cents
    if cents > left_cents:
        return f"{left_cents} cents of the payment are left to give back"
    return None
