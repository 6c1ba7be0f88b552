"""What decides a saga's course is proved: clean sagas are clean, and mistakes of machine and author are found."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from tests.unit.saga.check.running import MODULE, written_test
from tests.unit.saga.check.test_reduction import compare
from tests.unit.saga.course import (
    COURSES,
    CalledOff,
    MoreTime,
    Reminded,
    Summary,
    Told,
    Votes,
    choice,
    contest,
    contest_in_a_chain,
    fallback,
    gathering,
    gathering_in_its_time,
    partial,
    reminding,
    side_by_side,
    subscription,
    summary,
    timed,
    two_starts,
    with_children,
)
from tests.unit.saga.support import Agreed, Do, No, Opened, Yes, pivot, saga, service, step
from towpath.saga import (
    COMPENSATE,
    NO_EFFECT,
    DefinitionError,
    Prolong,
    Remind,
    Saga,
    days,
    hours,
    one_of,
    seconds,
    tolerated,
)
from towpath.saga.check import Check, Property, Report
from towpath.saga.check.endings import judge_graph
from towpath.saga.check.explore import Explorer, explore
from towpath.saga.decision_builder import DecisionBuilder
from towpath.saga.effects import AnswerParent, StartSaga, SubsagaCompleted
from towpath.saga.state import Cause, CauseKind, Direction, Status, StepState, StepStatus

machine: Any = sys.modules["towpath.saga.advance"]
beginning: Any = sys.modules["towpath.saga.beginning"]
S = StepStatus
Patch = pytest.MonkeyPatch


def check(*sagas: Saga[Any]) -> list[Report]:
    """Check sagas side by side."""
    imports = {(made.name, made.definition.version): f"{MODULE}:saga" for made in sagas}
    return Check([made.definition for made in sagas], lambda: 0.0, imports=imports).run()


@pytest.mark.parametrize("name", COURSES)
def test_a_right_course_is_clean(name: str) -> None:
    """Nothing is found in any of them, nor in what they start."""
    assert [
        (each.rule, each.subject, each.words) for report in check(COURSES[name]()) for each in report.violations
    ] == []


@pytest.mark.parametrize("name", sorted(COURSES.keys() - {"choice", "contest_in_a_chain", "fallback", "partial"}))
def test_the_reduced_search_of_a_course_finds_what_the_whole_one_finds(name: str) -> None:
    """Branches, reminders and times are searched whole by both."""
    definition = COURSES[name]().definition
    whole = Explorer(definition, reduced=False, states_max=3_000).run()
    assert whole.whole
    compare(definition, whole)


# --- mistakes of the machine ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mutation:
    """A way to break the machine, a saga that shows it, and what is then found."""

    patch: Callable[[Patch], None]
    saga: Callable[[], Saga[Any]]
    rule: Property
    as_child: bool = False


MUTATIONS: dict[str, Mutation] = {}


def mutation(rule: Property, saga: Callable[[], Saga[Any]], *, as_child: bool = False) -> Callable[[Any], Any]:
    """Register a mutation under its function's name."""

    def register(patch: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTATIONS[patch.__name__] = Mutation(patch, saga, rule, as_child)
        return patch

    return register


@mutation(Property.BRANCHES, choice)
def every_branch_is_taken(patch: Patch) -> None:
    def choose(builder: DecisionBuilder, position: int, step: Any) -> None:
        builder.option(step)
        for number in range(len(step.options) + 1):
            key = builder.definition.steps[position + number].key
            builder.put(position + number, "", StepState(key, S.SUCCEEDED))

    patch.setattr(beginning, "_choose", choose)


@mutation(Property.BRANCHES, choice)
def what_lies_in_a_branch_is_always_done(patch: Patch) -> None:
    skipped = beginning.is_skipped
    patch.setattr(machine, "is_skipped", lambda builder, step: skipped(builder, replace(step, only_in=())))


@mutation(Property.BRANCHES, choice)
def what_lies_in_the_taken_branch_is_skipped(patch: Patch) -> None:
    skipped = beginning.is_skipped
    patch.setattr(machine, "is_skipped", lambda builder, step: step.key == "charge" or skipped(builder, step))


@mutation(Property.BRANCHES, fallback)
def what_stands_in_is_always_done(patch: Patch) -> None:
    skipped = beginning.is_skipped
    patch.setattr(machine, "is_skipped", lambda builder, step: skipped(builder, replace(step, instead_of=None)))


@mutation(Property.DECLINED, fallback)
def what_is_tolerated_turns_the_saga_round(patch: Patch) -> None:
    take = machine._take

    def strict(builder: DecisionBuilder, position: int, item: str, cell: StepState, answer: object) -> None:
        take(builder, position, item, cell, answer)
        step = builder.definition.steps[position]
        if type(answer) in step.tolerated:
            machine.turn_round(builder, Cause(CauseKind.STEP_FAILED, step.key, item, answer))

    patch.setattr(machine, "_take", strict)


@mutation(Property.DECLINED, fallback)
def what_is_declined_counts_as_done(patch: Patch) -> None:
    def take(builder: DecisionBuilder, position: int, item: str, cell: StepState, answer: object) -> None:
        succeeds = builder.definition.steps[position].outcomes[type(answer)]
        builder.put(position, item, machine.becoming(cell, S.SUCCEEDED if succeeds else S.FAILED, answer))

    patch.setattr(machine, "_take", take)


@mutation(Property.UNDO_OWED, partial)
def items_that_were_declined_are_undone(patch: Patch) -> None:
    def undo(builder: DecisionBuilder, position: int) -> None:
        for item in builder.steps[position].items:
            builder.send_anew(position, item.key, item, machine._UNDO)

    patch.setattr(machine, "_undo", undo)


@mutation(Property.EVENTS, choice)
def an_event_is_published_twice(patch: Patch) -> None:
    publish = DecisionBuilder.publish

    def twice(builder: DecisionBuilder, step: Any, event: object, number: int = 0) -> None:
        publish(builder, step, event, number)
        publish(builder, step, event, number)

    patch.setattr(DecisionBuilder, "publish", twice)


@mutation(Property.EVENTS, two_starts, as_child=True)
def a_result_that_may_be_asked_back_is_published(patch: Patch) -> None:
    publish = beginning._publish

    def alone(builder: DecisionBuilder, position: int, step: Any) -> None:
        parent, builder.parent = builder.parent, None
        publish(builder, position, step)
        builder.parent = parent

    patch.setattr(beginning, "_publish", alone)


@mutation(Property.ENDING, two_starts, as_child=True)
def the_parent_is_told_no_result(patch: Patch) -> None:
    answer = machine.DecisionBuilder.answer_parent

    def without(builder: DecisionBuilder) -> None:
        answer(builder)
        told = builder.effects[-1]
        if isinstance(told, AnswerParent) and hasattr(told.reply, "result"):
            silent: SubsagaCompleted[object] = SubsagaCompleted(told.reply.saga, told.reply.saga_id)
            builder.effects[-1] = replace(told, reply=silent)

    patch.setattr(machine.DecisionBuilder, "answer_parent", without)


@mutation(Property.POLICY, reminding)
def a_reminder_ends_the_wait(patch: Patch) -> None:
    def remind_and_give_up(builder: DecisionBuilder, position: int, cell: StepState) -> None:
        step = builder.definition.steps[position]
        builder.publish(step, Reminded(), cell.attempt)
        builder.put(position, "", machine.becoming(cell, S.FAILED))
        machine.turn_round(builder, Cause(CauseKind.WAIT_TIMED_OUT, step.key))

    patch.setattr(DecisionBuilder, "remind", remind_and_give_up)


@mutation(Property.EVENTS, reminding)
def nobody_is_reminded(patch: Patch) -> None:
    patch.setattr(DecisionBuilder, "publish", lambda *_: None)


@mutation(Property.STALE, reminding)
def a_wait_is_prolonged_without_end(patch: Patch) -> None:
    def prolong(builder: DecisionBuilder, input_: Any) -> str | None:
        position = builder.definition.prolongs[type(input_.signal)]
        if builder.steps[position].status is not S.WAITING:
            return "no"
        builder.prolong(position, builder.steps[position])
        return None

    patch.setattr(machine, "_prolong", prolong)


@mutation(Property.STALE, reminding)
def what_prolonged_a_wait_prolongs_it_again_when_it_is_repeated(patch: Patch) -> None:
    once = machine._decided_once

    def again(builder: DecisionBuilder, input_: Any, apply: Any) -> str | None:
        recent, builder.recent = builder.recent, ()
        refusal: str | None = once(builder, input_, apply)
        builder.recent = recent + builder.recent
        return refusal

    patch.setattr(machine, "_decided_once", again)


@mutation(Property.FAILURE, reminding)
def an_event_that_cancels_is_ignored(patch: Patch) -> None:
    signalled = machine._signalled

    def handle(builder: DecisionBuilder, input_: Any) -> str | None:
        return None if isinstance(input_.signal, CalledOff) else str(signalled(builder, input_) or "") or None

    patch.setitem(machine._HANDLERS, machine.Signalled, handle)


@mutation(Property.TOTAL, timed)
def a_time_too_far_away_is_waited_for(patch: Patch) -> None:
    def until(builder: DecisionBuilder, step: Any) -> int:
        raise OverflowError(step.key)

    patch.setattr(DecisionBuilder, "until", until)


@mutation(Property.UNDO_ORDER, side_by_side)
def all_is_undone_at_once(patch: Patch) -> None:
    def undo_all(builder: DecisionBuilder) -> bool:
        outstanding = False
        for position in range(len(builder.steps) - 1, -1, -1):
            status = builder.steps[position].status
            if status in (S.SUCCEEDED, S.UNKNOWN) and machine._owes(
                builder.definition.steps[position], builder.steps[position]
            ):
                machine._undo(builder, position)
                outstanding = True
            outstanding = outstanding or status in machine.BEING_UNDONE
        return outstanding

    patch.setattr(machine, "_undo_what_is_free", undo_all)


gathering_rules: Any = sys.modules["towpath.saga.gathering"]
contest_rules: Any = sys.modules["towpath.saga.contest"]


@mutation(Property.STALE, gathering_in_its_time)
def more_is_gathered_than_may_be(patch: Patch) -> None:
    def take_in(builder: DecisionBuilder, input_: Any) -> str | None:
        cell = builder.steps[builder.definition.gathers[type(input_.signal)]]
        if cell.status is not S.WAITING:
            found: str | None = gathering_rules.take_in(builder, input_)
            return found
        builder.go_on_gathering(builder.definition.gathers[type(input_.signal)], cell, Votes())
        return None

    patch.setattr(machine, "take_in", take_in)


@mutation(Property.POLICY, gathering)
def a_signal_moves_the_deadline(patch: Patch) -> None:
    def go_on(builder: DecisionBuilder, position: int, cell: StepState, gathered: object) -> None:
        builder.cancel(position, "", cell)
        later = cell.give_up_milliseconds + 1
        more = replace(cell, round=cell.round + 1, result=gathered)
        builder._await(position, replace(more, due_milliseconds=later, give_up_milliseconds=later))

    patch.setattr(DecisionBuilder, "go_on_gathering", go_on)


@mutation(Property.POLICY, gathering)
def what_is_gathered_is_lost(patch: Patch) -> None:
    go_on = DecisionBuilder.go_on_gathering
    patch.setattr(
        DecisionBuilder, "go_on_gathering", lambda builder, position, cell, _: go_on(builder, position, cell, None)
    )


@mutation(Property.UNHANDLED, gathering)
def what_comes_early_is_not_gathered(patch: Patch) -> None:
    take_in = gathering_rules.take_in

    def late(builder: DecisionBuilder, input_: Any) -> str | None:
        pending = builder.steps[builder.definition.gathers[type(input_.signal)]].status is S.PENDING
        refusal: str | None = "too early" if pending else take_in(builder, input_)
        return refusal

    patch.setattr(machine, "take_in", late)


@mutation(Property.UNDO_OWED, contest)
def what_was_not_needed_is_left(patch: Patch) -> None:
    def forget(builder: DecisionBuilder, position: int, item: StepState) -> None:
        builder.put(position, item.key, replace(item, status=S.UNKNOWN, due_milliseconds=0))

    patch.setattr(contest_rules, "give_up_item", forget)


@mutation(Property.UNDO_OWED, contest)
def the_saga_ends_before_the_others_are_undone(patch: Patch) -> None:
    patch.setattr(machine, "others_are_being_undone", lambda _: False)


@mutation(Property.UNDO_OWED, contest)
def the_winner_is_undone(patch: Patch) -> None:
    enough = contest_rules.enough_can_succeed

    def all_of_them(builder: DecisionBuilder, position: int) -> bool:
        found: bool = enough(builder, position)
        for item in builder.steps[position].items:
            if found and item.status is S.SUCCEEDED:
                builder.send_anew(position, item.key, item, Direction.UNDO)
        return found

    patch.setattr(machine, "enough_can_succeed", all_of_them)


@mutation(Property.DEADLOCK, contest)
def the_saga_waits_for_what_cannot_come(patch: Patch) -> None:
    enough = contest_rules.enough_can_succeed
    patch.setattr(machine, "enough_can_succeed", lambda builder, position: enough(builder, position) or True)


@mutation(Property.EVENTS, subscription)
def the_next_is_started_twice(patch: Patch) -> None:
    start = DecisionBuilder.start_next

    def twice(builder: DecisionBuilder, step: Any, event: object) -> None:
        start(builder, step, event)
        start(builder, step, event)

    patch.setattr(DecisionBuilder, "start_next", twice)


@mutation(Property.EVENTS, subscription)
def the_next_is_started_before_the_end(patch: Patch) -> None:
    finish = machine._finish

    def stay(builder: DecisionBuilder) -> None:
        if builder.direction is Direction.DO and any(hasattr(effect, "next_key") for effect in builder.effects):
            builder.status = Status.RUNNING
        else:
            finish(builder)

    patch.setattr(machine, "_finish", stay)


@mutation(Property.EVENTS, contest_in_a_chain)
def the_next_is_started_before_the_others_are_undone(patch: Patch) -> None:
    patch.setattr(beginning, "others_are_being_undone", lambda _: False)


@mutation(Property.STALE, with_children)
def children_share_one_attempt(patch: Patch) -> None:
    send = DecisionBuilder._send

    def confuse(builder: DecisionBuilder, position: int, item: str, sent: StepState, direction: Direction) -> None:
        send(builder, position, item, sent, direction)
        builder.effects[:] = [
            replace(effect, item="0") if isinstance(effect, StartSaga) else effect for effect in builder.effects
        ]

    patch.setattr(DecisionBuilder, "_send", confuse)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_broken_machine_is_found_out(name: str, monkeypatch: Patch) -> None:
    """The check names the property, and its test fails until the machine is fixed."""
    broken = MUTATIONS[name]
    definition = broken.saga().definition
    with monkeypatch.context() as patch:
        broken.patch(patch)
        exploration = explore(definition, as_child=broken.as_child)
        found = {each.breach.rule: each for each in [*exploration.found.values(), *judge_graph(exploration)]}
        assert broken.rule in found
        imports = {(definition.name, definition.version): f"{MODULE}:saga"}
        violation = Check([definition], lambda: 0.0, imports=imports).violation_at(
            definition, exploration, found[broken.rule]
        )
        test = written_test(violation.test, definition, monkeypatch)
        with pytest.raises(AssertionError, match="but"):
            test()
    test()


# --- mistakes of the author that the check finds ----------------------------------------------------------------------


def _needs_a_reply(_: Opened, reply: Yes) -> Do:
    return Do(reply.note)


def a_branch_without_a_result() -> Saga[Any]:
    """The pivot is written for a reply that it does not get where the third branch is taken."""
    made = saga("missing")
    card, free = made.choose("method", by=lambda _: "free", options=("card", "free"))
    paid: Any = made.merge("paid", step(made, "charge", after=card), free)
    made.pivot(service, _needs_a_reply, key="pivot", needs=paid, succeeds=Yes, within=seconds(10))
    return made


def a_failure_that_nobody_expects() -> Saga[Any]:
    """The pivot is written for a success, and may get the failure that is tolerated."""
    made = saga("tolerant")
    gift: Any = made.step(
        service, _do_gift, key="gift", undo=NO_EFFECT, succeeds=one_of(Yes, tolerated(No)), within=seconds(10)
    )
    made.pivot(service, _needs_a_reply, key="pivot", needs=gift, succeeds=Yes, within=seconds(10))
    return made


def _do_gift(_: Opened) -> Do:
    return Do("gift")


def a_choice_of_nothing_known() -> Saga[Any]:
    """Its function names an option that there is not."""
    made = saga("odd")
    made.choose("pivot", by=lambda _: "cash", options=("card", "invoice"))
    return made


def an_event_of_another_class() -> Saga[Any]:
    """Its function returns what the event is not."""
    made = saga("event")
    made.publish(_wrong_event, event=Told, key="pivot")
    return made


def _wrong_event(_: Opened) -> Any:
    return Summary("x")


def _wrong_reminder(_: Opened, number: int) -> int:
    return number


def a_reminder_of_another_class() -> Saga[Any]:
    """So does that of a reminder."""
    made = saga("reminder")
    wrong: Any = Remind(_wrong_reminder, event=Reminded, every=hours(1), times=2)
    made.wait("pivot", succeeds=Agreed, within=hours(9), on_timeout=COMPENSATE, reminds=wrong)
    return made


def a_time_without_a_zone() -> Saga[Any]:
    """It differs from machine to machine."""
    made = saga("naive")
    made.delay("pivot", until=lambda _: datetime(2026, 1, 1), at_most=hours(9))
    return made


AUTHORS: dict[str, tuple[Callable[[], Saga[Any]], Property]] = {
    each.__name__: (each, rule)
    for each, rule in (
        (a_branch_without_a_result, Property.MISSING_RESULT),
        (a_failure_that_nobody_expects, Property.MISSING_RESULT),
        (a_choice_of_nothing_known, Property.WRONG_VALUE),
        (an_event_of_another_class, Property.WRONG_VALUE),
        (a_reminder_of_another_class, Property.WRONG_VALUE),
        (a_time_without_a_zone, Property.WRONG_VALUE),
    )
}


@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_mistake_is_found(name: str) -> None:
    """At its step; and the test that is written of it fails."""
    build, rule = AUTHORS[name]
    assert (rule, "pivot") in {(each.rule, each.subject) for report in check(build()) for each in report.violations}


def test_a_message_that_cancels_or_prolongs_is_no_other_thing() -> None:
    """An event that also answers a wait would do one of the two, nobody knows which."""
    made = saga("both", cancel_on=Agreed)
    made.wait("asked", succeeds=Agreed, within=hours(1), on_timeout=COMPENSATE)
    assert Property.AMBIGUOUS in {each.rule for report in check(made) for each in report.violations}


# --- mistakes of the author that the language refuses -----------------------------------------------------------------


def _two() -> Any:
    made = saga("two")
    return made, *made.choose("method", by=lambda _: "card", options=("card", "invoice"))


def two_branches_without_a_merge() -> None:
    """They never come together."""
    made, card, invoice = _two()
    step(made, "both", after=step(made, "charge", after=card) & step(made, "bill", after=invoice))


def a_pivot_in_a_branch() -> None:
    """There would be no point of no return where the other branch is taken."""
    made, card, _ = _two()
    pivot(made, after=step(made, "charge", after=card))


def a_merge_without_a_branch() -> None:
    """What is joined is all of them."""
    made, card, _ = _two()
    made.merge("paid", step(made, "charge", after=card), step(made, "again", after=card))


def a_merge_of_what_is_no_branch() -> None:
    """Two steps side by side are joined by &."""
    made = saga("plain")
    made.merge("paid", step(made, "one"), step(made, "other"))


def a_fallback_for_what_cannot_be_declined() -> None:
    """Where nothing can fail, nothing stands in."""
    made = saga("sure")
    step(
        made,
        "second",
        instead_of=made.step(service, _do_gift, key="gift", undo=NO_EFFECT, succeeds=Yes, within=seconds(1)),
    )


def a_step_that_needs_what_may_be_replaced() -> None:
    """It needs whichever was done."""
    made = saga("needs")
    first = step(made, "first")
    step(made, "second", instead_of=first)
    step(made, "third", needs=first)


def a_fallback_that_comes_too_late() -> None:
    """What needs the first already would be given its failure."""
    made = saga("late")
    first = step(made, "first")
    step(made, "third", needs=first)
    step(made, "second", instead_of=first)


def a_pivot_with_a_tolerated_failure() -> None:
    """A pivot that failed has not happened."""
    made = saga("tolerant")
    made.pivot(service, _do_gift, key="pivot", succeeds=one_of(Yes, tolerated(No)), within=seconds(10))


def _right_reminder(_: Opened, number: int) -> Reminded:
    return Reminded(number)


def reminders_that_do_not_fit() -> None:
    """The last would come after the end."""
    made = saga("often")
    often: Any = Remind(_right_reminder, event=Reminded, every=hours(5), times=2)
    made.wait("asked", succeeds=Agreed, within=hours(10), on_timeout=COMPENSATE, reminds=often)


def a_wait_that_may_outlast_the_saga() -> None:
    """With all that may prolong it."""
    made = saga("long", deadline=days(2))
    longer = Prolong(MoreTime, by=days(1), times=5)
    made.wait("asked", succeeds=Agreed, within=hours(1), on_timeout=COMPENSATE, prolonged=longer)


def a_step_after_the_result() -> None:
    """The result is what all has come to."""
    made = saga("after")
    step(made, "first")
    made.result(summary, event=Summary)
    step(made, "second")


def a_result_of_a_branch() -> None:
    """It may not be there."""
    made, card, _ = _two()
    made.result(summary, event=Summary, needs=step(made, "charge", after=card))


def a_sub_saga_that_returns_something_else() -> None:
    """The class is that of its own result."""
    saga("parent").subsaga(two_starts(), lambda event: event, returns=Told, within=hours(30))


def an_event_that_takes_what_it_is_not_given() -> None:
    """Functions are judged by their parameters."""
    publish: Any = saga("few").publish
    publish(_nothing_given, event=Told, key="tell")


def _nothing_given() -> Told:
    return Told()


REFUSED = (
    two_branches_without_a_merge,
    a_pivot_in_a_branch,
    a_merge_without_a_branch,
    a_merge_of_what_is_no_branch,
    a_fallback_for_what_cannot_be_declined,
    a_step_that_needs_what_may_be_replaced,
    a_fallback_that_comes_too_late,
    a_pivot_with_a_tolerated_failure,
    reminders_that_do_not_fit,
    a_wait_that_may_outlast_the_saga,
    a_step_after_the_result,
    a_result_of_a_branch,
    a_sub_saga_that_returns_something_else,
    an_event_that_takes_what_it_is_not_given,
)


@pytest.mark.parametrize("declare", REFUSED, ids=lambda declare: declare.__name__)
def test_the_mistake_is_refused_at_import(declare: Callable[[], None]) -> None:
    """With the way to fix it."""
    with pytest.raises(DefinitionError) as refused:
        declare()
    assert refused.value.next_step
