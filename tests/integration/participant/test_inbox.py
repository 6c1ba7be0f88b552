"""The inbox's table, and its upkeep."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql
from pydantic import SecretStr

from pipelines.services.catalog import list_product, service
from schemas.records.catalog import OutOfStock, ReleaseStock, ReserveStock, StockReleased, StockReserved
from tests.commands import CODEC, Asking
from tests.integration.service_fixture import ROOT, Asked, NewService
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, WorldError
from towpath.outbox.names import slot_name
from towpath.participant import Context, Service, handle_each, postgres, undo_each
from towpath.participant.core import BeyondInbox, InboxRow
from towpath.participant.postgres import apply_inbox_schema, apply_service_schema, keep_up
from towpath.settings import Settings, load_settings
from towpath.stream.broker.dead_letter import Mark
from towpath.stream.broker.record import ConsumedRecord
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


def carry_out_and_forget(asked: Asked, do: Asking, *, days_ago: int, keep_days: int) -> None:
    """Carry out a command as of some days ago, then clean the inbox."""
    at = datetime.now(UTC) - timedelta(days=days_ago)
    with asked.connection.transaction():
        assert asked.answerer.answer(asked.connection, [written(do, at)], at).carried_out == 1
    asked.rows(f"UPDATE inbox SET recorded_at = now() - interval '{days_ago} days' RETURNING 1")
    assert postgres.clean(asked.connection, keep_days) == 1


def written(asking: Asking, at: datetime, **changes: str) -> ConsumedRecord:
    """Return the record of a command that was written at a time."""
    return asking.arriving(2, **changes)._replace(timestamp_milliseconds=int(at.timestamp() * 1000))


RESERVE = Asking(ReserveStock(order_id="o-1", lines=()), step="stock")


@pytest.mark.parametrize("keep_days", [100, 180, 36_500])
def test_what_an_inbox_forgot_stays_forgotten_however_long_it_keeps_later(
    new_service: NewService, keep_days: int
) -> None:
    """Cleaned at 180 days, then raised: a command of 200 days ago was carried out again."""
    asked = new_service(service)
    carry_out_and_forget(asked, RESERVE, days_ago=200, keep_days=180)
    assert postgres.clean(asked.connection, keep_days) == 0
    now = datetime.now(UTC)
    with pytest.raises(RecordFailed) as failure, asked.connection.transaction():
        asked.answerer.answer(asked.connection, [written(RESERVE, now - timedelta(days=201))], now)
    assert isinstance(failure.value.cause, BeyondInbox)


@pytest.mark.parametrize(("started_days_ago", "refused"), [(201, True), (None, True), (198, False)])
def test_an_undo_of_what_the_inbox_may_have_forgotten_is_not_answered_as_if_there_were_nothing(
    new_service: NewService, started_days_ago: int | None, *, refused: bool
) -> None:
    """A saga may wait for years, or stand stuck. One that started since cannot have been forgotten."""
    asked = new_service(service)
    carry_out_and_forget(asked, RESERVE, days_ago=200, keep_days=180)
    now = datetime.now(UTC)
    started = {} if started_days_ago is None else {"started": (now - timedelta(days=started_days_ago)).isoformat()}
    undo = written(RESERVE.undoing(ReleaseStock(order_id="o-1")), now, **started)
    if not refused:
        with asked.connection.transaction():
            assert asked.answerer.answer(asked.connection, [undo], now).carried_out == 1
        return
    with pytest.raises(RecordFailed) as failure, asked.connection.transaction():
        asked.answerer.answer(asked.connection, [undo], now)
    assert isinstance(failure.value.cause, BeyondInbox)
    assert "what it undoes" in failure.value.cause.cause


def test_a_row_that_was_cleaned_before_it_was_marked_is_no_mark(new_service: NewService) -> None:
    """The batch is tried again: it read what is no longer there."""
    asked = new_service(service)
    with pytest.raises(WorldError, match="cleaned"), asked.connection.transaction():
        postgres.store(asked.connection, [], [UUID(int=1)])


@pytest.mark.parametrize("declared", ["succeeds", "fails"])
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a batch each"])
def test_an_undo_that_was_refused_and_is_retried_finds_what_it_undoes(
    new_service: NewService, declared: str, *, together: bool
) -> None:
    """The saga's undo declares fails=: it needs a person, whose retry begins a new round."""

    def reserve(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        context.connection.execute("UPDATE product SET reserved = reserved + 3")
        return StockReserved(order_id=command.order_id, reservation_id="r-1")

    def release(command: ReleaseStock, context: Context[ReleaseStock]) -> Record:
        if context.do_reply is not None:
            if context.round == 1:
                return OutOfStock(order_id=command.order_id, sku="vase", requested=3, available=0)
            context.connection.execute("UPDATE product SET reserved = reserved - 3")
        return StockReleased(order_id=command.order_id)

    replies: dict[str, Any] = {"succeeds": StockReleased, "fails": OutOfStock}
    if declared == "succeeds":
        replies = {"succeeds": (StockReleased, OutOfStock)}
    asked = new_service(
        Service(
            "catalog",
            handlers=[
                handle_each(ReserveStock, reserve, succeeds=StockReserved),
                undo_each(ReleaseStock, release, of=ReserveStock, **replies),
            ],
        )
    )
    with asked.connection.transaction():
        list_product(asked.connection, CODEC, sku="vase", name="Vase", unit_price_cents=1, on_hand=9, event_id=uuid4())
    first = RESERVE.undoing(ReleaseStock(order_id="o-1"))
    asks = [RESERVE, first, replace(first, round=2)]
    came = asked.ask(*asks) if together else [reply for one in asks for reply in asked.ask(one)]
    assert [type(reply) for reply in came] == [StockReserved, OutOfStock, StockReleased]
    assert asked.rows("SELECT reserved FROM product") == [(0,)]


def test_a_savepoint_of_a_handler_hides_none_of_the_engines(new_service: NewService) -> None:
    """It was called `command`, as a handler may well call its own: what was done before that one stayed, refused."""

    def refuse(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        context.connection.execute("INSERT INTO product VALUES ('x', 'X', 1, 'EUR', 1)")
        context.connection.execute("SAVEPOINT command")
        return OutOfStock(order_id=command.order_id, sku="x", requested=1, available=0)

    refusing = Service(
        "catalog", handlers=[handle_each(ReserveStock, refuse, succeeds=StockReserved, fails=OutOfStock)]
    )
    asked = new_service(refusing)
    assert [type(reply) for reply in asked.ask(RESERVE)] == [OutOfStock]
    assert asked.rows("SELECT * FROM product") == []


def with_database(url: str) -> Settings:
    """Return settings of a project of its own whose service `catalog` has this database."""
    settings = load_settings(ROOT, environment=False)
    return settings.model_copy(
        update={
            "project": settings.project.model_copy(update={"name": f"t{uuid4().hex[:10]}"}),
            "postgres": settings.postgres.model_copy(update={"urls": {"catalog": SecretStr(url)}}),
        }
    )


def test_a_role_that_may_create_nothing_learns_what_an_administrator_has_to_run(database_url: str) -> None:
    """As it is printed; after that it provisions."""
    role = f"meagre_{uuid4().hex[:8]}"
    url = urlsplit(database_url)
    meagre = url._replace(netloc=f"{role}:secret@{url.hostname}:{url.port}").geturl()
    with psycopg.connect(database_url, autocommit=True) as administrator:
        administrator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        try:
            with pytest.raises(ConfigurationError, match="permission denied") as raised:
                apply_service_schema(with_database(meagre), "catalog", capture=False)
            said = raised.value.next_step or ""
            administrator.execute(said[said.index("GRANT") : said.index("; then")].encode())
            apply_service_schema(with_database(meagre), "catalog", capture=False)
            with pytest.raises(ConfigurationError, match=f'ALTER ROLE "{role}" REPLICATION'):
                apply_service_schema(with_database(meagre), "catalog")
        finally:
            administrator.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_nothing_is_made_where_an_inbox_is_the_services_own(database_url: str) -> None:
    """Neither outbox nor slot, which, read by nobody, would hold back the server's log."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE inbox (mail text)")
        with pytest.raises(ConfigurationError, match=r"has a public\.inbox of its own"):
            apply_service_schema(with_database(database_url), "catalog")
        made = connection.execute(
            "SELECT to_regclass('outbox'), count(*) FROM pg_replication_slots WHERE database = current_database()"
        )
        assert made.fetchall() == [(None, 0)]


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
