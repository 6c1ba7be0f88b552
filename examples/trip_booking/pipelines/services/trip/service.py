"""trip keeps trips, and is the door through which travellers and clerks come in."""

from typing import Any
from uuid import UUID

from schemas.records.trip import (
    CompleteCancellation,
    ConfirmTrip,
    RejectTrip,
    TripApproved,
    TripCancellationRequested,
    TripCancelled,
    TripConfirmed,
    TripDeclined,
    TripRejected,
    TripRequested,
)
from towpath.client import Client, Sent, Started
from towpath.errors import RefusedError
from towpath.service import Context, Service, handle_each

# Doors


def request_trip(client: Client, connection: Any, trip: TripRequested, event_id: UUID) -> Started:
    """Accept a trip in the connection's own transaction; committing it starts book_trip."""
    connection.execute("INSERT INTO trip (trip_id, traveller) VALUES (%s, %s)", (trip.trip_id, trip.traveller))
    return client.start(connection, "book_trip", trip.trip_id, trip, event_id=event_id)


def decide(client: Client, connection: Any, decision: TripApproved | TripDeclined) -> Sent:
    """Approve or decline a trip that waits for it."""
    return client.signal(connection, "book_trip", decision.trip_id, decision)


def request_cancellation(client: Client, connection: Any, trip_id: str, event_id: UUID) -> Started:
    """Ask for a confirmed trip to be cancelled. Raises RefusedError for any other."""
    changed = connection.execute(
        "UPDATE trip SET status = 'cancelling' WHERE trip_id = %s AND status = 'confirmed'", (trip_id,)
    ).rowcount
    if not changed:
        raise RefusedError(f"trip {trip_id} is not confirmed", kept="the trip as it was")
    return client.start(
        connection, "cancel_trip", trip_id, TripCancellationRequested(trip_id=trip_id), event_id=event_id
    )


# Commands


def confirm_trip(command: ConfirmTrip, context: Context[ConfirmTrip]) -> TripConfirmed:
    """Promise the trip."""
    (traveller,) = context.connection.execute(
        "UPDATE trip SET status = 'confirmed', amount_cents = %s WHERE trip_id = %s RETURNING traveller",
        (command.amount_cents, command.trip_id),
    ).fetchone()
    confirmed = TripConfirmed(trip_id=command.trip_id, traveller=traveller, amount_cents=command.amount_cents)
    context.emit(confirmed, key=command.trip_id)
    return confirmed


def reject_trip(command: RejectTrip, context: Context[RejectTrip]) -> TripRejected:
    """Write that there will be no trip, and why."""
    context.connection.execute(
        "UPDATE trip SET status = 'rejected', reason = %s WHERE trip_id = %s", (command.reason, command.trip_id)
    )
    rejected = TripRejected(trip_id=command.trip_id, reason=command.reason)
    context.emit(rejected, key=command.trip_id)
    return rejected


def complete_cancellation(command: CompleteCancellation, context: Context[CompleteCancellation]) -> TripCancelled:
    """Write that the trip is cancelled for good."""
    traveller, amount_cents = context.connection.execute(
        "UPDATE trip SET status = 'cancelled' WHERE trip_id = %s RETURNING traveller, amount_cents", (command.trip_id,)
    ).fetchone()
    cancelled = TripCancelled(trip_id=command.trip_id, traveller=traveller, amount_cents=amount_cents)
    context.emit(cancelled, key=command.trip_id)
    return cancelled


service = Service(
    "trip",
    handlers=[
        handle_each(ConfirmTrip, confirm_trip, succeeds=TripConfirmed),
        handle_each(RejectTrip, reject_trip, succeeds=TripRejected),
        handle_each(CompleteCancellation, complete_cancellation, succeeds=TripCancelled),
    ],
)
