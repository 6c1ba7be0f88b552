"""A views' database in which the view of instances is kept as its worker keeps it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from tests.commands import CODEC
from tests.integration.database_fixture import connection, database_url, server
from towpath.client import AsyncClient, Client
from towpath.contract.catalogue import Catalogue
from towpath.orchestrator.sagas_view import sagas_view
from towpath.settings import Settings, load_settings
from towpath.view.postgres import ViewTable

__all__ = ["connection", "database_url", "server"]
ROOT = Path(__file__).resolve().parents[3]
TABLE = ViewTable(sagas_view(["place_order"]))


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Return settings whose views are in the test's own database."""
    settings = load_settings(ROOT, environment=False)
    postgres = settings.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
    return settings.model_copy(update={"postgres": postgres})


@pytest.fixture
def client(settings: Settings) -> Client:
    """Return a client."""
    return Client(settings, Catalogue.load(settings), CODEC)


@pytest.fixture
def async_client(settings: Settings) -> AsyncClient:
    """Return an asynchronous client."""
    return AsyncClient(settings, Catalogue.load(settings), CODEC)


@pytest.fixture
def views(database_url: str) -> Iterator[psycopg.Connection]:
    """Return a connection through which the view is kept; its table is there."""
    with psycopg.connect(database_url) as connection:
        TABLE.create(connection)
        connection.commit()
        yield connection
