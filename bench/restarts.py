"""How soon a worker serves again after its broker: `python -m bench.restarts [--json] [--restarts N] [--freeze S]`.

A worker with state, under a load of 200 records a second. Kafka is killed (frozen before, with --freeze) and started
again by its supervisor; the clock runs from the first answer of the new broker to an admin client until the group's
offsets move. At the end every record must have been counted once. Needs a running stack, which has only this to do.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from bench.stream import create_topics
from towpath.clock import SystemClock
from towpath.settings import load_settings
from towpath.stack.client import StackClient
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import BrokerAway, Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.options import StreamOptions
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.faust_app.wiring import build_loop

RECORDS_PER_SECOND = 200
PARTITIONS = 4
SERVING_SECONDS_MAX = 180.0
PART = "kafka"


class Counter:
    """Counts records by key in the state, and sends one output each."""

    def __init__(self, topic: str, state: str, out: str) -> None:
        self.topic, self.state, self.out = topic, state, out

    async def handle(self, unit: KafkaUnit, groups: Groups, seconds: float) -> None:  # noqa: ARG002
        """Count."""
        for partition, records in groups.items():
            state = unit.state(self.state, partition.partition)
            for record in records:
                key = record.key or b""
                state.put(key, b"%d" % (int(state.get(key) or 0) + 1))
                unit.send(self.out, record.value, key=key)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing to do."""

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing to do."""

    async def ready(self) -> None:
        """Nothing to do."""


class Load:
    """Produces at a steady rate, in a task, until it is told to stop."""

    def __init__(self, servers: str, topic: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )
        self._topic = topic
        self.sent = 0
        self.stopping = False

    async def run(self) -> None:
        """Produce."""
        while not self.stopping:
            for _ in range(RECORDS_PER_SECOND // 20):
                self._producer.produce(self._topic, b"%d" % self.sent, b"k%d" % (self.sent % 50))
                self.sent += 1
            self._producer.poll(0)
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self._producer.flush)


def total(broker: KafkaBroker, group: str, places: list[TopicPartition]) -> int:
    """Return the sum of a group's offsets, -1 while the cluster does not say."""
    try:
        return sum(broker.group_offsets(group, places).values())
    except BrokerAway:
        return -1


def answers(servers: str) -> bool:
    """Return whether the broker answers a new client."""
    try:
        AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=1.0)
    except KafkaException:
        return False
    return True


async def restart(servers: str, group: str, places: list[TopicPartition], freeze_seconds: float) -> float:
    """Kill the broker; return the seconds from its first answer until the group's offsets move."""
    settings = load_settings()
    broker = KafkaBroker(settings.kafka, settings.stream)
    before = await asyncio.to_thread(total, broker, group, places)
    with StackClient(settings.stack_home) as client:
        if freeze_seconds:
            client.kill(PART, signal.SIGSTOP)
            await asyncio.sleep(freeze_seconds)
        client.kill(PART)
    await asyncio.sleep(0.5)
    while not await asyncio.to_thread(answers, servers):
        await asyncio.sleep(0.1)
    began = time.monotonic()
    while time.monotonic() - began < SERVING_SECONDS_MAX:
        if await asyncio.to_thread(total, broker, group, places) > before:
            break
        await asyncio.sleep(0.2)
    return time.monotonic() - began


async def measure(restarts: int, freeze_seconds: float) -> dict[str, Any]:
    """Return percentiles of the seconds, and whether the counts are right."""
    settings = load_settings()
    servers, tag = settings.kafka.bootstrap_servers, uuid.uuid4().hex[:8]
    names = {name: f"bench-{name}-{tag}" for name in ("in", "state", "out")}
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    topics = [*names.values(), f"{names['in']}.dead"]
    create_topics(admin, topics, PARTITIONS)
    places = [TopicPartition(names["in"], number) for number in range(PARTITIONS)]
    group = f"bench-{tag}"
    worker = build_loop(
        StreamOptions(
            application=group,
            slot="a",
            broker=KafkaBroker(settings.kafka, settings.stream),
            settings=settings.stream,
            clock=SystemClock(),
            states=(names["state"],),
            state_folder=Path(tempfile.mkdtemp(prefix="towpath-bench-")),
        ),
        Counter(names["in"], names["state"], names["out"]),  # type: ignore[arg-type]
    )
    await worker.subscribe([names["in"]])
    running = asyncio.create_task(worker.run())
    load = Load(servers, names["in"])
    producing = asyncio.create_task(load.run())
    await asyncio.sleep(5)
    seconds = []
    for number in range(restarts):
        seconds.append(await restart(servers, group, places, freeze_seconds))
        sys.stderr.write(f"restart {number + 1}: served again after {seconds[-1]:.1f} s\n")
        await asyncio.sleep(5)
    load.stopping = True
    await producing
    broker = KafkaBroker(settings.kafka, settings.stream)
    deadline = time.monotonic() + SERVING_SECONDS_MAX
    while total(broker, group, places) < load.sent and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    worker.stop()
    await running
    await worker.close()
    counted = 0
    for number in range(PARTITIONS):
        place, latest = TopicPartition(names["state"], number), dict[bytes, int]()
        end, reader, reached = broker.end_offsets([place])[place], broker.reader(place, 0), 0
        while reached < end:
            records, reached = await asyncio.to_thread(reader.poll, 0.2)
            latest |= {record.key or b"": int(record.value or b"0") for record in records}
        counted += sum(latest.values())
    ranked = sorted(seconds)
    return {
        "restarts": restarts,
        "p50_seconds": round(ranked[len(ranked) // 2], 1),
        "p99_seconds": round(ranked[min(int(len(ranked) * 0.99), len(ranked) - 1)], 1),
        "sent": load.sent,
        "counted": counted,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--restarts", type=int, default=20, help="how often the broker is restarted")
    parser.add_argument("--freeze", type=float, default=0.0, help="seconds for which it is frozen before it is killed")
    parser.add_argument("--log", action="store_true", help="log what the worker does")
    options = parser.parse_args()
    if not options.log:
        structlog.configure(processors=[structlog.testing.LogCapture()])
    else:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    result = asyncio.run(measure(options.restarts, options.freeze))
    text = json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items())
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
