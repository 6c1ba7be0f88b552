"""A database of the crash test's own, in the stack's PostgreSQL."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.stack_fixture import RunningStack


@pytest.fixture
def crash_database(stack: RunningStack) -> Iterator[str]:
    """Return the URL of an empty database."""
    name = f"crash_{uuid.uuid4().hex[:10]}"
    options: dict[str, Any] = dict(stack.settings.postgres.connection_options())
    admin = stack.settings.postgres.database_url("postgres")
    with psycopg.connect(admin, autocommit=True, **options) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = psycopg.conninfo.make_conninfo(stack.settings.postgres.database_url(name), **options)
    yield url
    with psycopg.connect(admin, autocommit=True, **options) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
