"""Finds psycopg's connection beneath a pool, a session or connection of SQLAlchemy, and Django's connection.

The one rule: the connection that is found is the one in which the caller's transaction is open, so what is written
through it commits or rolls back with that. No library but psycopg is imported: whoever passes its object has it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from towpath.client.mistakes.postgres import committing, finding, is_one_of, kind_of, require_open, taking, writing
from towpath.client.saga import NOTHING_WRITTEN
from towpath.errors import ConfigurationError

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]


class Wrapper(Protocol):
    """What has psycopg's connection beneath it: SQLAlchemy's Session or Connection, Django's connection."""

    @property
    def connection(self) -> Any:
        """Return the next one beneath, or, of a session, the method that does."""
        ...


Caller = Connection | ConnectionPool[Any] | Wrapper
"""What a synchronous application passes to write through."""
AsyncCaller = AsyncConnection | AsyncConnectionPool[Any] | Wrapper
"""What an asynchronous application passes to write through."""

_SESSIONS = {"sqlalchemy.orm.session.Session", "sqlalchemy.orm.scoping.scoped_session"}
_CONNECTIONS = {"sqlalchemy.engine.base.Connection"}
_ASYNC_SESSIONS = {
    "sqlalchemy.ext.asyncio.session.AsyncSession",
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session",
}
_ASYNC_CONNECTIONS = {"sqlalchemy.ext.asyncio.engine.AsyncConnection"}
_DJANGO = {"django.db.backends.base.base.BaseDatabaseWrapper", "django.utils.connection.ConnectionProxy"}


@contextmanager
def driver_of(caller: Caller) -> Iterator[Connection]:
    """Give psycopg's connection beneath `caller`; of a pool one of its own, committed at the end.

    Raises ConfigurationError where there is none, only an asynchronous one, or one that is closed or cannot write;
    WorldError where it was lost.
    """
    if isinstance(caller, ConnectionPool):
        with ExitStack() as stack:
            with taking(caller):
                pooled = stack.enter_context(caller.connection())
            with writing(pooled):
                yield pooled
            with committing(pooled):
                pooled.commit()
        return
    with finding(caller):
        found = _beneath(caller)
    if not isinstance(found, psycopg.Connection):
        raise _not_psycopg(caller, found, asynchronous=False)
    require_open(caller, found)
    with writing(found):
        yield found


@asynccontextmanager
async def async_driver_of(caller: AsyncCaller) -> AsyncIterator[AsyncConnection]:
    """Give psycopg's asynchronous connection beneath `caller`; of a pool one of its own, committed at the end.

    Raises what `driver_of` raises.
    """
    if isinstance(caller, AsyncConnectionPool):
        async with AsyncExitStack() as stack:
            with taking(caller):
                pooled = await stack.enter_async_context(caller.connection())
            with writing(pooled):
                yield pooled
            with committing(pooled):
                await pooled.commit()
        return
    found: Any = caller
    with finding(caller):
        if is_one_of(found, _ASYNC_SESSIONS):
            found = await found.connection()
        if is_one_of(found, _ASYNC_CONNECTIONS):
            found = (await found.get_raw_connection()).driver_connection
    if not isinstance(found, psycopg.AsyncConnection):
        raise _not_psycopg(caller, found, asynchronous=True)
    require_open(caller, found)
    with writing(found):
        yield found


def _beneath(caller: Any) -> Any:
    found = caller
    if is_one_of(found, _SESSIONS):
        found = found.connection()
    if is_one_of(found, _CONNECTIONS):
        return found.connection.driver_connection
    if is_one_of(found, _DJANGO):
        found.ensure_connection()
        return found.connection
    return found


def _not_psycopg(caller: Any, found: Any, *, asynchronous: bool) -> ConfigurationError:
    beneath = "" if found is caller else f", beneath which is a {kind_of(found)}"
    of_other = (psycopg.Connection, ConnectionPool) if asynchronous else (psycopg.AsyncConnection, AsyncConnectionPool)
    wrapped = _SESSIONS | _CONNECTIONS | _DJANGO if asynchronous else _ASYNC_SESSIONS | _ASYNC_CONNECTIONS
    other = isinstance(found, of_other) or is_one_of(caller, wrapped)
    own, another = ("AsyncClient", "Client") if asynchronous else ("Client", "AsyncClient")
    return ConfigurationError(
        f"{own} cannot write through a {kind_of(caller)}{beneath}",
        kept=NOTHING_WRITTEN,
        next_step=f"pass it to {another}"
        if other
        else "pass psycopg's connection or pool, a session or connection of SQLAlchemy that uses psycopg "
        "(postgresql+psycopg://), or Django's connection",
    )
