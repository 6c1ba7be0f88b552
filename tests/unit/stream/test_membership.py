"""A worker whose member its group no longer has gets another one, by itself."""

import asyncio
import threading
from collections.abc import Iterable

import pytest

from tests.unit.stream.support import SETTINGS, copy, memory_broker, options_for, values, working
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.memory.clients import MemoryMember
from towpath.stream.broker.port import GroupMember, GroupMetadata, MemberFenced, Polled, Revoked
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import membership
from towpath.stream.engine.membership import MembershipWatch
from towpath.stream.engine.slot import Holder, client_id
from towpath.stream.engine.worker_status import WorkerStatus

MEMBER = GroupMetadata("app", "m1", 3)
NOBODY = GroupMetadata("app", "", -1)


class LostMember(MemoryMember):
    """A member as librdkafka's is whose search for its coordinator hangs: it loses everything and never rejoins."""

    lost = False
    hangs = False

    def poll(self, records_max: int, timeout_seconds: float) -> Polled:
        """Be lost once told to be."""
        if not self.lost:
            return super().poll(records_max, timeout_seconds)
        if self.hangs:
            threading.Event().wait(3.0)
        with self._broker.changed:
            owned = frozenset(self._positions)
            self._forget()
            if self._member is not None:
                self._group.leave(self._member.id)
                self._member = None
            self._broker.changed.wait(timeout_seconds)
        return Polled(changes=[Revoked(owned, lost=True)] if owned else [], metadata=NOBODY)


class LosingBroker(MemoryBroker):
    """A broker whose first member can be lost."""

    def __init__(self) -> None:
        super().__init__(SETTINGS)
        self.members: list[LostMember] = []

    def member(self, group: str, *, client_id: str, slot: str | None = None) -> MemoryMember:
        """Return a member that a test can lose."""
        self.members.append(LostMember(self, group, slot, client_id))
        return self.members[-1]


@pytest.mark.parametrize(
    ("seen", "overdue"),
    [
        ([(0, MEMBER, {"m1"}), (10, MEMBER, {"m1"})], False),
        ([(0, MEMBER, {"m1"}), (10, NOBODY, {"m1"}), (14, NOBODY, set())], False),
        ([(0, MEMBER, {"m1"}), (10, NOBODY, {"m1"}), (15, NOBODY, set())], True),
        ([(0, MEMBER, {"m2"}), (6, MEMBER, {"m2"})], True),
        ([(0, NOBODY, set()), (4, None, None), (6, NOBODY, set())], False),
        ([(0, NOBODY, set()), (4, MEMBER, {"m1"}), (6, MEMBER, {"m1"})], False),
    ],
    ids=["member", "not long enough", "long enough", "the group says no", "broker away", "came back"],
)
def test_a_member_is_given_up_when_its_group_has_not_had_it_for_long(
    seen: Iterable[tuple[int, GroupMetadata | None, set[str] | None]], overdue: bool
) -> None:
    """Only while the cluster answers: where it is away, no new member could join either."""
    watch = MembershipWatch(5.0)
    for asked, metadata, members in seen:
        if members is None:
            watch.unanswered()
        else:
            watch.answered(metadata, frozenset(members), asked)
    assert watch.is_overdue is overdue


@pytest.mark.parametrize("hangs", [False, True], ids=["never rejoins", "its call does not come back"])
def test_a_worker_that_lost_its_membership_joins_anew(monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    """It says that it is no member, gets a new one, and goes on from what is committed; nothing is done twice."""
    monkeypatch.setattr(membership, "WATCH_SECONDS_LOST", 0.1)
    monkeypatch.setattr(membership, "CALL_SECONDS_MAX", 1.0)
    broker = LosingBroker()
    for topic in ("in", "in.dead", "out", "counts"):
        broker.create_topic(topic, 2)
    place = TopicPartition("in", 0)
    statuses: list[WorkerStatus] = []
    settings = SETTINGS.model_copy(update={"membership_seconds_max": 0.3})
    options = options_for(broker, states=("counts",), settings=settings, on_status=statuses.append)

    def committed() -> int:
        return broker.committed_offsets("app").get(place, 0)

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            broker.append("in", b"v0", key=b"k", partition=0)
            await worker.until(lambda: committed() == 1)
            assert statuses[-1].is_ready
            broker.members[0].hangs = hangs
            broker.members[0].lost = True
            told = len(statuses)
            await worker.until(lambda: any(not status.is_member for status in statuses[told:]))
            broker.append("in", b"v1", key=b"k", partition=0)
            await worker.until(lambda: committed() == 2)
            assert len(broker.members) == 2
            await worker.until(lambda: statuses[-1].is_ready)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1"]


class FencedMember(MemoryMember):
    """A member that its coordinator takes for another worker's, once it is told to be."""

    fenced = False

    def poll(self, records_max: int, timeout_seconds: float) -> Polled:
        """Be fenced once told to be."""
        if self.fenced:
            raise MemberFenced("static consumer fenced by other consumer with same group.instance.id")
        return super().poll(records_max, timeout_seconds)


class FencingBroker(MemoryBroker):
    """A broker whose members can be fenced; `others` are members that it lists besides."""

    def __init__(self) -> None:
        super().__init__(SETTINGS)
        self.members: list[FencedMember] = []
        self.others: tuple[GroupMember, ...] = ()

    def member(self, group: str, *, client_id: str, slot: str | None = None) -> MemoryMember:
        """Return a member that a test can fence."""
        self.members.append(FencedMember(self, group, slot, client_id))
        return self.members[-1]

    def group_members(self, group: str) -> tuple[GroupMember, ...]:
        """Return the members, and those that the test adds."""
        return (*super().group_members(group), *self.others)


@pytest.mark.parametrize("other", [False, True], ids=["by its own earlier self", "by another worker"])
def test_a_fenced_worker_ends_only_where_another_one_has_its_slot(other: bool) -> None:
    """A join whose answer a broker's restart lost, repeated, looks to the coordinator like a second worker's."""
    broker = FencingBroker()
    for topic in ("in", "in.dead", "out", "counts"):
        broker.create_topic(topic, 1)
    options = options_for(broker, states=("counts",))

    async def main() -> None:
        async with working(copy, options, ["in"]) as worker:
            broker.append("in", b"v0", key=b"k")
            await worker.until(lambda: len(broker.records("out")) == 1)
            if other:
                living = Holder("elsewhere", 7, 7, "another machine")
                broker.others = (GroupMember("m9", client_id("app", "a", str(living)), "/10.0.0.9"),)
            broker.members[0].fenced = True
            await worker.until(lambda: len(broker.members) == 2)
            broker.append("in", b"v1", key=b"k")
            await worker.until(lambda: len(broker.records("out")) == 2)

    if other:
        with pytest.raises(MemberFenced):
            asyncio.run(main())
    else:
        asyncio.run(main())
        assert len(broker.members) == 2


def test_a_standby_is_ready_and_says_so() -> None:
    """A worker beyond the number of partitions is a member with nothing to serve: it is left alone."""
    broker = memory_broker(partitions=1)
    told: dict[str, list[WorkerStatus]] = {"a": [], "b": []}

    async def main() -> None:
        first = options_for(broker, on_status=told["a"].append)
        second = options_for(broker, slot="b", on_status=told["b"].append)
        async with working(copy, first, ["in"]) as one, working(copy, second, ["in"]):
            await one.until(lambda: all(said and said[-1].is_ready for said in told.values()))
            await one.until(lambda: sorted(said[-1].is_standby for said in told.values()) == [False, True])

    asyncio.run(main())
