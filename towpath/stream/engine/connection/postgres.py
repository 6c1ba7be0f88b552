"""The connection that functions are given: theirs to work with, the engine's to commit and to roll back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from towpath.errors import ProgrammerError
from towpath.stream.engine.sql_text import first_end

Connection = psycopg.Connection[Any]

_COMMIT = "COMMIT; RESET ALL; RESET SESSION AUTHORIZATION; RESET ROLE"
"""What functions SET for the session (a role, a search path, a tenant) ends with their unit, in its last request.

Not before the transaction does: deferred triggers run within COMMIT, and see what their function has set.
"""


class TransactionEnded(ProgrammerError):
    """A function ended the transaction that it was given, which commits with the offsets of its records."""

    def __init__(self, how: str, *, kept: str = "nothing of the unit of work") -> None:
        super().__init__(
            f"a handler ended its unit's transaction: {how}",
            kept=kept,
            next_step="take that out: the engine commits what handlers did with the offsets, or rolls it back; "
            "to take back a part of it, use a savepoint (with connection.transaction())",
        )


class _NeverEnds:
    """What is put before a class of cursors: refuses statements that end the transaction, before anything is sent."""

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        """Execute. Raises TransactionEnded."""
        refuse_end(query)
        return super().execute(query, *arguments, **options)  # type: ignore[misc]

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> Any:
        """Execute for each. Raises TransactionEnded."""
        refuse_end(query)
        return super().executemany(query, *arguments, **options)  # type: ignore[misc]

    def stream(self, query: Any, *arguments: Any, **options: Any) -> Any:
        """Execute, and yield row by row. Raises TransactionEnded."""
        refuse_end(query)
        return super().stream(query, *arguments, **options)  # type: ignore[misc]

    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        """Copy. Raises TransactionEnded."""
        refuse_end(statement)
        return super().copy(statement, *arguments, **options)  # type: ignore[misc]


def _never_ending(factory: type[Any]) -> type[Any]:
    return factory if issubclass(factory, _NeverEnds) else type(factory.__name__, (_NeverEnds, factory), {})


def refuse_end(query: Any) -> None:
    """Raise TransactionEnded for what ends the transaction in any of its statements, in any form psycopg takes."""
    if found := first_end(_text(query)):
        raise TransactionEnded(found)


def _text(query: Any) -> str:
    """Return a query's words. What is put into them is a name or a value, and ends nothing."""
    if isinstance(query, sql.Composed):
        return "".join(map(_text, query))
    if isinstance(query, bytes):
        return query.decode(errors="surrogateescape")
    if isinstance(query, sql.SQL):
        return query.as_string()
    return query if isinstance(query, str) else "?"


class UnitConnection(psycopg.Connection[Any]):
    """The connection of units' functions: theirs to work with, the engine's to commit and to roll back.

    Ended by a function, a transaction would take what other records did with it, or leave it without its offsets.
    """

    @property
    def cursor_factory(self) -> type[Any]:
        """The class of its cursors: whichever a function sets, they end no transaction."""
        return self._cursor_factory

    @cursor_factory.setter
    def cursor_factory(self, factory: type[Any]) -> None:
        self._cursor_factory = _never_ending(factory) if isinstance(factory, type) else factory

    def commit(self) -> None:
        """Raise TransactionEnded."""
        raise TransactionEnded("commit()")

    def rollback(self) -> None:
        """Raise TransactionEnded."""
        raise TransactionEnded("rollback()")

    def set_autocommit(self, value: bool) -> None:  # noqa: ARG002 - psycopg's signature
        """Raise TransactionEnded."""
        raise TransactionEnded("autocommit")

    def commit_unit(self) -> None:
        """Commit, and forget what was set for the session."""
        psycopg.Cursor(self).execute(_COMMIT, prepare=False)

    def roll_back_unit(self) -> None:
        """Roll back."""
        super().rollback()


@contextmanager
def own_factories(connection: Connection) -> Iterator[None]:
    """Have what runs within set which rows and cursors the connection makes (as dicts, say) for itself alone."""
    kept = connection.row_factory, connection.cursor_factory, connection.server_cursor_factory
    try:
        yield
    finally:
        connection.row_factory, connection.cursor_factory, connection.server_cursor_factory = kept
