"""Partitions of one number wait together where state is kept, each for a reason of its own."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit.stream.support import SETTINGS, Handler, Worker, copy, memory_broker, options_for, values, working
from tests.unit.stream.test_held_partitions import accept, committed, expired_total, holding, put
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.memory.clients import MemoryMember
from towpath.stream.broker.port import Assigned, BrokerAway, Groups, Polled
from towpath.stream.broker.position import HoldKind, PartitionHeld
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, settling, transaction
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.engine.worker_status import WorkerStatus

ONE, TWO = TopicPartition("in", 0), TopicPartition("more", 0)
TOPICS, APPLIED = ["in", "more"], 8


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is held tried again at once, and believed soon."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    monkeypatch.setattr(settling, "LOOK_AGAIN_SECONDS", 0.01)


@dataclass
class Watched:
    """What a worker of both topics, which keeps state, told of itself; what a handler has seen that writes nothing."""

    statuses: list[WorkerStatus] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)

    def working(
        self, broker: MemoryBroker, handler: Handler = copy, **changes: Any
    ) -> AbstractAsyncContextManager[Worker]:
        """Run the worker."""
        options = options_for(broker, states=("counts",), on_status=self.statuses.append, **changes)
        return working(handler, options, TOPICS)

    async def see(self, unit: KafkaUnit, groups: Groups) -> None:
        """Be a handler that writes nothing."""
        self.seen.extend(record.value or b"" for records in groups.values() for record in records)

    @property
    def kinds(self) -> dict[str, str]:
        """Return why what is held is held, by partition."""
        return {each.partition: each.kind for each in self.statuses[-1].held} if self.statuses else {}

    @property
    def serves_both(self) -> bool:
        """Return whether nothing waits."""
        return bool(self.statuses) and len(self.statuses[-1].serving) == 2


def know_no_newer(groups: Groups) -> None:
    """Have what is "newer" wait for another version of the code."""
    for record in (record for records in groups.values() for record in records):
        if record.value == b"newer":
            error = PartitionHeld(HoldKind.VERSION, "this code does not know version 2", next_step="deploy it")
            raise RecordFailed(record, error)


def broker_with_both() -> MemoryBroker:
    broker = memory_broker(partitions=1)
    for topic in ("more", "more.dead"):
        broker.create_topic(topic, 1)
    for place in (ONE, TWO):
        put(broker, place, *(f"{place.topic}{n}" for n in range(APPLIED)))
    return broker


async def apply_both(broker: MemoryBroker) -> None:
    """Apply what there is, and leave offsets without an epoch, as a person's decision does."""
    async with Watched().working(broker) as worker:
        await worker.until(lambda: committed(broker, ONE) == committed(broker, TWO) == APPLIED)
    for place in (ONE, TWO):
        accept(broker, place, APPLIED)


@pytest.mark.parametrize(("cut", "expired"), [(ONE, TWO), (TWO, ONE)])
def test_a_cut_log_is_noted_beside_one_whose_records_expired(cut: TopicPartition, expired: TopicPartition) -> None:
    """Once it has grown past what was applied only the note tells: without it, new records would be passed over."""
    broker = broker_with_both()
    watched = Watched()

    async def main() -> None:
        await apply_both(broker)
        broker.log_of(cut).truncate(5)
        put(broker, expired, *(f"late{n}" for n in range(4)))
        broker.log_of(expired).expire(10)
        async with watched.working(broker) as worker:
            await worker.until(lambda: "lost tail" in broker.group("app").notes.get(cut, ""), 20)
            await worker.until(lambda: len(set(watched.kinds.values())) == 2)
        put(broker, cut, *(f"new{n}" for n in range(5, 10)))
        accept(broker, expired, 10)
        watched.statuses.clear()
        async with watched.working(broker) as worker:
            await worker.until(holding(watched.statuses, HoldKind.RESTORED))

    asyncio.run(main())
    assert committed(broker, cut) == APPLIED


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("late", "cut"), [(ONE, TWO), (TWO, ONE)])
def test_a_log_that_lacks_nothing_is_not_noted_beside_a_cut_one(
    monkeypatch: pytest.MonkeyPatch, late: TopicPartition, cut: TopicPartition, known: bool
) -> None:
    """A broker that has just started does not know its end for a moment; the other log was cut indeed.

    Nor where that is `known` already from an earlier look, and could not be noted then.
    """
    broker = broker_with_both()
    looks: list[int] = []
    waits = [True] if known else []
    ends = broker.end_offsets

    def not_yet(places: list[TopicPartition]) -> dict[TopicPartition, int]:
        found = ends(places)
        if late in found and not waits:
            looks.append(1)
            found[late] = 6 if len(looks) < 3 else found[late]
        return found

    def away_when_it_is_to_be_noted() -> None:
        waits.clear()
        raise BrokerAway("away for a moment")

    async def main() -> None:
        await apply_both(broker)
        broker.log_of(cut).truncate(5)
        monkeypatch.setattr(broker, "end_offsets", not_yet)
        if known:
            broker.faults.call("committed", lambda: None)
            broker.faults.call("committed", away_when_it_is_to_be_noted)
        async with Watched().working(broker) as worker:
            await worker.until(lambda: "lost tail" in broker.group("app").notes.get(cut, ""))
            await asyncio.sleep(0.3)

    asyncio.run(main())
    assert "lost tail" not in broker.group("app").notes.get(late, "")


def test_each_reason_is_told_once_and_tried_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes the other's place at each try: the log would fill, and every try come as soon as the first."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.1)
    broker = broker_with_both()
    put(broker, TWO, *(f"late{n}" for n in range(4)))
    with broker.changed:
        broker.group("app").commit({ONE: 8, TWO: 8}, None, {ONE: "lost tail at 5"})
    broker.log_of(TWO).expire(10)
    watched = Watched()

    async def main() -> None:
        async with watched.working(broker):
            await asyncio.sleep(3)

    with capture_logs() as logs:
        asyncio.run(main())
    assert sorted(one["kind"] for one in logs if one["event"] == "partition is held") == ["beyond_end", "expired"]
    assert watched.kinds == {str(ONE): "beyond_end", str(TWO): "expired"}


def test_two_logs_that_are_cut_at_once_are_both_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is held along with the first by then, and its units that wrote nothing are not committed yet."""
    broker = broker_with_both()
    watched = Watched()

    async def main() -> None:
        await apply_both(broker)
        monkeypatch.setattr(transaction, "OWED_SECONDS_MAX", 1000.0)  # as within the first second
        async with watched.working(broker, watched.see) as worker:
            await worker.until(lambda: watched.serves_both)
            for place in (ONE, TWO):
                put(broker, place, f"{place.topic}8", f"{place.topic}9")
            await worker.until(lambda: len(watched.seen) == 4)
            with broker.changed:
                for place in (ONE, TWO):
                    broker.log_of(place).truncate(7)
                for place in (ONE, TWO):
                    put(broker, place, *(f"new-{place.topic}-{n}" for n in range(7, 14)))
            await worker.until(lambda: "lost tail" in str(broker.group("app").notes), 20)
            await asyncio.sleep(0.5)
            first = next(place for place in (ONE, TWO) if "lost tail" in broker.group("app").notes.get(place, ""))
            accept(broker, first, 7)
            await asyncio.sleep(2)

    asyncio.run(main())
    lost = {f"new-{place.topic}-7" for place in (ONE, TWO)} - {value.decode() for value in watched.seen}
    assert len(watched.kinds) == 2 or not lost, (watched.kinds, lost, watched.seen)


def test_a_version_hold_keeps_its_reason_beside_one_that_expires_later() -> None:
    """Only its next record can tell whether that is over: the reason of another does not take its place."""
    broker = broker_with_both()
    watched = Watched()

    async def older(unit: KafkaUnit, groups: Groups) -> None:
        know_no_newer(groups)
        await copy(unit, groups)

    async def main() -> None:
        await apply_both(broker)
        async with watched.working(broker, older) as worker:
            await worker.until(lambda: watched.serves_both)
            put(broker, TWO, "newer")
            await worker.until(lambda: watched.kinds == {str(TWO): "version"})
            await asyncio.sleep(0.2)
            with broker.changed:
                put(broker, ONE, *(f"late{n}" for n in range(4)))
                broker.log_of(ONE).expire(10)
            await worker.until(lambda: str(ONE) in watched.kinds, 20)
            await asyncio.sleep(1)

    asyncio.run(main())
    assert watched.kinds == {str(ONE): "expired", str(TWO): "version"}


def test_what_is_skipped_is_counted_once_beside_one_that_is_held() -> None:
    """When it goes on, not at each try of the one that is held."""
    broker = broker_with_both()
    settings = SETTINGS.model_copy(update={"expired_records": "skip"})
    before = expired_total()

    async def main() -> None:
        await apply_both(broker)
        put(broker, ONE, *(f"late{n}" for n in range(4)))
        broker.log_of(ONE).expire(10)
        broker.log_of(TWO).truncate(5)
        async with Watched().working(broker, settings=settings) as worker:
            await worker.until(lambda: "lost tail" in broker.group("app").notes.get(TWO, ""))
            await asyncio.sleep(0.5)
            accept(broker, TWO, 5)
            await worker.until(lambda: committed(broker, ONE) == 12, 20)

    asyncio.run(main())
    assert expired_total() - before == 2


def test_the_reason_of_one_stays_when_the_one_held_along_with_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it waited for until then was the reason of the other, which is still there."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 20.0)
    broker = broker_with_both()
    watched = Watched()

    async def main() -> None:
        await apply_both(broker)
        async with watched.working(broker) as worker:
            await worker.until(lambda: watched.serves_both)
            put(broker, ONE, "in8", "in9")
            await worker.until(lambda: committed(broker, ONE) == 10)
            with broker.changed:
                put(broker, TWO, *(f"late{n}" for n in range(4)))
                broker.log_of(TWO).expire(10)
            await worker.until(lambda: watched.kinds == {str(ONE): "expired", str(TWO): "expired"}, 20)
            with broker.changed:
                broker.log_of(ONE).truncate(9)
                put(broker, ONE, *(f"new{n}" for n in range(9, 14)))
            await worker.until(lambda: watched.kinds.get(str(ONE)) == "beyond_end", 20)
            await asyncio.sleep(0.3)

    asyncio.run(main())
    assert watched.kinds == {str(ONE): "beyond_end", str(TWO): "expired"}


@pytest.mark.parametrize(("busy", "expired"), [(ONE, TWO), (TWO, ONE)])
def test_what_waits_of_a_partition_that_is_held_along_is_applied_once(
    monkeypatch: pytest.MonkeyPatch, busy: TopicPartition, expired: TopicPartition
) -> None:
    """Its records are read again from where it goes on: what was read before is forgotten, and no more of it read."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.2)
    broker = broker_with_both()
    watched = Watched()
    mended: list[bool] = []
    while_held: list[bool] = []

    async def fails_at_first(unit: KafkaUnit, groups: Groups) -> None:
        know_no_newer(groups)
        for record in (record for records in groups.values() for record in records):
            if record.value == b"hard" and not mended:
                while_held.append(bool(watched.kinds))
                await asyncio.sleep(0.02)
                raise RecordFailed(record, ValueError("not yet"))
        await copy(unit, groups)

    async def main() -> None:
        await apply_both(broker)
        settings = SETTINGS.model_copy(update={"handler_attempts_max": 10_000})
        async with watched.working(broker, fails_at_first, settings=settings) as worker:
            await worker.until(lambda: watched.serves_both)
            # Held for a version, alone, for so long that retention takes what it has not read; the other is served.
            put(broker, expired, "newer", "late1", "late2", "late3")
            await worker.until(lambda: bool(watched.kinds), 20)
            put(broker, busy, "hard", "next")
            await worker.until(lambda: bool(while_held))
            with broker.changed:
                broker.log_of(expired).expire(10)
            await worker.until(lambda: "expired" in watched.kinds.values(), 20)
            accept(broker, expired, 10)
            await worker.until(lambda: watched.serves_both, 20)
            mended.append(True)
            await worker.until(lambda: "next" in values(broker.records("out")), 20)
            await asyncio.sleep(1)

    asyncio.run(main())
    sent = values(broker.records("out"))
    assert (sent.count("hard"), sent.count("next")) == (1, 1), sent[16:]


async def into_hold(
    worker: Worker, broker: MemoryBroker, watched: Watched, busy: TopicPartition, expired: TopicPartition
) -> None:
    """Have two records of `busy` processed by units that write nothing, and it held along with the other then."""
    await worker.until(lambda: watched.serves_both)
    put(broker, busy, "a8", "a9")
    await worker.until(lambda: len(watched.seen) == 2)
    await asyncio.sleep(0.1)
    with broker.changed:
        put(broker, expired, *(f"late{n}" for n in range(4)))
        broker.log_of(expired).expire(10)
    await worker.until(lambda: set(watched.kinds.values()) == {"expired"}, 20)
    await asyncio.sleep(0.3)


@pytest.mark.parametrize(("busy", "expired"), [(ONE, TWO), (TWO, ONE)])
def test_processed_records_that_expire_meanwhile_hold_nothing(busy: TopicPartition, expired: TopicPartition) -> None:
    """They were processed: retention may take them while the other waits for a person."""
    broker = broker_with_both()
    watched = Watched()

    async def main() -> None:
        await apply_both(broker)
        async with watched.working(broker, watched.see) as worker:
            await into_hold(worker, broker, watched, busy, expired)
            await asyncio.sleep(1.5)  # longer than what is owed may wait
            broker.log_of(busy).expire(10)
            accept(broker, expired, 10)
            await worker.until(lambda: watched.serves_both, 8)

    asyncio.run(main())
    assert watched.seen.count(b"a8") == 1


@pytest.mark.parametrize(("busy", "expired"), [(ONE, TWO), (TWO, ONE)])
def test_a_cut_told_of_one_held_along_is_kept(
    monkeypatch: pytest.MonkeyPatch, busy: TopicPartition, expired: TopicPartition
) -> None:
    """The cluster tells that the log was cut below the decision from which nothing is committed yet."""
    monkeypatch.setattr(transaction, "OWED_SECONDS_MAX", 1000.0)  # as within the first second
    broker = broker_with_both()
    watched = Watched()

    async def main() -> None:
        await apply_both(broker)
        async with watched.working(broker, watched.see) as worker:
            await into_hold(worker, broker, watched, busy, expired)
            with broker.changed:
                broker.log_of(busy).truncate(7)
                put(broker, busy, *(f"new{n}" for n in range(7, 14)))
                broker.changed.notify_all()
            await asyncio.sleep(1)
            accept(broker, expired, 10)
            await asyncio.sleep(2)

    asyncio.run(main())
    assert str(busy) in watched.kinds or b"new7" in watched.seen, (watched, broker.group("app").notes)


@pytest.mark.parametrize(("held", "later"), [(ONE, TWO), (TWO, ONE)])
def test_a_partition_that_is_assigned_later_waits_along(
    monkeypatch: pytest.MonkeyPatch, held: TopicPartition, later: TopicPartition
) -> None:
    """As a group may: co-located topics one by one."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 5.0)
    broker = broker_with_both()
    watched = Watched()
    poll = MemoryMember.poll
    state = {"hide": False, "give": False}

    def one_by_one(self: MemoryMember, records_max: int, seconds: float) -> Polled:
        polled = poll(self, records_max, seconds)
        if state["hide"]:
            polled.changes = [
                Assigned(one.partitions - {later}) if isinstance(one, Assigned) else one for one in polled.changes
            ]
        if state["give"]:
            state["give"] = state["hide"] = False
            polled.changes.append(Assigned(frozenset({later})))
        return polled

    async def main() -> None:
        await apply_both(broker)
        put(broker, held, *(f"late{n}" for n in range(4)))
        broker.log_of(held).expire(10)
        put(broker, later, "later")
        state["hide"] = True
        monkeypatch.setattr(MemoryMember, "poll", one_by_one)
        async with watched.working(broker) as worker:
            await worker.until(lambda: bool(watched.kinds))
            state["give"] = True
            await asyncio.sleep(1.5)
            assert str(later) not in watched.statuses[-1].serving, watched.statuses[-1]
            assert "later" not in values(broker.records("out"))

    asyncio.run(main())
