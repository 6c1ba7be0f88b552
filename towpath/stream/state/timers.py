"""Timers of one partition: entries in its state. Pure.

The one rule: every input of a saga is a record in a topic. A timer that falls due is not a call: one transaction
produces its record into the partition's own timers topic and removes its entry.
A timer is one entry, under its key: what replaces or cancels it finds it there. What fires next is found by a second
one, under its due time, which says nothing more and is derived: the changelog has one record for each change.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from towpath.stream.broker.record import Headers
from towpath.stream.broker.record_limits import WEIGHED_FROM_BYTES, RecordLimits
from towpath.stream.state.partition_state import RESERVED, Changes, State

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
    """Return what is kept of a timer under its key."""
    flat = [part for name, value in timer.headers for part in (name.encode(), value)]
    return _DUE.pack(timer.due_milliseconds) + _pack(timer.payload, timer.record_key, *flat)


def decode_timer(key: bytes, content: bytes) -> Timer:
    """Return the timer that is kept under `key`."""
    payload, record_key, *flat = _unpack(content[_DUE.size :])
    assert payload is not None
    names, values = flat[0::2], flat[1::2]
    headers = tuple((name.decode(), value) for name, value in zip(names, values, strict=True) if name is not None)
    (due,) = _DUE.unpack_from(content)
    return Timer(key, due, payload, record_key, headers)


def with_derived(changes: Changes, get: Callable[[bytes], bytes | None]) -> Changes:
    """Return what a changelog says with what follows from it: the timers' entries by due time.

    `get` returns what the store holds under a key before these changes.
    """
    derived: dict[bytes, bytes | None] = {}
    for key, value in changes.items():
        if key.startswith(_BY_KEY):
            name = key[len(_BY_KEY) :]
            for content, entry in ((get(key), None), (value, b"")):
                if content is not None and _is_whole(content):
                    derived[_by_time(content, name)] = entry
    return {**changes, **derived} if derived else changes


def _by_time(content: bytes, key: bytes) -> bytes:
    return _BY_TIME + content[: _DUE.size] + key


def _is_whole(content: bytes) -> bool:
    """Return False for an entry of the older form: its due time alone, the rest under its place by due time."""
    return len(content) > _DUE.size


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
        content = encode_timer(timer)
        self._state.put_reserved(_BY_KEY + key, content)
        self._state.put_derived(_by_time(content, key), b"")
        self._floor_milliseconds = min(self._floor_milliseconds, timer.due_milliseconds)

    def cancel(self, key: bytes) -> bool:
        """Remove the timer called `key`; return whether there was one."""
        content = self._state.get(_BY_KEY + key)
        if content is None:
            return False
        self._state.put_reserved(_BY_KEY + key, None)
        remove = self._state.put_derived if _is_whole(content) else self._state.put_reserved
        remove(_by_time(content, key), None)
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
        for place, content in self._state.scan_reserved(_BY_TIME, start):
            due, key = place[len(_BY_TIME) :][: _DUE.size], place[len(_BY_TIME) + _DUE.size :]
            kept = self._state.get(_BY_KEY + key)
            # Of a timer that is gone, or set anew, an older form may have left an entry in the changelog.
            if kept is not None and kept[: _DUE.size] == due:
                yield decode_timer(key, kept if _is_whole(kept) else due + content)
