"""What the headers of a saga's messages say: read from inputs, written on outputs. Pure.

The one rule: a header that is missing or malformed is the sender's mistake (PeerError), never a guess.
"""

import json
import re
from dataclasses import asdict
from enum import Enum
from typing import TypeVar

from towpath.errors import PeerError
from towpath.orchestrator.mapping import parent_from_wire
from towpath.orchestrator.records import ParentAsked
from towpath.saga.effects import AnswerParent, CompensateSaga, PublishEvent, SendCommand, StartSaga
from towpath.saga.keys import command_id_of, idempotency_key_of
from towpath.saga.state import Direction, ParentReference
from towpath.stream.broker.json_header import content_of
from towpath.stream.broker.record import ConsumedRecord, Headers

KindT = TypeVar("KindT", bound=Enum)
NUMBER_MAX = 2**31 - 1
"""Of attempts, rounds and versions: what states, histories and commands hold in 32 bits."""
_SAGA = re.compile(r"[A-Za-z0-9._-]{1,200}")  # a topic's name is made of it
_SAGA_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # ids are derived from it

CARRIED = ("traceparent", "tenant")
"""Headers of a start event that every message of its saga carries on."""

REPLIES, SIGNALS, TIMERS, OPERATOR, HISTORY, STATE, EVENTS = (
    "replies",
    "signals",
    "timers",
    "operator",
    "history",
    "state",
    "events",
)


class MalformedHeaders(PeerError):
    """A record lacks a header that its topic requires, or has one that cannot be read."""

    def __init__(self, record: ConsumedRecord, problem: str) -> None:
        super().__init__(
            f"{record.position}: {problem}",
            kept="the record, untouched",
            next_step=f"towpath dead show {record.topic} {record.position}, then ask the owner of the topic",
        )


def topic_of(saga: str, kind: str) -> str:
    """Return the name of one of the topics of `saga`."""
    return f"{saga}.{kind}"


def message_id(record: ConsumedRecord) -> str:
    """Return the record's `id` header; of a record without one, its position, which repeats with it."""
    return record.header("id") or record.position


def required(record: ConsumedRecord, name: str) -> str:
    """Return the header called `name`. Raises MalformedHeaders where there is none."""
    value = record.header(name)
    if not value:
        raise MalformedHeaders(record, f"it has no header {name!r}")
    return value


def number(record: ConsumedRecord, name: str) -> int:
    """Return the header called `name` as a number of at most 31 bits. Raises MalformedHeaders."""
    text = required(record, name)
    if not text.isascii() or not text.isdigit():
        raise MalformedHeaders(record, f"its header {name!r} is not a number")
    # Python itself refuses to read thousands of digits.
    if len(text) > len(str(NUMBER_MAX)) or int(text) > NUMBER_MAX:
        raise MalformedHeaders(record, f"its header {name!r} is past 31 bits")
    return int(text)


def direction(record: ConsumedRecord) -> Direction:
    """Return the record's direction. Raises MalformedHeaders."""
    text = required(record, "direction")
    try:
        return Direction(text)
    except ValueError:
        raise MalformedHeaders(record, "its header 'direction' is neither do nor undo") from None


def one_of(record: ConsumedRecord, kind: type[KindT], text: str, name: str) -> KindT:
    """Return the member of `kind` that the field `name` of the record's value names. Raises MalformedHeaders."""
    try:
        return kind(text)
    except ValueError:
        raise MalformedHeaders(record, f"its {name} is none that a saga knows") from None


def parent(record: ConsumedRecord) -> ParentReference | None:
    """Return who started this saga as its sub-saga, None where it stands alone. Raises MalformedHeaders."""
    text = record.header("parent")
    if text is None:
        return None
    try:
        content = content_of(text, ParentReference)
        return _answerable(ParentReference(**{**content, "direction": Direction(content["direction"])}))
    except ValueError:
        raise MalformedHeaders(record, "its header 'parent' names no parent") from None


def parent_that_asks(record: ConsumedRecord, asked: ParentAsked) -> ParentReference:
    """Return who asks this saga to undo itself. Raises MalformedHeaders."""
    try:
        return _answerable(parent_from_wire(asked.parent))
    except ValueError:
        raise MalformedHeaders(record, "it names no parent") from None


def _answerable(reference: ParentReference) -> ParentReference:
    """Return `reference`. Raises ValueError where no answer can be sent there."""
    "".join((reference.key, reference.step, reference.item)).encode()  # JSON can hold halves of characters
    named = reference.key and _SAGA.fullmatch(reference.saga) and _SAGA_ID.fullmatch(reference.saga_id)
    counted = all(0 <= one <= NUMBER_MAX for one in (reference.attempt, reference.round))
    if not named or not counted:
        raise ValueError("no such parent can be")
    return reference


def business_key(record: ConsumedRecord) -> str:
    """Return the record's key as text. Raises MalformedHeaders where it has none."""
    if not record.key:
        raise MalformedHeaders(record, "it has no key, and a saga's records are keyed by its business key")
    try:
        return record.key.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedHeaders(record, "its key is not UTF-8") from None


def carried(record: ConsumedRecord) -> tuple[tuple[str, str], ...]:
    """Return the headers of a start event that its saga carries on."""
    return tuple((name, value) for name in CARRIED if (value := record.header(name)))


def headers_of(**values: object) -> Headers:
    """Return `values` as headers, in UTF-8; those that are None or empty are left out."""
    return tuple([(name, str(value).encode()) for name, value in values.items() if value is not None and value != ""])


def command_headers(
    effect: SendCommand, type_: str, deadline: str, along: dict[str, str], *, started: str = ""
) -> Headers:
    """Return the headers of a command. `deadline` and `started`, of its saga, are RFC 3339; `along` are carried on.

    An undo says when its saga started: what it undoes was not carried out before, which an inbox may have forgotten.
    """
    key = effect.idempotency_key
    return headers_of(
        id=command_id_of(key, effect.attempt),
        type=type_,
        saga_id=effect.saga_id,
        saga=effect.saga,
        step=effect.step,
        item=effect.item,
        direction=effect.direction.value,
        attempt=effect.attempt,
        round=effect.round,
        idempotency_key=key,
        undoes=effect.undoes,
        started=started if effect.undoes else None,
        reply_to=topic_of(effect.saga, REPLIES),
        deadline=deadline,
        **along,
    )


def start_headers(effect: StartSaga, type_: str, along: dict[str, str]) -> Headers:
    """Return the headers of the event that starts a sub-saga."""
    return headers_of(
        id=effect.start_id, type=type_, parent=_parent_text(effect.parent), saga_version=effect.child_version, **along
    )


STARTS = "starts"
"""Header of a start event in a saga's own topic of signals: it comes from the saga itself, under the key it has now."""


def passed_on(id_: str, type_: str, along: dict[str, str]) -> Headers:
    """Return the headers of a start event that a saga sends to itself, under another key or for its next instance."""
    return headers_of(id=id_, type=type_, **{STARTS: "1"}, **along)


def compensate_headers(effect: CompensateSaga, type_: str, along: dict[str, str]) -> Headers:
    """Return the headers of what asks a sub-saga to undo itself; each attempt has an id of its own."""
    key = idempotency_key_of(effect.saga_id, effect.step, effect.item, Direction.UNDO, effect.round)
    return headers_of(id=command_id_of(key, effect.attempt), type=type_, saga_id=effect.child_saga_id, **along)


def answer_headers(effect: AnswerParent, type_: str, along: dict[str, str]) -> Headers:
    """Return the headers of a sub-saga's reply to its parent."""
    asked = effect.parent
    key = idempotency_key_of(effect.saga_id, asked.step, "", asked.direction, asked.round)
    return headers_of(
        id=command_id_of(key, asked.attempt),
        type=type_,
        saga_id=asked.saga_id,
        saga=asked.saga,
        step=asked.step,
        item=asked.item,
        direction=asked.direction.value,
        attempt=asked.attempt,
        round=asked.round,
        **along,
    )


def event_headers(effect: PublishEvent, type_: str, along: dict[str, str]) -> Headers:
    """Return the headers of an event that a saga publishes; repeated, it has the same id."""
    return headers_of(
        id=effect.event_id, type=type_, saga_id=effect.saga_id, saga=effect.saga, step=effect.step, **along
    )


def _parent_text(reference: ParentReference) -> str:
    # Where there is no item it is not said: a worker that knows of none reads the rest.
    said = {name: value for name, value in asdict(reference).items() if name != "item" or value}
    return json.dumps(said, separators=(",", ":"))
