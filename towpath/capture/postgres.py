"""Asks PostgreSQL how capture stands: the slot, how far it is behind, what the outbox holds; and re-emits from it."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors, sql

from towpath.capture.refusal import Refusal, TopicAndId, UncarriedRow
from towpath.errors import NotFoundError, RefusedError, WorldError, first_line
from towpath.outbox.message import COLUMNS
from towpath.outbox.postgres import Holding, waited_for
from towpath.settings import Settings

Connection = psycopg.Connection[Any]

# to_jsonb, since PostgreSQL 15 and 16 lack the column invalidation_reason, and 18 has more to come.
_SLOT = """
SELECT to_jsonb(slot),
       pg_wal_lsn_diff(pg_current_wal_lsn(), slot.confirmed_flush_lsn)::bigint,
       pg_wal_lsn_diff(pg_current_wal_lsn(), slot.restart_lsn)::bigint
FROM pg_replication_slots AS slot WHERE slot.slot_name = %s
"""

_HAS_OUTBOX = "SELECT to_regclass('public.outbox') IS NOT NULL AND to_regclass('public.outbox_skipped') IS NOT NULL"
_RECOVERY = "hashtextextended('towpath outbox', 1)"
"""The lock of who recovers the capture of a database, held by its connection: from the first step to the last."""
WRITERS_TIMEOUT = "30s"
"""Longest wait for the transactions that have written into an outbox; behind it every other writer waits too."""

_SANE_TIME = "greatest(least(created_at, timestamp '9000-01-01'), timestamp '1000-01-01')"
# What the constraint outbox_created_at_utc takes.
_TAKEN_TIME = (
    "greatest(least(created_at, (statement_timestamp() AT TIME ZONE 'UTC') + interval '10 minutes'),"
    " timestamp '2000-01-01')"
)
_AS_TEXT = [f"octet_length({name}::text)" for name in COLUMNS if name not in {"topic", "payload"}]
_RECORD_BYTES = " + ".join(["octet_length(payload)", *(f"coalesce({length}, 0)" for length in _AS_TEXT)])
_OPEN = """
FROM outbox WHERE created_at >= %s
  AND NOT EXISTS (SELECT FROM pg_temp.carried WHERE carried.id = outbox.id AND carried.topic = outbox.topic)
"""
_UNCARRIED_MESSAGES = f"SELECT DISTINCT topic, id {_OPEN}"
_UNCARRIED = f"""
SELECT id, topic, key, bytes, at FROM (
  SELECT DISTINCT ON (topic, id) * FROM (SELECT id, topic, key, {{1}} AS bytes, {{2}} AS at, {{0}} {_OPEN}) AS rows
  ORDER BY topic, id, committed_at NULLS FIRST, written_as) AS first
ORDER BY committed_at NULLS FIRST, written_as
"""  # noqa: S608 - of constants of this file
_SET_ASIDE = """
INSERT INTO outbox_skipped (id, message, payload, cause, actor, reason)
SELECT DISTINCT ON (topic, id) id,
  to_jsonb(kept) - 'payload' - 'committed_at' - 'written_as' - 'sequence' - 'refused_as', payload, refused_as, %s, %s
FROM (SELECT outbox.*, refused.cause AS refused_as, {} FROM outbox
      JOIN unnest(%s::text[], %s::uuid[], %s::text[]) AS refused (of_topic, of_id, cause)
        ON of_topic = topic AND of_id = id) AS kept
ORDER BY topic, id, committed_at NULLS FIRST, written_as
ON CONFLICT DO NOTHING
"""
# Only what is kept by now. No event: inserts alone are.
_REMOVE_KEPT = """
DELETE FROM outbox USING unnest(%s::text[], %s::uuid[]) AS refused (of_topic, of_id), outbox_skipped AS kept
WHERE of_topic = topic AND of_id = outbox.id AND kept.id = of_id AND kept.message->>'topic' = of_topic
"""

_OWN_TRIGGER = """
SELECT FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE tgrelid = 'outbox'::regclass AND tgname = 'outbox_refuse' AND tgenabled = 'O' AND pg_has_role(relowner, 'USAGE')
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
    """Return a connection, in autocommit, to a service's database.

    Raises WorldError where it cannot be reached, NotFoundError where it has no outbox.
    """
    options: dict[str, Any] = dict(settings.postgres.connection_options())
    try:
        connection = psycopg.connect(settings.postgres.database_url(service), autocommit=True, **options)
        connection.execute("SET search_path = public, pg_temp")  # the outbox is there, whatever this role looks into
        if connection.execute(_HAS_OUTBOX).fetchone() == (True,):
            return connection
        connection.close()
        raise NotFoundError(
            f"the database of {service} has no outbox", kept="what it holds", next_step="towpath provision"
        )
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


def has_carried(connection: Connection, service: str, slot: str, lsn: str) -> bool:
    """Return whether Kafka has confirmed everything up to `lsn`. Raises NotFoundError where there is no slot."""
    row = connection.execute(
        "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s", (lsn, slot)
    ).fetchone()
    if row is None:
        raise NotFoundError(
            f"there is no slot {slot}",
            kept="every message, in the outbox",
            next_step=f"towpath capture recover {service}",
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
        return sql.SQL("pg_xact_commit_timestamp(outbox.xmin) AS committed_at, sequence AS written_as")
    return sql.SQL("NULL::timestamptz AS committed_at, sequence AS written_as")


def re_emit(connection: Connection, messages: Collection[TopicAndId], since: datetime) -> int:
    """Write `messages` anew, each with its own id and time, in order of commit, and commit; return how many.

    For what a lost slot never carried. The rows go through the new slot as if new; consumers that have had one
    drop it by its id. Raises RefusedError, and writes nothing, where the outbox no longer holds one of them, or by now
    refuses one.
    """
    try:
        with connection.transaction():
            written = write_anew(connection, messages, since)
            if written != len(set(messages)):
                raise RefusedError(
                    f"the outbox holds {written} of {len(set(messages))} messages written since {since.isoformat()}",
                    kept="everything as it was: nothing was written",
                    next_step="ask for an earlier time, or restore what [outbox] keep_days has let go from a backup",
                )
    except errors.CheckViolation as error:
        raise RefusedError(
            f"the outbox took a message that it refuses by now: {error.diag.message_primary}",
            kept="everything as it was: nothing was written",
            next_step=error.diag.message_hint or "remove the cause, then run the same command again",
        ) from error
    return written


def write_anew(connection: Connection, messages: Collection[TopicAndId], since: datetime) -> int:
    """Write `messages` anew in the connection's transaction, in order of commit; return how many were there.

    Of a message that was written anew before, the first row tells its place. A time that the outbox refuses by now
    (a clock that was set back, a row from before it was checked) becomes the nearest that it takes.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    return connection.execute(
        sql.SQL(
            "INSERT INTO outbox ({0}, created_at) SELECT {0}, {2} FROM ("
            " SELECT DISTINCT ON (topic, id) {0}, created_at, committed_at, written_as FROM ("
            "  SELECT {0}, created_at, {1} FROM outbox"
            "  WHERE (topic, id) IN (SELECT * FROM unnest(%s::text[], %s::uuid[])) AND created_at >= %s) AS kept"
            " ORDER BY topic, id, committed_at NULLS FIRST, written_as) AS first"
            " ORDER BY committed_at NULLS FIRST, written_as"
        ).format(columns, commit_order(connection), sql.SQL(_TAKEN_TIME)),
        (*_columns_of(messages), _utc(since)),
    ).rowcount


def drop_slot(connection: Connection, slot: str) -> None:
    """Drop a slot that nobody reads."""
    connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def oldest_message(connection: Connection) -> datetime | None:
    """Return when the oldest message that the outbox still has was written, None where it has none."""
    (oldest,) = connection.execute(f"SELECT min({_SANE_TIME}) FROM outbox").fetchall()[0]  # noqa: S608
    return None if oldest is None else oldest.replace(tzinfo=UTC)


def topics_written(connection: Connection, since: datetime) -> tuple[str, ...]:
    """Return the topics of the messages that were written since `since`."""
    rows = connection.execute("SELECT DISTINCT topic FROM outbox WHERE created_at >= %s ORDER BY 1", (_utc(since),))
    return tuple(topic for (topic,) in rows)


def uncarried_rows(connection: Connection, carried: Iterable[TopicAndId], since: datetime) -> list[UncarriedRow]:
    """Return the messages written since `since` that are not among `carried`, in order of commit."""
    with connection.transaction():
        _note_carried(connection, carried)
        rows = connection.execute(
            sql.SQL(_UNCARRIED).format(commit_order(connection), sql.SQL(_RECORD_BYTES), sql.SQL(_SANE_TIME)),
            (_utc(since),),
        ).fetchall()
    return [UncarriedRow(id_, topic, key, size, at.replace(tzinfo=UTC)) for id_, topic, key, size, at in rows]


def write_uncarried(
    connection: Connection,
    advance: Connection,
    slot: str,
    carried: Iterable[TopicAndId],
    since: datetime,
    refusals: Collection[Refusal],
    *,
    actor: str,
    reason: str,
) -> tuple[int, int]:
    """Write anew what is not among `carried`, but move `refusals` aside; return how many messages each were.

    Nothing may read the slot meanwhile. Writers wait, so that nothing is written between the messages that go anew and
    those that the slot would have carried: the slot is moved, on the connection `advance`, past all that is written,
    and what follows is in order of commit again. Where this ends half way, the slot stands further on and the messages
    are still uncarried: the same call does the rest. What was accepted once is not checked again: Kafka takes it, as
    `refusal` says. Raises WorldError where a writer's transaction, which it names, stays open, or somebody reads the
    slot.
    """
    aside = {refused.row.known_by for refused in refusals}
    try:
        with _read_committed(connection):
            _note_carried(connection, carried)
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(WRITERS_TIMEOUT))
            connection.execute("LOCK TABLE outbox IN SHARE ROW EXCLUSIVE MODE")
            found = connection.execute(sql.SQL(_UNCARRIED_MESSAGES), (_utc(since),)).fetchall()
            skipped = _set_aside(connection, refusals, actor, reason)
            _move_past_all(advance, slot)
            with _unchecked(connection):
                return write_anew(connection, [one for one in found if one not in aside], since), skipped
    except errors.LockNotAvailable as error:
        who, next_step = waited_for(connection, Holding.OUTBOX_TO_WRITE)
        raise WorldError(
            f"what others write into the outbox did not end within {WRITERS_TIMEOUT}: PostgreSQL waits {who}",
            kept="every message, in the outbox",
            next_step=next_step,
        ) from error
    except errors.ObjectInUse as error:
        raise WorldError(
            f"slot {slot} is read by somebody, though its connector was stopped",
            kept="every message, in the outbox",
            next_step="end who reads it (pg_stat_replication shows it), then run the same command again",
        ) from error


def set_aside(connection: Connection, refusals: Collection[Refusal], *, actor: str, reason: str) -> int:
    """Move `refusals` out of the outbox, to where what was stepped over is kept, and commit; return how many."""
    with _read_committed(connection):
        return _set_aside(connection, refusals, actor, reason)


def _set_aside(connection: Connection, refusals: Collection[Refusal], actor: str, reason: str) -> int:
    topics, ids = _columns_of(refused.row.known_by for refused in refusals)
    skipped = connection.execute(
        sql.SQL(_SET_ASIDE).format(commit_order(connection)),
        (actor, reason, topics, ids, [refused.cause for refused in refusals]),
    ).rowcount
    connection.execute(_REMOVE_KEPT, (topics, ids))
    return skipped


def _move_past_all(advance: Connection, slot: str) -> None:
    """Move the slot past all that was committed; where a server commits without waiting for its disk, that too.

    A slot goes no further than what is on disk. A commit that waits brings there all that was committed before; one
    that wrote nothing would not wait, and what Debezium could read of it must be nothing.
    """
    advance.execute("SET synchronous_commit = local")
    advance.execute("CREATE TEMP TABLE flushed () ON COMMIT DROP")
    advance.execute(
        "SELECT pg_replication_slot_advance(%s, greatest(confirmed_flush_lsn, pg_current_wal_flush_lsn()))"
        " FROM pg_replication_slots WHERE slot_name = %s",
        (slot, slot),
    )


@contextmanager
def _unchecked(connection: Connection) -> Iterator[None]:
    """Let the transaction write what the outbox's trigger would refuse by now; whoever writes holds back the others."""
    found = connection.execute(_OWN_TRIGGER).fetchone()
    if found is not None:
        connection.execute("ALTER TABLE outbox DISABLE TRIGGER outbox_refuse")
    yield
    if found is not None:
        connection.execute("ALTER TABLE outbox ENABLE TRIGGER outbox_refuse")


@contextmanager
def _read_committed(connection: Connection) -> Iterator[None]:
    """Open a transaction each statement of which sees what others have committed, whatever the database's default."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        yield


@contextmanager
def alone(connection: Connection, service: str) -> Iterator[None]:
    """Keep everybody else from recovering this database's capture. Raises RefusedError where somebody does."""
    (free,) = connection.execute(f"SELECT pg_try_advisory_lock({_RECOVERY})").fetchall()[0]
    if not free:
        raise RefusedError(
            f"the capture of {service} is being recovered by somebody else",
            kept="everything as it was: nothing was done",
            next_step=f"wait until it has ended, then: towpath capture status {service}",
        )
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # the lock ends with its connection
            connection.execute(f"SELECT pg_advisory_unlock({_RECOVERY})")


@contextmanager
def telling(service: str) -> Iterator[None]:
    """Raise WorldError for what the database of `service` refuses, or where it goes away."""
    try:
        yield
    except psycopg.Error as error:
        raise WorldError(
            f"the database of {service}: {first_line(error)}",
            kept="every message, in the outbox",
            next_step=error.diag.message_hint or "remove the cause",
        ) from error


def skipped_messages(connection: Connection) -> list[dict[str, Any]]:
    """Return what was stepped over and is kept aside, the oldest first."""
    rows = connection.execute(
        "SELECT id, message->>'topic', message->>'key', message->>'type', octet_length(payload), cause, actor, reason,"
        " skipped_at FROM outbox_skipped ORDER BY skipped_at, id"
    )
    names = ("id", "topic", "key", "type", "payload_bytes", "cause", "actor", "reason", "skipped_at")
    return [dict(zip(names, row, strict=True)) for row in rows]


def send_skipped(connection: Connection, message: UUID, topic: str | None) -> None:
    """Write a message that was stepped over into the outbox again, to `topic` if one is given, and commit.

    It has its own id and the present time; one id that went to two topics goes to both again. Raises NotFoundError
    where it is not kept, which of two at once is the second's answer; RefusedError with the outbox's own words where
    it is still none that Kafka takes, or where two would go to the one `topic`.
    """
    columns = [name for name in COLUMNS if name not in {"topic", "payload"}]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    fields = sql.SQL(", ").join(sql.SQL("(filled).{}").format(sql.Identifier(name)) for name in columns)
    try:
        with _read_committed(connection):
            written = connection.execute(
                sql.SQL(
                    "WITH kept AS (DELETE FROM outbox_skipped WHERE id = %s"
                    " RETURNING payload, jsonb_populate_record(NULL::outbox, message) AS filled)"
                    " INSERT INTO outbox (topic, payload, {0})"
                    " SELECT coalesce(%s, (filled).topic), payload, {1} FROM kept"
                ).format(names, fields),
                (message, topic),
            ).rowcount
            if not written:
                raise NotFoundError(
                    f"no message {message} was stepped over here", next_step="towpath capture skipped lists them"
                )
            if written > 1 and topic is not None:
                raise RefusedError(
                    f"{written} messages of the id {message} are kept aside, of as many topics: in one, the second "
                    "would be dropped as a copy of the first",
                    kept="the messages, where they are kept aside",
                    next_step="send them without --topic, each to its own",
                )
    except errors.CheckViolation as error:
        raise RefusedError(
            f"it is still refused: {error.diag.message_primary}",
            kept="the message, where it is kept aside",
            next_step=error.diag.message_hint or "give it another topic with --topic",
        ) from error


def _note_carried(connection: Connection, carried: Iterable[TopicAndId]) -> None:
    connection.execute("CREATE TEMP TABLE carried (topic text NOT NULL, id uuid NOT NULL) ON COMMIT DROP")
    with connection.cursor() as cursor, cursor.copy("COPY pg_temp.carried FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["text", "uuid"])
        for one in carried:
            copy.write_row(one)
    connection.execute("ANALYZE pg_temp.carried")


def _columns_of(messages: Iterable[TopicAndId]) -> tuple[list[str], list[UUID]]:
    known = list(messages)
    return [topic for topic, _ in known], [id_ for _, id_ in known]


def has_message(
    connection: Connection, topic: str, key: str, type_: str | None = None, saga_id: str | None = None
) -> bool:
    """Say whether the outbox holds a committed message for `key` in `topic`, of this type and saga where named.

    Reads every partition of the outbox, which has no index: a few seconds where it holds millions.
    """
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM outbox WHERE topic = %s AND key = %s"
        " AND (%s::text IS NULL OR type = %s) AND (%s::uuid IS NULL OR saga_id = %s::uuid))",
        (topic, key, type_, type_, saga_id, saga_id),
    ).fetchone()
    return bool(row and row[0])


def slots_of(connection: Connection, slots: Sequence[str]) -> dict[str, SlotState]:
    """Return the state of each of `slots` that exists; slots belong to the server, so any database will do."""
    states = (slot_state(connection, name) for name in slots)
    return {state.name: state for state in states if state is not None}


def _utc(at: datetime | None) -> datetime | None:
    """Return the time as the outbox's column has it: UTC, without saying so."""
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None)
