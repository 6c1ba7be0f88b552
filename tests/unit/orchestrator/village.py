"""A parent and its sub-saga on the memory broker, with services that answer at once."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.unit.orchestrator.desktop import CODEC, order_placed
from tests.unit.orchestrator.family import buy, codec_of, declare_topics, hold_goods
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.orchestrator import records as wire
from towpath.orchestrator.agent import create_orchestrator
from towpath.orchestrator.envelope import headers_of
from towpath.saga import Saga
from towpath.saga.keys import saga_id_of
from towpath.settings import ProjectSettings, Settings, StreamSettings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.faust_app.agent import StreamApp


class Village:
    """Parent and child on one memory broker, and services that answer at once."""

    def __init__(self, folder: Path, answers: dict[str, Record], *sagas: Saga[Any]) -> None:
        self.sagas = {made.name: {1: made.definition} for made in (buy(), hold_goods(), *sagas)}
        declare_topics(folder)
        self.catalogue = Catalogue.read(folder)
        self.answers = answers
        self.answered = 0
        self.statuses: list[WorkerStatus] = []
        stream = StreamSettings(batch_seconds_max=2.0, transaction_timeout_seconds=3.0, session_timeout_seconds=4.0)
        self.broker = MemoryBroker(stream)
        for topic in self.catalogue.topics.values():
            self.broker.create_topic(topic.name, topic.partitions)
        self.settings = Settings(root=folder, project=ProjectSettings(name="village"), stream=stream)

    def _app(self, saga: str) -> StreamApp:
        return create_orchestrator(
            self.settings,
            self.sagas[saga],
            codec_of(self.catalogue.topics_of(saga), self.catalogue),
            slot="1",
            start_topic="order.events" if saga == "buy" else None,
            declared_topics=self.catalogue.topics,
            broker=self.broker,
            memory_stores=True,
            on_status=self.statuses.append,
        )

    def serve(self) -> None:
        """Answer the commands that were not answered yet."""
        sent = [
            record
            for topic in ("catalog.commands", "payment.commands", "order.commands")
            for record in self.broker.records(topic)
        ]
        for command in sorted(sent, key=lambda record: record.timestamp_milliseconds)[self.answered :]:
            self.answered += 1
            self._answer(command)

    def _answer(self, command: ConsumedRecord) -> None:
        names = ("saga_id", "saga", "step", "direction", "attempt", "round", "traceparent")
        reply = self.answers[str(command.header("type")).rpartition(".")[2]]
        headers = headers_of(
            id=f"reply-{self.answered}", type=reply.SCHEMA_NAME, **{name: command.header(name) for name in names}
        )
        topic = command.header("reply_to")
        assert topic is not None
        self.broker.append(topic, CODEC.encode(reply), key=command.key, headers=headers)

    def history(self, saga: str) -> list[Any]:
        """Return the entries of one saga's history."""
        return [CODEC.decode(record.value or b"") for record in self.broker.records(f"{saga}.history")]

    def sent(self, topic: str) -> list[Any]:
        """Return the records of a topic."""
        return [CODEC.decode(record.value or b"") for record in self.broker.records(topic)]

    def place(self, event: str = "event-1", **headers: str) -> None:
        """Let an order be placed, always the same one."""
        order = order_placed()
        said = headers_of(id=event, type=order.SCHEMA_NAME, **headers)
        self.broker.append("order.events", CODEC.encode(order), key=b"order-1", headers=said)

    def cancel(self, event: str = "event-1") -> None:
        """Let a person cancel the parent that this event started."""
        asked = wire.OperatorAsked(
            saga_id=saga_id_of("buy", event), action=wire.OperatorAction.CANCEL, actor="grace", reason="too late"
        )
        said = headers_of(id=f"cancel-{event}", type=asked.SCHEMA_NAME)
        self.broker.append("buy.operator", CODEC.encode(asked), key=b"order-1", headers=said)

    def run(
        self,
        condition: Callable[[], bool],
        seconds: float = 30.0,
        workers: Sequence[str] = ("buy", "hold_goods"),
    ) -> None:
        """Run workers, newly started, and the services until `condition` holds."""

        async def main() -> None:
            async with AsyncExitStack() as running, asyncio.timeout(seconds):
                apps = [self._app(saga) for saga in workers]
                for app in apps:
                    await app.start()
                    running.push_async_callback(app.stop)
                while not condition():
                    for app in apps:
                        if app.crash_reason is not None:
                            raise app.crash_reason
                    self.serve()
                    await asyncio.sleep(0.01)

        asyncio.run(main())
