"""identity answers whether a customer may order, and registers customers."""

from collections.abc import Sequence
from uuid import UUID

from pipelines.services.identity import postgres
from pipelines.services.identity.rules import Customer, reason_to_refuse
from pipelines.services.postgres import Connection
from schemas.records.identity import CustomerRefused, CustomerRegistered, CustomerVerified, VerifyCustomer
from towpath.service import Codec, Context, Record, Service, from_record, handle, write


def verify_customers(contexts: Sequence[Context[VerifyCustomer]]) -> list[Record]:
    """Say for each order whether its customer may place it."""
    connection = contexts[0].connection
    known = postgres.customers(connection, (context.command.customer_id for context in contexts))
    replies: list[Record] = []
    for command in (context.command for context in contexts):
        reason = reason_to_refuse(known.get(command.customer_id), command.total_cents)
        replies.append(
            CustomerVerified(order_id=command.order_id, customer_id=command.customer_id)
            if reason is None
            else CustomerRefused(order_id=command.order_id, customer_id=command.customer_id, reason=reason)
        )
    postgres.verifications.append(
        connection,
        [
            (context.idempotency_key, reply.order_id, reply.customer_id)
            for context, reply in zip(contexts, replies, strict=True)
            if isinstance(reply, CustomerVerified)
        ],
    )
    return replies


def register_customer(connection: Connection, codec: Codec, customer: Customer, name: str, *, event_id: UUID) -> None:
    """Add a customer and publish it, in the connection's own transaction."""
    postgres.add_customer(connection, customer, name)
    event = CustomerRegistered(customer_id=customer.customer_id, name=name, verified=customer.verified)
    write(connection, [from_record(codec, "identity.events", customer.customer_id, event, id=event_id)])


service = Service(
    "identity",
    handlers=[handle(VerifyCustomer, verify_customers, succeeds=CustomerVerified, fails=CustomerRefused)],
)
