"""Branches, fallbacks, reminders, events and results on the log: topics, envelope, state, history, memory broker."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sagas import catalog, orders, payments
from sagas.place_order import release_stock, reserve_stock
from schemas.records.catalog import OutOfStock, StockLevelChanged, StockReleased, StockReserved
from schemas.records.order import (
    OrderApproved,
    OrderCancelled,
    OrderConfirmed,
    OrderDeclined,
    OrderPlaced,
    OrderResumed,
)
from schemas.records.payment import AuthorisationVoided, PaymentAuthorised, PaymentDeclined
from tests.unit.orchestrator.desktop import CODEC, Desktop, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import (
    ENGINE,
    OWN,
    authorise_payment,
    confirm_order,
    same,
    void_authorisation,
    write_topic,
)
from tests.unit.orchestrator.test_families import ANSWERS, parent_is
from tests.unit.orchestrator.village import Village
from towpath.contract.catalogue import Catalogue
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages, state_from_wire, state_to_wire
from towpath.orchestrator.sagas_view import SagaInstance, fold
from towpath.orchestrator.topics import topic_findings
from towpath.saga import (
    COMPENSATE,
    NO_EFFECT,
    Prolong,
    Remind,
    Saga,
    Undo,
    days,
    hours,
    one_of,
    seconds,
    tolerated,
)
from towpath.saga.effects import SubsagaCompleted
from towpath.view import Occurrence


def cancelled(order: OrderPlaced, *_: object) -> OrderCancelled:
    """An event of the project's, whatever it says."""
    return OrderCancelled(order_id=order.order_id, refunded_cents=0, cancelled_at=order.placed_at)


def reserved(order: OrderPlaced, stock: StockReserved | OutOfStock) -> StockReserved:
    """Say what a sub-saga came to."""
    assert isinstance(stock, StockReserved)
    return stock


def approved(order: OrderPlaced, number: int) -> OrderResumed:
    """Remind whoever approves."""
    assert number
    return OrderResumed(order_id=order.order_id)


def is_large(order: OrderPlaced) -> str:
    """Choose by the total."""
    return "large" if order.total_cents > 1_000_00 else "small"


def courses() -> Saga[OrderPlaced]:
    """Return a saga with a choice, a fallback, reminders, an event and a result."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=days(9), cancel_on=OrderDeclined)
    large, small = made.choose("size", by=is_large, options=("large", "small"))
    agreed = made.wait(
        "approval",
        after=large,
        succeeds=OrderApproved,
        within=hours(10),
        on_timeout=COMPENSATE,
        reminds=Remind(approved, event=OrderResumed, every=hours(2), times=2),
        prolonged=Prolong(StockLevelChanged, by=hours(5), times=1),
    )
    sure = made.merge("sure", agreed, small)
    first = made.step(
        payments,
        authorise_payment,
        after=sure,
        undo=Undo(void_authorisation, succeeds=AuthorisationVoided),
        succeeds=PaymentAuthorised,
        fails=PaymentDeclined,
        within=seconds(30),
    )
    paid = made.step(
        catalog,
        reserve_stock,
        instead_of=first,
        undo=Undo(release_stock, succeeds=StockReleased),
        succeeds=one_of(StockReserved, tolerated(OutOfStock)),
        within=seconds(30),
    )
    done = made.pivot(orders, confirm_order, after=paid, succeeds=OrderConfirmed, within=seconds(10))
    made.publish(cancelled, event=OrderCancelled, needs=paid, after=done, key="tell")
    made.result(cancelled, event=OrderCancelled, needs=done)
    return made


def begin(total_cents: int = 20_00) -> tuple[Desktop, list[Any]]:
    """Return a worker to which an order came, and what it sent."""
    desk = desktop(courses())
    placed = order_placed(total_cents=total_cents)
    return desk, desk.give("order.events", placed, id="event-1", type=placed.SCHEMA_NAME, traceparent="00-1")


def answer(desk: Desktop, sent: list[Any], reply: Any) -> list[Any]:
    """Answer the one command that was sent."""
    (command,) = commands(sent)
    return desk.reply(command, reply)


AT = Occurrence("buy.history", "order-1", "entry-1", order_placed().placed_at)
ENDING = {
    "PaymentAuthorised": ANSWERS["AuthorisePayment"],
    "PaymentDeclined": PaymentDeclined(order_id="order-1", reason="no"),
    "OutOfStock": OutOfStock(order_id="order-1", sku="chair", requested=1, available=0),
    "OrderConfirmed": ANSWERS["ConfirmOrder"],
}


def completed() -> tuple[Desktop, list[Any]]:
    """Return a worker whose order was confirmed though neither card nor goods were there."""
    desk, sent = begin()
    sent = answer(desk, sent, ENDING["PaymentDeclined"])
    sent = answer(desk, sent, ENDING["OutOfStock"])
    return desk, answer(desk, sent, ENDING["OrderConfirmed"])


def test_events_lie_in_the_sagas_own_topic_under_its_key() -> None:
    """With an id that is the same however often it is published, and what the start carried."""
    _, sent = completed()
    events = [message for message in sent if message.topic == "buy.events"]
    assert [message.headers["step"] for message in events] == ["tell", "result"]
    assert {message.key for message in events} == {"order-1"}
    assert len({message.headers["id"] for message in events}) == 2
    assert all(message.headers["traceparent"] == "00-1" for message in events)


def test_the_history_says_what_the_saga_came_to() -> None:
    """In the entry with which it completes; and the view of instances has it for clients, until it is undone."""
    _, sent = completed()
    (entry,) = history(sent)
    assert CODEC.decode(entry.result.payload) == cancelled(order_placed())
    assert [told.topic for told in entry.sent] == ["buy.events", "buy.events"]
    row: SagaInstance = fold(None, entry, AT)
    assert row.result == entry.result.payload
    again = fold(row, replace(entry, happened="refused", result=None), AT)
    assert again.result == row.result
    undone = replace(entry, status="compensating", result=None)
    assert fold(row, undone, AT).result is None


def test_state_with_declined_steps_and_branches_is_read_as_it_was_written() -> None:
    """Bytes, state, bytes."""
    desk, _ = completed()
    messages = Messages(CODEC)
    (content,) = (value for key, value in desk.stored().items() if key.startswith(b"i"))
    decoded = CODEC.decode(content)
    assert isinstance(decoded, wire.SagaState)
    state = state_from_wire(decoded, messages)
    stands = {step.key: step.status.value for step in state.steps}
    assert (stands["large"], stands["small"], stands["approval"]) == ("skipped", "succeeded", "skipped")
    assert (stands["authorise_payment"], stands["reserve_stock"]) == ("declined", "declined")
    assert CODEC.encode(state_to_wire(state, messages, decoded.definition)) == content


def test_a_wait_reminds_is_prolonged_and_cancelled_on_the_log() -> None:
    """Each by a record in the saga's topics."""
    desk, _ = begin(2_000_00)
    desk.clock.advance(2 * 3600)
    (reminder,) = [message for message in desk.fire_timers() if message.topic == "buy.events"]
    assert (reminder.headers["step"], reminder.record) == ("approval", OrderResumed(order_id="order-1"))
    more = StockLevelChanged(sku="chair", on_hand=1, reserved=0)
    desk.give("buy.signals", more, id="more-1", type=more.SCHEMA_NAME)
    refused = desk.give("buy.signals", more, id="more-1", type=more.SCHEMA_NAME)
    assert history(refused)[0].reason == "the request was already applied"
    desk.clock.advance(12 * 3600)
    desk.fire_timers()
    desk.fire_timers()
    stop = OrderDeclined(order_id="order-1", reason="no", approver="ada")
    (entry,) = history(desk.give("buy.signals", stop, id="stop-1", type=stop.SCHEMA_NAME))
    assert (entry.status, entry.cause) == ("compensated", "cancelled by OrderDeclined")


def test_the_catalogue_lists_what_is_published_and_what_cancels(tmp_path: Path) -> None:
    """What is missing is named, as with replies."""
    write_topic(tmp_path, "order.events", *OWN["order.events"])
    found = topic_findings({"buy": {1: courses().definition}}, Catalogue.read(tmp_path))
    named = {(finding.subject, finding.problem) for finding in found}
    assert {("buy.events", "it is not declared"), ("buy.signals", "it is not declared")} <= named


# --- parent and child on the memory broker ----------------------------------------------------------------------------


def child() -> Saga[OrderPlaced]:
    """Return a sub-saga that says what it came to."""
    made = Saga("hold_goods", version=1, starts_on=OrderPlaced, deadline=hours(1))
    stock = made.step(
        catalog,
        reserve_stock,
        undo=Undo(release_stock, succeeds=StockReleased),
        succeeds=StockReserved,
        fails=OutOfStock,
        within=seconds(10),
    )
    made.result(reserved, event=StockReserved, needs=stock)
    return made


def confirm(order: OrderPlaced, goods: SubsagaCompleted[StockReserved]) -> Any:
    """Confirm what is there."""
    assert goods.result.reservation_id == "r-1"
    return confirm_order(order)


def parent() -> Saga[OrderPlaced]:
    """Return a saga that chooses, and reads what its sub-saga came to."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(100))
    goods = made.subsaga(child(), same, returns=StockReserved, within=hours(2), key="goods")
    large, small = made.choose("size", by=is_large, options=("large", "small"), after=goods)
    paid = made.step(
        payments, authorise_payment, after=small, undo=NO_EFFECT, succeeds=PaymentAuthorised, within=hours(2)
    )
    ready = made.merge("ready", paid, large)
    done = made.pivot(orders, confirm, needs=goods, after=ready, succeeds=OrderConfirmed, within=seconds(10))
    made.result(cancelled, event=OrderCancelled, needs=done)
    return made


def test_parent_and_child_come_to_something_on_the_memory_broker(tmp_path: Path) -> None:
    """The child tells its parent alone; the parent publishes its own result, once."""
    values, producers, consumers = OWN["buy.replies"]
    write_topic(tmp_path, "buy.events", ["craftygoods.order.OrderCancelled"], ["buy"], [])
    village = Village(tmp_path, ANSWERS, child(), parent())
    write_topic(tmp_path, "buy.replies", [*values, "craftygoods.catalog.StockReserved"], producers, consumers)
    village.catalogue = Catalogue.read(tmp_path)
    assert f"{ENGINE}.SubsagaCompleted" in village.catalogue.topics["buy.replies"].values
    village.place()
    village.run(lambda: parent_is(village, "completed"))
    assert village.sent("buy.events") == [cancelled(order_placed())]
    told = [record for record in village.sent("buy.replies") if isinstance(record, wire.SubsagaCompleted)]
    assert [CODEC.decode(record.result.payload) for record in told if record.result] == [ANSWERS["ReserveStock"]]
