"""The second version of order_status that the long test builds: it counts an order's events as well."""

from dataclasses import asdict, dataclass
from datetime import datetime

from pipelines.views.order_status import Event, OrderStatus
from pipelines.views.order_status import view as first
from towpath.view import Occurrence, View


@dataclass(frozen=True, slots=True)
class OrderStatusAndEvents:
    """One order as its customer sees it, and how many events it has had."""

    order_id: str
    customer_id: str
    status: str
    total_cents: int
    refunded_cents: int
    reason: str | None
    placed_at: datetime
    updated_at: datetime
    events: int


def fold(row: OrderStatusAndEvents | None, event: Event, at: Occurrence) -> OrderStatusAndEvents | None:
    """Return the order's row as the first version has it, and the count."""
    before = None
    if row is not None:
        plain = asdict(row)
        del plain["events"]
        before = OrderStatus(**plain)
    after = first.fold(before, event, at)
    if after is None:
        return None
    return OrderStatusAndEvents(**asdict(after), events=1 + (0 if row is None else row.events))


view = View(
    name=first.name,
    topics=first.topics,
    row=OrderStatusAndEvents,
    key=first.key,
    folds=first.folds,
    fold=fold,
    version=2,
)
