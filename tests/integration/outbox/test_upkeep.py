"""The days of the outbox are made ahead, and go once they are old and Kafka has what is in them."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from pydantic import SecretStr

from tests.integration.conftest import RunningStack
from tests.integration.outbox.test_outbox import message, written
from towpath.clock import SystemClock, retry
from towpath.errors import WorldError
from towpath.outbox import postgres
from towpath.outbox.names import VIEWS_DATABASE, slot_name
from towpath.outbox.partitions import partition_name
from towpath.outbox.postgres import apply_outbox_schema, ensure_slot, keep_up, maintain, write
from towpath.settings import OutboxSettings, PostgresSettings

pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]


def days(connection: Connection) -> set[str]:
    """Return the names of the dated partitions."""
    rows = connection.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox'::regclass"
    ).fetchall()
    return {name for (name,) in rows} - {"outbox_default"}


def today(connection: Connection) -> date:
    """Return the day of the server's clock."""
    day: date = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchall()[0][0]
    return day


def add_message(connection: Connection, age_days: int) -> None:
    """Write a message of a day in the past."""
    connection.execute(
        "INSERT INTO outbox (id, topic, key, type, payload, created_at) VALUES (%s, 't', 'k', 'T', '', %s)",
        (UUID(int=age_days), today(connection) - timedelta(days=age_days)),
    )
    connection.commit()


def add_day(connection: Connection, age_days: int) -> str:
    """Make the partition of a day in the past with one message in it."""
    day = today(connection) - timedelta(days=age_days)
    name = partition_name(day)
    connection.execute(
        f"CREATE TABLE {name} PARTITION OF outbox FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
    )
    add_message(connection, age_days)
    return name


@pytest.fixture
def slot(connection: Connection) -> Iterator[str]:
    """Return a slot of this database, from its beginning."""
    name = slot_name(connection.info.dbname, VIEWS_DATABASE)
    ensure_slot(connection, name)
    yield name
    connection.rollback()
    connection.autocommit = True
    retry(
        SystemClock(),
        lambda: connection.execute("SELECT pg_drop_replication_slot(%s)", (name,)),
        on=errors.ObjectInUse,
        seconds=10.0,
        every_seconds=0.1,
    )


def carry(connection: Connection, slot: str) -> None:
    """Confirm all that is written, as Debezium does once Kafka has it."""
    for _ in range(3):  # PostgreSQL notes now and then which transactions run, and follows with the slot one note later
        for statement in ("SELECT pg_log_standby_snapshot()", "SELECT pg_logical_emit_message(true, 'x', 'x')"):
            connection.execute(statement)
            connection.commit()
        connection.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", (slot,))
        connection.commit()


@contextmanager
def read(connection: Connection, slot: str) -> Iterator[None]:
    """Read a slot, and confirm nothing."""
    url = f"postgresql://{connection.info.user}@{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    password = connection.info.password or None
    with closing(psycopg.connect(url, password=password, autocommit=True, replication="database")) as reader:
        options = "(proto_version '1', publication_names 'towpath_outbox')"
        reader.pgconn.exec_(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 {options}".encode())
        yield


def test_old_days_are_dropped_and_coming_days_made(connection: Connection, slot: str) -> None:
    """A week is kept, a week is made ahead; what Kafka has need not stay in the table."""
    kept, old = add_day(connection, 7), add_day(connection, 8)
    add_message(connection, 9)  # which the default partition takes
    carry(connection, slot)
    with read(connection, slot):
        done = maintain(connection, OutboxSettings(), slot=slot)
    assert (done.dropped, done.held_back) == ((old,), None)
    assert kept in days(connection)
    assert old not in days(connection)
    assert written(connection) == [7]


def test_a_day_is_kept_until_kafka_has_all_of_it(connection: Connection, slot: str) -> None:
    """However little the slot is behind: a re-emit, too, writes into old days."""
    carried, old = add_day(connection, 9), add_day(connection, 8)
    carry(connection, slot)
    add_message(connection, 8)
    add_message(connection, 10)
    connection.execute("INSERT INTO outbox_heartbeat VALUES (now() - interval '2 hours')")
    with read(connection, slot):
        done = maintain(connection, OutboxSettings(), slot=slot)
    assert (done.dropped, done.heartbeats_removed) == ((carried,), 1)
    assert done.held_back is not None
    assert slot in done.held_back
    assert old in done.held_back
    assert sorted(written(connection)) == [8, 8, 10]


def test_two_that_keep_up_one_outbox_at_once_both_do(
    connection: Connection, database_url: str, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker of a service does: what the other has dropped since this one looked is no fault."""
    old = (add_day(connection, 9), add_day(connection, 8))
    add_message(connection, 10)  # which the default partition takes
    carry(connection, slot)
    drop, other_did = postgres._drop_carried, []

    def after_the_other(mine: Connection, day: date, of_slot: str) -> bool:
        monkeypatch.setattr(postgres, "_drop_carried", drop)
        with psycopg.connect(database_url) as other:
            other_did.append(maintain(other, OutboxSettings(), slot=of_slot).dropped)
        return drop(mine, day, of_slot)

    monkeypatch.setattr(postgres, "_drop_carried", after_the_other)
    with read(connection, slot):
        done = maintain(connection, OutboxSettings(), slot=slot)
    assert (done.dropped, done.held_back) == (old, None)
    assert other_did == [old]
    assert written(connection) == []


def test_nothing_is_dropped_while_nobody_captures(connection: Connection) -> None:
    """Without a slot the outbox is the only place that has the messages."""
    old = add_day(connection, 30)
    done = maintain(connection, OutboxSettings(), slot="no_such_slot")
    assert done.dropped == ()
    assert done.held_back is not None
    assert "no_such_slot" in done.held_back
    assert old in days(connection)


def test_nothing_is_dropped_while_nobody_reads_the_slot(connection: Connection, slot: str) -> None:
    """Made anew where one was lost, it begins after what that one had not carried, until somebody recovers it."""
    old = add_day(connection, 30)
    carry(connection, slot)
    assert maintain(connection, OutboxSettings(), slot=slot).held_back == f"nobody reads slot {slot}"
    assert old in days(connection)


def test_a_message_commits_though_maintenance_is_late(connection: Connection) -> None:
    """The default partition takes it, and the next run leaves that day to it."""
    for name in days(connection):
        connection.execute(f"DROP TABLE {name}")
    write(connection, [message(1)])
    connection.commit()
    done = maintain(connection, OutboxSettings(ahead_days=2))
    assert len(done.created) == 2
    assert written(connection) == [1]
    write(connection, [message(2)])
    assert sorted(written(connection)) == [1, 2]


def test_upkeep_waits_for_a_writer_of_a_day_that_has_no_partition(connection: Connection, database_url: str) -> None:
    """Its row lies in the default partition where nobody sees it yet; one that takes too long is left to the next."""
    for name in days(connection):
        connection.execute(f"DROP TABLE {name}")
    connection.commit()
    with psycopg.connect(database_url) as writer:
        write(writer, [message(1)])
        with pytest.raises(errors.LockNotAvailable):
            maintain(connection, OutboxSettings(ahead_days=2))
        threading.Timer(0.5, writer.commit).start()
        assert len(maintain(connection, OutboxSettings(ahead_days=2)).created) == 2
    assert written(connection) == [1]


def test_provisioning_beside_a_writer_names_it(
    connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a day for which partitions are missing: whoever did nothing wrong learns what it waits for."""
    monkeypatch.setattr(postgres, "LOCK_TIMEOUT", "300ms")
    more = OutboxSettings(ahead_days=OutboxSettings().ahead_days + 1)
    with psycopg.connect(database_url, application_name="nightly report") as writer:
        write(writer, [message(1)])
        with pytest.raises(WorldError, match="nightly report") as raised:
            apply_outbox_schema(connection, PostgresSettings(), more)
        assert f"pg_terminate_backend({writer.info.backend_pid})" in (raised.value.next_step or "")
    apply_outbox_schema(connection, PostgresSettings(), more)


def test_a_slot_that_cannot_be_made_says_for_whom_it_waits(
    connection: Connection, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL waits for every transaction of the server, whatever its database; nobody else waits meanwhile."""
    name = slot_name(connection.info.dbname, VIEWS_DATABASE)
    monkeypatch.setattr(postgres, "SLOT_TIMEOUT", "1s")
    with psycopg.connect(f"{server}/postgres", application_name="nightly report") as other:
        other.execute("CREATE TEMP TABLE t (n int)")
        with pytest.raises(WorldError, match=r"nightly report.*postgres.*for 0:00:0") as raised:
            ensure_slot(connection, name)
        assert f"pg_terminate_backend({other.info.backend_pid})" in (raised.value.next_step or "")
    assert connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (name,)).fetchall() == []
    assert ensure_slot(connection, name)
    connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))


def test_the_next_step_ends_a_transaction_that_a_slot_waits_for(
    connection: Connection, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is printed; after that the slot is made."""
    name = slot_name(connection.info.dbname, VIEWS_DATABASE)
    monkeypatch.setattr(postgres, "SLOT_TIMEOUT", "1s")
    with closing(psycopg.connect(f"{server}/postgres")) as other:
        other.execute("CREATE TEMP TABLE t (n int)")
        with pytest.raises(WorldError) as raised:
            ensure_slot(connection, name)
        said = (raised.value.next_step or "").split(": ", 1)[1]
        connection.execute(said[: said.index(";")].encode())
        connection.commit()
        assert ensure_slot(connection, name)
    connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))


def test_the_outbox_of_the_views_is_kept_up_by_itself(
    connection: Connection, database_url: str, stack: RunningStack
) -> None:
    """It has no inbox; whatever the database answers, the next run tries again."""
    urls = {VIEWS_DATABASE: SecretStr(database_url)}
    there = stack.settings.postgres.model_copy(update={"urls": urls})
    settings = stack.settings.model_copy(update={"postgres": there})
    connection.execute("INSERT INTO outbox_heartbeat VALUES (now() - interval '2 hours')")
    connection.commit()
    assert keep_up(settings, VIEWS_DATABASE).heartbeats_removed == 1
    connection.execute("DROP TABLE outbox_heartbeat CASCADE")
    connection.commit()
    with pytest.raises(WorldError, match="outbox_heartbeat"):
        keep_up(settings, VIEWS_DATABASE)
