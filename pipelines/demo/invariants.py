"""What must hold in the shop once every order has come to its end: money and stock, across all services. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from towpath.demo import Check

KEPT = frozenset({"confirmed"})


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """An order as the order service has it; `pieces` by article."""

    status: str
    total_cents: int
    refund_cents: int
    pieces: Mapping[str, int]

    @property
    def due_cents(self) -> int:
        """Return what its customer must have paid for it in the end."""
        if self.status in KEPT:
            return self.total_cents
        return self.total_cents - self.refund_cents if self.status == "cancelled" else 0


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """The money of an order as the payment service has it."""

    amount_cents: int
    voided: bool
    captured_cents: int
    refunded_cents: int

    @property
    def open_cents(self) -> int:
        """Return what is still blocked on the card, neither taken nor freed."""
        return 0 if self.voided or self.captured_cents else self.amount_cents


def money(
    orders: Mapping[str, OrderFacts], payments: Mapping[str, PaymentFacts], unbalanced_books: Collection[str]
) -> Check:
    """Each order has paid what it owes and nothing else; nothing is left blocked; the card network's books agree."""
    wrong = set(unbalanced_books)
    for order_id, order in orders.items():
        payment = payments.get(order_id, PaymentFacts(0, True, 0, 0))
        if payment.captured_cents - payment.refunded_cents != order.due_cents or payment.open_cents:
            wrong.add(order_id)
    wrong |= payments.keys() - orders.keys()
    taken = sum(payment.captured_cents - payment.refunded_cents for payment in payments.values())
    freed = sum(payment.amount_cents for payment in payments.values() if payment.voided)
    detail = f"{euros(taken)} taken for orders that stand, {euros(freed)} blocked and freed again"
    return Check("money_conserved", not wrong, _with(detail, wrong))


def stock(
    orders: Mapping[str, OrderFacts],
    reservations: Mapping[str, Mapping[str, int]],
    reserved: Mapping[str, int],
    unbalanced_shelves: Collection[str],
) -> Check:
    """Each order that stands has its pieces set aside, no other has any, and the shelves agree."""
    wrong = set(unbalanced_shelves)
    for order_id, order in orders.items():
        wanted = dict(order.pieces) if order.status in KEPT else {}
        if dict(reservations.get(order_id, {})) != wanted:
            wrong.add(order_id)
    wrong |= reservations.keys() - orders.keys()
    total: Counter[str] = Counter()
    for pieces in reservations.values():
        total.update(pieces)
    wrong |= {sku for sku in total.keys() | reserved.keys() if total[sku] != reserved.get(sku, 0)}
    detail = f"{sum(total.values())} pieces set aside for orders that stand"
    return Check("stock_conserved", not wrong, _with(detail, wrong))


def euros(cents: int) -> str:
    """Return an amount as people write it."""
    return f"€{cents / 100:,.2f}"


def _with(detail: str, wrong: Collection[str]) -> str:
    if not wrong:
        return detail
    shown = sorted(wrong)[:5]
    return f"{detail}; WRONG: {', '.join(shown)}{' ...' if len(wrong) > len(shown) else ''}"
