"""A service's database whose outbox the real Debezium captures."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from pydantic import SecretStr

from tests.integration.conftest import RunningStack
from towpath.capture.connect import ConnectClient
from towpath.capture.start import start_capture
from towpath.contract.catalogue import Catalogue
from towpath.contract.kafka import ensure_topics
from towpath.outbox.names import connector_name, slot_name
from towpath.outbox.postgres import apply_outbox_schema, ensure_slot
from towpath.settings import Settings

SERVICE = "catalog"


@dataclass(frozen=True, slots=True)
class Captured:
    """A database with an outbox, and the settings of a project whose service `catalog` owns it."""

    settings: Settings
    connection: psycopg.Connection
    connect: ConnectClient
    catalogue: Catalogue

    @property
    def slot(self) -> str:
        """Return the name of its slot."""
        return slot_name(self.settings.project.name, SERVICE)

    def start(self) -> str:
        """Start its connector and return the connector's name."""
        start_capture(self.settings, self.catalogue, [SERVICE])
        return connector_name(self.settings.project.name, SERVICE)


def drop_slots(server: psycopg.Connection, database: str) -> None:
    """Drop the slots of a database; one that a connector still holds is waited for."""
    for _ in range(100):
        left = server.execute(
            "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", (database,)
        ).fetchall()
        for name, holder in left:
            if holder is None:
                server.execute("SELECT pg_drop_replication_slot(%s)", (name,))
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"a slot of {database} is held for ever")


@pytest.fixture
def captured(stack: RunningStack) -> Iterator[Captured]:
    """Return a database with outbox and slot; `start` makes its connector."""
    base = stack.settings
    project = f"t{uuid.uuid4().hex[:10]}"
    url = f"{base.postgres.url}/{project}"
    settings = base.model_copy(
        update={
            "project": base.project.model_copy(update={"name": project}),
            "postgres": base.postgres.model_copy(update={"urls": {SERVICE: SecretStr(url)}}),
            "connect": base.connect.model_copy(update={"heartbeat_seconds": 1.0}),
        }
    )
    catalogue = Catalogue.load(settings)
    ensure_topics(catalogue, settings)
    with psycopg.connect(f"{base.postgres.url}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {project}")
        try:
            with psycopg.connect(url) as connection, ConnectClient(settings.connect) as connect:
                apply_outbox_schema(connection, settings.postgres, settings.outbox)
                ensure_slot(connection, slot_name(project, SERVICE))
                connection.commit()
                yield Captured(settings, connection, connect, catalogue)
                for name in connect.names():
                    if name.startswith(f"{project}-"):
                        connect.delete(name)
        finally:
            drop_slots(server, project)
            server.execute(f"DROP DATABASE {project} WITH (FORCE)")


@pytest.fixture
def tail(stack: RunningStack, captured: Captured) -> Iterator[Consumer]:
    """Return a consumer that stands at the end of every topic that the service writes."""
    del captured
    consumer = Consumer(
        {
            **stack.settings.kafka.client_config(),
            "group.id": "tests",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    metadata = consumer.list_topics(timeout=10)
    topics = ["place_order.replies", "catalog.events", "catalog.commands.dead"]
    at_end = []
    for topic in topics:
        for partition in metadata.topics[topic].partitions:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            at_end.append(TopicPartition(topic, partition, end))
    consumer.assign(at_end)
    yield consumer
    consumer.close()
