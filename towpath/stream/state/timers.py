"""Timers of one partition: an index in its state. Pure.

The one rule: every input of a saga is a record in a topic. A timer that falls due is not a call: one transaction
produces its record into the partition's own timers topic and removes it from the index.
Two entries a timer: by due time (what fires next) and by key (what to replace or cancel).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from towpath.stream.broker.record import Headers
from towpath.stream.broker.record_limits import WEIGHED_FROM_BYTES, RecordLimits
from towpath.stream.state.partition_state import RESERVED, State

_BY_TIME = RESERVED + b"t"
_BY_KEY = RESERVED + b"k"
_DUE = struct.Struct(">Q")
_LENGTH = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class Timer:
    """What to produce when it falls due: `payload` under `record_key` into the timers topic, same partition."""

    key: bytes
    due_milliseconds: int
    payload: bytes
    record_key: bytes | None = None
    headers: Headers = ()


def _pack(*parts: bytes | None) -> bytes:
    return b"".join(_LENGTH.pack(-1) if part is None else _LENGTH.pack(len(part)) + part for part in parts)


def _unpack(content: bytes) -> Iterator[bytes | None]:
    place = 0
    while place < len(content):
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size
        if length < 0:
            yield None
        else:
            yield content[place : place + length]
            place += length


def encode_timer(timer: Timer) -> bytes:
    """Return the index entry of a timer; key and due time are in the entry's own key."""
    flat = [part for name, value in timer.headers for part in (name.encode(), value)]
    return _pack(timer.payload, timer.record_key, *flat)


def decode_timer(index_key: bytes, content: bytes) -> Timer:
    """Return the timer of an index entry."""
    payload, record_key, *flat = _unpack(content)
    assert payload is not None
    names, values = flat[0::2], flat[1::2]
    headers = tuple((name.decode(), value) for name, value in zip(names, values, strict=True) if name is not None)
    (due,) = _DUE.unpack_from(index_key, len(_BY_TIME))
    return Timer(index_key[len(_BY_TIME) + _DUE.size :], due, payload, record_key, headers)


class Timers:
    """The timers of one partition, as the open unit of work sees them."""

    def __init__(self, state: State, *, topic: str = "", limits: RecordLimits | None = None) -> None:
        """`topic` is where they fire, and `limits` says how large a record it takes."""
        self._state = state
        self._topic = topic
        self._limits = limits or RecordLimits()
        # No timer is due before this: spares each look at the next one a walk over the entries fired before it.
        self._floor_milliseconds = 0

    def set(
        self,
        key: bytes,
        due_milliseconds: int,
        payload: bytes,
        *,
        record_key: bytes | None = None,
        headers: Headers = (),
    ) -> None:
        """Set the timer called `key` for `due_milliseconds` (epoch), in place of an earlier one of that name.

        Raises OutputRefused for one that is too large to be kept, or to be a record of its topic once it fires.
        """
        if len(payload) + len(record_key or b"") > WEIGHED_FROM_BYTES:
            self._limits.check(self._topic, record_key, payload, headers)
        self.cancel(key)
        timer = Timer(key, max(due_milliseconds, 0), payload, record_key, headers)
        due = _DUE.pack(timer.due_milliseconds)
        self._state.put_reserved(_BY_KEY + key, due)
        self._state.put_reserved(_BY_TIME + due + key, encode_timer(timer))
        self._floor_milliseconds = min(self._floor_milliseconds, timer.due_milliseconds)

    def cancel(self, key: bytes) -> bool:
        """Remove the timer called `key`; return whether there was one."""
        due = self._state.get(_BY_KEY + key)
        if due is None:
            return False
        self._state.put_reserved(_BY_KEY + key, None)
        self._state.put_reserved(_BY_TIME + due + key, None)
        return True

    def due(self, until_milliseconds: int) -> Iterator[Timer]:
        """Yield timers that are due at `until_milliseconds`, the oldest first."""
        for timer in self._all():
            if timer.due_milliseconds > until_milliseconds:
                return
            yield timer

    def next_due_milliseconds(self) -> int | None:
        """Return when the next timer falls due, or None; between units only, since it moves the floor."""
        first = next(self._all(), None)
        if first is None:
            return None
        self._floor_milliseconds = first.due_milliseconds
        return first.due_milliseconds

    def _all(self) -> Iterator[Timer]:
        start = _BY_TIME + _DUE.pack(self._floor_milliseconds)
        for key, content in self._state.scan_reserved(_BY_TIME, start):
            yield decode_timer(key, content)
