"""Three brokers, replication 3, min ISR 2: the leader of the busiest partition is killed in the middle."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import Run, seed_of_the_run
from tests.stack_fixture import ROOT, RunningStack, free_ports, variables
from towpath.settings import load_settings
from towpath.stack.client import StackClient
from towpath.stack.up import down, up

pytestmark = [pytest.mark.crash, pytest.mark.stack]

RECORDS = 60_000
KILLS = 3


def row_of_ports() -> int:
    """Return a port after which every second one is free, too: three brokers and their controllers take six."""
    while True:
        (first,) = free_ports(1)
        if first % 2 == 0 and len({first + step for step in range(6)} & set(free_ports(1))) == 0:
            return first


@pytest.fixture
def three_brokers() -> Iterator[RunningStack]:
    """Yield a stack of its own, with three brokers."""
    home = Path(tempfile.mkdtemp(prefix="towpath-three-"))
    home.chmod(0o755)
    kafka, others = row_of_ports(), free_ports(3)
    values = {
        "TOWPATH_STACK__HOME": str(home),
        "TOWPATH_STACK__BROKERS": "3",
        "TOWPATH_STACK__KAFKA_PORT": str(kafka),
        "TOWPATH_STACK__CONTROLLER_PORT": str(kafka + 1),
        "TOWPATH_STACK__CONNECT_PORT": str(others[0]),
        "TOWPATH_STACK__REGISTRY_PORT": str(others[1]),
        "TOWPATH_STACK__POSTGRES_PORT": str(others[2]),
    }
    with variables(values):
        settings = load_settings(ROOT)
        try:
            up(settings)
            with StackClient(settings.stack_home) as client:
                yield RunningStack(settings, values, client)
        finally:
            down(settings)
            shutil.rmtree(home, ignore_errors=True)


def leader_of_the_busiest(run: Run) -> int:
    """Return the id of the broker that leads the input's longest partition."""
    topic = run.topics["in"]
    ends = run.ends(topic)
    busiest = max(ends, key=lambda place: ends[place])
    found = run.admin.list_topics(topic, timeout=15).topics[topic].partitions[busiest.partition]
    return int(found.leader)


def test_the_leader_dies_and_nothing_is_lost(three_brokers: RunningStack, tmp_path: Path) -> None:
    """Three times, each another leader; outputs equal the inputs, counts and sums are right."""
    run = Run(three_brokers.settings.kafka.bootstrap_servers, tmp_path, seed_of_the_run(), replicas=3)
    try:
        for _ in range(KILLS):
            run.write(RECORDS // (KILLS + 1))
            run.watch(2)
            name = f"kafka-{leader_of_the_busiest(run)}"
            three_brokers.client.kill(name)
            run.watch(3)
            three_brokers.client.wait_ready([name], 120, patient=True)
            time.sleep(3)
        run.write(RECORDS - run.written)
        run.flush()
        run.wait_until_done(run.outputs_committed)
    finally:
        codes = run.stop()
    assert codes == [0, 0], f"a worker did not stop in good order; logs in {tmp_path}"
    assert run.verdict() == []
