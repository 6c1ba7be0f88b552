"""What the stream's tests share: a loop on the memory broker whose agent is a plain function."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from towpath.clock import SystemClock
from towpath.settings import StreamSettings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Broker, Groups, Producer
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import AgentFailed, named_in
from towpath.stream.engine.loop import UnitLoop
from towpath.stream.engine.options import StreamOptions
from towpath.stream.engine.unit import KafkaUnit, Unit
from towpath.stream.faust_app.wiring import build_loop
from towpath.stream.state.stores import StoreFactory

Handler = Callable[[Any, Groups], Awaitable[None]]
SETTINGS = StreamSettings(
    batch_records_max=50,
    batch_seconds_max=2.0,
    transaction_timeout_seconds=3.0,
    session_timeout_seconds=4.0,
    poll_interval_seconds_max=30.0,
    dead_letter_share_max=1.0,
    handler_retry_seconds=0.0,
)


def count_looks(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what grows by one each time somebody asks `broker` where its logs end, from now on."""
    looks: list[int] = []
    ends = broker.end_offsets

    def end_offsets(places: list[TopicPartition]) -> dict[TopicPartition, int]:
        looks.append(1)
        return ends(places)

    monkeypatch.setattr(broker, "end_offsets", end_offsets)
    return looks


class FunctionAgents:
    """Agents that are one function of a unit and its records."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.owned: frozenset[TopicPartition] = frozenset()
        self.is_ready = asyncio.Event()
        self.revocations: list[frozenset[TopicPartition]] = []

    async def handle(self, unit: Unit, groups: Groups, seconds: float) -> None:
        """Call the function."""
        try:
            async with asyncio.timeout(seconds):
                await self.handler(unit, groups)
        except Exception as error:
            named = named_in(error)
            raise (AgentFailed(error, None) if named is None else AgentFailed(named.cause, named.record)) from error

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Note it."""
        self.owned = partitions

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Note it."""
        self.revocations.append(partitions)
        self.owned -= partitions

    async def ready(self) -> None:
        """Note it."""
        self.is_ready.set()


def options_for(broker: Broker, **changes: Any) -> StreamOptions:
    """Return options for a worker of application `app`."""
    options = StreamOptions(application="app", slot="a", broker=broker, settings=SETTINGS, clock=SystemClock())
    return replace(options, **changes)


class Worker:
    """A loop that runs, and its agents."""

    def __init__(self, loop: UnitLoop, agents: FunctionAgents) -> None:
        self.loop = loop
        self.agents = agents
        self.task: asyncio.Task[None] | None = None

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until `condition` holds; fail with what ended the loop, or after so long."""
        async with asyncio.timeout(seconds):
            while not condition():
                assert self.task is not None
                if self.task.done():
                    self.task.result()
                    raise AssertionError("the loop ended")
                await asyncio.sleep(0.005)


@asynccontextmanager
async def working(
    handler: Handler, options: StreamOptions, topics: list[str], open_store: StoreFactory | None = None
) -> AsyncIterator[Worker]:
    """Run a worker on `topics`; where `open_store` is given, its stores come from there."""
    agents = FunctionAgents(handler)
    loop = build_loop(options, agents, open_store=open_store)
    worker = Worker(loop, agents)
    await loop.subscribe(topics)
    worker.task = asyncio.create_task(loop.run())
    try:
        yield worker
    finally:
        loop.stop()
        await asyncio.gather(worker.task, return_exceptions=True)
        await loop.close()


async def copy(unit: KafkaUnit, groups: Groups) -> None:
    """Send one output for each record, and count records by key in the state where there is one."""
    for partition, records in groups.items():
        state = unit.state("counts", partition.partition) if "counts" in unit.changelogs else None
        for record in records:
            unit.send("out", record.value, key=record.key)
            if state is not None:
                assert record.key is not None
                state.put(record.key, str(int(state.get(record.key) or 0) + 1).encode())


def memory_broker(partitions: int = 2, **settings: Any) -> MemoryBroker:
    """Return a broker with the topics `in`, `in.dead`, `out`, `counts`."""
    broker = MemoryBroker(SETTINGS.model_copy(update=settings))
    for topic in ("in", "in.dead", "out", "counts", "timers", "timers.dead"):
        broker.create_topic(topic, partitions)
    return broker


def values(records: list[ConsumedRecord]) -> list[str]:
    """Return the records' values as text."""
    return [(record.value or b"").decode() for record in records]


def in_transaction(broker: MemoryBroker, topic: str, value: bytes, *, partition: int = 0) -> Producer:
    """Write a record in somebody else's transaction, and return who has left it open."""
    producer = broker.producer("somebody-else")
    producer.start()
    producer.begin()
    producer.produce(topic, value, key=b"k", partition=partition)
    return producer
