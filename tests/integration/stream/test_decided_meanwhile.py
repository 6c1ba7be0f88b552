"""A person decides where a partition goes on while its worker still looks at the log (positions in a database)."""

import asyncio
from typing import Any

import psycopg
import pytest

from tests.integration.stream.test_database_unit import TABLE, applied_values, apply_all, fill, options, until
from tests.unit.stream.support import memory_broker, working
from towpath.positions.decision import decide
from towpath.positions.postgres import accept_in_database, database_standings
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, settling
from towpath.stream.engine.worker_status import WorkerStatus

PLACE = TopicPartition("in", 0)


@pytest.mark.parametrize("epoch", [False, True])
def test_what_a_person_decides_while_a_worker_looks_stands(
    connection: psycopg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch, epoch: bool
) -> None:
    """The worker's note is about the offset that it had found: beside another it would hold what was just let go."""
    monkeypatch.setattr(settling, "LOOK_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.1)
    connection.execute(TABLE)
    connection.commit()
    broker = memory_broker(partitions=1)
    fill(broker, 8)
    statuses: list[WorkerStatus] = []
    looks: list[int] = []
    ends = broker.end_offsets

    def looking(places: list[TopicPartition]) -> dict[TopicPartition, int]:
        looks.append(1)
        return ends(places)

    async def main() -> None:
        async with working(apply_all, options(broker, database_url), ["in"]) as worker:
            await until(worker, connection, 8)
        if not epoch:
            connection.execute("UPDATE public.towpath_offsets SET leader_epoch = -1")
            connection.commit()
        broker.log_of(PLACE).truncate(5)
        broker.append("in", b"new", key=b"k")
        monkeypatch.setattr(broker, "end_offsets", looking)
        async with working(apply_all, options(broker, database_url, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: len(looks) > 2)
            (standing,) = database_standings(broker, "app", database_url, {})
            decision = decide(standing, 5, actor="a person", reason="a test")
            await asyncio.to_thread(accept_in_database, decision, database_url, {})
            await until(worker, connection, 6)
            await worker.until(lambda: not statuses[-1].held, 20)

    asyncio.run(main())
    assert applied_values(connection)[-1] == "new"
