"""Where a replay's records come from: topics, or a captured file. An outbox is in `outbox/postgres.py`.

The one rule: a source yields the same records in the same order each time, or refuses: what a killed run has sent is
known by where it stood in that order.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from towpath.errors import RefusedError
from towpath.replay.plan import Plan, Ranges
from towpath.replay.reading import read_in_order, read_ranges, within
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record import ConsumedRecord


class Source(Protocol):
    """What a plan's records are read from."""

    def require_unchanged(self, left: Ranges) -> None:
        """Raise RefusedError where it is not what it was when the plan was made."""
        ...

    def read(self, left: Ranges) -> Iterator[ConsumedRecord]:
        """Yield the records that lie in `left`. Raises WorldError where it is away."""
        ...


class TopicSource:
    """The topics themselves."""

    def __init__(self, broker: Broker, plan: Plan) -> None:
        self._broker = broker
        self._plan = plan

    def require_unchanged(self, left: Ranges) -> None:
        """Raise RefusedError where a topic was made anew, or has lost what is left to be sent."""
        topics = {place.topic for place in self._plan.ranges}
        ids = self._broker.topic_ids(topics)
        for topic in sorted(topics):
            if ids.get(topic) != self._plan.topic_ids.get(topic):
                raise RefusedError(
                    f"{topic} is not the topic that was planned for: it was made anew",
                    kept="everything: nothing was sent",
                    next_step="plan anew: towpath replay plan --topic TOPIC",
                )
        begins = self._broker.begin_offsets(list(left))
        for place, (begin, end) in left.items():
            if begin < end and begins[place] > begin:
                raise RefusedError(
                    f"{place} begins at {begins[place]}: records from {begin} on, which were planned, have expired "
                    "since",
                    kept="everything: nothing was sent",
                    next_step="plan anew: towpath replay plan --topic TOPIC",
                )

    def read(self, left: Ranges) -> Iterator[ConsumedRecord]:
        """Yield the committed records of each range, in the plan's order."""
        return read_ranges(self._broker, left, by_time=self._plan.by_time)


class FileSource:
    """A captured file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def require_unchanged(self, left: Ranges) -> None:
        """Raise nothing: whoever writes into a captured file means to."""

    def read(self, left: Ranges) -> Iterator[ConsumedRecord]:
        """Yield the file's records that lie in `left`. Raises ConfigurationError where they lie out of order."""
        return within(read_in_order(self._path), left)


def source_of(broker: Broker, plan: Plan) -> Source:
    """Return what a plan's records are read from, where that is no outbox."""
    return TopicSource(broker, plan) if plan.source is None else FileSource(Path(plan.source))
