"""A run is judged whatever else lies in its topics."""

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest

from pipelines.views import order_status
from schemas.records.order import OrderConfirmed
from tests.unit.demo.test_verdict import FOREIGN, consumed, entry
from tests.unit.orchestrator.desktop import CODEC, order_placed
from tests.unit.stream.support import SETTINGS as STREAM
from towpath.clock import ManualClock
from towpath.contract.catalogue import Catalogue
from towpath.demo import runner
from towpath.demo.demo import Check, Outcome, Run
from towpath.demo.verdict import fold_topics
from towpath.settings import Settings, load_settings
from towpath.stream.broker.dead_letter import dead_headers, describe
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord
from towpath.view import View
from towpath.view.agent import application_name

ORDER = Outcome("placed", None)


class OneOrder:
    """A demo of one order, which has ended."""

    saga = "place_order"

    def placed_keys(self, _: Settings) -> set[str]:
        """One."""
        return {"order-1"}

    def outcomes(self, _: Settings) -> dict[str, Outcome]:
        """Its owner knows it."""
        return {"order-1": ORDER}

    def checks(self, _: Settings) -> list[Check]:
        """Nothing is wrong."""
        return [Check("money_conserved", True, ""), Check("stock_conserved", True, "")]

    def executed_twice(self, _: Settings) -> int:
        """None."""
        return 0


class Rows:
    """Stands in for the views' database: of order_status the row of the order, as it was placed."""

    def __init__(self, _: Settings) -> None:
        pass

    def rows(self, views: Iterable[View[Any]]) -> dict[str, dict[str, Any]]:
        """Return what each view has."""
        placed = fold_topics(order_status.view, [consumed(order_placed(), 0)], CODEC)
        history = [entry("running", 0, at=1_000), entry("completed", 2, at=1_400)]
        return {
            view.table: placed if view.name == order_status.view.name else fold_topics(view, history, CODEC)
            for view in views
        }

    def close(self) -> None:
        """Nothing is open."""


def test_what_is_poison_in_the_topics_leaves_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether nobody can decode it, or a view could not fold it and it was dropped: it is stepped over, and counted."""
    settings = load_settings()
    foreign = consumed(order_placed(), 1)._replace(value=FOREIGN)
    dead = consumed(OrderConfirmed(order_id="order-1", confirmed_at=ManualClock().now()), 2)
    poison = entry("completed", 1, at=1_100)._replace(value=FOREIGN)
    log = {
        "order.events": [consumed(order_placed(), 0), foreign, dead],
        "place_order.history": [entry("running", 0, at=1_000), poison, entry("completed", 2, at=1_400)],
    }

    def read_records(_: Settings, topics: Iterable[str]) -> Iterator[ConsumedRecord]:
        return (record for topic in topics for record in log.get(topic, []))

    broker = MemoryBroker(STREAM)
    for topic in Catalogue.load(settings).dead_topics():
        broker.create_topic(topic, 1)
    application = application_name(settings, order_status.view)
    letter = describe(
        dead, ValueError("no"), application=application, kind="handler", attempts=3, died_milliseconds=1, parked=True
    )
    broker.append("order.events.dead", dead.value, key=dead.key, headers=dead_headers(dead, letter))
    monkeypatch.setattr(runner, "KafkaBroker", lambda *_: broker)
    monkeypatch.setattr(runner, "read_records", read_records)
    monkeypatch.setattr(runner, "ViewsReader", Rows)
    run = Run(settings, CODEC, "run", 1, Random(1))
    report = runner._judged(OneOrder(), run, {"order-1"}, 0.0, 1.0, ManualClock())  # type: ignore[arg-type]
    assert report.verdict.holds, report.verdict
    assert (report.verdict.completed, report.verdict.stepped_over) == (1, 3)
