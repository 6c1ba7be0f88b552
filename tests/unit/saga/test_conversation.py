"""The conversation itself: it is strict, and says what differs. Each of its expectations is seen to fail."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

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
    child,
    decision,
    diamond,
    do,
    other,
    parent,
    saga,
    service,
)
from towpath.saga import NO_EFFECT, seconds
from towpath.saga.effects import SubsagaCompleted
from towpath.saga.inputs import Action, TimerFired, TimerKind
from towpath.saga.state import Direction, ParentReference, Status, StepStatus
from towpath.saga.testing import Conversation, given

ABOVE = ParentReference("parent", "p", "k", "child", Direction.DO, 1, 1)


def opened() -> Conversation:
    """Return the chain, of which nothing is expected yet."""
    return given(chain(), OPENED)


def cancelled() -> Conversation:
    """Return the chain on its way back."""
    return begun().when_asked(Action.CANCEL).expect_anything()


def is_second(command: Do) -> bool:
    """Say whether a command is the second step's."""
    return command.what == "second"


def begun() -> Conversation:
    """Return the chain, its first command expected."""
    return given(chain(), OPENED).expect(Do("first"))


FAILS: dict[str, tuple[Callable[[], object], str]] = {
    "a start that is refused": (lambda: given(chain(), Stranger()), "Stranger does not start chain"),
    "a command never sent": (lambda: begun().expect(Do("second")), r"expected Do\(what='second'[^;]*\n  nothing"),
    "a command of other content": (
        lambda: given(chain(), OPENED).expect(Do("first", (1,))),
        r"what came differs: Do to service \(step first\)\n    given\[0\]: expected 1, came nothing$",
    ),
    "a command of another class": (
        lambda: given(chain(), OPENED).expect(Take("first")),
        r"and it was not sent\nsent and not yet expected:\n  Do to service \(step first\)\n      what = 'first'",
    ),
    "a class that was not sent": (lambda: begun().expect(Take), "expected a Take, and it was not sent"),
    "a condition that does not hold": (
        lambda: given(chain(), OPENED).expect(Do, where=lambda do: do.what == "second"),
        "expected a Do, and it was not sent\n",
    ),
    "a function that does not hold": (lambda: given(chain(), OPENED).expect(is_second), "for which is_second holds"),
    "a timer of a step that has none": (
        lambda: begun().when_timer_fires("second"),
        "no such timer of second fires; there are: .*\n  start: succeeded\n  first: undoing",
    ),
    "a command to another": (
        lambda: given(chain(), OPENED).expect(Do("first"), to=other),
        "sent to service, not to other",
    ),
    "a command to another name": (
        lambda: given(chain(), OPENED).expect(Do("first"), to="x"),
        "sent to service, not to x",
    ),
    "a child of another name": (
        lambda: given(parent(), OPENED).expect_anything().when(Yes()).expect(OPENED, to="x"),
        "sent to child, not to x",
    ),
    "a command not expected": (lambda: opened().when(Yes()), "also sent what was not expected"),
    "a command not expected as time passes": (
        lambda: opened().when_time_passes(seconds(1)),
        "also sent what was not expected",
    ),
    "an end with a command not expected": (
        lambda: given(child(), OPENED).expect_completed(),
        "also sent what was not expected",
    ),
    "a compensation of a child not asked": (lambda: begun().expect_compensates("child"), "expected child to be asked"),
    "an answer to a parent not given": (
        lambda: begun().expect_answer(SubsagaCompleted("chain", "x")),
        "to the parent",
    ),
    "a refusal that was none": (lambda: begun().when(Yes()).expect_refused(), "expected a refusal"),
    "a refusal for another reason": (
        lambda: begun().when_asked(Action.RESUME).expect_refused("no step", "banana"),
        r"\['banana'\] not in 'no step",
    ),
    "another status": (lambda: begun().expect_status(Status.STUCK), "expected stuck, the saga is running"),
    "another status of a step": (
        lambda: begun().expect_step("first", StepStatus.SUCCEEDED),
        "expected first to be succeeded, it is sent",
    ),
    "stuck elsewhere": (
        lambda: (
            begun()
            .when_asked(Action.CANCEL)
            .expect_anything()
            .when_nobody_answers_until(Status.STUCK)
            .expect_stuck("x")
        ),
        r"stuck at \['first'\]",
    ),
    "an ending too early": (lambda: begun().expect_completed(), "expected completed, the saga is running"),
    "another ending": (
        lambda: given(child(), OPENED).expect_anything().when(No()).expect_completed(),
        "expected completed, the saga is compensated",
    ),
    "a reply to nothing": (lambda: begun().when(Undone()), "Undone answers one command that is out; there are: none"),
    "a reply to two": (
        lambda: given(diamond(), OPENED).expect_anything().when(Yes()).expect_anything().when(Yes()),
        "there are: left, right. Name the step",
    ),
    "a timer that does not run": (
        lambda: given(child(), OPENED).expect_anything().when(Yes()).when_next_timer_fires(),
        "no timer runs",
    ),
    "a status that never comes": (
        lambda: given(child(), OPENED).expect_anything().when(Yes()).when_nobody_answers_until(Status.STUCK),
        "no timer runs, and the saga is completed",
    ),
}


@pytest.mark.parametrize(("talk", "words"), FAILS.values(), ids=FAILS.keys())
def test_what_is_not_so_fails(talk: Callable[[], object], words: str) -> None:
    """With words that say what was said instead."""
    with pytest.raises(AssertionError, match=words):
        talk()


def test_a_repetition_may_be_expected_and_need_not() -> None:
    """A further attempt of a command is no news; the first attempt always is."""
    begun().when_nobody_answers().expect(Do("first")).when(Yes()).expect(Do("second", (Yes(),)))
    begun().when_nobody_answers().when(Yes()).expect(Do("second", (Yes(),)))


def test_time_stands_still_until_it_is_told() -> None:
    """Replies take no time; `when_time_passes` ends exactly when it says."""
    talk = begun()
    before = talk.now_milliseconds
    talk.when(Yes()).expect_anything()
    assert talk.now_milliseconds == before
    talk.when_time_passes(seconds(3))
    assert talk.now_milliseconds == before + 3_000


def test_nobody_answers_until_the_saga_stands_otherwise() -> None:
    """Silence ends with a word or with a change of status, whichever is first."""
    talk = begun().when_asked(Action.CANCEL).expect(Take("first"))
    talk.when_nobody_answers().expect_status(Status.COMPENSATING).expect(Take("first"))


def test_the_step_and_the_item_of_a_reply_are_found() -> None:
    """By its class where that is enough, else by name."""
    talk = given(basket(), Opened(lines=("x", "y"))).expect_anything().when(Yes()).expect_anything()
    talk.when(Yes("Y"), item="1").when(Yes("X"), step="pick", item="0").expect_anything()
    assert [item.result for item in talk.state.step("pick").items] == [Yes("X"), Yes("Y")]


def test_a_signal_goes_to_its_wait() -> None:
    """A class that a wait declares is a signal, even before the wait has begun."""
    talk = given(decision(), OPENED).expect(Do("first"), to=service).when(Agreed())
    assert talk.state.step("asked").result == Agreed()


def test_an_answer_to_a_parent_must_be_expected_too() -> None:
    """Like anything else that is said."""
    talk = given(child(), OPENED, parent=ABOVE).expect_anything().when(Yes())
    with pytest.raises(AssertionError, match="not expected"):
        talk.expect_completed()
    with pytest.raises(AssertionError, match="to the parent"):
        talk.expect_answer(SubsagaCompleted("child", "another"))
    talk.expect_answer(SubsagaCompleted("child", talk.state.saga_id)).expect_completed()


def test_a_command_is_expected_by_its_class_or_by_a_condition() -> None:
    """Where a test does not care about all of it."""
    given(chain(), OPENED).expect(Do).when(Yes()).expect(is_second)
    given(chain(), OPENED).expect(Do, to=service, where=lambda do: do.what == "first").expect_nothing()


def test_time_travels_to_the_timer_of_a_step() -> None:
    """What falls due before it fires before it, at its own time."""
    talk = begun().when_timer_fires("first", TimerKind.BACKOFF)
    fired = [entry.timer.kind for entry in talk.inputs if isinstance(entry, TimerFired)]
    assert fired == [TimerKind.ATTEMPT, TimerKind.BACKOFF]
    talk.expect(Do("first"))


def test_the_fewest_differences_are_shown() -> None:
    """Of two commands of one class, the one that was probably meant; the other is listed as sent."""
    talk = given(diamond(), OPENED).expect(Do("root")).when(Yes())
    with pytest.raises(AssertionError) as error:
        talk.expect(Do("left", (Yes("other"),)))
    said = str(error.value)
    assert "what came differs: Do to service (step left)\n    given[0].note: expected 'other', came" in said
    assert "sent and not yet expected:\n  Do to service (step right)" in said
    assert "SendCommand(" not in said


def test_what_is_left_over_is_told_unless_the_conversation_has_failed() -> None:
    """pytest's plugin asks at the end of each test (tests/unit/testing/test_plugin.py)."""
    talk = given(diamond(), OPENED)
    assert talk.left_over.startswith("  Do to service (step root)")
    assert talk.expect_anything().left_over == ""
    failed = given(diamond(), OPENED)
    with pytest.raises(AssertionError):
        failed.expect(Take("root"))
    assert failed.left_over == ""


@pytest.mark.parametrize("item", ["", "7"])
def test_a_reply_about_no_item_of_a_list_is_not_passed_over(item: str) -> None:
    """The machine would refuse it, and the test would go on as if it had come."""
    made = saga()
    made.each(service, do("pick"), over=lambda _: ("a", "b"), limit=2, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
    talk = given(made, OPENED).expect_anything()
    with pytest.raises(AssertionError, match="say item= one of '0', '1'"):
        talk.when(Yes("pick"), item=item)


def test_what_no_conversation_can_take_is_told_so() -> None:
    """A name for a saga, a class for a record, a number for a time, a step that there is not."""
    wrong: Any = "chain"
    with pytest.raises(TypeError, match="'chain' is no saga"):
        given(wrong, OPENED)
    number: Any = 7
    for time in (number, timedelta(days=-1)):
        with pytest.raises(TypeError, match="no time that passes"):
            given(chain(), OPENED).expect_anything().when_time_passes(time)
    with pytest.raises(AssertionError, match="Yes is a class"):
        given(chain(), OPENED).expect_anything().when(Yes)
    with pytest.raises(AssertionError, match="there is no step frist"):
        given(chain(), OPENED).expect_anything().when_timer_fires("frist")
