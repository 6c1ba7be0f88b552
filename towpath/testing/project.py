"""A whole project in memory: its sagas, services and views, on the memory broker, with time that passes when told.

Sagas run in the orchestrator's own engine, services answer by their own handlers on a scratch database, views fold by
their own folds. Without a PostgreSQL server a service's answers are declared by the test, and views keep their rows in
memory. The one rule: nothing happens but in `run` and its siblings, and the same test runs in the same order each time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID, uuid5

from towpath.client.saga import Started, require_start, start_topic
from towpath.clock import ManualClock
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, NotFoundError
from towpath.orchestrator import envelope
from towpath.orchestrator.agent import application_name as saga_application
from towpath.orchestrator.core import Orchestrator
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import own_views
from towpath.orchestrator.topics import started_by_events
from towpath.outbox.handover import routed_record
from towpath.outbox.message import OutboxMessage, from_record
from towpath.outbox.names import VIEWS_DATABASE
from towpath.participant.agent import application_name as service_application
from towpath.participant.execution import Answerer
from towpath.participant.postgres import apply_service_schema
from towpath.participant.service import Service
from towpath.saga.language import Saga
from towpath.stream.broker.dead_letter import DEAD_HEADER, dead_topic, read_dead_letter
from towpath.stream.broker.port import Groups, PartitionReader
from towpath.stream.broker.record import Batch, ConsumedRecord, TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.options import DatabaseOptions
from towpath.testing.instance import Instance
from towpath.testing.parts import ProjectParts
from towpath.testing.postgres import Relay, ScratchServer, connect, read_view, views_schema
from towpath.testing.substitute import DeclaredAnswers, Reply, Substitute, with_answers
from towpath.testing.workers import STREAM, SteppedBroker, Workers
from towpath.view.agent import Folding
from towpath.view.agent import application_name as view_application
from towpath.view.postgres import create_table
from towpath.view.view import View, fold_records

EVENT_NAMESPACE = UUID("5b0c0e9e-2f3c-5d0f-9a51-6c9d2b7f1f60")
DAY_MILLISECONDS = 86_400_000
TIMERS_MAX = 100_000
"""Timers of one call that lets time pass: beyond that something sets timers for ever."""


class InMemoryProject:
    """A project. `broker` is its cluster, `clock` its time, `codec` writes and reads its records."""

    def __init__(self, parts: ProjectParts, server: ScratchServer | None = None) -> None:
        """Put the workers of `parts` together; with a `server`, services and views have databases on it."""
        self.parts = parts
        self.codec: Codec = parts.codec
        self.clock = ManualClock()
        self.broker = SteppedBroker(STREAM, self.clock)
        self._server = server
        self._answers = DeclaredAnswers(parts)
        self._workers = Workers(self.broker, self.clock)
        self._relays: list[Relay] = []
        self._ends: list[Callable[[], object]] = [self._workers.close]
        self._folded: dict[str, _MemoryView] = {}
        self._read: dict[str, tuple[PartitionReader, list[tuple[str, Record]]]] = {}
        self._begun: dict[str, dict[str, Instance]] = {}
        self._looked: dict[str, int] = {}
        self._ids = 0
        self._dead_seen = 0
        self.settings = parts.settings
        for topic in parts.catalogue.topics.values():
            # One partition each: what concerns one key meets, and all is in one order.
            self.broker.create_topic(topic.name, 1, topic.kafka_config())
        try:
            if server is not None:
                self._make_databases(server)
            for name in parts.sagas:
                self._add_saga(name)
            for name in self._participants():
                self._add_service(name)
            for view in self._views():
                self._add_view(view)
        except BaseException:
            self.close()
            raise

    # --- what a test arranges ---------------------------------------------------------------------------------------

    def start(
        self,
        saga: Saga[Any] | str,
        event: Record,
        *,
        key: str | None = None,
        event_id: UUID | None = None,
        **headers: Any,
    ) -> Instance:
        """Have `event` start a saga, once the project runs; return its instance.

        `key` is by default the field of the event that is its topic's key; `headers` are further fields of
        `OutboxMessage`, as `tenant`. Raises ConfigurationError for an event that does not start the saga, ContractError
        for one that breaks its schema.
        """
        name = saga.name if isinstance(saga, Saga) else saga
        require_start(self.parts.sagas, name, type(event))
        topic = start_topic(self.parts.catalogue, name, type(event))
        key = key or self.parts.key_of(topic, event)
        event_id = event_id or self._next_id()
        self._carry(from_record(self.codec, topic, key, event, id=event_id, **headers))
        return self.instance(name, key, event_id)

    def publish(self, topic: str, record: Record, *, key: str | None = None, **headers: Any) -> None:
        """Put any record into a topic, as its producer would. Raises NotFoundError, ContractError."""
        declared = self.parts.catalogue.topic(topic)
        key = key or self.parts.key_of(declared.name, record)
        self._carry(from_record(self.codec, topic, key, record, id=self._next_id(), **headers))

    def answers(
        self, command: type[Record], reply: Reply, *, emits: Iterable[Record | type[Record]] = ()
    ) -> "InMemoryProject":
        """Declare how a command is answered, in place of its service's own handler.

        `reply` is a record; or a class, of which one is made: fields that the command has too are the command's, the
        others those of the contracts' first good example; or a function of the command; or None: nobody answers.
        `emits` are events that leave with the reply. A service keeps its contract all the same: what is recorded for an
        idempotency key is repeated, and a command that comes after its undo is passed over.
        """
        self._answers.declare(command, reply, emits)
        return self

    def answers_by_example(self) -> "InMemoryProject":
        """Answer whatever nothing else is declared for by its first success, made by example: no service is asked."""
        self._answers.by_example = True
        return self

    @contextmanager
    def away(self, *workers: str) -> Iterator[None]:
        """Keep workers from running while the block lasts: `service:catalog`, or `catalog` for whatever has that name.

        What is sent to them waits, as for a worker that crashed.
        """
        for name in workers:
            self._workers.pause(name, paused=True)
        try:
            yield
        finally:
            for name in workers:
                self._workers.pause(name, paused=False)

    @contextmanager
    def database(self, service: str) -> Iterator[Any]:
        """Yield a psycopg connection to a service's scratch database (or `views`); commit at the end of the block.

        Raises ConfigurationError where the tests have no PostgreSQL server.
        """
        if self._server is None:
            raise ConfigurationError(
                f"there is no database of {service}: these tests run without PostgreSQL",
                next_step="pytest --towpath-postgres URL, or --towpath-postgres up beside a stack that runs",
            )
        with connect(self.settings.postgres.database_url(service)) as connection:
            yield connection

    # --- what a test lets happen ------------------------------------------------------------------------------------

    def run(self) -> "InMemoryProject":
        """Let everything happen that can without time passing.

        Raises AssertionError where a record could not be applied: a dead letter, with the error that killed it.
        """
        self._workers.until_quiet(self._relay)
        self._require_no_dead_letters()
        return self

    def run_for(self, duration: timedelta) -> "InMemoryProject":
        """Let so much time pass, at once; timers that fall due on the way fire, each at its own time, in order."""
        self._run_until(lambda: False, self.clock.now() + duration)
        return self

    def run_until_next_timer(self) -> "InMemoryProject":
        """Let time pass until the next timer falls due and fires. Raises AssertionError where none runs."""
        self.run()
        due = self._workers.next_due()
        assert due is not None, "no timer runs"
        self._workers.advance_to(due)
        return self.run()

    def run_until(self, condition: Callable[[], bool], *, within: timedelta = timedelta(days=366)) -> "InMemoryProject":
        """Let time pass, from timer to timer, until `condition` holds. Raises AssertionError where it does not."""
        held = self._run_until(condition, self.clock.now() + within)
        assert held, f"not reached within {within}: {', '.join(map(repr, self.instances())) or 'no saga has begun'}"
        return self

    def run_to_the_end(self, *, within: timedelta = timedelta(days=366)) -> "InMemoryProject":
        """Let time pass, from timer to timer, until every saga has ended or is stuck."""
        return self.run_until(lambda: all(one.ended or one.stuck for one in self.instances()), within=within)

    def _run_until(self, condition: Callable[[], bool], end: datetime) -> bool:
        for _ in range(TIMERS_MAX):
            self.run()
            if condition():
                return True
            due = self._workers.next_due()
            if due is None or due > end:
                self._workers.advance_to(end)
                self.run()
                return condition()
            self._workers.advance_to(due)
        raise AssertionError(f"{TIMERS_MAX} timers have fired, and more are set")

    # --- what a test looks at ---------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Return the virtual time."""
        return self.clock.now()

    def instance(self, saga: Saga[Any] | str, key: str, event_id: UUID) -> Instance:
        """Return the instance that an event starts, whether it has begun or not."""
        name = saga.name if isinstance(saga, Saga) else saga
        return Instance(self, name, Started.by(name, key, event_id).saga_id, key)

    def instances(self, saga: Saga[Any] | str | None = None, key: str | None = None) -> list[Instance]:
        """Return the instances that have begun, of one saga and one key if these are given; the oldest first."""
        wanted = saga.name if isinstance(saga, Saga) else saga
        found: list[Instance] = []
        for name in [wanted] if wanted is not None else self.parts.sagas:
            entries = self.entries(envelope.topic_of(name, envelope.HISTORY))
            begun = self._begun.setdefault(name, {})
            for own, entry in islice(entries, self._looked.get(name, 0), None):
                if isinstance(entry, HistoryEntry) and entry.saga_id and entry.saga_id not in begun:
                    begun[entry.saga_id] = Instance(self, name, entry.saga_id, own)
            self._looked[name] = len(entries)
            found += [instance for instance in begun.values() if key in (None, instance.key)]
        return found

    def records(self, topic: str) -> list[Record]:
        """Return the records of a topic, decoded, in their order."""
        return [record for _, record in self.entries(topic)]

    def entries(self, topic: str) -> Sequence[tuple[str, Record]]:
        """Return the records of a topic, decoded and with their keys, in their order: as it grows, so does this list.

        What a test asks again and again while days pass is decoded once.
        """
        if topic not in self._read:
            self._read[topic] = (self.broker.reader(TopicPartition(topic, 0), 0), [])
        reader, known = self._read[topic]
        while records := reader.poll(0.0)[0]:
            known += [
                ((record.key or b"").decode(), self.codec.decode(record.value))
                for record in records
                if record.value is not None
            ]
        return known

    def sent(self, kind: type[Record]) -> list[Any]:
        """Return every record of a class that lies in any topic that may carry it, topic by topic."""
        topics = [topic.name for topic in self.parts.catalogue.carrying(kind.SCHEMA_NAME)]
        return [record for topic in topics for record in self.records(topic) if type(record) is kind]

    def rows(self, view: View[Any] | str) -> list[Any]:
        """Return the rows of a view, in the order of their keys. Raises NotFoundError for one that is not there."""
        found = self._view(view)
        if self._server is None:
            return self._folded[found.table].rows()
        with self.database(VIEWS_DATABASE) as connection:
            return read_view(connection, found)

    def row(self, view: View[Any] | str, key: str) -> Any:
        """Return one row of a view, None if it has none of that key."""
        found = self._view(view)
        return next((row for row in self.rows(found) if getattr(row, found.key) == key), None)

    def _view(self, view: View[Any] | str) -> View[Any]:
        """Return the view, of which a name means the newest version."""
        if isinstance(view, View):
            return view
        versions = [each for each in self._views() if each.name == view]
        if not versions:
            names = ", ".join(dict.fromkeys(each.name for each in self._views()))
            raise NotFoundError(f"there is no view {view!r}", next_step=f"use one of {names}")
        return versions[-1]

    def close(self) -> None:
        """Stop the workers and close what was opened."""
        for end in self._ends:
            end()
        self._ends.clear()

    # --- how it is put together -------------------------------------------------------------------------------------

    def _participants(self) -> list[str]:
        """Return the services of the project and whoever else takes commands of its sagas."""
        commands = [name for name in self.parts.catalogue.topics if name.endswith(".commands")]
        return list(dict.fromkeys([*self.parts.services, *(name.removesuffix(".commands") for name in commands)]))

    def _views(self) -> list[View[Any]]:
        return [*self.parts.views, *own_views(self.parts.sagas)]

    def _make_databases(self, server: ScratchServer) -> None:
        names = [*self.parts.services, VIEWS_DATABASE]
        self.settings = server.settings(self.parts.settings, names)
        for service in self.parts.services:
            server.prepare(service, partial(apply_service_schema, self.settings, service, capture=False))
        server.prepare(VIEWS_DATABASE, partial(views_schema, self.settings))
        for name in names:
            relay = Relay(self.settings.postgres.database_url(name))
            self._relays.append(relay)
            self._ends.append(relay.close)

    def _add_saga(self, name: str) -> None:
        definitions, catalogue = self.parts.sagas[name], self.parts.catalogue
        starts = started_by_events(name, self.parts.sagas, catalogue)
        topics = dict.fromkeys(start_topic(catalogue, name, kind) for kind in starts)
        orchestrator = Orchestrator(
            definitions,
            self.codec,
            start_topic=tuple(topics) or None,
            finished_retention_milliseconds=int(self.settings.saga.finished_retention_days * DAY_MILLISECONDS),
        )

        async def run_saga(unit: Any, groups: Groups) -> None:
            for record in _in_order(groups):
                _blaming(record, partial(orchestrator.handle, record, unit))

        self._workers.add(
            f"saga:{name}",
            saga_application(self.settings, name),
            [topic for topic in orchestrator.topics if topic in catalogue.topics],
            run_saga,
            states=(envelope.topic_of(name, envelope.STATE),),
            timers_topic=envelope.topic_of(name, envelope.TIMERS),
            limits=RecordLimits(catalogue.message_bytes_max()),
        )

    def _add_service(self, name: str) -> None:
        application, topics = service_application(self.settings, name), [f"{name}.commands"]
        service = self.parts.services.get(name)
        if service is None or self._server is None:
            substitute = Substitute(name, self.parts, self._answers)

            async def answer_as_declared(unit: Any, groups: Groups) -> None:
                for records in groups.values():
                    substitute.answer(records, unit)

            self._workers.add(f"service:{name}", application, topics, answer_as_declared)
            return
        outside = service.opens(self.settings) if service.opens is not None else None
        close = getattr(outside, "close", None)
        if close is not None:
            self._ends.append(close)
        declared = [with_answers(name, handling, self._answers) for handling in service.handlings.values()]
        answerer = Answerer(Service(name, handlers=declared), self.codec, outside=outside)

        async def answer_commands(unit: Any, groups: Groups) -> None:
            for records in groups.values():
                await unit.run(partial(answerer.answer, records=records, now=self.clock.now()))

        self._workers.add(f"service:{name}", application, topics, answer_commands, **self._in_database(name))

    def _add_view(self, view: View[Any]) -> None:
        horizon = int(self.settings.stream.dedup_horizon_days * DAY_MILLISECONDS)
        application = view_application(self.settings, view)
        folding = Folding(application, view, self.codec, horizon)
        oldest = min(each.version for each in self._views() if each.name == view.name)
        name = f"view:{view.name}" if view.version == oldest else f"view:{view.name}@{view.version}"
        if self._server is None:
            memory = self._folded[view.table] = _MemoryView(view, folding)

            async def fold_in_memory(_: Any, groups: Groups) -> None:
                for (topic, partition), records in groups.items():
                    memory.apply(Batch(topic, partition, records))

            self._workers.add(name, application, view.topics, fold_in_memory)
            return
        create_table(self.settings, view)

        async def keep_view(unit: Any, groups: Groups) -> None:
            for (topic, partition), records in groups.items():
                read = folding.read(Batch(topic, partition, records))
                if read:
                    await unit.run(partial(folding.apply, read=read, now_milliseconds=unit.now_milliseconds))

        self._workers.add(name, application, view.topics, keep_view, **self._in_database(VIEWS_DATABASE))

    def _in_database(self, name: str) -> dict[str, Any]:
        postgres = self.settings.postgres
        url, options = postgres.database_url(name), postgres.connection_options()
        return {"unit_of_work": "database", "database": DatabaseOptions(url=url, connection_options=options)}

    # --- how messages go --------------------------------------------------------------------------------------------

    def _next_id(self) -> UUID:
        self._ids += 1
        return uuid5(EVENT_NAMESPACE, str(self._ids))

    def _relay(self) -> int:
        """Carry what outboxes hold, as capture does; return how many messages."""
        messages = [message for relay in self._relays for message in relay.messages()]
        for message in messages:
            self._carry(message)
        return len(messages)

    def _carry(self, message: OutboxMessage) -> None:
        routed = routed_record(message)
        self.broker.append(routed.topic, routed.value, key=routed.key, headers=routed.headers)

    def _require_no_dead_letters(self) -> None:
        topics = [name for name in self.parts.catalogue.topics if name.endswith(dead_topic(""))]
        dead = [record for topic in topics for record in self.broker.records(topic)]
        new, self._dead_seen = dead[self._dead_seen :], len(dead)
        if new:
            raise self._death(new)

    def _death(self, dead: list[ConsumedRecord]) -> AssertionError:
        letter = read_dead_letter(dead[0].header(DEAD_HEADER) or "")
        raised = self._workers.raised(letter.position)
        kind = dead[0].header("type") or "a record"
        more = f" (and {len(dead) - 1} further ones)" if len(dead) > 1 else ""
        error = AssertionError(
            f"{kind.rpartition('.')[2]} in {letter.topic} is a dead letter{more}: {letter.application} cannot apply "
            f"it: {letter.error}: {letter.cause}"
        )
        error.__cause__ = raised
        return error


class _MemoryView:
    """A view whose rows are in memory."""

    def __init__(self, view: View[Any], folding: Folding) -> None:
        self._view = view
        self._folding = folding
        self._rows: dict[str, Any] = {}
        self._seen: set[str] = set()

    def apply(self, batch: Batch) -> None:
        """Fold a batch, each event once."""
        fresh = []
        for folded in self._folding.read(batch):
            if folded.occurrence.event_id not in self._seen:
                self._seen.add(folded.occurrence.event_id)
                fresh.append((folded.key, folded.record, folded.occurrence))
        for key, row in fold_records(self._view, self._rows, fresh).items():
            if row is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = row

    def rows(self) -> list[Any]:
        """Return the rows in the order of their keys."""
        return [row for _, row in sorted(self._rows.items())]


def _in_order(groups: Groups) -> Iterator[ConsumedRecord]:
    for records in groups.values():
        yield from records


def _blaming(record: ConsumedRecord, function: Callable[[], object]) -> None:
    try:
        function()
    except Exception as error:
        raise RecordFailed(record, error) from error
