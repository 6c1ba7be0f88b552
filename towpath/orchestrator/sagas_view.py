"""The engine's own view: where each saga instance stands, folded from the histories of all sagas. Pure.

It is what `towpath saga list`, an application's client and a person's dashboard read.
"""

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from towpath.orchestrator import envelope
from towpath.orchestrator.message_builder import came_as
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.requests import Answer, answer_of
from towpath.saga.inputs import OperatorAsked, Signalled, UpgradeAsked
from towpath.saga.state import Status
from towpath.view import Occurrence, RowSource, View

NAME = "towpath_saga_instances"
ANSWERS_MAX = 20
"""Answers kept in an instance's row, the last ones: people ask a few times an hour, and wait seconds for the answer."""
ENDINGS = frozenset({Status.COMPLETED.value, Status.COMPENSATED.value})


@dataclass(frozen=True, slots=True)
class SagaInstance:
    """One instance. `status` is the machine's; `reason` says why it compensates; `waiting_for` names open waits."""

    saga_id: str
    saga: str
    version: int
    key: str
    status: str
    reason: str | None
    waiting_for: str | None
    inputs: int
    refused: int
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    result: bytes | None = None
    """What it came to, as it travels on the wire; None where it says nothing or has not completed."""
    answers: str | None = None
    """What became of the requests and signals last decided: JSON, read by `answers_in`."""
    history_offset: int = 0
    """Where the latest entry of its history lies, which of two instances of one key tells which was later."""


def fold(row: SagaInstance | None, entry: HistoryEntry, at: Occurrence) -> SagaInstance:
    """Return the instance after one more entry of its history."""
    moment = datetime.fromtimestamp(entry.at_milliseconds / 1000, UTC)
    row = row or SagaInstance(
        saga_id=entry.saga_id,
        saga=entry.saga,
        version=entry.version,
        key=at.key,
        status=entry.status,
        reason=None,
        waiting_for=None,
        inputs=0,
        refused=0,
        started_at=moment,
        updated_at=moment,
        ended_at=None,
    )
    ended = entry.status in ENDINGS
    return replace(
        row,
        version=entry.version,
        status=entry.status,
        reason=entry.cause or None,
        waiting_for=", ".join(entry.waiting_for) or None,
        inputs=row.inputs + 1,
        refused=row.refused + (entry.happened == "refused"),
        updated_at=moment,
        ended_at=(row.ended_at if row.status == entry.status else moment) if ended else None,
        result=_result(row, entry),
        answers=_answers(row, entry, at),
        history_offset=at.offset,
    )


def answers_in(row: SagaInstance) -> tuple[Answer, ...]:
    """Return what became of the requests and signals last decided, in their order."""
    return tuple(Answer(*answer) for answer in json.loads(row.answers or "[]"))


def _answers(row: SagaInstance, entry: HistoryEntry, at: Occurrence) -> str | None:
    if came_as(entry) not in (OperatorAsked.__name__, Signalled.__name__, UpgradeAsked.__name__):
        return row.answers
    known, answer = answers_in(row), replace(answer_of(entry), history_offset=at.offset)
    if answer.refusal is None:
        # What was refused once may be taken when it is given again: a signal for a wait that had not begun, say.
        known = tuple(one for one in known if one.request_id != answer.request_id)
    elif any(one.request_id == answer.request_id for one in known):
        return row.answers  # its repetition, which is refused: what became of it was said already
    kept = (*known, answer)[-ANSWERS_MAX:]
    return json.dumps([astuple(one) for one in kept], separators=(",", ":"))


def _result(row: SagaInstance, entry: HistoryEntry) -> bytes | None:
    """Return what a saga came to; one that is undone after all came to nothing."""
    if entry.status != Status.COMPLETED.value:
        return None
    return row.result if entry.result is None else entry.result.payload


def instance_of(entry: HistoryEntry, _: Occurrence) -> str | None:
    """Return the instance that an entry is about; what found none has no row."""
    return entry.saga_id or None


def own_views(sagas: Iterable[str]) -> list[View[Any]]:
    """Return the engine's own views in a project of these sagas: without any there is nothing to fold."""
    names = list(sagas)
    return [sagas_view(names)] if names else []


def sagas_view(sagas: Iterable[str]) -> View[Any]:
    """Return the view over the histories of `sagas`; whoever listens on its channel is told an instance's id."""
    return View(
        name=NAME,
        topics=tuple(envelope.topic_of(saga, envelope.HISTORY) for saga in sorted(sagas)),
        row=SagaInstance,
        key="saga_id",
        folds=frozenset({HistoryEntry}),
        version=4,
        fold=fold,
        row_key=instance_of,
        rows=RowSource.ONE_KEY,  # an instance's history has the key of its saga's records
        notify_field="saga_id",
        forgets=True,  # instances end, and their histories expire
    )
