"""hotel sets rooms aside."""

from collections.abc import Sequence

from bench.booking import postgres
from bench.booking.records.hotel import CancelRoom, ReserveRoom, RoomCancelled, RoomReserved
from towpath.contract.record import Record
from towpath.participant import Context, Service, handle, undo


def reserve_rooms(contexts: Sequence[Context[ReserveRoom]]) -> list[Record]:
    """Set rooms aside."""
    rows = [(one.key, one.idempotency_key, f"room for {one.command.nights} nights") for one in contexts]
    postgres.book(contexts[0].connection, rows)
    return [RoomReserved(trip_id=trip, room=detail) for trip, _, detail in rows]


def cancel_rooms(contexts: Sequence[Context[CancelRoom]]) -> list[Record]:
    """Free rooms."""
    postgres.cancel(contexts[0].connection, [one.key for one in contexts])
    return [RoomCancelled(trip_id=one.key) for one in contexts]


service = Service(
    "hotel",
    handlers=[
        handle(ReserveRoom, reserve_rooms, succeeds=RoomReserved),
        undo(CancelRoom, cancel_rooms, of=ReserveRoom, succeeds=RoomCancelled),
    ],
)
