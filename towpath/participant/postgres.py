"""Keeps the inbox of a service, and gives its database all the tables that engine and service need."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError, WorldError
from towpath.outbox.names import slot_name
from towpath.outbox.postgres import Maintenance, apply_outbox_schema, ensure_slot, maintain
from towpath.outbox.topics import writable_topics
from towpath.participant.core import InboxRow
from towpath.settings import Settings

Connection = psycopg.Connection[Any]

_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, InboxRow._fields))
_FETCH = sql.SQL("SELECT {} FROM inbox WHERE idempotency_key = ANY(%s)").format(_COLUMNS)
_INSERT = sql.SQL("INSERT INTO inbox ({}) VALUES ({})").format(
    _COLUMNS, sql.SQL(", ").join(sql.Placeholder() * len(InboxRow._fields))
)
_COPY = sql.SQL("COPY inbox ({}) FROM STDIN (FORMAT BINARY)").format(_COLUMNS)
_COPY_TYPES = ("uuid", "uuid", "text", "text", "text", "text", "int4", "text", "bool", "bool", "text", "bytea")
_MARK = "UPDATE inbox SET undone = true WHERE idempotency_key = ANY(%s)"
_CLEAN = """
DELETE FROM inbox WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM inbox WHERE recorded_at < now() - make_interval(days => %s) ORDER BY recorded_at LIMIT %s))
"""
CLEAN_ROWS = 5_000
"""Rows of one cleaning statement: some tens of milliseconds, so that no batch waits long behind it."""


def fetch(connection: Connection, keys: Iterable[UUID]) -> list[InboxRow]:
    """Return what is recorded under `keys`, in one statement."""
    return [InboxRow(*row) for row in connection.execute(_FETCH, (list(keys),), binary=True)]


def store(connection: Connection, added: Sequence[InboxRow], marked: Sequence[UUID]) -> None:
    """Add rows and mark others as undone, in the connection's transaction.

    Raises psycopg's UniqueViolation where another worker recorded one of them: the transaction must not commit.
    """
    if len(added) == 1:
        connection.execute(_INSERT, added[0])
    elif added:
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_COPY_TYPES)
            for row in added:
                copy.write_row(row)
    if marked:
        connection.execute(_MARK, (list(marked),))


def apply_service_schema(settings: Settings, service: str, *, capture: bool = True) -> None:
    """Give the database of `service` everything it needs: outbox, slot, inbox, and the service's own tables.

    The service's own come from `infra/postgres/<service>.sql`, which may be applied any number of times. Without
    `capture` neither slot nor capture role is made: of a database that no Debezium reads, as in tests. Raises
    WorldError where the database cannot be reached, ConfigurationError where the SQL or a right is at fault.
    """
    with _connect(settings, service) as connection:
        topics = writable_topics(Catalogue.load(settings), service)
        apply_outbox_schema(connection, settings.postgres, settings.outbox, topics=topics, capture=capture)
        if capture:
            ensure_slot(connection, slot_name(settings.project.name, service))
        apply_inbox_schema(connection)
        path = settings.root / "infra" / "postgres" / f"{service}.sql"
        if path.is_file():
            _apply_file(connection, path)


def apply_inbox_schema(connection: Connection) -> None:
    """Create the inbox where it is missing, and commit."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath inbox', 0))")
        connection.execute(resources.files(__package__).joinpath("inbox.sql").read_bytes())


def _apply_file(connection: Connection, path: Path) -> None:
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath service', 0))")
            connection.execute(path.read_bytes())
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = path.read_text(encoding="utf-8")[: int(position)].count("\n") + 1 if position else 1
        raise ConfigurationError(
            f"{path.name}:{line}: {error.diag.message_primary or error}",
            kept="the database as it was",
            next_step=f"mend infra/postgres/{path.name}",
        ) from error


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What one run of upkeep did in a service's database."""

    outbox: Maintenance
    inbox_rows_removed: int


def keep_up(settings: Settings, service: str) -> Upkeep:
    """Make the outbox's coming partitions, drop its old ones, and clean the inbox of what nobody can ask for again.

    Raises WorldError where the database cannot be reached or was busy; the next run does it.
    """
    try:
        with _connect(settings, service) as connection:
            outbox = maintain(connection, settings.outbox, slot=slot_name(settings.project.name, service))
            removed = clean(connection, settings.participant.inbox_keep_days)
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the database of {service} was busy: {str(error).strip()}",
            kept="everything that was there",
            next_step="nothing: it is tried again within the hour",
        ) from error
    return Upkeep(outbox, removed)


def clean(connection: Connection, keep_days: int) -> int:
    """Remove rows older than `keep_days`, a few thousand at a time, and commit each time; return how many."""
    removed = 0
    while True:
        with connection.transaction():
            count = connection.execute(_CLEAN, (keep_days, CLEAN_ROWS)).rowcount
        removed += count
        if count < CLEAN_ROWS:
            return removed


def _connect(settings: Settings, service: str) -> Connection:
    options: dict[str, Any] = dict(settings.postgres.connection_options())
    try:
        return psycopg.connect(settings.postgres.database_url(service), **options)
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the database of {service} cannot be reached: {str(error).strip()}",
            kept="what it holds",
            next_step="towpath status, or check [postgres] in towpath.toml",
        ) from error
