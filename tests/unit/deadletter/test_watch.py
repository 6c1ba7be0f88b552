"""Following dead commands: nothing that is met ends it, and no partition is left out, whenever it was added."""

import queue
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from tests.integration.service_fixture import ROOT
from tests.unit.deadletter.test_dead_commands import TIMER, dead
from towpath.clock import SystemClock, wait_until
from towpath.deadletter.watch import kafka
from towpath.deadletter.watch.kafka import DeadCommandWatch
from towpath.orchestrator.performer import attempt_timer
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord

GOOD = dead()[0]
SETTINGS = load_settings(ROOT, environment=False)


class Client:
    """A Kafka client that reads what a test puts: records, errors' codes, and errors that it raises."""

    def __init__(self) -> None:
        self.partitions = 1
        self.assigned: list[int] = []
        self.put: queue.Queue[Any] = queue.Queue()

    def list_topics(self, timeout: float) -> Any:
        """Return what topics there are."""
        return SimpleNamespace(topics={GOOD.topic: SimpleNamespace(partitions=dict.fromkeys(range(self.partitions)))})

    def incremental_assign(self, places: list[Any]) -> None:
        """Read these, too."""
        self.assigned += [place.partition for place in places]
        for place in places:
            self.put.put((KafkaError._PARTITION_EOF, place.partition))

    def poll(self, seconds: float) -> Any:
        """Return what comes next."""
        try:
            one = self.put.get(timeout=0.01)
        except queue.Empty:
            return None
        if isinstance(one, Exception):
            raise one
        if isinstance(one, ConsumedRecord):
            return SimpleNamespace(
                error=lambda: None,
                topic=lambda: one.topic,
                partition=lambda: one.partition,
                offset=lambda: one.offset,
                timestamp=lambda: (1, one.timestamp_milliseconds),
                key=lambda: one.key,
                value=lambda: one.value,
                headers=lambda: list(one.headers),
            )
        code, partition = one
        error = SimpleNamespace(code=lambda: code, str=lambda: f"error {code}")
        return SimpleNamespace(error=lambda: error, topic=lambda: GOOD.topic, partition=lambda: partition)

    def close(self) -> None:
        """Close nothing."""


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def watch(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DeadCommandWatch]]:
    monkeypatch.setattr(kafka, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(kafka, "LOOK_SECONDS", 0.01)
    made: list[DeadCommandWatch] = []

    def make(subject_of: Callable[[ConsumedRecord], bytes | None]) -> DeadCommandWatch:
        made.append(DeadCommandWatch(SETTINGS, [GOOD.topic, "none.dead"], subject_of, consumer=lambda _: client))
        return made[0]

    yield make
    for one in made:
        one.close()


def soon(look: Callable[[], bool]) -> bool:
    return wait_until(SystemClock(), look, seconds=5, every_seconds=0.01)


def place_order(record: ConsumedRecord) -> bytes | None:
    return attempt_timer("place_order", record)


def test_whatever_fails_is_told_and_does_not_end_it(client: Client, watch: Callable[..., DeadCommandWatch]) -> None:
    """A record, the client, or what names a command's timer: it goes on, and no deadline is held for ever."""
    failing = iter([RuntimeError("a bug")])

    def subject_of(record: ConsumedRecord) -> bytes | None:
        for error in failing:
            raise error
        return place_order(record)

    with capture_logs() as logs:
        found = watch(subject_of)
        client.put.put(KafkaException(KafkaError(KafkaError._TRANSPORT)))
        client.put.put((KafkaError.TOPIC_AUTHORIZATION_FAILED, 0))
        client.put.put(GOOD)
        client.put.put(GOOD)
        assert soon(lambda: found.holds(TIMER))
    assert not found.reading()
    assert [line["event"] for line in logs] == ["dead commands cannot be followed, trying again"], "once a minute"


def test_a_partition_that_is_added_is_followed(client: Client, watch: Callable[..., DeadCommandWatch]) -> None:
    """From its beginning, and each partition once."""
    found = watch(place_order)
    assert soon(lambda: not found.reading())
    client.partitions = 3
    assert soon(lambda: client.assigned == [0, 1, 2])
    client.put.put(GOOD._replace(partition=2))
    assert soon(lambda: found.holds(TIMER))
    assert client.assigned == [0, 1, 2]
