"""Faust agents on the memory broker: what is idiomatic works, what cannot be kept is refused at start."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.sensors.base import Sensor

from tests.unit.stream.support import SETTINGS, memory_broker, values
from towpath.errors import ConfigurationError, PeerError
from towpath.settings import ProjectSettings, Settings
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import OutcomeUnknown
from towpath.stream.faust_app.agent import Batch, RecordFailed, StreamApp, create_app


def make_app(broker: MemoryBroker, tmp_path: Path, **options: Any) -> StreamApp:
    stream = options.pop("stream", SETTINGS)
    settings = Settings(root=tmp_path, project=ProjectSettings(name="test"), stream=stream)
    return create_app("app", settings, slot="a", broker=broker, memory_stores=True, **options)


@asynccontextmanager
async def started(app: StreamApp) -> AsyncIterator[None]:
    await app.start()
    try:
        yield
    finally:
        await app.stop()


async def until(app: StreamApp, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            if app.crash_reason is not None:
                raise app.crash_reason
            await asyncio.sleep(0.01)


def run(app: StreamApp, condition: Callable[[], bool]) -> None:
    async def main() -> None:
        async with started(app):
            await until(app, condition)

    asyncio.run(main())


def fill(broker: MemoryBroker, records: int, topic: str = "in") -> None:
    for index in range(records):
        broker.append(topic, str(index).encode(), key=f"k{index % 3}".encode())


def done(broker: MemoryBroker, records: int) -> Callable[[], bool]:
    return lambda: sum(broker.committed_offsets("app").values()) == records


def test_an_agent_takes_events_one_by_one_and_sends(tmp_path: Path) -> None:
    """`async for event in stream.events()` and `await topic.send` are exactly once as they stand."""
    broker = memory_broker()
    fill(broker, 120)
    app = make_app(broker, tmp_path)
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            await out.send(key=event.key, value=event.value)

    run(app, done(broker, 120))
    assert sorted(values(broker.records("out")), key=int) == [str(index) for index in range(120)]


def test_an_agent_takes_batches_and_keeps_state(tmp_path: Path) -> None:
    """A batch topic yields one list for each partition, and `app.unit` is its unit of work."""
    broker = memory_broker()
    fill(broker, 90)
    app = make_app(broker, tmp_path, states=("counts",))
    sizes: list[int] = []

    @app.agent(app.batch_topic("in"))
    async def agent(stream: Any) -> None:
        async for batch in stream:
            assert isinstance(batch, Batch)
            sizes.append(len(batch))
            state = app.unit.state("counts", batch.partition)
            for record in batch:
                state.put(record.key, str(int(state.get(record.key) or 0) + 1).encode())

    run(app, done(broker, 90))
    assert sum(sizes) == 90
    assert len(sizes) < 10
    assert {record.key: record.value for record in broker.records("counts")} == {
        b"k0": b"30",
        b"k1": b"30",
        b"k2": b"30",
    }


def test_fausts_sensors_see_events_and_sends(tmp_path: Path) -> None:
    """Whoever watches a Faust application by a sensor watches this one."""
    broker = memory_broker()
    fill(broker, 30)
    app = make_app(broker, tmp_path)
    out = app.topic("out")
    seen: dict[str, int] = {"in": 0, "out": 0}

    class Counting(Sensor):
        def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> None:
            seen["in"] += 1

        def on_stream_event_out(self, tp: Any, offset: int, stream: Any, event: Any, state: Any = None) -> None:
            seen["out"] += 1

    app.sensors.add(Counting())

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            await out.send(key=event.key, value=event.value)

    run(app, done(broker, 30))
    assert seen == {"in": 30, "out": 30}


def test_a_timer_of_faust_sends_beside_the_units(tmp_path: Path) -> None:
    """What `@app.timer` sends is committed by itself, while the agents' records are, too."""
    broker = memory_broker()
    fill(broker, 20)
    app = make_app(broker, tmp_path)
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            await out.send(key=event.key, value=event.value)

    @app.timer(0.02)  # type: ignore[untyped-decorator]
    async def tick() -> None:
        await out.send(key=b"tick", value=b"tick")

    run(app, lambda: len(values(broker.records("out"))) >= 23 and done(broker, 20)())
    found = values(broker.records("out"))
    assert sorted(value for value in found if value != "tick") == sorted(map(str, range(20)))
    assert found.count("tick") >= 3


def test_two_agents_of_one_topic_both_take_each_record(tmp_path: Path) -> None:
    """A record is done when every agent that takes its topic is done with it."""
    broker = memory_broker()
    fill(broker, 20)
    app = make_app(broker, tmp_path)
    out = app.topic("out")

    @app.agent(app.topic("in"), name="one")
    async def one(stream: Any) -> None:
        async for value in stream:
            await out.send(value=b"one " + value)

    @app.agent(app.topic("in"), name="two")
    async def two(stream: Any) -> None:
        async for value in stream:
            await asyncio.sleep(0.001)
            await out.send(value=b"two " + value)

    run(app, done(broker, 20))
    assert sorted(values(broker.records("out"))) == sorted(f"{who} {n}" for n in range(20) for who in ("one", "two"))


def test_an_agent_that_yields_sends_to_its_sink(tmp_path: Path) -> None:
    """Sinks are part of the unit of work."""
    broker = memory_broker()
    fill(broker, 10)
    app = make_app(broker, tmp_path)

    @app.agent(app.topic("in"), sink=[app.topic("out")])
    async def agent(stream: Any) -> AsyncIterator[bytes]:
        async for value in stream:
            yield value * 2

    run(app, done(broker, 10))
    assert len(broker.records("out")) == 10


def test_send_soon_is_part_of_the_unit_of_work(tmp_path: Path) -> None:
    """Faust would send it from a task of its own, after the commit."""
    broker = memory_broker()
    fill(broker, 10)
    app = make_app(broker, tmp_path)
    out = app.topic("out")
    failed = False

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        nonlocal failed
        async for value in stream:
            out.send_soon(value=value)
            if value == b"5" and not failed:
                failed = True
                raise ValueError("once")

    run(app, done(broker, 10))
    assert len(broker.records("out")) == 10


def test_a_failing_agent_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """An exception aborts the unit; the culprit dies after its attempts, all else is handled once, in order per key."""
    broker = memory_broker(partitions=1)
    fill(broker, 60)
    app = make_app(broker, tmp_path)
    out = app.topic("out")
    runs = 0

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        nonlocal runs
        async for event in stream.events():
            await out.send(key=event.key, value=event.value)
            if event.value == b"31":
                runs += 1
                raise ValueError("thirty-one")

    run(app, done(broker, 60))
    assert values(broker.records("out")) == [str(index) for index in range(60) if index != 31]
    (dead,) = broker.records("in.dead")
    assert dead.value == b"31"
    assert runs == SETTINGS.handler_attempts_max


def test_a_batch_handler_names_its_culprit(tmp_path: Path) -> None:
    """RecordFailed spares the search; the cause is what the dead letter tells."""
    broker = memory_broker(partitions=1)
    fill(broker, 20)
    app = make_app(broker, tmp_path)

    @app.agent(app.batch_topic("in"))
    async def agent(stream: Any) -> None:
        async for batch in stream:
            for record in batch:
                if record.value == b"3":
                    raise RecordFailed(record, PeerError("no such field"))
                app.unit.send("out", record.value)

    run(app, done(broker, 20))
    (dead,) = broker.records("in.dead")
    assert read_dead_letter(dead.header("dead") or "").cause == "no such field"
    assert len(broker.records("out")) == 19


def test_what_cannot_be_decoded_is_dead_lettered_untouched(tmp_path: Path) -> None:
    """A value that is no JSON never reaches an agent that decodes JSON, and stops nothing."""
    broker = memory_broker(partitions=1)
    for value in (b"1", b"{", b"2"):
        broker.append("in", value)
    app = make_app(broker, tmp_path)
    out = app.topic("out")

    @app.agent(app.topic("in", value_serializer="json"))
    async def agent(stream: Any) -> None:
        async for value in stream:
            await out.send(value=str(value + 1).encode())

    run(app, done(broker, 3))
    (dead,) = broker.records("in.dead")
    assert dead.value == b"{"
    assert values(broker.records("out")) == ["2", "3"]


def test_an_agent_that_hangs_is_cut_off(tmp_path: Path) -> None:
    """The time limit of a unit holds for an agent that awaits for ever, and its record dies; the rest goes on."""
    broker = memory_broker(partitions=1)
    for value in (b"a", b"hang", b"b"):
        broker.append("in", value)
    stream_settings = SETTINGS.model_copy(update={"batch_seconds_max": 0.3, "handler_attempts_max": 2})
    app = make_app(broker, tmp_path, stream=stream_settings)
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for value in stream:
            if value == b"hang":
                await asyncio.sleep(60)
            await out.send(value=value)

    run(app, done(broker, 3))
    assert values(broker.records("out")) == ["a", "b"]
    (dead,) = broker.records("in.dead")
    assert read_dead_letter(dead.header("dead") or "").error == "HandlerTooSlow"


def test_a_send_outside_an_agent_has_a_transaction_of_its_own(tmp_path: Path) -> None:
    """A timer's send is committed although the unit that is open at that moment is aborted."""
    broker = memory_broker(partitions=1)
    fill(broker, 1)
    app = make_app(broker, tmp_path)
    out = app.topic("out")
    inside = asyncio.Event()
    sent = asyncio.Event()
    attempts = 0

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        nonlocal attempts
        async for _ in stream:
            attempts += 1
            await out.send(value=b"from the agent")
            inside.set()
            await sent.wait()
            if attempts == 1:
                raise ValueError("once")

    @app.task  # type: ignore[untyped-decorator]
    async def task() -> None:
        await inside.wait()
        await (await out.send(value=b"from the task"))
        sent.set()

    run(app, done(broker, 1))
    assert sorted(values(broker.records("out"))) == ["from the agent", "from the task"]


def test_what_an_agent_leaves_running_finds_its_unit_closed(tmp_path: Path) -> None:
    """A task that outlives its record cannot slip into a later unit of work."""
    broker = memory_broker(partitions=1)
    fill(broker, 1)
    app = make_app(broker, tmp_path)
    out = app.topic("out")
    errors: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def late() -> None:
        await asyncio.sleep(0.2)
        try:
            await out.send(value=b"late")
        except Exception as error:
            errors.append(error)

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            tasks.add(asyncio.create_task(late()))

    run(app, lambda: bool(errors))
    assert "has ended" in str(errors[0])
    assert not broker.records("out")


def test_a_lost_answer_to_a_commit_repeats_nothing(tmp_path: Path) -> None:
    """The rule of the loop holds through Faust, whose queues still hold messages of the old run."""
    broker = memory_broker()
    fill(broker, 100)
    broker.faults.order("commit answer", OutcomeUnknown("no answer"), times=2)
    app = make_app(broker, tmp_path)
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            await out.send(value=event.value)

    run(app, done(broker, 100))
    assert sorted(values(broker.records("out")), key=int) == [str(index) for index in range(100)]


def test_stopping_commits_or_aborts_and_leaves_the_group(tmp_path: Path) -> None:
    """A stop in the middle leaves no open transaction and no member, and nothing half done."""
    broker = memory_broker()
    fill(broker, 500)
    app = make_app(broker, tmp_path)
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for value in stream:
            await asyncio.sleep(0.001)
            await out.send(value=value)

    async def main() -> float:
        async with started(app):
            await until(app, lambda: bool(broker.records("out")))
            began = asyncio.get_running_loop().time()
        return asyncio.get_running_loop().time() - began

    seconds = asyncio.run(main())
    assert seconds < 5
    assert not broker.open_transactions()
    assert not broker.group("app").members
    assert len(broker.records("out")) == sum(broker.committed_offsets("app").values())


REFUSED = {
    "take": lambda stream: stream.take(10, within=1),
    "take_events": lambda stream: stream.take_events(10, within=1),
    "take_with_timestamp": lambda stream: stream.take_with_timestamp(10, 1, "at"),
    "noack": lambda stream: stream.noack(),
    "group_by": lambda stream: stream.group_by(lambda value: value),
    "through": lambda stream: stream.through("out"),
}


@pytest.mark.parametrize("method", sorted(REFUSED))
def test_stream_methods_that_break_the_unit_are_refused_at_start(tmp_path: Path, method: str) -> None:
    """The worker ends with the method's name and what to use instead, before it reads a record."""
    broker = memory_broker()
    fill(broker, 1)
    app = make_app(broker, tmp_path)

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for _ in REFUSED[method](stream):
            pass

    with pytest.raises(ConfigurationError, match=f"stream.{method} "):
        run(app, done(broker, 1))


def test_tables_are_refused(tmp_path: Path) -> None:
    """Their changelog would not be part of the transaction."""
    app = make_app(memory_broker(), tmp_path)
    with pytest.raises(ConfigurationError, match="tables"):
        app.Table("counts", default=int)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"concurrency": 2}, "overtake"), ({"isolated_partitions": True}, "isolated_partitions")],
)
def test_agents_that_reorder_are_refused_at_start(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """Concurrency within a partition would break the order of a key."""
    broker = memory_broker()
    app = make_app(broker, tmp_path)

    @app.agent(app.topic("in"), **options)
    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    with pytest.raises(ConfigurationError, match=words):
        run(app, done(broker, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"processing_guarantee": "exactly_once"}, "Faust's own"),
        ({"stream_publish_on_commit": True}, "transactional"),
        ({"producer_threaded": True}, "thread"),
    ],
)
def test_settings_that_break_the_unit_are_refused_at_start(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """Faust's own ways of being exactly once are not ours."""
    broker = memory_broker()
    app = make_app(broker, tmp_path, **options)

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    with pytest.raises((ConfigurationError, AttributeError), match=words):
        run(app, done(broker, 1))


def test_a_topic_taken_both_ways_is_refused_at_start(tmp_path: Path) -> None:
    """One by one and in batches do not mix on one topic."""
    broker = memory_broker()
    app = make_app(broker, tmp_path)

    @app.agent(app.topic("in"), name="one")
    async def one(stream: Any) -> None:
        async for _ in stream:
            pass

    @app.agent(app.batch_topic("in"), name="two")
    async def two(stream: Any) -> None:
        async for _ in stream:
            pass

    with pytest.raises(ConfigurationError, match="in batches by another"):
        run(app, done(broker, 1))


def test_unequal_partition_counts_are_refused_at_start(tmp_path: Path) -> None:
    """The error names both topics and their counts."""
    broker = memory_broker()
    broker.create_topic("counts", 3)
    app = make_app(broker, tmp_path, states=("counts",))

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    with pytest.raises(ConfigurationError, match="in has 2 partitions and counts has 3"):
        run(app, done(broker, 1))


def test_there_is_no_unit_outside_an_agent(tmp_path: Path) -> None:
    """`app.unit` says so, instead of returning somebody else's."""
    app = make_app(memory_broker(), tmp_path)
    with pytest.raises(ConfigurationError, match="no unit of work"):
        _ = app.unit


def test_the_cython_iterator_is_out_of_the_way() -> None:
    """It would acknowledge past the message, and no unit of work would ever be done."""
    assert vars(faust.streams)["_CStreamIterator"] is None
