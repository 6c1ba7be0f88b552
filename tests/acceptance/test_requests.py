"""What a person asks of real instances, on the whole stack: approve, cancel one, cancel several, and be refused."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from pipelines.services.catalog import list_product
from pipelines.services.identity import register_customer
from pipelines.services.identity.rules import Customer
from pipelines.services.order import place_order
from schemas.records.order import OrderLine, OrderPlaced
from tests.acceptance.test_instances import found, run
from tests.stack_fixture import RunningStack
from towpath.cli.saga_instances import read_instances
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.orchestrator.instance_status import Instance
from towpath.project import worker_names
from towpath.stack.workers import start_workers

WAIT_SECONDS_MAX = 60.0
PRICE_CENTS = 1_500_00
ORDERS = 5


@pytest.fixture(scope="module")
def waiting(stack: RunningStack) -> list[str]:
    """Place orders above the limit, and return their ids once each waits for a person."""
    settings = stack.settings
    start_workers(settings, stack.client, worker_names(settings))
    codec = load_codec(settings, Catalogue.load(settings))
    customer_id, sku = f"customer-{uuid4().hex[:8]}", f"clock-{uuid4().hex[:8]}"
    with psycopg.connect(settings.postgres.database_url("identity")) as connection:
        rich = Customer(customer_id, verified=True, credit_limit_cents=100_000_00)
        register_customer(connection, codec, rich, "Ann", event_id=uuid4())
    with psycopg.connect(settings.postgres.database_url("catalog")) as connection:
        list_product(
            connection, codec, sku=sku, name="Clock", unit_price_cents=PRICE_CENTS, on_hand=50, event_id=uuid4()
        )
    orders = [f"large-{uuid4().hex[:8]}" for _ in range(ORDERS)]
    with psycopg.connect(settings.postgres.database_url("order")) as connection:
        for order_id in orders:
            order = OrderPlaced(
                order_id=order_id,
                customer_id=customer_id,
                lines=(OrderLine(sku=sku, quantity=1, unit_price_cents=PRICE_CENTS),),
                total_cents=PRICE_CENTS,
                currency="EUR",
                card_token="card-1",
                placed_at=datetime.now(UTC),
            )
            place_order(connection, codec, order, event_id=uuid4())
    for order_id in orders:
        await_instance(stack, order_id, lambda one: "approval waiting" in one.under_way)
    return orders


def instance(stack: RunningStack, order_id: str) -> Instance | None:
    """Return how the order's instance stands, None where there is none yet."""
    listed = read_instances(stack.settings, "place_order")
    return next((one for one in listed if one.state.key == order_id), None)


def await_instance(stack: RunningStack, order_id: str, condition: Callable[[Instance], bool]) -> Instance:
    """Wait until an order's instance is as it should be."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        one = instance(stack, order_id)
        if one is not None and condition(one):
            return one
        assert time.monotonic() < deadline, f"{order_id} stands at {one}"
        time.sleep(0.5)


def test_a_signal_answers_the_wait(stack: RunningStack, waiting: list[str]) -> None:
    """The record is filled from the contract's example, held against the contract, and applied once."""
    order_id = waiting[0]
    value = json.dumps({"order_id": order_id})
    approve = ("saga", "signal", "place_order", order_id, "OrderApproved", "--value", value)
    refused = run(stack, *approve)
    assert refused.returncode == 3, refused.stderr
    assert "approver" in refused.stderr
    done = found(stack, *approve, "--like")
    assert (done["outcome"], done["reason"]) == ("applied", None)
    assert await_instance(stack, order_id, lambda one: one.state.status == "completed")
    late = run(stack, *approve, "--like", "--id", "another")
    assert late.returncode == 6, late.stderr
    assert "the saga has ended" in late.stderr


def test_a_cancelled_order_is_undone_and_a_finished_one_is_not(stack: RunningStack, waiting: list[str]) -> None:
    """The dry run says what the machine would decide; then it is decided so, and the history has the person."""
    order_id = waiting[1]
    asking = ("saga", "cancel", "place_order", order_id, "--reason", "ordered twice", "--actor", "grace")
    (seen,) = found(stack, *asking, "--dry-run")
    assert (seen["refusal"], seen["status_after"]) == (None, "compensating")
    assert any(sent.startswith("VoidAuthorisation") for sent in seen["sends"])
    standing = instance(stack, order_id)
    assert standing is not None
    assert standing.state.status == "running"
    (done,) = found(stack, *asking)
    assert (done["outcome"], done["reason"]) == ("applied", None)
    await_instance(stack, order_id, lambda one: one.state.status == "compensated")
    told = found(stack, "saga", "history", "place_order", order_id)
    (entry,) = [entry for entry in told if entry["actor"]]
    assert (entry["actor"], entry["asked_because"], entry["input_id"]) == ("grace", "ordered twice", done["request_id"])
    again = run(stack, *asking)
    assert again.returncode == 6, again.stdout
    assert "the saga has ended" in again.stderr


def test_several_are_cancelled_by_a_list_each_once(stack: RunningStack, waiting: list[str], tmp_path: Path) -> None:
    """A file names them; a report tells each outcome; asking again finds nothing to do."""
    names = tmp_path / "orders.txt"
    names.write_text("\n".join(waiting[2:]), encoding="utf-8")
    asking = ("saga", "cancel", "place_order", "--file", str(names), "--reason", "the shop closes")
    assert run(stack, *asking).returncode == 6  # nobody is there to be asked
    done = found(stack, *asking, "--yes", "--rate", "50")
    assert [one["outcome"] for one in done] == ["applied"] * (ORDERS - 2)
    for order_id in waiting[2:]:
        await_instance(stack, order_id, lambda one: one.state.status == "compensated")
    assert run(stack, *asking, "--yes").returncode == 5


def test_a_persons_mistakes_are_told(stack: RunningStack, waiting: list[str]) -> None:
    """No reason, no such instance, no such record, everything at once: each ends with a code and a next step."""
    del waiting
    assert run(stack, "saga", "cancel", "place_order", "nobody", "--reason", "why").returncode == 5
    assert run(stack, "saga", "cancel", "place_order", "nobody").returncode == 2
    assert run(stack, "saga", "cancel", "place_order", "--reason", "why").returncode == 2
    assert run(stack, "saga", "signal", "place_order", "order-1", "OrderPlaced").returncode == 5
    assert run(stack, "saga", "signal", "place_order", "order-1", "OrderApproved", "--value", "{").returncode == 2
    for verb in ("retry", "resume", "skip"):
        assert run(stack, "saga", verb, "place_order", "--reason", "why", "--yes").returncode == 5
