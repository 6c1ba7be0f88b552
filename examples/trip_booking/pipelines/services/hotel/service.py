"""hotel lets rooms: each hotel has some, at one price a night."""

from schemas.records.hotel import (
    CancelRoom,
    NoRoom,
    ReleaseRoom,
    ReserveRoom,
    RoomCancelled,
    RoomReleased,
    RoomReserved,
)
from towpath.service import Context, Service, handle_each, undo_each

_TAKE = "UPDATE hotel SET rooms = rooms - 1 WHERE hotel = %s AND rooms > 0 RETURNING night_cents"
_GIVE = """
WITH gone AS (DELETE FROM room WHERE trip_id = %s RETURNING hotel)
UPDATE hotel SET rooms = rooms + 1 FROM gone WHERE hotel.hotel = gone.hotel
"""


def reserve_room(command: ReserveRoom, context: Context[ReserveRoom]) -> RoomReserved | NoRoom:
    """Keep a room, if one is left."""
    found = context.connection.execute(_TAKE, (command.hotel,)).fetchone()
    if found is None:
        return NoRoom(trip_id=command.trip_id, hotel=command.hotel)
    context.connection.execute("INSERT INTO room (trip_id, hotel) VALUES (%s, %s)", (command.trip_id, command.hotel))
    return RoomReserved(trip_id=command.trip_id, price_cents=found[0] * command.nights)


def release_room(command: ReleaseRoom, context: Context[ReleaseRoom]) -> RoomReleased:
    """Let the room go; where none was kept, there is nothing to do."""
    context.connection.execute(_GIVE, (command.trip_id,))
    return RoomReleased(trip_id=command.trip_id)


def cancel_room(command: CancelRoom, context: Context[CancelRoom]) -> RoomCancelled:
    """Take the room of a confirmed trip back."""
    context.connection.execute(_GIVE, (command.trip_id,))
    return RoomCancelled(trip_id=command.trip_id)


service = Service(
    "hotel",
    handlers=[
        handle_each(ReserveRoom, reserve_room, succeeds=RoomReserved, fails=NoRoom),
        undo_each(ReleaseRoom, release_room, of=ReserveRoom, succeeds=RoomReleased),
        handle_each(CancelRoom, cancel_room, succeeds=RoomCancelled),
    ],
)
