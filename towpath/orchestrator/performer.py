"""Performs what the machine decided: the one place where an effect becomes a record, a timer or an entry. Pure.

The one rule: all of it goes into the unit of work of the record that caused it, or, where a topic would not take a part
of it, nothing.
"""

from dataclasses import replace
from typing import NamedTuple

from towpath import tracing
from towpath.contract.codec import Codec
from towpath.errors import PeerError
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.instances import instance_key
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.message_builder import MessageBuilder, Outgoing
from towpath.orchestrator.record_context import RecordContext
from towpath.orchestrator.retention import Retention
from towpath.saga.advance import Decision
from towpath.saga.definition import Definition
from towpath.saga.effects import AnswerParent, CancelTimer, Finish, SetTimer
from towpath.saga.inputs import Hindered, Input, Timer, TimerKind
from towpath.saga.state import SagaState
from towpath.stream.broker.port import OutputRefused
from towpath.stream.broker.record import ConsumedRecord, Headers, with_header
from towpath.stream.broker.record_limits import WEIGHED_FROM_BYTES, RecordLimits, record_bytes

STATE_BYTES_SPARE = 8_192
"""What only a person's request, a refusal or a halt may fill of the largest state: 16 remembered requests at about 60
bytes, and the numbers of attempts and times, which grow by a few bytes a step."""


class _Timer(NamedTuple):
    """A timer as it will lie in the state."""

    key: bytes
    due_milliseconds: int
    payload: bytes
    headers: Headers


class _Written(NamedTuple):
    """An entry as it will lie in the history."""

    key: bytes
    payload: bytes
    headers: Headers


class Plan(NamedTuple):
    """All that a decision comes to, as it will be sent and kept, and not yet done."""

    outgoing: tuple[Outgoing, ...]
    timers: tuple[_Timer, ...]
    entry: _Written


class Performer:
    """Turns effects into what the unit of work sends and keeps."""

    def __init__(self, saga: str, codec: Codec, messages: Messages, retention: Retention, limits: RecordLimits) -> None:
        self._limits = limits
        self._saga = saga
        self._codec = codec
        self._message_builder = MessageBuilder(saga, messages)
        self._retention = retention
        self._history = envelope.topic_of(saga, envelope.HISTORY)
        self._changelog = envelope.topic_of(saga, envelope.STATE)
        self._timers = envelope.topic_of(saga, envelope.TIMERS)

    def plan(
        self, context: RecordContext, definition: Definition, state: SagaState, input_: Input, decision: Decision
    ) -> Plan:
        """Return what `decision` comes to; `state` is the instance after it."""
        outgoing = self._message_builder.outgoing(decision, state)
        timers = tuple(self._timer(effect) for effect in decision.effects if isinstance(effect, SetTimer))
        entry = self._message_builder.entry(definition, state, input_, decision, outgoing)
        own = _traceparent_in(state.headers)
        return Plan(_linked_all(outgoing, own), timers, self._written(context, entry, own))

    def weigh(self, plan: Plan, state: SagaState, content: bytes, input_: Input, content_before: int) -> None:
        """Raise OutputRefused where a topic does not take a part of `plan`, or `content`, the encoded `state`.

        `content_before` is how many bytes the state had: one that did not grow always has its place.
        """
        for message in plan.outgoing:
            if len(message.payload) > WEIGHED_FROM_BYTES:
                self._limits.check(message.topic, message.key, message.payload, message.headers)
        if len(plan.entry.payload) > WEIGHED_FROM_BYTES:
            self._limits.check(self._history, *plan.entry)
        if len(state.key) > WEIGHED_FROM_BYTES:
            for timer in plan.timers:
                self._limits.check(self._timers, state.key.encode(), timer.payload, timer.headers)
        if len(content) > max(WEIGHED_FROM_BYTES, content_before):
            bytes_ = record_bytes(instance_key(state.saga_id), content, ())
            bytes_max = self._limits.of(self._changelog)
            if bytes_ + (0 if isinstance(input_, Hindered) else STATE_BYTES_SPARE) > bytes_max:
                raise _state_too_large(self._changelog, bytes_, bytes_max)

    def perform(
        self, context: RecordContext, definition: Definition, state: SagaState, decision: Decision, plan: Plan
    ) -> None:
        """Do all that `decision` says, as `plan` has it; `state` is the instance after it."""
        _send(context, plan.outgoing)
        timers = iter(plan.timers)
        for effect in decision.effects:
            match effect:
                case SetTimer():
                    timer = next(timers)
                    context.timers.set(
                        timer.key,
                        timer.due_milliseconds,
                        timer.payload,
                        record_key=state.key.encode(),
                        headers=timer.headers,
                    )
                case CancelTimer():
                    context.timers.cancel(_timer_key(effect.saga_id, effect.timer))
                case Finish():
                    self._retention.ended(context, definition, state)
        self._write(context, plan.entry)

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

        The answer carries on what the input carried, as that of an instance would. Where the history does not take
        what the input carried, the entry goes without: nothing is decided by it, so nothing need be decided again.
        """
        outgoing = () if answer is None else self._message_builder.answer(answer, envelope.carried(context.record))
        own = _traceparent_in(())
        _send(context, _linked_all(outgoing, own))
        key = envelope.business_key(context.record)
        entry = self._message_builder.refusal(key, version, input_, detail, reason, outgoing)
        written = self._written(context, entry, own)
        if not self._limits.fit(self._history, *written):
            written = self._written(context, replace(entry, message=None), own)
        self._write(context, written)

    def pass_on(self, context: RecordContext, key: str) -> None:
        """Send a start event as it came to this saga's own topic of signals, where it lies under the saga's own key."""
        record = context.record
        assert record.value is not None  # it was decoded
        headers = envelope.passed_on(
            envelope.message_id(record), record.header("type") or "", dict(envelope.carried(record))
        )
        topic = envelope.topic_of(self._saga, envelope.SIGNALS)
        context.unit.send(topic, record.value, key=key.encode(), headers=headers)

    def _timer(self, effect: SetTimer) -> _Timer:
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
        return _Timer(key, fired.due_milliseconds, self._codec.encode(fired), headers)

    def _written(self, context: RecordContext, entry: wire.HistoryEntry, own: str | None) -> _Written:
        id_ = f"{self._saga}:{context.record.position}:{entry.saga_id}:{entry.input_id}"
        headers = envelope.headers_of(id=id_, type=entry.SCHEMA_NAME, saga_id=entry.saga_id, saga=entry.saga)
        return _Written(entry.key.encode(), self._codec.encode(entry), _linked(headers, own))

    def _write(self, context: RecordContext, entry: _Written) -> None:
        context.unit.send(
            self._history,
            entry.payload,
            key=entry.key,
            headers=entry.headers,
            partition=context.record.partition,
        )


def _state_too_large(topic: str, bytes_: int, bytes_max: int) -> OutputRefused:
    return OutputRefused(
        f"a state of {bytes_} bytes is too large for {topic}, which takes {bytes_max}, of which {STATE_BYTES_SPARE} "
        "are kept for what people ask",
        kept="the instance as it was",
        next_step=f"raise max.message.bytes in schemas/topics/{topic}.yaml, then: towpath provision",
    )


def _send(context: RecordContext, outgoing: tuple[Outgoing, ...]) -> None:
    for message in outgoing:
        context.unit.send(message.topic, message.payload, key=message.key, headers=message.headers)


def _traceparent_in(carried: tuple[tuple[str, str], ...]) -> str | None:
    """Return the traceparent of what is sent, where spans are recorded: in the trace of its saga's start event.

    `carried` are the headers that came with that.
    """
    if not tracing.is_on():
        return None
    home = dict(carried).get("traceparent")
    return tracing.traceparent() if home is None else tracing.goes_on_in(home)


def _linked_all(outgoing: tuple[Outgoing, ...], own: str | None) -> tuple[Outgoing, ...]:
    """Return messages with the headers that they are sent with."""
    if own is None:
        return outgoing
    return tuple(message._replace(headers=_linked(message.headers, own)) for message in outgoing)


def _linked(headers: Headers, own: str | None) -> Headers:
    """Return `headers` as those of a child of the span `own`, a traceparent.

    Without it a message carries the traceparent of its saga's start event, if that had one.
    """
    return headers if own is None else with_header(headers, "traceparent", own.encode())


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
