"""What an application knows of its sagas."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.records.order import ConfirmOrder, OrderCancellationRequested, OrderPlaced
from tests.next_steps import step_in
from towpath.client import Answer, InstanceStatus, NotEnded, Sent, Started
from towpath.client.awaiting import AnswerTo
from towpath.client.saga import standing_of, start_topic
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.errors import ConfigurationError
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import SagaInstance, fold
from towpath.saga.keys import saga_id_of
from towpath.settings import load_settings
from towpath.view import Occurrence

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load(load_settings(Path(__file__).resolve().parents[3], environment=False))


def standing(status: str, waiting_for: str | None = None) -> InstanceStatus:
    """Return how an instance stands."""
    return InstanceStatus(
        saga="place_order",
        saga_id="s-1",
        key="o-1",
        version=1,
        status=status,
        reason=None,
        waiting_for=waiting_for,
        started_at=NOW,
        updated_at=NOW,
        ended_at=None,
    )


def test_the_id_of_a_saga_is_known_before_it_begins() -> None:
    """It follows from the definition's name and the start event's id, as the orchestrator derives it."""
    event_id = UUID(int=7)
    assert Started.by("place_order", "o-1", event_id).saga_id == saga_id_of("place_order", str(event_id))


@pytest.mark.parametrize(
    ("status", "ended", "stuck"),
    [
        ("running", False, False),
        ("compensating", False, False),
        ("completed", True, False),
        ("compensated", True, False),
        ("stuck", False, True),
    ],
)
def test_two_endings_and_one_halt(status: str, ended: bool, stuck: bool) -> None:
    """Stuck is no ending: a person may yet bring it to one."""
    assert (standing(status).ended, standing(status).stuck) == (ended, stuck)


def test_who_waited_in_vain_learns_how_it_stood() -> None:
    """And for whom it waits."""
    error = NotEnded("s-1", 3.0, standing("running", "approval"))
    assert "it is running, waiting for approval" in str(error)
    assert "nothing was seen of it" in str(NotEnded("s-1", 3.0, None))


def test_who_waited_in_vain_is_told_what_says_why() -> None:
    """A saga whose command is dead stands so while every worker is ready: its own account tells of the letter."""
    waited = NotEnded("s-1", 3.0, standing("running", "authorise_payment"))
    assert step_in(waited, "saga why x x") == ["saga", "why", "place_order", "s-1"]
    unseen = NotEnded("s-1", 3.0, None)
    assert step_in(unseen, "saga why x x") == ["saga", "why", "SAGA", "s-1"]


@pytest.mark.parametrize(
    ("saga", "record"), [("place_order", OrderPlaced), ("cancel_order", OrderCancellationRequested)]
)
def test_the_topic_of_a_start_event_comes_from_the_catalogue(
    catalogue: Catalogue, saga: str, record: type[Record]
) -> None:
    """No application types it."""
    assert start_topic(catalogue, saga, record) == "order.events"


@pytest.mark.parametrize(("saga", "record"), [("place_order", ConfirmOrder), ("no_such_saga", OrderPlaced)])
def test_what_starts_no_such_saga_is_refused(catalogue: Catalogue, saga: str, record: type[Record]) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigurationError, match=f"to saga {saga}"):
        start_topic(catalogue, saga, record)


@pytest.mark.parametrize(
    ("running", "answered"),
    [({}, None), ({"history_offset": 8}, "refused"), ({"status": "completed"}, "refused"), ({"took": True}, "taken")],
    ids=["another may take it", "another has passed it", "the other has ended too", "the other took it"],
)
def test_a_refusal_is_the_answer_once_no_other_instance_may_take_the_signal(
    running: dict[str, Any], answered: str | None
) -> None:
    """The view has the ended instance's entry of it already, and the running one's with its next batch."""
    sent = Sent("place_order", "o-1", UUID(int=9), None, None)  # type: ignore[arg-type]
    took = (Answer(str(sent.id), None, "running"),) if running.pop("took", False) else ()
    refused = Answer(str(sent.id), "the saga has ended", "completed", history_offset=7)
    one = replace(standing("completed"), saga_id="1", answers=(refused,), history_offset=9)
    other = replace(standing("running"), saga_id="2", answers=took, **{"history_offset": 6, **running})
    wanted = AnswerTo(sent, 30.0)
    found = wanted.found([other, one])
    assert answered == (None if found is None else "refused" if found.refusal else "taken")
    assert "refused by 1 of them: the saga has ended" in wanted.too_late([other, one]).cause


SIGNAL = str(UUID(int=9))


def seen(*entries: tuple[str, int, str]) -> list[InstanceStatus]:
    """Return how instances stand after entries of their history, in its order: each an instance, its time, its input.

    The input `refused` is the signal that the instance refuses, `taken` the same that it takes.
    """
    rows: dict[str, SagaInstance] = {}
    for offset, (saga_id, at_milliseconds, told) in enumerate(entries):
        signal = told in ("refused", "taken")
        entry = HistoryEntry(
            saga="place_order",
            version=1,
            saga_id=saga_id,
            key="o-1",
            input_id=SIGNAL if signal else f"{offset}",
            at_milliseconds=at_milliseconds,
            happened=told,
            step="",
            direction="",
            attempt=0,
            round=0,
            reason="no wait takes it" if told == "refused" else "",
            actor="",
            status="running",
            cause="",
            waiting_for=(),
            sent=(),
            input="Signalled" if signal else told,
        )
        at = datetime.fromtimestamp(at_milliseconds / 1000, UTC)
        rows[saga_id] = fold(rows.get(saga_id), entry, Occurrence("place_order.history", "o-1", "", at, offset))
    return [standing_of(row, None) for row in rows.values()]  # type: ignore[arg-type]


ASKED = AnswerTo(Sent("place_order", "o-1", UUID(SIGNAL), None, None), 30.0)  # type: ignore[arg-type]
FIRST = [("A", 500, "Started"), ("A", 1000, "refused")]


@pytest.mark.parametrize("began", [2000, 900], ids=["after it by its clock too", "before it by another clock"])
def test_an_instance_that_began_after_the_signal_was_read_is_not_waited_for(began: int) -> None:
    """It never had it; that the one that refused goes on changes nothing."""
    found = ASKED.found(seen(*FIRST, ("B", began, "Started"), ("A", 3000, "Replied")))
    assert found is not None
    assert found.refusal == "no wait takes it"


@pytest.mark.parametrize(
    "had",
    [[("B", 600, "Started"), ("B", 1005, "Replied")], [("B", 1005, "Started")]],
    ids=["a reply", "its start"],
)
def test_what_was_written_after_a_signal_and_read_before_it_says_nothing_of_it(had: list[tuple[str, int, str]]) -> None:
    """The times of inputs are of several clocks: the other instance takes the signal with the view's next batch."""
    assert ASKED.found(seen(*had, *FIRST)) is None
    taken = ASKED.found(seen(*had, *FIRST, ("B", 1000, "taken")))
    assert taken is not None
    assert taken.refusal is None
