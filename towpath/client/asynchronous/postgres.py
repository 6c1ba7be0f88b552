"""The asynchronous client: the calls of `Client`, awaited, on psycopg's asynchronous connections.

The one rule is that of the synchronous one; what is sent and what is looked for is decided by the same code.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from towpath.client.arguments import instance_id_of, require_instance_id, require_seconds
from towpath.client.awaiting import LOOK_SECONDS, AnswerTo, Ending, Found, Wanted, Which
from towpath.client.base import ClientBase
from towpath.client.driver.postgres import AsyncCaller, AsyncConnection, async_driver_of
from towpath.client.messages import Named, Sent, require_sent
from towpath.client.queries.postgres import LISTEN, home_of, query_of, reading
from towpath.client.saga import InstanceStatus, Result, Started, result_of, standing_of
from towpath.contract.record import Record
from towpath.orchestrator.requests import Answer
from towpath.orchestrator.sagas_view import SagaInstance
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import may_write_async, write_async
from towpath.saga.inputs import Action


class AsyncClient(ClientBase):
    """Starts sagas, signals and asks them, and follows them, on asyncio. Safe to share between tasks.

    Whatever writes takes the caller's connection first: psycopg's `AsyncConnection`, an `AsyncSession` or
    `AsyncConnection` of SQLAlchemy over psycopg; it becomes part of the transaction that is open there, and commits
    nothing. Of an `AsyncConnectionPool` it takes a connection of its own, and commits. It raises what `Client` raises.
    """

    async def start(
        self, connection: AsyncCaller, saga: str, key: str, event: Record, *, event_id: UUID, **headers: Any
    ) -> Started:
        """Start a saga with `event`, as `Client.start` does."""
        with self._starting(saga, key, event, event_id=event_id, **headers) as (started, message):
            await self._write(connection, message)
        return started

    async def signal(
        self,
        connection: AsyncCaller,
        saga: str,
        key: str,
        record: Record,
        *,
        signal_id: UUID | None = None,
        saga_id: str | None = None,
        **headers: Any,
    ) -> Sent:
        """Give the instances of a business key, or the one called `saga_id`, what they wait for (`Client.signal`)."""
        with self._signalling(saga, key, record, signal_id=signal_id, saga_id=saga_id, **headers) as sent:
            await self._write(connection, sent.message)
        return sent

    async def cancel(
        self,
        connection: AsyncCaller,
        instance: Named,
        *,
        actor: str,
        reason: str,
        request_id: UUID | None = None,
        **headers: Any,
    ) -> Sent:
        """Ask an instance to undo what was done, because the business no longer wants it (`Client.cancel`)."""
        return await self.ask(
            connection, instance, Action.CANCEL, actor=actor, reason=reason, request_id=request_id, **headers
        )

    async def ask(
        self,
        connection: AsyncCaller,
        instance: Named,
        action: Action,
        *,
        actor: str,
        reason: str,
        step: str = "",
        item: str = "",
        reply: Record | None = None,
        request_id: UUID | None = None,
        **headers: Any,
    ) -> Sent:
        """Ask an instance to retry, resume, skip, cancel or compensate, as `Client.ask` does."""
        what: dict[str, Any] = {"step": step, "item": item, "reply": reply, "request_id": request_id}
        with self._asking(instance, action, actor=actor, reason=reason, **what, **headers) as sent:
            await self._write(connection, sent.message)
        return sent

    async def standing(self, saga_id: str | UUID) -> InstanceStatus | None:
        """Return how an instance stands, None while nothing was seen of it, or for a text that is no id.

        Raises WorldError.
        """
        id_ = instance_id_of(saga_id)
        if id_ is None:
            return None
        async with self._views() as connection:
            return next(iter(await self._read(connection, Which(id_))), None)

    async def find(self, saga: str, key: str) -> list[InstanceStatus]:
        """Return the instances of `saga` for a business key, the latest first.

        Raises WorldError, ConfigurationError where there are none and the project has no such saga.
        """
        which = self._of_key(saga, key)
        async with self._views() as connection:
            return self._known(saga, await self._read(connection, which))

    async def await_ending(self, saga_id: str | UUID, *, timeout_seconds: float) -> InstanceStatus:
        """Wait until a saga completed or compensated, or is stuck (`Client.await_ending`)."""
        return await self._await(Ending(require_instance_id(saga_id), require_seconds(timeout_seconds)))

    async def await_answer(self, sent: Sent, *, timeout_seconds: float) -> Answer:
        """Wait until a signal or a request was decided, and return what became of it (`Client.await_answer`)."""
        return await self._await(AnswerTo(require_sent(sent), require_seconds(timeout_seconds)))

    async def result(self, saga_id: str | UUID, kind: type[Result], *, timeout_seconds: float) -> Result:
        """Wait until a saga has completed, and return what it came to (`Client.result`)."""
        return result_of(await self.await_ending(saga_id, timeout_seconds=timeout_seconds), kind)

    async def _write(self, caller: AsyncCaller, message: OutboxMessage) -> None:
        async with async_driver_of(caller) as connection:
            home = home_of(connection, message.topic)
            if home not in self._homes:
                if not await may_write_async(connection, message.topic):
                    raise self._messages.not_here(connection.info.dbname, message.topic)
                self._homes.add(home)
            await write_async(connection, [message])

    async def _await(self, wanted: Wanted[Found]) -> Found:
        deadline = self._clock.monotonic_seconds() + wanted.timeout_seconds
        async with self._views() as connection:
            # Listening begins before the first look, so that no change slips in between.
            await connection.execute(LISTEN)
            while True:
                standings = await self._read(connection, wanted.which)
                found = wanted.found(standings)
                if found is not None:
                    return found
                left_seconds = deadline - self._clock.monotonic_seconds()
                if left_seconds <= 0:
                    raise wanted.too_late(standings)
                await _hear(connection, wanted.which.ids(standings), min(left_seconds, LOOK_SECONDS))

    async def _read(self, connection: AsyncConnection, which: Which) -> list[InstanceStatus]:
        async with connection.cursor(row_factory=class_row(SagaInstance)) as cursor:
            try:
                await cursor.execute(*query_of(which))
            except errors.UndefinedTable:  # no worker has kept the view yet
                return []
            return [standing_of(row, self.codec) for row in await cursor.fetchall()]

    @asynccontextmanager
    async def _views(self) -> AsyncIterator[AsyncConnection]:
        """Connect to the views' database, in autocommit."""
        with reading():
            async with await psycopg.AsyncConnection.connect(**self._views_options()) as connection:
                yield connection


async def _hear(connection: AsyncConnection, ids: set[str], seconds: float) -> None:
    """Return once the view says something of one of `ids`, or after `seconds`."""
    async for told in connection.notifies(timeout=seconds):
        if told.payload in ids:
            return
