"""The catalogue lists what sagas need, sub-sagas included; then parent and child run on the memory broker."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from schemas.records.catalog import StockReleased, StockReserved
from schemas.records.payment import PaymentDeclined
from tests.unit.orchestrator.desktop import CODEC, order_placed
from tests.unit.orchestrator.family import ENGINE, OWN, buy, codec_of, declare_topics, hold_goods, write_topic
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.orchestrator.agent import create_orchestrator
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.topics import only_started_by_sagas, topic_findings
from towpath.project import load_sagas
from towpath.saga.keys import saga_id_of
from towpath.settings import ProjectSettings, Settings, StreamSettings, load_settings
from towpath.stream.agent import StreamApp
from towpath.stream.memory import MemoryBroker
from towpath.stream.record import ConsumedRecord

SAGAS = {made.name: {1: made.definition} for made in (buy(), hold_goods())}


def findings(folder: Path) -> list[tuple[str, str]]:
    """Return what the catalogue in `folder` lacks, as topic and problem."""
    return [(found.subject, found.problem) for found in topic_findings(SAGAS, Catalogue.read(folder))]


def test_the_projects_own_catalogue_lets_its_sagas_run() -> None:
    """Every saga of this repository, as `towpath contracts test` asks."""
    assert topic_findings(load_sagas(load_settings()), Catalogue.load(load_settings())) == ()


def test_a_catalogue_that_lists_everything_has_no_finding(tmp_path: Path) -> None:
    """Parent and child, with what they say to each other."""
    declare_topics(tmp_path)
    assert findings(tmp_path) == []


def without(topic: str, record: str) -> tuple[list[str], list[str], list[str]]:
    """Return a topic's values, producers and consumers, one record left out."""
    values, producers, consumers = OWN[topic]
    return [value for value in values if value != record], producers, consumers


@pytest.mark.parametrize(
    ("topic", "record"),
    [
        ("buy.replies", f"{ENGINE}.SubsagaCompleted"),
        ("buy.replies", f"{ENGINE}.SubsagaCompensated"),
        ("buy.replies", "craftygoods.payment.AuthorisationVoided"),
        ("hold_goods.signals", f"{ENGINE}.ParentAsked"),
        ("hold_goods.signals", f"{ENGINE}.ParentEnded"),
        ("hold_goods.signals", "craftygoods.order.OrderPlaced"),
    ],
)
def test_a_record_that_no_topic_lists_is_named(tmp_path: Path, topic: str, record: str) -> None:
    """A worker could not encode it, and would stop at the first instance that needs it."""
    declare_topics(tmp_path)
    write_topic(tmp_path, topic, *without(topic, record))
    assert findings(tmp_path) == [(topic, f"{record} is not among its values")]


def test_state_without_early_signals_is_named(tmp_path: Path) -> None:
    """A saga that has a topic of signals keeps those that come before it starts."""
    declare_topics(tmp_path)
    write_topic(tmp_path, "hold_goods.state", [f"{ENGINE}.SagaState"], ["hold_goods"], ["hold_goods"])
    assert findings(tmp_path) == [("hold_goods.state", f"{ENGINE}.EarlySignals is not among its values")]


def test_who_writes_and_reads_must_be_listed(tmp_path: Path) -> None:
    """Whoever is not listed gets no schema ids of that topic."""
    declare_topics(tmp_path)
    values, _, _ = OWN["hold_goods.signals"]
    write_topic(tmp_path, "hold_goods.signals", values, ["order"], ["order"])
    assert findings(tmp_path) == [
        ("hold_goods.signals", "buy is not among its producers"),
        ("hold_goods.signals", "hold_goods is not among its consumers"),
    ]


def test_a_missing_topic_and_unequal_partitions_are_named(tmp_path: Path) -> None:
    """A saga and its sub-saga meet in one partition number."""
    declare_topics(tmp_path)
    write_topic(tmp_path, "hold_goods.signals", *OWN["hold_goods.signals"], partitions=3)
    ((saga, problem),) = findings(tmp_path)
    assert saga == "buy"
    assert "hold_goods.signals has 3" in problem
    (tmp_path / "hold_goods.signals.yaml").unlink()
    assert findings(tmp_path) == [("hold_goods.signals", "it is not declared")]


def test_a_saga_that_only_sagas_start_needs_no_topic_of_events(tmp_path: Path) -> None:
    """Unless one carries its start event to it: then it can be started alone too."""
    declare_topics(tmp_path)
    record = "craftygoods.order.OrderPlaced"
    assert only_started_by_sagas("hold_goods", record, SAGAS, Catalogue.read(tmp_path))
    assert not only_started_by_sagas("buy", record, SAGAS, Catalogue.read(tmp_path))
    write_topic(tmp_path, "order.events", [record], ["order"], ["buy", "hold_goods"])
    assert not only_started_by_sagas("hold_goods", record, SAGAS, Catalogue.read(tmp_path))


# --- on the memory broker ---------------------------------------------------------------------------------------------


class Village:
    """Parent and child on one memory broker, and services that answer at once."""

    def __init__(self, folder: Path, answers: dict[str, Record]) -> None:
        declare_topics(folder)
        self.catalogue = Catalogue.read(folder)
        self.answers = answers
        self.answered = 0
        stream = StreamSettings(batch_seconds_max=2.0, transaction_timeout_seconds=3.0, session_timeout_seconds=4.0)
        self.broker = MemoryBroker(stream)
        for topic in self.catalogue.topics.values():
            self.broker.create_topic(topic.name, topic.partitions)
        settings = Settings(root=folder, project=ProjectSettings(name="village"), stream=stream)
        self.apps = [self._app(settings, "buy", "order.events"), self._app(settings, "hold_goods", None)]

    def _app(self, settings: Settings, saga: str, start_topic: str | None) -> StreamApp:
        return create_orchestrator(
            settings,
            SAGAS[saga],
            codec_of(self.catalogue.topics_of(saga), self.catalogue),
            slot="1",
            start_topic=start_topic,
            declared_topics=self.catalogue.topics,
            broker=self.broker,
            memory_stores=True,
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
        names = ("saga_id", "saga", "step", "direction", "attempt", "round")
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

    def run(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Run both workers and the services until `condition` holds."""

        async def main() -> None:
            async with AsyncExitStack() as running, asyncio.timeout(seconds):
                for app in self.apps:
                    await app.start()
                    running.push_async_callback(app.stop)
                while not condition():
                    for app in self.apps:
                        if app.crash_reason is not None:
                            raise app.crash_reason
                    self.serve()
                    await asyncio.sleep(0.01)

        asyncio.run(main())


def test_parent_and_child_run_with_what_their_topics_list(tmp_path: Path) -> None:
    """Started, completed, asked back after the parent's failure, undone, let go: each message has its schema's id."""
    answers: dict[str, Record] = {
        "ReserveStock": StockReserved(order_id="order-1", reservation_id="r-1"),
        "AuthorisePayment": PaymentDeclined(order_id="order-1", reason="no money"),
        "ReleaseStock": StockReleased(order_id="order-1"),
    }
    village = Village(tmp_path, answers)
    start = headers_of(id="event-1", type=order_placed().SCHEMA_NAME, traceparent="00-aa-bb-01")
    village.broker.append("order.events", CODEC.encode(order_placed()), key=b"order-1", headers=start)

    def let_go() -> bool:
        marks = [record.key for record in village.broker.records("hold_goods.state") if record.value]
        return any((key or b"").startswith(b"p") for key in marks)

    village.run(let_go)
    parent, child = village.history("buy"), village.history("hold_goods")
    assert [(entry.input, entry.status) for entry in parent] == [
        ("Started", "running"),
        ("Replied", "running"),
        ("Replied", "compensating"),
        ("Replied", "compensated"),
    ]
    assert [(entry.input, entry.status) for entry in child] == [
        ("Started", "running"),
        ("Replied", "completed"),
        ("ParentAsked", "compensating"),
        ("Replied", "compensated"),
    ]
    assert child[0].parent.saga_id == saga_id_of("buy", "event-1")
    assert [(header.name, header.value) for header in child[0].headers] == [("traceparent", "00-aa-bb-01")]
    dead = [name for name in village.catalogue.topics if name.endswith(".dead") and village.broker.records(name)]
    assert dead == []
