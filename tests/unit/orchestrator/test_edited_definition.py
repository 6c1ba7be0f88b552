"""A definition that was edited under its version: state is read by step key, or the partition waits."""

from typing import Any

import pytest

from sagas import catalog, identity
from schemas.records.catalog import ReserveStock, StockReserved
from schemas.records.identity import CustomerVerified, VerifyCustomer
from schemas.records.order import OrderPlaced
from tests.unit.orchestrator.desktop import CODEC, Desktop, Sent, commands, desktop, history, order_placed
from towpath.errors import WorldError
from towpath.orchestrator.instance_status import instances_in
from towpath.orchestrator.instances import OtherDefinition
from towpath.saga import Saga, hours, seconds
from towpath.saga.definition import Definition
from towpath.stream.broker.record import ConsumedRecord


def verify_customer(order: OrderPlaced) -> VerifyCustomer:
    """Verify."""
    return VerifyCustomer(order_id=order.order_id, customer_id=order.customer_id, total_cents=1, currency="EUR")


def reserve_stock(order: OrderPlaced) -> ReserveStock:
    """Reserve."""
    return ReserveStock(order_id=order.order_id, lines=())


def check_order(*steps: str, within: int = 10) -> Saga[Any]:
    """Return version 1 of a saga whose independent steps stand in this order."""
    made = Saga("check_order", version=1, starts_on=OrderPlaced, deadline=hours(1))
    for step in steps:
        if step == "verify_customer":
            made.retriable(identity, verify_customer, succeeds=CustomerVerified, within=seconds(within))
        else:
            made.retriable(catalog, reserve_stock, succeeds=StockReserved, within=seconds(within))
    return made


def started(*steps: str) -> tuple[Desktop, dict[str, Sent]]:
    """Start an instance; return its commands by step."""
    desk = desktop(check_order(*steps))
    sent = commands(desk.give("order.events", order_placed(), id="event-1"))
    return desk, {command.headers["step"]: command for command in sent}


def test_steps_that_changed_places_keep_their_state() -> None:
    """State is read by step key: the reply that is outstanding is taken, and the saga completes."""
    desk, sent = started("verify_customer", "reserve_stock")
    desk.reply(sent["verify_customer"], CustomerVerified(order_id="order-1", customer_id="customer-1"))
    desk.orchestrator = desktop(check_order("reserve_stock", "verify_customer")).orchestrator
    ended = desk.reply(sent["reserve_stock"], StockReserved(order_id="order-1", reservation_id="r-1"))
    assert [(entry.happened, entry.status) for entry in history(ended)] == [("replied", "completed")]


@pytest.mark.parametrize(
    "edited",
    [check_order("verify_customer"), check_order("verify_customer", "reserve_stock", within=20)],
    ids=["a step is gone", "a step has more time"],
)
def test_an_instance_waits_for_the_definition_that_it_was_written_under(edited: Saga[Any]) -> None:
    """Nothing is decided by another definition of the same number; the error names both ways out."""
    desk, sent = started("verify_customer", "reserve_stock")
    before = desk.stored()
    original = desk.orchestrator
    desk.orchestrator = desktop(edited).orchestrator
    reply = CustomerVerified(order_id="order-1", customer_id="customer-1")
    with pytest.raises(OtherDefinition, match="version 1 was edited since") as refused:
        desk.reply(sent["verify_customer"], reply)
    assert isinstance(refused.value, WorldError)
    assert "version 2" in (refused.value.next_step or "")
    assert desk.stored() == before
    desk.orchestrator = original
    assert history(desk.reply(sent["verify_customer"], reply))[0].happened == "replied"


def test_an_instance_that_has_ended_waits_for_nothing() -> None:
    """A repeated reply to a finished saga is passed over by it, whatever became of its definition's times."""
    desk, sent = started("verify_customer")
    reply = CustomerVerified(order_id="order-1", customer_id="customer-1")
    assert history(desk.reply(sent["verify_customer"], reply))[0].status == "completed"
    desk.orchestrator = desktop(check_order("verify_customer", within=20)).orchestrator
    assert desk.reply(sent["verify_customer"], reply) == []


def test_a_list_says_which_instances_wait_for_a_deployment() -> None:
    """A version that is not there, or not as it was, stands first among what an instance waits for."""
    desk, sent = started("verify_customer", "reserve_stock")
    records = [
        ConsumedRecord("check_order.state", 0, offset, 0, key, value)
        for offset, (key, value) in enumerate(desk.stored().items())
    ]

    def held(definitions: dict[int, Definition]) -> str | None:
        (instance,) = instances_in(records, CODEC, definitions=definitions)
        assert instance.under_way[0] == (instance.held or "verify_customer sent")
        return instance.held

    assert sent
    assert held({1: check_order("reserve_stock", "verify_customer").definition}) is None
    edited = check_order("verify_customer", "reserve_stock", within=20).definition
    assert held({1: edited}) == "version 1 as it was: it was edited since"
    assert held({2: edited}) == "version 1, which is not deployed"
