"""The synchronous client: PostgreSQL is all that an application needs to reach, neither Kafka nor any worker.

The one rule: what is sent to a saga is one more row of the caller's transaction, and what became of it is read where
the view of instances has it, so both are right from any process, whatever crashed in between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from towpath.client.arguments import instance_id_of, require_instance_id, require_seconds
from towpath.client.awaiting import LOOK_SECONDS, AnswerTo, Ending, Found, Wanted, Which
from towpath.client.base import ClientBase
from towpath.client.driver.postgres import Caller, Connection, driver_of
from towpath.client.messages import Named, Sent, require_sent
from towpath.client.queries.postgres import LISTEN, home_of, query_of, reading
from towpath.client.saga import InstanceStatus, Result, Started, result_of, standing_of
from towpath.contract.record import Record
from towpath.orchestrator.requests import Answer
from towpath.orchestrator.sagas_view import SagaInstance
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import may_write, write
from towpath.saga.inputs import Action


class Client(ClientBase):
    """Starts sagas, signals and asks them, and follows them. Safe to share between threads.

    Whatever writes takes the caller's connection first: psycopg's, a session or connection of SQLAlchemy over psycopg,
    Django's connection; it becomes part of the transaction that is open there, and commits nothing. Of a psycopg pool
    it takes a connection of its own, and commits. It raises, before anything is written, ContractError for a record
    that breaks its schema, ConfigurationError for one that this saga does not take, for a connection that is none of
    these, and for a database whose outbox may not write the topic. The caller's transaction may go on after that.
    """

    def start(
        self, connection: Caller, saga: str, key: str, event: Record, *, event_id: UUID, **headers: Any
    ) -> Started:
        """Start a saga with `event`.

        The same `event_id` starts the same saga, once: take one that the request itself determines, and a request that
        is repeated starts nothing new. `headers` are further fields of `OutboxMessage` (`tenant`, `traceparent`).
        """
        with self._starting(saga, key, event, event_id=event_id, **headers) as (started, message):
            self._write(connection, message)
        return started

    def signal(
        self,
        connection: Caller,
        saga: str,
        key: str,
        record: Record,
        *,
        signal_id: UUID | None = None,
        saga_id: str | None = None,
        **headers: Any,
    ) -> Sent:
        """Give the instances of a business key, or the one called `saga_id`, what they wait for.

        The same `signal_id` is taken once; without one, the same record to the same key is the same signal.
        """
        with self._signalling(saga, key, record, signal_id=signal_id, saga_id=saga_id, **headers) as sent:
            self._write(connection, sent.message)
        return sent

    def cancel(
        self,
        connection: Caller,
        instance: Named,
        *,
        actor: str,
        reason: str,
        request_id: UUID | None = None,
        **headers: Any,
    ) -> Sent:
        """Ask an instance to undo what was done, because the business no longer wants it.

        Past the point of no return the saga refuses it: see `await_answer`.
        """
        return self.ask(
            connection, instance, Action.CANCEL, actor=actor, reason=reason, request_id=request_id, **headers
        )

    def ask(
        self,
        connection: Caller,
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
        """Ask an instance (a `Started`, or how one stands) to retry, resume, skip, cancel or compensate.

        `step` (and `item` of an `each`) say what a retry or a skip is about; `reply` is what a skip takes as the
        step's answer. The same `request_id` is decided once. Without one it follows from what is asked and from how
        the instance stood when the caller looked: asked again about the same standing, it is the same request. Of a
        `Started` nobody has looked how it stands, and each call is another request.
        """
        what: dict[str, Any] = {"step": step, "item": item, "reply": reply, "request_id": request_id}
        with self._asking(instance, action, actor=actor, reason=reason, **what, **headers) as sent:
            self._write(connection, sent.message)
        return sent

    def standing(self, saga_id: str | UUID) -> InstanceStatus | None:
        """Return how an instance stands, None while nothing was seen of it, or for a text that is no id.

        Raises WorldError.
        """
        id_ = instance_id_of(saga_id)
        if id_ is None:
            return None
        with self._views() as connection:
            return next(iter(self._read(connection, Which(id_))), None)

    def find(self, saga: str, key: str) -> list[InstanceStatus]:
        """Return the instances of `saga` for a business key, the latest first.

        Raises WorldError, ConfigurationError where there are none and the project has no such saga.
        """
        which = self._of_key(saga, key)
        with self._views() as connection:
            return self._known(saga, self._read(connection, which))

    def await_ending(self, saga_id: str | UUID, *, timeout_seconds: float) -> InstanceStatus:
        """Wait until a saga completed or compensated, or is stuck, and return how it stands then.

        The saga need not have begun; one whose start is refused is compensated, and its `reason` says why. Raises
        NotEnded when the time is over, WorldError where the views cannot be read.
        """
        return self._await(Ending(require_instance_id(saga_id), require_seconds(timeout_seconds)))

    def await_answer(self, sent: Sent, *, timeout_seconds: float) -> Answer:
        """Wait until a signal or a request was decided, and return whether it was applied, or why it was refused.

        Raises NotAnswered when the time is over, WorldError where the views cannot be read.
        """
        return self._await(AnswerTo(require_sent(sent), require_seconds(timeout_seconds)))

    def result(self, saga_id: str | UUID, kind: type[Result], *, timeout_seconds: float) -> Result:
        """Wait until a saga has completed, and return what it came to: the record that `saga.result` declares.

        Raises NotCompleted where it was undone or is stuck, NotEnded when the time is over.
        """
        return result_of(self.await_ending(saga_id, timeout_seconds=timeout_seconds), kind)

    def _write(self, caller: Caller, message: OutboxMessage) -> None:
        with driver_of(caller) as connection:
            home = home_of(connection, message.topic)
            if home not in self._homes:
                if not may_write(connection, message.topic):
                    raise self._messages.not_here(connection.info.dbname, message.topic)
                self._homes.add(home)
            write(connection, [message])

    def _await(self, wanted: Wanted[Found]) -> Found:
        deadline = self._clock.monotonic_seconds() + wanted.timeout_seconds
        with self._views() as connection:
            # Listening begins before the first look, so that no change slips in between.
            connection.execute(LISTEN)
            while True:
                standings = self._read(connection, wanted.which)
                found = wanted.found(standings)
                if found is not None:
                    return found
                left_seconds = deadline - self._clock.monotonic_seconds()
                if left_seconds <= 0:
                    raise wanted.too_late(standings)
                _hear(connection, wanted.which.ids(standings), min(left_seconds, LOOK_SECONDS))

    def _read(self, connection: Connection, which: Which) -> list[InstanceStatus]:
        with connection.cursor(row_factory=class_row(SagaInstance)) as cursor:
            try:
                return [standing_of(row, self.codec) for row in cursor.execute(*query_of(which))]
            except errors.UndefinedTable:  # no worker has kept the view yet
                return []

    def watch(self, *, seconds: float) -> Iterator[InstanceStatus]:
        """Yield how an instance stands each time that one changes, for so many seconds. Raises WorldError."""
        deadline = self._clock.monotonic_seconds() + seconds
        with self._views() as connection:
            connection.execute(LISTEN)
            while (left_seconds := deadline - self._clock.monotonic_seconds()) > 0:
                # Read whole before anything is asked on the same connection.
                changed = [told.payload for told in connection.notifies(timeout=min(left_seconds, 1.0), stop_after=1)]
                for saga_id in dict.fromkeys(changed):
                    yield from self._read(connection, Which(saga_id))

    @contextmanager
    def _views(self) -> Iterator[Connection]:
        """Connect to the views' database, in autocommit."""
        with reading(), psycopg.connect(**self._views_options()) as connection:
            yield connection


def _hear(connection: Connection, ids: set[str], seconds: float) -> None:
    """Return once the view says something of one of `ids`, or after `seconds`."""
    for told in connection.notifies(timeout=seconds):
        if told.payload in ids:
            return
