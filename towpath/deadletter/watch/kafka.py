"""Follows the dead-letter topics of commands in a thread of its own.

The one rule: until everything that lay there has been read, nothing is known, and every attempt's clock is held.
"""

import threading
from collections.abc import Callable, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from towpath.clock import Clock, SystemClock, epoch_milliseconds
from towpath.deadletter.dead_commands import DeadCommands
from towpath.settings import Settings
from towpath.stream.broker.reader.kafka import consumed
from towpath.stream.broker.record import ConsumedRecord

POLL_SECONDS = 0.5
CLOSE_SECONDS = 5.0
_NOTHING_MORE = (KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


class DeadCommandWatch:
    """Says whether what a timer waits for is a dead letter. `topics` are followed: names and numbers of partitions."""

    def __init__(
        self,
        settings: Settings,
        topics: Mapping[str, int],
        subject_of: Callable[[ConsumedRecord], bytes | None],
        clock: Clock | None = None,
    ) -> None:
        self._unread = {(topic, number) for topic, count in topics.items() for number in range(count)}
        self._commands = DeadCommands(subject_of)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                **settings.kafka.client_config(),
                "group.id": f"{settings.project.name}-dead-command-watch",  # nothing joins it
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in sorted(self._unread)])
        self._thread = threading.Thread(target=self._follow, name="dead-command-watch", daemon=True)
        self._thread.start()

    def reading(self) -> bool:
        """Say whether something that lay in the topics at the start has not been read yet."""
        return bool(self._unread)

    def holds(self, timer: bytes) -> bool:
        """Say whether the command that a timer waits for is a dead letter."""
        with self._lock:
            return self._commands.holds(timer, epoch_milliseconds(self._clock))

    def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        self._thread.join(CLOSE_SECONDS)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(POLL_SECONDS)
            if message is None:
                continue
            place = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is None:
                with self._lock:
                    self._commands.met(consumed(message))
            elif error.code() in _NOTHING_MORE:
                # A topic that is not there yet holds nothing.
                self._unread.discard(place)
        self._consumer.close()
