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
    r"(?>\s|;|--[^\r\n]*|/\*(?s:.*?)\*/)*+(COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+((WORK|TRANSACTION)\s+)?TO\b))\b",
    re.IGNORECASE,
)


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


def _refuse_end(query: Any) -> None:
    """Raise TransactionEnded for what begins with the end of the transaction, in any form that psycopg takes."""
    while isinstance(query, sql.Composed):  # only how it begins: composing it whole would be done twice
        query = next(iter(query), "")
    text = query.as_string() if isinstance(query, sql.SQL) else query
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    if isinstance(text, str) and (found := _ENDS.match(text)):
        raise TransactionEnded(found[1].upper())


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
