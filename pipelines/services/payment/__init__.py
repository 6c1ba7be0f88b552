"""The money of orders."""

from pipelines.services.payment.service import service

__all__ = ["service"]
