"""Waiting for an event or a person: the first answer counts, and silence means what the definition says."""

import pytest

from tests.unit.saga.support import (
    OPENED,
    Agreed,
    Denied,
    Do,
    No,
    Take,
    Yes,
    decision,
    named,
    pivot,
    retriable,
    saga,
    step,
)
from towpath.saga import COMPENSATE, HALT, PROCEED, Saga, hours
from towpath.saga.effects import CancelTimer, Record, SetTimer
from towpath.saga.inputs import Action, Replied, TimerKind
from towpath.saga.state import CauseKind, Direction, StepStatus
from towpath.saga.testing import Conversation, given


def asked(**said: object) -> Conversation:
    """Return the decision saga while a person is asked."""
    talk = given(decision(**said), OPENED).expect(Do("first")).when(Yes())
    return talk.expect_step("asked", StepStatus.WAITING).expect_nothing()


def test_a_success_goes_on_and_cancels_the_timer() -> None:
    """The pivot follows the person's yes."""
    talk = asked().when(Agreed()).expect(Do("pivot"))
    assert [effect.timer.kind for effect in talk.decisions[-1].effects if isinstance(effect, CancelTimer)] == [
        TimerKind.WAIT
    ]


def test_a_failure_turns_round() -> None:
    """A no undoes what came before, and is the cause."""
    talk = asked().when(Denied()).expect(Take("first"))
    assert talk.state.cause is not None
    assert (talk.state.cause.kind, talk.state.cause.reply) == (CauseKind.STEP_FAILED, Denied())


@pytest.mark.parametrize("later", [Agreed(), Denied()])
def test_a_second_answer_is_refused(later: object) -> None:
    """Whatever it says."""
    asked().when(Agreed()).expect(Do("pivot")).when(later).expect_refused("has its answer")


def test_silence_may_compensate() -> None:
    """At its time, not before."""
    talk = asked(on_timeout=COMPENSATE).when_time_passes(hours(0.99)).expect_nothing().when_time_passes(hours(0.02))
    talk.expect(Take("first")).expect_step("asked", StepStatus.FAILED)
    assert talk.state.cause is not None
    assert (talk.state.cause.kind, talk.state.cause.step) == (CauseKind.WAIT_TIMED_OUT, "asked")


def test_silence_may_mean_to_proceed() -> None:
    """The wait is then skipped, and what needs it receives None."""
    made = saga()
    answer = made.wait("asked", succeeds=Agreed, within=hours(1), on_timeout=PROCEED)
    step(made, "a", needs=answer)
    given(made, OPENED).when_time_passes(hours(1)).expect(Do("a", (None,)))
    given(made, OPENED).when(Agreed()).expect(Do("a", (Agreed(),)))


def test_silence_may_call_a_person() -> None:
    """Halted, the saga still takes the answer."""
    talk = asked(on_timeout=HALT).when_time_passes(hours(1)).expect_stuck("asked").when(Agreed())
    talk.expect(Do("pivot")).when(Yes()).expect_completed()


def test_a_halted_wait_may_be_retried_skipped_or_given_up() -> None:
    """Retry waits once more; skip takes an answer from a person; compensate undoes."""

    def halted() -> Conversation:
        return asked(on_timeout=HALT).when_time_passes(hours(1)).expect_stuck("asked")

    again = halted().when_asked(Action.RETRY, step="asked").expect_step("asked", StepStatus.WAITING)
    assert again.state.step("asked").attempt == 2
    timer = [effect for effect in again.decisions[-1].effects if isinstance(effect, SetTimer)]
    assert [(effect.timer.attempt, effect.due_milliseconds) for effect in timer] == [
        (2, again.now_milliseconds + 3_600_000)
    ]
    again.when_time_passes(hours(1)).expect_stuck("asked")
    halted().when_asked(Action.SKIP, step="asked", reply=Agreed()).expect(Do("pivot"))
    halted().when_asked(Action.SKIP, step="asked", reply=Denied()).expect(Take("first"))
    halted().when_asked(Action.SKIP, step="asked", reply=Yes()).expect_refused("does not declare Yes")
    halted().when_asked(Action.COMPENSATE).expect(Take("first")).expect_step("asked", StepStatus.ABANDONED)


def test_the_deadline_undoes_what_a_halted_wait_held_back() -> None:
    """Before the pivot the deadline compensates, whoever is waited for."""
    asked(on_timeout=HALT).when_time_passes(hours(97)).expect(Take("first"))


@pytest.mark.parametrize(("answer", "follows"), [(Agreed(), Do("pivot")), (Denied(), Take("first"))])
def test_an_answer_before_the_question_is_kept(answer: object, follows: object) -> None:
    """It is taken when the wait begins; no timer is set for it."""
    talk = given(decision(), OPENED).expect(Do("first")).when(answer).expect_nothing()
    talk.expect_step("asked", StepStatus.PENDING).when(Yes()).expect(follows)
    assert talk.state.step("asked").due_milliseconds == 0


def test_of_two_early_answers_the_first_counts() -> None:
    """The second is refused, like any later answer."""
    talk = given(decision(), OPENED).expect(Do("first")).when(Agreed()).when(Denied()).expect_refused("has its answer")
    talk.when(Yes()).expect(Do("pivot"))


def test_an_answer_while_the_saga_compensates_is_refused() -> None:
    """It can no longer matter."""
    asked().when_asked(Action.CANCEL).expect(Take("first")).when(Agreed()).expect_refused("compensates")


def test_a_wait_whose_condition_does_not_hold_is_skipped() -> None:
    """An answer to it is then refused."""
    made = saga()
    answer = made.wait("asked", succeeds=Agreed, within=hours(1), on_timeout=HALT, when=named("never", lambda _: False))
    step(made, "a", needs=answer)
    talk = given(made, OPENED).expect(Do("a", (None,))).when(Agreed()).expect_refused("no longer waits")
    talk.when(Yes()).expect_completed()


def test_a_reply_is_no_answer_to_a_wait() -> None:
    """A participant cannot speak for a person, even to a wait that is stuck and in its signal's class."""
    talk = asked(on_timeout=HALT).when_time_passes(hours(1))
    talk.when_given(Replied("x", 0, "asked", Direction.DO, 1, 1, Agreed())).expect_refused("takes no reply")


def after_the_pivot() -> Saga[object]:
    """Return pivot -> a delay -> a wait that halts -> last."""
    made = saga()
    pause = made.delay("pause", lasts=hours(1), after=pivot(made))
    answer = made.wait("asked", succeeds=Agreed, within=hours(2), on_timeout=HALT, after=pause)
    retriable(made, "last", needs=answer)
    return made  # type: ignore[return-value]


def test_waits_and_delays_may_follow_the_pivot() -> None:
    """Then they can only go on, or call a person."""
    talk = given(after_the_pivot(), OPENED).expect(Do("pivot")).when(Yes()).when_time_passes(hours(1))
    talk.when_asked(Action.CANCEL).expect_refused("point of no return").when(Agreed()).expect(Do("last", (Agreed(),)))


def test_a_delay_stopped_by_the_deadline_may_be_retried_or_skipped() -> None:
    """Past the pivot the deadline stops it; a person lets it run anew, or end."""
    made = saga(deadline=hours(2))
    pause = made.delay("pause", lasts=hours(1), after=pivot(made))
    retriable(made, "last", after=pause)

    def stopped() -> Conversation:
        talk = given(made, OPENED).expect_anything().when_time_passes(hours(1.5)).when(Yes())
        return talk.when_time_passes(hours(0.5)).expect_stuck("pause")

    stopped().when_asked(Action.RETRY, step="pause").when_time_passes(hours(1)).expect(Do("last"))
    skipped = stopped().when_asked(Action.SKIP, step="pause").expect(Do("last"))
    skipped.expect_step("pause", StepStatus.SUCCEEDED).when(Yes()).expect_completed()
    resumed = stopped().when_asked(Action.RESUME).expect_step("pause", StepStatus.WAITING)
    assert isinstance(resumed.decisions[-1].effects[0], Record)


def test_a_no_to_an_unasked_question_is_forgotten_when_the_saga_turns_round() -> None:
    """The early answer of a wait that never began has no effect on the undo."""
    made = saga()
    first = step(made, "first")
    made.wait("asked", succeeds=Agreed, fails=Denied, within=hours(1), on_timeout=COMPENSATE, after=first)
    talk = given(made, OPENED).expect(Do("first")).when(Agreed()).when(No()).expect_compensated()
    talk.expect_step("asked", StepStatus.PENDING)
