"""The service flight."""

from pipelines.services.flight.service import service

__all__ = ["service"]
