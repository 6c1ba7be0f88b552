"""State of a partition: what is committed, and over it what the open unit of work has changed. Pure.

The one rule: the store changes only after the commit of the transaction that carries the same change to the
changelog, so an abort is forgetting the overlay.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from towpath.errors import ProgrammerError
from towpath.stream.broker.record import TopicPartition
from towpath.stream.broker.record_limits import FRAMING_BYTES, TOPIC_BYTES_MAX, too_large

RESERVED = b"\x00"
"""Keys that begin so are the engine's own: timers and parked keys."""

Changes = Mapping[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a store has followed its changelog: the next offset to read, the topic's id, and when it was written."""

    offset: int
    topic_id: str
    written_milliseconds: int


class Store(Protocol):
    """Keys and values of one changelog partition, in the order of the keys' bytes."""

    def checkpoint(self) -> Checkpoint | None:
        """Return how far it has followed, or None if it is new."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        ...

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield, in order, keys that begin with `prefix`, from `start` on."""
        ...

    def apply(self, changes: Changes, checkpoint: Checkpoint) -> None:
        """Write changes (None removes) and checkpoint in one atomic step."""
        ...

    def clear(self) -> None:
        """Forget everything, the checkpoint too."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class MemoryStore:
    """A store that lives as long as its process: for tests, and for state that is cheap to read again."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._checkpoint: Checkpoint | None = None

    def checkpoint(self) -> Checkpoint | None:
        """Return how far it has followed."""
        return self._checkpoint

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        return self._values.get(key)

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield, in order, keys that begin with `prefix`, from `start` on."""
        index = bisect_left(self._keys, max(prefix, start or prefix))
        while index < len(self._keys) and self._keys[index].startswith(prefix):
            key = self._keys[index]
            yield key, self._values[key]
            index = bisect_left(self._keys, key + b"\x00")

    def apply(self, changes: Changes, checkpoint: Checkpoint) -> None:
        """Write changes and checkpoint."""
        for key, value in changes.items():
            known = key in self._values
            if value is not None:
                self._values[key] = value
                if not known:
                    insort(self._keys, key)
            elif known:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
        self._checkpoint = checkpoint

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._keys.clear()
        self._checkpoint = None

    def close(self) -> None:
        """Keep everything: a test may open it again."""


class State:
    """One partition's state, as the open unit of work sees it: its own writes over what is committed."""

    __slots__ = ("_bytes_max", "_derived", "_next_offset_min", "_overlay", "_store", "changelog", "writable")

    def __init__(self, changelog: TopicPartition, store: Store, *, bytes_max: int = TOPIC_BYTES_MAX) -> None:
        """`bytes_max` is the changelog's `max.message.bytes`."""
        self.changelog = changelog
        self._bytes_max = bytes_max - FRAMING_BYTES
        self.writable = False
        self._store = store
        checkpoint = store.checkpoint()
        self._next_offset_min = 0 if checkpoint is None else checkpoint.offset
        self._overlay: dict[bytes, bytes | None] = {}
        self._derived: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        if key in self._overlay:
            return self._overlay[key]
        return self._store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`, from now on for this unit, for all once it is committed."""
        if key[:1] == RESERVED:
            raise ProgrammerError(f"{self.changelog}: state keys may not begin with a zero byte")
        self.put_reserved(key, value)

    def delete(self, key: bytes) -> None:
        """Remove `key`; leaves a tombstone in the changelog."""
        if key[:1] == RESERVED:
            raise ProgrammerError(f"{self.changelog}: state keys may not begin with a zero byte")
        self.put_reserved(key, None)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield, in the order of their bytes, the keys that begin with `prefix`, and their values."""
        for key, value in self.scan_reserved(prefix):
            if key[:1] != RESERVED:
                yield key, value

    def put_reserved(self, key: bytes, value: bytes | None) -> None:
        """Set or remove any key, the engine's own too. Raises OutputRefused for what the changelog does not take."""
        if not self.writable:
            raise ProgrammerError(
                f"{self.changelog}: state changes only inside a unit of work",
                next_step="change it in an agent, while it handles a record",
            )
        if value is not None and len(key) + len(value) > self._bytes_max:
            raise too_large(
                self.changelog.topic, len(key) + len(value) + FRAMING_BYTES, self._bytes_max + FRAMING_BYTES
            )
        if self._derived:
            self._derived.discard(key)
        self._overlay[key] = value

    def put_derived(self, key: bytes, value: bytes | None) -> None:
        """Set or remove what follows from other entries: the store keeps it, the changelog does not.

        Whoever fills a store from the changelog derives it anew.
        """
        if key not in self._overlay:
            self._derived.add(key)
        self._overlay[key] = value

    def scan_reserved(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield any keys, the engine's own too, from `start` on."""
        floor = max(prefix, start or prefix)
        mine = sorted(key for key in self._overlay if key >= floor and key.startswith(prefix))
        if not mine:
            yield from self._store.scan(prefix, start)
            return
        overlay = self._overlay.copy()
        stored = (entry for entry in self._store.scan(prefix, start) if entry[0] not in overlay)
        changed = ((key, value) for key in mine if (value := overlay[key]) is not None)
        yield from heapq.merge(stored, changed)

    @property
    def changes(self) -> Changes:
        """Return what the open unit has changed and the changelog is to have."""
        if not self._derived:
            return self._overlay
        return {key: value for key, value in self._overlay.items() if key not in self._derived}

    @property
    def is_changed(self) -> bool:
        """Return whether the open unit has changed anything."""
        return bool(self._overlay)

    @property
    def end_min(self) -> int:
        """Return the offset at which the changelog ends, at least, once the open unit is committed."""
        return self._next_offset_min + self._changes_count

    @property
    def _changes_count(self) -> int:
        return len(self._overlay) - len(self._derived)

    @property
    def store(self) -> Store:
        """Return what is committed."""
        return self._store

    def settle(self, checkpoint: Checkpoint) -> None:
        """After the commit: write the overlay into the store, and how far the changelog has come with it."""
        self._store.apply(self._overlay, checkpoint)
        # The transaction's marker comes behind its last record, and the next unit's records behind that.
        self._next_offset_min = checkpoint.offset + bool(self._changes_count)
        self.forget()

    def forget(self) -> None:
        """After an abort: the overlay never was."""
        self._overlay.clear()
        self._derived.clear()
