"""Workers as processes, the nemesis that torments them, and the verdict."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.crash.worker import STREAM
from towpath.settings import KafkaSettings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.partitioner import partition_of
from towpath.stream.broker.port import BrokerAway
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

PARTITIONS = 4
KEYS = 200
STOPPED_SECONDS = STREAM.session_timeout_seconds + 2
QUIET_SECONDS_MAX = 90.0


@dataclass
class WorkerProcess:
    """One worker's process, started again whenever it has ended and nobody meant it to."""

    told: dict[str, Any]
    log: Path
    prefix: tuple[str, ...] = ()
    """What runs the worker's command: `ip netns exec NAME`, say."""
    process: "subprocess.Popen[bytes]" = field(init=False)
    ended: list[int] = field(default_factory=list)
    ready_times: int = 0

    def __post_init__(self) -> None:
        if self.log.exists():
            self.ready_times = self.log.read_bytes().count(b"worker ready")
        self.start()

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "tests.crash.worker", json.dumps(self.told)],
                stdout=log,
                stderr=log,
            )

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def keep_running(self) -> None:
        """Start it again if it has ended by itself, as a supervisor would."""
        code = self.process.poll()
        if code is not None:
            self.ended.append(code)
            self.start()

    def wait_until_ready(self, seconds: float = 120.0) -> None:
        """Wait until it says that it serves its partitions."""
        deadline = time.monotonic() + seconds
        before = self.ready_times
        while self.log.read_bytes().count(b"worker ready") <= before:
            assert time.monotonic() < deadline, f"no worker ready in {self.log}"
            time.sleep(0.1)

    def stop(self) -> int:
        """Stop it in good order and return its exit code."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            # A worker needs seconds; a machine that runs everything else at the same time needs patience.
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)  # its log tells where it hangs
            time.sleep(1)
            self.process.kill()
            return self.process.wait()


STOP_SECONDS_MAX = 90


class Run:
    """One crash test: topics of its own, a known multiset of inputs, two workers."""

    def __init__(
        self,
        servers: str,
        root: Path,
        seed: int,
        *,
        database: str | None = None,
        prefixes: Mapping[str, tuple[str, ...]] | None = None,
        replicas: int = 1,
    ) -> None:
        self.prefixes = prefixes or {}
        self.chance = random.Random(seed)
        self.servers = servers
        self.root = root
        tag = uuid.uuid4().hex[:8]
        self.application = f"crash-{tag}"
        self.topics = {name: f"crash-{name}-{tag}" for name in ("in", "out", "state")}
        names = [*self.topics.values(), f"{self.topics['in']}.dead"]
        self.admin = AdminClient({"bootstrap.servers": servers, "log_level": 2})
        config = {"min.insync.replicas": "2"} if replicas > 2 else {}
        wanted = [NewTopic(name, PARTITIONS, replicas, config=config) for name in names]
        for future in self.admin.create_topics(wanted).values():
            future.result()
        self.broker = KafkaBroker(KafkaSettings(bootstrap_servers=servers), STREAM)
        self.database = database
        self.trouble = ""
        self.inputs: dict[bytes, list[int]] = defaultdict(list)
        self.written = 0
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "log_level": 2,
            }
        )
        self.workers = {slot: self.new_worker(slot) for slot in "ab"}
        for worker in self.workers.values():
            worker.wait_until_ready()

    def new_worker(self, slot: str) -> WorkerProcess:
        """Start a worker in `slot`."""
        told: dict[str, Any] = {
            **self.topics,
            "application": self.application,
            "slot": slot,
            "servers": self.servers,
            "root": str(self.root),
        }
        if self.database is not None:
            told["database"] = self.database
        return WorkerProcess(told, self.root / f"worker-{slot}.log", self.prefixes.get(slot, ()))

    def write(self, records: int) -> None:
        """Write further inputs: numbers that rise over the whole run, under random keys."""
        for _ in range(records):
            key = b"key-%d" % self.chance.randrange(KEYS)
            self.written += 1
            self.inputs[key].append(self.written)
            while True:
                try:
                    self._producer.produce(self.topics["in"], b"%d" % self.written, key)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all inputs are in the log."""
        assert self._producer.flush(60) == 0

    def watch(self, seconds: float) -> None:
        """Let time pass, and start again what ended by itself."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.1)
            for worker in self.workers.values():
                worker.keep_running()

    def wait_until_done(self, done: Callable[[], int]) -> None:
        """Wait until `done` says that everything was applied, as long as it makes progress."""
        best, since = -1, time.monotonic()
        while True:
            now = done()
            if now >= self.written:
                return
            if now > best:
                best, since = now, time.monotonic()
            assert time.monotonic() - since < QUIET_SECONDS_MAX, (
                f"stalled at {now} of {self.written}, {self.trouble}; logs in {self.root}"
            )
            self.watch(0.3)

    def stop(self) -> list[int]:
        """Stop every worker and return their exit codes."""
        return [worker.stop() for worker in self.workers.values()]

    # Faults

    def kill(self) -> None:
        """SIGKILL a worker; it starts again in its slot."""
        worker = self.chance.choice(list(self.workers.values()))
        worker.send(signal.SIGKILL)
        worker.process.wait()
        worker.start()

    def freeze(self) -> None:
        """SIGSTOP a worker for longer than its session, then SIGCONT: a zombie wakes up among its heirs."""
        worker = self.chance.choice(list(self.workers.values()))
        worker.send(signal.SIGSTOP)
        self.watch_others(worker, STOPPED_SECONDS)
        worker.send(signal.SIGCONT)

    def watch_others(self, frozen: WorkerProcess, seconds: float) -> None:
        """Let time pass while one worker is frozen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.1)
            for worker in self.workers.values():
                if worker is not frozen:
                    worker.keep_running()

    def rebalance(self) -> None:
        """Have a third worker join, work for a while, and leave in good order."""
        third = self.new_worker("c")
        try:
            third.wait_until_ready()
            self.watch(self.chance.uniform(0.5, 3.0))
        finally:
            code = third.stop()
        assert code == 0, f"a worker that was asked to stop did not end well; logs in {self.root}"

    # What became of it

    def ends(self, topic: str, seconds: float = 60.0) -> dict[TopicPartition, int]:
        """Return the ends of a topic's partitions, once their leaders answer."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.broker.end_offsets([TopicPartition(topic, number) for number in range(PARTITIONS)])
            except BrokerAway:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def read_all(self, topic: str) -> list[ConsumedRecord]:
        """Return a topic's committed records, partition by partition; fail if a transaction is still open."""
        records: list[ConsumedRecord] = []
        for place, end in self.ends(topic).items():
            reader = self.broker.reader(place, 0)
            reached, deadline = 0, time.monotonic() + 20
            while reached < end:
                assert time.monotonic() < deadline, f"{place}: a transaction is open at {reached} of {end}"
                further, reached = reader.poll(0.2)
                records += further
            reader.close()
        return records

    def outputs_committed(self) -> int:
        """Return how many inputs are behind the group's offsets."""
        member = self.broker.member(self.application, client_id="crash-test")
        try:
            found = member.committed([TopicPartition(self.topics["in"], number) for number in range(PARTITIONS)])
        except BrokerAway as error:
            self.trouble = error.cause
            return -1
        finally:
            member.close()
        return sum(offset or 0 for offset in found.values())

    def verdict(self) -> list[str]:
        """Return every way in which outputs and state differ from what the inputs give; empty if none."""
        outputs: dict[bytes, list[int]] = defaultdict(list)
        wrong: list[str] = []
        for record in self.read_all(self.topics["out"]):
            assert record.key is not None
            assert record.value is not None
            outputs[record.key].append(int(record.value))
            if partition_of(record.key, PARTITIONS) != record.partition:
                wrong.append(f"{record.key!r} lies in partition {record.partition}")
        wrong += compare("outputs", self.inputs, outputs)
        state: dict[bytes, bytes] = {}
        for record in self.read_all(self.topics["state"]):
            assert record.key is not None
            state[record.key] = record.value or b""
        wrong += compare_sums(self.inputs, {key: value.decode() for key, value in state.items()})
        dead = self.read_all(f"{self.topics['in']}.dead")
        return wrong + [f"{record.position} is dead: {record.header('dead')}" for record in dead]


def compare(what: str, inputs: dict[bytes, list[int]], outputs: dict[bytes, list[int]]) -> list[str]:
    """Return the keys whose outputs are not exactly the inputs, in order."""
    wrong = []
    for key in inputs.keys() | outputs.keys():
        expected, found = inputs.get(key, []), outputs.get(key, [])
        if expected != found:
            lost, extra = set(expected) - set(found), len(found) - len(set(found))
            wrong.append(f"{what} of {key!r}: {len(lost)} lost, {extra} doubled, in order: {found == sorted(found)}")
    return wrong


def compare_sums(inputs: dict[bytes, list[int]], sums: dict[bytes, str]) -> list[str]:
    """Return the keys whose count and sum are not those of the inputs."""
    expected = {key: f"{len(values)} {sum(values)}" for key, values in inputs.items()}
    return [
        f"state of {key!r}: {sums.get(key)}, not {expected.get(key)}"
        for key in expected.keys() | sums.keys()
        if expected.get(key) != sums.get(key)
    ]


def seed_of_the_run() -> int:
    """Return a new seed, or the one that a variable names, and print it."""
    seed = int(os.environ.get("TOWPATH_TEST_SEED") or random.randrange(10**9))
    print(f"TOWPATH_TEST_SEED={seed}")  # noqa: T201 - to run it again
    return seed
