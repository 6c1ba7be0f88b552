"""The catalogue lists what sagas need, sub-sagas included; then parent and child run on the memory broker."""

from pathlib import Path

import pytest

from schemas.records.catalog import StockReleased, StockReserved
from schemas.records.payment import PaymentDeclined
from tests.unit.orchestrator.family import ENGINE, OWN, buy, declare_topics, hold_goods, write_topic
from tests.unit.orchestrator.test_builder_exits import buy as keyed
from tests.unit.orchestrator.village import Village
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.orchestrator.topics import only_started_by_sagas, topic_findings
from towpath.project import load_sagas
from towpath.saga.keys import saga_id_of
from towpath.settings import load_settings

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
    (saga, problem), (child, _) = findings(tmp_path)
    assert child == "hold_goods"
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


def test_parent_and_child_run_with_what_their_topics_list(tmp_path: Path) -> None:
    """Started, completed, asked back after the parent's failure, undone, let go: each message has its schema's id."""
    answers: dict[str, Record] = {
        "ReserveStock": StockReserved(order_id="order-1", reservation_id="r-1"),
        "AuthorisePayment": PaymentDeclined(order_id="order-1", reason="no money"),
        "ReleaseStock": StockReleased(order_id="order-1"),
    }
    village = Village(tmp_path, answers)
    village.place(traceparent="00-aa-bb-01")

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


def test_the_topic_of_start_events_has_the_sagas_partitions_also_where_it_reads_its_key(tmp_path: Path) -> None:
    """One worker reads both: what is found here is what it refuses to start for."""
    sagas = {"buy": {1: keyed().definition}}
    declare_topics(tmp_path)
    write_topic(tmp_path, "buy.signals", ["craftygoods.order.OrderPlaced"], ["buy"], ["buy"])
    assert topic_findings(sagas, Catalogue.read(tmp_path)) == ()
    write_topic(tmp_path, "order.events", *OWN["order.events"], partitions=5)
    (found,) = topic_findings(sagas, Catalogue.read(tmp_path))
    assert "its topics differ in their partitions" in found.problem
    assert "order.events has 5" in found.problem
