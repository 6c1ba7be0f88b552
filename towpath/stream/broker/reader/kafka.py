"""Reads one partition of a real cluster by itself: changelogs, dead letters, whatever a person looks at."""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as RdTopicPartition

from towpath.stream.broker.admin.kafka import quiet
from towpath.stream.broker.record import ConsumedRecord, TopicPartition


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
        records: list[ConsumedRecord] = []
        fetched: list[Any] = [first, *self._consumer.consume(5_000, 0)]
        # Written out, since a catch-up and a replay are bound by it: of one partition, name and number are known.
        topic, number = self._partition
        for message in fetched:
            error = message.error()
            if error is None:
                headers = message.headers()
                records.append(
                    ConsumedRecord(
                        topic,
                        number,
                        message.offset(),
                        message.timestamp()[1],
                        message.key(),
                        message.value(),
                        tuple(headers) if headers else (),
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                self._position = max(self._position, message.offset())
            elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._AUTO_OFFSET_RESET) or error.fatal():
                raise KafkaException(error)
        if records:
            self._position = max(self._position, records[-1].offset + 1)
        return records, self._position

    def close(self) -> None:
        """Close what was opened."""
        self._consumer.close()
