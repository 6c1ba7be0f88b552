"""Reads the messages of an outbox as the records that Debezium made of them, in the order in which they committed.

The one rule: a message's number in that order is its record's offset, and a plan keeps a digest of the order. A run
that goes on counts as the one before it did, or is refused.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from towpath.capture.postgres import commit_order
from towpath.clock import Clock, SystemClock, wait_until
from towpath.errors import RefusedError, WorldError
from towpath.outbox.handover import routed_record
from towpath.outbox.message import COLUMNS, OutboxMessage
from towpath.outbox.postgres import connected
from towpath.replay.plan import OutboxRange, Ranges
from towpath.replay.reading import within
from towpath.settings import Settings
from towpath.stream.broker.partitioner import partition_of
from towpath.stream.broker.record import ConsumedRecord

Connection = psycopg.Connection[Any]
OPEN_SECONDS_MAX = 60.0
"""How long transactions are waited for that had begun before the plan: what they have written is part of it or not."""
LOOK_SECONDS = 0.1
ROWS_AT_ONCE = 2_000

# Of a message that was emitted anew, the first row tells its place: as in towpath/capture/postgres.py.
_FIRST = """
SELECT DISTINCT ON (id) {columns}, committed_at, written_as
  FROM (SELECT {columns}, {order} FROM public.outbox WHERE topic = ANY(%(topics)s) AND sequence < %(end)s) AS kept
 ORDER BY id, committed_at NULLS FIRST, written_as
"""
_DIGEST = """
SELECT count(*), coalesce(md5(string_agg(written_as::text, ',' ORDER BY committed_at NULLS FIRST, written_as)), '')
  FROM ({first}) AS first
"""
_READ = "SELECT {columns} FROM ({first}) AS first ORDER BY committed_at NULLS FIRST, written_as"
_READ_COLUMNS = (*COLUMNS, "created_at")


def outbox_connection(settings: Settings, service: str) -> AbstractContextManager[Connection]:
    """Connect to a service's database, to read. Raises WorldError where it is away."""
    return connected(settings, service, kept="everything: nothing was sent")


def range_of(connection: Connection, service: str, topics: tuple[str, ...], clock: Clock | None = None) -> OutboxRange:
    """Return what an outbox holds now of `topics`. Raises WorldError where a transaction stays open over it."""
    ((end,),) = connection.execute(
        "SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM public.outbox_sequence"
    ).fetchall()
    _await_open_transactions(connection, service, clock or SystemClock())
    count, order = _digest(connection, topics, int(end))
    return OutboxRange(service, int(end), count, order)


def _await_open_transactions(connection: Connection, service: str, clock: Clock) -> None:
    ((begun,),) = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchall()

    def are_over() -> bool:
        connection.commit()
        ((oldest,),) = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").fetchall()
        return bool(oldest >= begun)

    if not wait_until(clock, are_over, seconds=OPEN_SECONDS_MAX, every_seconds=LOOK_SECONDS):
        raise WorldError(
            f"a transaction has been open for {OPEN_SECONDS_MAX:g} s beside the outbox of {service}: whether what it "
            "writes is part of this plan is not known",
            kept="everything: nothing was sent",
            next_step="see pg_stat_activity for the transaction, end it, then plan again",
        )


def _first(connection: Connection, columns: sql.Composable) -> sql.Composed:
    return sql.SQL(_FIRST).format(columns=columns, order=commit_order(connection))


def _digest(connection: Connection, topics: tuple[str, ...], end: int) -> tuple[int, str]:
    first = _first(connection, sql.SQL("id"))
    ((count, order),) = connection.execute(
        sql.SQL(_DIGEST).format(first=first), {"topics": list(topics), "end": end}
    ).fetchall()
    return int(count), str(order)


def messages_in(
    connection: Connection, found: OutboxRange, topics: tuple[str, ...]
) -> Iterator[tuple[OutboxMessage, datetime]]:
    """Yield the messages of a range and when each was written (UTC), in the order of commit.

    All in one snapshot, which is held until the last one is read. Raises RefusedError where the outbox has let some of
    them go since.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    if _digest(connection, topics, found.sequence_end) != (found.messages, found.order):
        raise RefusedError(
            f"the outbox of {found.service} is not what was planned for: messages have expired since",
            kept="what was sent before; nothing more was sent",
            next_step=f"plan anew: towpath replay plan --outbox {found.service}",
        )
    columns = sql.SQL(", ").join(map(sql.Identifier, _READ_COLUMNS))
    query = sql.SQL(_READ).format(columns=columns, first=_first(connection, columns))
    with connection.cursor("towpath_replay") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query, {"topics": list(topics), "end": found.sequence_end})
        for *values, created_at in cursor:
            yield OutboxMessage(**dict(zip(COLUMNS, values, strict=True))), created_at.replace(tzinfo=UTC)


def record_of(message: OutboxMessage, written_at: datetime, number: int, partitions: int) -> ConsumedRecord:
    """Return the record that Debezium makes of a message in a topic of so many partitions; `number` is its offset."""
    routed = routed_record(message)
    return ConsumedRecord(
        message.topic,
        partition_of(routed.key, partitions),
        number,
        # Debezium cuts microseconds off.
        int(written_at.timestamp()) * 1000 + written_at.microsecond // 1000,
        routed.key,
        routed.value,
        routed.headers,
    )


class OutboxSource:
    """What a service's outbox held of some topics when the plan was made."""

    def __init__(
        self, settings: Settings, found: OutboxRange, topics: tuple[str, ...], partitions: Mapping[str, int]
    ) -> None:
        self._settings = settings
        self._found = found
        self._topics = topics
        self._partitions = partitions

    def require_unchanged(self, left: Ranges) -> None:
        """Raise nothing: it is asked in the snapshot that is read."""

    def read(self, left: Ranges) -> Iterator[ConsumedRecord]:
        """Yield what lies in `left`, in the order of commit.

        Raises RefusedError where the outbox is not what was planned for, WorldError where its database is away.
        """
        with outbox_connection(self._settings, self._found.service) as connection:
            messages = enumerate(messages_in(connection, self._found, self._topics))
            records = (
                record_of(message, written_at, number, self._partitions[message.topic])
                for number, (message, written_at) in messages
            )
            yield from within(records, left)
