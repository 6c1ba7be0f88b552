"""Going forward: what begins when, what functions receive, and how a saga completes."""

from dataclasses import FrozenInstanceError

import pytest

from tests.unit.saga.support import (
    OPENED,
    Do,
    No,
    Opened,
    Yes,
    basket,
    chain,
    decision,
    diamond,
    do,
    long_way,
    named,
    saga,
    service,
    step,
)
from towpath.saga import NO_EFFECT, BuilderError, advance, hours, one_of, seconds
from towpath.saga.effects import Finish, Happened, Record, SendCommand, SetTimer
from towpath.saga.inputs import Started, Timer, TimerKind
from towpath.saga.state import Direction, Status, StepStatus
from towpath.saga.testing import given


def test_a_start_sends_what_needs_nothing_and_sets_the_deadline() -> None:
    """The first decision: one entry for the history, the saga's deadline, the first command with its own."""
    decision = advance(chain().definition, None, Started("e1", 1_000, OPENED, "k", headers=(("tenant", "t"),)))
    state = decision.state
    assert state is not None
    assert (state.saga, state.version, state.key, state.start_id, state.started_milliseconds) == (
        "chain",
        1,
        "k",
        "e1",
        1_000,
    )
    assert (state.status, state.direction, state.headers) == (Status.RUNNING, Direction.DO, (("tenant", "t"),))
    saga_id, within = state.saga_id, 1_000 + 10_000
    assert decision.effects == (
        Record(saga_id, "e1", 1_000, Happened.STARTED, "Opened", "", "", Direction.DO, 0, 0, "", "", Status.RUNNING),
        SetTimer(saga_id, Timer(TimerKind.SAGA), 1_000 + 4 * 86_400_000),
        SendCommand("chain", saga_id, "k", "service", "first", "", Direction.DO, 1, 1, Do("first"), within),
        SetTimer(saga_id, Timer(TimerKind.ATTEMPT, "first", "", Direction.DO, 1, 1), within),
    )


def test_a_builder_receives_the_event_and_the_results_it_needs_in_order() -> None:
    """Exactly what `needs` names, in its order."""
    made = saga()
    a, b = step(made, "a"), step(made, "b")
    step(made, "c", needs=b & a)
    given(made, OPENED).expect(Do("a")).expect(Do("b")).when(Yes("1"), step="a").when(Yes("2"), step="b").expect(
        Do("c", (Yes("2"), Yes("1")))
    )


def test_after_orders_without_a_result() -> None:
    """A step declared `after` another begins later and receives nothing of it."""
    made = saga()
    a = step(made, "a")
    b = step(made, "b")
    step(made, "c", needs=a, after=b)
    given(made, OPENED).expect(Do("a")).expect(Do("b")).when(Yes("1"), step="a").expect_nothing().when(Yes()).expect(
        Do("c", (Yes("1"),))
    )


def test_a_join_waits_for_every_branch() -> None:
    """Branches run side by side; what needs both waits for the later one."""
    talk = given(diamond(), OPENED).expect(Do("root")).when(Yes("r"))
    talk.expect(Do("left", (Yes("r"),))).expect(Do("right", (Yes("r"),)))
    talk.when(Yes("R"), step="right").expect_nothing().when(Yes("L")).expect(Do("join", (Yes("L"), Yes("R"))))
    talk.when(Yes()).expect_completed()


def test_a_saga_without_pivot_completes_when_all_is_done() -> None:
    """The last result ends it: the deadline is cancelled, the ending told once."""
    talk = given(long_way(), OPENED).expect(Do("first")).when(Yes("1")).expect(Do("second", (Yes("1"),))).when(Yes())
    talk.expect_completed()
    assert [effect for effect in talk.decisions[-1].effects if isinstance(effect, Finish)] == [
        Finish(talk.state.saga_id, Status.COMPLETED)
    ]


@pytest.mark.parametrize(("number", "sent"), [(2, (Yes(),)), (1, (None,))], ids=["holds", "does not hold"])
def test_a_condition_is_asked_when_its_step_is_ready(number: int, sent: tuple[object, ...]) -> None:
    """A step whose condition does not hold is skipped, and those that need it receive None."""
    made = saga()
    a = step(made, "a", when=named("even", lambda event: event.number % 2 == 0))
    step(made, "b", needs=a)
    talk = given(made, Opened(number))
    if number == 2:
        talk.expect(Do("a")).when(Yes())
    talk.expect(Do("b", sent))


def test_a_condition_sees_the_results_that_its_step_needs() -> None:
    """The condition receives what the builder receives."""
    made = saga()
    a = step(made, "a")
    step(made, "b", needs=a, when=named("noted", lambda _, result: bool(result.note)))
    given(made, OPENED).expect(Do("a")).when(Yes()).expect_completed()
    given(made, OPENED).expect(Do("a")).when(Yes("x")).expect(Do("b", (Yes("x"),)))


def test_a_chain_of_skipped_steps_settles_at_once() -> None:
    """Skipping may make the next step ready in the same decision, to the very end."""
    made = saga()
    never = named("never", lambda *_: False)
    a = step(made, "a", when=never)
    b = step(made, "b", needs=a, when=never)
    step(made, "c", needs=b, when=never)
    given(made, OPENED).expect_completed()


def test_either_of_two_classes_means_success() -> None:
    """`one_of` declares two successes; the result is whichever came."""
    made = saga()
    a = made.step(service, do("a"), undo=NO_EFFECT, succeeds=one_of(Yes, No), within=seconds(10))
    step(made, "b", needs=a)
    given(made, OPENED).expect(Do("a")).when(No("n")).expect(Do("b", (No("n"),)))


def test_a_delay_holds_back_what_comes_after_it() -> None:
    """Nothing is sent until the delay is over."""
    made = saga()
    a = step(made, "a")
    pause = made.delay("cooling", lasts=hours(2), after=a)
    step(made, "b", after=pause)
    talk = given(made, OPENED).expect(Do("a")).when(Yes()).expect_step("cooling", StepStatus.WAITING)
    talk.when_time_passes(hours(1.9)).expect_nothing().when_time_passes(hours(0.1)).expect(Do("b"))
    talk.expect_step("cooling", StepStatus.SUCCEEDED)
    assert talk.state.step("cooling").result is None


def test_an_each_sends_one_command_for_each_item_and_gives_all_replies() -> None:
    """Items side by side, the item last in the builder, replies as a tuple in the list's order."""
    talk = given(basket(), Opened(lines=("x", "y"))).expect(Do("check")).when(Yes("c"))
    talk.expect(Do("pick", (Yes("c"), "x"))).expect(Do("pick", (Yes("c"), "y")))
    talk.when(Yes("Y"), step="pick", item="1").expect_nothing().when(Yes("X"), step="pick", item="0")
    talk.expect(Do("pivot", ((Yes("X"), Yes("Y")),))).when(Yes("p"))
    talk.expect(Do("ship", (Yes("p"), "x"))).expect(Do("ship", (Yes("p"), "y")))
    talk.when(Yes(), step="ship", item="0").when(Yes(), step="ship", item="1").expect_completed()


def test_an_each_over_nothing_succeeds_at_once() -> None:
    """An empty list gives an empty tuple."""
    talk = given(basket(), OPENED).expect(Do("check")).when(Yes()).expect(Do("pivot", ((),))).when(Yes())
    talk.expect_completed().expect_step("pick", StepStatus.SUCCEEDED)


def test_a_builder_that_raises_is_named() -> None:
    """The error says saga, step and function, and carries the cause."""
    made = saga()

    def careless(_: Opened) -> Do:
        raise KeyError("sku")

    made.step(service, careless, undo=NO_EFFECT, succeeds=Yes, within=seconds(10))
    with pytest.raises(BuilderError, match="saga shape, step careless: careless raised") as raised:
        given(made, OPENED)
    assert isinstance(raised.value.__cause__, KeyError)


def test_values_are_frozen() -> None:
    """States, decisions and effects cannot be changed by whoever holds them."""
    talk = given(decision(), OPENED).expect_anything()
    for value in (talk.state, talk.decisions[-1], talk.decisions[-1].effects[0], talk.state.steps[0]):
        with pytest.raises((FrozenInstanceError, TypeError)):
            value.status = None  # type: ignore[misc, union-attr]


def test_a_decision_leaves_the_state_that_it_was_given() -> None:
    """The same state and input, decided twice, give equal decisions."""
    made = diamond().definition
    first = advance(made, None, Started("e", 0, OPENED, "k"))
    assert first == advance(made, None, Started("e", 0, OPENED, "k"))
