"""Where a log was cut that has grown since and is still too short: the cluster tells it, or nobody does."""

import asyncio
from collections.abc import Callable

import pytest

from tests.unit.stream.support import Worker, copy, count_looks, memory_broker, options_for, working
from tests.unit.stream.test_held_partitions import PLACE, accept, committed, holding, put
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.memory.clients import MemoryMember
from towpath.stream.broker.port import BrokerAway, OutcomeUnknown
from towpath.stream.broker.position import HoldKind
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, settling
from towpath.stream.engine.membership import MemberHung
from towpath.stream.engine.worker_status import WorkerStatus

CUT, END = 5, 7


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is held tried again at once, and believed soon."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    monkeypatch.setattr(settling, "LOOK_AGAIN_SECONDS", 0.05)


async def cut(broker: MemoryBroker, *, epoch: bool = True) -> None:
    """Have eight records applied, cut the log, and write two in the place of what is lost."""
    put(broker, PLACE, *(f"v{n}" for n in range(8)))
    async with working(copy, options_for(broker), ["in"]) as worker:
        await worker.until(lambda: committed(broker) == 8)
    if not epoch:
        accept(broker, PLACE, 8)
    broker.log_of(PLACE).truncate(CUT)
    put(broker, PLACE, *(f"new{n}" for n in range(CUT, END)))


def step_of(*statuses: list[WorkerStatus]) -> str:
    """Return what one of these workers last advised for the partition."""
    held = [one for each in statuses for status in each[-1:] for one in status.held if one.partition == str(PLACE)]
    return (held[0].next_step or "") if held else ""


def is_told(*statuses: list[WorkerStatus]) -> Callable[[], bool]:
    return lambda: f"--from {CUT} " in step_of(*statuses)


def test_another_worker_that_joins_meanwhile_takes_no_answer_away() -> None:
    """What is not answered yet is not noted: whoever has the partition then asks as well."""
    broker = memory_broker()
    one: list[WorkerStatus] = []
    two: list[WorkerStatus] = []

    async def main() -> None:
        await cut(broker)
        async with working(copy, options_for(broker, on_status=one.append), ["in"]) as first:
            await asyncio.sleep(0.1)
            async with working(copy, options_for(broker, slot="b", on_status=two.append), ["in"]) as second:
                await first.until(is_told(one, two), 20)
                await second.until(lambda: bool(one and two and one[-1].is_member and two[-1].is_member), 20)
                await second.until(is_told(one, two), 20)

    asyncio.run(main())


def test_a_worker_that_ends_before_the_answer_leaves_no_other() -> None:
    """Its successor asks anew."""
    broker = memory_broker()
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        await cut(broker)
        ending: list[Worker] = []

        def seen(status: WorkerStatus) -> None:
            if status.held and ending:
                ending[0].loop.stop()

        async with working(copy, options_for(broker, on_status=seen), ["in"]) as first:
            ending.append(first)
            assert first.task is not None
            await first.task
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(is_told(statuses), 20)

    asyncio.run(main())


def test_a_broker_that_is_away_when_the_place_is_noted_is_waited_for() -> None:
    """The worker does not end, and what it was told is noted then."""
    broker = memory_broker()
    statuses: list[WorkerStatus] = []
    later: list[WorkerStatus] = []

    async def main() -> None:
        await cut(broker)
        broker.faults.call("committed", lambda: None)
        broker.faults.order("committed", BrokerAway("away for a moment"))
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(is_told(statuses), 20)
            await worker.until(lambda: f"lost tail at {CUT}" in str(broker.group("app").notes), 20)
        async with working(copy, options_for(broker, on_status=later.append), ["in"]) as worker:
            await worker.until(is_told(later), 20)

    asyncio.run(main())


def test_of_a_position_without_an_epoch_a_person_has_to_say_it() -> None:
    """As a decision leaves it. Its log's end of now is proposed by nobody, and by no later worker either."""
    broker = memory_broker()
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        await cut(broker, epoch=False)
        for kind in (HoldKind.BEYOND_END, HoldKind.RESTORED):
            statuses.clear()
            async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
                await worker.until(holding(statuses, kind))
                assert "--from OFFSET" in step_of(statuses)
                await worker.until(lambda: "lost tail at" in str(broker.group("app").notes))

    asyncio.run(main())


async def await_the_note(worker: Worker, broker: MemoryBroker) -> None:
    """Wait for the note of a cut log, and for what the worker does after it."""
    await worker.until(lambda: "lost tail" in broker.group("app").notes.get(PLACE, ""), 20)
    await asyncio.sleep(0.3)


def strange() -> MemoryBroker:
    """Return a broker whose log is not the one that was read up to the stored offset, nobody can say from where on.

    Its next answer finds the positions, and the one after it, before the note, does not come.
    """
    broker = memory_broker()
    put(broker, PLACE, *(f"v{n}" for n in range(10)))
    with broker.changed:
        broker.group("app").commit({PLACE: 8}, {PLACE: 5})
    broker.faults.call("committed", lambda: None)
    return broker


def test_a_member_that_hangs_before_the_note_leaves_the_offset_where_it_is() -> None:
    """What the cluster had said of the log is forgotten with it: the new member knows no position, and asks."""
    broker = strange()
    broker.faults.order("committed", MemberHung("app: a call into the Kafka client did not come back"))
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.RESTORED))
            await await_the_note(worker, broker)

    asyncio.run(main())
    assert committed(broker) == 8, [held.reason for held in statuses[-1].held]


def test_a_rebalance_before_the_note_leaves_the_offset_where_it_is() -> None:
    """Another worker joins while the first waits for a broker that takes the note."""
    broker = strange()
    broker.faults.order("committed", BrokerAway("away for a moment"), times=5)
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.RESTORED))
            async with working(copy, options_for(broker, slot="b"), ["in"]):
                await await_the_note(worker, broker)

    asyncio.run(main())
    assert committed(broker) == 8, [held.reason for held in statuses[-1].held]


@pytest.mark.parametrize("epoch", [False, True])
def test_what_a_person_decides_while_a_worker_looks_stands(monkeypatch: pytest.MonkeyPatch, epoch: bool) -> None:
    """Its note would put the offset that it had found back; it finds the decision at its next try instead."""
    monkeypatch.setattr(settling, "LOOK_AGAIN_SECONDS", 0.2)
    broker = memory_broker()
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        await cut(broker, epoch=epoch)
        looks = count_looks(broker, monkeypatch)
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: len(looks) > 2)
            accept(broker, PLACE, CUT)
            await worker.until(lambda: committed(broker) == END, 20)
            await worker.until(lambda: not statuses[-1].held, 20)

    asyncio.run(main())
    assert [record.value for record in broker.records("out")][8:] == [b"new5", b"new6"]


def test_a_late_answer_does_not_take_a_decision_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster answers while positions cannot be read; the answer is about the offset before the decision."""
    broker = memory_broker()
    statuses: list[WorkerStatus] = []
    answers: list[bool] = []
    is_whole = MemoryMember._is_whole

    def late(self: MemoryMember, partition: TopicPartition, position: int) -> bool:
        """The leader answers a seek only once the worker's next try has met a coordinator that is away."""
        return is_whole(self, partition, position) if answers else True

    async def main() -> None:
        await cut(broker)
        monkeypatch.setattr(MemoryMember, "_is_whole", late)
        broker.faults.call("committed", lambda: None)

        def goes_away() -> None:
            answers.append(True)
            raise BrokerAway("the coordinator restarts")

        broker.faults.call("committed", goes_away)
        broker.faults.order("committed", BrokerAway("the coordinator restarts"), times=3)
        broker.faults.call("committed", lambda: accept(broker, PLACE, CUT + 1))  # a person: from 6, of 5 to 7
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            await worker.until(lambda: committed(broker) == END, 20)
            await asyncio.sleep(0.5)

    asyncio.run(main())
    assert not statuses[-1].held, [held.reason for held in statuses[-1].held]
    assert committed(broker) == END
    assert "lost tail" not in broker.group("app").notes.get(PLACE, "")


@pytest.mark.parametrize("states", [(), ("counts",)])
def test_a_log_that_is_cut_while_the_coordinator_is_away_does_not_end_the_worker(states: tuple[str, ...]) -> None:
    """What the cluster tells of the log comes while no producer can be started: it is dealt with after that."""
    broker = memory_broker()
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        put(broker, PLACE, *(f"v{n}" for n in range(8)))
        options = options_for(broker, states=states, on_status=statuses.append)
        async with working(copy, options, ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 8)
            broker.append("in", b"other", key=b"k", partition=1)
            # The coordinator restarts: a commit is not answered, and a producer cannot start for a while.
            await worker.until(lambda: committed(broker, PLACE._replace(partition=1)) == 1)
            broker.faults.order("start", BrokerAway("the coordinator restarts"), times=5)

            def is_cut() -> None:
                broker.log_of(PLACE).truncate(5)
                put(broker, PLACE, *(f"new{n}" for n in range(5, 12)))
                raise OutcomeUnknown("no answer")

            broker.faults.call("commit", is_cut)
            broker.append("in", b"other2", key=b"k", partition=1)
            await worker.until(holding(statuses, HoldKind.BEYOND_END), 20)

    asyncio.run(main())
