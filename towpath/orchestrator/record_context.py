"""What handling one record needs at hand: the record, its unit of work, and the state of its partition. Pure.

The unit comes in as a port, so that the same code runs on the broker, in memory, and in a replay.
"""

from collections.abc import Callable
from typing import Protocol

from towpath.errors import PeerError
from towpath.stream.broker.record import ConsumedRecord, Headers

INSTANCES_PER_KEY_MAX = 1_000
_OF_KEY = b"k"


class StateLike(Protocol):
    """The state of one partition, as the open unit of work sees it."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove `key`."""
        ...


class TimersLike(Protocol):
    """The timers of one partition."""

    def set(
        self,
        key: bytes,
        due_milliseconds: int,
        payload: bytes,
        *,
        record_key: bytes | None = None,
        headers: Headers = (),
    ) -> None:
        """Set a timer."""
        ...

    def cancel(self, key: bytes) -> bool:
        """Remove a timer."""
        ...


class UnitLike(Protocol):
    """The open unit of work: all that a decision does goes through it."""

    @property
    def now_milliseconds(self) -> int:
        """Return when it began."""
        ...

    def send(
        self, topic: str, value: bytes | None, *, key: bytes | None, headers: Headers, partition: int | None = None
    ) -> None:
        """Send a record."""
        ...

    def state(self, changelog: str, partition: int) -> StateLike:
        """Return the state of a partition."""
        ...

    def timers(self, partition: int) -> TimersLike:
        """Return the timers of a partition."""
        ...


class RecordContext:
    """The record at hand, its unit of work, and the partition's state: what every step of handling it needs."""

    __slots__ = ("_timers", "record", "state", "unit")

    def __init__(self, record: ConsumedRecord, unit: UnitLike, state: StateLike) -> None:
        self.record = record
        self.unit = unit
        self.state = state
        self._timers: TimersLike | None = None

    @property
    def timers(self) -> TimersLike:
        """Return the partition's timers."""
        if self._timers is None:
            self._timers = self.unit.timers(self.record.partition)
        return self._timers

    def instances_of(self, key: str) -> list[str]:
        """Return the ids of the instances of this key that are not forgotten, the oldest first: at most 1,000."""
        content = self.state.get(_OF_KEY + key.encode())
        return content.decode().split("\n") if content else []

    def add_instance(self, key: str, saga_id: str, has_ended: Callable[[str], bool]) -> None:
        """Note a new instance of this key; past 1,000 of them the oldest that has ended is no longer noted.

        That one is still known by its id, until it is forgotten. Raises PeerError where none has ended.
        """
        ids = self.instances_of(key)
        if len(ids) >= INSTANCES_PER_KEY_MAX:
            oldest = next((known for known in ids if has_ended(known)), None)
            if oldest is None:
                raise PeerError(f"{self.record.position}: the key has {INSTANCES_PER_KEY_MAX} open instances already")
            ids.remove(oldest)
        self._set_instances(key, [*ids, saga_id])

    def remove_instance(self, key: str, saga_id: str) -> None:
        """Forget one instance of this key, if it is noted."""
        ids = self.instances_of(key)
        if saga_id in ids:
            self._set_instances(key, [known for known in ids if known != saga_id])

    def _set_instances(self, key: str, ids: list[str]) -> None:
        if ids:
            self.state.put(_OF_KEY + key.encode(), "\n".join(ids).encode())
        else:
            self.state.delete(_OF_KEY + key.encode())
