"""What comes from quarantine, read again after offsets were set back; and other records at offsets of quarantine."""

import asyncio
from datetime import datetime, timedelta

import pytest

from tests.unit.deadletter.test_redrive import Shop, all_of, dead_and_parked, drop, one
from tests.unit.stream.support import options_for, values, working
from tests.unit.stream.test_held_partitions import PLACE, accept, committed, cut_noted, holding
from towpath.clock import SystemClock
from towpath.errors import RefusedError
from towpath.stream.broker.position import HoldKind
from towpath.stream.engine import holds
from towpath.stream.engine.worker_status import WorkerStatus


class Ahead(SystemClock):
    """A clock that is an hour ahead."""

    def now(self) -> datetime:
        """Return the time that it shows."""
        return super().now() + timedelta(hours=1)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def set_back(shop: Shop, offset: int = 0) -> None:
    """Have the topic read again from an offset on."""
    with shop.broker.changed:
        shop.broker.group("app").offsets[PLACE] = offset


def settle(shop: Shop) -> None:
    """Redrive until nothing waits."""
    for _ in range(6):
        if shop.waiting():
            shop.redrive(all_of)
            shop.work()


def test_a_key_is_not_freed_by_what_was_redriven_once_already(shop: Shop) -> None:
    """One that came after the redrive still waits; what comes now follows it."""
    dead_and_parked(shop)
    shop.put("a4")
    shop.redrive(one("a1"))
    shop.work()
    assert shop.waiting() == ["a4"]
    set_back(shop)
    shop.put("a5")
    shop.work()
    assert shop.waiting() == ["a4", "a5"]
    assert "a5" not in shop.applied()


def test_what_died_again_is_one_letter(shop: Shop) -> None:
    """Its first death and its redrive lie before the second in the same log."""
    shop.bad = {"a1"}
    shop.put("a1")
    shop.work()
    shop.redrive(one("a1"))
    shop.work()
    set_back(shop)
    shop.put("b1")
    shop.work()
    assert shop.waiting() == ["a1"]
    shop.bad = set()
    settle(shop)
    assert shop.applied().count("a1") == 1


def test_what_was_redriven_before_its_key_was_parked_anew_takes_nothing_from_it(shop: Shop) -> None:
    """It had its turn: it is applied again, as what was never in quarantine is, and no letter is added."""
    dead_and_parked(shop)
    shop.redrive(one("a1"))
    shop.work()
    shop.bad = {"a4"}
    shop.put("a4", "a5")
    shop.work()
    assert shop.waiting() == ["a4", "a5"]
    set_back(shop)
    shop.put("b2")
    shop.work()
    assert shop.waiting() == ["a4", "a5"]


def test_what_was_dropped_before_its_key_was_parked_anew_does_not_free_it(shop: Shop) -> None:
    """The mark of the drop lies in the log, and is of an earlier letter."""
    shop.bad = {"a1"}
    shop.put("a1")
    shop.work()
    shop.redrive(drop("a1"))
    shop.work()
    shop.bad = {"a2"}
    shop.put("a2")
    shop.work()
    set_back(shop, 1)
    shop.bad = set()
    shop.put("a4")
    shop.work()
    assert shop.waiting() == ["a2", "a4"]
    settle(shop)
    assert shop.applied() == ["a2", "a4"]


@pytest.mark.parametrize("left", [2, 0], ids=["lost its tail", "lost all"])
def test_a_new_record_at_an_offset_of_quarantine_follows(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """What went into quarantine there is there; this one is another, and its key waits."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    statuses: list[WorkerStatus] = []
    shop.bad = {"a0"}
    shop.put("a0", "a1", "a2", "a3")
    shop.work()
    shop.broker.log_of(PLACE).truncate(left)
    new = [f"a{number}" for number in range(4, 10 - left)]

    async def main() -> None:
        options = options_for(shop.broker, states=("counts",), on_status=statuses.append)
        async with working(shop.handle, options, ["in", "also"]) as worker:
            await worker.until(holding(statuses, HoldKind.BEYOND_END))
            await worker.until(cut_noted(shop.broker))
            accept(shop.broker, PLACE, left)
            shop.put(*new)
            await worker.until(lambda: committed(shop.broker) == 6)

    asyncio.run(main())
    assert shop.waiting() == ["a0", "a1", "a2", "a3", *new]
    assert not shop.applied()


def test_a_record_that_its_topic_does_not_take_again_keeps_no_other_back(shop: Shop) -> None:
    """With what says that it is redriven it is too large by some bytes; once its topic takes more, it goes."""
    shop.broker.create_topic("in", 1, {"max.message.bytes": "1000"})
    large = "a" + "x" * 850
    shop.bad = {large, "b1"}
    shop.put(large, "b1")
    shop.work()
    shop.bad = set()
    with pytest.raises(RefusedError, match="of the key a, partition 0, does not fit its topic") as refused:
        shop.redrive(all_of)
    assert "max.message.bytes" in (refused.value.next_step or "")
    shop.work()
    assert shop.applied() == ["b1"]
    assert shop.waiting() == [large]
    shop.broker.configure_topic("in", {"max.message.bytes": "10000"})
    settle(shop)
    assert shop.applied() == ["b1", large]


def test_a_clock_that_was_ahead_does_not_keep_a_key_waiting(shop: Shop) -> None:
    """A record died by it, and again by a clock that is right: the second death came later all the same."""
    shop.bad = {"a1"}
    shop.put("a1", "a2")
    shop.work(clock=Ahead())
    shop.redrive(one("a1"))
    shop.work()
    shop.bad = set()
    settle(shop)
    assert shop.applied() == ["a1", "a2"]
    assert len(values(shop.broker.records("in.dead"))) < 10
