"""Whether everything that outboxes hold arrived in its topic. Pure: ids in, verdict out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class TopicAudit:
    """What one topic has of what outboxes hold for it.

    `written` and `carried` count distinct ids; `missing` lists the ids that did not arrive, `repeated` counts
    records beyond the first of their id, which consumers drop.
    """

    topic: str
    written: int
    carried: int
    repeated: int
    missing: tuple[UUID, ...]

    @property
    def complete(self) -> bool:
        """Return whether all arrived."""
        return not self.missing


def compare(written: Mapping[str, Iterable[UUID]], carried: Mapping[str, Counter[UUID]]) -> tuple[TopicAudit, ...]:
    """Compare the ids in the outboxes with those in the topics, topic by topic.

    A topic may hold more than the outbox does: what is older than the outbox keeps, and what others wrote.
    """
    return tuple(_compare(topic, set(ids), carried.get(topic, Counter())) for topic, ids in sorted(written.items()))


def _compare(topic: str, written: set[UUID], carried: Counter[UUID]) -> TopicAudit:
    arrived = written & carried.keys()
    return TopicAudit(
        topic=topic,
        written=len(written),
        carried=len(arrived),
        repeated=sum(carried[id] - 1 for id in arrived),  # noqa: A001
        missing=tuple(sorted(written - arrived)),
    )
