"""Fixtures of the stream's integration tests."""

from tests.conformance.conftest import kafka_servers
from tests.integration.database_fixture import connection, database_url, server
from tests.integration.service_fixture import new_service

__all__ = ["connection", "database_url", "kafka_servers", "new_service", "server"]
