"""Reads whole topics: all that was committed when the reading began."""

from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from towpath.errors import WorldError
from towpath.settings import Settings
from towpath.stream.record import ConsumedRecord

TIMEOUT_SECONDS = 30.0
BATCH_RECORDS = 10_000


def read_topics(settings: Settings, topics: Iterable[str]) -> list[ConsumedRecord]:
    """Return the committed records of `topics`, each partition's in order. Raises WorldError where Kafka is away."""
    consumer = Consumer(
        {
            **settings.kafka.client_config(),
            "group.id": f"{settings.project.name}-demo-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "queued.min.messages": 100_000,
        }
    )
    records: list[ConsumedRecord] = []
    try:
        known = consumer.list_topics(timeout=TIMEOUT_SECONDS).topics
        reading = {(topic, partition) for topic in set(topics) & set(known) for partition in known[topic].partitions}
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in reading])
        while reading:
            # `consume` alone would wait out its time for a whole batch.
            first = consumer.poll(TIMEOUT_SECONDS)
            if first is None:
                raise WorldError(f"Kafka sent nothing for {TIMEOUT_SECONDS:.0f} s", next_step="towpath status")
            for message in (first, *consumer.consume(BATCH_RECORDS, 0)):
                error = message.error()
                if error is None:
                    records.append(_record(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading.discard((message.topic(), message.partition()))
                else:
                    raise KafkaException(error)
    except KafkaException as error:
        raise WorldError(f"Kafka: {error.args[0].str()}", next_step="towpath status") from error
    finally:
        consumer.close()
    records.sort(key=lambda record: (record.topic, record.partition, record.offset))
    return records


def _record(message: Any) -> ConsumedRecord:
    return ConsumedRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
    )
