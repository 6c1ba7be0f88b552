"""The demo of CraftyGoods: opens the shop, lets customers order, decides what is too dear, and reads the books."""

from collections.abc import Collection, Mapping

from pipelines.demo import invariants
from pipelines.demo.postgres import connected, executed_twice, order_facts, payment_facts, stock_facts
from pipelines.demo.traffic import DECLINED_BY_PERSON_SHARE, Shop, basket, event_id, open_shop
from pipelines.services.catalog.service import list_product
from pipelines.services.identity.rules import Customer
from pipelines.services.identity.service import register_customer
from pipelines.services.order import approve_order, decline_order, place_order
from pipelines.services.order.postgres import all_standings
from towpath.clock import Clock, SystemClock
from towpath.demo import Check, Outcome
from towpath.demo.demo import Run
from towpath.orchestrator.sagas_view import SagaInstance
from towpath.settings import Settings

APPROVER = "the shop's floor manager"


class CraftyGoods:
    """A day in the shop."""

    saga = "place_order"

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._shop: Shop | None = None
        self._placed = 0

    def prepare(self, run: Run) -> None:
        """Register the customers and list the products of this run."""
        shop = self._shop = open_shop(run.run_id, run.chance, run.orders)
        self._placed = 0
        with connected(run.settings, "identity") as connection:
            for shopper in shop.shoppers:
                customer = Customer(shopper.customer_id, shopper.verified, shopper.credit_limit_cents)
                register_customer(connection, run.codec, customer, shopper.name, event_id=event_id(shopper.customer_id))
        with connected(run.settings, "catalog") as connection:
            for product in shop.products:
                list_product(
                    connection,
                    run.codec,
                    sku=product.sku,
                    name=product.name,
                    unit_price_cents=product.unit_price_cents,
                    on_hand=product.on_hand,
                    event_id=event_id(product.sku),
                )

    def place(self, run: Run, count: int) -> Collection[str]:
        """Place `count` more orders, each in a transaction of its own."""
        assert self._shop is not None, "prepare comes first"
        keys = []
        with connected(run.settings, "order") as connection:
            for _ in range(count):
                order = basket(self._shop, self._placed, run.chance, self._clock.now())
                place_order(connection, run.codec, order, event_id=event_id(order.order_id))
                connection.commit()
                self._placed += 1
                keys.append(order.order_id)
        return keys

    def decide(self, run: Run, waiting: Collection[SagaInstance]) -> None:
        """Approve most of the orders that wait for it, and decline some."""
        with connected(run.settings, "order") as connection:
            for instance in sorted(waiting, key=lambda one: one.key):
                id_ = event_id(f"decision:{instance.saga_id}")
                if run.chance.random() < DECLINED_BY_PERSON_SHARE:
                    decline_order(
                        connection,
                        run.codec,
                        instance.key,
                        approver=APPROVER,
                        reason="the order needs a deposit first",
                        event_id=id_,
                    )
                else:
                    approve_order(connection, run.codec, instance.key, approver=APPROVER, event_id=id_)

    def placed_keys(self, settings: Settings) -> set[str]:
        """Return the id of every order that was ever accepted."""
        return set(self.outcomes(settings))

    def outcomes(self, settings: Settings) -> Mapping[str, Outcome]:
        """Return how every order stands."""
        with connected(settings, "order") as connection:
            return {
                order_id: Outcome(status, reason) for order_id, (status, reason) in all_standings(connection).items()
            }

    def checks(self, settings: Settings) -> list[Check]:
        """Return whether money and stock are conserved, over all orders that were ever placed."""
        orders, payments, shelves = order_facts(settings), payment_facts(settings), stock_facts(settings)
        return [
            invariants.money(orders, payments.by_order, payments.unbalanced),
            invariants.stock(orders, shelves.by_order, shelves.by_article, shelves.unbalanced),
        ]

    def executed_twice(self, settings: Settings) -> int:
        """Return how many commands had a second effect."""
        return executed_twice(settings)
