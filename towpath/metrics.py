"""Every metric of Towpath, in one typed list. A worker serves them where `metrics_port` is set.

The one rule: labels are names that a project declares (application, topic, partition, cause), never keys or ids.
"""

from prometheus_client import Counter, Gauge, Histogram

UNIT_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

RECORDS = Counter("towpath_records", "Records whose unit of work was committed.", ["application", "topic"])
UNITS = Counter("towpath_units", "Units of work that were committed.", ["application"])
UNITS_ABORTED = Counter("towpath_units_aborted", "Units of work that were aborted.", ["application", "reason"])
HANDED_OVER = Counter(
    "towpath_handed_over", "Messages sent to Kafka directly after their commit, ahead of capture.", ["application"]
)
DEAD_LETTERS = Counter("towpath_dead_letters", "Records sent to a dead-letter topic.", ["application", "topic", "kind"])
TIMERS_FIRED = Counter("towpath_timers_fired", "Timers whose record was produced.", ["application"])
TIMER_LATENESS_SECONDS = Histogram(
    "towpath_timer_lateness_seconds",
    "From when a timer fell due to when its record was committed.",
    ["application"],
    buckets=UNIT_SECONDS_BUCKETS,
)
LAG_RECORDS = Gauge(
    "towpath_lag_records",
    "Offsets between what is processed and the end last seen.",
    ["application", "topic", "partition"],
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
WAITING_FOR_WORLD = Gauge(
    "towpath_waiting_for_world", "1 while a worker waits for something outside to come back.", ["application"]
)
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
