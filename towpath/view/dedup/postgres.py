"""The ids that an application has applied, in its own database, in the transaction of their effects."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg

from towpath.view.dedup.horizon import Sighting, Sorted, sort_sightings

Connection = psycopg.Connection[Any]


def sort_and_remember(
    connection: Connection, application: str, topic: str, partition: int, sightings: Sequence[Sighting]
) -> tuple[Sorted, int | None]:
    """Sort the sightings of one batch and note the fresh ones as applied; also return how far back memory reaches.

    In the unit's own transaction: if the effects are rolled back, the ids are forgotten with them. The insertion itself
    tells which are known: it goes by the primary key, whatever PostgreSQL believes of the table's size, where a query
    for them reads all ids of the partition until the table is first analysed.
    """
    place = (application, topic, partition)
    horizon = connection.execute(
        "SELECT forgotten_milliseconds FROM public.towpath_horizon"
        " WHERE (application, topic, partition) = (%s, %s, %s)",
        place,
    ).fetchone()
    forgotten = horizon[0] if horizon else None
    old = [each.id for each in sightings if forgotten is not None and each.timestamp_milliseconds <= forgotten]
    result = sort_sightings(sightings, _applied(connection, place, old) if old else (), forgotten)
    if not result.fresh:
        return result, forgotten
    inserted = connection.execute(
        "INSERT INTO public.towpath_seen (application, topic, partition, id, timestamp_milliseconds)"
        " SELECT %s, %s, %s, * FROM unnest(%s::text[], %s::bigint[]) ON CONFLICT DO NOTHING RETURNING id",
        (*place, [each.id for each in result.fresh], [each.timestamp_milliseconds for each in result.fresh]),
    ).fetchall()
    if len(inserted) < len(result.fresh):
        new = {id_ for (id_,) in inserted}
        result = replace(result, fresh=tuple(each for each in result.fresh if each.id in new))
    return result, forgotten


def _applied(connection: Connection, place: tuple[str, str, int], ids: Sequence[str]) -> set[str]:
    """Return those of `ids` that are noted as applied."""
    rows = connection.execute(
        "SELECT id FROM public.towpath_seen WHERE (application, topic, partition) = (%s, %s, %s) AND id = ANY(%s)",
        (*place, list(ids)),
    )
    return {id_ for (id_,) in rows}


def forget(connection: Connection, application: str, topic: str, partition: int, retention_milliseconds: int) -> int:
    """Forget ids older, in stream time, than `retention_milliseconds`; note the newest of them. Returns how many.

    Stream time is that of the newest id: an application that was stopped for a month forgets nothing meanwhile.
    """
    place = (application, topic, partition)
    rows = connection.execute(
        "DELETE FROM public.towpath_seen"
        " WHERE (application, topic, partition) = (%s, %s, %s) AND timestamp_milliseconds <"
        " (SELECT max(timestamp_milliseconds) FROM public.towpath_seen"
        "   WHERE (application, topic, partition) = (%s, %s, %s)) - %s RETURNING timestamp_milliseconds",
        (*place, *place, retention_milliseconds),
    ).fetchall()
    if rows:
        connection.execute(
            "INSERT INTO public.towpath_horizon (application, topic, partition, forgotten_milliseconds)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT (application, topic, partition) DO UPDATE"
            " SET forgotten_milliseconds = greatest(towpath_horizon.forgotten_milliseconds,"
            "                                       excluded.forgotten_milliseconds)",
            (*place, max(time for (time,) in rows)),
        )
    return len(rows)
