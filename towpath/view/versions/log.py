"""What the topics say of a view's versions: how far they go, what has expired, which keys lie between two offsets."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from towpath.stream.broker.port import Broker
from towpath.stream.broker.reader.ranges import read_range
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.view.versions.standing import Vector

SILENCE_SECONDS_MAX = 30.0
MARKERS_MAX = 16
"""Up to so many offsets of a partition are read, to see whether there is a record: a transaction ends with a marker."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the partitions of a view's topics begin and end."""

    begins: Vector
    ends: Vector
    topic_ids: Mapping[str, str]


def bounds_of(broker: Broker, topics: Iterable[str]) -> Bounds:
    """Return where `topics` begin and end; those that do not exist are left out. Raises BrokerAway."""
    counts = broker.partition_counts(sorted(set(topics)))
    places = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    ids = broker.topic_ids(counts) if counts else {}
    return Bounds(broker.begin_offsets(places), broker.end_offsets(places), ids)


def records_between(broker: Broker, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[ConsumedRecord]:
    """Yield the committed records of each partition's range of offsets. Raises WorldError where Kafka is too slow."""
    begins = broker.begin_offsets(list(ranges)) if ranges else {}
    return chain.from_iterable(
        _records(broker, place, max(low, begins[place]), high) for place, (low, high) in sorted(ranges.items())
    )


def _records(broker: Broker, place: TopicPartition, low: int, high: int) -> Iterator[ConsumedRecord]:
    return read_range(
        broker,
        place,
        low,
        high,
        silence_seconds_max=SILENCE_SECONDS_MAX,
        kept="everything",
        next_step="towpath status",
    )


def any_between(broker: Broker, ranges: Mapping[TopicPartition, tuple[int, int]]) -> bool:
    """Return whether a record lies in one of the ranges: the markers of transactions are none."""
    return any(
        next(iter(records_between(broker, {place: bounds})), None) is not None for place, bounds in ranges.items()
    )


def ends_of_records(broker: Broker, vector: Vector, ends: Vector) -> Vector:
    """Return `ends` without the markers of transactions that alone lie between `vector` and them.

    Where transactions follow each other closely, whoever reads stands before the last one's marker most of the time.
    """
    near = {
        place: (vector[place], end) for place, end in ends.items() if 0 < end - vector.get(place, end) <= MARKERS_MAX
    }
    return {
        **ends,
        **{place: low for place, (low, high) in near.items() if not any_between(broker, {place: (low, high)})},
    }
