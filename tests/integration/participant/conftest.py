"""The fixtures of this room's tests."""

from tests.integration.database_fixture import connection, database_url, server
from tests.integration.service_fixture import new_service

__all__ = ["connection", "database_url", "new_service", "server"]
