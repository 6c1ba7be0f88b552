"""The view `order_status`, with a fold that fails on some orders in the ways that only a handler can.

It takes the view's place in the workers of the chaos test: no record makes the shop's own fold block its worker.
"""

import asyncio
import time
from dataclasses import replace

from pipelines.views import order_status
from pipelines.views.order_status import Event, OrderStatus
from schemas.records.order import OrderConfirmed
from tests.chaos import poison
from towpath.view import Occurrence

BLOCKS_SECONDS = 6.0
"""Longer than `batch_seconds_max`, five seconds."""


def fold(row: OrderStatus | None, event: Event, at: Occurrence) -> OrderStatus | None:
    """Fold as the shop does, all but what was made to fail here."""
    match poison.kind_for_fold(event.order_id) if isinstance(event, OrderConfirmed) else None:
        case None:
            return order_status.fold(row, event, at)
        case poison.INDEX_ROW_TOO_LARGE:  # of the primary key: the id is long, and cannot be compressed
            return OrderStatus(event.order_id, "", "confirmed", 0, 0, None, at.at, at.at)
        case poison.BLOCKS:
            time.sleep(BLOCKS_SECONDS)
            return row
        case poison.IS_CANCELLED:
            raise asyncio.CancelledError
        case poison.STOPS_ITERATION:
            raise StopIteration
        case kind:
            raise AssertionError(f"{kind} is no way to fail")


view = replace(order_status.view, fold=fold)
