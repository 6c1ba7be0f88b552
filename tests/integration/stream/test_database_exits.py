"""Handlers of a database unit that raise what is no ordinary error, in the agent and in the unit's own thread."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.stream.test_database_unit import TABLE, applied_values, insert, stands_at
from tests.unit.stream.support import SETTINGS, memory_broker
from tests.unit.stream.test_agents import make_app, until
from tests.unit.stream.test_handler_exits import EXITS, as_written
from towpath.settings import StreamSettings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.engine.failures import HandlerExit, RecordFailed
from towpath.stream.engine.options import DatabaseOptions
from towpath.stream.faust_app.agent import StreamApp

Connection = psycopg.Connection[Any]
MODES = ["in the agent", "in the unit's thread", "in the thread, record named"]


@pytest.fixture(autouse=True)
def table(connection: Connection) -> None:
    connection.execute(TABLE)
    connection.commit()


def three(settings: StreamSettings = SETTINGS) -> MemoryBroker:
    broker = memory_broker(partitions=1, **settings.model_dump())
    for value in (b"1", b"BAD", b"2"):
        broker.append("in", value, key=value)
    return broker


def database_app(
    broker: MemoryBroker, url: str, folder: Path, mode: str, error: BaseException, stream: StreamSettings = SETTINGS
) -> StreamApp:
    database = DatabaseOptions(url=url, connection_options={})
    app = make_app(broker, folder, unit_of_work="database", database=database, stream=stream)

    @app.agent(app.batch_topic("in"))
    async def agent(stream: Any) -> None:
        async for batch in stream:

            def apply(connection: Connection, batch: Any = batch) -> None:
                insert([record for record in batch if record.value != b"BAD"])(connection)
                for record in batch:
                    if record.value == b"BAD" and mode == "in the unit's thread":
                        raise error
                    if record.value == b"BAD" and mode == "in the thread, record named":
                        raise RecordFailed(record, error) from error

            await app.unit.run(apply)
            if mode == "in the agent" and any(record.value == b"BAD" for record in batch):
                raise error

    return app


def run(app: StreamApp, condition: Callable[[], bool]) -> None:
    async def main() -> None:
        await app.start()
        try:
            await until(app, condition)
        finally:
            await app.stop()

    asyncio.run(main())


@pytest.mark.parametrize("exit_", EXITS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("mode", MODES)
def test_what_ends_a_process_ends_the_worker_before_its_record(
    connection: Connection, database_url: str, tmp_path: Path, mode: str, exit_: type[BaseException]
) -> None:
    """The transaction is rolled back, offsets stay, nothing is quarantined; the error names the position."""
    app = database_app(three(), database_url, tmp_path, mode, exit_(1))
    with pytest.raises(HandlerExit, match=r"in\[0\]@1:" if "named" in mode else r"in\[0\]@0 to 2:"):
        run(app, lambda: False)
    assert applied_values(connection) == []
    assert stands_at(connection) == 0
    assert connection.execute("SELECT count(*) FROM outbox").fetchall() == [(0,)]


@pytest.mark.parametrize("mode", MODES)
def test_a_record_that_ends_the_process_is_dead_where_a_person_says_so(
    connection: Connection, database_url: str, tmp_path: Path, mode: str
) -> None:
    """What the worker said, written as printed: a letter in the outbox, and the offset past it, in one transaction."""
    broker, stream = three(), SETTINGS.model_copy(update={"batch_records_max": 1})
    app = database_app(broker, database_url, tmp_path, mode, SystemExit(1), stream)
    with pytest.raises(HandlerExit) as found:
        run(app, lambda: False)
    stream = as_written(str(found.value))
    assert stream.dead_records == {"app": ("in[0]@1",)}
    app = database_app(broker, database_url, tmp_path, mode, SystemExit(1), stream)
    run(app, lambda: stands_at(connection) == 3)
    assert applied_values(connection) == ["1", "2"]
    ((key, dead),) = connection.execute("SELECT key, dead FROM outbox").fetchall()
    assert (key, '"DeclaredDead"' in dead) == ("BAD", True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [asyncio.CancelledError, StopIteration, StopAsyncIteration])
def test_what_python_gives_another_meaning_is_its_records_failure_alone(
    connection: Connection, database_url: str, tmp_path: Path, mode: str, kind: type[BaseException]
) -> None:
    """CancelledError does not silence the agent; StopIteration, which no future can carry, does not make it hang."""
    app = database_app(three(), database_url, tmp_path, mode, kind())
    run(app, lambda: stands_at(connection) == 3)
    assert applied_values(connection) == ["1", "2"]
    ((key, dead),) = connection.execute("SELECT key, dead FROM outbox").fetchall()
    assert key == "BAD"
    assert f'"attempts": {SETTINGS.handler_attempts_max}' in dead
    assert "HandlerTooSlow" not in dead
