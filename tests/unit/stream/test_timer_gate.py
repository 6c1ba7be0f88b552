"""When timers fire: in steady traffic, too, and never by what was known of a log's end before things changed."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest

from tests.unit.stream.support import Handler, in_transaction, memory_broker, values, working
from tests.unit.stream.test_held_partitions import cut_noted
from tests.unit.stream.test_timers import options
from towpath.clock import SystemClock
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.memory.groups import range_assignment
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds
from towpath.stream.engine.assignment import Phase
from towpath.stream.engine.unit import KafkaUnit

PLACE = TopicPartition("in", 0)


class Shifted(SystemClock):
    """A clock that is ahead, until it is set back."""

    ahead_seconds = 0.0

    def now(self) -> datetime:
        """Return the time that it shows."""
        return super().now() + timedelta(seconds=self.ahead_seconds)


class Setting:
    """A handler that sets (`set NAME MILLISECONDS`) and cancels (`cancel NAME`) timers, and notes what it is given."""

    def __init__(self, *, seconds: float = 0.0, other_number: bool = False) -> None:
        self.given: list[str] = []
        self._seconds, self._other_number = seconds, other_number

    async def __call__(self, unit: KafkaUnit, groups: Groups) -> None:
        await asyncio.sleep(self._seconds)
        for partition, records in groups.items():
            timers = unit.timers(1 - partition.partition if self._other_number else partition.partition)
            for record in records:
                self.given.append((record.value or b"").decode())
                match self.given[-1].split():
                    case ["set", name, milliseconds]:
                        due = unit.now_milliseconds + int(milliseconds)
                        timers.set(name.encode(), due, f"fired {name}".encode(), record_key=b"k")
                    case ["cancel", name]:
                        timers.cancel(name.encode())

    def has(self, text: str) -> bool:
        """Say whether a record was given."""
        return text in self.given


def put(broker: MemoryBroker, *texts: str) -> None:
    for text in texts:
        broker.append("in", text.encode(), key=b"k", partition=0)


def fired(broker: MemoryBroker) -> list[str]:
    """Return the records of timers."""
    return values(broker.records("timers"))


def test_timers_fire_in_steady_traffic() -> None:
    """A worker whose every poll brings records keeps up with them, and has no idle moment."""
    broker = memory_broker(partitions=1)
    handler = Setting(seconds=0.01)
    put(broker, "set a 100")
    stop = threading.Event()

    def traffic() -> None:
        while not stop.wait(0.004):
            put(broker, "x")

    async def main() -> None:
        async with working(handler, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: handler.has("set a 100"))
            thread = threading.Thread(target=traffic)
            thread.start()
            try:
                await worker.until(lambda: handler.has("fired a"))
            finally:
                stop.set()
                thread.join()

    asyncio.run(main())


def test_a_clock_that_was_ahead_fires_nothing_early() -> None:
    """A timer was found to be due by it, and cancelled by what it waited for; later ones have times of their own."""
    broker, clock, handler = memory_broker(partitions=1), Shifted(), Setting()

    async def main() -> None:
        clock.ahead_seconds = 3_600.0
        put(broker, "set a 300")
        async with working(handler, options(broker, clock=clock), ["in", "timers"]) as worker:
            await worker.until(lambda: handler.has("set a 300"))
            reply = in_transaction(broker, "in", b"cancel a")
            await asyncio.sleep(0.8)
            reply.commit({}, None)
            await worker.until(lambda: handler.has("cancel a"))
            clock.ahead_seconds = 0.0
            put(broker, "set soon 300", "set later 1200000")
            await worker.until(lambda: bool(fired(broker)))
            await asyncio.sleep(0.5)

    asyncio.run(main())
    assert fired(broker) == ["fired soon"]


def test_after_a_hold_of_deadlines_the_log_has_another_end() -> None:
    """The timer was due before capture was found to be behind; what capture brought since comes first."""
    broker, handler = memory_broker(partitions=1), Setting()
    behind = False

    async def main() -> None:
        nonlocal behind
        put(broker, "set a 300")
        async with working(handler, options(broker, hold_deadlines=lambda: behind), ["in", "timers"]) as worker:
            await worker.until(lambda: handler.has("set a 300"))
            other = in_transaction(broker, "in", b"other")
            await asyncio.sleep(0.8)
            behind = True
            await asyncio.sleep(0.4)
            other.commit({}, None)
            await worker.until(lambda: handler.has("other"))
            reply = in_transaction(broker, "in", b"cancel a")
            behind = False
            await asyncio.sleep(0.5)
            reply.commit({}, None)
            await worker.until(lambda: handler.has("cancel a"))
            await asyncio.sleep(0.4)

    asyncio.run(main())
    assert not fired(broker)


def test_a_timer_waits_for_every_topic_of_its_number() -> None:
    """Under the newer protocol of groups (KIP-848) they may be assigned one by one."""
    broker, before, handler = memory_broker(partitions=1), Setting(), Setting()
    group = broker.group("app")
    alone = True

    def assignor(
        members: Mapping[str, frozenset[str]], counts: Mapping[str, int]
    ) -> dict[str, frozenset[TopicPartition]]:
        whole = range_assignment(members, counts)
        return {m: frozenset(p for p in places if p.topic == "timers" or not alone) for m, places in whole.items()}

    async def run(handler: Handler, *, hold: bool, course: str) -> None:
        nonlocal alone
        async with working(handler, options(broker, hold_deadlines=lambda: hold), ["in", "timers"]) as worker:
            if course == "set":
                await worker.until(lambda: broker.committed_offsets("app").get(PLACE, 0) >= 1)
                return
            await asyncio.sleep(0.8)
            alone = False
            with broker.changed:
                group.rebalance()
            await worker.until(lambda: broker.committed_offsets("app").get(PLACE, 0) >= 2)
            await asyncio.sleep(0.4)

    put(broker, "set a 300")
    asyncio.run(run(before, hold=True, course="set"))
    put(broker, "cancel a")
    group.assignor = assignor
    asyncio.run(run(handler, hold=False, course="cancel"))
    assert handler.has("cancel a")
    assert not fired(broker)


def test_a_log_that_was_cut_stops_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that the log had when an earlier timer was due may never be reached again."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    broker, handler = memory_broker(partitions=1), Setting()

    async def main() -> None:
        put(broker, *["x"] * 20, "set a 300")
        async with working(handler, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: handler.has("set a 300"))
            reply = in_transaction(broker, "in", b"cancel a")
            await asyncio.sleep(0.8)
            reply.commit({}, None)
            await worker.until(lambda: handler.has("cancel a"))
            with broker.changed:
                broker.log_of(PLACE).truncate(5)
                broker.changed.notify_all()
            await worker.until(lambda: worker.loop.ownership.phase(PLACE) is Phase.HELD)
            await worker.until(cut_noted(broker))
            with broker.changed:
                broker.group("app").commit({PLACE: 5})
            await worker.until(lambda: worker.loop.ownership.phase(PLACE) is Phase.SERVING)
            put(broker, "set b 200")
            await worker.until(lambda: fired(broker) == ["fired b"])

    asyncio.run(main())


def test_a_timer_of_another_partition_is_looked_at() -> None:
    """An agent may set one in any of its worker's partitions; that one may have no record for long."""
    broker, handler = memory_broker(), Setting(other_number=True)
    put(broker, "set a 100")

    async def main() -> None:
        async with working(handler, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: fired(broker) == ["fired a"])

    asyncio.run(main())
    assert [record.partition for record in broker.records("timers")] == [1]
