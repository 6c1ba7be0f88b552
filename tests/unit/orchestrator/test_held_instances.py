"""A worker whose code does not know one instance: its partition waits, all others go on, until it is deployed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagas import orders
from schemas.records.order import OrderConfirmed, OrderPlaced
from tests.unit.orchestrator.desktop import CODEC, order_placed
from tests.unit.orchestrator.family import confirm_order
from tests.unit.orchestrator.village import Village
from towpath.orchestrator.envelope import headers_of
from towpath.saga import Saga, hours, seconds
from towpath.saga.definition import Definition
from towpath.stream.broker.position import HoldKind
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds

REPLY = TopicPartition("buy.replies", 0)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is held tried again at once."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.05)


def buy(version: int, *, within: int = 10) -> Definition:
    made = Saga("buy", version=version, starts_on=OrderPlaced, deadline=hours(1))
    made.pivot(orders, confirm_order, succeeds=OrderConfirmed, within=seconds(within))
    return made.definition


class Shop(Village):
    """A village of one saga, whose orders are placed in a partition each, and answered by the test itself."""

    def deploy(self, *definitions: Definition) -> None:
        """Have the next worker run these versions, and no other."""
        self.sagas["buy"] = {definition.version: definition for definition in definitions}
        self.statuses.clear()
        self.answered = 1_000  # the village's own services answer nothing

    def place_in(self, partition: int, order_id: str) -> None:
        """Place an order in a partition."""
        said = headers_of(id=f"placed-{order_id}", type=OrderPlaced.SCHEMA_NAME)
        value, key = CODEC.encode(order_placed(order_id)), order_id.encode()
        self.broker.append("order.events", value, key=key, headers=said, partition=partition)

    def confirm_in(self, partition: int, order_id: str) -> None:
        """Answer the command of an order, which its saga reads in a partition."""
        (command,) = [one for one in self.broker.records("order.commands") if one.key == order_id.encode()]
        names = ("saga_id", "saga", "step", "direction", "attempt", "round")
        said = {name: command.header(name) for name in names}
        reply = OrderConfirmed(order_id=order_id, confirmed_at=order_placed().placed_at)
        headers = headers_of(id=f"confirmed-{order_id}", type=reply.SCHEMA_NAME, **said)
        self.broker.append(REPLY.topic, CODEC.encode(reply), key=command.key, headers=headers, partition=partition)

    def asked(self) -> list[str]:
        """Return the orders whose confirmation was asked for."""
        return sorted(command.order_id for command in self.sent("order.commands"))

    def completed(self) -> list[str]:
        """Return the orders whose saga has completed."""
        told = zip(self.broker.records("buy.history"), self.history("buy"), strict=True)
        return sorted((record.key or b"").decode() for record, entry in told if entry.status == "completed")

    def go_on(self, story: Iterator[str]) -> None:
        """Run a worker until `story` has nothing left that it waits for."""
        self.run(lambda: next(story, None) is None, workers=("buy",))


V1 = buy(1)
DEPLOYED = {
    "an unknown version": ((buy(2),), r"is of version 1; this worker has \[2\]"),
    "an edited definition": ((buy(1, within=20),), "version 1 was edited since"),
}


@pytest.mark.parametrize("case", DEPLOYED)
def test_one_instance_that_waits_for_its_code_holds_its_partition_alone(tmp_path: Path, case: str) -> None:
    """Another saga begins and ends meanwhile on the same worker; deployed as the hold says, the one goes on."""
    shop = Shop(tmp_path, {})
    deployed, words = DEPLOYED[case]
    shop.deploy(V1)
    shop.place_in(0, "waits")
    shop.run(lambda: shop.asked() == ["waits"], workers=("buy",))
    shop.confirm_in(0, "waits")

    def others_go_on() -> Iterator[str]:
        while not (shop.statuses and shop.statuses[-1].held):
            yield "the hold"
        shop.place_in(1, "one")
        shop.place_in(0, "two")
        while shop.asked() != ["one", "two", "waits"]:
            yield "their commands"
        shop.confirm_in(1, "one")
        while shop.completed() != ["one"] or not shop.statuses[-1].held:
            yield "the end of one of them"

    shop.deploy(*deployed)
    shop.go_on(others_go_on())
    status = shop.statuses[-1]
    (held,) = status.held
    assert (held.partition, held.kind, status.is_ready) == (str(REPLY), HoldKind.VERSION, False)
    assert re.search(words, held.reason)
    assert "deploy version 1 of buy" in (held.next_step or "")
    assert {"buy.replies[1]", "order.events[0]", "order.events[1]"} <= set(status.serving)
    assert shop.broker.committed_offsets("village-saga-buy").get(REPLY, 0) == 0
    for topic in ("buy.replies.dead", "order.events.dead"):
        assert shop.broker.records(topic) == []
    shop.deploy(V1, buy(2))
    shop.run(lambda: shop.completed() == ["one", "waits"] and shop.statuses[-1].is_ready, workers=("buy",))
