"""A handler that blocks its worker past the transaction's time-out: it is found, and dead after its attempts."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stream.support import SETTINGS, memory_broker, values
from tests.unit.stream.test_agents import done, make_app, run
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import Backlog, Work
from towpath.stream.engine.suspects import Suspects, Suspicion

BLOCKING = SETTINGS.model_copy(
    update={
        "batch_seconds_max": 0.8,
        "transaction_timeout_seconds": 1.2,
        "session_timeout_seconds": 4.0,
        "poll_interval_seconds_max": 20.0,
        "handler_attempts_max": 2,
    }
)
EVICTING = BLOCKING.model_copy(update={"session_timeout_seconds": 1.25, "poll_interval_seconds_max": 1.3})


@pytest.mark.parametrize("settings", [BLOCKING, EVICTING], ids=["in its group", "out of its group"])
@pytest.mark.parametrize("sends", ["before", "after"])
def test_a_handler_that_blocks_is_found_and_innocents_go_on(tmp_path: Path, settings: Any, sends: str) -> None:
    """Whether its transaction has ended when it sends, or its partitions are lost when it returns: the same."""
    broker = memory_broker(partitions=1, **settings.model_dump())
    for index in range(12):
        broker.append("in", b"BAD" if index == 7 else str(index).encode())
    app = make_app(broker, tmp_path, stream=settings)

    @app.agent(app.batch_topic("in"))
    async def agent(stream: Any) -> None:
        async for batch in stream:
            if sends == "before":
                for record in batch:
                    app.unit.send("out", record.value)
            if any(record.value == b"BAD" for record in batch):
                time.sleep(1.5)
            if sends == "after":
                for record in batch:
                    app.unit.send("out", record.value)

    run(app, done(broker, 12))
    assert values(broker.records("out")) == [str(index) for index in range(12) if index != 7]
    (dead,) = broker.records("in.dead")
    letter = read_dead_letter(dead.header("dead") or "")
    assert (dead.value, letter.error, letter.attempts) == (b"BAD", "HandlerTooSlow", 2)


def record(offset: int, partition: int = 0) -> ConsumedRecord:
    return ConsumedRecord("in", partition, offset, 0, None, b"")


def groups(*offsets: int) -> Groups:
    return {TopicPartition("in", 0): [record(offset) for offset in offsets]}


def offsets(work: Work) -> list[int]:
    return [record.offset for records in work.groups.values() for record in records]


def test_what_failures_taught_outlives_a_rebalance() -> None:
    """Pieces of a batch that failed are run one by one when they are read again, and attempts count on."""
    backlog = Backlog(100)
    backlog.put_back([Work(groups(0, 1), cut=True), Work(groups(2), attempts=2, cut=True), Work(groups(3))])
    backlog.drop(frozenset({TopicPartition("in", 0)}))
    backlog.add(groups(0, 1, 2, 3, 4))
    found = []
    while (work := backlog.take()) is not None:
        found.append((offsets(work), work.attempts))
    assert found == [([0], 0), ([1], 0), ([2], 2), ([3, 4], 0)]
    backlog.committed(TopicPartition("in", 0), 5)
    backlog.add(groups(0, 1, 2))
    again = backlog.take()
    assert again is not None
    assert offsets(again) == [0, 1, 2]


def test_suspects_leave_other_partitions_alone() -> None:
    """Only the partition that holds a suspect is cut; the suspicion with more attempts is kept."""
    suspects = Suspects()
    suspects.note(groups(1), Suspicion(2))
    suspects.note(groups(1), Suspicion())
    other = {TopicPartition("in", 1): [record(0, 1), record(1, 1)]}
    pieces = suspects.sort({**groups(0, 1), **other})
    assert pieces == [(other, None), (groups(0), None), (groups(1), Suspicion(2))]
