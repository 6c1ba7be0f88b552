"""Follows the dead-letter topics of commands in a thread of its own.

The one rule: until everything that lay there has been read, nothing is known, and every attempt's clock is held.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from towpath.clock import Clock, SystemClock, epoch_milliseconds
from towpath.deadletter.dead_commands import DeadCommands
from towpath.errors import first_line
from towpath.settings import Settings
from towpath.stream.broker.reader.kafka import consumed
from towpath.stream.broker.record import ConsumedRecord

log = structlog.get_logger("towpath.deadletter.watch.kafka")

POLL_SECONDS = 0.5
CLOSE_SECONDS = 5.0
LOOK_SECONDS = 10.0
"""Between two looks for partitions that were added; an attempt's clock has run no further when one is found."""
LIST_SECONDS_MAX = 5.0
TELL_SECONDS = 60.0
_NOTHING_MORE = (KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


class DeadCommandWatch:
    """Says whether what a timer waits for is a dead letter. `topics` are followed, all partitions that they ever have.

    `consumer` makes a client of its configuration.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[str],
        subject_of: Callable[[ConsumedRecord], bytes | None],
        clock: Clock | None = None,
        consumer: Callable[[dict[str, Any]], Any] = Consumer,
    ) -> None:
        self._topics = frozenset(topics)
        self._followed: set[tuple[str, int]] = set()
        self._unread: set[tuple[str, int]] = set()
        self._looked = False
        self._commands = DeadCommands(subject_of)
        self._clock = clock or SystemClock()
        self._look_next = self._tell_next = self._clock.monotonic_seconds()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._consumer = consumer(
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
        self._thread = threading.Thread(target=self._follow, name="dead-command-watch", daemon=True)
        self._thread.start()

    def reading(self) -> bool:
        """Say whether something that lay in the topics at the start has not been read yet."""
        return not self._looked or bool(self._unread)

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
            try:
                if self._clock.monotonic_seconds() >= self._look_next:
                    self._look()
                self._take(self._consumer.poll(POLL_SECONDS))
            except Exception as error:
                # Whatever it is: a thread that ended would hold every deadline for ever, and nobody would see why.
                self._tell(first_line(error), exc_info=not isinstance(error, KafkaException))
                self._stopping.wait(POLL_SECONDS)
        self._consumer.close()

    def _look(self) -> None:
        """Begin to read the partitions that there are and were not when this last looked."""
        self._look_next = self._clock.monotonic_seconds() + LOOK_SECONDS
        known = self._consumer.list_topics(timeout=LIST_SECONDS_MAX).topics
        there = {(topic, number) for topic in self._topics if topic in known for number in known[topic].partitions}
        added = there - self._followed
        if added:
            self._unread |= added
            self._followed |= added
            self._consumer.incremental_assign([TopicPartition(*place, OFFSET_BEGINNING) for place in sorted(added)])
        self._looked = True

    def _take(self, message: Any) -> None:
        if message is None:
            return
        error = message.error()
        if error is None:
            with self._lock:
                self._commands.met(consumed(message))
        elif error.code() in _NOTHING_MORE:
            self._unread.discard((message.topic() or "", message.partition() or 0))
        else:
            self._tell(error.str())

    def _tell(self, reason: str, *, exc_info: bool = False) -> None:
        """Say why dead commands cannot be followed, once a minute."""
        now = self._clock.monotonic_seconds()
        if now >= self._tell_next:
            self._tell_next = now + TELL_SECONDS
            log.warning(
                "dead commands cannot be followed, trying again",
                reason=reason,
                holds_all_deadlines=self.reading(),
                exc_info=exc_info,
            )
