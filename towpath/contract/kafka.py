"""Topics on a Kafka cluster: made, held against the catalogue, read to their end, and what holds their readers up."""

from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from towpath.contract.catalogue import Catalogue, Topic
from towpath.errors import WorldError
from towpath.settings import Settings

TIMEOUT_SECONDS: Final = 15.0
READ_TIMEOUT_SECONDS: Final = 30.0
"""How long Kafka may send nothing while a topic is read."""
READ_BATCH_RECORDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class TopicFinding:
    """Where a topic on the cluster differs from the catalogue, and what fixes it."""

    topic: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class EnsuredTopics:
    """What `ensure_topics` did: topics it made, topics whose settings it changed, and what it leaves to a person."""

    created: tuple[str, ...]
    aligned: tuple[str, ...]
    findings: tuple[TopicFinding, ...]


@dataclass(frozen=True, slots=True)
class _Actual:
    partitions: int
    config: dict[str, str]


def ensure_topics(
    catalogue: Catalogue, settings: Settings, *, align: bool = False, timeout_seconds: float = TIMEOUT_SECONDS
) -> EnsuredTopics:
    """Create every topic of the catalogue that the cluster lacks; with `align`, also give the others its settings.

    Partition counts never change in place, since keys would move: they, and without `align` the settings too, come
    back as findings. Running it again is harmless, also beside another worker that does the same. Raises WorldError
    where the cluster does not answer.
    """
    cluster = _Cluster(settings, timeout_seconds)
    actual = cluster.describe(catalogue)
    missing = [topic for name, topic in catalogue.topics.items() if name not in actual]
    cluster.create(missing, settings.kafka.replication_factor)
    differing = {name: _differences(catalogue.topics[name], found) for name, found in actual.items()}
    aligned = tuple(name for name, config in differing.items() if config) if align else ()
    cluster.alter({name: differing[name] for name in aligned})
    for name in aligned:
        actual[name] = _Actual(actual[name].partitions, {**actual[name].config, **differing[name]})
    findings = tuple(finding for name, found in actual.items() for finding in _findings(catalogue.topics[name], found))
    return EnsuredTopics(tuple(topic.name for topic in missing), aligned, findings)


def compare_topics(
    catalogue: Catalogue, settings: Settings, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[TopicFinding, ...]:
    """Return where the cluster's topics differ from the catalogue: missing ones, partition counts, settings.

    Raises WorldError where the cluster does not answer.
    """
    actual = _Cluster(settings, timeout_seconds).describe(catalogue)
    findings: list[TopicFinding] = []
    for name, topic in catalogue.topics.items():
        if name not in actual:
            findings.append(
                TopicFinding(name, "it does not exist", "towpath up, or create it with your cluster's tools")
            )
        else:
            findings.extend(_findings(topic, actual[name]))
    return tuple(findings)


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """Where a partition's readers wait: `offset` is the first record of the oldest transaction that is open there."""

    topic: str
    partition: int
    offset: int
    records_behind: int
    began_milliseconds: int


def open_transactions(
    settings: Settings, topics: Iterable[str], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[OpenTransaction, ...]:
    """Return what is open in `topics` at this moment: where the last stable offset is not the end (KIP-98).

    Most of it is a worker's next commit; what stays open longer than a transaction may is what nobody will end. Topics
    that do not exist have none. Raises WorldError where Kafka does not answer.
    """
    cluster = _Cluster(settings, timeout_seconds)
    places = cluster.partitions(topics)
    ends = cluster.ends(places, IsolationLevel.READ_UNCOMMITTED)
    stable = cluster.ends(places, IsolationLevel.READ_COMMITTED)
    consumer = Consumer(_reader_config(settings, "read_uncommitted"))
    try:
        return tuple(
            OpenTransaction(topic, partition, offset, end - offset, began)
            for (topic, partition), end in ends.items()
            if (offset := stable[topic, partition]) < end
            and (began := _timestamp_at(consumer, TopicPartition(topic, partition, offset), timeout_seconds))
            is not None
        )
    except KafkaException as error:
        raise _unread(error.args[0].str()) from error
    finally:
        consumer.close()


def _timestamp_at(consumer: Consumer, place: TopicPartition, timeout_seconds: float) -> int | None:
    """Return when the record at `place` was written, None if it has ended meanwhile."""
    consumer.assign([place])
    message = consumer.poll(timeout_seconds)
    if message is None or message.error() is not None:
        return None
    milliseconds: int = message.timestamp()[1]
    return milliseconds


def read_to_end(
    settings: Settings,
    topics: Iterable[str],
    since: datetime | None = None,
    *,
    partitions: Collection[int] | None = None,
    timeout_seconds: float = READ_TIMEOUT_SECONDS,
) -> Iterator[Any]:
    """Yield the client's messages in `topics`, from `since` on to their end: committed ones, each partition's in order.

    `partitions` are the numbers of those that are read, None all of them.
    A partition ends where its committed records did when the reading came there: what lies behind a transaction that
    is still open is not among them. Topics that do not exist have no records. Joins no consumer group and moves no
    offset. Raises WorldError where Kafka does not answer.
    """
    consumer = Consumer({**_reader_config(settings, "read_committed"), "queued.min.messages": 100_000})
    try:
        reading = _beginnings(consumer, frozenset(topics), since, partitions, timeout_seconds)
        consumer.assign(list(reading.values()))
        while reading:
            first = consumer.poll(timeout_seconds)
            if first is None:
                raise _unread(f"nothing came for {timeout_seconds:g} s")
            # `consume` alone would wait until it has so many records, or its time is up.
            for message in (first, *consumer.consume(READ_BATCH_RECORDS, 0)):
                place, error = (message.topic(), message.partition()), message.error()
                if error is None:
                    if place in reading:
                        yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading.pop(place, None)
                else:
                    raise KafkaException(error)
    except KafkaException as error:
        raise _unread(error.args[0].str()) from error
    finally:
        consumer.close()


def _reader_config(settings: Settings, isolation_level: str) -> dict[str, Any]:
    return {
        **settings.kafka.client_config(),
        "group.id": f"{settings.project.name}-reader",  # nothing joins it
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": isolation_level,
        "enable.partition.eof": True,
        "log_level": 2,
    }


def _beginnings(
    consumer: Consumer,
    topics: frozenset[str],
    since: datetime | None,
    partitions: Collection[int] | None,
    timeout_seconds: float,
) -> dict[tuple[str | None, int | None], TopicPartition]:
    """Return where to begin in each partition of those of `topics` that exist."""
    known = consumer.list_topics(timeout=timeout_seconds).topics
    # What is below nought Kafka takes for names of places, or refuses.
    begin = OFFSET_BEGINNING if since is None else max(int(since.timestamp() * 1000), 0)
    found = [
        TopicPartition(topic, partition, begin)
        for topic in sorted(topics & known.keys())
        for partition in known[topic].partitions
        if partitions is None or partition in partitions
    ]
    if since is not None and found:
        found = consumer.offsets_for_times(found, timeout=timeout_seconds)
    return {(at.topic, at.partition): at for at in found}


def _unread(cause: str) -> WorldError:
    return WorldError(
        f"Kafka: {cause}",
        kept="every record, where it lies",
        next_step="towpath status, or check [kafka] in towpath.toml",
    )


def _findings(topic: Topic, actual: _Actual) -> Iterable[TopicFinding]:
    if actual.partitions != topic.partitions:
        yield TopicFinding(
            topic.name,
            f"it has {actual.partitions} partitions, the catalogue says {topic.partitions}",
            f"partition counts never change in place: say {actual.partitions} in schemas/topics, or plan a new "
            "generation of the topic",
        )
    for setting, wanted in sorted(_differences(topic, actual).items()):
        yield TopicFinding(
            topic.name,
            f"{setting} is {actual.config.get(setting)}, the catalogue says {wanted}",
            f"kafka-configs --alter --topic {topic.name} --add-config {setting}={wanted}",
        )


def _differences(topic: Topic, actual: _Actual) -> dict[str, str]:
    """Return the catalogue's value of each setting that the cluster holds otherwise."""
    return {setting: value for setting, value in topic.kafka_config().items() if actual.config.get(setting) != value}


class _Cluster:
    """The calls to Kafka's admin API that topics need, each with the same limit in seconds."""

    def __init__(self, settings: Settings, timeout_seconds: float) -> None:
        # A broker that is away is told by the error that is raised, once, and not in a log line a second.
        config: dict[str, Any] = {**settings.kafka.client_config(), "log_level": 2}
        self._admin = AdminClient(config)
        self._seconds = timeout_seconds

    def describe(self, catalogue: Catalogue) -> dict[str, _Actual]:
        """Return what the cluster has of the catalogue's topics."""
        try:
            known = self._admin.list_topics(timeout=self._seconds).topics
        except KafkaException as error:
            raise _away(error) from error
        names = [name for name in catalogue.topics if name in known]
        if not names:
            return {}
        asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = self._admin.describe_configs(asked, request_timeout=self._seconds)
        configs = {resource.name: self._settle(future) for resource, future in answers.items()}
        return {
            name: _Actual(len(known[name].partitions), {key: entry.value for key, entry in configs[name].items()})
            for name in names
        }

    def partitions(self, topics: Iterable[str]) -> list[tuple[str, int]]:
        """Return the partitions of those topics that exist."""
        try:
            known = self._admin.list_topics(timeout=self._seconds).topics
        except KafkaException as error:
            raise _away(error) from error
        return [(name, number) for name in topics if name in known for number in known[name].partitions]

    def ends(self, places: Iterable[tuple[str, int]], isolation: IsolationLevel) -> dict[tuple[str, int], int]:
        """Return the offsets at which partitions end for readers of this isolation."""
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(*place): latest for place in places}
        if not asked:
            return {}
        answers = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=self._seconds)
        return {(place.topic, place.partition): self._settle(future).offset for place, future in answers.items()}

    def create(self, topics: list[Topic], replication_factor: int) -> None:
        """Create topics; one that another worker created meanwhile is no error."""
        new = [
            NewTopic(topic.name, topic.partitions, replication_factor, config=topic.kafka_config()) for topic in topics
        ]
        if new:
            for future in self._admin.create_topics(new, request_timeout=self._seconds).values():
                self._settle(future, but_not="TOPIC_ALREADY_EXISTS")

    def alter(self, changes: dict[str, dict[str, str]]) -> None:
        """Set settings of topics, leaving their other settings alone."""
        resources = [
            ConfigResource(
                ResourceType.TOPIC,
                name,
                incremental_configs=[
                    ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
                    for setting, value in config.items()
                ],
            )
            for name, config in changes.items()
        ]
        if resources:
            for future in self._admin.incremental_alter_configs(resources, request_timeout=self._seconds).values():
                self._settle(future)

    def _settle(self, future: "Future[Any]", *, but_not: str = "") -> Any:
        """Wait for one answer; an error called `but_not` is none."""
        try:
            return future.result(self._seconds)
        except KafkaException as error:
            if error.args[0].name() != but_not:
                raise _away(error) from error
            return None


def _away(error: KafkaException) -> WorldError:
    return WorldError(
        f"Kafka: {error.args[0].str() if error.args else error}",
        kept="what exists on the cluster, as it was",
        next_step="towpath status, or check [kafka] in towpath.toml",
    )
