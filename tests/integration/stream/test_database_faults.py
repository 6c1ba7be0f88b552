"""What a real PostgreSQL refuses: each refusal is its record's, or is waited for, by the table of SQLSTATEs."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.stream.test_database_unit import TABLE, applied_values, apply_all, insert, options, stands_at
from tests.unit.stream.support import SETTINGS, memory_broker, working
from towpath.stream.broker.dead_letter import traceback_of
from towpath.stream.broker.port import Groups
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.postgres import DatabaseUnit, create_stream_tables
from towpath.stream.engine.worker_status import WorkerStatus

Connection = psycopg.Connection[Any]
Act = Callable[[Connection], object]
STREAM = SETTINGS.model_copy(update={"transaction_timeout_seconds": 2.1, "session_timeout_seconds": 4.0})

TABLES = """
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE indexed (text text PRIMARY KEY);
"""


def large_index_row(connection: Connection) -> object:
    text = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 400) AS n"
    return connection.execute(f"INSERT INTO indexed {text}")


def closes(connection: Connection) -> object:
    connection.close()
    return connection.execute("SELECT 1")


def makes_a_part_read_only(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("INSERT INTO parent VALUES (1)")


REFUSED: dict[str, Act] = {
    "54000 index row too large": large_index_row,
    "57014 statement takes too long": lambda connection: (
        connection.execute("SET LOCAL statement_timeout = 50"),
        connection.execute("SELECT pg_sleep(5)"),
    ),
    "23503 at commit": lambda connection: connection.execute("INSERT INTO child VALUES (1)"),
    "22P02 data": lambda connection: connection.execute("SELECT 'x'::int"),
    "42P01 no such table": lambda connection: connection.execute("SELECT * FROM nowhere"),
    "P0001 raised by the database": lambda connection: connection.execute("DO $$ BEGIN RAISE 'no'; END $$"),
    "NUL in a text": lambda connection: connection.execute("SELECT %s::text", ("a\0b",)),
    "25006 the handler takes its own right to write": lambda connection: (
        connection.execute("SET TRANSACTION READ ONLY"),
        connection.execute("INSERT INTO parent VALUES (1)"),
    ),
    "25006 of a part of its transaction": makes_a_part_read_only,
    "25006 at commit": lambda connection: connection.execute("SET TRANSACTION READ ONLY"),
    "55006 a table that its own deferred triggers wait for": lambda connection: (
        connection.execute("INSERT INTO child VALUES (1)"),
        connection.execute("ALTER TABLE child ADD COLUMN more int"),
    ),
    "a lone surrogate": lambda connection: connection.execute("SELECT %s::text", ("\udc80",)),
    "the handler closes its connection": closes,
    "the handler commits": lambda connection: connection.commit(),
    "the handler rolls back": lambda connection: connection.rollback(),
    "the handler sets autocommit": lambda connection: setattr(connection, "autocommit", True),
    "the handler takes the connection for its own": lambda connection: connection.__exit__(None, None, None),
    "the handler executes COMMIT": lambda connection: connection.execute("COMMIT"),
    "the handler executes rollback": lambda connection: connection.execute(" rollback work"),
    "a ROLLBACK among other statements": lambda connection: connection.execute("SELECT 1; ROLLBACK; SELECT 2"),
    "a ROLLBACK past the connection": lambda connection: psycopg.Cursor(connection).execute("ROLLBACK; SELECT 2"),
}


@pytest.fixture(autouse=True)
def tables(connection: Connection) -> None:
    connection.execute(TABLE + ";" + TABLES)
    connection.commit()


def run_with(
    connection: Connection, database_url: str, act: Act, *, named: bool, attempts: int | None = None
) -> list[tuple[bytes]]:
    """Apply `1, BAD, 2`; BAD acts, `attempts` times (None: always). Return what was quarantined."""
    broker = memory_broker(partitions=1)
    for value in (b"1", b"BAD", b"2"):
        broker.append("in", value, key=value)
    acted: list[int] = []

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                bad = record.value == b"BAD" and (attempts is None or len(acted) < attempts)
                if not bad:
                    await unit.run(insert([record]))
                    continue
                acted.append(1)
                try:
                    await unit.run(act)
                except psycopg.Error as error:
                    if named:
                        raise RecordFailed(record, error) from error
                    raise

    async def main() -> None:
        async with working(handler, options(broker, database_url, settings=STREAM), ["in"]) as worker:
            await worker.until(lambda: stands_at(connection) == 3, seconds=40)

    asyncio.run(main())
    return connection.execute("SELECT payload FROM outbox").fetchall()


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_what_would_be_refused_again_is_its_records_fault(connection: Connection, database_url: str, what: str) -> None:
    """It is dead after its attempts, and the others are applied."""
    assert run_with(connection, database_url, REFUSED[what], named=False) == [(b"BAD",)]
    assert applied_values(connection) == ["1", "2"]


def test_another_database_that_takes_no_writes_is_waited_for(connection: Connection, database_url: str) -> None:
    """It is a standby for a while; a foreign table hands on what it says."""
    where = f"host '127.0.0.1', port '{connection.info.port}', dbname '{connection.info.dbname}'"
    user = connection.info.user
    connection.execute(
        f"""
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS ({where}, options '-c default_transaction_read_only=on');
        CREATE USER MAPPING FOR {user} SERVER there OPTIONS (user '{user}');
        CREATE FOREIGN TABLE far (id int) SERVER there OPTIONS (table_name 'parent');
        """.encode()
    )
    connection.commit()
    act: Act = lambda mine: mine.execute("INSERT INTO far VALUES (1)")  # noqa: E731
    attempts = SETTINGS.handler_attempts_max + 2
    assert run_with(connection, database_url, act, named=False, attempts=attempts) == []
    assert applied_values(connection) == ["1", "2", "BAD"]


def test_savepoints_are_the_functions_own(connection: Connection, database_url: str) -> None:
    """Psycopg's, and those of SQL."""

    def act(mine: Connection) -> None:
        with mine.transaction(force_rollback=True):
            mine.execute("INSERT INTO parent VALUES (1)")
        mine.execute("SAVEPOINT own")
        mine.execute("INSERT INTO parent VALUES (2)")
        mine.execute("ROLLBACK TO SAVEPOINT own")
        mine.execute("rollback work to own")
        mine.execute("INSERT INTO parent VALUES (3)")
        mine.execute("RELEASE own")

    assert run_with(connection, database_url, act, named=False) == []
    assert connection.execute("SELECT id FROM parent").fetchall() == [(3,)]


def test_what_a_function_sets_for_the_session_ends_with_its_unit(connection: Connection, database_url: str) -> None:
    """Rows as dicts, other cursors, a role, a tenant: neither the engine nor the next record meets them."""
    broker = memory_broker(partitions=1)
    for number in range(8):  # past psycopg's threshold for preparing what is repeated
        broker.append("in", str(number).encode(), key=b"k")
    seen: list[Any] = []

    def act(mine: Connection) -> None:
        said = "SELECT current_user, current_setting('search_path'), current_setting('own.tenant', true)"
        seen.append(mine.execute(said).fetchone())
        mine.row_factory, mine.cursor_factory = dict_row, psycopg.RawCursor
        mine.execute("SET own.tenant = 'x'")
        mine.execute("SET search_path = public, pg_temp")
        mine.execute("SET ROLE pg_write_all_data")  # which may write what the engine writes

    async def handler(unit: DatabaseUnit, _: Groups) -> None:
        await unit.run(act)

    alone = STREAM.model_copy(update={"batch_records_max": 1})

    async def main() -> None:
        async with working(handler, options(broker, database_url, settings=alone), ["in"]) as worker:
            await worker.until(lambda: stands_at(connection) == 8, seconds=40)

    connection.execute("GRANT pg_read_all_data TO pg_write_all_data")
    connection.commit()
    asyncio.run(main())
    connection.execute("REVOKE pg_read_all_data FROM pg_write_all_data")
    connection.commit()
    assert len(seen) == 8
    assert {(*row[:2], row[2] or None) for row in seen} == {seen[0]}


def test_a_letter_says_what_was_refused_and_no_value_of_the_row(connection: Connection, database_url: str) -> None:
    """PostgreSQL's details are values, and a letter's cause goes into logs, lists and metrics."""
    secret = "INSERT INTO indexed VALUES ('not for logs'), ('not for logs')"
    run_with(connection, database_url, lambda connection: connection.execute(secret), named=True)
    ((dead,),) = connection.execute("SELECT dead FROM outbox").fetchall()
    letter = json.loads(dead)
    assert letter["cause"] == 'duplicate key value violates unique constraint "indexed_pkey"'
    assert "not for logs" not in dead


def test_a_traceback_says_where_it_was_refused_and_no_value_of_the_row(connection: Connection) -> None:
    """The log has it, once for each run of a record that is alone."""
    secret = "INSERT INTO indexed VALUES ('not for logs'), ('not for logs')"
    try:
        try:
            connection.execute(secret)
        except psycopg.Error as error:
            raise RuntimeError("the handler's own words") from error
    except RuntimeError as error:
        text = traceback_of(error)
    assert "psycopg.errors.UniqueViolation: duplicate key value" in text
    assert "connection.execute(secret)" in text
    assert text.rstrip().endswith("RuntimeError: the handler's own words")
    assert "not for logs" not in text


def full_in_a_group(connection: Connection) -> None:
    """Fail as a function does that gathers its errors."""
    try:
        connection.execute("SELECT 'x'::int")
    except psycopg.Error as error:
        raise ExceptionGroup("some of several", [error, psycopg.errors.DiskFull("as if")]) from error


LATER: dict[str, Act] = {
    "57P01 the session is ended": lambda connection: connection.execute(
        "SELECT pg_terminate_backend(pg_backend_pid())"
    ),
    "40P01 a deadlock": lambda connection: connection.execute(
        "DO $$ BEGIN RAISE 'as if' USING ERRCODE = '40P01'; END $$"
    ),
    "53100 the disk is full": lambda connection: connection.execute(
        "DO $$ BEGIN RAISE 'as if' USING ERRCODE = '53100'; END $$"
    ),
    "53100 among others": full_in_a_group,
    "55P03 a row is locked": lambda connection: connection.execute(
        "DO $$ BEGIN RAISE 'as if' USING ERRCODE = '55P03'; END $$"
    ),
}


@pytest.mark.parametrize("named", [False, True], ids=["", "record named"])
@pytest.mark.parametrize("what", sorted(LATER))
def test_what_goes_well_later_is_waited_for(
    connection: Connection, database_url: str, what: str, *, named: bool
) -> None:
    """However often it fails, and whoever is named: no record is dead of it."""
    attempts = SETTINGS.handler_attempts_max + 2  # the first in its batch, the second in a half of that
    assert run_with(connection, database_url, LATER[what], named=named, attempts=attempts) == []
    assert applied_values(connection) == ["1", "2", "BAD"]


@pytest.mark.parametrize("made", ["there before", "not made yet"])
def test_a_database_that_takes_no_writes_is_waited_for(connection: Connection, database_url: str, made: str) -> None:
    """As a standby after a failover, where nothing of a unit is written yet."""
    broker = memory_broker(partitions=1)
    broker.append("in", b"1", key=b"1")
    if made == "there before":
        create_stream_tables(connection)
    setting = f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = "
    connection.execute(f"{setting} on".encode())
    connection.commit()
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        stream = options(broker, database_url, settings=STREAM, on_status=statuses.append)
        async with working(apply_all, stream, ["in"]) as worker:
            await worker.until(lambda: bool(statuses) and "read-only" in statuses[-1].words)
            connection.execute(f"{setting} off".encode())
            connection.commit()
            await worker.until(lambda: stands_at(connection) == 1)

    asyncio.run(main())
    assert applied_values(connection) == ["1"]
