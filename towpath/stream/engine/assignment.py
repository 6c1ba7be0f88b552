"""Which partitions this worker owns, how far each has come, and what each waits for. Pure.

The one rule: a partition is served only once its offset is known to be stable and its stores have caught up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from towpath.stream.broker.record import TopicPartition


class Phase(Enum):
    """What a partition waits for, in this order."""

    UNSETTLED = "unsettled"
    """Its committed offset is to be read, once no transaction is open over it."""
    RESTORING = "restoring"
    """The stores of its number catch up."""
    SERVING = "serving"
    HELD = "held"
    """It waits for a person (see `holds.py`)."""


@dataclass(slots=True)
class Progress:
    """One partition. `processed` is the next offset to process; `end` the end last seen, markers included."""

    phase: Phase = Phase.UNSETTLED
    processed: int = 0
    end: int = -1


class Assignment:
    """The partitions that this worker owns."""

    def __init__(self) -> None:
        self._owned: dict[TopicPartition, Progress] = {}
        self.topics = frozenset[str]()
        """What is read: a number is whole once its partition of each of these is owned."""
        self.changes = 0
        """Grows whenever a partition is taken, given away, or changes its phase."""

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._owned

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """Return every partition that is owned, whatever its phase."""
        return frozenset(self._owned)

    @property
    def numbers(self) -> frozenset[int]:
        """Return the partition numbers that are owned."""
        return frozenset(partition.partition for partition in self._owned)

    def with_number(self, number: int) -> list[TopicPartition]:
        """Return the owned partitions of one number: one of each co-located topic."""
        return [partition for partition in self._owned if partition.partition == number]

    def in_phase(self, phase: Phase) -> list[TopicPartition]:
        """Return the owned partitions in a phase."""
        return [partition for partition, progress in self._owned.items() if progress.phase is phase]

    def phase(self, partition: TopicPartition) -> Phase | None:
        """Return what a partition waits for, None if it is not owned."""
        progress = self._owned.get(partition)
        return None if progress is None else progress.phase

    def serves(self, partition: TopicPartition) -> bool:
        """Return whether a partition is owned and served."""
        progress = self._owned.get(partition)
        return progress is not None and progress.phase is Phase.SERVING

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Take partitions up, unsettled."""
        self.changes += 1
        for partition in partitions:
            self._owned[partition] = Progress()

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Give partitions away."""
        self.changes += 1
        for partition in partitions:
            self._owned.pop(partition, None)

    def unsettle(self) -> None:
        """After an abort whose reason lies outside: nothing is known of the offsets. What is held stays held."""
        self.changes += 1
        for progress in self._owned.values():
            progress.end = -1
            if progress.phase is not Phase.HELD:
                progress.phase = Phase.UNSETTLED

    def set_phase(self, partitions: Iterable[TopicPartition], phase: Phase) -> None:
        """Move partitions, those that are still owned, to a phase."""
        for partition in partitions:
            if partition in self._owned:
                self.changes += 1
                self._owned[partition].phase = phase

    def processed_to(self, offsets: Iterable[tuple[TopicPartition, int]]) -> None:
        """Note what is committed."""
        for partition, offset in offsets:
            if partition in self._owned:
                self._owned[partition].processed = offset

    def seen_end(self, partition: TopicPartition, offset: int) -> None:
        """Note that reading has reached the end of a partition."""
        if partition in self._owned:
            self._owned[partition].end = offset

    def sought(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget the ends of partitions that are read from elsewhere: each is seen anew once reading has reached it."""
        for partition in partitions:
            self.seen_end(partition, -1)

    def processed(self, partition: TopicPartition) -> int:
        """Return the next offset to process."""
        return self._owned[partition].processed

    def read_to(self, partition: TopicPartition, *, waiting: bool) -> int:
        """Return up to where everything has been processed; `waiting` if records of it are read but not processed."""
        progress = self._owned[partition]
        return progress.processed if waiting else max(progress.processed, progress.end)
