"""A cart waits for its checkout, reminds, and is given up; what is in it is set aside meanwhile."""

from dataclasses import dataclass

from towpath.saga import (
    COMPENSATE,
    Participant,
    Prolong,
    Remind,
    Saga,
    Undo,
    UndoEach,
    days,
    hours,
    minutes,
    one_of,
    seconds,
    tolerated,
)

stock, cards, orders = map(Participant, ("stock", "cards", "orders"))


@dataclass(frozen=True, slots=True)
class CartFilled:
    cart: str = "c-1"
    skus: tuple[str, ...] = ("chair", "lamp")


@dataclass(frozen=True, slots=True)
class CartImported:
    cart: str = "c-1"
    skus: tuple[str, ...] = ("chair",)


@dataclass(frozen=True, slots=True)
class CartEmptied:
    cart: str = "c-1"


@dataclass(frozen=True, slots=True)
class SetAside:
    sku: str


@dataclass(frozen=True, slots=True)
class SetAsideDone:
    sku: str = "chair"


@dataclass(frozen=True, slots=True)
class SoldOut:
    sku: str = "lamp"


@dataclass(frozen=True, slots=True)
class PutBack:
    sku: str


@dataclass(frozen=True, slots=True)
class PutBackDone:
    pass


@dataclass(frozen=True, slots=True)
class CheckedOut:
    card: str = "card-1"


@dataclass(frozen=True, slots=True)
class StillLooking:
    pass


@dataclass(frozen=True, slots=True)
class CartWaits:
    cart: str
    reminder: int


@dataclass(frozen=True, slots=True)
class ChargeCart:
    cart: str
    items: int


@dataclass(frozen=True, slots=True)
class CartCharged:
    pass


@dataclass(frozen=True, slots=True)
class CardRefused:
    pass


@dataclass(frozen=True, slots=True)
class RefundCart:
    cart: str


@dataclass(frozen=True, slots=True)
class CartRefunded:
    pass


@dataclass(frozen=True, slots=True)
class PlaceCart:
    cart: str


@dataclass(frozen=True, slots=True)
class CartPlaced:
    order: str = "o-1"


@dataclass(frozen=True, slots=True)
class CartOrdered:
    cart: str
    order: str
    missing: int


Cart = CartFilled | CartImported


def skus(cart: Cart) -> tuple[str, ...]:
    return cart.skus


def set_aside(cart: Cart, sku: str) -> SetAside:
    return SetAside(sku)


def put_back(cart: Cart, sku: str) -> PutBack:
    return PutBack(sku)


def cart_waits(cart: Cart, reminder: int) -> CartWaits:
    return CartWaits(cart.cart, reminder)


def charge_cart(cart: Cart, items: tuple[SetAsideDone | SoldOut, ...]) -> ChargeCart:
    return ChargeCart(cart.cart, sum(isinstance(item, SetAsideDone) for item in items))


def refund_cart(cart: Cart) -> RefundCart:
    return RefundCart(cart.cart)


def place_cart(cart: Cart) -> PlaceCart:
    return PlaceCart(cart.cart)


def cart_ordered(cart: Cart, items: tuple[SetAsideDone | SoldOut, ...], placed: CartPlaced) -> CartOrdered:
    return CartOrdered(cart.cart, placed.order, sum(isinstance(item, SoldOut) for item in items))


saga = Saga(
    "check_out_cart", version=1, starts_on=one_of(CartFilled, CartImported), cancel_on=CartEmptied, deadline=days(9)
)
items = saga.each(
    stock,
    set_aside,
    over=skus,
    limit=50,
    undo=UndoEach(put_back, succeeds=PutBackDone),
    succeeds=one_of(SetAsideDone, tolerated(SoldOut)),
    within=seconds(30),
)
checked_out = saga.wait(
    "checkout",
    after=items,
    succeeds=CheckedOut,
    within=days(2),
    on_timeout=COMPENSATE,
    reminds=Remind(cart_waits, event=CartWaits, every=hours(20), times=2),
    prolonged=Prolong(StillLooking, by=days(1), times=3),
)
charged = saga.step(
    cards,
    charge_cart,
    needs=items,
    after=checked_out,
    undo=Undo(refund_cart, succeeds=CartRefunded),
    succeeds=CartCharged,
    fails=CardRefused,
    within=minutes(1),
)
placed = saga.pivot(orders, place_cart, after=charged, succeeds=CartPlaced, within=minutes(1))
saga.result(cart_ordered, event=CartOrdered, needs=items & placed)
