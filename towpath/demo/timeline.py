"""One order, hop by hop, as the topics have it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from towpath.stream.broker.record import ConsumedRecord


@dataclass(frozen=True, slots=True)
class Hop:
    """One record on an order's way: when (milliseconds since its start), where, what, and in which direction."""

    milliseconds: int
    topic: str
    partition: int
    offset: int
    record: str
    step: str
    undo: bool


def hops(records: Iterable[ConsumedRecord], key: str, saga: str) -> list[Hop]:
    """Return the records of `key`, in the order of their times; the history and state of `saga` are not hops.

    Of a message that came twice (handed over directly, and captured) the copy that lies first in its topic is one.
    """
    wanted = key.encode()
    mine = [
        record
        for record in records
        if record.key == wanted and record.topic not in (f"{saga}.history", f"{saga}.state") and record.value
    ]
    mine.sort(key=lambda record: (record.timestamp_milliseconds, record.topic, record.offset))
    mine = list(_first_of_each(mine))
    begin = mine[0].timestamp_milliseconds if mine else 0
    return [
        Hop(
            record.timestamp_milliseconds - begin,
            record.topic,
            record.partition,
            record.offset,
            (record.header("type") or "?").rpartition(".")[2],
            record.header("step") or "",
            record.header("direction") == "undo",
        )
        for record in mine
    ]


def _first_of_each(records: Iterable[ConsumedRecord]) -> Iterable[ConsumedRecord]:
    seen: dict[tuple[str, str], ConsumedRecord] = {}
    for record in records:
        id_ = record.header("id") or record.position
        known = seen.setdefault((record.topic, id_), record)
        if record.offset < known.offset:
            seen[record.topic, id_] = record
    return sorted(seen.values(), key=lambda record: (record.timestamp_milliseconds, record.topic, record.offset))
