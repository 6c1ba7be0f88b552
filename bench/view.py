"""What a view costs: `python -m bench.view [--json] [--events N]`. Needs a running stack.

Throughput: events lie in a topic, a worker folds them into rows of a new database, and the time is that between the
first and the last committed offset, beside the processor time of the worker. Beside it, in the same run: one statement
a row and one transaction an event, by hand on psycopg and confluent-kafka, with neither dedup nor dead letters.
Latency: events are sent at a fixed rate, each with the time of its sending, and a listener hears of the committed row.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil
import psycopg
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from psycopg import sql
from pydantic import SecretStr

from bench.stream import create_topics, end, machine, note, produce
from schemas.records.order import OrderConfirmed
from towpath.contract.codec import Codec
from towpath.contract.files import schema_sets
from towpath.orchestrator.envelope import headers_of
from towpath.outbox.postgres import apply_outbox_schema
from towpath.settings import Settings, load_settings
from towpath.view import Occurrence, View

PARTITIONS = 4
KEYS = 10_000
START_SECONDS_MAX = 60.0
WARM_SECONDS, LATENCY_SECONDS = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is known of an order."""

    order_id: str
    status: str
    confirmations: int
    confirmed_at: datetime
    updated_at: datetime


def fold(row: Order | None, event: OrderConfirmed, at: Occurrence) -> Order:
    """Return the order after a confirmation."""
    count = 1 if row is None else row.confirmations + 1
    return Order(event.order_id, "confirmed", count, event.confirmed_at, at.at)


def view_of(topic: str, *, notify: bool) -> View[Order]:
    """Return the view over a topic."""
    return View(
        name="bench",
        topics=(topic,),
        row=Order,
        key="order_id",
        folds=frozenset({OrderConfirmed}),
        fold=fold,
        notify_field="order_id" if notify else None,
    )


def settings_of(database_url: str) -> Settings:
    """Return the settings of the stack, with the views in the bench's own database."""
    settings = load_settings()
    urls = {**settings.postgres.urls, "views": SecretStr(database_url)}
    return settings.model_copy(update={"postgres": settings.postgres.model_copy(update={"urls": urls})})


def work(contender: str, topic: str, database_url: str, *, notify: bool) -> None:
    """Be a contender, until SIGTERM."""
    codec = Codec.offline(schema_sets(load_settings()))
    if contender == "ours":
        from towpath.view.agent import create_view

        create_view(settings_of(database_url), view_of(topic, notify=notify), codec, slot="bench").run_worker()
        return
    _work_by_hand(codec, topic, database_url)


def _work_by_hand(codec: Codec, topic: str, database_url: str) -> None:
    """Fold as many a service does: read the row, write the row and the offset, commit, for each event."""
    consumer = Consumer(
        {
            "bootstrap.servers": load_settings().kafka.bootstrap_servers,
            "group.id": f"by-hand-{topic}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TABLE bench (order_id text PRIMARY KEY, status text, confirmations bigint,"
            " confirmed_at timestamptz, updated_at timestamptz)"
        )
        connection.execute("CREATE TABLE offsets (partition int PRIMARY KEY, next_offset bigint)")
        connection.commit()
        while True:
            message: Any = consumer.poll(1.0)
            if message is None or message.error() is not None:
                continue
            event: Any = codec.decode(message.value())
            at = Occurrence(
                topic, message.key().decode(), "", datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            )
            found = connection.execute("SELECT * FROM bench WHERE order_id = %s FOR UPDATE", (at.key,)).fetchone()
            row = fold(None if found is None else Order(*found), event, at)
            connection.execute(
                "INSERT INTO bench VALUES (%s, %s, %s, %s, %s) ON CONFLICT (order_id) DO UPDATE SET status ="
                " excluded.status, confirmations = excluded.confirmations, confirmed_at = excluded.confirmed_at,"
                " updated_at = excluded.updated_at",
                (row.order_id, row.status, row.confirmations, row.confirmed_at, row.updated_at),
            )
            connection.execute(
                "INSERT INTO offsets VALUES (%s, %s) ON CONFLICT (partition) DO UPDATE SET next_offset ="
                " excluded.next_offset",
                (message.partition(), message.offset() + 1),
            )
            connection.commit()


class Bench:
    """One run."""

    def __init__(self, events: int) -> None:
        self.settings = load_settings()
        self.servers = self.settings.kafka.bootstrap_servers
        self.events = events
        self.codec = Codec.offline(schema_sets(self.settings))
        self.databases: list[str] = []

    def close(self) -> None:
        """Drop what was made."""
        with psycopg.connect(f"{self.settings.postgres.url}/postgres", autocommit=True) as connection:
            for name in self.databases:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _database(self) -> str:
        name = f"bench_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(f"{self.settings.postgres.url}/postgres", autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self.databases.append(name)
        url = f"{self.settings.postgres.url}/{name}"
        with psycopg.connect(url) as connection:
            apply_outbox_schema(connection, self.settings.postgres, self.settings.outbox)
        return url

    def _topic(self) -> str:
        topic = f"bench-view-{uuid.uuid4().hex[:8]}"
        create_topics(AdminClient({"bootstrap.servers": self.servers}), (topic, f"{topic}.dead"), PARTITIONS)
        return topic

    def _send(self, producer: Producer, topic: str, number: int) -> None:
        key = f"order-{number % KEYS:05}"
        event = OrderConfirmed(order_id=key, confirmed_at=datetime.now(UTC))
        headers: Any = list(headers_of(id=str(uuid.uuid4()), type=event.SCHEMA_NAME))
        produce(producer, topic, self.codec.encode(event), key.encode(), headers)

    def _start(self, contender: str, topic: str, url: str, *, notify: bool = False) -> "subprocess.Popen[bytes]":
        told = json.dumps({"contender": contender, "topic": topic, "database_url": url, "notify": notify})
        command = [sys.executable, "-m", "bench.view", "--work", told]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def throughput(self, contender: str, events: int) -> dict[str, Any]:
        """Return events a second from the first commit seen to the last, and the worker's processor time an event."""
        topic, url = self._topic(), self._database()
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 20, "partitioner": "murmur2_random"})
        for number in range(events):
            self._send(producer, topic, number)
        producer.flush()
        process = self._start(contender, topic, url)
        query = "SELECT sum(next_offset)::bigint FROM " + ("towpath_offsets" if contender == "ours" else "offsets")
        deadline = time.monotonic() + START_SECONDS_MAX + events / 500
        first: tuple[float, int, float] | None = None
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while True:
                    done = _asked(connection, query)
                    now, cpu = time.perf_counter(), _cpu_seconds(process)
                    if done and first is None:
                        first = (now, done, cpu)
                    if done >= events:
                        break
                    if process.poll() is not None or time.monotonic() > deadline:
                        return {"error": f"{done} of {events} events"}
                    time.sleep(0.01)
                rows = _asked(connection, "SELECT count(*) FROM " + ("bench_v1" if contender == "ours" else "bench"))
        finally:
            end(process)
        assert first is not None
        measured = done - first[1]
        return {
            "events_per_second": round(measured / (now - first[0])),
            "cpu_microseconds_an_event": round((cpu - first[2]) / measured * 1e6, 1),
            "events": measured,
            "rows": rows,
        }

    def latency(self, rate: int) -> dict[str, Any]:
        """Return p50 and p99 from sending an event to hearing of its committed row."""
        topic, url = self._topic(), self._database()
        process = self._start("ours", topic, url, notify=True)
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 0, "partitioner": "murmur2_random"})
        sent: dict[str, float] = {}
        found: list[float] = []
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("LISTEN bench")
                began = time.perf_counter()
                deadline, number, heard_at = began + START_SECONDS_MAX, 0, 0.0
                while not heard_at or time.perf_counter() < heard_at + WARM_SECONDS + LATENCY_SECONDS:
                    now = time.perf_counter()
                    if not heard_at and now > deadline:
                        return {"error": "no row"}
                    while number < (now - began) * rate:
                        sent[f"order-{number % KEYS:05}"] = time.perf_counter()
                        self._send(producer, topic, number)
                        number += 1
                    producer.poll(0)
                    for told in connection.notifies(timeout=0.002):
                        at = time.perf_counter()
                        heard_at = heard_at or at
                        if at > heard_at + WARM_SECONDS:
                            found.append((at - sent[told.payload]) * 1000)
        finally:
            end(process)
        found.sort()
        return {
            "p50_milliseconds": round(found[len(found) // 2], 1),
            "p99_milliseconds": round(found[int(len(found) * 0.99)], 1),
            "events": len(found),
        }


def _asked(connection: psycopg.Connection[Any], query: str) -> int:
    try:
        return int(connection.execute(query).fetchall()[0][0] or 0)
    except psycopg.errors.UndefinedTable:
        return 0


def _cpu_seconds(process: "subprocess.Popen[bytes]") -> float:
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--events", type=int, default=200_000, help="events of the throughput run")
    parser.add_argument("--rate", type=int, default=100, help="events a second of the latency run")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(**json.loads(options.work))
        return
    bench = Bench(options.events)
    result: dict[str, Any] = {"machine": machine(), "events": options.events}
    try:
        for name, contender, share in (("ours", "ours", 1.0), ("one row one statement", "by hand", 0.05)):
            result[name] = bench.throughput(contender, int(options.events * share))
            note(f"{name:30} {result[name]}", options.json)
        ours, hand = result["ours"], result["one row one statement"]
        if "error" not in ours and "error" not in hand:
            result["ratio"] = round(ours["events_per_second"] / hand["events_per_second"], 1)
        result["latency"] = bench.latency(options.rate)
        note(f"at {options.rate}/s {result['latency']}", options.json)
    finally:
        bench.close()
    if options.json:
        print(json.dumps(result))
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        note("others work on this machine: only processor times mean something", options.json)


if __name__ == "__main__":
    main()
