"""flight sells seats: each flight has some, at one price."""

from schemas.records.flight import (
    CancelSeat,
    NoSeat,
    ReleaseSeat,
    ReserveSeat,
    SeatCancelled,
    SeatReleased,
    SeatReserved,
)
from towpath.service import Context, Service, handle_each, undo_each

_TAKE = "UPDATE flight SET seats = seats - 1 WHERE flight = %s AND seats > 0 RETURNING price_cents"
_GIVE = """
WITH gone AS (DELETE FROM seat WHERE trip_id = %s RETURNING flight)
UPDATE flight SET seats = seats + 1 FROM gone WHERE flight.flight = gone.flight
"""


def reserve_seat(command: ReserveSeat, context: Context[ReserveSeat]) -> SeatReserved | NoSeat:
    """Keep a seat, if one is left."""
    found = context.connection.execute(_TAKE, (command.flight,)).fetchone()
    if found is None:
        return NoSeat(trip_id=command.trip_id, flight=command.flight)
    context.connection.execute("INSERT INTO seat (trip_id, flight) VALUES (%s, %s)", (command.trip_id, command.flight))
    return SeatReserved(trip_id=command.trip_id, price_cents=found[0])


def release_seat(command: ReleaseSeat, context: Context[ReleaseSeat]) -> SeatReleased:
    """Let the seat go; where none was kept, there is nothing to do."""
    context.connection.execute(_GIVE, (command.trip_id,))
    return SeatReleased(trip_id=command.trip_id)


def cancel_seat(command: CancelSeat, context: Context[CancelSeat]) -> SeatCancelled:
    """Take the seat of a confirmed trip back."""
    context.connection.execute(_GIVE, (command.trip_id,))
    return SeatCancelled(trip_id=command.trip_id)


service = Service(
    "flight",
    handlers=[
        handle_each(ReserveSeat, reserve_seat, succeeds=SeatReserved, fails=NoSeat),
        undo_each(ReleaseSeat, release_seat, of=ReserveSeat, succeeds=SeatReleased),
        handle_each(CancelSeat, cancel_seat, succeeds=SeatCancelled),
    ],
)
