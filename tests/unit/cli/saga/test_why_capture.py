"""What `saga why` says of a capture that stands still is what `capture status` and `doctor` say."""

from dataclasses import replace

import pytest

from towpath.capture.connect import POSITION_GONE, ConnectorStatus, TaskStatus
from towpath.capture.postgres import SlotState
from towpath.capture.start import next_step
from towpath.cli.saga_look import capture_found
from towpath.orchestrator.why import Facts, Message, explain
from towpath.stack import findings

SLOT = SlotState("shop_order_outbox", "order", True, "reserved", 10, 10, None, None)
RUNNING = ConnectorStatus("c", "RUNNING", "w", (TaskStatus(0, "RUNNING", "w"),))
START = Message("OrderPlaced", "order.events", 2, None, "order", written=True)


def failed(trace: str) -> ConnectorStatus:
    """Return a connector whose task has failed of this."""
    return replace(RUNNING, tasks=(TaskStatus(0, "FAILED", "w", trace),))


def why(slot: SlotState | None, status: ConnectorStatus | None, *, answered: bool = True) -> str | None:
    """Return what `saga why` advises of an event that is not captured."""
    capture = capture_found("order", slot, status, answered=answered)
    return explain(Facts("place_order", "o-1", 0, start=START, capture={"order": capture}))[-1].command


@pytest.mark.parametrize(
    "status",
    [
        failed("Caused by: org.apache.kafka.common.errors.RecordTooLargeException"),
        failed(f"io.debezium.DebeziumException: ..., but this is {POSITION_GONE}."),
        failed("Caused by: out of disk"),
        replace(RUNNING, state="PAUSED"),
        replace(RUNNING, state="STOPPED", tasks=()),
        None,
    ],
    ids=["refused", "position gone", "other failure", "paused", "stopped", "no connector"],
)
def test_a_connector_that_does_not_run_has_one_way_out(status: ConnectorStatus | None) -> None:
    """Whichever command a person asked first."""
    assert why(SLOT, status) == next_step("order", status, SLOT) == findings.connector("order", "c", status).fix


@pytest.mark.parametrize("slot", [None, replace(SLOT, wal_status="lost")], ids=["missing", "lost"])
def test_a_slot_that_is_gone_has_one_way_out(slot: SlotState | None) -> None:
    """Whether or not Connect answers."""
    fix = findings.slot("order", "shop_order_outbox", slot).fix
    assert why(slot, RUNNING) == why(slot, None, answered=False) == next_step("order", RUNNING, slot) == fix


def test_connect_that_is_away_and_a_capture_that_runs_are_looked_at() -> None:
    """Of neither is more known."""
    assert why(SLOT, None, answered=False) == "towpath status"
    assert why(SLOT, RUNNING) == "towpath capture status"
