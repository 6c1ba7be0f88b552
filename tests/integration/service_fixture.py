"""A service's real database, and a way to ask it as its worker does: one batch, one transaction."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from tests.commands import CODEC, Asking
from towpath.contract.record import Record
from towpath.outbox.postgres import apply_outbox_schema
from towpath.participant.execution import Answered, Answerer
from towpath.participant.postgres import apply_inbox_schema
from towpath.participant.service import Service
from towpath.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Asked:
    """A service with a database of its own."""

    service: Service
    settings: Settings
    connection: psycopg.Connection
    answerer: Answerer
    outside: Any
    read: int = field(default=0)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def batch(self, *askings: Asking) -> Answered:
        """Answer commands in one transaction, and commit."""
        with self.connection.transaction():
            return self.answer(askings)

    def answer(self, askings: Sequence[Asking]) -> Answered:
        """Answer commands in the transaction that is open."""
        records = [asking.arriving(offset) for offset, asking in enumerate(askings)]
        return self.answerer.answer(self.connection, records, NOW)

    def ask(self, *askings: Asking) -> list[Record]:
        """Answer commands, and return the replies that left, in their order."""
        self.batch(*askings)
        return [CODEC.decode(payload) for topic, payload in self.sent() if topic.endswith(".replies")]

    def sent(self) -> list[tuple[str, bytes]]:
        """Return topic and payload of the messages that left since the last call."""
        rows = self.connection.execute(
            "SELECT topic, payload FROM outbox ORDER BY tableoid, ctid OFFSET %s", (self.read,)
        ).fetchall()
        self.connection.commit()
        self.read += len(rows)
        return rows

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; from any thread, since a test's handlers ask beside the test itself."""
        with self.guard, self.connection.transaction():
            return self.connection.execute(query).fetchall()


NewService = Callable[[Service], Asked]


@pytest.fixture
def new_service(server: str) -> Iterator[NewService]:
    """Return a function that gives a service a database of its own, with all its tables."""
    with ExitStack() as ends:
        administrator = ends.enter_context(psycopg.connect(f"{server}/postgres", autocommit=True))

        def make(service: Service) -> Asked:
            name = f"t{uuid.uuid4().hex[:12]}"
            administrator.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            ends.callback(administrator.execute, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            settings = load_settings(ROOT, environment=False)
            urls = {service.name: SecretStr(f"{server}/{name}")}
            settings = settings.model_copy(update={"postgres": settings.postgres.model_copy(update={"urls": urls})})
            connection = ends.enter_context(psycopg.connect(f"{server}/{name}"))
            apply_outbox_schema(connection, settings.postgres, settings.outbox)
            apply_inbox_schema(connection)
            own = ROOT / "infra" / "postgres" / f"{service.name}.sql"
            with connection.transaction():
                connection.execute(own.read_bytes())
            outside = service.opens(settings) if service.opens else None
            if outside is not None:
                ends.callback(outside.close)
            answerer = Answerer(service, CODEC, outside=outside)
            return Asked(service, settings, connection, answerer, outside)

        yield make
