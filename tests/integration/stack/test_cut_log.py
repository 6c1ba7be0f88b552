"""A lone broker that was cut off loses its log's tail: what stands behind it is held, in both forms, and goes on."""

import asyncio
import shlex
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer

from tests.integration.stack.test_rewriting import Ground
from tests.next_steps import run
from tests.stack_fixture import ROOT, RunningStack
from tests.unit.stream.support import Worker, working
from towpath.outbox.names import VIEWS_DATABASE
from towpath.stack.home import Home
from towpath.stream.broker.port import Groups
from towpath.stream.broker.position import HoldKind
from towpath.stream.engine import holds, idle
from towpath.stream.engine.options import DatabaseOptions
from towpath.stream.engine.postgres import DatabaseUnit
from towpath.stream.engine.worker_status import WorkerStatus

READ, KEPT, MORE = 8, 5, 6
"""Records that are read, how many of them the cut log has, and how many come then: past where the workers stand."""
BATCH_HEAD = struct.Struct(">qi")
"""Of a batch in a segment: its first offset, and how many bytes follow these."""


class CutGround(Ground):
    """A counting worker whose positions the group keeps, and one beside it whose database keeps them."""

    def __init__(self, stack: RunningStack, folder: Path) -> None:
        super().__init__(stack, folder)
        postgres = stack.settings.postgres
        self.url, self.connect_options = postgres.database_url(VIEWS_DATABASE), dict(postgres.connection_options())
        self.beside = f"{self.tag}-beside"
        self.beside_statuses: list[WorkerStatus] = []
        self.beside_options = replace(
            self.options,
            application=self.beside,
            unit_of_work="database",
            database=DatabaseOptions(url=self.url, connection_options=self.connect_options),
            states=(),
            state_folder=None,
            on_status=self.beside_statuses.append,
        )
        self.taken: list[bytes | None] = []

    def write_each(self, *values: bytes) -> None:
        """Write records, each a batch of its own."""
        producer = Producer({"bootstrap.servers": self.servers})
        for value in values:
            producer.produce(self.topic, value, b"k")
            assert producer.flush(30) == 0

    async def take(self, unit: DatabaseUnit, groups: Groups) -> None:
        """Note what is taken, in a transaction."""
        for records in groups.values():
            await unit.run(lambda connection: connection.execute("SELECT 1"))
            self.taken += [record.value for record in records]

    def stands_at(self) -> int:
        """Return where the database stands."""
        with psycopg.connect(self.url, **dict[str, Any](self.connect_options)) as connection:
            if connection.execute("SELECT to_regclass('towpath_offsets')").fetchall() == [(None,)]:
                return 0
            (row,) = connection.execute(
                "SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets WHERE application = %s", (self.beside,)
            ).fetchall()
        return int(row[0])

    def cut_off(self) -> None:
        """Kill the broker as a power cut does that comes before the last records were on its disk."""
        segment = Home(self.stack.settings.stack_home).data / "kafka" / f"{self.topic}-0" / f"{0:020}.log"
        place, content = 0, segment.read_bytes()
        while BATCH_HEAD.unpack_from(content, place)[0] < KEPT:
            place += BATCH_HEAD.size + BATCH_HEAD.unpack_from(content, place)[1]
        with segment.open("r+b") as file:
            file.truncate(place)
        self.restart()

    def abort(self) -> None:
        """Write a record that is never committed: two offsets, of which a reader is told nothing."""
        producer = Producer({"bootstrap.servers": self.servers, "transactional.id": self.tag})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(self.topic, b"aborted", b"k")
        assert producer.flush(30) == 0
        producer.abort_transaction(30)

    @asynccontextmanager
    async def working_both(self) -> AsyncIterator[Worker]:
        """Run both workers; return the first."""
        async with (
            working(self.count, self.options, [self.topic]) as worker,
            working(self.take, self.beside_options, [self.topic]),
        ):
            yield worker

    def both_stand_at(self, offset: int) -> bool:
        """Say whether both workers have come so far."""
        return (self.committed(), self.stands_at()) == (offset, offset)

    def restart(self) -> None:
        """Kill the broker; its log is whole, and another leader writes it from there on."""
        self.stack.client.kill("kafka")
        self.stack.client.wait_ready(["kafka"], 60, patient=True)

    def both_hold(self) -> bool:
        """Say whether both workers hold the partition for that, with the offset from which on nothing was read."""
        last = [statuses[-1:] for statuses in (self.statuses, self.beside_statuses)]
        held = [one for statuses in last for status in statuses for one in status.held]
        return [one.kind for one in held] == [HoldKind.BEYOND_END] * 2 and all(
            f" --from {KEPT} " in (one.next_step or "") for one in held
        )

    def accept(self) -> None:
        """Run what both holds print."""
        for statuses, further in ((self.statuses, ()), (self.beside_statuses, ("--database", VIEWS_DATABASE))):
            words = shlex.split((statuses[-1].held[0].next_step or "").replace("REASON", "'found by a test'"))
            done = run(ROOT, *words[1:], *further, "--yes").leads_on()
            assert done.code == 0, done.text


@pytest.fixture
def ground(stack: RunningStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CutGround]:
    """Return both, which try soon again what they hold."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 2.0)
    monkeypatch.setattr(holds, "RETRY_SECONDS_MAX", 2.0)
    monkeypatch.setattr(idle, "IDLE_ADVANCE_SECONDS", 0.5)
    monkeypatch.setattr(idle, "AGAIN_SECONDS", 0.5)
    found = CutGround(stack, tmp_path)
    yield found
    with psycopg.connect(found.url, **dict[str, Any](found.connect_options)) as connection:
        connection.execute("DELETE FROM towpath_offsets WHERE application = %s", (found.beside,))


def test_what_was_aborted_before_the_first_record_is_passed(ground: CutGround) -> None:
    """Of a position without a record before it, the log's leader is asked, and it is read once more to the same end."""

    async def main() -> None:
        ground.abort()
        async with ground.working_both() as worker:
            await worker.until(lambda: ground.both_stand_at(2), 60)
            ground.write_each(b"v")
            await worker.until(lambda: ground.both_stand_at(3), 60)
            assert ground.taken == [b"v"]

    asyncio.run(main())


@pytest.mark.crash
def test_what_a_broker_aborted_after_its_restart_is_no_lost_tail(ground: CutGround) -> None:
    """Workers stand behind it, past the last record of the leader before; those after them read on."""
    before = [b"v%d" % n for n in range(READ)]

    async def main() -> None:
        ground.write_each(*before)
        async with ground.working_both() as worker:
            await worker.until(lambda: ground.both_stand_at(READ), 60)
            await asyncio.to_thread(ground.restart)
            await asyncio.to_thread(ground.abort)
            await worker.until(lambda: ground.both_stand_at(READ + 2), 60)
        async with ground.working_both() as worker:
            ground.write_each(b"more")
            await worker.until(lambda: ground.both_stand_at(READ + 3), 60)
        assert ground.taken == [*before, b"more"]

    asyncio.run(main())


@pytest.mark.crash
def test_a_log_that_a_broker_lost_the_tail_of_is_held_in_both_forms(ground: CutGround) -> None:
    """Under running workers, and by those after them for whom the offset lies well within the log that grew again."""
    before, more = [b"v%d" % n for n in range(READ)], [b"n%d" % n for n in range(MORE)]

    async def main() -> None:
        ground.write_each(*before)
        async with ground.working_both() as worker:
            await worker.until(lambda: ground.committed() == READ and ground.taken == before, 60)
            await asyncio.to_thread(ground.cut_off)
            await worker.until(ground.both_hold, 60)
            ground.write_each(*more)
        ground.statuses.clear()
        ground.beside_statuses.clear()
        async with ground.working_both() as worker:
            await worker.until(ground.both_hold, 60)
            assert (ground.committed(), ground.stands_at(), ground.taken) == (READ, READ, before)
            await asyncio.to_thread(ground.accept)
            await worker.until(lambda: ground.committed() == KEPT + MORE, 60)
            await worker.until(lambda: ground.taken == before + more, 60)

    asyncio.run(main())


@pytest.mark.crash
def test_a_log_that_grew_again_unseen_is_held_from_where_it_was_cut(ground: CutGround) -> None:
    """It is shorter still than what was read of it: to go on at its end would pass over what it has got since."""
    before, more = [b"v%d" % n for n in range(READ)], [b"n%d" % n for n in range(READ - KEPT - 1)]

    async def main() -> None:
        ground.write_each(*before)
        async with ground.working_both() as worker:
            await worker.until(lambda: ground.both_stand_at(READ), 60)
        await asyncio.to_thread(ground.cut_off)
        ground.write_each(*more)
        async with ground.working_both() as worker:
            await worker.until(ground.both_hold, 60)
            await asyncio.to_thread(ground.accept)
            await worker.until(lambda: ground.committed() == KEPT + len(more), 60)
            await worker.until(lambda: ground.taken == before + more, 60)

    asyncio.run(main())
