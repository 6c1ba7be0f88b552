"""A trip is asked for: a seat and a room side by side, the card, a person for what is dear; then it is confirmed."""

from sagas import flights, hotels, payments, trips
from schemas.records.flight import NoSeat, ReleaseSeat, ReserveSeat, SeatReleased, SeatReserved
from schemas.records.hotel import NoRoom, ReleaseRoom, ReserveRoom, RoomReleased, RoomReserved
from schemas.records.payment import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentVoided,
    VoidPayment,
)
from schemas.records.trip import (
    ConfirmTrip,
    RejectTrip,
    TripApproved,
    TripConfirmed,
    TripDeclined,
    TripRejected,
    TripRequested,
)
from towpath.saga import COMPENSATE, Cause, Saga, Undo, UndoStart, days, hours, seconds

APPROVAL_ABOVE_CENTS = 1_000_00


def reserve_seat(trip: TripRequested) -> ReserveSeat:
    """Keep a seat."""
    return ReserveSeat(trip_id=trip.trip_id, flight=trip.flight)


def release_seat(trip: TripRequested) -> ReleaseSeat:
    """Let the seat go."""
    return ReleaseSeat(trip_id=trip.trip_id)


def reserve_room(trip: TripRequested) -> ReserveRoom:
    """Keep a room."""
    return ReserveRoom(trip_id=trip.trip_id, hotel=trip.hotel, nights=trip.nights)


def release_room(trip: TripRequested) -> ReleaseRoom:
    """Let the room go."""
    return ReleaseRoom(trip_id=trip.trip_id)


def price_cents(seat: SeatReserved, room: RoomReserved) -> int:
    """Return what the trip costs, in cents: what the services say, not what was asked for."""
    return seat.price_cents + room.price_cents


def authorise_payment(trip: TripRequested, seat: SeatReserved, room: RoomReserved) -> AuthorisePayment:
    """Block the price on the traveller's card."""
    return AuthorisePayment(trip_id=trip.trip_id, card=trip.card, amount_cents=price_cents(seat, room))


def void_payment(trip: TripRequested) -> VoidPayment:
    """Free the amount."""
    return VoidPayment(trip_id=trip.trip_id)


def is_dear(trip: TripRequested, paid: PaymentAuthorised) -> bool:  # noqa: ARG001 - functions take what they need
    """Say whether a person must approve the trip."""
    return paid.amount_cents > APPROVAL_ABOVE_CENTS


def confirm_trip(trip: TripRequested, paid: PaymentAuthorised) -> ConfirmTrip:
    """Promise the trip: from here on nothing is taken back."""
    return ConfirmTrip(trip_id=trip.trip_id, amount_cents=paid.amount_cents)


def capture_payment(trip: TripRequested) -> CapturePayment:
    """Take what was blocked."""
    return CapturePayment(trip_id=trip.trip_id)


def reject_trip(trip: TripRequested, cause: Cause) -> RejectTrip:
    """Say that there will be no trip, and why."""
    return RejectTrip(trip_id=trip.trip_id, reason=words_for(cause))


def words_for(cause: Cause) -> str:
    """Say why, in words for the traveller."""
    match cause.reply:
        case NoSeat(flight=flight):
            return f"flight {flight} is full"
        case NoRoom(hotel=hotel):
            return f"{hotel} has no room"
        case PaymentDeclined(reason=reason) | TripDeclined(reason=reason):
            return reason
        case _:
            return cause.reason or "it could not be booked in time"


saga = Saga(
    "book_trip",
    version=1,
    starts_on=TripRequested,
    undo=UndoStart(reject_trip, by=trips, succeeds=TripRejected, within=seconds(10), when_refused=False),
    deadline=days(3),
)

seat = saga.step(
    flights,
    reserve_seat,
    undo=Undo(release_seat, succeeds=SeatReleased),
    holds="seat",
    succeeds=SeatReserved,
    fails=NoSeat,
    within=seconds(10),
)

room = saga.step(
    hotels,
    reserve_room,
    undo=Undo(release_room, succeeds=RoomReleased),
    holds="room",
    succeeds=RoomReserved,
    fails=NoRoom,
    within=seconds(10),
)

paid = saga.step(
    payments,
    authorise_payment,
    undo=Undo(void_payment, succeeds=PaymentVoided),
    needs=seat & room,
    succeeds=PaymentAuthorised,
    fails=PaymentDeclined,
    within=seconds(20),
)

approval = saga.wait(
    "approval",
    needs=paid,
    when=is_dear,
    succeeds=TripApproved,
    fails=TripDeclined,
    within=hours(48),
    on_timeout=COMPENSATE,
)

confirmed = saga.pivot(
    trips,
    confirm_trip,
    needs=paid,
    after=approval,
    succeeds=TripConfirmed,
    within=seconds(10),
)

saga.retriable(
    payments,
    capture_payment,
    after=confirmed,
    succeeds=PaymentCaptured,
    within=seconds(20),
)
