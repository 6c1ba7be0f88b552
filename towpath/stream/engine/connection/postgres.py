"""The connection that functions are given: theirs to work with, the engine's to commit and to roll back."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from towpath.errors import ProgrammerError

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
_STATEMENT_EDGE = re.compile(
    r";|/\*|--[^\r\n]*|(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$"
    r"|(?<![\w$])E'(?:[^'\\]++|\\.|'')*+'|'(?:[^']++|'')*+'|\"(?:[^\"]++|\"\")*+\"",
    re.IGNORECASE | re.DOTALL,
)
"""The next semicolon, or the next of what may hold some that end nothing: comments, quoted strings and names."""
_SQL_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)
"""Opens the body of a function in SQL, which has statements of its own, and an END."""


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
    text = _text(query)
    for start in _statements(text):
        if found := _ENDS.match(text, _begins_at(text, start)):
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


def _statements(text: str) -> Iterator[int]:
    """Yield where each statement of `text` begins, as PostgreSQL divides it."""
    yield 0
    if ";" not in text or _SQL_BODY.search(text):
        return
    at = 0
    while found := _STATEMENT_EDGE.search(text, at):
        at = found.end()
        if found[0] == ";":
            yield at
        elif found[0] == "/*":
            at = _comment_ends_at(text, at)
        elif (tag := found["tag"]) is not None:
            closes = text.find(f"${tag}$", at)
            at = len(text) if closes < 0 else closes + len(tag) + 2


def _begins_at(text: str, at: int) -> int:
    """Return where the first word from `at` on stands: after blanks and comments."""
    while found := _NOTHING.match(text, at):
        at = _comment_ends_at(text, found.end()) if found[0] == "/*" else found.end()
    return at


def _comment_ends_at(text: str, at: int) -> int:
    """Return where the comment ends that has begun before `at`. PostgreSQL lets them nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(text, at)):
        at, depth = edge.end(), depth + (1 if edge[0] == "/*" else -1)
    return len(text) if depth else at  # one that never ends: PostgreSQL says so itself


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
