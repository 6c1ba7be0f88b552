"""catalog reserves stock for orders, releases it, takes pieces back, and lists products."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from pipelines.services.catalog import postgres
from pipelines.services.catalog.rules import Shelf, Shortage, give_back, pieces, reserve, restockable
from pipelines.services.postgres import Connection
from schemas.records.catalog import (
    ItemsRestocked,
    OutOfStock,
    ProductListed,
    ReleaseStock,
    ReserveStock,
    RestockItems,
    StockLevelChanged,
    StockReleased,
    StockReserved,
)
from towpath.service import Codec, Context, Record, Service, from_record, handle, undo, write


def reserve_stock(contexts: Sequence[Context[ReserveStock]]) -> list[Record]:
    """Set aside what each order asks for, all of it or nothing."""
    connection = contexts[0].connection
    wanted = [pieces(context.command.lines) for context in contexts]
    shelves = _Shelves(connection, {sku for one in wanted for sku in one})
    replies: list[Record] = []
    made: list[tuple[Context[ReserveStock], dict[str, int]]] = []
    for context, one in zip(contexts, wanted, strict=True):
        order_id = context.command.order_id
        outcome = reserve(shelves.now, one)
        if isinstance(outcome, Shortage):
            replies.append(
                OutOfStock(order_id=order_id, sku=outcome.sku, requested=outcome.requested, available=outcome.available)
            )
            continue
        shelves.change(context, outcome)
        made.append((context, one))
        replies.append(StockReserved(order_id=order_id, reservation_id=str(context.idempotency_key)))
    postgres.reservations.append(
        connection, [(context.command.order_id, context.idempotency_key) for context, _ in made]
    )
    postgres.reservation_lines.append(
        connection, [(context.command.order_id, sku, n) for context, one in made for sku, n in one.items()]
    )
    _move(connection, made, takes=True)
    shelves.save()
    return replies


def release_stock(contexts: Sequence[Context[ReleaseStock]]) -> list[Record]:
    """Make available again what was set aside, of orders that have something set aside."""
    done = [context for context in contexts if context.do_reply is not None]
    _return_pieces(done, lambda promised, _: promised)
    if done:
        postgres.mark_released(done[0].connection, [context.command.order_id for context in done])
    return [StockReleased(order_id=context.command.order_id) for context in contexts]


def restock_items(contexts: Sequence[Context[RestockItems]]) -> list[Record]:
    """Take back pieces of cancelled orders."""
    returned = _return_pieces(contexts, lambda promised, context: restockable(promised, context.command.lines))
    postgres.add_restocked(contexts[0].connection, returned)
    return [ItemsRestocked(order_id=context.command.order_id) for context in contexts]


def list_product(
    connection: Connection,
    codec: Codec,
    *,
    sku: str,
    name: str,
    unit_price_cents: int,
    on_hand: int,
    event_id: UUID,
    currency: str = "EUR",
) -> None:
    """Add a product with its stock and publish it, in the connection's own transaction."""
    postgres.add_product(connection, sku, name, unit_price_cents, currency, on_hand)
    event = ProductListed(sku=sku, name=name, unit_price_cents=unit_price_cents, currency=currency, on_hand=on_hand)
    write(connection, [from_record(codec, "catalog.events", sku, event, id=event_id)])


def _return_pieces(
    contexts: Sequence[Context[Any]], choose: Callable[[dict[str, int], Context[Any]], dict[str, int]]
) -> dict[str, dict[str, int]]:
    """Give back what `choose` chooses of what is promised to each order, and return it by order."""
    if not contexts:
        return {}
    connection = contexts[0].connection
    promised = postgres.promised(connection, [context.command.order_id for context in contexts])
    made = [
        (context, choose(promised[context.command.order_id], context))
        for context in contexts
        if context.command.order_id in promised
    ]
    shelves = _Shelves(connection, {sku for _, one in made for sku in one})
    for context, one in made:
        shelves.change(context, give_back(shelves.now, one))
    _move(connection, made, takes=False)
    shelves.save()
    return {context.command.order_id: one for context, one in made}


def _move(connection: Connection, made: Sequence[tuple[Context[Any], Mapping[str, int]]], *, takes: bool) -> None:
    sign = 1 if takes else -1
    postgres.movements.append(
        connection,
        [
            (context.idempotency_key, context.command.order_id, sku, sign * n)
            for context, one in made
            for sku, n in one.items()
        ],
    )


class _Shelves:
    """The shelves of a batch, locked: as they stand now, and which command changed each of them last."""

    def __init__(self, connection: Connection, skus: set[str]) -> None:
        self._connection = connection
        self.now = postgres.lock_shelves(connection, skus)
        self._changed_by: dict[str, Context[Any]] = {}

    def change(self, context: Context[Any], shelves: Mapping[str, Shelf]) -> None:
        """Put `shelves` in the place of those before."""
        self.now.update(shelves)
        self._changed_by.update(dict.fromkeys(shelves, context))

    def save(self) -> None:
        """Write what changed, and have each shelf's last change tell its level: one event a shelf and batch."""
        postgres.save_shelves(self._connection, [self.now[sku] for sku in self._changed_by])
        for sku, context in self._changed_by.items():
            shelf = self.now[sku]
            context.emit(StockLevelChanged(sku=sku, on_hand=shelf.on_hand, reserved=shelf.reserved), key=sku)


service = Service(
    "catalog",
    handlers=[
        handle(ReserveStock, reserve_stock, succeeds=StockReserved, fails=OutOfStock),
        undo(ReleaseStock, release_stock, of=ReserveStock, succeeds=StockReleased),
        handle(RestockItems, restock_items, succeeds=ItemsRestocked),
    ],
)
