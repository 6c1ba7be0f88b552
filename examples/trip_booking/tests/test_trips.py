"""Whole trips through the running stack: `towpath dev` in one terminal, `pytest` in another."""

import time
from uuid import uuid4

import psycopg
import pytest

from pipelines.services.trip.service import decide, request_cancellation, request_trip
from schemas.records.trip import TripApproved, TripRequested
from towpath import Project

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def project():
    """Return the project, whose stack runs."""
    project = Project.load()
    if not project.is_running():
        pytest.skip("no stack runs: towpath dev")
    return project


@pytest.fixture(scope="module")
def client(project):
    """Return a client of its sagas."""
    return project.client()


def ask(project, client, *, flight="TW101", hotel="Lock Inn", card="card-1"):
    """Ask for a trip of two nights; return its saga."""
    trip = TripRequested(
        trip_id=f"trip-{uuid4().hex[:8]}",
        traveller=f"ann-{uuid4().hex[:4]}",
        flight=flight,
        hotel=hotel,
        nights=2,
        card=card,
    )
    with psycopg.connect(**project.database("trip")) as connection:
        return request_trip(client, connection, trip, uuid4())


def ended(client, started):
    """Return how a saga ended, and why."""
    status = client.await_ending(started.saga_id, timeout_seconds=90)
    return status.status, status.reason


def row_of(project, trip_id, status):
    """Return the view's row of a trip once it has that status, the last one seen after a minute."""
    end = time.monotonic() + 60
    with psycopg.connect(**project.database("views"), autocommit=True) as connection:
        while True:
            row = connection.execute("SELECT status FROM trip_status WHERE trip_id = %s", (trip_id,)).fetchone()
            if row == (status,) or time.monotonic() > end:
                return row
            time.sleep(0.1)


def test_a_trip_is_booked_then_cancelled(project, client):
    """Two sagas about one trip, one after the other."""
    started = ask(project, client)
    assert ended(client, started) == ("completed", None)
    with psycopg.connect(**project.database("trip")) as connection:
        cancelling = request_cancellation(client, connection, started.key, uuid4())
    assert ended(client, cancelling) == ("completed", None)
    assert row_of(project, started.key, "cancelled") == ("cancelled",)


def test_a_full_flight_is_taken_back(project, client):
    """The room is let go, and the trip rejected."""
    started = ask(project, client, flight="TW202")
    assert ended(client, started)[0] == "compensated"
    assert row_of(project, started.key, "rejected") == ("rejected",)


def test_a_dear_trip_is_approved(project, client):
    """It waits, and is confirmed once a person says so."""
    started = ask(project, client, hotel="Towpath Palace", card="card-2")
    hotel = ask(project, client, hotel="Towpath Palace", card="card-declined")
    with psycopg.connect(**project.database("trip")) as connection:
        decide(client, connection, TripApproved(trip_id=started.key, approver="bea"))
    assert ended(client, started)[0] == "completed"
    assert ended(client, hotel)[0] == "compensated"
