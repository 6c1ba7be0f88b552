"""Fixtures of the orchestrator's integration tests."""

from tests.conformance.conftest import kafka_servers
from tests.integration.database_fixture import database_url, server

__all__ = ["database_url", "kafka_servers", "server"]
