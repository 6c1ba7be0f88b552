"""What an application knows of its sagas."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.records.order import ConfirmOrder, OrderCancellationRequested, OrderPlaced
from towpath.client import Answer, InstanceStatus, NotEnded, Sent, Started
from towpath.client.awaiting import AnswerTo
from towpath.client.saga import start_topic
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.errors import ConfigurationError
from towpath.saga.keys import saga_id_of
from towpath.settings import load_settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)


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
    [({}, None), ({"updated_at": LATER}, "refused"), ({"status": "completed"}, "refused"), ({"took": True}, "taken")],
    ids=["another may take it", "another has passed it", "the other has ended too", "the other took it"],
)
def test_a_refusal_is_the_answer_once_no_other_instance_may_take_the_signal(
    running: dict[str, Any], answered: str | None
) -> None:
    """The view has the ended instance's entry of it already, and the running one's with its next batch."""
    sent = Sent("place_order", "o-1", UUID(int=9), None, None)  # type: ignore[arg-type]
    took = (Answer(str(sent.id), None, "running"),) if running.pop("took", False) else ()
    one = replace(
        standing("completed"), saga_id="1", answers=(Answer(str(sent.id), "the saga has ended", "completed"),)
    )
    other = replace(standing("running"), saga_id="2", answers=took, **running)
    wanted = AnswerTo(sent, 30.0)
    found = wanted.found([other, one])
    assert answered == (None if found is None else "refused" if found.refusal else "taken")
    assert "refused by 1 of them: the saga has ended" in wanted.too_late([other, one]).cause
