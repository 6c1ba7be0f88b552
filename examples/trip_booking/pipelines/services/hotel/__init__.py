"""The service hotel."""

from pipelines.services.hotel.service import service

__all__ = ["service"]
