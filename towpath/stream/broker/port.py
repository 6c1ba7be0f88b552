"""What the stream asks of a broker: the port. `kafka.py` and `memory/` are its two sides.

The one rule: every call here blocks, and belongs to one thread at a time; `produce` alone may come from another one.
A conformance suite (`tests/conformance`) runs both sides against the same sentences.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from towpath.errors import ProgrammerError, RefusedError, WorldError
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition

UNKNOWN_END = -1
"""Of a log that is not the one that was read: where the two part cannot be told."""

NO_EPOCHS: Mapping[TopicPartition, int] = MappingProxyType({})
NO_NOTES: Mapping[TopicPartition, str] = MappingProxyType({})

Groups = dict[TopicPartition, list[ConsumedRecord]]
Delivered = Callable[[int], None]


class BrokerAway(WorldError):
    """The broker did not answer, or said that it cannot now: the same call may succeed later."""

    def __init__(
        self,
        cause: str,
        *,
        kept: str | None = None,
        next_step: str | None = "towpath status, or check [kafka] in towpath.toml",
    ) -> None:
        super().__init__(cause, kept=kept, next_step=next_step)


class TransactionAborted(WorldError):
    """The open transaction can only be aborted: its group generation is stale, or the broker refused a part of it."""


class OutputRefused(ProgrammerError):
    """A record that a unit wrote is not one that its topic takes: too large, say. It would be refused again."""


class RefusedEarlier(OutputRefused):
    """It is known of a record that the unit wrote before, of whichever: what was written last is not at fault."""


class OutcomeUnknown(WorldError):
    """The commit was sent and never answered: it may stand or not. A new producer finds out."""


class ProducerFenced(RefusedError):
    """Another producer with the same transactional id has begun since, or the broker ended this one's transaction."""


class MemberFenced(RefusedError):
    """Another live worker has taken this one's slot in the group (KIP-345); this one must stop."""


class MemberSpent(WorldError):
    """The client has stopped reading a partition whose position its log did not have: only another member can."""


class StaleMember(WorldError):
    """This consumer is no member of its group now: what it read may be someone else's."""


class GroupMetadata(NamedTuple):
    """Which member of which generation read a batch; `token` is the client's own form of it (KIP-447)."""

    group: str
    member: str
    generation: int
    token: object = None

    @property
    def is_member(self) -> bool:
        """Return False for the metadata that a broker would take without checking it."""
        return bool(self.member) and self.generation >= 0


class GroupMember(NamedTuple):
    """A member as its group knows it: who it says that it is, and from where it is connected."""

    id: str
    client_id: str
    host: str


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions that this member now owns, paused until `Member.resume`; `Member.seek` says first from where."""

    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Revoked:
    """Partitions that this member owns no more; `lost` if others may have owned them for a while already."""

    partitions: frozenset[TopicPartition]
    lost: bool = False


@dataclass(slots=True)
class Polled:
    """What one poll brought. `metadata` was taken in the same call, after the records."""

    groups: Groups = field(default_factory=dict)
    # Next offset of partitions that were read to their end, transaction markers included.
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    # Partitions whose next offset the log does not have: before its beginning, or beyond its end.
    unpositioned: set[TopicPartition] = field(default_factory=set)
    # Partitions whose log has lost what was read of it, though it may have grown past that since: where the log that
    # was read and this one part, UNKNOWN_END where nobody can say.
    truncated: dict[TopicPartition, int] = field(default_factory=dict)
    # Under which leader the last record of each partition was written (KIP-101).
    epochs: dict[TopicPartition, int] = field(default_factory=dict)
    changes: list[Assigned | Revoked] = field(default_factory=list)
    metadata: GroupMetadata | None = None
    records: int = 0


class Member(Protocol):
    """A consumer that is a member of a group. It reads committed records only, and commits nothing by itself."""

    def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group for `topics`."""
        ...

    def poll(self, records_max: int, timeout_seconds: float) -> Polled:
        """Wait for records or a rebalance, at most so long. Partitions change hands inside this call only."""
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Read nothing from `partitions` until they are resumed; membership goes on by polling."""
        ...

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read from `partitions` again."""
        ...

    def seek(self, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] = NO_EPOCHS) -> None:
        """Read on from these offsets.

        Of those that `epochs` has, the cluster is asked whether its log is still the one that was read up to there
        under that leader (KIP-320): where it is not, nothing is read, and a poll says so in `truncated`. Raises
        MemberSpent where this member had stopped reading one of them.
        """
        ...

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Return the group's offsets once no transaction is open over them. Raises BrokerAway."""
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit without a transaction, without waiting: for people who look at lag, not for correctness."""
        ...

    @property
    def notes(self) -> Mapping[TopicPartition, str]:
        """Return what is noted beside the offsets that `committed` last returned; the next commit removes a note."""
        ...

    @property
    def epochs(self) -> Mapping[TopicPartition, int]:
        """Return the leader epochs beside the offsets that `committed` last returned, where there are any."""
        ...

    def note(self, partition: TopicPartition, offset: int, text: str) -> None:
        """Commit an offset as it is, with a note beside it. Raises BrokerAway."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...

    def abandon(self) -> None:
        """Close the client without leaving: another member has this one's place. May block for ever; call it aside."""
        ...


class Producer(Protocol):
    """A producer whose every record belongs to a transaction."""

    def start(self) -> None:
        """Fence older producers of the same transactional id, and end what they left open. Raises BrokerAway."""
        ...

    def begin(self) -> None:
        """Begin a transaction."""
        ...

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
        """Add a record; by its key to a partition where none is named. `delivered` is told its offset."""
        ...

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        metadata: GroupMetadata | None,
        epochs: Mapping[TopicPartition, int] = NO_EPOCHS,
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        """Commit the transaction with the group's offsets, and what is known or noted beside them, or raise.

        TransactionAborted: it can only be aborted. OutcomeUnknown: it may stand. ProducerFenced: this producer is
        done for. Retries by itself, to a definite answer, for as long as the transaction can live.
        """
        ...

    def commit_for_group(
        self, group: str, offsets: Mapping[TopicPartition, int], *, notes: Mapping[TopicPartition, str] = NO_NOTES
    ) -> None:
        """Commit the transaction with offsets of a group of which nobody here is a member, unchecked by the broker.

        A person's decision, not a consumer's progress. Raises as `commit` does.
        """
        ...

    def abort(self) -> None:
        """End the transaction as if it had never been. Raises OutcomeUnknown or ProducerFenced."""
        ...

    def close(self) -> None:
        """Close the client without ending an open transaction."""
        ...


class PartitionReader(Protocol):
    """Reads one partition from an offset, committed records only, outside any group."""

    def poll(self, timeout_seconds: float) -> tuple[list[ConsumedRecord], int]:
        """Return further records, and the offset that reading has reached, markers and aborted records included."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


class Broker(Protocol):
    """A cluster."""

    def member(self, group: str, *, client_id: str, slot: str | None = None) -> Member:
        """Return a consumer for `group` that has not joined yet.

        With a `slot` it is a static member (KIP-345): one that was killed and comes back within its session has its
        partitions again at once.
        """
        ...

    def producer(self, transactional_id: str) -> Producer:
        """Return a producer that has not started yet."""
        ...

    def reader(self, partition: TopicPartition, offset: int) -> PartitionReader:
        """Return a reader of `partition` from `offset`."""
        ...

    def group_members(self, group: str) -> tuple[GroupMember, ...]:
        """Return those that the group has as members. Raises BrokerAway."""
        ...

    def group_offsets(
        self, group: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Return what the group has committed, for all or for these, stable or not. Raises BrokerAway."""
        ...

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return how many partitions each topic has; a topic that does not exist is left out."""
        ...

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the id that tells a topic from a later one of the same name."""
        ...

    def topic_config(self, topic: str) -> Mapping[str, str]:
        """Return a topic's configuration."""
        ...

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the high watermarks: records of open transactions count."""
        ...

    def leader_epochs(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return under which leader each log is written now (KIP-101), -1 where that is not told."""
        ...

    def begin_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offsets of the oldest records that are still there."""
        ...

    def offsets_at(self, partitions: Iterable[TopicPartition], milliseconds: int) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record of this time or later, its end where there is none.

        Records before it are older; among those behind it may be older ones, too.
        """
        ...
