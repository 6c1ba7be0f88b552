"""Reads a plan's ranges, in its order, from where it stands. The broker comes in as its port.

The one rule: a partition is read by one reader, in the order in which it lies.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path

from towpath.errors import ConfigurationError, NotFoundError
from towpath.replay.captured import record_of
from towpath.replay.container import is_container, read_container
from towpath.replay.plan import Ranges
from towpath.stream.broker.port import Broker
from towpath.stream.broker.reader.ranges import read_range
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

SILENCE_SECONDS_MAX = 60.0


def read_ranges(broker: Broker, ranges: Ranges, *, by_time: bool = False) -> Iterator[ConsumedRecord]:
    """Yield the committed records of each range, partition after partition, or across them by their time.

    Raises WorldError where nothing comes for a minute.
    """
    readings = (_read(broker, place, begin, end) for place, (begin, end) in sorted(ranges.items()) if begin < end)
    if not by_time:
        return chain.from_iterable(readings)
    # A record that is older than the one before it in its partition follows it all the same.
    timed = (_timed(number, reading) for number, reading in enumerate(readings))
    return map(itemgetter(3), heapq.merge(*timed, key=itemgetter(0, 1, 2)))


def _timed(number: int, records: Iterator[ConsumedRecord]) -> Iterator[tuple[int, int, int, ConsumedRecord]]:
    latest = 0
    for record in records:
        latest = max(latest, record.timestamp_milliseconds)
        yield latest, number, record.offset, record


def _read(broker: Broker, place: TopicPartition, begin: int, end: int) -> Iterator[ConsumedRecord]:
    return read_range(
        broker,
        place,
        begin,
        end,
        silence_seconds_max=SILENCE_SECONDS_MAX,
        kept="what was sent before, and where the replay stands",
        next_step="towpath status, then run the plan again",
    )


def read_file(path: Path) -> Iterator[ConsumedRecord]:
    """Yield the records of a captured file, as they lie: an Avro object container, or one record a line.

    Raises NotFoundError where it cannot be read, ConfigurationError where it holds anything else.
    """
    try:
        if is_container(path):
            yield from read_container(path)
            return
        with path.open("rb") as file:
            yield from (record_of(line) for line in file if line.strip())
    except OSError as error:
        raise NotFoundError(
            f"{path} cannot be read: {error}", next_step="towpath replay plan --topic TOPIC --to-file FILE"
        ) from error


def read_in_order(path: Path) -> Iterator[ConsumedRecord]:
    """Yield the records of a captured file for a run, which goes on behind the offsets that it has come to.

    Raises ConfigurationError where those of a partition do not lie in the order of their offsets (files put together,
    say), and what `read_file` raises.
    """
    last: dict[TopicPartition, int] = {}
    for record in read_file(path):
        before = last.get(record.topic_partition)
        if before is not None and record.offset <= before:
            raise ConfigurationError(
                f"{path} has {record.position} behind {before}: a run that was killed goes on behind the last "
                "offset that it has sent, and would pass over what comes later in the file and lies before that",
                kept="the file, as it is",
                next_step="have each record once, those of a partition in the order of their offsets; or plan the "
                "files that it was put together of one at a time",
            )
        last[record.topic_partition] = record.offset
        yield record


def ranges_in(records: Iterable[ConsumedRecord]) -> Ranges:
    """Return the ranges of offsets that captured records lie in."""
    found: dict[TopicPartition, tuple[int, int]] = {}
    for record in records:
        begin, end = found.get(record.topic_partition, (record.offset, record.offset))
        found[record.topic_partition] = (min(begin, record.offset), max(end, record.offset + 1))
    return found


def within(records: Iterable[ConsumedRecord], ranges: Ranges) -> Iterator[ConsumedRecord]:
    """Yield the records that lie in the ranges."""
    for record in records:
        begin, end = ranges.get(record.topic_partition, (0, 0))
        if begin <= record.offset < end:
            yield record
