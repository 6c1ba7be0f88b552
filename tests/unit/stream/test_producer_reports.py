"""What a producer makes of the reports of its records, which the client serves when it likes."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError, KafkaException

from towpath.clock import ManualClock
from towpath.stream.broker.port import RefusedEarlier, TransactionAborted
from towpath.stream.broker.producer import kafka

WRITTEN = Mock(**{"offset.return_value": 7})


class Client:
    """A client whose transaction has failed, and which serves a report a call, from `first` on."""

    def __init__(self, reports: list[KafkaError | None], first: int) -> None:
        self._reports = reports
        self._polls_before = first
        self._report: Callable[[KafkaError | None, object], None] | None = None

    def produce(self, *_: Any, on_delivery: Callable[[KafkaError | None, object], None]) -> None:
        """Take nothing more."""
        self._report = on_delivery
        raise KafkaException(KafkaError(KafkaError._STATE))

    def poll(self, _: float) -> None:
        """Serve the next report, as the client does: at the first it returns."""
        self._polls_before -= 1
        if self._polls_before < 0 and self._reports and self._report is not None:
            self._report(self._reports.pop(0), WRITTEN)


def produced(monkeypatch: pytest.MonkeyPatch, reports: list[KafkaError | None], first: int = 0) -> kafka.KafkaProducer:
    """Return a producer of such a client."""
    monkeypatch.setattr(kafka, "RdProducer", lambda _: Client(reports, first))
    monkeypatch.setattr(kafka, "CLOCK", ManualClock())
    return kafka.KafkaProducer({"transactional.id": "t"}, call_seconds_max=1.0, is_answered=lambda: True)


@pytest.mark.parametrize("first", [0, 2])
def test_a_refusal_is_read_behind_the_reports_of_what_was_written(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """And where it comes a moment later."""
    reports = [None, None, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)]
    with pytest.raises(RefusedEarlier):
        produced(monkeypatch, reports, first).produce("out", b"later")


def test_without_a_refusal_the_transaction_has_failed_for_another_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for without end."""
    with pytest.raises(TransactionAborted):
        produced(monkeypatch, [None, KafkaError(KafkaError._MSG_TIMED_OUT)]).produce("out", b"later")
