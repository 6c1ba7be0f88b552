"""A saga within a saga: started, awaited, undone with its parent; both played, message by message."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.saga.support import (
    OPENED,
    Do,
    No,
    Opened,
    Take,
    Undone,
    Yes,
    chain,
    child,
    long_way,
    named,
    parent,
    pivot,
    retriable,
    saga,
    step,
)
from towpath.saga import DefinitionError, Saga, SecondStart, advance, days, hours
from towpath.saga.definition import Kind
from towpath.saga.effects import (
    AnswerParent,
    CompensateSaga,
    StartSaga,
    SubsagaCompensated,
    SubsagaCompleted,
)
from towpath.saga.inputs import Action, ParentAsked, Replied, Started
from towpath.saga.state import CauseKind, Direction, ParentReference, Status, StepStatus
from towpath.saga.testing import Conversation, given

STRANGER = ParentReference("parent", "another", "key", "child", Direction.UNDO, 1, 1)


def effect(talk: Conversation, kind: type) -> Any:
    """Return the one effect of that kind in the last decision."""
    (found,) = [effect for effect in talk.decisions[-1].effects if isinstance(effect, kind)]
    return found


def started() -> tuple[Conversation, Conversation]:
    """Return a parent whose child has been started, and the child."""
    above = given(parent(), OPENED).expect(Do("before")).when(Yes()).expect(OPENED, to="child")
    start = effect(above, StartSaga)
    below = given(child(), start.event, id=start.start_id, parent=start.parent).expect(Do("inner"))
    return above, below


def carry(below: Conversation, above: Conversation) -> None:
    """Carry the child's answer to its parent, as the orchestrator does."""
    answer = effect(below, AnswerParent)
    to = answer.parent
    below.expect_answer(answer.reply)
    above.when_given(Replied("answer", 0, to.step, to.direction, to.attempt, to.round, answer.reply))


def test_a_child_completes_and_its_parent_goes_on() -> None:
    """The child's ending is the result of the parent's step."""
    above, below = started()
    below.when(Yes())
    carry(below, above)
    below.expect_completed()
    above.expect(Do("pivot")).when(Yes()).expect_completed()
    result = above.state.step("child").result
    assert result == SubsagaCompleted("child", below.state.saga_id)


def test_a_child_that_compensates_is_a_business_failure() -> None:
    """It left nothing behind, so it owes no undo; what came before it does."""
    above, below = started()
    below.when(No())
    carry(below, above)
    below.expect_compensated()
    above.expect(Take("before")).when(Undone()).expect_compensated()


def test_the_child_has_the_id_that_its_parent_foretold() -> None:
    """The start's id is derived from the parent, so a repeated start is the same instance."""
    above, _ = started()
    start = next(effect for decision in above.decisions for effect in decision.effects if isinstance(effect, StartSaga))
    state = advance(child().definition, None, Started(start.start_id, 0, start.event, "key", start.parent)).state
    assert state is not None
    assert state.saga_id == start.child_saga_id
    assert state.parent == ParentReference("parent", above.state.saga_id, "key", "child", Direction.DO, 1, 1)


def test_a_completed_child_is_undone_with_its_parent() -> None:
    """The parent fails later: the child starts compensating after its ending, and the parent's undo waits for it."""
    above, below = started()
    below.when(Yes())
    carry(below, above)
    above.expect(Do("pivot")).when(No()).expect_compensates("child").expect_nothing()
    asks = effect(above, CompensateSaga)
    assert asks.child_saga_id == below.state.saga_id
    below.when_parent_asks(asks.parent).expect(Take("inner")).expect_status(Status.COMPENSATING)
    assert below.state.cause is not None
    assert below.state.cause.kind is CauseKind.PARENT
    below.when(Undone())
    carry(below, above)
    below.expect_compensated()
    above.expect(Take("before")).when(Undone()).expect_compensated()


def test_a_running_child_is_asked_to_turn_round() -> None:
    """The parent is cancelled while the child runs."""
    above, below = started()
    above.when_asked(Action.CANCEL).expect_compensates("child")
    below.when_parent_asks(effect(above, CompensateSaga).parent).expect(Take("inner")).when(Undone())
    carry(below, above)
    above.expect(Take("before")).when(Undone()).expect_compensated()


def test_a_child_that_compensates_already_answers_the_undo() -> None:
    """It was on its way back when its parent asked: one answer, to the undo."""
    above, below = started()
    below.when_asked(Action.CANCEL).expect(Take("inner"))
    above.when_asked(Action.CANCEL).expect_compensates("child")
    below.when_parent_asks(effect(above, CompensateSaga).parent).expect_nothing().when(Undone())
    assert effect(below, AnswerParent).parent.direction is Direction.UNDO
    carry(below, above)
    above.expect(Take("before"))


@pytest.mark.parametrize(("answer", "status"), [(Yes(), Status.COMPLETED), (No(), Status.COMPENSATED)])
def test_a_child_that_has_ended_answers_a_further_attempt_of_its_start(answer: object, status: Status) -> None:
    """Its answer was lost, or its parent gave up and a person retried: silence would be for ever."""
    above, below = started()
    below.when(answer)
    first = effect(below, AnswerParent)
    start = effect_of_start(above)
    again = replace(start.parent, attempt=3)
    below.expect_anything().when_given(Started(start.start_id, 0, OPENED, "key", again)).expect_status(status)
    assert effect(below, AnswerParent) == replace(first, parent=again)
    below.expect_answer(first.reply).when_repeated().expect_refused("this attempt was answered").expect_nothing()
    stranger = replace(again, saga_id="another", attempt=4)
    below.when_given(Started(start.start_id, 0, OPENED, "key", stranger)).expect_refused("already started")


def effect_of_start(above: Conversation) -> StartSaga:
    """Return what started the child."""
    return next(e for decision in above.decisions for e in decision.effects if isinstance(e, StartSaga))


def test_a_child_that_is_undone_or_under_way_is_silent_to_a_start() -> None:
    """It answers when it has ended; and one that was asked to undo itself has nothing more to say about its start."""
    above, below = started()
    start = effect_of_start(above)
    again = Started(start.start_id, 0, OPENED, "key", replace(start.parent, attempt=2))
    below.when_given(again).expect_refused("already started").expect_nothing().when(Yes()).expect_anything()
    above.when_asked(Action.CANCEL).expect_compensates("child")
    below.when_parent_asks(effect(above, CompensateSaga).parent).expect(Take("inner")).when(Undone()).expect_anything()
    below.when_given(again).expect_refused("already started").expect_compensated()


def test_two_sub_sagas_of_one_definition_have_one_key() -> None:
    """The second start would always be refused, and so is the definition; unless it waits, or both may run."""
    made = saga("outer")
    begin: Any = named("begin", lambda event: event)
    first = made.subsaga(child(), begin, within=hours(1), key="one")
    with pytest.raises(DefinitionError, match="second_start is REFUSE_WHILE_OPEN"):
        made.subsaga(child(), begin, within=hours(1), key="two")
    made.subsaga(child(), begin, within=hours(1), key="two", after=first)
    made = saga("outer")
    both = saga("child", second_start=SecondStart.INDEPENDENT)
    step(both, "inner")
    for key in ("one", "two"):
        made.subsaga(both, begin, within=hours(1), key=key)
    made = saga("outer")
    once = saga("child", second_start=SecondStart.REFUSE_ALWAYS)
    step(once, "inner")
    first = made.subsaga(once, begin, within=hours(1), key="one")
    with pytest.raises(DefinitionError, match="REFUSE_ALWAYS"):
        made.subsaga(once, begin, within=hours(1), key="two", after=first)


def test_a_child_that_has_compensated_answers_once_more() -> None:
    """Its first answer, to the do, crossed the parent's request; the parent waits for one to the undo."""
    above, below = started()
    below.when(No()).expect_answer(SubsagaCompensated("child", below.state.saga_id)).expect_compensated()
    above.when_asked(Action.CANCEL).expect_compensates("child")
    late = below.decisions[-1].effects
    assert any(isinstance(effect, AnswerParent) for effect in late)
    below.when_parent_asks(effect(above, CompensateSaga).parent)
    carry(below, above)
    below.expect_status(Status.COMPENSATED)
    above.expect(Take("before"))


def test_a_stuck_undo_of_a_child_is_asked_for_again() -> None:
    """The child did not answer in time; a person retries, and the parent hears the answer to either request."""
    above, _ = started()
    above.when_asked(Action.CANCEL).expect_compensates("child").when_nobody_answers().expect_stuck("child")
    above.when_asked(Action.RETRY, step="child").expect_compensates("child")
    assert effect(above, CompensateSaga).parent.attempt == 2


def test_only_the_parent_may_ask() -> None:
    """A saga without parent, or another parent, is refused."""
    _, below = started()
    below.when_parent_asks(STRANGER).expect_refused("not the parent")
    given(child(), OPENED).expect_anything().when_parent_asks(STRANGER).expect_refused("not the parent")


def test_a_child_past_its_pivot_refuses() -> None:
    """As a pivot it is never asked; if it is all the same, what was done stays done."""
    above = ParentReference("parent", "p", "key", "chain", Direction.UNDO, 1, 1)
    below = given(chain(), OPENED, parent=above).expect_anything().when(Yes()).expect_anything().when(Yes())
    below.expect_anything().when_parent_asks(above).expect_refused("point of no return").when(Yes()).expect_anything()
    below.when(Yes()).expect_anything().when_parent_asks(above).expect_refused("point of no return")


def test_a_child_on_its_way_back_is_not_past_anything() -> None:
    """Its pivot was sent and failed: it compensates, and says so to whoever asks."""
    above = ParentReference("parent", "p", "key", "chain", Direction.UNDO, 1, 1)
    below = (
        given(chain(), OPENED, parent=replace(above, direction=Direction.DO))
        .expect_anything()
        .when(Yes())
        .expect_anything()
        .when(Yes())
    )
    below.expect_anything().when(No()).expect(Take("second")).when_parent_asks(above).expect_nothing()
    below.when(Undone()).expect(Take("first")).when(Undone(), step="first").expect_anything().when(Undone())
    below.expect_anything()
    assert effect(below, AnswerParent).parent.direction is Direction.UNDO


def awaiting(inner: Saga[Opened], **said: Any) -> Saga[Opened]:
    """Return a saga of one step, which is the given saga."""
    made = saga("outer")
    made.subsaga(inner, named("begin", lambda event: event), within=hours(1), **said)
    return made


@pytest.mark.parametrize(
    ("inner", "kind"), [(child, Kind.COMPENSATABLE), (chain, Kind.PIVOT), (long_way, Kind.RETRIABLE)]
)
def test_the_kind_of_the_step_follows_from_the_child(inner: Any, kind: Kind) -> None:
    """What can be undone, what decides, and what only goes on."""
    defined = awaiting(inner()).definition.steps[1]
    assert defined.kind is kind
    assert (defined.undo is not None) is (kind is Kind.COMPENSATABLE)
    assert (SubsagaCompensated in defined.outcomes) is (kind is not Kind.RETRIABLE)


def test_a_child_as_pivot_is_awaited_and_never_undone() -> None:
    """Cancel is refused once it has been started; its failure compensates."""
    talk = given(awaiting(chain()), OPENED).expect(OPENED, to="chain").when_asked(Action.CANCEL)
    talk.expect_refused("point of no return").when(SubsagaCompensated("chain", "x")).expect_compensated()


def test_a_retriable_child_that_is_late_calls_a_person() -> None:
    """It was started once; a retry starts it again under the same id."""
    made = saga("outer")
    decided = pivot(made)
    begun: Any = named("begin", lambda event: event)
    inner = made.subsaga(long_way(), begun, after=decided, within=hours(1), key="way")
    retriable(made, "last", needs=inner)
    talk = given(made, OPENED).expect_anything().when(Yes()).expect(OPENED, to="long_way")
    first = effect(talk, StartSaga)
    talk.when_time_passes(days(1)).expect_stuck("way").when_asked(Action.RETRY, step="way").expect(OPENED)
    assert effect(talk, StartSaga).start_id == first.start_id
    talk.when(SubsagaCompleted("long_way", "x")).expect(Do("last", (SubsagaCompleted("long_way", "x"),)))


def test_a_child_is_given_up_after_its_time_and_then_undone() -> None:
    """Before the pivot, a child that does not end in time is asked to compensate."""
    above, _ = started()
    above.when_time_passes(hours(1)).expect_compensates("child").expect_step("child", StepStatus.UNDOING)


def test_the_parent_asks_through_an_input_of_its_own() -> None:
    """`ParentAsked` carries where to answer."""
    above, below = started()
    above.when_asked(Action.CANCEL).expect_compensates("child")
    asks = effect(above, CompensateSaga)
    decision = advance(child().definition, below.state, ParentAsked("p", 5, asks.parent))
    assert decision.state is not None
    assert decision.state.parent == asks.parent
