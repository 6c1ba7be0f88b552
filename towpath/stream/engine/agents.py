"""What the loop of a worker works with beside the broker: its agents, and what it knows of the outside. Pure."""

from dataclasses import dataclass, field
from typing import Protocol

from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.unit import Unit


class Agents(Protocol):
    """Who handles the records of a unit."""

    async def handle(self, unit: Unit, groups: Groups, seconds: float) -> None:
        """Have every record handled, within `seconds`. Raises AgentFailed or Interrupted."""
        ...

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Learn that these are all the partitions now."""
        ...

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Learn that these were given away."""
        ...

    async def ready(self) -> None:
        """Learn that every owned partition is served."""
        ...


@dataclass(slots=True)
class Fault:
    """How often in a row a dependency failed, and until when to leave it alone (monotonic seconds)."""

    failures: int = 0
    reason: str | None = None
    until_seconds: float = 0.0
    paused: set[TopicPartition] = field(default_factory=set)
