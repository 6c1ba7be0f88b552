"""How many sagas there are and how they stand, sampled from the view of instances on a real database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from sagas.place_order import saga
from towpath import metrics
from towpath.orchestrator.gauges.postgres import NEAR, SagaGauges
from towpath.orchestrator.sagas_view import SagaInstance, sagas_view
from towpath.view.postgres import ViewTable

pytestmark = pytest.mark.stack
DEADLINE = timedelta(milliseconds=saga.definition.deadline_milliseconds)
NOW = datetime.now(UTC)
INSTANCE = SagaInstance("", "place_order", 1, "o-1", "running", None, None, 1, 0, NOW, NOW, None)


def test_what_runs_out_of_time_is_counted_by_version(database_url: str) -> None:
    """Only what runs, and only versions that this worker knows; one of which there is no instance is told as none."""
    table = ViewTable(sagas_view(["place_order"]))
    old = NOW - DEADLINE * (NEAR + 0.01)
    rows = [
        replace(INSTANCE, saga_id="fresh"),
        replace(INSTANCE, saga_id="near", started_at=old),
        replace(INSTANCE, saga_id="near, too", started_at=old),
        replace(INSTANCE, saga_id="stuck", started_at=old, status="stuck"),
        replace(INSTANCE, saga_id="unknown", started_at=old, version=7),
    ]
    sagas = {"place_order": {1: saga.definition, 2: saga.definition}}
    assert SagaGauges(database_url, {}, sagas)() == [], "no worker has kept the view yet"
    with psycopg.connect(database_url) as connection:
        table.create(connection)
        table.store(connection, {row.saga_id: row for row in rows})
    found = {(gauge, labels): value for gauge, labels, value in SagaGauges(database_url, {}, sagas)()}
    assert found[metrics.SAGAS, ("place_order", "1", "running")] == 3
    assert found[metrics.SAGAS, ("place_order", "1", "stuck")] == 1
    assert found[metrics.SAGAS, ("place_order", "7", "running")] == 1
    near = {labels: value for (gauge, labels), value in found.items() if gauge is metrics.SAGAS_NEAR_DEADLINE}
    assert near == {("place_order", "1"): 2, ("place_order", "2"): 0}
    assert found[metrics.SAGA_AGE_SECONDS, ("place_order", "running")] > DEADLINE.total_seconds() * NEAR
