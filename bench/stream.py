"""What a unit of work costs, side by side on one broker: `python -m bench.stream [--json] [--events N]`.

Throughput: the input is written beforehand, a contender copies it, and the time is that between the first and the
last output as the broker stamped them (LogAppendTime), so that nothing that is measured runs beside the contender.
Only committed outputs count, and there must be one for each input. Latency: events are sent at a fixed rate, each
with the time of its sending; a reader of committed records takes it when the output comes. Needs a running stack.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from platformdirs import user_cache_path

from towpath.settings import load_settings
from towpath.stream.broker.admin.kafka import KafkaAdmin
from towpath.stream.broker.record import TopicPartition as Place

ROOT = Path(__file__).resolve().parents[1]
QUIX = "quixstreams==3.28.1"
PARTITIONS = 4
KEYS = 1_000
VALUE_BYTES = 100
START_SECONDS_MAX = 60.0
LATENCY_SECONDS = 8.0
WARM_SECONDS = 3.0


@dataclass(frozen=True)
class Contender:
    """One way of copying, and how it is told to."""

    name: str
    module: str
    told: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable


def contenders(quix_python: str | None) -> list[Contender]:
    """Return who is measured, peers first."""
    found = [
        # At a few thousand a second it would take minutes for as many as the others copy in seconds.
        Contender("Faust 0.15.3 as it comes, at least once", "stock_faust", {"share": 0.1}),
        Contender("raw librdkafka loop, batches of 2000", "raw", {"batch": 2_000}),
        Contender("raw librdkafka loop, batches of 2000, state", "raw", {"batch": 2_000, "with_state": True}),
        Contender("ours, event by event", "ours", {"mode": "events"}),
        Contender("ours, in batches", "ours", {"mode": "batches"}),
        Contender("ours, in batches of 500", "ours", {"mode": "batches", "stream": {"batch_records_max": 500}}),
        Contender("ours, in batches, state", "ours", {"mode": "batches", "with_state": True}),
    ]
    if quix_python is not None:
        for label, told in (("default commit interval, 5 s", {}), ("commits every 10 ms", {"commit_seconds": 0.01})):
            for state in (False, True):
                name = f"Quix Streams exactly once, {label}{', state' if state else ''}"
                found.append(Contender(name, "quix", {**told, "with_state": state}, quix_python))
    return found


def quix_python() -> str:
    """Return the Python of the venv that holds Quix Streams, made at the first call."""
    home = user_cache_path("towpath") / "bench" / QUIX.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", QUIX], check=True)
        (home / ".ready").touch()
    return str(python)


class Bench:
    """One run."""

    def __init__(self, servers: str, events: int) -> None:
        self.servers = servers
        self.events = events
        self.admin = AdminClient({"bootstrap.servers": servers})
        self.folder = Path(tempfile.mkdtemp(prefix="towpath-bench-"))
        self.input = f"bench-in-{uuid.uuid4().hex[:8]}"
        self._create(self.input)
        self._create(f"{self.input}.dead")
        self._fill()

    def _create(self, name: str, **config: str) -> None:
        create_topics(self.admin, [name], PARTITIONS, **config)
        # Once each has a leader: a consumer that asks before is told that there is none.
        KafkaAdmin({"bootstrap.servers": self.servers}).end_offsets(Place(name, number) for number in range(PARTITIONS))

    def _fill(self) -> None:
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 20, "partitioner": "murmur2_random"})
        for index in range(self.events):
            produce(producer, self.input, b"x" * VALUE_BYTES, b"key-%d" % (index % KEYS))
        producer.flush()

    def start(self, contender: Contender, source: str) -> tuple["subprocess.Popen[bytes]", str]:
        """Start a contender on `source`; return its process and its output topic."""
        tag = uuid.uuid4().hex[:8]
        out, state = f"bench-out-{tag}", f"bench-state-{tag}"
        self._create(out, **{"message.timestamp.type": "LogAppendTime"})
        self._create(state, **{"cleanup.policy": "compact"})
        told = {
            "servers": self.servers,
            "in": source,
            "out": out,
            "state": state,
            "tag": tag,
            "partitions": PARTITIONS,
            "with_state": False,
            **contender.told,
        }
        script = ROOT / "bench" / "contenders" / f"{contender.module}.py"
        environment = {**os.environ, "PYTHONPATH": str(ROOT) if contender.module != "quix" else ""}
        log = (self.folder / f"{tag}.log").open("wb")
        process = subprocess.Popen(
            [contender.python, str(script), json.dumps(told)], stdout=log, stderr=log, env=environment, cwd=self.folder
        )
        return process, out

    def reader(self, topic: str) -> Consumer:
        """Return a reader of committed records of all of `topic`."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "bench-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 5,
                "fetch.queue.backoff.ms": 5,
            }
        )
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        return consumer

    def throughput(self, contender: Contender) -> dict[str, Any]:
        """Return events per second."""
        process, out = self.start(contender, self.input)
        try:
            places = [TopicPartition(out, number) for number in range(PARTITIONS)]
            look = self.reader(out)
            wanted = int(self.events * contender.told.get("share", 1))
            deadline = time.monotonic() + START_SECONDS_MAX + self.events / 2_000
            while sum(look.get_watermark_offsets(place, timeout=10)[1] for place in places) < wanted:
                if process.poll() is not None or time.monotonic() > deadline:
                    return {"error": f"did not finish; log in {self.folder}"}
                time.sleep(0.5)
            # Quix commits every five seconds; until then the outputs are there and not committed.
            times: list[int] = []
            while len(times) < wanted:
                if time.monotonic() > deadline:
                    return {"error": f"{len(times)} of {wanted} outputs; log in {self.folder}"}
                times += [m.timestamp()[1] for m in look.consume(10_000, 0.5) if m.error() is None]
            look.close()
            seconds = (max(times) - min(times)) / 1000
            return {"events_per_second": round(len(times) / seconds) if seconds else None, "outputs": len(times)}
        finally:
            end(process)

    def latency(self, contender: Contender, rate: int) -> dict[str, Any]:
        """Return p50 and p99 from sending to reading the committed output, at `rate` events a second."""
        source = f"bench-rate-{uuid.uuid4().hex[:8]}"
        self._create(source)
        self._create(f"{source}.dead")
        process, out = self.start(contender, source)
        stop = threading.Event()
        sender = threading.Thread(target=self._send_at, args=(source, rate, stop))
        sender.start()
        try:
            look = self.reader(out)
            found: list[float] = []
            deadline = time.monotonic() + START_SECONDS_MAX
            warm_until = measured_until = 0.0
            while not measured_until or time.monotonic() < measured_until:
                if process.poll() is not None or (not measured_until and time.monotonic() > deadline):
                    return {"error": f"did not start; log in {self.folder}"}
                fetched: list[Any] = look.consume(1_000, 0.005)
                for message in fetched:
                    if message.error() is not None:
                        continue
                    now = time.time_ns()
                    if not measured_until:
                        # What waited for the contender to start is not measured.
                        warm_until = time.monotonic() + WARM_SECONDS
                        measured_until = warm_until + LATENCY_SECONDS
                    if time.monotonic() > warm_until:
                        found.append((now - int(message.value().split()[0])) / 1e6)
            found.sort()
            if not found:
                return {"error": "no output"}
            return {
                "p50_milliseconds": round(found[len(found) // 2], 1),
                "p99_milliseconds": round(found[int(len(found) * 0.99)], 1),
                "events": len(found),
            }
        finally:
            stop.set()
            sender.join()
            end(process)

    def _send_at(self, topic: str, rate: int, stop: threading.Event) -> None:
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 0, "partitioner": "murmur2_random"})
        began, sent = time.monotonic(), 0
        while not stop.is_set():
            while sent < (time.monotonic() - began) * rate:
                producer.produce(topic, b"%d " % time.time_ns() + b"x" * VALUE_BYTES, b"key-%d" % (sent % KEYS))
                sent += 1
            producer.poll(0)
            stop.wait(1 / rate if rate < 1_000 else 0.001)
        producer.flush(5)


def create_topics(admin: AdminClient, names: Iterable[str], partitions: int, **config: str) -> None:
    """Create topics, and wait until they are there."""
    for future in admin.create_topics([NewTopic(name, partitions, 1, config=config) for name in names]).values():
        future.result()


def produce(producer: Producer, topic: str, value: bytes, key: bytes, headers: Any = None) -> None:
    """Send a record, waiting while the client's queue is full."""
    while True:
        try:
            producer.produce(topic, value, key, headers=headers)
            return
        except BufferError:
            producer.poll(0.1)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a contender."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "confluent-kafka": version("confluent-kafka"),
        "faust-streaming": version("faust-streaming"),
        "quixstreams": QUIX.partition("==")[2],
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--events", type=int, default=400_000, help="inputs of each throughput run")
    parser.add_argument("--only", default="", help="measure only contenders whose name contains this")
    parser.add_argument("--without-quix", action="store_true", help="leave Quix Streams out")
    parser.add_argument("--rates", default="200,5000", help="rates of the latency runs; empty for none")
    options = parser.parse_args()
    servers = load_settings().kafka.bootstrap_servers
    if not KafkaAdmin({"bootstrap.servers": servers}).is_answered():
        sys.exit(f"Kafka at {servers} does not answer; run next: towpath up")
    bench = Bench(servers, options.events)
    chosen = [
        contender
        for contender in contenders(None if options.without_quix else quix_python())
        if options.only in contender.name
    ]
    result: dict[str, Any] = {"machine": machine(), "events": options.events, "throughput": {}, "latency": {}}
    for contender in chosen:
        figures = result["throughput"][contender.name] = bench.throughput(contender)
        note(f"{contender.name:58} {figures.get('events_per_second', figures.get('error')):>9}", options.json)
    rates = [int(rate) for rate in options.rates.split(",") if rate]
    for contender in chosen:
        for rate in rates:
            name = f"{contender.name}, at {rate}/s"
            figures = result["latency"][name] = bench.latency(contender, rate)
            note(f"{name:68} {figures}", options.json)
    if options.json:
        print(json.dumps(result))


def note(text: str, as_json: bool) -> None:
    """Show progress: on stderr when stdout is for the result."""
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
