"""Which row of an outbox Kafka refuses, and why. Pure: facts of rows and topics in, words out.

A new row of that kind fails at its INSERT (outbox.sql). This is for those from before, and for topics whose settings
changed since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from towpath.outbox.message import HEADER_COLUMNS

AHEAD_MILLISECONDS_MAX = 3_600_000
"""Kafka's default of `message.timestamp.after.max.ms`."""
SPAN_MILLISECONDS_MAX = 10**13
"""Three centuries: Kafka's default of `message.timestamp.before.max.ms` is longer than a timedelta may be."""

SENT_BYTES_MAX = 1_048_576
"""Kafka's default of `max.request.size`: Connect's producer sends no larger record, whatever its topic takes."""
FRAMING_BYTES = 61 + 8 + sum(len(name) + 2 for name in ("id", *HEADER_COLUMNS))
"""What Kafka counts beside a row's values, at least: 61 for the batch, 8 for the record, and each header's name and two
lengths (EventRouter adds them all, those without a value too). The lengths of long values take some bytes more."""

TopicAndId = tuple[str, UUID]
"""What a message is known by: one event may go to two topics under one id."""


@dataclass(frozen=True, slots=True)
class UncarriedRow:
    """A row that is not in its topic. `record_bytes` is key, payload, id and headers; `created_at` is in UTC, aware."""

    id: UUID
    topic: str
    key: str
    record_bytes: int
    created_at: datetime

    @property
    def known_by(self) -> TopicAndId:
        """Return what it is known by."""
        return self.topic, self.id


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that Kafka refuses."""

    row: UncarriedRow
    cause: str


def refusal(row: UncarriedRow, topics: Mapping[str, Mapping[str, str]], now: datetime) -> Refusal | None:
    """Return why Kafka refuses `row`, None where it may take it.

    `topics` are those that Kafka has, with their settings. The outbox refuses a row some bytes before Kafka would
    (`outbox_record_fits`); what lies there already only where it is certain that Kafka takes no record of that size.
    """
    config = topics.get(row.topic)
    if config is None:
        return Refusal(row, f"Kafka has no topic {row.topic!r}")
    size, most = row.record_bytes + FRAMING_BYTES, int(config.get("max.message.bytes", SENT_BYTES_MAX))
    if size > most:
        return Refusal(row, f"its record has {size:,} bytes or more, and topic {row.topic} takes {most:,}")
    if size > SENT_BYTES_MAX:
        return Refusal(row, f"its record has {size:,} bytes or more, and Connect sends at most {SENT_BYTES_MAX:,}")
    wrong = _wrong_time(row, config, now)
    return None if wrong is None else Refusal(row, f"its time, {row.created_at:%Y-%m-%d %H:%M} UTC, {wrong}")


def _wrong_time(row: UncarriedRow, config: Mapping[str, str], now: datetime) -> str | None:
    if row.created_at.timestamp() < 0:
        return "is before Kafka's first"
    if config.get("message.timestamp.type") == "LogAppendTime":
        return None  # the broker's clock replaces the row's time, and nothing looks at that
    if row.created_at - now > _span(config, "message.timestamp.after.max.ms", AHEAD_MILLISECONDS_MAX):
        return "is ahead of Kafka's clock"
    if now - row.created_at > _span(config, "message.timestamp.before.max.ms", SPAN_MILLISECONDS_MAX):
        return f"is older than topic {row.topic} takes"
    return None


def _span(config: Mapping[str, str], name: str, default: int) -> timedelta:
    return timedelta(milliseconds=min(int(config.get(name, default)), SPAN_MILLISECONDS_MAX))
