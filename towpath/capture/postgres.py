"""Asks PostgreSQL how capture stands: the slot, how far it is behind, what the outbox holds; and re-emits from it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from towpath.errors import NotFoundError, RefusedError, WorldError
from towpath.outbox.message import COLUMNS
from towpath.settings import Settings

Connection = psycopg.Connection[Any]

# to_jsonb, since PostgreSQL 15 and 16 lack the column invalidation_reason, and 18 has more to come.
_SLOT = """
SELECT to_jsonb(slot),
       pg_wal_lsn_diff(pg_current_wal_lsn(), slot.confirmed_flush_lsn)::bigint,
       pg_wal_lsn_diff(pg_current_wal_lsn(), slot.restart_lsn)::bigint
FROM pg_replication_slots AS slot WHERE slot.slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class SlotState:
    """A replication slot.

    `lag_bytes` is what Kafka has not confirmed yet; `retained_bytes` is the write-ahead log that the server keeps
    for it; `safe_bytes` how much more may be written before it is lost (None: no limit is set). `wal_status` is
    PostgreSQL's: reserved, extended, unreserved, lost.
    """

    name: str
    database: str
    active: bool
    wal_status: str
    lag_bytes: int
    retained_bytes: int
    safe_bytes: int | None
    invalidation_reason: str | None

    @property
    def lost(self) -> bool:
        """Return whether the server threw away what the slot had not carried: the outbox must be re-emitted."""
        return self.wal_status == "lost"


def connect(settings: Settings, service: str) -> Connection:
    """Return a connection, in autocommit, to a service's database. Raises WorldError where it cannot be reached."""
    options: dict[str, Any] = dict(settings.postgres.connection_options())
    try:
        return psycopg.connect(settings.postgres.database_url(service), autocommit=True, **options)
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the database of {service} cannot be reached: {str(error).strip()}",
            kept="what it holds",
            next_step="towpath status, or check [postgres] in towpath.toml",
        ) from error


def slot_state(connection: Connection, slot: str) -> SlotState | None:
    """Return how the slot stands, or None if there is none of that name."""
    row = connection.execute(_SLOT, (slot,)).fetchone()
    if row is None:
        return None
    facts, lag_bytes, retained_bytes = row
    return SlotState(
        name=facts["slot_name"],
        database=facts["database"],
        active=facts["active"],
        wal_status=facts["wal_status"] or "lost",
        lag_bytes=lag_bytes or 0,
        retained_bytes=retained_bytes or 0,
        safe_bytes=facts["safe_wal_size"],
        invalidation_reason=facts.get("invalidation_reason"),
    )


def current_lsn(connection: Connection) -> str:
    """Return the end of the write-ahead log: every row visible before this call lies before it."""
    return str(connection.execute("SELECT pg_current_wal_insert_lsn()").fetchall()[0][0])


def has_carried(connection: Connection, slot: str, lsn: str) -> bool:
    """Return whether Kafka has confirmed everything up to `lsn`. Raises NotFoundError where there is no slot."""
    row = connection.execute(
        "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s", (lsn, slot)
    ).fetchone()
    if row is None:
        raise NotFoundError(
            f"there is no slot {slot}",
            kept="every message, in the outbox",
            next_step="towpath up makes it; messages from before then need towpath capture re-emit",
        )
    return bool(row[0])


def written_ids(connection: Connection, since: datetime, until: datetime | None = None) -> dict[str, set[UUID]]:
    """Return the ids of the outbox's messages, by topic, that were written in `[since, until)`; both aware."""
    found: dict[str, set[UUID]] = {}
    rows = connection.execute(
        "SELECT topic, id FROM outbox WHERE created_at >= %s AND (%s::timestamp IS NULL OR created_at < %s)",
        (_utc(since), _utc(until), _utc(until)),
    )
    for topic, id in rows:  # noqa: A001 - the column's name
        found.setdefault(topic, set()).add(id)
    return found


def keeps_commit_times(connection: Connection) -> bool:
    """Return whether the server notes when each transaction committed (`track_commit_timestamp`)."""
    return bool(connection.execute("SHOW track_commit_timestamp").fetchall()[0][0] == "on")


def commit_order(connection: Connection) -> sql.SQL:
    """Return the columns by which rows of an outbox lie in the order of commit, as Debezium carries them.

    First when the row's transaction committed, then where in it the row was written. Two commits of one key never
    share a time: the second waited for a lock of the first. A time that the server no longer has is older than all
    that it has. Where the server notes none, what is left is the order of writing, which differs from that of commit
    where a transaction of the same key overtook another: `keeps_commit_times` says so.
    """
    if keeps_commit_times(connection):
        return sql.SQL("pg_xact_commit_timestamp(xmin) AS committed_at, sequence AS written_as")
    return sql.SQL("NULL::timestamptz AS committed_at, sequence AS written_as")


def re_emit(connection: Connection, ids: Collection[UUID], since: datetime) -> int:
    """Write the messages `ids` anew, each with its own id and time, in order of commit, and commit; return how many.

    For what a lost slot never carried. The rows go through the new slot as if new; consumers that have had one
    drop it by its id. Raises RefusedError, and writes nothing, where the outbox no longer holds one of them.
    """
    with connection.transaction():
        written = write_anew(connection, ids, since)
        if written != len(set(ids)):
            raise RefusedError(
                f"the outbox holds {written} of {len(set(ids))} messages written since {since.isoformat()}",
                kept="everything as it was: nothing was written",
                next_step="ask for an earlier time, or restore what [outbox] keep_days has let go from a backup",
            )
    return written


def write_anew(connection: Connection, ids: Collection[UUID], since: datetime) -> int:
    """Write the messages `ids` anew in the connection's transaction, in order of commit; return how many were there.

    Of a message that was written anew before, the first row tells its place.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, (*COLUMNS, "created_at")))
    return connection.execute(
        sql.SQL(
            "INSERT INTO outbox ({0}) SELECT {0} FROM ("
            " SELECT DISTINCT ON (id) {0}, committed_at, written_as FROM ("
            "  SELECT {0}, {1} FROM outbox WHERE id = ANY(%s) AND created_at >= %s) AS kept"
            " ORDER BY id, committed_at NULLS FIRST, written_as) AS first"
            " ORDER BY committed_at NULLS FIRST, written_as"
        ).format(columns, commit_order(connection)),
        (list(ids), _utc(since)),
    ).rowcount


def slots_of(connection: Connection, slots: Sequence[str]) -> dict[str, SlotState]:
    """Return the state of each of `slots` that exists; slots belong to the server, so any database will do."""
    states = (slot_state(connection, name) for name in slots)
    return {state.name: state for state in states if state is not None}


def _utc(at: datetime | None) -> datetime | None:
    """Return the time as the outbox's column has it: UTC, without saying so."""
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None)
