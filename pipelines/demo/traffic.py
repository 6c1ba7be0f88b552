"""Who comes into the shop and what they put into their baskets. Pure: the same seed brings the same day.

Most orders are fine. Some customers are not verified or have little credit, some cards are declined, one product is
nearly gone, and a few baskets are so dear that a person must approve them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from uuid import NAMESPACE_URL, UUID, uuid5

from schemas.records.order import OrderLine, OrderPlaced

CUSTOMERS = 40
UNVERIFIED_SHARE = 0.08
LITTLE_CREDIT_SHARE = 0.05
BAD_CARD_SHARE = 0.08
DECLINED_BY_PERSON_SHARE = 0.25
CREDIT_LIMIT_CENTS = 10_000_00
LITTLE_CREDIT_LIMIT_CENTS = 150_00
LINES_MAX = 3
PIECES_MAX = 2

# Name, price in cents, and pieces on the shelf for each hundred orders (None: more than anybody can buy).
CATALOGUE: tuple[tuple[str, int, int | None], ...] = (
    ("oak chair", 129_00, None),
    ("walnut table", 640_00, None),
    ("linen curtain", 59_00, None),
    ("clay teapot", 34_50, None),
    ("wool blanket", 89_00, None),
    ("beeswax candle", 7_90, None),
    ("copper kettle", 74_00, None),
    ("ash bookshelf", 310_00, None),
    ("hand-blown vase", 48_00, 6),
    ("willow basket", 26_00, None),
)


@dataclass(frozen=True, slots=True)
class Shopper:
    """A customer, the card that they pay with, and what identity knows of them."""

    customer_id: str
    name: str
    verified: bool
    credit_limit_cents: int
    card_token: str


@dataclass(frozen=True, slots=True)
class Product:
    """A product and its stock."""

    sku: str
    name: str
    unit_price_cents: int
    on_hand: int


@dataclass(frozen=True, slots=True)
class Shop:
    """Everybody and everything of one run."""

    run_id: str
    shoppers: tuple[Shopper, ...]
    products: tuple[Product, ...]


def open_shop(run_id: str, chance: Random, orders: int) -> Shop:
    """Return a shop that is ready for so many orders; its ids are its own run's."""
    products = tuple(
        Product(
            sku=f"{name.replace(' ', '-')}-{run_id}",
            name=name,
            unit_price_cents=price,
            on_hand=orders * LINES_MAX * PIECES_MAX if stock is None else max(1, stock * orders // 100),
        )
        for name, price, stock in CATALOGUE
    )
    return Shop(run_id, tuple(_shopper(run_id, number, chance) for number in range(CUSTOMERS)), products)


def _shopper(run_id: str, number: int, chance: Random) -> Shopper:
    little = chance.random() < LITTLE_CREDIT_SHARE
    card = chance.choice(("declined", "expired")) if chance.random() < BAD_CARD_SHARE else "card"
    return Shopper(
        customer_id=f"customer-{run_id}-{number}",
        name=f"Customer {number}",
        verified=chance.random() >= UNVERIFIED_SHARE,
        credit_limit_cents=LITTLE_CREDIT_LIMIT_CENTS if little else CREDIT_LIMIT_CENTS,
        card_token=f"{card}-{run_id}-{number}",
    )


def basket(shop: Shop, number: int, chance: Random, now: datetime) -> OrderPlaced:
    """Return order number `number` of this run, placed by somebody, of something, now."""
    shopper = chance.choice(shop.shoppers)
    chosen: Sequence[Product] = chance.sample(shop.products, chance.randint(1, LINES_MAX))
    lines = tuple(
        OrderLine(sku=product.sku, quantity=chance.randint(1, PIECES_MAX), unit_price_cents=product.unit_price_cents)
        for product in chosen
    )
    return OrderPlaced(
        order_id=f"order-{shop.run_id}-{number}",
        customer_id=shopper.customer_id,
        lines=lines,
        total_cents=sum(line.quantity * line.unit_price_cents for line in lines),
        currency="EUR",
        card_token=shopper.card_token,
        placed_at=now,
    )


def event_id(subject: str) -> UUID:
    """Return the id of the one event about `subject`, which is unique over all runs."""
    return uuid5(NAMESPACE_URL, f"craftygoods:demo:{subject}")
