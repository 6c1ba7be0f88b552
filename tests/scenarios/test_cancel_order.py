"""Conversations with `cancel_order`: a confirmed order is given up, for all of its price or a part."""

from sagas import catalog, orders, payments
from sagas.cancel_order import saga
from tests.scenarios.craftygoods import (
    CANCELLATION,
    CANCELLED,
    COMPLETE,
    HELD,
    HOLD,
    NOT_HELD,
    NOT_REFUNDED,
    REFUND,
    REFUNDED,
    RESTOCK,
    RESTOCKED,
    RESUME,
    RESUMED,
)
from towpath.saga.inputs import Action
from towpath.saga.state import Status, StepStatus
from towpath.saga.testing import Conversation, given


def held() -> Conversation:
    """Return a cancellation whose refund is under way: 20 of 25 EUR."""
    return given(saga, CANCELLATION).expect(HOLD, to=orders).when(HELD).expect(REFUND, to=payments)


def test_a_part_is_refunded_and_the_goods_come_back() -> None:
    """Hold, refund what was agreed, restock, and mark the order as cancelled."""
    held().when(REFUNDED).expect(RESTOCK, to=catalog).when(RESTOCKED).expect(COMPLETE, to=orders).when(
        CANCELLED
    ).expect_completed()


def test_an_order_that_has_left_is_not_cancelled() -> None:
    """The order service refuses to hold it, and nothing was done that could be undone."""
    given(saga, CANCELLATION).expect(HOLD).when(NOT_HELD).expect_compensated()


def test_a_refused_refund_lets_the_order_go_on() -> None:
    """The refund is the pivot: its business failure resumes the order that was held."""
    held().when(NOT_REFUNDED).expect(RESUME, to=orders).when(RESUMED).expect_compensated()


def test_a_refund_of_unknown_outcome_is_asked_for_until_it_is_known() -> None:
    """The pivot is never given up for want of an answer: the same request is repeated until the answer comes."""
    talk = held()
    for _ in range(12):
        talk.when_nobody_answers().expect(REFUND).expect_status(Status.RUNNING)
    talk.when(REFUNDED).expect(RESTOCK)


def test_the_hold_of_a_lost_answer_is_undone() -> None:
    """The order service never answers: it may hold the order, so it is asked to resume it."""
    talk = given(saga, CANCELLATION).expect(HOLD)
    for _ in range(2):
        talk.when_nobody_answers().expect(HOLD)
    talk.when_nobody_answers().expect(RESUME).when(RESUMED).expect_compensated()


def test_a_person_says_that_the_refund_was_refused() -> None:
    """At the deadline the pivot's outcome is still unknown: a person looks it up and gives the answer."""
    talk = held().when_its_deadline_passes()
    talk.expect_stuck("refund_payment").when_asked(Action.COMPENSATE).expect_refused("point of no return")
    talk.when_asked(Action.SKIP, step="refund_payment", reply=NOT_REFUNDED).expect(RESUME).when(
        RESUMED
    ).expect_compensated()


def test_the_deadline_past_the_pivot_undoes_nothing() -> None:
    """Refunded, but the shelf does not answer for four days: stuck, not undone; a late answer still completes it."""
    talk = held().when(REFUNDED).expect(RESTOCK)
    talk.when_its_deadline_passes()
    talk.expect_stuck("restock_items").when(RESTOCKED).expect(COMPLETE).expect_step(
        "restock_items", StepStatus.SUCCEEDED
    ).expect_status(Status.RUNNING)
