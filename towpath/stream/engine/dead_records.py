"""Records that a person has declared dead: they go into quarantine without a run of their handler. Pure.

The one rule: what is written in `stream.dead_records` are positions as logs write them, so that what a stopped worker
has said of its record is what lets it go on.
"""

import json
import re
from collections.abc import Iterable

from towpath.errors import ConfigurationError, ProgrammerError
from towpath.settings import RECORD_PLACE
from towpath.stream.broker.record import TopicPartition

RANGE_RECORDS_MAX = 100_000
"""More than any unit of work holds: a longer range is a slip of the pen, and would be kept in memory."""


class DeclaredDead(ProgrammerError):
    """A person has given the record up, for its handler would not come back from it, or would end the process."""


def offsets_at(places: Iterable[str]) -> dict[TopicPartition, frozenset[int]]:
    """Return the offsets of each partition that `places` name, of one application in `stream.dead_records`.

    Raises ConfigurationError for a range that ends before it begins, or is too long.
    """
    found: dict[TopicPartition, frozenset[int]] = {}
    for place in places:
        parts = re.fullmatch(RECORD_PLACE, place)
        assert parts is not None, "settings have checked it"
        topic, partition, first, last = parts.groups()
        offsets = range(int(first), int(last or first) + 1)
        if not 0 < len(offsets) <= RANGE_RECORDS_MAX:
            raise ConfigurationError(
                f"stream.dead_records: {place} names {len(offsets)} records, not 1 to {RANGE_RECORDS_MAX}",
                next_step="write it as the log of the worker does that stopped there",
            )
        key = TopicPartition(topic, int(partition))
        found[key] = found.get(key, frozenset()).union(offsets)
    return found


def how_to_declare(application: str, place: str) -> str:
    """Return the lines of towpath.toml that declare dead what lies at `place`: positions with ", " between them."""
    return f"[stream.dead_records] {json.dumps(application)} = {json.dumps(place.split(', '))}"
