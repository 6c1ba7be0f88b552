"""A service's database whose outbox the real Debezium captures."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import SecretStr

from tests.integration.conftest import RunningStack
from tests.integration.database_fixture import connection, database_url, server
from tests.stack_fixture import free_ports
from towpath.capture.connect import ConnectClient
from towpath.capture.start import start_capture
from towpath.contract.catalogue import Catalogue
from towpath.outbox.names import connector_name, slot_name
from towpath.outbox.postgres import apply_outbox_schema, ensure_slot
from towpath.settings import Settings
from towpath.stack.config import as_postgres_arguments, postgres_settings, username
from towpath.stack.machine import find_machine
from towpath.stack.parts import native_placement
from towpath.stack.postgres import make_cluster
from towpath.stack.supervisor.launch import before_exec

__all__ = ["connection", "database_url", "server"]
SERVICE = "catalog"
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Captured:
    """A database with an outbox, and the settings of a project whose service `catalog` owns it."""

    settings: Settings
    connection: psycopg.Connection
    connect: ConnectClient
    catalogue: Catalogue

    @property
    def topic(self) -> str:
        """Return the topic that its messages go to."""
        return f"{self.settings.project.name}.replies"

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


@contextmanager
def captured_on(base: Settings) -> Iterator[Captured]:
    """Yield a database with outbox and slot, on the server of these settings; `start` makes its connector."""
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
    make_topics(settings, f"{project}.replies", f"{project}.signals")
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
def captured(stack: RunningStack) -> Iterator[Captured]:
    """Return a database with outbox and slot on the stack's server."""
    with captured_on(stack.settings) as found:
        yield found


@pytest.fixture
def captured_in_little_room(stack: RunningStack) -> Iterator[Captured]:
    """Return the same on a server of its own, which keeps no more than a megabyte of write-ahead log for a slot."""
    with server_with(stack, max_slot_wal_keep_size="1MB") as base, captured_on(base) as found:
        yield found


@pytest.fixture
def preparing_database_url(stack: RunningStack) -> Iterator[str]:
    """Return the URL of a database with an outbox on a server of its own, whose clients may prepare transactions."""
    with server_with(stack, max_prepared_transactions="2") as base:
        url = f"{base.postgres.url}/postgres"
        with psycopg.connect(url) as connection:
            apply_outbox_schema(connection, base.postgres, base.outbox)
        yield url


@contextmanager
def server_with(stack: RunningStack, **own: str) -> Iterator[Settings]:
    """Yield the stack's settings with a PostgreSQL of its own, which has settings of its `own`."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-own-server-"))
    folder.chmod(0o755)  # PostgreSQL's own user passes it
    (port,) = free_ports(1)
    url = f"postgresql://{username(stack.settings.postgres)}@127.0.0.1:{port}"
    base = stack.settings.model_copy(
        update={"postgres": stack.settings.postgres.model_copy(update={"url": url, "password": None})}
    )
    machine = find_machine(base.stack, folder)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    make_cluster(folder / "data", machine, base, environment)
    placement = native_placement(base.stack.model_copy(update={"postgres_port": port}), "", "")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                machine.postgres_programs / "postgres",
                *("-D", folder / "data", "-c", "unix_socket_directories="),
                *as_postgres_arguments({**postgres_settings(placement), **own}),
            ],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=before_exec(machine.postgres_identity, signal.SIGQUIT),  # noqa: PLW1509 - no thread runs yet
        )
    try:
        wait_for_server(f"{url}/postgres")
        yield base
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_server(url: str, timeout_seconds: float = 60.0) -> None:
    """Wait until a PostgreSQL answers."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def tail_of(captured: Captured) -> Consumer:
    """Return a consumer of the topic that the service writes, from its beginning."""
    consumer = Consumer(
        {
            **captured.settings.kafka.client_config(),
            "group.id": "tests",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(captured.topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer


@pytest.fixture
def tail(captured: Captured) -> Iterator[Consumer]:
    """Return a consumer of the topic that the service writes, from its beginning."""
    consumer = tail_of(captured)
    yield consumer
    consumer.close()


def make_topics(settings: Settings, *names: str) -> None:
    """Create topics that no worker of the project reads."""
    admin = AdminClient({**settings.kafka.client_config()})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result(30)
