"""The neutral form of a state: it says everything, and reads back equal."""

import json

import pytest

from tests.unit.saga.support import OPENED, Opened, Yes, basket, chain, child, decision
from towpath.saga.inputs import Action
from towpath.saga.state import Direction, ParentReference, SagaState
from towpath.saga.state_snapshot import Opaque, state_from_tree, state_to_snapshot, tree_from_json, tree_to_json
from towpath.saga.testing import given

PARENT = ParentReference("parent", "p", "k", "child", Direction.DO, 1, 1)


def states() -> dict[str, tuple[SagaState, object]]:
    """Return states in which every part of the tree has something to say."""
    items = given(basket(), Opened(lines=("x", "y"))).expect_anything().when(Yes()).expect_anything()
    cancelled = given(chain(), OPENED).expect_anything().when_asked(Action.CANCEL).expect_anything()
    inner = given(child(), OPENED, parent=PARENT).expect_anything()
    return {
        "items": (items.when(Yes("x"), step="pick", item="0").expect_anything().state, basket()),
        "cause and requests": (cancelled.state, chain()),
        "parent": (inner.state, child()),
        "early answer": (given(decision(), OPENED).expect_anything().state, decision()),
    }


@pytest.mark.parametrize("name", states())
def test_a_state_reads_back_equal(name: str) -> None:
    """Written and read, nothing is lost."""
    state, made = states()[name]
    definition = made.definition  # type: ignore[attr-defined]
    assert state_from_tree(definition, state_to_snapshot(state)) == state


@pytest.mark.parametrize("name", states())
def test_a_tree_is_plain_but_for_its_marked_records(name: str) -> None:
    """Everything else is text, numbers, lists and dictionaries, so any format can hold it."""
    tree = state_to_snapshot(states()[name][0])
    text = json.dumps(tree, default=lambda value: {"opaque": type(value).__name__})
    assert json.loads(text)["event"] == {"opaque": "Opaque"}
    assert tree["event"] == Opaque(states()[name][0].event)


def test_steps_are_found_by_key_whatever_their_order() -> None:
    """A definition whose lines were reordered still reads its states."""
    state, _ = states()["cause and requests"]
    tree = state_to_snapshot(state)
    tree["steps"].reverse()
    assert state_from_tree(chain().definition, tree) == state


def test_a_step_that_the_definition_lacks_is_named() -> None:
    """A state of another definition is not read as if it were one of this."""
    state, _ = states()["cause and requests"]
    tree = state_to_snapshot(state)
    tree["steps"][1]["key"] = "renamed"
    with pytest.raises(ValueError, match="saga chain version 1: state and definition differ: first, renamed"):
        state_from_tree(chain().definition, tree)


@pytest.mark.parametrize("name", states())
def test_a_tree_as_json_tells_records_by_the_names_of_their_classes(name: str) -> None:
    """Everything but the records' contents comes back, without a definition too."""
    tree = state_to_snapshot(states()[name][0])
    text = json.dumps(tree_to_json(tree))
    again = tree_from_json(json.loads(text))
    assert json.dumps(tree_to_json(again)) == text
    state = state_from_tree(None, again)
    assert type(state.event).__name__ == "Opened"
    assert [(step.key, step.status) for step in state.steps] == [
        (step.key, step.status) for step in states()[name][0].steps
    ]
