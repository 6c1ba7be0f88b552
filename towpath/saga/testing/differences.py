"""Says in words what a saga sent, and where a message differs from the one that was expected. Pure."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from towpath.saga.effects import AnswerParent, CompensateSaga, PublishEvent, SendCommand, Sending, StartNext, StartSaga
from towpath.saga.state import Direction

VALUE_CHARACTERS_MAX = 120
"""Of one value in a line; what is longer is cut, for a line that wraps is no longer read as one."""
DIFFERENCES_MAX = 12
_INDENT = "    "
_MISSING = "nothing"


def message_of(said: Sending) -> object:
    """Return the record that a saga sent; of a request to compensate, the request itself."""
    match said:
        case SendCommand():
            return said.command
        case StartSaga() | PublishEvent() | StartNext():
            return said.event
        case AnswerParent():
            return said.reply
        case CompensateSaga():
            return said


def headline(said: Sending) -> str:
    """Return in one line what was sent, to whom, and for which step."""
    match said:
        case SendCommand():
            undo = "undo of " if said.direction is Direction.UNDO else ""
            item = f", item {said.item}" if said.item else ""
            again = f", attempt {said.attempt}" if said.attempt > 1 else ""
            return f"{type(said.command).__name__} to {said.participant} ({undo}step {said.step}{item}{again})"
        case StartSaga():
            return f"{type(said.event).__name__} to start saga {said.child} (step {said.step})"
        case CompensateSaga():
            return f"a request to compensate to saga {said.child} (step {said.step})"
        case AnswerParent():
            return f"{type(said.reply).__name__} to the parent saga {said.parent.saga}"
        case PublishEvent():
            return f"{type(said.event).__name__}, published (step {said.step})"
        case StartNext():
            return f"{type(said.event).__name__} to start the next instance under the key {said.next_key}"


def shown(sent: Sequence[Sending]) -> str:
    """Return everything that was sent, one message a paragraph, each field in a line of its own."""
    lines: list[str] = []
    for said in sent:
        lines.append(f"  {headline(said)}")
        lines += [f"  {_INDENT}{line}" for line in fields_of(message_of(said))]
    return "\n".join(lines) or "  nothing"


def fields_of(message: object) -> Iterator[str]:
    """Yield each field of a message with its value, in a line."""
    if isinstance(message, CompensateSaga):
        return
    if not dataclasses.is_dataclass(message) or isinstance(message, type):
        yield _value(message)
        return
    for field in dataclasses.fields(message):
        yield f"{field.name} = {_value(getattr(message, field.name))}"


def differences(expected: object, came: object, path: str = "") -> Iterator[str]:
    """Yield where two values differ, the place first: `lines[0].quantity: expected 2, came 3`."""
    if expected == came and type(expected) is type(came):
        return
    if _is_record(expected) and type(expected) is type(came):
        for field in dataclasses.fields(expected):  # type: ignore[arg-type]
            place = f"{path}.{field.name}" if path else field.name
            yield from differences(getattr(expected, field.name), getattr(came, field.name), place)
    elif isinstance(expected, list | tuple) and isinstance(came, list | tuple) and type(expected) is type(came):
        for index in range(max(len(expected), len(came))):
            yield from _elements(expected, came, index, f"{path}[{index}]")
    elif isinstance(expected, Mapping) and isinstance(came, Mapping):
        for key in dict.fromkeys((*expected, *came)):
            yield from _elements(expected, came, key, f"{path}[{key!r}]")
    else:
        yield f"{path or type(expected).__name__}: expected {_value(expected)}, came {_value(came)}"


def _elements(expected: Any, came: Any, key: Any, path: str) -> Iterator[str]:
    there = _has(expected, key), _has(came, key)
    if all(there):
        yield from differences(expected[key], came[key], path)
    else:
        one, other = (_value(each[key]) if has else _MISSING for each, has in zip((expected, came), there, strict=True))
        yield f"{path}: expected {one}, came {other}"


def _has(container: Any, key: Any) -> bool:
    return key in container if isinstance(container, Mapping) else key < len(container)


def _is_record(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def not_found(wanted: object, to: str | None, sent: Sequence[Sending], matches: Callable[[Sending], bool]) -> str:
    """Return what to say where nothing of what was `sent` is what was `wanted`.

    The nearest message comes first, with the fields in which it differs: one of the same class, with the fewest of
    them. `matches` says whether a message is the wanted one but for its receiver.
    """
    lines = [f"expected {_wanted(wanted)}{f' to {to}' if to else ''}, and it was not sent"]
    elsewhere = [said for said in sent if matches(said)]
    alike = [said for said in sent if _is_record(wanted) and type(message_of(said)) is type(wanted)]
    if elsewhere:
        lines.append(f"it was sent to {_receiver(elsewhere[0])}, not to {to}")
    elif alike:
        near = min(alike, key=lambda said: sum(1 for _ in differences(wanted, message_of(said))))
        lines.append(f"what came differs: {headline(near)}")
        found = list(differences(wanted, message_of(near)))
        lines += [f"{_INDENT}{line}" for line in found[:DIFFERENCES_MAX]]
        if len(found) > DIFFERENCES_MAX:
            lines.append(f"{_INDENT}and {len(found) - DIFFERENCES_MAX} further fields")
        sent = [said for said in sent if said is not near]
    if sent or not alike:
        lines += ["sent and not yet expected:", shown(sent)]
    return "\n".join(lines)


def _receiver(said: Sending) -> str:
    match said:
        case SendCommand():
            return said.participant
        case StartSaga() | CompensateSaga():
            return said.child
        case AnswerParent():
            return said.parent.saga
        case PublishEvent():
            return f"{said.saga}.events"
        case StartNext():
            return said.saga


def _wanted(wanted: object) -> str:
    if isinstance(wanted, type):
        return f"a {wanted.__name__}"
    if callable(wanted):
        return f"a message for which {getattr(wanted, '__name__', 'a function')} holds"
    return _value(wanted) if _is_record(wanted) else str(wanted)


def _value(value: object) -> str:
    text = repr(value)
    if len(text) <= VALUE_CHARACTERS_MAX:
        return text
    return f"{text[: VALUE_CHARACTERS_MAX - 1]}…"
