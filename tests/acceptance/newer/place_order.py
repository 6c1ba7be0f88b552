"""Version 2 of place_order: before an order is confirmed, the customer is verified once more."""

from sagas import catalog, identity, orders, payments
from sagas.place_order import (
    authorise_payment,
    capture_payment,
    confirm_order,
    reject_order,
    release_stock,
    reserve_stock,
    total_is_high,
    verify_customer,
    void_authorisation,
)
from schemas.records.catalog import OutOfStock, StockReleased, StockReserved
from schemas.records.identity import CustomerRefused, CustomerVerified, VerifyCustomer
from schemas.records.order import OrderApproved, OrderConfirmed, OrderDeclined, OrderPlaced, OrderRejected
from schemas.records.payment import AuthorisationVoided, PaymentAuthorised, PaymentCaptured, PaymentDeclined
from towpath.saga import COMPENSATE, NO_EFFECT, Saga, Undo, UndoStart, days, hours, seconds


def verify_again(order: OrderPlaced) -> VerifyCustomer:
    """Ask once more whether this customer may spend that much."""
    return verify_customer(order)


saga = Saga(
    "place_order",
    version=2,
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
again = saga.step(
    identity,
    verify_again,
    after=approval,
    undo=NO_EFFECT,
    succeeds=CustomerVerified,
    fails=CustomerRefused,
    within=seconds(10),
)
confirmed = saga.pivot(orders, confirm_order, after=again, succeeds=OrderConfirmed, within=seconds(10))
saga.retriable(
    payments,
    capture_payment,
    needs=payment,
    after=confirmed,
    succeeds=PaymentCaptured,
    within=seconds(30),
    retry_for=days(2),
)
