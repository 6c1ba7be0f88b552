"""flight sets seats aside, and is where trips are asked for."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from bench.booking import postgres
from bench.booking.records.flight import CancelSeat, ReserveSeat, SeatCancelled, SeatReserved, TripRequested
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.outbox.message import OutboxMessage, from_record
from towpath.outbox.postgres import write
from towpath.participant import Context, Service, handle, undo

EVENTS = "flight.events"


def request_trip(connection: Any, codec: Codec, trip: TripRequested, *, event_id: UUID) -> OutboxMessage:
    """Ask for a trip, in the connection's own transaction; committing it starts book_trip. Returns what does."""
    message = from_record(codec, EVENTS, trip.trip_id, trip, id=event_id)
    write(connection, [message])
    return message


def reserve_seats(contexts: Sequence[Context[ReserveSeat]]) -> list[Record]:
    """Set seats aside."""
    rows = [(one.key, one.idempotency_key, f"seat of {one.command.traveller}") for one in contexts]
    postgres.book(contexts[0].connection, rows)
    return [SeatReserved(trip_id=trip, seat=detail) for trip, _, detail in rows]


def cancel_seats(contexts: Sequence[Context[CancelSeat]]) -> list[Record]:
    """Free seats."""
    postgres.cancel(contexts[0].connection, [one.key for one in contexts])
    return [SeatCancelled(trip_id=one.key) for one in contexts]


service = Service(
    "flight",
    handlers=[
        handle(ReserveSeat, reserve_seats, succeeds=SeatReserved),
        undo(CancelSeat, cancel_seats, of=ReserveSeat, succeeds=SeatCancelled),
    ],
)
