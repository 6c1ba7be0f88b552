"""Keeps the inbox of a service, and gives its database all the tables that engine and service need."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError, TowpathError, WorldError, first_line
from towpath.outbox.names import slot_name
from towpath.outbox.postgres import (
    Maintenance,
    apply_outbox_schema,
    ensure_slot,
    maintain,
    permitted,
    require_own,
)
from towpath.outbox.topics import writable_topics
from towpath.participant.core import InboxRow
from towpath.participant.migrations import Migration, migrations_of, pending
from towpath.participant.sql_file import statements
from towpath.settings import Settings
from towpath.stream.engine.failures import Blame
from towpath.stream.engine.sqlstate import blame_of

Connection = psycopg.Connection[Any]

_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, InboxRow._fields))
_FETCH = sql.SQL("SELECT {} FROM public.inbox WHERE idempotency_key = ANY(%s)").format(_COLUMNS)
_INSERT = sql.SQL("INSERT INTO public.inbox ({}) VALUES ({})").format(
    _COLUMNS, sql.SQL(", ").join(sql.Placeholder() * len(InboxRow._fields))
)
_COPY = sql.SQL("COPY public.inbox ({}) FROM STDIN (FORMAT BINARY)").format(_COLUMNS)
_COPY_TYPES = ("uuid", "uuid", "text", "text", "text", "text", "int4", "text", "bool", "bool", "text", "bytea")
_MARK = "UPDATE public.inbox SET undone = true WHERE idempotency_key = ANY(%s)"
_CLEAN = """
WITH gone AS (
  DELETE FROM public.inbox WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM public.inbox WHERE recorded_at < now() - make_interval(days => %s) ORDER BY recorded_at LIMIT %s))
  RETURNING recorded_at)
SELECT count(*), max(recorded_at) FROM gone
"""
_FORGET = """
INSERT INTO public.inbox_forgotten AS kept (until) VALUES (%s)
ON CONFLICT (one) DO UPDATE SET until = greatest(kept.until, excluded.until)
"""
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('towpath service', 0))"
CLEAN_ROWS = 5_000
"""Rows of one cleaning statement: some tens of milliseconds, so that no batch waits long behind it."""


def fetch(connection: Connection, keys: Iterable[UUID]) -> list[InboxRow]:
    """Return what is recorded under `keys`, in one statement."""
    return [InboxRow(*row) for row in connection.execute(_FETCH, (list(keys),), binary=True)]


def store(connection: Connection, added: Sequence[InboxRow], marked: Sequence[UUID]) -> None:
    """Add rows and mark others as undone, in the connection's transaction.

    Raises psycopg's UniqueViolation where another worker recorded one of them, WorldError where one that is to be
    marked was cleaned since it was read: the transaction must not commit.
    """
    if len(added) == 1:
        connection.execute(_INSERT, added[0])
    elif added:
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_COPY_TYPES)
            for row in added:
                copy.write_row(row)
    if marked and connection.execute(_MARK, (list(marked),)).rowcount != len(marked):
        raise WorldError(
            "the inbox was cleaned of what is undone here",
            kept="everything as it was before this batch",
            next_step="nothing: it is tried again, against what the inbox has now",
        )


def apply_service_schema(settings: Settings, service: str, *, capture: bool = True) -> None:
    """Give the database of `service` everything it needs: outbox, slot, inbox, and the service's own tables.

    The service's own come from `infra/postgres/<service>.sql`, which may be applied any number of times, and from its
    numbered migrations (`migrations.py`), each applied once. Without `capture` neither slot nor capture role is made:
    of a database that no Debezium reads, as in tests. Raises WorldError where the database cannot be reached,
    ConfigurationError where the SQL or a right is at fault, or where something else is called `outbox` or `inbox`: then
    nothing is made.
    """
    with _connect(settings, service) as connection:
        with connection.transaction():  # before anything is made, as the outbox is looked for
            require_own(connection, "inbox", InboxRow._fields)
        topics = writable_topics(Catalogue.load(settings), service)
        apply_outbox_schema(connection, settings.postgres, settings.outbox, topics=topics, capture=capture)
        if capture:
            ensure_slot(connection, slot_name(settings.project.name, service))
        apply_inbox_schema(connection)
        path = settings.root / "infra" / "postgres" / f"{service}.sql"
        if path.is_file():
            _apply_file(connection, path, settings.root)
        migrate(connection, settings.root, service)


def apply_inbox_schema(connection: Connection) -> None:
    """Create the inbox where it is missing, and commit.

    Raises ConfigurationError, and changes nothing, where something else is called `inbox`.
    """
    with permitted(connection), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath inbox', 0))")
        require_own(connection, "inbox", InboxRow._fields)
        connection.execute(resources.files(__package__).joinpath("inbox.sql").read_bytes())


def _apply_file(connection: Connection, path: Path, root: Path) -> None:
    content = path.read_bytes()
    sql = statements(content, path.name)
    try:
        with connection.transaction():
            connection.execute(_ONE_AT_A_TIME)
            connection.execute(sql)
    except psycopg.Error as error:
        raise _not_applied(connection, error, path, root, sql) from error
    _as_before(connection)


def _as_before(connection: Connection) -> None:
    """Take back what a file has set for its session (pg_dump empties the search path): what follows must not see it."""
    with connection.transaction():
        for what in ("SESSION AUTHORIZATION", "ROLE", "ALL"):
            connection.execute(f"RESET {what}".encode())


def _not_applied(connection: Connection, error: psycopg.Error, path: Path, root: Path, sql: bytes) -> TowpathError:
    """Return the error for a file: its own fault, or the server's, which is away or busy."""
    if connection.broken or (error.sqlstate is not None and blame_of(error.sqlstate) is Blame.WORLD):
        return WorldError(
            f"{path.name}: {first_line(error)}",
            kept="the database as it was",
            next_step="run the same command again; nothing in the file is to be changed",
        )
    position = error.diag.statement_position
    line = sql.decode("utf-8")[: int(position)].count("\n") + 1 if position else 1
    return ConfigurationError(
        f"{path.name}:{line}: {error.diag.message_primary or error}",
        kept="the database as it was",
        next_step=f"fix {path.relative_to(root).as_posix()}",
    )


def migrate(connection: Connection, root: Path, service: str) -> tuple[Migration, ...]:
    """Apply the numbered migrations of `service` that its database has not had; return them.

    Each is a transaction of its own, together with the note that it was applied; two that migrate at once take turns.
    Raises ConfigurationError where the SQL is at fault, or the files contradict what was applied, WorldError where the
    database goes away or is busy. What a file sets for its session ends with it.
    """
    migrations = migrations_of(root, service)
    if not migrations and not _has_migrations(connection):
        return ()
    with permitted(connection), connection.transaction():
        connection.execute(_ONE_AT_A_TIME)
        connection.execute(resources.files(__package__).joinpath("migrations.sql").read_bytes())
    done: list[Migration] = []
    while True:
        with connection.transaction():
            connection.execute(_ONE_AT_A_TIME)
            left = pending(migrations, _applied(connection), service)
            if not left:
                return tuple(done)
            _apply_one(connection, left[0], root)
        _as_before(connection)
        done.append(left[0])


def pending_migrations(settings: Settings, service: str) -> tuple[Migration, ...]:
    """Return the migrations that the database of `service` has not had; changes nothing. Raises as `migrate` does."""
    with _connect(settings, service, writes=False) as connection:
        applied = _applied(connection) if _has_migrations(connection) else {}
    return pending(migrations_of(settings.root, service), applied, service)


def apply_migrations(settings: Settings, service: str) -> tuple[Migration, ...]:
    """Apply the migrations that the database of `service` has not had; return them. Raises as `migrate` does."""
    with _connect(settings, service) as connection:
        return migrate(connection, settings.root, service)


def _apply_one(connection: Connection, migration: Migration, root: Path) -> None:
    # First the note: what the migration sets for its session must not hide the table.
    connection.execute(
        "INSERT INTO public.towpath_migration (number, name, digest) VALUES (%s, %s, %s)",
        (migration.number, migration.name, migration.digest),
    )
    sql = statements(migration.sql, migration.path.name)
    try:
        connection.execute(sql)
    except psycopg.Error as error:
        raise _not_applied(connection, error, migration.path, root, sql) from error


def _has_migrations(connection: Connection) -> bool:
    found = connection.execute("SELECT to_regclass('public.towpath_migration') IS NOT NULL").fetchone()
    connection.commit()
    return bool(found and found[0])


def _applied(connection: Connection) -> dict[int, str]:
    return dict(connection.execute("SELECT number, digest FROM public.towpath_migration").fetchall())


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What one run of upkeep did in a service's database."""

    outbox: Maintenance
    inbox_rows_removed: int


def keep_up(settings: Settings, service: str) -> Upkeep:
    """Make the outbox's coming partitions, drop its old ones, and clean the inbox of what nobody can ask for again.

    Raises WorldError where the database cannot be reached or was busy, and psycopg's error where it refuses a part of
    this; the next run does it.
    """
    try:
        with _connect(settings, service) as connection:
            try:
                outbox = maintain(connection, settings.outbox, slot=slot_name(settings.project.name, service))
            finally:  # an outbox that cannot be kept up does not keep the inbox from it
                removed = clean(connection, settings.participant.inbox_keep_days)
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the database of {service} was busy: {str(error).strip()}",
            kept="everything that was there",
            next_step="nothing: it is tried again within the hour",
        ) from error
    return Upkeep(outbox, removed)


def forgotten_until(connection: Connection) -> datetime | None:
    """Return the time of the newest row that was ever removed, None where none was."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT until FROM public.inbox_forgotten").fetchone()
    until: datetime | None = None if row is None else row[0]
    return until


def clean(connection: Connection, keep_days: int) -> int:
    """Remove rows older than `keep_days`, a few thousand at a time, and commit each time; return how many.

    Up to when rows were removed is noted with them: see `forgotten_until`.
    """
    removed = 0
    while True:
        with connection.transaction():
            rows: list[tuple[int, datetime]] = connection.execute(_CLEAN, (keep_days, CLEAN_ROWS)).fetchall()
            count, newest = rows[0]
            if count:
                connection.execute(_FORGET, (newest,))
        removed += count
        if count < CLEAN_ROWS:
            return removed


def _connect(settings: Settings, service: str, *, writes: bool = True) -> Connection:
    options: dict[str, Any] = dict(settings.postgres.connection_options())
    if writes:  # of several hosts, the one that takes them
        options["target_session_attrs"] = "read-write"
    try:
        return psycopg.connect(settings.postgres.database_url(service), **options)
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the database of {service} cannot be reached: {str(error).strip()}",
            kept="what it holds",
            next_step="towpath status, or check [postgres] in towpath.toml",
        ) from error


_RECORDED = """
SELECT step, item, direction, round, CASE WHEN refused THEN 'refused' ELSE 'done' END AS outcome, type, recorded_at
  FROM public.inbox WHERE saga_id = %s AND type IS NOT NULL AND date_trunc('milliseconds', recorded_at) <= %s
  ORDER BY recorded_at
"""


def recorded_for(connection: Connection, saga_id: str, until: datetime) -> list[dict[str, Any]]:
    """Return what the inbox had recorded for an instance up to a time, in that order; an undo is its own row.

    The whole millisecond of `until` counts, as it does for records, whose times are cut to milliseconds: a reply's is
    that of its outbox row, which follows its inbox row within microseconds.

    Reads the whole table: it is for a person who looks at one instance.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_RECORDED, (saga_id, until)).fetchall()
