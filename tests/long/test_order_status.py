"""`order_status` in a new version, built from 200,000 events while orders flow: the long form of test_views.py."""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial

import psycopg
import pytest

from schemas.records.order import OrderConfirmed, OrderLine, OrderPlaced
from tests.integration.stack.test_views import flowing, views, worker
from tests.long.stacks import another_stack
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.orchestrator.envelope import headers_of
from towpath.stream.broker.kafka import KafkaBroker

EVENTS = 200_000
REASON = ("--reason", "a test", "--yes", "--json")
SECONDS_MAX = 900
VIEWS = ["pipelines.views.order_status:view", "tests.long.order_status_v2:view"]
EVENTS_PER_TRANSACTION = 5_000


def send(stack: RunningStack, orders: int, *, customer: str) -> None:
    """Place and confirm orders of a customer, straight into the topic: no saga runs on this stack."""
    codec = load_codec(stack.settings, Catalogue.load(stack.settings), ["order.events"])
    producer = KafkaBroker(stack.settings.kafka, stack.settings.stream).producer("test-order-status")
    producer.start()
    now = datetime.now(UTC)
    try:
        for begin in range(0, orders, EVENTS_PER_TRANSACTION):
            producer.begin()
            for _ in range(begin, min(begin + EVENTS_PER_TRANSACTION, orders)):
                order_id = str(uuid.uuid4())
                placed = OrderPlaced(
                    order_id=order_id,
                    customer_id=customer,
                    lines=(OrderLine(sku="none", quantity=1, unit_price_cents=100),),
                    total_cents=100,
                    currency="EUR",
                    card_token="card",
                    placed_at=now,
                )
                for event in (placed, OrderConfirmed(order_id=order_id, confirmed_at=now)):
                    headers = headers_of(id=str(uuid.uuid4()), type=event.SCHEMA_NAME)
                    producer.produce("order.events", codec.encode(event), key=order_id.encode(), headers=headers)
            producer.commit({}, None)
    finally:
        producer.close()


@contextmanager
def reading(url: str, customer: str, orders: int) -> Iterator[list[str]]:
    """Poll the view by its stable name all the while; yield what was missing or torn, and last how often it looked."""
    wrong: list[str] = []
    looks = 0
    stopped = threading.Event()

    def poll() -> None:
        nonlocal looks
        query = (
            "SELECT count(*), count(*) FILTER (WHERE status <> 'confirmed' OR total_cents <> 100)"
            " FROM order_status WHERE customer_id = %s"
        )
        with psycopg.connect(url, autocommit=True) as connection:
            while not stopped.wait(0.02):
                try:
                    ((count, torn),) = connection.execute(query, (customer,)).fetchall()
                except psycopg.Error as error:
                    wrong.append(str(error))
                    return
                looks += 1
                if (count, torn) != (orders, 0):
                    wrong.append(f"{count} of {orders} rows, {torn} torn")

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield wrong
    finally:
        stopped.set()
        thread.join()
    assert looks > 50, wrong


def test_order_status_is_rebuilt_from_200000_events_while_orders_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built, compared, promoted and taken back; who polls the stable name sees no row missing or torn."""
    monkeypatch.setenv("TOWPATH_PROJECT__VIEWS", json.dumps(VIEWS))
    monkeypatch.chdir(ROOT)
    customer, orders = f"customer-{uuid.uuid4().hex[:8]}", EVENTS // 2
    with ExitStack() as running:
        # A stack of its own: no saga is to begin on a hundred thousand orders, now or in a later test.
        stack = running.enter_context(another_stack())
        running.enter_context(variables(stack.environment))
        environment = {**os.environ, **stack.environment}
        url = stack.settings.postgres.database_url("views")
        running.enter_context(worker(stack, "view:order_status", environment))
        send(stack, orders, customer=customer)
        query = "SELECT count(*) FROM order_status WHERE customer_id = %s AND status = 'confirmed'"
        deadline = time.monotonic() + SECONDS_MAX
        with psycopg.connect(url, autocommit=True) as connection:
            while connection.execute(query, (customer,)).fetchall() != [(orders,)]:
                assert time.monotonic() < deadline
                time.sleep(1)
        flow = partial(send, stack, 50, customer="somebody")
        with reading(url, customer, orders) as wrong, flowing(flow, every_seconds=0.5):
            assert views("build", "order_status", "--version", "2", "--json")["rows"] >= orders
            running.enter_context(worker(stack, "view:order_status@2", environment))
            for verb in ("promote", "rollback", "promote"):
                time.sleep(3)
                done = views(verb, "order_status", *REASON, "--timeout", "120")
                assert (done["done"], done["action"]) == (True, verb)
                compared = views("diff", "order_status", "--old", "1", "--new", "2", "--json")
                assert compared["same"], compared
                assert compared["columns_only_new"] == ["events"]
                assert compared["equal"] >= orders
            assert views("rollback", "order_status", *REASON, "--timeout", "120")["done"]
        assert wrong == []
