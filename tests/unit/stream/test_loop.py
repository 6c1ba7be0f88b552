"""The rules that make a unit of work exactly once, on the memory broker. Each has a test that breaks without it."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.unit.stream.support import SETTINGS, copy, memory_broker, options_for, values, working
from towpath.clock import ManualClock
from towpath.errors import PeerError, WorldError
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.memory.clients import MemoryProducer
from towpath.stream.broker.port import BrokerAway, Groups, OutcomeUnknown, ProducerFenced, TransactionAborted
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.failures import RecordFailed, TooManyDead
from towpath.stream.engine.unit import KafkaUnit, UnitClosed
from towpath.stream.state.partition_state import MemoryStore


def fill(broker: MemoryBroker, records: int, keys: int = 5) -> None:
    for index in range(records):
        broker.append("in", str(index).encode(), key=f"k{index % keys}".encode())


def offsets_total(broker: MemoryBroker) -> int:
    return sum(broker.committed_offsets("app").values())


def counts(broker: MemoryBroker) -> dict[str, int]:
    return {(record.key or b"").decode(): int(record.value or 0) for record in broker.records("counts")}


def test_outputs_state_and_offsets_are_committed_together() -> None:
    """Each input gives one output and one count, and the offsets stand behind the last of them."""
    broker = memory_broker()
    fill(broker, 200)

    async def main() -> None:
        async with working(copy, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 200)

    asyncio.run(main())
    assert sorted(values(broker.records("out")), key=int) == [str(index) for index in range(200)]
    assert counts(broker) == {f"k{index}": 40 for index in range(5)}


def test_an_abort_leaves_nothing_behind() -> None:
    """A failing handler's sends and state are gone, and its records are handled once when it succeeds."""
    broker = memory_broker()
    fill(broker, 40)
    failures = 0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal failures
        await copy(unit, groups)
        if failures < 3:
            failures += 1
            raise ValueError("not yet")

    async def main() -> None:
        async with working(handler, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 40)

    asyncio.run(main())
    assert len(broker.records("out")) == 40
    assert sum(counts(broker).values()) == 40


def test_a_lost_answer_to_a_commit_that_was_done_repeats_nothing() -> None:
    """After an ambiguous commit the worker goes on from what is committed, state included."""
    broker = memory_broker()
    fill(broker, 100)
    broker.faults.order("commit answer", OutcomeUnknown("no answer"), times=2)

    async def main() -> None:
        async with working(copy, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 100)

    asyncio.run(main())
    assert Counter(values(broker.records("out"))) == Counter(str(index) for index in range(100))
    assert counts(broker) == {f"k{index}": 20 for index in range(5)}


def test_a_commit_of_which_nobody_told_where_it_lies_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is read on from its checkpoint: one that had more would be taken for one whose changelog lost it."""
    broker = memory_broker()
    produce, lost = MemoryProducer.produce, 0

    def produce_untold(producer: MemoryProducer, topic: str, value: bytes | None, **options: Any) -> None:
        nonlocal lost
        if options.get("delivered") is not None and offsets_total(broker) in range(50, 100):
            options["delivered"] = None
            lost += 1
        produce(producer, topic, value, **options)

    monkeypatch.setattr(MemoryProducer, "produce", produce_untold)
    stores: dict[TopicPartition, MemoryStore] = defaultdict(MemoryStore)

    async def main() -> None:
        for total in (50, 100, 150):
            fill(broker, 50)
            options = options_for(broker, states=("counts",))
            async with working(copy, options, ["in"], open_store=stores.__getitem__) as worker:
                await worker.until(lambda total=total: offsets_total(broker) == total)  # type: ignore[misc]

    asyncio.run(main())
    assert lost
    assert len(broker.records("out")) == 150
    assert sum(counts(broker).values()) == 150


def test_a_lost_answer_to_a_commit_that_was_not_done_loses_nothing() -> None:
    """After an ambiguous commit that did not stand, the records are handled again, once."""
    broker = memory_broker()
    fill(broker, 100)
    broker.faults.order("commit", OutcomeUnknown("no answer"), times=2)

    async def main() -> None:
        async with working(copy, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 100)

    asyncio.run(main())
    assert Counter(values(broker.records("out"))) == Counter(str(index) for index in range(100))
    assert sum(counts(broker).values()) == 100


def test_a_transaction_that_the_broker_aborts_is_done_again() -> None:
    """TransactionAborted is definite: abort, read again, commit once."""
    broker = memory_broker()
    fill(broker, 60)
    broker.faults.order("send_offsets", TransactionAborted("no"), times=2)

    async def main() -> None:
        async with working(copy, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 60)

    asyncio.run(main())
    assert len(broker.records("out")) == 60
    assert sum(counts(broker).values()) == 60


def test_a_worker_whose_slot_was_taken_stops() -> None:
    """A second live worker of the same slot fences the first one, which ends instead of fighting back."""
    broker = memory_broker()
    fill(broker, 10)

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 10)
            broker.producer("app-a").start()
            fill(broker, 10)
            with pytest.raises(ProducerFenced):
                await worker.until(lambda: offsets_total(broker) == 20, seconds=2)

    asyncio.run(main())
    assert len(broker.records("out")) == 10


def test_a_start_of_its_own_that_comes_late_does_not_stop_a_worker() -> None:
    """The broker restarts: a start is given up, and reaches the coordinator once another one has been answered."""
    broker = memory_broker()
    fill(broker, 10)
    broker.faults.order("start", BrokerAway("no answer in time"))

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 10)
            broker.producer("app-a").start()
            fill(broker, 10)
            await worker.until(lambda: offsets_total(broker) == 20)

    asyncio.run(main())
    assert len(broker.records("out")) == 20


def test_stale_work_is_fenced_by_its_own_generation() -> None:
    """Records read before a rebalance are not committed after it, although the group has moved on."""
    broker = memory_broker(partitions=1)
    fill(broker, 10)
    stole = False

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal stole
        await copy(unit, groups)
        if not stole:
            stole = True
            # Another member joins and the group settles without this one: it is taken for dead.
            group = broker.group("app")
            with broker.changed:
                group.members.clear()
                group.rebalance()

    async def main() -> None:
        async with working(handler, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 10)
            assert len(worker.agents.revocations) == 1

    asyncio.run(main())
    assert Counter(values(broker.records("out"))) == Counter(str(index) for index in range(10))


def test_two_workers_share_partitions_and_every_topic_alike() -> None:
    """Partition p of each topic is on the same worker, before and after one leaves; nothing is lost or doubled."""
    broker = memory_broker(partitions=4)
    broker.create_topic("also", 4)
    broker.create_topic("also.dead", 4)
    fill(broker, 100)

    async def main() -> None:
        first = options_for(broker)
        second = options_for(broker, slot="b")
        async with working(copy, first, ["in", "also"]) as one:
            async with working(copy, second, ["in", "also"]) as two:
                await one.until(lambda: len(one.agents.owned) == 4 and len(two.agents.owned) == 4)
                for worker in (one, two):
                    numbers = Counter(partition.partition for partition in worker.agents.owned)
                    assert set(numbers.values()) == {2}
                fill(broker, 100)
                await one.until(lambda: offsets_total(broker) >= 200)
            await one.until(lambda: len(one.agents.owned) == 8)
            fill(broker, 100)
            await one.until(lambda: offsets_total(broker) >= 300)

    asyncio.run(main())
    assert len(broker.records("out")) == 300


def test_a_predecessors_open_transaction_is_waited_for() -> None:
    """State is served only once a dead owner's transaction has ended, and with what it committed."""
    clock = ManualClock()
    broker = MemoryBroker(SETTINGS, clock)
    for topic in ("in", "in.dead", "out", "counts"):
        broker.create_topic(topic, 1)
    fill(broker, 10, keys=1)
    ghost = broker.producer("app-ghost")
    ghost.start()
    member = broker.member("app", client_id="ghost")
    member.subscribe(["in"])
    member.poll(1, 0)
    member.resume([TopicPartition("in", 0)])
    polled = member.poll(5, 0)
    ghost.begin()
    ghost.produce("counts", b"5", key=b"k0", partition=0)
    # The offsets are pending and the commit has not come: the ghost is killed here.
    with broker.changed:
        kept = ghost._kept()
        assert polled.metadata is not None
        broker.add_offsets(kept, {TopicPartition("in", 0): 5}, polled.metadata)
    member.freeze()

    async def main() -> None:
        async with working(copy, options_for(broker, states=("counts",)), ["in"]) as worker:
            clock.advance(SETTINGS.session_timeout_seconds - 1.5)
            await asyncio.sleep(0.3)
            assert not broker.records("out")
            with broker.changed:
                broker.end("app-ghost", committed=True)
            clock.advance(5)
            await worker.until(lambda: offsets_total(broker) == 10)

    asyncio.run(main())
    assert len(broker.records("out")) == 5
    assert counts(broker) == {"k0": 10}


def waits(name: str) -> float | None:
    """Return what the metric says of a worker that waits."""
    return REGISTRY.get_sample_value(f"towpath_waiting_for_{name}", {"application": "app"})


def test_the_world_is_waited_for_outside_any_transaction() -> None:
    """While a handler's world is away no transaction is open and polling goes on; then everything is handled once."""
    broker = memory_broker()
    fill(broker, 20)
    away = True
    attempts = 0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal attempts
        attempts += 1
        await copy(unit, groups)
        if away:
            raise WorldError("registry away")

    async def main() -> None:
        nonlocal away
        async with working(handler, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: attempts >= 2)
            for _ in range(20):
                assert not broker.open_transactions() or worker.loop.current is not None
                await asyncio.sleep(0.01)
            assert waits("dependency") == waits("world") == 1, "the old name says the same, for one release"
            away = False
            await worker.until(lambda: offsets_total(broker) == 20)
            await worker.until(lambda: waits("dependency") == waits("world") == 0)
            assert not worker.agents.revocations

    asyncio.run(main())
    assert len(broker.records("out")) == 20
    assert attempts < 8, "it backs off"


def test_back_off_is_fast_forwarded_by_the_clock() -> None:
    """A dependency that is away for half a minute of back-off costs a test no such time."""
    broker, clock = memory_broker(), ManualClock()
    fill(broker, 20)
    attempts = 0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 7:
            raise WorldError("registry away")
        await copy(unit, groups)

    async def main() -> None:
        async with working(handler, options_for(broker, clock=clock), ["in"]) as worker:

            def passes() -> bool:
                clock.advance(worker.loop.waits_seconds)
                return attempts > 7

            await worker.until(passes)
            await worker.until(lambda: offsets_total(broker) == 20)

    asyncio.run(main())
    assert clock.monotonic_seconds() > 12  # 0.1 s, doubling seven times
    assert len(broker.records("out")) == 20


def test_a_broker_that_is_away_is_waited_for() -> None:
    """The broker may go at any call: nothing is lost or doubled, and the worker does not end."""
    broker = memory_broker()
    fill(broker, 50)
    for operation in ("start", "committed", "offsets", "metadata"):
        broker.faults.order(operation, BrokerAway("gone"), times=2)

    async def main() -> None:
        async with working(copy, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 50, seconds=60)

    asyncio.run(main())
    assert len(broker.records("out")) == 50


def test_a_culprit_is_isolated_and_dies_in_its_own_unit_of_work() -> None:
    """The record at fault is dead-lettered untouched, with its cause and position; all others are handled, in order."""
    broker = memory_broker(partitions=1)
    for index in range(30):
        broker.append("in", str(index).encode(), key=str(index).encode(), headers=(("type", b"T"),))

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                if record.value == b"17":
                    raise ValueError("seventeen")
                unit.send("out", record.value, key=record.key)

    async def main() -> None:
        async with working(handler, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 30)

    asyncio.run(main())
    assert values(broker.records("out")) == [str(index) for index in range(30) if index != 17]
    (dead,) = broker.records("in.dead")
    letter = read_dead_letter(dead.header("dead") or "")
    assert (dead.key, dead.value, dead.header("type")) == (b"17", b"17", "T")
    assert (letter.topic, letter.partition, letter.offset, letter.attempts) == ("in", 0, 17, 3)
    assert (letter.kind, letter.error, letter.cause) == ("handler", "ValueError", "seventeen")


@pytest.mark.parametrize("named", [True, False])
def test_what_a_handler_cannot_see_yet_is_no_dead_letter(*, named: bool) -> None:
    """A command outran the row that it is about by 0.3 s: its runs lie further apart than that."""
    broker = memory_broker(partitions=1)
    for text in ("1", "early", "2"):
        broker.append("in", text.encode(), key=text.encode())
    seen_from = 0.0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal seen_from
        now = asyncio.get_running_loop().time()
        for records in groups.values():
            for record in records:
                if record.value == b"early":
                    seen_from = seen_from or now + 0.3
                    if now < seen_from:
                        error = ValueError("not known")
                        raise RecordFailed(record, error) if named else error
                unit.send("out", record.value)

    async def main() -> None:
        settings = SETTINGS.model_copy(update={"handler_retry_seconds": 0.1})
        async with working(handler, options_for(broker, settings=settings), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 3)

    asyncio.run(main())
    assert values(broker.records("out")) == ["1", "early", "2"]
    assert broker.records("in.dead") == []


def test_a_peers_record_dies_at_once_and_a_known_culprit_is_not_searched_for() -> None:
    """RecordFailed with a peer's error needs two runs: one that fails, one that dead-letters."""
    broker = memory_broker(partitions=1)
    fill(broker, 20)
    runs = 0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal runs
        runs += 1
        for records in groups.values():
            for record in records:
                if record.value == b"7":
                    raise RecordFailed(record, PeerError("undecodable"))
        await copy(unit, groups)

    async def main() -> None:
        async with working(handler, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 20)

    asyncio.run(main())
    assert len(broker.records("out")) == 19
    assert runs == 3, "the batch, what precedes the culprit, what follows it"


def test_a_dead_letter_stands_or_falls_with_its_unit_of_work() -> None:
    """If the unit that dead-letters is aborted, the dead letter is not there twice."""
    broker = memory_broker(partitions=1)
    fill(broker, 3)

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                if record.value == b"1":
                    unit.dead_letter(record, cause="not for us")
                else:
                    unit.send("out", record.value)

    broker.faults.order("commit", TransactionAborted("no"), times=2)

    async def main() -> None:
        async with working(handler, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 3)

    asyncio.run(main())
    assert len(broker.records("in.dead")) == 1
    assert len(broker.records("out")) == 2


def test_later_records_of_a_dead_key_follow_it() -> None:
    """Followers are quarantined in order and marked; other keys go on; so it is with the next worker."""
    broker = memory_broker(partitions=1)
    for value, key in (("a1", "a"), ("bad", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a")):
        broker.append("in", value.encode(), key=key.encode())

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                if record.value == b"bad":
                    raise RecordFailed(record, PeerError("bad"))
                unit.send("out", record.value, key=record.key)

    async def main() -> None:
        async with working(handler, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 5)
            assert values(broker.records("out")) == ["a1", "b1"]
            dead = broker.records("in.dead")
            letters = [read_dead_letter(record.header("dead") or "") for record in dead]
            assert [(letter.kind, letter.behind) for letter in letters] == [
                ("peer", None),
                ("follower", "in[0]@1"),
                ("follower", "in[0]@1"),
            ]
        # Another worker finds the key parked in the state that it reads from the changelog.
        async with working(handler, options_for(broker, states=("counts",), slot="b"), ["in"]) as worker:
            broker.append("in", b"a4", key=b"a")
            await worker.until(lambda: len(broker.records("in.dead")) == 4)

    asyncio.run(main())
    assert values(broker.records("out")) == ["a1", "b1"]


def test_too_large_a_share_of_dead_records_stops_the_worker() -> None:
    """When more than the limit of the last hundred records fail, the worker ends instead of diverting the world."""
    broker = memory_broker(partitions=1)
    for index in range(200):
        broker.append("in", str(index).encode(), key=str(index).encode())

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            raise RecordFailed(records[0], PeerError("all of them"))

    async def main() -> None:
        settings = SETTINGS.model_copy(update={"dead_letter_share_max": 0.2})
        async with working(handler, options_for(broker, settings=settings), ["in"]) as worker:
            with pytest.raises(TooManyDead):
                await worker.until(lambda: offsets_total(broker) == 200)

    asyncio.run(main())
    assert len(broker.records("in.dead")) == 20
    assert offsets_total(broker) == 20


def test_a_unit_that_has_ended_takes_nothing_more() -> None:
    """What an agent left running finds out, and nothing of it reaches a later unit."""
    broker = memory_broker(partitions=1)
    fill(broker, 1)
    kept: list[KafkaUnit] = []

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        kept.append(unit)

    async def main() -> None:
        async with working(handler, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 1)
            with pytest.raises(UnitClosed):
                kept[0].send("out", b"late")

    asyncio.run(main())
    assert not broker.records("out")


def test_a_store_is_brought_up_to_date_before_it_serves() -> None:
    """A second worker counts on from what the first one committed."""
    broker = memory_broker()
    fill(broker, 30)

    async def main() -> None:
        for total, slot in ((30, "a"), (60, "b")):
            async with working(copy, options_for(broker, states=("counts",), slot=slot), ["in"]) as worker:
                await worker.until(lambda total=total: offsets_total(broker) == total)  # type: ignore[misc]
            fill(broker, 30)

    asyncio.run(main())
    assert counts(broker) == {f"k{index}": 12 for index in range(5)}


def test_memory_store_is_what_it_says() -> None:
    """A store without files begins empty and has no checkpoint."""
    assert MemoryStore().checkpoint() is None


async def write_nothing(unit: KafkaUnit, groups: Groups) -> None:
    """Take records and leave no trace."""


def test_units_that_write_nothing_cost_no_transaction() -> None:
    """Their offsets wait for the next unit that writes; a hundred units of them are no commit at all."""
    broker = memory_broker()
    clock = ManualClock()
    seen: list[int] = []

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            seen.extend(int(record.value or b"") for record in records)
            if any(record.value == b"100" for record in records):
                unit.send("out", b"written")

    async def main() -> None:
        async with working(handler, options_for(broker, clock=clock), ["in"]) as worker:
            fill(broker, 100)
            await worker.until(lambda: len(seen) == 100)
            assert offsets_total(broker) == 0
            broker.append("in", b"100", key=b"k0")
            await worker.until(lambda: offsets_total(broker) == 101)

    asyncio.run(main())
    assert len(broker.records("out")) == 1


def test_offsets_of_units_that_wrote_nothing_are_committed_after_a_while() -> None:
    """Where no unit that writes follows, they go alone: the lag does not look larger than it is."""
    broker = memory_broker()
    fill(broker, 50)

    async def main() -> None:
        async with working(write_nothing, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: offsets_total(broker) == 50)

    asyncio.run(main())


def test_offsets_that_wait_are_forgotten_with_their_partition() -> None:
    """A worker that gave a partition away does not set its new owner back, though its own generation is current."""
    broker = memory_broker(partitions=2)
    clock = ManualClock()
    seen: list[int] = []

    async def first(unit: KafkaUnit, groups: Groups) -> None:
        seen.extend(len(records) for records in groups.values())

    async def main() -> None:
        async with working(first, options_for(broker, clock=clock), ["in"]) as old:
            fill(broker, 20)
            await old.until(lambda: sum(seen) == 20)
            async with working(copy, options_for(broker, slot="b"), ["in"]) as new:
                await new.until(lambda: len(new.agents.owned) == 1 and len(old.agents.owned) == 1)
                theirs = next(iter(new.agents.owned))
                await new.until(lambda: broker.committed_offsets("app").get(theirs, 0) > 0)
                fill(broker, 100)
                await new.until(lambda: broker.committed_offsets("app")[theirs] == broker.log_of(theirs).end)
                reached = broker.committed_offsets("app")[theirs]
                await old.until(lambda: sum(seen) > 20)
                clock.advance(2)
                others = next(iter(old.agents.owned))
                await old.until(lambda: broker.committed_offsets("app").get(others, 0) > 0)
                assert broker.committed_offsets("app")[theirs] == reached

    asyncio.run(main())
