"""The record of replays, in the views' database: who ran what and why, how far it is, and whether it is to stop."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import psycopg

from towpath.errors import NotFoundError
from towpath.replay.plan import Plan
from towpath.stream.broker.record import TopicPartition

Connection = psycopg.Connection[Any]

_BEGIN = """
INSERT INTO towpath_replays (replay_id, plan, actor, reason, forced, state) VALUES (%s, %s, %s, %s, %s, 'running')
ON CONFLICT (replay_id) DO UPDATE SET state = 'running', stop_asked = false, actor = excluded.actor,
  reason = excluded.reason, forced = excluded.forced, updated_at = now()
RETURNING sent
"""
_NOTE = """
UPDATE towpath_replays SET sent = %s, state = %s, updated_at = now() WHERE replay_id = %s RETURNING stop_asked
"""
_READ = """
SELECT replay_id, actor, reason, forced, state, sent, stop_asked, started_at, updated_at, plan FROM towpath_replays
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


def begin(connection: Connection, plan: Plan, *, actor: str, reason: str, forced: bool) -> int:
    """Write down that a plan is run, and return how many records earlier runs of it sent. Commits."""
    create_replays(connection)
    with connection.transaction():
        values = (plan.replay_id, json.dumps(plan.to_json()), actor, reason, forced)
        ((sent,),) = connection.execute(_BEGIN, values).fetchall()
    return int(sent)


def is_known(connection: Connection, replay_id: str) -> bool:
    """Return whether a plan has been run before, however that ended. Leaves no transaction open."""
    create_replays(connection)
    with connection.transaction():
        return bool(connection.execute("SELECT 1 FROM towpath_replays WHERE replay_id = %s", (replay_id,)).fetchall())


def note(connection: Connection, replay_id: str, *, sent: int, state: str = "running") -> bool:
    """Write down how far it is; return whether it is to stop. Commits."""
    with connection.transaction():
        found = connection.execute(_NOTE, (sent, state, replay_id)).fetchall()
    return bool(found and found[0][0])


def ask_to_stop(connection: Connection, replay_id: str) -> KnownReplay:
    """Ask the run of a replay to stop after its transaction. Raises NotFoundError."""
    found = show(connection, replay_id)
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


def forgotten(connection: Connection, applications: Iterable[str]) -> dict[tuple[str, TopicPartition], int]:
    """Return up to which time each application has forgotten ids, by partition, where it has."""
    if connection.execute("SELECT to_regclass('towpath_horizon') IS NULL").fetchall()[0][0]:
        return {}
    rows = connection.execute(
        "SELECT application, topic, partition, forgotten_milliseconds FROM towpath_horizon WHERE application = ANY(%s)",
        (list(applications),),
    ).fetchall()
    return {(application, TopicPartition(topic, partition)): until for application, topic, partition, until in rows}
