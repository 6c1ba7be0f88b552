"""The Faust agent of one view: a batch of records, folded into rows, in one database transaction with its offsets.

The one rule: ids, rows and offsets commit together, so a row is the fold of what the offsets say was read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import structlog

from towpath import metrics, tracing
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, PeerError, ProgrammerError, WorldError
from towpath.outbox.message import PAYLOAD_BYTES_MAX, OutboxMessage, from_record
from towpath.outbox.names import VIEWS_DATABASE
from towpath.outbox.postgres import UPKEEP_SECONDS, keep_up, write
from towpath.settings import Settings
from towpath.stream.broker.dead_letter import occurred_milliseconds
from towpath.stream.broker.record import ConsumedRecord, plausible_milliseconds
from towpath.stream.engine.batch_size import Gathering
from towpath.stream.engine.record_spans import handling_all
from towpath.stream.faust_app.agent import Batch, DatabaseOptions, RecordFailed, StreamApp, create_app
from towpath.view.declaring import Changes
from towpath.view.dedup.horizon import Sighting, beyond_horizon, event_id_of
from towpath.view.dedup.postgres import forget, sort_and_remember
from towpath.view.postgres import ViewTable, create_table
from towpath.view.versions.replacing import replace_when_caught_up
from towpath.view.view import Occurrence, View, fold_records, group_name

log = structlog.get_logger("towpath.view")

GATHERING = Gathering(units_worth=20.0, seconds_max=0.5, crowd_records=12)
"""A view may be half a second behind a crowd: nothing waits for it, and a unit costs it six statements."""


def application_name(settings: Settings, view: View[Any]) -> str:
    """Return the consumer group of the workers of this version of a view."""
    return group_name(settings.project.name, view.name, view.version)


def create_view(
    settings: Settings,
    view: View[Any],
    codec: Codec,
    *,
    slot: str,
    siblings: frozenset[int] | None = None,
    on_ready: Callable[[], Awaitable[None]] | None = None,
    **stream_options: Any,
) -> StreamApp:
    """Return the application that keeps `view`, once its table is there.

    `slot` tells this worker from those that share its partitions. `siblings` are the versions of the view that the
    project has, by default this one alone: a published version that is not among them is folded by nobody, so this one
    takes its place as soon as it has caught up. Raises ConfigurationError for a row type that no table can hold,
    ContractError where the version was built with another row, WorldError where the database is away.
    """
    published = create_table(settings, view)
    horizon_milliseconds = int(settings.stream.dedup_horizon_days * 86_400_000)
    folding = Folding(application_name(settings, view), view, codec, horizon_milliseconds)
    app = create_app(
        folding.application,
        settings,
        slot=slot,
        unit_of_work="database",
        database=DatabaseOptions(
            url=settings.postgres.database_url(VIEWS_DATABASE),
            connection_options=settings.postgres.connection_options(),
        ),
        on_ready=on_ready,
        gathering=GATHERING,
        **stream_options,
    )

    @app.agent(app.batch_topic(*view.topics))
    async def keep_view(batches: Any) -> None:
        async for batch in batches:
            read = folding.read(batch)
            apply = partial(folding.apply, read=read, now_milliseconds=app.unit.now_milliseconds)
            if read and tracing.is_on():
                with handling_all((folded.consumed for folded in read), view.name):
                    await app.unit.run(apply)
            elif read:
                await app.unit.run(apply)

    @app.timer(interval=UPKEEP_SECONDS, on_leader=False)  # type: ignore[untyped-decorator]
    async def upkeep() -> None:
        try:
            done = await asyncio.to_thread(keep_up, settings, VIEWS_DATABASE)
        except WorldError as error:
            log.warning("upkeep has to wait", view=view.name, cause=error.cause)
            return
        log.info(
            "upkeep",
            view=view.name,
            partitions_made=len(done.created),
            partitions_dropped=len(done.dropped),
            held_back=done.held_back,
        )

    if published not in (siblings or {view.version}):
        app.task(partial(replace_when_caught_up, settings, view, published, app.stream_options.broker))
    return app


FORGETTINGS_PER_HORIZON = 20
"""Ids are forgotten twenty times a horizon, so they are kept at most a twentieth longer than they need to be."""


class ChangeTooLarge(ProgrammerError):
    """A view's event that tells of a row is larger than an outbox takes."""


class Folded(NamedTuple):
    """A record that the view folds, decoded, and the key of its row."""

    consumed: ConsumedRecord
    key: str
    record: Record
    occurrence: Occurrence


class Folding:
    """What one worker of a view does with a batch."""

    def __init__(self, application: str, view: View[Any], codec: Codec, horizon_milliseconds: int) -> None:
        self.application = application
        self._view = view
        self._codec = codec
        self._table = ViewTable(view)
        self._types = view.type_names
        self._horizon_milliseconds = horizon_milliseconds
        self._forget_at: dict[tuple[str, int], int] = {}

    def read(self, batch: Batch) -> list[Folded]:
        """Return the records that the view folds, decoded. Raises RecordFailed for one that cannot be."""
        found = []
        keys: dict[str, str] = {}
        for record in batch:
            type_ = record.header("type")
            if record.value is None or (type_ is not None and type_ not in self._types):
                continue
            try:
                decoded, occurrence = self._codec.decode(record.value), _occurrence(record)
            except PeerError as error:
                raise RecordFailed(record, error) from error
            key = self._row_key(record, decoded, occurrence) if type(decoded) in self._view.folds else None
            if key is not None:
                if not self._view.many_keys:
                    if record.key is None:
                        raise RecordFailed(record, _no_key(self._view, record))
                    if keys.setdefault(key, occurrence.key) != occurrence.key:
                        raise RecordFailed(record, _several_keys(self._view, record))
                found.append(Folded(record, key, decoded, occurrence))
        return found

    def _row_key(self, record: ConsumedRecord, decoded: Record, occurrence: Occurrence) -> str | None:
        try:
            return self._view.row_key(decoded, occurrence)
        except BaseException as error:  # whatever it is, the record's position goes with it
            raise RecordFailed(record, error) from error

    def apply(self, connection: Any, *, read: list[Folded], now_milliseconds: int) -> None:
        """Fold `read` into the table, in the transaction of `connection`. Raises RecordFailed where a fold fails."""
        due = self._fresh(connection, read, now_milliseconds)
        if due:
            rows = self._table.rows(connection, {folded.key for folded in due})
            changed = self._fold(rows, due)
            self._table.store(connection, changed)
            if self._view.changes is not None:
                write(connection, self._told(self._view.changes, changed, due))

    def _told(self, changes: Changes[Any], changed: dict[str, Any], due: list[Folded]) -> list[OutboxMessage]:
        """Return the events that tell of the rows that changed. Raises RecordFailed where one cannot be made."""
        last = {folded.key: folded for folded in due}
        found = []
        for key, row in changed.items():
            folded = last[key]
            try:
                record = changes.record(key, row)
                if record is not None:
                    id_ = changes.event_id(self.application, key, folded.occurrence.event_id)
                    message = from_record(self._codec, changes.topic, key, record, id=id_)
                    require_small(self._view, message, folded.consumed.position)
                    found.append(message)
            except BaseException as error:  # whatever it is, the record's position goes with it
                raise RecordFailed(folded.consumed, error) from error
        return found

    def _fresh(self, connection: Any, read: list[Folded], now_milliseconds: int) -> list[Folded]:
        """Return what was not applied before, and note it. Raises RecordFailed for what is too old to tell."""
        if not read:
            return []
        topic, partition = read[0].consumed.topic, read[0].consumed.partition
        first: dict[str, Folded] = {}
        for folded in read:
            first.setdefault(folded.occurrence.event_id, folded)
        sightings = [
            Sighting(id_, plausible_milliseconds(folded.consumed.timestamp_milliseconds, now_milliseconds))
            for id_, folded in first.items()
        ]
        found, forgotten = sort_and_remember(connection, self.application, topic, partition, sightings)
        if found.beyond:
            culprit = first[found.beyond[0].id].consumed
            raise RecordFailed(culprit, beyond_horizon(culprit.position, forgotten or 0))
        newest = max(sighting.timestamp_milliseconds for sighting in sightings)
        if newest >= self._forget_at.get((topic, partition), 0):
            self._forget_at[topic, partition] = newest + self._horizon_milliseconds // FORGETTINGS_PER_HORIZON
            forget(connection, self.application, topic, partition, self._horizon_milliseconds)
        if len(found.fresh) < len(read):
            metrics.RECORDS_RECOGNISED.labels(self.application, topic).inc(len(read) - len(found.fresh))
        return [first[sighting.id] for sighting in found.fresh]

    def _fold(self, rows: dict[str, Any], due: list[Folded]) -> dict[str, Any]:
        at: Folded = due[0]

        def noted() -> Iterator[tuple[str, Record, Occurrence]]:
            nonlocal at
            for at in due:
                yield at.key, at.record, at.occurrence

        try:
            return fold_records(self._view, rows, noted())
        except BaseException as error:  # whatever it is, the record's position goes with it
            raise RecordFailed(at.consumed, error) from error


def require_small(view: View[Any], message: OutboxMessage, place: str) -> None:
    """Raise ChangeTooLarge for what the outbox would refuse together with all others, and without saying whose."""
    size_bytes = len(message.payload)
    if size_bytes > PAYLOAD_BYTES_MAX:
        raise ChangeTooLarge(
            f"view {view.name}: {place}: the event that tells of its row has {size_bytes} bytes, and an outbox takes "
            f"{PAYLOAD_BYTES_MAX}",
            kept="the record, untouched, and its row as it was",
            next_step="have Changes tell less, or a reference to the row",
        )


def _several_keys(view: View[Any], record: ConsumedRecord) -> ConfigurationError:
    return ConfigurationError(
        f"view {view.name}: {record.position} belongs to a row that has records of another key, and the view says that "
        "its rows have one key each",
        kept="the record, untouched",
        next_step="declare rows=RowSource.MANY_KEYS and a new version, whose fold gives the same row in any order",
    )


def _no_key(view: View[Any], record: ConsumedRecord) -> PeerError:
    return PeerError(
        f"view {view.name}: {record.position} has no key: such records lie in any partition, and of one row several "
        "workers would read them, each without the others'",
        kept="the record, untouched, and its row as it was",
        next_step="ask the owner of the topic which key it writes; where it writes none, declare a row_key, "
        "rows=RowSource.MANY_KEYS and a new version, whose fold gives the same row in any order",
    )


def _occurrence(record: ConsumedRecord) -> Occurrence:
    try:
        key = (record.key or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise PeerError(f"{record.position}: its key is not UTF-8", kept="the record, untouched") from None
    milliseconds = occurred_milliseconds(record)
    try:
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise PeerError(
            f"{record.position}: its time, {milliseconds} ms, is none that a calendar has", kept="the record, untouched"
        ) from None
    return Occurrence(record.topic, key, event_id_of(record), at, record.offset)
