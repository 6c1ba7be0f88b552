"""What people may ask: retry, skip, compensate, cancel, resume; each once, with a name and a reason."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.saga.support import (
    OPENED,
    Agreed,
    Do,
    Kept,
    No,
    Opened,
    Take,
    Undone,
    Yes,
    basket,
    chain,
    pivot,
    retriable,
    saga,
    step,
    undo,
)
from towpath.saga import NO_EFFECT, minutes, seconds
from towpath.saga.definition import RECENT_MAX
from towpath.saga.effects import Record, SendCommand
from towpath.saga.inputs import Action, OperatorAsked
from towpath.saga.state import CauseKind, Direction, Status, StepStatus
from towpath.saga.testing import Conversation, given


def last_command(talk: Conversation) -> SendCommand:
    """Return the command that the last decision sent."""
    return [effect for effect in talk.decisions[-1].effects if isinstance(effect, SendCommand)][-1]


def begun() -> Conversation:
    """Return the chain, its first command out."""
    return given(chain(), OPENED).expect(Do("first"))


def stuck_at_last() -> Conversation:
    """Return pivot -> last, stuck at last after two attempts."""
    made = saga()
    retriable(made, "last", after=pivot(made), attempts=2)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything()
    return talk.when_nobody_answers_until(Status.STUCK)


def stuck_undo() -> Conversation:
    """Return a saga whose undo of `a` got no answer in two attempts."""
    made = saga()
    a = step(made, "a", undo=undo("a", attempts=2))
    step(made, "b", after=a)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when(No()).expect(Take("a"))
    return talk.when_nobody_answers_until(Status.STUCK)


def failed_undo() -> Conversation:
    """Return a saga whose undo of `a` was answered: it cannot be undone."""
    made = saga()
    a = step(made, "a")
    step(made, "b", after=a)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when(No()).expect(Take("a"))
    return talk.when(Kept()).expect_stuck("a")


@pytest.mark.parametrize(
    ("action", "kind"), [(Action.CANCEL, CauseKind.CANCELLED), (Action.COMPENSATE, CauseKind.OPERATOR)]
)
def test_before_the_pivot_a_person_may_turn_it_round(action: Action, kind: CauseKind) -> None:
    """Who and why are the cause, and stand in the history."""
    talk = begun().when_asked(action, by="grace", because="typo").expect(Take("first"))
    cause = talk.state.cause
    assert cause is not None
    assert (cause.kind, cause.actor, cause.reason) == (kind, "grace", "typo")
    entry = talk.decisions[-1].effects[0]
    assert isinstance(entry, Record)
    assert (entry.detail, entry.actor, entry.reason) == (action.value, "grace", "typo")
    talk.when(Undone()).expect(Take("start", (f"{kind.value} by grace: typo",)))


@pytest.mark.parametrize("action", [Action.CANCEL, Action.COMPENSATE])
def test_a_saga_that_compensates_is_not_turned_round_again(action: Action) -> None:
    """An undo is never interrupted."""
    begun().when_asked(Action.CANCEL).expect(Take("first")).when_asked(action).expect_refused("compensates already")


@pytest.mark.parametrize("action", [Action.CANCEL, Action.COMPENSATE])
def test_past_the_pivot_nothing_is_turned_round(action: Action) -> None:
    """Neither while the pivot is out, nor after it, nor when a step past it is stuck."""
    made = saga()
    decided = pivot(made)
    retriable(made, "last", after=decided, retry_for=minutes(1))
    talk = given(made, OPENED).expect_anything().when_asked(action).expect_refused("point of no return")
    talk.when(Yes()).expect_anything().when_asked(action).expect_refused("point of no return")
    talk.when_time_passes(minutes(2)).expect_stuck("last").when_asked(action).expect_refused("point of no return")


@pytest.mark.parametrize(("by", "because"), [("", "typo"), ("grace", "")])
def test_a_request_names_its_actor_and_its_reason(by: str, because: str) -> None:
    """Without either it is refused."""
    begun().when_asked(Action.CANCEL, by=by, because=because).expect_refused("names the actor and the reason")


def test_a_retry_sends_the_next_attempt_under_the_same_key() -> None:
    """The outcome is unknown: the recorded answer is asked for, in the same round, with the whole policy afresh."""
    talk = stuck_at_last()
    before = talk.state.step("last")
    talk.when_asked(Action.RETRY, step="last").expect(Do("last")).expect_status(Status.RUNNING)
    command = last_command(talk)
    assert (command.attempt, command.round) == (before.attempt + 1, before.round) == (3, 1)
    talk.when_nobody_answers().expect(Do("last")).when_nobody_answers().expect_stuck("last")
    assert talk.state.step("last").attempt == 4


def test_a_retry_of_a_pause_does_not_wait_for_its_end() -> None:
    """The next attempt leaves now, and the pause's timer is cancelled."""
    talk = begun().when_next_timer_fires().expect_step("first", StepStatus.BACKOFF)
    talk.when_asked(Action.RETRY, step="first").expect(Do("first")).expect_step("first", StepStatus.SENT)
    assert last_command(talk).attempt == 2
    assert [key.split(":")[0] for key in talk._timers] == ["saga", "attempt"]


def test_a_retry_of_a_stuck_undo_stays_an_undo() -> None:
    """Its outcome is unknown: same round."""
    talk = stuck_undo().when_asked(Action.RETRY, step="a").expect(Take("a")).expect_status(Status.COMPENSATING)
    command = last_command(talk)
    assert (command.direction.value, command.attempt, command.round) == ("undo", 3, 1)
    talk.when(Undone()).expect_compensated()


def test_a_retry_of_a_pausing_undo_stays_an_undo() -> None:
    """The pause is cut short."""
    made = saga()
    a = step(made, "a")
    step(made, "b", after=a)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when(No()).expect(Take("a"))
    talk.when_next_timer_fires().expect_step("a", StepStatus.UNDO_BACKOFF).when_asked(Action.RETRY, step="a")
    talk.expect(Take("a")).when(Undone()).expect_compensated()


def test_a_retry_after_a_recorded_failure_begins_a_new_round() -> None:
    """The participant would only repeat its no: it is asked anew, under another key, naming the same do."""
    talk = failed_undo()
    first = [effect for effect in talk.decisions[-2].effects if isinstance(effect, SendCommand)][-1]
    talk.when_asked(Action.RETRY, step="a").expect(Take("a"))
    command = last_command(talk)
    assert (command.attempt, command.round) == (1, 2)
    assert command.idempotency_key != first.idempotency_key
    assert command.undoes == first.undoes
    talk.when(Kept()).expect_stuck("a").when_asked(Action.RETRY, step="a").expect(Take("a"))
    assert last_command(talk).round == 3
    talk.when(Undone()).expect_compensated()


def test_the_old_round_is_no_longer_heard() -> None:
    """A repetition of the recorded no is refused once a new round has begun."""
    failed_undo().when_asked(Action.RETRY, step="a").expect(Take("a")).when_repeated(back=2).expect_refused("round 2")


@pytest.mark.parametrize("key", ["first", "second", "start", "nowhere"])
def test_only_what_pauses_or_is_stuck_is_retried(key: str) -> None:
    """A step that is out, pending, settled or unknown is not."""
    begun().when_asked(Action.RETRY, step=key).expect_refused().expect_nothing()


def test_skip_takes_a_given_reply_as_the_steps_own() -> None:
    """A success goes on as if the participant had said it."""
    talk = stuck_at_last().when_asked(Action.SKIP, step="last", reply=Yes("by hand")).expect_completed()
    assert talk.state.step("last").result == Yes("by hand")


def test_skip_with_a_failure_of_the_pivot_compensates() -> None:
    """A person finds out that it did not happen."""
    talk = begun().when(Yes()).expect_anything().when(Yes()).expect_anything().when_its_deadline_passes()
    talk.expect_stuck("pivot").when_asked(Action.SKIP, step="pivot", reply=No()).expect(Take("second"))


@pytest.mark.parametrize(
    ("reply", "words"), [(Agreed(), "does not declare Agreed"), (None, "does not declare NoneType")]
)
def test_skip_takes_only_what_the_step_declares(reply: object, words: str) -> None:
    """Any other class, or none, is refused."""
    stuck_at_last().when_asked(Action.SKIP, step="last", reply=reply).expect_refused(words).expect_stuck("last")


def test_only_what_is_stuck_is_skipped() -> None:
    """A command that is out may still be answered by its participant."""
    begun().when_asked(Action.SKIP, step="first", reply=Yes()).expect_refused("only a step that is stuck")
    begun().when_asked(Action.SKIP, step="nowhere", reply=Yes()).expect_refused("no step nowhere")


@pytest.mark.parametrize("reply", [None, Undone()])
@pytest.mark.parametrize("stuck", [stuck_undo, failed_undo])
def test_skip_declares_a_stuck_undo_done(stuck: object, reply: object) -> None:
    """A person undid it by hand."""
    talk = stuck_undo() if stuck is stuck_undo else failed_undo()
    talk.when_asked(Action.SKIP, step="a", reply=reply).expect_compensated().expect_step("a", StepStatus.UNDONE)


@pytest.mark.parametrize("reply", [Kept(), Yes()])
def test_skip_of_an_undo_with_anything_but_its_success_is_refused(reply: object) -> None:
    """It would say that the step is not undone."""
    failed_undo().when_asked(Action.SKIP, step="a", reply=reply).expect_refused("does not say that the step is undone")


def test_resume_retries_all_that_is_stuck_in_either_direction() -> None:
    """One request for the whole saga, once the cause is fixed."""
    made = saga()
    a, b = (step(made, key, undo=undo(key, attempts=1)) for key in ("a", "b"))
    step(made, "c", after=a & b)
    talk = given(made, OPENED).expect_anything().when(Yes(), step="a").when(Yes(), step="b").expect_anything()
    talk.when(No()).expect_anything().when(Kept(), step="a").when_nobody_answers_until(Status.STUCK)
    talk.when_time_passes(minutes(1)).expect_stuck("a", "b").when_asked(Action.RESUME)
    talk.expect(Take("a")).expect(Take("b")).expect_status(Status.COMPENSATING)
    talk.when(Undone(), step="a").when(Undone(), step="b").expect_compensated()


def test_resume_of_what_is_not_stuck_is_refused() -> None:
    """There is nothing to resume."""
    begun().when_asked(Action.RESUME).expect_refused("no step of this saga is stuck")


def stuck_item() -> Conversation:
    """Return the basket of two lines, of which the second could not be shipped."""
    talk = given(basket(), Opened(lines=("x", "y"))).expect_anything().when(Yes()).expect_anything()
    talk.when(Yes(), step="pick", item="0").when(Yes(), step="pick", item="1").expect_anything()
    talk.when(Yes()).expect_anything().when(Yes(), step="ship", item="0").when_its_deadline_passes()
    return talk.expect_stuck("ship")


def test_single_items_are_retried_and_skipped() -> None:
    """A person names step and item."""
    talk = stuck_item().when_asked(Action.RETRY, step="ship").expect_refused("no such item")
    talk.when_asked(Action.RETRY, step="ship", item="0").expect_refused("succeeded")
    talk.when_asked(Action.SKIP, step="ship", item="2", reply=Yes()).expect_refused("no such item")
    talk.when_asked(Action.RETRY, step="ship", item="1").expect(Do("ship", (Yes(), "y"))).when(Yes(), item="1")
    talk.expect_completed()
    stuck_item().when_asked(Action.SKIP, step="ship", item="1", reply=Yes()).expect_completed()


def test_a_list_that_is_too_long_past_the_pivot_waits_for_another_limit() -> None:
    """Nothing can be undone there: the step is stuck, and skipping cannot invent the items' replies."""
    made = saga()
    decided = pivot(made)
    from tests.unit.saga.support import do, named, service

    many = named("lines", lambda event, *_: event.lines)
    made.retriable_each(service, do("ship"), after=decided, over=many, limit=1, succeeds=Yes, within=seconds(10))
    talk = given(made, Opened(lines=("x", "y"))).expect_anything().when(Yes()).expect_stuck("ship").expect_nothing()
    talk.when_asked(Action.SKIP, step="ship", reply=Yes()).expect_refused("too many items")
    talk.when_asked(Action.RETRY, step="ship").expect_stuck("ship")
    wider = tuple(replace(each, items_max=2) if each.key == "ship" else each for each in talk.definition.steps)
    talk.definition = replace(talk.definition, steps=wider)
    talk.when_asked(Action.RETRY, step="ship").expect(Do("ship", ("x",))).expect(Do("ship", ("y",)))


def test_a_request_is_applied_once() -> None:
    """The same request, delivered again, is refused."""
    talk = stuck_at_last().when_asked(Action.RETRY, step="last").expect(Do("last")).when_repeated()
    talk.expect_refused("already applied").expect_nothing()


def test_a_request_older_than_the_ids_still_held_is_refused() -> None:
    """It may have been applied: it is refused, not guessed at. A newer one is taken."""
    made = saga()
    step(made, "a", undo=NO_EFFECT, attempts=100, within=minutes(1))
    talk = given(made, OPENED).expect(Do("a"))
    asked: list[OperatorAsked] = []
    for _ in range(RECENT_MAX + 1):
        talk.when_time_passes(minutes(1)).when_asked(Action.RETRY, step="a").expect(Do("a"))
        latest = talk.inputs[-1]
        assert isinstance(latest, OperatorAsked)
        asked.append(latest)
    assert len(talk.state.recent) == RECENT_MAX
    assert talk.state.forgotten_milliseconds == asked[0].at_milliseconds
    talk.when_repeated(back=len(talk.inputs) - talk.inputs.index(asked[0])).expect_refused("ask again")
    talk.when_repeated(back=len(talk.inputs) - talk.inputs.index(asked[1])).expect_refused("already applied")


def test_a_request_that_was_refused_is_not_applied_later() -> None:
    """It was about the command, whose outcome came by itself; delivered again, it would settle the undo instead."""
    made = saga()
    first = step(made, "first")
    pivot(made, after=step(made, "second", after=first))
    talk = given(made, OPENED).expect(Do("first")).when(Yes()).expect(Do("second"))
    talk.when_asked(Action.SKIP, step="second", reply=None).expect_refused("only a step that is stuck")
    refused = talk.inputs[-1]
    talk.when(Yes()).expect(Do("pivot")).when(No()).expect(Take("second")).when(Kept()).expect_stuck("second")
    talk.when_given(refused).expect_refused("already applied").expect_stuck("second")
    talk.when_asked(Action.SKIP, step="second").expect(Take("first"))


def test_refused_requests_are_forgotten_as_the_others_are() -> None:
    """The memory is as long as before; what is older than it is refused as well."""
    talk = begun()
    for _ in range(RECENT_MAX + 1):
        talk.when_time_passes(seconds(0.1)).when_asked(Action.RESUME).expect_refused("no step of this saga is stuck")
    assert len(talk.state.recent) == RECENT_MAX
    talk.when_repeated(back=RECENT_MAX + 1).expect_refused("ask again")
    assert len(talk.state.recent) == RECENT_MAX


def test_a_request_without_an_actor_is_not_remembered() -> None:
    """It can never be taken, so it takes no room."""
    assert begun().when_asked(Action.CANCEL, by="").expect_refused("names the actor").state.recent == ()


def test_a_request_is_about_the_attempt_that_the_person_saw() -> None:
    """The step is stuck anew, on its way back: the request still speaks of the command."""
    talk = stuck_undo()
    stands = talk.state.step("a")
    seen: dict[str, Any] = {"step": "a", "attempt": stands.attempt, "round": stands.round}
    talk.when_asked(Action.SKIP, **seen).expect_refused("another attempt", "undo, attempt 2 of round 1")
    talk.when_asked(Action.RETRY, **seen, direction=Direction.UNDO).expect(Take("a"))
    talk.when_nobody_answers_until(Status.STUCK)
    talk.when_asked(Action.SKIP, **seen, direction=Direction.UNDO).expect_refused("another attempt")
    talk.when_asked(Action.SKIP, step="a", attempt=talk.state.step("a").attempt, round=1, direction=Direction.UNDO)
    talk.expect_compensated()


def test_a_request_counts_wherever_its_time_lies() -> None:
    """Requests of one millisecond are told apart by their ids."""
    talk = stuck_undo()
    now = talk.now_milliseconds
    talk.when_asked(Action.RETRY, step="a").expect(Take("a")).when_nobody_answers_until(Status.STUCK)
    talk.now_milliseconds = now
    talk.when_asked(Action.SKIP, step="a").expect_compensated()
