"""Whether what remembers outlives what can come back: the sums of retentions. Pure: catalogue and settings in.

The one rule: a memory must be longer than everything that may pass, one after the other, before a message comes again.
Each sum says its arithmetic, so that whoever changes one number sees which other it meets.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.contract.finding import Finding
from towpath.errors import ConfigurationError
from towpath.settings import Settings

OUTBOX_DAY = 1
"""An outbox is dropped by whole days: a message may be there for its `keep_days` and nearly one day more."""


@dataclass(frozen=True, slots=True)
class RetentionSum:
    """One memory, and what it has to outlive; `days` None is for ever. `why` says what would happen otherwise."""

    subject: str
    memory: str
    memory_days: float | None
    terms: tuple[tuple[str, float | None], ...]
    why: str
    fix: str

    @property
    def total_days(self) -> float | None:
        """Return the days to outlive, None where one of the terms is for ever."""
        days = [days for _, days in self.terms]
        return None if None in days else sum(value for value in days if value is not None)

    @property
    def holds(self) -> bool:
        """Return whether the memory is longer."""
        return self.memory_days is None or (self.total_days is not None and self.memory_days > self.total_days)

    @property
    def arithmetic(self) -> str:
        """Return the sum as one would write it down."""
        terms = " + ".join(f"{_days(days)} ({label})" for label, days in self.terms)
        total = f" = {_days(self.total_days)}" if len(self.terms) > 1 else ""
        return f"{self.memory} {_days(self.memory_days)} must be more than {terms}{total} days"


def _days(days: float | None) -> str:
    return "for ever" if days is None else f"{days:g}"


def inbox_sum(catalogue: Catalogue, settings: Settings, service: str, commands: str) -> RetentionSum:
    """Return what the inbox of `service` must outlive: a command that lay unread, died, was redriven, lay again."""
    topic, dead = catalogue.topic(commands), catalogue.dead_letter(commands)
    terms: list[tuple[str, float | None]] = [(f"{commands}, unread", topic.retention_days)]
    if dead is not None:
        terms += [(f"{dead.name}, then redriven", dead.retention_days), (f"{commands}, again", topic.retention_days)]
    return RetentionSum(
        subject=service,
        memory="[participant] inbox_keep_days",
        memory_days=settings.participant.inbox_keep_days,
        terms=tuple(terms),
        why="a command that comes back after its recorded reply, or its undo's mark, was removed is carried out again",
        fix="raise [participant] inbox_keep_days, or shorten retention_days (of the topic or of its dead section) in "
        f"schemas/topics/{commands}.yaml",
    )


def re_emit_sum(settings: Settings) -> RetentionSum:
    """Return what dedup must outlive: the oldest message that an outbox can emit again."""
    return RetentionSum(
        subject="outbox",
        memory="[stream] dedup_horizon_days",
        memory_days=settings.stream.dedup_horizon_days,
        terms=(("[outbox] keep_days", settings.outbox.keep_days), ("the day that has begun", OUTBOX_DAY)),
        why="a message that is emitted again late is a dead letter, for nobody knows whether it was applied",
        fix="raise [stream] dedup_horizon_days, or lower [outbox] keep_days",
    )


def outbox_sums(catalogue: Catalogue, settings: Settings) -> Iterator[RetentionSum]:
    """Yield what each topic must outlive that an outbox may write: the outbox, which an audit compares it with."""
    for topic in catalogue.topics.values():
        if topic.kind in (TopicKind.EVENTS, TopicKind.REPLIES, TopicKind.SIGNALS, TopicKind.DEAD):
            section = "the dead section of " if topic.kind is TopicKind.DEAD else ""
            yield RetentionSum(
                subject=topic.name,
                memory=f"{topic.name} retention_days",
                memory_days=topic.retention_days,
                terms=(("[outbox] keep_days", settings.outbox.keep_days), ("the day that has begun", OUTBOX_DAY)),
                why="an audit takes for missing what the topic has let go, and emits it again",
                fix=f"raise retention_days in {section}schemas/topics/{topic.dead_for or topic.name}.yaml, "
                "or lower [outbox] keep_days",
            )


def saga_sums(catalogue: Catalogue, settings: Settings, saga: str, starts: Iterable[str]) -> Iterator[RetentionSum]:
    """Yield what finished instances of `saga` must outlive: start events, which are read again if offsets are reset."""
    names = frozenset(starts)
    for topic in catalogue.live():
        if topic.kind is TopicKind.EVENTS and saga in topic.consumers and names & set(topic.values):
            yield RetentionSum(
                subject=saga,
                memory="[saga] finished_retention_days",
                memory_days=settings.saga.finished_retention_days,
                terms=((f"{topic.name}, from which it starts", topic.retention_days),),
                why="a start that is read again after its instance was forgotten is a dead letter and parks its key",
                fix="raise [saga] finished_retention_days, or shorten retention_days in "
                f"schemas/topics/{topic.name}.yaml",
            )


def all_sums(
    catalogue: Catalogue, settings: Settings, commands: Mapping[str, str], sagas: Mapping[str, Iterable[str]]
) -> Iterator[RetentionSum]:
    """Yield every sum of a project: `commands` has each service's topic, `sagas` the records that start each."""
    yield re_emit_sum(settings)
    yield from outbox_sums(catalogue, settings)
    for service, topic in commands.items():
        if topic in catalogue.topics:
            yield inbox_sum(catalogue, settings, service, topic)
    for saga, starts in sagas.items():
        yield from saga_sums(catalogue, settings, saga, starts)


def retention_findings(sums: Iterable[RetentionSum]) -> list[Finding]:
    """Return a finding for each sum that does not hold."""
    return [
        Finding("retention-sum", one.subject, f"{one.arithmetic}: {one.why}", fix=one.fix)
        for one in sums
        if not one.holds
    ]


def require_sums(sums: Iterable[RetentionSum]) -> None:
    """Raise ConfigurationError with the arithmetic of the first sum that does not hold."""
    for one in sums:
        if not one.holds:
            raise ConfigurationError(f"{one.subject}: {one.arithmetic}: {one.why}", next_step=one.fix)
