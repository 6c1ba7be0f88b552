"""A change event that the outbox does not take: it is the fault of the record that made it, and of no other."""

from dataclasses import replace

import pytest

from schemas.records.order import OrderRejected
from tests.integration.view.test_folding import NOW, VIEW, Count, told
from tests.integration.view.test_read_again import Ledger, ledger
from towpath.contract.record import Record
from towpath.outbox.message import PAYLOAD_BYTES_MAX
from towpath.outbox.postgres import apply_outbox_schema
from towpath.settings import OutboxSettings, PostgresSettings
from towpath.view import Changes, View

__all__ = ["ledger"]

pytestmark = pytest.mark.stack
TOPIC_BYTES_MAX = 500_000


def swelling(characters: int) -> View[Count]:
    """Return a view whose row BAD is told by an event of so many characters."""

    def change(key: str, row: Count | None) -> Record:
        reason = "r" * characters if key == "BAD" else str(row and row.confirmations)
        return OrderRejected(order_id=key, reason=reason, rejected_at=NOW)

    return replace(VIEW, changes=Changes("counts.events", change))


def changes(ledger: Ledger) -> list[tuple[str, str]]:
    """Return the keys and reasons of the change events, in the order in which they were written."""
    ledger.connection.execute("DELETE FROM outbox WHERE dead IS NOT NULL")
    try:
        return told(ledger.connection)
    finally:
        ledger.connection.rollback()


@pytest.mark.parametrize(
    ("characters", "error", "cause"),
    [
        pytest.param(
            PAYLOAD_BYTES_MAX, "ChangeTooLarge", r"order.events[0]@2: the event that tells of its row has", id="outbox"
        ),
        pytest.param(TOPIC_BYTES_MAX, "CheckViolation", f"topic counts.events takes {TOPIC_BYTES_MAX}", id="topic"),
    ],
)
def test_a_change_past_the_outboxs_limit_is_its_records_fault(
    ledger: Ledger, characters: int, error: str, cause: str
) -> None:
    """The record is dead after its attempts with the reason; its neighbours' rows and change events are there."""
    topics = {"order.events.dead": 1_000_000, "counts.events": TOPIC_BYTES_MAX if "Check" in error else 1_000_000}
    apply_outbox_schema(ledger.connection, PostgresSettings(), OutboxSettings(), topics=topics)
    ledger.confirm(0, "a", "b", "BAD", "c", "a")
    assert ledger.read_all(swelling(characters)) == {"a": 2, "b": 1, "c": 1}
    (letter,) = ledger.letters()
    assert (letter.position, letter.error) == ("order.events[0]@2", error)
    assert letter.attempts == ledger.settings.stream.handler_attempts_max
    assert (letter.kind, cause in letter.cause) == ("handler", True)
    latest = dict(changes(ledger))
    assert latest == {"a": "2", "b": "1", "c": "1"}
    ledger.confirm(1, "d")
    assert ledger.read_all(swelling(characters))["d"] == 1, "the worker goes on"
