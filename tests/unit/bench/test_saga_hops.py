"""The benchmark of whole sagas counts each hop once, and knows a message that came twice."""

import os
import subprocess
import sys
from uuid import UUID, uuid5

from bench.saga_hops import hops, spread
from bench.saga_processes import Calibration, Counts, calibrate, cpu_seconds, is_steady
from towpath.orchestrator import records as wire
from towpath.stream.broker.record import ConsumedRecord

KEY = b"order-1"
COMMAND = UUID("018f2d5e-0000-7000-8000-000000000001")


def record(topic: str, at: int, **headers: str) -> ConsumedRecord:
    """Return a record of the order, appended at `at`."""
    return ConsumedRecord(topic, 0, 0, at, KEY, b"", tuple((name, text.encode()) for name, text in headers.items()))


def entry(input_id: str) -> wire.HistoryEntry:
    """Return an entry about the input `input_id`."""
    return wire.HistoryEntry(
        saga="s", version=1, saga_id="i", key="order-1", input_id=input_id, at_milliseconds=0, happened="started",
        detail="", step="", direction="do", reason="", input="Started",
    )  # fmt: skip


def test_each_hop_is_the_difference_of_two_times_of_broker_and_database() -> None:
    """Outbox to broker, input to history, command to outbox; a twin counts once, with the copy that came first."""
    reply = str(uuid5(COMMAND, "reply:1"))
    records = [
        record("order.events", 110, id="start"),
        record("catalog.commands", 130, id="c-1", idempotency_key=str(COMMAND), attempt="1"),
        record("place_order.replies", 150, id=reply),
        record("place_order.replies", 180, id=reply),
        ConsumedRecord("order.events", 0, 1, 500, b"other", b"", (("id", b"else"),)),
    ]
    found = hops(records, [(125, entry("start")), (160, entry(reply))], {"start": 90.0, reply: 142.0}, frozenset({KEY}))
    assert found["outbox_to_kafka"] == spread([20.0, 8.0])
    assert found["orchestrator"] == spread([15.0, 10.0])
    assert found["participant"] == spread([12.0])
    assert found["twins"] == {"count": 1}


def test_what_workers_did_is_the_difference_of_their_counters() -> None:
    """Units a second, records a unit, and the share of time in commits."""
    before = Counts({("app", "units_total"): 10.0, ("app", "records_total"): 100.0})
    after = Counts({("app", "units_total"): 30.0, ("app", "records_total"): 500.0, ("app", "commit_seconds_sum"): 1.0})
    found = after.since(before, 10.0)["app"]
    assert (found["units_per_second"], found["records_per_unit"], found["share_of_time_in_commit"]) == (2.0, 20.0, 0.1)


def test_the_cpu_time_of_ended_children_is_their_parents() -> None:
    """PostgreSQL's backends come and go; what they spent is not lost."""
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert cpu_seconds(os.getpid()) - before >= 0.25


def test_a_machine_that_was_crowded_or_changed_its_speed_was_not_steady() -> None:
    """A neighbour on the core's other thread halves what a second of CPU time does, and no clock shows it."""
    fine, slower = Calibration(1.02, 60_000.0), Calibration(1.02, 40_000.0)
    assert is_steady([fine, Calibration(1.1, 55_000.0)])
    assert not is_steady([fine, slower])
    assert not is_steady([fine, Calibration(1.3, 60_000.0)])
    now = calibrate()
    assert now.crowding > 0.9
    assert now.rounds_per_second > 0
