"""Begins a version: at its topics' beginning, with records of outboxes, or with the rows of the version before.

The one rule: what a version begins with and the offsets that this stands for are one transaction. Killed anywhere, a
version has begun whole or not at all, and its worker goes on from there.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row

from towpath.contract.codec import Codec
from towpath.errors import ConfigurationError, NotFoundError, RefusedError, first_line
from towpath.outbox.message import OutboxMessage, from_record
from towpath.outbox.postgres import write
from towpath.stream.broker.record import Batch, ConsumedRecord, TopicPartition
from towpath.stream.engine.elsewhere.postgres import require_in_public
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.postgres import create_stream_tables
from towpath.view.agent import Folding, require_small
from towpath.view.declaring import Changes
from towpath.view.postgres import ViewTable
from towpath.view.versions.log import Bounds
from towpath.view.versions.postgres import (
    count_rows,
    create_decisions,
    forget_version,
    lock_version,
    note_decision,
    shape_of,
    vector_of,
    vector_of_version,
)
from towpath.view.versions.standing import VersionDecision
from towpath.view.view import View, group_name, table_name

Connection = psycopg.Connection[Any]
ROWS_PER_STATEMENT = 2_000
_NOT_TAKEN = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError)
"""What a table raises that does not take a row: a check, a value out of range, one of another type."""
_BEGIN = """
INSERT INTO public.towpath_offsets (application, topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s, %s)
"""
_COPIED = {
    "towpath_offsets": "topic, partition, topic_id, next_offset, note, leader_epoch",
    "towpath_seen": "topic, partition, id, timestamp_milliseconds",
    "towpath_horizon": "topic, partition, forgotten_milliseconds",
}


def begin_at_topics(
    connection: Connection, project: str, view: View[Any], bounds: Bounds, decision: VersionDecision
) -> None:
    """Let a version begin at what its topics (`bounds`) still have. Raises RefusedError where it has begun."""
    _begin_at(connection, project, view, bounds)
    ViewTable(view).show(connection)
    note_decision(connection, decision)


def _begin_at(connection: Connection, project: str, view: View[Any], bounds: Bounds) -> None:
    """Have the table of a version that has not begun, and its offsets where its topics begin."""
    with _beginning(connection, view):
        application = require_not_begun(connection, project, view)
        ViewTable(view).create_unseen(connection)
        for place, begin in sorted(bounds.begins.items()):
            connection.execute(_BEGIN, (application, *place, bounds.topic_ids[place.topic], begin))


@contextmanager
def _beginning(connection: Connection, view: View[Any]) -> Iterator[None]:
    """Hold a version until the connection ends, and nothing else: what begins in here may take hours.

    What all versions share is made in a transaction of its own. The version is held before the one in which it begins,
    so that this one sees what whoever held it before has committed. Raises RefusedError where another build has it, or
    where a worker notes meanwhile how far it is.
    """
    with connection.transaction():
        create_stream_tables(connection)
        create_decisions(connection)
    with connection.transaction():
        if not lock_version(connection, view.name, view.version, until="the connection ends"):
            raise _begun(view, "is being built by somebody else", "what that one builds")
    try:
        yield
    except (errors.UniqueViolation, errors.SerializationFailure) as error:
        raise _begun(view, "has a worker, which has noted meanwhile how far it is", "every version") from error


def begin_with_rows(
    connection: Connection, project: str, view: View[Any], decision: VersionDecision, codec: Codec
) -> int:
    """Let a version begin with the rows of `decision.version_before` and its offsets; return how many rows.

    What holds that version's partitions holds this one's, and who is told of changes is told of each row. The
    connection reads one snapshot (REPEATABLE READ), so rows and offsets are of one moment, and the other version's
    worker goes on meanwhile. Raises RefusedError where the version has begun, where a row's event cannot be made, or
    where the other version has keys in quarantine or folds other topics; ConfigurationError where the view cannot make
    its rows of the other's, or its table does not take one of them.
    """
    before = decision.version_before
    assert before is not None
    with _beginning(connection, view):
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        require_rows(connection, project, view, before)
        table = ViewTable(view)
        table.create(connection)
        vector = vector_of(connection, group_name(project, view.name, before))
        source = f"version {before} at {', '.join(f'{place}@{offset}' for place, offset in sorted(vector.items()))}"
        rows = 0
        with connection.cursor("towpath_snapshot", row_factory=dict_row) as cursor:
            cursor.itersize = ROWS_PER_STATEMENT
            cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table_name(view.name, before))))
            while found := cursor.fetchmany(ROWS_PER_STATEMENT):
                changed = _rows_of(view, found, before)
                _store(connection, table, changed)
                if view.changes is not None:
                    write(connection, list(_told(project, view, view.changes, codec, changed, source)))
                rows += len(changed)
        for name, columns in _COPIED.items():
            connection.execute(
                sql.SQL(
                    "INSERT INTO {table} (application, {columns}) SELECT %s, {columns} FROM {table}"
                    " WHERE application = %s AND topic = ANY(%s)"
                ).format(table=sql.Identifier("public", name), columns=sql.SQL(columns)),
                (
                    group_name(project, view.name, view.version),
                    group_name(project, view.name, before),
                    list(view.topics),
                ),
            )
        note_decision(connection, decision)
        return rows


def require_rows(connection: Connection, project: str, view: View[Any], before: int) -> None:
    """Raise what `begin_with_rows` would raise."""
    if view.from_row is None:
        raise ConfigurationError(
            f"view {view.name} version {view.version} does not say how a row of it is made of one of version {before}",
            kept="both versions",
            next_step="declare from_row on the view: a function of the other row's columns by name",
        )
    require_not_begun(connection, project, view)
    _require_whole(connection, project, view, before)


def begin_with_records(
    connection: Connection,
    project: str,
    view: View[Any],
    folding: Folding,
    records: Iterable[ConsumedRecord],
    bounds: Bounds,
    decision: VersionDecision,
    *,
    now_milliseconds: int,
) -> int:
    """Let a version begin with records that its topics have let expire, and go on at what they still have.

    `records` come in the order in which they are folded; those that the topics have as well are known by their ids when
    they come again. Returns how many rows there are. Raises RefusedError where the version has begun, or where one of
    the records cannot be folded.
    """
    _begin_at(connection, project, view, bounds)
    waiting = iter(records)
    try:
        while chunk := list(islice(waiting, ROWS_PER_STATEMENT)):
            for place, found in _by_place(chunk).items():
                _fold(connection, folding, Batch(*place, found), now_milliseconds)
    except RecordFailed as failure:
        raise RefusedError(
            f"view {view.name} version {view.version} cannot fold {failure.record.header('id')}, a message to "
            f"{failure.record.topic}: {first_line(failure.cause)}",
            kept="every version that is there; nothing was built",
            next_step=f"fix the view's fold; or take what the topics have: towpath views build {view.name} "
            f"--version {view.version} --from topic --reason REASON",
        ) from failure
    ViewTable(view).show(connection)
    note_decision(connection, decision)
    return count_rows(connection, view.table)


def _by_place(records: Iterable[ConsumedRecord]) -> dict[TopicPartition, list[ConsumedRecord]]:
    found: dict[TopicPartition, list[ConsumedRecord]] = {}
    for record in records:
        found.setdefault(record.topic_partition, []).append(record)
    return found


def _told(
    project: str, view: View[Any], changes: Changes[Any], codec: Codec, rows: Mapping[str, Any], source: str
) -> Iterator[OutboxMessage]:
    """Yield the events that tell of rows. Raises RefusedError where one cannot be made.

    Their ids follow from where the rows come from (`source`) and from what is told: a version that was dropped and
    begins again tells what its rows are now, and who knows events by their ids takes that for no repetition.
    """
    application = group_name(project, view.name, view.version)
    for key, row in rows.items():
        try:
            if (record := changes.record(key, row)) is not None:
                digest = sha256(codec.encode(record)).hexdigest()
                id_ = changes.event_id(application, key, f"{source}: {digest}")
                message = from_record(codec, changes.topic, key, record, id=id_)
                require_small(view, message, f"key {key}")
                yield message
        except Exception as error:
            raise RefusedError(
                f"view {view.name} version {view.version} cannot tell of the row of {key}: {error}",
                kept="every version that is there; nothing was built",
                next_step="fix the view's Changes, then build it again",
            ) from error


def _fold(connection: Connection, folding: Folding, batch: Batch, now_milliseconds: int) -> None:
    """Fold records: together or, where the table does not take that, one by one. Raises RecordFailed."""
    try:
        with connection.transaction():
            folding.apply(connection, read=folding.read(batch), now_milliseconds=now_milliseconds)
    except _NOT_TAKEN as error:
        if len(batch.records) == 1:
            raise RecordFailed(batch.records[0], error) from error
        for record in batch.records:
            _fold(connection, folding, Batch(batch.topic, batch.partition, [record]), now_milliseconds)


def _rows_of(view: View[Any], found: list[dict[str, Any]], before: int) -> Mapping[str, Any]:
    assert view.from_row is not None
    changed = {}
    for one in found:
        try:
            row = view.from_row(one)
            if row is not None:
                changed[getattr(row, view.key)] = row
        except Exception as error:
            raise _no_row(view, f"{one.get(view.key)!r} of version {before}", error) from error
    return changed


def _store(connection: Connection, table: ViewTable[Any], changed: Mapping[str, Any]) -> None:
    """Write rows, together or, where the table does not take that, one by one, which finds the culprit."""
    try:
        with connection.transaction():
            table.store(connection, changed)
    except (*_NOT_TAKEN, AttributeError) as error:
        if len(changed) == 1:
            raise _no_row(table.view, repr(next(iter(changed))), error) from error
        for key, row in changed.items():
            _store(connection, table, {key: row})


def _no_row(view: View[Any], key: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"view {view.name} version {view.version}: what from_row makes of the row of {key} is none of its own: "
        f"{type(error).__name__}: {first_line(error)}",
        kept="every version that is there; nothing was built",
        next_step="fix the view's from_row, then build it again",
    )


def require_not_begun(connection: Connection, project: str, view: View[Any]) -> str:
    """Return the version's group. Raises RefusedError where it has begun, ConfigurationError where it has elsewhere."""
    require_in_public(connection, group_name(project, view.name, view.version))
    if vector_of_version(connection, project, view.name, view.version):
        raise _begun(view, "has begun", "what it has folded")
    if shape_of(connection, view.table) is None:
        forget_version(connection, project, view.name, view.version)
    return group_name(project, view.name, view.version)


def _begun(view: View[Any], how: str, kept: str) -> RefusedError:
    return RefusedError(
        f"version {view.version} of view {view.name} {how}",
        kept=kept,
        next_step=f"let it go on: towpath views build {view.name} --version {view.version}; or begin anew after: "
        f"towpath views drop {view.name} --version {view.version} --reason REASON",
    )


def _require_whole(connection: Connection, project: str, view: View[Any], before: int) -> None:
    """Raise where the version before cannot stand for what this one would have folded."""
    application = group_name(project, view.name, before)
    if shape_of(connection, table_name(view.name, before)) is None:
        raise NotFoundError(
            f"view {view.name} has no version {before} to begin with", next_step=f"towpath views status {view.name}"
        )
    require_in_public(connection, application)
    lacking = set(view.topics) - {place.topic for place in vector_of(connection, application)}
    if lacking:
        raise RefusedError(
            f"version {before} of view {view.name} has not folded {', '.join(sorted(lacking))}, which version "
            f"{view.version} folds: its rows do not stand for that",
            kept="both versions",
            next_step=f"towpath views build {view.name} --version {view.version} --from topic --reason REASON",
        )
    ((parked,),) = connection.execute(
        "SELECT count(*) FROM public.towpath_parked WHERE application = %s", (application,)
    ).fetchall()
    if parked:
        raise RefusedError(
            f"version {before} of view {view.name} has keys in quarantine ({parked}): its rows lack their records",
            kept="both versions",
            next_step="towpath dead list names them; redrive or drop them first",
        )
