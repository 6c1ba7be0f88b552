"""What is kept of timers: one record of the changelog a change, from which every store derives the same order."""

import os
import random
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from towpath.stream.broker.record import TopicPartition
from towpath.stream.state.partition_state import Checkpoint, MemoryStore, State, Store
from towpath.stream.state.rocks import RocksStore
from towpath.stream.state.timers import Timer, Timers, decode_timer, encode_timer, with_derived

CHANGELOG = TopicPartition("counts", 0)
EVER = 2**40
Log = list[tuple[bytes, bytes | None]]


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")


def at(offset: int) -> Checkpoint:
    return Checkpoint(offset, "counts-1", 1_000)


class Partition:
    """A store whose units write a changelog, as a worker's do."""

    def __init__(self, store: Store, log: Log | None = None) -> None:
        self.log: Log = log or []
        self.store = store
        store.apply({}, at(0))
        self.state = State(CHANGELOG, store)
        self.state.writable = True
        self.timers = Timers(self.state)

    def commit(self) -> int:
        """End a unit; return how many records it gave to the changelog."""
        before = len(self.log)
        self.log += self.state.changes.items()
        self.state.settle(at(len(self.log)))
        return len(self.log) - before

    def pending(self) -> list[Timer]:
        """Return what is set, the first that falls due first."""
        return list(self.timers.due(EVER))


def fill(store: Store, log: Iterable[tuple[bytes, bytes | None]], records: int = 3) -> Partition:
    """Return the partition of a worker that has read the changelog, a few records at a time."""
    read, left = Partition(store), list(log)
    while left:
        changes, left = dict(left[:records]), left[records:]
        store.apply(with_derived(changes, store.get), at(0))
    return read


def compacted(log: Log) -> Log:
    """Return what compaction leaves: the last record of each key, in place."""
    last = {key: index for index, (key, _) in enumerate(log)}
    return [entry for index, entry in enumerate(log) if last[entry[0]] == index]


def test_a_timer_is_kept_whole() -> None:
    """Key, payload, record key and headers, null or empty, come back as they were."""
    for timer in (
        Timer(b"k", 5, b"payload", b"order-1", (("type", b"T"), ("n", None))),
        Timer(b"", 0, b"", None),
        Timer(b"\x00k", 2**40, b"\xff", b""),
    ):
        assert decode_timer(timer.key, encode_timer(timer)) == timer


def test_each_change_is_one_record_of_the_changelog(store: Store) -> None:
    """Setting, moving and cancelling; what is set and cancelled in one unit leaves a tombstone, for an earlier one."""
    one = Partition(store)
    one.timers.set(b"a", 300, b"p")
    assert one.commit() == 1
    one.timers.set(b"a", 100, b"p")
    one.timers.set(b"b", 200, b"p")
    assert one.commit() == 2
    assert one.timers.cancel(b"a")
    one.timers.set(b"c", 50, b"p")
    one.timers.cancel(b"c")
    assert one.commit() == 2
    assert [timer.key for timer in one.pending()] == [b"b"]
    one.timers.cancel(b"b")
    one.state.forget()
    assert [timer.key for timer in one.pending()] == [b"b"]
    assert one.commit() == 0


def test_whoever_reads_the_changelog_has_the_same_timers(store: Store) -> None:
    """Whole or compacted, from the beginning or from where its own store stood, in pieces of any size."""
    seed = int(os.environ.get("TOWPATH_TEST_SEED") or random.randrange(10**9))
    print(f"TOWPATH_TEST_SEED={seed}")  # noqa: T201 - to run it again
    generator = random.Random(seed)
    one, behind, stood = Partition(MemoryStore()), Partition(store), 0
    for _ in range(300):
        for _ in range(generator.randrange(1, 6)):
            key = b"%d" % generator.randrange(12)
            if generator.random() < 0.6:
                one.timers.set(key, generator.randrange(40), generator.randbytes(4), record_key=key)
            else:
                one.timers.cancel(key)
        if generator.random() < 0.2:
            one.state.forget()
        one.commit()
        if generator.random() < 0.05:
            for place in range(stood, len(one.log), 2):
                store.apply(with_derived(dict(one.log[place : place + 2]), store.get), at(0))
            stood = len(one.log)
            assert behind.pending() == one.pending()
    kept = list(one.store.scan(b""))
    for log in (one.log, compacted(one.log)):
        for records in (1, 7, 1_000):
            assert list(fill(MemoryStore(), log, records).store.scan(b"")) == kept
    # Where its own store stood, compaction may have taken what it has not read.
    later = dict(compacted(one.log[stood:]))
    store.apply(with_derived(later, store.get), at(0))
    assert list(store.scan(b"")) == kept


def older(timer: Timer) -> Log:
    """Return what the older form wrote of a timer: its due time under its key, the rest under its due time."""
    due = struct.pack(">Q", timer.due_milliseconds)
    return [(b"\x00k" + timer.key, due), (b"\x00t" + due + timer.key, encode_timer(timer)[8:])]


def test_timers_of_the_older_form_fire_move_and_end(store: Store) -> None:
    """As they are in a worker's store or in its changelog; what ends one leaves nothing of it in the changelog."""
    timers = [Timer(b"%d" % n, 100 * n, b"p%d" % n, b"k", (("type", b"T"),)) for n in range(1, 5)]
    log = [entry for timer in timers for entry in older(timer)]
    for records in (1, 3, 100):
        assert fill(MemoryStore(), log, records).pending() == timers
    one = fill(store, log)
    one.log = log
    one.timers.cancel(b"1")
    assert one.commit() == 2
    one.timers.set(b"2", 200, b"again")
    one.timers.set(b"3", 350, b"later")
    one.commit()
    expected = [Timer(b"2", 200, b"again"), Timer(b"3", 350, b"later"), timers[3]]
    assert one.pending() == expected
    for key in (b"2", b"3", b"4"):
        one.timers.cancel(key)
    one.commit()
    for form in (one.log, compacted(one.log)):
        assert fill(MemoryStore(), form).pending() == []
    assert one.pending() == []


def test_what_an_older_form_left_behind_does_not_fire(store: Store) -> None:
    """An entry by due time whose timer is gone, or was set for another time, is passed over."""
    gone, moved = older(Timer(b"gone", 100, b"p")), older(Timer(b"moved", 100, b"p"))
    one = fill(store, [gone[1], moved[1]])
    assert one.pending() == []
    assert one.timers.next_due_milliseconds() is None
    one.timers.set(b"moved", 200, b"q")
    one.commit()
    assert one.pending() == [Timer(b"moved", 200, b"q")]
