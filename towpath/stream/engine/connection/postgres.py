"""The connection that functions are given: theirs to work with, the engine's to commit and to roll back."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg import sql

from towpath.stream.engine.failures import EffectsKept

Connection = psycopg.Connection[Any]

_COMMIT = "COMMIT; RESET ALL; RESET SESSION AUTHORIZATION; RESET ROLE"
"""What functions SET for the session (a role, a search path, a tenant) ends with their unit, in its last request.

Not before the transaction does: deferred triggers run within COMMIT, and see what their function has set.
"""
_ENDS = re.compile(
    r"(COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+((WORK|TRANSACTION)\s+)?TO\b))\b", re.IGNORECASE
)
_NOTHING = re.compile(r"[\s;]+|--[^\r\n]*|/\*")
_COMMENT_EDGE = re.compile(r"/\*|\*/")


class TransactionEnded(EffectsKept):
    """A function ended the transaction that it was given, which commits with the offsets of its records."""

    def __init__(self, how: str, *, kept: str = "nothing of the unit of work") -> None:
        super().__init__(
            f"a handler ended its unit's transaction: {how}",
            kept=kept,
            next_step="take that out: the engine commits what handlers did with the offsets, or rolls it back; "
            "to take back a part of it, use a savepoint (with connection.transaction())",
        )


class UnitCursor(psycopg.Cursor[Any]):
    """Refuses what begins with the end of the transaction."""

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
        """Execute. Raises TransactionEnded."""
        _refuse_end(query)
        return super().execute(query, *arguments, **options)

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        """Execute for each. Raises TransactionEnded."""
        _refuse_end(query)
        super().executemany(query, *arguments, **options)

    def stream(self, query: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        """Execute, and yield row by row. Raises TransactionEnded."""
        _refuse_end(query)
        return super().stream(query, *arguments, **options)

    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        """Copy. Raises TransactionEnded."""
        _refuse_end(statement)
        return super().copy(statement, *arguments, **options)


def _refuse_end(query: Any) -> None:
    """Raise TransactionEnded for what begins with the end of the transaction, in any form that psycopg takes."""
    text = _text(query)
    if found := _ENDS.match(text, _begins_at(text)):
        raise TransactionEnded(found[1].upper())


def _text(query: Any) -> str:
    """Return a query's words. What is put into them is a name or a value, and ends nothing."""
    if isinstance(query, sql.Composed):
        return "".join(map(_text, query))
    if isinstance(query, bytes):
        return query.decode("latin-1")
    if isinstance(query, sql.SQL):
        return query.as_string()
    return query if isinstance(query, str) else "?"


def _begins_at(text: str) -> int:
    """Return where the first word of `text` stands: after blanks and comments, which PostgreSQL lets nest."""
    at = 0
    while found := _NOTHING.match(text, at):
        at, depth = found.end(), int(found[0] == "/*")
        while depth and (edge := _COMMENT_EDGE.search(text, at)):
            at, depth = edge.end(), depth + (1 if edge[0] == "/*" else -1)
        if depth:
            return len(text)  # a comment that never ends: PostgreSQL says so itself
    return at


class UnitConnection(psycopg.Connection[Any]):
    """The connection of units' functions: theirs to work with, the engine's to commit and to roll back.

    Ended by a function, a transaction would take what other records did with it, or leave it without its offsets.
    """

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
