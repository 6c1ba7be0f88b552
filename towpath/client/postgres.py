"""The client itself: PostgreSQL is all that an application needs to reach, neither Kafka nor any worker.

The one rule: a start is one more row of the caller's transaction, and an ending is read where the view of instances
has it, so both are right from any process, whatever crashed in between.
"""

import dataclasses
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, overload
from uuid import UUID

import psycopg
from psycopg import errors, sql
from psycopg.rows import class_row

from towpath.client.saga import InstanceStatus, NotEnded, Started, require_start, standing_of, start_topic
from towpath.clock import Clock, SystemClock
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, WorldError
from towpath.orchestrator.sagas_view import NAME, SagaInstance
from towpath.outbox.handover import Handover
from towpath.outbox.message import OutboxMessage, from_record
from towpath.outbox.names import VIEWS_DATABASE
from towpath.outbox.postgres import may_write, may_write_async, other_connection, write, write_async
from towpath.project import load_sagas
from towpath.saga.definition import Definition
from towpath.settings import Settings

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

LOOK_SECONDS = 5.0
"""Longest trust in a notification: a view that is being rebuilt, or a lost connection's successor, tells nothing."""

_SELECT = sql.SQL("SELECT {} FROM {}").format(
    sql.SQL(", ").join(sql.Identifier(field.name) for field in dataclasses.fields(SagaInstance)), sql.Identifier(NAME)
)
_BY_ID = _SELECT + sql.SQL(" WHERE saga_id = %s")
_BY_KEY = _SELECT + sql.SQL(" WHERE key = %s AND saga = %s ORDER BY started_at DESC")


class Client:
    """Starts sagas and follows them. Holds no connection to a database: safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        codec: Codec,
        clock: Clock | None = None,
        *,
        handover: Handover | None = None,
        sagas: Mapping[str, Mapping[int, Definition]] | None = None,
    ) -> None:
        """Take what starts and follows sagas; with a `handover`, `hand_over` spares a start the wait for capture.

        `sagas` are the definitions by name and version; by default, those that the project registers.
        """
        self._handover = handover
        self._settings = settings
        self._catalogue = catalogue
        self._codec = codec
        self._clock = clock or SystemClock()
        self._sagas = sagas
        self._homes: set[tuple[str, int, str, str]] = set()

    @overload
    def start(
        self, connection: AsyncConnection, saga: str, key: str, event: Record, *, event_id: UUID, **headers: Any
    ) -> Awaitable[Started]: ...

    @overload
    def start(
        self, connection: Connection, saga: str, key: str, event: Record, *, event_id: UUID, **headers: Any
    ) -> Started: ...

    def start(
        self,
        connection: Connection | AsyncConnection,
        saga: str,
        key: str,
        event: Record,
        *,
        event_id: UUID,
        **headers: Any,
    ) -> Started | Awaitable[Started]:
        """Write the start event of a saga into the outbox, in the transaction of `connection`; commits nothing.

        `connection` is psycopg's, to the database of the service that owns the event; with an `AsyncConnection` the
        result is to be awaited. The same `event_id` starts the same saga, once: take one that the request itself
        determines, and a request that is repeated starts nothing new. Raises, before anything is written,
        ContractError for an event that breaks its schema, ConfigurationError for one that does not start this saga,
        for a connection that is none of psycopg's, and for a database whose outbox may not write the event.
        """
        require_start(self._definitions(), saga, type(event))
        topic = start_topic(self._catalogue, saga, type(event))
        message = from_record(self._codec, topic, key, event, id=event_id, **headers)
        started = Started.by(saga, key, event_id, message)
        if isinstance(connection, psycopg.AsyncConnection):
            return self._start_async(connection, message, started)
        if not isinstance(connection, psycopg.Connection):
            raise other_connection(connection)
        home = _home(connection, topic)
        if home not in self._homes:
            if not may_write(connection, topic):
                raise _not_home(home, self._catalogue)
            self._homes.add(home)
        write(connection, [message])
        return started

    async def _start_async(self, connection: AsyncConnection, message: OutboxMessage, started: Started) -> Started:
        home = _home(connection, message.topic)
        if home not in self._homes:
            if not await may_write_async(connection, message.topic):
                raise _not_home(home, self._catalogue)
            self._homes.add(home)
        await write_async(connection, [message])
        return started

    def _definitions(self) -> Mapping[str, Mapping[int, Definition]]:
        if self._sagas is None:
            self._sagas = load_sagas(self._settings)
        return self._sagas

    def hand_over(self, started: Started) -> bool:
        """Take a start to Kafka at once, now that its transaction is committed; return whether it was sent.

        Never before the commit: what was rolled back must not start anything. Without a hand-over, or under load,
        this does nothing, and capture brings the event a moment later, as it does in any case. Never raises.
        """
        return bool(started.message and self._handover and self._handover.hand_over((started.message,)))

    def standing(self, saga_id: str) -> InstanceStatus | None:
        """Return how an instance stands, None while nothing was seen of it. Raises WorldError."""
        with self._views() as connection:
            return _one(connection, self._codec, saga_id)

    def find(self, saga: str, key: str) -> list[InstanceStatus]:
        """Return the instances of `saga` for a business key, the latest first. Raises WorldError."""
        with self._views() as connection, connection.cursor(row_factory=class_row(SagaInstance)) as cursor:
            try:
                return [standing_of(row, self._codec) for row in cursor.execute(_BY_KEY, (key, saga))]
            except errors.UndefinedTable:
                return []

    def await_ending(self, saga_id: str, *, timeout_seconds: float) -> InstanceStatus:
        """Wait until a saga completed or compensated, or is stuck, and return how it stands then.

        The saga need not have begun. Raises NotEnded when the time is over, WorldError where the views cannot be read.
        """
        deadline = self._clock.monotonic_seconds() + timeout_seconds
        with self._views() as connection:
            # Listening begins before the first look, so that no change slips in between.
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(NAME)))
            while True:
                standing = _one(connection, self._codec, saga_id)
                if standing is not None and (standing.ended or standing.stuck):
                    return standing
                left_seconds = deadline - self._clock.monotonic_seconds()
                if left_seconds <= 0:
                    raise NotEnded(saga_id, timeout_seconds, standing)
                self._hear(connection, saga_id, min(left_seconds, LOOK_SECONDS))

    def _hear(self, connection: Connection, saga_id: str, seconds: float) -> None:
        """Return once something is told of the saga, or after `seconds`."""
        for told in connection.notifies(timeout=seconds):
            if told.payload == saga_id:
                return

    @contextmanager
    def _views(self) -> Iterator[Connection]:
        """Connect to the views' database, in autocommit."""
        options: dict[str, Any] = dict(self._settings.postgres.connection_options())
        try:
            with psycopg.connect(
                self._settings.postgres.database_url(VIEWS_DATABASE), autocommit=True, **options
            ) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise WorldError(
                f"the views' database cannot be read: {str(error).strip()}",
                kept="the sagas themselves, which do not depend on it",
                next_step="towpath status, or check [postgres] in towpath.toml",
            ) from error


def _home(connection: Connection | AsyncConnection, topic: str) -> tuple[str, int, str, str]:
    """Return which database a connection is to, and the topic that is asked for: what was found there is kept."""
    return connection.info.host, connection.info.port, connection.info.dbname, topic


def _not_home(home: tuple[str, int, str, str], catalogue: Catalogue) -> ConfigurationError:
    *_, database, topic = home
    writers = ", ".join(catalogue.topic(topic).producers)
    return ConfigurationError(
        f"database {database} has no outbox that may write {topic}",
        kept="everything as it was: nothing was written",
        next_step=f"pass a connection to the database of {writers}; where it is that one: towpath provision",
    )


def _one(connection: Connection, codec: Codec, saga_id: str) -> InstanceStatus | None:
    with connection.cursor(row_factory=class_row(SagaInstance)) as cursor:
        try:
            row = cursor.execute(_BY_ID, (saga_id,)).fetchone()
        except errors.UndefinedTable:  # no worker has kept the view yet
            return None
    return None if row is None else standing_of(row, codec)
