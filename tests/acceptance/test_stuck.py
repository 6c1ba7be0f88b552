"""Stuck orders on the whole stack: found, explained, resolved by each action, from the command line and from code."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest

from schemas.records.order import OrderApproved, OrderConfirmed, OrderDeclined
from schemas.records.payment import AuthorisationVoided, PaymentCaptured
from tests.acceptance.shop import LARGE_CENTS, Shop, await_instance, open_shop, waits_for_approval
from tests.acceptance.test_instances import found, run
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath.client import Action, Client, InstanceStatus
from towpath.project import worker_names
from towpath.settings import load_settings
from towpath.stack.workers import start_workers

WAIT_SECONDS_MAX = 120.0
HASTY = {"TOWPATH_PROJECT__SAGAS": "tests.acceptance.hasty"}
WORKER = "saga:place_order"


@dataclass(frozen=True, slots=True)
class Desk:
    """A shop, the stack whose sagas give up within seconds, and a client."""

    stack: RunningStack
    shop: Shop
    client: Client

    def order_url(self) -> str:
        """Return the URL of the order service's database."""
        return self.stack.settings.postgres.database_url("order")

    def standing(self, order_id: str) -> InstanceStatus:
        """Return how an order's instance stands, as the client sees it."""
        (standing,) = self.client.find("place_order", order_id)
        return standing

    def ended(self, order_id: str) -> str:
        """Wait until an order's saga has ended; return how."""
        return await_instance(self.stack, order_id, lambda one: one.state.ended).state.status.value


@pytest.fixture(scope="module")
def desk(stack: RunningStack) -> Iterator[Desk]:
    """Run place_order in both versions, of which the newer one gives up within seconds."""
    shop = open_shop(stack)
    stack.client.stop(WORKER)
    with variables(HASTY):
        start_workers(load_settings(ROOT), stack.client, [WORKER], {**os.environ, **stack.environment, **HASTY})
        yield Desk(stack, shop, Client.load(load_settings(ROOT)))
        stack.client.stop(WORKER)
    start_workers(stack.settings, stack.client, worker_names(stack.settings))


def order_ids(count: int) -> list[str]:
    """Return ids that no order has."""
    mark = uuid4().hex[:8]
    return [f"stuck-{mark}-{number}" for number in range(count)]


def decide(desk: Desk, order_id: str, *, approve: bool = True) -> None:
    """Let a clerk decide about an order, in a transaction of the order service."""
    decided = (
        OrderApproved(order_id=order_id, approver="grace")
        if approve
        else OrderDeclined(order_id=order_id, approver="grace", reason="too dear")
    )
    with psycopg.connect(desk.order_url()) as connection:
        desk.client.signal(connection, "place_order", order_id, decided)


def is_stuck(word: str) -> Callable[[object], bool]:
    """Return whether an instance is stuck with a step that stands so."""
    return lambda one: getattr(one, "stuck", False) and any(word in words for words in getattr(one, "under_way", ()))


def test_stuck_orders_are_found_explained_and_resolved(desk: Desk) -> None:
    """The card network is dead: captures and an undo are stuck; the order service is: the pivot's outcome is unknown.

    Each is found by `list --stuck`, explained by `why`, and brought to its end by one of the actions.
    """
    capture, captured, undo, undone, pivot, pivoted = orders = order_ids(6)
    stack, client = desk.stack, desk.client
    for order_id in orders:
        desk.shop.place(order_id)
    for order_id in orders:
        await_instance(stack, order_id, waits_for_approval)
    stack.client.stop("service:payment")
    for order_id in (capture, captured):
        decide(desk, order_id)
    for order_id in (undo, undone):
        decide(desk, order_id, approve=False)
    for order_id in (capture, captured):
        await_instance(stack, order_id, is_stuck("capture_payment stuck"))
    for order_id in (undo, undone):
        await_instance(stack, order_id, is_stuck("authorise_payment undo_stuck"))
    stack.client.stop("service:order")
    for order_id in (pivot, pivoted):
        decide(desk, order_id)
    for order_id in (pivot, pivoted):
        await_instance(stack, order_id, is_stuck("confirm_order stuck"))
    listed = {one["key"]: one for one in found(stack, "saga", "list", "place_order", "--stuck")}
    assert set(orders) <= set(listed)
    for order_id, words in {
        capture: "capture_payment is stuck: its attempts are used up past the pivot",
        undo: "the undo of authorise_payment is stuck: it was not answered in all its attempts",
        pivot: "confirm_order is stuck",
    }.items():
        told = run(stack, "saga", "why", "place_order", order_id).stdout
        assert words in told
        assert "towpath saga retry place_order" in told
    resolve_without_services(desk, captured, undone, pivoted)
    because = ("--reason", "the card network is back", "--actor", "grace")
    (done,) = found(stack, "saga", "retry", "place_order", capture, *because)
    assert done["outcome"] == "applied"
    (done,) = found(stack, "saga", "resume", "place_order", pivot, *because)
    assert done["outcome"] == "applied"
    with psycopg.connect(desk.order_url()) as connection:
        asked = client.ask(
            connection, desk.standing(undo), Action.RETRY, step="authorise_payment", actor="ada", reason="it is back"
        )
    assert client.await_answer(asked, timeout_seconds=WAIT_SECONDS_MAX).refusal is None
    start_workers(stack.settings, stack.client, ["service:payment", "service:order"])
    for order_id in (capture, captured, pivot, pivoted):
        assert desk.ended(order_id) == "completed"
    for order_id in (undo, undone):
        assert desk.ended(order_id) == "compensated"


def resolve_without_services(desk: Desk, captured: str, undone: str, pivoted: str) -> None:
    """Say what became of three steps, because a person looked it up: by the command line and by the client.

    A cancellation is refused past the pivot, and whoever awaits it learns why.
    """
    reply = PaymentCaptured(order_id=captured, capture_id="looked-up", amount_cents=LARGE_CENTS)
    given = json.dumps({"order_id": captured, "capture_id": reply.capture_id, "amount_cents": reply.amount_cents})
    asking = ("saga", "skip", "place_order", captured, "--reason", "the network's books have it")
    (done,) = found(desk.stack, *asking, "--reply", "PaymentCaptured", "--value", given)
    assert done["outcome"] == "applied"
    with psycopg.connect(desk.order_url()) as connection:
        cancelled = desk.client.cancel(connection, desk.standing(pivoted), actor="ada", reason="too late")
        voided = desk.client.ask(
            connection,
            desk.standing(undone),
            Action.SKIP,
            step="authorise_payment",
            reply=AuthorisationVoided(order_id=undone),
            actor="ada",
            reason="voided by telephone",
        )
    refusal = desk.client.await_answer(cancelled, timeout_seconds=WAIT_SECONDS_MAX).refusal
    assert refusal == "the saga is past its point of no return: what was done stays done"
    assert desk.client.await_answer(voided, timeout_seconds=WAIT_SECONDS_MAX).refusal is None
    with psycopg.connect(desk.order_url()) as connection:
        confirmed = desk.client.ask(
            connection,
            desk.standing(pivoted),
            Action.SKIP,
            step="confirm_order",
            reply=OrderConfirmed(order_id=pivoted, confirmed_at=desk.standing(pivoted).started_at),
            actor="ada",
            reason="it stands in the order service's books",
        )
    assert desk.client.await_answer(confirmed, timeout_seconds=WAIT_SECONDS_MAX).refusal is None
