"""Reads which messages arrived, and makes the topics that Debezium itself needs."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from towpath.capture.freshness import Freshness
from towpath.clock import Clock, SystemClock, epoch_milliseconds
from towpath.contract.kafka import read_to_end
from towpath.errors import WorldError, first_line
from towpath.outbox.handover import HANDED_OVER
from towpath.outbox.names import heartbeat_topic
from towpath.settings import Settings

log = structlog.get_logger("towpath.capture.kafka")

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 1.0
CLOSE_SECONDS = 5.0
OFFSET_TAIL_ONE = -2000 - 1  # librdkafka's RD_KAFKA_OFFSET_TAIL(1): from the last record on
HEARTBEAT_CONFIG = {"cleanup.policy": "delete", "retention.ms": str(24 * 3600 * 1000), "segment.ms": "3600000"}


def ensure_heartbeat_topics(settings: Settings, services: Iterable[str]) -> None:
    """Create the topic of each service's heartbeats, since nothing creates topics by itself.

    A slot moves on only with what Kafka has confirmed, so a heartbeat that could not be written would hold it back.
    """
    admin = AdminClient({**settings.kafka.client_config()})
    topics = [
        NewTopic(
            heartbeat_topic(settings.project.name, service),
            1,
            settings.kafka.replication_factor,
            config=HEARTBEAT_CONFIG,
        )
        for service in services
    ]
    if not topics:
        return
    for future in admin.create_topics(topics, request_timeout=TIMEOUT_SECONDS).values():
        try:
            future.result(TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _away(error) from error


def carried_ids(settings: Settings, topics: Iterable[str], since: datetime) -> dict[str, Counter[UUID]]:
    """Return how often each id lies in each of `topics`, from `since` to the end as it stands now.

    Reads committed records. Records without a valid `id` header are not from an outbox and are passed over, and so are
    copies that were handed over directly: what Debezium carried is counted, since that is what is guaranteed.
    Raises WorldError where Kafka does not answer.
    """
    found: dict[str, Counter[UUID]] = {topic: Counter() for topic in topics}
    for message in read_to_end(settings, found, since):
        headers = message.headers() or ()
        if any(name == HANDED_OVER for name, _ in headers):
            continue
        for name, value in headers:
            if name == "id" and value is not None:
                with contextlib.suppress(ValueError):
                    found[message.topic() or ""][UUID(value.decode("ascii", "replace"))] += 1
    return found


def topic_settings(settings: Settings, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the settings of those of `topics` that Kafka has, in its names. Raises WorldError."""
    admin = AdminClient({**settings.kafka.client_config(), "log_level": 2})
    try:
        known = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        asked = [ConfigResource(ResourceType.TOPIC, name) for name in topics if name in known]
        answers = admin.describe_configs(asked, request_timeout=TIMEOUT_SECONDS) if asked else {}
        return {
            resource.name: {name: entry.value for name, entry in answer.result(TIMEOUT_SECONDS).items()}
            for resource, answer in answers.items()
        }
    except KafkaException as error:
        raise _away(error) from error


def _away(error: KafkaException) -> WorldError:
    return WorldError(
        f"Kafka: {error.args[0].str()}",
        kept="every message, in the outboxes",
        next_step="towpath status, or check [kafka] in towpath.toml",
    )


def services_behind(settings: Settings, services: Iterable[str], now_milliseconds: int) -> tuple[str, ...]:
    """Return those of `services` whose capture is known to be behind, by their heartbeats. Raises WorldError."""
    names = tuple(services)
    topics = {heartbeat_topic(settings.project.name, name): name for name in names}
    freshness = Freshness(names, settings.connect.heartbeat_seconds)
    for message in read_to_end(settings, topics):
        freshness.beat(topics[message.topic()], message.timestamp()[1])
    return freshness.behind(now_milliseconds)


class CaptureWatch:
    """Follows the heartbeats of some services in a thread of its own: `behind()` may be asked from any other."""

    def __init__(self, settings: Settings, services: Iterable[str], clock: Clock | None = None) -> None:
        names = tuple(services)
        self._topics = {heartbeat_topic(settings.project.name, name): name for name in names}
        self._freshness = Freshness(names, settings.connect.heartbeat_seconds)
        self._clock = clock or SystemClock()
        self._consumer = Consumer(
            {
                **settings.kafka.client_config(),
                "group.id": f"{settings.project.name}-capture-watch",  # nothing joins it
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "log_level": 0,
            }
        )
        # The last heartbeat before this process began tells of an outage that began before it too.
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_TAIL_ONE) for topic in self._topics])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="capture-watch", daemon=True)
        self._thread.start()

    def behind(self) -> bool:
        """Say whether the capture of any of the services is known to be behind."""
        return bool(self._freshness.behind(epoch_milliseconds(self._clock)))

    def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        self._thread.join(CLOSE_SECONDS)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                message = self._consumer.poll(POLL_SECONDS)
                if message is not None and message.error() is None:
                    self._freshness.beat(self._topics[message.topic() or ""], message.timestamp()[1])
            except Exception as error:
                # Whatever it is: without further heartbeats every deadline would be held for ever.
                log.warning("heartbeats of capture cannot be followed, trying again", reason=first_line(error))
                self._stopping.wait(POLL_SECONDS)
        self._consumer.close()
