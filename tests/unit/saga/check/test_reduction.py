"""The reductions leave out nothing that counts: held against the whole search on small sagas of every shape."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.saga.check.chance import small
from tests.unit.saga.check.large import branched
from tests.unit.saga.check.planted import PLANTED, begin, child, confirm, ship, start_child, undoable
from tests.unit.saga.check.words import (
    Approved,
    Begun,
    Declined,
    NotTakenBack,
    TakenBack,
    Well,
    ask,
    ask_item,
    is_large,
    lines_of,
    shop,
    take_back,
    take_back_item,
)
from towpath.saga import HALT, NO_EFFECT, PROCEED, Definition, Undo, UndoEach, hours, seconds
from towpath.saga.check import Exploration, explore
from towpath.saga.check.encode import Encoder
from towpath.saga.check.endings import judge_graph
from towpath.saga.check.explore import Explorer, Node
from towpath.saga.check.moves import Move, Moves
from towpath.saga.definition_snapshot import definition_of, definition_snapshot_of
from towpath.saga.inputs import Action, OperatorAsked, TimerFired
from towpath.saga.state import Direction, Status, StepStatus


def conditions_and_a_wait() -> Definition:
    """A branch that may be skipped, one that changes nothing, and a wait that may be left out."""
    saga = begin()
    first = undoable(saga, "first", when=is_large)
    second = undoable(saga, "second", undo=NO_EFFECT)
    answer = saga.wait(
        "answer", after=first & second, succeeds=Approved, fails=Declined, within=hours(1), on_timeout=PROCEED
    )
    confirm(saga, answer, attempts=2)
    return saga.definition


def two_branches() -> Definition:
    """Two branches that can be undone, one of them not surely."""
    saga = begin()
    first = undoable(saga, "first", attempts=2, undo=Undo(take_back, succeeds=TakenBack, fails=NotTakenBack))
    second = undoable(saga, "second", attempts=2)
    confirm(saga, first & second, attempts=1)
    return saga.definition


def branches_past_the_pivot() -> Definition:
    """Two branches past the pivot, where the deadline stops them both."""
    saga = begin()
    pivot = confirm(saga, undoable(saga, "first", attempts=1), attempts=1)
    ship(saga, pivot, attempts=2)
    saga.retriable(shop, ask, key="tell", after=pivot, succeeds=Well, within=seconds(10), attempts=2)
    saga.delay("rest", lasts=hours(1), after=pivot)
    return saga.definition


def a_list() -> Definition:
    """A list before the pivot and one past it, the same."""
    saga = begin()
    items = saga.each(
        shop,
        ask_item,
        key="items",
        over=lines_of,
        limit=5,
        succeeds=Well,
        undo=UndoEach(take_back_item, succeeds=TakenBack, attempts=1),
        within=seconds(10),
        attempts=1,
    )
    pivot = confirm(saga, items, attempts=1)
    saga.retriable_each(
        shop,
        ask_item,
        key="send",
        over=lines_of,
        limit=5,
        succeeds=Well,
        after=pivot,
        within=seconds(10),
        attempts=1,
    )
    return saga.definition


def a_halt() -> Definition:
    """Two waits side by side, one of which calls a person."""
    saga = begin()
    first = undoable(saga, "first", attempts=1)
    one = saga.wait("one", after=first, succeeds=Approved, within=hours(1), on_timeout=HALT)
    two = saga.wait("two", after=first, succeeds=Declined, within=hours(1), on_timeout=PROCEED)
    confirm(saga, one & two, attempts=1)
    return saga.definition


def a_sub_saga() -> Definition:
    """A sub-saga beside a step."""
    saga = begin()
    first = undoable(saga, "first", attempts=2)
    confirm(saga, first & saga.subsaga(child(), start_child, within=hours(2)), attempts=1)
    return saga.definition


SMALL: dict[str, tuple[Callable[[], Definition], bool]] = {
    "conditions_and_a_wait": (conditions_and_a_wait, False),
    "two_branches": (two_branches, False),
    "branches_past_the_pivot": (branches_past_the_pivot, False),
    "a_list": (a_list, False),
    "a_halt": (a_halt, False),
    "a_sub_saga": (a_sub_saga, False),
    "as_a_sub_saga": (lambda: child(attempts=2).definition, True),
    "two_branches_of_two": (lambda: branched(2, 2, attempts=1, approval=False).definition, False),
    "a_mistake_past_the_pivot": (lambda: PLANTED["a_step_past_the_pivot_may_fail"].definitions(mended=False)[0], False),
    "an_undo_without_an_end": (lambda: PLANTED["an_undo_can_only_be_refused"].definitions(mended=False)[0], False),
}


def endings(exploration: Exploration, definition: Definition) -> set[Any]:
    """Return the endings that are reached, as a person tells them apart: status, and which steps began."""
    encoder = Encoder(definition, reduced=True)
    return {
        (*encoder.key(node.state, node.ledger, ())[1:], node.state.status.value)
        for node in exploration.nodes
        if node.state.ended
    }


def local_states(exploration: Exploration) -> set[Any]:
    """Return every way in which a step stands, with the direction in which the saga goes then."""
    return {
        (node.state.direction, step.key, cell.status, cell.result is not None and node.state.direction is Direction.DO)
        for node in exploration.nodes
        for step in node.state.steps
        for cell in step.items or (step,)
        # On the way back, what owes nothing is left out of the reduced search on purpose (reduction 5).
        if node.state.direction is Direction.DO or cell.due_milliseconds
    }


@pytest.mark.parametrize("name", SMALL)
def test_the_reduced_search_finds_what_the_whole_one_finds(name: str) -> None:
    """The same properties are broken at the same steps; the same endings, halts, causes and calls are seen."""
    build, as_child = SMALL[name]
    definition = build()
    compare(definition, explore(definition, as_child=as_child, reduced=False), as_child=as_child)


# The whole search of most small sagas takes a second at most; of a few, which are left out, minutes.
STATES_MAX = 1_500


@pytest.mark.parametrize("seed", range(100, 110))
def test_the_reduced_search_finds_what_the_whole_one_finds_in_sagas_made_at_random(seed: int) -> None:
    """Whatever the saga; the seed is the test's name."""
    definition = small(seed)
    whole = Explorer(definition, reduced=False, states_max=STATES_MAX).run()
    if whole.whole:
        compare(definition, whole)


def compare(definition: Definition, whole: Exploration, *, as_child: bool = False) -> None:
    """Hold the reduced search of a saga against the whole one."""
    reduced = explore(definition, as_child=as_child)
    assert broken(reduced) == broken(whole)
    assert endings(reduced, definition) == endings(whole, definition)
    assert set(reduced.halts) == set(whole.halts)
    assert reduced.begun == whole.begun
    assert reduced.undone == whole.undone
    assert reduced.causes == whole.causes
    assert reduced.calls == whole.calls
    assert local_states(reduced) == local_states(whole)
    assert len(reduced.nodes) <= len(whole.nodes)


def broken(exploration: Exploration) -> set[Any]:
    """Return which properties are broken, and where."""
    return {
        (each.breach.rule, each.breach.subject) for each in [*exploration.found.values(), *judge_graph(exploration)]
    }


def test_twelve_steps_in_three_branches_are_walked_in_few_states() -> None:
    """The number of states, not the seconds of a busy machine: 2,000 take a second or two on one core."""
    definition = branched(3, 3).definition
    assert len(definition.steps) == 1 + 12
    exploration = explore(definition)
    assert exploration.whole
    assert not exploration.found
    assert len(exploration.nodes) < 2_000


def test_a_walk_that_is_too_long_is_told() -> None:
    """A walk that was cut short proves nothing, and says so."""
    exploration = Explorer(branched(2, 2).definition, states_max=50).run()
    assert not exploration.whole
    assert {each.breach.rule.value for each in judge_graph(exploration)} == {"too_large"}


def test_conditions_that_are_read_from_an_outline_stay_two() -> None:
    """Two functions without a name are two questions; one function of the same results is one."""

    def saga_of(one: Any, other: Any) -> Definition:
        saga = begin()
        first = undoable(saga, "first", when=one)
        undoable(saga, "second", after=first, when=other)
        return definition_of(definition_snapshot_of(saga.definition))

    def seen(definition: Definition) -> set[tuple[bool, bool]]:
        return {
            (state.step("first").status is StepStatus.SKIPPED, state.step("second").status is StepStatus.SKIPPED)
            for state in explore(definition).states()
            if state.status is Status.COMPLETED
        }

    different = saga_of(lambda _: True, lambda _: False)
    assert seen(different) == {(True, True), (True, False), (False, True), (False, False)}
    assert seen(saga_of(is_large, is_large)) == {(True, True), (False, False)}


def test_every_kind_of_adversity_is_met() -> None:
    """The walk meets timers in time and too late, persons, early answers, and failures of each step."""
    exploration = explore(conditions_and_a_wait())
    met = [node.via.input for node in exploration.nodes]
    assert set(Action) >= {each.action for each in met if isinstance(each, OperatorAsked)}
    late = [each for each in met if isinstance(each, TimerFired) and each.at_milliseconds > 10**15]
    assert late
    early = [node for node in exploration.nodes if node.state.step("answer").status.value == "pending"]
    assert any(node.state.step("answer").result is not None for node in early)
    assert Begun in {definition.starts_on for definition in [exploration.definition]}


def _one_move_only(explorer: Explorer, node: Node) -> list[Move]:
    return moves_at(explorer, node)[:1]


def _never_early(*_: object, **__: object) -> list[Move]:
    return []


moves_at = Explorer.moves_at


@pytest.mark.parametrize(
    ("where", "name", "unsound"), [(Explorer, "moves_at", _one_move_only), (Moves, "early_signals", _never_early)]
)
def test_an_unsound_reduction_would_be_noticed(
    where: type, name: str, unsound: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison can fail: a search that leaves out too much sees fewer ways in which a step stands."""
    whole = explore(conditions_and_a_wait(), reduced=False)
    monkeypatch.setattr(where, name, unsound)
    assert local_states(explore(conditions_and_a_wait())) < local_states(whole)
