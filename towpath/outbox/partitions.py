"""Which partitions the outbox should have. Pure: dates in, plan out.

A partition holds one UTC day and is called `outbox_YYYYMMDD`. Days are made ahead, so that a maintenance run that
comes late costs nothing, and dropped whole once they are older than what is kept: no row is ever deleted one by one,
but for those that the default partition caught.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

_DATED = re.compile(r"^outbox_(\d{4})(\d{2})(\d{2})$")


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """Days to make and days to drop, both in ascending order."""

    create: tuple[date, ...]
    drop: tuple[date, ...]


def partition_name(day: date) -> str:
    """Return the name of the partition of `day`."""
    return f"outbox_{day:%Y%m%d}"


def partition_day(name: str) -> date | None:
    """Return the day of a partition, or None for a table that is no dated partition."""
    match = _DATED.match(name)
    return date(int(match[1]), int(match[2]), int(match[3])) if match else None


def plan_partitions(
    existing: Iterable[str], today: date, *, ahead_days: int, keep_days: int, caught: Iterable[date] = ()
) -> PartitionPlan:
    """Return what to make and what to drop.

    `existing` are the partitions' names, `caught` the days of which the default partition holds rows: PostgreSQL
    refuses a partition for these, and their rows are well where they are. Today counts as neither ahead nor kept:
    with `keep_days` 0 it still stays.
    """
    days = {day for day in map(partition_day, existing) if day is not None}
    wanted = {today + timedelta(days=offset) for offset in range(ahead_days + 1)} - set(caught)
    oldest_kept = today - timedelta(days=keep_days)
    return PartitionPlan(
        create=tuple(sorted(wanted - days)),
        drop=tuple(sorted(day for day in days if day < oldest_kept)),
    )
