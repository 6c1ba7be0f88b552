"""A sub-saga for each line of an order, in the orchestrator: keys on the log, answers, undo, and what is forgotten."""

from dataclasses import replace
from typing import Any

from sagas import orders
from schemas.records.catalog import OutOfStock, StockReleased, StockReserved
from schemas.records.order import OrderConfirmed, OrderLine, OrderPlaced
from tests.unit.orchestrator.desktop import CODEC, Sent, commands, history, order_placed
from tests.unit.orchestrator.family import Family, confirm_order, hold_goods
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages, state_from_wire, state_to_wire
from towpath.saga import Saga, UndoSubsaga, hours, minutes, seconds

RESERVED = StockReserved(order_id="order-1", reservation_id="r-1")
RELEASED = StockReleased(order_id="order-1")
GONE = OutOfStock(order_id="order-1", sku="lamp", requested=1, available=0)


def lines(order: OrderPlaced) -> tuple[OrderLine, ...]:
    """Return what was ordered."""
    return order.lines


def one_line(order: OrderPlaced, line: OrderLine) -> OrderPlaced:
    """Order one line alone."""
    return replace(order, lines=(line,))


def sku(order: OrderPlaced, line: OrderLine) -> str:
    """Key each by its order and product."""
    return f"{order.order_id}-{line.sku}"


def buy_lines(**said: Any) -> Saga[OrderPlaced]:
    """Return a saga that holds each line by a saga of its own."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(100))
    goods = made.subsaga_each(
        hold_goods(),
        one_line,
        over=lines,
        limit=9,
        keyed_by=sku,
        key="goods",
        within=hours(1),
        undo=UndoSubsaga(within=minutes(5)),
        **said,
    )
    made.pivot(orders, confirm_order, after=goods, succeeds=OrderConfirmed, within=seconds(10))
    return made


def begun(**said: Any) -> tuple[Family, list[Sent], list[Sent]]:
    """Let an order of two lines be placed; return all that was sent, and what the catalog was asked."""
    placed = replace(
        order_placed(),
        lines=tuple(OrderLine(sku=name, quantity=1, unit_price_cents=10_00) for name in ("desk", "lamp")),
    )
    family = Family(buy_lines(**said), hold_goods())
    sent = family.carry(family["buy"].give("order.events", placed, id="event-1"))
    return family, sent, commands(sent)


def answered(family: Family, command: Sent, reply: Any) -> list[Sent]:
    """Answer a command, and carry what follows."""
    return family.carry(family[command.headers["saga"]].reply(command, reply))


def statuses(sent: list[Sent]) -> dict[str, str]:
    """Return how each instance stands, by its business key, after its last entry."""
    return {entry.key: entry.status for entry in history(sent)}


def test_each_line_has_a_saga_under_its_own_key() -> None:
    """The starts lie in the child's topic under those keys, so that they spread over its partitions."""
    family, sent, asked = begun()
    starts = [message for message in sent if message.topic == "hold_goods.signals"]
    assert [message.key for message in starts] == ["order-1-desk", "order-1-lamp"]
    assert [command.key for command in asked] == ["order-1-desk", "order-1-lamp"]
    assert family.kept("hold_goods") == 2


def test_all_that_complete_let_the_parent_go_on() -> None:
    """Each answer is told under the parent's key, for its item."""
    family, _, asked = begun()
    answered(family, asked[1], RESERVED)
    sent = answered(family, asked[0], RESERVED)
    (answer,) = [message for message in sent if message.topic == "buy.replies"]
    assert (answer.key, answer.headers["item"]) == ("order-1", "0")
    (confirm,) = commands(sent)
    sent = answered(family, confirm, OrderConfirmed(order_id="order-1", confirmed_at=order_placed().placed_at))
    ended = [message.key for message in sent if message.topic == "hold_goods.signals"]
    assert ended == ["order-1-desk", "order-1-lamp"]
    family.pass_hours(1)
    assert [family.kept(saga) for saga in ("buy", "hold_goods")] == [0, 0]


def test_one_that_compensates_asks_the_others_back() -> None:
    """The request reaches the child under its own key."""
    family, _, asked = begun()
    answered(family, asked[0], RESERVED)
    sent = answered(family, asked[1], GONE)
    (release,) = commands(sent)
    assert (release.key, release.headers["direction"]) == ("order-1-desk", "undo")
    assert statuses(answered(family, release, RELEASED)) == {"order-1-desk": "compensated", "order-1": "compensated"}


def test_a_line_that_is_gone_may_be_tolerated() -> None:
    """The order is confirmed with what there is; what was kept of both is forgotten with the parent."""
    family, _, asked = begun(may_fail=True)
    answered(family, asked[0], RESERVED)
    (confirm,) = commands(answered(family, asked[1], GONE))
    assert type(confirm.record).__name__ == "ConfirmOrder"


def test_the_state_of_a_child_names_its_item() -> None:
    """State -> Avro -> state is the identity, with the item of the parent's list."""
    family, _, asked = begun()
    messages = Messages(CODEC)
    stored = family["hold_goods"].stored()[b"i" + asked[1].headers["saga_id"].encode()]
    written = CODEC.decode(stored)
    assert isinstance(written, wire.SagaState)
    state = state_from_wire(written, messages)
    assert state.parent is not None
    assert state.parent.item == "1"
    assert replace(state_to_wire(state, messages), definition=written.definition) == written
