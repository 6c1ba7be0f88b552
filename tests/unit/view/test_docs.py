"""The view of docs/applications.md, run."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.records.order import OrderLine, OrderPlaced
from towpath.view import Occurrence
from towpath.view.view import fold_records

DOCS = Path(__file__).resolve().parents[3] / "docs" / "applications.md"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_view_of_the_page_counts_a_customers_orders() -> None:
    """Whatever the order in which they come."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {"__name__": "docs"}
    exec(example, names)
    view = names["view"]
    records = [
        OrderPlaced(
            order_id=f"o-{cents}", customer_id="c-1", total_cents=cents, currency="EUR", card_token="card",
            lines=(OrderLine(sku="vase", quantity=1, unit_price_cents=cents),), placed_at=AT,
        )
        for cents in (100, 250)
    ]  # fmt: skip
    for order in (records, records[::-1]):
        at = Occurrence("order.events", "o", "id", AT)
        row: Any
        (row,) = fold_records(view, {}, ((view.row_key(one, at), one, at) for one in order)).values()
        assert (row.customer_id, row.orders, row.total_cents) == ("c-1", 2, 350)
