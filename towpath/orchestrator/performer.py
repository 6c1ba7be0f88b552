"""Performs what the machine decided: the one place where an effect becomes a record, a timer or an entry. Pure.

The one rule: all of it goes into the unit of work of the record that caused it.
"""

from towpath.contract.codec import Codec
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.desk import Desk
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.retention import Retention
from towpath.orchestrator.scribe import Outgoing, Scribe
from towpath.saga.advance import Decision
from towpath.saga.definition import Definition
from towpath.saga.effects import AnswerParent, CancelTimer, Finish, SetTimer
from towpath.saga.inputs import Input, Timer
from towpath.saga.state import SagaState


class Performer:
    """Turns effects into what the unit of work sends and keeps."""

    def __init__(self, saga: str, codec: Codec, messages: Messages, retention: Retention) -> None:
        self._saga = saga
        self._codec = codec
        self._scribe = Scribe(saga, messages)
        self._retention = retention
        self._history = envelope.topic_of(saga, envelope.HISTORY)

    def perform(self, desk: Desk, definition: Definition, state: SagaState, input_: Input, decision: Decision) -> None:
        """Do all that `decision` says; `state` is the instance after it."""
        outgoing = self._scribe.outgoing(decision, state)
        _send(desk, outgoing)
        for effect in decision.effects:
            match effect:
                case SetTimer():
                    self._set_timer(desk, state, effect)
                case CancelTimer():
                    desk.timers.cancel(_timer_key(effect.saga_id, effect.timer))
                case Finish():
                    self._retention.ended(desk, definition, state)
        self._write(desk, self._scribe.entry(definition, state, input_, decision, outgoing))

    def refuse(
        self,
        desk: Desk,
        version: int,
        input_: Input,
        detail: str,
        reason: str,
        answer: AnswerParent | None = None,
    ) -> None:
        """Write into the history that an input found no instance that it could concern, and tell a parent that asked.

        The answer carries on what the input carried, as that of an instance would.
        """
        outgoing = () if answer is None else self._scribe.answer(answer, envelope.carried(desk.record))
        _send(desk, outgoing)
        key = envelope.business_key(desk.record)
        self._write(desk, self._scribe.refusal(key, version, input_, detail, reason, outgoing))

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


def _send(desk: Desk, outgoing: tuple[Outgoing, ...]) -> None:
    for message in outgoing:
        desk.unit.send(message.topic, message.payload, key=message.key, headers=message.headers)


def _timer_key(saga_id: str, timer: Timer) -> bytes:
    return f"{saga_id}:{timer.key}".encode()
