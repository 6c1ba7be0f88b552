"""A plan is run once, wherever it is killed: on the memory broker, which keeps the promises of the real one."""

import json
import random
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.records.order import OrderConfirmed, OrderRejected
from tests.unit.orchestrator.desktop import CODEC
from towpath.clock import ManualClock
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, RefusedError, WorldError
from towpath.orchestrator.envelope import headers_of
from towpath.replay.captured import line_of, record_of
from towpath.replay.plan import Counted, Plan, Recognition, Target, chosen, problems_of
from towpath.replay.reading import ranges_in, read_file, read_ranges
from towpath.replay.selection import Selection, compile_predicate
from towpath.replay.sending import Progress, Sending, left_of, standing_of, write_file
from towpath.settings import load_settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import OutcomeUnknown
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.view.versions.log import bounds_of

TOPIC, PARTITIONS, PROJECT = "order.events", 3, "shop"


class KilledError(Exception):
    """Stands for SIGKILL."""


def broker_with(count: int, seed: int = 1) -> MemoryBroker:
    """Return a cluster with `count` events, every third a rejection, at rising times."""
    broker, chance = MemoryBroker(load_settings(environment=False).stream), random.Random(seed)
    for topic in (TOPIC, "copy"):
        broker.create_topic(topic, PARTITIONS)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(count):
        key = f"o-{chance.randrange(10)}"
        record: Record = OrderConfirmed(order_id=key, confirmed_at=at)
        if number % 3 == 0:
            record = OrderRejected(order_id=key, reason=f"reason {number}", rejected_at=at)
        headers = headers_of(id=f"e{number}", type=record.SCHEMA_NAME)
        broker.append(
            TOPIC, CODEC.encode(record), key=key.encode(), headers=headers, timestamp_milliseconds=1_000 + number
        )
    return broker


def planned(broker: MemoryBroker, selection: Selection | None = None, target: Target | None = None) -> Plan:
    """Return a plan for what the topic has now."""
    bounds = bounds_of(broker, [TOPIC])
    counted = Counted()
    ranges = {place: (bounds.begins[place], bounds.ends[place]) for place in bounds.ends}
    selection = selection or Selection(topics=(TOPIC,))
    for record in chosen(read_ranges(broker, ranges), selection, CODEC.decode, None):
        counted.add(record, None)
    return Plan("r1", selection, target or Target(), ranges, bounds.topic_ids, False, None, counted.to_json(), [])


def choose(plan: Plan, records: Iterable[ConsumedRecord]) -> Iterable[ConsumedRecord]:
    """Return what a plan sends."""
    return chosen(records, plan.selection, CODEC.decode, None)


def run(broker: MemoryBroker, plan: Plan, *, kill_after: int | None = None) -> Progress:
    """Run a plan; `kill_after` so many transactions."""
    seen = 0

    def keep_on(_: Progress) -> bool:
        nonlocal seen
        seen += 1
        if seen == kill_after:
            raise KilledError
        return True

    return Sending(broker, PROJECT, plan, lambda records: choose(plan, records)).run(keep_on)


def ids(records: Iterable[ConsumedRecord]) -> list[str | None]:
    """Return the ids of records, in their order."""
    return [record.header("id") for record in records]


def replayed(broker: MemoryBroker, topic: str = TOPIC) -> list[ConsumedRecord]:
    """Return what was sent again."""
    return [record for record in broker.records(topic) if record.header("replay_id")]


@pytest.fixture(autouse=True)
def small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run have many transactions."""
    monkeypatch.setattr("towpath.replay.sending.RECORDS_PER_TRANSACTION", 7)


def test_a_plan_killed_again_and_again_sends_each_record_once_and_in_order() -> None:
    """Into the same topics: byte for byte, at their own time, with the replay's id; the order of each key is kept."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    broker, chance = broker_with(100, seed), random.Random(seed)
    before = broker.records(TOPIC)
    plan = planned(broker)
    for _ in range(20):
        broker.append(TOPIC, b"later", key=b"o-1")  # no part of the plan
        try:
            run(broker, plan, kill_after=chance.randrange(1, 4))
        except KilledError:
            continue
        break
    assert run(broker, plan).sent == 0
    again = replayed(broker)
    assert sorted(ids(again), key=str) == sorted(ids(before), key=str)
    for place in plan.ranges:
        mine = [record for record in again if record.topic_partition == place]
        assert ids(mine) == ids(record for record in before if record.topic_partition == place)
    originals = {record.header("id"): record for record in before}
    for record in again:
        original = originals[record.header("id")]
        assert record.headers == (*original.headers, ("replay_id", b"r1"))
        assert record[3:6] == original[3:6]


def test_a_commit_without_an_answer_is_found_in_the_log() -> None:
    """The run ends, and the next one goes on behind what was committed after all."""
    broker = broker_with(30)
    plan = planned(broker)
    broker.faults.order("commit answer", OutcomeUnknown("lost"))
    with pytest.raises(WorldError):
        run(broker, plan)
    run(broker, plan)
    assert len(replayed(broker)) == 30


def test_two_runs_of_a_plan_at_a_time_fence_each_other() -> None:
    """The first one ends and says so; together they send each record once."""
    broker = broker_with(60)
    plan = planned(broker)

    def keep_on(progress: Progress) -> bool:
        if progress.sent == 7:
            run(broker, plan)
        return True

    with pytest.raises(RefusedError, match="another run of replay r1"):
        Sending(broker, PROJECT, plan, lambda records: choose(plan, records)).run(keep_on)
    assert len(replayed(broker)) == 60


def test_a_run_that_is_asked_to_stop_says_what_is_left() -> None:
    """The next run does the rest."""
    broker = broker_with(30)
    plan = planned(broker)
    progress = Sending(broker, PROJECT, plan, lambda records: choose(plan, records)).run(lambda _: False)
    assert progress.sent == 7
    left = left_of(plan, standing_of(broker, PROJECT, plan))
    assert sum(end - begin for begin, end in left.values()) == 23
    assert run(broker, plan).sent == 23


def test_records_go_to_another_topic_into_the_same_partitions() -> None:
    """Where it has as many; and what is selected alone."""
    broker = broker_with(40)
    plan = planned(broker, Selection(topics=(TOPIC,), types=frozenset({"OrderRejected"})), Target(topic="copy"))
    assert plan.records == 14
    run(broker, plan)
    copied = replayed(broker, "copy")
    assert len(copied) == 14
    places = {record.header("id"): record.partition for record in broker.records(TOPIC)}
    assert all(places[record.header("id")] == record.partition for record in copied)
    assert replayed(broker) == []


def test_a_topic_that_was_made_anew_or_has_expired_since_is_not_replayed() -> None:
    """What was looked at is no more."""
    broker = broker_with(40)
    plan = planned(broker)
    place = max(plan.ranges, key=lambda one: plan.ranges[one][1])
    broker.log_of(place).expire(3)
    with pytest.raises(RefusedError, match="have expired since"):
        run(broker, plan)
    other = Plan.from_text("plan", json.dumps({**plan.to_json(), "topic_ids": {TOPIC: "another"}}))
    with pytest.raises(RefusedError, match="made anew"):
        run(broker, other)


def test_by_time_records_come_across_partitions_as_they_were_written() -> None:
    """And those of a partition as they lie, even where a time goes back."""
    broker = broker_with(50)
    plan = planned(broker)
    times = [record.timestamp_milliseconds for record in read_ranges(broker, plan.ranges, by_time=True)]
    assert times == sorted(times)
    broker.append(TOPIC, b"x", key=b"o-1", timestamp_milliseconds=1)
    *_, last = read_ranges(broker, planned(broker).ranges, by_time=True)
    assert last.timestamp_milliseconds in (1, 1_049)


def test_a_file_is_written_on_where_a_killed_run_left_it(tmp_path: Path) -> None:
    """A half line is cut; the file has each record once, and is read back byte for byte."""
    broker = broker_with(50)
    path = tmp_path / "orders.jsonl"
    plan = planned(broker, target=Target(file=str(path)))
    write_file(broker, plan, path, lambda records: choose(plan, records), lambda _: False)
    with path.open("a", encoding="utf-8") as file:
        file.write(line_of(broker.records(TOPIC)[-1])[:40])
    write_file(broker, plan, path, lambda records: choose(plan, records), lambda _: True)
    assert list(read_file(path)) == broker.records(TOPIC)


def test_a_captured_file_is_sent_like_a_topic(tmp_path: Path) -> None:
    """Killed on the way, each of its records goes once."""
    broker = broker_with(50)
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(map(line_of, broker.records(TOPIC))), encoding="utf-8")
    ranges = ranges_in(read_file(path))
    plan = Plan("r2", Selection(), Target(topic="copy"), ranges, {}, False, None, {"records": 50}, [], (), str(path))
    with pytest.raises(KilledError):
        run(broker, plan, kill_after=2)
    run(broker, plan)
    assert sorted(ids(replayed(broker, "copy")), key=str) == sorted(ids(broker.records(TOPIC)), key=str)


def test_a_line_that_is_no_record_is_refused() -> None:
    """With what to do."""
    with pytest.raises(ConfigurationError, match="no captured record"):
        record_of('{"topic": 1}')


def test_a_rate_is_kept() -> None:
    """Between transactions the run waits for as long as its rate asks."""
    clock, moments = ManualClock(), []
    broker = broker_with(20)
    plan = Plan.from_text("plan", json.dumps({**planned(broker).to_json(), "rate": 25.0}))

    def keep_on(_: Progress) -> bool:
        moments.append(round(clock.monotonic_seconds(), 1))
        return True

    Sending(broker, PROJECT, plan, lambda records: choose(plan, records), clock).run(keep_on)
    # Five records a transaction.
    assert moments == [0.0, 0.2, 0.4, 0.6]


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 30),
        (Selection(since_milliseconds=1_010), 20),
        (Selection(until_milliseconds=1_010), 10),
        (Selection(types=frozenset({"OrderRejected"})), 10),
        (Selection(types=frozenset({OrderConfirmed.SCHEMA_NAME})), 20),
        (Selection(ids=frozenset({"e1", "e2", "other"})), 2),
        (Selection(headers={"id": "e1"}), 1),
        (Selection(headers={"tenant": "x"}), 0),
    ],
)
def test_a_selection_takes_what_it_asks_for(selection: Selection, count: int) -> None:
    """Time, type, id and header; it is kept in a plan as it is."""
    records = broker_with(30).records(TOPIC)
    assert sum(map(selection.takes, records)) == count
    assert Selection.from_json(json.loads(json.dumps(selection.to_json()))) == selection


def test_a_predicate_asks_decoded_fields() -> None:
    """What its type does not have makes it not hold; what cannot be read is refused."""
    predicate = compile_predicate('record.reason == "reason 3" && key.startsWith("o-")', CODEC.to_json)
    found = chosen(broker_with(30).records(TOPIC), Selection(), CODEC.decode, predicate)
    assert ids(found) == ["e3"]
    with pytest.raises(ConfigurationError, match="cannot be read"):
        compile_predicate("record.", CODEC.to_json)


def test_what_may_be_done_twice_is_a_problem_of_the_plan() -> None:
    """A consumer that cannot tell, one that has forgotten, records without an id; a file has no consumers."""
    place = TopicPartition(TOPIC, 0)
    counted = Counted()
    counted.add(ConsumedRecord(*place, 0, 0, b"k", None), None)
    known = [
        Recognition("view a", TOPIC, 5, "its ids"),
        Recognition("view b", TOPIC, 5, "its ids", 2, "it has forgotten"),
        Recognition("outside", TOPIC, 5, None),
    ]
    problems = problems_of(counted, Target(), known)
    assert [problem.split(" ")[0] for problem in problems] == ["1", "view", "outside"]
    assert problems_of(counted, Target(file="x"), known) == ()


def test_a_plan_is_read_back_as_it_was_written() -> None:
    """And anything else is refused."""
    plan = planned(broker_with(30), Selection(topics=(TOPIC,), keys=frozenset({"o-1"}), where="key == 'o-1'"))
    assert Plan.from_text("plan", json.dumps(plan.to_json())) == plan
    with pytest.raises(ConfigurationError, match="is no plan"):
        Plan.from_text("plan", "{}")
