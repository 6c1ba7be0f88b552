"""The statements by which a client reads the view of instances, synchronously or not."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors, sql

from towpath.client.awaiting import Which
from towpath.client.base import Home
from towpath.client.driver.postgres import AsyncConnection, Connection
from towpath.errors import ConfigurationError, WorldError, first_line
from towpath.orchestrator.sagas_view import NAME, SagaInstance

_SELECT = sql.SQL("SELECT {} FROM {}").format(
    sql.SQL(", ").join(sql.Identifier(field.name) for field in dataclasses.fields(SagaInstance)), sql.Identifier(NAME)
)
_BY_ID = _SELECT + sql.SQL(" WHERE saga_id = %s")
_BY_KEY = _SELECT + sql.SQL(" WHERE key = %s AND saga = %s ORDER BY started_at DESC")
LISTEN = sql.SQL("LISTEN {}").format(sql.Identifier(NAME))


def query_of(which: Which) -> tuple[sql.Composed, tuple[str, ...]]:
    """Return the statement that finds instances, and its values."""
    if which.saga_id is None:
        return _BY_KEY, (which.key, which.saga)
    return _BY_ID, (which.saga_id,)


def home_of(connection: Connection | AsyncConnection, topic: str) -> Home:
    """Return which database a connection is to, and the topic that is asked for: what was found there is kept."""
    return connection.info.host, connection.info.port, connection.info.dbname, topic


@contextmanager
def reading() -> Iterator[None]:
    """Raise WorldError where the views cannot be read, ConfigurationError where they may not."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the views' database cannot be read: {str(error).strip()}",
            kept="the sagas themselves, which do not depend on it",
            next_step="towpath status, or check [postgres] in towpath.toml",
        ) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"the view of instances may not be read: {first_line(error)}",
            kept="the sagas themselves, which do not depend on it",
            next_step=f"connect as another role, or let this one read: GRANT SELECT ON {NAME} TO it",
        ) from error
    except errors.UndefinedColumn as error:
        raise WorldError(
            f"the view of instances was kept by an older release: {first_line(error)}",
            kept="the sagas themselves, which do not depend on it",
            next_step="towpath run view:sagas, of this release: it builds the view anew beside the old one",
        ) from error
