"""Releasing a key whose dead letters are gone, on the memory broker: what is left is applied once, in order."""

import asyncio
import os
import random

import pytest

from tests.unit.deadletter.test_redrive import DEAD, Shop, all_of, dead_and_parked, drop, one
from tests.unit.stream.support import SETTINGS, options_for, values, working
from towpath.deadletter.quarantine import CohortKey, Fate
from towpath.deadletter.redrive import Outcome
from towpath.deadletter.redrive_plan import released_steps
from towpath.errors import NotFoundError
from towpath.stream.broker.dead_letter import read_mark
from towpath.stream.broker.port import OutcomeUnknown, TransactionAborted
from towpath.stream.broker.record import TopicPartition

KEY: CohortKey = ("app", 0, b"a", "")
SEEDS = int(os.environ.get("TOWPATH_RELEASE_SEEDS", "3"))
WORKS_MAX = 8
"""A release without a worker beside it: stand-in, count, redrive; and again where the order passes to another topic."""


def forget(shop: Shop, *, letters: int = 1, topic: str = "in.dead") -> None:
    """Let retention take the oldest records of a dead-letter topic."""
    records = shop.broker.records(topic)
    place = TopicPartition(topic, 0)
    before = records[letters].offset if letters < len(records) else shop.broker.end_offsets([place])[place]
    shop.broker.log_of(place).expire(before)


def release(shop: Shop, *, followers: bool = False, wait_seconds: float = 0) -> Outcome:
    """Release the key."""
    run, _ = shop.start()
    try:
        return run.release(KEY, followers=followers, wait_seconds=wait_seconds)
    finally:
        run.close()


def release_and_work(shop: Shop, *, followers: bool = False) -> None:
    """Release and let a worker read in turn, until nothing is left."""
    for _ in range(WORKS_MAX):
        if not waits(shop):
            return
        release(shop, followers=followers)
        shop.work()
    assert not waits(shop)


def waits(shop: Shop) -> bool:
    """Say whether anything of the key is in quarantine."""
    cohort = shop.quarantine().cohorts.get(KEY)
    return cohort is not None and bool(cohort.waiting)


def goes_on(shop: Shop, text: str) -> bool:
    """Say whether the next record of the key is applied at once."""
    shop.put(text)
    shop.work()
    return shop.applied()[-1] == text and not waits(shop)


@pytest.fixture
def shop() -> Shop:
    """Return a shop in which a1 died and is gone; a2 and a3 are parked behind it."""
    found = Shop()
    dead_and_parked(found)
    forget(found)
    return found


def test_without_a_release_the_key_is_parked_for_ever(shop: Shop) -> None:
    """Redriving is refused its turn, and dropping what is left does not bring the count to nothing."""
    assert shop.redrive(all_of).redriven == ()
    shop.redrive(drop("a2", "a3"))
    shop.work()
    shop.put("a4")
    shop.work()
    assert (shop.applied(), shop.waiting()) == (["b1"], ["a4"])


def test_what_is_left_is_applied_in_order_and_the_key_goes_on(shop: Shop) -> None:
    """What is gone is given up; who said so, and why, is in the log."""
    release_and_work(shop)
    assert shop.applied() == ["b1", "a2", "a3"]
    assert goes_on(shop, "a4")
    (stand_in,) = [dead for dead in shop.quarantine().letters() if dead.stands_in]
    assert stand_in.settlement is not None
    assert (stand_in.fate, stand_in.settlement.actor, stand_in.settlement.reason) == (Fate.DROPPED, "kim", "fixed")


def test_what_is_left_can_be_dropped_with_it(shop: Shop) -> None:
    """Nothing of the key is applied, and it goes on."""
    release_and_work(shop, followers=True)
    assert shop.applied() == ["b1"]
    assert goes_on(shop, "a4")


def test_beside_a_worker_it_is_done_in_one_go(shop: Shop) -> None:
    """It waits for each of its steps to be read, and takes along what followed meanwhile."""

    async def main() -> Outcome:
        async with working(shop.handle, options_for(shop.broker, states=("counts",)), ["in", "also"]):
            run, _ = await asyncio.to_thread(shop.start)
            shop.put("a4")
            outcome = await asyncio.to_thread(run.release, KEY, followers=False, wait_seconds=20)
            run.close()
            return outcome

    outcome = asyncio.run(main())
    assert values([dead.record for dead in outcome.redriven]) == ["a2", "a3", "a4"]
    assert (len(outcome.dropped), outcome.left, outcome.died_again, outcome.unread) == (1, (), (), ())
    assert shop.applied() == ["b1", "a2", "a3", "a4"]
    assert goes_on(shop, "a5")


def test_records_that_come_between_its_steps_keep_their_turn(shop: Shop) -> None:
    """Before the stand-in was read, after it, and while what is left was sent back."""
    shop.put("a4")
    release(shop)
    shop.put("a5")
    shop.work()
    release(shop)
    shop.put("a6")
    shop.work()
    release(shop)
    shop.put("a7")
    shop.work()
    release_and_work(shop)
    assert shop.applied() == ["b1", "a2", "a3", "a4", "a5", "a6", "a7"]
    assert goes_on(shop, "a8")


def test_what_dies_again_is_what_the_key_waits_for(shop: Shop) -> None:
    """As after any redrive: the rest goes back behind it."""
    shop.bad = {"a2"}
    for _ in range(3):
        release(shop)
        shop.work()
    assert shop.waiting() == ["a2", "a3"]
    shop.bad = set()
    shop.redrive(all_of)
    shop.work()
    assert shop.applied() == ["b1", "a2", "a3"]
    assert goes_on(shop, "a4")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param("commit", TransactionAborted("no"), id="refused"),
        pytest.param("commit", OutcomeUnknown("lost"), id="question lost"),
        pytest.param("commit answer", OutcomeUnknown("lost"), id="answer lost"),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_step_whose_commit_is_not_heard_of_is_found_in_the_log(
    shop: Shop, step: int, fault: str, error: Exception
) -> None:
    """Whether it stands or not, the next run goes on from what is there."""
    for number in range(WORKS_MAX + 1):
        if not waits(shop):
            break
        if number == step:
            shop.broker.faults.order(fault, error)
        release(shop)
        shop.work()
    assert shop.applied() == ["b1", "a2", "a3"]
    assert goes_on(shop, "a4")


def test_a_stand_in_that_is_not_read_yet_is_waited_for(shop: Shop) -> None:
    """It is announced in the log: no second one is sent, and nothing else is, that would be counted as before it."""
    release(shop)
    ends = shop.broker.end_offsets([TopicPartition("in", 0)])
    assert shop.quarantine().cohorts[KEY].announced == 1
    assert len(release(shop).left) == 2
    assert shop.redrive(all_of).redriven == ()
    assert shop.redrive(drop("a2")).dropped == ()
    assert shop.broker.end_offsets([TopicPartition("in", 0)]) == ends
    shop.work()
    assert shop.quarantine().cohorts[KEY].announced == 0
    release_and_work(shop)
    assert shop.applied() == ["b1", "a2", "a3"]


def test_an_announcement_that_is_gone_does_not_speak_for_the_next(shop: Shop) -> None:
    """Retention takes it before the stand-in that it announced; what is announced after is still to come."""
    announced = [record for record in shop.broker.records("in.dead") if record.header("stand-in")]
    assert announced == []
    release_and_work(shop)
    shop.bad = {"a4"}
    shop.put("a4", "a5")
    shop.work()
    shop.bad = set()
    stand_in = next(dead.record for dead in shop.quarantine().letters() if dead.stands_in)
    shop.broker.log_of(TopicPartition("in.dead", 0)).expire(stand_in.offset)
    release(shop)
    assert shop.quarantine().cohorts[KEY].announced == 1


def test_a_second_stand_in_replaces_the_first(shop: Shop) -> None:
    """The first was counted before the count began anew: it is settled, and frees nothing."""
    release(shop)
    stand_in = shop.broker.records("in")[-1]
    shop.broker.append("in", stand_in.value, key=stand_in.key, headers=stand_in.headers)
    shop.put("a4")
    shop.work()
    cohort = shop.quarantine().cohorts[KEY]
    assert sum(dead.stands_in for dead in cohort.waiting) == 2
    assert cohort.stand_in is not None
    assert cohort.stand_in.letter.offset > stand_in.offset
    release_and_work(shop)
    assert shop.applied() == ["b1", "a2", "a3", "a4"]
    assert goes_on(shop, "a5")


def test_a_release_that_has_begun_is_not_crossed_by_a_redrive(shop: Shop) -> None:
    """What is not counted yet would free the key before its turn; the release itself goes on."""
    release(shop)
    shop.work()
    assert shop.redrive(all_of).redriven == ()
    assert shop.redrive(all_of).dropped == ()
    release_and_work(shop)
    assert shop.applied() == ["b1", "a2", "a3"]
    assert goes_on(shop, "a4")


def test_a_head_that_is_there_does_not_cross_a_release_either() -> None:
    """It is not counted any more than its followers, though nothing seems to be missing."""
    shop = Shop()
    dead_and_parked(shop)
    release(shop)
    shop.work()
    assert shop.redrive(one("a1")).redriven == ()
    release_and_work(shop)
    assert shop.applied() == ["b1", "a1", "a2", "a3"]
    assert goes_on(shop, "a4")


def test_what_dies_again_before_another_topic_had_its_turn(shop: Shop) -> None:
    """The stand-in is settled with the first that is sent, so it is not taken for what the key waits for."""
    shop.put("a4", topic="also")
    shop.work()
    shop.bad = {"a3"}
    for _ in range(3):
        release(shop)
        shop.work()
    assert shop.applied() == ["b1", "a2"]
    assert not any(dead.stands_in and dead.settlement is None for dead in shop.quarantine().letters())
    shop.bad = set()
    release_and_work(shop)
    assert shop.applied() == ["b1", "a2", "a3", "a4"]
    assert goes_on(shop, "a5")


def test_what_is_left_of_a_release_may_be_lost_too(shop: Shop) -> None:
    """Its stand-in is settled and stands for nothing any more: another release begins anew."""
    shop.put("a4", topic="also")
    shop.work()
    shop.put("a5")
    shop.work()
    for _ in range(3):
        release(shop)
        shop.work()
    assert (shop.applied(), sorted(shop.waiting())) == (["b1", "a2", "a3"], ["a4", "a5"])
    forget(shop, letters=len(shop.broker.records("also.dead")), topic="also.dead")
    assert shop.waiting() == ["a5"]
    release_and_work(shop)
    assert shop.applied() == ["b1", "a2", "a3", "a5"]
    assert goes_on(shop, "a6")


def test_what_an_earlier_run_sent_is_read_before_the_count_begins_anew() -> None:
    """It would free what is counted only after that."""
    shop = Shop()
    shop.bad = {"a1"}
    shop.put("a1")
    shop.work()
    shop.put("a2", topic="also")
    shop.work()
    shop.bad = set()
    shop.redrive(one("a1"))
    outcome = release(shop)
    assert (values([dead.record for dead in outcome.left]), outcome.unread) == (["a2"], ("app",))
    assert shop.quarantine().cohorts[KEY].announced == 0
    shop.work()
    release_and_work(shop)
    assert shop.applied() == ["a1", "a2"]
    assert goes_on(shop, "a3")


def test_a_stand_in_is_no_failure_of_the_application(shop: Shop) -> None:
    """It does not count where too many dead records stop a worker."""
    release(shop)
    shop.bad = {"c1"}
    shop.put("c1")
    shop.work(settings=SETTINGS.model_copy(update={"dead_letter_share_max": 0.01}))
    assert shop.waiting() == ["a2", "a3", "", "c1"]


def test_what_is_dropped_before_it_is_counted_frees_nothing(shop: Shop) -> None:
    """The key goes on waiting for the stand-in, and what comes next for its turn."""
    release(shop)
    shop.work()
    assert [dead.letter.offset for dead in shop.redrive(drop("a2")).dropped] == [1]
    shop.put("a4")
    shop.work()
    assert shop.applied() == ["b1"]
    release_and_work(shop)
    assert shop.applied() == ["b1", "a3", "a4"]
    assert goes_on(shop, "a5")


def test_a_stand_in_that_is_counted_can_be_redriven_like_any_letter(shop: Shop) -> None:
    """It has nothing to apply, so it is dropped, and what is behind it goes on."""
    release(shop)
    shop.work()
    release(shop)
    shop.work()
    outcome = shop.redrive(all_of)
    assert [dead.stands_in for dead in outcome.dropped] == [True]
    shop.work()
    assert shop.applied() == ["b1", "a2", "a3"]
    assert goes_on(shop, "a4")


def test_a_head_that_is_still_there_is_redriven_with_the_rest() -> None:
    """Releasing more than is needed loses nothing."""
    shop = Shop()
    dead_and_parked(shop)
    release_and_work(shop)
    assert shop.applied() == ["b1", "a1", "a2", "a3"]
    assert goes_on(shop, "a4")


def test_followers_that_are_gone_are_released_too() -> None:
    """Another dead-letter topic forgets earlier: the head was redriven, and the key still waits."""
    shop = Shop()
    shop.bad = {"a1"}
    shop.put("a1")
    shop.work()
    shop.put("a2", topic="also")
    shop.work()
    shop.bad = set()
    forget(shop, topic="also.dead")
    shop.redrive(one("a1"))
    shop.work()
    shop.put("a3")
    shop.work()
    assert (shop.applied(), shop.waiting()) == (["a1"], ["a3"])
    release_and_work(shop)
    assert shop.applied() == ["a1", "a3"]
    assert goes_on(shop, "a4")


def test_another_application_passes_a_stand_in_over(shop: Shop) -> None:
    """Its own keys are parked for its own reasons; one that parks nothing has nothing to release."""
    release(shop)
    shop.broker.create_topic("counts", 1)  # a changelog is one application's own
    shop.work(application="other")
    shop.broker.create_topic("counts", 1)
    shop.work(application="third", states=())
    assert [dead.letter.application for dead in shop.quarantine().letters() if dead.stands_in] == []
    mark = read_mark(shop.broker.records("in")[-1])
    assert mark is not None
    assert (mark.stand_in, mark.application) == (True, "app")


def test_a_stand_in_that_expires_before_it_is_dropped_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all else of its key, at the last moment: nothing is said to be done."""
    for _ in range(2):
        release(shop)
        shop.work()
    run, _ = shop.start()

    asked: list[float] = []

    def expire_and_go_on(deadline: float) -> bool:
        asked.append(deadline)
        if len(asked) == 2:  # the first time it is the stand-in that is waited for
            forget(shop, letters=1_000)
        return True

    monkeypatch.setattr(run, "_all_read", expire_and_go_on)
    with pytest.raises(NotFoundError, match="no longer there"):
        run.release(KEY, followers=False, wait_seconds=0)
    run.close()


def test_what_a_release_comes_to_can_be_said_before(shop: Shop) -> None:
    """In order, without anything being sent."""
    cohort = shop.quarantine().cohorts[KEY]
    assert [step.fate for step in released_steps(cohort, followers=False)] == [Fate.REDRIVEN, Fate.REDRIVEN]
    assert {step.fate for step in released_steps(cohort, followers=True)} == {Fate.DROPPED}


class Chance:
    """Deaths, retention, redrives, drops and releases, one after the other, as the dice say."""

    ACTIONS = ("put", "put", "put", "work", "work", "work", "forget", "redrive", "drop", "release", "release", "bad")

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.shop = Shop()
        self.shop.bad = {"a1"}
        self.topics: dict[str, str] = {}
        self.gone: set[str] = set()

    def act(self) -> None:
        """Do one thing that is possible."""
        shop, what = self.shop, self.dice.choice(self.ACTIONS)
        if what == "put":
            self.put()
        elif what == "work" and self.topics:
            shop.work()
        elif what == "forget":
            for topic in DEAD:
                lost = shop.broker.records(topic)[: self.dice.randrange(3)]
                self.gone |= {(record.value or b"").decode() for record in lost}
                forget(shop, letters=len(lost), topic=topic)
        elif what == "redrive":
            shop.redrive(all_of)
        elif what == "drop" and waits(shop):
            text = (shop.quarantine().cohorts[KEY].waiting[0].record.value or b"").decode()
            self.gone.add(text)
            shop.redrive(drop(text))
        elif what == "release" and waits(shop):
            release(shop)
        elif what == "bad":
            shop.bad = {f"a{len(self.topics) + 1}"} if self.dice.random() < 0.5 else set()

    def put(self) -> None:
        """Let one more record come."""
        text, topic = f"a{len(self.topics) + 1}", self.dice.choice(("in", "in", "also"))
        self.topics[text] = topic
        self.shop.put(text, topic=topic)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_each_record_is_applied_once_and_in_order(seed: int) -> None:
    """Nothing is missing but what retention took or a person dropped, and in the end the key goes on."""
    chance = Chance(seed)
    shop = chance.shop
    for _ in range(14):
        chance.act()
    shop.bad = set()
    chance.put()
    shop.work()
    for _ in range(4 * len(chance.topics)):  # three for each time that the order passes from one topic to the other
        if waits(shop):
            release(shop)
            shop.work()
    applied = shop.applied()
    assert not waits(shop), f"seed {seed}"
    assert goes_on(shop, "a99"), f"seed {seed}"
    for topic in ("in", "also"):
        own = [text for text in chance.topics if chance.topics[text] == topic]
        assert [text for text in applied if text in own] == [text for text in own if text in applied], f"seed {seed}"
    assert len(applied) == len(set(applied)), f"seed {seed}"
    assert chance.topics.keys() - applied <= chance.gone, f"seed {seed}"
