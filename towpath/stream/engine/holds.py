"""The partitions of one worker that wait for a person, each alone.

The one rule: what is held is tried again by itself, so that a person's decision needs no restart to take effect; and
is told of in the log, in a metric and in the worker's status for as long as it lasts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from towpath import metrics
from towpath.clock import Clock
from towpath.stream.broker.position import PartitionHeld
from towpath.stream.broker.record import TopicPartition

log = structlog.get_logger("towpath.stream.engine.holds")

RETRY_SECONDS_FIRST = 2.0
RETRY_SECONDS_MAX = 30.0
"""A retry asks the broker for a few offsets, or runs one record into an abort: twice a minute costs nothing."""


@dataclass(slots=True)
class _Hold:
    error: PartitionHeld
    whose: TopicPartition
    retries: int
    until_seconds: float
    trying: bool = False


class Holds:
    """What this worker holds, why, and when each is tried again."""

    def __init__(self, application: str, clock: Clock) -> None:
        self._clock = clock
        self._application = application
        self._holds: dict[TopicPartition, _Hold] = {}
        self.changes = 0
        """Grows whenever a hold begins, changes its kind, or ends."""

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def errors(self) -> dict[TopicPartition, PartitionHeld]:
        """Return why each partition is held."""
        return {partition: hold.error for partition, hold in self._holds.items()}

    def own(self, partition: TopicPartition) -> PartitionHeld | None:
        """Return why a partition is held itself; None where it is not, or only along with another."""
        hold = self._holds.get(partition)
        return hold.error if hold is not None and hold.whose == partition else None

    def hold(self, partition: TopicPartition, error: PartitionHeld, whose: TopicPartition) -> None:
        """Hold a partition for what is wrong with it, or with the one along with which it waits (`whose`)."""
        before = self._holds.get(partition)
        retries = 0 if before is None or before.error.kind is not error.kind else before.retries + 1
        seconds = min(RETRY_SECONDS_FIRST * 2.0 ** min(retries, 10), RETRY_SECONDS_MAX)
        self._holds[partition] = _Hold(error, whose, retries, self._clock.monotonic_seconds() + seconds)
        if retries == 0:
            self.changes += 1
            if before is not None:
                self._gauge(partition, before.error).set(0)
            log.error(
                "partition is held",
                partition=str(partition),
                kind=error.kind.value,
                reason=error.cause,
                kept=error.kept,
                next=error.next_step,
            )
        self._gauge(partition, error).set(1)

    def due(self) -> list[TopicPartition]:
        """Return the partitions that are to be tried again now."""
        now = self._clock.monotonic_seconds()
        return [partition for partition, hold in self._holds.items() if not hold.trying and hold.until_seconds <= now]

    def trying(self, partitions: Iterable[TopicPartition]) -> None:
        """Note that these are being tried: they are held again, or released, when that is known."""
        for partition in partitions:
            if partition in self._holds:
                self._holds[partition].trying = True

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget holds: the partitions have gone on, or are another worker's."""
        for partition in list(partitions):
            hold = self._holds.pop(partition, None)
            if hold is not None:
                self.changes += 1
                self._gauge(partition, hold.error).set(0)
                log.info("partition is held no more", partition=str(partition))

    def _gauge(self, partition: TopicPartition, error: PartitionHeld) -> Gauge:
        return metrics.PARTITION_HELD.labels(self._application, partition.topic, partition.partition, error.kind.value)
