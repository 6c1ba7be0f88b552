"""Looks for positions that an application has in another schema than `public`.

The one rule: what was applied is not applied once more. Where positions lie elsewhere, nobody begins anew in silence.
"""

from typing import Any

import psycopg

from towpath.errors import ConfigurationError

Connection = psycopg.Connection[Any]

TABLES = ("towpath_offsets", "towpath_parked", "towpath_seen", "towpath_horizon", "towpath_position_decisions")
OFFSETS_COLUMNS = {
    "application": "text",
    "topic": "text",
    "partition": "int4",
    "topic_id": "text",
    "next_offset": "int8",
    "updated_at": "timestamptz",
}
"""What `towpath_offsets` has had in every version: another table of its name is somebody else's."""
_SCHEMAS = """
SELECT format('%%I', nspname) FROM pg_class AS kept JOIN pg_namespace AS schema ON schema.oid = kept.relnamespace
 WHERE relname = 'towpath_offsets' AND relkind = 'r' AND relpersistence <> 't'
   AND has_schema_privilege(schema.oid, 'USAGE') AND has_table_privilege(kept.oid, 'SELECT')
   AND NOT EXISTS (SELECT * FROM unnest(%s::text[], %s::regtype[])
                   EXCEPT SELECT attname::text, atttypid::regtype FROM pg_attribute WHERE attrelid = kept.oid)
 ORDER BY nspname
"""
_HOW_FAR = """
SELECT topic || '[' || partition || ']@' || next_offset, max(updated_at) OVER ()::timestamptz(0)::text
  FROM {}.towpath_offsets WHERE application = %s ORDER BY topic, partition
"""
_SHOWN_OFFSETS = 3
# Into our own table, not in its place: what lies elsewhere may be a copy, without key and defaults.
_MOVES = """
SELECT format(
         'WITH moved AS (DELETE FROM %%1$s.%%2$I WHERE application = %%3$L RETURNING %%4$s) '
         'INSERT INTO public.%%2$I (%%4$s) SELECT * FROM moved ON CONFLICT DO NOTHING;',
         %(schema)s::text, relname, %(application)s::text, string_agg(format('%%I', attname), ', ' ORDER BY attnum))
  FROM pg_class AS kept JOIN pg_attribute AS its ON attrelid = kept.oid
 WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'r' AND relname = ANY(%(tables)s)
   AND EXISTS (SELECT FROM pg_attribute AS ours WHERE ours.attrelid = to_regclass('public.' || relname)
                AND ours.attnum > 0 AND (ours.attname, ours.atttypid) = (its.attname, its.atttypid))
 GROUP BY relname HAVING bool_or(attname = 'application') ORDER BY relname
"""


def require_in_public(connection: Connection, application: str) -> None:
    """Raise ConfigurationError where another schema has the application's offsets, and `public` has none of it.

    So it is where older versions made them while a search path led there. Of several schemas a person says which one
    counts: what is behind applies once more what the other has applied. Where the tables are in `public`, and
    committed, what is advised moves the rows there.
    """
    known = list(OFFSETS_COLUMNS), list(OFFSETS_COLUMNS.values())
    schemas = [schema for (schema,) in connection.execute(_SCHEMAS, known).fetchall()]
    if schemas in ([], ["public"]):
        return
    keeping = {schema: far for schema in schemas if (far := _how_far(connection, schema, application))}
    if not keeping or "public" in keeping:
        return
    database, (schema, *others) = connection.info.dbname, keeping
    if others:
        raise ConfigurationError(
            f"database {database} keeps how far {application} is in several schemas, and not in public: "
            f"{'; '.join(f'{schema} ({far})' for schema, far in keeping.items())}",
            kept="all of it; with one that is behind, what was applied would be applied once more",
            next_step="find out which one counts, and rename towpath_offsets in each of the others; then start "
            f"{application} again, and follow what it says of the one that is left",
        )
    moves = connection.execute(
        _MOVES, {"schema": schema, "application": application, "tables": list(TABLES)}
    ).fetchall()
    to_move = f"stop what works on this database, then run there: {' '.join(move for (move,) in moves)}"
    if not moves:  # there are no tables yet to move them to
        to_move = f"start {application} again, and follow what it says"
    raise ConfigurationError(
        f"database {database} keeps how far {application} is in schema {schema} ({keeping[schema]}), not in public",
        kept="all of it; without it, what was applied would be applied once more",
        next_step=f"where {application} is to begin anew, rename {schema}.towpath_offsets; else {to_move}",
    )


def _how_far(connection: Connection, schema: str, application: str) -> str | None:
    """Return where a schema's offsets are, and since when, in short; None where it has none of the application."""
    query = _HOW_FAR.format(schema.replace("%", "%%"))  # which would be a placeholder
    rows = connection.execute(query.encode(), (application,)).fetchall()
    places = [place for place, _ in rows[:_SHOWN_OFFSETS]]
    if more := len(rows) - len(places):
        places.append(f"{more} more")
    return f"{', '.join(places)}, last moved {rows[0][1]}" if rows else None
