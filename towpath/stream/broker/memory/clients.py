"""The clients of the memory broker."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from towpath.stream.broker.memory.groups import Membership
from towpath.stream.broker.port import (
    NO_EPOCHS,
    NO_NOTES,
    UNKNOWN_END,
    Assigned,
    BrokerAway,
    Delivered,
    GroupMetadata,
    MemberFenced,
    Polled,
    ProducerFenced,
    Revoked,
    StaleMember,
)
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition

if TYPE_CHECKING:
    from towpath.stream.broker.memory.broker import MemoryBroker
    from towpath.stream.broker.memory.transactions import Transactional


class MemoryMember:
    """A group's member in memory."""

    def __init__(self, broker: "MemoryBroker", group: str, slot: str | None = None, client_id: str = "") -> None:
        self._broker = broker
        self._client_id = client_id
        self._slot = slot
        self._group = broker.group(group)
        self._topics: frozenset[str] = frozenset()
        self._member: Membership | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._told_end: dict[TopicPartition, int] = {}
        self._read_under: dict[TopicPartition, int] = {}
        self._cut: set[TopicPartition] = set()
        self._truncated: dict[TopicPartition, int] = {}
        self.notes: dict[TopicPartition, str] = {}
        self.epochs: dict[TopicPartition, int] = {}

    def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group."""
        with self._broker.changed:
            self._topics = frozenset(topics)
            self._member = self._group.join(self._topics, self._broker.now_seconds(), self._slot, self._client_id)

    # What a test does to it

    def freeze(self) -> None:
        """Stop its heartbeat, as SIGSTOP does: its session runs out by the broker's clock."""
        with self._broker.changed:
            if self._member is not None:
                self._member.frozen_at_seconds = self._broker.now_seconds()

    # The port

    def poll(self, records_max: int, timeout_seconds: float) -> Polled:
        """Take part in a rebalance, or read."""
        broker = self._broker
        with broker.changed:
            broker.faults.meet("poll")
            polled = Polled()
            broker.wait(lambda: polled if self._turn(polled, records_max) else None, timeout_seconds)
            polled.metadata = self._metadata()
            return polled

    def _metadata(self) -> GroupMetadata:
        member = self._member
        if member is None or member.id not in self._group.members:
            return GroupMetadata(self._group.name, "", -1)
        return GroupMetadata(self._group.name, member.id, member.joined)

    def _turn(self, polled: Polled, records_max: int) -> bool:
        self._broker.pass_time()
        member = self._member
        if member is None:
            return False
        now = self._broker.now_seconds()
        member.polled_at_seconds, member.frozen_at_seconds = now, None
        if member.id not in self._group.members:
            if self._slot is not None and self._group.slots[self._slot] != member.id:
                raise MemberFenced(f"{self._group.name}: another worker has taken slot {self._slot}")
            polled.changes.append(Revoked(frozenset(self._positions), lost=True))
            self._forget()
            self._member = self._group.join(self._topics, now, self._slot, self._client_id)
            return True
        if member.joined != self._group.generation:
            if self._positions:
                polled.changes.append(Revoked(frozenset(self._positions)))
            self._forget()
            self._group.rejoin(member, self._broker.counts())
            self._broker.changed.notify_all()
        if member.told != self._group.generation and member.id in self._group.assignment:
            member.told = self._group.generation
            member.owned = self._group.assignment[member.id]
            for partition in member.owned:
                offset = self._group.offsets.get(partition)
                self._positions[partition] = self._broker.log_of(partition).begin if offset is None else offset
            self._paused = set(member.owned)
            polled.changes.append(Assigned(member.owned))
        if not polled.changes:
            self._read(polled, records_max)
        polled.truncated, self._truncated = self._truncated, {}
        return bool(polled.changes or polled.groups or polled.ends or polled.unpositioned or polled.truncated)

    def _forget(self) -> None:
        self._positions.clear()
        self._paused.clear()
        self._cut.clear()
        self._truncated.clear()
        self._told_end.clear()
        self._read_under.clear()

    def _read(self, polled: Polled, records_max: int) -> None:
        for partition, position in self._positions.items():
            left = records_max - polled.records
            if partition in self._cut or not self._is_whole(partition, position):  # of a paused one, too
                continue
            if partition in self._paused or left <= 0:
                continue
            log = self._broker.log_of(partition)
            if not log.begin <= position <= log.end:
                self._paused.add(partition)
                polled.unpositioned.add(partition)
                continue
            records, reached = log.read(position, left)
            if reached > position:
                self._positions[partition] = reached
                self._read_under[partition] = log.epoch_at(reached - 1)
            if records:
                polled.groups[partition] = records
                polled.epochs[partition] = log.epoch_at(records[-1].offset)
                polled.records += len(records)
            if reached >= log.last_stable and self._told_end.get(partition) != reached:
                self._told_end[partition] = reached
                polled.ends[partition] = reached

    def _is_whole(self, partition: TopicPartition, position: int) -> bool:
        """Say whether the log still has what was read up to a position, markers included, as KIP-320 has it."""
        log, epoch = self._broker.log_of(partition), self._read_under.get(partition, -1)
        end = log.end_of_epoch(epoch) if epoch >= 0 else position
        if end is not None and end >= position:
            return True
        self._truncated[partition] = UNKNOWN_END if end is None else end
        self._cut.add(partition)
        return False

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Read nothing from `partitions`."""
        with self._broker.changed:
            self._paused.update(partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read from `partitions` again."""
        with self._broker.changed:
            self._paused.difference_update(partitions)
            self._broker.changed.notify_all()

    def seek(self, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] = NO_EPOCHS) -> None:
        """Read on from these offsets, unless the log lost what was read up to there."""
        with self._broker.changed:
            for partition, offset in positions.items():
                if partition not in self._positions:
                    continue
                self._told_end.pop(partition, None)
                self._read_under[partition] = epochs.get(partition, -1)
                self._cut.discard(partition)
                self._positions[partition] = offset
                self._is_whole(partition, offset)

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Return stable offsets."""
        wanted = list(partitions)
        with self._broker.changed:
            self._broker.faults.meet("committed")
            self._broker.pass_time()
            for pending in self._group.pending.values():
                if pending.keys() & set(wanted):
                    raise BrokerAway(f"{self._group.name}: a transaction is open over its offsets")
            self.notes = {p: note for p in wanted if (note := self._group.notes.get(p))}
            self.epochs = {p: self._group.epochs[p] for p in wanted if p in self._group.epochs}
            return {partition: self._group.offsets.get(partition) for partition in wanted}

    def note(self, partition: TopicPartition, offset: int, text: str) -> None:
        """Commit an offset as it is, with a note beside it."""
        with self._broker.changed:
            epochs = {partition: epoch} if (epoch := self.epochs.get(partition)) is not None else {}
            self._group.commit({partition: offset}, epochs, {partition: text})

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit without a transaction, as a member."""
        with self._broker.changed:
            try:
                self._group.check(self._metadata())
            except StaleMember:
                return
            self._group.commit(offsets)

    def close(self) -> None:
        """Leave the group."""
        with self._broker.changed:
            if self._member is not None:
                self._group.leave(self._member.id)
                self._member = None
                self._broker.changed.notify_all()

    def abandon(self) -> None:
        """Close the client without leaving."""


class MemoryProducer:
    """A transactional producer in memory. Records are in the log at once, invisible until the commit."""

    def __init__(self, broker: "MemoryBroker", transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._broker = broker
        self._epoch = -1
        self._begun = False
        self._told: list[tuple[Delivered, int]] = []

    def start(self) -> None:
        """Fence the ghosts of this transactional id."""
        with self._broker.changed:
            self._broker.faults.meet("start")
            self._epoch = self._broker.start_producer(self.transactional_id)

    def begin(self) -> None:
        """Begin a transaction; a local step, as in librdkafka."""
        if self._begun:
            raise ProducerFenced(f"{self.transactional_id}: a transaction is open already")
        self._begun = True
        self._told.clear()

    def _kept(self) -> "Transactional":
        kept = self._broker.transactional(self.transactional_id, self._epoch)
        if kept.open_since_seconds is None:
            kept.open_since_seconds = self._broker.now_seconds()
        return kept

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_milliseconds: int | None = None,
        delivered: Delivered | None = None,
    ) -> None:
        """Add a record to the transaction."""
        if not self._begun:
            raise ProducerFenced(f"{self.transactional_id}: no transaction is open")
        with self._broker.changed:
            self._broker.faults.meet("produce")
            self._broker.check_size(topic, key, value, headers)
            kept = self._kept()
            record = self._broker.add_record(
                topic, value, key, headers, partition, timestamp_milliseconds, kept.session
            )
            kept.partitions.add(record.topic_partition)
            if delivered is not None:
                self._told.append((delivered, record.offset))

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        metadata: GroupMetadata | None,
        epochs: Mapping[TopicPartition, int] = NO_EPOCHS,
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        """Commit with offsets."""
        if offsets and (metadata is None or not metadata.is_member):
            raise StaleMember("this consumer is no member of its group: its offsets would be taken unchecked")
        faults = self._broker.faults
        with self._broker.changed:
            if offsets and metadata is not None:
                faults.meet("send_offsets")
                self._broker.add_offsets(self._kept(), offsets, metadata, epochs, notes)
            faults.meet("commit")
            self._kept()
            self._broker.end(self.transactional_id, committed=True)
            for delivered, offset in self._told:
                delivered(offset)
            self._begun = False
            faults.meet("commit answer")

    def commit_for_group(
        self, group: str, offsets: Mapping[TopicPartition, int], *, notes: Mapping[TopicPartition, str] = NO_NOTES
    ) -> None:
        """Commit with offsets of a group."""
        with self._broker.changed:
            self._broker.add_decided_offsets(self._kept(), offsets, group, notes)
        self.commit({}, None)

    def abort(self) -> None:
        """Abort."""
        with self._broker.changed:
            self._begun = False
            self._broker.faults.meet("abort")
            self._broker.transactional(self.transactional_id, self._epoch)
            self._broker.end(self.transactional_id, committed=False)

    def close(self) -> None:
        """Close the client; what is open stays so until its time-out, or until the next producer starts."""
        self._begun = False


class MemoryReader:
    """Reads one partition, committed records only."""

    def __init__(self, broker: "MemoryBroker", partition: TopicPartition, offset: int) -> None:
        self._broker = broker
        self._partition = partition
        self._position = offset

    def poll(self, timeout_seconds: float) -> tuple[list[ConsumedRecord], int]:
        """Return further records and the offset reached."""
        broker = self._broker
        with broker.changed:
            broker.faults.meet("read")
            broker.wait(self._more, timeout_seconds)
            records, self._position = broker.log_of(self._partition).read(self._position, 5_000)
            return records, self._position

    def _more(self) -> bool | None:
        self._broker.pass_time()
        return True if self._broker.log_of(self._partition).read(self._position, 1)[1] > self._position else None

    def close(self) -> None:
        """Close what was opened."""
