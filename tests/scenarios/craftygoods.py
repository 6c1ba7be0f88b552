"""What the scenarios of CraftyGoods say to its sagas: one order, one cancellation, and the answers to them."""

from datetime import UTC, datetime

from schemas.records.catalog import (
    ItemsRestocked,
    OutOfStock,
    ReleaseStock,
    ReserveStock,
    RestockItems,
    StockLine,
    StockReleased,
    StockReserved,
)
from schemas.records.identity import CustomerRefused, CustomerVerified, VerifyCustomer
from schemas.records.order import (
    BeginCancellation,
    CancellationBegun,
    CancellationRefused,
    CompleteCancellation,
    ConfirmOrder,
    OrderApproved,
    OrderCancellationRequested,
    OrderCancelled,
    OrderConfirmed,
    OrderDeclined,
    OrderLine,
    OrderPlaced,
    OrderRejected,
    OrderResumed,
    RejectOrder,
    ResumeOrder,
)
from schemas.records.payment import (
    AuthorisationVoided,
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    RefundPayment,
    RefundRefused,
    VoidAuthorisation,
)

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
LINES = (OrderLine(sku="mug", quantity=2, unit_price_cents=1_250),)
STOCK_LINES = (StockLine(sku="mug", quantity=2),)

SMALL = OrderPlaced(
    order_id="o1", customer_id="c1", lines=LINES, total_cents=2_500, currency="EUR", card_token="tok", placed_at=AT
)
LARGE = OrderPlaced(
    order_id="o1",
    customer_id="c1",
    lines=(OrderLine(sku="mug", quantity=2, unit_price_cents=60_000),),
    total_cents=120_000,
    currency="EUR",
    card_token="tok",
    placed_at=AT,
)

VERIFY = VerifyCustomer(order_id="o1", customer_id="c1", total_cents=2_500, currency="EUR")
VERIFY_LARGE = VerifyCustomer(order_id="o1", customer_id="c1", total_cents=120_000, currency="EUR")
VERIFIED = CustomerVerified(order_id="o1", customer_id="c1")
NOT_VERIFIED = CustomerRefused(order_id="o1", customer_id="c1", reason="the customer is not known")
RESERVE = ReserveStock(order_id="o1", lines=STOCK_LINES)
RESERVED = StockReserved(order_id="o1", reservation_id="r1")
OUT_OF_STOCK = OutOfStock(order_id="o1", sku="mug", requested=2, available=1)
RELEASE = ReleaseStock(order_id="o1")
RELEASED = StockReleased(order_id="o1")
AUTHORISE = AuthorisePayment(order_id="o1", customer_id="c1", amount_cents=2_500, currency="EUR", card_token="tok")
AUTHORISE_LARGE = AuthorisePayment(
    order_id="o1", customer_id="c1", amount_cents=120_000, currency="EUR", card_token="tok"
)
AUTHORISED = PaymentAuthorised(order_id="o1", authorisation_id="a1", amount_cents=2_500)
AUTHORISED_LARGE = PaymentAuthorised(order_id="o1", authorisation_id="a1", amount_cents=120_000)
DECLINED = PaymentDeclined(order_id="o1", reason="the card has expired")
VOID = VoidAuthorisation(order_id="o1")
VOIDED = AuthorisationVoided(order_id="o1")
APPROVED = OrderApproved(order_id="o1", approver="grace")
NOT_APPROVED = OrderDeclined(order_id="o1", approver="grace", reason="too much for a first order")
CONFIRM = ConfirmOrder(order_id="o1")
CONFIRMED = OrderConfirmed(order_id="o1", confirmed_at=AT)
CAPTURE = CapturePayment(order_id="o1", authorisation_id="a1", amount_cents=2_500)
CAPTURE_LARGE = CapturePayment(order_id="o1", authorisation_id="a1", amount_cents=120_000)
CAPTURED = PaymentCaptured(order_id="o1", capture_id="p1", amount_cents=2_500)
REJECTED = OrderRejected(order_id="o1", reason="", rejected_at=AT)


def reject(reason: str) -> RejectOrder:
    """Return the command that rejects the order for that reason."""
    return RejectOrder(order_id="o1", reason=reason)


CANCELLATION = OrderCancellationRequested(
    order_id="o1",
    customer_id="c1",
    reason="ordered twice",
    requested_by="customer",
    lines=LINES,
    total_cents=2_500,
    refund_cents=2_000,
    currency="EUR",
    authorisation_id="a1",
)
HOLD = BeginCancellation(order_id="o1", reason="ordered twice")
HELD = CancellationBegun(order_id="o1")
NOT_HELD = CancellationRefused(order_id="o1", reason="the parcel has left")
RESUME = ResumeOrder(order_id="o1")
RESUMED = OrderResumed(order_id="o1")
REFUND = RefundPayment(order_id="o1", authorisation_id="a1", amount_cents=2_000, reason="ordered twice")
REFUNDED = PaymentRefunded(order_id="o1", refund_id="f1", amount_cents=2_000)
NOT_REFUNDED = RefundRefused(order_id="o1", reason="the card is closed")
RESTOCK = RestockItems(order_id="o1", lines=STOCK_LINES)
RESTOCKED = ItemsRestocked(order_id="o1")
COMPLETE = CompleteCancellation(order_id="o1")
CANCELLED = OrderCancelled(order_id="o1", refunded_cents=2_000, cancelled_at=AT)
