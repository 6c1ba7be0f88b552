"""Golden histories: a run that was recorded once is decided again in every test, for ever, and must come out the same.

A file holds the inputs and, for each, the decision that was taken (its effects, and how saga and steps then stood). A
definition that is in production must still decide them so; a change that cannot is a new version.
"""

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from towpath.saga.advance import Decision, advance
from towpath.saga.definition import Definition
from towpath.saga.effects import SubsagaCompleted
from towpath.saga.inputs import (
    HINDERED,
    Hindered,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    TimerFired,
    Unrecognised,
)
from towpath.saga.testing.plain import from_plain, to_plain

_INPUTS: dict[str, type] = {
    kind.__name__: kind for kind in (Started, Replied, TimerFired, Signalled, OperatorAsked, ParentAsked, Unrecognised)
}


class HistoryChanged(AssertionError):
    """A recorded run is no longer decided as it was; the message names the file, the input and the difference."""


def history_of(definition: Definition, inputs: Iterable[Input], decisions: Iterable[Decision]) -> dict[str, Any]:
    """Return the golden form of a run."""
    return {
        "saga": definition.name,
        "version": definition.version,
        "entries": [
            {"input": input_to_plain(input_), "decision": _decision(decision)}
            for input_, decision in zip(inputs, decisions, strict=True)
        ],
    }


def write_history(path: Path, history: dict[str, Any]) -> None:
    """Write a golden file, one line an input, so that a difference reads well. Never over one that exists."""
    if path.exists():
        raise FileExistsError(f"{path} is there: a golden history is never rewritten; record another, or a new version")
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"saga": history["saga"], "version": history["version"]})
    lines = [json.dumps(entry, sort_keys=True) for entry in history["entries"]]
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def read_history(path: Path) -> dict[str, Any]:
    """Return what `write_history` wrote."""
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    return {**json.loads(head), "entries": [json.loads(line) for line in lines]}


def replay(definition: Definition, history: dict[str, Any], name: str = "history") -> None:
    """Decide a recorded run again. Raises HistoryChanged at the first decision that differs."""
    assert (definition.name, definition.version) == (history["saga"], history["version"]), f"{name} is of another saga"
    classes = classes_of(definition)
    state = None
    for number, entry in enumerate(history["entries"], start=1):
        decision = advance(definition, state, _input(entry["input"], classes))
        state = decision.state
        decided = _decision(decision)
        if decided != entry["decision"]:
            raise HistoryChanged(
                f"{name}: input {number} ({entry['input']['input']}) is decided differently now:\n"
                + "\n".join(_differences(entry["decision"], decided))
            )


def inputs_of(definition: Definition, history: dict[str, Any]) -> list[Input]:
    """Return the inputs of a golden history, in their order, with the records that `definition` declares."""
    classes = classes_of(definition)
    return [_input(entry["input"], classes) for entry in history["entries"]]


def classes_of(definition: Definition) -> dict[str, type]:
    """Return every class that an input of this saga may carry, by name."""
    kinds = {*definition.starts, *definition.signals}
    for step in definition.steps:
        kinds |= set(step.outcomes)
        if step.child is not None and step.child.result is not None:
            kinds |= set(step.child.steps[step.child.result].outcomes)
        kinds |= set(step.undo.outcomes) if step.undo is not None else set()
    return {kind.__name__: kind for kind in kinds}


def input_to_plain(value: Any) -> dict[str, Any]:
    """Return an input or an effect as plain JSON; the record that it carries says its class."""
    plain: dict[str, Any] = {"input": type(value).__name__}
    if isinstance(value, Hindered):
        return {**plain, "of": input_to_plain(value.input), "reason": value.reason}
    for field in fields(value):
        content = getattr(value, field.name)
        carried = field.type is object or field.type == object | None
        plain[field.name] = _record(content) if carried else to_plain(content)
        if isinstance(content, SubsagaCompleted) and content.result is None:
            plain[field.name].pop("result", None)
    return plain


def _record(record: object) -> dict[str, Any] | None:
    if record is None:
        return None
    plain = {"class": type(record).__name__, **to_plain(record)}
    if isinstance(record, SubsagaCompleted):
        # Its result says its own class; one that there is not stands nowhere, as before sub-sagas had any.
        del plain["result"]
        plain |= {} if record.result is None else {"result": _record(record.result)}
    return plain


def _input(plain: dict[str, Any], classes: dict[str, type]) -> Input:
    hindered = HINDERED.get(plain["input"])
    if hindered is not None:
        inner: Any = _input(plain["of"], classes)
        return hindered(inner, plain["reason"])
    kind = _INPUTS[plain["input"]]
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in plain:
            continue  # a history from before there was such a field; its default is what it meant
        content = plain[field.name]
        if field.type is object or field.type == object | None:
            values[field.name] = None if content is None else _record_of(content, classes)
        else:
            values[field.name] = from_plain(field.type, content)
    made: Input = kind(**values)
    return made


def _record_of(plain: dict[str, Any], classes: dict[str, type]) -> object:
    """Return a record. One that the saga does not declare is refused whatever it holds, so its class's name will do."""
    content = dict(plain)
    name = content.pop("class")
    if name == SubsagaCompleted.__name__:
        result = content.pop("result", None)
        return SubsagaCompleted(**content, result=None if result is None else _record_of(result, classes))
    made: object = from_plain(classes[name], content) if name in classes else type(name, (), {})()
    return made


def _decision(decision: Decision) -> dict[str, Any]:
    effects = []
    for effect in decision.effects:
        plain = input_to_plain(effect)
        plain["effect"] = plain.pop("input")
        effects.append(plain)
    state = decision.state
    steps = {} if state is None else {step.key: step.status.value for step in state.steps}
    return {"effects": effects, "status": None if state is None else state.status.value, "steps": steps}


def _differences(recorded: dict[str, Any], decided: dict[str, Any]) -> list[str]:
    lines = []
    for name, was in recorded.items():
        if was != decided[name]:
            lines += [f"  {name} was {json.dumps(was)}", f"  {name} is  {json.dumps(decided[name])}"]
    return lines
