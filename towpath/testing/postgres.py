"""Scratch databases for tests: made on a server when they are first asked for, emptied between tests, then dropped.

The one rule: nothing outside the databases that this file made is touched: no role, no slot, no other database.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row
from pydantic import SecretStr

from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError, WorldError
from towpath.outbox.message import COLUMNS, OutboxMessage
from towpath.outbox.names import VIEWS_DATABASE
from towpath.outbox.postgres import apply_outbox_schema
from towpath.outbox.topics import REQUEST_BYTES_MAX, writable_topics
from towpath.project import load_views
from towpath.settings import Settings
from towpath.view.postgres import ViewTable
from towpath.view.view import View

Connection = psycopg.Connection[Any]

CONNECT_TIMEOUT_SECONDS = 60
NAMES_TRIED_MAX = 100
"""Databases that earlier runs left behind, killed before they could drop theirs, are stepped over; so many at most."""

_TABLES = """
SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'towpath_scratch') AND n.nspname NOT LIKE 'pg_toast%'
   AND c.relname <> 'outbox_topics'
 ORDER BY c.oid
"""
_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
 ORDER BY attnum
"""
_OWN = ("inbox", "outbox", "inbox_", "outbox_", "towpath_")
"""How tables of the engine begin, or are called: what a service keeps is in the others."""


class ScratchServer:
    """A PostgreSQL server on which tests have databases of their own."""

    def __init__(self, url: str) -> None:
        """Take a server: `url` is any of its databases', with a user that may create databases.

        Raises WorldError where it does not answer, ConfigurationError where the user may not.
        """
        self.url = url
        self._made: dict[str, str] = {}
        self._ends = ExitStack()
        self._administrator = self._ends.enter_context(self._administrate())

    def settings(self, settings: Settings, names: Iterable[str]) -> Settings:
        """Return settings whose databases called `names` are scratch ones, made where they are missing and empty."""
        urls = {name: SecretStr(self._url_of(name)) for name in names}
        postgres = settings.postgres.model_copy(update={"urls": urls, "password": None})
        return settings.model_copy(update={"postgres": postgres})

    def prepare(self, name: str, make: Callable[[], None]) -> None:
        """Have the database called `name` as `make` leaves it: made by it the first time, emptied of all else later."""
        with connect(self._url_of(name)) as connection:
            connection.execute("SET lock_timeout = '60s'")  # of a test that left a transaction open
            found = connection.execute("SELECT to_regnamespace('towpath_scratch') IS NOT NULL").fetchone()
            made = found is not None and bool(found[0])
            if made:
                _restore(connection)
        if not made:
            make()
            with _connect(self._url_of(name)) as connection:
                _keep_seeds(connection)

    def close(self) -> None:
        """Drop the databases, over a connection of its own: the server may have been started anew meanwhile."""
        with self._ends:
            if self._made:
                with self._administrate() as connection:
                    for name in self._made.values():
                        connection.execute(
                            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                        )
                self._made.clear()

    def _administrate(self) -> Connection:
        connection = _connect(_with_database(self.url, urlsplit(self.url).path[1:] or "postgres"))
        connection.autocommit = True
        return connection

    def _url_of(self, name: str) -> str:
        if name not in self._made:
            self._made[name] = self._make(name)
        return _with_database(self.url, self._made[name])

    def _make(self, name: str) -> str:
        for number in range(NAMES_TRIED_MAX):
            made = f"towpath_test_{os.getpid()}_{number}_{name}"[:63]
            try:
                self._administrator.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(made)))
            except (errors.DuplicateDatabase, errors.UniqueViolation):
                continue
            except errors.InsufficientPrivilege as error:
                raise ConfigurationError(
                    f"{self._administrator.info.user} may not create databases for tests",
                    next_step=f"have an administrator run: ALTER ROLE {self._administrator.info.user} CREATEDB",
                ) from error
            return made
        raise ConfigurationError(
            f"{NAMES_TRIED_MAX} databases called towpath_test_{os.getpid()}_... are left of earlier runs",
            next_step="drop the databases whose names begin with towpath_test_",
        )


def _connect(url: str) -> Connection:
    try:
        return psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_SECONDS)
    except psycopg.OperationalError as error:
        host = urlsplit(url).hostname
        raise WorldError(
            f"the PostgreSQL server for tests at {host} cannot be reached: {str(error).strip()}",
            next_step="start it; or towpath up, which runs one here, and then pytest --towpath-postgres up",
        ) from error


def connect(url: str) -> Connection:
    """Return a connection whose commits need not wait for the disk: a test's data need not survive a power cut."""
    connection = _connect(url)
    connection.execute("SET synchronous_commit = off")
    connection.commit()
    return connection


def server_url(settings: Settings) -> str:
    """Return the URL of the server that the settings name, which `towpath up` runs by default."""
    parts = urlsplit(settings.postgres.url)
    password = settings.postgres.connection_options().get("password")
    if password and parts.username and not parts.password:
        place = parts.netloc.rpartition("@")[2]
        parts = parts._replace(netloc=f"{parts.username}:{quote(password, safe='')}@{place}")
    return urlunsplit(parts)


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _keep_seeds(connection: Connection) -> None:
    """Keep what a service's own SQL has put into its tables: every test begins with it."""
    with connection.transaction():
        connection.execute("CREATE SCHEMA towpath_scratch")
        for oid, schema, table in connection.execute(_TABLES).fetchall():
            if _has_rows(connection, schema, table):
                copy = sql.Identifier("towpath_scratch", str(oid))
                connection.execute(
                    sql.SQL("CREATE TABLE {} AS SELECT {} FROM {}").format(
                        copy, _columns(connection, oid), sql.Identifier(schema, table)
                    )
                )


def _restore(connection: Connection) -> None:
    """Empty every table, then put back what was there in the beginning: in the order in which tables were made."""
    with connection.transaction():
        tables = connection.execute(_TABLES).fetchall()
        filled = [sql.Identifier(schema, table) for _, schema, table in tables if _has_rows(connection, schema, table)]
        if filled:
            names = sql.SQL(", ").join(filled)
            connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(names))
        kept = {int(name) for (name,) in connection.execute(_KEPT)}
        for oid, schema, table in tables:
            if oid in kept:
                columns = _columns(connection, oid)
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                        sql.Identifier(schema, table), columns, columns, sql.Identifier("towpath_scratch", str(oid))
                    )
                )


_KEPT = "SELECT tablename FROM pg_tables WHERE schemaname = 'towpath_scratch'"


def _has_rows(connection: Connection, schema: str, table: str) -> bool:
    found = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, table)))
    return bool(found.fetchall()[0][0])


def _columns(connection: Connection, oid: int) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for (name,) in connection.execute(_COLUMNS, (oid,)))


def allow_topic(url: str, topic: str) -> None:
    """Let the outbox of a scratch database write a topic that no catalogue declares: one that only a test reads."""
    with _connect(url) as connection:
        connection.execute(
            "INSERT INTO public.outbox_topics VALUES (%s, %s) ON CONFLICT DO NOTHING", (topic, REQUEST_BYTES_MAX)
        )


def views_schema(settings: Settings) -> None:
    """Give the views' database its outbox, through which a view's dead letters leave."""
    topics = writable_topics(Catalogue.load(settings), VIEWS_DATABASE, load_views(settings))
    with _connect(settings.postgres.database_url(VIEWS_DATABASE)) as connection:
        apply_outbox_schema(connection, settings.postgres, settings.outbox, topics=topics, capture=False)


def read_view(connection: Connection, view: View[Any]) -> list[Any]:
    """Return the rows of a view, in the order of their keys."""
    return ViewTable(view).all_rows(connection)


class Relay:
    """Reads an outbox as capture does: each row once, in the order in which they were written."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url)
        self._connection.autocommit = True
        self._read: list[int] = []

    def messages(self) -> list[OutboxMessage]:
        """Return the messages that were committed since the last call."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_UNREAD, (self._read,)).fetchall()
        self._read += [row.pop("sequence") for row in rows]
        return [OutboxMessage(**row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


_UNREAD = sql.SQL("SELECT {}, sequence FROM public.outbox WHERE sequence <> ALL(%s) ORDER BY sequence").format(
    sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
)

Snapshot = Mapping[str, tuple[str, ...]]
"""Each table of a service, by name, with its rows as JSON, sorted."""


def snapshot(connection: Connection, ignore: Iterable[str] = ()) -> Snapshot:
    """Return what a service's own tables hold: those of the engine (inbox, outbox, offsets) are left out.

    `ignore` names tables (`audit`), or columns (`audit.written_at`), with their schema where it is not `public`.
    """
    ignored = set(ignore)
    found: dict[str, tuple[str, ...]] = {}
    for oid, schema, table in connection.execute(_TABLES).fetchall():
        name = table if schema == "public" else f"{schema}.{table}"
        if table in _OWN[:2] or table.startswith(_OWN[2:]) or name in ignored:
            continue
        names = [column for (column,) in connection.execute(_COLUMNS, (oid,)) if f"{name}.{column}" not in ignored]
        if names:
            query = sql.SQL("SELECT to_jsonb(t)::text FROM (SELECT {} FROM {}) AS t ORDER BY 1").format(
                sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(schema, table)
            )
            found[name] = tuple(row for (row,) in connection.execute(query))
    return found


class Killed(BaseException):
    """What a worker's death looks like from inside its handler. No error: nothing that handles errors may stop it."""


class Fuse:
    """How many statements a worker executes before it dies; None: it lives, and they are counted."""

    def __init__(self, statements: int | None = None) -> None:
        self._statements = statements
        self.executed = 0

    def burn(self) -> None:
        """Note a statement that is about to be executed. Raises Killed in place of it."""
        if self.executed == self._statements:
            raise Killed
        self.executed += 1


class _WatchedCursor(psycopg.Cursor[Any]):
    """Burns its connection's fuse at every statement."""

    def _burn(self) -> None:
        fuse = getattr(self.connection, "fuse", None)
        if fuse is not None:
            fuse.burn()

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Burn, then execute."""
        self._burn()
        return super().execute(*arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        """Burn, then execute."""
        self._burn()
        super().executemany(*arguments, **options)

    def copy(self, *arguments: Any, **options: Any) -> Any:
        """Burn, then copy."""
        self._burn()
        return super().copy(*arguments, **options)


class WatchedConnection(psycopg.Connection[Any]):
    """A connection whose statements burn `fuse`, where it has one."""

    fuse: Fuse | None = None


def connect_watched(url: str) -> WatchedConnection:
    """Return a connection for a service under test. Raises WorldError where the server does not answer."""
    connection = WatchedConnection.connect(url, connect_timeout=CONNECT_TIMEOUT_SECONDS)
    connection.cursor_factory = _WatchedCursor
    connection.execute("SET synchronous_commit = off")
    connection.commit()
    return connection


def transaction_id(connection: Connection) -> int:
    """Return the id of the open transaction, which a handler's own commit or rollback changes."""
    return int(connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()[0][0])
