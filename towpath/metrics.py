"""Every metric of Towpath, in one typed list. A worker serves them where `metrics_port` is set.

The one rule: labels are names that a project declares (application, topic, partition, saga, step), never keys or ids.
Counters and histograms count what was committed. What is a standing rather than an event (lag, open sagas, the outbox)
is looked up when somebody scrapes, so that it costs nothing while nobody does.
"""

from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = structlog.get_logger("towpath.metrics")

UNIT_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class MergedHistogram(Histogram):
    """A histogram that takes many observations in one step: a sum, and a count for each bucket that is met."""

    def observe_all(self, amounts: Collection[float]) -> None:
        """Do as `observe` would for each of `amounts`."""
        self._sum.inc(sum(amounts))
        # A bucket's bound belongs to it, so the first bound that is not below an amount is its bucket's.
        for bucket, number in Counted(map(partial(bisect_left, self._upper_bounds), amounts)).items():
            self._buckets[bucket].inc(number)


RECORDS = Counter("towpath_records", "Records whose unit of work was committed.", ["application", "topic"])
RECORDS_RECOGNISED = Counter(
    "towpath_records_recognised",
    "Records that were known to have been applied before; of a unit that is tried again, each time.",
    ["application", "topic"],
)
UNITS = Counter("towpath_units", "Units of work that were committed.", ["application"])
UNITS_ABORTED = Counter("towpath_units_aborted", "Units of work that were aborted.", ["application", "reason"])
HANDED_OVER = Counter(
    "towpath_handed_over", "Messages sent to Kafka directly after their commit, ahead of capture.", ["application"]
)
UPKEEP_FAILED = Counter(
    "towpath_upkeep_failed",
    "Hourly runs of upkeep that a service's database refused: partitions of its outbox, cleaning of its inbox.",
    ["service"],
)
DEAD_LETTERS = Counter("towpath_dead_letters", "Records sent to a dead-letter topic.", ["application", "topic", "kind"])
TIMERS_FIRED = Counter("towpath_timers_fired", "Timers whose record was produced.", ["application"])
TIMER_LATENESS_SECONDS = MergedHistogram(
    "towpath_timer_lateness_seconds",
    "From when a timer fell due to when its record was committed.",
    ["application"],
    buckets=UNIT_SECONDS_BUCKETS,
)
UNIT_SECONDS = Histogram(
    "towpath_unit_seconds",
    "From the first record of a unit to its commit.",
    ["application"],
    buckets=UNIT_SECONDS_BUCKETS,
)
COMMIT_SECONDS = Histogram(
    "towpath_commit_seconds", "Length of a commit.", ["application"], buckets=UNIT_SECONDS_BUCKETS
)
RESTORE_RECORDS_LEFT = Gauge(
    "towpath_restore_records_left",
    "Changelog offsets that a store has yet to read before it serves.",
    ["application", "changelog", "partition"],
)
WAITING_FOR_DEPENDENCY = Gauge(
    "towpath_waiting_for_dependency", "1 while a worker waits for a dependency to come back.", ["application"]
)
WAITING_FOR_WORLD = Gauge(
    "towpath_waiting_for_world", "The old name of `towpath_waiting_for_dependency`, until 0.2.", ["application"]
)


def waits_for_dependency(application: str, waiting: bool) -> None:
    """Note whether a worker waits for a dependency: before it begins, or while it works."""
    WAITING_FOR_DEPENDENCY.labels(application).set(waiting)
    WAITING_FOR_WORLD.labels(application).set(waiting)


PARTITION_HELD = Gauge(
    "towpath_partition_held",
    "1 while a partition waits for a person; `kind` says why.",
    ["application", "topic", "partition", "kind"],
)
RECORDS_EXPIRED = Counter(
    "towpath_records_expired",
    "Offsets that expired before they were read and were passed over, as stream.expired_records says.",
    ["application", "topic"],
)
MEMBERS_REPLACED = Counter(
    "towpath_members_replaced", "Group members that were given up, and joined anew.", ["application"]
)

STEP_SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
SAGAS_STARTED = Counter("towpath_sagas_started", "Sagas that began.", ["saga", "version"])
SAGAS_ENDED = Counter("towpath_sagas_ended", "Sagas that ended, by how: completed or compensated.", ["saga", "status"])
SAGA_SECONDS = MergedHistogram(
    "towpath_saga_seconds", "From start to ending.", ["saga", "status"], buckets=STEP_SECONDS_BUCKETS
)
SAGAS_STUCK = Counter("towpath_sagas_stuck", "Times that a saga came to need a person.", ["saga"])
SAGA_INPUTS_REFUSED = Counter("towpath_saga_inputs_refused", "Inputs that the machine refused.", ["saga", "input"])
STEP_COMMANDS = Counter(
    "towpath_step_commands",
    "Commands sent; `direction` undo is a compensation, `attempt` again a retry.",
    ["saga", "step", "direction", "attempt"],
)
STEPS = Counter(
    "towpath_steps",
    "Steps, and items of an each, that came to an outcome: a step's status.",
    ["saga", "step", "outcome"],
)
STEP_SECONDS = MergedHistogram(
    "towpath_step_seconds",
    "From a step's last command, or the beginning of its wait, to its answer.",
    ["saga", "step", "direction"],
    buckets=STEP_SECONDS_BUCKETS,
)
SAMPLES_FAILED = Counter("towpath_samples_failed", "Lookups of standing values that failed.", ["source"])


@dataclass(frozen=True, slots=True)
class SampledGauge:
    """A value that is looked up at each scrape."""

    name: str
    documentation: str
    labels: tuple[str, ...]


LAG_RECORDS = SampledGauge(
    "towpath_lag_records", "Offsets between what is processed and the end.", ("application", "topic", "partition")
)
LAG_SECONDS = SampledGauge(
    "towpath_lag_seconds",
    "Age of the record last processed, where others wait behind it.",
    ("application", "topic", "partition"),
)
SAGAS = SampledGauge("towpath_sagas", "Instances in the view, by status.", ("saga", "version", "status"))
SAGA_AGE_SECONDS = SampledGauge(
    "towpath_saga_age_seconds_max", "Since the start of the oldest instance of a status.", ("saga", "status")
)
SAGA_UNCHANGED_SECONDS = SampledGauge(
    "towpath_saga_unchanged_seconds_max", "Since the last change of an instance of a status.", ("saga", "status")
)
SAGAS_NEAR_DEADLINE = SampledGauge(
    "towpath_sagas_near_deadline", "Running instances that have used nine tenths of their time.", ("saga", "version")
)
OUTBOX_ROWS = SampledGauge(
    "towpath_outbox_rows", "Rows written and not known to be captured, as far as this worker has watched.", ("service",)
)
OUTBOX_SECONDS = SampledGauge("towpath_outbox_seconds", "Age of the oldest of these rows.", ("service",))
SLOT_WAL_BYTES = SampledGauge(
    "towpath_slot_wal_bytes", "Write-ahead log that the replication slot keeps from being removed.", ("service",)
)
SLOT_LAG_BYTES = SampledGauge("towpath_slot_lag_bytes", "Write-ahead log that is not captured yet.", ("service",))
SLOT_LOST = SampledGauge("towpath_slot_lost", "1 where the slot is lost or missing.", ("service",))

Sample = tuple[SampledGauge, tuple[str, ...], float]
"""A gauge, the values of its labels, and its value."""


class Sampling(Collector):
    """Asks its sources whenever somebody scrapes. A source that fails is counted, and the others are asked still."""

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], Iterable[Sample]]] = {}

    def add(self, name: str, source: Callable[[], Iterable[Sample]]) -> None:
        """Ask `source` from now on, in the thread that serves the scrape, instead of one of the same name."""
        self._sources[name] = source

    def remove(self, name: str) -> None:
        """Ask the source of that name no more."""
        self._sources.pop(name, None)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return nothing: what there is shows at the first scrape."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each gauge with the values that its sources give."""
        families: dict[SampledGauge, GaugeMetricFamily] = {}
        for name, source in list(self._sources.items()):
            try:
                for gauge, labels, value in source():
                    if gauge not in families:
                        families[gauge] = GaugeMetricFamily(gauge.name, gauge.documentation, labels=gauge.labels)
                    families[gauge].add_metric(labels, value)
            except Exception as error:
                SAMPLES_FAILED.labels(name).inc()
                log.warning("a metric could not be looked up", source=name, reason=str(error))
        yield from families.values()


SAMPLING = Sampling()
REGISTRY.register(SAMPLING)
