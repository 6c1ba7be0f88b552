"""What an application knows of a saga that it started. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, TowpathError
from towpath.orchestrator.requests import Answer
from towpath.orchestrator.sagas_view import ENDINGS, SagaInstance, answers_in
from towpath.outbox.message import OutboxMessage
from towpath.saga.definition import Definition
from towpath.saga.keys import saga_id_of
from towpath.saga.state import Status

Result = TypeVar("Result", bound=Record)

NOTHING_WRITTEN = "everything as it was: nothing was written"


@dataclass(frozen=True, slots=True)
class Started:
    """A saga that starts once the caller's transaction commits. Both ids are known before it has begun."""

    saga: str
    saga_id: str
    key: str
    event_id: UUID
    message: OutboxMessage | None = field(default=None, repr=False, compare=False)
    """The outbox row that starts it, where a client wrote it: what `Client.hand_over` takes to Kafka."""

    @classmethod
    def by(cls, saga: str, key: str, event_id: UUID, message: OutboxMessage | None = None) -> "Started":
        """Return the instance of `saga` that the event `event_id` starts."""
        return cls(saga, saga_id_of(saga, str(event_id)), key, event_id, message)


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """How an instance stands. `status` is running, compensating, completed, compensated, or stuck.

    `reason` says why it compensates or is stuck; `waiting_for` names the events or persons that it waits for.
    `result` is what it came to: the record of `saga.result`, once it has completed. `answers` are what became of the
    requests and signals that it was sent, the last ones. `history_offset` is where its latest entry lies.
    """

    saga: str
    saga_id: str
    key: str
    version: int
    status: str
    reason: str | None
    waiting_for: str | None
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    result: Record | None = None
    answers: tuple[Answer, ...] = ()
    history_offset: int = 0

    @property
    def ended(self) -> bool:
        """Return whether it completed or compensated; nothing changes it any more."""
        return self.status in ENDINGS

    @property
    def stuck(self) -> bool:
        """Return whether it needs a person; an operator may bring it to an ending."""
        return self.status == Status.STUCK.value


def standing_of(row: SagaInstance, codec: Codec) -> InstanceStatus:
    """Return what a row of the view says. Raises what `Codec.decode` raises for a result that it does not know."""
    return InstanceStatus(
        saga=row.saga,
        saga_id=row.saga_id,
        key=row.key,
        version=row.version,
        status=row.status,
        reason=row.reason,
        waiting_for=row.waiting_for,
        started_at=row.started_at,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
        result=None if row.result is None else codec.decode(row.result),
        answers=answers_in(row),
        history_offset=row.history_offset,
    )


class NotEnded(TowpathError):
    """The time given for a saga's ending is over; `standing` is how it stood then, None if nothing was seen of it."""

    def __init__(self, saga_id: str, timeout_seconds: float, standing: InstanceStatus | None) -> None:
        how = "nothing was seen of it" if standing is None else f"it is {standing.status}"
        waits = f", waiting for {standing.waiting_for}" if standing is not None and standing.waiting_for else ""
        saga = "SAGA" if standing is None else standing.saga
        super().__init__(
            f"saga {saga_id} has not ended within {timeout_seconds:g} s: {how}{waits}",
            kept="the saga goes on",
            next_step=f"towpath saga why {saga} {saga_id} says what it waits for; or ask again later",
        )
        self.standing = standing


class NotAnswered(TowpathError):
    """The time given for the answer to a signal or a request is over: nothing in the view says what became of it."""

    def __init__(
        self, saga: str, key: str, id_: str, timeout_seconds: float, instances: int, refusals: Sequence[str] = ()
    ) -> None:
        seen = f"{instances} of {saga} for key {key}" if instances else f"no instance of {saga} for key {key}"
        seen += f", refused by {len(refusals)} of them: {refusals[0]}" if refusals else ""
        super().__init__(
            f"{id_} was not answered within {timeout_seconds:g} s; seen: {seen}",
            kept="what was sent: it takes effect once, whenever the saga's worker reads it",
            next_step=f"towpath saga why {saga} {key}",
        )


class NotCompleted(TowpathError):
    """A saga came to no result: it was undone, or it is stuck. `standing` says why."""

    def __init__(self, standing: InstanceStatus) -> None:
        why = f": {standing.reason}" if standing.reason else ""
        super().__init__(
            f"saga {standing.saga} {standing.saga_id} is {standing.status}{why}",
            kept="the instance and its history",
            next_step=f"towpath saga history {standing.saga} {standing.saga_id}",
        )
        self.standing = standing


def result_of(standing: InstanceStatus, kind: type[Result]) -> Result:
    """Return what a saga that ended came to. Raises NotCompleted, ConfigurationError for a result of another kind."""
    if standing.status != Status.COMPLETED.value:
        raise NotCompleted(standing)
    if not isinstance(standing.result, kind):
        came = "nothing" if standing.result is None else type(standing.result).__name__
        raise ConfigurationError(
            f"saga {standing.saga} {standing.saga_id} came to {came}, not to a {kind.__name__}",
            kept="the instance and its history",
            next_step="ask for the record that the definition declares with saga.result",
        )
    return standing.result


def versions_of(sagas: Mapping[str, Mapping[int, Definition]], saga: str, *, do: str) -> Mapping[int, Definition]:
    """Return the versions of `saga`; `do` is the word for what is done with it.

    Raises ConfigurationError where there is none of that name.
    """
    if saga not in sagas:
        raise ConfigurationError(
            f"there is no saga {saga!r} in this project",
            kept=NOTHING_WRITTEN,
            next_step=f"{do} one of {', '.join(sorted(sagas)) or 'none: this project has no sagas'}",
        )
    return sagas[saga]


def require_start(sagas: Mapping[str, Mapping[int, Definition]], saga: str, record: type[Record]) -> None:
    """Raise ConfigurationError unless a version of `saga` starts on `record`: else nothing would ever begin."""
    versions = versions_of(sagas, saga, do="start")
    starts = {start for definition in versions.values() for start in definition.starts}
    if record not in starts:
        wanted = ", ".join(sorted(start.__name__ for start in starts))
        others = sorted(name for name, found in sagas.items() if any(record in one.starts for one in found.values()))
        also = f"; it starts {', '.join(others)}" if others else ""
        raise ConfigurationError(
            f"saga {saga} starts on {wanted}, not on {record.__name__}{also}",
            kept=NOTHING_WRITTEN,
            next_step=f"start it with {wanted}",
        )


def takes_no_signal(saga: str, given: str, taken: Iterable[str]) -> ConfigurationError:
    """Return the error for a signal that no version of a saga takes; `taken` are the names of those that one does."""
    names = ", ".join(sorted(taken))
    return ConfigurationError(
        f"saga {saga} takes no signal {given}",
        kept=NOTHING_WRITTEN,
        next_step=f"send one of {names}" if names else f"nothing: no wait of {saga} takes a signal",
    )


def start_topic(catalogue: Catalogue, saga: str, record: type[Record]) -> str:
    """Return the topic through which `record` starts `saga`.

    Raises ConfigurationError unless the catalogue has exactly one topic of events that carries the record to the saga.
    """
    found = [
        topic.name
        for topic in catalogue.carrying(record.SCHEMA_NAME)
        if topic.kind is TopicKind.EVENTS and saga in topic.consumers
    ]
    if len(found) != 1:
        raise ConfigurationError(
            f"{len(found)} topics of events carry {record.SCHEMA_NAME} to saga {saga}, and it takes one",
            next_step="list the record among the values of one topic, and the saga among that topic's consumers",
        )
    return found[0]
