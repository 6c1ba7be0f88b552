"""Groups in memory: members, generations, range assignment, offsets. Pure; the classic, eager protocol.

A member beats its heart by itself, like librdkafka's, unless it is frozen: then its session expires by the clock.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from towpath.stream.broker.port import GroupMetadata, StaleMember
from towpath.stream.broker.record import TopicPartition


@dataclass(slots=True)
class Membership:
    """One member. `joined` is the generation that it last joined; `owned` what it has been told that it owns."""

    id: str
    topics: frozenset[str]
    joined: int = -1
    told: int = -1
    owned: frozenset[TopicPartition] = frozenset()
    frozen_at_seconds: float | None = None
    polled_at_seconds: float = 0.0
    client_id: str = ""


def range_assignment(
    members: Mapping[str, frozenset[str]], counts: Mapping[str, int]
) -> dict[str, frozenset[TopicPartition]]:
    """Return what Kafka's range assignor gives: of each topic, contiguous numbers to the members by their ids.

    Topics with equal counts and subscribers get equal numbers on equal members: co-location rests on that.
    """
    assignment: dict[str, set[TopicPartition]] = {member: set() for member in members}
    for topic, count in counts.items():
        takers = sorted(member for member, topics in members.items() if topic in topics)
        if not takers:
            continue
        each, more = divmod(count, len(takers))
        start = 0
        for index, member in enumerate(takers):
            stop = start + each + (1 if index < more else 0)
            assignment[member].update(TopicPartition(topic, number) for number in range(start, stop))
            start = stop
    return {member: frozenset(partitions) for member, partitions in assignment.items()}


Assignor = Callable[[Mapping[str, frozenset[str]], Mapping[str, int]], dict[str, frozenset[TopicPartition]]]


@dataclass(slots=True)
class Group:
    """One consumer group."""

    name: str
    session_seconds: float
    poll_interval_seconds: float
    assignor: Assignor = range_assignment
    generation: int = 0
    members: dict[str, Membership] = field(default_factory=dict)
    assignment: dict[str, frozenset[TopicPartition]] = field(default_factory=dict)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    epochs: dict[TopicPartition, int] = field(default_factory=dict)
    """Leader epochs that were committed with the offsets."""
    notes: dict[TopicPartition, str] = field(default_factory=dict)
    """What was noted beside an offset, until it is committed anew."""
    pending: dict[int, dict[TopicPartition, int]] = field(default_factory=dict)
    """Producer id of each open transaction -> offsets that it will commit."""
    slots: dict[str, str] = field(default_factory=dict)
    """Slot of a static member -> its id of now (KIP-345)."""
    _counter: int = 0

    def join(
        self, topics: Iterable[str], now_seconds: float, slot: str | None = None, client_id: str = ""
    ) -> Membership:
        """Add a member, and everybody rejoins; or, in a slot that has one, put it in the place of the old one."""
        self._counter += 1
        member = Membership(
            f"member-{self._counter}", frozenset(topics), polled_at_seconds=now_seconds, client_id=client_id
        )
        before = None
        if slot is not None:
            before = self.members.pop(self.slots.get(slot, ""), None)
            self.slots[slot] = member.id
        self.members[member.id] = member
        if before is not None and before.id in self.assignment and before.topics == member.topics:
            member.joined = before.joined
            self.assignment[member.id] = self.assignment.pop(before.id)
        else:
            self.rebalance()
        return member

    def leave(self, member_id: str) -> None:
        """Remove a member; the others rejoin."""
        if self.members.pop(member_id, None) is not None:
            self.rebalance()

    def rebalance(self) -> None:
        """Begin a new generation."""
        self.generation += 1
        self.assignment = {}

    def expire(self, now_seconds: float) -> None:
        """Remove members whose session, or time between polls, has run out."""
        for member in list(self.members.values()):
            frozen = member.frozen_at_seconds
            silent = frozen is not None and now_seconds - frozen > self.session_seconds
            if silent or now_seconds - member.polled_at_seconds > self.poll_interval_seconds:
                self.leave(member.id)

    def rejoin(self, member: Membership, counts: Mapping[str, int]) -> None:
        """Note that a member, having given up what it owned, has joined the current generation."""
        member.joined = self.generation
        member.owned = frozenset()
        if all(other.joined == self.generation for other in self.members.values()):
            topics = {topic for other in self.members.values() for topic in other.topics}
            self.assignment = self.assignor(
                {other.id: other.topics for other in self.members.values()},
                {topic: count for topic, count in counts.items() if topic in topics},
            )

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        epochs: Mapping[TopicPartition, int] | None = None,
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Take offsets, in place of earlier ones and of what was kept beside those."""
        self.offsets.update(offsets)
        for partition in offsets:
            self.notes.pop(partition, None)
            self.epochs.pop(partition, None)
        self.epochs.update({partition: epoch for partition, epoch in (epochs or {}).items() if partition in offsets})
        self.notes.update({partition: note for partition, note in (notes or {}).items() if partition in offsets})

    def check(self, metadata: GroupMetadata) -> None:
        """Raise StaleMember unless `metadata` is that of a member of the current, settled generation."""
        member = self.members.get(metadata.member)
        if member is None or metadata.generation != self.generation or member.joined != self.generation:
            raise StaleMember(
                f"{self.name}: {metadata.member} of generation {metadata.generation} is no member of {self.generation}"
            )
