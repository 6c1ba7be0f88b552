"""Keeps products, shelves and reservations."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from pipelines.services.catalog.rules import Shelf
from pipelines.services.postgres import Connection, Table

reservations = Table("reservation", {"order_id": "text", "reservation_id": "uuid"})
reservation_lines = Table("reservation_line", {"order_id": "text", "sku": "text", "quantity": "int8"})
movements = Table("stock_movement", {"idempotency_key": "uuid", "order_id": "text", "sku": "text", "pieces": "int8"})


def add_product(
    connection: Connection, sku: str, name: str, unit_price_cents: int, currency: str, on_hand: int
) -> None:
    """Add a product."""
    connection.execute(
        "INSERT INTO product (sku, name, unit_price_cents, currency, on_hand) VALUES (%s, %s, %s, %s, %s)",
        (sku, name, unit_price_cents, currency, on_hand),
    )


def lock_shelves(connection: Connection, skus: Iterable[str]) -> dict[str, Shelf]:
    """Return those of the shelves `skus` that exist, locked.

    In one order for everybody: two workers that lock several shelves never wait for each other in a circle.
    """
    rows = connection.execute(
        "SELECT sku, on_hand, reserved FROM product WHERE sku = ANY(%s) ORDER BY sku FOR UPDATE", (list(set(skus)),)
    )
    return {row[0]: Shelf(*row) for row in rows}


def save_shelves(connection: Connection, shelves: Collection[Shelf]) -> None:
    """Write what is promised of each shelf."""
    if shelves:
        connection.execute(
            "UPDATE product SET reserved = new.reserved FROM unnest(%s::text[], %s::bigint[]) AS new (sku, reserved)"
            " WHERE product.sku = new.sku",
            ([shelf.sku for shelf in shelves], [shelf.reserved for shelf in shelves]),
        )


def promised(connection: Connection, orders: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the pieces, by article, that are still promised to each of `orders`; their reservations are locked."""
    rows = connection.execute(
        "SELECT order_id, sku, quantity - restocked FROM reservation JOIN reservation_line USING (order_id)"
        " WHERE order_id = ANY(%s) AND NOT released AND quantity > restocked ORDER BY order_id, sku FOR UPDATE",
        (list(orders),),
    )
    found: dict[str, dict[str, int]] = {}
    for order_id, sku, quantity in rows:
        found.setdefault(order_id, {})[sku] = quantity
    return found


def mark_released(connection: Connection, orders: Sequence[str]) -> None:
    """Write that nothing is promised to `orders` any more."""
    connection.execute("UPDATE reservation SET released = true WHERE order_id = ANY(%s)", (list(orders),))


def add_restocked(connection: Connection, returned: Mapping[str, Mapping[str, int]]) -> None:
    """Write which pieces of which order came back."""
    rows = [(order, sku, n) for order, lines in returned.items() for sku, n in lines.items()]
    if rows:
        orders, skus, counts = (list(column) for column in zip(*rows, strict=True))
        connection.execute(
            "UPDATE reservation_line AS line SET restocked = restocked + new.pieces"
            " FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS new (order_id, sku, pieces)"
            " WHERE line.order_id = new.order_id AND line.sku = new.sku",
            (orders, skus, counts),
        )


def executed_twice(connection: Connection) -> int:
    """Return how many commands had a second effect."""
    found = connection.execute(
        "SELECT count(*) FROM (SELECT idempotency_key FROM stock_movement GROUP BY idempotency_key, sku"
        " HAVING count(*) > 1) AS twice"
    ).fetchone()
    return int(found[0]) if found else 0


def unbalanced(connection: Connection) -> list[str]:
    """Return the articles whose promised pieces are not what reservations and movements both add up to."""
    rows = connection.execute("""
        SELECT sku FROM product
        LEFT JOIN (
          SELECT sku, sum(quantity - restocked) AS pieces FROM reservation_line JOIN reservation USING (order_id)
          WHERE NOT released GROUP BY sku) AS held USING (sku)
        LEFT JOIN (SELECT sku, sum(pieces) AS pieces FROM stock_movement GROUP BY sku) AS moved USING (sku)
        WHERE reserved <> coalesce(held.pieces, 0) OR reserved <> coalesce(moved.pieces, 0) ORDER BY sku""")
    return [sku for (sku,) in rows]
