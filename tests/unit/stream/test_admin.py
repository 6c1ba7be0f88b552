"""What a cluster says in the moment in which a topic was made is asked again; what does not pass is told."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from towpath.clock import ManualClock
from towpath.stream.broker.admin import kafka
from towpath.stream.broker.admin.kafka import PASSING, KafkaAdmin
from towpath.stream.broker.port import BrokerAway
from towpath.stream.broker.record import TopicPartition

PLACE = TopicPartition("orders", 0)


class Answers:
    """Stands for admin clients that were told a fault so many times before they are told an offset."""

    def __init__(self, fault: int, times: int) -> None:
        self.fault, self.left, self.clients = fault, times, 0

    def __call__(self, config: Mapping[str, Any]) -> "Answers":
        self.clients += 1
        return self

    def list_offsets(self, wanted: Mapping[Any, Any], **_: Any) -> dict[Any, "Future[Any]"]:
        answers: dict[Any, Future[Any]] = {place: Future() for place in wanted}
        for place, answer in answers.items():
            if self.left:
                answer.set_exception(KafkaException(KafkaError(self.fault)))
            else:
                place.offset = 7
                answer.set_result(place)
        self.left = max(0, self.left - 1)
        return answers


def admin_told(monkeypatch: pytest.MonkeyPatch, fault: int, times: int) -> tuple[KafkaAdmin, Answers]:
    """Return an admin whose clients are told that, and the clients."""
    answers = Answers(fault, times)
    monkeypatch.setattr(kafka, "AdminClient", answers)
    return KafkaAdmin({"bootstrap.servers": "nowhere:1"}, ManualClock()), answers


@pytest.mark.parametrize("fault", sorted(PASSING))
def test_what_passes_is_asked_again(monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    """By another client, for this one may repeat an old epoch."""
    admin, answers = admin_told(monkeypatch, fault, 2)
    assert admin.end_offsets([PLACE]) == {PLACE: 7}
    assert answers.clients == 3


def test_what_does_not_pass_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the broker's own words."""
    admin, answers = admin_told(monkeypatch, KafkaError.TOPIC_AUTHORIZATION_FAILED, 1)
    with pytest.raises(BrokerAway, match="Topic authorization failed"):
        admin.end_offsets([PLACE])
    assert answers.clients == 1


def test_what_should_pass_and_does_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, not never."""
    admin, answers = admin_told(monkeypatch, KafkaError.NOT_LEADER_FOR_PARTITION, 1_000_000)
    with pytest.raises(BrokerAway, match="Not leader for partition"):
        admin.end_offsets([PLACE])
    assert answers.clients > 1
