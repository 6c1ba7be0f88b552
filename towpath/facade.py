"""One door to a project for scripts, tests and web applications: `from towpath import Project`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from towpath.client import AsyncClient, Client
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.registry import load_codec
from towpath.project import worker_names
from towpath.settings import Settings, load_settings
from towpath.stack.client import running


class Project:
    """A project: its settings and its topics, and what is made of them. Holds no connection."""

    def __init__(self, settings: Settings) -> None:
        """Read the catalogue of the project that `settings` describe. Raises ContractError."""
        self.settings = settings
        self.catalogue = Catalogue.load(settings)

    @classmethod
    def load(cls, folder: Path | str | None = None) -> Self:
        """Return the project in `folder`; by default the nearest one at or above the working directory.

        Raises ConfigurationError where there is none or its settings are wrong, ContractError for its topics.
        """
        return cls(load_settings(None if folder is None else Path(folder).resolve()))

    def codec(self, topics: Iterable[str] | None = None) -> Codec:
        """Return a codec for the records of `topics`, by default of all; asks the registry. Raises WorldError."""
        return load_codec(self.settings, self.catalogue, topics)

    def client(self) -> Client:
        """Return a client that starts sagas and follows them; asks the registry once. Raises WorldError."""
        return Client.load(self.settings)

    def async_client(self) -> AsyncClient:
        """Return the same client for asyncio. Raises WorldError."""
        return AsyncClient.load(self.settings)

    def workers(self) -> tuple[str, ...]:
        """Return the names that `towpath run` takes: a worker for each service, saga and view."""
        return worker_names(self.settings)

    def database(self, name: str) -> dict[str, Any]:
        """Return what `psycopg.connect` takes for the database of a service, or `views`: `connect(**...)`."""
        return {"conninfo": self.settings.postgres.database_url(name), **self.settings.postgres.connection_options()}

    def is_running(self) -> bool:
        """Return whether the stack runs that `towpath up` or `towpath dev` starts on this machine."""
        return bool(running(self.settings.stack_home))


__all__ = ["Project"]
