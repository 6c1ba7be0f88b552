"""Deliberate breakages of the rules: each is caught by the one fault that is aimed at it, and only with the breakage.

A case is a scenario that inflicts its fault and returns what is wrong at the end. It runs twice: as the engine is,
and with one rule taken out. What of it needs a real broker or a real PostgreSQL takes the stack; the rest runs on the
memory broker, where the fault can be put exactly where it hurts.
"""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer as RdProducer

from tests.conformance.conftest import KafkaCluster
from tests.stack_fixture import RunningStack
from tests.unit.stream.support import FunctionAgents, copy, memory_broker, options_for, working
from towpath.errors import PeerError, WorldError
from towpath.settings import StreamSettings
from towpath.stream.broker import kafka
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.partitioner import partition_of
from towpath.stream.broker.port import Broker, GroupMetadata, Groups, OutcomeUnknown, TransactionAborted
from towpath.stream.broker.producer.kafka import KafkaProducer, producer_config
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine import postgres as database_form
from towpath.stream.engine.failures import AgentFailed, RecordFailed, Work
from towpath.stream.engine.loop import UnitLoop
from towpath.stream.engine.options import DatabaseOptions, StreamOptions
from towpath.stream.engine.postgres import DatabaseTransaction, DatabaseUnit
from towpath.stream.engine.transaction import KafkaTransaction
from towpath.stream.engine.unit import KafkaUnit, Unit
from towpath.stream.faust_app.wiring import build_loop
from towpath.stream.state import changelog
from towpath.stream.state.changelog import Bounds
from towpath.stream.state.stores import PartitionStores

Patch = pytest.MonkeyPatch
RECORDS = 60


class Killed(BaseException):
    """Stands for SIGKILL at one exact point: nothing after it runs."""


def kill() -> None:
    raise Killed


def fill(broker: MemoryBroker, topic: str = "in") -> None:
    for index in range(RECORDS):
        broker.append(topic, str(index).encode(), key=b"k%d" % (index % 5))


def done(broker: MemoryBroker) -> int:
    return sum(broker.committed_offsets("app").values())


def doubled_or_lost(records: list[ConsumedRecord], expected: int = RECORDS) -> list[str]:
    found = Counter(int(record.value or b"-1") for record in records)
    return [f"{index} came {found[index]} times" for index in range(expected) if found[index] != 1]


def miscounted(broker: MemoryBroker, expected: int) -> list[str]:
    counts = {record.key: int(record.value or 0) for record in broker.records("counts")}
    return [f"{key!r} counts {count}" for key, count in counts.items() if count != expected]


async def until_killed(options: StreamOptions) -> None:
    """Run a worker until the fault kills it, then leave it as SIGKILL would; its session is over."""
    agents = FunctionAgents(copy)
    loop = build_loop(options, agents)
    await loop.subscribe(["in"])
    with contextlib.suppress(Killed):
        await asyncio.wait_for(loop.run(), 5)
    broker = options.broker
    assert isinstance(broker, MemoryBroker)
    for member in list(broker.group("app").members):
        broker.group("app").leave(member)
    # What a dead process holds its kernel lets go of: its file locks.
    await loop._restoring.close()


async def to_the_end(options: StreamOptions, handler: Any = copy, topics: tuple[str, ...] = ("in",)) -> None:
    broker = options.broker
    assert isinstance(broker, MemoryBroker)
    async with working(handler, options, list(topics)) as worker:
        await worker.until(lambda: done(broker) == RECORDS * len(topics), seconds=10)


# Offsets outside the transaction; the fault is a kill right after the commit.


def offsets_outside(patch: Patch) -> None:
    async def commit(
        self: KafkaTransaction, unit: KafkaUnit, offsets: Mapping[TopicPartition, int], metadata: GroupMetadata
    ) -> None:
        unit.send_changelog()
        unit.begin()
        assert self._producer is not None
        await self._in_thread(self._producer.commit, {}, None)
        group = self._broker.group(metadata.group)  # type: ignore[attr-defined]
        group.offsets.update(offsets)

    patch.setattr(KafkaTransaction, "commit", commit)


def killed_after_the_commit(tmp_path: Path) -> list[str]:
    broker = memory_broker()
    fill(broker)
    broker.faults.call("commit answer", kill)

    async def main() -> None:
        await until_killed(options_for(broker))
        await to_the_end(options_for(broker))

    asyncio.run(main())
    return doubled_or_lost(broker.records("out"))


# The store written before the commit; the fault is a kill between the two.


def store_before_commit(patch: Patch) -> None:
    whole = KafkaTransaction.commit

    async def commit(self: KafkaTransaction, unit: Unit, offsets: Any, metadata: Any) -> None:
        for state in self._stores.changed():
            before = state.store.checkpoint()
            assert before is not None
            state.store.apply(state.changes, before)
        await whole(self, unit, offsets, metadata)

    patch.setattr(KafkaTransaction, "commit", commit)


def killed_before_the_commit(tmp_path: Path) -> list[str]:
    broker = memory_broker()
    fill(broker)
    broker.faults.call("commit", kill)
    options = options_for(broker, states=("counts",), state_folder=tmp_path / uuid.uuid4().hex)

    async def main() -> None:
        await until_killed(options)
        await to_the_end(options)

    asyncio.run(main())
    return miscounted(broker, RECORDS // 5)


# The overlay kept after an abort; the fault is an agent that fails once.


def overlay_kept(patch: Patch) -> None:
    patch.setattr(PartitionStores, "forget", lambda _self: None)


def an_agent_that_fails_once(tmp_path: Path) -> list[str]:
    broker = memory_broker()
    fill(broker)
    failed = False

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal failed
        await copy(unit, groups)
        if not failed:
            failed = True
            raise ValueError("once")

    asyncio.run(to_the_end(options_for(broker, states=("counts",)), handler))
    return miscounted(broker, RECORDS // 5)


# The overlay dropped after an ambiguous commit, without catching up; the fault is a commit whose answer is lost.


def no_catch_up_after_ambiguity(patch: Patch) -> None:
    whole = UnitLoop._start_over

    async def start_over(self: UnitLoop, work: Any = None, *, recover: bool) -> None:
        await whole(self, work, recover=False)
        if recover:
            self._started = False

    patch.setattr(UnitLoop, "_start_over", start_over)


def a_lost_answer(tmp_path: Path) -> list[str]:
    broker = memory_broker()
    fill(broker)
    broker.faults.order("commit answer", OutcomeUnknown("no answer"))
    asyncio.run(to_the_end(options_for(broker, states=("counts",))))
    return miscounted(broker, RECORDS // 5) + doubled_or_lost(broker.records("out"))


# Catch-up that stops at the last stable offset; the fault is a predecessor whose changelog is not marked yet.


def catch_up_to_last_stable(patch: Patch) -> None:
    whole = changelog.bounds_of

    def bounds_of(broker: Broker, changelog: TopicPartition) -> Bounds:
        assert isinstance(broker, MemoryBroker)
        bounds = whole(broker, changelog)
        return Bounds(
            bounds.topic_id, bounds.begin, broker.log_of(changelog).last_stable, bounds.delete_retention_milliseconds
        )

    patch.setattr(changelog, "bounds_of", bounds_of)


def a_marker_that_comes_late(tmp_path: Path) -> list[str]:
    broker = memory_broker(partitions=1)
    fill(broker)
    predecessor = broker.producer("predecessor")
    predecessor.start()
    predecessor.begin()
    for key in range(5):
        predecessor.produce("counts", b"2", key=b"k%d" % key, partition=0)
    # The coordinator writes markers partition by partition: that of the offsets has come, that of the changelog not.
    broker.group("app").offsets[TopicPartition("in", 0)] = 10

    async def mark() -> None:
        await asyncio.sleep(0.4)
        await asyncio.to_thread(predecessor.commit, {}, None)

    async def main() -> None:
        marking = asyncio.create_task(mark())
        await to_the_end(options_for(broker, states=("counts",)))
        await marking

    asyncio.run(main())
    last: dict[bytes | None, int] = {}
    for record in broker.records("counts"):
        last[record.key] = max(int(record.value or 0), last.get(record.key, 0))
    return [f"{key!r} counts {count}" for key, count in last.items() if count != RECORDS // 5]


# Waiting for the world inside an open unit; the fault is a world that is away for a while.


def wait_inside(patch: Patch) -> None:
    whole = UnitLoop._handle

    async def handle(self: UnitLoop, unit: Unit, work: Work) -> None:
        while True:
            try:
                await whole(self, unit, work)
                return
            except AgentFailed as failure:
                if not isinstance(failure.cause, WorldError):
                    raise
                await asyncio.sleep(0.05)

    patch.setattr(UnitLoop, "_handle", handle)


def a_world_that_is_away(tmp_path: Path) -> list[str]:
    broker = memory_broker()
    fill(broker)
    away, working_now, wrong = True, False, []

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal working_now
        working_now = True
        try:
            await copy(unit, groups)
            if away:
                raise WorldError("away")
        finally:
            working_now = False

    async def main() -> None:
        nonlocal away
        async with working(handler, options_for(broker), ["in"]) as worker:
            held = 0
            for _ in range(60):
                await asyncio.sleep(0.01)
                held += bool(broker.open_transactions()) and not working_now
            if held > 20:
                wrong.append("a transaction stayed open while the world was away: readers of its topics stood still")
            away = False
            with contextlib.suppress(TimeoutError):
                await worker.until(lambda: done(broker) == RECORDS)

    asyncio.run(main())
    return wrong


# A dead letter outside the unit of work; the fault is a unit that is aborted after it.


def dead_letter_aside(patch: Patch) -> None:
    def send_dead(self: KafkaUnit, record: ConsumedRecord, letter: Any) -> None:
        producer = memory.producer("aside")
        producer.start()
        producer.begin()
        producer.produce(f"{record.topic}.dead", record.value, key=record.key)
        producer.commit({}, None)

    patch.setattr(KafkaUnit, "_send_dead", send_dead)


memory = memory_broker()


def an_abort_after_the_dead_letter(tmp_path: Path) -> list[str]:
    global memory
    broker = memory = memory_broker(partitions=1)
    fill(broker)
    ordered = False

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal ordered
        for records in groups.values():
            for record in records:
                if record.value == b"0":
                    if not ordered:
                        ordered = True
                        broker.faults.order("send_offsets", TransactionAborted("no"))
                    raise RecordFailed(record, PeerError("bad"))
        await copy(unit, groups)

    asyncio.run(to_the_end(options_for(broker), handler))
    dead = len(broker.records("in.dead"))
    return [] if dead == 1 else [f"{dead} dead letters of one record"]


# Round-robin assignment; the fault is a second worker.


def round_robin(patch: Patch) -> None:
    def assign(
        members: Mapping[str, frozenset[str]], counts: Mapping[str, int]
    ) -> dict[str, frozenset[TopicPartition]]:
        owned: dict[str, set[TopicPartition]] = {member: set() for member in members}
        places = [TopicPartition(topic, number) for topic in sorted(counts) for number in range(counts[topic])]
        for index, place in enumerate(places):
            owned[sorted(members)[index % len(members)]].add(place)
        return {member: frozenset(places) for member, places in owned.items()}

    patch.setattr(MemoryBroker, "assignor_for_tests", staticmethod(assign), raising=False)


def a_second_worker(tmp_path: Path) -> list[str]:
    broker = memory_broker(partitions=3)
    for topic in ("also", "also.dead"):
        broker.create_topic(topic, 3)
    assignor = getattr(MemoryBroker, "assignor_for_tests", None)
    if assignor is not None:
        broker.group("app").assignor = assignor

    async def main() -> None:
        options = options_for(broker, states=("counts",))
        async with (
            working(copy, options, ["in", "also"]) as one,
            working(copy, options_for(broker, states=("counts",), slot="b"), ["in", "also"]) as two,
        ):
            await one.until(lambda: len(one.agents.owned) + len(two.agents.owned) == 6 and bool(two.agents.owned))
            fill(broker)
            fill(broker, "also")
            with contextlib.suppress(TimeoutError):
                await one.until(lambda: done(broker) == 2 * RECORDS, seconds=5)

    asyncio.run(main())
    return miscounted(broker, 2 * RECORDS // 5)


ON_MEMORY = {
    "offsets outside the transaction": (offsets_outside, killed_after_the_commit),
    "store written before the commit": (store_before_commit, killed_before_the_commit),
    "overlay kept after an abort": (overlay_kept, an_agent_that_fails_once),
    "overlay dropped after an ambiguous commit": (no_catch_up_after_ambiguity, a_lost_answer),
    "catch-up to the last stable offset": (catch_up_to_last_stable, a_marker_that_comes_late),
    "waiting for a dependency inside a unit": (wait_inside, a_world_that_is_away),
    "dead letter outside the unit": (dead_letter_aside, an_abort_after_the_dead_letter),
    "round-robin assignment": (round_robin, a_second_worker),
}


@pytest.mark.parametrize("name", ON_MEMORY)
def test_a_breakage_is_caught_by_its_fault(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    """The fault does no harm to the engine as it is, and shows the breakage."""
    breakage, scenario = ON_MEMORY[name]
    assert scenario(tmp_path) == []
    breakage(monkeypatch)
    assert scenario(tmp_path) != []


# Group metadata; on a real broker, which takes a non-member's offsets without checking them. The fault is a worker
# that is frozen in a batch for longer than its session, before it has sent anything, while another one takes over:
# no transaction is open yet that would be ended in the meantime, so the generation alone keeps its commit out.

FREEZABLE = StreamSettings(
    batch_records_max=50,
    batch_seconds_max=60.0,
    transaction_timeout_seconds=30.0,
    session_timeout_seconds=6.0,
    poll_interval_seconds_max=90.0,
)


def a_zombie_commits_late(servers: str, folder: Path, breakage: str = "") -> list[str]:
    cluster = KafkaCluster(servers, FREEZABLE)
    topic, out = cluster.topic(1), cluster.topic(1)
    cluster.topic(1, name=f"{topic}.dead")
    application = f"zombie-{topic}"
    producer = RdProducer({"bootstrap.servers": servers, "log_level": 2})
    for index in range(20):
        producer.produce(topic, b"%d" % index)
    producer.flush()
    place, go_on = TopicPartition(topic, 0), folder / f"{topic}.go-on"
    told = {"servers": servers, "application": application, "in": topic, "out": out, "slot": "a"}
    zombie = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.zombie", json.dumps({**told, "go_on": str(go_on), "breakage": breakage})],
        stdout=subprocess.PIPE,
    )
    assert zombie.stdout is not None
    try:
        while zombie.stdout.readline().strip() != b"handling":
            assert zombie.poll() is None, "the worker ended before it had a batch"
        zombie.send_signal(signal.SIGSTOP)

        def wake() -> None:
            go_on.touch()
            zombie.send_signal(signal.SIGCONT)

        asyncio.run(an_heir(cluster, application, topic, out, place, wake))
    finally:
        zombie.kill()
        zombie.wait()
        zombie.stdout.close()
    return doubled_or_lost(committed_records(cluster, TopicPartition(out, 0)), 20)


async def an_heir(
    cluster: KafkaCluster, application: str, topic: str, out: str, place: TopicPartition, wake: Callable[[], None]
) -> None:
    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                unit.send(out, record.value)

    def committed() -> int:
        member = cluster.broker.member(application, client_id="look")
        try:
            return member.committed([place])[place] or 0
        finally:
            member.close()

    options = options_for(cluster.broker, settings=FREEZABLE, application=application, slot="b")
    async with working(handler, options, [topic]), asyncio.timeout(90):
        while await asyncio.to_thread(committed) < 20:
            await asyncio.sleep(0.3)
        # Stays while the zombie wakes up: a group that is empty takes anybody's offsets.
        wake()
        await asyncio.sleep(10)


def committed_records(cluster: KafkaCluster, place: TopicPartition) -> list[ConsumedRecord]:
    end = cluster.broker.end_offsets([place])[place]
    reader, reached, deadline = cluster.broker.reader(place, 0), 0, time.monotonic() + 40
    records: list[ConsumedRecord] = []
    while reached < end:
        assert time.monotonic() < deadline
        further, reached = reader.poll(0.2)
        records += further
    reader.close()
    return records


def metadata_dropped(patch: Patch) -> None:
    whole = KafkaProducer.commit

    def commit(self: KafkaProducer, offsets: Mapping[TopicPartition, int], metadata: GroupMetadata, *rest: Any) -> None:
        nobody = b"CGMDv2:\xff\xff\xff\xff" + metadata.group.encode() + b"\x00\x00\x01"
        whole(self, offsets, GroupMetadata(metadata.group, "nobody", 0, nobody), *rest)

    patch.setattr(KafkaProducer, "commit", commit)
    patch.setattr(GroupMetadata, "is_member", property(lambda _self: True))


def metadata_taken_at_commit(patch: Patch) -> None:
    whole = UnitLoop._commit

    async def commit(self: UnitLoop, unit: Unit, work: Work) -> None:
        member = self._member._member
        assert isinstance(member, kafka.KafkaMember)
        # Alone it does no harm, since only polling brings a new generation: so here polling goes on beside the work,
        # as it does in workers that have a thread for it.
        for _ in range(40):
            await self.in_thread(member.poll, 1, 0.1)
        self._metadata = kafka.read_group_metadata(member._consumer.consumer_group_metadata())
        await whole(self, unit, work)

    patch.setattr(UnitLoop, "_commit", commit)
    patch.setattr(GroupMetadata, "is_member", property(lambda _self: True))


@pytest.mark.crash
def test_group_metadata_keeps_a_zombie_out(stack: RunningStack, tmp_path: Path) -> None:
    """With the batch's own metadata the zombie's commit is refused; with none, or the newest, it is taken."""
    servers = stack.settings.kafka.bootstrap_servers
    assert a_zombie_commits_late(servers, tmp_path) == []
    assert a_zombie_commits_late(servers, tmp_path, "metadata_dropped") != []
    assert a_zombie_commits_late(servers, tmp_path, "metadata_taken_at_commit") != []


# The default partitioner; the fault is any keyed record.


def test_the_default_partitioner_separates_keys(stack: RunningStack, monkeypatch: Patch) -> None:
    """librdkafka's own puts a key into another partition than Java's clients."""
    cluster = KafkaCluster(stack.settings.kafka.bootstrap_servers)

    def misplaced() -> int:
        topic = cluster.topic(4)
        producer = cluster.broker.producer(f"p-{topic}")
        producer.start()
        producer.begin()
        for index in range(200):
            producer.produce(topic, b"", key=b"order-%d" % index)
        producer.commit({}, None)
        places = [TopicPartition(topic, number) for number in range(4)]
        wrong = 0
        for place, end in cluster.broker.end_offsets(places).items():
            reader, reached = cluster.broker.reader(place, 0), 0
            while reached < end:
                records, reached = reader.poll(0.2)
                wrong += sum(partition_of(record.key or b"", 4) != place.partition for record in records)
            reader.close()
        return wrong

    assert misplaced() == 0
    whole = producer_config

    def config(*arguments: Any) -> dict[str, Any]:
        return {name: value for name, value in whole(*arguments).items() if name != "partitioner"}

    monkeypatch.setattr(kafka, "producer_config", config)
    assert misplaced() > 0


# Database offsets without their lock and comparison; the fault is a ghost that wakes up behind its heir.


def a_ghost_of_the_database(url: str) -> list[str]:
    broker = memory_broker(partitions=1)
    fill(broker)
    moved = False
    application = f"app-{uuid.uuid4().hex[:6]}"

    def apply(connection: psycopg.Connection[Any], records: list[ConsumedRecord]) -> None:
        for record in records:
            connection.execute("INSERT INTO effects VALUES (%s, %s)", (application, int(record.value or b"-1")))

    async def handler(unit: DatabaseUnit, groups: Groups) -> None:
        nonlocal moved
        if not moved:
            moved = True
            with psycopg.connect(url) as heir:
                heir.execute("INSERT INTO effects SELECT %s, n FROM generate_series(0, 4) AS n", (application,))
                heir.execute("UPDATE towpath_offsets SET next_offset = 5 WHERE application = %s", (application,))
        for records in groups.values():
            await unit.run(lambda connection, records=records: apply(connection, records))  # type: ignore[misc]

    def found() -> list[int]:
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT value FROM effects WHERE application = %s", (application,)).fetchall()
        return [value for (value,) in rows]

    async def main() -> None:
        options = options_for(
            broker,
            application=application,
            unit_of_work="database",
            database=DatabaseOptions(url=url, connection_options={}),
        )
        async with working(handler, options, ["in"]) as worker:
            await worker.until(lambda: set(found()) == set(range(RECORDS)), seconds=15)

    asyncio.run(main())
    counts = Counter(found())
    return [f"{value} was applied {count} times" for value, count in counts.items() if count != 1]


def no_lock_no_comparison(patch: Patch) -> None:
    def begun(self: DatabaseTransaction, unit: DatabaseUnit) -> psycopg.Connection[Any]:
        unit.begun, connection = True, self._connected()
        ((unit.transaction,),) = connection.execute("SELECT pg_current_xact_id()::text").fetchall()
        return connection

    patch.setattr(DatabaseTransaction, "_begun", begun)
    compared = " AND kept.next_offset = given.expected"
    assert compared in database_form._ADVANCE
    patch.setattr(database_form, "_ADVANCE", database_form._ADVANCE.replace(compared, ""))


def test_database_offsets_keep_a_ghost_out(crash_database: str, monkeypatch: Patch) -> None:
    """Locked and compared they stop it; merely written they do not."""
    with psycopg.connect(crash_database) as connection:
        connection.execute("CREATE TABLE effects (application text, value int)")
    assert a_ghost_of_the_database(crash_database) == []
    no_lock_no_comparison(monkeypatch)
    assert a_ghost_of_the_database(crash_database) != []
