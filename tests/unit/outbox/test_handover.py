"""What is handed over directly is what Debezium carries, under the same id, and stays off under load."""

import time
from uuid import UUID

import pytest
import structlog

from towpath.clock import ManualClock
from towpath.outbox import kafka
from towpath.outbox.handover import HANDED_OVER, MESSAGES_AT_ONCE_MAX, Allowance, direct_record
from towpath.outbox.message import OutboxMessage
from towpath.settings import KafkaSettings

ID = UUID("018f2d5e-0000-7000-8000-000000000001")


def test_a_direct_record_has_key_payload_and_a_header_for_each_column_with_a_value() -> None:
    """As EventRouter makes it of the row, numbers as text; and the mark, which only the direct copy has."""
    message = OutboxMessage(
        id=ID, topic="t", key="ö-1", type="T", payload=b"\0\1", step="stock", attempt=1, round=2, saga_id=ID
    )
    record = direct_record(message)
    assert (record.topic, record.key, record.value) == ("t", "ö-1".encode(), b"\0\1")
    assert dict(record.headers) == {
        "id": str(ID).encode(),
        "type": b"T",
        "saga_id": str(ID).encode(),
        "step": b"stock",
        "attempt": b"1",
        "round": b"2",
        HANDED_OVER: b"1",
    }


def test_few_messages_go_at_once() -> None:
    """One saga after another, each with a reply every few milliseconds, is no load."""
    allowance = Allowance(50)
    assert all(allowance.take(1, number * 0.025) for number in range(200))


def test_many_messages_of_one_commit_are_load() -> None:
    """They wait for Debezium together."""
    assert not Allowance(1_000_000).take(MESSAGES_AT_ONCE_MAX + 1, 0.0)


def test_under_steady_load_it_stays_off_and_comes_back_after_it() -> None:
    """At ten times the allowance hardly a message goes; a second after the load they go again."""
    allowance = Allowance(50)
    went = [allowance.take(1, number * 0.002) for number in range(2_500)]
    assert sum(went[500:]) == 0
    assert allowance.take(1, 5.0 + 1.1)


def test_after_a_message_that_was_not_taken_nothing_is_handed_over_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that is away, or gives no leave to write, costs no further record; a minute later it is tried again."""
    monkeypatch.setattr(kafka, "DELIVERY_MILLISECONDS", 100)
    clock = ManualClock()
    handover = kafka.KafkaHandover(
        KafkaSettings(bootstrap_servers="127.0.0.1:1"), per_second=50, name="test", clock=clock
    )
    message = OutboxMessage(id=ID, topic="t", key="k", type="T", payload=b"")
    clock.advance(1)
    assert handover.hand_over((message,)) == 1
    deadline = time.monotonic() + 30
    while handover.hand_over((message,)):
        clock.advance(1)
        assert time.monotonic() < deadline, "it was never told that the message failed"
        time.sleep(0.05)
    clock.advance(kafka.OFF_SECONDS - 1)
    assert handover.hand_over((message,)) == 0
    clock.advance(2)
    assert handover.hand_over((message,)) == 1
    handover.close()


def test_messages_that_were_not_taken_together_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away is one thing to know of, not as many as were under way to it."""
    monkeypatch.setattr(kafka, "DELIVERY_MILLISECONDS", 100)
    clock = ManualClock()
    handover = kafka.KafkaHandover(
        KafkaSettings(bootstrap_servers="127.0.0.1:1"), per_second=50, name="test", clock=clock
    )
    message = OutboxMessage(id=ID, topic="t", key="k", type="T", payload=b"")
    with structlog.testing.capture_logs() as told:
        for _ in range(3):
            clock.advance(1)
            assert handover.hand_over((message,)) == 1
        assert handover._producer is not None
        handover._producer.flush(30)
    assert [one["event"] for one in told] == ["hand-over was not taken; capture brings the message"]
    handover.close()
