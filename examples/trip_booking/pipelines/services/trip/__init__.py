"""The service trip."""

from pipelines.services.trip.service import service

__all__ = ["service"]
