"""The broker port on librdkafka. Only this file of the room touches confluent_kafka.

The one rule: librdkafka is asked, never guessed about. What it says of a failed call (fatal, abort, retry) decides
which error of `broker.py` is raised; what it calls none of these is raised as it is, and ends the worker.
"""

import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import Producer as RdProducer
from confluent_kafka import TopicPartition as RdTopicPartition

from towpath.clock import Clock, SystemClock
from towpath.contract.kafka import read_to_end
from towpath.errors import ConfigurationError, TowpathError
from towpath.settings import KafkaSettings, Settings, StreamSettings
from towpath.stream.broker.admin.kafka import ADMIN_TIMEOUT_SECONDS, KafkaAdmin, kafka_away, kafka_error, quiet
from towpath.stream.broker.bounded_call import BoundedCaller
from towpath.stream.broker.port import (
    NO_EPOCHS,
    NO_NOTES,
    Assigned,
    BrokerAway,
    Delivered,
    GroupMetadata,
    MemberFenced,
    MemberSpent,
    OutcomeUnknown,
    OutputRefused,
    Polled,
    ProducerFenced,
    Revoked,
    StaleMember,
    TransactionAborted,
)
from towpath.stream.broker.reader.kafka import KafkaReader, consumed, epoch_of
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.broker.refused_settings import refused_setting

log = structlog.get_logger("towpath.stream.broker.kafka")

CLOCK: Clock = SystemClock()
"""Of deadlines for calls into librdkafka, which itself knows no time but the machine's."""
SEEK_TIMEOUT_SECONDS = 10.0
LEAVE_SECONDS_MAX = 1.0
OVERDUE_SECONDS = 1.0
"""How long after its own time-out a call is believed to be lost."""
BATCH_BYTES = 1_000_000
LINGER_MILLISECONDS = 50
"""How long a transaction's records wait for company: long units are sent while they are worked on, in few requests."""
PRODUCER_QUEUE_RECORDS = 1_000_000
CONSUMER_QUEUE_KIBIBYTES = 32 * 1024
"""Read ahead, for each member. librdkafka's default is 64 MiB; at 200 bytes a record this is 160,000 of them."""

METADATA_REFRESH_MILLISECONDS = 10_000
"""How often a member looks which partitions its topics have; librdkafka's default is 5 minutes. For so long what lies
in a new partition was unread, so that sagas' attempts ran out, and keys that had moved to another number were served
without their state. Producers look every 5 minutes: of them, few are ahead of it. A look is one small request."""

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""What the broker, or the client before it, says of a record and not of itself: the same record meets it again."""
_FENCED_WORD = "fenced"
"""librdkafka tells a consumer's fatal error by one code, and which it was in words only."""
_UNPOSITIONED = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET}
)
_BROKER_END = re.compile(r"broker end offset is (-?\d+)")
"""librdkafka tells that a log was cut off, and where, in words only; UNKNOWN_END where the broker does not know."""
_STALE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)


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


def producer_config(
    client: Mapping[str, str], settings: StreamSettings, transactional_id: str, limits: RecordLimits
) -> dict[str, Any]:
    """Return the configuration of a transactional producer, in librdkafka's names."""
    timeout_milliseconds = int(settings.transaction_timeout_seconds * 1000)
    return {
        **client,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_milliseconds,
        "message.timeout.ms": timeout_milliseconds,
        # Nobody may read a record before its transaction's end, which sends at once what still waits: the wait is
        # free. Without it each few records of a large unit are a request, a third of the broker's time a saga.
        "linger.ms": LINGER_MILLISECONDS,
        # Its default, 1,000,000, is less than a topic's: what a topic took could not be written again.
        "message.max.bytes": limits.greatest,
        # Of several records together; a topic refuses the whole batch, and the client does not cut it.
        "batch.size": min(BATCH_BYTES, limits.least),
        # librdkafka's own default partitioner is not Java's: what Debezium wrote would lie in other partitions.
        "partitioner": "murmur2_random",
        # The default, 100 ms, makes every second small transaction wait: 2,000/s against 11,000/s at batches of 50.
        "retry.backoff.ms": 2,
        "retry.backoff.max.ms": 10,
        "queue.buffering.max.messages": PRODUCER_QUEUE_RECORDS,
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
                    self._consumer.seek(_place(partition, offset, epochs.get(partition)))
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
            place = _place(partition, offset, self.epochs.get(partition), text)
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


def _place(partition: TopicPartition, offset: int, epoch: int | None, note: str | None = None) -> RdTopicPartition:
    said: dict[str, Any] = {} if note is None else {"metadata": note}
    if epoch is not None and epoch >= 0:
        said["leader_epoch"] = epoch
    return RdTopicPartition(*partition, offset, **said)


def _produce_options(
    headers: Headers, timestamp_milliseconds: int | None, delivered: Delivered | None
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if headers:
        options["headers"] = list(headers)
    if timestamp_milliseconds is not None:
        options["timestamp"] = timestamp_milliseconds
    if delivered is not None:
        options["on_delivery"] = partial(_tell_offset, delivered)
    return options


def _tell_offset(delivered: Delivered, error: KafkaError | None, message: Message) -> None:
    """Tell where a record lies; of one that was sent twice the broker says only that it has it."""
    offset = message.offset()
    if error is None and offset is not None and offset >= 0:
        delivered(offset)


class KafkaProducer:
    """A transactional producer on librdkafka."""

    def __init__(self, config: Mapping[str, Any], *, call_seconds_max: float, is_answered: Callable[[], bool]) -> None:
        self._is_answered = is_answered
        self.transactional_id = str(config["transactional.id"])
        self._call_seconds_max = call_seconds_max
        self._caller = BoundedCaller(self.transactional_id)
        self._config = quiet(config)
        self._producer = RdProducer(self._config)
        self._refused = False

    def start(self) -> None:
        """Fence the ghosts of this transactional id."""
        self._insist(self._producer.init_transactions, BrokerAway, lost=BrokerAway)

    def begin(self) -> None:
        """Begin a transaction; a local step."""
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._translate(error, TransactionAborted) from error

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
        place = -1 if partition is None else partition
        options: dict[str, Any] = {}
        if headers or timestamp_milliseconds is not None or delivered is not None:
            options = _produce_options(headers, timestamp_milliseconds, delivered)
        while True:
            try:
                self._producer.produce(topic, value, key, place, **options)
                return
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                raise self._translate(error, TransactionAborted) from error

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        metadata: GroupMetadata | None,
        epochs: Mapping[TopicPartition, int] = NO_EPOCHS,
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        """Send the offsets into the transaction and commit it, to a definite answer."""
        if offsets:
            if metadata is None or not metadata.is_member:
                raise StaleMember("this consumer is no member of its group: its offsets would be taken unchecked")
            self._send_offsets(offsets, metadata.token, epochs, notes)
        self._insist(self._producer.commit_transaction, OutcomeUnknown)

    def commit_for_group(
        self,
        group: str,
        offsets: Mapping[TopicPartition, int],
        epochs: Mapping[TopicPartition, int] = NO_EPOCHS,
        *,
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        """Commit with offsets of a group, as nobody of generation -1: those the broker takes unchecked."""
        self._send_offsets(offsets, b"CGMDv2:\xff\xff\xff\xff" + group.encode() + b"\x00\x00\x01", epochs, notes)
        self._insist(self._producer.commit_transaction, OutcomeUnknown)

    def _send_offsets(
        self,
        offsets: Mapping[TopicPartition, int],
        token: Any,
        epochs: Mapping[TopicPartition, int],
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        places = [_place(place, offset, epochs.get(place), notes.get(place)) for place, offset in offsets.items()]
        self._insist(
            lambda seconds: self._producer.send_offsets_to_transaction(places, token, seconds), TransactionAborted
        )

    def abort(self) -> None:
        """Abort the transaction."""
        self._insist(self._producer.abort_transaction, OutcomeUnknown)
        if self._refused:
            # After a record that the broker refused, librdkafka goes on behind its sequence number, and the next
            # transaction to that partition fails, too ("skipped sequence numbers"): a new client counts anew.
            self._producer = RdProducer(self._config)
            self._insist(self._producer.init_transactions, OutcomeUnknown)
            self._refused = False

    def _insist(
        self,
        call: Callable[[float], Any],
        unanswered: type[Exception],
        *,
        lost: type[TowpathError] = OutcomeUnknown,
    ) -> None:
        deadline = CLOCK.monotonic_seconds() + self._call_seconds_max
        while True:
            left = max(deadline - CLOCK.monotonic_seconds(), 0.1)
            try:
                self._caller.call(partial(call, left), left + OVERDUE_SECONDS, self._is_answered)
                return
            except TimeoutError as error:
                # Nobody but a new producer of the same id can say now what became of the transaction.
                raise lost(f"{self.transactional_id}: the client did not come back") from error
            except KafkaException as error:
                cause = kafka_error(error)
                if cause.retriable() and CLOCK.monotonic_seconds() < deadline:
                    continue
                raise self._translate(error, unanswered) from error

    def _translate(self, error: KafkaException, otherwise: type[Exception]) -> Exception:
        cause = kafka_error(error)
        text = f"{self.transactional_id}: {cause.str()}"
        refused = refused_setting(f"transactional id {self.transactional_id}", cause.name(), cause.str())
        if refused is not None:
            return refused
        if cause.code() in _FENCED:
            return ProducerFenced(text, next_step="see whether another live worker has the same slot")
        if cause.code() in _REFUSED:
            self._refused = True
            return OutputRefused(
                f"{text}: a record of this unit of work is refused",
                kept="nothing of this unit of work",
                next_step="write what the topic takes; what that is: schemas/topics, and towpath contracts test",
            )
        if cause.code() == KafkaError.INVALID_TXN_STATE:
            # The coordinator has ended it the other way: an abort after a commit whose answer was lost, say.
            return OutcomeUnknown(text)
        if cause.txn_requires_abort():
            return (StaleMember if cause.code() in _STALE else TransactionAborted)(text)
        passes = cause.retriable() or cause.code() == KafkaError._TIMED_OUT
        return error if cause.fatal() and not passes else otherwise(text)

    def close(self) -> None:
        """Drop what was not sent; an open transaction ends by its time-out, or when the next producer starts."""
        self._caller.close()
        with suppress(KafkaException):  # a fenced producer repeats here that it is fenced
            self._producer.purge()
            self._producer.flush(0)


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
