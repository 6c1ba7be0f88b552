"""The ids that an application has applied, in its own database, in the transaction of their effects."""

from collections.abc import Sequence
from typing import Any

import psycopg

from towpath.view.dedup.horizon import Sighting, Sorted, sort_sightings

Connection = psycopg.Connection[Any]


def sort_and_remember(
    connection: Connection, application: str, topic: str, partition: int, sightings: Sequence[Sighting]
) -> tuple[Sorted, int | None]:
    """Sort the sightings of one batch and note the fresh ones as applied; also return how far back memory reaches.

    In the unit's own transaction: if the effects are rolled back, the ids are forgotten with them.
    """
    place = (application, topic, partition)
    applied = connection.execute(
        "SELECT id FROM towpath_seen WHERE (application, topic, partition) = (%s, %s, %s) AND id = ANY(%s)",
        (*place, [sighting.id for sighting in sightings]),
    ).fetchall()
    horizon = connection.execute(
        "SELECT forgotten_milliseconds FROM towpath_horizon WHERE (application, topic, partition) = (%s, %s, %s)",
        place,
    ).fetchone()
    forgotten = horizon[0] if horizon else None
    result = sort_sightings(sightings, {id_ for (id_,) in applied}, forgotten)
    if result.fresh:
        connection.execute(
            "INSERT INTO towpath_seen (application, topic, partition, id, timestamp_milliseconds)"
            " SELECT %s, %s, %s, * FROM unnest(%s::text[], %s::bigint[])",
            (*place, [each.id for each in result.fresh], [each.timestamp_milliseconds for each in result.fresh]),
        )
    return result, forgotten


def forget(connection: Connection, application: str, topic: str, partition: int, retention_milliseconds: int) -> int:
    """Forget ids older, in stream time, than `retention_milliseconds`; note the newest of them. Returns how many.

    Stream time is that of the newest id: an application that was stopped for a month forgets nothing meanwhile.
    """
    place = (application, topic, partition)
    rows = connection.execute(
        "DELETE FROM towpath_seen WHERE (application, topic, partition) = (%s, %s, %s) AND timestamp_milliseconds <"
        " (SELECT max(timestamp_milliseconds) FROM towpath_seen"
        "   WHERE (application, topic, partition) = (%s, %s, %s)) - %s RETURNING timestamp_milliseconds",
        (*place, *place, retention_milliseconds),
    ).fetchall()
    if rows:
        connection.execute(
            "INSERT INTO towpath_horizon (application, topic, partition, forgotten_milliseconds)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT (application, topic, partition) DO UPDATE"
            " SET forgotten_milliseconds = greatest(towpath_horizon.forgotten_milliseconds,"
            "                                       excluded.forgotten_milliseconds)",
            (*place, max(time for (time,) in rows)),
        )
    return len(rows)
