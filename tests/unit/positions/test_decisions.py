"""A person lets a held partition go on: once, on the record, and beside the worker that holds it."""

import asyncio
import json

import pytest

from tests.unit.stream.support import copy, memory_broker, options_for, values, working
from towpath.clock import SystemClock
from towpath.deadletter.quarantine import sort_quarantine
from towpath.errors import ConfigurationError, NotFoundError, RefusedError
from towpath.positions.decision import decide
from towpath.positions.group import accept_in_group, group_standings
from towpath.positions.rewriting import give_up, plan_rewriting, rewrite
from towpath.stream.broker.dead_letter import POSITION_HEADER
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.position import HoldKind
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.state.partition_state import Checkpoint, MemoryStore

PLACE, CHANGELOG = TopicPartition("in", 0), TopicPartition("counts", 0)


def put(broker: MemoryBroker, *texts: str) -> None:
    for text in texts:
        broker.append("in", text.encode(), key=b"k", partition=0)


def committed(broker: MemoryBroker) -> int:
    return broker.committed_offsets("app").get(PLACE, 0)


def with_position(broker: MemoryBroker, offset: int) -> None:
    with broker.changed:
        broker.group("app").commit({PLACE: offset})


def test_an_accepted_loss_lets_a_running_worker_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Position and record of the decision are one transaction; the quarantine does not take the record for a letter."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)
    broker = memory_broker(partitions=1)
    put(broker, "v0", "v1", "v2")
    statuses: list[WorkerStatus] = []

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: committed(broker) == 3)
        broker.log_of(PLACE).truncate(1)
        async with working(copy, options_for(broker, on_status=statuses.append), ["in"]) as worker:
            # Until the cluster has answered nothing is noted, and who looks beside the worker sees no cut.
            await worker.until(lambda: "lost tail at 1" in str(broker.group("app").notes))
            put(broker, "new1", "new2", "new3", "new4")
            (standing,) = group_standings(broker, "app", [PLACE])
            assert standing.held is not None
            assert standing.held.kind is HoldKind.BEYOND_END
            decision = decide(standing, 1, actor="ada", reason="restored from a backup")
            accept_in_group(broker, decision, SystemClock())
            await worker.until(lambda: committed(broker) == 5)

    asyncio.run(main())
    assert values(broker.records("out")) == ["v0", "v1", "v2", "new1", "new2", "new3", "new4"]
    (audit,) = broker.records("in.dead")
    written = json.loads(audit.header(POSITION_HEADER) or "")
    assert (written["offset_before"], written["offset_after"], written["actor"]) == (3, 1, "ada")
    assert sort_quarantine([audit]).strangers == ()
    (standing,) = group_standings(broker, "app", [PLACE])
    assert standing.held is None


def test_what_may_not_be_decided_is_refused() -> None:
    """A position that its log has, one that is not there yet, an offset outside the log, a reason without words."""
    broker = memory_broker(partitions=1)
    put(broker, "v0", "v1", "v2", "v3")
    (standing,) = group_standings(broker, "app", [PLACE])
    with pytest.raises(NotFoundError, match="has read nothing"):
        decide(standing, None, actor="ada", reason="why not")
    with_position(broker, 2)
    (standing,) = group_standings(broker, "app", [PLACE])
    assert (standing.lag, standing.held) == (2, None)
    with pytest.raises(RefusedError, match="there is nothing to accept"):
        decide(standing, 0, actor="ada", reason="again, please")
    broker.log_of(PLACE).expire(3)
    (standing,) = group_standings(broker, "app", [PLACE])
    with pytest.raises(ConfigurationError, match="offsets 3 to 4, not 2"):
        decide(standing, 2, actor="ada", reason="go on")
    with pytest.raises(ConfigurationError, match="needs a reason"):
        decide(standing, None, actor="ada", reason=" ")
    decision = decide(standing, None, actor="ada", reason="go on")
    assert (decision.offset_after, decision.forgets_from) == (3, None)  # the log has what it had


def test_where_nobody_has_noted_where_a_log_was_cut_a_person_says_where_to_go_on() -> None:
    """It may have grown since, while no worker ran: its end lies behind records that nobody has applied."""
    broker = memory_broker(partitions=1)
    put(broker, "v0", "v1", "v2")
    with_position(broker, 3)
    broker.log_of(PLACE).truncate(1)
    put(broker, "new1")
    (standing,) = group_standings(broker, "app", [PLACE])
    assert standing.held is not None
    assert "--from OFFSET" in (standing.held.next_step or "")
    with pytest.raises(ConfigurationError, match=r"where to go on .* cannot be told"):
        decide(standing, None, actor="ada", reason="restored from a backup")
    decision = decide(standing, 1, actor="ada", reason="restored from a backup")
    assert (decision.offset_after, decision.forgets_from) == (1, 1)


def store_of(broker: MemoryBroker, offset: int) -> MemoryStore:
    store = MemoryStore()
    content = {b"a": b"1", b"b": b"2", b"\x00p1": b"parked"}
    store.apply(content, Checkpoint(offset, broker.topic_ids(["counts"])["counts"], 0))
    return store


def content(broker: MemoryBroker) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for record in broker.records("counts"):
        assert record.key is not None
        found[record.key] = record.value or b"(none)"
    return {key: value for key, value in found.items() if not key.startswith(b"\x00d")}


def test_a_store_is_written_back_into_a_changelog_made_anew() -> None:
    """Timers and parked keys included; run again, there is nothing left to do."""
    broker = memory_broker(partitions=1)
    store = store_of(broker, 7)
    broker.create_topic("counts", 1)
    plan = plan_rewriting(broker, CHANGELOG, store)
    assert plan.keys == 3
    rewrite(broker, plan, store, SystemClock(), application="app", decision=b"{}")
    assert content(broker) == {b"a": b"1", b"b": b"2", b"\x00p1": b"parked"}
    with pytest.raises(RefusedError, match="nothing to write back"):
        plan_rewriting(broker, CHANGELOG, store)


def test_a_lost_tail_is_written_back_with_what_it_removed() -> None:
    """A key that only the changelog still has was deleted in the part that it lost."""
    broker = memory_broker(partitions=1)
    for key, value in ((b"a", b"0"), (b"deleted", b"9")):
        broker.append("counts", value, key=key, partition=0)
    store = store_of(broker, 5)
    plan = plan_rewriting(broker, CHANGELOG, store)
    assert plan.changes == {b"deleted": None, b"a": b"1", b"b": b"2", b"\x00p1": b"parked"}
    rewrite(broker, plan, store, SystemClock(), application="app", decision=b"{}")
    assert content(broker)[b"deleted"] == b"(none)"
    assert content(broker)[b"a"] == b"1"


def test_a_changelog_that_others_have_begun_with_is_not_overwritten() -> None:
    """What another worker wrote into it since is no loss to repair: a person compares, or gives the store up."""
    broker = memory_broker(partitions=1)
    store = store_of(broker, 7)
    broker.create_topic("counts", 1)
    broker.append("counts", b"5", key=b"a", partition=0)
    with pytest.raises(RefusedError, match="another worker has begun with it"):
        plan_rewriting(broker, CHANGELOG, store)
    assert give_up(broker, CHANGELOG, store, SystemClock(), application="app", decision=b"{}") == 3
    assert store.checkpoint() is None
    assert content(broker) == {b"a": b"5"}
