"""A partition whose position its log does not have is held, alone, until a person has decided."""

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from tests.unit.stream.support import copy, memory_broker, options_for, values, working
from towpath.clock import SystemClock, epoch_milliseconds
from towpath.errors import ConfigurationError, RefusedError
from towpath.positions.decision import decide
from towpath.positions.group import accept_in_group, group_standings
from towpath.positions.rewriting import give_up, plan_rewriting, rewrite
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.position import HoldKind, PartitionHeld, judge, read_held, write_held, write_lost_tail
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, idle
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.state.partition_state import Checkpoint, MemoryStore

PLACE = TopicPartition("in", 0)
OTHER = TopicPartition("in", 1)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is held tried again at once."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)


def put(broker: MemoryBroker, place: TopicPartition, *texts: str) -> None:
    for text in texts:
        broker.append(place.topic, text.encode(), key=b"k", partition=place.partition)


def committed(broker: MemoryBroker, place: TopicPartition = PLACE) -> int:
    return broker.committed_offsets("app").get(place, 0)


def holding(statuses: list[WorkerStatus], kind: HoldKind) -> Callable[[], bool]:
    """Return whether the last status tells of a hold of this kind."""
    return lambda: bool(statuses) and any(held.kind == kind for held in statuses[-1].held)


def cut_noted(broker: MemoryBroker) -> Callable[[], bool]:
    """Return whether it is noted where the log was cut, as the cluster has told it: who decides before is too early."""
    return lambda: "lost tail at " in broker.group("app").notes.get(PLACE, "")


def noted(broker: MemoryBroker, place: TopicPartition = PLACE) -> PartitionHeld | None:
    """Return what whoever looks at the group sees of a hold."""
    return read_held(broker.group("app").notes.get(place, ""))


def gauge(kind: HoldKind, place: TopicPartition = PLACE) -> float:
    """Return `towpath_partition_held` as a scrape would."""
    labels = {"application": "app", "topic": place.topic, "partition": str(place.partition), "kind": kind.value}
    return REGISTRY.get_sample_value("towpath_partition_held", labels) or 0.0


def expired_total() -> float:
    """Return how many records were passed over, as a scrape would."""
    labels = {"application": "app", "topic": PLACE.topic}
    return REGISTRY.get_sample_value("towpath_records_expired_total", labels) or 0.0


def accept(broker: MemoryBroker, place: TopicPartition, offset: int) -> None:
    """Decide as `towpath positions accept` does."""
    with broker.changed:
        broker.group("app").commit({place: offset})


@pytest.mark.parametrize(
    ("stored", "kind", "words"),
    [
        (10, None, ""),
        (20, None, ""),
        (21, HoldKind.BEYOND_END, "it has lost records that had been applied"),
        (9, HoldKind.EXPIRED, "up to 1 record expired"),
    ],
)
def test_a_position_is_judged_against_its_log(stored: int, kind: HoldKind | None, words: str) -> None:
    """Both ends of the log are positions; beyond either, records were lost, and the command that goes on is named."""
    error = judge("app", PLACE, stored, 10, 20)
    assert (None if error is None else error.kind) is kind
    if error is not None:
        assert words in error.cause
        assert (error.next_step or "").startswith("towpath positions accept app in 0 ")
        assert " --from " in (error.next_step or "")


@pytest.mark.parametrize("states", [(), ("counts",)], ids=["without state", "with state"])
def test_a_log_that_lost_its_tail_is_not_read_on(states: tuple[str, ...]) -> None:
    """A stored offset beyond the end is held: what is written at the lost offsets is neither skipped nor taken.

    Before, the loop went on once the log had grown past the offset, and skipped what had been written meanwhile.
    """
    broker = memory_broker()
    put(broker, PLACE, *(f"v{n}" for n in range(8)))
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=states, on_status=statuses.append)

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 8)
        broker.log_of(PLACE).truncate(5)
        async with working(copy, options, ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            await worker.until(cut_noted(broker))
            put(broker, PLACE, *(f"new{n}" for n in range(5, 10)))
            put(broker, OTHER, "other")
            await worker.until(lambda: committed(broker, OTHER) == 1)
            assert committed(broker) == 8
            assert not statuses[-1].is_ready
            accept(broker, PLACE, 5)
            await worker.until(lambda: committed(broker) == 10)
            await worker.until(lambda: statuses[-1].is_ready)

    asyncio.run(main())
    out = values(broker.records("out"))
    assert sorted(out) == sorted([*(f"v{n}" for n in range(8)), *(f"new{n}" for n in range(5, 10)), "other"])


def test_a_log_that_loses_its_tail_under_a_running_worker_is_noticed() -> None:
    """The member is told that its next offset is not there; nothing is taken twice, nothing skipped."""
    broker = memory_broker(partitions=1)
    put(broker, PLACE, *(f"v{n}" for n in range(8)))
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 8)
            with broker.changed:
                broker.log_of(PLACE).truncate(5)
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            put(broker, PLACE, *(f"new{n}" for n in range(5, 10)))
            # The log has grown past the stored offset meanwhile: by itself, the hold is not forgotten.
            await asyncio.sleep(0.3)
            assert values(broker.records("out")) == [f"v{n}" for n in range(8)]
        statuses.clear()
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            # Nor by another worker, for which the offset lies well within the log.
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            assert "--from 5 " in (statuses[-1].held[0].next_step or "")
            accept(broker, PLACE, 5)
            await worker.until(lambda: committed(broker) == 10)

    asyncio.run(main())
    assert values(broker.records("out"))[8:] == [f"new{n}" for n in range(5, 10)]


@pytest.mark.parametrize("end", [12, 7], ids=["past the offset", "short of it"])
def test_a_log_that_lost_its_tail_and_grew_again_unseen_is_not_read_on(end: int) -> None:
    """Nobody ran meanwhile. The leader's epoch tells where it was cut, so that what it got since is not passed over."""
    broker = memory_broker()
    put(broker, PLACE, *(f"v{n}" for n in range(8)))
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 8)
        broker.log_of(PLACE).truncate(5)
        put(broker, PLACE, *(f"new{n}" for n in range(5, end)))
        put(broker, OTHER, "other")
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            await worker.until(cut_noted(broker))
            assert "--from 5 " in (statuses[-1].held[0].next_step or "")
            await worker.until(lambda: committed(broker, OTHER) == 1)
            assert committed(broker) == 8
            accept(broker, PLACE, 5)
            await worker.until(lambda: committed(broker) == end)

    asyncio.run(main())
    assert sorted(values(broker.records("out"))) == sorted(
        [*(f"v{n}" for n in range(8)), *(f"new{n}" for n in range(5, end)), "other"]
    )


def test_a_log_under_a_leader_it_never_had_is_another_one() -> None:
    """A backup that was made before that leader's time: where to go on, only a person can say."""
    broker = memory_broker()
    put(broker, PLACE, *(f"v{n}" for n in range(8)))
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 8)
        broker.group("app").epochs[PLACE] = 7
        put(broker, PLACE, "v8")
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.RESTORED))
        statuses.clear()
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.RESTORED))
            accept(broker, PLACE, 8)
            await worker.until(lambda: committed(broker) == 9)

    asyncio.run(main())
    assert values(broker.records("out")) == [f"v{n}" for n in range(9)]


@pytest.mark.parametrize("skip", [False, True])
def test_records_that_expired_unread_hold_their_partition_unless_a_setting_accepts_the_loss(skip: bool) -> None:
    """The worker says so and reads nothing; with `expired_records = "skip"` it goes on from the oldest record.

    A metric tells either: the partition is held until a person has decided, or so many records were passed over.
    """
    broker = memory_broker()
    put(broker, PLACE, "v0", "v1")
    statuses: list[WorkerStatus] = []
    options = options_for(broker, on_status=statuses.append)
    settings = options.settings.model_copy(update={"expired_records": "skip" if skip else "hold"})
    options = options_for(broker, on_status=statuses.append, settings=settings)
    counted = expired_total()

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 2)
        put(broker, PLACE, "v2", "v3", "v4")
        broker.log_of(PLACE).expire(4)
        async with working(copy, options, ["in"]) as worker:
            if not skip:
                await worker.until(holding(statuses, HoldKind.EXPIRED))
                assert statuses[-1].held[0].reason.endswith("up to 2 records expired before they were read")
                assert gauge(HoldKind.EXPIRED) == 1
                accept(broker, PLACE, 4)
            await worker.until(lambda: committed(broker) == 5)
            assert gauge(HoldKind.EXPIRED) == 0

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1", "v4"]
    assert expired_total() - counted == (2 if skip else 0)


@pytest.mark.parametrize("leader", ["the same", "another"])
def test_what_was_passed_over_is_committed_though_nothing_comes_after_it(
    monkeypatch: pytest.MonkeyPatch, leader: str
) -> None:
    """Else whoever looks at the group would find expired records for ever, and each start would count them again."""
    monkeypatch.setattr(idle, "IDLE_ADVANCE_SECONDS", 0.05)
    monkeypatch.setattr(idle, "AGAIN_SECONDS", 0.05)
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0", "v1")
    options = options_for(broker)
    options = options_for(broker, settings=options.settings.model_copy(update={"expired_records": "skip"}))
    counted = expired_total()

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 2)
        put(broker, PLACE, "v2", "v3")
        if leader == "another":
            broker.log_of(PLACE).truncate(4)
        broker.log_of(PLACE).expire(4)
        for _ in range(2):
            async with working(copy, options, ["in"]) as worker:
                await worker.until(lambda: committed(broker) == 4)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1"]
    assert expired_total() - counted == 2


@pytest.mark.parametrize("words", ["in[0] is held. ", 'in; "0" held: {}\n; ü', ";", "\N{CANOE}"])
@pytest.mark.parametrize("kind", HoldKind)
def test_a_hold_is_noted_beside_what_else_is_noted(kind: HoldKind, words: str) -> None:
    """Whatever its words are: what separates notes may stand in them, and Kafka keeps 4,096 bytes."""
    error = PartitionHeld(kind, words * 400, kept="all; of it", next_step=None)
    others = write_lost_tail(7, "changelogs a@1 b@2")
    note = write_held(error, write_held(error, others))
    assert len(note.encode()) < 4_096
    found = read_held(note)
    assert found is not None
    assert (found.kind, found.kept, found.next_step) == (kind, "all; of it", None)
    assert error.cause.startswith(found.cause)
    assert write_held(None, note) == others
    assert read_held(others) is None
    assert read_held("held {}; held nonsense") is None


def test_a_changelog_that_was_made_anew_does_not_clear_the_store() -> None:
    """The store is the last copy: its partition number is held, nothing is applied, nothing removed."""
    broker = memory_broker(partitions=1)
    store = MemoryStore()
    put(broker, PLACE, "v0", "v1")
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        options = options_for(broker, states=("counts",), on_status=statuses.append)
        async with working(copy, options, ["in"], open_store=lambda _: store) as worker:
            await worker.until(lambda: committed(broker) == 2)
        broker.create_topic("counts", 1)
        put(broker, PLACE, "v2")
        async with working(copy, options, ["in"], open_store=lambda _: store) as worker:
            await worker.until(holding(statuses, HoldKind.CHANGELOG))
            (held,) = statuses[-1].held
            assert "made anew" in held.reason
            assert "towpath positions rewrite app counts 0 --slot a" in (held.next_step or "")
            await asyncio.sleep(0.2)
            assert committed(broker) == 2

    asyncio.run(main())
    assert store.get(b"k") == b"2"


@pytest.mark.parametrize("written_back", [True, False], ids=["written back", "given up"])
def test_a_changelog_that_lost_its_tail_does_not_clear_the_store(*, written_back: bool) -> None:
    """The store has what the changelog lost: held, its number alone, until it is written back, or given up.

    Before, the store was taken for a stranger and rebuilt from what the changelog still has.
    """
    broker = memory_broker()
    changelog = TopicPartition("counts", 0)
    stores = {changelog: MemoryStore(), TopicPartition("counts", 1): MemoryStore()}
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=("counts",), on_status=statuses.append)

    async def main() -> None:
        async with working(copy, options, ["in"], open_store=stores.__getitem__) as worker:
            for unit in range(3):
                put(broker, PLACE, f"v{unit}")
                await worker.until(lambda: committed(broker) == broker.log_of(PLACE).end)
        broker.log_of(changelog).truncate(2)  # the first unit's record, and its marker
        put(broker, PLACE, "v3")
        put(broker, OTHER, "other")
        async with working(copy, options, ["in"], open_store=stores.__getitem__) as worker:
            await worker.until(holding(statuses, HoldKind.CHANGELOG))
            (held,) = statuses[-1].held
            assert held.partition == str(PLACE)
            assert "the changelog ends at 2: it has lost its tail" in held.reason
            assert "towpath positions rewrite app counts 0 --slot a --reason REASON" in (held.next_step or "")
            assert "towpath positions accept app counts 0 --reason REASON --slot a" in (held.next_step or "")
            await worker.until(lambda: committed(broker, OTHER) == 1)
            await worker.until(lambda: noted(broker) is not None)
            assert committed(broker) == 3
            assert stores[changelog].get(b"k") == b"3"
        # Nobody looks into that worker's memory: the group's own offsets tell, also once it is gone.
        (standing,) = group_standings(broker, "app", [PLACE])
        assert standing.held is not None
        assert (standing.held.kind, standing.stored) == (HoldKind.CHANGELOG, 3)
        assert standing.held.cause == held.reason
        with pytest.raises(RefusedError, match="no offset helps app"):
            decide(standing, None, actor="ada", reason="why not")
        async with working(copy, options, ["in"], open_store=stores.__getitem__) as worker:
            await worker.until(holding(statuses, HoldKind.CHANGELOG))
            if written_back:
                plan = plan_rewriting(broker, changelog, stores[changelog])
                rewrite(broker, plan, stores[changelog], SystemClock(), application="app", decision=b"{}")
            else:
                give_up(broker, changelog, stores[changelog], SystemClock(), application="app", decision=b"{}")
            await worker.until(lambda: committed(broker) == 4)
            await worker.until(lambda: statuses[-1].is_ready)
            await worker.until(lambda: noted(broker) is None)

    asyncio.run(main())
    assert stores[changelog].get(b"k") == (b"4" if written_back else b"2")
    assert stores[TopicPartition("counts", 1)].get(b"k") == b"1"


def test_a_changelog_that_grew_again_without_its_lost_tail_is_not_followed_further() -> None:
    """Kafka was restored behind a store, and another worker went on with what there was before that store came back.

    Before, the store read on from its checkpoint, and had what nobody else has, in silence.
    """
    broker = memory_broker(partitions=1)
    changelog = TopicPartition("counts", 0)
    stores = [MemoryStore()]
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=("counts",), on_status=statuses.append)

    async def main() -> None:
        async def work(*texts: str) -> None:
            async with working(copy, options, ["in"], open_store=lambda _: stores[-1]) as worker:
                for text in texts:
                    put(broker, PLACE, text)
                    await worker.until(lambda: committed(broker) == broker.log_of(PLACE).end)

        await work("v0")
        notes = dict(broker.group("app").notes)
        await work("v1", "v2")
        for place, end in ((PLACE, 1), (changelog, 2)):  # the first unit, with its marker
            broker.log_of(place).truncate(end)
        with broker.changed:  # its offsets lie in the same Kafka
            broker.group("app").commit({PLACE: 1}, notes=notes)
        stores.append(MemoryStore())
        put(broker, PLACE, "w0", "w1")  # one unit: the counts beside the offsets are others than before
        await work("w2", "w3")
        assert stores[1].get(b"k") == b"5"
        put(broker, PLACE, "w4")
        async with working(copy, options, ["in"], open_store=lambda _: stores[0]) as worker:
            await worker.until(holding(statuses, HoldKind.CHANGELOG))
            (held,) = statuses[-1].held
            assert "has lost its tail and grown again" in held.reason
            assert "towpath positions accept app counts 0 --reason REASON --slot a" in (held.next_step or "")
            assert "positions rewrite" not in (held.next_step or "")
            await asyncio.sleep(0.2)
            assert committed(broker) == 5
            assert stores[0].get(b"k") == b"3"
            with pytest.raises(RefusedError, match="another worker has begun with it"):
                plan_rewriting(broker, changelog, stores[0])
            give_up(broker, changelog, stores[0], SystemClock(), application="app", decision=b"{}")
            await worker.until(lambda: committed(broker) == 6)

    asyncio.run(main())
    assert stores[0].get(b"k") == b"6"


def test_a_changelog_that_was_made_anew_is_told_where_no_store_is_left() -> None:
    """The group's offsets say into which changelog the state went; a person's decision stands in the new one."""
    broker = memory_broker(partitions=1)
    put(broker, PLACE, "v0", "v1")
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=("counts",), on_status=statuses.append)

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 2)
        broker.create_topic("counts", 1)
        put(broker, PLACE, "v2")
        async with working(copy, options, ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.CHANGELOG))
            (held,) = statuses[-1].held
            assert "this worker has no store of the old one" in held.reason
            assert "towpath positions accept app counts 0 --reason REASON --slot a" in (held.next_step or "")
            await asyncio.sleep(0.2)
            assert committed(broker) == 2
            place = TopicPartition("counts", 0)
            give_up(broker, place, MemoryStore(), SystemClock(), application="app", decision=b"{}")
            await worker.until(lambda: committed(broker) == 3)
        put(broker, PLACE, "v3")
        async with working(copy, options, ["in"]) as worker:  # which has no store either
            await worker.until(lambda: committed(broker) == 4)

    asyncio.run(main())


@pytest.mark.parametrize("left", [None, 1], ids=["no store", "a store that is behind"])
def test_a_changelog_that_lost_its_tail_is_told_where_no_store_has_it(left: int | None) -> None:
    """The group's offsets say how far the state went; before, it was rebuilt from what was left, in silence."""
    broker = memory_broker(partitions=1)
    changelog = TopicPartition("counts", 0)
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=("counts",), on_status=statuses.append)
    stores = [MemoryStore()]

    async def main() -> None:
        async with working(copy, options, ["in"], open_store=lambda _: stores[-1]) as worker:
            for unit in range(3):
                put(broker, PLACE, f"v{unit}")
                await worker.until(lambda: committed(broker) == broker.log_of(PLACE).end)
        broker.log_of(changelog).truncate(4)  # two units' records, each with its marker
        stores.append(MemoryStore())
        if left is not None:
            (topic_id,) = broker.topic_ids(["counts"]).values()
            stores[-1].apply({b"k": b"1"}, Checkpoint(2, topic_id, epoch_milliseconds(SystemClock())))
        put(broker, PLACE, "v3")
        async with working(copy, options, ["in"], open_store=lambda _: stores[-1]) as worker:
            await worker.until(holding(statuses, HoldKind.CHANGELOG))
            (held,) = statuses[-1].held
            assert "the state went into it up to 5 at least, and it ends at 4: it has lost its tail" in held.reason
            assert "towpath positions accept app counts 0 --reason REASON --slot a" in (held.next_step or "")
            await asyncio.sleep(0.2)
            assert committed(broker) == 3
            give_up(broker, changelog, stores[-1], SystemClock(), application="app", decision=b"{}")
            await worker.until(lambda: committed(broker) == 4)
        put(broker, PLACE, "v4")
        stores.append(MemoryStore())
        async with working(copy, options, ["in"], open_store=lambda _: stores[-1]) as worker:  # none again
            await worker.until(lambda: committed(broker) == 5)

    asyncio.run(main())
    assert stores[-1].get(b"k") == b"4"


def test_a_changelog_that_lost_its_tail_with_the_input_is_told_after_the_inputs_hold() -> None:
    """A broker's power cut takes both: what is noted of the one does not displace what was noted of the other."""
    broker = memory_broker(partitions=1)
    changelog = TopicPartition("counts", 0)
    statuses: list[WorkerStatus] = []
    options = options_for(broker, states=("counts",), on_status=statuses.append)

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            for unit in range(3):
                put(broker, PLACE, f"v{unit}")
                await worker.until(lambda: committed(broker) == broker.log_of(PLACE).end)
        broker.log_of(PLACE).truncate(1)
        broker.log_of(changelog).truncate(2)
        async with working(copy, options, ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            await worker.until(cut_noted(broker))
        async with working(copy, options, ["in"]) as worker:  # found by the note alone
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            (standing,) = group_standings(broker, "app", [PLACE])
            decision = decide(standing, None, actor="ada", reason="a power cut")
            accept_in_group(broker, decision, SystemClock())
            await worker.until(holding(statuses, HoldKind.CHANGELOG))
            (held,) = statuses[-1].held
            assert "the state went into it up to 5 at least, and it ends at 2" in held.reason

    asyncio.run(main())


def test_a_record_that_has_to_wait_holds_its_partition_alone() -> None:
    """What an unknown version is needed for waits; the other partitions of the worker go on, and so does it, later."""
    broker = memory_broker()
    put(broker, PLACE, "v0", "unknown", "v2")
    put(broker, OTHER, "w0")
    statuses: list[WorkerStatus] = []
    known = False

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                if record.value == b"unknown" and not known:
                    error = PartitionHeld(HoldKind.VERSION, "a version is missing", next_step="deploy it")
                    raise RecordFailed(record, error) from error
        await copy(unit, groups)

    async def main() -> None:
        nonlocal known
        options = options_for(broker, states=("counts",), on_status=statuses.append)
        async with working(handler, options, ["in"]) as worker:
            await worker.until(holding(statuses, HoldKind.VERSION))
            put(broker, OTHER, "w1", "w2")
            await worker.until(lambda: committed(broker, OTHER) == 3)
            assert committed(broker) == 1
            await worker.until(lambda: [held.partition for held in statuses[-1].held] == [str(PLACE)])
            assert str(OTHER) in statuses[-1].serving
            await worker.until(lambda: noted(broker) is not None)
            known = True
            await worker.until(lambda: committed(broker) == 3)
            await worker.until(lambda: statuses[-1].is_ready)
            await worker.until(lambda: noted(broker) is None)

    asyncio.run(main())
    assert sorted(values(broker.records("out"))) == ["unknown", "v0", "v2", "w0", "w1", "w2"]


def test_partitions_that_grow_under_a_running_worker_are_named() -> None:
    """As at start: keys would lie in other numbers than their state, so the worker ends and says which topics."""
    broker = memory_broker(partitions=2)
    put(broker, PLACE, "v0")
    options = options_for(broker, states=("counts",))

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 1)
            broker.grow_topic("in", 3)
            with pytest.raises(ConfigurationError, match="in has 3 partitions and counts has 2"):
                await worker.until(lambda: False)

    asyncio.run(main())
