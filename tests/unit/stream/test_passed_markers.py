"""Positions move past what no reader is shown, markers and aborted records: never past what was not read.

What is seen of a log's end is of use only with what was read up to it: where that is dropped, the end is told anew.
"""

import asyncio
import os
from collections import defaultdict
from random import Random

import pytest

from tests.unit.stream.support import Handler, copy, in_transaction, memory_broker, options_for, values, working
from tests.unit.stream.test_held_partitions import OTHER, PLACE, accept, committed, cut_noted, holding, noted, put
from tests.unit.stream.test_timers import options as timer_options
from tests.unit.stream.test_timers import set_timers
from towpath.errors import WorldError
from towpath.positions.decision import decide
from towpath.positions.group import group_standings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.memory.clients import MemoryMember
from towpath.stream.broker.port import BrokerAway, Groups, TransactionAborted
from towpath.stream.broker.position import HoldKind, PartitionHeld, read_lost_tail
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, idle, transaction
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.engine.worker_status import WorkerStatus

LONG_SECONDS = 3_600.0
UNKNOWN = b"unknown"
"""The value of a record that a handler of these tests does not know yet."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is held, or read once more, tried again at once."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    monkeypatch.setattr(idle, "AGAIN_SECONDS", 0.05)


def pass_markers_every(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "IDLE_ADVANCE_SECONDS", seconds)


def another_leads(broker: MemoryBroker, place: TopicPartition = PLACE) -> None:
    """Have another leader write a log from its end on."""
    with broker.changed:
        broker.log_of(place).truncate(broker.log_of(place).end)


class Unknowing:
    """A handler that holds the partition of a record that it does not know yet, and leaves the others to another."""

    def __init__(self, others: Handler = copy) -> None:
        self.knows = False
        self._others = others

    async def __call__(self, unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                if record.value == UNKNOWN and not self.knows:
                    error = PartitionHeld(HoldKind.VERSION, "a version is missing", next_step="deploy it")
                    raise RecordFailed(record, error) from error
        await self._others(unit, groups)


def test_an_idle_worker_commits_past_transaction_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    """When retention has taken a topic that was read whole, nothing looks as if it had expired unread."""
    pass_markers_every(0.05, monkeypatch)
    broker = memory_broker(partitions=1)
    in_transaction(broker, "in", b"v0").commit({}, None)
    assert broker.log_of(PLACE).end == 2

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 2)
        broker.log_of(PLACE).expire(2)
        put(broker, PLACE, "v1")
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 3)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1"]


def test_a_quiet_partition_beside_a_busy_one_is_committed_past_its_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lull of the whole worker may never come, and retention takes the quiet one's records all the same."""
    pass_markers_every(0.3, monkeypatch)
    broker = memory_broker(partitions=2)
    in_transaction(broker, "in", b"quiet", partition=OTHER.partition).commit({}, None)

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            for number in range(100):
                put(broker, PLACE, f"v{number}")
                await worker.until(lambda number=number: committed(broker) > number)  # type: ignore[misc]
                if committed(broker, OTHER) == 2:
                    return
                await asyncio.sleep(0.02)
        raise AssertionError(committed(broker, OTHER))

    asyncio.run(main())


@pytest.mark.parametrize("states", [(), ("counts",)], ids=["without state", "with state"])
def test_what_another_leader_wrote_behind_the_last_record_is_no_lost_tail(
    monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...]
) -> None:
    """A transaction that a broker's restart aborted: the position lies behind it, under the leader that wrote it.

    With the leader of the last record, the position would look like one that the log has lost. A tail that is lost
    after that is noticed all the same.
    """
    pass_markers_every(0.05, monkeypatch)
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0")
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=states, on_status=statuses.append)

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 1)
            another_leads(broker)
            in_transaction(broker, "in", b"aborted").abort()
            await worker.until(lambda: committed(broker) == 3)
        async with working(copy, options, ["in"]) as worker:
            put(broker, PLACE, "v1")
            await worker.until(lambda: committed(broker) == 4)
            in_transaction(broker, "in", b"aborted").abort()
            await worker.until(lambda: committed(broker) == 6)
        broker.log_of(PLACE).truncate(5)
        put(broker, PLACE, *(f"new{n}" for n in range(5, 9)))
        async with working(copy, options, ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.BEYOND_END))

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1"]


def test_what_is_written_in_place_of_a_lost_marker_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that was reached under an earlier leader says nothing of the log that there is now."""
    pass_markers_every(LONG_SECONDS, monkeypatch)
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0")

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            in_transaction(broker, "in", b"aborted").abort()
            await worker.until(lambda: committed(broker) == 1)
            await asyncio.sleep(0.3)  # until the end was reached, of which nothing is told
            with broker.changed:
                broker.log_of(PLACE).truncate(1)
                put(broker, PLACE, "new1", "new2")
            pass_markers_every(0.05, monkeypatch)
            await worker.until(lambda: committed(broker) == 3)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "new1", "new2"]


def test_an_end_that_was_seen_before_a_hold_is_not_read_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits behind a record that is not known yet is read once it is, and by no other way."""
    pass_markers_every(0.3, monkeypatch)
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0", "unknown", "v2")
    statuses: list[WorkerStatus] = []
    handler = Unknowing()

    async def main() -> None:
        async with working(handler, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.VERSION))
            await asyncio.sleep(2.0)
            assert committed(broker) == 1
            handler.knows = True
            await worker.until(lambda: committed(broker) == 3)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "unknown", "v2"]


def test_a_timer_waits_for_what_waits_in_a_held_partition() -> None:
    """The reply that it would outrun lies behind the end that was seen before the hold."""
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "set 500")
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        options = timer_options(broker, on_status=statuses.append)
        async with working(Unknowing(set_timers), options, ["in", "timers"]) as worker:
            await worker.until(lambda: committed(broker) == 1)
            put(broker, PLACE, "unknown")
            await worker.until(holding(statuses, HoldKind.VERSION))
            await asyncio.sleep(2.0)

    asyncio.run(main())
    assert values(broker.records("timers")) == []


def test_an_end_that_was_seen_while_positions_were_sought_is_not_read_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an abort, the next poll's records are dropped, since they come again: so must the end be that it saw."""
    pass_markers_every(LONG_SECONDS, monkeypatch)
    broker = memory_broker()
    put(broker, PLACE, "v0")
    put(broker, OTHER, "w0")
    stuck = asyncio.Event()
    tries = 0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal tries
        for record in (record for records in groups.values() for record in records):
            if record.value == b"v1":
                tries += 1
                if tries == 2:  # once more after the abort: an ordinary failure
                    raise RecordFailed(record, ValueError("v1"))
                if tries > 2:  # and here the process dies
                    stuck.set()
                    await asyncio.sleep(LONG_SECONDS)
        await copy(unit, groups)

    def abort() -> None:
        put(broker, PLACE, "v4")
        put(broker, OTHER, "w2")
        pass_markers_every(0.0, monkeypatch)
        raise TransactionAborted("an ordinary abort")

    async def main() -> None:
        async with working(handler, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == committed(broker, OTHER) == 1)
            with broker.changed:
                broker.faults.call("send_offsets", abort)
                put(broker, PLACE, "v1", "v2", "v3")
                put(broker, OTHER, "w1")
            await worker.until(stuck.is_set)
            assert worker.task is not None
            worker.task.cancel()
        pass_markers_every(LONG_SECONDS, monkeypatch)
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: (committed(broker), committed(broker, OTHER)) == (5, 3))

    asyncio.run(main())
    assert sorted(values(broker.records("out"))) == ["v0", "v1", "v2", "v3", "v4", "w0", "w1", "w2"]


def test_a_lost_tail_that_only_waited_is_no_hold_and_what_is_left_of_it_is_read() -> None:
    """The client tells where what it *read* was cut off; what was applied lies before that, and is all there."""
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0", "v1")
    statuses: list[WorkerStatus] = []
    away = True

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        if away and any(record.value == b"v2" for records in groups.values() for record in records):
            raise WorldError("a dependency is away")
        await copy(unit, groups)

    async def main() -> None:
        nonlocal away
        async with working(handler, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 2)
            put(broker, PLACE, "v2", "v3", "v4", "v5")
            await worker.until(lambda: statuses[-1].waiting_for is not None)
            with broker.changed:
                broker.log_of(PLACE).truncate(4)
                put(broker, PLACE, "new4", "new5")
            away = False
            await worker.until(lambda: committed(broker) == 6)
        assert not any(status.held for status in statuses)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1", "v2", "v3", "new4", "new5"]


def test_what_a_person_accepts_of_a_lost_tail_skips_nothing_that_only_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where applied records are lost as well: the hold names where the log was cut, before anything that waited."""
    pass_markers_every(LONG_SECONDS, monkeypatch)
    broker = memory_broker(partitions=1)
    put(broker, PLACE, *(f"v{n}" for n in range(4)))
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 4)
            with broker.changed:
                broker.log_of(PLACE).truncate(3)
                put(broker, PLACE, *(f"new{n}" for n in range(3, 8)))
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            await worker.until(cut_noted(broker))
            (standing,) = group_standings(broker, "app", [PLACE])
            accept(broker, PLACE, decide(standing, None, actor="ada", reason="a power cut").offset_after)
            await worker.until(lambda: committed(broker) == 8)

    asyncio.run(main())
    assert values(broker.records("out")) == [*(f"v{n}" for n in range(4)), *(f"new{n}" for n in range(3, 8))]


@pytest.mark.parametrize("kind", [HoldKind.VERSION, HoldKind.BEYOND_END])
def test_the_note_of_a_hold_stays_beside_offsets_that_were_owed(kind: HoldKind) -> None:
    """Units that wrote nothing leave their offsets to a later commit, which would take the note away."""
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0")
    statuses: list[WorkerStatus] = []
    handler = Unknowing()

    async def quiet(unit: KafkaUnit, groups: Groups) -> None:
        if not any(record.value == b"quiet" for records in groups.values() for record in records):
            await handler(unit, groups)

    async def main() -> None:
        async with working(quiet, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 1)
            put(broker, PLACE, "quiet", "quiet")
            await worker.until(lambda: worker.loop.ownership.processed(PLACE) == 3)
            if kind is HoldKind.VERSION:
                put(broker, PLACE, "unknown")
            else:
                with broker.changed:
                    broker.log_of(PLACE).truncate(2)
                    put(broker, PLACE, *(f"new{n}" for n in range(5)))
            await worker.until(holding(statuses, kind))
            await asyncio.sleep(2 * transaction.OWED_SECONDS_MAX)
            if kind is HoldKind.VERSION:
                assert noted(broker) is not None
            else:
                assert read_lost_tail(broker.group("app").notes.get(PLACE, "")) == 2

    asyncio.run(main())


def test_what_expired_unread_while_a_partition_is_read_once_more_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records came and expired between the end that was seen and the look at the log's leader."""
    pass_markers_every(LONG_SECONDS, monkeypatch)
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0")
    statuses: list[WorkerStatus] = []

    def come_and_expire() -> None:
        put(broker, PLACE, "unread3", "unread4")
        broker.log_of(PLACE).expire(5)

    async def main() -> None:
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 1)
            in_transaction(broker, "in", b"aborted").abort()
            await worker.until(lambda: worker.loop.ownership.read_to(PLACE, waiting=False) == 3)
            another_leads(broker)
            broker.faults.call("offsets", come_and_expire)
            pass_markers_every(0.05, monkeypatch)
            await worker.until(holding(statuses, HoldKind.EXPIRED))

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["the seek", "the question for leaders", "a rebalance"])
def test_markers_are_passed_though_the_first_try_fails(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The broker goes away, or the partition changes hands, while it is to be read once more."""
    pass_markers_every(0.2, monkeypatch)
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0")
    seek = MemoryMember.seek
    armed = False

    def sought(self: MemoryMember, *arguments: dict[TopicPartition, int]) -> None:
        nonlocal armed
        fails, armed = armed, False
        if fails and fault == "the seek":
            raise BrokerAway("away")
        if fails:
            broker.group("app").rebalance()
        seek(self, *arguments)

    monkeypatch.setattr(MemoryMember, "seek", sought)

    async def main() -> None:
        nonlocal armed
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 1)
            with broker.changed:
                another_leads(broker)
                in_transaction(broker, "in", b"aborted").abort()
                armed = fault != "the question for leaders"
                if not armed:
                    broker.faults.order("offsets", BrokerAway("away"), 2)
            await worker.until(lambda: committed(broker) == 3)
            put(broker, PLACE, "v1")
            await worker.until(lambda: committed(broker) == 4)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1"]


class Weather:
    """What happens around workers, by chance."""

    def __init__(self, broker: MemoryBroker, chance: Random) -> None:
        self.broker, self.chance = broker, chance
        self.places = [TopicPartition(topic, number) for topic in ("in", "timers") for number in (0, 1)]
        self.written: dict[TopicPartition, int] = defaultdict(int)

    def text(self, place: TopicPartition) -> str:
        """Return what no record has said yet; of a quiet one, nothing comes."""
        self.written[place] += 1
        return f"{place}-{self.written[place]} {self.chance.choice(['loud', 'quiet'])}"

    async def handle(self, unit: KafkaUnit, groups: Groups) -> None:
        """Copy what is loud, or fail now and then."""
        if self.chance.random() < 0.05:
            raise RuntimeError("now and then")
        loud = {p: [r for r in records if not (r.value or b"").endswith(b"quiet")] for p, records in groups.items()}
        if any(loud.values()):
            await copy(unit, {p: records for p, records in loud.items() if records})

    def happens(self) -> None:
        """Have one thing happen."""
        place, chance = self.chance.choice(self.places), self.chance
        with self.broker.changed:
            match chance.choice(
                ["records", "records", "committed", "aborted", "leader", "rebalance", "within", "abort"]
            ):
                case "records":
                    put(self.broker, place, *(self.text(place) for _ in range(chance.randrange(1, 4))))
                case "committed" | "aborted" as end:
                    value = self.text(place) if end == "committed" else "aborted"
                    other = in_transaction(self.broker, place.topic, value.encode(), partition=place.partition)
                    other.commit({}, None) if end == "committed" else other.abort()
                case "leader":
                    another_leads(self.broker, place)
                case "rebalance" if chance.random() < 0.5:
                    self.broker.group("app").rebalance()
                case "abort" if chance.random() < 0.3:
                    self.broker.faults.order("send_offsets", TransactionAborted("an ordinary abort"))
                case "within" if chance.random() < 0.5:
                    call = chance.choice(["offsets", "committed", "poll"])
                    self.broker.faults.call(call, lambda: put(self.broker, place, self.text(place)))
            self.broker.changed.notify_all()


@pytest.mark.parametrize("states", [(), ("counts",)], ids=["without state", "with state"])
def test_whatever_the_order_of_events_each_record_is_copied_once(
    monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...]
) -> None:
    """Records, aborted ones, new leaders, rebalances, failures, restarts, at any moment: nothing held, nothing lost."""
    seed = int(os.environ.get("TOWPATH_TEST_SEED") or Random().randrange(10**6))
    print(f"seed {seed}")  # noqa: T201 - to run it again
    pass_markers_every(0.02, monkeypatch)
    monkeypatch.setattr(idle, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(transaction, "OWED_SECONDS_MAX", 0.05)
    broker, chance = memory_broker(), Random(seed)
    weather = Weather(broker, chance)
    held: list[str] = []

    def noticed(status: WorkerStatus) -> None:
        held.extend(one.reason for one in status.held)

    async def main() -> None:
        options = options_for(broker, states=states, on_status=noticed)
        for _ in range(3):
            async with working(weather.handle, options, ["in", "timers"]):
                for _ in range(50):
                    weather.happens()
                    if chance.random() < 0.7:
                        await asyncio.sleep(chance.random() * 0.02)
                await asyncio.sleep(chance.random() * 0.1)
        async with working(weather.handle, options, ["in", "timers"]) as worker:
            await worker.until(
                lambda: all(committed(broker, place) == broker.log_of(place).end for place in weather.places)
            )

    asyncio.run(main())
    assert not held
    sent = [record for place in weather.places for record in broker.log_of(place).read(0, 10**6)[0]]
    loud = [text for text in values(sent) if text.endswith("loud")]
    assert sorted(values(broker.records("out"))) == sorted(loud)
