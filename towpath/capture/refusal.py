"""Which row of an outbox Kafka refuses, and why. Pure: facts of rows and topics in, words out.

A new row of that kind fails at its INSERT (outbox.sql). This is for those from before, and for topics whose settings
changed since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from towpath.outbox.topics import record_bytes_max

AHEAD_MILLISECONDS_MAX = 3_600_000
"""Kafka's default of `message.timestamp.after.max.ms`."""


@dataclass(frozen=True, slots=True)
class UncarriedRow:
    """A row that is not in its topic. `record_bytes` is key, payload and headers; `created_at` is in UTC, aware."""

    id: UUID
    topic: str
    key: str
    record_bytes: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that Kafka refuses."""

    row: UncarriedRow
    cause: str


def refusal(row: UncarriedRow, topics: Mapping[str, Mapping[str, str]], now: datetime) -> Refusal | None:
    """Return why Kafka refuses `row`, None if it takes it. `topics` are those that Kafka has, with their settings."""
    config = topics.get(row.topic)
    if config is None:
        return Refusal(row, f"Kafka has no topic {row.topic!r}")
    most = record_bytes_max(config)
    if row.record_bytes > most:
        return Refusal(row, f"it has {row.record_bytes:,} bytes, and topic {row.topic} takes {most:,}")
    after = int(config.get("message.timestamp.after.max.ms", AHEAD_MILLISECONDS_MAX))
    if row.created_at - now > timedelta(milliseconds=min(after, 10**13)):
        return Refusal(row, f"its time, {row.created_at:%Y-%m-%d %H:%M} UTC, is ahead of Kafka's clock")
    if row.created_at.timestamp() < 0:
        return Refusal(row, f"its time, {row.created_at:%Y-%m-%d %H:%M} UTC, is before Kafka's first")
    return None
