"""A trip is booked: a seat and a room are set aside, then the money is taken."""

from bench.booking.records.flight import CancelSeat, ReserveSeat, SeatCancelled, SeatReserved, TripRequested
from bench.booking.records.hotel import CancelRoom, ReserveRoom, RoomCancelled, RoomReserved
from bench.booking.records.payment import CardCharged, ChargeCard
from towpath.saga import Participant, Saga, Undo, days, seconds


def reserve_seat(trip: TripRequested) -> ReserveSeat:
    """Set a seat aside."""
    return ReserveSeat(trip_id=trip.trip_id, traveller=trip.traveller)


def cancel_seat(trip: TripRequested) -> CancelSeat:
    """Free the seat."""
    return CancelSeat(trip_id=trip.trip_id)


def reserve_room(trip: TripRequested) -> ReserveRoom:
    """Set a room aside."""
    return ReserveRoom(trip_id=trip.trip_id, traveller=trip.traveller, nights=trip.nights)


def cancel_room(trip: TripRequested) -> CancelRoom:
    """Free the room."""
    return CancelRoom(trip_id=trip.trip_id)


def charge_card(trip: TripRequested) -> ChargeCard:
    """Take the money."""
    return ChargeCard(trip_id=trip.trip_id, price_cents=trip.price_cents)


saga = Saga("book_trip", version=1, starts_on=TripRequested, deadline=days(1))

seat = saga.step(
    Participant("flight"),
    reserve_seat,
    undo=Undo(cancel_seat, succeeds=SeatCancelled),
    succeeds=SeatReserved,
    within=seconds(60),
)

room = saga.step(
    Participant("hotel"),
    reserve_room,
    undo=Undo(cancel_room, succeeds=RoomCancelled),
    after=seat,
    succeeds=RoomReserved,
    within=seconds(60),
)

saga.pivot(Participant("payment"), charge_card, after=room, succeeds=CardCharged, within=seconds(60))
