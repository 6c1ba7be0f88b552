"""Promises of the machine that hold for any saga, in any world: nothing left done that should be undone, and so on.

The promises themselves are asserted by the world at every decision (towpath/saga/testing/world.py) and at the end of
every walk (towpath/saga/testing/adversary.py).
"""

import pytest
from hypothesis import given, settings, strategies

from sagas import cancel_order, place_order
from tests.unit.saga.support import SHAPES, Agreed, Denied, Kept, No, Opened, Undone, Yes
from towpath.saga import Definition, advance
from towpath.saga.state import Status
from towpath.saga.state_snapshot import state_from_tree, state_to_snapshot
from towpath.saga.testing import World, sample
from towpath.saga.testing.adversary import Walk, survive, walks

SAGAS: dict[str, Definition] = {
    "place_order": place_order.saga.definition,
    "cancel_order": cancel_order.saga.definition,
} | {name: shape().definition for name, shape in SHAPES.items()}

QUICK = settings(max_examples=60, deadline=None)
ANSWERS = {Opened: Opened(lines=("x", "y")), Yes: Yes(), No: No(), Undone: Undone(), Kept: Kept(), Agreed: Agreed()}


def sampler(kind: type) -> object:
    """Return a sample; sagas over a list have two lines."""
    return ANSWERS.get(kind) or (Denied() if kind is Denied else sample(kind))


@pytest.mark.parametrize("name", SAGAS)
@QUICK
@given(walk=walks())
def test_any_saga_survives_any_world(name: str, walk: Walk) -> None:
    """Whatever happens: promises hold at every decision, and once the world is kind the saga ends."""
    survive(SAGAS[name], walk, sampler)


def test_who_skips_an_undo_answers_for_what_is_on_its_way() -> None:
    """A sub-saga that completes after a person has skipped its undo is that person's, and not left by the saga."""
    survive(SAGAS["parent"], Walk((0, 1, 2, 0, 244, 251, 67, 3, 118, 0, 1)), sampler)


@pytest.mark.parametrize("name", SAGAS)
@QUICK
@given(walk=walks(30))
def test_any_state_survives_its_tree(name: str, walk: Walk) -> None:
    """A state that was written and read again is the same state."""
    definition = SAGAS[name]
    world = survive(definition, walk, sampler)
    for _, decision in world.log:
        if decision.state is not None:
            assert state_from_tree(definition, state_to_snapshot(decision.state)) == decision.state


@pytest.mark.parametrize("name", SAGAS)
def test_a_kind_world_completes_every_saga(name: str) -> None:
    """No fault, every answer a success, no timer due: the saga completes."""
    world = World(SAGAS[name], sampler)
    for _ in range(200):
        moves = [move for move in world.moves() if not move.adverse and "falls due" not in move.name]
        if not moves:
            break
        moves[0].happen()
    assert world.state is not None
    assert world.state.status is Status.COMPLETED


@QUICK
@given(walk=walks(20), repeats=strategies.integers(1, 3))
def test_repeating_every_input_changes_nothing(walk: Walk, repeats: int) -> None:
    """Each input of a run, delivered several times, leads to the same state as delivered once."""
    definition = place_order.saga.definition
    world = survive(definition, walk, sampler)
    once = twice = None
    for input_, _ in world.log:
        once = advance(definition, once, input_).state
        for _ in range(repeats):
            twice = advance(definition, twice, input_).state
    assert once == twice
