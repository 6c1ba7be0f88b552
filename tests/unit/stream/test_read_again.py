"""Records that are read again after an offset was reset, and schemas that a running worker meets."""

import asyncio
from collections.abc import Callable

import pytest

from tests.unit.stream.support import memory_broker, options_for, values, working
from towpath.contract.codec import UnknownSchema
from towpath.deadletter.quarantine import Fate
from towpath.deadletter.redrive import read_quarantine
from towpath.errors import PeerError, WorldError
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.state.parking import Admission, Parked, admit, parked_of

PLACE = TopicPartition("in", 0)


class TooOld(PeerError):
    """As what is beyond the horizon of dedup."""

    parks_key = False


async def refuses(unit: KafkaUnit, groups: Groups) -> None:
    for records in groups.values():
        for record in records:
            if record.value in (b"bad", b"old"):
                raise RecordFailed(record, (PeerError if record.value == b"bad" else TooOld)("no"))
            unit.send("out", record.value, key=record.key)


def run_to(broker: MemoryBroker, offset: int, *, states: tuple[str, ...] = ("counts",)) -> None:
    async def main() -> None:
        async with working(refuses, options_for(broker, states=states), ["in"]) as worker:
            await worker.until(lambda: broker.committed_offsets("app").get(PLACE) == offset)

    asyncio.run(main())


def reset(broker: MemoryBroker) -> None:
    with broker.changed:
        broker.group("app").offsets[PLACE] = 0


def test_a_dead_record_read_again_is_the_same_letter() -> None:
    """Not its own follower: what is in quarantine is passed over, what came before is applied, what is new follows."""
    broker = memory_broker(partitions=1)
    for value, key in (("a1", "a"), ("bad", "a"), ("b1", "b"), ("a2", "a")):
        broker.append("in", value.encode(), key=key.encode())
    run_to(broker, 4)
    before = broker.records("in.dead")
    reset(broker)
    broker.append("in", b"a3", key=b"a")
    run_to(broker, 5)
    assert broker.records("in.dead")[: len(before)] == before
    assert values(broker.records("in.dead")) == ["bad", "a2", "a3"]
    assert values(broker.records("out")) == ["a1", "b1", "a1", "b1"]
    (cohort,) = read_quarantine(broker, ["in.dead"]).cohorts.values()
    assert [dead.letter.behind for dead in cohort.waiting] == [None, "in[0]@1", "in[0]@1"]


def test_a_letter_that_holds_nothing_is_the_same_when_its_record_dies_again() -> None:
    """Where keys are not parked, a record that is read again dies again, and is listed once."""
    broker = memory_broker(partitions=1)
    for value in (b"1", b"bad", b"2"):
        broker.append("in", value, key=b"k")
    run_to(broker, 3, states=())
    reset(broker)
    run_to(broker, 3, states=())
    assert values(broker.records("in.dead")) == ["bad", "bad"]
    (dead,) = read_quarantine(broker, ["in.dead"]).letters()
    assert dead.fate is Fate.WAITING


def test_what_is_beyond_the_horizon_parks_no_key() -> None:
    """Lost offsets make letters of what is too old to tell, and hold up nothing that is not."""
    broker = memory_broker(partitions=1)
    for value in (b"old", b"old", b"new"):
        broker.append("in", value, key=b"k")
    run_to(broker, 3)
    assert values(broker.records("out")) == ["new"]
    letters = [dead.letter for dead in read_quarantine(broker, ["in.dead"]).letters()]
    assert [(letter.parked, letter.behind) for letter in letters] == [(False, None), (False, None)]


def test_parking_knows_where_quarantine_began_and_ended() -> None:
    """By topic, since each has offsets of its own; and it survives its form in a store."""
    parked = Parked("in[0]@5", 2).spanning("in", 5, 50).spanning("in", 9, 40).spanning("other", 3, 50)
    assert parked_of(parked.to_text()) == parked
    assert parked_of(Parked("in[0]@5", 1).to_text()) == Parked("in[0]@5", 1)
    places = (("in", 4, 50), ("in", 7, 50), ("in", 10, 50), ("new", 1, 50))
    found = [admit(parked, *place) for place in places]
    assert found == [Admission.APPLY, Admission.PASS_OVER, Admission.FOLLOW, Admission.FOLLOW]
    assert admit(None, "in", 7, 50) is Admission.APPLY


def test_a_later_record_at_an_offset_of_quarantine_is_another_one() -> None:
    """The log was cut, or made anew; from there on, all is new. What an older version kept has no times."""
    parked = Parked("in[0]@5", 2).spanning("in", 5, 50).spanning("in", 9, 50)
    assert [admit(parked, "in", offset, 51) for offset in (4, 7)] == [Admission.FOLLOW] * 2
    assert admit(parked.spanning("in", 7, 51), "in", 8, 51) is Admission.FOLLOW
    assert admit(parked_of("1 in[0]@5 in:5:9"), "in", 7, 10**13) is Admission.PASS_OVER


Answer = Callable[[], BaseException | None]


@pytest.mark.parametrize("answer", ["learned", "away at first", "no such id"])
def test_a_running_worker_asks_for_a_schema_that_it_meets(answer: str) -> None:
    """Outside any unit of work; away: it waits; no such id: the record is dead, and the others go on."""
    broker = memory_broker(partitions=1)
    for value in (b"1", b"new", b"2", b"new"):
        broker.append("in", value, key=value)
    known: set[int] = set()
    asked: list[int] = []

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for records in groups.values():
            for record in records:
                if record.value == b"new" and 7 not in known:
                    raise RecordFailed(record, UnknownSchema(7))
                unit.send("out", record.value)

    def learn(error: BaseException) -> BaseException:
        assert isinstance(error, UnknownSchema)
        assert not broker.open_transactions(), "nothing waits inside an open unit"
        asked.append(error.schema_id)
        if answer == "no such id":
            return error
        if answer == "away at first" and len(asked) < 3:
            return WorldError("the registry is away")
        known.add(error.schema_id)
        return WorldError("learned")

    async def main() -> None:
        async with working(handler, options_for(broker, learn=learn), ["in"]) as worker:
            await worker.until(lambda: broker.committed_offsets("app").get(PLACE, 0) == 4)

    asyncio.run(main())
    assert len(asked) == {"learned": 1, "away at first": 3, "no such id": 2}[answer]
    dead = ["new", "new"] if answer == "no such id" else []
    assert values(broker.records("in.dead")) == dead
    assert sorted(values(broker.records("out"))) == ["1", "2"] if dead else ["1", "2", "new", "new"]
