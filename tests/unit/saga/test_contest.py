"""Some of n are enough: the first settle the step, the others are undone while the saga goes on: nothing is left."""

from typing import Any

import pytest

from tests.unit.saga.course import contest, contest_in_a_chain
from tests.unit.saga.support import Do, Kept, No, Opened, Take, Undone, Yes, saga, service
from towpath.saga import NO_EFFECT, DefinitionError, one_of, seconds, tolerated
from towpath.saga.decision_builder import timer_of
from towpath.saga.definition_snapshot import definition_of, definition_snapshot_of, fingerprint_of
from towpath.saga.inputs import Action, Replied, TimerFired, Unfit
from towpath.saga.state import CauseKind, Direction, Status, StepStatus
from towpath.saga.testing import Conversation, given
from towpath.saga.upgrade import judge

THREE = Opened(lines=("a", "b", "c"))


def offer(line: str) -> Do:
    """Return the command for a line."""
    return Do("offer", (line,))


def back(line: str) -> Take:
    """Return its undo."""
    return Take("offer", (line,))


def asked(enough: int = 1, event: Opened = THREE, **said: Any) -> Conversation:
    """Return a conversation in which all were asked."""
    talk = given(contest(enough, **said), event).expect(Do("before")).when(Yes())
    for line in event.lines:
        talk.expect(offer(line))
    return talk


def test_the_first_is_enough_and_the_others_are_undone() -> None:
    """The saga goes on at once; it ends when they are undone."""
    talk = asked().when(Yes("b"), item="1")
    talk.expect(back("a")).expect(back("c")).expect(Do("pivot", ((Yes("b"),),)))
    talk.when(Yes(), step="pivot").expect_status(Status.RUNNING).when(Undone(), item="0")
    talk.expect_status(Status.RUNNING).when(Undone(), item="2").expect_completed()


def test_the_next_instance_starts_once_the_others_are_undone() -> None:
    """By the decision that ends this one: its key has an open instance until then, and would refuse the start."""
    talk = given(contest_in_a_chain(), THREE).expect(Do("before")).when(Yes()).expect_anything()
    talk.when(Yes("b"), item="1").expect(back("a")).expect(back("c")).expect(Do("pivot", ((Yes("b"),),)))
    talk.when(Yes(), step="pivot").expect_nothing().when(Undone(), item="0").expect_nothing()
    talk.when(Undone(), item="2").expect_next(THREE).expect_completed()


def test_two_of_three() -> None:
    """The result is what the two said, in the order of the list."""
    talk = asked(2).when(Yes("c"), item="2").expect_nothing().when(Yes("a"), item="0")
    talk.expect(back("b")).expect(Do("pivot", ((Yes("a"), Yes("c")),)))


def test_one_that_fails_is_declined_while_enough_can_succeed() -> None:
    """Nothing is undone of it, since a failure leaves nothing."""
    talk = asked(2).when(No(), item="0").expect_nothing().when(Yes("b"), item="1").when(Yes("c"), item="2")
    talk.expect(Do("pivot", ((Yes("b"), Yes("c")),))).when(Yes(), step="pivot").expect_completed()


def test_too_many_failures_turn_the_saga_round() -> None:
    """As soon as enough cannot succeed any more: the one that succeeded, and the one that may have, are undone."""
    talk = asked(3).when(Yes("a"), item="0").when(No(), item="1").expect(back("a")).expect(back("c"))
    talk.when(Undone(), item="0").when(Undone(), item="2").expect(Take("before")).when(Undone()).expect_compensated()


def test_all_that_fail_owe_nothing() -> None:
    """The saga compensates with the last of them."""
    talk = asked().when(No(), item="0").when(No(), item="1").when(No(), item="2")
    talk.expect(Take("before")).when(Undone()).expect_compensated()
    assert talk.state.cause is not None
    assert (talk.state.cause.kind, talk.state.cause.item) == (CauseKind.STEP_FAILED, "2")


def test_silence_of_one_does_not_hold_the_others_up() -> None:
    """It may have been done, so it is undone; the others go on."""
    talk = asked(2).when(Yes("a"), item="0").when_nobody_answers_until(Status.COMPENSATING).expect_anything()
    assert talk.state.cause is not None
    assert talk.state.cause.kind is CauseKind.STEP_EXHAUSTED
    talk = asked(1, Opened(lines=("a", "b")))
    exhausted(talk, "0").expect(back("a")).when(Undone(), item="0").when(Yes("b"), item="1")
    talk.expect(Do("pivot", ((Yes("b"),),))).when(Yes(), step="pivot").expect_completed()


def exhausted(talk: Conversation, item: str) -> Conversation:
    """Let the attempts of one item be used up, before any other timer."""
    while (cell := talk.state.step("offer").items[int(item)]).status in (StepStatus.SENT, StepStatus.BACKOFF):
        timer = timer_of("offer", item, cell)
        talk._timers.pop(timer.key)
        talk.now_milliseconds = max(talk.now_milliseconds, cell.due_milliseconds)
        talk.when_given(TimerFired("timer", 0, timer))
    return talk


def test_one_that_rests_between_two_attempts_is_given_up_too() -> None:
    """Its pause is over, and the undo is sent; no timer of it is left."""
    talk = asked()
    timer = timer_of("offer", "0", talk.state.step("offer").items[0])
    talk._timers.pop(timer.key)
    talk.now_milliseconds += 10_000
    talk.when_given(TimerFired("timer", 0, timer))
    assert talk.state.step("offer").items[0].status is StepStatus.BACKOFF
    talk.when(Yes("b"), item="1").expect(back("a")).expect(back("c")).expect(Do("pivot", ((Yes("b"),),)))
    assert [item.status for item in talk.state.step("offer").items] == [
        StepStatus.UNDOING,
        StepStatus.SUCCEEDED,
        StepStatus.UNDOING,
    ]
    assert sum("offer" in key for key in talk._timers) == 2


def test_fewer_than_enough_are_asked_for_nothing() -> None:
    """A list that is too short compensates, and sends nothing."""
    talk = given(contest(2), Opened(lines=("a",))).expect(Do("before")).when(Yes()).expect(Take("before"))
    assert talk.state.cause is not None
    assert talk.state.cause.kind is CauseKind.TOO_FEW_ITEMS
    talk.expect_step("offer", StepStatus.FAILED)
    talk.when(Undone()).expect_compensated()


def test_a_late_success_of_one_that_is_not_needed_is_refused() -> None:
    """Its undo is on the way, and reaches it after the command."""
    talk = asked().when(Yes("b"), item="1").expect_anything()
    late = Replied("late", 0, "offer", Direction.DO, 1, 1, Yes("a"), "0")
    talk.when_given(late).expect_refused("takes no reply")


def stuck(talk: Conversation, item: str) -> Conversation:
    """Let the reply of one item be too large for what would keep it."""
    at = talk.state.started_milliseconds
    return talk.when_given(Unfit(Replied("large", at, "offer", Direction.DO, 1, 1, Yes("large"), item), "too large"))


def test_one_that_is_stuck_is_given_up_as_any_other_once_enough_have_succeeded() -> None:
    """Else its reply, asked for again, would win too."""
    talk = stuck(asked(), "0").expect_stuck("offer").when(Yes("b"), item="1")
    talk.expect(back("a")).expect(back("c")).expect(Do("pivot", ((Yes("b"),),)))
    talk.when_given(Replied("late", 0, "offer", Direction.DO, 1, 1, Yes("a"), "0")).expect_refused("takes no reply")
    talk.when(Undone(), item="0").when(Undone(), item="2").when(Yes(), step="pivot").expect_completed()


def test_one_that_is_stuck_can_still_be_enough() -> None:
    """The saga waits for a person, instead of undoing what was done."""
    talk = stuck(asked(1, Opened(lines=("a", "b"))), "0").when(No(), item="1").expect_stuck("offer")
    talk.when_asked(Action.SKIP, step="offer", item="0", reply=Yes("small"))
    talk.expect(Do("pivot", ((Yes("small"),),))).when(Yes(), step="pivot").expect_completed()


def test_a_failure_later_undoes_the_winner_too() -> None:
    """What came after it first; the undos of those not needed go on meanwhile."""
    talk = asked().when(Yes("b"), item="1").expect(back("a")).expect(back("c")).expect(Do("pivot", ((Yes("b"),),)))
    talk.when(No(), step="pivot").expect(back("b"))
    talk.when(Undone(), item="0").when(Undone(), item="1").expect_nothing().when(Undone(), item="2")
    talk.expect(Take("before")).when(Undone()).expect_compensated()


def test_one_that_cannot_be_undone_needs_a_person() -> None:
    """The saga says so, though it goes on; skipped or retried, it ends."""
    talk = asked().when(Yes("b"), item="1").expect(back("a")).expect(back("c")).expect(Do("pivot", ((Yes("b"),),)))
    talk.when(Kept(), item="0").expect_stuck("offer").when(Yes(), step="pivot").when(Undone(), item="2")
    talk.expect_stuck("offer").when_asked(Action.SKIP, step="offer", item="0").expect_completed()


def test_where_there_is_nothing_to_undo_the_others_are_let_be() -> None:
    """As with prices that are asked for: the first is taken, the rest is not heard."""
    talk = asked(undo=NO_EFFECT).when(Yes("b"), item="1").expect(Do("pivot", ((Yes("b"),),)))
    unknown, won = StepStatus.UNKNOWN, StepStatus.SUCCEEDED
    assert [item.status for item in talk.state.step("offer").items] == [unknown, won, unknown]
    talk.when(Yes(), step="pivot").expect_completed()


def test_how_many_are_enough_is_part_of_what_is_recorded() -> None:
    """An instance that has begun is pinned to the version that says as many."""
    one, two = contest(1).definition, contest(2).definition
    assert definition_snapshot_of(definition_of(definition_snapshot_of(one))) == definition_snapshot_of(one)
    assert fingerprint_of(one) != fingerprint_of(two)
    assert "awaits 1 of its items, and 2 now" in " ".join(judge(one, two, asked().state).reasons)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"enough": 5}, "says enough=5"),
        ({"enough": -1}, "says enough=-1"),
        ({"enough": lambda event: True}, "is a function"),
        ({"enough": 1, "succeeds": one_of(Yes, tolerated(Kept))}, "and tolerates failures"),
    ],
)
def test_what_cannot_be_enough(said: dict[str, Any], words: str) -> None:
    """Each is refused at import."""
    declared = {"succeeds": Yes, "fails": No, "within": seconds(10), "undo": NO_EFFECT, **said}
    with pytest.raises(DefinitionError, match=words):
        saga("refused").each(
            service, lambda _, line: Do(line), key="offer", over=lambda event: event.lines, limit=4, **declared
        )
