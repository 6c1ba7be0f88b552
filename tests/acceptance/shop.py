"""A shop with one rich customer and one dear article, on the running stack; orders of it wait for an approval."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import psycopg

from pipelines.services.catalog import list_product
from pipelines.services.identity import register_customer
from pipelines.services.identity.rules import Customer
from pipelines.services.order import place_order
from schemas.records.order import OrderLine, OrderPlaced
from tests.stack_fixture import RunningStack
from towpath.cli.saga_instances import read_instances
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.orchestrator.instance_status import KeptInstance
from towpath.project import worker_names
from towpath.stack.workers import start_workers

WAIT_SECONDS_MAX = 60.0
LARGE_CENTS = 1_500_00
"""Above the limit from which on a person must approve."""
SMALL_CENTS = 15_00
"""Below it."""


@dataclass(frozen=True, slots=True)
class Shop:
    """One customer and one article, of which there are plenty."""

    stack: RunningStack
    customer_id: str
    sku: str

    def place(self, order_id: str, unit_price_cents: int = LARGE_CENTS) -> None:
        """Place an order of one piece, through the order service's own function."""
        self.place_many([order_id], unit_price_cents)

    def place_many(self, order_ids: Sequence[str], unit_price_cents: int) -> None:
        """Place orders of one piece each, in one transaction."""
        settings = self.stack.settings
        codec = load_codec(settings, Catalogue.load(settings), ["order.events"])
        with psycopg.connect(settings.postgres.database_url("order")) as connection:
            for order_id in order_ids:
                order = OrderPlaced(
                    order_id=order_id,
                    customer_id=self.customer_id,
                    lines=(OrderLine(sku=self.sku, quantity=1, unit_price_cents=unit_price_cents),),
                    total_cents=unit_price_cents,
                    currency="EUR",
                    card_token="card-1",
                    placed_at=datetime.now(UTC),
                )
                place_order(connection, codec, order, event_id=uuid4())


def open_shop(stack: RunningStack, *, on_hand: int = 90) -> Shop:
    """Start all workers, and bring in customer and article through the services' own functions."""
    settings = stack.settings
    start_workers(settings, stack.client, worker_names(settings))
    codec = load_codec(settings, Catalogue.load(settings))
    shop = Shop(stack, f"customer-{uuid4().hex[:8]}", f"clock-{uuid4().hex[:8]}")
    with psycopg.connect(settings.postgres.database_url("identity")) as connection:
        rich = Customer(shop.customer_id, verified=True, credit_limit_cents=100_000_00)
        register_customer(connection, codec, rich, "Ann", event_id=uuid4())
    with psycopg.connect(settings.postgres.database_url("catalog")) as connection:
        list_product(
            connection,
            codec,
            sku=shop.sku,
            name="Clock",
            unit_price_cents=LARGE_CENTS,
            on_hand=on_hand,
            event_id=uuid4(),
        )
    return shop


def instance(stack: RunningStack, order_id: str) -> KeptInstance | None:
    """Return how the order's instance stands, None where there is none yet."""
    listed = read_instances(stack.settings, "place_order")
    return next((one for one in listed if one.state.key == order_id), None)


def await_instance(stack: RunningStack, order_id: str, condition: Callable[[KeptInstance], bool]) -> KeptInstance:
    """Wait until an order's instance is as it should be."""
    (one,) = await_instances(stack, [order_id], condition)
    return one


def await_instances(
    stack: RunningStack,
    order_ids: Sequence[str],
    condition: Callable[[KeptInstance], bool],
    seconds_max: float = WAIT_SECONDS_MAX,
) -> list[KeptInstance]:
    """Wait until each order's instance is as it should be; return them in the order of the orders."""
    deadline = time.monotonic() + seconds_max
    while True:
        listed = {one.state.key: one for one in read_instances(stack.settings, "place_order")}
        found = [listed.get(order_id) for order_id in order_ids]
        fitting = [one for one in found if one is not None and condition(one)]
        if len(fitting) == len(order_ids):
            return fitting
        assert time.monotonic() < deadline, f"{len(fitting)} of {len(order_ids)} are as they should be: {found[:3]}"
        time.sleep(0.5)


def waits_for_approval(one: KeptInstance) -> bool:
    """Say whether an order waits for a person."""
    return "approval waiting" in one.under_way
