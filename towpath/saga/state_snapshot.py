"""The neutral form of a state: nested dictionaries and lists of str, int, None, with records at marked places.

Whoever stores a state maps this tree to a format of its own (the orchestrator: Avro). Records stand in it as the
objects that they are, wrapped in `Opaque`, at exactly these places: `event`, `cause.reply`, and `result` of a step or
an item. Steps are named by their stable keys, so that a tree outlives a definition whose lines were reordered.

As JSON a record is told by the name of its class alone: enough to compare versions, and no customer's data leaves.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from towpath.saga.definition import Definition
from towpath.saga.definition_snapshot import name_of
from towpath.saga.state import (
    Cause,
    CauseKind,
    Direction,
    ParentReference,
    SagaState,
    Status,
    StepState,
    StepStatus,
)

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Opaque:
    """A record of the project, which this room does not look into."""

    record: object


def state_to_snapshot(state: SagaState) -> Tree:
    """Return the state as a tree; `state_from_tree` gives an equal state back."""
    return {
        "saga": state.saga,
        "version": state.version,
        "saga_id": state.saga_id,
        "key": state.key,
        "start_id": state.start_id,
        "started_milliseconds": state.started_milliseconds,
        "event": Opaque(state.event),
        "status": state.status.value,
        "direction": state.direction.value,
        "deadline_milliseconds": state.deadline_milliseconds,
        "steps": [_step_to_tree(step) for step in state.steps],
        "cause": None if state.cause is None else _cause_to_tree(state.cause),
        "recent": [{"id": id_, "at_milliseconds": at} for id_, at in state.recent],
        "forgotten_milliseconds": state.forgotten_milliseconds,
        "parent": None if state.parent is None else _parent_to_tree(state.parent),
        "headers": [{"name": name, "value": value} for name, value in state.headers],
    }


def state_from_tree(definition: Definition | None, tree: Tree) -> SagaState:
    """Return the state that a tree tells, its steps in the definition's order; without one, in the tree's own.

    Raises KeyError or ValueError where the tree is not that of a state, or its steps are not the definition's.
    """
    steps = {step["key"]: _step_from_tree(step) for step in tree["steps"]}
    if definition is not None and steps.keys() != definition.index.keys():
        different = ", ".join(sorted(steps.keys() ^ definition.index.keys()))
        raise ValueError(
            f"saga {definition.name} version {definition.version}: state and definition differ: {different}"
        )
    return SagaState(
        saga=tree["saga"],
        version=tree["version"],
        saga_id=tree["saga_id"],
        key=tree["key"],
        start_id=tree["start_id"],
        started_milliseconds=tree["started_milliseconds"],
        event=tree["event"].record,
        status=Status(tree["status"]),
        direction=Direction(tree["direction"]),
        deadline_milliseconds=tree["deadline_milliseconds"],
        steps=tuple(steps[key] for key in (steps if definition is None else definition.index)),
        cause=None if tree["cause"] is None else _cause_from_tree(tree["cause"]),
        recent=tuple((entry["id"], entry["at_milliseconds"]) for entry in tree["recent"]),
        forgotten_milliseconds=tree["forgotten_milliseconds"],
        parent=None if tree["parent"] is None else _parent_from_tree(tree["parent"]),
        headers=tuple((entry["name"], entry["value"]) for entry in tree["headers"]),
    )


def tree_to_json(tree: Any) -> Any:
    """Return a tree as JSON, each record as `{"record": <name of its class>}`."""
    if isinstance(tree, Opaque):
        return {"record": name_of(type(tree.record))}
    if isinstance(tree, dict):
        return {key: tree_to_json(value) for key, value in tree.items()}
    return [tree_to_json(value) for value in tree] if isinstance(tree, list) else tree


def tree_from_json(value: Any) -> Any:
    """Return the tree that `tree_to_json` wrote, each record an empty one of a class of that name."""
    if isinstance(value, dict):
        if value.keys() == {"record"}:
            return Opaque(nameplate(value["record"]))
        return {key: tree_from_json(each) for key, each in value.items()}
    return [tree_from_json(each) for each in value] if isinstance(value, list) else value


@cache
def nameplate(name: str) -> object:
    """Return an empty record of a class called `name`, which stands for any record of that class."""
    made: object = type(name.rpartition(".")[2], (), {"SCHEMA_NAME": name})()
    return made


def _step_to_tree(step: StepState) -> Tree:
    return {
        "key": step.key,
        "status": step.status.value,
        "attempt": step.attempt,
        "round": step.round,
        "due_milliseconds": step.due_milliseconds,
        "attempt_last": step.attempt_last,
        "give_up_milliseconds": step.give_up_milliseconds,
        "result": None if step.result is None else Opaque(step.result),
        "items": [_step_to_tree(item) for item in step.items],
    }


def _step_from_tree(tree: Tree) -> StepState:
    return StepState(
        key=tree["key"],
        status=StepStatus(tree["status"]),
        attempt=tree["attempt"],
        round=tree["round"],
        due_milliseconds=tree["due_milliseconds"],
        attempt_last=tree["attempt_last"],
        give_up_milliseconds=tree["give_up_milliseconds"],
        result=None if tree["result"] is None else tree["result"].record,
        items=tuple(_step_from_tree(item) for item in tree["items"]),
    )


def _cause_to_tree(cause: Cause) -> Tree:
    return {
        "kind": cause.kind.value,
        "step": cause.step,
        "item": cause.item,
        "reply": None if cause.reply is None else Opaque(cause.reply),
        "actor": cause.actor,
        "reason": cause.reason,
    }


def _cause_from_tree(tree: Tree) -> Cause:
    return Cause(
        kind=CauseKind(tree["kind"]),
        step=tree["step"],
        item=tree["item"],
        reply=None if tree["reply"] is None else tree["reply"].record,
        actor=tree["actor"],
        reason=tree["reason"],
    )


def _parent_to_tree(parent: ParentReference) -> Tree:
    return {
        "saga": parent.saga,
        "saga_id": parent.saga_id,
        "key": parent.key,
        "step": parent.step,
        "direction": parent.direction.value,
        "attempt": parent.attempt,
        "round": parent.round,
        **({"item": parent.item} if parent.item else {}),
    }


def _parent_from_tree(tree: Tree) -> ParentReference:
    return ParentReference(
        saga=tree["saga"],
        saga_id=tree["saga_id"],
        key=tree["key"],
        step=tree["step"],
        direction=Direction(tree["direction"]),
        attempt=tree["attempt"],
        round=tree["round"],
        item=tree.get("item", ""),
    )
