"""The reductions leave out nothing that counts: held against the whole search on small sagas of every shape."""

import sys
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
from towpath.saga import COMPENSATE, HALT, NO_EFFECT, PROCEED, Definition, Undo, UndoEach, days, hours, seconds
from towpath.saga.check import Exploration, explore
from towpath.saga.check.encode import Encoder
from towpath.saga.check.endings import judge_graph
from towpath.saga.check.explore import Explorer, Node
from towpath.saga.check.moves import AdversaryMove, Moves
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
    "a_mistake_past_the_pivot": (lambda: PLANTED["a_step_past_the_pivot_may_fail"].definitions(fixed=False)[0], False),
    "an_undo_without_an_end": (lambda: PLANTED["an_undo_can_only_be_refused"].definitions(fixed=False)[0], False),
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
        # On the way back, what owes nothing is left out of the reduced search on purpose (reduction 6).
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
    """A walk that was cut short proves nothing, and says so, and what it covered."""
    told: list[tuple[int, int]] = []
    exploration = Explorer(branched(2, 2).definition, states_max=50, progress=lambda *words: told.append(words)).run()
    assert not exploration.whole
    (found,) = judge_graph(exploration)
    assert found.breach.rule.value == "too_large"
    depths = [len(exploration.path(number)) for number in range(len(exploration.nodes))]
    assert 0 < exploration.inputs_covered <= max(depths)
    words = f"every run of up to {exploration.inputs_covered} inputs: {len(exploration.begun) - 1} of 7 steps began"
    assert words in found.breach.words.replace("Covered is ", "")


def test_progress_is_told_of_large_sagas(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many states were found, and how many wait to be looked at."""
    monkeypatch.setattr(sys.modules[Explorer.__module__], "PROGRESS_EACH", 10)
    told: list[tuple[int, int]] = []
    Explorer(conditions_and_a_wait(), progress=lambda found, waiting: told.append((found, waiting))).run()
    assert len(told) > 3
    assert told[-1][0] > told[0][0]


def parallel(count: int) -> Definition:
    """Return steps that run side by side."""
    saga = begin()
    joined = undoable(saga, "step_0")
    for number in range(1, count):
        joined = joined & undoable(saga, f"step_{number}")
    ship(saga, confirm(saga, joined))
    return saga.definition


def chained_waits(count: int) -> Definition:
    """Return waits one after the other, of which each may be answered before it has begun."""
    saga = begin(deadline=days(4))
    last = undoable(saga, "first")
    for number in range(count):
        yes, no = (type(f"{name}{number}", (), {}) for name in ("Yes", "No"))
        last = saga.wait(f"wait_{number}", after=last, succeeds=yes, fails=no, within=hours(1), on_timeout=COMPENSATE)
    confirm(saga, last)
    return saga.definition


def parallel_retriables(count: int) -> Definition:
    """Return steps side by side past the pivot."""
    saga = begin()
    pivot = confirm(saga, undoable(saga, "first"))
    for number in range(count):
        saga.retriable(shop, ask, key=f"late_{number}", after=pivot, succeeds=Well, within=seconds(10), attempts=3)
    return saga.definition


def conditions_side_by_side(count: int) -> Definition:
    """Return steps with a condition each, side by side."""
    saga = begin()
    conditions = [lambda event, n=number: event.quantity > n for number in range(count)]
    tips = [undoable(saga, f"step_{number}", when=condition) for number, condition in enumerate(conditions)]
    joined = tips[0]
    for tip in tips[1:]:
        joined = joined & tip
    confirm(saga, joined)
    return saga.definition


LARGE: dict[str, tuple[Callable[[], Definition], int]] = {
    "12 parallel steps": (lambda: parallel(12), 1_000),
    "20 chained waits": (lambda: chained_waits(20), 300),
    "10 parallel retriables": (lambda: parallel_retriables(10), 900),
    "6 conditions side by side": (lambda: conditions_side_by_side(6), 2_000),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_runs_side_by_side_is_walked_in_few_states(name: str) -> None:
    """The number of states, not the seconds of a busy machine: 1,000 take two seconds of one core."""
    build, states_max = LARGE[name]
    definition = build()
    exploration = Explorer(definition, states_max=states_max).run()
    assert exploration.whole
    assert not exploration.found
    assert list(judge_graph(exploration)) == []
    assert exploration.begun | {0} == set(range(len(definition.steps)))


def test_every_two_steps_side_by_side_are_seen_in_either_order() -> None:
    """Each is done while the other is still under way."""
    seen = set()
    for state in explore(parallel(4)).states():
        if state.direction is Direction.DO:
            statuses = {step.key: step.status for step in state.steps}
            seen |= {
                (one, other)
                for one, how in statuses.items()
                for other, stands in statuses.items()
                if how is StepStatus.SUCCEEDED and stands is StepStatus.SENT
            }
    steps = [f"step_{number}" for number in range(4)]
    assert {(one, other) for one in steps for other in steps if one != other} <= seen


def test_every_two_conditions_are_seen_in_all_four_ways() -> None:
    """Of more than four, not every combination is walked."""
    ways: dict[tuple[int, int], set[tuple[bool, bool]]] = {}
    for state in explore(conditions_side_by_side(5)).states():
        if state.status is Status.COMPLETED:
            skipped = [step.status is StepStatus.SKIPPED for step in state.steps[1:6]]
            for one in range(5):
                for other in range(one):
                    ways.setdefault((one, other), set()).add((skipped[one], skipped[other]))
    assert {len(each) for each in ways.values()} == {4}


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


def _one_move_only(explorer: Explorer, node: Node, order: int = 0) -> dict[Any, list[AdversaryMove]]:
    return {name: moves[:1] for name, moves in groups_at(explorer, node, order).items()}


def _never_early(*_: object, **__: object) -> list[AdversaryMove]:
    return []


groups_at = Explorer.groups_at


@pytest.mark.parametrize(
    ("where", "name", "unsound"), [(Explorer, "groups_at", _one_move_only), (Moves, "early_signals", _never_early)]
)
def test_an_unsound_reduction_would_be_noticed(
    where: type, name: str, unsound: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison can fail: a search that leaves out too much sees fewer ways in which a step stands."""
    whole = explore(conditions_and_a_wait(), reduced=False)
    monkeypatch.setattr(where, name, unsound)
    assert local_states(explore(conditions_and_a_wait())) < local_states(whole)
