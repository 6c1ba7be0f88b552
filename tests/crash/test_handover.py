"""Exactly once where a participant is killed between its commit and the direct hand-over of its reply."""

import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from bench.saga_forms import FiveSteps, connect
from tests.stack_fixture import RunningStack
from towpath.capture.kafka import carried_ids
from towpath.capture.postgres import written_ids
from towpath.clock import SystemClock, retry
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.registry import load_codec
from towpath.errors import WorldError
from towpath.orchestrator import records as wire
from towpath.orchestrator.recording import entries_of
from towpath.outbox.handover import HANDED_OVER
from towpath.stack.workers import worker_process
from towpath.stream.broker.kafka import read_records

WORKERS = ("saga:place_order", "service:identity", "service:order", "service:payment")
ENDED_SECONDS_MAX = 120.0


def history_of(stack: RunningStack, codec: Codec, key: str) -> list[wire.HistoryEntry]:
    """Return what is written of the one instance of `key`, or nothing yet."""
    found = entries_of(read_records(stack.settings, ["place_order.history"]), codec, key)
    return next(iter(found.values()), [])


def run_order(stack: RunningStack, form: FiveSteps, codec: Codec) -> tuple[str, list[wire.HistoryEntry]]:
    """Place an order, wait until it is completed, and return its key and its history."""
    key = f"order-{uuid4().hex[:8]}"
    with connect(stack.settings, "order") as connection:
        form.start(connection, codec, key)
    deadline = time.monotonic() + ENDED_SECONDS_MAX
    while not (entries := history_of(stack, codec, key)) or entries[-1].status != "completed":
        assert time.monotonic() < deadline, f"{key} has not completed: {entries}"
        time.sleep(0.3)
    return key, entries


def test_a_kill_between_commit_and_hand_over_loses_and_repeats_nothing(stack: RunningStack, tmp_path: Path) -> None:
    """Debezium brings the reply that was not handed over; others come twice, and count once, without a trace."""
    settings, since = stack.settings, datetime.now(UTC) - timedelta(seconds=5)
    catalogue = Catalogue.load(settings)
    topics = [topic.name for topic in catalogue.live()]
    # A test before this one may have killed PostgreSQL: the registry answers 500 until its pool has noticed.
    codec = retry(
        SystemClock(), lambda: load_codec(settings, catalogue, topics), on=WorldError, seconds=60, every_seconds=1
    )
    form, marker = FiveSteps(), tmp_path / "killed"
    form.prepare(settings, codec, tag=uuid4().hex[:8])
    catalog = worker_process(settings, "service:catalog", environment=stack.environment)
    specs = [worker_process(settings, name, environment=stack.environment) for name in WORKERS]
    command = (sys.executable, "-m", "tests.crash.handover_worker", str(marker))
    specs.append(replace(catalog, arguments=command))
    try:
        for spec in specs:
            stack.client.start(spec)
        stack.client.wait_ready([spec.name for spec in specs], 120)
        runs = [run_order(stack, form, codec) for _ in range(3)]
    finally:
        for spec in specs:
            stack.client.stop(spec.name)
    assert marker.exists(), "it was killed"
    keys = {key.encode() for key, _ in runs}
    for key, entries in runs:
        replied = Counter(entry.step for entry in entries if entry.happened == "replied")
        assert replied.keys() >= {"verify_customer", "reserve_stock", "authorise_payment", "confirm_order"}
        assert set(replied.values()) == {1}, key
        assert [entry for entry in entries if entry.happened == "refused"] == [], "a twin leaves no trace"
    with connect(settings, "catalog") as connection:
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT idempotency_key) FROM inbox WHERE key = ANY(%s)",
            ([key for key, _ in runs],),
        ).fetchone()
        assert rows == (3, 3), "each order's stock was reserved once"
        written = written_ids(connection, since)
    replies = [one for one in read_records(settings, ["place_order.replies"]) if one.key in keys]
    direct = {one.header("id") for one in replies if one.header(HANDED_OVER)}
    assert direct, "some were handed over"
    captured = carried_ids(settings, written, since)
    deadline = time.monotonic() + 30
    while any(set(ids) - captured[topic].keys() for topic, ids in written.items()) and time.monotonic() < deadline:
        time.sleep(0.5)
        captured = carried_ids(settings, written, since)
    assert all(not set(ids) - captured[topic].keys() for topic, ids in written.items()), "Debezium carried all of it"
