"""payment authorises, voids, captures and refunds, against a card network.

The one rule: ask the network first, under the command's idempotency key, then write. A crash in between asks again.
"""

from collections.abc import Sequence
from uuid import UUID

from pipelines.services.payment import postgres
from pipelines.services.payment.card_network import CardNetwork, ChangeRequest, HoldRequest
from pipelines.services.payment.card_network.postgres import PostgresCardNetwork
from pipelines.services.payment.rules import check_capture, reason_to_refuse_refund
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
from towpath.service import Context, Record, Service, handle, undo


def authorise_payments(contexts: Sequence[Context[AuthorisePayment]]) -> list[Record]:
    """Block the amounts on the customers' cards."""
    network: CardNetwork = contexts[0].outside
    declined = network.authorise(
        [
            HoldRequest(one.idempotency_key, one.command.card_token, one.command.amount_cents, one.command.currency)
            for one in contexts
        ]
    )
    held = [one for one in contexts if declined[one.idempotency_key] is None]
    connection = contexts[0].connection
    postgres.authorisations.append(
        connection,
        [
            (
                one.command.order_id,
                one.idempotency_key,
                str(one.idempotency_key),
                one.command.customer_id,
                one.command.amount_cents,
                one.command.currency,
            )
            for one in held
        ],
    )
    postgres.movements.append(
        connection,
        [(one.idempotency_key, one.command.order_id, "authorised", one.command.amount_cents) for one in held],
    )
    return [_authorised_or_declined(one, declined[one.idempotency_key]) for one in contexts]


def _authorised_or_declined(context: Context[AuthorisePayment], reason: str | None) -> Record:
    command = context.command
    if reason is not None:
        return PaymentDeclined(order_id=command.order_id, reason=reason)
    reply = PaymentAuthorised(
        order_id=command.order_id,
        authorisation_id=str(context.idempotency_key),
        amount_cents=command.amount_cents,
    )
    context.emit(reply, key=command.order_id)
    return reply


def void_authorisations(contexts: Sequence[Context[VoidAuthorisation]]) -> list[Record]:
    """Free the amounts.

    The network is asked whatever our books say: the authorisation may have reached it and never our database.
    """
    network: CardNetwork = contexts[0].outside
    network.void([ChangeRequest(one.idempotency_key, one.undoes) for one in contexts if one.undoes is not None])
    connection = contexts[0].connection
    voided: list[tuple[UUID, str, str, int]] = []
    replies: list[Record] = []
    for one in contexts:
        reply = AuthorisationVoided(order_id=one.command.order_id)
        replies.append(reply)
        if isinstance(one.do_reply, PaymentAuthorised):
            voided.append((one.idempotency_key, one.command.order_id, "voided", one.do_reply.amount_cents))
            one.emit(reply, key=one.command.order_id)
    postgres.mark_voided(connection, [order_id for _, order_id, _, _ in voided])
    postgres.movements.append(connection, voided)
    return replies


def capture_payments(contexts: Sequence[Context[CapturePayment]]) -> list[Record]:
    """Take what was authorised. Raises ImpossiblePayment where nothing was."""
    connection = contexts[0].connection
    known = postgres.lock_authorisations(connection, [one.command.order_id for one in contexts])
    for command in (one.command for one in contexts):
        authorisation = known.get(command.order_id)
        check_capture(authorisation, command.order_id, command.authorisation_id, command.amount_cents)
    network: CardNetwork = contexts[0].outside
    network.capture(
        [
            ChangeRequest(one.idempotency_key, known[one.command.order_id].hold_key, one.command.amount_cents)
            for one in contexts
        ]
    )
    postgres.add_captured(connection, [(one.command.order_id, one.command.amount_cents) for one in contexts])
    postgres.movements.append(
        connection,
        [(one.idempotency_key, one.command.order_id, "captured", one.command.amount_cents) for one in contexts],
    )
    replies: list[Record] = []
    for one in contexts:
        reply = PaymentCaptured(
            order_id=one.command.order_id,
            capture_id=str(one.idempotency_key),
            amount_cents=one.command.amount_cents,
        )
        one.emit(reply, key=one.command.order_id)
        replies.append(reply)
    return replies


def refund_payments(contexts: Sequence[Context[RefundPayment]]) -> list[Record]:
    """Give money back, where so much was taken and not given back yet."""
    connection = contexts[0].connection
    known = postgres.lock_authorisations(connection, [one.command.order_id for one in contexts])
    replies: list[Record] = []
    granted: list[Context[RefundPayment]] = []
    for one in contexts:
        command = one.command
        reason = reason_to_refuse_refund(known.get(command.order_id), command.authorisation_id, command.amount_cents)
        if reason is not None:
            replies.append(RefundRefused(order_id=command.order_id, reason=reason))
            continue
        granted.append(one)
        reply = PaymentRefunded(
            order_id=command.order_id, refund_id=str(one.idempotency_key), amount_cents=command.amount_cents
        )
        one.emit(reply, key=command.order_id)
        replies.append(reply)
    network: CardNetwork = contexts[0].outside
    network.refund(
        [
            ChangeRequest(one.idempotency_key, known[one.command.order_id].hold_key, one.command.amount_cents)
            for one in granted
        ]
    )
    postgres.add_refunded(connection, [(one.command.order_id, one.command.amount_cents) for one in granted])
    postgres.movements.append(
        connection,
        [(one.idempotency_key, one.command.order_id, "refunded", one.command.amount_cents) for one in granted],
    )
    return replies


service = Service(
    "payment",
    handlers=[
        handle(AuthorisePayment, authorise_payments, succeeds=PaymentAuthorised, fails=PaymentDeclined),
        undo(VoidAuthorisation, void_authorisations, of=AuthorisePayment, succeeds=AuthorisationVoided),
        handle(CapturePayment, capture_payments, succeeds=PaymentCaptured),
        handle(RefundPayment, refund_payments, succeeds=PaymentRefunded, fails=RefundRefused),
    ],
    opens=PostgresCardNetwork.open,
)
