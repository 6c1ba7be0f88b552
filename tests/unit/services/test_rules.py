"""The rules of CraftyGoods' services: pure, so they are tested without anything around them."""

import random
from dataclasses import replace
from uuid import UUID

import pytest

from pipelines.services.catalog.rules import Shelf, Shortage, give_back, pieces, reserve, restockable
from pipelines.services.identity.rules import Customer, reason_to_refuse
from pipelines.services.order.rules import ImpossibleStep, OrderStatus, Step, after, may, total_cents
from pipelines.services.payment.card_network import reason_to_decline
from pipelines.services.payment.rules import (
    Authorisation,
    ImpossiblePayment,
    check_capture,
    reason_to_refuse_refund,
)
from schemas.records.catalog import StockLine
from schemas.records.order import OrderLine

CUSTOMER = Customer("c-1", verified=True, credit_limit_cents=1_000)


@pytest.mark.parametrize(
    ("customer", "cents", "reason"),
    [
        (CUSTOMER, 1_000, None),
        (CUSTOMER, 1_001, "the order is above the customer's limit"),
        (replace(CUSTOMER, verified=False), 1, "the customer's identity is not verified"),
        (None, 1, "the customer is not known"),
    ],
)
def test_who_may_order_for_how_much(customer: Customer | None, cents: int, reason: str | None) -> None:
    """A verified customer, up to the limit and with it."""
    assert reason_to_refuse(customer, cents) == reason


def test_stock_is_conserved_whatever_is_asked() -> None:
    """Random baskets against random shelves: never more than there is, never a part of a basket."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    chance = random.Random(seed)
    shelves = {sku: Shelf(sku, chance.randrange(30), 0) for sku in "abcde"}
    held: list[dict[str, int]] = []
    for _ in range(2_000):
        if held and chance.random() < 0.4:
            shelves |= give_back(shelves, held.pop(chance.randrange(len(held))))
            continue
        wanted = {sku: chance.randrange(1, 6) for sku in chance.sample("abcdef", chance.randrange(1, 4))}
        outcome = reserve(shelves, wanted)
        if isinstance(outcome, Shortage):
            assert (
                outcome.requested > outcome.available == (shelves[outcome.sku].available if outcome.sku != "f" else 0)
            )
        else:
            held.append(wanted)
            shelves |= outcome
        for sku, shelf in shelves.items():
            assert 0 <= shelf.reserved <= shelf.on_hand
            assert shelf.reserved == sum(basket.get(sku, 0) for basket in held)


def test_the_first_article_that_is_short_is_named() -> None:
    """In the order of the lines, so that the answer is the same each time."""
    shelves = {sku: Shelf(sku, 1, 0) for sku in ("a", "b")}
    assert reserve(shelves, {"b": 2, "a": 2}) == Shortage("b", 2, 1)


def test_lines_of_one_article_are_added_up() -> None:
    """A basket may name an article twice."""
    assert pieces([StockLine(sku="a", quantity=1), StockLine(sku="b", quantity=2), StockLine(sku="a", quantity=3)]) == {
        "a": 4,
        "b": 2,
    }


def test_no_more_comes_back_than_is_promised() -> None:
    """And nothing of what never was."""
    lines = [StockLine(sku="a", quantity=5), StockLine(sku="b", quantity=1), StockLine(sku="c", quantity=1)]
    assert restockable({"a": 2, "b": 4}, lines) == {"a": 2, "b": 1}


STEPS = {
    ("placed", "confirm"): "confirmed",
    ("placed", "reject"): "rejected",
    ("confirmed", "begin cancellation"): "cancelling",
    ("cancelling", "resume"): "confirmed",
    ("cancelling", "complete cancellation"): "cancelled",
}


@pytest.mark.parametrize("status", OrderStatus)
@pytest.mark.parametrize("step", Step)
def test_an_order_takes_these_steps_and_no_others(status: OrderStatus, step: Step) -> None:
    """Every pair of status and step."""
    reached = STEPS.get((status.value, step.value))
    assert may(status, step) is (reached is not None)
    if reached is None:
        with pytest.raises(ImpossibleStep, match=f"order o-1 is {status}"):
            after("o-1", status, step)
    else:
        assert after("o-1", status, step) == reached


def test_an_order_that_does_not_exist_takes_no_step() -> None:
    """It is said so."""
    with pytest.raises(ImpossibleStep, match="not known"):
        after("o-1", None, Step.CONFIRM)


def test_an_order_costs_the_sum_of_its_lines() -> None:
    """Pieces times price."""
    lines = [OrderLine(sku="a", quantity=3, unit_price_cents=250), OrderLine(sku="b", quantity=1, unit_price_cents=99)]
    assert total_cents(lines) == 849


OPEN = Authorisation("o-1", UUID(int=1), "a-1", 1_000, voided=False, captured_cents=0, refunded_cents=0)
CAPTURED = replace(OPEN, captured_cents=1_000)


def test_what_is_authorised_can_be_captured_once() -> None:
    """In full or in part."""
    check_capture(OPEN, "o-1", "a-1", 1_000)
    check_capture(OPEN, "o-1", "a-1", 1)


@pytest.mark.parametrize(
    ("authorisation", "authorisation_id", "cents"),
    [
        (None, "a-1", 1),
        (OPEN, "a-2", 1),
        (OPEN, "a-1", 1_001),
        (OPEN, "a-1", 0),
        (replace(OPEN, voided=True), "a-1", 1),
        (CAPTURED, "a-1", 1),
    ],
    ids=["unknown", "another one", "too much", "nothing", "voided", "captured"],
)
def test_what_cannot_be_captured(authorisation: Authorisation | None, authorisation_id: str, cents: int) -> None:
    """A saga that asks for it has its own rules wrong."""
    with pytest.raises(ImpossiblePayment, match="order o-1"):
        check_capture(authorisation, "o-1", authorisation_id, cents)


@pytest.mark.parametrize(
    ("authorisation", "authorisation_id", "cents", "reason"),
    [
        (CAPTURED, "a-1", 1_000, None),
        (replace(CAPTURED, refunded_cents=400), "a-1", 600, None),
        (replace(CAPTURED, refunded_cents=400), "a-1", 601, "600 cents of the payment are left to give back"),
        (OPEN, "a-1", 1, "0 cents of the payment are left to give back"),
        (CAPTURED, "a-2", 1, "there is no such payment"),
        (None, "a-1", 1, "there is no such payment"),
        (CAPTURED, "a-1", 0, "nothing was asked for"),
    ],
)
def test_no_more_is_given_back_than_was_taken(
    authorisation: Authorisation | None, authorisation_id: str, cents: int, reason: str | None
) -> None:
    """A refund that cannot be is refused in words, not an error: customers ask for such things."""
    assert reason_to_refuse_refund(authorisation, authorisation_id, cents) == reason


@pytest.mark.parametrize(
    ("token", "declined"), [("card-1", False), ("declined-card-1", True), ("expired-card-1", True)]
)
def test_test_cards_say_themselves_what_becomes_of_them(token: str, declined: bool) -> None:
    """As card networks' own test cards do."""
    assert (reason_to_decline(token) is not None) is declined
