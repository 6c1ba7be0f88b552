"""Where a trip stands, as its traveller sees it."""

from dataclasses import dataclass, replace

from schemas.records.trip import TripCancelled, TripConfirmed, TripRejected, TripRequested
from towpath.view import Occurrence, View


@dataclass(frozen=True, slots=True)
class TripStatus:
    """A row of the table `trip_status` in the database `views`."""

    trip_id: str
    traveller: str
    status: str
    amount_cents: int
    reason: str | None


Event = TripRequested | TripConfirmed | TripRejected | TripCancelled


def fold(row: TripStatus | None, event: Event, _at: Occurrence) -> TripStatus | None:
    """Return the trip's row after `event`."""
    if isinstance(event, TripRequested):
        return TripStatus(event.trip_id, event.traveller, "requested", 0, None)
    if row is None:
        return None
    match event:
        case TripConfirmed():
            return replace(row, status="confirmed", amount_cents=event.amount_cents)
        case TripRejected():
            return replace(row, status="rejected", reason=event.reason)
        case TripCancelled():
            return replace(row, status="cancelled", amount_cents=0)


view = View(
    name="trip_status",
    topics=("trip.events",),
    row=TripStatus,
    key="trip_id",
    folds=frozenset({TripRequested, TripConfirmed, TripRejected, TripCancelled}),
    fold=fold,
)
