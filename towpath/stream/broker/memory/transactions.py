"""Transactional producers in memory: ids, epochs, time-outs. Pure."""

from dataclasses import dataclass, field

from towpath.stream.broker.port import ProducerFenced
from towpath.stream.broker.record import TopicPartition


@dataclass(slots=True)
class Transactional:
    """What the coordinator keeps for one transactional id."""

    producer: int
    epoch: int = 0
    open_since_seconds: float | None = None
    partitions: set[TopicPartition] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    epochs: dict[TopicPartition, int] = field(default_factory=dict)
    notes: dict[TopicPartition, str] = field(default_factory=dict)

    @property
    def session(self) -> int:
        """Return a number that tells this epoch's records from those of earlier ones."""
        return self.producer * 100_000 + self.epoch

    def check(self, epoch: int, transactional_id: str) -> None:
        """Raise ProducerFenced for any epoch but the current one."""
        if epoch != self.epoch:
            raise ProducerFenced(f"{transactional_id}: epoch {epoch} is fenced by {self.epoch}")
