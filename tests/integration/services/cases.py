"""What CraftyGoods' services are asked when they are held to the participant's contract."""

from typing import Any

from pipelines.services.catalog.postgres import add_product
from pipelines.services.identity.postgres import add_customer
from pipelines.services.identity.rules import Customer
from schemas.records.catalog import ItemsRestocked, OutOfStock, ReserveStock, RestockItems, StockLine, StockReserved
from schemas.records.identity import CustomerRefused, CustomerVerified, VerifyCustomer
from schemas.records.order import (
    BeginCancellation,
    CancellationBegun,
    CancellationRefused,
    CompleteCancellation,
    ConfirmOrder,
    OrderCancelled,
    OrderConfirmed,
    OrderRejected,
    RejectOrder,
)
from schemas.records.payment import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    RefundPayment,
    RefundRefused,
)
from towpath.testing import Asking, Case


def lines(**pieces: int) -> tuple[StockLine, ...]:
    """Return the lines of an order: how many pieces of each article."""
    return tuple(StockLine(sku=sku, quantity=quantity) for sku, quantity in pieces.items())


# --- catalog


def shelves(connection: Any) -> None:
    """Put two articles on the shelves."""
    add_product(connection, "mug", "Mug", 450, "EUR", 10)
    add_product(connection, "vase", "Vase", 900, "EUR", 3)


RESERVE = ReserveStock(order_id="o-1", lines=lines(mug=2))
CATALOG = (
    Case(RESERVE, replies=StockReserved),
    Case(ReserveStock(order_id="o-2", lines=lines(mug=1, vase=2)), replies=StockReserved),
    Case(ReserveStock(order_id="o-3", lines=lines(mug=1, vase=4)), replies=OutOfStock),
    Case(RestockItems(order_id="o-1", lines=lines(mug=1)), after=(RESERVE,), replies=ItemsRestocked),
)
PROMISED = "SELECT sku, on_hand, reserved FROM product ORDER BY sku"

# --- identity


def customers(connection: Any) -> None:
    """Register a customer who may order."""
    add_customer(connection, Customer("c-1", verified=True, credit_limit_cents=10_000), "Ada")


def verify(order_id: str, customer_id: str, cents: int) -> VerifyCustomer:
    """Return the command that asks whether a customer may order for so much."""
    return VerifyCustomer(order_id=order_id, customer_id=customer_id, total_cents=cents, currency="EUR")


IDENTITY = (
    Case(verify("o-1", "c-1", 900), replies=CustomerVerified),
    Case(verify("o-2", "c-1", 20_000), replies=CustomerRefused),
    Case(verify("o-3", "nobody", 900), replies=CustomerRefused),
)

# --- order


def orders(connection: Any) -> None:
    """Put orders into the book: two just placed, two confirmed ones of which one is to be cancelled."""
    for order_id, status, refund_cents in (
        ("o-1", "placed", None), ("o-2", "placed", None), ("o-3", "confirmed", 900), ("o-4", "confirmed", None),
    ):  # fmt: skip
        connection.execute(
            "INSERT INTO customer_order (order_id, customer_id, total_cents, currency, status, placed_at, changed_at,"
            " refund_cents) VALUES (%s, 'c-1', 900, 'EUR', %s, '2026-01-01', '2026-01-01', %s)",
            (order_id, status, refund_cents),
        )


BEGIN = BeginCancellation(order_id="o-3", reason="ordered twice")
ORDER = (
    Case(ConfirmOrder(order_id="o-1"), replies=OrderConfirmed),
    Case(ConfirmOrder(order_id="o-2"), replies=OrderConfirmed),
    Case(RejectOrder(order_id="o-1", reason="out of stock"), replies=OrderRejected),
    Case(BEGIN, replies=CancellationBegun),
    Case(BeginCancellation(order_id="o-4", reason="ordered twice"), replies=CancellationRefused),
    Case(CompleteCancellation(order_id="o-3"), after=(BEGIN,), replies=OrderCancelled),
)
STATUSES = "SELECT order_id, status FROM customer_order ORDER BY order_id"

# --- payment


def authorise(order_id: str, card: str = "card-1") -> AuthorisePayment:
    """Return the command that blocks nine euros."""
    return AuthorisePayment(order_id=order_id, customer_id="c-1", amount_cents=900, currency="EUR", card_token=card)


def hold(order_id: str) -> str:
    """Return the id of the authorisation that `authorise` comes to."""
    asking = Asking(authorise(order_id), key=order_id, step=AuthorisePayment.__name__)
    return str(asking.idempotency_key)


def capture(order_id: str) -> CapturePayment:
    """Return the command that takes them."""
    return CapturePayment(order_id=order_id, authorisation_id=hold(order_id), amount_cents=900)


def refund(order_id: str, cents: int) -> RefundPayment:
    """Return the command that gives some of them back."""
    return RefundPayment(order_id=order_id, authorisation_id=hold(order_id), amount_cents=cents, reason="ordered twice")


TAKEN = (authorise("o-1"), capture("o-1"))
PAYMENT = (
    Case(authorise("o-1"), replies=PaymentAuthorised),
    Case(authorise("o-2", card="declined-1"), replies=PaymentDeclined),
    Case(capture("o-1"), after=(authorise("o-1"),), replies=PaymentCaptured),
    Case(refund("o-1", 400), after=TAKEN, replies=PaymentRefunded),
    Case(refund("o-1", 901), after=TAKEN, replies=RefundRefused),
)
BLOCKED = (
    "SELECT coalesce(sum(amount_cents), 0) FROM card_network.hold WHERE NOT voided",
    "SELECT coalesce(sum(amount_cents), 0) FROM authorisation WHERE NOT voided",
)
# What the network keeps of the requests themselves is its own: it counts those that come again, and refusals too.
OUTSIDE = ("card_network.request",)
