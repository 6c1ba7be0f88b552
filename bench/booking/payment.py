"""payment takes the money."""

from collections.abc import Sequence

from bench.booking import postgres
from bench.booking.records.payment import CardCharged, ChargeCard
from towpath.contract.record import Record
from towpath.participant import Context, Service, handle


def charge_cards(contexts: Sequence[Context[ChargeCard]]) -> list[Record]:
    """Take the money of trips."""
    rows = [(one.key, one.idempotency_key, f"{one.command.price_cents} cents") for one in contexts]
    postgres.book(contexts[0].connection, rows)
    return [CardCharged(trip_id=trip, charge_id=str(key)) for trip, key, _ in rows]


service = Service("payment", handlers=[handle(ChargeCard, charge_cards, succeeds=CardCharged)])
