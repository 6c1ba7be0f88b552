"""Writes messages into the outbox, and keeps the table: its schema, its capture role, its partitions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import resources
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from towpath.errors import ConfigurationError, WorldError, first_line
from towpath.outbox.message import COLUMNS, OutboxMessage, values_of
from towpath.outbox.names import HEARTBEAT_TABLE, OUTBOX_TABLE
from towpath.outbox.partitions import PartitionPlan, partition_name, plan_partitions
from towpath.settings import OutboxSettings, PostgresSettings, Settings

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

_NAMES = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
_INSERT = sql.SQL("INSERT INTO outbox ({}) VALUES ({})").format(
    _NAMES, sql.SQL(", ").join(sql.Placeholder() * len(COLUMNS))
)
_COPY = sql.SQL("COPY outbox ({}) FROM STDIN (FORMAT BINARY)").format(_NAMES)
_COLUMN_TYPES: Sequence[str] = [
    {"id": "uuid", "saga_id": "uuid", "payload": "bytea", "attempt": "int4", "round": "int4"}.get(name, "text")
    for name in COLUMNS
]
_KNOW = """
WITH wanted AS (SELECT * FROM unnest(%s::text[], %s::int[]) AS wanted (name, record_bytes_max)),
gone AS (DELETE FROM outbox_topics WHERE name NOT IN (SELECT name FROM wanted))
INSERT INTO outbox_topics SELECT * FROM wanted
ON CONFLICT (name) DO UPDATE SET record_bytes_max = excluded.record_bytes_max
  WHERE outbox_topics.record_bytes_max <> excluded.record_bytes_max
"""
COPY_FROM_ROWS = 2
"""From two messages on COPY costs less: 500 rows take 4 us each, 105 us each by INSERT; one alone 170 against 110."""

CONNECT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT = "2s"
"""Longest wait of maintenance for a lock: behind it every writer of the outbox would queue."""
LAG_BYTES_MAX = 64 * 1024 * 1024
"""A slot further behind than this may yet be lost to `max_slot_wal_keep_size`, and the outbox be its only copy."""


@contextmanager
def connected(settings: Settings, database: str, *, kept: str) -> Iterator[Connection]:
    """Connect to one of the project's databases; commits at the end.

    Raises WorldError, with `kept`, if it is away, or goes away before the end.
    """
    try:
        connection = psycopg.connect(
            settings.postgres.database_url(database),
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            **dict[str, Any](settings.postgres.connection_options()),
        )
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the database {database} is away: {first_line(error)}", kept=kept, next_step="towpath status"
        ) from error
    try:
        with connection:
            yield connection
    except psycopg.OperationalError as error:
        if not connection.broken:  # what was asked of it, a lock for one: whoever asked knows
            raise
        raise WorldError(
            f"the database {database} went away: {first_line(error)}",
            kept="what was committed",
            next_step="towpath status, then run it again",
        ) from error


def write(connection: Connection, messages: Sequence[OutboxMessage]) -> None:
    """Write `messages`, in their order, in the connection's own transaction; commits nothing.

    Works outside and inside `connection.pipeline()`. Raises ConfigurationError for a connection that is none of
    psycopg's, or its asynchronous one (`write_async`): that would write nothing, and say nothing.
    """
    if not isinstance(connection, psycopg.Connection):
        raise other_connection(connection)
    if len(messages) < COPY_FROM_ROWS or connection.pgconn.pipeline_status:
        for message in messages:
            connection.execute(_INSERT, values_of(message))
        return
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COLUMN_TYPES)
        for message in messages:
            copy.write_row(values_of(message))


async def write_async(connection: AsyncConnection, messages: Sequence[OutboxMessage]) -> None:
    """Write `messages` as `write` does, on psycopg's asynchronous connection."""
    if not isinstance(connection, psycopg.AsyncConnection):
        raise other_connection(connection)
    if len(messages) < COPY_FROM_ROWS or connection.pgconn.pipeline_status:
        for message in messages:
            await connection.execute(_INSERT, values_of(message))
        return
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COLUMN_TYPES)
        for message in messages:
            await copy.write_row(values_of(message))


def other_connection(connection: Any) -> ConfigurationError:
    """Return the error for a connection through which nothing would be written."""
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    return ConfigurationError(
        f"a message cannot be written through a {kind}",
        kept="everything as it was: nothing was written",
        next_step="pass psycopg's Connection to write, its AsyncConnection to write_async; "
        "SQLAlchemy has it as connection.connection.driver_connection, Django as connection.connection",
    )


_TABLES = "SELECT to_regclass('outbox') IS NOT NULL, to_regclass('outbox_topics') IS NOT NULL"
_MAY_WRITE = "SELECT name = %s FROM outbox_topics ORDER BY name = %s DESC LIMIT 1"


def may_write(connection: Connection, topic: str) -> bool:
    """Return whether the database of `connection` has an outbox that may write `topic`; its transaction goes on.

    True, too, where the outbox does not know its topics yet.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        outbox, topics = cursor.execute(_TABLES).fetchall()[0]
        if not (outbox and topics):
            return bool(outbox)
        found = cursor.execute(_MAY_WRITE, (topic, topic)).fetchall()
    return not found or bool(found[0][0])


async def may_write_async(connection: AsyncConnection, topic: str) -> bool:
    """Return what `may_write` does."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_TABLES)
        outbox, topics = (await cursor.fetchall())[0]
        if not (outbox and topics):
            return bool(outbox)
        await cursor.execute(_MAY_WRITE, (topic, topic))
        found = await cursor.fetchall()
    return not found or bool(found[0][0])


def apply_outbox_schema(
    connection: Connection,
    postgres: PostgresSettings,
    outbox: OutboxSettings,
    *,
    topics: Mapping[str, int] | None = None,
    capture: bool = True,
) -> None:
    """Create table, publication, capture role and the first partitions, where they are missing, and commit.

    `topics` are those that this outbox may write, with the most bytes of a record of each (`writable_topics`); any
    other is refused at its INSERT. None leaves those that are known as they are. Without `capture` no role is made:
    of a database that no Debezium reads, as in tests.
    The connection's role must own the database's objects; to create the capture role it needs CREATEROLE and
    REPLICATION (or to be superuser). Where an administrator made that role beforehand, neither is needed.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath outbox', 0))")
        connection.execute(resources.files(__package__).joinpath("outbox.sql").read_bytes())
        if topics is not None:
            connection.execute(_KNOW, (list(topics), list(topics.values())))
    if capture:
        ensure_capture_role(connection, postgres)
    maintain(connection, outbox, drop=False)


def ensure_capture_role(connection: Connection, postgres: PostgresSettings) -> None:
    """Give Debezium's role exactly its rights in this database: replicate, read the outbox, beat the heartbeat.

    Raises ConfigurationError with the statement to run where this connection may not create the role.
    """
    role = sql.Identifier(postgres.capture_username)
    password = postgres.capture_password.get_secret_value() if postgres.capture_password else None
    login = sql.SQL("LOGIN REPLICATION PASSWORD {}").format(password) if password else sql.SQL("LOGIN REPLICATION")
    found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (postgres.capture_username,)).fetchone()
    connection.commit()
    try:
        with connection.transaction():
            verb = sql.SQL("CREATE ROLE") if found is None else sql.SQL("ALTER ROLE")
            if found is None or password:
                connection.execute(sql.SQL("{} {} {}").format(verb, role, login))
    except (errors.DuplicateObject, errors.UniqueViolation, errors.InternalError_):
        # A role belongs to the whole server: another service's database is being set up at this moment with the
        # same settings ("tuple concurrently updated" is what PostgreSQL says then of ALTER ROLE).
        pass
    except errors.InsufficientPrivilege as error:
        if found is None:
            raise ConfigurationError(
                f"database {connection.info.dbname}: {connection.info.user} may not create the role "
                f"{postgres.capture_username}, with which Debezium reads the outbox",
                next_step="have an administrator run: "
                f"CREATE ROLE {postgres.capture_username} LOGIN REPLICATION PASSWORD '...'",
            ) from error
    with connection.transaction():
        for right in (
            sql.SQL("CONNECT ON DATABASE {}").format(sql.Identifier(connection.info.dbname)),
            sql.SQL("USAGE ON SCHEMA public"),
            sql.SQL("SELECT ON TABLE {}").format(sql.Identifier(OUTBOX_TABLE)),
            sql.SQL("INSERT ON TABLE {}").format(sql.Identifier(HEARTBEAT_TABLE)),
        ):
            connection.execute(sql.SQL("GRANT {} TO {}").format(right, role))


def ensure_slot(connection: Connection, slot: str) -> bool:
    """Create the replication slot that captures this database's outbox, and return whether it was missing.

    Made together with the table, so that no message is written before the place from which Debezium will read.
    Needs REPLICATION. Waits for transactions that are open on the server at this moment.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath outbox', 0))")
        found = connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
        if found is not None:
            return False
        # A slot cannot be made in a transaction that has written; the lock alone is no write.
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        return True


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What one run did: partitions made and dropped, rows removed, and why it dropped nothing (None: it could)."""

    created: tuple[str, ...]
    dropped: tuple[str, ...]
    heartbeats_removed: int
    held_back: str | None = None


def maintain(
    connection: Connection, outbox: OutboxSettings, *, slot: str | None = None, drop: bool = True
) -> Maintenance:
    """Make the coming days' partitions and, unless `drop` is False, drop those past `keep_days`; commits.

    Nothing is dropped while the slot called `slot` is missing, lost or far behind: the outbox may then be the only
    place that still has the messages. Raises psycopg's LockNotAvailable when the table was busy for too long; the
    next run does it.
    """
    held_back = _reason_to_keep(connection, slot) if drop else None
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath outbox', 0))")
        plan = _plan(connection, outbox)
        for day in plan.create:
            connection.execute(
                sql.SQL("CREATE TABLE {} PARTITION OF outbox FOR VALUES FROM ({}) TO ({})").format(
                    sql.Identifier(partition_name(day)), day.isoformat(), (day + timedelta(days=1)).isoformat()
                )
            )
        beats = 0
        if drop and not held_back:
            beats = _clean(connection, plan, outbox)
    return Maintenance(
        created=tuple(map(partition_name, plan.create)),
        dropped=tuple(map(partition_name, plan.drop)) if drop and not held_back else (),
        heartbeats_removed=beats,
        held_back=held_back,
    )


def _plan(connection: Connection, outbox: OutboxSettings) -> PartitionPlan:
    today: date = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchall()[0][0]
    names = connection.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'outbox'::regclass"
    ).fetchall()
    caught = connection.execute(
        "SELECT DISTINCT created_at::date FROM outbox_default WHERE created_at >= %s", (today,)
    ).fetchall()
    return plan_partitions(
        (name for (name,) in names),
        today,
        ahead_days=outbox.ahead_days,
        keep_days=outbox.keep_days,
        caught=(day for (day,) in caught),
    )


def _clean(connection: Connection, plan: PartitionPlan, outbox: OutboxSettings) -> int:
    for day in plan.drop:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(partition_name(day))))
    connection.execute(
        "DELETE FROM outbox_default WHERE created_at < (now() AT TIME ZONE 'UTC')::date - %s", (outbox.keep_days,)
    )
    return connection.execute("DELETE FROM outbox_heartbeat WHERE beaten_at < now() - interval '1 hour'").rowcount


def _reason_to_keep(connection: Connection, slot: str | None) -> str | None:
    if slot is None:
        return None
    row = connection.execute(
        "SELECT wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint"
        " FROM pg_replication_slots WHERE slot_name = %s",
        (slot,),
    ).fetchone()
    connection.commit()
    if row is None:
        return f"slot {slot} does not exist: nothing captures this outbox"
    status, lag_bytes = row
    if status == "lost":
        return f"slot {slot} is lost: what it had not carried is only here"
    if lag_bytes is None or lag_bytes > LAG_BYTES_MAX:
        return f"slot {slot} is {lag_bytes} bytes behind, more than {LAG_BYTES_MAX}"
    return None
