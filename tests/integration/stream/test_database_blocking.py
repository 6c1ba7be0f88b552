"""Handlers that block past the transaction's time-out in a database unit, in the agent and in the unit's own thread."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.stream.test_database_exits import run, three
from tests.integration.stream.test_database_unit import TABLE, applied_values, insert, stands_at
from tests.unit.stream.test_agents import make_app
from tests.unit.stream.test_blocking import BLOCKING, EVICTING
from towpath.settings import StreamSettings
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.engine.options import DatabaseOptions
from towpath.stream.faust_app.agent import StreamApp

Connection = psycopg.Connection[Any]
BLOCKS_SECONDS = 1.5
AGENT_BEFORE, AGENT_AFTER = "in the agent, before the unit", "in the agent, after the unit"
THREAD_BEFORE, THREAD_AFTER = "in the unit's thread, before it writes", "in the unit's thread, after it has written"


@pytest.fixture(autouse=True)
def table(connection: Connection) -> None:
    connection.execute(TABLE)
    connection.commit()


def blocking_app(
    broker: MemoryBroker, url: str, folder: Path, settings: StreamSettings, place: str, block: Callable[[], None]
) -> StreamApp:
    """Return an application whose handler calls `block` in `place` of each unit that has the record BAD."""
    database = DatabaseOptions(url=url, connection_options={})
    app = make_app(broker, folder, stream=settings, unit_of_work="database", database=database)

    @app.agent(app.batch_topic("in"))
    async def agent(stream: Any) -> None:
        async for batch in stream:
            bad = any(record.value == b"BAD" for record in batch)

            def apply(connection: Connection, batch: Any = batch, bad: bool = bad) -> None:
                if bad and place == THREAD_BEFORE:
                    block()
                insert(list(batch))(connection)
                if bad and place == THREAD_AFTER:
                    block()

            if bad and place == AGENT_BEFORE:
                block()
            await app.unit.run(apply)
            if bad and place == AGENT_AFTER:
                block()

    return app


@pytest.mark.parametrize(
    ("place", "settings"),
    [
        pytest.param(AGENT_BEFORE, BLOCKING, id="agent before"),
        pytest.param(AGENT_AFTER, BLOCKING, id="agent after"),
        pytest.param(AGENT_AFTER, EVICTING, id="agent after, out of its group"),
        pytest.param(THREAD_BEFORE, BLOCKING, id="thread before"),
        pytest.param(THREAD_AFTER, BLOCKING, id="thread after"),
        pytest.param(THREAD_AFTER, EVICTING, id="thread after, out of its group"),
    ],
)
def test_a_handler_that_blocks_is_found_and_innocents_go_on(
    connection: Connection, database_url: str, tmp_path: Path, place: str, settings: StreamSettings
) -> None:
    """BAD is dead after its attempts, its neighbours are applied once, and the worker goes on with what comes next."""
    broker = three(settings)
    runs = 0

    def block() -> None:
        nonlocal runs
        runs += 1
        time.sleep(BLOCKS_SECONDS)

    def applied_all() -> bool:
        if stands_at(connection) == 3 and len(broker.records("in")) == 3:
            broker.append("in", b"3", key=b"3")
        return stands_at(connection) == 4

    run(blocking_app(broker, database_url, tmp_path, settings, place, block), applied_all)
    assert applied_values(connection) == ["1", "2", "3"]
    ((key, dead),) = connection.execute("SELECT key, dead FROM outbox").fetchall()
    letter = read_dead_letter(dead)
    assert (key, letter.error, letter.attempts) == ("BAD", "HandlerTooSlow", settings.handler_attempts_max)
    # Once with its neighbours, once with the one that its half has, and then alone.
    assert runs <= 2 + settings.handler_attempts_max


PROGRAM = """
import time
from pathlib import Path
from tests.integration.stream.test_database_blocking import THREAD_AFTER, blocking_app
from tests.integration.stream.test_database_exits import three
from tests.unit.stream.test_stalled import STALLING

def never_comes_back():
    while True:
        time.sleep(1)

blocking_app(three(STALLING), {url!r}, Path({folder!r}), STALLING, THREAD_AFTER, never_comes_back).run_worker()
"""


def test_a_function_that_never_comes_back_ends_its_worker(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    """The roll-back waits behind it for good, and with it the loop: the process ends and names the records."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(url=database_url, folder=str(tmp_path))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path.cwd(),
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "in[0]@0 to 2: has not come back from a handler" in said
    assert "in never_comes_back" in said
    assert applied_values(connection) == []
    assert stands_at(connection) == 0
