"""Performs what the machine decided: the one place where an effect becomes a record, a timer or an entry. Pure.

The one rule: all of it goes into the unit of work of the record that caused it.
"""

from datetime import UTC, datetime
from typing import Any

from towpath.contract.codec import Codec
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.desk import Desk
from towpath.orchestrator.mapping import Messages, parent_to_wire
from towpath.orchestrator.retention import Retention
from towpath.saga.advance import Decision
from towpath.saga.definition import Activity, Definition
from towpath.saga.effects import (
    AnswerParent,
    CancelTimer,
    CompensateSaga,
    Finish,
    Happened,
    SendCommand,
    SetTimer,
    StartSaga,
)
from towpath.saga.effects import Record as Entry
from towpath.saga.inputs import Input, OperatorAsked, ParentAsked, Replied, Signalled, Started, Timer
from towpath.saga.state import Direction, SagaState, StepStatus
from towpath.stream.record import Headers

Sending = SendCommand | StartSaga | CompensateSaga | AnswerParent


class Performer:
    """Turns effects into what the unit of work sends and keeps."""

    def __init__(self, saga: str, codec: Codec, messages: Messages, retention: Retention) -> None:
        self._saga = saga
        self._codec = codec
        self._messages = messages
        self._retention = retention
        self._history = envelope.topic_of(saga, envelope.HISTORY)

    def perform(self, desk: Desk, definition: Definition, state: SagaState, input_: Input, decision: Decision) -> None:
        """Do all that `decision` says; `state` is the instance after it."""
        along = dict(state.headers)
        sent: list[wire.SentMessage] = []
        entry: Entry | None = None
        for effect in decision.effects:
            match effect:
                case SendCommand() | StartSaga() | CompensateSaga() | AnswerParent():
                    sent.append(self._send(desk, effect, along))
                case SetTimer():
                    self._set_timer(desk, state, effect)
                case CancelTimer():
                    desk.timers.cancel(_timer_key(effect.saga_id, effect.timer))
                case Finish():
                    self._retention.ended(desk, definition, state)
                case Entry():
                    entry = effect
        assert entry is not None, "each decision has one entry for the history"
        self._write(desk, self._entry(definition, state, input_, entry, tuple(sent)))

    def refuse(self, desk: Desk, version: int, input_: Input, detail: str, reason: str) -> None:
        """Write into the history that an input found no instance that it could concern."""
        entry = wire.HistoryEntry(
            saga=self._saga,
            version=version,
            saga_id="",
            key=envelope.business_key(desk.record),
            input_id=input_.id,
            at_milliseconds=input_.at_milliseconds,
            happened=Happened.REFUSED.value,
            detail=detail,
            step="",
            direction=Direction.DO.value,
            reason=reason,
            message=self._carried_by(input_),
            **_came(input_),
        )
        self._write(desk, entry)

    def _send(self, desk: Desk, effect: Sending, along: dict[str, str]) -> wire.SentMessage:
        step, item, direction, attempt, round_ = "", "", Direction.DO, 0, 0
        match effect:
            case SendCommand():
                topic, key = f"{effect.participant}.commands", effect.key
                message = self._messages.wrap(effect.command)
                headers = envelope.command_headers(effect, message.type, _rfc3339(effect.deadline_milliseconds), along)
                step, item, direction = effect.step, effect.item, effect.direction
                attempt, round_ = effect.attempt, effect.round
            case StartSaga():
                topic, key = envelope.topic_of(effect.child, envelope.SIGNALS), effect.key
                message = self._messages.wrap(effect.event)
                headers = envelope.start_headers(effect, message.type, along)
                step, attempt, round_ = effect.step, effect.attempt, effect.round
            case CompensateSaga():
                topic, key = envelope.topic_of(effect.child, envelope.SIGNALS), effect.key
                message = self._messages.wrap(wire.ParentAsked(parent=parent_to_wire(effect.parent)))
                headers = envelope.compensate_headers(effect, message.type, along)
                step, direction, attempt, round_ = effect.step, Direction.UNDO, effect.attempt, effect.round
            case AnswerParent():
                topic, key = envelope.topic_of(effect.parent.saga, envelope.REPLIES), effect.parent.key
                message = self._messages.wrap(effect.reply)
                headers = envelope.answer_headers(effect, message.type, along)
        desk.unit.send(topic, message.payload, key=key.encode(), headers=headers)
        return wire.SentMessage(
            topic=topic,
            type=message.type,
            step=step,
            item=item,
            direction=direction.value,
            attempt=attempt,
            round=round_,
            id=_value_of(headers, "id"),
        )

    def _set_timer(self, desk: Desk, state: SagaState, effect: SetTimer) -> None:
        timer = effect.timer
        fired = wire.TimerFired(
            saga_id=effect.saga_id,
            kind=timer.kind.value,
            step=timer.step,
            item=timer.item,
            direction=timer.direction.value,
            attempt=timer.attempt,
            round=timer.round,
            due_milliseconds=effect.due_milliseconds,
        )
        key = _timer_key(effect.saga_id, timer)
        headers = envelope.headers_of(id=key.decode(), type=fired.SCHEMA_NAME, saga_id=fired.saga_id)
        desk.timers.set(
            key, fired.due_milliseconds, self._codec.encode(fired), record_key=state.key.encode(), headers=headers
        )

    def _entry(
        self,
        definition: Definition,
        state: SagaState,
        input_: Input,
        entry: Entry,
        sent: tuple[wire.SentMessage, ...],
    ) -> wire.HistoryEntry:
        waiting = tuple(
            step.key
            for step, declared in zip(state.steps, definition.steps, strict=True)
            if step.status is StepStatus.WAITING and declared.activity is Activity.WAIT
        )
        return wire.HistoryEntry(
            saga=state.saga,
            version=state.version,
            saga_id=state.saga_id,
            key=state.key,
            input_id=entry.input_id,
            at_milliseconds=entry.at_milliseconds,
            happened=entry.happened.value,
            detail=entry.detail,
            step=entry.step,
            item=entry.item,
            direction=entry.direction.value,
            attempt=entry.attempt,
            round=entry.round,
            reason=entry.reason,
            actor=entry.actor,
            status=state.status.value,
            cause="" if state.cause is None else str(state.cause),
            waiting_for=waiting,
            message=self._carried_by(input_),
            sent=sent,
            **_came(input_),
        )

    def _write(self, desk: Desk, entry: wire.HistoryEntry) -> None:
        id_ = f"{self._saga}:{desk.record.position}:{entry.saga_id}:{entry.input_id}"
        headers = envelope.headers_of(id=id_, type=entry.SCHEMA_NAME, saga_id=entry.saga_id, saga=entry.saga)
        desk.unit.send(
            self._history,
            self._codec.encode(entry),
            key=entry.key.encode(),
            headers=headers,
            partition=desk.record.partition,
        )

    def _carried_by(self, input_: Input) -> wire.Message | None:
        match input_:
            case Started():
                return self._messages.wrap(input_.event)
            case Replied():
                return self._messages.wrap(input_.reply)
            case Signalled():
                return self._messages.wrap(input_.signal)
            case OperatorAsked():
                return self._messages.wrap_optional(input_.reply)
        return None


def _came(input_: Input) -> dict[str, Any]:
    """Return what the history says of an input beside what was decided, so that it can be decided again."""
    came: dict[str, Any] = {"input": type(input_).__name__}
    match input_:
        case Started():
            came["headers"] = tuple(wire.Header(name=name, value=value) for name, value in input_.headers)
            came["parent"] = None if input_.parent is None else parent_to_wire(input_.parent)
        case ParentAsked():
            came["parent"] = parent_to_wire(input_.parent)
        case OperatorAsked():
            came["asked_because"] = input_.reason
    return came


def _timer_key(saga_id: str, timer: Timer) -> bytes:
    return f"{saga_id}:{timer.key}".encode()


def _value_of(headers: Headers, name: str) -> str:
    return next((value or b"").decode() for header, value in headers if header == name)


def _rfc3339(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
