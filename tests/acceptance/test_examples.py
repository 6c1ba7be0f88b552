"""The examples, on the whole stack: a plain script and a FastAPI application place orders and await their endings."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import psycopg
import pytest

from pipelines.services.catalog import list_product
from pipelines.services.identity import register_customer
from pipelines.services.identity.rules import Customer
from tests.acceptance.shop import LARGE_CENTS, await_instance, open_shop, waits_for_approval
from tests.stack_fixture import ROOT, RunningStack, free_ports
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.project import worker_names
from towpath.stack.workers import start_workers

WAIT_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop that is open: one customer, one article with three pieces at 9 euros."""

    customer_id: str
    sku: str

    def basket(self, quantity: int, card_token: str = "card-1") -> dict[str, object]:
        """Return what the API takes."""
        lines = [{"sku": self.sku, "quantity": quantity, "unit_price_cents": 900}]
        return {"customer_id": self.customer_id, "card_token": card_token, "lines": lines}


@pytest.fixture
def shop(stack: RunningStack) -> Shop:
    """Start the workers and bring in customer and article, through the services' own doors."""
    settings = stack.settings
    start_workers(settings, stack.client, worker_names(settings))
    codec = load_codec(settings, Catalogue.load(settings))
    shop = Shop(f"customer-{uuid4().hex[:8]}", f"vase-{uuid4().hex[:8]}")
    with psycopg.connect(settings.postgres.database_url("identity")) as connection:
        customer = Customer(shop.customer_id, verified=True, credit_limit_cents=100_000)
        register_customer(connection, codec, customer, "Ann", event_id=uuid4())
    with psycopg.connect(settings.postgres.database_url("catalog")) as connection:
        list_product(connection, codec, sku=shop.sku, name="Vase", unit_price_cents=900, on_hand=3, event_id=uuid4())
    return shop


@pytest.fixture(scope="module")
def api(stack: RunningStack) -> Iterator[httpx.Client]:
    """Serve the shop's API as an operator would, and return a client of it."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "--factory", "examples.shop_api:create_api", "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **stack.environment})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_SECONDS_MAX + 30) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    client.get("/openapi.json")
                    break
                except httpx.TransportError:
                    assert server.poll() is None, "the API did not start"
                    assert time.monotonic() < deadline, "the API does not answer"
                    time.sleep(0.1)
            yield client
    finally:
        server.terminate()
        server.wait(30)


def run_script(stack: RunningStack, shop: Shop, quantity: int) -> "subprocess.CompletedProcess[str]":
    """Run the plain script as a person would."""
    command = [
        sys.executable,
        "-m",
        "examples.place_an_order",
        shop.customer_id,
        "card-1",
        shop.sku,
        str(quantity),
        "900",
    ]
    environment = {**os.environ, **stack.environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_script_places_an_order_and_sees_it_complete(stack: RunningStack, shop: Shop) -> None:
    """It talks to PostgreSQL alone; four services, Debezium, Kafka and the saga do the rest."""
    done = run_script(stack, shop, 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " completed" in done.stdout


def test_a_script_sees_an_order_rejected_with_its_reason(stack: RunningStack, shop: Shop) -> None:
    """There are three vases."""
    done = run_script(stack, shop, 4)
    assert done.returncode == 1, done.stdout + done.stderr
    assert " compensated" in done.stdout


def test_the_api_accepts_an_order_once_and_waits_for_its_ending(api: httpx.Client, shop: Shop) -> None:
    """The same key is the same order, however often the request comes."""
    headers = {"Idempotency-Key": uuid4().hex}
    first, second = (api.post("/orders", json=shop.basket(3), headers=headers) for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    answer = api.get(f"/sagas/{first.json()['saga_id']}", params={"wait_seconds": WAIT_SECONDS_MAX})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["key"]) == ("completed", first.json()["order_id"])


def test_the_api_tells_why_an_order_was_not_fulfilled(api: httpx.Client, shop: Shop) -> None:
    """A declined card, here."""
    accepted = api.post("/orders", json=shop.basket(1, "declined-1"), headers={"Idempotency-Key": uuid4().hex}).json()
    answer = api.get(f"/sagas/{accepted['saga_id']}", params={"wait_seconds": WAIT_SECONDS_MAX}).json()
    assert answer["status"] == "compensated"
    assert "payment" in answer["reason"] or "declined" in answer["reason"]


def test_the_api_knows_nothing_of_a_saga_that_never_was(api: httpx.Client, shop: Shop) -> None:
    """It says so; and of what is no id, that it is none."""
    del shop
    assert api.get(f"/sagas/{uuid4()}").status_code == 404
    assert api.get("/sagas/never").status_code == 422


def test_the_api_refuses_what_no_order_is_called(api: httpx.Client, shop: Shop) -> None:
    """A zero byte, which PostgreSQL does not hold, is a mistake of the request, and no fault of the server."""
    assert api.post("/orders/order%001/approval", json={"approver": "grace"}).status_code == 422
    basket = {**shop.basket(1), "customer_id": "ann\0"}
    assert api.post("/orders", json=basket, headers={"Idempotency-Key": "1"}).status_code == 422


def test_a_clerk_approves_a_large_order_through_the_api(stack: RunningStack, api: httpx.Client) -> None:
    """The route answers once the saga has taken the approval; a later one is refused with the machine's reason."""
    rich = open_shop(stack)
    line = {"sku": rich.sku, "quantity": 1, "unit_price_cents": LARGE_CENTS}
    basket = {"customer_id": rich.customer_id, "card_token": "card-1", "lines": [line]}
    accepted = api.post("/orders", json=basket, headers={"Idempotency-Key": uuid4().hex}).json()
    await_instance(stack, accepted["order_id"], waits_for_approval)
    route = f"/orders/{accepted['order_id']}/approval"
    approved = api.post(route, json={"approver": "grace"})
    assert (approved.status_code, approved.json()["saga_id"]) == (200, accepted["saga_id"])
    ended = api.get(f"/sagas/{accepted['saga_id']}", params={"wait_seconds": WAIT_SECONDS_MAX}).json()
    assert ended["status"] == "completed"
    late = api.post(route, json={"approver": "ada"})
    assert (late.status_code, late.json()["detail"]) == (409, "the saga has ended")
