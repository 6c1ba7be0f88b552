"""Compares two versions' tables in one statement of a snapshot.

The one rule: rows and offset vectors are read in one snapshot, so the rows are known to be the fold of what the vector
says; where the vectors differ, the keys in between are left out and counted.
"""

from collections.abc import Collection
from typing import Any

import psycopg
from psycopg import sql

from towpath.view.versions.postgres import Connection, built_shape
from towpath.view.versions.standing import Comparison, Difference, Shape
from towpath.view.view import table_name

SAMPLES = 10


def begin_snapshot(connection: Connection) -> None:
    """Let everything that the connection reads be of one moment, until its transaction ends."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True


def compare(
    connection: Connection, view: str, old: int, new: int, *, left_out: Collection[str] = (), samples: int = SAMPLES
) -> Comparison:
    """Return how the rows of two versions differ in the columns that both have. Raises NotFoundError."""
    before, after = built_shape(connection, view, old), built_shape(connection, view, new)
    old_types, new_types = before.types, after.types
    joined_by = {before.key} & {after.key}
    common = [name for name in new_types if name in old_types and name not in joined_by]
    pairs = [_pair(name, cast=old_types[name] != new_types[name]) for name in common]
    key = sql.SQL("coalesce(o.{}::text, n.{}::text)").format(sql.Identifier(before.key), sql.Identifier(after.key))
    source = _source(view, old, new, before, after, key)
    total, only_old, only_new, different, *by_column = _counts(connection, source, pairs, left_out)
    return Comparison(
        view=view,
        old=old,
        new=new,
        equal=total - only_old - only_new - different,
        different=different,
        only_old=only_old,
        only_new=only_new,
        by_column={name: count for name, count in zip(common, by_column, strict=True) if count},
        columns_only_old=tuple(name for name in old_types if name not in new_types),
        columns_only_new=tuple(name for name in new_types if name not in old_types),
        left_out=len(left_out),
        samples=_samples(
            connection,
            sql.SQL("SELECT {}, to_jsonb(o), to_jsonb(n) FROM {}").format(key, source),
            common,
            pairs,
            left_out,
            samples,
        ),
    )


def _pair(name: str, *, cast: bool) -> sql.Composed:
    form = "(o.{0}::text IS DISTINCT FROM n.{0}::text)" if cast else "(o.{0} IS DISTINCT FROM n.{0})"
    return sql.SQL(form).format(sql.Identifier(name))


def _source(view: str, old: int, new: int, before: Shape, after: Shape, key: sql.Composed) -> sql.Composed:
    old_key, new_key = sql.Identifier(before.key), sql.Identifier(after.key)
    form = "{old} o FULL JOIN {new} n ON o.{old_key}::text = n.{new_key}::text"
    if before.types[before.key] == after.types[after.key]:
        form = "{old} o FULL JOIN {new} n ON o.{old_key} = n.{new_key}"
    return sql.SQL(form + " WHERE NOT {key} = ANY(%(left_out)s)").format(
        key=key,
        old=sql.Identifier(table_name(view, old)),
        new=sql.Identifier(table_name(view, new)),
        old_key=old_key,
        new_key=new_key,
    )


def _any(pairs: list[sql.Composed]) -> sql.Composable:
    return sql.SQL(" OR ").join(pairs) if pairs else sql.SQL("false")


def _counts(
    connection: Connection, source: sql.Composed, pairs: list[sql.Composed], left_out: Collection[str]
) -> list[int]:
    # A row that one side lacks has no ctid there; a column may be null by itself.
    both = sql.SQL("o.ctid IS NOT NULL AND n.ctid IS NOT NULL")
    parts = [
        sql.SQL("count(*)"),
        sql.SQL("count(*) FILTER (WHERE n.ctid IS NULL)"),
        sql.SQL("count(*) FILTER (WHERE o.ctid IS NULL)"),
        *(sql.SQL("count(*) FILTER (WHERE {} AND ({}))").format(both, pair) for pair in [_any(pairs), *pairs]),
    ]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(parts), source)
    return [int(count) for count in connection.execute(query, {"left_out": list(left_out)}).fetchall()[0]]


def _samples(
    connection: Connection,
    rows: sql.Composed,
    common: list[str],
    pairs: list[sql.Composed],
    left_out: Collection[str],
    samples: int,
) -> tuple[Difference, ...]:
    query = sql.SQL("{} AND (o.ctid IS NULL OR n.ctid IS NULL OR {}) ORDER BY 1 LIMIT %(samples)s").format(
        rows, _any(pairs)
    )
    found = connection.execute(query, {"left_out": list(left_out), "samples": samples}).fetchall()
    return tuple(_difference(common, *row) for row in found)


def _difference(common: list[str], key: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Difference:
    if old is None or new is None:
        kind = "only in the new version" if old is None else "only in the old version"
        return Difference(key, kind, {})
    columns = {name: (old[name], new[name]) for name in common if old[name] != new[name]}
    return Difference(key, "different", columns)
