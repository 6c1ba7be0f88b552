"""Conversations with `place_order`: what each answer leads to."""

from datetime import timedelta

from sagas import catalog, identity, orders, payments
from sagas.place_order import saga
from tests.scenarios.craftygoods import (
    APPROVED,
    AUTHORISE,
    AUTHORISE_LARGE,
    AUTHORISED,
    AUTHORISED_LARGE,
    CAPTURE,
    CAPTURE_LARGE,
    CAPTURED,
    CONFIRM,
    CONFIRMED,
    DECLINED,
    LARGE,
    NOT_APPROVED,
    NOT_VERIFIED,
    OUT_OF_STOCK,
    REJECTED,
    RELEASE,
    RELEASED,
    RESERVE,
    RESERVED,
    SMALL,
    VERIFIED,
    VERIFY,
    VERIFY_LARGE,
    VOID,
    VOIDED,
    reject,
)
from towpath.saga import days, hours, minutes, seconds
from towpath.saga.inputs import Action, Replied
from towpath.saga.state import Direction, Status, StepStatus
from towpath.saga.testing import Conversation, given

TOO_LATE = "the order could not be completed in time"


def placed() -> Conversation:
    """Return a small order, just placed."""
    return given(saga, SMALL).expect(VERIFY, to=identity).expect(RESERVE, to=catalog)


def authorised() -> Conversation:
    """Return a small order whose confirmation is under way."""
    return (
        placed()
        .when(VERIFIED)
        .when(RESERVED)
        .expect(AUTHORISE, to=payments)
        .when(AUTHORISED)
        .expect(CONFIRM, to=orders)
    )


def awaiting_approval() -> Conversation:
    """Return a large order that waits for a person."""
    return (
        given(saga, LARGE)
        .expect(VERIFY_LARGE)
        .expect(RESERVE)
        .when(RESERVED)
        .when(VERIFIED)
        .expect(AUTHORISE_LARGE)
        .when(AUTHORISED_LARGE)
        .expect_nothing()
        .expect_step("approval", StepStatus.WAITING)
    )


def undone(conversation: Conversation) -> Conversation:
    """Undo a whole authorised order, in order: the authorisation, the reservation, the order itself."""
    return conversation.when(VOIDED).expect(RELEASE, to=catalog).when(RELEASED)


def test_a_small_order_completes_without_a_person() -> None:
    """Customer and stock side by side, then payment, confirmation, capture."""
    authorised().when(CONFIRMED).expect(CAPTURE, to=payments).when(CAPTURED).expect_completed()


def test_payment_waits_for_both_branches() -> None:
    """Nothing is authorised while the customer or the stock is still open."""
    placed().when(RESERVED).expect_nothing().when(VERIFIED).expect(AUTHORISE, to=payments)


def test_a_large_order_waits_for_approval() -> None:
    """Above the limit a person decides, and approval lets it go on."""
    awaiting_approval().when(APPROVED).expect(CONFIRM).when(CONFIRMED).expect(CAPTURE_LARGE).when(
        CAPTURED
    ).expect_completed()


def test_a_declined_order_gives_everything_back() -> None:
    """A person's no undoes authorisation and reservation in turn, then rejects the order with the person's reason."""
    undone(awaiting_approval().when(NOT_APPROVED).expect(VOID, to=payments)).expect(
        reject("too much for a first order"), to=orders
    ).when(REJECTED).expect_compensated()


def test_nobody_decides_within_a_day() -> None:
    """Silence is a no."""
    talk = awaiting_approval().when_time_passes(hours(23)).expect_nothing().when_time_passes(hours(1))
    undone(talk.expect(VOID)).expect(reject(TOO_LATE)).when(REJECTED).expect_compensated()


def test_approval_that_comes_before_it_is_asked_for_counts() -> None:
    """A person who was quicker than the card network need not repeat the decision."""
    given(saga, LARGE).expect(VERIFY_LARGE).expect(RESERVE).when(APPROVED).when(VERIFIED).when(RESERVED).expect(
        AUTHORISE_LARGE
    ).when(AUTHORISED_LARGE).expect(CONFIRM)


def test_the_second_decision_is_refused() -> None:
    """The first decision counts; a later one changes nothing."""
    awaiting_approval().when(APPROVED).expect(CONFIRM).when(NOT_APPROVED).expect_refused("answer").expect_status(
        Status.RUNNING
    )


def test_out_of_stock_leaves_nothing_to_release() -> None:
    """A refused reservation left no effect: only the order is rejected."""
    placed().when(VERIFIED).when(OUT_OF_STOCK).expect(reject("mug is out of stock"), to=orders).when(
        REJECTED
    ).expect_compensated()


def test_a_refused_customer_releases_the_stock() -> None:
    """The stock may have been reserved meanwhile, so it is released before the order is rejected."""
    placed().when(NOT_VERIFIED).expect(RELEASE, to=catalog).when(RELEASED).expect(
        reject("the customer is not known")
    ).when(REJECTED).expect_compensated()


def test_a_reservation_heard_of_while_it_is_undone_changes_nothing() -> None:
    """The late answer of the catalogue is refused: its undo is under way."""
    late = Replied("late", 0, "reserve_stock", Direction.DO, 1, 1, RESERVED)
    placed().when(NOT_VERIFIED).expect(RELEASE).when_given(late).expect_refused("undoing").when(RELEASED).expect(
        reject("the customer is not known")
    )


def test_a_declined_card_releases_the_stock() -> None:
    """No authorisation was made, so none is voided."""
    placed().when(VERIFIED).when(RESERVED).expect(AUTHORISE).when(DECLINED).expect(RELEASE).when(RELEASED).expect(
        reject("the card has expired")
    ).when(REJECTED).expect_compensated()


def test_a_silent_card_network_is_asked_again_and_then_given_up() -> None:
    """Five attempts, each under the same idempotency key; then what may have been authorised is voided."""
    talk = placed().when(VERIFIED).when(RESERVED).expect(AUTHORISE)
    for _ in range(4):
        talk.when_nobody_answers().expect(AUTHORISE)
    talk.when_nobody_answers().expect(VOID)
    undone(talk).expect(reject(TOO_LATE)).when(REJECTED).expect_compensated()


def test_a_customer_cancels_before_confirmation() -> None:
    """Before the pivot a cancellation undoes everything, with the person's reason."""
    talk = awaiting_approval().when_asked(Action.CANCEL, by="customer", because="ordered twice").expect(VOID)
    undone(talk).expect(reject("ordered twice")).when(REJECTED).expect_compensated()


def test_nobody_cancels_a_confirmation_under_way() -> None:
    """Once the confirmation is sent its outcome is unknown: cancelling is refused."""
    authorised().when_asked(Action.CANCEL).expect_refused("point of no return").when(CONFIRMED).expect(CAPTURE)


def test_a_capture_that_fails_for_two_days_calls_a_person() -> None:
    """Past the pivot nothing is undone: the saga is stuck until someone fixes the cause, and then completes."""
    talk = authorised().when(CONFIRMED).expect(CAPTURE)
    begun = talk.now_milliseconds
    talk.when_nobody_answers_until(Status.STUCK)
    # An attempt that began within the two days may still run its 30 seconds.
    assert days(2) - minutes(6) <= timedelta(milliseconds=talk.now_milliseconds - begun) <= days(2) + seconds(30)
    talk.expect_stuck("capture_payment").when_asked(Action.RESUME).expect(CAPTURE).when(CAPTURED).expect_completed()
