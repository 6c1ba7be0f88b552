"""Says what is wrong with a connection that was passed: closed, lost, a pool that gives none, a failed transaction.

The one rule: what belongs to the caller's own transaction passes as psycopg raised it, a deadlock or a serialization
failure for one: whoever began the transaction begins it again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from towpath.client.saga import NOTHING_WRITTEN
from towpath.errors import ConfigurationError, TowpathError, WorldError, first_line

AGAIN = "do it again on another connection; with the same event_id, signal_id or request_id it takes effect once"
_SQLALCHEMY = {"sqlalchemy.exc.InvalidRequestError"}
_DJANGO = {"django.db.utils.InterfaceError", "django.db.utils.ProgrammingError"}


def kind_of(value: Any) -> str:
    """Return the full name of an object's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def is_one_of(value: Any, names: set[str]) -> bool:
    """Say whether an object's class, or one that it derives from, has one of these full names."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in names for kind in type(value).__mro__)


def require_open(caller: Any, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise ConfigurationError for a connection that was closed, WorldError for one that was lost."""
    if connection.broken:
        raise WorldError(f"the connection of this {kind_of(caller)} was lost", kept=NOTHING_WRITTEN, next_step=AGAIN)
    if connection.closed:
        raise ConfigurationError(
            f"the connection of this {kind_of(caller)} is closed",
            kept=NOTHING_WRITTEN,
            next_step="pass one that is open: write before the block ends that closes it",
        )


@contextmanager
def finding(caller: Any) -> Iterator[None]:
    """Raise ConfigurationError where SQLAlchemy or Django has no open connection to give."""
    try:
        yield
    except Exception as error:
        if not is_one_of(error, _SQLALCHEMY | _DJANGO):
            raise
        raise ConfigurationError(
            f"this {kind_of(caller)} gives no connection: {first_line(error)}",
            kept=NOTHING_WRITTEN,
            next_step="pass one that is open; after an error roll its transaction back first",
        ) from error


@contextmanager
def taking(pool: ConnectionPool[Any] | AsyncConnectionPool[Any]) -> Iterator[None]:
    """Raise ConfigurationError for a pool that is not open, WorldError for one that gives no connection in time."""
    try:
        yield
    except PoolClosed as error:
        raise ConfigurationError(
            f"this {kind_of(pool)} is not open: {first_line(error)}",
            kept=NOTHING_WRITTEN,
            next_step="open it before (pool.open(), await pool.open() or a with block), and close it when all is done",
        ) from error
    except (PoolTimeout, TooManyRequests) as error:
        raise WorldError(
            f"this {kind_of(pool)} gave no connection: {first_line(error)}",
            kept=NOTHING_WRITTEN,
            next_step="see that its database is there, and that its connections are given back; or raise its max_size",
        ) from error


@contextmanager
def writing(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Say what a failed, a read-only, a forbidden or a lost transaction means for what was to be written."""
    try:
        with _lost(connection, "writing", "a transaction that was open is rolled back"):
            yield
    except (errors.InFailedSqlTransaction, errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege) as error:
        raise _refused(error) from error


@contextmanager
def committing(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Say what it means that the connection was lost in the commit: nobody knows whether that stands."""
    with _lost(connection, "committing", "what was written now is kept whole, or not at all"):
        yield


@contextmanager
def _lost(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], doing: str, kept: str) -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        if not connection.closed:
            raise
        raise WorldError(
            f"the connection was lost while {doing}: {first_line(error)}",
            kept=f"what was committed before; {kept}",
            next_step=AGAIN,
        ) from error


def _refused(error: psycopg.Error) -> TowpathError:
    if isinstance(error, errors.InFailedSqlTransaction):
        cause, next_step = "the transaction has failed already", "roll it back, and begin another one"
    elif isinstance(error, errors.ReadOnlySqlTransaction):
        cause, next_step = "the transaction is read-only", "write in another one, on the server that takes writes"
    else:
        cause = f"the connection's role may not write here: {first_line(error)}"
        next_step = "connect as a role that may: GRANT SELECT, INSERT ON outbox, and SELECT ON outbox_topics, TO it"
    return ConfigurationError(cause, kept=NOTHING_WRITTEN, next_step=next_step)
