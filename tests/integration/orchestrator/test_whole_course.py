"""A saga that says all that a saga can, on a real broker, its result read from a real PostgreSQL by the client."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import SecretStr

from sagas.place_order import release_stock, reserve_stock
from schemas.records.catalog import OutOfStock, ReserveStock, StockReleased, StockReserved
from schemas.records.order import (
    ConfirmOrder,
    OrderApproved,
    OrderCancelled,
    OrderConfirmed,
    OrderLine,
    OrderPlaced,
    OrderResumed,
)
from tests.commands import CODEC
from tests.conformance.conftest import SETTINGS, KafkaCluster
from tests.stack_fixture import ROOT
from towpath.client.postgres import Client
from towpath.client.saga import InstanceStatus
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.orchestrator.agent import create_orchestrator
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.sagas_view import sagas_view
from towpath.saga import COMPENSATE, NO_EFFECT, Participant, Remind, Saga, Undo, minutes, one_of, seconds, tolerated
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted
from towpath.saga.keys import saga_id_of
from towpath.settings import Settings, load_settings
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.view.agent import create_view

pytestmark = pytest.mark.stack
WAIT_SECONDS_MAX = 90.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SAGA_TOPICS = ("replies", "signals", "timers", "operator", "history", "state", "events")
ORDER = OrderPlaced(
    order_id="order-1",
    customer_id="customer-1",
    lines=tuple(OrderLine(sku=sku, quantity=1, unit_price_cents=90_000) for sku in ("desk", "lamp", "sofa")),
    total_cents=270_000,
    currency="EUR",
    card_token="card-1",
    placed_at=NOW,
)
Ending = SubsagaCompleted[object] | SubsagaCompensated


def customer(order: OrderPlaced) -> str:
    """Key the saga by who ordered."""
    return order.customer_id


def size(order: OrderPlaced) -> str:
    """Choose by the total."""
    return "large" if order.total_cents > 100_000 else "small"


def overdue(order: OrderPlaced, number: int) -> OrderResumed:
    """Remind whoever approves."""
    return OrderResumed(order_id=f"reminder-{number}")


def lines(order: OrderPlaced) -> tuple[OrderLine, ...]:
    """Return what was ordered."""
    return order.lines


def one_line(order: OrderPlaced, line: OrderLine) -> OrderPlaced:
    """Order one line alone."""
    return replace(order, lines=(line,))


def sku(order: OrderPlaced, line: OrderLine) -> str:
    """Key the sub-saga of a line by its product."""
    return line.sku


def reserve_gift(order: OrderPlaced) -> ReserveStock:
    """Ask for something that there is not."""
    return ReserveStock(order_id="gift", lines=())


def confirm(order: OrderPlaced) -> ConfirmOrder:
    """Confirm."""
    return ConfirmOrder(order_id=order.order_id)


def told(order: OrderPlaced, gift: StockReserved | OutOfStock) -> OrderResumed:
    """Say whether there was a gift."""
    return OrderResumed(order_id="gift" if isinstance(gift, StockReserved) else "no gift")


def came_to(order: OrderPlaced, goods: tuple[Ending, ...]) -> OrderCancelled:
    """Count the lines that there were."""
    there = sum(isinstance(each, SubsagaCompleted) for each in goods)
    return OrderCancelled(order_id=order.order_id, refunded_cents=there, cancelled_at=NOW)


class Course:
    """The saga, its sub-saga and the services, under names that no other test has."""

    def __init__(self, servers: str) -> None:
        self.name = uuid.uuid4().hex[:8]
        self.cluster, self.servers = KafkaCluster(servers), servers
        catalog, orders = Participant(f"catalog_{self.name}"), Participant(f"orders_{self.name}")
        self.participants = (catalog, orders)
        self.child = Saga(f"line_{self.name}", version=1, starts_on=OrderPlaced, deadline=minutes(9))
        self.child.step(
            catalog,
            reserve_stock,
            undo=Undo(release_stock, succeeds=StockReleased),
            succeeds=StockReserved,
            fails=OutOfStock,
            within=minutes(1),
        )
        self.saga = self._saga(catalog, orders)
        self.started = f"started_{self.name}.events"
        topics = [self.started, *(each.commands_topic for each in self.participants)]
        topics += [f"{saga.name}.{kind}" for saga in (self.saga, self.child) for kind in SAGA_TOPICS]
        self.topics = [*topics, *(f"{topic}.dead" for topic in topics)]
        admin = AdminClient({"bootstrap.servers": servers})
        for future in admin.create_topics([NewTopic(name, 2, 1) for name in self.topics]).values():
            future.result()
        self.producer = Producer({"bootstrap.servers": servers, "log_level": 2})

    def _saga(self, catalog: Participant, orders: Participant) -> Saga[OrderPlaced]:
        made = Saga(f"course_{self.name}", version=1, starts_on=OrderPlaced, deadline=minutes(30), keyed_by=customer)
        large, small = made.choose("size", by=size, options=("large", "small"))
        approved = made.wait(
            "approval",
            after=large,
            succeeds=OrderApproved,
            within=minutes(5),
            on_timeout=COMPENSATE,
            reminds=Remind(overdue, event=OrderResumed, every=seconds(1), times=9),
        )
        sure = made.merge("sure", approved, small)
        goods = made.subsaga_each(
            self.child, one_line, over=lines, limit=9, keyed_by=sku, may_fail=True, after=sure, within=minutes(5)
        )
        gift = made.step(
            catalog,
            reserve_gift,
            after=sure,
            undo=NO_EFFECT,
            succeeds=one_of(StockReserved, tolerated(OutOfStock)),
            within=minutes(1),
        )
        done = made.pivot(orders, confirm, after=goods & gift, succeeds=OrderConfirmed, within=minutes(1))  # fmt: skip
        made.publish(told, event=OrderResumed, needs=gift, after=done, key="told")
        made.result(came_to, event=OrderCancelled, needs=goods)
        return made

    # --- the world around it ------------------------------------------------------------------------------------------

    def say(self, topic: str, record: Record, key: str, **headers: Any) -> None:
        """Write a record."""
        said: Headers = headers_of(type=record.SCHEMA_NAME, **headers)
        self.producer.produce(topic, CODEC.encode(record), key.encode(), headers=list(said))
        self.producer.flush(WAIT_SECONDS_MAX)

    def answer(self, command: ConsumedRecord) -> None:
        """Answer a command as a service would: there is no lamp, and no gift."""
        asked = CODEC.decode(command.value or b"")
        reply: Record
        if isinstance(asked, ReserveStock):
            there = asked.order_id != "gift" and asked.lines[0].sku != "lamp"
            reply = (
                StockReserved(order_id="order-1", reservation_id="r-1")
                if there
                else OutOfStock(order_id="order-1", sku="lamp", requested=1, available=0)
            )
        else:
            reply = OrderConfirmed(order_id="order-1", confirmed_at=NOW)
        names = ("saga_id", "saga", "step", "item", "direction", "attempt", "round", "reply_to")
        headers = {name: command.header(name) for name in names}
        to = str(headers.pop("reply_to"))
        id_ = f"reply-{command.header('id')}"
        self.say(to, reply, (command.key or b"").decode(), id=id_, **headers)

    @contextmanager
    def services(self) -> Iterator[list[str]]:
        """Let services answer, and a person approve once reminded; yield what the saga has published so far."""
        published: list[str] = []
        over = threading.Event()
        thread = threading.Thread(target=self._serve, args=(published, over))
        thread.start()
        try:
            yield published
        finally:
            over.set()
            thread.join(WAIT_SECONDS_MAX)

    def _serve(self, published: list[str], over: threading.Event) -> None:
        events = f"{self.saga.name}.events"
        topics = [*(each.commands_topic for each in self.participants), events]
        readers = [self.cluster.broker.reader(TopicPartition(topic, part), 0) for topic in topics for part in (0, 1)]
        while not over.is_set():
            for reader in readers:
                records, _ = reader.poll(0.02)
                for record in records:
                    self._take(record, published)
        for reader in readers:
            reader.close()

    def _take(self, record: ConsumedRecord, published: list[str]) -> None:
        if not record.topic.endswith(".events"):
            self.answer(record)
            return
        event = CODEC.decode(record.value or b"")
        published.append(event.order_id if isinstance(event, OrderResumed) else type(event).__name__)
        if published == ["reminder-1"]:
            approval = OrderApproved(order_id="order-1", approver="grace")
            self.say(f"{self.saga.name}.signals", approval, "customer-1", id="approval")


@pytest.fixture
def settings(database_url: str, kafka_servers: str) -> Settings:
    """Return settings of the test's own project, whose views are in the test's own database."""
    read = load_settings(ROOT, environment=False)
    postgres = read.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
    kafka = read.kafka.model_copy(update={"bootstrap_servers": kafka_servers})
    project = read.project.model_copy(update={"name": f"t{uuid.uuid4().hex[:8]}"})
    return read.model_copy(update={"postgres": postgres, "kafka": kafka, "project": project, "stream": SETTINGS})


def test_a_saga_that_says_everything_ends_and_its_result_is_read(settings: Settings, kafka_servers: str) -> None:
    """Keyed by a function; a choice, reminders until somebody approves, a sub-saga for each line of which one fails, a
    failure that is tolerated, an event, a result: all through topics and timers, and the ending through PostgreSQL.
    """
    course = Course(kafka_servers)
    saga_id = saga_id_of(course.saga.name, "order-1-placed")
    view = sagas_view([course.saga.name, course.child.name])
    client = Client(settings, Catalogue.load(settings), CODEC)

    async def run() -> InstanceStatus:
        common: dict[str, Any] = {"slot": "1", "declared_topics": course.topics, "memory_stores": True}
        async with AsyncExitStack() as running:
            apps = [
                create_orchestrator(settings, {1: course.saga.definition}, CODEC, start_topic=course.started, **common),
                create_orchestrator(settings, {1: course.child.definition}, CODEC, start_topic=None, **common),
                create_view(settings, view, CODEC, slot="1"),
            ]
            for app in apps:
                await app.start()
                running.push_async_callback(app.stop)
            return await asyncio.to_thread(client.await_ending, saga_id, timeout_seconds=WAIT_SECONDS_MAX)

    with course.services() as published:
        course.say(course.started, ORDER, "order-1", id="order-1-placed")
        ended = asyncio.run(run())
    assert (ended.status, ended.key) == ("completed", "customer-1")
    assert ended.result == OrderCancelled(order_id="order-1", refunded_cents=2, cancelled_at=NOW)
    assert published[0] == "reminder-1"
    assert "no gift" in published
    below = {
        each.key: each.status for name in ("desk", "lamp", "sofa") for each in client.find(course.child.name, name)
    }
    assert below == {"desk": "completed", "lamp": "compensated", "sofa": "completed"}
