"""Writes down what a decision comes to: the messages that it sends, and its entry in the history. Pure.

The one rule: nothing is done here. What production performs and what a recorded run is held against is written by the
same hand.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages, headers_to_wire, parent_to_wire
from towpath.saga.advance import Decision
from towpath.saga.definition import Activity, Definition
from towpath.saga.effects import (
    AnswerParent,
    CompensateSaga,
    Finish,
    Happened,
    PublishEvent,
    SendCommand,
    Sending,
    StartNext,
    StartSaga,
)
from towpath.saga.effects import Record as Entry
from towpath.saga.inputs import (
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    Undecidable,
    Unfit,
    UpgradeAsked,
)
from towpath.saga.state import Direction, SagaState, Status, StepStatus
from towpath.stream.broker.record import Headers


class Outgoing(NamedTuple):
    """A message as it will lie in its topic, and what the history says of it."""

    topic: str
    key: bytes
    payload: bytes
    headers: Headers
    told: wire.SentMessage


class MessageBuilder:
    """Writes for one saga."""

    def __init__(self, saga: str, messages: Messages) -> None:
        self._saga = saga
        self._messages = messages

    def outgoing(self, decision: Decision, state: SagaState) -> tuple[Outgoing, ...]:
        """Return the messages that a decision sends, in order; `state` is the instance after it."""
        along = dict(state.headers)
        at = state.started_milliseconds
        return tuple(self._outgoing(effect, along, at) for effect in decision.effects if isinstance(effect, Sending))

    def answer(self, effect: AnswerParent, along: tuple[tuple[str, str], ...]) -> tuple[Outgoing, ...]:
        """Return what a parent is told of a sub-saga of which there is no instance; `along` are the carried headers."""
        return (self._outgoing(effect, dict(along)),)

    def entry(
        self,
        definition: Definition,
        state: SagaState,
        input_: Input,
        decision: Decision,
        outgoing: tuple[Outgoing, ...],
    ) -> wire.HistoryEntry:
        """Return the entry of a decision; `state` is the instance after it, `outgoing` what it sends."""
        entry = decision.effects[0]
        assert isinstance(entry, Entry), "the first effect of each decision is its entry for the history"
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
            sent=tuple(message.told for message in outgoing),
            result=self._result(definition, state, decision),
            **_came(input_),
        )

    def _result(self, definition: Definition, state: SagaState, decision: Decision) -> wire.Message | None:
        """Return what the saga came to, where it completes with this decision and says so."""
        completes = state.status is Status.COMPLETED and isinstance(decision.effects[-1], Finish)
        if definition.result is None or not completes:
            return None
        return self._messages.wrap_optional(state.steps[definition.result].result)

    def refusal(
        self, key: str, version: int, input_: Input, detail: str, reason: str, outgoing: tuple[Outgoing, ...] = ()
    ) -> wire.HistoryEntry:
        """Return the entry of an input that found no instance that it could concern; `outgoing` is what it led to."""
        return wire.HistoryEntry(
            saga=self._saga,
            version=version,
            saga_id="",
            key=key,
            input_id=input_.id,
            at_milliseconds=input_.at_milliseconds,
            happened=Happened.REFUSED.value,
            detail=detail,
            step="",
            direction=Direction.DO.value,
            reason=reason,
            message=self._carried_by(input_),
            sent=tuple(message.told for message in outgoing),
            **_came(input_),
        )

    def _outgoing(self, effect: Sending, along: dict[str, str], started_milliseconds: int = 0) -> Outgoing:
        step, item, direction, attempt, round_ = "", "", Direction.DO, 0, 0
        match effect:
            case SendCommand():
                topic, key = f"{effect.participant}.commands", effect.key
                message = self._messages.wrap(effect.command)
                due, started = _rfc3339(effect.deadline_milliseconds), _rfc3339(started_milliseconds)
                headers = envelope.command_headers(effect, message.type, due, along, started=started)
                step, item, direction = effect.step, effect.item, effect.direction
                attempt, round_ = effect.attempt, effect.round
            case StartSaga():
                topic, key = envelope.topic_of(effect.child, envelope.SIGNALS), effect.child_key or effect.key
                message = self._messages.wrap(effect.event)
                headers = envelope.start_headers(effect, message.type, along)
                step, item, attempt, round_ = effect.step, effect.item, effect.attempt, effect.round
            case CompensateSaga():
                topic, key = envelope.topic_of(effect.child, envelope.SIGNALS), effect.child_key or effect.key
                message = self._messages.wrap(wire.ParentAsked(parent=parent_to_wire(effect.parent)))
                headers = envelope.compensate_headers(effect, message.type, along)
                step, item, direction = effect.step, effect.item, Direction.UNDO
                attempt, round_ = effect.attempt, effect.round
            case AnswerParent():
                topic, key = envelope.topic_of(effect.parent.saga, envelope.REPLIES), effect.parent.key
                message = self._messages.wrap(effect.reply)
                headers = envelope.answer_headers(effect, message.type, along)
            case StartNext():
                topic, key = envelope.topic_of(effect.saga, envelope.SIGNALS), effect.next_key
                message = self._messages.wrap(effect.event)
                headers, step = envelope.passed_on(effect.start_id, message.type, along), effect.step
            case PublishEvent():
                topic, key = envelope.topic_of(effect.saga, envelope.EVENTS), effect.key
                message = self._messages.wrap(effect.event)
                headers, step = envelope.event_headers(effect, message.type, along), effect.step
        told = wire.SentMessage(
            topic=topic,
            type=message.type,
            step=step,
            item=item,
            direction=direction.value,
            attempt=attempt,
            round=round_,
            id=_value_of(headers, "id"),
        )
        return Outgoing(topic, key.encode(), message.payload, headers, told)

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
            case Unfit() | Undecidable():
                return self._carried_by(input_.input)
        return None


def came_as(entry: wire.HistoryEntry) -> str:
    """Return the class of the input that an entry is about, also where that could not be carried out."""
    return entry.input.rpartition(":")[2]


def _came(input_: Input) -> dict[str, Any]:
    """Return what the history says of an input beside what was decided, so that it can be decided again."""
    came: dict[str, Any] = {"input": type(input_).__name__}
    match input_:
        case Unfit() | Undecidable():
            inner = _came(input_.input)
            return {**inner, "input": f"{came['input']}:{inner['input']}"}
        case Started():
            came["headers"] = headers_to_wire(input_.headers)
            came["parent"] = None if input_.parent is None else parent_to_wire(input_.parent)
        case ParentAsked():
            came["parent"] = parent_to_wire(input_.parent)
        case OperatorAsked() | UpgradeAsked():
            came["asked_because"] = input_.reason
    return came


def _value_of(headers: Headers, name: str) -> str:
    return next((value or b"").decode() for header, value in headers if header == name)


def _rfc3339(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
