"""Records of the database form that are read again after its offset was reset: letters stay what they are."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from tests.integration.stream.test_database_unit import TABLE, applied_values, insert, options, until
from tests.unit.stream.support import memory_broker, working
from towpath.errors import PeerError
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.postgres import DatabaseUnit

Connection = psycopg.Connection[Any]


class TooOld(PeerError):
    """As what is beyond the horizon of dedup."""

    parks_key = False


@pytest.fixture(autouse=True)
def table(connection: Connection) -> None:
    connection.execute(TABLE)
    connection.commit()


async def refuses(unit: DatabaseUnit, groups: Groups) -> None:
    for records in groups.values():
        for record in records:
            if record.value in (b"bad", b"old"):
                raise RecordFailed(record, (PeerError if record.value == b"bad" else TooOld)("no"))
        await unit.run(insert(records))


def run_to(broker: MemoryBroker, connection: Connection, url: str, offset: int) -> None:
    async def main() -> None:
        async with working(refuses, options(broker, url), ["in"]) as worker:
            await until(worker, connection, offset)

    asyncio.run(main())


def letters(connection: Connection) -> list[tuple[str, str | None]]:
    """Return the value and what it follows of each letter, in the order of writing."""
    rows = connection.execute("SELECT payload, dead FROM outbox WHERE dead IS NOT NULL ORDER BY sequence").fetchall()
    connection.rollback()
    return [(bytes(payload).decode(), json.loads(dead).get("behind")) for payload, dead in rows]


def test_a_dead_record_read_again_is_the_same_letter(connection: Connection, database_url: str) -> None:
    """Not its own follower: what is in quarantine is passed over, and what is new of its key follows it."""
    broker = memory_broker(partitions=1)
    for value, key in (("a1", "a"), ("bad", "a"), ("b1", "b"), ("a2", "a")):
        broker.append("in", value.encode(), key=key.encode())
    run_to(broker, connection, database_url, 4)
    before = [("bad", None), ("a2", "in[0]@1")]
    assert letters(connection) == before
    connection.execute("UPDATE towpath_offsets SET next_offset = 0")
    connection.commit()
    broker.append("in", b"a3", key=b"a")
    run_to(broker, connection, database_url, 5)
    assert letters(connection) == [*before, ("a3", "in[0]@1")]
    assert applied_values(connection) == ["a1", "a1", "b1", "b1"]  # what a handler knows again is its own affair


def test_what_is_beyond_the_horizon_parks_no_key(connection: Connection, database_url: str) -> None:
    """Its letters hold up nothing that is not; read again, they are no followers of each other either."""
    broker = memory_broker(partitions=1)
    for value in (b"old", b"old", b"new"):
        broker.append("in", value, key=b"k")
    run_to(broker, connection, database_url, 3)
    assert applied_values(connection) == ["new"]
    assert letters(connection) == [("old", None), ("old", None)]
    assert connection.execute("SELECT count(*) FROM towpath_parked").fetchall() == [(0,)]
