"""Diagrams are drawn from definitions: every step, every undo, every way to stand; in both forms."""

import re
import xml.etree.ElementTree as ET

import pytest

from sagas import cancel_order, place_order
from tests.unit.saga.support import (
    SHAPES,
    Agreed,
    Denied,
    saga,
    step,
)
from towpath.saga import HALT, NO_EFFECT, Definition, hours, seconds
from towpath.saga.diagram import flow_of, states_of, to_mermaid
from towpath.saga.svg import to_svg

DEFINITIONS: dict[str, Definition] = {
    "place_order": place_order.saga.definition,
    "cancel_order": cancel_order.saga.definition,
} | {name: shape().definition for name, shape in SHAPES.items()}


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("draw", [flow_of, states_of])
def test_both_forms_hold_every_box_and_arrow(name: str, draw: object) -> None:
    """What one form shows, the other does too."""
    graph = flow_of(DEFINITIONS[name]) if draw is flow_of else states_of(DEFINITIONS[name])
    boxes = [box for row in graph.rows for box in row]
    mermaid, svg = to_mermaid(graph), to_svg(graph)
    tree = ET.fromstring(svg)
    texts = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}tspan")]
    assert texts == [line for box in boxes for line in box.lines]
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) == len(graph.lines) + 1
    for box in boxes:
        assert re.search(rf'^  s_{box.key}\["', mermaid, re.MULTILINE)
    assert len(re.findall(r"^  s_\w+ (?:-->|-\.->)", mermaid, re.MULTILINE)) == len(graph.lines)
    assert {line.source for line in graph.lines} | {line.target for line in graph.lines} == {box.key for box in boxes}


def test_the_flow_of_place_order() -> None:
    """Rows by order; only arrows that say something."""
    graph = flow_of(place_order.saga.definition)
    assert [[box.key for box in row] for row in graph.rows] == [
        ["start"],
        ["verify_customer", "reserve_stock"],
        ["authorise_payment"],
        ["approval"],
        ["confirm_order"],
        ["capture_payment"],
    ]
    arrows = {(line.source, line.target) for line in graph.lines}
    assert ("confirm_order", "capture_payment") in arrows
    assert ("authorise_payment", "capture_payment") not in arrows  # implied
    boxes = {box.key: box for row in graph.rows for box in row}
    assert boxes["start"].lines == ("OrderPlaced", "undo: order")
    assert boxes["reserve_stock"].lines == ("reserve_stock", "catalog", "fails: OutOfStock", "undo: release_stock")
    assert boxes["approval"].lines == (
        "approval",
        "waits 1 d, then compensate",
        "when total_is_high",
        "fails: OrderDeclined",
    )
    assert boxes["confirm_order"].kind == "pivot"


def test_other_steps_say_what_they_are() -> None:
    """A delay its length, an each its limit, a sub-saga its version."""
    made = saga()
    made.delay("pause", lasts=seconds(90))
    made.delay("blink", lasts=seconds(0.25))
    (boxes,) = flow_of(made.definition).rows[1:]
    assert [box.lines[1] for box in boxes] == ["lasts 1.5 min", "lasts 250 ms"]
    assert "service, for each of up to 3" in to_mermaid(flow_of(SHAPES["basket"]().definition))
    child = to_mermaid(flow_of(SHAPES["parent"]().definition))
    assert "saga child version 1" in child
    assert "undo: the saga undoes itself" in child


def arrows(definition: Definition) -> dict[tuple[str, str], str]:
    """Return the arrows between the ways to stand, with their labels."""
    return {(line.source, line.target): line.label for line in states_of(definition).lines}


def test_the_states_of_place_order() -> None:
    """Everything may happen to it."""
    found = arrows(place_order.saga.definition)
    assert found["running", "compensating"] == "business failure, attempts used up, nobody decided, deadline, cancel"
    assert found["running", "stuck"] == "time used up from confirm_order on"
    assert found["compensating", "stuck"] == "an undo fails"
    assert found["compensating", "compensated"] == "all undone"


def test_what_cannot_happen_is_not_drawn() -> None:
    """A saga of retriable steps never compensates; one without effects is never stuck on its way back."""
    assert set(arrows(SHAPES["long_way"]().definition)) == {
        ("begin", "running"),
        ("running", "completed"),
        ("running", "stuck"),
        ("stuck", "running"),
    }
    made = saga()
    step(made, "a", undo=NO_EFFECT)
    assert "stuck" not in {source for source, _ in arrows(made.definition)}
    halting = saga()
    halting.wait("asked", succeeds=Agreed, fails=Denied, within=hours(1), on_timeout=HALT)
    assert arrows(halting.definition)["running", "stuck"] == "nobody decided"


def test_text_is_escaped() -> None:
    """Names of functions are Python's; a lambda's has angle brackets."""
    made = saga()
    step(made, "a", when=lambda _: True)
    graph = flow_of(made.definition)
    assert "when &lt;lambda&gt;" in to_mermaid(graph)
    assert "when &lt;lambda&gt;" in to_svg(graph)
