"""The machine's state and history as Avro records, and back. Pure.

The one rule: state -> record -> state is the identity, and so is bytes -> state -> bytes. The machine knows no Avro,
and nothing outside this room knows that its state has any.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

from towpath.contract.codec import Codec, UndecodableRecord
from towpath.contract.record import Record
from towpath.orchestrator import records as wire
from towpath.saga.definition_snapshot import name_of
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted
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
from towpath.saga.state_snapshot import nameplate

MESSAGES_REMEMBERED_MAX = 20_000
"""Encoded messages kept: at about 200 bytes each, 4 MB. A saga's results are written again with each of its states."""

NESTED_MAX = 32
"""Endings of sub-sagas within each other, each the result of the next: nobody writes as many levels."""


class Messages:
    """The project's records inside the engine's, encoded once and remembered while the same object comes again."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        # Keyed by identity; the record is kept beside, so that its identity is not given to another one.
        self._remembered: OrderedDict[int, tuple[object, wire.Message]] = OrderedDict()

    def wrap(self, record: Any) -> wire.Message:
        """Return `record` as a message."""
        found = self._remembered.get(id(record))
        if found is not None:
            return found[1]
        written = self._to_wire(record)
        message = wire.Message(type=written.SCHEMA_NAME, payload=self._codec.encode(written))
        self._remember(record, message)
        return message

    def read(self, payload: bytes) -> Any:
        """Return the record in `payload`, and remember it as it came. Raises what `unwrap` raises."""
        decoded = self._codec.decode(payload)
        record = self._from_wire(decoded, 0)
        self._remember(record, wire.Message(type=decoded.SCHEMA_NAME, payload=payload))
        return record

    def unwrap(self, message: wire.Message) -> Any:
        """Return the record that `message` carries. Raises what `Codec.decode` raises, also for too deep a nesting."""
        return self._unwrapped(message, 0)

    def _unwrapped(self, message: wire.Message, depth: int) -> Any:
        record = self._from_wire(self._codec.decode(message.payload), depth)
        self._remember(record, message)
        return record

    def wrap_optional(self, record: object | None) -> wire.Message | None:
        """Return `record` as a message, None for none."""
        return None if record is None else self.wrap(record)

    def unwrap_optional(self, message: wire.Message | None) -> Any:
        """Return the record that `message` carries, None for none."""
        return None if message is None else self.unwrap(message)

    def _to_wire(self, message: Any) -> Record:
        """Return the Avro record of what the machine itself sends; the project's records are Avro records already."""
        if isinstance(message, SubsagaCompleted):
            result = self.wrap_optional(message.result)
            return wire.SubsagaCompleted(saga=message.saga, saga_id=message.saga_id, result=result)
        if isinstance(message, SubsagaCompensated):
            return wire.SubsagaCompensated(saga=message.saga, saga_id=message.saga_id)
        assert isinstance(message, Record)
        return message

    def _from_wire(self, record: Record, depth: int) -> Any:
        """Return what the machine knows `record` as."""
        if isinstance(record, wire.SubsagaCompleted):
            if depth == NESTED_MAX:
                raise UndecodableRecord(f"{record.SCHEMA_NAME}: more than {NESTED_MAX} within each other")
            result = None if record.result is None else self._unwrapped(record.result, depth + 1)
            return SubsagaCompleted(record.saga, record.saga_id, result)
        if isinstance(record, wire.SubsagaCompensated):
            return SubsagaCompensated(record.saga, record.saga_id)
        return record

    def _remember(self, record: object, message: wire.Message) -> None:
        self._remembered[id(record)] = (record, message)
        if len(self._remembered) > MESSAGES_REMEMBERED_MAX:
            self._remembered.popitem(last=False)


class Opener(Protocol):
    """Whoever opens the messages in a state."""

    def unwrap(self, message: wire.Message) -> Any:
        """Return what stands for the record that `message` carries."""
        ...


class Nameplates:
    """Opens no message: each record is told by the name of its class. For who looks at states and not at data."""

    def unwrap(self, message: wire.Message) -> Any:
        """Return an empty record of the class that the machine knows the message as."""
        return nameplate(_NAMES.get(message.type, message.type))


_WIRE: dict[type, type[Record]] = {
    SubsagaCompleted: wire.SubsagaCompleted,
    SubsagaCompensated: wire.SubsagaCompensated,
}
_NAMES = {record.SCHEMA_NAME: name_of(kind) for kind, record in _WIRE.items()}


def wire_name(kind: type) -> str:
    """Return the full Avro name of the record as which messages of the class `kind` travel."""
    return name_of(_WIRE.get(kind, kind))


def parent_to_wire(parent: ParentReference) -> wire.ParentReference:
    """Return the Avro form of a reference to a parent."""
    return wire.ParentReference(
        saga=parent.saga,
        saga_id=parent.saga_id,
        key=parent.key,
        step=parent.step,
        direction=parent.direction.value,
        attempt=parent.attempt,
        round=parent.round,
        item=parent.item,
    )


def parent_from_wire(parent: wire.ParentReference) -> ParentReference:
    """Return the reference to a parent that `parent` is the Avro form of."""
    asked = (Direction(parent.direction), parent.attempt, parent.round)
    return ParentReference(parent.saga, parent.saga_id, parent.key, parent.step, *asked, parent.item)


def headers_to_wire(headers: Iterable[tuple[str, str]]) -> tuple[wire.Header, ...]:
    """Return the Avro form of the headers that a saga carries along."""
    return tuple(wire.Header(name=name, value=value) for name, value in headers)


def headers_from_wire(headers: Iterable[wire.Header]) -> tuple[tuple[str, str], ...]:
    """Return the headers that `headers` are the Avro form of."""
    return tuple((header.name, header.value) for header in headers)


def state_to_wire(
    state: SagaState,
    messages: Messages,
    definition: str = "",
    before: tuple[SagaState, wire.SagaState] | None = None,
) -> wire.SagaState:
    """Return the Avro form of an instance's state; `definition` is the fingerprint of what it is written under.

    `before` is the instance as it was and the Avro form of that: a decision changes few steps, the others are taken
    from there.
    """
    cause = state.cause
    return wire.SagaState(
        saga=state.saga,
        version=state.version,
        saga_id=state.saga_id,
        key=state.key,
        start_id=state.start_id,
        started_milliseconds=state.started_milliseconds,
        event=messages.wrap(state.event),
        status=state.status.value,
        direction=state.direction.value,
        deadline_milliseconds=state.deadline_milliseconds,
        steps=_steps_to_wire(state, messages, before),
        cause=None if cause is None else _cause_to_wire(cause, messages),
        recent=tuple(wire.RecentInput(id=id_, at_milliseconds=at) for id_, at in state.recent),
        forgotten_milliseconds=state.forgotten_milliseconds,
        parent=None if state.parent is None else parent_to_wire(state.parent),
        headers=headers_to_wire(state.headers),
        definition=definition,
    )


def state_from_wire(state: wire.SagaState, messages: Opener) -> SagaState:
    """Return the instance's state that `state` is the Avro form of."""
    return SagaState(
        saga=state.saga,
        version=state.version,
        saga_id=state.saga_id,
        key=state.key,
        start_id=state.start_id,
        started_milliseconds=state.started_milliseconds,
        event=messages.unwrap(state.event),
        status=Status(state.status),
        direction=Direction(state.direction),
        deadline_milliseconds=state.deadline_milliseconds,
        steps=tuple(_step_from_wire(step, messages) for step in state.steps),
        cause=None if state.cause is None else _cause_from_wire(state.cause, messages),
        recent=tuple((entry.id, entry.at_milliseconds) for entry in state.recent),
        forgotten_milliseconds=state.forgotten_milliseconds,
        parent=None if state.parent is None else parent_from_wire(state.parent),
        headers=headers_from_wire(state.headers),
    )


def _steps_to_wire(
    state: SagaState, messages: Messages, before: tuple[SagaState, wire.SagaState] | None
) -> tuple[wire.StepState, ...]:
    if before is None or len(before[1].steps) != len(state.steps):
        return tuple([_step_to_wire(step, messages) for step in state.steps])
    known = zip(state.steps, before[0].steps, before[1].steps, strict=True)
    return tuple([form if step is same else _step_to_wire(step, messages) for step, same, form in known])


def _step_to_wire(step: StepState, messages: Messages) -> wire.StepState:
    return wire.StepState(
        key=step.key,
        status=step.status.value,
        attempt=step.attempt,
        round=step.round,
        due_milliseconds=step.due_milliseconds,
        attempt_last=step.attempt_last,
        give_up_milliseconds=step.give_up_milliseconds,
        result=messages.wrap_optional(step.result),
        items=tuple(_item_to_wire(item, messages) for item in step.items),
    )


def _item_to_wire(item: StepState, messages: Messages) -> wire.ItemState:
    return wire.ItemState(
        key=item.key,
        status=item.status.value,
        attempt=item.attempt,
        round=item.round,
        due_milliseconds=item.due_milliseconds,
        attempt_last=item.attempt_last,
        give_up_milliseconds=item.give_up_milliseconds,
        result=messages.wrap_optional(item.result),
    )


def _step_from_wire(step: wire.StepState | wire.ItemState, messages: Opener) -> StepState:
    items: Iterable[wire.ItemState] = step.items if isinstance(step, wire.StepState) else ()
    return StepState(
        key=step.key,
        status=StepStatus(step.status),
        attempt=step.attempt,
        round=step.round,
        due_milliseconds=step.due_milliseconds,
        attempt_last=step.attempt_last,
        give_up_milliseconds=step.give_up_milliseconds,
        result=_opened(messages, step.result),
        items=tuple(_step_from_wire(item, messages) for item in items),
    )


def _cause_to_wire(cause: Cause, messages: Messages) -> wire.Cause:
    return wire.Cause(
        kind=cause.kind.value,
        step=cause.step,
        item=cause.item,
        reply=messages.wrap_optional(cause.reply),
        actor=cause.actor,
        reason=cause.reason,
    )


def _cause_from_wire(cause: wire.Cause, messages: Opener) -> Cause:
    return Cause(
        kind=CauseKind(cause.kind),
        step=cause.step,
        item=cause.item,
        reply=_opened(messages, cause.reply),
        actor=cause.actor,
        reason=cause.reason,
    )


def _opened(messages: Opener, message: wire.Message | None) -> Any:
    return None if message is None else messages.unwrap(message)
