"""What a replay costs: `python -m bench.replay [--json] [--records N]`. Needs a running stack.

Records lie in a topic of four partitions. A plain consumer reads them (confluent-kafka: `poll`, as most do, and
batches of 500, its best here); beside it, in the same run: reading as a replay does, reading what a selection takes,
sending into another topic in transactions, and writing files. Each by the clock on the wall and by the processor time
of this process.
"""

import argparse
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bench.stream import create_topics, machine, note, produce
from towpath.cli.collecting import few_collections
from towpath.replay.plan import Plan, Target, chosen
from towpath.replay.reading import read_ranges
from towpath.replay.selection import Selection
from towpath.replay.sending import Sending
from towpath.replay.source import source_of
from towpath.replay.writing import write_file
from towpath.settings import load_settings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.record import ConsumedRecord
from towpath.view.versions.log import bounds_of

PARTITIONS = 4
RECORDS_AT_ONCE = 500
VALUE_BYTES = 200
KEYS = 10_000


class Bench:
    """One run."""

    def __init__(self, records: int) -> None:
        settings = load_settings()
        self.records = records
        self.servers = settings.kafka.bootstrap_servers
        self.broker = KafkaBroker(settings.kafka, settings.stream)
        tag = uuid.uuid4().hex[:8]
        self.topic, self.copy = f"bench-replay-{tag}", f"bench-replayed-{tag}"
        create_topics(AdminClient({"bootstrap.servers": self.servers}), (self.topic, self.copy), PARTITIONS)
        self._fill()
        bounds = bounds_of(self.broker, [self.topic])
        self.ranges = {place: (bounds.begins[place], bounds.ends[place]) for place in bounds.ends}
        self.ids = bounds.topic_ids

    def _fill(self) -> None:
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 20})
        for number in range(self.records):
            headers: Any = [
                ("id", str(uuid.uuid4()).encode()),
                ("type", b"shop.Thing" if number % 2 else b"shop.Other"),
            ]
            produce(producer, self.topic, b"x" * VALUE_BYTES, b"key-%d" % (number % KEYS), headers)
        producer.flush()

    def plain(self, records_at_once: int = RECORDS_AT_ONCE) -> int:
        """Read as a plain consumer does: the fields of each message looked at, as whoever reads it must."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "bench",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 5,
            }
        )
        consumer.assign([TopicPartition(self.topic, number, 0) for number in range(PARTITIONS)])
        count = 0
        while count < self.records:
            messages: list[Any] = (
                [consumer.poll(0.1)] if records_at_once == 1 else consumer.consume(records_at_once, 0.1)
            )
            for message in messages:
                if message is not None and message.error() is None:
                    message.key(), message.value(), message.headers(), message.timestamp(), message.offset()
                    count += 1
        consumer.close()
        return count

    def read(self) -> int:
        """Read as a replay does."""
        return sum(1 for _ in read_ranges(self.broker, self.ranges))

    def select(self) -> int:
        """Read, and take half."""
        selection = Selection(types=frozenset({"Thing"}))
        return 2 * sum(1 for _ in chosen(read_ranges(self.broker, self.ranges), selection, bytes, None))

    def send(self) -> int:
        """Send into another topic, progress in the same transaction."""
        plan = self._plan(Target(topic=self.copy))
        return Sending(self.broker, "bench", plan, _all, source_of(self.broker, plan)).run(lambda _: True).sent

    def write(self, suffix: str) -> int:
        """Write a file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"records.{suffix}"
            plan = self._plan(Target(file=str(path)))
            return write_file(source_of(self.broker, plan), plan, path, _all, lambda _: True).sent

    def _plan(self, target: Target) -> Plan:
        counted = {"records": self.records}
        return Plan(uuid.uuid4().hex[:8], Selection(), target, self.ranges, self.ids, False, None, counted, [])


def _all(records: Iterable[ConsumedRecord]) -> Iterable[ConsumedRecord]:
    return records


def few(work: Callable[[], int]) -> Callable[[], int]:
    """Return `work` with Python's cycle collector set as `towpath replay` sets it."""

    def run() -> int:
        with few_collections():
            return work()

    return run


def measured(work: Callable[[], int]) -> dict[str, float]:
    """Return what a run comes to."""
    wall, processor = time.perf_counter(), time.process_time()
    count = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "records_per_second": round(count / wall),
        "cpu_microseconds_a_record": round(processor / count * 1e6, 2),
        "records": count,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--records", type=int, default=400_000)
    options = parser.parse_args()
    bench = Bench(options.records)
    result: dict[str, Any] = {"machine": machine()}
    for name, work in (
        ("plain consumer, poll", partial(bench.plain, 1)),
        ("plain consumer, batches", few(bench.plain)),
        ("replay reads", few(bench.read)),
        ("replay reads and selects", few(bench.select)),
        ("replay sends", few(bench.send)),
        ("replay writes lines", few(partial(bench.write, "jsonl"))),
        ("replay writes Avro", few(partial(bench.write, "avro"))),
    ):
        result[name] = measured(work)
        note(f"{name:32} {result[name]}", options.json)
    rate = result["replay reads"]["records_per_second"]
    for name in ("poll", "batches"):
        plain = result[f"plain consumer, {name}"]["records_per_second"]
        result[f"reads_over_plain_{name}"] = round(rate / plain, 2)
        note(f"replay reads at {rate / plain:.2f} of a plain consumer's rate ({name})", options.json)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
