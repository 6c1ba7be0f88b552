"""Writes messages into the outbox, and keeps the table: its schema, its capture role, its partitions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from importlib import resources
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from towpath.errors import ConfigurationError, WorldError, first_line
from towpath.outbox.message import COLUMNS, OutboxMessage, values_of
from towpath.outbox.names import HEARTBEAT_TABLE, OUTBOX_TABLE, slot_name
from towpath.outbox.partitions import PartitionPlan, partition_name, plan_partitions
from towpath.settings import OutboxSettings, PostgresSettings, Settings

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

_NAMES = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
_INSERT = sql.SQL("INSERT INTO public.outbox ({}) VALUES ({})").format(
    _NAMES, sql.SQL(", ").join(sql.Placeholder() * len(COLUMNS))
)
_COPY = sql.SQL("COPY public.outbox ({}) FROM STDIN (FORMAT BINARY)").format(_NAMES)
_COLUMN_TYPES: Sequence[str] = [
    {"id": "uuid", "saga_id": "uuid", "payload": "bytea", "attempt": "int4", "round": "int4"}.get(name, "text")
    for name in COLUMNS
]
_KNOW = """
WITH wanted AS (SELECT * FROM unnest(%s::text[], %s::int[]) AS wanted (name, record_bytes_max)),
gone AS (DELETE FROM public.outbox_topics WHERE name NOT IN (SELECT name FROM wanted))
INSERT INTO public.outbox_topics AS outbox_topics SELECT * FROM wanted
ON CONFLICT (name) DO UPDATE SET record_bytes_max = excluded.record_bytes_max
  WHERE outbox_topics.record_bytes_max <> excluded.record_bytes_max
"""
_ASKED = ""
"""No topic's name: it says that the catalogue was asked, so that an outbox without topics writes none."""
_OTHERS = """
SELECT FROM pg_class WHERE oid = to_regclass(%(name)s) AND (relkind <> %(kind)s OR
  (SELECT count(*) FROM pg_attribute WHERE attrelid = oid AND attname = ANY(%(columns)s)) <> cardinality(%(columns)s))
"""
COPY_FROM_ROWS = 2
"""From two messages on COPY costs less: 500 rows take 4 us each, 105 us each by INSERT; one alone 170 against 110."""

CONNECT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT = "2s"
"""Longest wait of maintenance for a lock: behind it every writer of the outbox would queue."""
SLOT_TIMEOUT = "30s"
"""Longest wait of a slot that is made for the transactions that are open on the server."""
UPKEEP_SECONDS = 3600.0
"""Between two runs of upkeep. Partitions are made days ahead, so that a missed run costs nothing."""

# Whoever holds a lock is seen here by anyone, in pg_stat_activity only by who may see all statistics. A prepared
# transaction has no process, but among its locks the one on its own number.
_OLDEST = """
SELECT held.pid, activity.application_name, coalesce(activity.datname, prepared.database),
  clock_timestamp() - coalesce(activity.xact_start, prepared.prepared), prepared.gid
FROM pg_locks AS held LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
LEFT JOIN pg_locks AS own ON held.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
  AND own.virtualtransaction = held.virtualtransaction
LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
WHERE held.granted AND held.pid IS DISTINCT FROM pg_backend_pid() AND {}
ORDER BY coalesce(activity.xact_start, prepared.prepared) NULLS FIRST LIMIT 1
"""

# What a slot may not have carried. `catalog_xmin` follows its confirmed position: every transaction with a lower number
# had ended before that, so its rows are carried (subtransactions have higher numbers than theirs). Numbers have 32 bits
# in a row, hence the circle; up to this statement's own horizon, so that rows from before the last round are not meant.
# Where nobody reads the slot, nothing is carried.
_UNCARRIED = """
coalesce((xmin::text::bigint - (SELECT first FROM slot) + 4294967296) %% 4294967296
  < (pg_snapshot_xmax(pg_current_snapshot())::text::bigint %% 4294967296 - (SELECT first FROM slot) + 4294967296)
    %% 4294967296, true)
"""
_SLOT = """
WITH slot AS (SELECT catalog_xmin::text::bigint AS first FROM pg_replication_slots
              WHERE slot_name = %s AND active AND wal_status <> 'lost')
"""
_PAST = "created_at < (now() AT TIME ZONE 'UTC')::date - %s"
# Of constants of this file.
_HAS_UNCARRIED = sql.SQL(f"{_SLOT} SELECT EXISTS (SELECT FROM {{}} WHERE {_UNCARRIED})")  # noqa: S608
_DELETE_CAUGHT = f"{_SLOT} DELETE FROM public.outbox_default WHERE {_PAST} AND NOT {_UNCARRIED}"  # noqa: S608
_OLDEST_CAUGHT = f"""
{_SLOT} SELECT min(created_at)::text FROM public.outbox_default WHERE {_PAST} AND {_UNCARRIED}
"""  # noqa: S608
_IS_PARTITION = "SELECT FROM pg_inherits WHERE inhparent = 'public.outbox'::regclass AND inhrelid = to_regclass(%s)"
_OLD_BEATS = """
WITH gone AS (DELETE FROM public.outbox_heartbeat WHERE beaten_at < now() - interval '1 hour' RETURNING 1)
SELECT count(*) FROM gone
"""


class Holding(Enum):
    """Whom a lock is waited for: its condition on `pg_locks`."""

    TRANSACTION = "held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock'"
    """Whoever has written anything, in any database of the server."""
    OUTBOX = """held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (held.relation = 'public.outbox'::regclass
        OR held.relation IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.outbox'::regclass))"""
    """Whoever has used the outbox of this database, if only to read it."""
    OUTBOX_TO_WRITE = f"{OUTBOX} AND held.mode NOT IN ('AccessShareLock', 'RowShareLock')"
    """Whoever has written into it."""


@contextmanager
def connected(settings: Settings, database: str, *, kept: str) -> Iterator[Connection]:
    """Connect to one of the project's databases; commits at the end.

    Raises WorldError, with `kept`, if it is away, or goes away before the end, or takes no writes where one is made.
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
    except errors.ReadOnlySqlTransaction as error:
        raise takes_no_writes(connection, error) from error
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
            _cursor(connection).execute(_INSERT, values_of(message))
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
            await _async_cursor(connection).execute(_INSERT, values_of(message))
        return
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COLUMN_TYPES)
        for message in messages:
            await copy.write_row(values_of(message))


def _cursor(connection: Connection) -> psycopg.Cursor[tuple[Any, ...]]:
    """Return a cursor of the connection's own kind, but for one that takes other placeholders than ours."""
    own = connection.cursor(row_factory=tuple_row)
    return psycopg.Cursor(connection, row_factory=tuple_row) if isinstance(own, psycopg.RawCursor) else own


def _async_cursor(connection: AsyncConnection) -> psycopg.AsyncCursor[tuple[Any, ...]]:
    """Return what `_cursor` returns."""
    own = connection.cursor(row_factory=tuple_row)
    return psycopg.AsyncCursor(connection, row_factory=tuple_row) if isinstance(own, psycopg.AsyncRawCursor) else own


def other_connection(connection: Any) -> ConfigurationError:
    """Return the error for a connection through which nothing would be written."""
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    return ConfigurationError(
        f"a message cannot be written through a {kind}",
        kept="everything as it was: nothing was written",
        next_step="pass psycopg's Connection to write, its AsyncConnection to write_async; "
        "SQLAlchemy has it as connection.connection.driver_connection, Django as connection.connection",
    )


_TABLES = "SELECT to_regclass('public.outbox') IS NOT NULL, to_regclass('public.outbox_topics') IS NOT NULL"
_MAY_WRITE = "SELECT name = %s FROM public.outbox_topics ORDER BY name = %s DESC LIMIT 1"


def may_write(connection: Connection, topic: str) -> bool:
    """Return whether the database of `connection` has an outbox that may write `topic`; its transaction goes on.

    True, too, where the outbox does not know its topics yet.
    """
    with _cursor(connection) as cursor:
        outbox, topics = cursor.execute(_TABLES).fetchall()[0]
        if not (outbox and topics):
            return bool(outbox)
        found = cursor.execute(_MAY_WRITE, (topic, topic)).fetchall()
    return not found or bool(found[0][0])


async def may_write_async(connection: AsyncConnection, topic: str) -> bool:
    """Return what `may_write` does."""
    async with _async_cursor(connection) as cursor:
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
    Raises ConfigurationError, and changes nothing, where something else is called `outbox`; WorldError where the
    database takes no writes, or, naming the oldest, where a transaction that uses the outbox stays open while
    partitions are missing.
    The connection's role must own the database's objects; to create the capture role it needs CREATEROLE and
    REPLICATION (or to be superuser). Where an administrator made that role beforehand, neither is needed. What it lacks
    is a ConfigurationError with the statement to run.
    """
    with permitted(connection):
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath outbox', 0))")
            require_own(connection, OUTBOX_TABLE, ("id", "topic", "key", "type", "payload", "created_at"), kind="p")
            connection.execute(resources.files(__package__).joinpath("outbox.sql").read_bytes())
            if topics is not None:
                known = {_ASKED: 0, **topics}
                connection.execute(_KNOW, (list(known), list(known.values())))
        if capture:
            ensure_capture_role(connection, postgres)
        _make_first_days(connection, outbox)


def _make_first_days(connection: Connection, outbox: OutboxSettings) -> None:
    try:
        maintain(connection, outbox)
    except errors.LockNotAvailable as error:
        who, next_step = waited_for(connection, Holding.OUTBOX)
        raise WorldError(
            f"the coming days of the outbox of database {connection.info.dbname} were not made within {LOCK_TIMEOUT}: "
            f"PostgreSQL waits {who}",
            kept="every message, in the outbox",
            next_step=next_step,
        ) from error


MAY_MAKE_TABLES = "GRANT USAGE, CREATE ON SCHEMA public TO {}"
"""What a role lacks that makes tables alone, for `permitted`."""


@contextmanager
def permitted(connection: Connection, lacking: str | None = None) -> Iterator[None]:
    """Raise ConfigurationError where this role may not make what is ours, with the statement that lets it.

    The statement is `lacking`, with the role for its {}; by default the right to make tables and a publication. Raises
    WorldError where the database takes no writes.
    """
    try:
        yield
    except errors.ReadOnlySqlTransaction as error:
        raise takes_no_writes(connection, error) from error
    except errors.InsufficientPrivilege as error:
        database, role = (
            sql.Identifier(name).as_string(connection) for name in (connection.info.dbname, connection.info.user)
        )
        statements = (
            lacking or f"GRANT CREATE ON DATABASE {database} TO {{0}}; GRANT USAGE, CREATE ON SCHEMA public TO {{0}}"
        )
        raise ConfigurationError(
            f"database {connection.info.dbname}: {first_line(error)} ({connection.info.user})",
            kept="what was there before",
            next_step=f"have an administrator run: {statements.format(role)}; then run the same command again, as this "
            "role or the one that owns what is there already",
        ) from error


def takes_no_writes(connection: Connection, error: psycopg.Error) -> WorldError:
    """Return the error for a server that only reads: a standby, or one whose disk is full."""
    return WorldError(
        f"database {connection.info.dbname} takes no writes: {first_line(error)}",
        kept="what was there before",
        next_step=f"see to it that {connection.info.host}:{connection.info.port} takes writes (a standby does not), or "
        "name the server that does in [postgres] of towpath.toml; then run the same command again",
    )


def require_own(connection: Connection, table: str, columns: Sequence[str], *, kind: str = "r") -> None:
    """Raise ConfigurationError where `public` has something called `table` that is not ours.

    Ours is of the `kind` of `pg_class.relkind`, and has all of `columns`.
    """
    named = {"name": f"public.{table}", "kind": kind, "columns": list(columns)}
    if connection.execute(_OTHERS, named).fetchone() is not None:
        raise ConfigurationError(
            f"database {connection.info.dbname} has a public.{table} of its own, where Towpath keeps its own",
            kept="that, and all else in the database, as it was",
            next_step=f"rename it (ALTER TABLE public.{table} RENAME TO {table}_of_service; and change what uses it), "
            "then run the same command again",
        )


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
            sql.SQL("SELECT ON TABLE {}").format(sql.Identifier("public", OUTBOX_TABLE)),
            sql.SQL("INSERT ON TABLE {}").format(sql.Identifier("public", HEARTBEAT_TABLE)),
        ):
            connection.execute(sql.SQL("GRANT {} TO {}").format(right, role))


def ensure_slot(connection: Connection, slot: str) -> bool:
    """Create the replication slot that captures this database's outbox, and return whether it was missing.

    Made together with the table, so that no message is written before the place from which Debezium will read.
    Needs REPLICATION: raises ConfigurationError without. PostgreSQL waits for every transaction that writes, in any
    database of the server, at this moment: raises WorldError, which names the oldest, where one of them stays open.
    """
    try:
        with permitted(connection, "ALTER ROLE {} REPLICATION"), connection.transaction():
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(SLOT_TIMEOUT))
            # A lock of its own: upkeep and provisioning need not wait with it.
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath outbox', 2))")
            found = connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
            if found is not None:
                return False
            # A slot cannot be made in a transaction that has written; the lock alone is no write.
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
            return True
    except (errors.QueryCanceled, errors.LockNotAvailable) as error:
        who, next_step = waited_for(connection, Holding.TRANSACTION)
        raise WorldError(
            f"slot {slot} was not made within {SLOT_TIMEOUT}: PostgreSQL waits {who}",
            kept="every message, in the outbox; no slot was made",
            next_step=next_step,
        ) from error


def waited_for(connection: Connection, holding: Holding) -> tuple[str, str]:
    """Return in words for whom a lock was waited in vain, the oldest of them, and what ends that one."""
    with connection.transaction(), _cursor(connection) as cursor:
        found = cursor.execute(sql.SQL(_OLDEST).format(sql.SQL(holding.value))).fetchall()
    who, next_step = "for a transaction that has ended meanwhile", "run the same command again"
    for pid, application, database, since, prepared in found:
        who = f"for a transaction that was prepared as {prepared!r}"
        ending = f"ROLLBACK PREPARED '{prepared}' (or COMMIT) in database {database}"
        if pid is not None:
            who = f"for process {pid} ({application or 'no application name'}, database {database or 'not shown'})"
            ending = f"SELECT pg_terminate_backend({pid})"
        who += f", whose transaction has been open for {str(since or 'an unknown time').split('.')[0]}"
        next_step = f"end it: {ending}; then run the same command again"
    return who, next_step


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What one run did: partitions made and dropped, rows removed, and why it dropped nothing (None: it could)."""

    created: tuple[str, ...]
    dropped: tuple[str, ...]
    heartbeats_removed: int
    held_back: str | None = None


def keep_up(settings: Settings, database: str) -> Maintenance:
    """Do what `maintain` does for the outbox of one of the project's databases.

    Raises WorldError where the database is away, was busy, or refused; the next run tries it again.
    """
    try:
        with connected(settings, database, kept="every message, in the outbox") as connection:
            return maintain(connection, settings.outbox, slot=slot_name(settings.project.name, database))
    except psycopg.Error as error:
        raise WorldError(
            f"the outbox of {database} could not be kept up: {first_line(error)}",
            kept="every message that was there",
            next_step="nothing: it is tried again within the hour",
        ) from error


def maintain(connection: Connection, outbox: OutboxSettings, *, slot: str | None = None) -> Maintenance:
    """Make the coming days' partitions; drop those past `keep_days` that `slot` has carried; commits each.

    The outbox may be the only place that has a message until Kafka has it: a day is dropped only once the slot's
    confirmed position is behind everything in it, and none while the slot is missing, lost, or read by nobody. Without
    a `slot` nothing is dropped. Raises psycopg's LockNotAvailable when the table was busy for too long; the next run
    does it.
    """
    created = _make_days(connection, outbox)
    if slot is None:
        return Maintenance(created, (), 0)
    with connection.transaction():
        (beats,) = connection.execute(_OLD_BEATS).fetchall()[0]
    kept = _reason_to_keep(connection, slot)
    if kept:
        return Maintenance(created, (), beats, kept)
    with connection.transaction():
        old = _plan(connection, outbox).drop
    left = [day for day in old if not _drop_carried(connection, day, slot)]
    with connection.transaction():
        cut = (slot, outbox.keep_days)
        connection.execute(_DELETE_CAUGHT, cut)
        caught = connection.execute(_OLDEST_CAUGHT, cut).fetchall()[0][0]
    kept_in = [*map(partition_name, left), *([f"outbox_default, from {caught}"] if caught else [])]
    return Maintenance(
        created,
        tuple(partition_name(day) for day in old if day not in left),
        beats,
        f"slot {slot} has not carried all of {kept_in[0]}" if kept_in else None,
    )


def _make_days(connection: Connection, outbox: OutboxSettings) -> tuple[str, ...]:
    with _alone(connection):
        days = _plan(connection, outbox).create
        if days:
            # Before what the default partition caught is looked at: a writer may have put there what nobody sees yet,
            # and PostgreSQL refuses the partition of such a day once that is committed.
            connection.execute("LOCK TABLE ONLY public.outbox IN ACCESS EXCLUSIVE MODE")
            days = _plan(connection, outbox).create
        for day in days:
            connection.execute(
                sql.SQL("CREATE TABLE {} PARTITION OF public.outbox FOR VALUES FROM ({}) TO ({})").format(
                    _partition(day), day.isoformat(), (day + timedelta(days=1)).isoformat()
                )
            )
    return tuple(map(partition_name, days))


def _drop_carried(connection: Connection, day: date, slot: str) -> bool:
    """Drop the partition of a day if the slot has carried all of it; return whether it is gone."""
    table = _partition(day)
    with _alone(connection):
        # Since the days were planned somebody else may have kept this outbox up.
        if connection.execute(_IS_PARTITION, (f"public.{partition_name(day)}",)).fetchone() is None:
            return True
        # Recovery, which writes into old days, waits for the first lock, another writer of this day for the second; who
        # writes into other days waits for none, until this one is dropped.
        connection.execute("LOCK TABLE ONLY public.outbox IN SHARE UPDATE EXCLUSIVE MODE")
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(table))
        found = connection.execute(_HAS_UNCARRIED.format(table), (slot,)).fetchall()
        carried = not found[0][0]
        if carried:
            connection.execute(sql.SQL("DROP TABLE {}").format(table))
    return carried


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Open a transaction in which nobody else makes or drops partitions, and no lock is waited for long."""
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath outbox', 0))")
        yield


def _partition(day: date) -> sql.Identifier:
    return sql.Identifier("public", partition_name(day))


def _plan(connection: Connection, outbox: OutboxSettings) -> PartitionPlan:
    today: date = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchall()[0][0]
    names = connection.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'public.outbox'::regclass"
    ).fetchall()
    caught = connection.execute(
        "SELECT DISTINCT created_at::date FROM public.outbox_default WHERE created_at >= %s AND created_at < %s",
        (today, today + timedelta(days=outbox.ahead_days + 1)),
    ).fetchall()
    return plan_partitions(
        (name for (name,) in names),
        today,
        ahead_days=outbox.ahead_days,
        keep_days=outbox.keep_days,
        caught=(day for (day,) in caught),
    )


def _reason_to_keep(connection: Connection, slot: str) -> str | None:
    with connection.transaction():
        row = connection.execute(
            "SELECT wal_status, active FROM pg_replication_slots WHERE slot_name = %s", (slot,)
        ).fetchone()
    if row is None:
        return f"slot {slot} does not exist: nothing captures this outbox"
    status, active = row
    if status == "lost":
        return f"slot {slot} is lost: what it had not carried is only here"
    # Made anew where one was lost, it begins after what that one had not carried; it is read once that is recovered.
    return None if active else f"nobody reads slot {slot}"
