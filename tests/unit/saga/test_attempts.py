"""Attempts, rounds and timers: what is repeated, what is matched, what is given up."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.saga.support import (
    OPENED,
    Do,
    No,
    Opened,
    Stranger,
    Take,
    Undone,
    Yes,
    chain,
    long_way,
    pivot,
    retriable,
    saga,
    step,
    undo,
)
from towpath.saga import Backoff, Saga, advance, hours, minutes, seconds
from towpath.saga.decision_builder import SAGA_TIMER
from towpath.saga.effects import CancelTimer, Record, SendCommand, SetTimer
from towpath.saga.inputs import Replied, Signalled, Started, Timer, TimerFired, TimerKind, Unrecognised
from towpath.saga.state import Direction, StepStatus
from towpath.saga.testing import Conversation, given


def sent(talk: Conversation) -> list[SendCommand]:
    """Return every command of a conversation."""
    return [effect for decision in talk.decisions for effect in decision.effects if isinstance(effect, SendCommand)]


def one_step_saga(**said: object) -> Saga[Opened]:
    """Return a saga of one step."""
    made = saga()
    step(made, "a", **said)
    return made


def one_step(**said: object) -> Conversation:
    """Return a saga of one step, just begun."""
    return given(one_step_saga(**said), OPENED).expect(Do("a"))


def reply(message: object = Yes(), *, attempt: int = 1, round_: int = 1, step: str = "a", item: str = "") -> Replied:
    """Return a reply to step a as a stranger might forge it."""
    return Replied("forged", 0, step, Direction.DO, attempt, round_, message, item)


def test_all_attempts_of_a_round_share_one_key() -> None:
    """The idempotency key stays, the attempt grows: the participant is asked for its recorded answer."""
    talk = one_step().when_nobody_answers().expect(Do("a")).when_nobody_answers().expect(Do("a"))
    commands = sent(talk)
    assert [command.attempt for command in commands] == [1, 2, 3]
    assert len({command.idempotency_key for command in commands}) == 1
    assert [command.deadline_milliseconds - command.attempt for command in commands] != [0, 0, 0]


def test_each_attempt_has_its_deadline() -> None:
    """The command carries when its answer is no longer waited for: `within` after it was sent."""
    talk = one_step(within=seconds(7)).when_nobody_answers()
    second = sent(talk)[1]
    assert second.deadline_milliseconds == talk.now_milliseconds + 7_000


def test_three_attempts_by_default_before_the_pivot() -> None:
    """Then the step is given up; its one undo follows."""
    talk = one_step().when_nobody_answers().when_nobody_answers().when_nobody_answers()
    talk.expect(Take("a")).when(Undone()).expect_compensated()
    assert [command.direction.value for command in sent(talk)] == ["do", "do", "do", "undo"]


def test_retry_for_ends_a_round_by_time() -> None:
    """No attempt begins later than `retry_for` after the first."""
    talk = one_step(retry_for=minutes(2), backoff=Backoff(first=seconds(1), most=seconds(1)))
    begun = talk.now_milliseconds
    while talk.state.step("a").status in (StepStatus.SENT, StepStatus.BACKOFF):
        talk.when_next_timer_fires()
    talk.expect(Take("a"))
    commands = sent(talk)[:-1]
    assert 10 <= len(commands) <= 12
    assert commands[-1].deadline_milliseconds - 10_000 <= begun + 120_000


def test_the_last_attempt_may_begin_exactly_at_the_end_of_the_round() -> None:
    """Time is up a millisecond later."""
    begun = one_step().now_milliseconds
    due = one_step().when_next_timer_fires().state.step("a").due_milliseconds
    whole = timedelta(milliseconds=due - begun)
    in_time = one_step(retry_for=whole).when_next_timer_fires()
    in_time.expect_step("a", StepStatus.BACKOFF)
    late = one_step(retry_for=whole - timedelta(milliseconds=1)).when_next_timer_fires()
    late.expect(Take("a"))


def test_attempts_and_time_bound_each_other() -> None:
    """Whichever ends first."""
    talk = one_step(attempts=2, retry_for=hours(1)).when_nobody_answers().when_nobody_answers().expect(Take("a"))
    assert len(sent(talk)) == 3


def test_pauses_grow_with_full_jitter_up_to_their_ceiling() -> None:
    """Each pause lies between 0 and its ceiling, and differs from saga to saga."""
    pauses = []
    for number in range(40):
        made = saga()
        step(made, "a", attempts=8, backoff=Backoff(first=seconds(1), most=seconds(20)))
        definition = made.definition
        state = advance(definition, None, Started(f"start-{number}", 0, OPENED, "k")).state
        assert state is not None
        for attempt in range(1, 6):
            now = state.steps[1].due_milliseconds
            timer = Timer(TimerKind.ATTEMPT, "a", "", Direction.DO, attempt, 1)
            state = advance(definition, state, TimerFired("t", now, timer)).state
            assert state is not None
            pause = state.steps[1].due_milliseconds - now
            assert 0 <= pause <= min(20_000, 1_000 * 2 ** (attempt - 1))
            pauses.append((attempt, pause))
            timer = Timer(TimerKind.BACKOFF, "a", "", Direction.DO, attempt, 1)
            state = advance(definition, state, TimerFired("t", now + pause, timer)).state
            assert state is not None
    third = [pause for attempt, pause in pauses if attempt == 3]
    assert len(set(third)) > 30
    assert 1_200 < sum(third) / len(third) < 2_800  # evenly spread over 0 to 4,000


def test_the_same_instance_pauses_alike_on_every_machine() -> None:
    """Jitter is derived, not drawn: the decision can be replayed."""
    first, second = (one_step().when_next_timer_fires() for _ in range(2))
    assert first.decisions == second.decisions


def test_the_late_reply_of_an_earlier_attempt_counts() -> None:
    """All attempts of a round have one recorded outcome, so a slow participant is heard all the same."""
    talk = one_step().when_nobody_answers().expect(Do("a")).when(Yes("slow"), attempt=1).expect_completed()
    assert talk.state.step("a").result == Yes("slow")


def test_a_reply_during_the_pause_counts() -> None:
    """Nothing is out, but the answer to what was out has come; the pause is cancelled."""
    talk = one_step().when_next_timer_fires().when(Yes()).expect_completed()
    cancelled = [effect.timer.kind for effect in talk.decisions[-1].effects if isinstance(effect, CancelTimer)]
    assert cancelled == [TimerKind.BACKOFF, TimerKind.SAGA]


@pytest.mark.parametrize(
    ("forged", "words"),
    [
        (reply(attempt=2), "attempt 1 of round 1"),
        (reply(attempt=0), "attempt 1 of round 1"),
        (reply(round_=2), "attempt 1 of round 1"),
        (reply(round_=0), "attempt 1 of round 1"),
        (reply(Stranger()), "does not declare Stranger"),
        (reply(step="b"), "no step b"),
        (reply(item="0"), "no such item"),
        (Replied("x", 0, "a", Direction.UNDO, 1, 1, Undone()), "sent and takes no reply to its undo"),
        (Replied("x", 0, "start", Direction.DO, 1, 1, Yes()), "succeeded and takes no reply"),
        (TimerFired("x", 0, Timer(TimerKind.ATTEMPT, "a", "", Direction.DO, 2, 1)), "no such timer"),
        (TimerFired("x", 0, Timer(TimerKind.ATTEMPT, "a", "", Direction.DO, 1, 2)), "no such timer"),
        (TimerFired("x", 0, Timer(TimerKind.BACKOFF, "a", "", Direction.DO, 1, 1)), "no such timer"),
        (TimerFired("x", 0, Timer(TimerKind.ATTEMPT, "a", "", Direction.UNDO, 1, 1)), "no such timer"),
        (TimerFired("x", 0, Timer(TimerKind.ATTEMPT, "b", "", Direction.DO, 1, 1)), "no step b"),
        (TimerFired("x", 0, Timer(TimerKind.ATTEMPT, "start", "", Direction.DO, 0, 0)), "no such timer"),
        (Started("start", 0, OPENED, "k"), "already started"),
        (Signalled("x", 0, Stranger()), "no wait of this saga takes Stranger"),
        (Unrecognised("x", 0, "Mystery"), "nothing in this saga takes"),
    ],
)
def test_what_does_not_match_is_refused(forged: Replied, words: str) -> None:
    """Step, item, direction, attempt, round, class: what differs in any is recorded and changes nothing."""
    talk = one_step()
    before = talk.state
    talk.when_given(forged).expect_refused(words).expect_nothing()
    assert talk.state is before
    assert len(talk.decisions[-1].effects) == 1


def test_a_repeated_reply_is_refused() -> None:
    """The step has its result; the same reply changes nothing."""
    made = saga()
    step(made, "b", needs=step(made, "a"))
    talk = given(made, OPENED).expect(Do("a")).when(Yes()).expect_anything().when_repeated()
    talk.expect_refused("succeeded and takes no reply").expect_nothing()


def test_a_timer_that_fires_early_is_set_again() -> None:
    """It is refused, and not lost."""
    talk = one_step()
    timer = Timer(TimerKind.ATTEMPT, "a", "", Direction.DO, 1, 1)
    talk.when_given(TimerFired("early", 0, timer)).expect_refused("not due")
    due = talk.state.step("a").due_milliseconds
    assert talk.decisions[-1].effects[1:] == (SetTimer(talk.state.saga_id, timer, due),)
    talk.when_given(TimerFired("early", 0, SAGA_TIMER)).expect_refused("not due")
    assert talk.decisions[-1].effects[1:] == (
        SetTimer(talk.state.saga_id, SAGA_TIMER, talk.state.deadline_milliseconds),
    )


def test_a_timer_fires_exactly_when_it_is_due() -> None:
    """Not a millisecond later."""
    talk = one_step().when_time_passes(seconds(10))
    talk.expect_step("a", StepStatus.BACKOFF)


def test_a_pivot_is_retried_until_the_deadline_and_is_then_stuck() -> None:
    """Its outcome is unknown, so it is neither given up nor undone."""
    made = saga(deadline=hours(2))
    pivot(made)
    talk = given(made, OPENED).expect(Do("pivot"))
    begun = talk.now_milliseconds
    talk.when_time_passes(hours(1.9)).expect_step("pivot", talk.state.step("pivot").status)
    talk.when_time_passes(hours(0.2)).expect_stuck("pivot")
    assert len(sent(talk)) > 20
    assert sent(talk)[-1].deadline_milliseconds <= begun + 2 * 3_600_000 + 10_000


def test_a_late_answer_frees_a_stuck_saga() -> None:
    """The person is no longer needed."""
    made = saga(deadline=hours(2))
    retriable(made, "last", needs=pivot(made))
    talk = given(made, OPENED).expect_anything().when_time_passes(hours(3)).expect_stuck("pivot")
    talk.when(Yes()).expect(Do("last", (Yes(),))).when(Yes()).expect_completed()


def test_a_late_business_failure_of_a_stuck_pivot_compensates() -> None:
    """It did not happen, so everything can still be undone."""
    talk = given(chain(), OPENED).expect_anything().when(Yes()).expect_anything().when(Yes()).expect_anything()
    talk.when_its_deadline_passes().expect_stuck("pivot").when(No()).expect(Take("second"))


def test_the_deadline_past_the_point_of_no_return_stops_every_step_under_way() -> None:
    """Steps that are out or pausing are stuck; one that is done stays done; the timers are gone."""
    made = saga()
    decided = pivot(made)
    slow, quick = retriable(made, "slow", after=decided), retriable(made, "quick", after=decided)
    retriable(made, "end", after=slow & quick)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when(Yes(), step="quick")
    talk.when_its_deadline_passes().expect_stuck("slow").expect_step("end", StepStatus.PENDING)
    assert not talk._timers


def test_a_saga_of_retriable_steps_is_committed_from_its_start() -> None:
    """Its deadline makes it stuck, since nothing can be undone."""
    talk = given(long_way(), OPENED).expect_anything().when_its_deadline_passes().expect_stuck("first")
    talk.when(Yes()).expect(Do("second", (Yes(),))).when(Yes()).expect_completed()


def test_a_stuck_step_holds_back_only_what_needs_it() -> None:
    """Beside it work goes on."""
    made = saga()
    decided = pivot(made)
    retriable(made, "short", after=decided, retry_for=minutes(1))
    quick = retriable(made, "quick", after=decided)
    retriable(made, "next", after=quick)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when_time_passes(minutes(2))
    talk.expect_stuck("short").when(Yes(), step="quick").expect(Do("next")).expect_stuck("short")


def test_the_undo_policy_is_its_own() -> None:
    """Two attempts of three seconds, though the step has others."""
    made = saga()
    a = step(made, "a", undo=undo("a", within=seconds(3), attempts=2))
    step(made, "b", after=a)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when(No()).expect(Take("a"))
    first = sent(talk)[-1]
    assert first.deadline_milliseconds == talk.now_milliseconds + 3_000
    talk.when_nobody_answers().when_nobody_answers().expect_stuck("a")


def test_inputs_of_no_saga_are_refused() -> None:
    """Without a start there is no state, and none is made."""
    decision = advance(chain().definition, None, Replied("x", 5, "first", Direction.DO, 1, 1, Yes()))
    assert decision.state is None
    entry = decision.effects[0]
    assert isinstance(entry, Record)
    assert (entry.saga_id, entry.status, entry.reason) == ("", None, "no such saga has started")
    stranger = advance(chain().definition, None, Started("e", 0, Stranger(), "k"))
    assert stranger.state is None
    assert isinstance(stranger.effects[0], Record)
    assert stranger.effects[0].reason == "Stranger does not start this saga"


def test_an_instance_of_another_version_is_refused() -> None:
    """A worker that has the wrong version decides nothing."""
    talk = one_step()
    decision = advance(chain().definition, talk.state, reply())
    assert decision.state is talk.state
    entry = decision.effects[0]
    assert isinstance(entry, Record)
    assert entry.reason == "the instance is of shape version 1"
    newer = replace(one_step_saga().definition, version=2)
    entry = advance(newer, talk.state, reply()).effects[0]
    assert isinstance(entry, Record)
    assert entry.reason == "the instance is of shape version 1"


def test_a_saga_that_has_ended_takes_nothing() -> None:
    """The last reply, once more, and a timer: both refused."""
    talk = one_step().when(Yes()).expect_completed().when_repeated().expect_refused("has ended")
    talk.when_given(TimerFired("t", 0, SAGA_TIMER)).expect_refused("has ended").expect_completed()
