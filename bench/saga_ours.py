"""Our side of `bench.saga`: a stack and its workers, a backlog, a rate, and sagas one at a time.

A saga is counted when its completed entry is read from its history, committed, and verified afterwards in the
databases of its services.
"""

import os
import random
import re
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from bench.saga_forms import Form, connect
from bench.saga_hops import hops, quantile, spread
from bench.saga_processes import Counts, all_cpu_seconds, read_counts
from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.contract.codec import Codec
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.registry import load_codec
from towpath.derived_topics import derived_text, write_derived
from towpath.logs import configure_logs
from towpath.orchestrator import records as wire
from towpath.outbox.kafka import KafkaHandover
from towpath.project import worker_names
from towpath.settings import Settings, load_settings
from towpath.stack.client import StackClient
from towpath.stack.home import Home
from towpath.stack.up import down, up
from towpath.stack.workers import READY_SECONDS_MAX, worker_process
from towpath.stream.broker.kafka import read_records

ROOT = Path(__file__).resolve().parents[1]
PORTS = ("kafka_port", "controller_port", "connect_port", "registry_port", "postgres_port")
STAMPED = (TopicKind.EVENTS, TopicKind.COMMANDS, TopicKind.REPLIES, TopicKind.HISTORY)
STARTS_PER_TRANSACTION = 50
"""Of a backlog, which is not about placing; at a rate and one at a time each start has a transaction of its own."""
DRAIN_SECONDS = 60.0
SECONDS_PER_SAGA = 0.05
ALONE_SECONDS_MAX = 15.0
IDLE_SECONDS = 5.0
P99_HELD_MILLISECONDS = 2_000


@contextmanager
def our_stack(form: Form, partitions: int | None = None) -> Iterator["Ours"]:
    """Start a stack of its own, with the form's workers; stop and remove it in the end.

    `partitions` are those of each topic, None what the project says.
    """
    home = Path(tempfile.mkdtemp(prefix="towpath-bench-"))
    home.chmod(0o755)  # PostgreSQL's own user passes it
    ports = {f"TOWPATH_STACK__{name.upper()}": str(free_port()) for name in PORTS}
    os.environ.update({**form.environment, **ports, "TOWPATH_STACK__HOME": str(home), "PYTHONPATH": str(ROOT)})
    if partitions is not None:
        os.environ.update(repartitioned(load_settings(ROOT), home / "schemas", partitions))
    settings = load_settings(ROOT)
    configure_logs(settings, worker="bench")  # stdout is for the result
    ours: Ours | None = None
    try:
        up(settings)
        ours = Ours(form, settings)
        yield ours
    finally:
        if ours is not None:
            ours.close()
        down(settings)
        shutil.rmtree(home, ignore_errors=True)


def repartitioned(settings: Settings, folder: Path, partitions: int) -> dict[str, str]:
    """Copy the schemas into `folder`, with so many partitions a topic; return the variables that make it theirs."""
    shutil.copytree(settings.root / settings.project.schemas, folder)
    for path in folder.glob("topics/*.yaml"):
        text = re.sub(r"(?m)^( *partitions): \d+$", rf"\1: {partitions}", path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
    project = settings.project.model_copy(update={"schemas": str(folder), "partitions": partitions})
    copied = settings.model_copy(update={"project": project})
    write_derived(copied, derived_text(copied, load_contracts(schema_sets(copied))))
    return {"TOWPATH_PROJECT__SCHEMAS": str(folder), "TOWPATH_PROJECT__PARTITIONS": str(partitions)}


def free_port() -> int:
    """Return a port that nobody holds now, below those that the kernel gives to clients."""
    while True:
        port = random.randrange(12_000, 30_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was spent and counted up to a moment."""

    at_seconds: float
    cpu: dict[str, float]
    counts: Counts

    def spent(self, before: "Snapshot") -> dict[str, float]:
        """Return the processor seconds of each process since an earlier moment."""
        return {name: self.cpu[name] - before.cpu.get(name, 0.0) for name in sorted(self.cpu)}


class Follower:
    """Reads the history as it grows, in a thread, and notes when each saga was seen to be complete.

    Entries are decoded by whoever asks: while sagas are started at a rate, the machine is theirs.
    """

    def __init__(self, settings: Settings, codec: Codec, topic: str) -> None:
        self.entries: list[tuple[int, wire.HistoryEntry]] = []
        self._ended: dict[str, tuple[float, int, str]] = {}
        self._decoding = threading.Lock()
        self._codec = codec
        self._read: deque[tuple[float, int, bytes]] = deque()
        self._moved = threading.Condition()
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                **settings.kafka.client_config(),
                "group.id": "bench-follower",  # nothing joins it
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,  # the stack ends before this does
            }
        )
        count = len(self._consumer.list_topics(topic, 10).topics[topic].partitions)
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(count)])
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            first = self._consumer.poll(0.25)
            if first is None:
                continue
            messages, seen = (first, *self._consumer.consume(1_000, 0)), time.time()
            self._read.extend((seen, one.timestamp()[1], one.value() or b"") for one in messages if one.error() is None)
            with self._moved:
                self._moved.notify_all()
        self._consumer.close()

    @property
    def ended(self) -> dict[str, tuple[float, int, str]]:
        """Return, by key, when an end was seen, when the broker took it, and which it was."""
        with self._decoding:
            while self._read:
                seen, at, value = self._read.popleft()
                entry = self._codec.decode(value)
                assert isinstance(entry, wire.HistoryEntry)
                self.entries.append((at, entry))
                if entry.status in ("completed", "compensated", "stuck"):
                    self._ended.setdefault(entry.key, (seen, at, entry.status))
        return self._ended

    def wait_for(self, keys: Collection[str], seconds: float) -> bool:
        """Wait until all of `keys` have ended."""
        deadline = time.monotonic() + seconds
        open_ = set(keys)
        while True:
            open_.difference_update(self.ended)
            if not open_:
                return True
            with self._moved:
                left = deadline - time.monotonic()
                if not self._read and (left <= 0 or not self._moved.wait(left)):
                    return False

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.join(5)


class Ours:
    """The running stack, measured."""

    def __init__(self, form: Form, settings: Settings) -> None:
        self.form = form
        self.settings = settings
        self._number = 0
        self._metric_ports: list[int] = []
        # Kept to the end: once it was thrown away here, and a socket to the registry was closed with it (EBADF).
        self._admin = AdminClient({**settings.kafka.client_config(), "log_level": 0})
        self._handover = KafkaHandover(settings.kafka, per_second=50, name="bench")
        catalogue = Catalogue.load(settings)
        self._topics = {topic.name: topic.kind for topic in catalogue.live()}
        self._stamp()
        self.codec = load_codec(settings, catalogue, list(self._topics))
        form.prepare(settings, self.codec)
        self._start_workers()
        self.follower = Follower(settings, self.codec, f"{form.saga}.history")

    def _stamp(self) -> None:
        """Have the broker write its own time on every record: a hop is then the difference of two of its times."""
        entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        resources = [
            ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
            for name, kind in self._topics.items()
            if kind in STAMPED
        ]
        for future in self._admin.incremental_alter_configs(resources).values():
            future.result(10)

    def _start_workers(self) -> None:
        started = []
        with StackClient(Home(self.settings.stack_home)) as client:
            for name in worker_names(self.settings):
                port = free_port()
                self._metric_ports.append(port)
                spec = worker_process(
                    self.settings, name, environment={**os.environ, "TOWPATH_METRICS_PORT": str(port)}
                )
                client.start(spec)
                started.append(spec.name)
            client.wait_ready(started, READY_SECONDS_MAX)

    def pids(self) -> dict[str, int]:
        """Return the processes of the stack, by name."""
        with StackClient(Home(self.settings.stack_home)) as client:
            return {name: one.pid for name, one in client.status().items() if one.pid is not None}

    def snapshot(self) -> Snapshot:
        """Return what was spent and counted up to now."""
        return Snapshot(time.monotonic(), all_cpu_seconds(self.pids()), read_counts(self._metric_ports))

    def keys(self, count: int) -> list[str]:
        """Return as many new business keys."""
        begin, self._number = self._number, self._number + count
        return [f"bench-{self.form.steps}-{number}" for number in range(begin, begin + count)]

    def idle(self) -> dict[str, float]:
        """Return the share of a core that each process takes while nothing happens."""
        time.sleep(4)
        before = self.snapshot()
        time.sleep(IDLE_SECONDS)
        after = self.snapshot()
        seconds = after.at_seconds - before.at_seconds
        return {name: (after.cpu[name] - before.cpu[name]) / seconds for name in before.cpu}

    def backlog(self, sagas: int) -> dict[str, Any]:
        """Place so many at once and let them be drained."""
        keys, began, before = self.keys(sagas), datetime.now(UTC), self.snapshot()
        placed: dict[str, float] = {}
        with connect(self.settings, self.form.start_service) as connection:
            for at in range(0, sagas, STARTS_PER_TRANSACTION):
                for key in keys[at : at + STARTS_PER_TRANSACTION]:
                    self.form.start(connection, self.codec, key)
                    placed[key] = time.time()
                connection.commit()
        ended = self.follower.wait_for(keys, DRAIN_SECONDS + SECONDS_PER_SAGA * sagas)
        after = self.snapshot()
        seconds = after.at_seconds - before.at_seconds
        times = self.follower.ended
        last = max((times[key][1] for key in keys if key in times), default=0)
        elapsed = last / 1000 - min(placed.values())
        return {
            "sagas": sagas,
            "all_ended": ended,
            **self.verified(keys),
            "sagas_per_second": round(sagas / elapsed, 1) if ended else None,
            "start_to_end": self._start_to_end(placed),
            "seconds": seconds,
            "processes": after.spent(before),
            "units": after.counts.since(before.counts, seconds),
            "hops": self.hops(keys, began),
        }

    def charge(self, backlog: dict[str, Any], idle: dict[str, float]) -> None:
        """Turn the CPU time of a backlog into that of one saga, less what the processes take when idle."""
        sagas, seconds = backlog["sagas"], backlog["seconds"]
        spent = {
            name: max(value - idle.get(name, 0.0) * seconds, 0.0) * 1000 / sagas
            for name, value in backlog["processes"].items()
        }
        backlog["processes"] = {name: round(value, 2) for name, value in spent.items()}
        backlog["cpu_milliseconds_per_saga"] = round(sum(spent.values()), 2)
        backlog["ceiling_sagas_per_second"] = round(1000 * len(os.sched_getaffinity(0)) / sum(spent.values()), 1)

    def verified(self, keys: list[str]) -> dict[str, Any]:
        """Return how many of these sagas have completed, and of how many of those every service has all its work."""
        ended = self.follower.ended
        completed = [key for key in keys if ended.get(key, ("", 0, ""))[2] == "completed"]
        return {"completed": len(completed), "verified_in_databases": self.form.done(self.settings, completed)}

    def _start_to_end(self, placed: dict[str, float]) -> dict[str, float]:
        ended = self.follower.ended
        return spread(ended[key][1] - at * 1000 for key, at in placed.items() if key in ended)

    def hops(self, keys: list[str], since: datetime) -> dict[str, Any]:
        """Return where the time of these sagas went."""
        topics = [name for name, kind in self._topics.items() if kind in STAMPED and kind is not TopicKind.HISTORY]
        written: dict[str, float] = {}
        names = frozenset(keys)
        for service in {name.partition(".")[0] for name in topics if name.endswith(".commands")}:
            with connect(self.settings, service) as connection:
                rows = connection.execute(
                    "SELECT id, extract(epoch FROM created_at) * 1000, key FROM outbox WHERE created_at >= %s",
                    (since.replace(tzinfo=None),),
                )
                written |= {str(id_): float(at) for id_, at, key in rows if key in names}
        return hops(
            list(read_records(self.settings, topics)),
            [(at, entry) for at, entry in self.follower.entries if entry.key in names],
            written,
            frozenset(key.encode() for key in keys),
        )

    def place(self, connection: Any, key: str) -> None:
        """Start one saga as an application does: commit, then hand the start over."""
        message = self.form.start(connection, self.codec, key)
        connection.commit()
        self._handover.hand_over((message,))

    def rate(self, rate: float, seconds: float) -> dict[str, Any]:
        """Start so many a second for so long, each in a transaction of its own."""
        keys, since, before = self.keys(int(rate * seconds)), datetime.now(UTC), self.snapshot()
        placed: dict[str, float] = {}
        late_seconds = 0.0
        begin = time.monotonic()
        with connect(self.settings, self.form.start_service) as connection:
            for number, key in enumerate(keys):
                wait = begin + number / rate - time.monotonic()
                late_seconds = max(late_seconds, -wait)
                if wait > 0:
                    time.sleep(wait)
                placed[key] = time.time()
                self.place(connection, key)
        ended = self.follower.wait_for(keys, 30)
        after = self.snapshot()
        passed_seconds = after.at_seconds - before.at_seconds
        found = self._start_to_end(placed)
        held = ended and found["p99_milliseconds"] < P99_HELD_MILLISECONDS and late_seconds < 1
        return {
            "rate": round(rate, 1),
            "seconds": seconds,
            "held": held,
            "started_late_seconds": round(late_seconds, 2),
            "start_to_end": found,
            **self.verified(keys),
            "units": after.counts.since(before.counts, passed_seconds),
            "processes_share_of_a_core": {
                name: round(spent / passed_seconds, 3) for name, spent in after.spent(before).items()
            },
            "hops": self.hops(keys, since),
        }

    def alone(self, count: int) -> dict[str, Any]:
        """Run sagas one at a time: from before the start's transaction until its completed entry was read."""
        keys, began = self.keys(count), datetime.now(UTC)
        found: list[float] = []
        with connect(self.settings, self.form.start_service) as connection:
            for key in keys:
                begin = time.time()
                self.place(connection, key)
                if self.follower.wait_for([key], ALONE_SECONDS_MAX):
                    found.append((self.follower.ended[key][0] - begin) * 1000)
        found.sort()
        return {
            "sagas": count,
            "completed": len(found),
            "p50_milliseconds": round(quantile(found, 0.5), 1) if found else None,
            "p99_milliseconds": round(quantile(found, 0.99), 1) if found else None,
            "hops": self.hops(keys, began),
        }

    def close(self) -> None:
        """Let go of Kafka, before it stops."""
        self.follower.close()
        self._handover.close()

    def only_postgres(self) -> None:
        """Stop everything but PostgreSQL, so that peers have the machine to themselves."""
        self.close()
        with StackClient(Home(self.settings.stack_home)) as client:
            for name in client.status():
                if name != "postgres":
                    client.stop(name)


def search(held_at: Callable[[float], dict[str, Any]], drained: float, trials: int = 3) -> list[dict[str, Any]]:
    """Return the trials at rates below the drained one, up or down as each was held."""
    found: list[dict[str, Any]] = []
    share = 0.7
    for _ in range(trials):
        found.append(held_at(drained * share))
        share += 0.15 if found[-1]["held"] else -0.2
        if len(found) > 1 and found[-1]["held"] != found[-2]["held"]:
            break
    return found
