"""The two sides of the broker port, under one face: a fixture that is parametrised over both."""

import os
import uuid
from collections.abc import Iterator, Mapping
from typing import Protocol

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from towpath.clock import SystemClock, wait_until
from towpath.settings import KafkaSettings, StreamSettings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Broker

SETTINGS = StreamSettings(
    batch_seconds_max=1.0,
    transaction_timeout_seconds=4.0,
    session_timeout_seconds=6.0,
    poll_interval_seconds_max=20.0,
)


class Cluster(Protocol):
    """A broker, and what a test arranges on it."""

    name: str
    broker: Broker

    def topic(self, partitions: int = 2, config: Mapping[str, str] | None = None, name: str | None = None) -> str:
        """Create a topic, by default of a name that no other test has."""
        ...

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        ...


class MemoryCluster:
    """The memory broker."""

    name = "memory"

    def __init__(self) -> None:
        self.memory = MemoryBroker(SETTINGS)
        self.broker: Broker = self.memory

    def topic(self, partitions: int = 2, config: Mapping[str, str] | None = None, name: str | None = None) -> str:
        """Create a topic."""
        name = name or f"t-{uuid.uuid4().hex[:8]}"
        self.memory.create_topic(name, partitions, config)
        return name

    def delete(self, topic: str) -> None:
        """Do nothing: creating it again replaces it."""


class KafkaCluster:
    """A real broker."""

    name = "kafka"

    def __init__(self, servers: str, settings: StreamSettings = SETTINGS) -> None:
        self.servers = servers
        self.broker: Broker = KafkaBroker(KafkaSettings(bootstrap_servers=servers), settings)
        self.admin = AdminClient({"bootstrap.servers": servers})

    def topic(self, partitions: int = 2, config: Mapping[str, str] | None = None, name: str | None = None) -> str:
        """Create a topic."""
        name = name or f"t-{uuid.uuid4().hex[:8]}"
        for future in self.admin.create_topics([NewTopic(name, partitions, 1, config=dict(config or {}))]).values():
            future.result()
        # A broker answers before it knows the topic itself; whoever joins in between is told that there is none.
        wait_until(SystemClock(), lambda: self.broker.partition_counts([name]), seconds=10, every_seconds=0.05)
        return name

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        for future in self.admin.delete_topics([topic], operation_timeout=10).values():
            future.result()


@pytest.fixture(scope="session")
def kafka_servers(request: pytest.FixtureRequest) -> str:
    """Return the bootstrap servers of a real broker: the one that a variable names, else the test stack's."""
    named = os.environ.get("TOWPATH_KAFKA__BOOTSTRAP_SERVERS")
    if named:
        return named
    servers: str = request.getfixturevalue("stack").settings.kafka.bootstrap_servers
    return servers


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.stack)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Yield each side of the port."""
    if request.param == "memory":
        yield MemoryCluster()
    else:
        yield KafkaCluster(request.getfixturevalue("kafka_servers"))


@pytest.fixture
def group() -> str:
    """Return a group that no other test has."""
    return f"g-{uuid.uuid4().hex[:8]}"
