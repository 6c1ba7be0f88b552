"""The broker port on librdkafka. Only the files of this name touch confluent_kafka.

The one rule: librdkafka is asked, never guessed about. What it says of a failed call (fatal, abort, retry) decides
which error of `broker.py` is raised; what it calls none of these is raised as it is, and ends the worker.
"""

import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as RdTopicPartition

from towpath.clock import Clock, SystemClock
from towpath.contract.kafka import read_to_end
from towpath.errors import ConfigurationError
from towpath.settings import KafkaSettings, Settings, StreamSettings
from towpath.stream.broker.admin.kafka import ADMIN_TIMEOUT_SECONDS, KafkaAdmin, kafka_away, kafka_error, quiet
from towpath.stream.broker.port import (
    NO_EPOCHS,
    Assigned,
    GroupMetadata,
    MemberFenced,
    MemberSpent,
    Polled,
    Revoked,
)
from towpath.stream.broker.producer.kafka import KafkaProducer, place_of, producer_config
from towpath.stream.broker.reader.kafka import KafkaReader, consumed, epoch_of
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.broker.refused_settings import refused_setting

log = structlog.get_logger("towpath.stream.broker.kafka")

CLOCK: Clock = SystemClock()
"""Of deadlines for calls into librdkafka, which itself knows no time but the machine's."""
SEEK_TIMEOUT_SECONDS = 10.0
LEAVE_SECONDS_MAX = 1.0
CONSUMER_QUEUE_KIBIBYTES = 32 * 1024
"""Read ahead, for each member. librdkafka's default is 64 MiB; at 200 bytes a record this is 160,000 of them."""

METADATA_REFRESH_MILLISECONDS = 10_000
"""How often a member looks which partitions its topics have; librdkafka's default is 5 minutes. For so long what lies
in a new partition was unread, so that sagas' attempts ran out, and keys that had moved to another number were served
without their state. Producers look every 5 minutes: of them, few are ahead of it. A look is one small request."""

_FENCED_WORD = "fenced"
"""librdkafka tells a consumer's fatal error by one code, and which it was in words only."""
_UNPOSITIONED = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET}
)
_BROKER_END = re.compile(r"broker end offset is (-?\d+)")
"""librdkafka tells that a log was cut off, and where, in words only; UNKNOWN_END where the broker does not know."""


def read_group_metadata(token: bytes) -> GroupMetadata:
    """Return what librdkafka's serialised group metadata holds.

    Its form (rd_kafka_consumer_group_metadata_write): `CGMDv2:`, generation as a 32-bit little-endian integer, group
    and member each ended by a zero byte. Raises ValueError for any other form, rather than trusting it unread.
    """
    head, body = token[:7], token[7:]
    if head != b"CGMDv2:" or body.count(0, 4) < 2:
        raise ValueError(f"librdkafka's group metadata has a form that this version does not know: {head!r}")
    (generation,) = struct.unpack_from("<i", body)
    group, member, _ = body[4:].split(b"\0", 2)
    return GroupMetadata(group.decode(), member.decode(), generation, token)


def consumer_config(client: Mapping[str, str], settings: StreamSettings) -> dict[str, Any]:
    """Return the configuration of a group's member, in librdkafka's names."""
    config: dict[str, Any] = {
        **client,
        # Where the log has not what is to be read next, the loop finds out why; librdkafka would go on elsewhere.
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        # Tells where a partition ends, transaction markers included: timers and catch-up need to know.
        "enable.partition.eof": True,
        "fetch.wait.max.ms": settings.fetch_wait_milliseconds,
        # The default, 1,000 ms, stalls the fetcher whenever its queue was full: 23,000/s against 142,000/s.
        "fetch.queue.backoff.ms": 5,
        "queued.min.messages": 100_000,
        "queued.max.messages.kbytes": CONSUMER_QUEUE_KIBIBYTES,
        "max.poll.interval.ms": int(settings.poll_interval_seconds_max * 1000),
        "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MILLISECONDS,
    }
    if settings.group_protocol == "consumer":
        return {**config, "group.protocol": "consumer", "group.remote.assignor": "range"}
    return {
        **config,
        # Range alone gives partition p of every topic to the same member: round robin and sticky do not.
        "partition.assignment.strategy": "range",
        "session.timeout.ms": int(settings.session_timeout_seconds * 1000),
        "heartbeat.interval.ms": int(settings.session_timeout_seconds * 1000 / 4),
    }


class KafkaMember:
    """A group's member on librdkafka. Every call belongs to the same thread, rebalance callbacks included."""

    def __init__(self, config: Mapping[str, Any], *, incremental: bool) -> None:
        self._incremental = incremental
        self._polled = Polled()
        self._known: dict[tuple[str, int], TopicPartition] = {}
        self._subscribed = False
        # Of these librdkafka has ended the fetcher, which no seek begins again.
        self._stopped: set[TopicPartition] = set()
        self.notes: dict[TopicPartition, str] = {}
        self.epochs: dict[TopicPartition, int] = {}
        self._config = config
        self._group = str(config.get("group.id", ""))
        self._consumer = Consumer(quiet(config))

    def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group for `topics`."""
        self._subscribed = True
        self._consumer.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, records_max: int, timeout_seconds: float) -> Polled:
        """Wait for the first record or event, then take what has been read ahead, without waiting again."""
        polled = self._polled = Polled()
        first = self._consumer.poll(timeout_seconds)
        if first is None:
            messages: list[Any] = []
        elif records_max > 1:
            messages = [first, *self._consumer.consume(records_max - 1, 0)]
        else:
            messages = [first]
        self._sort(messages, polled)
        # Taken with the batch: after a rebalance the same call would give the new generation to stale work.
        polled.metadata = read_group_metadata(self._consumer.consumer_group_metadata())
        return polled

    def _sort(self, messages: list[Any], polled: Polled) -> None:
        groups = polled.groups
        known = self._known
        before: TopicPartition | None = None
        last: Any = None
        for message in messages:
            if message.error() is not None:
                self._note(message, polled)
                continue
            place = (message.topic(), message.partition())
            partition = known.get(place) or known.setdefault(place, TopicPartition(*place))
            if before is not None and before is not partition:  # they come partition by partition, mostly
                polled.epochs[before] = epoch_of(last)
            before, last = partition, message
            records = groups.get(partition)
            if records is None:
                records = groups[partition] = []
            headers = message.headers()
            records.append(
                ConsumedRecord(
                    partition.topic,
                    partition.partition,
                    message.offset(),
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    tuple(headers) if headers else (),
                )
            )
        if before is not None:
            polled.epochs[before] = epoch_of(last)
        polled.records = sum(map(len, groups.values()))
        for partition, records in groups.items():
            if polled.ends.get(partition, -1) <= records[-1].offset:
                polled.ends.pop(partition, None)

    def _note(self, message: Any, polled: Polled) -> None:
        error = message.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            polled.ends[TopicPartition(message.topic(), message.partition())] = message.offset()
        elif code in _UNPOSITIONED:
            partition, end = TopicPartition(message.topic(), message.partition()), _BROKER_END.search(error.str())
            self._stopped.add(partition)
            if end is not None:
                polled.truncated[partition] = int(end[1])
            else:
                polled.unpositioned.add(partition)
        elif (refused := refused_setting(f"group {self._group}", error.name(), error.str())) is not None:
            raise refused
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise ConfigurationError(
                f"topic {message.topic()}: {error.str()}", next_step="create the topic, or fix its access rights"
            )
        elif code == KafkaError.FENCED_INSTANCE_ID or (code == KafkaError._FATAL and _FENCED_WORD in error.str()):
            raise MemberFenced(error.str(), next_step="see whether another live worker has the same slot")
        elif error.fatal() or code == KafkaError._FATAL:
            raise KafkaException(error)
        else:
            log.warning("consumer", reason=error.name(), detail=error.str(), topic=message.topic())

    def _on_assign(self, consumer: Consumer, partitions: list[RdTopicPartition]) -> None:
        self._stopped.clear()
        # The loop seeks before it resumes; with an offset of some kind nobody waits for the group's own.
        for partition in partitions:
            partition.offset = 0
        if self._incremental:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)
        # Nothing is served before stores have caught up and positions are known.
        consumer.pause(partitions)
        self._polled.changes.append(Assigned(frozenset(TopicPartition(p.topic, p.partition) for p in partitions)))

    def _on_revoke(self, consumer: Consumer, partitions: list[RdTopicPartition]) -> None:
        self._give_up(consumer, partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[RdTopicPartition]) -> None:
        self._give_up(consumer, partitions, lost=True)

    def _give_up(self, consumer: Consumer, partitions: list[RdTopicPartition], *, lost: bool) -> None:
        if self._incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()
        self._polled.changes.append(Revoked(frozenset(TopicPartition(p.topic, p.partition) for p in partitions), lost))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Read nothing from `partitions` until they are resumed."""
        self._consumer.pause([RdTopicPartition(*partition) for partition in partitions])

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read from `partitions` again."""
        self._consumer.resume([RdTopicPartition(*partition) for partition in partitions])

    def seek(self, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] = NO_EPOCHS) -> None:
        """Read on from these offsets. A partition that was just assigned takes a moment before it can be sought."""
        deadline = CLOCK.monotonic_seconds() + SEEK_TIMEOUT_SECONDS
        for partition, offset in positions.items():
            if partition in self._stopped:
                raise MemberSpent(f"{partition}: its position was not in the log, and the client reads it no more")
            while True:
                try:
                    self._consumer.seek(place_of(partition, offset, epochs.get(partition)))
                    break
                except KafkaException as error:
                    if kafka_error(error).code() != KafkaError._STATE or CLOCK.monotonic_seconds() > deadline:
                        what = f"cannot be read from {offset} of {partition} on"
                        raise kafka_away(self._config, what, kafka_error(error)) from error
                    CLOCK.sleep(0.005)

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Return the group's offsets; under read committed librdkafka asks for stable ones (KIP-447)."""
        wanted = [RdTopicPartition(*partition) for partition in partitions]
        try:
            found = self._consumer.committed(wanted, timeout=ADMIN_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise kafka_away(self._config, f"does not tell the offsets of {self._group}", kafka_error(error)) from error
        for entry in found:
            if entry.error is not None:
                what = f"does not tell the offset of {self._group} in {entry.topic}[{entry.partition}]"
                raise kafka_away(self._config, what, entry.error)
        self.notes = {TopicPartition(p.topic, p.partition): p.metadata or "" for p in found}
        known = {TopicPartition(p.topic, p.partition): p.leader_epoch for p in found}
        self.epochs = {partition: epoch for partition, epoch in known.items() if epoch is not None and epoch >= 0}
        return {TopicPartition(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in found}

    def note(self, partition: TopicPartition, offset: int, text: str) -> None:
        """Commit an offset as it is, with a note beside it."""
        try:
            place = place_of(partition, offset, self.epochs.get(partition), text)
            self._consumer.commit(offsets=[place], asynchronous=False)
        except KafkaException as error:
            raise kafka_away(self._config, f"takes no note beside {partition}", kafka_error(error)) from error

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit without waiting for the answer."""
        try:
            self._consumer.commit(
                offsets=[RdTopicPartition(*partition, offset) for partition, offset in offsets.items()],
                asynchronous=True,
            )
        except KafkaException as error:
            log.info("offsets for display were not committed", reason=str(kafka_error(error)))

    def close(self) -> None:
        """Leave the group, so that others take over at once.

        A static member only goes silent when it is closed (KIP-345), but leaves when it subscribes to nothing.
        """
        if self._subscribed:
            self._polled = Polled()
            self._consumer.unsubscribe()
            deadline = CLOCK.monotonic_seconds() + LEAVE_SECONDS_MAX
            while not self._polled.changes and CLOCK.monotonic_seconds() < deadline:
                self._consumer.poll(0.05)
        self._consumer.close()

    def abandon(self) -> None:
        """Close the client: the member that has this one's place fences it, should it ever come back."""
        self._consumer.close()


def read_records(
    settings: Settings,
    topics: Iterable[str],
    since: datetime | None = None,
    partitions: Collection[int] | None = None,
) -> Iterator[ConsumedRecord]:
    """Yield the committed records of `topics`, from `since` on to their end, each partition's in order.

    `partitions` are the numbers of those that are read, None all of them. See `read_to_end`, which says what it raises.
    """
    return (consumed(message) for message in read_to_end(settings, topics, since, partitions=partitions))


class KafkaBroker(KafkaAdmin):
    """A real cluster."""

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings, limits: RecordLimits | None = None) -> None:
        """`limits` are the topics' own, where they differ from Kafka's default."""
        super().__init__(kafka.client_config())
        self._limits = limits or RecordLimits()
        self._settings = stream

    def member(self, group: str, *, client_id: str, slot: str | None = None) -> KafkaMember:
        """Return a consumer for `group` that has not joined yet."""
        config = consumer_config(self._client, self._settings)
        # Of the new protocol (KIP-848) a static member cannot leave for good: others would wait for its session's end.
        if slot is not None and self._settings.group_protocol == "classic":
            config["group.instance.id"] = slot
        return KafkaMember(
            {**config, "group.id": group, "client.id": client_id},
            incremental=self._settings.group_protocol == "consumer",
        )

    def producer(self, transactional_id: str) -> KafkaProducer:
        """Return a producer that has not started yet."""
        config = producer_config(self._client, self._settings, transactional_id, self._limits)
        # Twice: when an answer has been outstanding for longer, the coordinator has long ended the transaction.
        return KafkaProducer(
            config,
            call_seconds_max=2 * self._settings.transaction_timeout_seconds,
            is_answered=self.is_answered,
        )

    def reader(self, partition: TopicPartition, offset: int) -> KafkaReader:
        """Return a reader of `partition` from `offset`."""
        config = {
            **self._client,
            "group.id": "towpath-reader",  # librdkafka wants one; nothing joins it and nothing is committed to it
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": self._settings.fetch_wait_milliseconds,
            "fetch.queue.backoff.ms": 5,
        }
        return KafkaReader(config, partition, offset)
