"""A confirmed trip is cancelled: the money goes back, then seat and room, and the trip is marked as cancelled."""

from sagas import flights, hotels, payments, trips
from schemas.records.flight import CancelSeat, SeatCancelled
from schemas.records.hotel import CancelRoom, RoomCancelled
from schemas.records.payment import PaymentRefunded, RefundPayment
from schemas.records.trip import CompleteCancellation, TripCancellationRequested, TripCancelled
from towpath.saga import Saga, days, seconds


def refund_payment(request: TripCancellationRequested) -> RefundPayment:
    """Give back what was taken."""
    return RefundPayment(trip_id=request.trip_id)


def cancel_seat(request: TripCancellationRequested) -> CancelSeat:
    """Give the seat back to the airline."""
    return CancelSeat(trip_id=request.trip_id)


def cancel_room(request: TripCancellationRequested) -> CancelRoom:
    """Give the room back to the hotel."""
    return CancelRoom(trip_id=request.trip_id)


def complete_cancellation(request: TripCancellationRequested) -> CompleteCancellation:
    """Mark the trip as cancelled."""
    return CompleteCancellation(trip_id=request.trip_id)


saga = Saga("cancel_trip", version=1, starts_on=TripCancellationRequested, deadline=days(3))

refund = saga.pivot(
    payments,
    refund_payment,
    succeeds=PaymentRefunded,
    within=seconds(20),
)

seat = saga.retriable(flights, cancel_seat, after=refund, succeeds=SeatCancelled, within=seconds(10))

room = saga.retriable(hotels, cancel_room, after=refund, succeeds=RoomCancelled, within=seconds(10))

saga.retriable(
    trips,
    complete_cancellation,
    after=seat & room,
    succeeds=TripCancelled,
    within=seconds(10),
)
