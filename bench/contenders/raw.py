"""The raw librdkafka loop: poll, produce, commit in one transaction. What a Python framework is held against."""

import json
import signal
import sys
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition


def main(told: dict[str, Any]) -> None:
    """Run until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    consumer = Consumer(
        {
            "bootstrap.servers": told["servers"],
            "group.id": f"bench-{told['tag']}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": told["servers"],
            "transactional.id": f"bench-{told['tag']}",
            "linger.ms": 0,
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 10,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions()
    consumer.subscribe([told["in"]])
    out, batch = told["out"], told["batch"]
    counts: dict[bytes, int] = {}
    while True:
        first: Any = consumer.poll(0.2)
        if first is None:
            continue
        messages: list[Any] = [first, *consumer.consume(batch - 1, 0)]
        producer.begin_transaction()
        offsets: dict[tuple[str, int], int] = {}
        for message in messages:
            key, value = message.key(), message.value()
            offsets[message.topic(), message.partition()] = message.offset() + 1
            producer.produce(out, value, key)
            if told["with_state"]:
                counts[key] = counts.get(key, 0) + 1
                producer.produce(told["state"], b"%d" % counts[key], key, message.partition())
        producer.send_offsets_to_transaction(
            [TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()],
            consumer.consumer_group_metadata(),
        )
        producer.commit_transaction()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
