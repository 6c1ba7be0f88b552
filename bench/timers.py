"""How late timers fire while many are pending: `python -m bench.timers [--json] [--pending N]`.

One partition, a store on disk, N timers set for tomorrow; then a thousand more that fall due over ten seconds. Lateness
is from when a timer was due to the broker's own timestamp on its record. Needs a running stack.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from bench.stream import create_topics
from towpath.clock import SystemClock
from towpath.settings import load_settings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.options import StreamOptions
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.faust_app.wiring import build_loop

DUE = 1_000
SPREAD_SECONDS = 10
DAY_MILLISECONDS = 86_400_000
PER_RECORD = 1_000


class Setter:
    """Sets a thousand timers for each record of the input."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.handled = 0

    async def handle(self, unit: KafkaUnit, groups: Groups, seconds: float) -> None:  # noqa: ARG002
        """`far` sets them for tomorrow, `near` for the next seconds."""
        for record in groups.get(TopicPartition(self.topic, 0), []):
            timers = unit.timers(0)
            now = int(time.time() * 1000)
            for index in range(PER_RECORD):
                near = record.value == b"near"
                due = now + (500 + random.randrange(SPREAD_SECONDS * 1000) if near else DAY_MILLISECONDS + index)
                timers.set(b"%d-%d" % (record.offset, index), due, b"%d" % due, record_key=b"k")
            self.handled += 1

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing to do."""

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing to do."""

    async def ready(self) -> None:
        """Nothing to do."""


async def measure(pending: int) -> dict[str, Any]:
    """Return percentiles of the lateness, milliseconds."""
    settings = load_settings()
    servers, tag = settings.kafka.bootstrap_servers, uuid.uuid4().hex[:8]
    names = {name: f"bench-{name}-{tag}" for name in ("in", "state", "timers")}
    admin = AdminClient({"bootstrap.servers": servers})
    topics = [*names.values(), f"{names['in']}.dead"]
    create_topics(admin, topics, 1, **{"message.timestamp.type": "LogAppendTime"})
    broker = KafkaBroker(settings.kafka, settings.stream)
    setter = Setter(names["in"])
    loop = build_loop(
        StreamOptions(
            application=f"bench-{tag}",
            slot="a",
            broker=broker,
            settings=settings.stream.model_copy(update={"batch_records_max": 5}),
            clock=SystemClock(),
            states=(names["state"],),
            timers_topic=names["timers"],
            state_folder=Path(tempfile.mkdtemp(prefix="towpath-bench-")),
        ),
        setter,  # type: ignore[arg-type]
    )
    await loop.subscribe([names["in"]])
    running = asyncio.create_task(loop.run())
    producer = Producer({"bootstrap.servers": servers})
    far = pending // PER_RECORD
    for index in range(far + 1):
        producer.produce(names["in"], b"far" if index < far else b"near")
    await asyncio.to_thread(producer.flush)
    while setter.handled <= far and not running.done():
        await asyncio.sleep(0.1)
    await asyncio.sleep(SPREAD_SECONDS + 3)
    loop.stop()
    await running
    await loop.close()
    place = TopicPartition(names["timers"], 0)
    end, reader, reached = broker.end_offsets([place])[place], broker.reader(place, 0), 0
    late: list[int] = []
    while reached < end:
        records, reached = await asyncio.to_thread(reader.poll, 0.2)
        late += [record.timestamp_milliseconds - int(record.value or b"0") for record in records]
    late.sort()
    return {
        "pending": far * PER_RECORD,
        "fired": len(late),
        "p50_milliseconds": late[len(late) // 2],
        "p99_milliseconds": late[int(len(late) * 0.99)],
        "early": sum(lateness < 0 for lateness in late),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--pending", type=int, default=100_000, help="timers that wait for tomorrow")
    options = parser.parse_args()
    result = asyncio.run(measure(options.pending))
    text = json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items())
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
