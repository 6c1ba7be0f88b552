"""Orders."""

from pipelines.services.order.service import (
    approve_order,
    decline_order,
    place_order,
    request_cancellation,
    service,
)

__all__ = ["approve_order", "decline_order", "place_order", "request_cancellation", "service"]
