"""payment blocks, takes and gives back money. A card network would be asked under `context.idempotency_key`."""

from schemas.records.payment import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    PaymentVoided,
    RefundPayment,
    VoidPayment,
)
from towpath.service import Context, Service, handle_each, undo_each

_MOVE = "UPDATE payment SET status = %s WHERE trip_id = %s AND status = %s"


def authorise_payment(
    command: AuthorisePayment, context: Context[AuthorisePayment]
) -> PaymentAuthorised | PaymentDeclined:
    """Block the amount, unless the card is one that is always declined."""
    if command.card == "card-declined":
        return PaymentDeclined(trip_id=command.trip_id, reason="the card was declined")
    context.connection.execute(
        "INSERT INTO payment (trip_id, amount_cents) VALUES (%s, %s)", (command.trip_id, command.amount_cents)
    )
    return PaymentAuthorised(trip_id=command.trip_id, amount_cents=command.amount_cents)


def void_payment(command: VoidPayment, context: Context[VoidPayment]) -> PaymentVoided:
    """Free the amount; where none was blocked, there is nothing to do."""
    context.connection.execute(_MOVE, ("voided", command.trip_id, "authorised"))
    return PaymentVoided(trip_id=command.trip_id)


def capture_payment(command: CapturePayment, context: Context[CapturePayment]) -> PaymentCaptured:
    """Take what was blocked."""
    context.connection.execute(_MOVE, ("captured", command.trip_id, "authorised"))
    return PaymentCaptured(trip_id=command.trip_id)


def refund_payment(command: RefundPayment, context: Context[RefundPayment]) -> PaymentRefunded:
    """Give back what was taken."""
    context.connection.execute(_MOVE, ("refunded", command.trip_id, "captured"))
    return PaymentRefunded(trip_id=command.trip_id)


service = Service(
    "payment",
    handlers=[
        handle_each(AuthorisePayment, authorise_payment, succeeds=PaymentAuthorised, fails=PaymentDeclined),
        undo_each(VoidPayment, void_payment, of=AuthorisePayment, succeeds=PaymentVoided),
        handle_each(CapturePayment, capture_payment, succeeds=PaymentCaptured),
        handle_each(RefundPayment, refund_payment, succeeds=PaymentRefunded),
    ],
)
