"""What is read from a topic. Pure.

The one rule: values as they lie in the log, undecoded, so that a record can be dead-lettered untouched.
Records are named tuples and not dataclasses, since one is built for every record that passes (0.3 us against 1.4 us).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

Headers = tuple[tuple[str, bytes | None], ...]


def with_header(headers: Headers, name: str, value: bytes) -> Headers:
    """Return `headers` with one called `name`, in place of any others of that name."""
    return (*(header for header in headers if header[0] != name), (name, value))


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class ConsumedRecord(NamedTuple):
    """One record, as it lies in its partition."""

    topic: str
    partition: int
    offset: int
    timestamp_milliseconds: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def header(self, name: str) -> str | None:
        """Return the last header called `name` as text, or None if there is none, or none that is UTF-8."""
        for header, value in reversed(self.headers):
            if header == name:
                try:
                    return None if value is None else value.decode("utf-8")
                except UnicodeDecodeError:
                    return None
        return None

    @property
    def topic_partition(self) -> TopicPartition:
        """Return the partition that it lies in."""
        return TopicPartition(self.topic, self.partition)

    @property
    def position(self) -> str:
        """Return `topic[partition]@offset`, the way a position is written in logs and errors."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


record_from: Callable[[Iterable[Any]], ConsumedRecord] = partial(tuple.__new__, ConsumedRecord)
"""Makes a record of its fields in their order, in a third of its constructor's time: for whoever reads millions."""

FUTURE_MILLISECONDS_MAX = 3_600_000
"""How far a record's own time may lie ahead: what brokers refuse since Kafka 4.0 (message.timestamp.after.max.ms)."""


def plausible_milliseconds(timestamp_milliseconds: int, now_milliseconds: int) -> int:
    """Return a record's own time, or an hour from now where it lies further ahead; 0 (1970) where it lies before.

    A producer may write any time. What follows from it (up to when ids are forgotten, when a deadline is) would hold
    for everything that comes after it, or be no time at all.
    """
    return max(0, min(timestamp_milliseconds, now_milliseconds + FUTURE_MILLISECONDS_MAX))


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition, in their order, that one unit of work covers."""

    topic: str
    partition: int
    records: list[ConsumedRecord]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[ConsumedRecord]:
        return iter(self.records)
