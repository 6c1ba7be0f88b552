"""A definition without its functions: recorded, read, compared."""

import json
from dataclasses import replace

import pytest

from sagas import cancel_order, place_order
from tests.unit.saga.support import SHAPES, chain, saga, step
from towpath.saga import BuilderError, Definition, days
from towpath.saga.definition_snapshot import definition_of, definition_snapshot_of, differences, name_of
from towpath.saga.testing import given

DEFINITIONS: dict[str, Definition] = {
    "place_order": place_order.saga.definition,
    "cancel_order": cancel_order.saga.definition,
} | {name: shape().definition for name, shape in SHAPES.items()}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_outline_is_json_and_reads_back(name: str) -> None:
    """What was recorded tells the same definition, graph and masks included."""
    definition = DEFINITIONS[name]
    outline = json.loads(json.dumps(definition_snapshot_of(definition)))
    read = definition_of(outline)
    assert json.loads(json.dumps(definition_snapshot_of(read))) == outline
    assert (read.ancestors, read.descendants, read.pivot) == (
        definition.ancestors,
        definition.descendants,
        definition.pivot,
    )
    assert read.kind is definition.kind


def test_a_class_is_known_by_its_schema() -> None:
    """Its full name where it has one, else its own."""
    assert name_of(place_order.saga.definition.starts_on) == "craftygoods.order.OrderPlaced"
    assert name_of(chain().definition.starts_on) == "Opened"


def test_what_was_read_cannot_run() -> None:
    """Its functions were not recorded, and say so."""
    read = definition_of(definition_snapshot_of(chain().definition))
    with pytest.raises(BuilderError) as raised:
        given(read, read.starts_on())
    assert "first was not recorded" in str(raised.value.__cause__)


def test_differences_are_said_step_by_step() -> None:
    """What changed, from what to what; what is new and what is gone."""
    before = chain().definition
    second = before.step("second")
    assert second.policy is not None
    changed = replace(
        before,
        version=2,
        deadline_milliseconds=1,
        steps=(
            *before.steps[:2],
            replace(second, participant="elsewhere", policy=replace(second.policy, attempts=9), undo=None),
            replace(before.steps[3], key="decide", outcomes={}),
            before.steps[4],
        ),
    )
    words = differences(definition_snapshot_of(before), definition_snapshot_of(changed))
    assert words[:5] == [
        f"deadline_milliseconds was {4 * 86_400_000} and is 1",
        "step pivot is gone",
        "step decide is new",
        "step second: participant was 'service' and is 'elsewhere'",
        "step second: policy.attempts was 3 and is 9",
    ]
    assert words[5].startswith("step second: undo was {")
    assert words[5].endswith("and is None")
    assert differences(definition_snapshot_of(before), definition_snapshot_of(replace(before, version=2))) == []


def test_an_outline_forgets_no_limit() -> None:
    """A second definition that differs in anything that is said differs in its outline."""
    made, other = saga(deadline=days(3)), saga(deadline=days(2))
    step(made, "a", holds="stock")
    step(other, "a", touches="stock")
    assert len(differences(definition_snapshot_of(made.definition), definition_snapshot_of(other.definition))) == 4
