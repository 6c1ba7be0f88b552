"""The fixtures of this room's tests."""

from collections.abc import Iterator

import pytest

from tests.integration.database_fixture import server
from tests.integration.service_fixture import new_service
from towpath.testing import ScratchServer

__all__ = ["new_service", "server", "towpath_server"]


@pytest.fixture(scope="session")
def towpath_server(server: str) -> Iterator[ScratchServer]:
    """Return the stack's PostgreSQL as the server for scratch databases."""
    scratch = ScratchServer(server)
    yield scratch
    scratch.close()
