"""Makes the topics of the catalogue on a Kafka cluster, and tells where the cluster differs from it."""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from towpath.contract.catalogue import Catalogue, Topic
from towpath.errors import WorldError
from towpath.settings import Settings

_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class TopicFinding:
    """Where a topic on the cluster differs from the catalogue, and what mends it."""

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


def ensure_topics(catalogue: Catalogue, settings: Settings, *, align: bool = False) -> EnsuredTopics:
    """Create every topic of the catalogue that the cluster lacks; with `align`, also give the others its settings.

    Partition counts never change in place, since keys would move: they, and without `align` the settings too, come
    back as findings. Running it again is harmless, also beside another worker that does the same. Raises WorldError
    where the cluster does not answer.
    """
    admin = AdminClient({**settings.kafka.client_config()})
    actual = _describe(admin, catalogue)
    missing = [topic for name, topic in catalogue.topics.items() if name not in actual]
    _create(admin, missing, settings.kafka.replication_factor)
    differing = {name: _differences(catalogue.topics[name], found) for name, found in actual.items()}
    aligned = tuple(name for name, config in differing.items() if config) if align else ()
    _alter(admin, {name: differing[name] for name in aligned})
    findings = tuple(
        finding
        for name, found in actual.items()
        for finding in _findings(catalogue.topics[name], found)
        if name not in aligned or found.partitions != catalogue.topics[name].partitions
    )
    return EnsuredTopics(tuple(topic.name for topic in missing), aligned, findings)


def compare_topics(catalogue: Catalogue, settings: Settings) -> tuple[TopicFinding, ...]:
    """Return where the cluster's topics differ from the catalogue: missing ones, partition counts, settings.

    Raises WorldError where the cluster does not answer.
    """
    actual = _describe(AdminClient({**settings.kafka.client_config()}), catalogue)
    findings: list[TopicFinding] = []
    for name, topic in catalogue.topics.items():
        if name not in actual:
            findings.append(
                TopicFinding(name, "it does not exist", "towpath up, or create it with your cluster's tools")
            )
        else:
            findings.extend(_findings(topic, actual[name]))
    return tuple(findings)


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


def _describe(admin: AdminClient, catalogue: Catalogue) -> dict[str, _Actual]:
    """Return what the cluster has of the catalogue's topics."""
    try:
        known = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
        names = [name for name in catalogue.topics if name in known]
        if not names:
            return {}
        asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = admin.describe_configs(asked, request_timeout=_TIMEOUT_SECONDS)
        configs = {resource.name: future.result(_TIMEOUT_SECONDS) for resource, future in answers.items()}
    except KafkaException as error:
        raise _away(error) from error
    return {
        name: _Actual(len(known[name].partitions), {key: entry.value for key, entry in configs[name].items()})
        for name in names
    }


def _create(admin: AdminClient, topics: list[Topic], replication_factor: int) -> None:
    if not topics:
        return
    new = [NewTopic(topic.name, topic.partitions, replication_factor, config=topic.kafka_config()) for topic in topics]
    for future in admin.create_topics(new, request_timeout=_TIMEOUT_SECONDS).values():
        _settle(future, but_not="TOPIC_ALREADY_EXISTS")


def _alter(admin: AdminClient, changes: dict[str, dict[str, str]]) -> None:
    if not changes:
        return
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
    for future in admin.incremental_alter_configs(resources, request_timeout=_TIMEOUT_SECONDS).values():
        _settle(future)


def _settle(future: "Future[Any]", *, but_not: str = "") -> None:
    """Wait for one answer; an error called `but_not` is none."""
    try:
        future.result(_TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].name() != but_not:
            raise _away(error) from error


def _away(error: KafkaException) -> WorldError:
    return WorldError(
        f"Kafka: {error.args[0].str() if error.args else error}",
        kept="what exists on the cluster, as it was",
        next_step="towpath status, or check [kafka] in towpath.toml",
    )
