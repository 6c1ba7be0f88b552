"""Whatever a handler raises, and whatever it names: the record itself is the letter, or the world is waited for."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.unit.stream.support import Handler, memory_broker, options_for, values, working
from towpath.errors import PeerError, WorldError
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.position import HoldKind, PartitionHeld
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.unit import KafkaUnit

PLACE = TopicPartition("in", 0)
NamedError = Callable[[BaseException], BaseException]


class ApiError(Exception):
    """An error whose attributes are looked up in what a peer answered, as some clients have them."""

    def __getattr__(self, name: str) -> object:
        """Raise KeyError."""
        raise KeyError(name)


def run(handler: Handler, *texts: str, **changes: Any) -> MemoryBroker:
    """Return the broker once a worker has dealt with these records."""
    broker = memory_broker(partitions=1)
    for text in texts:
        broker.append("in", text.encode(), key=text.encode())

    async def main() -> None:
        async with working(handler, options_for(broker, states=("counts",), **changes), ["in"]) as worker:
            await worker.until(lambda: broker.committed_offsets("app").get(PLACE) == len(texts))

    asyncio.run(main())
    return broker


def refusing(failed: Callable[[ConsumedRecord], RecordFailed]) -> Handler:
    """Return a handler that copies, and raises what `failed` makes of the record `bad`."""

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for record in (record for records in groups.values() for record in records):
            if record.value == b"bad":
                raise failed(record)
            unit.send("out", record.value)

    return handler


def test_a_handler_may_name_a_copy_that_it_has_changed() -> None:
    """The letter has the record as it came: what is redriven is what was sent."""

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for record in (record for records in groups.values() for record in records):
            plain = record._replace(value=(record.value or b"").removeprefix(b"enc:"))
            if plain.value == b"bad":
                raise RecordFailed(plain, PeerError("no"))
            unit.send("out", plain.value)

    broker = run(handler, "enc:1", "enc:bad", "enc:2")
    assert values(broker.records("in.dead")) == ["enc:bad"]
    assert values(broker.records("out")) == ["1", "2"]


def test_a_handler_may_name_a_record_that_is_not_there() -> None:
    """It says nothing of whose fault it is: smaller units tell."""
    broker = run(refusing(lambda record: RecordFailed(record._replace(offset=99), PeerError("no"))), "1", "bad", "2")
    assert values(broker.records("in.dead")) == ["bad"]


def test_a_peer_that_is_away_in_a_task_group_is_waited_for() -> None:
    """The error is a group's, and what is in it is the world's."""
    runs = 0

    async def call() -> None:
        if runs <= 4:
            raise ConnectionError("the peer is away")

    async def handler(unit: KafkaUnit, _: Groups) -> None:
        nonlocal runs
        runs += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(call())
        unit.send("out", b"done")

    broker = run(handler, "good")
    assert not broker.records("in.dead")
    assert values(broker.records("out")) == ["done"]


def test_an_error_that_answers_no_question_is_one_letter() -> None:
    """Nothing is asked of it but its words."""
    broker = run(refusing(lambda record: RecordFailed(record, ApiError("api"))), "1", "bad", "2")
    assert values(broker.records("in.dead")) == ["bad"]
    assert values(broker.records("out")) == ["1", "2"]


def test_a_task_groups_errors_are_told_in_the_letter() -> None:
    """Nested, too; one that says nothing by its class."""

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        inner = ExceptionGroup("further", [ApiError("away"), ValueError()])
        raise ExceptionGroup("two went wrong", [ValueError("first is bad"), inner])

    (letter,) = run(handler, "a").records("in.dead")
    cause = json.loads(dict(letter.headers)["dead"] or b"")["cause"]
    assert cause.startswith("two went wrong (2 sub-exceptions): ValueError: first is bad; ExceptionGroup: further (2 ")
    assert cause.endswith(": ApiError: ApiError; ValueError: ValueError")


@pytest.mark.parametrize("named", [False, True], ids=["", "record named"])
def test_a_hold_in_a_task_group_holds_its_partition_alone(*, named: bool) -> None:
    """As where the error comes by itself; the others go on."""
    broker = memory_broker(partitions=2)
    for number in (0, 1):
        broker.append("in", str(number).encode(), partition=number)

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for record in (record for records in groups.values() for record in records):
            if record.partition == 0:
                held = PartitionHeld(HoldKind.VERSION, "missing", next_step="add it")
                raise ExceptionGroup("of a task group", [RecordFailed(record, held) if named else held])
            unit.send("out", record.value)

    async def main() -> None:
        async with working(handler, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: broker.committed_offsets("app").get(TopicPartition("in", 1)) == 1)
            await asyncio.sleep(0.5)  # a dead letter would come after three attempts, 0.05 s apart

    asyncio.run(main())
    assert values(broker.records("out")) == ["1"]
    assert values(broker.records("in.dead")) == []


def test_what_a_task_group_does_not_know_is_learned() -> None:
    """As where the peer's error comes by itself."""
    known = False

    def learn(error: BaseException) -> BaseException:
        nonlocal known
        assert isinstance(error, PeerError)
        known = True
        return WorldError("learned")

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for record in (record for records in groups.values() for record in records):
            if not known:
                raise ExceptionGroup("of a task group", [PeerError("unknown")])
            unit.send("out", record.value)

    broker = run(handler, "1", learn=learn)
    assert values(broker.records("out")) == ["1"]


def test_a_peer_away_for_a_record_that_a_task_group_names_is_waited_for() -> None:
    """Named or not: the error is the world's."""
    runs = 0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal runs
        runs += 1
        for record in (record for records in groups.values() for record in records):
            if runs <= 4:
                raise ExceptionGroup("of a task group", [RecordFailed(record, ConnectionError("away"))])
            unit.send("out", record.value)

    broker = run(handler, "good")
    assert not broker.records("in.dead")
    assert values(broker.records("out")) == ["good"]


def test_the_record_that_a_task_group_names_is_the_one() -> None:
    """Its letter tells the cause, not the group's words."""

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        for record in (record for records in groups.values() for record in records):
            if record.value == b"bad":
                raise ExceptionGroup("of a task group", [ValueError("other"), RecordFailed(record, PeerError("no"))])
            unit.send("out", record.value)

    broker = run(handler, "1", "bad", "2")
    (letter,) = broker.records("in.dead")
    assert b'"kind": "peer"' in (dict(letter.headers)["dead"] or b"")


def grouping(shared: Callable[[list[ConsumedRecord]], Coroutine[Any, Any, None]], named: NamedError) -> Handler:
    """Return a handler that copies what one task for all records, and one of its own for each, have let pass.

    Only the shared task fails by itself; `named` is what a record's own task makes of being cancelled for that.
    """

    async def one(record: ConsumedRecord) -> None:
        try:
            await asyncio.sleep(0.01)
        except BaseException as error:  # as the engine's own agents do
            raise RecordFailed(record, named(error)) from error

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        records = [record for group in groups.values() for record in group]
        async with asyncio.TaskGroup() as group:
            group.create_task(shared(records))
            for record in records:
                group.create_task(one(record))
        for record in records:
            unit.send("out", record.value)

    return handler


@pytest.mark.parametrize(
    "named", [lambda error: error, lambda _: ValueError("what it works on is half there")], ids=["cancelled", "failed"]
)
def test_a_dependency_away_in_a_task_that_names_no_record_is_waited_for(named: NamedError) -> None:
    """The records' own tasks were cancelled for it, or failed beside it: they were dead in its stead."""
    runs = 0

    async def refresh(_: list[ConsumedRecord]) -> None:
        nonlocal runs
        runs += 1
        if runs <= 6:
            raise ConnectionError("the service is away")

    broker = run(grouping(refresh, named), "good", "fine")
    assert values(broker.records("in.dead")) == []
    assert sorted(filter(None, values(broker.records("out")))) == ["fine", "good"]


def test_a_record_whose_task_was_cancelled_is_not_the_one_that_failed() -> None:
    """An error that names none, beside tasks that were cancelled for it: whose it is, smaller units tell."""

    async def check(records: list[ConsumedRecord]) -> None:
        if any(record.value == b"bad" for record in records):
            raise ValueError("one of them is bad")

    broker = run(grouping(check, lambda error: error), "good", "bad", "fine")
    assert values(broker.records("in.dead")) == ["bad"]
    assert values(broker.records("out")) == ["good", "fine"]
