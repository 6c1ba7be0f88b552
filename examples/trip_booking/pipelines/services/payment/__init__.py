"""The service payment."""

from pipelines.services.payment.service import service

__all__ = ["service"]
