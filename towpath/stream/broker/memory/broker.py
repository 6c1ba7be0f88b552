"""The broker port in memory. One lock guards everything; waiting readers are woken by it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Condition
from typing import TypeVar

from towpath.clock import Clock, SystemClock, epoch_milliseconds
from towpath.settings import StreamSettings
from towpath.stream.broker.memory.clients import MemoryMember, MemoryProducer, MemoryReader
from towpath.stream.broker.memory.faults import Faults
from towpath.stream.broker.memory.groups import Group
from towpath.stream.broker.memory.log import PartitionLog
from towpath.stream.broker.memory.transactions import Transactional
from towpath.stream.broker.partitioner import partition_of
from towpath.stream.broker.port import NO_EPOCHS, NO_NOTES, BrokerAway, GroupMember, GroupMetadata
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.stream.broker.record_limits import TOPIC_BYTES_MAX, RecordLimits

T = TypeVar("T")


@dataclass(slots=True)
class _Topic:
    id: str
    config: dict[str, str]
    partitions: list[PartitionLog] = field(default_factory=list)


class MemoryBroker:
    """A cluster in this process. Give it to `create_app(..., broker=...)`."""

    def __init__(self, settings: StreamSettings | None = None, clock: Clock | None = None) -> None:
        self.settings = settings or StreamSettings()
        self.clock: Clock = clock or SystemClock()
        self.changed = Condition()
        self.faults = Faults()
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, Group] = {}
        self._transactionals: dict[str, Transactional] = {}
        self._made = 0
        self._unkeyed = 0

    # What a test arranges and looks at

    def create_topic(self, name: str, partitions: int = 4, config: Mapping[str, str] | None = None) -> None:
        """Create a topic, empty; in place of one of that name, with another id."""
        with self.changed:
            self._made += 1
            self._topics[name] = _Topic(
                f"{name}-{self._made}", dict(config or {}), [PartitionLog() for _ in range(partitions)]
            )

    def configure_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        with self.changed:
            self._topics[name].config.update(config)

    def grow_topic(self, name: str, partitions: int) -> None:
        """Give a topic more partitions; its groups are rebalanced over them, as a member's next look brings about."""
        with self.changed:
            logs = self._topics[name].partitions
            logs.extend(PartitionLog() for _ in range(partitions - len(logs)))
            for group in self._groups.values():
                group.rebalance()
            self.changed.notify_all()

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_milliseconds: int | None = None,
    ) -> ConsumedRecord:
        """Append a record outside any transaction, as Debezium does; return it with its offset."""
        with self.changed:
            return self.add_record(topic, value, key, headers, partition, timestamp_milliseconds, None)

    def records(self, topic: str) -> list[ConsumedRecord]:
        """Return the committed records of a topic, partition by partition."""
        with self.changed:
            logs = self._topics[topic].partitions
            return [record for log in logs for record in log.read(0, log.end)[0]]

    def log_of(self, partition: TopicPartition) -> PartitionLog:
        """Return a partition's log, to expire or compact it, or to look at its markers."""
        try:
            return self._topics[partition.topic].partitions[partition.partition]
        except (KeyError, IndexError):
            raise BrokerAway(f"{partition} does not exist") from None

    def group(self, name: str) -> Group:
        """Return a group."""
        if name not in self._groups:
            self._groups[name] = Group(
                name, self.settings.session_timeout_seconds, self.settings.poll_interval_seconds_max
            )
        return self._groups[name]

    def committed_offsets(self, group: str) -> dict[TopicPartition, int]:
        """Return the offsets of a group."""
        with self.changed:
            return dict(self.group(group).offsets)

    def open_transactions(self) -> list[str]:
        """Return the transactional ids with an open transaction."""
        with self.changed:
            self.pass_time()
            return [name for name, kept in self._transactionals.items() if kept.open_since_seconds is not None]

    # The port

    def member(
        self,
        group: str,
        *,
        client_id: str,
        slot: str | None = None,
    ) -> MemoryMember:
        """Return a consumer for `group` that has not joined yet."""
        return MemoryMember(self, group, slot, client_id)

    def producer(self, transactional_id: str) -> MemoryProducer:
        """Return a producer that has not started yet."""
        return MemoryProducer(self, transactional_id)

    def reader(self, partition: TopicPartition, offset: int) -> MemoryReader:
        """Return a reader of `partition` from `offset`."""
        return MemoryReader(self, partition, offset)

    def group_members(self, group: str) -> tuple[GroupMember, ...]:
        """Return a group's members."""
        with self.changed:
            self.faults.meet("metadata")
            self.pass_time()
            return tuple(GroupMember(one.id, one.client_id, "/127.0.0.1") for one in self.group(group).members.values())

    def group_offsets(
        self, group: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Return a group's offsets."""
        wanted = None if partitions is None else set(partitions)
        return {p: offset for p, offset in self.committed_offsets(group).items() if wanted is None or p in wanted}

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return how many partitions each topic has."""
        with self.changed:
            self.faults.meet("metadata")
            return {name: len(self._topics[name].partitions) for name in topics if name in self._topics}

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return each topic's id."""
        with self.changed:
            self.faults.meet("metadata")
            return {name: self._topics[name].id for name in topics}

    def topic_config(self, topic: str) -> Mapping[str, str]:
        """Return a topic's configuration."""
        with self.changed:
            self.faults.meet("metadata")
            return dict(self._topics[topic].config)

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the high watermarks."""
        with self.changed:
            self.faults.meet("offsets")
            return {partition: self.log_of(partition).end for partition in partitions}

    def leader_epochs(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the epochs of the leaders that there are now."""
        with self.changed:
            self.faults.meet("offsets")
            return {partition: self.log_of(partition).epoch for partition in partitions}

    def begin_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the oldest offsets."""
        with self.changed:
            self.faults.meet("offsets")
            return {partition: self.log_of(partition).begin for partition in partitions}

    def offsets_at(self, partitions: Iterable[TopicPartition], milliseconds: int) -> dict[TopicPartition, int]:
        """Return the offsets of the first records of this time or later."""
        with self.changed:
            self.faults.meet("offsets")
            return {partition: self.log_of(partition).offset_at(milliseconds) for partition in partitions}

    # What the clients share, with the lock held

    def counts(self) -> dict[str, int]:
        """Return partition counts of all topics."""
        return {name: len(topic.partitions) for name, topic in self._topics.items()}

    def now_seconds(self) -> float:
        """Return the clock's monotonic time."""
        return self.clock.monotonic_seconds()

    def pass_time(self) -> None:
        """Expire sessions and transactions."""
        now = self.now_seconds()
        for group in self._groups.values():
            group.expire(now)
        for name, kept in self._transactionals.items():
            since = kept.open_since_seconds
            if since is not None and now - since > self.settings.transaction_timeout_seconds:
                self.end(name, committed=False)
                kept.epoch += 1

    def add_record(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp_milliseconds: int | None,
        producer: int | None,
    ) -> ConsumedRecord:
        """Append a record for a transaction, or outside any."""
        if topic not in self._topics:
            raise BrokerAway(f"{topic} does not exist")
        logs = self._topics[topic].partitions
        if partition is None:
            self._unkeyed += key is None
            partition = self._unkeyed % len(logs) if key is None else partition_of(key, len(logs))
        if timestamp_milliseconds is None:
            timestamp_milliseconds = epoch_milliseconds(self.clock)
        record = ConsumedRecord(topic, partition, -1, timestamp_milliseconds, key, value, tuple(headers))
        offset = logs[partition].append(record, producer)
        self.changed.notify_all()
        return record._replace(offset=offset)

    def check_size(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise OutputRefused for a record that is larger than its topic's `max.message.bytes`."""
        if topic in self._topics:
            bytes_max = int(self._topics[topic].config.get("max.message.bytes", TOPIC_BYTES_MAX))
            RecordLimits({topic: bytes_max}).check(topic, key, value, headers)

    def start_producer(self, transactional_id: str) -> int:
        """Fence older producers and end their transaction; return the new epoch."""
        kept = self._transactionals.setdefault(transactional_id, Transactional(len(self._transactionals) + 1))
        if kept.open_since_seconds is not None:
            self.end(transactional_id, committed=False)
        kept.epoch += 1
        return kept.epoch

    def transactional(self, transactional_id: str, epoch: int) -> Transactional:
        """Return what is kept for a transactional id. Raises ProducerFenced."""
        self.pass_time()
        kept = self._transactionals[transactional_id]
        kept.check(epoch, transactional_id)
        return kept

    def add_offsets(
        self,
        kept: Transactional,
        offsets: Mapping[TopicPartition, int],
        metadata: GroupMetadata,
        epochs: Mapping[TopicPartition, int] = NO_EPOCHS,
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        """Add offsets to an open transaction. Raises StaleMember."""
        group = self.group(metadata.group)
        group.check(metadata)
        self.add_decided_offsets(kept, offsets, group.name, notes)
        kept.epochs.update(epochs)

    def add_decided_offsets(
        self,
        kept: Transactional,
        offsets: Mapping[TopicPartition, int],
        group: str,
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        """Add offsets that nobody's membership guards."""
        kept.groups.add(group)
        kept.notes.update(notes)
        self.group(group).pending.setdefault(kept.session, {}).update(offsets)

    def end(self, transactional_id: str, *, committed: bool) -> None:
        """End a transaction: markers in every partition it wrote to, and its offsets."""
        kept = self._transactionals[transactional_id]
        for partition in kept.partitions:
            log = self.log_of(partition)
            if kept.session in log.open_since:
                log.mark(kept.session, committed=committed)
        for name in kept.groups:
            offsets = self.group(name).pending.pop(kept.session, {})
            if committed:
                self.group(name).commit(offsets, kept.epochs, kept.notes)
        kept.open_since_seconds = None
        kept.partitions.clear()
        kept.groups.clear()
        kept.epochs.clear()
        kept.notes.clear()
        self.changed.notify_all()

    def wait(self, ready: Callable[[], T | None], timeout_seconds: float) -> T | None:
        """Wait until `ready` returns something, at most so long."""
        deadline = SystemClock().monotonic_seconds() + timeout_seconds
        while True:
            found = ready()
            left = deadline - SystemClock().monotonic_seconds()
            if found is not None or left <= 0:
                return found
            # Woken by every change; and now and then, for what the clock alone changes.
            self.changed.wait(min(left, 0.02))
