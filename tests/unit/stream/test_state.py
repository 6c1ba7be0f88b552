"""State, timers and parked keys over both stores; what a damaged or stale store does."""

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.stream.support import in_transaction, memory_broker
from towpath.clock import ManualClock, epoch_milliseconds
from towpath.errors import ProgrammerError, WorldError
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import TopicPartition
from towpath.stream.state import changelog, rocks
from towpath.stream.state.changelog import (
    DECIDED,
    Bounds,
    CatchUpStopped,
    StrangeChangelog,
    bounds_of,
    catch_up,
    reason_to_hold,
    reason_to_rebuild,
)
from towpath.stream.state.parking import Parked, ParkedKeys
from towpath.stream.state.partition_state import Checkpoint, MemoryStore, State, Store
from towpath.stream.state.rocks import RocksStore, open_store
from towpath.stream.state.timers import Timers

CHANGELOG = TopicPartition("counts", 0)
MakeStore = Callable[[], Store]


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")


def at(offset: int) -> Checkpoint:
    return Checkpoint(offset, "counts-1", 1_000)


def writable(store: Store) -> State:
    state = State(CHANGELOG, store)
    state.writable = True
    return state


def test_a_store_that_is_cleared_is_as_new(store: Store) -> None:
    """Entries and checkpoint are gone, first and last ones too; what is written next is all there is."""
    store.clear()
    assert (store.checkpoint(), list(store.scan(b""))) == (None, [])
    store.apply({b"\x00k": b"0", b"a": b"1", b"\xff" * 9: b"2"}, at(3))
    store.clear()
    assert (store.checkpoint(), list(store.scan(b"")), store.get(b"\xff" * 9)) == (None, [], None)
    store.apply({b"b": b"3"}, at(1))
    assert (store.checkpoint(), list(store.scan(b""))) == (at(1), [(b"b", b"3")])


def test_a_store_that_is_cleared_stays_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let go of in between, a command that asks whether its worker lives could take it: the worker died of that."""
    store = RocksStore(tmp_path / "store")
    store.apply({b"a": b"1"}, at(3))
    taken: list[object] = []

    def take(_: object) -> None:
        with contextlib.suppress(WorldError):
            taken.append(RocksStore(tmp_path / "store"))

    monkeypatch.setattr(rocks, "remove_store", take)
    store.clear()
    take(None)
    assert taken == []
    store.apply({}, at(4))
    store.close()
    assert RocksStore(tmp_path / "store").checkpoint() == at(4)


def test_a_unit_sees_its_own_writes_and_nobody_elses(store: Store) -> None:
    """Writes, removals and scans over the store; forgotten on abort, in the store after the commit."""
    store.apply({b"a": b"1", b"b": b"2", b"c": b"3"}, at(3))
    state = writable(store)
    state.put(b"b", b"two")
    state.delete(b"c")
    state.put(b"bb", b"new")
    assert (state.get(b"a"), state.get(b"b"), state.get(b"c")) == (b"1", b"two", None)
    assert list(state.scan()) == [(b"a", b"1"), (b"b", b"two"), (b"bb", b"new")]
    assert list(state.scan(b"b")) == [(b"b", b"two"), (b"bb", b"new")]
    state.forget()
    assert list(state.scan()) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    state.put(b"d", b"4")
    state.delete(b"a")
    state.settle(at(9))
    assert list(store.scan(b"")) == [(b"b", b"2"), (b"c", b"3"), (b"d", b"4")]
    assert store.checkpoint() == at(9)


def test_a_state_equals_a_dictionary(store: Store) -> None:
    """Random puts, deletes, aborts and commits, compared with a plain dictionary after each unit."""
    seed = random.randrange(10**9)
    print("seed", seed)  # noqa: T201 - to run it again
    chance = random.Random(seed)
    truth: dict[bytes, bytes] = {}
    state = writable(store)
    for unit in range(60):
        draft = dict(truth)
        for _ in range(chance.randrange(12)):
            key = bytes([chance.randrange(97, 105)]) * chance.randrange(1, 3)
            if chance.random() < 0.3:
                state.delete(key)
                draft.pop(key, None)
            else:
                state.put(key, str(unit).encode())
                draft[key] = str(unit).encode()
        assert dict(state.scan()) == draft
        if chance.random() < 0.4:
            state.forget()
        else:
            state.settle(at(unit))
            truth = draft
        prefix = bytes([chance.randrange(97, 105)])
        assert dict(state.scan(prefix)) == {k: v for k, v in truth.items() if k.startswith(prefix)}


def test_state_changes_only_inside_a_unit_and_never_the_engines_keys(store: Store) -> None:
    """Both are a programmer's error, with the changelog's name."""
    state = State(CHANGELOG, store)
    with pytest.raises(ProgrammerError, match="only inside a unit"):
        state.put(b"a", b"1")
    state.writable = True
    with pytest.raises(ProgrammerError, match="zero byte"):
        state.put(b"\x00a", b"1")
    with pytest.raises(ProgrammerError, match="zero byte"):
        state.delete(b"\x00a")


def test_a_rocks_store_keeps_data_and_checkpoint_together(tmp_path: Path) -> None:
    """What is read after it was opened anew stands at the checkpoint that is read with it."""
    store = RocksStore(tmp_path / "store")
    store.apply({b"a": b"1"}, at(5))
    store.close()
    again = RocksStore(tmp_path / "store")
    assert (again.get(b"a"), again.checkpoint()) == (b"1", at(5))
    again.clear()
    assert (again.get(b"a"), again.checkpoint()) == (None, None)


def test_a_damaged_rocks_store_is_replaced_and_says_so(tmp_path: Path) -> None:
    """Its files are a cache of the changelog."""
    folder = tmp_path / "store"
    store = RocksStore(folder)
    store.apply({b"a": b"1"}, at(5))
    store.close()
    for path in folder.iterdir():
        if path.name.startswith(("MANIFEST", "CURRENT")):
            path.write_bytes(b"not this")
    again, damage = open_store(folder)
    assert damage is not None
    assert again.checkpoint() is None


def test_a_rocks_store_that_another_process_holds_is_left_alone(tmp_path: Path) -> None:
    """It is not damaged: two live workers were given one slot."""
    folder = tmp_path / "store"
    held = RocksStore(folder)
    with pytest.raises(WorldError, match="held by another"):
        open_store(folder)
    held.close()


BOUNDS = Bounds(topic_id="counts-1", begin=10, end=100, delete_retention_milliseconds=1_000)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (None, None),
        (Checkpoint(50, "counts-1", 5_000), None),
        (Checkpoint(100, "counts-1", 5_000), None),
        (Checkpoint(9, "counts-1", 5_000), "before the oldest record"),
        (Checkpoint(50, "counts-1", 3_999), "away for 1001 ms"),
    ],
)
def test_a_store_that_cannot_go_on_is_rebuilt_for_a_reason(checkpoint: Checkpoint | None, words: str | None) -> None:
    """Behind the oldest record, or away for longer than tombstones are kept: the changelog has it all."""
    reason = reason_to_rebuild(checkpoint, BOUNDS, 5_000)
    assert (reason is None) if words is None else (reason is not None and words in reason)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (None, None),
        (Checkpoint(100, "counts-1", 5_000), None),
        (Checkpoint(101, "counts-1", 5_000), "has lost its tail"),
        (Checkpoint(50, "counts-0", 5_000), "made anew"),
    ],
)
def test_a_store_is_not_rebuilt_from_a_changelog_that_has_less(
    checkpoint: Checkpoint | None, words: str | None
) -> None:
    """A changelog that ends before the store, or another topic of its name, does not have what the store has."""
    reason = reason_to_hold(checkpoint, BOUNDS)
    assert (reason is None) if words is None else (reason is not None and words in reason)


def caught_up(broker: MemoryBroker, store: Store) -> int:
    return catch_up(broker, CHANGELOG, store, ManualClock())


def test_catch_up_takes_what_is_new_and_removes_what_has_a_tombstone(store: Store) -> None:
    """A second catch-up takes only what came since; a store ahead of its changelog is left alone."""
    broker = memory_broker(partitions=1)
    broker.append("counts", b"1", key=b"a")
    broker.append("counts", b"2", key=b"b")
    assert caught_up(broker, store) == 2
    broker.append("counts", None, key=b"a")
    assert caught_up(broker, store) == 1
    assert list(store.scan(b"")) == [(b"b", b"2")]
    checkpoint = store.checkpoint()
    assert checkpoint is not None
    store.apply({b"z": b"only here"}, Checkpoint(99, checkpoint.topic_id, checkpoint.written_milliseconds))
    with pytest.raises(StrangeChangelog, match="lost its tail"):
        caught_up(broker, store)
    assert list(store.scan(b"")) == [(b"b", b"2"), (b"z", b"only here")]


def test_a_changelog_that_grew_again_is_told_from_the_one_that_was_followed(store: Store) -> None:
    """By what it says of the keys before the checkpoint; a store that has nothing to lose is read anew."""
    seed = int(os.environ.get("TOWPATH_TEST_SEED") or random.randrange(10**9))
    print(f"TOWPATH_TEST_SEED={seed}")  # noqa: T201 - to run it again
    chance = random.Random(seed)

    def write(broker: MemoryBroker, text: str) -> None:
        for _ in range(chance.randrange(1, 5)):
            value = None if chance.random() < 0.2 else f"{text}{chance.random()}".encode()
            broker.append("counts", value, key=b"k%d" % chance.randrange(5))

    for number in range(50):
        broker = memory_broker(partitions=1)
        store.clear()
        for _ in range(chance.randrange(1, 6)):
            write(broker, "first")
            caught_up(broker, store)  # again and again, and never strange
        checkpoint = store.checkpoint()
        assert checkpoint is not None
        cut = chance.randrange(checkpoint.offset)
        broker.log_of(CHANGELOG).truncate(cut)
        while broker.log_of(CHANGELOG).end < checkpoint.offset:
            broker.append("counts", b"other %d" % number, key=b"k%d" % chance.randrange(5))
        assert reason_to_hold(checkpoint, bounds_of(broker, CHANGELOG)) is None
        held = dict(store.scan(b""))
        if held:
            with pytest.raises(StrangeChangelog, match="grown again"):
                caught_up(broker, store)
            assert dict(store.scan(b"")) == held
            store.clear()
        caught_up(broker, store)
        other = MemoryStore()
        caught_up(broker, other)
        assert dict(store.scan(b"")) == dict(other.scan(b""))


def test_a_store_that_grew_apart_follows_a_changelog_that_a_person_decided_for(store: Store) -> None:
    """Once one worker's store was written back, or given up, another one's store is no reason to ask again."""
    broker = memory_broker(partitions=1)
    broker.append("counts", b"1", key=b"a")
    broker.append("counts", b"2", key=b"a")
    caught_up(broker, store)
    broker.log_of(CHANGELOG).truncate(1)
    broker.append("counts", b"other", key=b"a")
    broker.append("counts", b"{}", key=DECIDED + b"1")
    caught_up(broker, store)
    assert store.get(b"a") == b"other"


def test_what_somebody_else_writes_into_a_changelog_is_no_reason_to_hold_it(store: Store) -> None:
    """A worker that serves does not read its changelog: the store lacks such a record until it is read anew."""
    broker = memory_broker(partitions=1)
    broker.append("counts", b"1", key=b"a")
    caught_up(broker, store)
    broker.append("counts", b"nonsense", key=b"somebody's")
    broker.append("counts", b"2", key=b"a")
    checkpoint = store.checkpoint()
    assert checkpoint is not None
    end = broker.log_of(CHANGELOG).end
    store.apply({b"a": b"2"}, Checkpoint(end, checkpoint.topic_id, checkpoint.written_milliseconds))
    assert caught_up(broker, store) == 0
    broker.append("counts", b"nonsense", key=b"somebody's")
    assert caught_up(broker, store) == 1


def test_nobody_waits_for_a_comparison(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an open transaction keeps back is not compared, and a worker that is told to stop stops."""
    monkeypatch.setattr(changelog, "COMPARING_SECONDS_MAX", 0.1)
    broker = memory_broker(partitions=1)
    in_transaction(broker, "counts", b"1")
    (topic_id,) = broker.topic_ids(["counts"]).values()
    store.apply({b"k": b"1"}, Checkpoint(1, topic_id, epoch_milliseconds(ManualClock())))
    with pytest.raises(CatchUpStopped):
        catch_up(broker, CHANGELOG, store, ManualClock(), should_stop=lambda: True)
    assert caught_up(broker, store) == 0
    assert store.get(b"k") == b"1"


def test_catch_up_does_not_stop_at_the_last_stable_offset(store: Store) -> None:
    """Records of a predecessor whose commit is still being marked belong to offsets that are committed already."""
    broker = memory_broker(partitions=1)
    broker.append("counts", b"1", key=b"k")
    predecessor = in_transaction(broker, "counts", b"2")
    waits: list[int] = []

    def mark() -> None:
        waits.append(1)
        if len(waits) == 3:
            predecessor.commit({}, None)

    for _ in range(3):
        broker.faults.call("read", mark)
    caught_up(broker, store)
    assert store.get(b"k") == b"2"


def test_catch_up_tells_how_much_is_left(store: Store) -> None:
    """Less and less, and nothing at its end."""
    broker = memory_broker(partitions=1)
    for number in range(12_000):
        broker.append("counts", b"1", key=b"k%d" % number)
    told: list[tuple[TopicPartition, int]] = []
    catch_up(broker, CHANGELOG, store, ManualClock(), progress=lambda place, left: told.append((place, left)))
    left = [number for _, number in told]
    assert {place for place, _ in told} == {CHANGELOG}
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert left[0] > 0


def test_catch_up_stops_when_the_partition_is_given_away(store: Store) -> None:
    """Even while an open transaction holds it up."""
    broker = memory_broker(partitions=1)
    in_transaction(broker, "counts", b"1")
    with pytest.raises(CatchUpStopped):
        catch_up(broker, CHANGELOG, store, ManualClock(), should_stop=lambda: True)


def test_timers_fall_due_in_order_and_are_replaced_by_name(store: Store) -> None:
    """Setting a timer again moves it; cancelling removes it; what is due is told oldest first."""
    store.apply({}, at(0))
    state = writable(store)
    timers = Timers(state)
    for name, due in ((b"a", 300), (b"b", 100), (b"c", 200), (b"b", 400)):
        timers.set(name, due, b"p")
    assert timers.cancel(b"c")
    assert not timers.cancel(b"c")
    state.settle(at(1))
    assert timers.next_due_milliseconds() == 300
    assert [timer.key for timer in timers.due(400)] == [b"a", b"b"]
    timers.cancel(b"a")
    state.settle(at(2))
    assert timers.next_due_milliseconds() == 400
    timers.set(b"early", 50, b"p")
    state.settle(at(3))
    assert timers.next_due_milliseconds() == 50
    assert not list(state.scan()), "timers are not among the application's keys"


def test_keys_stay_parked_over_a_restart_and_an_abort(store: Store) -> None:
    """Parking is state: it is committed with the dead letter, and forgotten with it."""
    store.apply({}, at(0))
    state = writable(store)
    parked = ParkedKeys(state)
    parked.put(b"k", Parked("in[0]@7", 1))
    state.forget()
    parked.reload()
    assert parked.get(b"k") is None
    parked.put(b"k", Parked("in[0]@7", 2))
    state.settle(at(1))
    assert ParkedKeys(state).get(b"k") == Parked("in[0]@7", 2)
    assert parked.get(b"other") is None
    parked.put(b"k", None)
    assert not parked
    state.settle(at(2))
    assert not ParkedKeys(state)
