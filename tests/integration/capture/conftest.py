"""A service's database whose outbox the real Debezium captures."""

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from pydantic import SecretStr

from tests.integration.database_fixture import server, unused_port
from towpath.capture.connect import ConnectClient
from towpath.capture.start import start_capture
from towpath.contract.catalogue import Catalogue
from towpath.contract.kafka import ensure_topics
from towpath.outbox.names import connector_name, slot_name
from towpath.outbox.postgres import apply_outbox_schema, ensure_slot
from towpath.settings import ConnectSettings, KafkaSettings, PostgresSettings, Settings, load_settings

__all__ = ["server", "unused_port"]
ROOT = Path(__file__).resolve().parents[3]
SERVICE = "catalog"


@pytest.fixture(scope="session")
def stack() -> Settings:
    """Return the settings of a running stack."""
    settings = load_settings(ROOT, environment=False)
    return settings.model_copy(
        update={
            "kafka": KafkaSettings(bootstrap_servers=os.environ["TEST_KAFKA"]),
            "connect": ConnectSettings(url=os.environ["TEST_CONNECT"]),
            "postgres": PostgresSettings(url=os.environ["TEST_POSTGRES"]),
        }
    )


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
def captured(stack: Settings) -> Iterator[Captured]:
    """Return a database with outbox and slot; its connector is made but for `start` not started."""
    project = f"t{uuid.uuid4().hex[:10]}"
    url = f"{stack.postgres.url}/{project}"
    settings = stack.model_copy(
        update={
            "project": stack.project.model_copy(update={"name": project}),
            "postgres": stack.postgres.model_copy(update={"urls": {SERVICE: SecretStr(url)}}),
            "connect": stack.connect.model_copy(update={"heartbeat_seconds": 1.0}),
        }
    )
    catalogue = Catalogue.load(settings)
    ensure_topics(catalogue, settings)
    with psycopg.connect(f"{stack.postgres.url}/postgres", autocommit=True) as server:
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
def tail(stack: Settings, captured: Captured) -> Iterator[Consumer]:
    """Return a consumer that stands at the end of every topic that the service writes."""
    del captured
    consumer = Consumer(
        {
            **stack.kafka.client_config(),
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
