"""The catalogue of topics: what each promises, read from `schemas/topics/*.yaml`, one file a topic.

Strict: a key that is not known is refused, with the one that was probably meant; nothing is ignored.
What follows from the project's code (`towpath.derived_topics`) is written by `towpath contracts generate` into one
file, `_derived.yaml`, in the same form. A topic's own file wins over it, key by key; one that says everything is taken
as it stands.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from towpath.contract.parse import misspelt
from towpath.errors import ContractError, NotFoundError
from towpath.settings import Settings

DERIVED_FILE: Final = "_derived.yaml"
_DAY_MILLISECONDS: Final = 86_400_000
_DEAD_SUFFIX: Final = ".dead"
_BYTES_MAX: Final = "max.message.bytes"
# Kafka's own default.
_BYTES_MAX_DEFAULT: Final = 1_048_588
# What a dead letter says beside its record is about a kilobyte; the rest is to spare. A saga's state and history take
# as much more, so that whatever starts it fits into them, if only to be refused there.
_LETTER_BYTES: Final = 65_536
# Kafka's own limit for a topic's name.
_TOPIC_NAME_MAX: Final = 249
# What `config` may set: the topic settings of Kafka 4.3 that no key of the file covers.
_KAFKA_SETTINGS: Final = frozenset(
    {
        "compression.type",
        "delete.retention.ms",
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "index.interval.bytes",
        "max.compaction.lag.ms",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "message.timestamp.type",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "preallocate",
        "retention.bytes",
        "segment.bytes",
        "segment.index.bytes",
        "segment.jitter.ms",
        "segment.ms",
        "unclean.leader.election.enable",
    }
)


class TopicKind(StrEnum):
    """What a topic is for; the last part of its name."""

    EVENTS = "events"
    COMMANDS = "commands"
    REPLIES = "replies"
    SIGNALS = "signals"
    TIMERS = "timers"
    OPERATOR = "operator"
    HISTORY = "history"
    STATE = "state"
    DEAD = "dead"


class Compatibility(Enum):
    """What a new version of a schema promises. Names are Confluent's; values are what they promise.

    Backward: a reader of the new version reads what the old one wrote. Forward: a reader of the old version reads
    what the new one writes. Transitive: against every released version, not only the latest.
    """

    NONE = (False, False, False)
    BACKWARD = (True, False, False)
    BACKWARD_TRANSITIVE = (True, False, True)
    FORWARD = (False, True, False)
    FORWARD_TRANSITIVE = (False, True, True)
    FULL = (True, True, False)
    FULL_TRANSITIVE = (True, True, True)

    @property
    def backward(self) -> bool:
        """Return whether the new version reads the old one's records."""
        return self.value[0]

    @property
    def forward(self) -> bool:
        """Return whether the old version reads the new one's records."""
        return self.value[1]

    @property
    def transitive(self) -> bool:
        """Return whether the promise reaches back to every released version."""
        return self.value[2]

    def __or__(self, other: "Compatibility") -> "Compatibility":
        """Return the mode that keeps both promises: a record may travel in several topics."""
        return Compatibility(tuple(mine or theirs for mine, theirs in zip(self.value, other.value, strict=True)))


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `retention_days` is None for what is kept for ever; `values` are Avro full names."""

    name: str
    kind: TopicKind
    owner: str
    key: str
    partitions: int
    retention_days: float | None
    values: tuple[str, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    compatibility: Compatibility
    doc: str = ""
    dead_for: str | None = None
    tombstone_retention_days: float | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def compacted(self) -> bool:
        """Return whether Kafka keeps the latest record of each key, rather than all records for a time."""
        return self.kind is TopicKind.STATE

    def kafka_config(self) -> dict[str, str]:
        """Return the topic's settings in Kafka's names, every one that this catalogue decides."""
        retention = -1 if self.retention_days is None else round(self.retention_days * _DAY_MILLISECONDS)
        config = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            # Kafka would else throw away records that are still promised once a partition grows.
            "retention.bytes": "-1",
            "retention.ms": str(retention),
        }
        if self.tombstone_retention_days is not None:
            config["delete.retention.ms"] = str(round(self.tombstone_retention_days * _DAY_MILLISECONDS))
        return {**config, **self.config}


def is_engines(record: str) -> bool:
    """Return whether a record is the engine's own: it changes with the engine, and not with the project."""
    return record.startswith("towpath.")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All topics, by name, dead-letter topics included."""

    topics: Mapping[str, Topic]

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Read the topics of the project. Raises ContractError naming file, key and what was probably meant."""
        return cls.read(settings.root / settings.project.schemas / "topics")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the topics that `folder` declares. Raises ContractError as `load` does."""
        topics: dict[str, Topic] = {}
        derived = read_derived(folder)
        for path in declared_files(folder):
            for topic in read_topics(path, derived):
                if topic.name in topics:
                    raise ContractError(f"{path.name}: topic {topic.name} is declared twice", next_step="remove one")
                topics[topic.name] = topic
        for name, content in derived.items():
            if name not in topics:
                topics |= {topic.name: topic for topic in _topics(_checked(content, DERIVED_FILE))}
        if not topics:
            raise ContractError(f"{folder}: no topic is declared", next_step="add <topic>.yaml there")
        return cls(MappingProxyType(dict(sorted(topics.items()))))

    def topic(self, name: str) -> Topic:
        """Return the topic called `name`. Raises NotFoundError with the one that was probably meant."""
        if name not in self.topics:
            raise NotFoundError(
                f"topic {name!r} is not in the catalogue{misspelt(name, self.topics)}",
                next_step=f"towpath contracts generate, or declare it in schemas/topics/{name}.yaml",
            )
        return self.topics[name]

    def values(self) -> tuple[str, ...]:
        """Return the full names of all records that travel in topics, sorted."""
        return tuple(sorted({value for topic in self.topics.values() for value in topic.values}))

    def own_values(self) -> tuple[str, ...]:
        """Return those of the project itself."""
        return tuple(value for value in self.values() if not is_engines(value))

    def values_in(self, topics: Iterable[str]) -> tuple[str, ...]:
        """Return the full names of the records that travel in `topics`, each once, in alphabetical order."""
        return tuple(sorted({value for name in topics for value in self.topic(name).values}))

    def topics_of(self, party: str) -> tuple[str, ...]:
        """Return the topics that `party` (a service, saga or view) owns, writes or reads."""
        return tuple(
            topic.name
            for topic in self.topics.values()
            if party == topic.owner or party in topic.producers or party in topic.consumers
        )

    def carrying(self, record: str) -> tuple[Topic, ...]:
        """Return the topics in which the record called `record` travels, dead-letter topics aside."""
        return tuple(topic for topic in self.live() if record in topic.values)

    def live(self) -> Iterator[Topic]:
        """Yield the topics other than dead-letter topics."""
        return (topic for topic in self.topics.values() if topic.kind is not TopicKind.DEAD)

    def dead_letter(self, name: str) -> Topic | None:
        """Return the dead-letter topic of the topic called `name`, or None where it has none."""
        return self.topics.get(f"{name}{_DEAD_SUFFIX}")

    def dead_topics(self) -> tuple[str, ...]:
        """Return the names of all dead-letter topics."""
        return tuple(topic.name for topic in self.topics.values() if topic.kind is TopicKind.DEAD)

    def message_bytes_max(self) -> Mapping[str, int]:
        """Return the most bytes of a record, in Kafka's form, of each topic."""
        return {topic.name: _bytes_max(topic) for topic in self.topics.values()}

    def compatibility(self, record: str) -> Compatibility:
        """Return what a record's schema promises: the promises of all topics that carry it, together."""
        promise = Compatibility.NONE
        for topic in self.carrying(record):
            promise |= topic.compatibility
        return promise

    def require_equal_partitions(self, names: Iterable[str]) -> int:
        """Return the partition count that the topics `names` share.

        Raises ContractError naming two that differ: what concerns one saga must lie in one partition number.
        """
        topics = [self.topic(name) for name in names]
        for topic in topics[1:]:
            if topic.partitions != topics[0].partitions:
                raise ContractError(
                    f"{topics[0].name} has {topics[0].partitions} partitions and {topic.name} has "
                    f"{topic.partitions}: a saga's records would not meet in one partition",
                    next_step="give both the same count, in a new generation of one of the topics",
                )
        return topics[0].partitions


_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_Days = Annotated[float, Field(gt=0)] | Literal["forever"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _DeadFile(_Strict):
    """The `dead` section: the topic that takes what could not be applied."""

    partitions: int | None = Field(None, ge=1, le=10_000)
    retention_days: _Days = 90.0


class _TopicFile(_Strict):
    """One file of the catalogue, as it is written."""

    topic: str = Field(max_length=_TOPIC_NAME_MAX - len(_DEAD_SUFFIX))
    kind: Literal["events", "commands", "replies", "signals", "timers", "operator", "history", "state"]
    owner: _Name
    doc: str = ""
    key: _Name
    partitions: int = Field(ge=1, le=10_000)
    retention_days: _Days
    tombstone_retention_days: float | None = Field(None, gt=0)
    values: list[str] = Field(min_length=1)
    producers: list[_Name]
    consumers: list[_Name]
    compatibility: Literal[
        "none", "backward", "backward_transitive", "forward", "forward_transitive", "full", "full_transitive"
    ] = "full_transitive"
    dead: _DeadFile | None = None
    config: dict[str, str] = {}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse what each field allows and the whole does not."""
        if self.topic != f"{self.owner}.{self.kind}":
            raise ValueError(f"topic: owner and kind make it {self.owner}.{self.kind}, not {self.topic}")
        for name in self.config:
            if name not in _KAFKA_SETTINGS:
                raise ValueError(f"config: {name!r} is not for this place{misspelt(name, _KAFKA_SETTINGS)}")
        for label, names in (("values", self.values), ("producers", self.producers), ("consumers", self.consumers)):
            if len(set(names)) != len(names):
                raise ValueError(f"{label}: a name stands there twice")
        if not self.producers and self.kind != "commands":  # a service may answer commands that no saga sends yet
            raise ValueError("producers: List should have at least 1 item")
        if self.kind == "state" and (self.dead or self.retention_days != "forever"):
            raise ValueError("a state topic is compacted: retention_days is forever, and it has no dead section")
        if self.kind != "state" and self.tombstone_retention_days is not None:
            raise ValueError("tombstone_retention_days: only a state topic has tombstones")
        return self


WHOLE: Final = frozenset(
    {"topic", "kind", "owner", "key", "partitions", "retention_days", "values", "producers", "consumers"}
)
"""The keys of a file that says everything itself: nothing is derived for it."""


def declared_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of topics that people wrote, in the order of their names."""
    return tuple(path for path in sorted(folder.glob("*.y*ml")) if path.name != DERIVED_FILE)


def read_derived(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `towpath contracts generate` derived, by topic; empty where it derived nothing."""
    path = folder / DERIVED_FILE
    if not path.is_file():
        return {}
    content = read_file(path)
    if not isinstance(content, list) or not all(isinstance(one, dict) and "topic" in one for one in content):
        raise ContractError(f"{path.name}: it is no list of topics", next_step="towpath contracts generate")
    return {str(one["topic"]): one for one in content}


def read_file(path: Path) -> Any:
    """Return what a file of the catalogue says, unchecked. Raises ContractError where it is no YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise ContractError(f"{path.name}: {error}", next_step=f"fix schemas/topics/{path.name}") from error


def read_topics(path: Path, derived: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> tuple[Topic, ...]:
    """Return the topic that the file `path` declares, and its dead-letter topic if it has one.

    What the file leaves open comes from `derived`. Raises ContractError naming file, key and what was probably meant.
    """
    content = read_file(path)
    if isinstance(content, dict) and not content.keys() >= WHOLE:
        content = {**derived.get(str(content.get("topic")), {}), **content}
    file = _checked(content, path.name)
    if path.stem != file.topic:
        raise ContractError(f"{path.name}: it declares {file.topic}", next_step=f"call it {file.topic}.yaml")
    return _topics(file)


def _checked(content: Any, name: str) -> "_TopicFile":
    try:
        return _TopicFile.model_validate(content)
    except ValidationError as error:
        missing = any(problem["type"] == "missing" for problem in error.errors())
        problems = "; ".join(_in_words(dict(problem)) for problem in error.errors())
        fix = f"fix schemas/topics/{name}"
        raise ContractError(
            f"{name}: {problems}", next_step=f"towpath contracts generate, or {fix}" if missing else fix
        ) from error


def _topics(file: "_TopicFile") -> tuple[Topic, ...]:
    topic = _topic(file)
    return (topic,) if file.dead is None else (topic, _dead(topic, file.dead))


def _topic(file: _TopicFile) -> Topic:
    return Topic(
        name=file.topic,
        kind=TopicKind(file.kind),
        owner=file.owner,
        key=file.key,
        partitions=file.partitions,
        retention_days=_days(file.retention_days),
        values=tuple(file.values),
        producers=tuple(file.producers),
        consumers=tuple(file.consumers),
        compatibility=Compatibility[file.compatibility.upper()],
        doc=file.doc,
        tombstone_retention_days=file.tombstone_retention_days,
        config=MappingProxyType({**_room(file), **file.config}),
    )


def _room(file: _TopicFile) -> dict[str, str]:
    """Return the limit of a topic that carries the records of others inside its own."""
    wide = file.kind in (TopicKind.STATE, TopicKind.HISTORY)
    return {_BYTES_MAX: str(_BYTES_MAX_DEFAULT + _LETTER_BYTES)} if wide else {}


def _dead(topic: Topic, file: _DeadFile) -> Topic:
    return Topic(
        name=f"{topic.name}{_DEAD_SUFFIX}",
        kind=TopicKind.DEAD,
        owner=topic.owner,
        key=topic.key,
        partitions=file.partitions or topic.partitions,
        retention_days=_days(file.retention_days),
        values=topic.values,
        producers=topic.consumers,
        consumers=(),
        compatibility=topic.compatibility,
        doc=f"What could not be applied from {topic.name}, untouched, with its cause.",
        dead_for=topic.name,
        config=MappingProxyType({_BYTES_MAX: str(_bytes_max(topic) + _LETTER_BYTES)}),
    )


def _bytes_max(topic: Topic) -> int:
    return int(topic.config.get(_BYTES_MAX, _BYTES_MAX_DEFAULT))


def _days(value: float | Literal["forever"]) -> float | None:
    return None if value == "forever" else float(value)


def _in_words(problem: Mapping[str, Any]) -> str:
    """Return one of pydantic's findings as a person would say it."""
    # pydantic also names the branch of a union (`constrained-float`), which means nothing to a person.
    branches = ("constrained-", "literal[", "float")
    place = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(branches))
    if problem["type"] == "extra_forbidden":
        model = _DeadFile if problem["loc"][0] == "dead" else _TopicFile
        return f"unknown key {place!r}{misspelt(str(problem['loc'][-1]), model.model_fields)}"
    if problem["type"] == "missing":
        return f"{place!r} is missing"
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


class StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key that stands twice; PyYAML else takes the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping at `node`. Raises ConstructorError naming a key that stands twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)
