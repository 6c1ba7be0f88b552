"""Partitions of one number wait together where state is kept, each for a reason of its own."""

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.unit.stream.support import copy, memory_broker, options_for, working
from tests.unit.stream.test_held_partitions import accept, committed, holding, put
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import BrokerAway
from towpath.stream.broker.position import HoldKind
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, settling
from towpath.stream.engine.worker_status import WorkerStatus

ONE, TWO = TopicPartition("in", 0), TopicPartition("more", 0)
TOPICS, APPLIED = ["in", "more"], 8


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is held tried again at once, and believed soon."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    monkeypatch.setattr(settling, "LOOK_AGAIN_SECONDS", 0.01)


def broker_with_both() -> MemoryBroker:
    broker = memory_broker(partitions=1)
    for topic in ("more", "more.dead"):
        broker.create_topic(topic, 1)
    for place in (ONE, TWO):
        put(broker, place, *(f"{place.topic}{n}" for n in range(APPLIED)))
    return broker


async def apply_both(broker: MemoryBroker) -> None:
    """Apply what there is, and leave offsets without an epoch, as a person's decision does."""
    async with working(copy, options_for(broker, states=("counts",)), TOPICS) as worker:
        await worker.until(lambda: committed(broker, ONE) == committed(broker, TWO) == APPLIED)
    for place in (ONE, TWO):
        accept(broker, place, APPLIED)


@pytest.mark.parametrize(("cut", "expired"), [(ONE, TWO), (TWO, ONE)])
def test_a_cut_log_is_noted_beside_one_whose_records_expired(cut: TopicPartition, expired: TopicPartition) -> None:
    """Once it has grown past what was applied only the note tells: without it, new records would be passed over."""
    broker = broker_with_both()
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=("counts",), on_status=statuses.append)

    async def main() -> None:
        await apply_both(broker)
        broker.log_of(cut).truncate(5)
        put(broker, expired, *(f"late{n}" for n in range(4)))
        broker.log_of(expired).expire(10)
        async with working(copy, options, TOPICS) as worker:
            await worker.until(lambda: "lost tail" in broker.group("app").notes.get(cut, ""), 20)
            await worker.until(lambda: bool(statuses) and len({held.kind for held in statuses[-1].held}) == 2)
        put(broker, cut, *(f"new{n}" for n in range(5, 10)))
        accept(broker, expired, 10)
        statuses.clear()
        async with working(copy, options, TOPICS) as worker:
            await worker.until(holding(statuses, HoldKind.RESTORED))

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
        async with working(copy, options_for(broker, states=("counts",)), TOPICS) as worker:
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
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        options = options_for(broker, states=("counts",), on_status=statuses.append)
        async with working(copy, options, TOPICS):
            await asyncio.sleep(3)

    with capture_logs() as logs:
        asyncio.run(main())
    assert sorted(one["kind"] for one in logs if one["event"] == "partition is held") == ["beyond_end", "expired"]
    assert {held.partition: held.kind for held in statuses[-1].held} == {
        str(ONE): "beyond_end",
        str(TWO): "expired",
    }
