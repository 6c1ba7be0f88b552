"""The inbox's table, and its upkeep."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from psycopg import errors, sql

from pipelines.services.catalog import service
from schemas.records.catalog import ReserveStock
from tests.commands import Asking
from tests.integration.service_fixture import NewService
from towpath.errors import ConfigurationError
from towpath.outbox.names import slot_name
from towpath.participant import postgres
from towpath.participant.core import BeyondInbox, InboxRow
from towpath.participant.postgres import apply_inbox_schema, apply_service_schema, keep_up
from towpath.stream.broker.dead_letter import Mark
from towpath.stream.engine.failures import RecordFailed

pytestmark = pytest.mark.stack


def row(number: int, *, undone: bool = False) -> InboxRow:
    """Return a row that differs from others by its number."""
    return InboxRow(
        UUID(int=number), UUID(int=1), "place_order", "stock", "", "do", 1, "o-1", undone, False, "T", b"\0p"
    )


@pytest.mark.parametrize("count", [1, 2, 500])
def test_rows_are_read_as_they_were_written(new_service: NewService, count: int) -> None:
    """However many there are."""
    connection = new_service(service).connection
    rows = [row(number) for number in range(count)]
    postgres.store(connection, rows, [])
    assert sorted(postgres.fetch(connection, (one.idempotency_key for one in rows))) == rows


def test_the_mark_of_an_undo_is_a_row_without_a_reply(new_service: NewService) -> None:
    """And only such a mark may have none."""
    connection = new_service(service).connection
    mark = row(1, undone=True)._replace(type=None, payload=None)
    postgres.store(connection, [mark], [])
    assert postgres.fetch(connection, [mark.idempotency_key]) == [mark]
    with pytest.raises(errors.CheckViolation):
        postgres.store(connection, [row(2)._replace(type=None, payload=None)], [])


def test_a_stored_row_can_be_marked(new_service: NewService) -> None:
    """Its reply stays."""
    connection = new_service(service).connection
    postgres.store(connection, [row(1), row(2)], [])
    postgres.store(connection, [], [UUID(int=1)])
    assert sorted(postgres.fetch(connection, [UUID(int=1), UUID(int=2)])) == [row(1, undone=True), row(2)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_second_outcome_under_one_key_is_refused(new_service: NewService, count: int) -> None:
    """By the database itself, should two workers ever be at it."""
    connection = new_service(service).connection
    postgres.store(connection, [row(1)], [])
    with pytest.raises(errors.UniqueViolation):
        postgres.store(connection, [row(number) for number in range(1, count + 1)], [])


def test_rows_are_cleaned_once_nobody_can_ask_for_them(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few at a time, the younger ones stay."""
    monkeypatch.setattr(postgres, "CLEAN_ROWS", 4)
    asked = new_service(service)
    postgres.store(asked.connection, [row(number) for number in range(10)], [])
    asked.connection.execute(
        "UPDATE inbox SET recorded_at = now() - interval '101 days' WHERE idempotency_key < %s", (UUID(int=9),)
    )
    asked.connection.commit()
    assert postgres.clean(asked.connection, 100) == 9
    assert postgres.fetch(asked.connection, [UUID(int=n) for n in range(10)]) == [row(9)]


def test_what_was_recorded_up_to_a_time_has_its_whole_millisecond(new_service: NewService) -> None:
    """A reply's time is cut to milliseconds: what was recorded later in the same one was there before the reply."""
    connection = new_service(service).connection
    postgres.store(connection, [row(1)], [])
    connection.execute("UPDATE inbox SET recorded_at = timestamptz '2026-01-01 12:00:00.000999Z'")
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    saga_id = str(row(1).saga_id)
    assert [one["step"] for one in postgres.recorded_for(connection, saga_id, at)] == ["stock"]
    assert postgres.recorded_for(connection, saga_id, at - timedelta(milliseconds=1)) == []


def test_a_command_older_than_what_the_inbox_forgot_is_not_guessed_at(new_service: NewService) -> None:
    """Redriven twice, it outlives its mark: a dead letter says so. One that is newer goes on."""
    asked = new_service(service)
    postgres.store(asked.connection, [row(1)], [])
    asked.connection.execute("UPDATE inbox SET recorded_at = now() - interval '181 days'")
    asked.connection.commit()
    reserve = Asking(ReserveStock(order_id="o-1", lines=()), step="stock")
    now = datetime.now(UTC)
    written = int((now - timedelta(days=200)).timestamp() * 1000)
    mark = Mark("catalog", "catalog.commands[0]@1", None, False, 1, written, written)
    redriven = reserve.arriving(2)._replace(timestamp_milliseconds=int(now.timestamp() * 1000))
    redriven = redriven._replace(headers=(*redriven.headers, mark.to_header()))
    with asked.connection.transaction(force_rollback=True):
        assert asked.answerer.answer(asked.connection, [redriven], now).carried_out == 1
    assert postgres.clean(asked.connection, 180) == 1
    with pytest.raises(RecordFailed) as failure, asked.connection.transaction():
        asked.answerer.answer(asked.connection, [redriven], now)
    assert isinstance(failure.value.cause, BeyondInbox)
    younger = redriven._replace(headers=redriven.headers[:-1])
    with asked.connection.transaction(force_rollback=True):
        assert asked.answerer.answer(asked.connection, [younger], now).carried_out == 1


def test_a_schema_of_the_users_name_makes_nothing_forgotten(new_service: NewService) -> None:
    """PostgreSQL looks there first, as soon as there is one: a second inbox would carry every command out again."""
    asked = new_service(service)
    connection = asked.connection
    postgres.store(connection, [row(1)], [])
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(connection.info.user)))
    connection.commit()
    apply_service_schema(asked.settings, "catalog", capture=False)
    assert postgres.fetch(connection, [UUID(int=1)]) == [row(1)]
    tables = asked.rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_user AND tablename ~ '^(in|out)box'"
    )
    assert tables == []


def test_a_service_that_has_an_inbox_of_its_own_is_told_so(new_service: NewService) -> None:
    """A name that many use already."""
    asked = new_service(service)
    asked.connection.execute("ALTER TABLE inbox DROP COLUMN idempotency_key")
    asked.connection.commit()
    with pytest.raises(ConfigurationError, match=r"has a public\.inbox of its own"):
        apply_inbox_schema(asked.connection)


def test_a_service_gets_all_its_tables_and_upkeep_finds_them(new_service: NewService) -> None:
    """Applied twice, as every start of the stack does; the slot is there before the first message."""
    asked = new_service(service)
    settings = asked.settings.model_copy(
        update={"project": asked.settings.project.model_copy(update={"name": asked.connection.info.dbname})}
    )
    slot = slot_name(settings.project.name, "catalog")
    try:
        apply_service_schema(settings, "catalog")
        apply_service_schema(settings, "catalog")
        tables = {name for (name,) in asked.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        assert {"outbox", "outbox_heartbeat", "inbox", "product", "reservation"} <= tables
        assert asked.rows(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'") == [(1,)]
        done = keep_up(settings, "catalog")
        assert done.outbox.held_back == f"nobody reads slot {slot}"
        assert done.inbox_rows_removed == 0
    finally:
        asked.rows(f"SELECT pg_drop_replication_slot('{slot}')")
