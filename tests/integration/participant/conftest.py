"""The fixtures of this room's tests."""

from tests.integration.database_fixture import server
from tests.integration.service_fixture import new_service

__all__ = ["new_service", "server"]
