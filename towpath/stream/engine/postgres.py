"""The database form of a unit of work: effects and offsets in one PostgreSQL transaction.

The one rule: Kafka's generations guard nothing here. Whoever applies a partition holds its row in `towpath_offsets`
and finds there the offset that it last read or wrote; a ghost finds another one, and has done nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from typing import Any, NamedTuple, TypeVar

import psycopg
import structlog

from towpath.clock import epoch_milliseconds
from towpath.errors import ConfigurationError, ProgrammerError, WorldError, first_line
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import MAY_MAKE_TABLES, permitted, require_own, write
from towpath.stream.broker.dead_letter import DeadLetter, key_name
from towpath.stream.broker.port import GroupMetadata, Groups, OutcomeUnknown, StaleMember, TransactionAborted
from towpath.stream.broker.position import PartitionHeld, lost_tail, read_lost_tail, recreated
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.connection.postgres import TransactionEnded, UnitConnection, own_factories
from towpath.stream.engine.dead_message import dead_message
from towpath.stream.engine.elsewhere.postgres import OFFSETS_COLUMNS, TABLES, require_in_public
from towpath.stream.engine.failures import AgentFailed, Blame, RecordFailed, Work, all_in
from towpath.stream.engine.loop import UnitLoop
from towpath.stream.engine.options import StreamOptions
from towpath.stream.engine.sqlstate import blame_of
from towpath.stream.engine.unit import Unit
from towpath.stream.state.parking import Parked, parked_of

log = structlog.get_logger("towpath.stream.engine.postgres")
T = TypeVar("T")
Connection = psycopg.Connection[Any]

CONNECT_TIMEOUT_SECONDS = 5
LOCK_TIMEOUT_SECONDS = 5.0
"""Longest wait for a row that another worker's open transaction holds; that one is ended by its own time-out."""

SHOW_SECONDS = 1.0
"""How far the group's offsets, which only show lag, may be behind those of the database."""

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)
"""What the engine's own statements meet of a database that is away, or a standby since a failover.

A unit begins with one that a read-only transaction refuses: where a function meets that, it has made it so itself.
"""

_LOCK = """
SELECT topic, partition, topic_id, next_offset, note, leader_epoch, pg_current_xact_id()::text
  FROM public.towpath_offsets
 WHERE application = %s AND (topic, partition) IN (SELECT * FROM unnest(%s::text[], %s::int[]))
 ORDER BY topic, partition FOR UPDATE
"""
_ADVANCE = """
UPDATE public.towpath_offsets AS kept
   SET next_offset = given.next_offset, leader_epoch = given.leader_epoch, updated_at = now()
  FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::int[])
    AS given (topic, partition, expected, next_offset, leader_epoch)
 WHERE kept.application = %s AND kept.topic = given.topic AND kept.partition = given.partition
   AND kept.next_offset = given.expected
RETURNING pg_current_xact_id()::text
"""
_BECAME = "SELECT pg_xact_status(%s::xid8)"
_MAY_WORK = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(f'public.{name}' for name in TABLES)} TO {{}}"
_ADD = """
INSERT INTO public.towpath_offsets (application, topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
_NOTE = """
UPDATE public.towpath_offsets SET note = %s
 WHERE application = %s AND topic = %s AND partition = %s AND next_offset = %s
"""
_PARK = """
INSERT INTO public.towpath_parked AS parked (application, partition, key, behind, held, spans)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (application, partition, key) DO UPDATE
  SET behind = excluded.behind, held = excluded.held, spans = excluded.spans
"""
_PARKED = "SELECT partition, key, concat_ws(' ', held, behind, spans) FROM public.towpath_parked WHERE application = %s"
_LOCK_NUMBER = "SELECT pg_advisory_xact_lock(hashtextextended('towpath_parked ' || %s || ' ' || %s, 0))"
_UNPARK = "DELETE FROM public.towpath_parked WHERE application = %s AND partition = %s AND key = %s"


def create_stream_tables(connection: Connection) -> None:
    """Create what workers keep in a database where it is missing, in the transaction of `connection`.

    Raises ConfigurationError, with what to grant, where this role may not, or where `public` has another table of the
    name.
    """
    with permitted(connection, MAY_MAKE_TABLES):
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath stream', 0))")
        require_own(connection, "towpath_offsets", list(OFFSETS_COLUMNS))
        connection.execute(resources.files(__package__).joinpath("stream.sql").read_bytes())


class _Stored(NamedTuple):
    """What the database keeps of a partition; `note` is what holds it (see `towpath.stream.broker.position`)."""

    topic_id: str
    next_offset: int
    note: str
    leader_epoch: int
    transaction: str
    """The id of the transaction that read it."""


class DatabaseAway(WorldError):
    """The database did not answer, or ended the transaction: the same work may succeed later."""


class DatabaseUnit(Unit):
    """Effects in the database, dead letters in its outbox, and the offsets, in one transaction."""

    def __init__(
        self, number: int, groups: Groups, transaction: "DatabaseTransaction", *, now_milliseconds: int
    ) -> None:
        super().__init__(number, transaction.application, groups, now_milliseconds=now_milliseconds)
        self._transaction = transaction
        self.letters: list[OutboxMessage] = []
        self.parked: dict[tuple[int, bytes], Parked | None] = {}
        self.begun = False
        self.transaction = ""
        """The id of its transaction, once that has begun."""

    async def run(self, function: Callable[[Connection], T]) -> T:
        """Run `function(connection)` in this unit's transaction, in the unit's own thread, and return its result.

        Raises DatabaseAway where the database is, StaleMember where another worker has these partitions, and what
        the function raises.
        """
        self.require_open()
        return await self._transaction.run(self, function)

    def _parks(self, record: ConsumedRecord) -> bool:
        return self._transaction.parks and record.key is not None

    def _parked(self, record: ConsumedRecord) -> Parked | None:
        if record.key is None:
            return None
        place = (record.partition, key_name(record.key))
        return self.parked[place] if place in self.parked else self._transaction.parked.get(place)

    def _park(self, record: ConsumedRecord, parked: Parked | None) -> None:
        assert record.key is not None
        self.parked[record.partition, key_name(record.key)] = parked

    def _send_dead(self, record: ConsumedRecord, letter: DeadLetter) -> None:
        self._transaction.require_outbox(record)
        self.letters.append(dead_message(record, letter, by_reference=self.by_reference))


class DatabaseTransaction:
    """Units of work against one database."""

    def __init__(self, options: StreamOptions, loop: UnitLoop) -> None:
        assert options.database is not None
        self.application = options.application
        self.parks = options.parks_keys
        self.parked: dict[tuple[int, bytes], Parked] = {}
        self._clock = options.clock
        self._database = options.database
        self._settings = options.settings
        self._broker = options.broker
        self._loop = loop
        self._connection: UnitConnection | None = None
        self._shares_numbers = False
        self._expected: dict[TopicPartition, int] = {}
        self.epochs: dict[TopicPartition, int] = {}
        self._unshown: dict[TopicPartition, int] = {}
        self._shown_at_seconds = float("-inf")
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"{options.application}-database")

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *arguments))

    @property
    def is_ready(self) -> bool:
        """Return whether there is a connection that is not known to be broken."""
        return self._connection is not None and not self._connection.closed

    async def start(self) -> None:
        """Connect anew, and make the tables where they are missing. Raises DatabaseAway."""
        await self._in_thread(self._start)

    def _start(self) -> None:
        self._drop_connection()
        milliseconds = int(self._settings.transaction_timeout_seconds * 1000)
        options = (
            # A worker that was stopped in the middle holds its rows; after this the server lets go of them.
            f"-c idle_in_transaction_session_timeout={milliseconds} -c statement_timeout={milliseconds} "
            f"-c lock_timeout={int(LOCK_TIMEOUT_SECONDS * 1000)}"
        )
        try:
            connection = UnitConnection.connect(
                self._database.url,
                options=options,
                application_name=self.application,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                # One that began read-only stays so: what comes back, or another host of the URL, needs another.
                target_session_attrs="read-write",
                **dict[str, Any](self._database.connection_options),
            )
            try:
                with connection.transaction():
                    create_stream_tables(connection)
                with connection.transaction():
                    require_in_public(connection, self.application)
            except BaseException:
                connection.close()
                raise
        except _AWAY as error:
            raise self._away("cannot reach the database", error) from error
        self._connection = connection

    @property
    def may_fence_itself(self) -> bool:
        """Return False: a lock on a row ends with its connection."""
        return False

    async def positions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | PartitionHeld | None]:
        """Return where the database stands, once no other transaction is open over it.

        In place of a position, why there is none: the topic is another one than that which was applied.
        """
        wanted = list(partitions)
        ids = await asyncio.to_thread(self._broker.topic_ids, {partition.topic for partition in wanted})
        # Where an application stands that has read nothing yet: what expires from then on has expired unread.
        begins = await asyncio.to_thread(self._broker.begin_offsets, wanted)
        counts = await asyncio.to_thread(self._broker.partition_counts, self._loop.ownership.topics)
        # Where the topics' counts differ, partitions of one number may be two workers'; parked keys go by the number.
        self._shares_numbers = self.parks and len(set(counts.values())) > 1
        return await self._in_thread(self._read_positions, wanted, ids, begins)

    def _read_positions(
        self, wanted: list[TopicPartition], ids: Mapping[str, str], begins: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int | PartitionHeld | None]:
        connection = self._connected()
        try:
            with permitted(connection, _MAY_WORK), connection.transaction():
                with connection.cursor() as cursor:
                    cursor.executemany(
                        _ADD, [(self.application, *place, ids[place.topic], begins[place]) for place in wanted]
                    )
                rows = self._lock(connection, wanted)
                self.parked = self._read_parked(connection)
        except _AWAY as error:
            raise self._away("cannot read its offsets", error) from error
        self._expected.update({place: stored.next_offset for place, stored in rows.items()})
        self.epochs.update({place: stored.leader_epoch for place, stored in rows.items()})
        return {place: self._position(place, ids[place.topic], stored) for place, stored in rows.items()}

    def _position(self, place: TopicPartition, topic_id: str, stored: _Stored) -> int | PartitionHeld:
        if stored.topic_id != topic_id:
            return recreated(self.application, place, stored.next_offset)
        end = read_lost_tail(stored.note)
        return stored.next_offset if end is None else lost_tail(self.application, place, stored.next_offset, end)

    async def note(self, partition: TopicPartition, text: str, offset: int) -> bool:
        """Write a note beside a stored offset, if that is still `offset`. Raises DatabaseAway."""
        await self._in_thread(self._note, partition, text, offset)
        return True

    def _note(self, partition: TopicPartition, text: str, offset: int) -> None:
        connection = self._connected()
        try:
            with connection.transaction():
                connection.execute(_NOTE, (text, self.application, *partition, offset))
        except _AWAY as error:
            raise self._away("cannot write a note", error) from error

    def _away(self, what: str, error: psycopg.Error) -> DatabaseAway:
        """Return what a statement of the engine's own means that failed; a session that began read-only stays so."""
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            self._drop_connection()
        return DatabaseAway(f"{self.application}: {what}: {first_line(error)}")

    def _read_parked(self, connection: Connection) -> dict[tuple[int, bytes], Parked]:
        rows = connection.execute(_PARKED, (self.application,)).fetchall()
        return {(partition, key): parked_of(text) for partition, key, text in rows}

    def _check_parked(self, connection: Connection, numbers: set[int]) -> None:
        """Raise StaleMember where another worker has parked or freed a key of these numbers since this one looked."""
        found = self._read_parked(connection)
        changed = {place for place in found.keys() | self.parked.keys() if found.get(place) != self.parked.get(place)}
        if any(number in numbers for number, _ in changed):
            raise StaleMember(f"{self.application}: another worker has parked or freed keys of {sorted(numbers)} since")

    def _lock(self, connection: Connection, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, _Stored]:
        places = list(partitions)
        rows = connection.execute(
            _LOCK, (self.application, [place.topic for place in places], [place.partition for place in places])
        ).fetchall()
        return {TopicPartition(topic, number): _Stored(*row) for topic, number, *row in rows}

    def open(self, number: int, groups: Groups) -> DatabaseUnit:
        """Begin a unit. The database's transaction begins with the first call of `run`, or at the commit."""
        now_milliseconds = epoch_milliseconds(self._clock)
        return DatabaseUnit(number, groups, self, now_milliseconds=now_milliseconds)

    async def run(self, unit: DatabaseUnit, function: Callable[[Connection], T]) -> T:
        """Run a function in a unit's transaction."""
        return await self._in_thread(self._run, unit, function)

    def _run(self, unit: DatabaseUnit, function: Callable[[Connection], T]) -> T:
        # Aborted while this waited for its turn? What is written then would be committed by the next unit.
        unit.require_open()
        try:
            connection = self._begun(unit)
            with own_factories(connection):
                return function(connection)
        except StopIteration as error:
            # No future can carry it out of a thread: whoever awaits it would wait for ever.
            raise RuntimeError("the function raised StopIteration") from error
        except (psycopg.Error, RecordFailed, ExceptionGroup) as error:
            cause = next(filter(self._blames_world, all_in(error, (psycopg.Error,))), None)
            if cause is not None:
                raise DatabaseAway(f"{self.application}: {first_line(cause)}") from error
            raise

    def _blames_world(self, error: psycopg.Error) -> bool:
        """Return whether the database, and not what was asked of it, is at fault."""
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            # A function has made its unit's transaction so; but a foreign table hands on what another server says.
            return (error.diag.source_function or "").startswith(("pgfdw_", "dblink_"))
        if error.sqlstate is not None:
            return blame_of(error.sqlstate) is Blame.WORLD
        # The client's own error: of a connection that went away, unless the handler closed it.
        return self._connection is None or self._connection.broken

    def _begun(self, unit: DatabaseUnit) -> UnitConnection:
        """Lock the unit's rows and compare: only the worker that they name as the last may go on.

        Where keys are parked, with the rows of the other topics of its numbers: a key may have been parked by what
        another worker has applied of those.
        """
        connection = self._connected()
        if not unit.begun:
            unit.begun = True
            numbers = {place.partition for place in unit.groups} if self.parks else set[int]()
            try:
                places = {*unit.groups, *(place for place in list(self._expected) if place.partition in numbers)}
                rows = self._lock(connection, places)
                if self._shares_numbers:
                    self._check_parked(connection, numbers)
            except psycopg.Error as error:
                raise self._away("cannot begin a unit of work", error) from error
            for place in places:
                records = unit.groups.get(place)
                found = rows[place].next_offset if place in rows else -1
                if found != self._expected.get(place) or (records and records[0].offset < found):
                    raise StaleMember(
                        f"{place}: the database stands at {found}, this worker at {self._expected.get(place)}: "
                        "another one has applied it since"
                    )
                unit.transaction = rows[place].transaction
        return connection

    async def commit(
        self,
        unit: Unit,
        offsets: Mapping[TopicPartition, int],
        metadata: GroupMetadata | None,  # noqa: ARG002 - guards the Kafka form
    ) -> bool:
        """Write dead letters and offsets, and commit."""
        assert isinstance(unit, DatabaseUnit)
        unit.close()
        if not offsets:  # nothing but to show what is owed
            await self._show()
            return False
        await self._in_thread(self._commit, unit, offsets)
        for function in unit.committed:
            function()
        self._unshown.update(offsets)
        if self._show_is_due():
            await self._show()
        return True

    def _show_is_due(self) -> bool:
        return self._clock.monotonic_seconds() - self._shown_at_seconds >= SHOW_SECONDS

    async def _show(self) -> None:
        """Let people see the lag in the group's offsets; one request for each unit would be a tenth of its cost."""
        offsets, self._unshown = self._unshown, {}
        self._shown_at_seconds = self._clock.monotonic_seconds()
        await self._loop.show_offsets(offsets)

    @property
    def owes_offsets(self) -> bool:
        """Return whether the group's offsets are behind, for as long as they may be."""
        return bool(self._unshown) and self._show_is_due()

    def forget_offsets(self, partitions: Iterable[TopicPartition]) -> None:
        """Show nothing of these partitions any more, and know nothing of where they stand."""
        for partition in partitions:
            self._unshown.pop(partition, None)
            self._expected.pop(partition, None)

    def _commit(self, unit: DatabaseUnit, offsets: Mapping[TopicPartition, int]) -> None:
        try:
            connection = self._begun(unit)
        except DatabaseAway as error:
            raise TransactionAborted(error.cause) from error
        try:
            self._write_dead(connection, unit)
            self._advance(connection, unit, offsets)
            connection.commit_unit()
        except psycopg.Error as error:
            raise self._refused(connection, error) from error
        self._expected.update(offsets)
        for place, parked in unit.parked.items():
            if parked is None:
                self.parked.pop(place, None)
            else:
                self.parked[place] = parked

    def _advance(self, connection: Connection, unit: DatabaseUnit, offsets: Mapping[TopicPartition, int]) -> None:
        """Write offsets into the unit's transaction, or into the one that has taken its place."""
        places = list(offsets)
        rows = connection.execute(
            _ADVANCE,
            (
                [place.topic for place in places],
                [place.partition for place in places],
                [self._expected[place] for place in places],
                list(offsets.values()),
                [self.epochs.get(place, -1) for place in places],
                self.application,
            ),
        ).fetchall()
        if all(transaction == unit.transaction for (transaction,) in rows) and len(rows) == len(places):
            return
        became = self._became(connection, unit)
        if became == "in progress":
            raise ProgrammerError(f"{self.application}: {len(rows)} of {len(places)} offsets were written")
        if became != "committed":
            raise AgentFailed(TransactionEnded("it is another than it was"), None)
        if len(rows) != len(places):
            raise StaleMember(f"{self.application}: a handler let go of its partitions, and another one has them")
        # What was committed cannot be taken back: done again, it would be done twice. So the rest joins it.
        self._tell_of_end(unit, kept="all of it: what was left has been committed too")

    def _became(self, connection: Connection, unit: DatabaseUnit) -> str | None:
        """Return what became of the transaction in which a unit began."""
        row = connection.execute(_BECAME, (unit.transaction,)).fetchone()
        return None if row is None else row[0]

    def _tell_of_end(self, unit: DatabaseUnit, *, kept: str) -> None:
        ended = TransactionEnded("it has committed past its connection", kept=kept)
        place = Work(unit.groups).place
        log.error("transaction ended by a handler", unit=unit.number, records=place, reason=str(ended))

    def _refused(self, connection: Connection, error: psycopg.Error) -> Exception:
        """Return what a commit that failed means: the server's answer is definite, silence is not."""
        text = f"{self.application}: {first_line(error)}"
        if connection.closed:
            self._drop_connection()
            return OutcomeUnknown(f"{text}: the commit was not answered")
        # What the unit holds is refused (a deferred constraint, say): the same would be refused again.
        return TransactionAborted(text) if self._blames_world(error) else AgentFailed(error, None)

    def _write_dead(self, connection: Connection, unit: DatabaseUnit) -> None:
        if unit.parked and self._shares_numbers:
            numbers = {number for number, _ in unit.parked}
            for number in sorted(numbers):
                connection.execute(_LOCK_NUMBER, (self.application, str(number)))
            self._check_parked(connection, numbers)
        if unit.letters:
            write(connection, unit.letters)
        for (partition, key), parked in unit.parked.items():
            if parked is None:
                connection.execute(_UNPARK, (self.application, partition, key))
            else:
                connection.execute(
                    _PARK, (self.application, partition, key, parked.behind, parked.held, parked.spans_text)
                )

    def require_outbox(self, record: ConsumedRecord) -> None:
        """Raise ConfigurationError where a dead letter has no way out of this database."""
        if not self._database.outbox:
            raise ConfigurationError(
                f"{record.position} cannot be applied, and this database has no outbox to dead-letter it through",
                kept="the record is where it was",
                next_step="create the outbox (towpath.outbox.postgres.apply_outbox_schema) and have it captured",
            )

    async def abort(self, unit: Unit) -> None:
        """Roll back, once what waits for the unit's thread has had its turn, whether it had begun before or not."""
        assert isinstance(unit, DatabaseUnit)
        unit.close()
        if self._connection is not None and self._connection.pgconn.transaction_status == 1:  # a query is running
            self._connection.cancel_safe(timeout=1.0)
        await self._in_thread(self._roll_back, unit)

    def _roll_back(self, unit: DatabaseUnit) -> None:
        connection = self._connection
        try:
            if connection is None:
                return
            connection.roll_back_unit()
            if unit.transaction and self._became(connection, unit) == "committed":
                self._tell_of_end(unit, kept="what was done by then, though the unit failed: its records run once more")
                self._drop_connection()  # what was set for the session has stayed, too
                return
            connection.roll_back_unit()
        except psycopg.Error:
            # The server rolls back what a lost connection left.
            self._drop_connection()

    def _connected(self) -> UnitConnection:
        if self._connection is None or self._connection.closed:
            raise DatabaseAway(f"{self.application}: not connected to the database")
        return self._connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def close(self) -> None:
        """Close the client; what is open is rolled back."""
        await self._in_thread(self._drop_connection)
        self._executor.shutdown(wait=False)
