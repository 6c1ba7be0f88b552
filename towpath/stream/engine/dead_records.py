"""Records that a person has declared dead: they go into quarantine without a run of their handler. Pure.

The one rule: what is written in `stream.dead_records` are positions as logs write them, so that what a stopped worker
has said of its record is what lets it go on.
"""

import json
import re
from collections.abc import Iterable

from towpath.errors import ProgrammerError
from towpath.settings import RECORD_PLACE
from towpath.stream.broker.record import ConsumedRecord, TopicPartition


class DeclaredDead(ProgrammerError):
    """A person has given the record up, for its handler would not come back from it, or would end the process."""


class DeadRecords:
    """The records of one application that are declared dead."""

    def __init__(self, places: Iterable[str] = ()) -> None:
        self._ranges: dict[TopicPartition, list[range]] = {}
        for topic, partition, first, last in (found.groups() for place in places if (found := _parsed(place))):
            offsets = range(int(first), int(last or first) + 1)
            self._ranges.setdefault(TopicPartition(topic, int(partition)), []).append(offsets)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __contains__(self, record: ConsumedRecord) -> bool:
        return any(record.offset in offsets for offsets in self._ranges.get(record.topic_partition, ()))


def _parsed(place: str) -> re.Match[str] | None:
    return re.fullmatch(RECORD_PLACE, place)  # settings have checked it


def how_to_declare(application: str, place: str) -> str:
    """Return how to declare dead what lies at `place`: positions with ", " between them."""
    line = f"{json.dumps(application)} = {json.dumps(place.split(', '))}"
    return f"write under [stream.dead_records] in towpath.toml: {line}"
