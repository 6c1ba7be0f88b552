"""What each traveller spends: trips of several keys meet in one row, in any order."""

from dataclasses import dataclass, replace

from schemas.records.trip import TripCancelled, TripConfirmed
from towpath.view import Occurrence, RowSource, View


@dataclass(frozen=True, slots=True)
class Spending:
    """A row of the table `spending` in the database `views`."""

    traveller: str
    trips: int
    amount_cents: int


def fold(row: Spending | None, event: TripConfirmed | TripCancelled, _at: Occurrence) -> Spending:
    """Return the traveller's row after `event`: sums, so that the order does not matter."""
    row = row or Spending(event.traveller, 0, 0)
    sign = 1 if isinstance(event, TripConfirmed) else -1
    return replace(row, trips=row.trips + sign, amount_cents=row.amount_cents + sign * event.amount_cents)


view = View(
    name="spending",
    topics=("trip.events",),
    row=Spending,
    key="traveller",
    folds=frozenset({TripConfirmed, TripCancelled}),
    fold=fold,
    row_key=lambda event, _at: event.traveller,
    rows=RowSource.MANY_KEYS,
)
