"""cancel_trip as a conversation."""

from sagas import flights, hotels, payments, trips
from sagas.cancel_trip import saga
from schemas.records.flight import CancelSeat, SeatCancelled
from schemas.records.hotel import CancelRoom, RoomCancelled
from schemas.records.payment import PaymentRefunded, RefundPayment
from schemas.records.trip import CompleteCancellation, TripCancellationRequested, TripCancelled
from towpath.saga.testing import given


def test_a_cancelled_trip_is_paid_back_first():
    """Then seat and room are given back side by side, and the trip is marked."""
    (
        given(saga, TripCancellationRequested(trip_id="t-1"))
        .expect(RefundPayment(trip_id="t-1"), to=payments)
        .when(PaymentRefunded(trip_id="t-1"))
        .expect(CancelSeat(trip_id="t-1"), to=flights)
        .expect(CancelRoom(trip_id="t-1"), to=hotels)
        .when(RoomCancelled(trip_id="t-1"))
        .when(SeatCancelled(trip_id="t-1"))
        .expect(CompleteCancellation(trip_id="t-1"), to=trips)
        .when(TripCancelled(trip_id="t-1", traveller="ann", amount_cents=28_000))
        .expect_completed()
    )
