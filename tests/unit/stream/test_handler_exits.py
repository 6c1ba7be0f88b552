"""Handlers that raise what is no ordinary error: nothing is lost by it, and the worker says where it stands."""

import asyncio
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.stream.support import SETTINGS, memory_broker, values
from tests.unit.stream.test_agents import done, make_app, run
from towpath.settings import StreamSettings
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.failures import Backlog, HandlerExit, RecordFailed
from towpath.stream.faust_app.agent import StreamApp


class OwnBaseException(BaseException):
    """What a library may raise to pass every `except Exception`."""


Raise = Callable[[], None]
EXITS = [SystemExit, KeyboardInterrupt, GeneratorExit, OwnBaseException]


def batches(app: StreamApp, act: Raise) -> None:
    @app.agent(app.batch_topic("in"))
    async def agent(stream: Any) -> None:
        async for batch in stream:
            for record in batch:
                if record.value == b"BAD":
                    act()
                app.unit.send("out", record.value)


def named_batches(app: StreamApp, act: Raise) -> None:
    @app.agent(app.batch_topic("in"))
    async def agent(stream: Any) -> None:
        async for batch in stream:
            for record in batch:
                try:
                    if record.value == b"BAD":
                        act()
                    app.unit.send("out", record.value)
                except BaseException as error:
                    raise RecordFailed(record, error) from error


def one_by_one(app: StreamApp, act: Raise) -> None:
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for value in stream:
            if value == b"BAD":
                act()
            await out.send(value=value)


def events(app: StreamApp, act: Raise) -> None:
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            if event.value == b"BAD":
                act()
            await out.send(value=event.value)


def yielding(app: StreamApp, act: Raise) -> None:
    @app.agent(app.topic("in"), sink=[app.topic("out")])
    async def agent(stream: Any) -> AsyncIterator[bytes]:
        async for value in stream:
            if value == b"BAD":
                act()
            yield value


def in_a_thread(app: StreamApp, act: Raise) -> None:
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for value in stream:
            if value == b"BAD":
                await asyncio.to_thread(act)
            await out.send(value=value)


MODES = [batches, named_batches, one_by_one, events, yielding, in_a_thread]


def three() -> MemoryBroker:
    broker = memory_broker(partitions=1)
    for value in (b"one", b"BAD", b"two"):
        broker.append("in", value)
    return broker


def raising(error: BaseException) -> Raise:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("exit_", EXITS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
def test_what_ends_a_process_ends_the_worker_before_its_record(
    tmp_path: Path, mode: Callable[[StreamApp, Raise], None], exit_: type[BaseException]
) -> None:
    """The unit is aborted, nothing is committed or quarantined, and the error names the position."""
    broker = three()
    app = make_app(broker, tmp_path)
    mode(app, raising(exit_(1)))
    with pytest.raises(HandlerExit, match=r"in\[0\]@") as found:
        run(app, done(broker, 3))
    assert exit_.__name__ in str(found.value)
    if mode is not batches:
        assert "in[0]@1" in str(found.value)
    assert broker.committed_offsets("app") == {}
    assert values(broker.records("out")) == []
    assert values(broker.records("in.dead")) == []
    assert not broker.open_transactions()


def as_written(said: str) -> StreamSettings:
    """Return the settings with what `said` tells to write into towpath.toml."""
    found = re.search(r"under (\[stream\.dead_records\]) in towpath\.toml: (\S+ = \[.+?\"\])", said)
    assert found is not None, said
    content = tomllib.loads("[stream]\nbatch_records_max = 50\n" + "\n".join(found.groups()))["stream"]
    return StreamSettings.model_validate({**SETTINGS.model_dump(), **content})


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
def test_a_record_that_ends_the_process_is_dead_where_a_person_says_so(
    tmp_path: Path, mode: Callable[[StreamApp, Raise], None]
) -> None:
    """What the worker said, written as printed: its handler does not meet the record again, and the others go on."""
    broker = three()
    said, stream = "", SETTINGS
    for _ in range(2):  # of a batch, whoever starts it with units of one record is told the one
        app = make_app(broker, tmp_path, stream=stream)
        mode(app, raising(SystemExit(1)))
        with pytest.raises(HandlerExit) as found:
            run(app, done(broker, 3))
        said = str(found.value)
        if "with stream.batch_records_max = 1" not in said:
            break
        assert mode is batches
        stream = SETTINGS.model_copy(update={"batch_records_max": 1})
    assert "'in[0]@1'" in repr(as_written(said).dead_records)
    app = make_app(broker, tmp_path, stream=as_written(said))
    mode(app, raising(SystemExit(1)))
    run(app, done(broker, 3))
    assert values(broker.records("out")) == ["one", "two"]
    (dead,) = broker.records("in.dead")
    letter = read_dead_letter(dead.header("dead") or "")
    assert (dead.value, letter.error, letter.kind, letter.attempts) == (b"BAD", "DeclaredDead", "handler", 0)


def declared(places: Sequence[str], application: str = "app", **options: Any) -> StreamSettings:
    content = {**SETTINGS.model_dump(), **options, "dead_records": {application: places}}
    return StreamSettings.model_validate(content)


def test_all_that_is_declared_dead_is_and_nothing_of_another_application(tmp_path: Path) -> None:
    """However many, they do not count as failures; and where a topic is read by several, each has its own."""
    broker = memory_broker(partitions=1)
    for index in range(100):
        broker.append("in", str(index).encode())
    stream = declared(["in[0]@98", "in[0]@1 to 89", "out[0]@3"], dead_letter_share_max=0.05)
    app = make_app(broker, tmp_path, stream=stream)
    one_by_one(app, raising(SystemExit(1)))
    run(app, done(broker, 100))
    assert values(broker.records("in.dead")) == [*map(str, range(1, 90)), "98"]
    other = memory_broker(partitions=1)
    other.append("in", b"good")
    app = make_app(other, tmp_path, stream=declared(["in[0]@0"], application="other"))
    one_by_one(app, raising(SystemExit(1)))
    run(app, done(other, 1))
    assert values(other.records("out")) == ["good"]


@pytest.mark.parametrize(
    "place", ["in[0]", "in@3", "in[0]@3 to", "in[x]@3", "in[0]@3, in[0]@4", "", "in[0]@-1", "in[0]@3 to 2"]
)
def test_what_is_no_position_is_refused_with_the_settings(place: str) -> None:
    """A slip is told at the start, not by a record that is met again."""
    with pytest.raises(ValidationError, match="dead_records"):
        declared([place])


def test_the_range_of_a_unit_over_a_log_with_gaps_is_taken(tmp_path: Path) -> None:
    """What was compacted, or aborted, counts among the offsets: two records may lie far from each other."""
    broker = three()
    app = make_app(broker, tmp_path, stream=declared(["in[0]@1 to 999999999999"]))
    batches(app, raising(SystemExit(1)))
    run(app, done(broker, 3))
    assert values(broker.records("in.dead")) == ["BAD", "two"]


def test_what_is_declared_dead_stays_so_where_its_position_is_set_back(tmp_path: Path) -> None:
    """By a person, in the running worker: the handler does not meet it then, either."""
    backlog = Backlog(10, ["in[0]@3"])
    record = ConsumedRecord("in", 0, 3, 0, None, b"BAD")
    for _ in range(2):
        backlog.add({record.topic_partition: [record]})
        work = backlog.take()
        assert work is not None
        assert work.is_declared_dead
        backlog.committed(record.topic_partition, 4)


def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def awaits_what_was_cancelled() -> None:
    other = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    other.cancel()
    await other


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode is not in_a_thread], ids=lambda mode: mode.__name__)
def test_a_cancellation_in_a_handler_is_its_records_failure_alone(
    tmp_path: Path, mode: Callable[[StreamApp, Raise], None]
) -> None:
    """CancelledError raised by a handler kills its record after its attempts; the agent goes on with the others."""
    broker = three()
    app = make_app(broker, tmp_path)
    mode(app, raising(asyncio.CancelledError()))
    run(app, done(broker, 3))
    broker.append("in", b"three")
    assert values(broker.records("out")) == ["one", "two"]
    (dead,) = broker.records("in.dead")
    letter = read_dead_letter(dead.header("dead") or "")
    assert (dead.value, letter.error, letter.attempts) == (b"BAD", "CancelledError", SETTINGS.handler_attempts_max)
    assert letter.cause, "it says something, although the exception has no text"


@pytest.mark.parametrize("form", ["cancels itself", "awaits a cancelled task"])
def test_however_a_handler_comes_to_be_cancelled_it_is_its_records_failure(tmp_path: Path, form: str) -> None:
    """A handler that cancels its own task, or awaits a task that was cancelled, does not silence its agent."""
    broker = three()
    app = make_app(broker, tmp_path)
    out = app.topic("out")

    @app.agent(app.topic("in"))
    async def agent(stream: Any) -> None:
        async for value in stream:
            if value == b"BAD":
                if form == "cancels itself":
                    cancel_itself()
                else:
                    await awaits_what_was_cancelled()
                await asyncio.sleep(0)
            await out.send(value=value)

    run(app, done(broker, 3))
    assert values(broker.records("out")) == ["one", "two"]
    assert values(broker.records("in.dead")) == ["BAD"]


PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.unit.stream.support import SETTINGS
from tests.unit.stream.test_agents import make_app
from tests.unit.stream.test_handler_exits import three

broker = three()
app = make_app(broker, Path({folder!r}))

async def child():
    raise SystemExit(0)

@app.agent(app.topic("in"))
async def agent(stream):
    async for value in stream:
        if value == b"BAD":
            {act}
        app.unit.send("out", value)

try:
    app.run_worker()
finally:
    print("committed", sum(broker.committed_offsets("app").values()), len(broker.records("out")))
"""


@pytest.mark.parametrize("act", ["raise SystemExit(0)", "await asyncio.create_task(child())"])
def test_the_process_ends_non_zero_whatever_code_a_handler_exits_with(tmp_path: Path, act: str) -> None:
    """A supervisor must see that the worker did not end in good order, and what it says names the record."""
    program = PROGRAM.format(folder=str(tmp_path), act=act)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=Path.cwd()
    )
    assert ended.returncode not in (0, None), ended.stdout + ended.stderr
    assert "in[0]@1" in ended.stdout + ended.stderr
    assert "committed 0 0" in ended.stdout
