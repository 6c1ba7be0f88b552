"""Choices, fallbacks, tolerated failures, reminders, times from the data, events and results: rules 4 to 7."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from tests.unit.saga.course import (
    COURSES,
    SHOW,
    CalledOff,
    MoreTime,
    OpenedElsewhere,
    Reminded,
    Summary,
    Told,
    choice,
    choice_in_a_choice,
    fallback,
    partial,
    reminding,
    side_by_side,
    summary,
    tell,
    timed,
    two_starts,
    with_child,
)
from tests.unit.saga.support import OPENED, Agreed, Do, No, Opened, Take, Undone, Yes, do, pivot, saga, service, step
from towpath.saga import COMPENSATE, HALT, NO_EFFECT, BuilderError, Prolong, Remind, hours, one_of, seconds, tolerated
from towpath.saga.effects import SubsagaCompleted
from towpath.saga.inputs import Action
from towpath.saga.state import Direction, ParentReference, Status, StepState, StepStatus
from towpath.saga.testing import given
from towpath.saga.testing.world import World

S = StepStatus
PARENT = ParentReference("parent", "parent-1", "key", "child", Direction.DO, 1, 1)

# --- choices ----------------------------------------------------------------------------------------------------------


def test_one_branch_is_taken_and_the_others_are_skipped() -> None:
    """By invoice: two steps, and nothing is charged; who needs what the branches come to gets that of the taken one."""
    (
        given(choice(), Opened(number=1))
        .expect(Do("first"))
        .when(Yes())
        .expect(Do("draw_up"))
        .expect_step("charge", S.SKIPPED)
        .when(Yes("drawn up"))
        .expect(Do("send_invoice", (Yes("drawn up"),)))
        .when(Yes("sent"))
        .expect(Do("pivot", (Yes("sent"),)))
        .when(Yes("done"))
        .expect_event(Told((Yes("sent"), Yes("done"))))
        .expect_event(Summary("Yes"))
        .expect_completed()
    )


def test_how_steps_stand_that_wait_for_nobody() -> None:
    """What is decided, taken, joined or published has succeeded; the other branches are skipped."""
    talk = given(choice(), Opened(number=0)).expect_anything()
    for _ in range(3):
        talk.when(Yes()).expect_anything()
    talk.expect_completed()
    stands = {step.key: step.status for step in talk.state.steps}
    assert {key for key, status in stands.items() if status is S.SKIPPED} == {
        "invoice",
        "free",
        "draw_up",
        "send_invoice",
    }
    assert set(stands.values()) == {S.SUCCEEDED, S.SKIPPED}


def test_a_branch_in_which_nothing_lies_has_no_result() -> None:
    """For nothing: the pivot follows at once, and is given None."""
    given(choice(), Opened(number=2)).expect(Do("first")).when(Yes()).expect(Do("pivot", (None,)))


@pytest.mark.parametrize("reply", [Yes("paid"), No("later")], ids=["done", "declined"])
def test_what_a_branch_came_to_is_known_wherever_it_is_named(reply: object) -> None:
    """After a branch in which nothing lies, too; and a failure that is tolerated is what it came to."""
    made = saga("joined")
    card, free = made.choose("method", by=lambda event: "card" if event.number else "free", options=("card", "free"))
    charged: Any = made.step(
        service, do("charge"), after=card, undo=NO_EFFECT, succeeds=one_of(Yes, tolerated(No)), within=seconds(10)
    )
    pivot(made, needs=made.merge("paid", free, charged))
    given(made, Opened(number=1)).expect(Do("charge")).when(reply).expect(Do("pivot", (reply,)))
    given(made, Opened(number=0)).expect(Do("pivot", (None,)))


def test_what_was_done_in_the_taken_branch_is_undone() -> None:
    """And nothing of the others is, for nothing of them was done."""
    (
        given(choice(), Opened(number=0))
        .expect(Do("first"))
        .when(Yes())
        .expect(Do("charge"))
        .when(Yes())
        .expect(Do("pivot", (Yes(),)))
        .when(No())
        .expect(Take("charge"))
        .when(Undone())
        .expect(Take("first"))
        .when(Undone())
        .expect(Take("start", ("pivot: No",)))
        .when(Undone())
        .expect_compensated()
    )


@pytest.mark.parametrize(
    ("number", "asked"), [(0, ["go_left", "go_on"]), (1, ["elsewhere"]), (2, [])], ids=["both", "other", "neither"]
)
def test_a_choice_in_a_branch_is_decided_only_if_that_is_taken(number: int, asked: list[str]) -> None:
    """What follows the inner choice lies in the outer branch still."""
    talk = given(choice_in_a_choice(), Opened(number=number)).expect(Do("pivot")).when(Yes())
    for key in asked:
        talk.expect(Do(key, (Yes(),) if key == "go_on" else ())).when(Yes())
    talk.expect_completed()
    assert (talk.state.step("left").status is S.SUCCEEDED) == (number == 0)


def test_a_choice_that_names_no_option_is_the_functions_mistake() -> None:
    """It is told as that, and not as a branch of nobody."""
    made = saga("odd")
    made.choose("odd_choice", by=lambda _: "neither", options=("left", "right"))
    with pytest.raises(BuilderError, match="odd_choice"):
        given(made, OPENED)


# --- what is tolerated ------------------------------------------------------------------------------------------------


def test_the_first_that_is_not_declined_is_the_one_that_is_used() -> None:
    """By rail, since the road is closed: the third is never asked, and who needs it gets what the second answered."""
    (
        given(fallback(), OPENED)
        .expect(Do("by_road"))
        .when(No("closed"))
        .expect(Do("by_rail"))
        .when(Yes("track 9"))
        .expect_step("by_air", S.SKIPPED)
        .expect(Do("gift", (Yes("track 9"),)))
        .when(No("sold out"))
        .expect_step("gift", S.DECLINED)
        .expect(Do("pivot", (Yes("track 9"), No("sold out"))))
        .when(No())
        .expect(Take("by_rail"))
        .when(Undone())
        .expect(Take("start", ("pivot: No",)))
        .when(Undone())
        .expect_compensated()
    )


def test_the_last_that_stands_in_fails_as_any_step_does() -> None:
    """Nothing was done, so nothing but the start is undone."""
    talk = given(fallback(), OPENED).expect(Do("by_road")).when(No()).expect(Do("by_rail")).when(No())
    talk.expect(Do("by_air")).when(No()).expect(Take("start", ("by_air: No",))).when(Undone()).expect_compensated()


def test_silence_is_not_declined() -> None:
    """Whether it was done is unknown: it is undone, and nothing stands in for it."""
    talk = given(fallback(), OPENED).expect(Do("by_road"))
    for _ in range(3):
        talk.when_nobody_answers()
        if talk.state.status is Status.RUNNING:
            talk.expect(Do("by_road"))
    talk.expect(Take("by_road")).when(Undone()).expect(Take("start", ("by_road: step_exhausted",)))


def test_items_that_are_declined_are_not_undone() -> None:
    """The pivot is told of each item; the two that were picked are put back, the third never was."""
    talk = given(partial(), Opened(lines=("a", "b", "c")))
    for line in ("a", "b", "c"):
        talk.expect(Do("pick", (line,)))
    talk.when(Yes("1"), step="pick", item="0").when(No("2"), step="pick", item="1").when(
        Yes("3"), step="pick", item="2"
    )
    talk.expect(Do("pivot", ((Yes("1"), No("2"), Yes("3")),))).when(No())
    talk.expect(Take("pick", ("a",))).expect(Take("pick", ("c",)))
    talk.when(Undone(), step="pick", item="0").when(Undone(), step="pick", item="2").expect_compensated()


def test_a_list_of_which_all_is_declined_owes_nothing() -> None:
    """The saga goes on, as with an empty list, and can still be started compensating."""
    talk = given(partial(), Opened(lines=("a",))).expect(Do("pick", ("a",)))
    talk.when(No(), step="pick", item="0")
    talk.expect_step("pick", S.DECLINED).expect(Do("pivot", ((No(),),))).when(No()).expect_compensated()


# --- waits and delays -------------------------------------------------------------------------------------------------


def asked() -> Any:
    """Return a conversation that has come to its wait."""
    return given(reminding(), OPENED).expect(Do("first")).when(Yes())


def test_a_wait_reminds_until_it_is_answered() -> None:
    """Every two hours, three times at most; each reminder has its number, and an id of its own."""
    talk = asked().when_time_passes(hours(2)).expect_event(Reminded(1)).when_time_passes(hours(5))
    talk.expect_event(Reminded(2)).expect_event(Reminded(3)).when_time_passes(hours(1)).expect_nothing()
    published = [effect for decision in talk.decisions for effect in decision.effects if hasattr(effect, "event_id")]
    assert len({effect.event_id for effect in published}) == 3
    talk.when(Agreed()).expect(Do("pivot")).when(Yes()).expect_completed()


def test_nobody_is_reminded_of_what_is_over() -> None:
    """After an outage the reminders and the end are due together: the end counts."""
    talk = asked()
    talk.now_milliseconds += 11 * 3_600_000
    talk.when_next_timer_fires().expect(Take("first"))


def test_a_wait_is_prolonged_as_often_as_it_says() -> None:
    """Five hours each, twice; a third time is refused, and so is the same event once more."""
    talk = asked().when_time_passes(hours(7)).expect_anything()
    talk.when(MoreTime()).when_repeated().expect_refused("already applied")
    talk.when_time_passes(hours(7)).when(MoreTime()).when(MoreTime()).expect_refused("2 times already")
    talk.when_time_passes(hours(5)).expect_status(Status.RUNNING)
    talk.when_time_passes(hours(1)).expect(Take("first")).when(Undone()).expect_compensated()


def test_a_reminder_that_is_due_stays_where_it_is_when_the_wait_is_prolonged() -> None:
    """Only the end moves."""
    asked().when_time_passes(hours(1)).when(MoreTime()).when_time_passes(hours(1)).expect_event(Reminded(1))


def patient(**said: Any) -> Any:
    """Return a conversation that waits ten hours, and what else is said."""
    made = saga("patient")
    said = {"on_timeout": COMPENSATE, **said}
    made.wait("asked", succeeds=Agreed, within=hours(10), **said)
    return given(made, OPENED)


def test_how_a_wait_stands() -> None:
    """One that neither reminds nor can be prolonged has one timer, and nothing else to remember."""
    state = patient().state
    over = state.started_milliseconds + int(hours(10).total_seconds()) * 1_000
    assert state.step("asked") == StepState("asked", S.WAITING, 1, 1, over)


def test_a_wait_may_remind_and_not_be_prolonged() -> None:
    """After the last reminder it is over when it said."""
    talk = patient(reminds=Remind(lambda _, number: Reminded(number), event=Reminded, every=hours(4), times=2))
    talk.when_time_passes(hours(9)).expect_event(Reminded(1)).expect_event(Reminded(2)).expect_status(Status.RUNNING)
    talk.when_time_passes(hours(1)).expect_compensated()


def test_a_wait_may_be_prolonged_and_not_remind() -> None:
    """Its old timer no longer runs; once halted and retried, it may be prolonged as often as at first."""
    talk = patient(prolonged=Prolong(MoreTime, by=hours(5), times=1), on_timeout=HALT)
    talk.when_time_passes(hours(9)).when(MoreTime())
    assert sum("asked" in key for key in talk._timers) == 1
    talk.when_time_passes(hours(5)).expect_status(Status.RUNNING).when_time_passes(hours(1)).expect_stuck("asked")
    talk.when_asked(Action.RETRY, step="asked").when(MoreTime()).when_time_passes(hours(14))
    talk.expect_status(Status.RUNNING).when(MoreTime()).expect_refused("1 times already")


def test_there_is_nothing_to_prolong_before_and_after_the_wait() -> None:
    """It is refused, not kept: time that was asked for early is not a decision."""
    given(reminding(), OPENED).expect(Do("first")).when(MoreTime()).expect_refused("nothing to prolong")


def test_a_delay_lasts_until_the_time_that_the_data_names() -> None:
    """A time that has passed is no pause at all."""
    began = SHOW - timedelta(hours=40)
    talk = given(timed(), OPENED, at=began).expect(Do("first")).when(Yes()).when_time_passes(hours(39)).expect_nothing()
    talk.when_time_passes(hours(1)).expect(Do("pivot")).when(Yes()).when_next_timer_fires().expect(Do("ask_for_review"))


def test_a_delay_that_would_last_too_long_compensates() -> None:
    """49 hours are more than the 48 that it may last."""
    talk = given(timed(), OPENED, at=SHOW - timedelta(hours=49)).expect(Do("first")).when(Yes())
    talk.expect(Take("first")).when(Undone()).expect_compensated()
    assert str(talk.state.cause) == "doors: too_late"


def test_a_delay_past_the_pivot_that_would_last_too_long_halts() -> None:
    """A person waits a little and retries, or skips it; no reply can be given for it."""
    long_ago = datetime(2026, 6, 1, 20, tzinfo=UTC) - timedelta(hours=90)
    made = saga("late", deadline=hours(200))
    decided = made.pivot(service, lambda _: Do("pivot"), key="pivot", succeeds=Yes, within=seconds(10))
    made.delay("review", until=lambda _: SHOW, at_most=hours(48), after=decided)
    talk = given(made, OPENED, at=long_ago).expect(Do("pivot")).when(Yes()).expect_stuck("review")
    talk.when_asked(Action.RETRY, step="review").expect_stuck("review")
    talk.when_asked(Action.SKIP, step="review", reply=Yes()).expect_refused("does not declare Yes")
    talk.when_asked(Action.SKIP, step="review").expect_completed()


@pytest.mark.parametrize("time", [datetime(2026, 1, 1), "eight o'clock"], ids=["no zone", "no time"])
def test_a_time_without_its_zone_is_the_functions_mistake(time: Any) -> None:
    """What is eight o'clock differs from machine to machine."""
    made = saga("naive")
    made.delay("naive_delay", until=lambda _: time, at_most=hours(1))
    with pytest.raises(BuilderError, match="naive_delay"):
        given(made, OPENED)


# --- starts, cancels, events and results ------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [Opened(), OpenedElsewhere()], ids=lambda event: type(event).__name__)
def test_either_event_starts_the_saga(event: object) -> None:
    """Its functions receive whichever it was; its result is told once all is settled."""
    talk = given(two_starts(), event).expect(Do("first")).when(Yes())
    talk.when_time_passes(hours(1)).expect_event(Summary("Yes, NoneType")).expect_completed()


def test_an_event_cancels_before_the_pivot_and_is_refused_after_it() -> None:
    """As a person's request to cancel is; the cause names the event."""
    talk = asked().when(CalledOff()).expect(Take("first"))
    assert str(talk.state.cause) == "cancelled by CalledOff"
    talk.when(CalledOff()).expect_refused("compensates already").when(Undone()).expect_compensated()
    past = asked().when(Agreed()).expect(Do("pivot"))
    past.when(CalledOff()).expect_refused("past its point of no return").when(Yes()).expect_completed()


def test_a_sub_sagas_result_is_in_what_its_parent_hears() -> None:
    """A class of its own, as `returns` says."""
    heard = SubsagaCompleted("two_starts", "child-1", Summary("Yes"))
    talk = given(with_child(), OPENED).expect_anything().when(heard)
    talk.expect(Do("check", (heard,)))


def test_a_result_that_may_be_asked_back_is_told_to_the_parent_alone() -> None:
    """Nobody else may rely on it; a parent that asks for the undo is then told that nothing is left."""
    talk = given(two_starts(), OPENED, parent=PARENT).expect(Do("first")).when(Yes()).when(Agreed())
    talk.expect_answer(SubsagaCompleted("two_starts", talk.state.saga_id, Summary("Yes, Agreed"))).expect_completed()


def told() -> Any:
    """Return a saga that publishes an event, and comes to something."""
    made = saga("told")
    made.result(summary, event=Summary, needs=made.publish(tell, event=Told, needs=step(made, "first"), key="announce"))
    return made


def test_an_event_is_published_whoever_started_the_saga() -> None:
    """Only the result may still be taken back."""
    talk = given(told(), OPENED, parent=PARENT).expect(Do("first")).when(Yes()).expect_event(Told((Yes(),)))
    talk.expect_answer(SubsagaCompleted("told", talk.state.saga_id, Summary("Told"))).expect_completed()


def test_a_result_that_cannot_be_asked_back_is_published_too() -> None:
    """A sub-saga past its pivot stays done, so that anybody may rely on it."""
    made = saga("decided")
    made.result(summary, event=Summary, needs=pivot(made))
    talk = given(made, OPENED, parent=PARENT).expect(Do("pivot")).when(Yes()).expect_event(Summary("Yes"))
    talk.expect_answer(SubsagaCompleted("decided", talk.state.saga_id, Summary("Yes"))).expect_completed()


def test_an_undo_in_any_order_waits_for_no_other_and_none_for_it() -> None:
    """The second is undone beside the third; the first waits for the third alone, the start for all."""
    talk = given(side_by_side(), OPENED)
    for key in ("first", "second", "third"):
        talk.expect(Do(key, (Yes(),) if key != "first" else ())).when(Yes()) if key != "third" else None
    talk.expect_anything().when(No()).expect(Take("second")).expect(Take("first"))
    talk.when(Undone(), step="first").expect_nothing().when(Undone(), step="second")
    talk.expect(Take("start", ("third: No",))).when(Undone()).expect_compensated()


# --- in any world -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COURSES)
@pytest.mark.parametrize("seed", range(15))
def test_promises_are_kept_in_a_hostile_world(name: str, seed: int) -> None:
    """Late, repeated, lost, out of order, and people who cancel: the world asserts after every decision."""
    dice = Random(seed)
    world = World(COURSES[name]().definition)
    for _ in range(40):
        moves = world.moves()
        usual = [move for move in moves if not move.adverse]
        chosen = dice.choice(usual) if usual and dice.random() < 0.6 else dice.choice(moves)
        chosen.happen()
    world.settle()


def test_a_step_without_effect_is_declined_too() -> None:
    """Nothing is owed either way."""
    made = saga("no_effect")
    checked = step(made, "check", undo=NO_EFFECT)
    step(made, "check_again", instead_of=checked)
    given(made, OPENED).expect(Do("check")).when(No()).expect(Do("check_again")).when(Yes()).expect_completed()
