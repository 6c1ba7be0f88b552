"""The card network as payment sees it: a port. It lies outside the database, so its effects are at least once.

The one rule: every request carries an idempotency key, and the network does once what it is asked under one key,
however often that is. So a service that asks again after a crash changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Block an amount on a card. The key also names the hold ever after."""

    idempotency_key: UUID
    card_token: str
    amount_cents: int
    currency: str


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """Free, take or give back (part of) what a hold blocks. A void needs no amount."""

    idempotency_key: UUID
    hold_key: UUID
    amount_cents: int = 0


class CardNetwork(Protocol):
    """What a card network does. Each takes several requests at once and has done all of them when it returns."""

    def authorise(self, requests: Sequence[HoldRequest]) -> Mapping[UUID, str | None]:
        """Block amounts; return by key why it was declined, None where it was not."""
        ...

    def void(self, requests: Sequence[ChangeRequest]) -> None:
        """Free holds. One that does not exist is void from now on: an authorise that comes late is declined."""
        ...

    def capture(self, requests: Sequence[ChangeRequest]) -> None:
        """Take amounts from cards, at most what is blocked."""
        ...

    def refund(self, requests: Sequence[ChangeRequest]) -> None:
        """Give amounts back, at most what was taken."""
        ...


def reason_to_decline(card_token: str) -> str | None:
    """Return why the simulated network declines a card, None where it does not: a test card's token says it."""
    if card_token.startswith("declined"):
        return "the card was declined"
    if card_token.startswith("expired"):
        return "the card has expired"
    return None
