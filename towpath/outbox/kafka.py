"""Hands messages over to Kafka that are committed in an outbox. Only this file of the room touches confluent_kafka."""

import threading
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from towpath import metrics
from towpath.clock import Clock, SystemClock
from towpath.outbox.handover import Allowance, direct_record
from towpath.outbox.message import OutboxMessage
from towpath.settings import KafkaSettings

log = structlog.get_logger("towpath.outbox.kafka")

DELIVERY_MILLISECONDS = 5_000
"""How long a message is tried: after that Debezium has long brought it."""
QUEUE_RECORDS_MAX = 1_000
OFF_SECONDS = 60.0
"""How long nothing is handed over after a message was not taken: no leave to write there, or no broker."""


class KafkaHandover:
    """A producer of its own, made with the first message. Safe to share between threads."""

    def __init__(self, kafka: KafkaSettings, *, per_second: float, name: str, clock: Clock | None = None) -> None:
        """Hand over at most `per_second` messages a second; `name` tells the client in the broker's logs."""
        self._kafka = kafka
        self._name = name
        self._clock = clock or SystemClock()
        self._allowance = Allowance(per_second)
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._off_until_seconds = 0.0
        self._count = metrics.HANDED_OVER.labels(name)

    def hand_over(self, messages: tuple[OutboxMessage, ...]) -> int:
        """Send messages whose transaction is committed, unless under load; return how many were sent. Never raises."""
        with self._lock:
            now_seconds = self._clock.monotonic_seconds()
            if self._producer is not None:
                self._producer.poll(0)  # hears what became of earlier ones
            if not messages or now_seconds < self._off_until_seconds:
                return 0
            if not self._allowance.take(len(messages), now_seconds):
                return 0
            try:
                return self._send(messages)
            except (KafkaException, BufferError) as error:
                log.info("hand-over failed; capture brings the messages", messages=len(messages), reason=str(error))
                return 0

    def _send(self, messages: tuple[OutboxMessage, ...]) -> int:
        if self._producer is None:
            self._producer = Producer(_producer_config(self._kafka, self._name))
        for message in messages:
            record = direct_record(message)
            headers: list[Any] = list(record.headers)
            self._producer.produce(record.topic, record.value, record.key, headers=headers, on_delivery=self._delivered)
        self._producer.poll(0)
        self._count.inc(len(messages))
        return len(messages)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        now_seconds = self._clock.monotonic_seconds()
        off_already = now_seconds < self._off_until_seconds
        self._off_until_seconds = now_seconds + OFF_SECONDS
        if not off_already:  # the others under way fail with it
            log.warning(
                "hand-over was not taken; capture brings the message",
                topic=message.topic(),
                reason=error.str(),
                off_for_seconds=OFF_SECONDS,
            )

    def close(self) -> None:
        """Close, whatever has not arrived: Debezium brings it."""
        with self._lock:
            if self._producer is not None:
                self._producer.flush(0.5)
                self._producer = None


def _producer_config(kafka: KafkaSettings, name: str) -> dict[str, Any]:
    return {
        **kafka.client_config(),
        "client.id": f"{name}-handover",
        "enable.idempotence": True,
        "linger.ms": 0,
        "message.timeout.ms": DELIVERY_MILLISECONDS,
        "queue.buffering.max.messages": QUEUE_RECORDS_MAX,
        # librdkafka's own default partitioner is not Java's: Debezium's copy would lie in another partition.
        "partitioner": "murmur2_random",
        "log_level": 2,
    }
