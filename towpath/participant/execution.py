"""Carries out a batch of commands in one transaction of the service's database.

The one rule: effects, recorded replies and outgoing messages are written by the same transaction, which is also the
one that moves the offsets. Per batch that costs three statements beside those of the handlers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import write
from towpath.participant import postgres
from towpath.participant.core import (
    BeyondInbox,
    Command,
    InboxRow,
    Ledger,
    Verdict,
    check_replies,
    decide,
    event_message,
    read_command,
    reply_message,
    waves,
)
from towpath.participant.service import Context, Handling, Service
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.connection.postgres import own_factories
from towpath.stream.engine.failures import RecordFailed

T = TypeVar("T")
SAVEPOINT = "towpath_command"
"""Called as no handler calls one of its own: the later of two of one name hides the other."""

YOUNG = timedelta(days=1)
"""No inbox forgets sooner ([participant] inbox_keep_days), whatever it was before; and clocks are less far apart."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a batch's commands: carried out (refusals among them), answered from the record, passed over."""

    carried_out: int
    refused: int
    replayed: int
    ignored: int
    replies: tuple[OutboxMessage, ...] = ()
    """Replies to first attempts: these may also be handed over directly, once they are committed."""


class Answerer:
    """Answers batches of one service's commands."""

    def __init__(self, service: Service, codec: Codec, *, outside: Any = None) -> None:
        self._service = service
        self._codec = codec
        self._outside = outside
        self._handlings: Mapping[str, Handling] = {
            command.SCHEMA_NAME: handling for command, handling in service.handlings.items()
        }

    def answer(self, connection: postgres.Connection, records: Sequence[ConsumedRecord], now: datetime) -> Answered:
        """Answer the commands in `records`, in the connection's open transaction, which is left open.

        Raises RecordFailed naming the record at fault where one is known, else what a handler raised: in both cases
        the transaction must be rolled back. Which error is whose is the stream's to judge.
        """
        commands = [self._read(record) for record in records]
        keys = {command.idempotency_key for command in commands}
        keys.update(command.undoes for command in commands if command.undoes is not None)
        batch = _Batch(connection, Ledger(postgres.fetch(connection, keys)), now)
        for wave in waves(commands):
            self._run_wave(batch, wave)
        postgres.store(connection, batch.ledger.added, batch.ledger.marked)
        write(connection, batch.messages)
        # Of a first attempt there is one reply only, so the saga knows a second copy of it for what it is.
        first = tuple(message for message in batch.messages if message.attempt == 1)
        return Answered(batch.carried_out, batch.refused, batch.replayed, batch.ignored, first)

    def _read(self, record: ConsumedRecord) -> Command:
        try:
            return read_command(record, self._handlings)
        except BaseException as error:  # whatever it is, the record's position goes with it
            raise RecordFailed(record, error) from error

    def _run_wave(self, batch: "_Batch", wave: Sequence[Command]) -> None:
        """Run commands of which no two have the same key: handler by handler, replies in the order of the commands."""
        to_run: dict[type[Record], list[Command]] = {}
        answers: dict[UUID, list[OutboxMessage]] = {}
        for command in wave:
            row = batch.ledger.row(command.idempotency_key)
            verdict = decide(row)
            if verdict is Verdict.RUN:
                self._refuse_forgotten(batch, command)
                to_run.setdefault(command.handling.command, []).append(command)
            elif verdict is Verdict.REPLAY:
                assert row is not None
                answers[command.idempotency_key] = [reply_message(command, row)]
                batch.replayed += 1
            else:
                batch.ignored += 1
        for commands in to_run.values():
            if commands[0].handling.each:
                for command in commands:
                    answers.update(self._run_each(batch, command))
            else:
                answers.update(self._run(batch, commands))
        for command in wave:
            batch.messages.extend(answers.get(command.idempotency_key, ()))

    def _refuse_forgotten(self, batch: "_Batch", command: Command) -> None:
        """Raise RecordFailed for a command so old that what the inbox knew of it, or of what it undoes, may be gone."""
        if batch.has_forgotten(command.written_milliseconds):
            raise RecordFailed(command.record, BeyondInbox(command.record))
        if batch.ledger.lacks(command) and batch.has_forgotten(command.started_milliseconds):
            raise RecordFailed(command.record, BeyondInbox(command.record, undo=True))

    def _run_each(self, batch: "_Batch", command: Command) -> dict[UUID, list[OutboxMessage]]:
        """Run one command of a handler that takes them one at a time, and take back what it did if it refuses."""
        if not command.handling.fails:
            return self._run(batch, [command])
        batch.connection.execute(f"SAVEPOINT {SAVEPOINT}")
        refused = batch.refused
        answers = self._run(batch, [command])
        end = "RELEASE" if batch.refused == refused else "ROLLBACK TO"
        batch.connection.execute(f"{end} SAVEPOINT {SAVEPOINT}")
        return answers

    def _run(self, batch: "_Batch", commands: Sequence[Command]) -> dict[UUID, list[OutboxMessage]]:
        handling = commands[0].handling
        contexts = [self._context(batch, command) for command in commands]
        only = commands[0].record if len(commands) == 1 else None
        with own_factories(batch.connection):
            replies = _blaming(only, lambda: handling.handler(contexts))
        _blaming(only, lambda: check_replies(handling, replies, len(commands)))
        batch.carried_out += len(commands)
        return {
            command.idempotency_key: self._outcome(batch, command, context, reply)
            for command, context, reply in zip(commands, contexts, replies, strict=True)
        }

    def _outcome(self, batch: "_Batch", command: Command, context: Context[Any], reply: Record) -> list[OutboxMessage]:
        refused = reply.__class__ in command.handling.fails
        batch.refused += refused
        payload = _blaming(command.record, lambda: self._codec.encode(reply))
        row = batch.ledger.record(command, reply.SCHEMA_NAME, payload, refused=refused)
        events = [] if refused else self._events(command, context)
        return [*events, reply_message(command, row)]

    def _events(self, command: Command, context: Context[Any]) -> list[OutboxMessage]:
        topic = self._service.events_topic
        return [
            event_message(command, number, emitted, self._encode(command, emitted.record), events_topic=topic)
            for number, emitted in enumerate(context.emitted)
        ]

    def _encode(self, command: Command, record: Record) -> bytes:
        return _blaming(command.record, lambda: self._codec.encode(record))

    def _context(self, batch: "_Batch", command: Command) -> Context[Any]:
        record = command.record
        return Context(
            command=_blaming(record, lambda: self._codec.decode(record.value or b"")),
            connection=batch.connection,
            now=batch.now,
            key=command.key,
            saga=command.saga,
            saga_id=command.saga_id,
            step=command.step,
            item=command.item,
            attempt=command.attempt,
            round=command.round,
            idempotency_key=command.idempotency_key,
            undoes=command.undoes,
            do_reply=self._reply_of(batch.ledger.to_undo(command)),
            deadline_text=record.header("deadline"),
            tenant=record.header("tenant"),
            traceparent=record.header("traceparent"),
            outside=self._outside,
        )

    def _reply_of(self, row: InboxRow | None) -> Record | None:
        return None if row is None or row.payload is None else self._codec.decode(row.payload)


@dataclass(slots=True)
class _Batch:
    """A batch while it runs."""

    connection: postgres.Connection
    ledger: Ledger
    now: datetime
    carried_out: int = 0
    refused: int = 0
    replayed: int = 0
    ignored: int = 0
    messages: list[OutboxMessage] = field(default_factory=list)
    _forgotten: int | None = None

    def has_forgotten(self, since_milliseconds: int) -> bool:
        """Return whether the inbox may have forgotten what was recorded since then; by itself it forgets nothing."""
        if since_milliseconds > int((self.now - YOUNG).timestamp() * 1000):
            return False
        if self._forgotten is None:
            until = postgres.forgotten_until(self.connection)
            self._forgotten = -1 if until is None else int(until.timestamp() * 1000)
        return since_milliseconds <= self._forgotten


def _blaming(record: ConsumedRecord | None, function: Callable[[], T]) -> T:
    """Run `function`; what it raises is blamed on `record`, where that is known."""
    try:
        return function()
    except BaseException as error:  # whatever it is, the record's position goes with it
        if record is None:
            raise
        raise RecordFailed(record, error) from error
