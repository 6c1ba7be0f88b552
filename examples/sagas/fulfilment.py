"""An order is fulfilled from several warehouses: a saga for each package, and what there is of them is sent."""

from dataclasses import dataclass

from towpath.saga import Participant, Saga, Undo, UndoSubsaga, days, hours, minutes
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted

warehouses, cards, orders, post = map(Participant, ("warehouses", "cards", "orders", "post"))


@dataclass(frozen=True, slots=True)
class OrderTaken:
    order: str = "o-1"
    warehouses: tuple[str, ...] = ("berlin", "lyon")


@dataclass(frozen=True, slots=True)
class PackageAsked:
    order: str = "o-1"
    warehouse: str = "berlin"


# --- one package: it can be given back, even once it is ready ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReserveItems:
    order: str
    warehouse: str


@dataclass(frozen=True, slots=True)
class ItemsReserved:
    cents: int = 4_000


@dataclass(frozen=True, slots=True)
class ItemsMissing:
    pass


@dataclass(frozen=True, slots=True)
class PutItemsBack:
    order: str
    warehouse: str


@dataclass(frozen=True, slots=True)
class ItemsPutBack:
    pass


@dataclass(frozen=True, slots=True)
class ChargePackage:
    order: str
    cents: int


@dataclass(frozen=True, slots=True)
class PackageCharged:
    receipt: int = 7


@dataclass(frozen=True, slots=True)
class CardRefused:
    pass


@dataclass(frozen=True, slots=True)
class RefundPackage:
    order: str


@dataclass(frozen=True, slots=True)
class PackageRefunded:
    pass


@dataclass(frozen=True, slots=True)
class PackageReady:
    warehouse: str = "berlin"
    receipt: int = 7


def reserve_items(asked: PackageAsked) -> ReserveItems:
    return ReserveItems(asked.order, asked.warehouse)


def put_items_back(asked: PackageAsked) -> PutItemsBack:
    return PutItemsBack(asked.order, asked.warehouse)


def charge_package(asked: PackageAsked, items: ItemsReserved) -> ChargePackage:
    return ChargePackage(asked.order, items.cents)


def refund_package(asked: PackageAsked) -> RefundPackage:
    return RefundPackage(asked.order)


def package_ready(asked: PackageAsked, charged: PackageCharged) -> PackageReady:
    return PackageReady(asked.warehouse, charged.receipt)


package = Saga("prepare_package", version=1, starts_on=PackageAsked, deadline=hours(2))
items = package.step(
    warehouses,
    reserve_items,
    undo=Undo(put_items_back, succeeds=ItemsPutBack, retry_for=hours(6)),
    succeeds=ItemsReserved,
    fails=ItemsMissing,
    within=minutes(1),
)
charged = package.step(
    cards,
    charge_package,
    needs=items,
    undo=Undo(refund_package, succeeds=PackageRefunded, retry_for=hours(6)),
    succeeds=PackageCharged,
    fails=CardRefused,
    within=minutes(1),
)
package.result(package_ready, event=PackageReady, needs=charged)


# --- the order --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfirmPackages:
    order: str
    receipts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackagesConfirmed:
    pass


@dataclass(frozen=True, slots=True)
class NothingToSend:
    pass


@dataclass(frozen=True, slots=True)
class SendPackage:
    order: str
    warehouse: str


@dataclass(frozen=True, slots=True)
class PackageSent:
    pass


@dataclass(frozen=True, slots=True)
class OrderFulfilled:
    order: str
    sent: int
    missing: int


Packages = tuple[SubsagaCompleted[PackageReady] | SubsagaCompensated, ...]


def warehouses_of(taken: OrderTaken) -> tuple[str, ...]:
    return taken.warehouses


def ask_package(taken: OrderTaken, warehouse: str) -> PackageAsked:
    return PackageAsked(taken.order, warehouse)


def package_key(taken: OrderTaken, warehouse: str) -> str:
    return f"{taken.order}-{warehouse}"


def ready(packages: Packages) -> tuple[PackageReady, ...]:
    return tuple(package.result for package in packages if isinstance(package, SubsagaCompleted))


def confirm_packages(taken: OrderTaken, packages: Packages) -> ConfirmPackages:
    return ConfirmPackages(taken.order, tuple(package.receipt for package in ready(packages)))


def ready_warehouses(taken: OrderTaken, packages: Packages) -> tuple[str, ...]:
    return tuple(package.warehouse for package in ready(packages))


def send_package(taken: OrderTaken, packages: Packages, warehouse: str) -> SendPackage:
    return SendPackage(taken.order, warehouse)


def order_fulfilled(taken: OrderTaken, packages: Packages) -> OrderFulfilled:
    sent = len(ready(packages))
    return OrderFulfilled(taken.order, sent, len(packages) - sent)


saga = Saga("fulfil_order", version=1, starts_on=OrderTaken, deadline=days(5))
packages = saga.subsaga_each(
    package,
    ask_package,
    over=warehouses_of,
    limit=20,
    keyed_by=package_key,
    returns=PackageReady,
    may_fail=True,
    undo=UndoSubsaga(within=hours(13)),
    within=hours(3),
)
confirmed = saga.pivot(
    orders,
    confirm_packages,
    needs=packages,
    succeeds=PackagesConfirmed,
    fails=NothingToSend,
    within=minutes(1),
)
saga.retriable_each(
    post,
    send_package,
    needs=packages,
    over=ready_warehouses,
    limit=20,
    after=confirmed,
    succeeds=PackageSent,
    within=hours(1),
)
saga.result(order_fulfilled, event=OrderFulfilled, needs=packages)
