"""The record of replays, in the views' database: who ran what and why, how far it is, and whether it is to stop.

The one rule: only the run of a plan that began last writes down how it gets on. While it lives it holds a lock, so one
that was killed is not taken for one that runs.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import psycopg

from towpath.errors import NotFoundError
from towpath.replay.plan import Plan
from towpath.replay.progress import superseded
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

Connection = psycopg.Connection[Any]

_BEGIN = """
INSERT INTO towpath_replays (replay_id, plan, actor, reason, forced, state) VALUES (%s, %s, %s, %s, %s, 'running')
ON CONFLICT (replay_id) DO UPDATE SET state = 'running', stop_asked = false, actor = excluded.actor,
  reason = excluded.reason, forced = excluded.forced, run = towpath_replays.run + 1, updated_at = now()
RETURNING run, sent
"""
_NOTE = """
UPDATE towpath_replays SET sent = %s, state = %s, updated_at = now() WHERE replay_id = %s AND run = %s
RETURNING stop_asked
"""
# Shared, since two runs of a plan may meet: the broker lets the later one go on.
_LIVE = "SELECT pg_advisory_lock_shared(hashtextextended(%s, 1))"
_READ = """
SELECT replay_id, actor, reason, forced, CASE WHEN state = 'running' AND NOT EXISTS (
         SELECT FROM pg_locks
          WHERE locktype = 'advisory' AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (classid::bigint << 32 | objid::bigint) = hashtextextended(replay_id, 1))
       THEN 'interrupted' ELSE state END, sent, stop_asked, started_at, updated_at, plan FROM towpath_replays
"""


@dataclass(frozen=True, slots=True)
class KnownReplay:
    """One replay as it was written down."""

    replay_id: str
    actor: str
    reason: str
    forced: bool
    state: str
    sent: int
    stop_asked: bool
    started_at: datetime
    updated_at: datetime
    plan: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without the plan."""
        return {
            "replay_id": self.replay_id,
            "state": "stopping" if self.stop_asked and self.state == "running" else self.state,
            "sent": self.sent,
            "records": self.plan["counted"]["records"],
            "actor": self.actor,
            "reason": self.reason,
            "forced": self.forced,
            "started_at": self.started_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


def create_replays(connection: Connection) -> None:
    """Create the table where it is missing."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath replay', 0))")
        connection.execute(resources.files(__package__).joinpath("replays.sql").read_bytes())


@dataclass(frozen=True, slots=True)
class Begun:
    """A run of a plan: the how manieth it is, and how many records the earlier ones have sent."""

    replay_id: str
    run: int
    sent: int


def begin(connection: Connection, plan: Plan, *, actor: str, reason: str, forced: bool) -> Begun:
    """Write down that a plan is run, by whoever holds this connection. Commits."""
    create_replays(connection)
    with connection.transaction():
        connection.execute(_LIVE, (plan.replay_id,))
        values = (plan.replay_id, json.dumps(storable(plan.to_json())), actor, reason, forced)
        ((run, sent),) = connection.execute(_BEGIN, values).fetchall()
    return Begun(plan.replay_id, int(run), int(sent))


def storable(plain: Any) -> Any:
    """Return plain values as PostgreSQL takes them: keys of records may be any bytes, its texts have no NUL."""
    if isinstance(plain, str):
        return plain.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(plain, dict):
        return {storable(name): storable(value) for name, value in plain.items()}
    return [storable(one) for one in plain] if isinstance(plain, list | tuple) else plain


def is_known(connection: Connection, replay_id: str) -> bool:
    """Return whether a plan has been run before, however that ended. Leaves no transaction open."""
    create_replays(connection)
    with connection.transaction():
        return bool(connection.execute("SELECT 1 FROM towpath_replays WHERE replay_id = %s", (replay_id,)).fetchall())


def note(connection: Connection, begun: Begun, *, sent: int) -> bool:
    """Write down how far a run is; return whether it is to stop. Commits. Raises RefusedError if another has begun."""
    with connection.transaction():
        found = connection.execute(_NOTE, (sent, "running", begun.replay_id, begun.run)).fetchall()
    if not found:
        raise superseded(begun.replay_id)
    return bool(found[0][0])


def end(connection: Connection, begun: Begun, *, sent: int, state: str) -> None:
    """Write down how a run has ended, where no other one has begun since. Commits."""
    with connection.transaction():
        connection.execute(_NOTE, (sent, state, begun.replay_id, begun.run))


def ask_to_stop(connection: Connection, replay_id: str) -> KnownReplay:
    """Ask the run of a replay to stop after its transaction, where one is under way. Raises NotFoundError."""
    found = show(connection, replay_id)
    if found.state == "running":
        with connection.transaction():
            connection.execute("UPDATE towpath_replays SET stop_asked = true WHERE replay_id = %s", (replay_id,))
    return found


def show(connection: Connection, replay_id: str) -> KnownReplay:
    """Return one replay. Raises NotFoundError."""
    create_replays(connection)
    found = connection.execute(f"{_READ} WHERE replay_id = %s", (replay_id,)).fetchone()
    if found is None:
        raise NotFoundError(f"there is no replay {replay_id}", next_step="towpath replay list")
    return KnownReplay(*found)


def known(connection: Connection) -> list[KnownReplay]:
    """Return every replay that was run, the latest first."""
    create_replays(connection)
    rows = connection.execute(f"{_READ} ORDER BY started_at DESC").fetchall()
    return [KnownReplay(*row) for row in rows]


_ELSEWHERE = """
SELECT again.id, seen.application, again.topic, again.partition, seen.partition
  FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(ids)s::text[]) AS again (topic, partition, id)
 CROSS JOIN unnest(%(applications)s::text[]) AS one (application)
 CROSS JOIN generate_series(0, %(last)s) AS place (number)
  JOIN public.towpath_seen AS seen ON (seen.application, seen.topic, seen.partition, seen.id)
                             = (one.application, again.topic, place.number, again.id)
 WHERE place.number <> again.partition AND NOT EXISTS (
   SELECT FROM public.towpath_seen AS own WHERE (own.application, own.topic, own.partition, own.id)
                                       = (one.application, again.topic, again.partition, again.id))
 LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A record that an application has noted in another partition than that in which it would come again."""

    id: str
    application: str
    topic: str
    partition: int
    noted_in: int


def noted_elsewhere(
    connection: Connection, applications: Iterable[str], records: Sequence[ConsumedRecord], partitions: int
) -> Elsewhere | None:
    """Return one of the records that an application would not know again; `partitions` is the most that a topic has."""
    if connection.execute("SELECT to_regclass('public.towpath_seen') IS NULL").fetchall()[0][0]:
        return None
    values = {
        "topics": [record.topic for record in records],
        "partitions": [record.partition for record in records],
        "ids": [record.header("id") for record in records],
        "applications": list(applications),
        "last": partitions - 1,
    }
    found = connection.execute(_ELSEWHERE, values).fetchone()
    return None if found is None else Elsewhere(*found)


def forgotten(connection: Connection, applications: Iterable[str]) -> dict[tuple[str, TopicPartition], int]:
    """Return up to which time each application has forgotten ids, by partition, where it has."""
    if connection.execute("SELECT to_regclass('public.towpath_horizon') IS NULL").fetchall()[0][0]:
        return {}
    rows = connection.execute(
        "SELECT application, topic, partition, forgotten_milliseconds FROM public.towpath_horizon"
        " WHERE application = ANY(%s)",
        (list(applications),),
    ).fetchall()
    return {(application, TopicPartition(topic, partition)): until for application, topic, partition, until in rows}
