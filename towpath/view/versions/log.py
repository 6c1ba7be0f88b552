"""What the topics say of a view's versions: how far they go, what has expired, which keys lie between two offsets."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from towpath.errors import WorldError
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.view.versions.standing import Vector

READ_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the partitions of a view's topics begin and end."""

    begins: Vector
    ends: Vector
    topic_ids: Mapping[str, str]

    def of(self, topics: Iterable[str]) -> "Bounds":
        """Return those of `topics` alone."""
        wanted = set(topics)
        return Bounds(
            {place: offset for place, offset in self.begins.items() if place.topic in wanted},
            {place: offset for place, offset in self.ends.items() if place.topic in wanted},
            self.topic_ids,
        )


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
    deadline = time.monotonic() + READ_SECONDS_MAX
    reader, reached = broker.reader(place, low), low
    try:
        while reached < high:
            records, reached = reader.poll(0.2)
            yield from (record for record in records if record.offset < high)
            if records:
                deadline = time.monotonic() + READ_SECONDS_MAX
            elif time.monotonic() > deadline:
                raise WorldError(
                    f"{place}: nothing came for {READ_SECONDS_MAX:g} s", kept="everything", next_step="towpath status"
                )
    finally:
        reader.close()


def any_between(broker: Broker, ranges: Mapping[TopicPartition, tuple[int, int]]) -> bool:
    """Return whether a record lies in one of the ranges: the markers of transactions are none."""
    return any(
        next(iter(records_between(broker, {place: bounds})), None) is not None for place, bounds in ranges.items()
    )
