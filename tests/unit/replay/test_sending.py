"""A plan is run once, wherever it is killed: on the memory broker, which keeps the promises of the real one."""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import fastavro
import pytest
from avro.datafile import DataFileReader
from avro.io import DatumReader

from schemas.records.order import OrderConfirmed, OrderRejected
from tests.unit.orchestrator.desktop import CODEC
from towpath.clock import ManualClock
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, RefusedError, WorldError
from towpath.orchestrator.envelope import headers_of
from towpath.replay import container
from towpath.replay.captured import line_of, record_of
from towpath.replay.plan import Counted, Plan, Recognition, Target, chosen, problems_of
from towpath.replay.progress import Progress, left_of
from towpath.replay.reading import ranges_in, read_file, read_ranges
from towpath.replay.selection import Selection
from towpath.replay.sending import Sending, standing_of
from towpath.replay.source import source_of
from towpath.replay.writing import write_file
from towpath.settings import load_settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Broker, OutcomeUnknown
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


def sending(broker: Broker, plan: Plan) -> Sending:
    """Return a run of a plan from and to one cluster."""
    return Sending(broker, PROJECT, plan, lambda records: choose(plan, records), source_of(broker, plan))


def write(broker: MemoryBroker, plan: Plan, path: Path, *, stop: bool = False) -> Progress:
    """Write a plan's records into a file, or the first chunk of them."""
    chosen_ones = partial(choose, plan)
    return write_file(source_of(broker, plan), plan, path, chosen_ones, lambda _: not stop)


def run(broker: MemoryBroker, plan: Plan, *, kill_after: int | None = None) -> Progress:
    """Run a plan; `kill_after` so many transactions."""
    seen = 0

    def keep_on(_: Progress) -> bool:
        nonlocal seen
        seen += 1
        if seen == kill_after:
            raise KilledError
        return True

    return sending(broker, plan).run(keep_on)


def ids(records: Iterable[ConsumedRecord]) -> list[str | None]:
    """Return the ids of records, in their order."""
    return [record.header("id") for record in records]


def replayed(broker: MemoryBroker, topic: str = TOPIC) -> list[ConsumedRecord]:
    """Return what was sent again."""
    return [record for record in broker.records(topic) if record.header("replay_id")]


@pytest.fixture(autouse=True)
def small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run have many transactions."""
    for module in ("sending", "writing"):
        monkeypatch.setattr(f"towpath.replay.{module}.RECORDS_AT_ONCE", 7)


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


class Killing:
    """A cluster whose user is killed at its n-th call, before or after it: from then on nothing of it arrives."""

    def __init__(self, inner: Any, calls: list[str], at: int, *, after: bool) -> None:
        self._inner = inner
        self._calls = calls
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if len(self._calls) > self._at:
                return None  # `finally` of the killed process, which a killed process does not run
            self._calls.append(name)
            killed = len(self._calls) > self._at
            if killed and not self._after:
                raise KilledError
            answer = found(*arguments, **options)
            if killed:
                raise KilledError
            if name in ("producer", "member", "reader"):
                return Killing(answer, self._calls, self._at, after=self._after)
            return answer

        return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("target", [Target(), Target(topic="copy")])
def test_killed_at_every_call_to_the_cluster_a_plan_sends_each_record_once(target: Target, *, after: bool) -> None:
    """Whichever the last call was that the broker heard: the next run does what is left."""
    stages: Counter[str] = Counter()
    for at in range(10_000):
        broker = broker_with(20)
        before = sorted(ids(broker.records(TOPIC)), key=str)
        plan, calls = planned(broker, target=target), list[str]()
        try:
            sending(cast("Broker", Killing(broker, calls, at, after=after)), plan).run(lambda _: True)
            break
        except KilledError:
            stages[calls[-1]] += 1
        run(broker, plan)
        assert run(broker, plan).sent == 0
        assert sorted(ids(replayed(broker, target.topic or TOPIC)), key=str) == before, f"{calls[-1]}, call {at}"
    assert {"start", "begin", "produce", "commit_for_group", "poll", "committed", "close"} <= stages.keys()


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
        sending(broker, plan).run(keep_on)
    assert len(replayed(broker)) == 60


def test_a_run_that_is_asked_to_stop_says_what_is_left() -> None:
    """The next run does the rest."""
    broker = broker_with(30)
    plan = planned(broker)
    progress = sending(broker, plan).run(lambda _: False)
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


def test_records_go_to_another_cluster_and_killed_on_the_way_each_once() -> None:
    """Where they stand is kept there, with what was sent; a cluster that lacks the topic is named before anything."""
    here, there = broker_with(40), MemoryBroker(load_settings(environment=False).stream)
    plan = planned(here, target=Target(cluster="other.toml"))

    def sent(*, kill: bool = False) -> Progress:
        def keep_on(_: Progress) -> bool:
            if kill:
                raise KilledError
            return True

        chosen_ones, source = partial(choose, plan), source_of(here, plan)
        return Sending(there, PROJECT, plan, chosen_ones, source, lambda value: b"!" + value).run(keep_on)

    with pytest.raises(RefusedError, match=r"the cluster has no order.events\[0\]"):
        sent()
    there.create_topic(TOPIC, PARTITIONS)
    for _ in range(3):
        with pytest.raises(KilledError):
            sent(kill=True)
    assert sent().sent == 40 - 3 * 7
    assert replayed(here) == []
    arrived = {record.header("id"): record for record in there.records(TOPIC)}
    assert len(there.records(TOPIC)) == len(arrived) == 40
    for record in here.records(TOPIC):
        assert arrived[record.header("id")].value == b"!" + (record.value or b"")
        assert arrived[record.header("id")].partition == record.partition


def test_a_cluster_without_the_source_topic_takes_its_records_into_another() -> None:
    """Where it stands is kept under the topic that is there."""
    here, there = broker_with(20), MemoryBroker(load_settings(environment=False).stream)
    there.create_topic("copy", PARTITIONS)
    plan = planned(here, target=Target(topic="copy", cluster="other.toml"))
    chosen_ones = partial(choose, plan)
    for sent in (20, 0):
        assert Sending(there, PROJECT, plan, chosen_ones, source_of(here, plan)).run(lambda _: True).sent == sent
    assert len(replayed(there, "copy")) == 20


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


@pytest.mark.parametrize("suffix", ["jsonl", "avro"])
def test_a_file_is_written_on_where_a_killed_run_left_it(tmp_path: Path, suffix: str) -> None:
    """Cut anywhere, within a line, a block or the header: what is half is cut, and each record is there once."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    broker, path = broker_with(50, seed), tmp_path / f"orders.{suffix}"
    plan = planned(broker, target=Target(file=str(path)))
    write(broker, plan, path, stop=True)
    begun = path.stat().st_size
    assert write(broker, plan, path).sent == 43
    whole = path.read_bytes()
    for length in {0, 1, begun - 1, begun, begun + 1, *random.Random(seed).sample(range(len(whole)), 40)}:
        path.write_bytes(whole[:length])
        write(broker, plan, path)
        assert list(read_file(path)) == broker.records(TOPIC), f"cut at {length} of {len(whole)}"
    assert write(broker, plan, path).sent == 0


@pytest.mark.parametrize("suffix", ["jsonl", "avro"])
def test_of_two_runs_into_one_file_the_earlier_writes_no_record_again(tmp_path: Path, suffix: str) -> None:
    """The later one writes all of it while the earlier one is between reading and writing."""
    broker, path = broker_with(60), tmp_path / f"orders.{suffix}"
    plan = planned(broker, target=Target(file=str(path)))
    begun = 0

    def choose_slowly(records: Iterable[ConsumedRecord]) -> list[ConsumedRecord]:
        nonlocal begun
        begun += 1
        if begun == 3:
            write(broker, plan, path)
        return list(choose(plan, records))

    with pytest.raises(RefusedError, match="another run of replay r1"):
        write_file(source_of(broker, plan), plan, path, choose_slowly, lambda _: True)
    assert list(read_file(path)) == broker.records(TOPIC)


def test_any_avro_library_reads_a_captured_container(tmp_path: Path) -> None:
    """Apache's own, for one; what follows the last whole block is said, not passed over."""
    broker, path = broker_with(20), tmp_path / "orders.avro"
    write(broker, planned(broker), path)
    with path.open("rb") as file, DataFileReader(file, DatumReader()) as reader:
        found: list[Any] = list(reader)
    assert [one["offset"] for one in found] == [record.offset for record in broker.records(TOPIC)]
    assert {one["value"] for one in found} == {record.value for record in broker.records(TOPIC)}
    path.write_bytes(path.read_bytes() + b"half a block")
    with pytest.raises(ConfigurationError, match="is not whole"):
        list(read_file(path))


@pytest.mark.parametrize("damage", [b"avro.schemb", b"Obj\x01"])
def test_a_container_with_a_damaged_header_is_neither_cut_nor_taken_for_an_empty_one(
    tmp_path: Path, damage: bytes
) -> None:
    """A codec that is not here, another library's file: what cannot be read is said, and stays."""
    broker, path = broker_with(20), tmp_path / "orders.avro"
    write(broker, planned(broker), path)
    whole = path.read_bytes()
    damaged = damage * 400 if damage == b"Obj\x01" else whole.replace(b"avro.schema", damage)
    path.write_bytes(damaged)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read_file(path))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        write(broker, planned(broker), path)
    assert path.read_bytes() == damaged
    path.write_bytes(whole[:40])
    with pytest.raises(ConfigurationError, match="is not whole"):
        list(read_file(path))
    assert write(broker, planned(broker), path).sent == 20


def test_a_container_of_no_records_is_whole(tmp_path: Path) -> None:
    """Another library may write one."""
    path = tmp_path / "none.avro"
    with path.open("wb") as file:
        fastavro.writer(file, container.SCHEMA, [])
    assert list(read_file(path)) == []
    broker = broker_with(5)
    assert write(broker, planned(broker), path).sent == 5
    assert len(list(read_file(path))) == 5


def test_a_container_of_other_records_is_refused(tmp_path: Path) -> None:
    """It is somebody's file: nothing is written behind it."""
    path = tmp_path / "other.avro"
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Other", "fields": []}, [{}])
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another schema"):
        write(broker_with(5), planned(broker_with(5)), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["jsonl", "avro"])
def test_a_captured_file_is_sent_like_a_topic(tmp_path: Path, suffix: str) -> None:
    """Killed on the way, each of its records goes once."""
    broker = broker_with(50)
    path = tmp_path / f"orders.{suffix}"
    write(broker, planned(broker), path)
    ranges = ranges_in(read_file(path))
    plan = Plan("r2", Selection(), Target(topic="copy"), ranges, {}, False, None, {"records": 50}, [], (), str(path))
    with pytest.raises(KilledError):
        run(broker, plan, kill_after=2)
    run(broker, plan)
    assert sorted(ids(replayed(broker, "copy")), key=str) == sorted(ids(broker.records(TOPIC)), key=str)


@pytest.mark.parametrize("suffix", ["jsonl", "avro"])
def test_a_captured_file_out_of_order_is_refused(tmp_path: Path, suffix: str) -> None:
    """`cat later earlier`, or one of them twice: a run that was killed would pass over what lies lower, further on."""
    broker, path = broker_with(50), tmp_path / f"orders.{suffix}"
    records = broker.records(TOPIC)
    earlier = [record for record in records if record.offset < 5]
    later = [record for record in records if record.offset >= 5]
    for found in ([*earlier, *later], [*later, *earlier], [*records, *later], [*records, records[0]]):
        if suffix == "avro":
            with path.open("wb") as file:
                container.append(file, found)
        else:
            path.write_text("".join(map(line_of, found)), encoding="utf-8")
        if len(found) == 50 and found[0] in earlier:
            assert list(read_file(path)) == found
            continue
        plan = replace(
            planned(broker, target=Target(topic="copy")), source=str(path), ranges=ranges_in(read_file(path))
        )
        with pytest.raises(ConfigurationError, match="in the order of their offsets"):
            list(source_of(broker, plan).read(plan.ranges))


def test_a_record_goes_back_into_its_own_partition_though_its_topic_has_grown() -> None:
    """A view knows ids by partition: in another one, the record is folded once more."""
    broker = broker_with(60)
    plan = replace(planned(broker), partition_counts={TOPIC: PARTITIONS})
    before = {record.header("id"): record.partition for record in broker.records(TOPIC)}
    broker.grow_topic(TOPIC, 2 * PARTITIONS)
    run(broker, plan)
    assert {record.header("id"): record.partition for record in replayed(broker)} == before


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

    source = source_of(broker, plan)
    Sending(broker, PROJECT, plan, partial(choose, plan), source, clock=clock).run(keep_on)
    # Five records a transaction.
    assert moments == [0.0, 0.2, 0.4, 0.6]


@pytest.mark.parametrize(
    "damage",
    [
        {"ranges": [{"topic": TOPIC, "partition": 0, "begin": "x", "end": 1}]},
        {"ranges": [{"topic": None, "partition": 0, "begin": 0, "end": 1}]},
        {"ranges": "x"},
        {"counted": {}},
        {"counted": "x"},
        {"selection": []},
        {"selection": {"nothing": 1}},
        {"to": {"place": "x"}},
        {"rate": "fast"},
        {"partition_counts": [1]},
        {"outbox": "order"},
    ],
)
def test_a_damaged_plan_is_no_plan(damage: dict[str, Any]) -> None:
    """Whatever of it is damaged: nothing is begun with it."""
    plain = planned(broker_with(3)).to_json()
    assert Plan.from_text("plan", json.dumps(plain)).to_json() == plain
    with pytest.raises(ConfigurationError, match="is no plan"):
        Plan.from_text("plan", json.dumps({**plain, **damage}))


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


@pytest.mark.parametrize("suffix", ["jsonl", "avro", "txt"])
@pytest.mark.parametrize("content", [b"a letter without a line's end", b"a letter\n", b"\xff\xfe\x00", b'{"topic"'])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, suffix: str, content: bytes) -> None:
    """Whatever it ends with: only what a killed run left half of a record is cut."""
    broker, path = broker_with(5), tmp_path / f"letter.{suffix}"
    path.write_bytes(content)
    if content == b'{"topic"':  # how a record begins
        assert write(broker, planned(broker), path).sent == 5
        return
    with pytest.raises(ConfigurationError, match="no captured record"):
        write(broker, planned(broker), path)
    assert path.read_bytes() == content
    with pytest.raises(ConfigurationError, match="no captured record"):
        list(read_file(path))


def test_a_record_that_another_program_wrote_last_is_not_cut(tmp_path: Path) -> None:
    """It has no line's end, but it is whole, and in another form than ours: no killed run left it half."""
    broker, path = broker_with(5), tmp_path / "orders.jsonl"
    write(broker, planned(broker), path)
    *_, last = path.read_text(encoding="utf-8").splitlines()
    path.write_text(json.dumps(json.loads(last), sort_keys=True), encoding="utf-8")
    content = path.read_bytes()
    with pytest.raises(ConfigurationError, match="no captured record"):
        write(broker, planned(broker), path)
    assert path.read_bytes() == content


def test_a_file_of_another_plan_is_left_as_it_is(tmp_path: Path) -> None:
    """Its records would count as sent."""
    broker, path = broker_with(20), tmp_path / "orders.jsonl"
    write(broker, planned(broker), path)
    whole = path.read_bytes()
    plan = planned(broker)
    shorter = replace(plan, ranges={place: (begin, end - 1) for place, (begin, end) in plan.ranges.items()})
    with pytest.raises(RefusedError, match="it is of another"):
        write(broker, shorter, path)
    assert path.read_bytes() == whole


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A folder that is not there, and a folder in its place."""
    broker = broker_with(5)
    for path in (tmp_path / "nowhere" / "orders.jsonl", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            write(broker, planned(broker), path)
