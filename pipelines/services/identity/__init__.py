"""Customers and their standing."""

from pipelines.services.identity.service import register_customer, service

__all__ = ["register_customer", "service"]
