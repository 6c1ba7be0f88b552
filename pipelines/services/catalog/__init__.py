"""Products and their stock."""

from pipelines.services.catalog.service import list_product, service

__all__ = ["list_product", "service"]
