"""Timers through the loop, on the memory broker: they fire once, in their partition, and never outrun replies."""

import asyncio
import time
from typing import Any

import pytest

from tests.unit.stream.support import memory_broker, options_for, values, working
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups, OutcomeUnknown
from towpath.stream.broker.position import HoldKind
from towpath.stream.broker.record import TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine import holds
from towpath.stream.engine.options import StreamOptions
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.engine.worker_status import WorkerStatus


def now_milliseconds() -> int:
    return int(time.time() * 1000)


def options(broker: MemoryBroker, **changes: Any) -> StreamOptions:
    return options_for(broker, states=("counts",), timers_topic="timers", **changes)


async def set_timers(unit: KafkaUnit, groups: Groups) -> None:
    """`set N` sets a timer N milliseconds after now; everything else is sent on."""
    for partition, records in groups.items():
        for record in records:
            text = (record.value or b"").decode()
            if text.startswith("set "):
                name = f"{record.offset}".encode()
                unit.timers(partition.partition).set(
                    name, now_milliseconds() + int(text[4:]), b"fired " + name, record_key=record.key
                )
            else:
                unit.send("out", record.value, key=record.key)


def test_a_timer_becomes_a_record_in_its_own_partition() -> None:
    """Once, with its payload and key, and it is gone from the index; over an ambiguous commit, too."""
    broker = memory_broker()
    for partition in (0, 1):
        broker.append("in", b"set 50", key=b"k", partition=partition)

    async def main() -> None:
        async with working(set_timers, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) >= 2)
            broker.faults.order("commit answer", OutcomeUnknown("no answer"))
            await worker.until(lambda: len(broker.records("out")) == 2)
            await asyncio.sleep(0.3)

    asyncio.run(main())
    fired = broker.records("timers")
    assert [(record.partition, record.key, record.value) for record in fired] == [
        (0, b"k", b"fired 0"),
        (1, b"k", b"fired 0"),
    ]


def test_timers_never_outrun_replies() -> None:
    """After an outage the deadline is due and the reply lies unread: the reply comes first, however late it is read."""
    broker = memory_broker(partitions=1)
    broker.append("in", b"set 10", key=b"k")

    async def outage() -> None:
        async with working(set_timers, options(broker, hold_deadlines=lambda: True), ["in", "timers"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) >= 1)

    async def slowly(unit: KafkaUnit, groups: Groups) -> None:
        await asyncio.sleep(0.02)
        await set_timers(unit, groups)

    async def back() -> None:
        for index in range(120):
            broker.append("in", f"reply {index}".encode(), key=b"k")
        async with working(slowly, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: len(broker.records("out")) == 121)

    asyncio.run(outage())
    assert not broker.records("timers"), "held while the hold said so"
    time.sleep(0.05)
    asyncio.run(back())
    assert values(broker.records("out")) == [f"reply {index}" for index in range(120)] + ["fired 0"]


def test_a_timer_waits_for_an_open_transaction_on_its_inputs() -> None:
    """What was sent when it fell due may yet be committed: the gate is the high watermark, not the stable offset."""
    broker = memory_broker(partitions=1)
    broker.append("in", b"set 100", key=b"k")
    producer = broker.producer("peer")
    producer.start()
    producer.begin()
    order: list[str] = []

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        order.extend((record.value or b"").decode() for records in groups.values() for record in records)
        await set_timers(unit, groups)

    async def main() -> None:
        async with working(handler, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: len(order) == 1)
            producer.produce("in", b"reply", key=b"k", partition=0)
            await asyncio.sleep(0.5)
            assert not broker.records("timers")
            producer.commit({}, None)
            await worker.until(lambda: len(broker.records("out")) == 2)

    asyncio.run(main())
    assert order == ["set 100", "reply", "fired 0"]


def test_deadlines_hold_while_capture_is_behind() -> None:
    """The hold is asked again and again, and let go of once it says so."""
    broker = memory_broker(partitions=1)
    broker.append("in", b"set 10", key=b"k")
    behind = True

    async def main() -> None:
        nonlocal behind
        async with working(set_timers, options(broker, hold_deadlines=lambda: behind), ["in", "timers"]) as worker:
            await asyncio.sleep(0.6)
            assert not broker.records("timers")
            behind = False
            await worker.until(lambda: len(broker.records("timers")) == 1)

    asyncio.run(main())


def test_many_timers_fire_soon_after_they_are_due() -> None:
    """A thousand timers of one partition are each fired, in the order in which they fell due."""
    broker = memory_broker(partitions=1)
    broker.append("in", b"go", key=b"k")

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        if TopicPartition("in", 0) in groups:
            base = now_milliseconds()
            for index in range(1_000):
                unit.timers(0).set(f"{index}".encode(), base + index // 4, f"{index:04}".encode(), record_key=b"k")

    async def main() -> None:
        async with working(handler, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: len(broker.records("timers")) == 1_000)

    asyncio.run(main())
    dues = [int(record.value or b"0") // 4 for record in broker.records("timers")]
    assert dues == sorted(dues)


def test_a_worker_that_lost_its_partition_fires_nothing() -> None:
    """The transaction of a timer carries the group's generation, although no offset moves."""
    broker = memory_broker(partitions=1)
    broker.append("in", b"set 150", key=b"k")

    async def main() -> None:
        async with working(set_timers, options(broker), ["in", "timers"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) >= 1)
            stolen: list[int] = []

            def steal() -> None:
                group = broker.group("app")
                group.members.clear()
                group.rebalance()
                stolen.append(1)

            broker.faults.call("send_offsets", steal)
            await worker.until(lambda: bool(stolen))
            await worker.until(lambda: len(broker.records("out")) == 1)

    asyncio.run(main())
    assert len(broker.records("timers")) == 1


def test_a_timer_that_is_held_alone_fires_once_it_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its partition fire meanwhile."""
    monkeypatch.setattr("towpath.stream.engine.timer_gate.HELD_TIMER_MILLISECONDS", 100)
    broker = memory_broker(partitions=1)
    for _ in range(2):
        broker.append("in", b"set 10", key=b"k")
    held = {b"0"}

    async def main() -> None:
        given = options(broker, hold_timer=lambda key: key in held)
        async with working(set_timers, given, ["in", "timers"]) as worker:
            await worker.until(lambda: len(broker.records("timers")) == 1)
            assert values(broker.records("timers")) == ["fired 1"]
            await asyncio.sleep(0.3)
            assert len(broker.records("timers")) == 1
            held.clear()
            await worker.until(lambda: len(broker.records("timers")) == 2)

    asyncio.run(main())
    assert values(broker.records("timers")) == ["fired 1", "fired 0"]


def test_a_timer_that_its_topic_would_not_take_is_its_handlers_fault() -> None:
    """It is refused when it is set, not when it fires: its record is dead, and everything else goes on."""
    broker = memory_broker(partitions=1)
    for text in (b"set 20", b"large", b"plain"):
        broker.append("in", text, key=text)

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for partition, records in groups.items():
            for record in records:
                if record.value == b"large":
                    unit.timers(partition.partition).set(b"t", now_milliseconds(), bytes(50_000), record_key=b"k")
        await set_timers(unit, groups)

    async def main() -> None:
        limits = RecordLimits({"timers": 40_000})
        async with working(handler, options(broker, limits=limits), ["in", "timers"]) as worker:
            await worker.until(lambda: len(broker.records("out")) == 2 and len(broker.records("in.dead")) == 1)

    asyncio.run(main())
    letter = read_dead_letter(broker.records("in.dead")[0].header("dead") or "")
    assert "too large for timers, which takes 40000" in letter.cause


def test_a_timer_that_no_longer_fits_holds_its_partition_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic's limit was lowered since it was set; it fires by itself once it fits again."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    broker = memory_broker(partitions=2)
    statuses: list[WorkerStatus] = []
    broker.append("in", b"set 300", key=bytes(30_000), partition=0)

    async def main() -> None:
        broker.configure_topic("timers", {"max.message.bytes": "20000"})
        told = options(broker, on_status=statuses.append)
        async with working(set_timers, told, ["in", "timers"]) as worker:
            await worker.until(lambda: any(held.kind == HoldKind.TIMER for each in statuses for held in each.held))
            broker.append("in", b"other", key=b"k", partition=1)
            await worker.until(lambda: values(broker.records("out")) == ["other"])
            broker.configure_topic("timers", {"max.message.bytes": "1000000"})
            await worker.until(lambda: len(broker.records("out")) == 2)

    asyncio.run(main())
    (fired,) = broker.records("timers")
    assert fired.key == bytes(30_000)
