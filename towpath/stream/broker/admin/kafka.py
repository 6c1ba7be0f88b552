"""What a Kafka cluster says of its topics and groups: the part of the broker port that reads and writes no record."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as RdTopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ListOffsetsResultInfo, OffsetSpec, ResourceType

from towpath.clock import Clock, SystemClock, retry
from towpath.stream.broker.port import BrokerAway, GroupMember
from towpath.stream.broker.record import TopicPartition

log = structlog.get_logger("towpath.stream.broker.admin.kafka")

ADMIN_TIMEOUT_SECONDS = 15.0
MARGIN_SECONDS = 5.0
"""How much longer than its own time-out a request may take to say that it timed out."""
ERROR_REPEAT_SECONDS = 5.0
ANSWER_SECONDS = 1.0
GROUP_SECONDS = 5.0
"""A worker looks at its group beside its work: one that stops meanwhile waits for the answer no longer than this."""
PASSING_SECONDS_MAX = 5.0
"""How long an answer may be one that passes by itself: a leader that has only just been told that it is one."""
PASSING_PAUSE_SECONDS = 0.1
PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)
"""Errors of a topic made, or a broker started, a moment ago; librdkafka's admin client does not ask again (2.16)."""
NOWHERE = "__consumer_offsets"
"""Asked about where only the answer counts: a topic that is there, so that nothing makes it."""

_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


def kafka_error(error: KafkaException) -> KafkaError:
    """Return what librdkafka says of a failed call."""
    cause = error.args[0]
    assert isinstance(cause, KafkaError)
    return cause


def kafka_away(config: Mapping[str, Any], what: str, error: KafkaError) -> BrokerAway:
    """Return what a call that failed means, in words: which cluster, what it did not do, and why."""
    return BrokerAway(f"Kafka at {config['bootstrap.servers']} {what}: {error.str() or error.name()}")


class _LeaderUnsettled(BrokerAway):
    """Kafka answered with an error that passes by itself."""


class _ErrorLog:
    """Logs what a client says of its connections: each kind now and then, for clients repeat it 20 times a second."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._told_at: dict[str, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Log an error."""
        now = self._clock.monotonic_seconds()
        if now - self._told_at.get(error.name(), -ERROR_REPEAT_SECONDS) >= ERROR_REPEAT_SECONDS:
            self._told_at[error.name()] = now
            log.warning("broker client", reason=error.name(), detail=error.str(), fatal=error.fatal())


_LINES = logging.getLogger("towpath.librdkafka")
_LINES.addHandler(logging.NullHandler())  # a command sets up no log; without a handler Python would write to stderr


def quiet(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's configuration with its log in ours: librdkafka would write the same to stderr, past it.

    That a transactional client was fenced is written at any level, so its lines go into our log as well: a worker's has
    them, and a command says what happened in its own error.
    """
    return {**config, "log_level": 2, "logger": _LINES, "error_cb": _ErrorLog()}


class KafkaAdmin:
    """A real cluster, as an admin client sees it."""

    def __init__(self, client: dict[str, str], clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._admin_client: AdminClient | None = None

    @property
    def _admin(self) -> AdminClient:
        if self._admin_client is None:
            self._admin_client = AdminClient(quiet(self._client))
        return self._admin_client

    def is_answered(self) -> bool:
        """Return whether the cluster answers an admin client within a second."""
        try:
            self._admin.list_topics(topic=NOWHERE, timeout=ANSWER_SECONDS)
        except KafkaException:
            return False
        return True

    def group_members(self, group: str) -> tuple[GroupMember, ...]:
        """Return those that the group has as members."""
        try:
            found = self._answers(lambda admin: admin.describe_consumer_groups([group], request_timeout=GROUP_SECONDS))
        except BrokerAway as error:
            cause = error.__cause__
            if isinstance(cause, KafkaException) and kafka_error(cause).code() == KafkaError.GROUP_ID_NOT_FOUND:
                return ()
            raise
        return tuple(GroupMember(member.member_id, member.client_id, member.host) for member in found[group].members)

    def group_offsets(
        self, group: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Return what the group has committed, for all or for these."""
        # Asked as a consumer: the answer that a coordinator has moved ends the process of librdkafka's admin client
        # (2.16: it looks for its own group, and has none), and a broker that restarts answers so.
        config = {**self._client, "group.id": group, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
        consumer = Consumer(quiet(config))
        try:
            places = self._all_partitions() if partitions is None else partitions
            wanted = [RdTopicPartition(*partition) for partition in places]
            found = consumer.committed(wanted, timeout=ADMIN_TIMEOUT_SECONDS) if wanted else []
        except KafkaException as error:
            raise kafka_away(config, f"does not tell the offsets of {group}", kafka_error(error)) from error
        finally:
            consumer.close()
        for place in found:
            if place.error is not None:
                what = f"does not tell the offset of {group} in {place.topic}[{place.partition}]"
                raise kafka_away(config, what, place.error)
        return {TopicPartition(place.topic, place.partition): place.offset for place in found if place.offset >= 0}

    def _all_partitions(self) -> list[TopicPartition]:
        known = self._admin.list_topics(timeout=ADMIN_TIMEOUT_SECONDS).topics
        return [TopicPartition(name, number) for name, topic in known.items() for number in topic.partitions]

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return how many partitions each topic has."""
        try:
            known = self._admin.list_topics(timeout=ADMIN_TIMEOUT_SECONDS).topics
        except KafkaException as error:
            raise kafka_away(self._client, "does not list its topics", kafka_error(error)) from error
        return {topic: len(known[topic].partitions) for topic in topics if topic in known}

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return each topic's id (KIP-516)."""
        wanted = TopicCollection(list(topics))
        found = self._answers(lambda admin: admin.describe_topics(wanted, request_timeout=ADMIN_TIMEOUT_SECONDS))
        return {topic: str(description.topic_id) for topic, description in found.items()}

    def topic_config(self, topic: str) -> Mapping[str, str]:
        """Return a topic's configuration."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        found = self._answers(lambda admin: admin.describe_configs([resource], request_timeout=ADMIN_TIMEOUT_SECONDS))
        return {name: entry.value for name, entry in found[resource].items()}

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the high watermarks, records of open transactions included."""
        return self._offsets(partitions, _LATEST)

    def leader_epochs(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return under which leader each log is written now, -1 where that is not told."""
        found = self._listed(partitions, _LATEST)
        return {place: -1 if one.leader_epoch is None else one.leader_epoch for place, one in found.items()}

    def begin_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offsets of the oldest records that are still there."""
        return self._offsets(partitions, _EARLIEST)

    def offsets_at(self, partitions: Iterable[TopicPartition], milliseconds: int) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record of this time or later, its end where there is none."""
        wanted = list(partitions)
        found = self._offsets(wanted, OffsetSpec.for_timestamp(milliseconds))
        none = [place for place, offset in found.items() if offset < 0]
        return {**found, **self.end_offsets(none)}

    def _offsets(self, partitions: Iterable[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        return {place: one.offset for place, one in self._listed(partitions, spec).items()}

    def _listed(
        self, partitions: Iterable[TopicPartition], spec: OffsetSpec
    ) -> dict[TopicPartition, ListOffsetsResultInfo]:
        wanted = {RdTopicPartition(*partition): spec for partition in partitions}
        if not wanted:
            return {}
        found = self._answers(
            lambda admin: admin.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ADMIN_TIMEOUT_SECONDS
            )
        )
        return {TopicPartition(place.topic, place.partition): one for place, one in found.items()}

    def _answers(self, ask: Callable[[AdminClient], Mapping[Any, Any]]) -> dict[Any, Any]:
        """Ask, again where the answer is one that passes, and return what each future holds."""
        return retry(
            self._clock,
            lambda: self._answers_once(ask),
            on=_LeaderUnsettled,
            seconds=PASSING_SECONDS_MAX,
            every_seconds=PASSING_PAUSE_SECONDS,
        )

    def _answers_once(self, ask: Callable[[AdminClient], Mapping[Any, Any]]) -> dict[Any, Any]:
        # librdkafka's search for a coordinator can outlive the request's own time-out, and a thread that waits
        # for it for ever keeps its process from ending.
        seconds = ADMIN_TIMEOUT_SECONDS + MARGIN_SECONDS
        try:
            return {name: future.result(seconds) for name, future in ask(self._admin).items()}
        except TimeoutError as error:
            self._admin_client = None
            servers = self._client["bootstrap.servers"]
            raise BrokerAway(f"Kafka at {servers} did not answer within {ADMIN_TIMEOUT_SECONDS:g} s") from error
        except KafkaException as error:
            # A new client next time: after a broker's restart this one repeats an old leader epoch for ever
            # (FENCED_LEADER_EPOCH), since its answer does not make it look for the new one.
            self._admin_client = None
            told = kafka_away(self._client, "did not answer", kafka_error(error))
            raise (_LeaderUnsettled(told.cause) if kafka_error(error).code() in PASSING else told) from error
