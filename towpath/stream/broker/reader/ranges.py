"""Reads a range of a partition's offsets, whoever asks: a replay, or a version of a view.

The one rule: a range ends where it ended when it was asked for, whatever comes to the partition meanwhile.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

from towpath.clock import Clock, SystemClock
from towpath.errors import WorldError
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

POLL_SECONDS = 0.5


def read_range(
    broker: Broker,
    place: TopicPartition,
    begin: int,
    end: int,
    *,
    silence_seconds_max: float,
    kept: str,
    next_step: str,
    clock: Clock | None = None,
) -> Iterator[ConsumedRecord]:
    """Yield the committed records of a partition from `begin` to before `end`, in the order in which they lie.

    Raises WorldError, with `kept` and `next_step`, where the reader has not come further for so long.
    """
    time = clock or SystemClock()

    def polls() -> Iterator[Sequence[ConsumedRecord]]:
        reader, reached = broker.reader(place, begin), begin
        deadline = time.monotonic_seconds() + silence_seconds_max
        try:
            while reached < end:
                records, now_reached = reader.poll(POLL_SECONDS)
                if now_reached > reached:
                    deadline = time.monotonic_seconds() + silence_seconds_max
                elif time.monotonic_seconds() > deadline:
                    raise WorldError(
                        f"{place}: nothing came for {silence_seconds_max:g} s, at {reached} of {end}",
                        kept=kept,
                        next_step=next_step,
                    )
                reached = now_reached
                if records and records[-1].offset >= end:
                    records = [record for record in records if record.offset < end]
                yield records
        finally:
            reader.close()

    # Chained, so that no line of Python runs for each record.
    return chain.from_iterable(polls())
