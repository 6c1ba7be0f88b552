"""Mistakes of the machine itself: each, made on purpose, is found by the check of a saga that shows it.

The check runs the production `advance`, so a function of the machine that is replaced by a wrong one is what it
explores.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.unit.saga.check.large import branched
from tests.unit.saga.check.planted import begin, child, confirm, pivoted, ship, start_child, two_steps, undoable
from tests.unit.saga.check.running import MODULE, written_test
from tests.unit.saga.check.words import (
    Approved,
    Begun,
    Declined,
    NotTakenBack,
    TakenBack,
    Well,
    ask_item,
    lines_of,
    shop,
    take_back,
    take_back_item,
    take_back_start,
)
from towpath.saga import COMPENSATE, HALT, Definition, Saga, Undo, UndoEach, UndoStart, hours, seconds
from towpath.saga.check import Check, Property, Violation, explore
from towpath.saga.check.endings import judge_graph
from towpath.saga.decision_builder import DecisionBuilder
from towpath.saga.effects import AnswerParent, SubsagaCompensated
from towpath.saga.inputs import Action
from towpath.saga.state import Cause, CauseKind, Direction, StepState, StepStatus

# `towpath.saga.advance` is a function in its package's eyes; the module is what is changed here.
machine: Any = sys.modules["towpath.saga.advance"]
S = StepStatus


def with_everything() -> Definition:
    """Return a saga in which every rule of the machine matters."""
    saga = Saga(
        "everything",
        version=1,
        starts_on=Begun,
        deadline=hours(40),
        undo=UndoStart(take_back_start, by=shop, succeeds=TakenBack, within=seconds(10)),
    )
    first = undoable(saga, "first", undo=Undo(take_back, succeeds=TakenBack, fails=NotTakenBack))
    second = undoable(saga, "second", after=first)
    beside = undoable(saga, "beside", after=first)
    answer = saga.wait(
        "answer",
        after=second & beside,
        succeeds=Approved,
        fails=Declined,
        within=hours(1),
        on_timeout=COMPENSATE,
    )
    ship(saga, confirm(saga, answer))
    return saga.definition


def with_items() -> Definition:
    """Return a saga with a list."""
    saga = begin()
    items = saga.each(
        shop,
        ask_item,
        key="items",
        over=lines_of,
        limit=5,
        succeeds=Well,
        undo=UndoEach(take_back_item, succeeds=TakenBack),
        within=seconds(10),
    )
    confirm(saga, items)
    return saga.definition


def with_halt() -> Definition:
    """Return a saga that halts where nobody answers."""
    saga = begin()
    first = undoable(saga, "first")
    answer = saga.wait("answer", after=first, succeeds=Approved, within=hours(1), on_timeout=HALT)
    confirm(saga, answer)
    return saga.definition


def with_child() -> Definition:
    """Return a saga with a sub-saga."""
    saga = begin()
    confirm(saga, saga.subsaga(child(), start_child, within=hours(2)))
    return saga.definition


Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Mutation:
    """A way to break the machine, a saga that shows it, and what is then found."""

    patch: Callable[[Patch], None]
    definition: Callable[[], Definition]
    rule: Property
    as_child: bool = False


MUTATIONS: dict[str, Mutation] = {}


def mutation(
    rule: Property, definition: Callable[[], Definition] = with_everything, *, as_child: bool = False
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutation under its function's name."""

    def register(patch: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTATIONS[patch.__name__] = Mutation(patch, definition, rule, as_child)
        return patch

    return register


# --- undoing ----------------------------------------------------------------------------------------------------------


@mutation(Property.UNDO_OWED, lambda: two_steps().definition)
def an_undo_is_skipped(patch: Patch) -> None:
    owes = machine._owes
    patch.setattr(machine, "_owes", lambda step, state: step.key != "first" and owes(step, state))


@mutation(Property.UNDO_OWED)
def the_undo_of_the_start_is_forgotten(patch: Patch) -> None:
    owes = machine._owes
    patch.setattr(machine, "_owes", lambda step, state: step.key != "start" and owes(step, state))


@mutation(Property.UNDO_OWED, lambda: two_steps().definition)
def a_step_whose_outcome_is_unknown_is_not_undone(patch: Patch) -> None:
    owes = machine._owes
    patch.setattr(machine, "_owes", lambda step, state: state.status is S.SUCCEEDED and owes(step, state))


@mutation(Property.UNDO_ORDER)
def steps_are_undone_in_the_order_in_which_they_were_done(patch: Patch) -> None:
    def undo_all(turn: DecisionBuilder) -> bool:
        outstanding = False
        for position in range(len(turn.steps)):
            status = turn.steps[position].status
            owes = status in (S.SUCCEEDED, S.UNKNOWN) and machine._owes(
                turn.definition.steps[position], turn.steps[position]
            )
            if owes and not outstanding:
                machine._undo(turn, position)
            outstanding = outstanding or owes or status in machine.BEING_UNDONE
        return outstanding

    patch.setattr(machine, "_undo_what_is_free", undo_all)


@mutation(Property.UNDO_ORDER)
def steps_are_undone_all_at_once(patch: Patch) -> None:
    def undo_all(turn: DecisionBuilder) -> bool:
        outstanding = False
        for position, step in enumerate(turn.definition.steps):
            status = turn.steps[position].status
            if status in (S.SUCCEEDED, S.UNKNOWN) and machine._owes(step, turn.steps[position]):
                machine._undo(turn, position)
            outstanding = outstanding or turn.steps[position].status in machine.BEING_UNDONE
        return outstanding

    patch.setattr(machine, "_undo_what_is_free", undo_all)


@mutation(Property.UNDO_OWED)
def what_failed_is_undone_as_well(patch: Patch) -> None:
    take = machine._take

    def take_wrongly(turn: DecisionBuilder, position: int, item: str, cell: StepState, answer: object) -> None:
        take(turn, position, item, cell, answer)
        if turn.steps[position].status is S.FAILED and turn.definition.steps[position].undo is not None:
            turn.put(position, item, replace(turn.steps[position], status=S.UNKNOWN))

    patch.setattr(machine, "_take", take_wrongly)


@mutation(Property.UNDO_OWED, with_items)
def one_item_of_a_list_is_not_undone(patch: Patch) -> None:
    undo = machine._undo

    def undo_first(turn: DecisionBuilder, position: int) -> None:
        state = turn.steps[position]
        if len(state.items) > 1:
            item = state.items[0]
            turn.put(position, item.key, replace(item, status=S.UNDONE))
        undo(turn, position)

    patch.setattr(machine, "_undo", undo_first)


@mutation(Property.STALE)
def a_cancellation_interrupts_an_undo(patch: Patch) -> None:
    turn_round_for = machine._turn_round_for

    def interrupt(turn: DecisionBuilder, input_: Any) -> str | None:
        if turn.direction is Direction.UNDO:
            for position, item, cell in turn.cells():
                if cell.status is S.UNDOING:
                    turn.cancel(position, item, cell)
                    turn.put(position, item, replace(cell, status=S.UNKNOWN, due_milliseconds=0))
            return None
        found: str | None = turn_round_for(turn, input_)
        return found

    patch.setitem(machine._ACTIONS, Action.CANCEL, interrupt)


@mutation(Property.PIVOT)
def the_pivot_is_no_point_of_no_return(patch: Patch) -> None:
    patch.setattr(machine, "committed", lambda turn: False)


@mutation(Property.STALE)
def a_cancellation_is_taken_past_the_pivot(patch: Patch) -> None:
    def turn_round(turn: DecisionBuilder, input_: Any) -> str | None:
        if turn.direction is Direction.UNDO:
            return "the saga compensates already"
        machine.turn_round(turn, Cause(CauseKind.CANCELLED, actor=input_.actor, reason=input_.reason))
        return None

    patch.setitem(machine._ACTIONS, Action.CANCEL, turn_round)


@mutation(Property.UNHANDLED)
def the_reply_to_an_undo_is_refused(patch: Patch) -> None:
    patch.setattr(machine, "_TAKE_UNDO_REPLY", ())


@mutation(Property.UNDO_ORDER)
def an_undo_that_is_refused_counts_as_done(patch: Patch) -> None:
    becoming = machine.becoming

    def hidden(cell: StepState, status: StepStatus, result: object | None = None) -> StepState:
        found: StepState = becoming(cell, S.UNDONE if status is S.UNDO_FAILED else status, result)
        return found

    patch.setattr(machine, "becoming", hidden)


# --- messages ---------------------------------------------------------------------------------------------------------


def _replied_without(check: Callable[[Any, StepState], Any]) -> Callable[[DecisionBuilder, Any], str | None]:
    """Return a handler of replies that makes them fit before they are judged."""
    replied = machine._replied

    def handle(turn: DecisionBuilder, input_: Any) -> str | None:
        found = machine.find(turn, input_.step, input_.item)
        if not isinstance(found, str):
            input_ = check(input_, found[1])
        result: str | None = replied(turn, input_)
        return result

    return handle


@mutation(Property.STALE)
def the_reply_of_another_round_is_taken(patch: Patch) -> None:
    handle = _replied_without(lambda input_, cell: replace(input_, round=cell.round))
    patch.setitem(machine._HANDLERS, machine.Replied, handle)


@mutation(Property.STALE)
def the_reply_to_an_attempt_that_was_never_made_is_taken(patch: Patch) -> None:
    handle = _replied_without(lambda input_, cell: replace(input_, attempt=min(input_.attempt, cell.attempt)))
    patch.setitem(machine._HANDLERS, machine.Replied, handle)


@mutation(Property.UNHANDLED)
def the_reply_to_an_earlier_attempt_is_refused(patch: Patch) -> None:
    def only_latest(input_: Any, cell: StepState) -> Any:
        return input_ if input_.attempt == cell.attempt else replace(input_, round=99)

    patch.setitem(machine._HANDLERS, machine.Replied, _replied_without(only_latest))


@mutation(Property.STALE)
def a_stale_reply_to_what_is_being_undone_is_taken(patch: Patch) -> None:
    replied = machine._replied

    def handle(turn: DecisionBuilder, input_: Any) -> str | None:
        found = machine.find(turn, input_.step, input_.item)
        if not isinstance(found, str) and found[1].status is S.UNDOING and input_.direction is Direction.DO:
            turn.cancel(found[0], input_.item, found[1])
            turn.put(found[0], input_.item, replace(found[1], status=S.FAILED, due_milliseconds=0))
            return None
        result: str | None = replied(turn, input_)
        return result

    patch.setitem(machine._HANDLERS, machine.Replied, handle)


@mutation(Property.FAILURE)
def a_business_failure_is_taken_for_a_success(patch: Patch) -> None:
    def take(turn: DecisionBuilder, position: int, item: str, cell: StepState, answer: object) -> None:
        turn.put(position, item, machine.becoming(cell, S.SUCCEEDED, answer))

    patch.setattr(machine, "_take", take)


@mutation(Property.STALE)
def a_second_answer_is_taken(patch: Patch) -> None:
    signalled = machine._signalled

    def handle(turn: DecisionBuilder, input_: Any) -> str | None:
        position = turn.definition.waits.get(type(input_.signal))
        if position is not None and turn.steps[position].status is S.SUCCEEDED:
            turn.put(position, "", replace(turn.steps[position], result=input_.signal))
            return None
        result: str | None = signalled(turn, input_)
        return result

    patch.setitem(machine._HANDLERS, machine.Signalled, handle)


@mutation(Property.UNHANDLED)
def an_answer_before_its_wait_is_lost(patch: Patch) -> None:
    signalled = machine._signalled

    def handle(turn: DecisionBuilder, input_: Any) -> str | None:
        position = turn.definition.waits.get(type(input_.signal))
        if position is not None and turn.steps[position].status is S.PENDING:
            return "nobody waits for it yet"
        result: str | None = signalled(turn, input_)
        return result

    patch.setitem(machine._HANDLERS, machine.Signalled, handle)


@mutation(Property.STALE)
def a_request_is_applied_twice(patch: Patch) -> None:
    def ask(turn: DecisionBuilder, input_: Any) -> str | None:
        result: str | None = machine._ACTIONS[input_.action](turn, input_)
        return result

    patch.setitem(machine._HANDLERS, machine.OperatorAsked, ask)


@mutation(Property.STALE)
def anybody_may_ask_without_saying_why(patch: Patch) -> None:
    asked = machine._operator_asked
    patch.setitem(
        machine._HANDLERS,
        machine.OperatorAsked,
        lambda turn, input_: asked(turn, replace(input_, actor="x", reason="x")),
    )


# --- timers -----------------------------------------------------------------------------------------------------------


@mutation(Property.TIMERS)
def a_timer_is_not_cancelled(patch: Patch) -> None:
    patch.setattr(DecisionBuilder, "cancel", lambda *_: None)


@mutation(Property.TIMERS)
def the_timer_of_the_deadline_is_not_cancelled(patch: Patch) -> None:
    def forget(turn: DecisionBuilder) -> None:
        turn.deadline = 0

    patch.setattr(DecisionBuilder, "cancel_deadline", forget)


@mutation(Property.STALE)
def a_timer_fires_before_it_is_due(patch: Patch) -> None:
    patch.setattr(machine, "_refused_timer", lambda turn, timer, due: None if due else "no such timer runs")


@mutation(Property.TIMERS)
def a_timer_that_fires_early_is_lost(patch: Patch) -> None:
    refused = machine._refused_timer

    def lose(turn: DecisionBuilder, timer: Any, due: int) -> str | None:
        result: str | None = refused(turn, timer, due)
        turn.effects.clear()
        return result

    patch.setattr(machine, "_refused_timer", lose)


@mutation(Property.DEADLINE)
def the_deadline_is_ignored(patch: Patch) -> None:
    def ignore(turn: DecisionBuilder) -> None:
        turn.deadline = 0

    patch.setattr(machine, "_deadline_passed", ignore)


@mutation(Property.DEADLINE)
def the_deadline_is_ignored_past_the_pivot(patch: Patch) -> None:
    passed = machine._deadline_passed

    def ignore(turn: DecisionBuilder) -> None:
        if machine.committed(turn):
            turn.deadline = 0
        else:
            passed(turn)

    patch.setattr(machine, "_deadline_passed", ignore)


@mutation(Property.POLICY)
def attempts_never_end(patch: Patch) -> None:
    def again(turn: DecisionBuilder, position: int, timer: Any, cell: StepState) -> None:
        resting = S.BACKOFF if timer.direction is Direction.DO else S.UNDO_BACKOFF
        turn.rest(position, timer.item, cell, resting, turn.at + 1)

    patch.setattr(machine, "_attempt_unanswered", again)


@mutation(Property.POLICY)
def a_step_is_given_up_after_its_first_attempt(patch: Patch) -> None:
    patch.setattr(machine, "_attempt_unanswered", machine._give_up)


@mutation(Property.POLICY, with_halt)
def nobody_is_called_where_nobody_answers(patch: Patch) -> None:
    def proceed(turn: DecisionBuilder, position: int, cell: StepState) -> None:
        turn.put(position, "", machine.becoming(cell, S.SKIPPED))

    patch.setattr(machine, "_wait_over", proceed)


# --- retries ----------------------------------------------------------------------------------------------------------


@mutation(Property.SAME_KEY)
def a_retry_has_a_new_key(patch: Patch) -> None:
    def send_next(turn: DecisionBuilder, position: int, item: str, cell: StepState) -> None:
        direction = Direction.DO if cell.status is S.BACKOFF else Direction.UNDO
        turn.send_anew(position, item, cell, direction, round_=cell.round + 1)

    patch.setattr(DecisionBuilder, "send_next", send_next)


@mutation(Property.SAME_KEY)
def a_person_s_retry_of_an_unknown_outcome_has_a_new_key(patch: Patch) -> None:
    def again(turn: DecisionBuilder, position: int, item: str, cell: StepState) -> None:
        undo = cell.status in (S.UNDO_STUCK, S.UNDO_FAILED, S.UNDO_BACKOFF)
        direction = Direction.UNDO if undo else Direction.DO
        turn.send_anew(position, item, cell, direction, round_=cell.round + 1)

    patch.setattr(machine, "_try_again", again)


@mutation(Property.SAME_KEY)
def the_attempt_is_part_of_the_key(patch: Patch) -> None:
    effects: Any = sys.modules["towpath.saga.effects"]
    key_of = effects.idempotency_key_of
    patch.setattr(
        effects.SendCommand,
        "idempotency_key",
        property(lambda sent: key_of(sent.saga_id, sent.step, sent.item, sent.direction, sent.attempt)),
    )


@mutation(Property.RESUME)
def resume_retries_one_of_several(patch: Patch) -> None:
    def resume(turn: DecisionBuilder, _: Any) -> str | None:
        for position, item, cell in turn.cells():
            if cell.status in machine.NEED_A_PERSON:
                machine._try_again(turn, position, item, cell)
                return None
        return "no step of this saga is stuck"

    patch.setitem(machine._ACTIONS, Action.RESUME, resume)


@mutation(Property.STALE)
def a_refused_request_is_forgotten(patch: Patch) -> None:
    patch.setattr(machine, "with_refused", lambda state, *_: state)


@mutation(Property.ENDING, lambda: child().definition, as_child=True)
def a_child_that_has_ended_is_silent_to_its_parent(patch: Patch) -> None:
    patch.setattr(machine.DecisionBuilder, "answer_parent", lambda _: None)


@mutation(Property.UNHANDLED, lambda: child().definition, as_child=True)
def a_further_attempt_of_a_start_is_refused(patch: Patch) -> None:
    patch.setattr(machine, "_started_again", lambda *_: "the saga has already started")


# --- order and status -------------------------------------------------------------------------------------------------


@mutation(Property.FORWARD_ORDER)
def a_join_does_not_wait_for_all(patch: Patch) -> None:
    def begin_early(turn: DecisionBuilder) -> bool:
        unsettled = False
        for position, step in enumerate(turn.definition.steps):
            statuses = [turn.steps[required].status for required in step.requires]
            ready = not statuses or any(status in (S.SUCCEEDED, S.SKIPPED) for status in statuses)
            if turn.steps[position].status is S.PENDING and ready:
                machine._begin(turn, position, step)
            unsettled = unsettled or turn.steps[position].status not in (S.SUCCEEDED, S.SKIPPED)
        return unsettled

    patch.setattr(machine, "_begin_what_is_ready", begin_early)


@mutation(Property.DEADLOCK)
def a_join_never_begins(patch: Patch) -> None:
    begin_ = machine._begin

    def begin_but_joins(turn: DecisionBuilder, position: int, step: Any) -> None:
        if len(step.requires) == 1:
            begin_(turn, position, step)

    patch.setattr(machine, "_begin", begin_but_joins)


@mutation(Property.STATUS)
def a_halt_is_not_told(patch: Patch) -> None:
    settle = machine._settle

    def hide(turn: DecisionBuilder) -> None:
        settle(turn)
        if turn.status is machine.Status.STUCK:
            turn.status = machine.Status.RUNNING

    patch.setattr(machine, "_settle", hide)


@mutation(Property.ENDING)
def the_ending_is_not_told(patch: Patch) -> None:
    finish = machine._finish

    def silently(turn: DecisionBuilder) -> None:
        finish(turn)
        turn.effects.pop()

    patch.setattr(machine, "_finish", silently)


@mutation(Property.ENDING, lambda: child().definition, as_child=True)
def a_parent_is_not_told(patch: Patch) -> None:
    finish = machine._finish

    def silently(turn: DecisionBuilder) -> None:
        finish(turn)
        turn.effects[:] = [effect for effect in turn.effects if not isinstance(effect, AnswerParent)]

    patch.setattr(machine, "_finish", silently)


@mutation(Property.UNHANDLED, lambda: child().definition, as_child=True)
def a_sub_saga_that_completed_refuses_its_parent(patch: Patch) -> None:
    asked = machine._parent_asked
    patch.setitem(
        machine._HANDLERS,
        machine.ParentAsked,
        lambda turn, input_: "has ended" if turn.status is machine.Status.COMPLETED else asked(turn, input_),
    )


@mutation(Property.UNDO_OWED, with_child)
def a_sub_saga_is_not_compensated_with_its_parent(patch: Patch) -> None:
    owes = machine._owes
    patch.setattr(machine, "_owes", lambda step, state: step.child is None and owes(step, state))


@mutation(Property.UNHANDLED, with_child)
def a_parent_does_not_hear_that_a_start_was_refused(patch: Patch) -> None:
    replied = machine._replied

    def handle(turn: DecisionBuilder, input_: Any) -> str | None:
        refused = input_.direction is Direction.DO and isinstance(input_.reply, SubsagaCompensated)
        return "the sub-saga has not begun" if refused else replied(turn, input_)

    patch.setitem(machine._HANDLERS, machine.Replied, handle)


@mutation(Property.UNDO_OWED, with_child)
def a_sub_saga_whose_start_was_refused_is_compensated_all_the_same(patch: Patch) -> None:
    take = machine._take

    def owing(turn: DecisionBuilder, position: int, item: str, cell: StepState, answer: object) -> None:
        take(turn, position, item, cell, answer)
        if isinstance(answer, SubsagaCompensated):
            turn.put(position, item, replace(turn.steps[position], status=StepStatus.UNKNOWN))

    patch.setattr(machine, "_take", owing)


@mutation(Property.UNHANDLED, with_child)
def a_parent_does_not_hear_that_nothing_was_left_to_undo(patch: Patch) -> None:
    replied = machine._replied

    def handle(turn: DecisionBuilder, input_: Any) -> str | None:
        undone = input_.direction is Direction.UNDO and isinstance(input_.reply, SubsagaCompensated)
        return "no such sub-saga" if undone else replied(turn, input_)

    patch.setitem(machine._HANDLERS, machine.Replied, handle)


@mutation(Property.TOTAL)
def a_late_reply_makes_it_raise(patch: Patch) -> None:
    def handle(turn: DecisionBuilder, input_: Any) -> str | None:
        assert turn.direction is Direction.DO or input_.direction is Direction.UNDO
        result: str | None = replied(turn, input_)
        return result

    replied = machine._replied
    patch.setitem(machine._HANDLERS, machine.Replied, handle)


@mutation(Property.RECORDED)
def a_decision_is_recorded_twice(patch: Patch) -> None:
    take = machine._take

    def twice(turn: DecisionBuilder, position: int, item: str, cell: StepState, answer: object) -> None:
        take(turn, position, item, cell, answer)
        facts = machine.facts_of(machine.Unrecognised("x", 0, "x"))
        turn.effects.append(machine.Record(turn.saga_id, "x", turn.at, *facts, turn.status))

    patch.setattr(machine, "_take", twice)


def found(definition: Definition, *, as_child: bool) -> dict[Property, Violation]:
    """Explore a definition and return the first breach of each property that is broken."""
    exploration = explore(definition, as_child=as_child)
    breaches = [*exploration.found.values(), *judge_graph(exploration)]
    check = Check([definition], lambda: 0.0, imports={(definition.name, definition.version): f"{MODULE}:saga"})
    return {each.breach.rule: check.violation_at(definition, exploration, each) for each in reversed(breaches)}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_broken_machine_is_found_out(name: str, monkeypatch: Patch) -> None:
    """The check names the property, draws the way there, and writes a test that fails until the machine is fixed."""
    broken = MUTATIONS[name]
    definition = broken.definition()
    with monkeypatch.context() as patch:
        broken.patch(patch)
        violation = found(definition, as_child=broken.as_child).get(broken.rule)
        assert violation is not None
        assert violation.diagram.startswith("sequenceDiagram")
        assert violation.path
        test = written_test(violation.test, definition, monkeypatch)
        with pytest.raises(AssertionError, match="but"):
            test()
    test()


@pytest.mark.parametrize(
    ("definition", "as_child"),
    [
        (with_everything, False),
        (with_items, False),
        (with_halt, False),
        (with_child, False),
        (lambda: child().definition, True),
        (lambda: pivoted().definition, False),
        (lambda: two_steps().definition, False),
        (lambda: branched(2, 1).definition, False),
    ],
)
def test_the_machine_as_it_is_breaks_nothing(definition: Callable[[], Definition], as_child: bool) -> None:
    """None of the sagas that show a broken machine shows anything in the one that is in production."""
    assert found(definition(), as_child=as_child) == {}
