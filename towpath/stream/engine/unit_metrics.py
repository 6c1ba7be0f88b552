"""What one worker's loop tells the metrics: of units once they are committed or aborted, and how far behind it is."""

from collections.abc import Callable, Collection, Iterator

from towpath import metrics
from towpath.clock import Clock, epoch_milliseconds
from towpath.metrics import Sample
from towpath.stream.broker.port import Broker, Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.assignment import Assignment, Phase
from towpath.stream.engine.unit import Unit

LOOK_SECONDS = 2.0
"""Between two questions to the cluster about ends, however often somebody scrapes."""


class UnitMetrics:
    """The metrics of one worker's units. `holds` says whether records of a partition are read and not processed."""

    def __init__(
        self,
        application: str,
        broker: Broker,
        ownership: Assignment,
        holds: Callable[[TopicPartition], bool],
        clock: Clock,
    ) -> None:
        self._application = application
        self._broker = broker
        self._ownership = ownership
        self._holds = holds
        self._clock = clock
        self._unit_seconds = metrics.UNIT_SECONDS.labels(application)
        self._commit_seconds = metrics.COMMIT_SECONDS.labels(application)
        self._units = metrics.UNITS.labels(application)
        self.waits(False)
        self._applied_milliseconds: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._looked_seconds = float("-inf")
        metrics.SAMPLING.add(f"lag of {application}", self.lag)

    def close(self) -> None:
        """Sample no more."""
        metrics.SAMPLING.remove(f"lag of {self._application}")

    def took(self, seconds: float) -> None:
        """Note how long a unit took from its first record to its commit."""
        self._unit_seconds.observe(seconds)

    def committed(self, unit: Unit, groups: Groups, commit_seconds: float | None) -> None:
        """Count a unit that was committed; None where its commit waits for one that writes."""
        if commit_seconds is not None:
            self._commit_seconds.observe(commit_seconds)
        self._units.inc()
        for partition, records in groups.items():
            metrics.RECORDS.labels(self._application, partition.topic).inc(len(records))
            self._applied_milliseconds[partition] = records[-1].timestamp_milliseconds
        for letter in unit.dead:
            metrics.DEAD_LETTERS.labels(self._application, letter.topic, letter.kind).inc()

    def aborted(self, reason: str) -> None:
        """Count a unit that was aborted."""
        metrics.UNITS_ABORTED.labels(self._application, reason).inc()

    def waits(self, waiting: bool) -> None:
        """Note whether the worker waits for something outside to come back."""
        metrics.waits_for_dependency(self._application, waiting)

    def lag(self) -> Iterator[Sample]:
        """Yield how far each partition is behind. Called by whoever scrapes, in a thread of its own."""
        owned = sorted(self._ownership.partitions)
        ends = self._ends_of(owned)
        now = epoch_milliseconds(self._clock)
        for partition in owned:
            phase = self._ownership.phase(partition)
            if phase in (None, Phase.UNSETTLED) or partition not in ends:
                continue
            try:
                reached = self._ownership.read_to(partition, waiting=self._holds(partition))
            except KeyError:
                continue  # it was given away in between
            records = max(ends[partition] - reached, 0)
            applied = self._applied_milliseconds.get(partition)
            seconds = 0.0 if not records or applied is None else max(now - applied, 0) / 1000
            labels = (self._application, partition.topic, str(partition.partition))
            yield metrics.LAG_RECORDS, labels, records
            yield metrics.LAG_SECONDS, labels, seconds

    def _ends_of(self, owned: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        old = self._clock.monotonic_seconds() - self._looked_seconds >= LOOK_SECONDS
        if old or not self._ends.keys() >= set(owned):
            self._ends = self._broker.end_offsets(owned)
            self._looked_seconds = self._clock.monotonic_seconds()
        return self._ends
