"""A sub-saga for each item of a list: each with an id and a key of its own, partial success, undone in its own time."""

from typing import Any

import pytest

from tests.unit.saga.support import (
    Do,
    No,
    Opened,
    Take,
    Undone,
    Yes,
    child,
    named,
    parent,
    pivot,
    retriable,
    saga,
    step,
)
from towpath.saga import BuilderError, DefinitionError, Saga, SecondStart, UndoSubsaga, hours, minutes
from towpath.saga.decision_builder import child_keys_of
from towpath.saga.effects import AnswerParent, CompensateSaga, StartSaga, SubsagaCompensated, SubsagaCompleted
from towpath.saga.inputs import Replied, TimerKind
from towpath.saga.state import Direction, Status, StepStatus
from towpath.saga.testing import Conversation, given

OPENED = Opened(lines=("mon", "tue"))
lines = named("lines", lambda event: event.lines)
begin_one = named("begin_one", lambda event, line: Opened(1, (line,)))


def nights(**said: Any) -> Saga[Opened]:
    """Return a saga of a step, a sub-saga for each line, and the pivot."""
    made = saga("nights")
    before = step(made, "before")
    said.setdefault("undo", UndoSubsaga(within=minutes(5)))
    each: Any = made.subsaga_each(
        child(), begin_one, over=lines, limit=3, within=hours(1), key="stay", after=before, **said
    )
    pivot(made, needs=each)
    return made


def begun(**said: Any) -> Conversation:
    """Return a conversation in which both sub-sagas were started."""
    talk = given(nights(**said), OPENED).expect(Do("before")).when(Yes())
    return talk.expect(Opened(1, ("mon",)), to="child").expect(Opened(1, ("tue",)), to="child")


def effects(talk: Conversation, kind: type) -> list[Any]:
    """Return the effects of a kind in all that was decided."""
    return [effect for decision in talk.decisions for effect in decision.effects if isinstance(effect, kind)]


def completed(item: str) -> SubsagaCompleted[object]:
    """Return the ending of one of them."""
    return SubsagaCompleted("child", f"child-{item}")


def compensated(item: str) -> SubsagaCompensated:
    """Return the other ending of one of them."""
    return SubsagaCompensated("child", f"child-{item}")


def test_each_has_an_id_and_a_key_of_its_own() -> None:
    """They are instances of one saga, and no start of one is taken for another's."""
    first, second = effects(begun(), StartSaga)
    assert (first.child_key, second.child_key) == ("key/0", "key/1")
    assert first.child_saga_id != second.child_saga_id
    assert (first.parent.item, second.parent.item) == ("0", "1")


def test_the_key_is_what_the_author_says() -> None:
    """Whoever signals a child knows it by that key; the undo goes to the same one."""
    talk = begun(keyed_by=lambda event, line: f"{line}-{event.number}")
    assert [start.child_key for start in effects(talk, StartSaga)] == ["mon-1", "tue-1"]
    talk.when(completed("0"), item="0").when(compensated("1"), item="1").expect_compensates("child")
    (asks,) = effects(talk, CompensateSaga)
    assert (asks.child_key, asks.item) == ("mon-1", "0")


def test_the_keys_of_what_was_started_are_known() -> None:
    """To whoever asks the instance: by item, or the parent's own where the sub-saga is one and says nothing."""
    talk = begun(keyed_by=lambda event, line: f"{line}-{event.number}")
    definition = talk.definition
    assert child_keys_of(definition, talk.state, definition.step("stay")) == {"0": "mon-1", "1": "tue-1"}
    talk = begun()
    assert child_keys_of(talk.definition, talk.state, talk.definition.step("stay")) == {"0": "key/0", "1": "key/1"}
    alone = given(parent(), OPENED).expect(Do("before")).when(Yes()).expect_anything()
    assert child_keys_of(alone.definition, alone.state, alone.definition.step("child")) == {"": "key"}


def test_a_key_that_is_none_is_refused() -> None:
    """Nothing is sent under a key that nobody could name."""
    talk = given(nights(keyed_by=lambda event, line: ""), OPENED).expect(Do("before"))
    with pytest.raises(BuilderError, match="returned '', not a key"):
        talk.when(Yes())


def test_the_result_is_every_ending_in_the_order_of_the_list() -> None:
    """Whichever came first."""
    talk = begun().when(completed("1"), item="1").when(completed("0"), item="0")
    talk.expect(Do("pivot", ((completed("0"), completed("1")),))).when(Yes()).expect_completed()


def test_one_that_compensates_turns_the_saga_round() -> None:
    """What the others did is asked back, all side by side; then what came before them."""
    talk = begun().when(completed("0"), item="0").when(compensated("1"), item="1")
    talk.expect_compensates("child").expect_nothing()
    talk.when(compensated("0"), item="0").expect(Take("before")).when(Undone()).expect_compensated()


def test_partial_success_may_be_tolerated() -> None:
    """The one that compensated is among the results, and owes nothing."""
    talk = begun(may_fail=True).when(completed("0"), item="0").when(compensated("1"), item="1")
    talk.expect(Do("pivot", ((completed("0"), compensated("1")),))).when(No())
    talk.expect_compensates("child").expect_nothing()
    assert [asks.item for asks in effects(talk, CompensateSaga)] == ["0"]


def test_the_undo_has_a_time_of_its_own() -> None:
    """A sub-saga may take long to complete, and is expected to undo itself sooner."""
    talk = begun().when(completed("0"), item="0").when(compensated("1"), item="1").expect_compensates("child")
    asks = talk.state.step("stay").items[0]
    assert asks.due_milliseconds - talk.now_milliseconds == 5 * 60 * 1000
    talk.when_nobody_answers().expect_stuck("stay")


def test_the_undo_may_wait_for_no_other() -> None:
    """With in_order=False what came before is undone at the same time."""
    talk = begun(undo=UndoSubsaga(within=minutes(5), in_order=False))
    talk.when(completed("0"), item="0").when(compensated("1"), item="1")
    talk.expect_compensates("child").expect(Take("before")).when(Undone()).when(compensated("0"), item="0")
    talk.expect_compensated()


def test_a_child_answers_for_its_item() -> None:
    """Its ending finds back to the item that started it."""
    talk = begun()
    start = effects(talk, StartSaga)[1]
    below = given(child(), start.event, id=start.start_id, parent=start.parent).expect(Do("inner")).when(Yes())
    (answer,) = effects(below, AnswerParent)
    below.expect_answer(answer.reply)
    to = answer.parent
    talk.when_given(Replied("answer", 0, to.step, to.direction, to.attempt, to.round, answer.reply, to.item))
    assert [item.status for item in talk.state.step("stay").items] == [StepStatus.SENT, StepStatus.SUCCEEDED]
    assert below.state.saga_id == start.child_saga_id


def test_one_that_is_not_heard_of_is_asked_back() -> None:
    """Its time is over: it may have completed, so that it must undo itself."""
    talk = begun().when(completed("0"), item="0").when_nobody_answers()
    talk.expect_status(Status.COMPENSATING).expect_compensates("child").expect_compensates("child")
    assert sorted(asks.item for asks in effects(talk, CompensateSaga)) == ["0", "1"]
    assert {asks.parent.direction for asks in effects(talk, CompensateSaga)} == {Direction.UNDO}
    assert TimerKind.ATTEMPT.value in str(talk.inputs[-1])


def test_past_the_pivot_each_is_retried_for_ever() -> None:
    """A list of sub-sagas that cannot be undone is retriable, and takes no undo."""
    deliver = saga("deliver")
    retriable(deliver, "send")
    made = saga("shipping")
    first = pivot(made)
    made.subsaga_each(deliver, begin_one, over=lines, limit=3, within=hours(1), after=first)
    talk = given(made, OPENED).expect(Do("pivot")).when(Yes())
    talk.expect(Opened(1, ("mon",))).expect(Opened(1, ("tue",)))
    talk.when(SubsagaCompleted("deliver", "d-0"), item="0").when(SubsagaCompleted("deliver", "d-1"), item="1")
    talk.expect_completed()


def test_two_of_one_definition_are_told_apart_by_their_keys() -> None:
    """A list beside a sub-saga of the same definition is no second start for one key."""
    made = saga("family")
    made.subsaga(child(), named("begin", lambda event: event), within=hours(1), key="eldest")
    made.subsaga_each(child(), begin_one, over=lines, limit=3, within=hours(1), key="others")
    assert made.definition.steps[2].child is not None
    twins = saga("twins")
    twins.subsaga(child(), named("begin", lambda event: event), within=hours(1), key="one")
    with pytest.raises(DefinitionError, match="it would be refused"):
        twins.subsaga(child(), named("begin", lambda event: event), within=hours(1), key="two")
    assert SecondStart.REFUSE_WHILE_OPEN is child().definition.second_start


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"may_fail": True}, "cannot be given up"),
        ({"undo": UndoSubsaga(within=minutes(5))}, "says how it is undone"),
        ({"may_fail": 1}, "is a int"),
        ({"keyed_by": "order"}, "is a str"),
        ({"overs": lines}, "knows no overs="),
    ],
)
def test_what_cannot_be_said_of_a_list_of_sub_sagas(said: dict[str, Any], words: str) -> None:
    """Each is refused at import, with what was meant."""
    deliver = saga("deliver")
    retriable(deliver, "send")
    made = saga("shipping")
    first = pivot(made)
    with pytest.raises(DefinitionError, match=words):
        made.subsaga_each(deliver, begin_one, over=lines, limit=3, within=hours(1), after=first, **said)
