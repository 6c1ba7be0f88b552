"""A person gives a sub-saga's ending in the place of the sub-saga: the dry run is the machine itself."""

from sagas import catalog, orders
from sagas.place_order import reserve_stock
from schemas.records.catalog import StockReserved
from schemas.records.order import OrderConfirmed, OrderPlaced
from tests.unit.orchestrator.desktop import CODEC, commands, desktop, history, order_placed
from tests.unit.orchestrator.family import confirm_order, same
from tests.unit.orchestrator.test_requests import give, now, state_of
from towpath.cli.saga_requests import _outcome_names
from towpath.cli.saga_room import Room
from towpath.orchestrator.requests import preview, request_of
from towpath.saga import Saga, hours, seconds
from towpath.saga.inputs import Action


def buy() -> Saga[OrderPlaced]:
    """Return a saga that needs a sub-saga of retriable steps past its pivot."""
    child = Saga("hold_goods", version=1, starts_on=OrderPlaced, deadline=hours(1))
    child.retriable(catalog, reserve_stock, succeeds=StockReserved, within=seconds(10))
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(100))
    confirmed = made.pivot(orders, confirm_order, succeeds=OrderConfirmed, within=seconds(10))
    made.subsaga(child, same, within=hours(1), key="goods", after=confirmed)
    return made


def test_the_dry_run_of_a_skip_with_a_sub_sagas_ending_says_what_the_saga_does() -> None:
    """The ending is read as the command line reads it."""
    desk = desktop(buy())
    (confirm,) = commands(desk.give("order.events", order_placed(), id="e"))
    desk.reply(confirm, OrderConfirmed(order_id="order-1", confirmed_at=desk.clock.now()))
    for _ in range(200):
        desk.clock.advance(3600)
        desk.fire_timers()
    definition, state = buy().definition, state_of(desk)
    room = object.__new__(Room)
    room.codec = CODEC
    among = _outcome_names(definition.step("goods"))
    reply = room.record("SubsagaCompleted", '{"saga": "hold_goods", "saga_id": "x"}', like=False, among=among)
    request = request_of(state, Action.SKIP, actor="ada", reason="it has", reply=reply)
    seen = preview(definition, state, request, now(desk))
    (entry,) = history(give(desk, request))
    assert (seen.refusal, seen.status_after) == (None, "completed")
    assert (entry.happened, entry.status) == ("operator_asked", "completed")
