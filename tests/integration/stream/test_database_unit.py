"""The database form on a real PostgreSQL (and the broker in memory): offsets in the database guard the effects."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.unit.stream.support import SETTINGS, Worker, in_transaction, memory_broker, options_for, working
from towpath.errors import PeerError
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.options import DatabaseOptions, StreamOptions
from towpath.stream.engine.postgres import DatabaseUnit
from towpath.stream.engine.unit import UnitClosed
from towpath.stream.engine.worker_status import WorkerStatus

TABLE = "CREATE TABLE IF NOT EXISTS applied (value text, key text)"


def options(broker: MemoryBroker, url: str, **changes: Any) -> StreamOptions:
    return options_for(
        broker,
        unit_of_work="database",
        database=DatabaseOptions(url=url, connection_options={}),
        **changes,
    )


def fill(broker: MemoryBroker, records: int) -> None:
    for index in range(records):
        broker.append("in", str(index).encode(), key=f"k{index % 5}".encode())


def insert(records: list[ConsumedRecord]) -> Callable[[psycopg.Connection[Any]], None]:
    def apply(connection: psycopg.Connection[Any]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO applied VALUES (%s, %s)",
                [((record.value or b"").decode(), (record.key or b"").decode()) for record in records],
            )

    return apply


async def apply_all(unit: DatabaseUnit, groups: Groups) -> None:
    for records in groups.values():
        await unit.run(insert(records))


def applied(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute("SELECT value FROM applied ORDER BY value::int").fetchall()
    connection.rollback()
    return [value for (value,) in rows]


def applied_values(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute("SELECT value FROM applied ORDER BY value").fetchall()
    connection.rollback()
    return [value for (value,) in rows]


def stands_at(connection: psycopg.Connection[Any]) -> int:
    if not has_table(connection):
        return 0
    (total,) = connection.execute("SELECT coalesce(sum(next_offset), 0)::int FROM public.towpath_offsets").fetchall()[0]
    connection.rollback()
    return int(total)


def has_table(connection: psycopg.Connection[Any]) -> bool:
    (found,) = connection.execute("SELECT to_regclass('public.towpath_offsets') IS NOT NULL").fetchall()[0]
    # A new transaction each time: within one, PostgreSQL remembers that it did not find the name.
    connection.rollback()
    return bool(found)


async def until(worker: Worker, connection: psycopg.Connection[Any], total: int) -> None:
    await worker.until(lambda: has_table(connection) and stands_at(connection) == total, seconds=15)


@pytest.fixture(autouse=True)
def table(connection: psycopg.Connection[Any]) -> None:
    connection.execute(TABLE)
    connection.commit()


def numbers(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def test_effects_and_offsets_are_one_transaction(connection: psycopg.Connection[Any], database_url: str) -> None:
    """Every record is applied once, the offsets stand behind the last, and Kafka's own follow for display."""
    broker = memory_broker()
    fill(broker, 120)

    async def main() -> None:
        async with working(apply_all, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 120)
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 120)

    asyncio.run(main())
    assert applied(connection) == numbers(120)


def test_a_failing_handler_leaves_nothing_behind(connection: psycopg.Connection[Any], database_url: str) -> None:
    """What it wrote before it failed is rolled back, and then written once."""
    broker = memory_broker()
    fill(broker, 40)
    failures = 0

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        nonlocal failures
        await apply_all(unit, groups)
        if failures < 2:
            failures += 1
            raise ValueError("not yet")

    async def main() -> None:
        async with working(handler, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 40)

    asyncio.run(main())
    assert applied(connection) == numbers(40)


def test_what_a_handler_left_behind_is_in_no_unit(connection: psycopg.Connection[Any], database_url: str) -> None:
    """A unit fails while another of its partitions still waits for the database: what that writes is rolled back, too.

    Else the next unit would commit it: half of an effect, under the name of another.
    """
    broker = memory_broker()
    fill(broker, 40)
    left: list[asyncio.Task[None]] = []

    def fail_half_way(records: list[ConsumedRecord]) -> Callable[[psycopg.Connection[Any]], None]:
        def apply(database: psycopg.Connection[Any]) -> None:
            insert(records)(database)
            raise ValueError("half way")

        return apply

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        if left:
            await apply_all(unit, groups)
            return
        busy = threading.Event()
        waiting = asyncio.ensure_future(unit._transaction._in_thread(busy.wait))
        left.extend(asyncio.ensure_future(unit.run(fail_half_way(records))) for records in groups.values())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.3, busy.set)
        assert not waiting.done()
        raise ValueError("another record of the unit")

    async def main() -> None:
        async with working(handler, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 40)
            assert left
            for outcome in await asyncio.gather(*left, return_exceptions=True):
                assert isinstance(outcome, UnitClosed | ValueError)

    asyncio.run(main())
    assert applied(connection) == numbers(40)


def test_a_ghost_finds_that_it_was_replaced(connection: psycopg.Connection[Any], database_url: str) -> None:
    """A worker whose partition another one has moved on in the database applies nothing, and goes on from there."""
    broker = memory_broker(partitions=1)
    fill(broker, 10)
    moved = False

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        nonlocal moved
        if not moved:
            moved = True
            # The heir applied the first five while this worker was stopped.
            connection.execute("INSERT INTO applied SELECT n::text, '' FROM generate_series(0, 4) AS n")
            connection.execute("UPDATE towpath_offsets SET next_offset = 5")
            connection.commit()
        await apply_all(unit, groups)

    async def main() -> None:
        async with working(handler, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 10)

    asyncio.run(main())
    assert applied(connection) == numbers(10)


def test_a_ghost_applies_nothing_past_what_its_heir_parked(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    """The heir parked a key by a record of another topic: of this one's own row, the ghost would find nothing new."""
    broker = memory_broker(partitions=1)

    def heir() -> None:
        in_transaction(broker, "in", b"2")  # the ghost is not shown it
        connection.execute("UPDATE towpath_offsets SET next_offset = 1 WHERE topic = 'in'")
        connection.execute(
            "INSERT INTO towpath_parked (application, partition, key, behind, spans) VALUES ('app', 0, 'k', 'in[0]@0', "
            "'in:0:0:9000000000000')"
        )
        connection.commit()

    async def main() -> None:
        async with working(apply_all, options(broker, database_url), ["in", "timers"]) as worker:
            broker.append("timers", b"1", key=b"j")
            await until(worker, connection, 1)
            heir()
            broker.append("timers", b"3", key=b"k", headers=(("id", b"y"),))
            await until(worker, connection, 3)

    asyncio.run(main())
    assert applied(connection) == ["1"]
    (row,) = connection.execute("SELECT payload, dead FROM outbox").fetchall()
    assert row[0] == b"3"
    assert read_dead_letter(row[1]).behind == "in[0]@0"


async def refuse_bad(unit: DatabaseUnit, groups: Groups) -> None:
    for records in groups.values():
        for record in records:
            if record.value == b"bad":
                raise RecordFailed(record, PeerError("no"))
            await unit.run(insert([record]))


def test_where_counts_differ_two_workers_know_the_same_parked_keys(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    """Partitions of one number are then two workers', and each parks keys that the other meets."""
    broker = memory_broker(partitions=2)
    for topic in ("many", "many.dead"):
        broker.create_topic(topic, 4)
    last = (TopicPartition("in", 1), TopicPartition("many", 1))

    def put(topic: str, *texts: str) -> None:
        for text in texts:
            broker.append(topic, text.encode(), key=b"k", partition=1, headers=(("id", text.encode()),))

    def read(*offsets: int) -> bool:
        found = broker.committed_offsets("app")
        return [found.get(place, 0) for place in last] == list(offsets)

    async def main() -> None:
        topics = ["in", "many"]
        async with (
            working(refuse_bad, options(broker, database_url, slot="a"), topics) as one,
            working(refuse_bad, options(broker, database_url, slot="b"), topics) as other,
        ):
            await one.until(lambda: all(worker.loop.ownership.partitions for worker in (one, other)))
            owners = [worker for worker in (one, other) if last[0] in worker.loop.ownership.partitions]
            assert owners != [worker for worker in (one, other) if last[1] in worker.loop.ownership.partitions]
            put("many", "1")
            await one.until(lambda: read(0, 1))
            put("in", "bad")
            await one.until(lambda: read(1, 1))
            put("many", "2")
            await one.until(lambda: read(1, 2))
            put("in", "3")
            await one.until(lambda: read(2, 2))

    asyncio.run(main())
    assert applied(connection) == ["1"]
    rows = connection.execute("SELECT payload, dead FROM outbox").fetchall()
    letters = {payload: read_dead_letter(dead).behind for payload, dead in rows}
    assert letters == {b"bad": None, b"2": "in[1]@0", b"3": "in[1]@0"}
    assert connection.execute("SELECT partition, held FROM towpath_parked").fetchall() == [(1, 3)]


def test_the_heir_waits_for_the_ghosts_open_transaction(connection: psycopg.Connection[Any], database_url: str) -> None:
    """A predecessor that still holds the rows either commits first, or is ended by the server's time-out."""
    broker = memory_broker(partitions=1)
    fill(broker, 10)

    async def main() -> None:
        async with working(apply_all, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 10)
        fill(broker, 10)
        with psycopg.connect(database_url) as ghost:
            ghost.execute("SELECT * FROM towpath_offsets FOR UPDATE")
            ghost.execute("INSERT INTO applied SELECT n::text, '' FROM generate_series(0, 4) AS n")
            ghost.execute("UPDATE towpath_offsets SET next_offset = 15")
            async with working(apply_all, options(broker, database_url, slot="b"), ["in"]) as worker:
                await asyncio.sleep(0.5)
                assert len(applied(connection)) == 10
                ghost.commit()
                await until(worker, connection, 20)

    asyncio.run(main())
    assert len(applied(connection)) == 20


@pytest.mark.parametrize("moment", ["while it works", "before its commit"])
def test_a_lost_connection_loses_and_repeats_nothing(
    connection: psycopg.Connection[Any], database_url: str, moment: str
) -> None:
    """The server ends the worker's session in the middle: the unit is done again on a new one."""
    broker = memory_broker()
    fill(broker, 60)
    kills = 0

    def kill() -> None:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'app' AND datname = current_database()"
        )
        connection.commit()

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        nonlocal kills
        if moment == "while it works" and kills < 2:
            kills += 1
            await unit.run(lambda mine: mine.execute("SELECT 1"))
            kill()
        await apply_all(unit, groups)
        if moment == "before its commit" and kills < 2:
            kills += 1
            kill()

    async def main() -> None:
        async with working(handler, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 60)

    asyncio.run(main())
    assert applied(connection) == numbers(60)


def test_a_dead_letter_leaves_through_the_databases_own_outbox(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    """In the same transaction, untouched, with its headers in their columns; later records of its key follow it."""
    broker = memory_broker(partitions=1)
    headers = (("id", b"x"), ("type", b"T"), ("step", b"pay"), ("attempt", b"2"))
    for value, key in (("1", "a"), ("bad", "a"), ("2", "b"), ("3", "a")):
        broker.append("in", value.encode(), key=key.encode(), headers=headers)

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                if record.value == b"bad":
                    raise RecordFailed(record, PeerError("not ours"))
        await apply_all(unit, groups)

    async def main() -> None:
        async with working(handler, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 4)
        broker.append("in", b"4", key=b"a", headers=headers)
        async with working(handler, options(broker, database_url, slot="b"), ["in"]) as worker:
            await until(worker, connection, 5)

    asyncio.run(main())
    rows = connection.execute(
        "SELECT topic, key, payload, type, step, attempt, dead FROM outbox ORDER BY created_at, dead"
    ).fetchall()
    assert {row[2] for row in rows} == {b"bad", b"3", b"4"}
    by_value = {row[2]: row for row in rows}
    assert by_value[b"bad"][:6] == ("in.dead", "a", b"bad", "T", "pay", 2)
    assert read_dead_letter(by_value[b"bad"][6]).cause == "not ours"
    assert read_dead_letter(by_value[b"4"][6]).behind == "in[0]@1"
    assert applied(connection) == ["1", "2"]


def held(statuses: list[WorkerStatus]) -> list[str]:
    """Return why the worker holds partitions, as it last said."""
    return [held.kind for held in statuses[-1].held] if statuses else []


def decide(connection: psycopg.Connection[Any], topic_id: str, offset: int) -> None:
    """Decide as `towpath positions accept` does."""
    connection.execute("UPDATE towpath_offsets SET topic_id = %s, next_offset = %s, note = ''", (topic_id, offset))
    connection.commit()


def test_a_topic_made_anew_is_held_until_a_person_decides(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    """Offsets of the old topic say nothing of the new one; a decision is taken up without a restart."""
    broker = memory_broker(partitions=1)
    fill(broker, 5)
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(apply_all, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 5)
        broker.create_topic("in", 1)
        fill(broker, 10)
        again = options(broker, database_url, slot="b", on_status=statuses.append)
        async with working(apply_all, again, ["in"]) as worker:
            await worker.until(lambda: held(statuses) == ["recreated"])
            assert applied(connection) == numbers(5)
            decide(connection, broker.topic_ids(["in"])["in"], 7)
            await until(worker, connection, 10)
            await worker.until(lambda: statuses[-1].is_ready)

    asyncio.run(main())
    assert applied(connection) == [*numbers(5), "7", "8", "9"]


def test_a_log_that_lost_its_tail_holds_its_partition(connection: psycopg.Connection[Any], database_url: str) -> None:
    """What is written at the lost offsets is not skipped, though the log grows past where the database stands.

    Before, the worker aborted without end, saying that the database and it both stand at 8; then it skipped three.
    """
    broker = memory_broker(partitions=1)
    fill(broker, 8)
    statuses: list[WorkerStatus] = []
    place = TopicPartition("in", 0)

    def worker_options() -> StreamOptions:
        return options(broker, database_url, on_status=statuses.append)

    async def main() -> None:
        async with working(apply_all, worker_options(), ["in"]) as worker:
            await until(worker, connection, 8)
            with broker.changed:
                broker.log_of(place).truncate(5)
            await worker.until(lambda: held(statuses) == ["beyond_end"])
        for index in range(100, 105):
            broker.append("in", str(index).encode(), key=b"k")
        statuses.clear()
        async with working(apply_all, worker_options(), ["in"]) as worker:
            await worker.until(lambda: held(statuses) == ["beyond_end"])
            assert "--from 5 " in (statuses[-1].held[0].next_step or "")
            assert applied(connection) == numbers(8)
            decide(connection, broker.topic_ids(["in"])["in"], 5)
            await until(worker, connection, 10)

    asyncio.run(main())
    assert applied(connection) == [*numbers(8), *map(str, range(100, 105))]


def test_records_that_expired_unread_hold_their_partition(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    """They hold it where something was read before; an application that begins, begins at the oldest record."""
    broker = memory_broker(partitions=1)
    fill(broker, 4)
    place = TopicPartition("in", 0)
    broker.log_of(place).expire(2)
    statuses: list[WorkerStatus] = []

    def worker_options() -> StreamOptions:
        return options(broker, database_url, on_status=statuses.append)

    async def main() -> None:
        async with working(apply_all, worker_options(), ["in"]) as worker:
            await until(worker, connection, 4)
        fill(broker, 4)
        broker.log_of(place).expire(6)
        async with working(apply_all, worker_options(), ["in"]) as worker:
            await worker.until(lambda: held(statuses) == ["expired"])
            decide(connection, broker.topic_ids(["in"])["in"], 6)
            await until(worker, connection, 8)

    asyncio.run(main())
    assert applied(connection) == ["2", "2", "3", "3"]


def test_two_workers_share_the_partitions(connection: psycopg.Connection[Any], database_url: str) -> None:
    """Rebalances move partitions between workers; the database's offsets move with them."""
    broker = memory_broker(partitions=4)
    fill(broker, 100)

    async def main() -> None:
        async with working(apply_all, options(broker, database_url), ["in"]) as one:
            async with working(apply_all, options(broker, database_url, slot="b"), ["in"]) as two:
                await one.until(lambda: len(two.agents.owned) == 2)
                fill(broker, 100)
                await until(one, connection, 200)
            fill(broker, 100)
            await until(one, connection, 300)

    asyncio.run(main())
    assert len(applied(connection)) == 300


def test_a_worker_that_hangs_lets_go_of_its_rows(connection: psycopg.Connection[Any], database_url: str) -> None:
    """Whoever stops inside a transaction is ended by the server within the transaction's time-out."""
    broker = memory_broker(partitions=1)
    fill(broker, 1)
    seconds: list[float] = []

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        await unit.run(lambda mine: mine.execute("SELECT 1"))
        if not seconds:
            began = asyncio.get_running_loop().time()
            await asyncio.to_thread(connection.execute, "SELECT * FROM towpath_offsets FOR UPDATE")
            seconds.append(asyncio.get_running_loop().time() - began)
            connection.rollback()
        await apply_all(unit, groups)

    async def main() -> None:
        settings = SETTINGS.model_copy(update={"batch_seconds_max": 10.0, "transaction_timeout_seconds": 1.0})
        async with working(handler, options(broker, database_url, settings=settings), ["in"]) as worker:
            await until(worker, connection, 1)

    asyncio.run(main())
    assert 0.5 < seconds[0] < 3
    assert applied(connection) == ["0"]
