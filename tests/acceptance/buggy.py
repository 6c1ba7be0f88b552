"""The payment service with a bug: it cannot capture."""

from collections.abc import Sequence

from pipelines.services.payment import service as sound
from schemas.records.payment import CapturePayment, PaymentCaptured
from towpath.service import Context, Record, Service, handle


def capture_payments(contexts: Sequence[Context[CapturePayment]]) -> list[Record]:
    """Make a mistake."""
    del contexts
    raise ZeroDivisionError("there is no network")


service = Service(
    "payment",
    handlers=[
        *(one for command, one in sound.handlings.items() if command is not CapturePayment),
        handle(CapturePayment, capture_payments, succeeds=PaymentCaptured),
    ],
    opens=sound.opens,
)
