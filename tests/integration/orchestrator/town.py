"""A real broker with the topics of some sagas, services that answer, and what tests of whole sagas do with them."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.commands import CODEC
from tests.conformance.conftest import KafkaCluster
from towpath.client.postgres import Client
from towpath.client.saga import InstanceStatus
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.orchestrator.agent import create_orchestrator
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.sagas_view import sagas_view
from towpath.saga import Participant, Saga
from towpath.settings import Settings
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.view.agent import create_view

WAIT_SECONDS_MAX = 90.0
SAGA_TOPICS = ("replies", "signals", "timers", "operator", "history", "state", "events")


class Town:
    """Sagas, the first of which an event starts, and their services, under names that no other test has."""

    participants: tuple[Participant, ...]
    sagas: tuple[Saga[Any], ...]

    def __init__(self, servers: str, name: str) -> None:
        self.name = name
        self.cluster = KafkaCluster(servers)
        self.started = f"started_{name}.events"
        topics = [self.started, *(each.commands_topic for each in self.participants)]
        topics += [f"{saga.name}.{kind}" for saga in self.sagas for kind in SAGA_TOPICS]
        self.topics = [*topics, *(f"{topic}.dead" for topic in topics)]
        admin = AdminClient({"bootstrap.servers": servers})
        for future in admin.create_topics([NewTopic(name, 2, 1) for name in self.topics]).values():
            future.result()
        self.producer = Producer({"bootstrap.servers": servers, "log_level": 2})

    def reply_to(self, asked: Record) -> Record | None:
        """Return what the services answer to a command; None where they take their time."""
        raise NotImplementedError

    def take(self, event: Record, published: list[str]) -> None:
        """Note what a saga has published, and do what people do who read it."""
        raise NotImplementedError

    def say(self, topic: str, record: Record, key: str, **headers: Any) -> None:
        """Write a record."""
        said: Headers = headers_of(type=record.SCHEMA_NAME, **headers)
        self.producer.produce(topic, CODEC.encode(record), key.encode(), headers=list(said))
        self.producer.flush(WAIT_SECONDS_MAX)

    @contextmanager
    def services(self) -> Iterator[list[str]]:
        """Let services answer, and people act; yield what the first saga has published so far."""
        published: list[str] = []
        over = threading.Event()
        thread = threading.Thread(target=self._serve, args=(published, over))
        thread.start()
        try:
            yield published
        finally:
            over.set()
            thread.join(WAIT_SECONDS_MAX)

    def await_ending(self, settings: Settings, client: Client, saga_id: str) -> InstanceStatus:
        """Run all workers until an instance has ended, and return how, as the client reads it from PostgreSQL."""
        view = sagas_view([saga.name for saga in self.sagas])

        async def run() -> InstanceStatus:
            common: dict[str, Any] = {"slot": "1", "declared_topics": self.topics, "memory_stores": True}
            async with AsyncExitStack() as running:
                apps = [
                    create_orchestrator(
                        settings, {1: saga.definition}, CODEC, start_topic=None if place else self.started, **common
                    )
                    for place, saga in enumerate(self.sagas)
                ]
                for app in [*apps, create_view(settings, view, CODEC, slot="1")]:
                    await app.start()
                    running.push_async_callback(app.stop)
                return await asyncio.to_thread(client.await_ending, saga_id, timeout_seconds=WAIT_SECONDS_MAX)

        return asyncio.run(run())

    def _serve(self, published: list[str], over: threading.Event) -> None:
        events = f"{self.sagas[0].name}.events"
        topics = [*(each.commands_topic for each in self.participants), events]
        readers = [self.cluster.broker.reader(TopicPartition(topic, part), 0) for topic in topics for part in (0, 1)]
        while not over.is_set():
            for reader in readers:
                records, _ = reader.poll(0.02)
                for record in records:
                    content = CODEC.decode(record.value or b"")
                    if record.topic == events:
                        self.take(content, published)
                    else:
                        self._answer(record, self.reply_to(content))
        for reader in readers:
            reader.close()

    def _answer(self, command: ConsumedRecord, reply: Record | None) -> None:
        if reply is None:
            return
        names = ("saga_id", "saga", "step", "item", "direction", "attempt", "round", "reply_to")
        headers = {name: command.header(name) for name in names}
        to = str(headers.pop("reply_to"))
        id_ = f"reply-{command.header('id')}"
        self.say(to, reply, (command.key or b"").decode(), id=id_, **headers)


def client_of(settings: Settings) -> Client:
    """Return an application's client."""
    return Client(settings, Catalogue.load(settings), CODEC)


def unique_name() -> str:
    """Return a name that no other test has."""
    return uuid.uuid4().hex[:8]
