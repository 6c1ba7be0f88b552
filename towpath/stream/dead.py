"""What travels with a dead-lettered record, and which keys wait behind one. Pure.

The one rule: the record goes untouched, value, key, headers and timestamp; what is said about it is one more header,
`dead`, as JSON. The database form has the same text in the outbox's column of that name.
"""

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from towpath.stream.record import ConsumedRecord, Headers
from towpath.stream.state import RESERVED, State

DEAD_HEADER = "dead"
REDRIVE_HEADER = "redrive"
"""`last` on the last redriven record of a key unparks it; any other value lets the record past the parking."""

CAUSE_CHARACTERS_MAX = 500
_PARKED = RESERVED + b"p"


def dead_topic(topic: str) -> str:
    """Return the dead-letter topic of `topic`."""
    return f"{topic}.dead"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why and whence a record is dead. `kind` says who must act: peer, handler, follower, or horizon."""

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
    behind: str | None = None

    def to_json(self) -> str:
        """Return the header's text."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


def read_dead_letter(text: str) -> DeadLetter:
    """Return what the header of a dead-lettered record says. Raises ValueError where it is none."""
    try:
        content: dict[str, Any] = json.loads(text)
        return DeadLetter(**content)
    except TypeError as error:
        raise ValueError(f"no dead letter: {error}") from error


def fingerprint(cause: BaseException) -> str:
    """Return 12 characters that are equal for failures of one kind at one place, whatever the record.

    The error's class, and file and function (not the line, which moves with every edit) of its innermost frame.
    """
    frames = traceback.extract_tb(cause.__traceback__)
    place = f"{PurePath(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    name = f"{type(cause).__module__}.{type(cause).__qualname__}"
    return hashlib.sha256(f"{name}|{place}".encode()).hexdigest()[:12]


def describe(
    record: ConsumedRecord,
    cause: BaseException | str,
    *,
    application: str,
    kind: str,
    attempts: int,
    behind: str | None = None,
) -> DeadLetter:
    """Return the dead letter of `record`. The cause is the error's text, never a payload, and cut to 500 characters."""
    error = type(cause).__qualname__ if isinstance(cause, BaseException) else ""
    text = (getattr(cause, "cause", None) or str(cause)) if isinstance(cause, BaseException) else cause
    mark = fingerprint(cause) if isinstance(cause, BaseException) else hashlib.sha256(cause.encode()).hexdigest()[:12]
    return DeadLetter(
        application=application,
        kind=kind,
        cause=str(text)[:CAUSE_CHARACTERS_MAX],
        error=error,
        fingerprint=mark,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_milliseconds=record.timestamp_milliseconds,
        attempts=attempts,
        behind=behind,
    )


def dead_headers(record: ConsumedRecord, letter: DeadLetter) -> Headers:
    """Return the headers of a dead record: its own, and the letter in place of one from an earlier death."""
    own = tuple(header for header in record.headers if header[0] not in (DEAD_HEADER, REDRIVE_HEADER))
    return (*own, (DEAD_HEADER, letter.to_json().encode()))


class ParkedKeys:
    """Keys of one partition whose later records follow a dead one into quarantine, until redrive or discard.

    So that redriven equals never failed: nothing of that key is applied in between.
    """

    def __init__(self, state: State | None) -> None:
        self._state = state
        self._behind: dict[bytes, str] = {}
        self.reload()

    def reload(self) -> None:
        """Read them from the state: at assignment, and after an abort."""
        if self._state is not None:
            self._behind = {key[len(_PARKED) :]: value.decode() for key, value in self._state.scan_reserved(_PARKED)}

    def __len__(self) -> int:
        return len(self._behind)

    def __iter__(self) -> Any:
        return iter(self._behind.items())

    def behind(self, record: ConsumedRecord) -> str | None:
        """Return the position of the dead record that holds this one's key back, or None if it may be applied."""
        if not self._behind or record.key is None or record.header(REDRIVE_HEADER) is not None:
            return None
        return self._behind.get(record.key)

    def park(self, record: ConsumedRecord) -> None:
        """Hold back the later records of `record`'s key, in the open unit of work."""
        if self._state is None or record.key is None or record.key in self._behind:
            return
        self._state.put_reserved(_PARKED + record.key, record.position.encode())
        self._behind[record.key] = record.position

    def unpark(self, key: bytes) -> bool:
        """Let `key` go on, in the open unit of work; return whether it was parked."""
        if self._state is None or self._behind.pop(key, None) is None:
            return False
        self._state.put_reserved(_PARKED + key, None)
        return True
