"""Reads a view by its stable name, in one snapshot with the offsets that it is the fold of.

The one rule: rows, version and offsets come from one transaction, so a promotion in between shows in all of them or in
none.
"""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.rows import class_row

from towpath.clock import Clock, SystemClock, wait_until
from towpath.errors import ConfigurationError, ContractError, NotFoundError, first_line
from towpath.settings import Settings
from towpath.view.postgres import COLUMN_TYPES
from towpath.view.reads.reading import LIMIT_MAX, Comparing, Filter, NotYetRead, Page, Read, Seen, tag_of
from towpath.view.versions.postgres import published_version, vector_of, views_connection
from towpath.view.versions.standing import Vector
from towpath.view.view import View, column_types, group_name

Row = TypeVar("Row")
LOOK_SECONDS = 0.02


class ViewReader(Generic[Row]):
    """Reads the rows of one view, whichever version is published. Holds no connection: safe between threads.

    The published version must have the columns of `view`'s row; more do not matter.
    """

    def __init__(self, settings: Settings, view: View[Row], clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._view = view
        self._fields = [name for name, _ in column_types(view, COLUMN_TYPES)]
        columns = sql.SQL(", ").join(map(sql.Identifier, self._fields))
        self._select = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(view.name))
        self._key = sql.Identifier(view.key)

    def get(self, key: Any, *, seen: Seen | None = None, timeout_seconds: float = 5.0) -> Read[Row]:
        """Return the row of `key`. With `seen`, only once the view has folded that.

        Raises NotYetRead when the time for that is over, NotFoundError where the view is not built, WorldError where
        the database is away, ContractError where the published version lacks a column, ConfigurationError for a key
        that is none and for a position in a topic that the view does not fold.
        """
        query = sql.SQL("{} WHERE {} = %s").format(self._select, self._key)
        rows, tag = self._read(query, [key], seen, timeout_seconds)
        return Read(rows[0] if rows else None, tag)

    def page(
        self,
        filters: Iterable[Filter] = (),
        *,
        after: Any = None,
        limit: int = 100,
        seen: Seen | None = None,
        timeout_seconds: float = 5.0,
    ) -> Page[Row]:
        """Return the rows that meet all `filters`, in the order of their keys, from behind the key `after` on.

        Pages do not miss or repeat a row that stays as it is, whatever happens to others between them. Raises what
        `get` raises, and ConfigurationError for a field that the row does not have or a limit out of range.
        """
        if not 1 <= limit <= LIMIT_MAX:
            raise ConfigurationError(f"a page has 1 to {LIMIT_MAX} rows, not {limit}", next_step="ask for less")
        conditions, values = [], []
        for one in filters:
            if one.field not in self._fields:
                raise ConfigurationError(
                    f"view {self._view.name} has no field {one.field!r}", next_step=f"use one of {self._fields}"
                )
            field = sql.Identifier(one.field)
            if one.value is None and one.comparing is not Comparing.EQUAL:
                raise ConfigurationError(
                    f"{one.field} is compared with None by {one.comparing.value}, which holds for no row",
                    next_step="compare None by Comparing.EQUAL",
                )
            if one.value is None:
                conditions.append(sql.SQL("{} IS NULL").format(field))
            else:
                conditions.append(sql.SQL("{} {} %s").format(field, sql.SQL(one.comparing.sql)))
                values.append(one.value)
        if after is not None:
            conditions.append(sql.SQL("{} > %s").format(self._key))
            values.append(after)
        where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")
        query = sql.SQL("{}{} ORDER BY {} LIMIT %s").format(self._select, where, self._key)
        rows, tag = self._read(query, [*values, limit + 1], seen, timeout_seconds)
        further = len(rows) > limit
        kept = tuple(rows[:limit])
        return Page(kept, getattr(kept[-1], self._view.key) if further else None, tag)

    def _rows(self, cursor: "psycopg.Cursor[Row]", query: sql.Composed, values: list[Any], version: int) -> list[Row]:
        try:
            return cursor.execute(query, values).fetchall()
        except errors.UndefinedColumn as error:
            raise ContractError(
                f"version {version} of view {self._view.name}, which is published, lacks what is read: "
                f"{first_line(error)}",
                kept="every version",
                next_step=f"read with that version's row, or: towpath views rollback {self._view.name} --reason REASON",
            ) from error
        except (psycopg.DataError, errors.UndefinedFunction, UnicodeEncodeError) as error:
            raise ConfigurationError(
                f"view {self._view.name}: a value does not fit what it is compared with: {first_line(error)}",
                next_step="compare each field with a value of its type",
            ) from error

    def _hold_version(self, connection: psycopg.Connection[Any]) -> int:
        """Return the version that is published, and have the name stay with it until the transaction ends.

        Before the snapshot is taken: a name is looked up as it is now, and not as it was in a snapshot, so the rows
        would be those of a version that was promoted meanwhile.
        """
        try:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(self._view.name)))
        except errors.UndefinedTable:
            version = None
        else:
            version = published_version(connection, self._view.name)
        if version is None:
            raise NotFoundError(
                f"view {self._view.name} is not built yet", next_step=f"towpath run view:{self._view.name}"
            )
        return version

    def _read(
        self, query: sql.Composed, values: list[Any], seen: Seen | None, timeout_seconds: float
    ) -> tuple[list[Row], str]:
        with views_connection(self._settings) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True

            def look() -> tuple[list[Row], str] | None:
                with connection.transaction():
                    version = self._hold_version(connection)
                    group = group_name(self._settings.project.name, self._view.name, version)
                    vector = vector_of(connection, group)
                    if seen is not None:
                        _require_folded(self._view, vector, seen)
                        if not _has_seen(connection, group, vector, seen):
                            return None
                    with connection.cursor(row_factory=class_row(self._view.row)) as cursor:
                        return self._rows(cursor, query, values, version), tag_of(version, vector)

            found = wait_until(self._clock, look, seconds=timeout_seconds, every_seconds=LOOK_SECONDS)
        if found is None:
            raise NotYetRead(
                f"view {self._view.name} has not folded {seen} within {timeout_seconds:g} s",
                kept="the event, which it will fold",
                next_step=f"ask again; towpath views status {self._view.name} says how far it is",
            )
        return found


def _require_folded(view: View[Any], vector: Vector, seen: Seen) -> None:
    """Raise ConfigurationError where it would be waited in vain: for a topic that no version folds."""
    topics = {*view.topics, *(each.topic for each in vector)}
    if seen.place is not None and seen.place[0].topic not in topics:
        raise ConfigurationError(
            f"view {view.name} does not fold {seen.place[0].topic}, so it never sees {seen}",
            next_step=f"name a position in {', '.join(sorted(topics))}",
        )


def _has_seen(connection: psycopg.Connection[Any], group: str, vector: Vector, seen: Seen) -> bool:
    place = seen.place
    if place is not None and vector.get(place[0], 0) <= place[1]:
        return False
    if seen.event_id is None:
        return True
    # By partition, since an id's place in the index begins with it.
    found = connection.execute(
        "SELECT 1 FROM unnest(%s::text[], %s::int[]) AS of (topic, partition) JOIN public.towpath_seen AS seen"
        "  ON (seen.application, seen.topic, seen.partition, seen.id) = (%s, of.topic, of.partition, %s) LIMIT 1",
        ([each.topic for each in vector], [each.partition for each in vector], group, seen.event_id),
    ).fetchone()
    return found is not None
