"""What a worker is told at its start, whether it is told by `create_app` or by a broker URL. Pure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from towpath.clock import Clock
from towpath.errors import ConfigurationError
from towpath.settings import StreamSettings
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine.batch_size import Gathering
from towpath.stream.engine.worker_status import WorkerStatus

UnitOfWork = Literal["kafka", "database"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Where the database form keeps effects and offsets, and how its dead letters leave."""

    url: str
    connection_options: dict[str, str]
    outbox: bool = True
    """Whether that database has an outbox; without one, a dead letter stops the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """Everything a worker needs beside its agents."""

    application: str
    slot: str
    broker: Broker
    settings: StreamSettings
    clock: Clock
    unit_of_work: UnitOfWork = "kafka"
    database: DatabaseOptions | None = None
    states: tuple[str, ...] = ()
    """Changelog topics. The first is the home of timers and parked keys."""
    timers_topic: str | None = None
    parks_keys: bool = True
    limits: RecordLimits = field(default_factory=RecordLimits)
    """How large a record each topic takes."""
    state_folder: Path | None = None
    """None: stores live in memory and are read anew at every assignment."""
    hold_deadlines: Callable[[], bool] | None = None
    hold_timer: Callable[[bytes], bool] | None = None
    """Asked about each due timer by its key: one that is held is put off."""
    world_errors: tuple[type[BaseException], ...] = ()
    learn: Callable[[BaseException], BaseException] | None = None
    """Asked, outside any unit of work, whether a peer's error can be cured: returns that error, or a WorldError where
    the record is to be tried again, now or when the dependency is back."""
    on_ready: Callable[[], Awaitable[None]] | None = None
    gathering: Gathering | None = None
    on_status: Callable[[WorkerStatus], None] | None = None
    """Told how the worker stands, whenever that changes; called in the event loop, so it must not block for long."""

    @property
    def transactional_id(self) -> str:
        """Return the id by which a restarted worker fences its own ghost: application and slot."""
        return f"{self.application}-{self.slot}"


def check_options(options: StreamOptions) -> None:
    """Raise ConfigurationError where options contradict each other."""
    if not options.slot or not options.slot.strip():
        raise ConfigurationError(
            f"{options.application}: a worker needs a slot",
            next_step="name it so that it stays the same over restarts and no two live workers share it",
        )
    if (options.unit_of_work == "database") != (options.database is not None):
        raise ConfigurationError(f"{options.application}: unit_of_work='database' and database=... go together")
    if options.unit_of_work == "database" and (options.states or options.timers_topic):
        raise ConfigurationError(
            f"{options.application}: states and timers belong to unit_of_work='kafka'",
            next_step="keep state in the database's own tables",
        )
    if options.timers_topic and not options.states:
        raise ConfigurationError(
            f"{options.application}: timers need a changelog to live in", next_step="declare states=(...,)"
        )
    check_timeouts(options.settings)


BROKERS_SESSION_SECONDS = 45.0
"""Kafka's default of `group.consumer.session.timeout.ms`."""


def session_seconds(settings: StreamSettings) -> float:
    """Return after how long a silent member is missed; under the `consumer` protocol the broker says so."""
    return settings.session_timeout_seconds if settings.group_protocol == "classic" else BROKERS_SESSION_SECONDS


def check_timeouts(settings: StreamSettings) -> None:
    """Raise ConfigurationError unless batch < transaction <= session < poll interval.

    A batch that outlives its transaction is wasted. A transaction that outlives its owner's session holds the new
    owner up: it may not read past it. A session that outlives the poll interval hides a worker that hangs.
    Under the `consumer` protocol the broker sets the session time-out, and the setting is not used.
    """
    batch, transaction = settings.batch_seconds_max, settings.transaction_timeout_seconds
    session, poll = settings.session_timeout_seconds, settings.poll_interval_seconds_max
    if settings.group_protocol == "consumer":
        chain = batch < transaction < poll
        text = (
            f"batch_seconds_max {batch} < transaction_timeout_seconds {transaction} < poll_interval_seconds_max {poll}"
        )
    else:
        chain = batch < transaction <= session < poll
        text = (
            f"batch_seconds_max {batch} < transaction_timeout_seconds {transaction} "
            f"<= session_timeout_seconds {session} < poll_interval_seconds_max {poll}"
        )
    if not chain:
        raise ConfigurationError(f"stream time limits do not follow from each other: {text} must hold")


def check_topics(
    counts: dict[str, int], *, inputs: list[str], states: tuple[str, ...], timers_topic: str | None, dead: list[str]
) -> None:
    """Raise ConfigurationError where a topic is missing, or topics that must be co-located differ in partitions."""
    further = [*states, *([timers_topic] if timers_topic else [])]
    missing = [topic for topic in [*inputs, *further, *dead] if topic not in counts]
    if missing:
        raise ConfigurationError(
            f"topics do not exist: {', '.join(sorted(missing))}",
            next_step="declare them in schemas/topics, then: towpath provision",
        )
    alike = [*inputs, *further] if further else []
    for topic in alike[1:]:
        if counts[topic] != counts[alike[0]]:
            raise ConfigurationError(
                f"{alike[0]} has {counts[alike[0]]} partitions and {topic} has {counts[topic]}: "
                "what concerns one key would lie in different partition numbers",
                next_step="give both the same number of partitions (a new generation of the smaller one)",
            )
    for topic, count in ((name, counts[name]) for name in dead):
        origin = topic.removesuffix(".dead")
        if counts.get(origin, count) > count:
            raise ConfigurationError(
                f"{topic} has {count} partitions, {origin} has {counts[origin]}",
                next_step="give the dead-letter topic as many partitions as its origin: "
                f"kafka-topics.sh --bootstrap-server SERVERS --alter --topic {topic} --partitions {counts[origin]}",
            )
