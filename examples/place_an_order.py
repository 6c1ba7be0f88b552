"""Place one order from a plain script, and wait for how it ends.

python -m examples.place_an_order CUSTOMER CARD SKU QUANTITY UNIT_PRICE_CENTS
"""

import sys
from datetime import UTC, datetime
from uuid import uuid4

import psycopg

from pipelines.services.order import place_order
from schemas.records.order import OrderLine, OrderPlaced
from towpath import Project
from towpath.client import NotEnded, Started


def main(customer_id: str, card_token: str, sku: str, quantity: int, unit_price_cents: int) -> int:
    """Place the order; return 0 if it was confirmed, 1 if it was rejected, 2 if that is not known yet."""
    project = Project.load()
    client = project.client()
    order = OrderPlaced(
        order_id=f"order-{uuid4().hex[:8]}",
        customer_id=customer_id,
        lines=(OrderLine(sku=sku, quantity=quantity, unit_price_cents=unit_price_cents),),
        total_cents=quantity * unit_price_cents,
        currency="EUR",
        card_token=card_token,
        placed_at=datetime.now(UTC),
    )
    started = Started.by("place_order", order.order_id, event_id=uuid4())

    with psycopg.connect(**project.database("order")) as connection:
        place_order(connection, client.codec, order, event_id=started.event_id)
    # Leaving the block committed order and start event together: the saga will run, whatever becomes of this script.

    try:
        standing = client.await_ending(started.saga_id, timeout_seconds=60)
    except NotEnded as error:
        print(error)
        return 2
    print(f"{order.order_id} {standing.status}{f': {standing.reason}' if standing.reason else ''}")
    return 0 if standing.status == "completed" else 1


if __name__ == "__main__":
    customer, card, article, pieces, price = sys.argv[1:]
    sys.exit(main(customer, card, article, int(pieces), int(price)))
