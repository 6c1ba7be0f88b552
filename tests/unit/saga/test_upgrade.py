"""From one version to the next: what migrates, what is pinned and why, and that what migrates keeps its promises."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import settings, strategies

from tests.unit.saga.support import (
    OPENED,
    SHAPES,
    Agreed,
    Kept,
    No,
    Opened,
    Stranger,
    Undone,
    Yes,
    basket,
    chain,
    child,
    decision,
    long_way,
    named,
    other,
    parent,
    pivot,
    retriable,
    saga,
    start_undo,
    step,
    undo,
)
from towpath.saga import NO_EFFECT, Definition, Saga, hours, seconds
from towpath.saga.check import explore
from towpath.saga.effects import SubsagaCompleted
from towpath.saga.inputs import Action
from towpath.saga.state import Direction, ParentReference, SagaState, Status
from towpath.saga.testing import Conversation, World, given
from towpath.saga.testing.adversary import Walk, survive, walks
from towpath.saga.upgrade import Outcome, comparable, judge, report_on

Definer = Callable[[], Saga[Opened]]
OLD = chain().definition


def at_second() -> Conversation:
    """Return the chain: first is done, second is out."""
    return given(chain(), OPENED).expect_anything().when(Yes("1")).expect_anything()


def at_pivot() -> Conversation:
    """Return the chain with its pivot out."""
    return at_second().when(Yes("2")).expect_anything()


def undoing_second() -> Conversation:
    """Return the chain on its way back, the undo of second out."""
    return at_second().when_asked(Action.CANCEL).expect_anything()


def changed(key: str, **values: Any) -> Definition:
    """Return version 2 of the chain, in which one step differs."""
    steps = tuple(replace(each, **values) if each.key == key else each for each in OLD.steps)
    return replace(OLD, version=2, steps=steps)


def without(key: str) -> Definition:
    """Return version 2 of the chain without one of its steps."""
    made = saga("chain", undo=start_undo())
    before = None
    for name in ("first", "second"):
        if name != key:
            before = step(made, name, **({"after": before} if before is not None else {}))
    decided = pivot(made, after=before)
    if key != "last":
        retriable(made, "last", after=decided)
    return replace(made.definition, version=2)


def inserted(where: str) -> Definition:
    """Return version 2 of the chain with a new step before that one."""
    made = saga("chain", undo=start_undo())
    before: Any = None
    for name in ("first", "second"):
        if where == name:
            before = step(made, "new", **({"after": before} if before is not None else {}))
        before = step(made, name, **({"after": before} if before is not None else {}))
    if where == "pivot":
        before = step(made, "new", after=before)
    decided = pivot(made, after=before)
    if where == "last":
        decided = retriable(made, "new", after=decided)
    retriable(made, "last", after=decided)
    return replace(made.definition, version=2)


def undo_of(key: str, **values: Any) -> Any:
    """Return the undo of a step of the chain, changed."""
    found = OLD.step(key).undo
    assert found is not None
    return replace(found, **values)


MIGRATES: dict[str, tuple[Definition, Callable[[], Conversation]]] = {
    "nothing changed": (replace(OLD, version=2), at_second),
    "a policy changed": (changed("second", policy=OLD.step("first").policy), at_second),
    "a step that has not begun is gone": (without("last"), at_second),
    "a step that has not begun changed": (changed("last", participant="elsewhere", outcomes={}), at_second),
    "a new step later": (inserted("pivot"), at_second),
    "a new step past the pivot": (inserted("last"), at_pivot),
    "a reply more": (changed("second", outcomes={Yes: True, No: False, Stranger: False}), at_second),
    "another participant, already answered, who need not undo it": (
        changed("first", participant="elsewhere"),
        at_second,
    ),
    "a new step, on the way back": (inserted("pivot"), undoing_second),
}


@pytest.mark.parametrize(("new", "talk"), MIGRATES.values(), ids=MIGRATES.keys())
def test_what_keeps_its_obligations_migrates(new: Definition, talk: Callable[[], Conversation]) -> None:
    """The migrated state is of the new version, with every step that had begun as it was."""
    state = talk().state
    verdict = judge(OLD, new, state)
    assert (verdict.outcome, verdict.reasons) == (Outcome.MIGRATE, ())
    assert verdict.state is not None
    assert verdict.state.version == 2
    assert [cell.key for cell in verdict.state.steps] == [each.key for each in new.steps]
    for cell in verdict.state.steps:
        if cell.key in OLD.index:
            assert cell == state.step(cell.key)


PINNED: dict[str, tuple[Definition, Callable[[], Conversation], str]] = {
    "undo gone": (changed("first", undo=None), at_second, "the undo of first is owed, and there is none any more"),
    "start's undo gone": (changed("start", undo=None), at_second, "the undo of start is owed"),
    "step gone, owed": (without("first"), at_second, "first is gone, and its undo is owed"),
    "step gone, out": (without("second"), at_second, "second is gone, and is under way"),
    "step gone, being undone": (without("second"), undoing_second, "second is gone, and is under way"),
    "participant": (changed("second", participant="elsewhere"), at_second, "second is out at service, and elsewhere"),
    "reply gone": (changed("second", outcomes={Yes: True}), at_second, "second awaits No, which is no longer declared"),
    "reply turned": (
        changed("second", outcomes={Yes: False, No: False}),
        at_second,
        "second awaits Yes, which meant success and means the opposite now",
    ),
    "failure turned": (
        changed("second", outcomes={Yes: True, No: True}),
        at_second,
        "second awaits No, which meant failure and means the opposite now",
    ),
    "result gone": (changed("first", outcomes={No: False}), at_second, "first has the result Yes, which it no longer"),
    "kind": (
        changed("second", kind=OLD.step("pivot").kind),
        at_second,
        "second has begun as compensatable and is pivot now",
    ),
    "undo's participant": (
        changed("second", undo=undo_of("second", participant=other.name)),
        undoing_second,
        "the undo of second is out at service, and other does it now",
    ),
    "undo's participant, before it is asked": (
        changed("first", undo=undo_of("first", participant=other.name)),
        at_second,
        "the undo of first is for service, and other does it now",
    ),
    "undo's reply": (
        changed("second", undo=undo_of("second", outcomes={Undone: True})),
        undoing_second,
        "the undo of second awaits Kept, which is no longer declared",
    ),
    "new step before one that has begun": (
        inserted("second"),
        at_second,
        "second has begun, and new, which it requires now, is not settled",
    ),
    "new step before the pivot that is out": (
        inserted("pivot"),
        at_pivot,
        "pivot has begun, and new, which it requires now, is not settled",
    ),
    "version": (OLD, at_second, "version 1 does not follow version 1"),
    "name": (replace(OLD, name="other", version=2), at_second, "they define chain and other"),
}


@pytest.mark.parametrize(("new", "talk", "words"), PINNED.values(), ids=PINNED.keys())
def test_what_would_lose_something_is_pinned(new: Definition, talk: Callable[[], Conversation], words: str) -> None:
    """With the reason, in words."""
    verdict = judge(OLD, new, talk().state)
    assert verdict.outcome is Outcome.PIN
    assert verdict.state is None
    assert any(reason.startswith(words) for reason in verdict.reasons), verdict.reasons


def test_another_start_event_is_no_upgrade() -> None:
    """The two would not even begin alike."""
    assert comparable(OLD, replace(OLD, version=2, starts_on=Stranger)) == ("they start on Opened and Stranger",)
    assert comparable(OLD, replace(OLD, version=2)) == ()


def test_an_order_that_was_turned_is_not_undone_in_the_wrong_order() -> None:
    """first is being undone, and comes before second no longer: second would be undone after it."""
    made = saga("pair")
    step(made, "first")
    step(made, "second")
    turned = saga("pair")
    step(turned, "second", after=step(turned, "first"))
    running = given(made, OPENED).expect_anything().when_asked(Action.CANCEL).expect_anything()
    running.when(Undone(), step="first")
    verdict = judge(made.definition, replace(turned.definition, version=2), running.state)
    assert verdict.reasons == ("first is undone, and second, which comes after it now, is not",)


def test_what_an_undo_needs_must_be_there() -> None:
    """The new undo needs a step that never began."""
    made = saga("pair")
    step(made, "a")
    step(made, "b")
    new = saga("pair")
    fresh = step(new, "fresh", undo=NO_EFFECT)
    step(new, "a")
    step(new, "b", after=fresh, undo=undo("b", needs=fresh))
    talk = given(made, OPENED).expect_anything().when_asked(Action.CANCEL).expect_anything()
    verdict = judge(made.definition, replace(new.definition, version=2), talk.state)
    assert verdict.reasons == ("the undo of b needs fresh, which has not begun",)


def test_the_point_of_no_return_stays_where_it_was() -> None:
    """A saga that had a pivot, whose pivot is gone: cancel would be allowed again."""
    made, new = saga("one"), saga("one")
    step(new, "late", after=step(new, "pivot", undo=NO_EFFECT))
    pivot(made)
    talk = given(made, OPENED).expect_anything()
    verdict = judge(made.definition, replace(new.definition, version=2), talk.state)
    assert "the point of no return has passed in one version and not in the other" in verdict.reasons


def test_waits_items_and_children_are_carried_too() -> None:
    """A wait keeps its early answer, an each its items, a sub-saga its child; else they are pinned."""
    early = given(decision(), OPENED).expect_anything().when(Agreed())
    old = decision().definition
    assert judge(old, replace(old, version=2), early.state).outcome is Outcome.MIGRATE
    gone = saga("decision")
    pivot(gone, after=step(gone, "first"))
    verdict = judge(old, replace(gone.definition, version=2), early.state)
    assert verdict.reasons == ("asked is gone, and its answer has come already",)

    picking = given(basket(), Opened(lines=("x", "y"))).expect_anything().when(Yes()).expect_anything()
    plain = basket().definition
    single = replace(
        plain,
        version=2,
        steps=tuple(replace(each, over=None) if each.key == "pick" else each for each in plain.steps),
    )
    verdict = judge(plain, single, picking.state)
    assert verdict.reasons == ("pick has begun as a command for each item and is a command now",)

    outer = parent().definition
    waiting = given(parent(), OPENED).expect_anything().when(Yes()).expect_anything()
    elsewhere = replace(
        outer,
        version=2,
        steps=tuple(
            replace(each, child=chain().definition) if each.child is not None else each for each in outer.steps
        ),
    )
    assert judge(outer, elsewhere, waiting.state).reasons == ("child awaits the saga child, and starts chain now",)
    answered = waiting.when(SubsagaCompleted("child", "its id", None)).expect_anything()
    reasons = judge(outer, elsewhere, answered.state).reasons
    assert reasons == ("child has started the saga child, and starts chain now",)


def test_a_sub_saga_that_owes_nothing_is_told_all_the_same_when_its_parent_is_over() -> None:
    """A version without it would let it wait for that for ever."""

    def buying(*, packs: bool) -> Saga[Opened]:
        made = saga("buying")
        last = pivot(made)
        if packs:
            begun: Any = named("begin_packing", lambda event, *_: event)
            last = made.subsaga(long_way(), begun, after=last, within=hours(1))
        retriable(made, "last", after=last)
        return made

    old, new = buying(packs=True), replace(buying(packs=False).definition, version=2)
    talk = given(old, OPENED).expect_anything().when(Yes()).expect_anything()
    talk.when(SubsagaCompleted("long_way", "its id", None)).expect_anything()
    gone = "long_way is gone, and the saga long_way waits to hear that this one is over"
    assert judge(old.definition, new, talk.state).reasons == (gone,)


def test_a_sub_saga_stays_of_the_kind_that_its_parent_counts_on() -> None:
    """A parent that may ask it back asks in vain, once it has a point of no return."""
    old, new = child(), saga("child")
    pivot(new, after=step(new, "inner"))
    alone = given(old, OPENED).expect_anything().state
    asked = replace(alone, parent=ParentReference("parent", "p", "k", "child", Direction.DO, 1, 1))
    second = replace(new.definition, version=2)
    assert judge(old.definition, second, alone).outcome is Outcome.MIGRATE
    reasons = judge(old.definition, second, asked).reasons
    assert reasons == ("its parent started it as compensatable, and it is pivot now",)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (replace(at_second().state, version=7), "it is an instance of chain version 7"),
        (replace(at_second().state, steps=at_second().state.steps[:-1]), "its steps are not those of the old version"),
    ],
)
def test_a_state_of_another_definition_is_refused(state: SagaState, words: str) -> None:
    """Nothing is guessed about it."""
    verdict = judge(OLD, replace(OLD, version=2), state)
    assert verdict.outcome is Outcome.REFUSE
    assert verdict.reasons[0].startswith(words)


def test_a_report_counts_by_reason() -> None:
    """Every reachable state of the old version, and what becomes of it."""
    report = report_on(OLD, changed("first", undo=None), explore(OLD).states())
    assert report.count(Outcome.REFUSE) == 0
    assert report.count(Outcome.MIGRATE) > 0
    assert report.count(Outcome.PIN) > report.count(Outcome.MIGRATE)
    assert report.ended > 0
    assert any(group.example == "running: first sent" for group in report.groups.values())
    begun = given(saga_of_nothing(), OPENED).state
    assert report_on(saga_of_nothing().definition, saga_of_nothing().definition, [begun]).groups
    same = report_on(OLD, replace(OLD, version=2), explore(OLD).states())
    assert same.count(Outcome.PIN) == same.count(Outcome.REFUSE) == 0


def test_a_sub_saga_that_has_ended_may_be_asked_for_and_is_judged() -> None:
    """Its parent may compensate yet, and asks either; one that stands alone has nothing left to do."""
    alone = given(child(), OPENED).expect_anything().when(Yes()).state
    failed = given(child(), OPENED).expect_anything().when(No()).state
    reference = ParentReference("parent", "p", "k", "child", Direction.DO, 1, 1)
    states = [alone, replace(alone, parent=reference), replace(failed, parent=reference)]
    assert [state.status for state in states] == [Status.COMPLETED, Status.COMPLETED, Status.COMPENSATED]
    old = child().definition
    without_undo = replace(
        old, version=2, steps=tuple(replace(each, undo=None) if each.key == "inner" else each for each in old.steps)
    )
    report = report_on(old, without_undo, states)
    assert (report.ended, report.count(Outcome.PIN), report.count(Outcome.MIGRATE)) == (1, 1, 1)


def test_instances_of_the_new_version_are_where_they_belong() -> None:
    """Versions run side by side: they are counted, and nothing is said against them."""
    new = replace(OLD, version=2)
    report = report_on(OLD, new, [at_second().state, replace(at_second().state, version=2)])
    assert (report.count(Outcome.MIGRATE), report.already, report.count(Outcome.REFUSE)) == (1, 1, 0)


def saga_of_nothing() -> Saga[Opened]:
    """Return a saga in which only a delay has begun."""
    made = saga("nothing")
    made.delay("pause", lasts=seconds(1))
    return made


VERSIONS: dict[str, Definition] = {
    "chain, one step more": inserted("pivot"),
    "chain, one step less": without("second"),
    "chain, past the pivot": inserted("last"),
    "chain, no undo": changed("first", undo=None),
    "chain, undone elsewhere": changed("second", undo=undo_of("second", participant="elsewhere")),
}
SAMPLES = {Opened: OPENED, Yes: Yes(), No: No(), Undone: Undone(), Kept: Kept()}


@pytest.mark.parametrize("name", VERSIONS)
@settings(max_examples=60, deadline=None)
@examples(walk=walks(30), more=walks(30), when=strategies.integers(0, 30))
def test_what_migrates_keeps_every_promise(name: str, walk: Walk, more: Walk, when: int) -> None:
    """An instance that migrates in the middle of any walk goes on under the new version, in any world, to its end."""
    new = VERSIONS[name]
    world = World(OLD, SAMPLES.__getitem__)
    for choice in walk.choices[:when]:
        moves = world.moves()
        moves[choice % len(moves)].happen()
    assert world.state is not None
    if world.state.ended:
        return
    verdict = judge(OLD, new, world.state)
    if verdict.state is None:
        assert verdict.reasons
        return
    world.definition, world.state = new, verdict.state
    survive(world, more)


def test_every_shape_migrates_to_itself() -> None:
    """A version that differs in nothing but its number takes every reachable state."""
    for shape in SHAPES.values():
        definition = shape().definition
        report = report_on(definition, replace(definition, version=2), explore(definition).states())
        assert report.count(Outcome.PIN) == 0, definition.name
