"""Databases whose encoding is not UTF-8: what they cannot hold is a letter, and stops no worker."""

import asyncio
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.integration.stream.test_database_unit import TABLE, options, stands_at
from tests.unit.stream.support import memory_broker, working
from towpath.errors import PeerError
from towpath.outbox.postgres import apply_outbox_schema
from towpath.settings import OutboxSettings, PostgresSettings
from towpath.stream.broker.dead_letter import original, read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.postgres import DatabaseUnit

Connection = psycopg.Connection[Any]
BEYOND_LATIN = "注文-1"


@pytest.fixture
def latin(server: str) -> Iterator[tuple[str, Connection]]:
    """Return the URL of a LATIN1 database with an outbox, and a connection to it."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as administrator:
        administrator.execute(
            sql.SQL("CREATE DATABASE {} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").format(sql.Identifier(name))
        )
        url = f"{server}/{name}"
        try:
            with psycopg.connect(url) as connection:
                assert connection.execute("SHOW server_encoding").fetchall() == [("LATIN1",)]
                apply_outbox_schema(connection, PostgresSettings(), OutboxSettings())
                connection.execute(TABLE)
                connection.commit()
                yield url, connection
                connection.rollback()
        finally:
            administrator.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def letters(connection: Connection) -> list[tuple[ConsumedRecord, str]]:
    """Return each dead record as it was, and its cause."""
    rows = connection.execute(
        "SELECT topic, payload, dead FROM outbox WHERE dead IS NOT NULL ORDER BY sequence"
    ).fetchall()
    connection.rollback()
    found = []
    for topic, payload, dead in rows:
        letter = read_dead_letter(dead)
        record = ConsumedRecord(topic, 0, 0, 0, b"", bytes(payload), (("dead", dead.encode()),))
        found.append((original(record, letter), letter.cause))
    return found


def store_keys(keys: list[str], connection: Connection) -> None:
    """Write keys into a column of the database's encoding."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO applied VALUES ('v', %s)", [(key,) for key in keys])


def run_to(broker: MemoryBroker, latin: tuple[str, Connection], handler: Any, offset: int) -> None:
    url, connection = latin

    async def main() -> None:
        async with working(handler, options(broker, url), ["in"]) as worker:
            await worker.until(lambda: stands_at(connection) == offset)

    asyncio.run(main())


def test_the_letter_of_a_key_that_the_database_cannot_hold_is_written(latin: tuple[str, Connection]) -> None:
    """With key, headers and cause as they were; and later records of that key follow it."""
    _, connection = latin
    broker = memory_broker(partitions=1)
    headers = (("type", BEYOND_LATIN.encode()), ("step", "Zahlung für 5 €".encode()), ("x", BEYOND_LATIN.encode()))
    for value in (b"bad", b"next"):
        broker.append("in", value, key=BEYOND_LATIN.encode(), headers=headers)

    async def refuses(unit: DatabaseUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                raise RecordFailed(record, PeerError(f"{BEYOND_LATIN} is not ours"))

    run_to(broker, latin, refuses, 2)
    (first, cause), (second, _) = letters(connection)
    assert (first.key, first.value, first.headers) == (BEYOND_LATIN.encode(), b"bad", headers)
    assert cause == f"{BEYOND_LATIN} is not ours"
    assert (second.key, second.value) == (BEYOND_LATIN.encode(), b"next")


def test_what_a_handler_cannot_write_there_is_its_records_fault(latin: tuple[str, Connection]) -> None:
    """PostgreSQL says so by an SQLSTATE of class 22; the other records are applied."""
    _, connection = latin
    broker = memory_broker(partitions=1)
    for key in ("a", BEYOND_LATIN, "é"):
        broker.append("in", b"v", key=key.encode())

    async def stores(unit: DatabaseUnit, groups: Groups) -> None:
        for records in groups.values():
            await unit.run(partial(store_keys, [(record.key or b"").decode() for record in records]))

    run_to(broker, latin, stores, 3)
    ((dead, _),) = letters(connection)
    assert dead.key == BEYOND_LATIN.encode()
    rows = connection.execute("SELECT key FROM applied ORDER BY key").fetchall()
    assert rows == [("a",), ("é",)]
