"""Redriving and dropping on the memory broker: every record once, in the order of its key, whatever comes between."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.unit.stream.support import in_transaction, memory_broker, options_for, values, working
from towpath.clock import ManualClock, SystemClock
from towpath.deadletter.quarantine import Dead, Fate, Quarantine, key_of
from towpath.deadletter.redrive import Outcome, Redrive, read_quarantine
from towpath.deadletter.redrive_plan import LetterStep, RedriveStep, drop_plan, redrive_plan
from towpath.errors import NotFoundError, RefusedError
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.memory.clients import MemoryReader
from towpath.stream.broker.port import BrokerAway, Groups, OutcomeUnknown, TransactionAborted
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.unit import KafkaUnit

DEAD = ("in.dead", "also.dead")
Choose = Callable[[Quarantine], list[RedriveStep]]


class Shop:
    """A broker whose application fails for the values in `bad`, and writes what it applies to `out`."""

    def __init__(self) -> None:
        self.broker = memory_broker(partitions=1)
        for topic in ("also", "also.dead"):
            self.broker.create_topic(topic, 1)
        self.bad: set[str] = set()

    async def handle(self, unit: KafkaUnit, groups: Groups) -> None:
        """Copy."""
        for records in groups.values():
            for record in records:
                if (record.value or b"").decode() in self.bad:
                    raise RecordFailed(record, ValueError("bad"))
                unit.send("out", record.value, key=record.key)

    def put(self, *texts: str, topic: str = "in") -> None:
        """Append records whose key is the first letter of their value."""
        for text in texts:
            self.broker.append(topic, text.encode(), key=text[:1].encode(), headers=(("id", text.encode()),))

    def work(self, *, application: str = "app", states: tuple[str, ...] = ("counts",), **changes: Any) -> None:
        """Let a worker read everything there is."""
        topics = ["in", "also"]

        def done() -> bool:
            offsets = self.broker.committed_offsets(application)
            return all(
                offsets.get(record.topic_partition, 0) > record.offset
                for topic in topics
                for record in self.broker.records(topic)[-1:]
            )

        async def main() -> None:
            options = options_for(self.broker, states=states, application=application, **changes)
            async with working(self.handle, options, topics) as worker:
                await worker.until(done)

        asyncio.run(main())

    def quarantine(self) -> Quarantine:
        """Read the dead-letter topics."""
        return read_quarantine(self.broker, DEAD, seconds=5)

    def waiting(self) -> list[str]:
        """Return the values that lie in quarantine."""
        return values([dead.record for dead in self.quarantine().letters() if dead.fate is Fate.WAITING])

    def start(self) -> tuple[Redrive, Quarantine]:
        """Begin a run."""
        run = Redrive(
            self.broker, SystemClock(), transactional_id="shop-dead", dead_topics=DEAD, actor="kim", reason="fixed"
        )
        return run, run.start()

    def redrive(self, choose: Choose) -> Outcome:
        """Redrive or drop, without waiting for a worker."""
        run, quarantine = self.start()
        try:
            return run.run(choose(quarantine), wait_seconds=0)
        finally:
            run.close()

    def applied(self) -> list[str]:
        """Return what was applied, in order."""
        return values(self.broker.records("out"))


@pytest.fixture
def shop() -> Shop:
    return Shop()


def letters(quarantine: Quarantine, *texts: str) -> list[Dead]:
    return [dead for dead in quarantine.letters() if (dead.record.value or b"").decode() in texts]


def all_of(quarantine: Quarantine) -> list[RedriveStep]:
    return redrive_plan(quarantine, [dead for dead in quarantine.letters() if dead.settlement is None])


def one(*texts: str) -> Choose:
    return lambda quarantine: redrive_plan(quarantine, letters(quarantine, *texts))


def drop(*texts: str, followers: bool = False) -> Choose:
    return lambda quarantine: drop_plan(quarantine, letters(quarantine, *texts), followers=followers)


def dead_and_parked(shop: Shop) -> None:
    shop.bad = {"a1"}
    shop.put("a1", "a2", "b1", "a3")
    shop.work()
    assert shop.applied() == ["b1"]
    assert shop.waiting() == ["a1", "a2", "a3"]
    shop.bad = set()


def test_a_redriven_record_takes_along_what_is_parked_behind_it(shop: Shop) -> None:
    """All three are applied once and in order, with the headers they had, and the key goes on."""
    dead_and_parked(shop)
    outcome = shop.redrive(one("a1"))
    assert values([dead.record for dead in outcome.redriven]) == ["a1", "a2", "a3"]
    assert outcome.unread == ("app",)
    shop.put("a4")
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3", "a4"]
    assert shop.waiting() == []
    assert [record.header("id") for record in shop.broker.records("in")][4:7] == ["a1", "a2", "a3"]


def test_a_second_redrive_finds_nothing_to_do(shop: Shop) -> None:
    """What is settled stays settled, chosen by its place or among all, before and after it was read."""
    dead_and_parked(shop)
    shop.redrive(one("a1"))
    assert shop.redrive(one("a1")).redriven == ()
    shop.work()
    outcome = shop.redrive(one("a1", "a2", "a3"))
    assert (outcome.redriven, outcome.left, outcome.died_again, outcome.unread) == ((), (), (), ())
    assert shop.redrive(all_of).redriven == ()
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param("commit", TransactionAborted("no"), id="refused"),
        pytest.param("commit", OutcomeUnknown("lost"), id="question lost"),
        pytest.param("commit answer", OutcomeUnknown("lost"), id="answer lost"),
    ],
)
def test_a_redrive_that_does_not_hear_of_its_commit_finds_out(shop: Shop, fault: str, error: Exception) -> None:
    """Whether the transaction stands is read from the log; what stands is not sent again, what does not is."""
    dead_and_parked(shop)
    shop.broker.faults.order(fault, error)
    assert len(shop.redrive(one("a1")).redriven) == 3
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3"]


def test_a_redrive_that_is_killed_half_way_leaves_nothing_half_done(shop: Shop) -> None:
    """Its open transaction is ended by the next run, and no worker has seen any of it."""
    dead_and_parked(shop)
    killed = shop.broker.producer("shop-dead")
    killed.start()
    killed.begin()
    killed.produce("in", b"a1", key=b"a", partition=0)
    shop.redrive(one("a1"))
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3"]


def test_of_two_runs_at_once_the_later_one_goes_on(shop: Shop) -> None:
    """The earlier one is refused before it could send again what the later one has sent."""
    dead_and_parked(shop)
    (earlier, quarantine), (later, _) = shop.start(), shop.start()
    requests = one("a1")(quarantine)
    with pytest.raises(RefusedError, match="another redrive"):
        earlier.run(requests, wait_seconds=0)
    assert len(later.run(requests, wait_seconds=0).redriven) == 3
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3"]


def test_records_that_were_unread_when_it_was_redriven_wait_for_their_turn(shop: Shop) -> None:
    """They follow into quarantine, the key stays parked for them, and running it again does the rest."""
    dead_and_parked(shop)
    shop.put("a4")
    shop.redrive(one("a1"))
    shop.put("a5")
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3"]
    assert shop.waiting() == ["a4", "a5"]
    assert values([dead.record for dead in shop.redrive(one("a1")).redriven]) == ["a4", "a5"]
    shop.put("a6")
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3", "a4", "a5", "a6"]


def test_what_was_sent_with_a_record_that_dies_again_does_not_overtake_it(shop: Shop) -> None:
    """It goes back into quarantine behind it; the second redrive, too, keeps the order of the first time."""
    dead_and_parked(shop)
    shop.bad = {"a1"}
    shop.put("a4")
    shop.redrive(one("a1"))
    shop.put("b2")
    shop.work()
    assert shop.applied() == ["b1", "b2"]
    assert sorted(shop.waiting()) == ["a1", "a2", "a3", "a4"]
    again = shop.redrive(lambda quarantine: redrive_plan(quarantine, letters(quarantine, "a1")[:1]))
    assert (again.redriven, len(again.died_again)) == ((), 4)
    shop.bad = set()
    shop.redrive(all_of)
    shop.work()
    assert shop.applied() == ["b1", "b2", "a1", "a2", "a3", "a4"]
    assert shop.waiting() == []


def test_a_follower_that_dies_of_its_own_holds_up_what_comes_after_it(shop: Shop) -> None:
    """What precedes it is applied."""
    dead_and_parked(shop)
    shop.bad = {"a2"}
    shop.redrive(all_of)
    shop.work()
    assert shop.applied() == ["b1", "a1"]
    assert shop.waiting() == ["a2", "a3"]
    shop.bad = set()
    shop.redrive(all_of)
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3"]


def test_what_is_dropped_is_not_applied_and_frees_its_key(shop: Shop) -> None:
    """What is parked behind it is redriven with it, and who did it, and why, stays in the log."""
    dead_and_parked(shop)
    outcome = shop.redrive(drop("a1"))
    assert values([dead.record for dead in outcome.dropped]) == ["a1"]
    assert values([dead.record for dead in outcome.redriven]) == ["a2", "a3"]
    shop.put("a4")
    shop.work()
    assert shop.applied() == ["b1", "a2", "a3", "a4"]
    (dropped,) = letters(shop.quarantine(), "a1")
    assert dropped.settlement is not None
    assert (dropped.fate, dropped.settlement.actor, dropped.settlement.reason) == (Fate.DROPPED, "kim", "fixed")
    assert shop.redrive(one("a1")).redriven == ()


def test_a_key_can_be_dropped_whole_or_a_follower_alone(shop: Shop) -> None:
    """A follower alone leaves the rest parked; with the followers nothing of the key is applied."""
    dead_and_parked(shop)
    assert shop.redrive(drop("a2")).redriven == ()
    shop.work()
    assert shop.waiting() == ["a1", "a3"]
    assert len(shop.redrive(drop("a1", followers=True)).dropped) == 2
    shop.put("a4")
    shop.work()
    assert shop.applied() == ["b1", "a4"]


def test_other_applications_pass_over_what_was_not_theirs(shop: Shop) -> None:
    """They applied the record when it came, and the mark of another must not free a key of theirs."""
    dead_and_parked(shop)
    other = "other"
    shop.broker.create_topic("counts", 1)  # a changelog is one application's own
    shop.bad = {"b1"}
    shop.work(application=other)
    before = shop.applied()
    assert before[1:] == ["a1", "a2", "a3"]
    shop.bad = set()
    shop.redrive(lambda quarantine: [request for request in all_of(quarantine) if request.cohort[0] == "app"])
    shop.put("b2")
    shop.work(application=other)
    assert shop.applied() == before
    assert shop.waiting() == ["b1", "b2"]


def test_an_application_that_parks_nothing_gets_each_alone(shop: Shop) -> None:
    """One letter is one request; what is dropped sends nothing."""
    shop.bad = {"a1", "a2"}
    shop.put("a1", "a2", "a3")
    shop.work(states=())
    shop.bad = set()
    assert len(shop.redrive(one("a2")).redriven) == 1
    ends = len(shop.broker.records("in"))
    assert len(shop.redrive(drop("a1")).dropped) == 1
    assert len(shop.broker.records("in")) == ends
    shop.work(states=())
    assert shop.applied() == ["a3", "a2"]
    assert shop.waiting() == []


def followers_in_another_topic(shop: Shop) -> None:
    shop.bad = {"a1"}
    shop.put("a1")
    shop.work()
    shop.put("a2", topic="also")
    shop.work()
    shop.bad = set()


def test_what_follows_in_another_topic_is_sent_once_its_predecessor_was_read(shop: Shop) -> None:
    """Between topics nothing keeps the order but that; without a worker the rest is left, and the next run does it."""
    followers_in_another_topic(shop)
    outcome = shop.redrive(one("a1"))
    assert (values([dead.record for dead in outcome.redriven]), len(outcome.left)) == (["a1"], 1)
    assert len(shop.redrive(one("a1")).left) == 1
    shop.work()
    outcome = shop.redrive(one("a1"))
    assert values([dead.record for dead in outcome.redriven]) == ["a2"]
    shop.work()
    assert shop.applied() == ["a1", "a2"]
    assert shop.waiting() == []


def run_beside_a_worker(shop: Shop, choose: Choose, after: Sequence[str] = ()) -> Outcome:
    """Redrive while a worker runs, and wait for it."""

    async def main() -> Outcome:
        async with working(shop.handle, options_for(shop.broker, states=("counts",)), ["in", "also"]) as worker:
            run, quarantine = await asyncio.to_thread(shop.start)
            shop.put(*after)
            outcome = await asyncio.to_thread(run.run, choose(quarantine), wait_seconds=20)
            run.close()
            await worker.until(lambda: True)
            return outcome

    return asyncio.run(main())


def test_a_run_beside_a_worker_goes_on_until_nothing_is_left(shop: Shop) -> None:
    """Through all topics, with what follows meanwhile; it says what was read."""
    followers_in_another_topic(shop)
    outcome = run_beside_a_worker(shop, one("a1"), after=["a3"])
    assert (outcome.left, outcome.died_again, outcome.unread) == ((), (), ())
    assert shop.applied() == ["a1", "a2", "a3"] or shop.applied() == ["a1", "a3", "a2"]


def test_a_run_beside_a_worker_tells_what_died_again(shop: Shop) -> None:
    """It is not sent a second time in the same run."""
    dead_and_parked(shop)
    shop.bad = {"a1"}
    outcome = run_beside_a_worker(shop, one("a1"))
    assert len(outcome.redriven) == 3
    assert values([dead.record for dead in outcome.died_again]) == ["a1", "a2", "a3"]
    assert (outcome.left, outcome.unread) == ((), ())


@pytest.mark.parametrize("states", [("counts",), ()], ids=["its key is parked", "it stands alone"])
@pytest.mark.parametrize("verb", ["redrive", "drop"])
def test_who_settles_once_more_what_died_again_is_told_of_the_letter_that_waits(
    shop: Shop, states: tuple[str, ...], verb: str
) -> None:
    """The letter that is named was redriven; its record lies in quarantine under another one."""
    shop.bad = {"a1"}
    shop.put("a1")
    shop.work(states=states)
    (first,) = letters(shop.quarantine(), "a1")
    shop.redrive(one("a1"))
    shop.work(states=states)

    def named(quarantine: Quarantine) -> list[RedriveStep]:
        chosen = [dead for dead in quarantine.letters() if dead.place == first.place]
        return redrive_plan(quarantine, chosen) if verb == "redrive" else drop_plan(quarantine, chosen, followers=False)

    outcome = shop.redrive(named)
    assert (outcome.redriven, outcome.dropped, outcome.left) == ((), (), ())
    (again,) = outcome.died_again
    assert (again.fate, again.place != first.place) == (Fate.WAITING, True)
    done = shop.redrive(lambda quarantine: drop_plan(quarantine, [again], followers=False))
    assert (len(done.dropped), done.died_again, shop.waiting()) == (1, (), [])


def test_a_dead_record_is_kept_from_when_it_died(shop: Shop) -> None:
    """Retention counts by a record's time: an old one must not vanish at once, neither dead nor redriven."""
    broker: MemoryBroker = shop.broker
    shop.bad = {"a1"}
    broker.append("in", b"a1", key=b"a", timestamp_milliseconds=1_000)
    shop.work()
    (dead,) = broker.records("in.dead")
    assert dead.timestamp_milliseconds == shop.quarantine().letters()[0].letter.died_milliseconds > 1_000
    shop.redrive(one("a1"))
    assert broker.records("in")[-1].timestamp_milliseconds > 1_000
    assert shop.quarantine().letters()[0].mark.timestamp_milliseconds == 1_000


def test_a_quarantine_that_takes_long_is_read_to_its_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where nothing further comes is it given up: what is long, or slow, is not."""
    shop.bad = {"a1"}
    shop.put("a1", "a2", "a3", "a4", "a5")
    shop.work()
    clock = ManualClock()
    poll = MemoryReader.poll

    def slowly(reader: MemoryReader, timeout_seconds: float) -> tuple[list[ConsumedRecord], int]:
        clock.advance(20)
        records, reached = poll(reader, timeout_seconds)
        if not records:
            return records, reached
        reader._position = records[0].offset + 1
        return records[:1], reader._position

    monkeypatch.setattr(MemoryReader, "poll", slowly)
    letters = read_quarantine(shop.broker, DEAD, seconds=30, clock=clock).letters()
    assert values([dead.record for dead in letters]) == ["a1", "a2", "a3", "a4", "a5"]
    in_transaction(shop.broker, "in.dead", b"a6")
    with pytest.raises(BrokerAway, match="a transaction is open there"):
        read_quarantine(shop.broker, DEAD, seconds=30, clock=clock)


@pytest.mark.parametrize("step", ["run", "release"])
def test_letters_that_expire_while_a_person_decides_are_told(shop: Shop, step: str) -> None:
    """Chosen, asked for a confirmation over lunch, and gone when the person says yes: nothing is said to be done."""
    dead_and_parked(shop)
    run, quarantine = shop.start()
    requests = all_of(quarantine)
    shop.broker.log_of(TopicPartition("in.dead", 0)).expire(1_000)
    do = {
        "run": lambda: run.run(requests, wait_seconds=0),
        "release": lambda: run.release(requests[0].cohort, followers=False, wait_seconds=0),
    }
    with pytest.raises(NotFoundError, match="no longer there") as raised:
        do[step]()
    run.close()
    assert "towpath dead" in (raised.value.next_step or "")
    shop.work()
    assert shop.applied() == ["b1"]


def test_letters_that_expire_once_they_were_sent_back_were_redriven(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have nothing more to say: what was sent is applied, and the run counts it."""
    dead_and_parked(shop)
    run, quarantine = shop.start()
    send = run._send_all

    def send_and_expire(steps: Sequence[LetterStep]) -> None:
        send(steps)
        shop.broker.log_of(TopicPartition("in.dead", 0)).expire(1_000)

    monkeypatch.setattr(run, "_send_all", send_and_expire)
    outcome = run.run(all_of(quarantine), wait_seconds=0.2)
    run.close()
    assert values([dead.record for dead in outcome.redriven]) == ["a1", "a2", "a3"]
    assert (outcome.left, outcome.died_again) == ((), ())
    shop.work()
    assert shop.applied() == ["b1", "a1", "a2", "a3"]


@pytest.mark.parametrize("place", [{"topic": "gone"}, {"partition": 7}])
def test_a_letter_whose_topic_or_partition_is_gone_holds_up_no_other(shop: Shop, place: dict[str, Any]) -> None:
    """All else is sent, before it is said that this one cannot be; its own key is left as it is."""
    shop.bad = {"a1", "b1"}
    shop.put("a1", "b1")
    shop.work()
    letter = {**json.loads(shop.broker.records("in.dead")[0].header("dead") or ""), **place}
    headers = (("id", b"x1"), ("dead", json.dumps(letter).encode()))
    shop.broker.append("in.dead", b"x1", key=b"x", headers=headers)
    shop.bad = set()
    with pytest.raises(RefusedError, match="cannot go back: there is no ") as refused:
        shop.redrive(all_of)
    assert "towpath provision" in (refused.value.next_step or "")
    shop.work()
    assert (shop.applied(), shop.waiting()) == (["a1", "b1"], ["x1"])
    run, quarantine = shop.start()
    (dead,) = letters(quarantine, "x1")
    with pytest.raises(RefusedError, match="cannot go back"):
        run.release(key_of(dead), followers=False, wait_seconds=0)
    run.close()
