"""What happens between the finding that a log was cut and the note of it, where positions lie in a database."""

import asyncio
from typing import Any

import psycopg
import pytest

from tests.integration.stream.test_database_unit import TABLE, applied_values, apply_all, fill, options, until
from tests.unit.stream.support import count_looks, memory_broker, working
from towpath.positions.decision import decide
from towpath.positions.postgres import accept_in_database, database_standings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, settling
from towpath.stream.engine.worker_status import WorkerStatus

PLACE = TopicPartition("in", 0)


@pytest.fixture
def broker(connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    """Return one with eight records that are to be applied; what is held of it is tried again at once."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.1)
    connection.execute(TABLE)
    connection.commit()
    broker = memory_broker(partitions=1)
    fill(broker, 8)
    return broker


@pytest.mark.parametrize("epoch", [False, True])
def test_what_a_person_decides_while_a_worker_looks_stands(
    broker: MemoryBroker,
    connection: psycopg.Connection[Any],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    epoch: bool,
) -> None:
    """The worker's note is about the offset that it had found: beside another it would hold what was just let go."""
    monkeypatch.setattr(settling, "LOOK_AGAIN_SECONDS", 0.2)
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(apply_all, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 8)
        if not epoch:
            connection.execute("UPDATE public.towpath_offsets SET leader_epoch = -1")
            connection.commit()
        broker.log_of(PLACE).truncate(5)
        broker.append("in", b"new", key=b"k")
        looks = count_looks(broker, monkeypatch)
        async with working(apply_all, options(broker, database_url, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: len(looks) > 2)
            (standing,) = database_standings(broker, "app", database_url, {})
            decision = decide(standing, 5, actor="a person", reason="a test")
            await asyncio.to_thread(accept_in_database, decision, database_url, {})
            await until(worker, connection, 6)
            await worker.until(lambda: not statuses[-1].held, 20)

    asyncio.run(main())
    assert applied_values(connection)[-1] == "new"


def test_a_worker_without_a_connection_connects_before_it_notes(
    broker: MemoryBroker, connection: psycopg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database restarted in the unit of work before: nothing can be noted on a connection that is gone."""
    monkeypatch.setattr(settling, "LOOK_AGAIN_SECONDS", 0.05)
    statuses: list[WorkerStatus] = []
    once: list[int] = []

    async def loses_it(unit: Any, groups: Groups) -> None:
        if not once and any(record.value == b"trigger" for records in groups.values() for record in records):
            once.append(1)
            with broker.changed:
                broker.log_of(PLACE).truncate(5)
                for n in range(10):
                    broker.append("in", f"new{n}".encode(), key=b"k")
            with psycopg.connect(database_url, autocommit=True) as other:  # the database restarts
                other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'app'")
        await apply_all(unit, groups)

    def noted() -> bool:
        row = connection.execute("SELECT note FROM public.towpath_offsets WHERE topic = 'in'").fetchone()
        connection.rollback()
        return row is not None and "lost tail at 5" in row[0]

    async def main() -> None:
        async with working(loses_it, options(broker, database_url, on_status=statuses.append), ["in"]) as worker:
            await until(worker, connection, 8)
            broker.append("in", b"trigger", key=b"k")
            await worker.until(lambda: bool(once), 10)
            await worker.until(noted, 20)

    asyncio.run(main())
