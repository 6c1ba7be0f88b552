"""Databases on the stack's PostgreSQL that belong to one test each."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.integration.conftest import RunningStack
from towpath.outbox.postgres import apply_outbox_schema
from towpath.settings import OutboxSettings, PostgresSettings


@pytest.fixture(scope="session")
def server(stack: RunningStack) -> str:
    """Return the URL of the stack's PostgreSQL, without a database."""
    return stack.settings.postgres.url


@pytest.fixture
def database_url(server: str) -> Iterator[str]:
    """Return the URL of an empty database that nobody else uses."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield f"{server}/{name}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """Return a connection to a database that has an outbox."""
    with psycopg.connect(database_url) as connection:
        apply_outbox_schema(connection, PostgresSettings(), OutboxSettings())
        yield connection
        connection.rollback()
