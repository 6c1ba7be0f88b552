"""Votes, a contest and a chain of instances on a real broker: signals, undos of losers and starts go through topics."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from schemas.records.catalog import OutOfStock, ReleaseStock, ReserveStock, StockLine, StockReleased, StockReserved
from schemas.records.order import (
    ConfirmOrder,
    OrderApproved,
    OrderCancelled,
    OrderConfirmed,
    OrderLine,
    OrderPlaced,
    OrderRejected,
    OrderResumed,
)
from tests.integration.orchestrator.town import Town, client_of, unique_name
from towpath.contract.record import Record
from towpath.saga import COMPENSATE, Participant, Saga, UndoEach, minutes
from towpath.saga.keys import saga_id_of, start_id_of_child
from towpath.settings import Settings

pytestmark = pytest.mark.stack
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FREIGHT = OrderPlaced(
    order_id="order-1",
    customer_id="customer-1",
    lines=tuple(OrderLine(sku=sku, quantity=1, unit_price_cents=1) for sku in ("north", "south", "west")),
    total_cents=2,
    currency="EUR",
    card_token="card-1",
    placed_at=NOW,
)


def customer(order: OrderPlaced) -> str:
    """Key the saga by who ordered."""
    return order.customer_id


def asked(order: OrderPlaced) -> OrderResumed:
    """Ask for votes; what is left to pay tells one instance from the next."""
    return OrderResumed(order_id=f"vote {order.total_cents}")


def count_vote(order: OrderPlaced, so_far: OrderCancelled | None, vote: OrderApproved | OrderResumed) -> OrderCancelled:
    """Write down who voted, each once."""
    before = so_far.order_id.split() if so_far else []
    who = vote.approver if isinstance(vote, OrderApproved) else "end"
    votes = before if who in before else [*before, who]
    return OrderCancelled(order_id=" ".join(votes), refunded_cents=0, cancelled_at=NOW)


def two_voted(order: OrderPlaced, votes: OrderCancelled) -> bool:
    """Say whether two have voted."""
    return len(votes.order_id.split()) >= 2


def carriers(order: OrderPlaced) -> tuple[OrderLine, ...]:
    """Return who may carry it."""
    return order.lines


def offer(order: OrderPlaced, carrier: OrderLine) -> ReserveStock:
    """Ask one carrier."""
    return ReserveStock(order_id=str(order.total_cents), lines=(StockLine(sku=carrier.sku, quantity=1),))


def withdraw(order: OrderPlaced, carrier: OrderLine) -> ReleaseStock:
    """Ask it no longer."""
    return ReleaseStock(order_id=f"{order.total_cents} {carrier.sku}")


def confirm(order: OrderPlaced, taken: tuple[StockReserved, ...]) -> ConfirmOrder:
    """Confirm who carries it."""
    return ConfirmOrder(order_id=taken[0].reservation_id)


def came_to(order: OrderPlaced, votes: OrderCancelled, taken: tuple[StockReserved, ...]) -> OrderRejected:
    """Say who voted, and who carries it."""
    return OrderRejected(order_id=taken[0].reservation_id, reason=votes.order_id, rejected_at=NOW)


def again(order: OrderPlaced) -> OrderPlaced | None:
    """Send the rest."""
    return replace(order, total_cents=order.total_cents - 1) if order.total_cents > 1 else None


class Chain(Town):
    """The saga and its services; one carrier answers, the others only once the offer is withdrawn."""

    def __init__(self, servers: str) -> None:
        name = unique_name()
        carrying, orders = Participant(f"carriers_{name}"), Participant(f"orders_{name}")
        self.participants = (carrying, orders)
        self.saga = self._saga(name, carrying, orders)
        self.sagas = (self.saga,)
        self.withdrawn: list[str] = []
        super().__init__(servers, name)

    def _saga(self, name: str, carrying: Participant, orders: Participant) -> Saga[OrderPlaced]:
        made = Saga(f"chain_{name}", version=1, starts_on=OrderPlaced, deadline=minutes(30), keyed_by=customer)
        told = made.publish(asked, event=OrderResumed)
        votes = made.gather(
            "votes",
            of=OrderApproved,
            into=OrderCancelled,
            by=count_vote,
            enough=two_voted,
            ended_by=OrderResumed,
            limit=9,
            after=told,
            within=minutes(9),
            on_timeout=COMPENSATE,
        )
        taken = made.each(
            carrying,
            offer,
            over=carriers,
            limit=9,
            enough=1,
            after=votes,
            undo=UndoEach(withdraw, succeeds=StockReleased),
            succeeds=StockReserved,
            fails=OutOfStock,
            within=minutes(5),
        )
        made.pivot(orders, confirm, needs=taken, succeeds=OrderConfirmed, within=minutes(1))
        made.result(came_to, event=OrderRejected, needs=votes & taken)
        made.then_starts(again)
        return made

    def reply_to(self, asked: Record) -> Record | None:
        """South takes the first freight, west the second."""
        if isinstance(asked, ReserveStock):
            takes = asked.lines[0].sku == {"2": "south", "1": "west"}[asked.order_id]
            return StockReserved(order_id="order-1", reservation_id=asked.lines[0].sku) if takes else None
        if isinstance(asked, ReleaseStock):
            self.withdrawn.append(asked.order_id)
            return StockReleased(order_id="order-1")
        return OrderConfirmed(order_id="order-1", confirmed_at=NOW)

    def take(self, event: Record, published: list[str]) -> None:
        """Vote when asked: twice by one person, and by another; the second time an event ends the vote."""
        if isinstance(event, OrderRejected):
            published.append(f"{event.order_id}: {event.reason}")
        elif isinstance(event, OrderResumed) and event.order_id == "vote 2":
            self.vote("ada", "ada again")
            self.vote("grace", "grace")
        else:
            self.vote("hilda", "hilda")
            self.say(f"{self.saga.name}.signals", OrderResumed(order_id="order-1"), "customer-1", id="the end")

    def vote(self, approver: str, id_: str) -> None:
        """Let somebody vote."""
        vote = OrderApproved(order_id="order-1", approver=approver)
        self.say(f"{self.saga.name}.signals", vote, "customer-1", id=id_)


@pytest.mark.crash
def test_votes_a_contest_and_the_next_instance(settings: Settings, kafka_servers: str) -> None:
    """A vote before the start is kept; two of three are enough; the carriers that came second are asked no longer, and
    nothing else is undone; the next instance starts by itself, and its ending and result are read from PostgreSQL.
    """
    chain = Chain(kafka_servers)
    first = saga_id_of(chain.saga.name, "freight-placed")
    second = saga_id_of(chain.saga.name, start_id_of_child(first, "next"))
    client = client_of(settings)
    with chain.services() as published:
        chain.vote("ada", "early")
        chain.say(chain.started, FREIGHT, "order-1", id="freight-placed")
        ended = chain.await_ending(settings, client, second)
    assert (ended.status, ended.key) == ("completed", "customer-1")
    assert ended.result == OrderRejected(order_id="west", reason="hilda end", rejected_at=NOW)
    assert published[0] == "south: ada grace"
    assert sorted(chain.withdrawn) == ["1 north", "1 south", "2 north", "2 west"]
    found = client.find(chain.saga.name, "customer-1")
    assert [(each.saga_id, each.status) for each in found] == [(second, "completed"), (first, "completed")]
