"""book_trip as conversations."""

from sagas import flights, hotels, payments, trips
from sagas.book_trip import saga
from schemas.records.flight import ReleaseSeat, ReserveSeat, SeatReleased, SeatReserved
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
from towpath.saga import hours
from towpath.saga.testing import Conversation, given

TRIP = TripRequested(trip_id="t-1", traveller="ann", flight="TW101", hotel="Lock Inn", nights=2, card="card-1")
CHEAP, DEAR = 280_00, 2_500_00


def reserved(cents: int) -> Conversation:
    """Return a trip whose seat and room are kept, for so much together; the card is asked."""
    return (
        given(saga, TRIP)
        .expect(ReserveSeat(trip_id="t-1", flight="TW101"), to=flights)
        .expect(ReserveRoom(trip_id="t-1", hotel="Lock Inn", nights=2), to=hotels)
        .when(SeatReserved(trip_id="t-1", price_cents=120_00))
        .when(RoomReserved(trip_id="t-1", price_cents=cents - 120_00))
        .expect(AuthorisePayment(trip_id="t-1", card="card-1", amount_cents=cents), to=payments)
    )


def confirmed(talk: Conversation, cents: int) -> None:
    """Let a trip go to its end from where it is to be confirmed."""
    talk.expect(ConfirmTrip(trip_id="t-1", amount_cents=cents), to=trips).when(
        TripConfirmed(trip_id="t-1", traveller="ann", amount_cents=cents)
    ).expect(CapturePayment(trip_id="t-1"), to=payments).when(PaymentCaptured(trip_id="t-1")).expect_completed()


def undone(talk: Conversation, reason: str, *, paid: bool) -> None:
    """Let everything be taken back, and the trip be rejected for that reason."""
    if paid:
        talk.expect(VoidPayment(trip_id="t-1"), to=payments).when(PaymentVoided(trip_id="t-1"))
    talk.expect(ReleaseSeat(trip_id="t-1"), to=flights).expect(ReleaseRoom(trip_id="t-1"), to=hotels)
    talk.when(SeatReleased(trip_id="t-1")).when(RoomReleased(trip_id="t-1"))
    talk.expect(RejectTrip(trip_id="t-1", reason=reason), to=trips)
    talk.when(TripRejected(trip_id="t-1", reason=reason)).expect_compensated()


def test_a_cheap_trip_needs_nobodys_approval():
    """Seat, room, card, confirmed, paid."""
    confirmed(reserved(CHEAP).when(PaymentAuthorised(trip_id="t-1", amount_cents=CHEAP)), CHEAP)


def test_a_dear_trip_waits_for_a_person():
    """It is confirmed once somebody approves it."""
    talk = reserved(DEAR).when(PaymentAuthorised(trip_id="t-1", amount_cents=DEAR)).expect_nothing()
    confirmed(talk.when(TripApproved(trip_id="t-1", approver="bea")), DEAR)


def test_a_trip_that_is_declined_is_taken_back():
    """The card, the seat and the room; the traveller is given the person's reason."""
    talk = reserved(DEAR).when(PaymentAuthorised(trip_id="t-1", amount_cents=DEAR))
    undone(talk.when(TripDeclined(trip_id="t-1", approver="bea", reason="over budget")), "over budget", paid=True)


def test_a_trip_that_nobody_approves_in_time_is_taken_back():
    """After two days it is as if it had been declined."""
    talk = reserved(DEAR).when(PaymentAuthorised(trip_id="t-1", amount_cents=DEAR)).when_time_passes(hours(48))
    talk.expect(VoidPayment(trip_id="t-1"), to=payments)


def test_a_declined_card_frees_seat_and_room():
    """Nothing was blocked, so nothing is freed on the card."""
    talk = reserved(CHEAP).when(PaymentDeclined(trip_id="t-1", reason="the card was declined"))
    undone(talk, "the card was declined", paid=False)


def test_a_full_hotel_frees_the_seat():
    """The room was never kept; the seat was."""
    talk = given(saga, TRIP).expect_anything().when(SeatReserved(trip_id="t-1", price_cents=120_00))
    talk.when(NoRoom(trip_id="t-1", hotel="Lock Inn")).expect(ReleaseSeat(trip_id="t-1"), to=flights)
    talk.when(SeatReleased(trip_id="t-1")).expect(RejectTrip(trip_id="t-1", reason="Lock Inn has no room"), to=trips)
