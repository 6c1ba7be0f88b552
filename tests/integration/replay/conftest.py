"""Fixtures of the replays' integration tests."""

from tests.integration.database_fixture import connection, database_url, server

__all__ = ["connection", "database_url", "server"]
