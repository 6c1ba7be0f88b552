"""A transactional producer on librdkafka.

The one rule: only what the broker itself has acknowledged is committed. Where a batch fails and a later one of its
partition is written, librdkafka reports the first as delivered, without an offset: a broker that counts a producer's
batches would have refused the later one. A broker that has nothing yet of a producer takes any number. So it was seen
to lose the first batch to a partition, told that this broker is "not leader" (it had just started), and to commit.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as RdProducer
from confluent_kafka import TopicPartition as RdTopicPartition

from towpath.clock import Clock, SystemClock, wait_until
from towpath.errors import TowpathError
from towpath.settings import StreamSettings
from towpath.stream.broker.admin.kafka import kafka_error, quiet
from towpath.stream.broker.bounded_call import BoundedCaller
from towpath.stream.broker.port import (
    NO_EPOCHS,
    NO_NOTES,
    BrokerAway,
    Delivered,
    GroupMetadata,
    OutcomeUnknown,
    OutputRefused,
    ProducerFenced,
    RefusedEarlier,
    StaleMember,
    TransactionAborted,
)
from towpath.stream.broker.record import Headers, TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.broker.refused_settings import refused_setting

CLOCK: Clock = SystemClock()
"""Of deadlines for calls into librdkafka, which itself knows no time but the machine's."""
OVERDUE_SECONDS = 1.0
"""How long after its own time-out a call is believed to be lost."""
BATCH_BYTES = 1_000_000
LINGER_MILLISECONDS = 50
"""How long a transaction's records wait for company: long units are sent while they are worked on, in few requests."""
PRODUCER_QUEUE_RECORDS = 1_000_000
REPORT_SECONDS = 0.05
"""How long the report may take of what a transaction has failed with: it is under way when the client says that."""
REPORT_PAUSE_SECONDS = 0.002
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
_STALE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)


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


def place_of(partition: TopicPartition, offset: int, epoch: int | None, note: str | None = None) -> RdTopicPartition:
    """Return a position in the client's form, with the leader's epoch and a note where there are any."""
    said: dict[str, Any] = {} if note is None else {"metadata": note}
    if epoch is not None and epoch >= 0:
        said["leader_epoch"] = epoch
    return RdTopicPartition(*partition, offset, **said)


class KafkaProducer:
    """A transactional producer on librdkafka."""

    def __init__(self, config: Mapping[str, Any], *, call_seconds_max: float, is_answered: Callable[[], bool]) -> None:
        self._is_answered = is_answered
        self.transactional_id = str(config["transactional.id"])
        self._call_seconds_max = call_seconds_max
        self._caller = BoundedCaller(self.transactional_id)
        self._config = quiet(config)
        self._producer = RdProducer(self._config)
        self._refusal: KafkaError | None = None
        self._inferred: str | None = None

    def start(self) -> None:
        """Fence the ghosts of this transactional id."""
        self._insist(self._producer.init_transactions, BrokerAway, lost=BrokerAway)

    def begin(self) -> None:
        """Begin a transaction; a local step."""
        self._inferred = None
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
        report = self._report if delivered is None else partial(self._report, delivered=delivered)
        options: dict[str, Any] = {"on_delivery": report}
        if headers:
            options["headers"] = list(headers)
        if timestamp_milliseconds is not None:
            options["timestamp"] = timestamp_milliseconds
        while True:
            try:
                self._producer.produce(topic, value, key, place, **options)
                return
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                if kafka_error(error).code() == KafkaError._STATE:
                    refusal = wait_until(
                        CLOCK, self._read_refusal, seconds=REPORT_SECONDS, every_seconds=REPORT_PAUSE_SECONDS
                    )
                    if refusal is not None:
                        raise self._output_refused(refusal, RefusedEarlier) from error
                raise self._translate(error, TransactionAborted) from error

    def _read_refusal(self) -> KafkaError | None:
        """Read the reports that are there, in which a refusal comes behind others; return what was refused, if any."""
        self._producer.poll(0)
        return self._refusal

    def _report(self, error: KafkaError | None, message: Message, delivered: Delivered | None = None) -> None:
        if error is not None:  # the transaction has failed with it
            self._refusal = error if error.code() in _REFUSED else self._refusal
            return
        offset = message.offset()
        if offset is None or offset < 0:
            self._inferred = f"{message.topic()}[{message.partition()}]"
        elif delivered is not None:
            delivered(offset)

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
        self._insist(self._commit_acknowledged, OutcomeUnknown)

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
        self._insist(self._commit_acknowledged, OutcomeUnknown)

    def _commit_acknowledged(self, seconds: float) -> None:
        """Commit once the reports of all records are there. Raises TransactionAborted where one is no broker's word."""
        deadline = CLOCK.monotonic_seconds() + seconds
        if left := self._producer.flush(seconds):
            raise TransactionAborted(f"{self.transactional_id}: {left} records were not acknowledged in time")
        if self._inferred is not None:
            raise TransactionAborted(
                f"{self.transactional_id}: the broker did not say that it has all of {self._inferred}"
            )
        self._producer.commit_transaction(max(deadline - CLOCK.monotonic_seconds(), 0.1))

    def _send_offsets(
        self,
        offsets: Mapping[TopicPartition, int],
        token: Any,
        epochs: Mapping[TopicPartition, int],
        notes: Mapping[TopicPartition, str] = NO_NOTES,
    ) -> None:
        places = [place_of(place, offset, epochs.get(place), notes.get(place)) for place, offset in offsets.items()]
        self._insist(
            lambda seconds: self._producer.send_offsets_to_transaction(places, token, seconds), TransactionAborted
        )

    def abort(self) -> None:
        """Abort the transaction."""
        self._insist(self._producer.abort_transaction, OutcomeUnknown)
        if self._refusal is not None:
            # After a record that the broker refused, librdkafka goes on behind its sequence number, and the next
            # transaction to that partition fails, too ("skipped sequence numbers"): a new client counts anew.
            self._producer = RdProducer(self._config)
            self._insist(self._producer.init_transactions, OutcomeUnknown)
            self._refusal = None

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
            self._refusal = cause
            return self._output_refused(cause)
        if cause.code() == KafkaError.INVALID_TXN_STATE:
            # The coordinator has ended it the other way: an abort after a commit whose answer was lost, say.
            return OutcomeUnknown(text)
        if cause.txn_requires_abort():
            return (StaleMember if cause.code() in _STALE else TransactionAborted)(text)
        passes = cause.retriable() or cause.code() == KafkaError._TIMED_OUT
        return error if cause.fatal() and not passes else otherwise(text)

    def _output_refused(self, cause: KafkaError, kind: type[OutputRefused] = OutputRefused) -> OutputRefused:
        return kind(
            f"{self.transactional_id}: {cause.str()}: a record of this unit of work is refused",
            kept="nothing of this unit of work",
            next_step="write what the topic takes; what that is: schemas/topics, and towpath contracts test",
        )

    def close(self) -> None:
        """Drop what was not sent; an open transaction ends by its time-out, or when the next producer starts."""
        self._caller.close()
        with suppress(KafkaException):  # a fenced producer repeats here that it is fenced
            self._producer.purge()
            self._producer.flush(0)
