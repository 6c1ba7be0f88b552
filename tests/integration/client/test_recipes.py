"""The recipes of docs/client.md, run: each commits the caller's change and the signal together, or neither."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import django
import psycopg
import pytest
from django.conf import settings as django_settings
from django.db import connections
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from schemas.records.order import OrderApproved
from tests.commands import CODEC
from tests.integration.client.test_client import instance, keep
from towpath.client import Action, AsyncClient, Client, NotAnswered, Started
from towpath.orchestrator.records import OperatorAsked

pytestmark = pytest.mark.stack
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "client.md").read_text(encoding="utf-8")
INSTANCE_ID = UUID(int=1)
RECIPES = dict(re.findall(r"### (.+?)\n.*?```python\n(.*?)```", PAGE, re.S))


@pytest.fixture
def notes(connection: psycopg.Connection) -> psycopg.Connection:
    """Return a connection to an order database with the recipes' own table."""
    connection.execute("CREATE TABLE approval_notes (order_id text PRIMARY KEY, approver text NOT NULL)")
    connection.commit()
    return connection


@pytest.fixture
def clients(client: Client, async_client: AsyncClient, database_url: str) -> dict[str, Any]:
    """Return the names that the page has defined before its recipes."""
    urls = {**client.settings.postgres.urls, "order": client.settings.postgres.urls["views"]}
    postgres = client.settings.postgres.model_copy(update={"urls": urls})
    client.settings = client.settings.model_copy(update={"postgres": postgres})
    return {"client": client, "async_client": async_client, "__name__": "docs"}


@pytest.fixture
def django_database(database_url: str) -> Iterator[None]:
    """Let Django's default connection be one to the test's database."""
    if not django_settings.configured:
        django_settings.configure(DATABASES={}, USE_TZ=True)
        django.setup()
    parts = conninfo_to_dict(database_url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts.get("user"),
        "HOST": parts.get("host"),
        "PORT": parts.get("port"),
    }
    connections["default"] = ConnectionHandler({"default": database})["default"]
    yield
    connections["default"].close()
    del connections["default"]


def recipe(name: str, names: dict[str, Any]) -> Callable[..., Any]:
    """Run a block of the page, and return what it defines."""
    exec(RECIPES[name], names)
    found: Callable[..., Any] = names["try_again" if "stuck" in name else "approve"]
    return found


def approve_through(name: str, names: dict[str, Any], url: str) -> None:
    """Approve order o-1 as the recipe does."""
    approve = recipe(name, names)
    over_psycopg = url.replace("postgresql://", "postgresql+psycopg://")
    if name == "SQLAlchemy":
        approve(create_engine(over_psycopg, poolclass=NullPool), "o-1", "grace")
    elif name == "SQLAlchemy, asynchronous":
        asyncio.run(approve(create_async_engine(over_psycopg, poolclass=NullPool), "o-1", "grace"))
    else:
        approve("o-1", "grace")


TRANSACTIONS = ("A plain script", "SQLAlchemy", "SQLAlchemy, asynchronous", "Django")


@pytest.mark.parametrize("name", TRANSACTIONS)
def test_a_recipe_commits_both(
    name: str, clients: dict[str, Any], notes: psycopg.Connection, database_url: str, django_database: None
) -> None:
    """The note of the application, and the signal in the outbox."""
    approve_through(name, clients, database_url)
    assert notes.execute("SELECT * FROM approval_notes").fetchall() == [("o-1", "grace")]
    ((topic, key, payload),) = notes.execute("SELECT topic, key, payload FROM outbox").fetchall()
    assert (topic, key) == ("place_order.signals", "o-1")
    assert CODEC.decode(payload) == OrderApproved(order_id="o-1", approver="grace")


@pytest.mark.parametrize("name", TRANSACTIONS)
def test_a_recipe_that_fails_writes_neither(
    name: str, clients: dict[str, Any], notes: psycopg.Connection, database_url: str, django_database: None
) -> None:
    """The block fails after the signal was written: with the last word that it has, which is the client's."""
    own = clients["async_client" if "asynchronous" in name else "client"]
    signal = own.signal

    async def fails_async(*given: Any) -> None:
        await signal(*given)
        raise InterruptedError

    def fails(*given: Any) -> None:
        signal(*given)
        raise InterruptedError

    own.signal = fails_async if "asynchronous" in name else fails
    with pytest.raises(InterruptedError):
        approve_through(name, clients, database_url)
    assert notes.execute("SELECT count(*) FROM approval_notes").fetchall() == [(0,)]
    assert notes.execute("SELECT count(*) FROM outbox").fetchall() == [(0,)]


def answered(row_of: Started, id_: object, refusal: str | None, **changes: object) -> Any:
    """Return the row of an instance that has decided a request."""
    mark = "null" if refusal is None else f'"{refusal}"'
    return instance(row_of, answers=f'[["{id_}",{mark},"running"]]', **changes)


@pytest.mark.parametrize("refusal", [None, "the saga has ended"])
def test_the_route_of_the_page_answers_once_the_saga_has(
    clients: dict[str, Any],
    notes: psycopg.Connection,
    views: psycopg.Connection,
    database_url: str,
    refusal: str | None,
) -> None:
    """Applied, or refused with the machine's reason."""
    approve, started = recipe("FastAPI", clients), Started.by("place_order", "o-1", INSTANCE_ID)
    keep(views, instance(started, waiting_for="approval"))

    async def ask() -> Any:
        async with AsyncConnectionPool(database_url, open=False, min_size=1) as pool:
            asking = asyncio.create_task(approve(pool, "o-1", "grace"))
            while not (sent := notes.execute("SELECT id FROM outbox").fetchall()):
                notes.rollback()
                await asyncio.sleep(0.02)
            keep(views, answered(started, sent[0][0], refusal))
            return await asking

    answer = asyncio.run(ask())
    assert (answer.refusal, answer.status) == (refusal, "running")


def test_a_stuck_saga_is_asked_once(
    clients: dict[str, Any], notes: psycopg.Connection, views: psycopg.Connection, database_url: str
) -> None:
    """The same question about the same standing has the same id; a pool's connection commits it at once."""
    client, started = clients["client"], Started.by("place_order", "o-1", INSTANCE_ID)
    keep(views, instance(started, status="stuck"))
    with ConnectionPool(database_url, min_size=1) as pool:
        (standing,) = client.find("place_order", "o-1")
        first, second = (
            client.ask(pool, standing, Action.RESUME, actor="grace", reason=reason) for reason in ("a", "b")
        )
        assert first.id == second.id
        with pytest.raises(NotAnswered, match=r"1 of place_order for key o-1"):
            client.await_answer(first, timeout_seconds=0)
        keep(views, answered(started, first.id, None, status="stuck", updated_at=standing.updated_at))
        (answer,) = recipe("A stuck saga, from code", clients)(pool, "o-1", "grace")
    assert answer.refusal is None
    asked = [CODEC.decode(row[0]) for row in notes.execute("SELECT payload FROM outbox").fetchall()]
    assert [(one.action.value, one.actor) for one in asked if isinstance(one, OperatorAsked)] == [
        ("resume", "grace")
    ] * 3
