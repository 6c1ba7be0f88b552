"""Performs what the machine decided: the one place where an effect becomes a record, a timer or an entry. Pure.

The one rule: all of it goes into the unit of work of the record that caused it.
"""

from towpath import tracing
from towpath.contract.codec import Codec
from towpath.errors import PeerError
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.message_builder import MessageBuilder, Outgoing
from towpath.orchestrator.record_context import RecordContext
from towpath.orchestrator.retention import Retention
from towpath.saga.advance import Decision
from towpath.saga.definition import Definition
from towpath.saga.effects import AnswerParent, CancelTimer, Finish, SetTimer
from towpath.saga.inputs import Input, Timer, TimerKind
from towpath.saga.state import SagaState
from towpath.stream.broker.record import ConsumedRecord, Headers


class Performer:
    """Turns effects into what the unit of work sends and keeps."""

    def __init__(self, saga: str, codec: Codec, messages: Messages, retention: Retention) -> None:
        self._saga = saga
        self._codec = codec
        self._message_builder = MessageBuilder(saga, messages)
        self._retention = retention
        self._history = envelope.topic_of(saga, envelope.HISTORY)

    def perform(
        self, context: RecordContext, definition: Definition, state: SagaState, input_: Input, decision: Decision
    ) -> None:
        """Do all that `decision` says; `state` is the instance after it."""
        outgoing = self._message_builder.outgoing(decision, state)
        _send(context, outgoing)
        for effect in decision.effects:
            match effect:
                case SetTimer():
                    self._set_timer(context, state, effect)
                case CancelTimer():
                    context.timers.cancel(_timer_key(effect.saga_id, effect.timer))
                case Finish():
                    self._retention.ended(context, definition, state)
        self._write(context, self._message_builder.entry(definition, state, input_, decision, outgoing))

    def refuse(
        self,
        context: RecordContext,
        version: int,
        input_: Input,
        detail: str,
        reason: str,
        answer: AnswerParent | None = None,
    ) -> None:
        """Write into the history that an input found no instance that it could concern, and tell a parent that asked.

        The answer carries on what the input carried, as that of an instance would.
        """
        outgoing = () if answer is None else self._message_builder.answer(answer, envelope.carried(context.record))
        _send(context, outgoing)
        key = envelope.business_key(context.record)
        self._write(context, self._message_builder.refusal(key, version, input_, detail, reason, outgoing))

    def pass_on(self, context: RecordContext, key: str) -> None:
        """Send a start event as it came to this saga's own topic of signals, where it lies under the saga's own key."""
        record = context.record
        assert record.value is not None  # it was decoded
        headers = envelope.passed_on(
            envelope.message_id(record), record.header("type") or "", dict(envelope.carried(record))
        )
        topic = envelope.topic_of(self._saga, envelope.SIGNALS)
        context.unit.send(topic, record.value, key=key.encode(), headers=headers)

    def _set_timer(self, context: RecordContext, state: SagaState, effect: SetTimer) -> None:
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
        context.timers.set(
            key, fired.due_milliseconds, self._codec.encode(fired), record_key=state.key.encode(), headers=headers
        )

    def _write(self, context: RecordContext, entry: wire.HistoryEntry) -> None:
        id_ = f"{self._saga}:{context.record.position}:{entry.saga_id}:{entry.input_id}"
        headers = envelope.headers_of(id=id_, type=entry.SCHEMA_NAME, saga_id=entry.saga_id, saga=entry.saga)
        headers = _linked(headers)
        context.unit.send(
            self._history,
            self._codec.encode(entry),
            key=entry.key.encode(),
            headers=headers,
            partition=context.record.partition,
        )


def _send(context: RecordContext, outgoing: tuple[Outgoing, ...]) -> None:
    for message in outgoing:
        context.unit.send(message.topic, message.payload, key=message.key, headers=_linked(message.headers))


def _linked(headers: Headers) -> Headers:
    """Return `headers` as those of a child of the span that is open, where spans are recorded.

    Otherwise a message carries the traceparent of its saga's start event, if that had one.
    """
    own = tracing.traceparent() if tracing.is_on() else None
    if own is None:
        return headers
    return (*(header for header in headers if header[0] != "traceparent"), ("traceparent", own.encode()))


def attempt_timer(saga: str, command: ConsumedRecord) -> bytes | None:
    """Return the key of the timer that an attempt of `saga` waits with for `command`; None where it is not its own."""
    try:
        if command.header("saga") != saga:
            return None
        step, item = envelope.required(command, "step"), command.header("item") or ""
        attempt, round_ = envelope.number(command, "attempt"), envelope.number(command, "round")
        timer = Timer(TimerKind.ATTEMPT, step, item, envelope.direction(command), attempt, round_)
        return _timer_key(envelope.required(command, "saga_id"), timer)
    except PeerError:
        return None


def _timer_key(saga_id: str, timer: Timer) -> bytes:
    return f"{saga_id}:{timer.key}".encode()
