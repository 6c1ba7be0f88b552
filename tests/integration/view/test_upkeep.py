"""The outbox of the views' database is kept up by the views' workers: it has no others."""

import asyncio
import inspect

import psycopg
import pytest
from pydantic import SecretStr

from tests.integration.conftest import RunningStack
from tests.integration.view.test_folding import VIEW
from tests.unit.orchestrator.desktop import CODEC
from towpath.outbox.names import VIEWS_DATABASE
from towpath.view.agent import create_view

pytestmark = pytest.mark.stack


def test_a_worker_of_a_view_keeps_the_outbox_up_and_survives_what_the_database_answers(
    connection: psycopg.Connection, database_url: str, stack: RunningStack
) -> None:
    """Old heartbeats go; where something is amiss it goes on, and tries again."""
    urls = {VIEWS_DATABASE: SecretStr(database_url)}
    there = stack.settings.postgres.model_copy(update={"urls": urls})
    settings = stack.settings.model_copy(update={"postgres": there})
    connection.execute("INSERT INTO outbox_heartbeat VALUES (now() - interval '2 hours')")
    connection.commit()
    app = create_view(settings, VIEW, CODEC, slot="one")
    (upkeep,) = (task for task in map(inspect.unwrap, app._app_tasks) if task.__name__ == "upkeep")
    asyncio.run(upkeep())
    assert connection.execute("SELECT count(*) FROM outbox_heartbeat").fetchall() == [(0,)]
    connection.execute("DROP TABLE outbox_heartbeat CASCADE")
    connection.commit()
    asyncio.run(upkeep())
