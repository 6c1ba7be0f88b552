"""What `towpath capture status` says where Kafka does not answer, and of causes that are long."""

import json
from contextlib import nullcontext
from typing import Any

import pytest

from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT
from towpath.capture.connect import ConnectClient, ConnectorStatus, TaskStatus
from towpath.capture.postgres import SlotState
from towpath.errors import WorldError
from towpath.stack.findings import connector
from towpath.stream.broker.port import BrokerAway

AWAY = BrokerAway("Kafka at kafka:9092 does not answer", next_step="towpath restart kafka")
RUNNING = ConnectorStatus("c", "RUNNING", "w", (TaskStatus(0, "RUNNING", "w"),))
SLOT = SlotState("shop_order_outbox", "order", False, "reserved", 10, 10, None, None)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return how the capture of the order service stands, for a test to change: `connector`, `slot` and `away`."""
    stands: dict[str, Any] = {"connector": RUNNING, "slot": SLOT, "away": None}

    def status(*_: object) -> ConnectorStatus:
        found = stands["connector"]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, ConnectorStatus)
        return found

    monkeypatch.setattr(ConnectClient, "status", status)
    monkeypatch.setattr("towpath.capture.postgres.connect", lambda *_: nullcontext())
    monkeypatch.setattr("towpath.capture.postgres.slot_state", lambda *_: stands["slot"])
    monkeypatch.setattr("towpath.capture.postgres.skipped_messages", lambda _: [])
    monkeypatch.setattr("towpath.cli.capture._kafka_away", lambda _: stands["away"])
    return stands


def row() -> tuple[int, dict[str, Any]]:
    """Return how the verb ends, and its one row."""
    said = run(ROOT, "capture", "status", "order", "--json").leads_on()
    (found,) = json.loads(said.text)
    return said.code, found


def test_a_slot_that_nobody_reads_is_looked_up_in_the_log_of_connect(order: dict[str, Any]) -> None:
    """Where Kafka answers."""
    assert order["away"] is None
    code, found = row()
    assert (code, found["cause"], found["next"]) == (1, None, "towpath logs connect")


def test_where_kafka_does_not_answer_that_is_the_cause_and_what_is_to_be_cured(order: dict[str, Any]) -> None:
    """Also where Connect and the slot look well, and beside what a task says of itself."""
    order["away"] = AWAY
    for slot in (SLOT, SlotState("shop_order_outbox", "order", True, "reserved", 10, 10, None, None)):
        order["slot"] = slot
        code, found = row()
        assert (code, found["cause"], found["next"]) == (1, AWAY.cause, AWAY.next_step)
    order["connector"] = ConnectorStatus("c", "RUNNING", "w", (TaskStatus(0, "FAILED", "w", "Timed out"),))
    assert row()[1]["cause"] == f"{AWAY.cause}; Timed out"


def test_a_cause_that_was_cut_elsewhere_is_here_whole(order: dict[str, Any]) -> None:
    """By the command that is printed beside what was cut."""
    cause = f"DebeziumException: {' '.join(map(str, range(300)))}, that is all"
    order["connector"] = ConnectorStatus("c", "RUNNING", "w", (TaskStatus(0, "FAILED", "w", cause),))
    finding = connector("order", "c", order["connector"]).finding
    assert cause not in finding
    assert cause in run(ROOT, *step_in(finding, "capture status x"), "--json").leads_on().text
    words = " ".join(run(ROOT, *step_in(finding, "capture status x")).leads_on().text.split())
    assert all(f" {number}" in words for number in range(300))


def test_where_connect_does_not_answer_either_kafka_is_named(order: dict[str, Any]) -> None:
    """It waits for Kafka; its own silence is told where Kafka answers."""
    order["connector"] = WorldError("Kafka Connect does not answer as it should", next_step="towpath status")
    assert "Connect does not answer" in run(ROOT, "capture", "status", "order").text
    order["away"] = AWAY
    said = run(ROOT, "capture", "status", "order").leads_on()
    assert (said.code, said.next_steps()) == (1, [("restart", "kafka")])
    assert "Kafka at kafka:9092 does not answer" in said.text


def test_where_connect_does_not_answer_either_each_slot_is_looked_at(
    order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connect is asked once: each question would wait for a time-out."""
    asked: list[object] = []

    def status(*_: object) -> ConnectorStatus:
        asked.append(_)
        raise WorldError("Kafka Connect does not answer as it should", next_step="towpath status")

    monkeypatch.setattr(ConnectClient, "status", status)
    order["away"] = AWAY
    said = run(ROOT, "capture", "status", "order", "catalog", "--json").leads_on()
    rows = json.loads(said.text)
    assert [(one["service"], one["connector"], one["slot"]) for one in rows] == [
        ("order", "unknown", "reserved"),
        ("catalog", "unknown", "reserved"),
    ]
    assert {(one["cause"], one["next"]) for one in rows} == {(AWAY.cause, AWAY.next_step)}
    assert (said.code, len(asked)) == (1, 1)
