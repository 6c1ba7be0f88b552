"""What travels with a dead-lettered record. Pure.

The one rule: the record goes untouched, value, key and headers; what is said about it is one more header, `dead`, as
JSON. The database form has the same text in the outbox's column of that name, and in it what no column can hold.
"""

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any

from towpath.stream.broker.json_header import content_of
from towpath.stream.broker.record import ConsumedRecord, Headers

DEAD_HEADER = "dead"
REDRIVE_HEADER = "redrive"
ANNOUNCED_HEADER = "stand-in"
POSITION_HEADER = "position"
"""Of a record that says what a person decided about a position (see towpath/positions)."""

FOLLOWER, STAND_IN = "follower", "stand-in"
"""Kinds of dead letters that nobody is to blame for."""

CAUSE_CHARACTERS_MAX = 500
KEY_BYTES_MAX = 1_024
"""A longer key is kept by its hash where keys are kept: PostgreSQL indexes no entry of more than 2,704 bytes."""


def key_name(key: bytes) -> bytes:
    """Return what stands for `key` where keys are kept: the key, or its hash where it is long; twice is as once."""
    return key if len(key) <= KEY_BYTES_MAX else b"sha256:" + hashlib.sha256(key).hexdigest().encode()


def dead_topic(topic: str) -> str:
    """Return the dead-letter topic of `topic`."""
    return f"{topic}.dead"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a record that comes from quarantine carries in its header `redrive`: for whom it is, and whose turn it has.

    `behind` is the position that its key waited for when it was sent (None: its key was not parked). A mark with
    `drop` releases what a dead letter holds; its record has no value and is not applied. The rest is what the record
    had at its first death: offset, time of that death, and its own timestamp. `stand_in` marks a record that never died
    (and has no value either): its key waits for it from now on, in place of dead letters that are no longer there.
    """

    application: str
    of: str
    behind: str | None
    drop: bool
    first_offset: int
    first_died_milliseconds: int
    timestamp_milliseconds: int
    stand_in: bool = False

    def to_header(self) -> tuple[str, bytes]:
        """Return the header."""
        return REDRIVE_HEADER, json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class Announcement:
    """Says in a dead-letter topic that a stand-in was sent, so that nobody counts on the old count until it is read.

    `key` is the parked key as text, bytes that are no UTF-8 as lone surrogates.
    """

    application: str
    partition: int
    key: str
    actor: str
    reason: str
    at_milliseconds: int

    def to_headers(self) -> Headers:
        """Return the headers of the record that announces."""
        return ((ANNOUNCED_HEADER, json.dumps(asdict(self)).encode()),)


def read_announcement(text: str) -> Announcement:
    """Return what an announcement says. Raises ValueError where it is none."""
    told = Announcement(**content_of(text, Announcement))
    as_bytes(told.key)
    return told


def read_mark(record: ConsumedRecord) -> Mark | None:
    """Return the mark of a record that comes from quarantine, None for any other record."""
    for name, value in record.headers:
        if name == REDRIVE_HEADER and value is not None:
            return _mark_of(value)
    return None


def _mark_of(value: bytes) -> Mark | None:
    """Return the mark that a header holds, None where it is somebody else's header of that name."""
    try:
        return Mark(**content_of(value, Mark))
    except ValueError:
        return None


def occurred_milliseconds(record: ConsumedRecord) -> int:
    """Return when what the record tells was written: a redriven one has in its own timestamp when it was redriven."""
    mark = read_mark(record) if record.headers else None
    return record.timestamp_milliseconds if mark is None else mark.timestamp_milliseconds


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why and whence a record is dead. `kind` says who must act: peer, handler, or (follower, stand-in) nobody.

    `parked` says that it holds its key; `behind` what its key waited for already, None where it waits for this one.
    `first_...` are those of its first death, where it was redriven since. `headers`, `key` and `valueless` say, in
    the database form, what the record had and the outbox cannot hold; bytes that are no UTF-8 as lone surrogates.
    `reference` is the hash of a record that is too large to go with its letter, and so is to be read where it died;
    `key` is then the name of its key (see `key_name`).
    """

    application: str
    kind: str
    cause: str
    error: str
    fingerprint: str
    topic: str
    partition: int
    offset: int
    timestamp_milliseconds: int
    attempts: int
    died_milliseconds: int
    parked: bool = False
    behind: str | None = None
    first_offset: int | None = None
    first_died_milliseconds: int | None = None
    headers: tuple[tuple[str, str | None], ...] | None = None
    key: str | None = None
    valueless: bool | None = None
    reference: str | None = None

    @property
    def position(self) -> str:
        """Return where the record died, as logs write it."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def identity(self) -> str:
        """Return what tells this death from every other, and is the same where Debezium repeats its message.

        One that holds no key is the same letter, too, when its record is read again and dies again: what was dropped
        stays dropped. (One that does hold its key is not read again; once that goes on, its death is another.)
        """
        moment = self.died_milliseconds if self.parked else self.timestamp_milliseconds
        return f"{self.application} {self.position} {moment}"

    def to_json(self) -> str:
        """Return the header's text."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


def read_dead_letter(text: str) -> DeadLetter:
    """Return what the header of a dead-lettered record says. Raises ValueError where it is none."""
    content = content_of(text, DeadLetter)
    if content.get("headers") is not None:
        content["headers"] = tuple(_header_in(pair) for pair in content["headers"])
    as_bytes(content.get("key"))
    if content["partition"] < 0 or content["offset"] < 0:
        raise ValueError("no dead letter: nothing lies there")
    return DeadLetter(**content)


def _header_in(pair: Any) -> tuple[str, str | None]:
    """Return a header as it lies in a letter, given what may be anything. Raises ValueError."""
    if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str or type(pair[1]) not in (str, type(None)):
        raise ValueError("no dead letter: its headers are no names with texts")
    name, value = pair
    as_bytes(name), as_bytes(value)
    return name, value


def fingerprint(cause: BaseException) -> str:
    """Return 12 characters that are equal for failures of one kind at one place, whatever the record.

    The error's class, and file and function (not the line, which moves with every edit) of its innermost frame.
    """
    frames = traceback.extract_tb(cause.__traceback__)
    place = f"{PurePath(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    name = f"{type(cause).__module__}.{type(cause).__qualname__}"
    return hashlib.sha256(f"{name}|{place}".encode()).hexdigest()[:12]


def words_of(error: BaseException) -> str:
    """Return what an error says, its class where it says nothing: at most 500 characters, all of them printable.

    An error's text is a user's: it may be empty, may not be UTF-8 (a log line that cannot be written would end the
    worker), and asking for it may fail. Of what PostgreSQL says only its message: its details are values of the row.
    A group's errors come after its own words.
    """
    try:
        text = getattr(error, "cause", None) or getattr(getattr(error, "diag", None), "message_primary", None) or error
        words = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
        if isinstance(error, BaseExceptionGroup):
            words += f": {'; '.join(f'{type(one).__qualname__}: {words_of(one)}' for one in error.exceptions)}"
    except Exception:
        words = ""
    return words[:CAUSE_CHARACTERS_MAX] or type(error).__qualname__


def traceback_of(error: BaseException) -> str:
    """Return where an error and those behind it were raised, as Python shows it, each with its `words_of`."""
    parts: list[str] = []
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        frames = "".join(traceback.format_tb(one.__traceback__))
        parts.append(f"{frames}{type(one).__module__}.{type(one).__qualname__}: {words_of(one)}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n\nraised after\n\n".join(reversed(parts))


def describe(
    record: ConsumedRecord,
    cause: BaseException | str,
    *,
    application: str,
    kind: str,
    attempts: int,
    died_milliseconds: int,
    parked: bool = False,
    behind: str | None = None,
) -> DeadLetter:
    """Return the dead letter of `record`. The cause is the error's text, never a payload, and cut to 500 characters."""
    error = type(cause).__qualname__ if isinstance(cause, BaseException) else ""
    text = words_of(cause) if isinstance(cause, BaseException) else cause[:CAUSE_CHARACTERS_MAX]
    print_ = fingerprint(cause) if isinstance(cause, BaseException) else hashlib.sha256(cause.encode()).hexdigest()[:12]
    mark = read_mark(record)
    return DeadLetter(
        application=application,
        kind=kind,
        cause=text,
        error=error,
        fingerprint=print_,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_milliseconds=record.timestamp_milliseconds if mark is None else mark.timestamp_milliseconds,
        attempts=attempts,
        died_milliseconds=died_milliseconds,
        parked=parked,
        behind=behind,
        first_offset=None if mark is None else mark.first_offset,
        first_died_milliseconds=None if mark is None else mark.first_died_milliseconds,
    )


def own_headers(record: ConsumedRecord) -> Headers:
    """Return the headers that a record had before it ever died."""
    return tuple(header for header in record.headers if header[0] not in (DEAD_HEADER, REDRIVE_HEADER))


def dead_headers(record: ConsumedRecord, letter: DeadLetter) -> Headers:
    """Return the headers of a dead record: its own, and the letter in place of one from an earlier death."""
    return (*own_headers(record), (DEAD_HEADER, letter.to_json().encode()))


def with_original(record: ConsumedRecord, letter: DeadLetter) -> DeadLetter:
    """Return the letter with everything of `record` that an outbox cannot hold: headers, and a key that is no text."""
    return replace(
        letter,
        headers=tuple((name, as_text(value)) for name, value in own_headers(record)),
        key=as_text(record.key),
        valueless=record.value is None,
    )


def record_hash(record: ConsumedRecord) -> str:
    """Return the hash of a record's key, value and own headers, by which it is known again."""
    found = hashlib.sha256()
    flat = [part for name, value in own_headers(record) for part in (name.encode("utf-8", "surrogateescape"), value)]
    for part in (record.key, record.value, *flat):
        found.update(b"-" if part is None else b"%d:" % len(part) + part)
    return found.hexdigest()


def as_reference(record: ConsumedRecord, letter: DeadLetter) -> DeadLetter:
    """Return the letter of a record that does not go with it, but is to be read where it died."""
    key = None if record.key is None else as_text(key_name(record.key))
    return replace(letter, reference=record_hash(record), key=key, headers=None, valueless=None)


def resolved(dead: ConsumedRecord, letter: DeadLetter, found: ConsumedRecord) -> ConsumedRecord | None:
    """Return the dead record with what its letter refers to, given what lies there; None if that is another record."""
    if record_hash(found) != letter.reference:
        return None
    whole = replace(letter, reference=None, key=None)
    return dead._replace(key=found.key, value=found.value, headers=dead_headers(found, whole))


def original(record: ConsumedRecord, letter: DeadLetter) -> ConsumedRecord:
    """Return the record that died, as it lay at its position, given the dead one and its letter."""
    came = record._replace(
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        timestamp_milliseconds=letter.timestamp_milliseconds,
        headers=own_headers(record),
    )
    if letter.reference is not None:
        return came._replace(key=as_bytes(letter.key), value=None, headers=())
    if letter.headers is None:
        return came
    return came._replace(
        key=as_bytes(letter.key),
        value=None if letter.valueless else record.value,
        headers=tuple((name, as_bytes(value)) for name, value in letter.headers),
    )


def as_text(value: bytes | None) -> str | None:
    """Return bytes as text that JSON can hold, whatever they are; `as_bytes` gives them back."""
    return None if value is None else value.decode("utf-8", "surrogateescape")


def as_bytes(text: str | None) -> bytes | None:
    """Return what `as_text` was given."""
    return None if text is None else text.encode("utf-8", "surrogateescape")
