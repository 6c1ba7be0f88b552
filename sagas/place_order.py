"""An order is placed: check the customer and reserve the stock, authorise the payment, confirm, capture.

Until it is confirmed, everything can be taken back, and is, if anything fails. Once it is confirmed, the customer's
money is taken for goods that are set aside.
"""

from sagas import catalog, identity, orders, payments
from schemas.records.catalog import OutOfStock, ReleaseStock, ReserveStock, StockLine, StockReleased, StockReserved
from schemas.records.identity import CustomerRefused, CustomerVerified, VerifyCustomer
from schemas.records.order import (
    ConfirmOrder,
    OrderApproved,
    OrderConfirmed,
    OrderDeclined,
    OrderPlaced,
    OrderRejected,
    RejectOrder,
)
from schemas.records.payment import (
    AuthorisationVoided,
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    VoidAuthorisation,
)
from towpath.saga import COMPENSATE, NO_EFFECT, Cause, CauseKind, Saga, Undo, UndoStart, days, hours, seconds

APPROVAL_ABOVE_CENTS = 1_000_00


def verify_customer(order: OrderPlaced) -> VerifyCustomer:
    """Ask whether this customer may spend that much."""
    return VerifyCustomer(
        order_id=order.order_id,
        customer_id=order.customer_id,
        total_cents=order.total_cents,
        currency=order.currency,
    )


def reserve_stock(order: OrderPlaced) -> ReserveStock:
    """Set the ordered pieces aside."""
    lines = tuple(StockLine(sku=line.sku, quantity=line.quantity) for line in order.lines)
    return ReserveStock(order_id=order.order_id, lines=lines)


def release_stock(order: OrderPlaced) -> ReleaseStock:
    """Put back what was set aside."""
    return ReleaseStock(order_id=order.order_id)


def authorise_payment(order: OrderPlaced, customer: CustomerVerified) -> AuthorisePayment:
    """Block the amount on the customer's card."""
    return AuthorisePayment(
        order_id=order.order_id,
        customer_id=customer.customer_id,
        amount_cents=order.total_cents,
        currency=order.currency,
        card_token=order.card_token,
    )


def void_authorisation(order: OrderPlaced) -> VoidAuthorisation:
    """Free the amount on the card."""
    return VoidAuthorisation(order_id=order.order_id)


def total_is_high(order: OrderPlaced) -> bool:
    """Say whether a person must approve the order."""
    return order.total_cents > APPROVAL_ABOVE_CENTS


def confirm_order(order: OrderPlaced) -> ConfirmOrder:
    """Promise the goods to the customer."""
    return ConfirmOrder(order_id=order.order_id)


def capture_payment(order: OrderPlaced, payment: PaymentAuthorised) -> CapturePayment:
    """Take the amount that was authorised."""
    return CapturePayment(
        order_id=order.order_id, authorisation_id=payment.authorisation_id, amount_cents=payment.amount_cents
    )


def reject_order(order: OrderPlaced, cause: Cause) -> RejectOrder:
    """Tell the order service that the order will not be fulfilled, and why."""
    return RejectOrder(order_id=order.order_id, reason=words_for(cause))


def words_for(cause: Cause) -> str:
    """Say in words fit for the customer why an order was not fulfilled."""
    match cause.reply:
        case OutOfStock(sku=sku):
            return f"{sku} is out of stock"
        case CustomerRefused(reason=reason) | PaymentDeclined(reason=reason) | OrderDeclined(reason=reason):
            return reason
        case _ if cause.kind is CauseKind.REFUSED:
            return "the order is too large to be processed"  # a double of it is not rejected: `when_refused` says so
        case _:
            return cause.reason or "the order could not be completed in time"


saga = Saga(
    "place_order",
    version=1,
    starts_on=OrderPlaced,
    undo=UndoStart(reject_order, by=orders, succeeds=OrderRejected, within=seconds(10), when_refused=False),
    deadline=days(4),
)

customer = saga.step(
    identity,
    verify_customer,
    undo=NO_EFFECT,
    succeeds=CustomerVerified,
    fails=CustomerRefused,
    within=seconds(10),
)

stock = saga.step(
    catalog,
    reserve_stock,
    undo=Undo(release_stock, succeeds=StockReleased),
    holds="stock",
    succeeds=StockReserved,
    fails=OutOfStock,
    within=seconds(10),
)

payment = saga.step(
    payments,
    authorise_payment,
    undo=Undo(void_authorisation, succeeds=AuthorisationVoided),
    needs=customer,
    after=stock,
    succeeds=PaymentAuthorised,
    fails=PaymentDeclined,
    within=seconds(30),
    attempts=5,
)

approval = saga.wait(
    "approval",
    after=payment,
    when=total_is_high,
    succeeds=OrderApproved,
    fails=OrderDeclined,
    within=hours(24),
    on_timeout=COMPENSATE,
)

confirmed = saga.pivot(
    orders,
    confirm_order,
    after=approval,
    succeeds=OrderConfirmed,
    within=seconds(10),
)

saga.retriable(
    payments,
    capture_payment,
    needs=payment,
    after=confirmed,
    succeeds=PaymentCaptured,
    within=seconds(30),
    retry_for=days(2),
)
