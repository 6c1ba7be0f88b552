"""What an input leads to is too large to be written: a start goes back at once, a step that it is about is stuck."""

import pytest

from tests.unit.saga.course import Vote, gathering
from tests.unit.saga.support import (
    OPENED,
    Agreed,
    Do,
    No,
    Opened,
    Stranger,
    Take,
    Undone,
    Yes,
    basket,
    chain,
    decision,
    diamond,
)
from towpath.saga import advance, days
from towpath.saga.decision_builder import SAGA_TIMER, timer_of
from towpath.saga.effects import CancelTimer, Happened, Record
from towpath.saga.inputs import Action, OperatorAsked, Replied, Signalled, Started, TimerFired, Unfit
from towpath.saga.state import Cause, CauseKind, Direction, Status, StepStatus
from towpath.saga.testing import Conversation, given

REASON = "a state of 9 bytes is too large for shape.state, which takes 1"
START = Started("start", 0, OPENED, "key")


def answered(talk: Conversation, reply: object, key: str, item: str = "", way: Direction = Direction.DO) -> Unfit:
    """Return the answer to what is out, which would not fit."""
    return Unfit(Replied("reply", 0, key, way, 1, 1, reply, item), REASON)


def entry(talk: Conversation) -> Record:
    """Return what the history says of the last input."""
    record = talk.decisions[-1].effects[0]
    assert isinstance(record, Record)
    return record


def test_a_start_that_does_not_fit_goes_back_at_once() -> None:
    """Only the start is undone, and is told why; no deadline runs."""
    decided = advance(chain().definition, None, Unfit(START, REASON))
    state = decided.state
    assert state is not None
    assert (state.status, state.direction, state.deadline_milliseconds) == (
        Status.COMPENSATING,
        Direction.UNDO,
        0,
    )
    assert state.cause == Cause(CauseKind.REFUSED, reason=REASON)
    assert state.step("start").status is StepStatus.UNDOING
    assert not any(isinstance(effect, CancelTimer) for effect in decided.effects)
    assert [each.status for each in state.steps[1:]] == [StepStatus.PENDING] * 4


def test_a_start_that_nothing_undoes_has_ended() -> None:
    """It is compensated, since nothing was done."""
    decided = advance(decision().definition, None, Unfit(START, REASON))
    assert decided.state is not None
    assert decided.state.status is Status.COMPENSATED


@pytest.mark.parametrize(
    ("input_", "words"),
    [
        (Signalled("signal", 0, Agreed()), "no such saga has started"),
        (Started("start", 0, Stranger(), "key"), "Stranger does not start this saga"),
    ],
    ids=["no start", "not the event"],
)
def test_what_starts_nothing_starts_nothing_when_it_is_large(input_: Started | Signalled, words: str) -> None:
    """There is no instance, and the history says why."""
    decided = advance(chain().definition, None, Unfit(input_, REASON))
    assert decided.state is None
    (record,) = decided.effects
    assert isinstance(record, Record)
    assert (record.happened, record.reason) == (Happened.REFUSED, words)


def test_a_reply_that_does_not_fit_leaves_its_step_stuck() -> None:
    """Its timer no longer runs; a person retries, the answer comes again, and the cause is forgotten."""
    talk = given(chain(), OPENED).expect(Do("first"))
    talk.when_given(answered(talk, Yes(), "first")).expect_stuck("first")
    assert talk.state.cause == Cause(CauseKind.TOO_LARGE, "first", reason=REASON)
    assert entry(talk).reason == REASON
    assert talk.state.step("first").due_milliseconds == 0
    talk.when_asked(Action.RETRY, step="first").expect(Do("first")).when(Yes())
    talk.expect(Do("second", (Yes(),))).expect_status(Status.RUNNING)
    assert talk.state.cause is None


def test_an_item_that_does_not_fit_is_stuck_alone() -> None:
    """The others go on."""
    talk = given(basket(), Opened(lines=("a", "b"))).expect(Do("check")).when(Yes()).expect_anything()
    talk.when_given(answered(talk, Yes(), "pick", "1")).expect_stuck("pick")
    assert [item.status for item in talk.state.step("pick").items] == [StepStatus.SENT, StepStatus.STUCK]
    assert talk.state.cause == Cause(CauseKind.TOO_LARGE, "pick", "1", reason=REASON)
    talk.when(Yes(), item="0").when_asked(Action.SKIP, step="pick", item="1", reply=Yes()).expect(Do)


def test_an_undo_that_does_not_fit_is_stuck_as_an_undo() -> None:
    """What the saga compensates for stays its cause: the undos are told it."""
    talk = given(chain(), OPENED).expect(Do("first")).when(Yes()).expect_anything().when(No()).expect(Take("first"))
    cause = talk.state.cause
    talk.when_given(answered(talk, Undone(), "first", way=Direction.UNDO)).expect_step("first", StepStatus.UNDO_STUCK)
    assert talk.state.cause == cause
    talk.when_asked(Action.SKIP, step="first").expect_anything().when(Undone()).expect_compensated()


def test_an_attempt_that_cannot_be_sent_again_leaves_its_step_stuck() -> None:
    """Its timer has fired, and what follows from that does not fit; the step beside it goes on."""
    talk = given(diamond(), OPENED).expect(Do("root")).when(Yes()).expect_anything()
    timer = timer_of("left", "", talk.state.step("left"))
    talk.now_milliseconds += 10_000
    talk.when_given(Unfit(TimerFired("timer", 0, timer), REASON)).expect_stuck("left")
    talk.expect_step("right", StepStatus.SENT).when(Yes(), step="right").expect_step("right", StepStatus.SUCCEEDED)


def test_an_answer_to_a_wait_that_does_not_fit_leaves_it_stuck() -> None:
    """A smaller one is still taken."""
    talk = given(decision(), OPENED).expect(Do("first")).when(Yes())
    talk.when_given(Unfit(Signalled("signal", 0, Agreed()), REASON)).expect_stuck("asked")
    talk.when(Agreed()).expect(Do("pivot"))


def test_an_answer_before_its_wait_that_does_not_fit_is_refused() -> None:
    """The wait has not begun, so nobody need look after it: whoever is asked answers again."""
    talk = given(decision(), OPENED).expect(Do("first"))
    talk.when_given(Unfit(Signalled("signal", 0, Agreed()), REASON)).expect_refused(REASON)
    talk.when(Yes()).expect_step("asked", StepStatus.WAITING)


def test_a_signal_that_is_gathered_and_does_not_fit_is_refused() -> None:
    """The wait goes on with what it has; the same signal again is refused as well."""
    talk = given(gathering(), OPENED).expect(Do("before")).when(Yes())
    talk.when_given(Unfit(Signalled("vote", 0, Vote("ada")), REASON)).expect_refused(REASON)
    talk.when_given(Signalled("vote", 0, Vote("ada"))).expect_refused("already applied")
    talk.expect_step("votes", StepStatus.WAITING)


def test_the_deadline_that_does_not_fit_stops_all_that_is_under_way() -> None:
    """No undo could be sent either: a person must look at each."""
    talk = given(decision(), OPENED).expect(Do("first")).when(Yes())
    talk.now_milliseconds += int(days(4).total_seconds()) * 1_000
    talk.when_given(Unfit(TimerFired("timer", 0, SAGA_TIMER), REASON)).expect_stuck("asked")
    assert talk.state.cause == Cause(CauseKind.TOO_LARGE, reason=REASON)
    assert talk.state.deadline_milliseconds == 0
    talk = given(chain(), OPENED).expect(Do("first"))
    talk.now_milliseconds += int(days(4).total_seconds()) * 1_000
    talk.when_given(Unfit(TimerFired("timer", 0, SAGA_TIMER), REASON)).expect_stuck("first")


def test_a_request_that_does_not_fit_is_refused_and_remembered() -> None:
    """It is decided once, as any other."""
    talk = given(chain(), OPENED).expect(Do("first"))
    asked = OperatorAsked("asked", 0, Action.CANCEL, "ada", "a test")
    talk.when_given(Unfit(asked, REASON)).expect_refused(REASON)
    talk.when_given(asked).expect_refused("already applied")


@pytest.mark.parametrize(
    ("input_", "words"),
    [
        (START, "the saga has already started"),
        (Replied("reply", 0, "second", Direction.DO, 1, 1, Yes()), "takes no reply"),
        (Replied("reply", 0, "first", Direction.DO, 1, 1, Stranger()), "does not declare Stranger"),
        (Signalled("signal", 0, Stranger()), "no wait of this saga takes Stranger"),
    ],
    ids=["a second start", "a reply to nothing", "an undeclared reply", "an unknown signal"],
)
def test_what_would_be_refused_is_refused_for_that(input_: Replied | Signalled | Started, words: str) -> None:
    """However large it is; and it changes nothing."""
    talk = given(chain(), OPENED).expect(Do("first"))
    before = talk.state
    talk.when_given(Unfit(input_, REASON)).expect_refused(words)
    assert talk.state == before
