"""Exactly once under kill -9: two workers, a nemesis, and a comparison with the inputs at the end.

8 faults in the short form; 100 and more in the long one (`make test-crash`).
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.crash.harness import Run, compare, compare_sums, seed_of_the_run
from tests.stack_fixture import RunningStack

RECORDS = 200_000
SHORT, LONG = 8, 105


def restart_part(stack: RunningStack, name: str) -> None:
    """SIGKILL a part of the stack, and wait until its supervisor has it ready again."""
    stack.client.kill(name)
    time.sleep(0.5)
    stack.client.wait_ready([name], 60, patient=True)


def torment(run: Run, faults: int, extra: dict[str, Any]) -> dict[str, int]:
    """Write the inputs and inflict the faults, in random order, each kind equally often. Return how often each."""
    kinds: dict[str, Any] = {"kill": run.kill, "freeze": run.freeze, "rebalance": run.rebalance, **extra}
    names = [name for index in range(faults) for name in [list(kinds)[index % len(kinds)]]]
    run.chance.shuffle(names)
    done: dict[str, int] = defaultdict(int)
    chunk = RECORDS // (faults + 1)
    for name in names:
        run.write(chunk)
        run.watch(run.chance.uniform(0.2, 1.5))
        kinds[name]()
        done[name] += 1
    run.write(RECORDS - run.written)
    run.flush()
    return dict(done)


@pytest.mark.parametrize("faults", [SHORT, pytest.param(LONG, marks=pytest.mark.crash)], ids=["short", "long"])
def test_kafka_units_are_exactly_once(stack: RunningStack, tmp_path: Path, faults: int) -> None:
    """Outputs equal the inputs, in order per key, counts and sums are right, no transaction is left open."""
    run = Run(stack.settings.kafka.bootstrap_servers, tmp_path, seed_of_the_run())
    try:
        done = torment(run, faults, {"broker": lambda: restart_part(stack, "kafka")})
        assert sum(done.values()) == faults
        run.wait_until_done(run.outputs_committed)
    finally:
        codes = run.stop()
    assert codes == [0, 0], f"a worker did not stop in good order; logs in {tmp_path}"
    assert run.verdict() == []


@pytest.mark.parametrize("faults", [SHORT, pytest.param(LONG, marks=pytest.mark.crash)], ids=["short", "long"])
def test_database_units_are_exactly_once(stack: RunningStack, tmp_path: Path, faults: int, crash_database: str) -> None:
    """The tables equal the fold of the inputs, although worker and PostgreSQL are killed."""
    run = Run(stack.settings.kafka.bootstrap_servers, tmp_path, seed_of_the_run(), database=crash_database)

    def applied() -> int:
        try:
            with psycopg.connect(crash_database, connect_timeout=5) as connection:
                rows = connection.execute("SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets").fetchall()
                return int(rows[0][0])
        except psycopg.Error:
            return -1

    try:
        torment(run, faults, {"postgres": lambda: restart_part(stack, "postgres")})
        run.wait_until_done(applied)
    finally:
        codes = run.stop()
    assert codes == [0, 0], f"a worker did not stop in good order; logs in {tmp_path}"
    outputs: dict[bytes, list[int]] = defaultdict(list)
    with psycopg.connect(crash_database) as connection:
        for key, value in connection.execute("SELECT key, value FROM outputs ORDER BY position").fetchall():
            outputs[key.encode()].append(value)
        sums = {
            key.encode(): f"{count} {total}"
            for key, count, total in connection.execute("SELECT key, count, sum FROM sums").fetchall()
        }
    assert compare("outputs", run.inputs, outputs) == []
    assert compare_sums(run.inputs, sums) == []
