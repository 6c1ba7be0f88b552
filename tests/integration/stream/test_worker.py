"""Workers as processes on a real broker: the command line, stopping, scaling, and what an idle one costs."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from confluent_kafka import Producer

from tests.conformance.conftest import KafkaCluster
from towpath.stream.broker.port import BrokerAway
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

T = TypeVar("T")


def patiently(ask: Callable[[], T], seconds: float = 10.0) -> T:
    """Ask until there is an answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except BrokerAway:
            assert time.monotonic() < deadline
            time.sleep(0.05)


PLAIN = """
import sys
import faust

app = faust.App(
    {application!r}, broker="towpath://{servers}/?slot={slot}", store="memory://", datadir={folder!r},
    topic_allow_declare=False, web_enabled=False, key_serializer="raw", value_serializer="raw",
)
out = app.topic({out!r})


@app.agent(app.topic({topic!r}))
async def copy(stream):
    async for event in stream.events():
        await out.send(key=event.key, value=event.value)


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "-l", "info", "--without-web"]
    app.main()
"""


class Topics:
    """An input with its dead-letter topic, an output and a changelog."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.cluster = KafkaCluster(servers)
        self.input, self.out, self.state = (self.cluster.topic(4) for _ in range(3))
        self.cluster.topic(4, name=f"{self.input}.dead")
        self.application = f"w-{uuid.uuid4().hex[:8]}"
        self.written = 0

    def write(self, records: int) -> None:
        """Write numbers."""
        producer = Producer({"bootstrap.servers": self.servers, "partitioner": "murmur2_random", "log_level": 2})
        for _ in range(records):
            producer.produce(self.input, b"%d" % self.written, b"k%d" % (self.written % 20))
            self.written += 1
        producer.flush()

    def outputs(self) -> list[ConsumedRecord]:
        """Return the committed outputs; a topic that was just made takes a moment to answer."""
        places = [TopicPartition(self.out, number) for number in range(4)]
        records: list[ConsumedRecord] = []
        for place, end in patiently(lambda: self.cluster.broker.end_offsets(places)).items():
            reader, reached, deadline = self.cluster.broker.reader(place, 0), 0, time.monotonic() + 20
            while reached < end:
                assert time.monotonic() < deadline, f"{place}: a transaction is open"
                further, reached = reader.poll(0.2)
                records += further
            reader.close()
        return records

    def wait_for_outputs(self, seconds: float = 60.0) -> None:
        """Wait until there is one output for each input, and no more."""
        deadline = time.monotonic() + seconds
        while len(self.outputs()) < self.written:
            assert time.monotonic() < deadline, f"{len(self.outputs())} of {self.written}"
            time.sleep(0.2)
        numbers = sorted(int(record.value or b"-1") for record in self.outputs())
        assert numbers == list(range(self.written))


@pytest.fixture
def topics(kafka_servers: str) -> Topics:
    return Topics(kafka_servers)


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts a process whose output goes to `<name>.log`; what still runs is killed after."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(name: str, *command: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}
            )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def told(topics: Topics, tmp_path: Path, slot: str, **more: Any) -> str:
    """Return the argument of the crash test's worker, which is a worker like any other."""
    return json.dumps(
        {
            "in": topics.input,
            "out": topics.out,
            "state": topics.state,
            "application": topics.application,
            "slot": slot,
            "servers": topics.servers,
            "root": str(tmp_path),
            **more,
        }
    )


def worker(start: Start, topics: Topics, tmp_path: Path, slot: str, **more: Any) -> "subprocess.Popen[bytes]":
    """Start a worker and wait until it serves."""
    log = tmp_path / f"{slot}.log"
    before = log.read_bytes().count(b"worker ready") if log.exists() else 0
    process = start(slot, sys.executable, "-m", "tests.crash.worker", told(topics, tmp_path, slot, **more))
    deadline = time.monotonic() + 90
    while not log.exists() or log.read_bytes().count(b"worker ready") <= before:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return process


def test_a_plain_faust_app_needs_only_the_broker_url(topics: Topics, start: Start, tmp_path: Path) -> None:
    """`towpath://host:port/?slot=a` in a file that knows nothing of Towpath; SIGTERM ends it well."""
    topics.write(500)
    script = tmp_path / "plain.py"
    script.write_text(
        PLAIN.format(
            application=topics.application,
            servers=topics.servers.split(",")[0],
            slot="a",
            folder=str(tmp_path / "data"),
            out=topics.out,
            topic=topics.input,
        )
    )
    process = start("plain", sys.executable, str(script))
    topics.wait_for_outputs()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0, (tmp_path / "plain.log").read_text()


def test_the_faust_worker_command_runs_it(topics: Topics, start: Start, tmp_path: Path) -> None:
    """`faust -A module worker` is what Faust's users type."""
    topics.write(100)
    (tmp_path / "shop.py").write_text(
        PLAIN.format(
            application=topics.application,
            servers=topics.servers.split(",")[0],
            slot="a",
            folder=str(tmp_path / "data"),
            out=topics.out,
            topic=topics.input,
        )
    )
    faust = str(Path(sys.executable).parent / "faust")
    process = start("faust", faust, "-A", "shop", "worker", "-l", "info", "--without-web")
    topics.wait_for_outputs()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0, (tmp_path / "faust.log").read_text()


def test_stopping_takes_less_than_five_seconds_and_hands_over_at_once(
    topics: Topics, start: Start, tmp_path: Path
) -> None:
    """A worker that leaves in good order stalls no partition until a session runs out."""
    first = worker(start, topics, tmp_path, "a")
    worker(start, topics, tmp_path, "b")
    topics.write(2_000)
    began = time.monotonic()
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    assert time.monotonic() - began < 5, (tmp_path / "a.log").read_text()
    topics.write(100)
    topics.wait_for_outputs(seconds=5.5)


def test_workers_come_and_go_while_records_flow(topics: Topics, start: Start, tmp_path: Path) -> None:
    """Scale out, a rolling restart, scale in: every record once, in the end."""
    running = {"a": worker(start, topics, tmp_path, "a")}
    topics.write(1_000)
    running["b"] = worker(start, topics, tmp_path, "b")
    topics.write(1_000)
    for slot in ("a", "b"):
        running[slot].send_signal(signal.SIGTERM)
        assert running[slot].wait(20) == 0
        topics.write(500)
        running[slot] = worker(start, topics, tmp_path, slot)
    running["b"].send_signal(signal.SIGTERM)
    assert running["b"].wait(20) == 0
    topics.write(500)
    topics.wait_for_outputs()


def test_the_new_group_protocol_works_too(topics: Topics, start: Start, tmp_path: Path) -> None:
    """KIP-848 with the range assignor: two workers, one killed, every record once."""
    more = {"group_protocol": "consumer"}
    worker(start, topics, tmp_path, "a", **more)
    topics.write(1_000)
    second = worker(start, topics, tmp_path, "b", **more)
    topics.write(1_000)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    topics.write(500)
    topics.wait_for_outputs()


def test_a_killed_worker_takes_its_slot_back(topics: Topics, start: Start, tmp_path: Path) -> None:
    """Its ghost's transaction ends with its start; every record once."""
    process = worker(start, topics, tmp_path, "a")
    for _ in range(3):
        topics.write(1_000)
        process.kill()
        process.wait()
        process = worker(start, topics, tmp_path, "a")
    topics.wait_for_outputs()


def test_an_idle_worker_costs_little(topics: Topics, start: Start, tmp_path: Path) -> None:
    """Under 2 % of a core, in processor time: no busy loop, no impatient fetches."""
    process = worker(start, topics, tmp_path, "a")
    topics.write(10)
    topics.wait_for_outputs()
    watched = psutil.Process(process.pid)
    time.sleep(1)
    before, began = sum(watched.cpu_times()[:2]), time.monotonic()
    time.sleep(10)
    share = (sum(watched.cpu_times()[:2]) - before) / (time.monotonic() - began)
    print(f"idle: {share:.2%} of a core")  # noqa: T201 - a figure for the documentation
    assert share < 0.02
