"""A saga and its sub-saga, and the topics that they need: what the tests of sub-sagas share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sagas import catalog, orders, payments
from sagas.place_order import release_stock, reserve_stock
from schemas.records.catalog import OutOfStock, ReserveStock, StockReleased, StockReserved
from schemas.records.order import ConfirmOrder, OrderConfirmed, OrderPlaced
from schemas.records.payment import (
    AuthorisationVoided,
    AuthorisePayment,
    PaymentAuthorised,
    PaymentDeclined,
    VoidAuthorisation,
)
from tests.unit.orchestrator.desktop import Desktop, Sent, desktop
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec, WriterSchema, derived_id
from towpath.contract.files import load_classes, load_contracts, schema_sets
from towpath.saga import Saga, SecondStart, Undo, hours, seconds
from towpath.settings import load_settings

CONTRACTS = load_contracts(schema_sets(load_settings()))
ENGINE = "towpath.saga"


def authorise_payment(order: OrderPlaced) -> AuthorisePayment:
    """Block the amount."""
    return AuthorisePayment(
        order_id=order.order_id,
        customer_id=order.customer_id,
        amount_cents=order.total_cents,
        currency=order.currency,
        card_token=order.card_token,
    )


def void_authorisation(order: OrderPlaced) -> VoidAuthorisation:
    """Free the amount."""
    return VoidAuthorisation(order_id=order.order_id)


def confirm_order(order: OrderPlaced) -> ConfirmOrder:
    """Confirm."""
    return ConfirmOrder(order_id=order.order_id)


def same(order: OrderPlaced) -> OrderPlaced:
    """Start the sub-saga with what started its parent."""
    return order


def hold_goods(reserve: Callable[[OrderPlaced], ReserveStock] = reserve_stock) -> Saga[OrderPlaced]:
    """Return the sub-saga: it can be undone after it has completed."""
    made = Saga("hold_goods", version=1, starts_on=OrderPlaced, deadline=hours(1))
    made.step(
        catalog,
        reserve,
        key="reserve_stock",
        undo=Undo(release_stock, succeeds=StockReleased),
        succeeds=StockReserved,
        fails=OutOfStock,
        within=seconds(10),
    )
    return made


def pack() -> Saga[OrderPlaced]:
    """Return a saga of one step, the sub-saga, which can be undone too: between a child and its grandparent."""
    made = Saga("pack", version=1, starts_on=OrderPlaced, deadline=hours(2))
    made.subsaga(hold_goods(), same, within=hours(1))
    return made


def buy(
    child: Saga[OrderPlaced] | None = None, *, second_start: SecondStart = SecondStart.REFUSE_WHILE_OPEN
) -> Saga[OrderPlaced]:
    """Return the parent: the sub-saga, then the payment, then the pivot."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(100), second_start=second_start)
    goods = made.subsaga(child or hold_goods(), same, within=hours(1), key="goods")
    paid = made.step(
        payments,
        authorise_payment,
        after=goods,
        undo=Undo(void_authorisation, succeeds=AuthorisationVoided),
        succeeds=PaymentAuthorised,
        fails=PaymentDeclined,
        within=hours(90),
    )
    made.pivot(orders, confirm_order, after=paid, succeeds=OrderConfirmed, within=seconds(10))
    return made


def paying_first() -> Saga[OrderPlaced]:
    """Return a parent that has something to undo when its sub-saga fails."""
    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(100))
    paid = made.step(
        payments,
        authorise_payment,
        undo=Undo(void_authorisation, succeeds=AuthorisationVoided),
        succeeds=PaymentAuthorised,
        fails=PaymentDeclined,
        within=hours(90),
    )
    made.subsaga(hold_goods(), same, after=paid, within=hours(1), key="goods")
    return made


class Family:
    """Workers of several sagas, one partition each; what they send to each other is carried at once, in order."""

    def __init__(self, *sagas: Saga[Any]) -> None:
        self.desks: dict[str, Desktop] = {saga.name: desktop(saga) for saga in sagas}

    def __getitem__(self, saga: str) -> Desktop:
        """Return the worker of that saga."""
        return self.desks[saga]

    def carry(self, sent: list[Sent]) -> list[Sent]:
        """Carry messages between the sagas until nothing is on its way; return all that was sent."""
        everything, waiting = list(sent), list(sent)
        while waiting:
            message = waiting.pop(0)
            saga, _, kind = message.topic.partition(".")
            if saga in self.desks and kind in ("signals", "replies"):
                more = self.desks[saga].give(message.topic, message.record, key=message.key, **message.headers)
                everything += more
                waiting += more
        return everything

    def pass_hours(self, hours_: float) -> list[Sent]:
        """Let time pass for all, and due timers fire."""
        sent: list[Sent] = []
        for context in self.desks.values():
            context.clock.advance(hours_ * 3600)
        for context in self.desks.values():
            sent += self.carry(context.fire_timers())
        return sent

    def kept(self, saga: str) -> int:
        """Return how many instances that worker keeps."""
        return sum(key.startswith(b"i") for key in self.desks[saga].stored())


def codec_of(topics: Iterable[str], catalogue: Catalogue) -> Codec:
    """Return a codec that knows the ids of what these topics list, and no other, as one from a registry does."""
    names = catalogue.values_in(topics)
    current = {name: derived_id(CONTRACTS.schemas, name) for name in names}
    writers = [WriterSchema(current[name], CONTRACTS.schemas.avro(name, docs=False)) for name in names]
    return Codec(CONTRACTS.schemas, load_classes(CONTRACTS), current, writers)


TOPICS: dict[str, tuple[list[str], list[str], list[str]]] = {
    # kind -> values, producers, consumers; {saga} is the saga's name
    "timers": ([f"{ENGINE}.TimerFired"], ["{saga}"], ["{saga}"]),
    "state": ([f"{ENGINE}.SagaState", f"{ENGINE}.EarlySignals"], ["{saga}"], ["{saga}"]),
    "history": ([f"{ENGINE}.HistoryEntry"], ["{saga}"], []),
    "operator": ([f"{ENGINE}.OperatorAsked"], ["operator"], ["{saga}"]),
}
OWN: dict[str, tuple[list[str], list[str], list[str]]] = {
    "order.events": (["craftygoods.order.OrderPlaced"], ["order"], ["buy"]),
    "catalog.commands": (["craftygoods.catalog.ReserveStock", "craftygoods.catalog.ReleaseStock"], [], ["catalog"]),
    "payment.commands": (
        ["craftygoods.payment.AuthorisePayment", "craftygoods.payment.VoidAuthorisation"],
        ["buy"],
        ["payment"],
    ),
    "order.commands": (["craftygoods.order.ConfirmOrder"], ["buy"], ["order"]),
    "buy.replies": (
        [
            f"{ENGINE}.SubsagaCompleted",
            f"{ENGINE}.SubsagaCompensated",
            "craftygoods.payment.PaymentAuthorised",
            "craftygoods.payment.PaymentDeclined",
            "craftygoods.payment.AuthorisationVoided",
            "craftygoods.order.OrderConfirmed",
        ],
        ["hold_goods", "payment", "order"],
        ["buy"],
    ),
    "hold_goods.signals": (
        ["craftygoods.order.OrderPlaced", f"{ENGINE}.ParentAsked", f"{ENGINE}.ParentEnded"],
        ["buy"],
        ["hold_goods"],
    ),
    "hold_goods.replies": (
        [
            "craftygoods.catalog.StockReserved",
            "craftygoods.catalog.OutOfStock",
            "craftygoods.catalog.StockReleased",
        ],
        ["catalog"],
        ["hold_goods"],
    ),
}


def declare_topics(folder: Path, *, partitions: int = 2) -> None:
    """Write a catalogue in which `buy` and `hold_goods` can run."""
    declared = dict(OWN)
    declared["catalog.commands"] = (OWN["catalog.commands"][0], ["hold_goods"], ["catalog"])
    for saga in ("buy", "hold_goods"):
        for kind, parts in TOPICS.items():
            values, producers, consumers = ([name.format(saga=saga) for name in names] for names in parts)
            declared[f"{saga}.{kind}"] = (values, producers, consumers)
    for name, (values, producers, consumers) in declared.items():
        write_topic(folder, name, values, producers, consumers, partitions=partitions)


def write_topic(
    folder: Path, name: str, values: list[str], producers: list[str], consumers: list[str], *, partitions: int = 2
) -> None:
    """Write the file of one topic."""
    owner, _, kind = name.partition(".")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"topic: {name}",
        f"kind: {kind}",
        f"owner: {owner}",
        "key: order_id",
        f"partitions: {partitions}",
        f"retention_days: {'forever' if kind == 'state' else 30}",
        f"values: [{', '.join(values)}]",
        f"producers: [{', '.join(producers)}]",
        f"consumers: [{', '.join(consumers)}]",
    ]
    if kind != "state":
        lines.append("dead: {}")
    (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
