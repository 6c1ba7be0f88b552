"""The outbox is the one in `public`, whatever else a database has; a table of the service's own is no outbox."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.integration.outbox.test_outbox import message, written
from towpath.errors import ConfigurationError, WorldError
from towpath.outbox.postgres import COPY_FROM_ROWS, apply_outbox_schema, may_write, write, write_async
from towpath.settings import OutboxSettings, PostgresSettings

pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]


def apply(connection: Connection) -> None:
    """Do what every start of the stack does."""
    apply_outbox_schema(connection, PostgresSettings(), OutboxSettings(), topics={"order.events": 1_000_000})


async def write_one(url: str) -> None:
    """Write a message asynchronously."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await write_async(connection, [message(2)])


def own_schema(connection: Connection) -> None:
    """Make the schema that PostgreSQL looks into first: the one called as the user is."""
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(connection.info.user)))
    connection.commit()


@pytest.mark.parametrize("before", [False, True], ids=["later", "from the beginning"])
def test_a_schema_of_the_users_name_gets_no_outbox(database_url: str, before: bool) -> None:
    """Nobody would capture that one."""
    with psycopg.connect(database_url) as connection:
        if not before:
            apply(connection)
        own_schema(connection)
        apply(connection)
        write(connection, [message(1)])
        assert connection.execute("SELECT schemaname, tablename FROM pg_publication_tables ORDER BY 2").fetchall() == [
            ("public", "outbox"),
            ("public", "outbox_heartbeat"),
        ]
        schemas = connection.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename ^@ 'outbox'").fetchall()
        assert schemas == [("public",)]


def test_messages_go_into_the_captured_table_whatever_the_session_looks_into_first(
    connection: Connection, database_url: str
) -> None:
    """One by one, by COPY, asynchronously; a table of that name elsewhere is the service's own."""
    elsewhere = (
        "CREATE SCHEMA mine; CREATE TABLE mine.outbox (LIKE outbox); CREATE TABLE mine.outbox_topics (name text)"
    )
    connection.execute(f"{elsewhere}; ALTER DATABASE {connection.info.dbname} SET search_path = mine")
    connection.commit()
    with psycopg.connect(database_url) as ours:
        write(ours, [message(1)])
        write(ours, [message(n) for n in range(COPY_FROM_ROWS)])
        ours.commit()
        assert may_write(ours, "order.events")
    asyncio.run(write_one(database_url))
    assert len(written(connection)) == 2 + COPY_FROM_ROWS


def test_a_publication_of_another_outbox_is_put_right(connection: Connection) -> None:
    """Once, a schema of the user's name had both."""
    connection.execute("CREATE SCHEMA mine; CREATE TABLE mine.outbox (LIKE outbox)")
    connection.execute("ALTER PUBLICATION towpath_outbox SET TABLE mine.outbox")
    connection.commit()
    apply(connection)
    tables = connection.execute("SELECT schemaname || '.' || tablename FROM pg_publication_tables ORDER BY 1")
    assert tables.fetchall() == [("public.outbox",), ("public.outbox_heartbeat",)]


OTHERS = {
    "a table": "CREATE TABLE outbox (id uuid PRIMARY KEY, body jsonb)",
    "a table of days": "CREATE TABLE outbox (id uuid, created_at timestamp) PARTITION BY RANGE (created_at)",
    "a view": "CREATE VIEW outbox AS SELECT 1 AS id",
}


@pytest.mark.parametrize("made", OTHERS.values(), ids=OTHERS.keys())
def test_a_service_that_has_something_called_outbox_is_told_so(database_url: str, made: str) -> None:
    """A name that many use already."""
    with psycopg.connect(database_url) as connection:
        connection.execute(made.encode())
        connection.commit()
        with pytest.raises(
            ConfigurationError, match=f"database {connection.info.dbname} has a public.outbox"
        ) as raised:
            apply(connection)
        said = raised.value.next_step or ""
        connection.execute(said[said.index("ALTER") : said.index(";")].encode())
        connection.commit()
        apply(connection)


def test_a_database_that_takes_no_writes_is_told_of(database_url: str) -> None:
    """As a standby, or one whose disk is full, where it is given its tables."""
    read_only = psycopg.connect(database_url, options="-c default_transaction_read_only=on")
    with read_only as connection, pytest.raises(WorldError, match="takes no writes"):
        apply(connection)
