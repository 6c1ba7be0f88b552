"""How far the run of a plan is. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from towpath.errors import RefusedError
from towpath.replay.plan import Plan, Ranges
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

RECORDS_AT_ONCE = 1_000
"""In one transaction, or one block of a file."""
Choose = Callable[[Iterable[ConsumedRecord]], Iterable[ConsumedRecord]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: records sent by this run, and the offsets up to which all was sent by any."""

    sent: int
    offsets: Mapping[TopicPartition, int]
    seconds: float


def superseded(replay_id: str) -> RefusedError:
    """Return the error of a run that another one of the same plan has followed."""
    return RefusedError(
        f"another run of replay {replay_id} has begun since, or a transaction took too long",
        kept="what was sent, and where it stands",
        next_step=f"towpath replay show {replay_id} says who; run the plan again: it goes on there",
    )


KeepOn = Callable[[Progress], bool]


def left_of(plan: Plan, standing: Mapping[TopicPartition, int]) -> Ranges:
    """Return what is left to be read of a plan."""
    return {place: (max(begin, standing.get(place, begin)), end) for place, (begin, end) in plan.ranges.items()}


def chunks(records: Iterator[ConsumedRecord], size: int) -> Iterator[list[ConsumedRecord]]:
    """Yield the records `size` at a time."""
    while chunk := list(islice(records, size)):
        yield chunk


def reached(chunk: Iterable[ConsumedRecord]) -> dict[TopicPartition, int]:
    """Return the offset behind the last record of each partition."""
    last = {(record.topic, record.partition): record.offset for record in chunk}
    return {TopicPartition(*place): offset + 1 for place, offset in last.items()}
