"""Going backward: when an undo is owed, in which order, and what discharges it."""

import pytest

from tests.unit.saga.support import (
    OPENED,
    Agreed,
    Denied,
    Do,
    Kept,
    No,
    Opened,
    Take,
    Undone,
    Yes,
    basket,
    chain,
    diamond,
    other,
    pivot,
    saga,
    step,
    undo,
)
from towpath.saga import COMPENSATE, NO_EFFECT, DefinitionError, hours, minutes, seconds
from towpath.saga.effects import CancelTimer, Finish, SendCommand
from towpath.saga.inputs import Action, Replied
from towpath.saga.state import CauseKind, Direction, Status, StepStatus
from towpath.saga.testing import Conversation, given


def second_under_way() -> Conversation:
    """Return the chain with its first step done and its second under way."""
    return given(chain(), OPENED).expect(Do("first")).when(Yes("1")).expect(Do("second", (Yes("1"),)))


def joined() -> Conversation:
    """Return the diamond whose join is under way: everything before it is done."""
    talk = given(diamond(), OPENED).expect(Do("root")).when(Yes()).expect_anything()
    return talk.when(Yes(), step="left").when(Yes(), step="right").expect_anything()


def test_a_business_failure_undoes_what_was_done_and_nothing_else() -> None:
    """The failed step left no effect; the one before it is undone, then the start, which learns the cause."""
    talk = second_under_way().when(No()).expect(Take("first")).when(Undone(), step="first")
    talk.expect(Take("start", ("second: No",))).when(Undone()).expect_compensated()


def test_undos_run_in_reverse_with_independent_branches_side_by_side() -> None:
    """The join's failure undoes both branches at once, and the root after the later of them."""
    talk = joined().when(No()).expect(Take("left")).expect(Take("right"))
    talk.when(Undone(), step="right").expect_nothing().when(Undone(), step="left").expect(Take("root"))
    talk.when(Undone()).expect(Take("start", ("join: No",))).when(Undone()).expect_compensated()


def test_a_step_without_effect_does_not_break_the_order() -> None:
    """What lies between two undos and needs none itself still separates them."""
    made = saga()
    a = step(made, "a")
    b = step(made, "b", needs=a, undo=NO_EFFECT)
    c = step(made, "c", after=b)
    step(made, "d", after=c)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when(Yes()).expect_anything()
    talk.when(Yes()).expect(Do("d")).when(No()).expect(Take("c")).when(Undone()).expect(Take("a"))
    talk.when(Undone()).expect_compensated()


def test_an_undo_is_owed_for_a_command_that_was_never_answered() -> None:
    """Its outcome is unknown, so it is undone like one that was done."""
    talk = second_under_way()
    for _ in range(2):
        talk.when_nobody_answers().expect(Do("second", (Yes("1"),)))
    talk.when_nobody_answers().expect(Take("second"))
    assert talk.state.cause is not None
    assert (talk.state.cause.kind, talk.state.cause.step) == (CauseKind.STEP_EXHAUSTED, "second")


def test_a_command_in_its_pause_is_undone_too() -> None:
    """Between two attempts nothing is out, but an attempt was: the undo is owed, and the pause is cancelled."""
    made = saga()
    step(made, "a")
    step(made, "b")
    talk = given(made, OPENED).expect_anything().when_next_timer_fires()
    paused = next(state.key for state in talk.state.steps if state.status is StepStatus.BACKOFF)
    failing = "b" if paused == "a" else "a"
    talk.when(No(), step=failing).expect(Take(paused))
    cancelled = [effect.timer.kind.value for effect in talk.decisions[-1].effects if isinstance(effect, CancelTimer)]
    assert sorted(cancelled) == ["attempt", "backoff", "saga"]


def test_the_reply_to_the_do_is_refused_once_its_undo_is_out() -> None:
    """Which of the two the participant saw first does not matter: it keeps both under their keys."""
    talk = second_under_way().when_asked(Action.CANCEL).expect(Take("second"))
    late = Replied("late", 0, "second", Direction.DO, 1, 1, Yes())
    talk.when_given(late).expect_refused("undoing").expect_step("second", StepStatus.UNDOING)


def test_an_undo_that_is_not_answered_is_repeated_and_at_last_calls_a_person() -> None:
    """Its own policy: here three attempts; then the step is stuck, and a late answer still counts."""
    made = saga()
    step(made, "a", undo=undo("a", attempts=3, within=seconds(5)))
    step(made, "b")
    talk = given(made, OPENED).expect_anything().when(Yes(), step="a").when(No()).expect(Take("a"))
    for _ in range(2):
        talk.when_nobody_answers().expect(Take("a"))
    talk.when_nobody_answers().expect_stuck("a").expect_step("a", StepStatus.UNDO_STUCK)
    talk.when(Undone()).expect_compensated()


def test_an_undo_is_retried_for_a_day_by_default() -> None:
    """An outage of a night does not call a person."""
    made = saga()
    step(made, "a")
    step(made, "b")
    talk = given(made, OPENED).expect_anything().when(Yes(), step="a").when(No()).expect(Take("a"))
    begun = talk.now_milliseconds
    talk.when_nobody_answers_until(Status.STUCK)
    assert 23.8 < (talk.now_milliseconds - begun) / 3_600_000 <= 24.01


def test_what_cannot_be_undone_calls_a_person_at_once() -> None:
    """A declared failure of the undo is not retried."""
    talk = second_under_way().when(No()).expect(Take("first")).when(Kept()).expect_stuck("first")
    talk.expect_step("first", StepStatus.UNDO_FAILED).expect_nothing()


def test_other_branches_are_undone_while_one_is_stuck() -> None:
    """A stuck undo holds back only what came before it."""
    talk = joined().when(No()).expect(Take("left")).expect(Take("right")).when(Kept(), step="left")
    talk.expect_stuck("left").when(Undone(), step="right").expect_stuck("left").expect_step("right", StepStatus.UNDONE)


def test_the_undo_receives_what_it_needs() -> None:
    """Its own `needs`: results that were there before the step."""
    made = saga()
    a = step(made, "a")
    b = step(made, "b", after=a, undo=undo("b", needs=a))
    step(made, "c", after=b)
    talk = given(made, OPENED).expect(Do("a")).when(Yes("A")).expect(Do("b")).when(Yes()).expect(Do("c"))
    talk.when(No()).expect(Take("b", (Yes("A"),)))


def test_an_undo_by_another_participant_is_refused() -> None:
    """Two inboxes know nothing of each other: the undo could be heard at one before the command is at the other."""
    with pytest.raises(DefinitionError, match="knows no by=") as raised:
        undo("a", by=other)
    assert "leave it out" in str(raised.value)


def test_a_failed_pivot_undoes_everything() -> None:
    """The pivot's business failure is the one thing that turns the saga round once it was sent."""
    talk = second_under_way().when(Yes("2")).expect(Do("pivot", (Yes("2"),))).when(No()).expect(Take("second"))
    talk.when(Undone()).expect(Take("first")).when(Undone(), step="first").expect_anything()


def test_items_are_undone_side_by_side_except_those_that_failed() -> None:
    """Each item that may have happened owes its undo; the one that said no owes none."""
    talk = given(basket(), Opened(lines=("x", "y", "z"))).expect_anything().when(Yes("c")).expect_anything()
    talk.when(Yes(), step="pick", item="0").when(No(), step="pick", item="1")
    talk.expect(Take("pick", ("x",))).expect(Take("pick", ("z",))).expect_nothing()
    talk.when(Undone(), step="pick", item="2").expect_status(Status.COMPENSATING)
    talk.when(Undone(), step="pick", item="0").expect_compensated()


def test_too_many_items_undo_what_came_before() -> None:
    """A list longer than its limit sends nothing and compensates."""
    talk = given(basket(limit=2), Opened(lines=("x", "y", "z"))).expect_anything().when(Yes()).expect_compensated()
    assert talk.state.cause is not None
    assert talk.state.cause.kind is CauseKind.TOO_MANY_ITEMS
    talk.expect_step("pick", StepStatus.FAILED)


def test_each_item_has_its_own_idempotency_key_and_its_undo_names_it() -> None:
    """Items differ by their place; an undo names the key of what it undoes."""
    talk = given(basket(), Opened(lines=("x", "y"))).expect_anything().when(Yes("c")).expect_anything()
    does = {effect.item: effect for effect in talk.decisions[-1].effects if isinstance(effect, SendCommand)}
    talk.when_asked(Action.CANCEL).expect_anything()
    undoes = {effect.item: effect for effect in talk.decisions[-1].effects if isinstance(effect, SendCommand)}
    assert set(does) == set(undoes) == {"0", "1"}
    for item, command in does.items():
        assert undoes[item].undoes == command.idempotency_key
        assert command.undoes is None
    keys = {effect.idempotency_key for effect in (*does.values(), *undoes.values())}
    assert len(keys) == 4


def test_a_saga_that_did_nothing_compensates_at_once() -> None:
    """Nothing owed, nothing awaited: one decision starts compensating and finishes."""
    made = saga()
    step(made, "a", undo=NO_EFFECT)
    talk = given(made, OPENED).expect(Do("a")).when(No()).expect_compensated()
    assert isinstance(talk.decisions[-1].effects[-1], Finish)


def test_the_deadline_turns_round_before_the_pivot() -> None:
    """The saga's own deadline, with nothing else amiss."""
    made = saga(deadline=hours(1))
    a = step(made, "a")
    pause = made.delay("pause", lasts=minutes(59.5), after=a)
    pivot(made, after=step(made, "b", after=pause, within=minutes(5)))
    talk = given(made, OPENED).expect_anything().when_time_passes(seconds(5)).when(Yes())
    talk.when_time_passes(minutes(59.8)).expect(Do("b")).when_time_passes(seconds(10)).expect(Take("b"))
    assert talk.state.cause is not None
    assert talk.state.cause.kind is CauseKind.DEADLINE


def test_a_delay_that_was_running_is_abandoned() -> None:
    """Its timer is cancelled with the saga's."""
    made = saga()
    a = step(made, "a")
    made.delay("pause", lasts=hours(1), after=a)
    talk = given(made, OPENED).expect(Do("a")).when(Yes()).when_asked(Action.CANCEL).expect(Take("a"))
    talk.expect_step("pause", StepStatus.ABANDONED).when(Undone()).expect_compensated()


def test_an_each_over_nothing_owes_nothing() -> None:
    """No item, no undo."""
    talk = given(basket(), OPENED).expect_anything().when(Yes()).expect(Do("pivot", ((),))).when(No())
    talk.expect_compensated()


def test_nothing_more_begins_once_the_saga_has_turned_round() -> None:
    """A no that came early turns it round while another step is ready: that one never begins, not even later."""
    made = saga()
    step(made, "beside")
    first = step(made, "first", undo=NO_EFFECT)
    made.wait("asked", succeeds=Agreed, fails=Denied, within=hours(1), on_timeout=COMPENSATE, after=first)
    step(made, "ready", after=first)
    talk = given(made, OPENED).expect_anything().when(Yes(), step="beside").when(Denied()).when(Yes())
    talk.expect(Take("beside")).expect_nothing().when_next_timer_fires().expect_nothing()
    talk.when(Undone()).expect_compensated().expect_step("ready", StepStatus.PENDING)


def test_what_was_undone_in_part_waits_for_the_rest_whatever_happens_beside_it() -> None:
    """A branch of its own, declared last, has no say in the order of the others."""
    made = saga()
    step(made, "b", after=step(made, "a"))
    step(made, "beside")
    talk = given(made, OPENED).expect_anything().when(Yes(), step="a").expect_anything().when(Yes(), step="b")
    talk.when(No()).expect(Take("b")).expect_nothing().when_next_timer_fires().expect_nothing()
    talk.when_next_timer_fires().expect(Take("b")).expect_nothing().when(Undone()).expect(Take("a"))


def test_an_each_stands_as_the_item_that_stands_worst() -> None:
    """Of one item, the each stands as the item does, all the way; of several, as the one that needs most."""
    one = given(basket(), Opened(lines=("x",))).expect_anything().when(Yes()).expect_anything()
    one.expect_step("pick", StepStatus.SENT).when_next_timer_fires().expect_step("pick", StepStatus.BACKOFF)
    one.when_asked(Action.CANCEL).expect_anything().expect_step("pick", StepStatus.UNDOING).when_next_timer_fires()
    one.expect_step("pick", StepStatus.UNDO_BACKOFF).when_nobody_answers_until(Status.STUCK)
    one.expect_stuck("pick").expect_step("pick", StepStatus.UNDO_STUCK).when(Undone(), step="pick", item="0")
    one.expect_compensated().expect_step("pick", StepStatus.UNDONE)

    refused = given(basket(), Opened(lines=("x",))).expect_anything().when(Yes()).expect_anything()
    refused.when(No(), step="pick", item="0").expect_compensated().expect_step("pick", StepStatus.FAILED)

    two = given(basket(), Opened(lines=("x", "y"))).expect_anything().when(Yes()).expect_anything()
    two.when_asked(Action.CANCEL).expect_anything().when(Kept(), step="pick", item="0")
    two.expect_stuck("pick").expect_step("pick", StepStatus.UNDO_FAILED)
    two.when(Undone(), step="pick", item="1").expect_stuck("pick")
