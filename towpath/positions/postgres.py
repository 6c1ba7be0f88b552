"""Positions that a database keeps beside the effects: looked at, and moved with a row that says who and why."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from towpath.errors import NotFoundError, RefusedError, WorldError, first_line
from towpath.positions.decision import PositionDecision, Standing
from towpath.stream.broker.port import Broker
from towpath.stream.broker.position import PartitionHeld, judge, lost_tail, read_lost_tail, recreated
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.elsewhere.postgres import require_in_public

CONNECT_TIMEOUT_SECONDS = 5
LOCK_TIMEOUT_MILLISECONDS = 10_000

_READ = """
SELECT topic, partition, topic_id, next_offset, note FROM public.towpath_offsets WHERE application = %s
 ORDER BY topic, partition
"""
_MOVE = """
UPDATE public.towpath_offsets
   SET topic_id = %(topic_id)s, next_offset = %(offset_after)s, note = '', leader_epoch = -1, updated_at = now()
 WHERE application = %(application)s AND topic = %(topic)s AND partition = %(partition)s
   AND next_offset = %(offset_before)s
"""
_WRITE = """
INSERT INTO public.towpath_position_decisions
       (application, topic, partition, topic_id, offset_before, offset_after, found, actor, reason)
VALUES (%(application)s, %(topic)s, %(partition)s, %(topic_id)s, %(offset_before)s, %(offset_after)s, %(found)s,
        %(actor)s, %(reason)s)
"""
# The ids of records without one, from the offset on at which the log has other records now.
_FORGET = """
DELETE FROM public.towpath_seen
 WHERE application = %(application)s AND topic = %(topic)s AND partition = %(partition)s
   AND CASE WHEN starts_with(id, %(place)s) AND substr(id, length(%(place)s) + 1) ~ '^[0-9]{1,18}$'
            THEN substr(id, length(%(place)s) + 1)::bigint >= %(forgets_from)s ELSE false END
"""


@contextmanager
def _connected(url: str, options: Mapping[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(
            url,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            options=f"-c lock_timeout={LOCK_TIMEOUT_MILLISECONDS}",
            **options,
        ) as connection:
            yield connection
    except psycopg.errors.UndefinedTable as error:
        raise NotFoundError("no worker has kept a position in this database yet", next_step="towpath run") from error
    except psycopg.OperationalError as error:
        raise WorldError(
            f"the database {conninfo_to_dict(url).get('dbname', '')} does not answer: {first_line(error)}",
            kept="every position",
            next_step="towpath status",
        ) from error


def database_standings(broker: Broker, application: str, url: str, options: Mapping[str, Any]) -> list[Standing]:
    """Return where an application stands by its database.

    Raises WorldError, NotFoundError where no worker has kept offsets there, ConfigurationError where the application's
    lie in another schema.
    """
    with _connected(url, options) as connection:
        try:
            rows = connection.execute(_READ, (application,)).fetchall()
        except psycopg.errors.UndefinedTable:
            connection.rollback()
            require_in_public(connection, application)
            raise
        if not rows:
            require_in_public(connection, application)
    topics = {row[0] for row in rows}
    counts = broker.partition_counts(topics)
    rows = [row for row in rows if row[1] < counts.get(row[0], 0)]
    places = [TopicPartition(row[0], row[1]) for row in rows]
    ids = broker.topic_ids({place.topic for place in places}) if places else {}
    begins, ends = broker.begin_offsets(places), broker.end_offsets(places)
    found = []
    for place, (_, _, known_id, offset, note) in zip(places, rows, strict=True):
        held: PartitionHeld | None
        end = read_lost_tail(note)
        if known_id != ids[place.topic]:
            held = recreated(application, place, offset)
        elif end is not None:
            held = lost_tail(application, place, offset, end)
        else:
            held = judge(application, place, offset, begins[place], ends[place])
        found.append(Standing(application, place, offset, begins[place], ends[place], ids[place.topic], held))
    return found


def accept_in_database(decision: PositionDecision, url: str, options: Mapping[str, Any]) -> None:
    """Move a position, its worker running or not. Raises RefusedError where it has moved since it was looked at."""
    with _connected(url, {**options, "target_session_attrs": "read-write"}) as connection:
        if connection.execute(_MOVE, decision.to_json()).rowcount != 1:
            raise RefusedError(
                f"{decision.application} stands at {decision.offset_before} of {decision.topic}"
                f"[{decision.partition}] no more",
                kept="the position as it is now",
                next_step="towpath positions list",
            )
        place = f"{TopicPartition(decision.topic, decision.partition)}@"
        connection.execute(_FORGET, {**decision.to_json(), "place": place})
        connection.execute(_WRITE, decision.to_json())
