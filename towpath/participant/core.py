"""What a command means, given what the inbox knows of it. Pure: headers and rows in, verdicts and rows out.

The one rule: a command is carried out at most once under its idempotency key, and never once it was undone.

| The inbox has for its key        | the command is                                                                 |
|----------------------------------|--------------------------------------------------------------------------------|
| nothing                          | carried out, and its reply recorded; a dead letter where what the inbox knew   |
|                                  | of it may have been removed                                                    |
| a reply                          | answered with that reply, under the attempt that asked                         |
| the mark of an undo              | passed over: the saga has its undo, and waits for nothing else                 |
| nothing, and nothing for what it | carried out: there is nothing to undo; a dead letter where what the inbox knew |
| undoes                           | of that may have been removed                                                  |

An undo is a command with a key of its own, and besides marks the key of what it undoes. A transient failure leaves no
row, for its transaction is rolled back; only a final outcome, a refusal included, is recorded.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple
from uuid import UUID, uuid5

from towpath.contract.record import Record
from towpath.errors import PeerError, ProgrammerError
from towpath.outbox.message import INT4_MAX, OutboxMessage
from towpath.participant.service import Emitted, Handling
from towpath.stream.broker.dead_letter import REDRIVE_HEADER, occurred_milliseconds
from towpath.stream.broker.record import ConsumedRecord


class Malformed(PeerError):
    """A record among the commands is not one that this service can answer."""

    def __init__(self, record: ConsumedRecord, problem: str) -> None:
        super().__init__(
            f"{record.position}: {problem}",
            kept="the record, untouched",
            next_step=f"towpath dead show {record.topic} {record.position}, then ask the owner of the topic",
        )


class BeyondInbox(PeerError):
    """Whether this command was carried out is no longer known; carrying it out would be a guess."""

    parks_key = False
    """It is older than what is no longer known: nothing that comes after it has to wait for it."""

    def __init__(self, record: ConsumedRecord, *, undo: bool = False) -> None:
        what, look = "the command is", "look whether its effect is there"
        if undo:
            what, look = "what it undoes may be", "look whether that is there, and undo it by hand"
        super().__init__(
            f"{record.position}: {what} not newer than what the inbox has forgotten",
            kept="the record, untouched",
            next_step=f"{look}; then: towpath dead drop {record.topic} {record.position} --reason REASON",
        )


class UndeclaredReply(ProgrammerError):
    """A handler returned what its declaration does not name."""


_TEXTS = ("saga", "step", "item", "direction", "reply_to", "tenant", "traceparent")


class Verdict(Enum):
    """What is done with a command."""

    RUN = "run"
    REPLAY = "replay"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Command:
    """What a command's headers say; its value is still undecoded."""

    record: ConsumedRecord
    handling: Handling
    key: str
    idempotency_key: UUID
    undoes: UUID | None
    saga: str
    saga_id: UUID
    step: str
    item: str
    direction: str
    attempt: int
    round: int
    reply_to: str
    written_milliseconds: int
    """When it was first written: one that was redriven has in its own timestamp when that was."""
    started_milliseconds: int = 0
    """When its saga started, of an undo: what that undoes was carried out later. 0 where its sender does not say."""


class InboxRow(NamedTuple):
    """What is recorded under an idempotency key, in the order of the table's columns.

    Without a reply (`type` and `payload` None) it is the mark of an undo that came before what it undoes.
    """

    idempotency_key: UUID
    saga_id: UUID
    saga: str
    step: str
    item: str
    direction: str
    round: int
    key: str
    undone: bool
    refused: bool
    type: str | None
    payload: bytes | None


def decide(row: InboxRow | None) -> Verdict:
    """Return what to do with a command of which the inbox knows `row`."""
    if row is None:
        return Verdict.RUN
    return Verdict.IGNORE if row.undone else Verdict.REPLAY


def read_command(record: ConsumedRecord, handlings: Mapping[str, Handling]) -> Command:
    """Return what the headers of `record` say; `handlings` are by the commands' full names.

    Raises Malformed where a header is missing or unreadable, or the service has no handler for the type.
    """
    headers = {name: value for name, value in record.headers if value is not None}
    try:
        _check(record.key or b"", headers)
        handling = handlings.get(headers["type"].decode())
        if handling is None:
            raise Malformed(record, f"nobody here answers {headers['type'].decode()}")
        undoes = headers.get("undoes") if handling.of is not None else None
        if handling.of is not None and undoes is None:
            raise Malformed(record, f"{handling.command.__name__} is an undo, and it does not say of what")
        return Command(
            record=record,
            handling=handling,
            key=(record.key or b"").decode(),
            idempotency_key=UUID(headers["idempotency_key"].decode()),
            undoes=UUID(undoes.decode()) if undoes is not None else None,
            saga=headers["saga"].decode(),
            saga_id=UUID(headers["saga_id"].decode()),
            step=headers["step"].decode(),
            item=headers.get("item", b"").decode(),
            direction=headers["direction"].decode(),
            attempt=_int4(headers["attempt"]),
            round=_int4(headers["round"]),
            reply_to=headers["reply_to"].decode(),
            written_milliseconds=(
                occurred_milliseconds(record) if REDRIVE_HEADER in headers else record.timestamp_milliseconds
            ),
            started_milliseconds=_milliseconds(headers["started"]) if "started" in headers else 0,
        )
    except KeyError as error:
        raise Malformed(record, f"it has no header {error.args[0]!r}") from None
    except ValueError as error:
        raise Malformed(record, f"one of its headers cannot be read: {error}") from None


def _check(key: bytes, headers: Mapping[str, bytes]) -> None:
    """Raise ValueError for what the handler, the inbox or the reply's columns could not take."""
    if b"\0" in key or any(b"\0" in headers.get(name, b"") for name in _TEXTS):
        raise ValueError("a zero byte, which PostgreSQL holds in no text")
    if "deadline" in headers:
        _milliseconds(headers["deadline"])


def _int4(text: bytes) -> int:
    """Return a number that a column of 32 bits holds. Past that psycopg's binary COPY writes another, unasked."""
    if not text.isdigit():  # int() takes signs, blanks and underscores as well
        raise ValueError(f"{text!r} is no number")
    number = int(text)
    if number > INT4_MAX:
        raise ValueError(f"{number} is past 32 bits")
    return number


def _milliseconds(text: bytes) -> int:
    moment = datetime.fromisoformat(text.decode())
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return int(moment.timestamp() * 1000)


def waves(commands: Sequence[Command]) -> Iterator[list[Command]]:
    """Cut commands into runs in which no key stands twice: what concerns one key stays in its order.

    Nor does an effect: under whichever keys two commands of one idempotency key come, the second meets the inbox row of
    the first, and is answered from it.
    """
    wave: list[Command] = []
    keys: set[str | UUID] = set()
    for command in commands:
        own: set[str | UUID] = {command.key, command.idempotency_key}
        if command.undoes is not None:
            own.add(command.undoes)
        if not own.isdisjoint(keys):
            yield wave
            wave, keys = [], set()
        wave.append(command)
        keys |= own
    if wave:
        yield wave


class Ledger:
    """The inbox as a batch sees it: what the database had, and over it what the batch adds and marks."""

    def __init__(self, rows: Iterable[InboxRow]) -> None:
        self._rows = {row.idempotency_key: row for row in rows}
        self._stored = frozenset(self._rows)
        self._added: set[UUID] = set()
        self._marked: set[UUID] = set()

    def row(self, idempotency_key: UUID) -> InboxRow | None:
        """Return what is known under a key."""
        return self._rows.get(idempotency_key)

    def to_undo(self, command: Command) -> InboxRow | None:
        """Return the row of what an undo is to undo: carried out, and neither refused nor undone; else None.

        A round after the first is asked only after the recorded answer that it could not be undone, which marked it.
        """
        row = self._rows.get(command.undoes) if command.undoes is not None else None
        return None if row is None or (row.undone and command.round == 1) or row.refused else row

    def lacks(self, command: Command) -> bool:
        """Return whether `command` is an undo of which nothing is known that it undoes."""
        return command.undoes is not None and command.undoes not in self._rows

    def record(self, command: Command, reply_type: str, payload: bytes, *, refused: bool) -> InboxRow:
        """Record a final outcome; an undo also marks what it undoes, whether that has come or not."""
        row = _row(command, command.idempotency_key, undone=False, refused=refused, type_=reply_type, payload=payload)
        self._put(row)
        if command.undoes is not None:
            before = self._rows.get(command.undoes)
            if before is None:
                self._put(_row(command, command.undoes, undone=True, refused=False, type_=None, payload=None))
            elif not before.undone:
                self._put(before._replace(undone=True))
        return row

    def _put(self, row: InboxRow) -> None:
        key = row.idempotency_key
        (self._marked if key in self._stored else self._added).add(key)
        self._rows[key] = row

    @property
    def added(self) -> list[InboxRow]:
        """Return the rows that the database does not have yet."""
        return [self._rows[key] for key in self._added]

    @property
    def marked(self) -> list[UUID]:
        """Return the keys of rows that the database has and that were undone since."""
        return list(self._marked)


def _row(
    command: Command, idempotency_key: UUID, *, undone: bool, refused: bool, type_: str | None, payload: bytes | None
) -> InboxRow:
    return InboxRow(
        idempotency_key=idempotency_key,
        saga_id=command.saga_id,
        saga=command.saga,
        step=command.step,
        item=command.item,
        direction=command.direction if idempotency_key == command.idempotency_key else "do",
        round=command.round,
        key=command.key,
        undone=undone,
        refused=refused,
        type=type_,
        payload=payload,
    )


def check_replies(handling: Handling, replies: Sequence[Record], asked: int) -> None:
    """Raise UndeclaredReply unless `replies` are one for each of `asked` commands, and of the declared types."""
    name = handling.command.__name__
    if len(replies) != asked:
        raise UndeclaredReply(
            f"the handler of {name} returned {len(replies)} replies to {asked} commands",
            kept="nothing of the batch",
            next_step="return one reply for each command, in their order",
        )
    for reply in replies:
        if reply.__class__ not in handling.succeeds and reply.__class__ not in handling.fails:
            raise UndeclaredReply(
                f"the handler of {name} returned {type(reply).__name__}, which its declaration does not name",
                kept="nothing of the batch",
                next_step=f"add {type(reply).__name__} to succeeds or fails of {name}, and to the saga's step",
            )


def reply_message(command: Command, row: InboxRow) -> OutboxMessage:
    """Return the message that answers an attempt with what is recorded.

    Its id follows from key and attempt: a command that is delivered twice is answered by the same message twice,
    and the saga drops the second.
    """
    assert row.type is not None
    assert row.payload is not None
    return OutboxMessage(
        id=uuid5(row.idempotency_key, f"reply:{command.attempt}"),
        topic=command.reply_to,
        key=command.key,
        type=row.type,
        payload=row.payload,
        saga_id=command.saga_id,
        saga=command.saga,
        step=command.step,
        item=command.item or None,
        direction=command.direction,
        attempt=command.attempt,
        round=command.round,
        traceparent=command.record.header("traceparent"),
        tenant=command.record.header("tenant"),
    )


def event_message(
    command: Command, number: int, emitted: Emitted, payload: bytes, *, events_topic: str
) -> OutboxMessage:
    """Return the message of the `number`-th event that a command emitted."""
    return OutboxMessage(
        id=uuid5(command.idempotency_key, f"event:{number}"),
        topic=emitted.topic or events_topic,
        key=emitted.key,
        type=emitted.record.SCHEMA_NAME,
        payload=payload,
        saga_id=command.saga_id,
        saga=command.saga,
        traceparent=command.record.header("traceparent"),
        tenant=command.record.header("tenant"),
    )
