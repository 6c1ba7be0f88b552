"""Which records of a partition were applied before, for the database form: by their ids, in the effects' transaction.

The one rule: a record is beyond the horizon only when it is older, in
stream time, than the newest id that its partition has forgotten. A backlog, a repetition or a rebuild is not.
"""

from collections.abc import Sequence
from typing import Any

from towpath.errors import PeerError
from towpath.stream.failures import RecordFailed
from towpath.stream.record import ConsumedRecord

_ADD = """
INSERT INTO towpath_seen (application, topic, partition, id, timestamp_milliseconds)
SELECT %s, %s, %s, given.id, given.timestamp_milliseconds
  FROM unnest(%s::text[], %s::bigint[]) AS given (id, timestamp_milliseconds)
ON CONFLICT DO NOTHING RETURNING id
"""
_HORIZON = "SELECT forgotten_milliseconds FROM towpath_horizon WHERE application = %s AND topic = %s AND partition = %s"
_FORGET = """
WITH forgotten AS (
  DELETE FROM towpath_seen
   WHERE application = %(application)s AND topic = %(topic)s AND partition = %(partition)s
     AND timestamp_milliseconds < %(before)s
  RETURNING timestamp_milliseconds
)
INSERT INTO towpath_horizon (application, topic, partition, forgotten_milliseconds)
SELECT %(application)s, %(topic)s, %(partition)s, max(timestamp_milliseconds) FROM forgotten
HAVING count(*) > 0
ON CONFLICT (application, topic, partition) DO UPDATE
   SET forgotten_milliseconds = greatest(towpath_horizon.forgotten_milliseconds, excluded.forgotten_milliseconds)
"""
PRUNES_PER_HORIZON = 20
"""Ids are forgotten twenty times a horizon: they are kept at most a twentieth longer than they need to be."""


class BeyondDedupHorizon(PeerError):
    """A record is older than ids that were forgotten already: whether it was applied can no longer be told."""


class AppliedIds:
    """The ids that one application has applied, partition by partition."""

    def __init__(self, application: str, horizon_milliseconds: int) -> None:
        self._application = application
        self._horizon = horizon_milliseconds
        self._prune_at: dict[tuple[str, int], int] = {}

    def fresh(self, connection: Any, records: Sequence[ConsumedRecord]) -> list[ConsumedRecord]:
        """Return those of `records` (of one partition) that were not applied before, and note that they are now.

        Runs in the transaction of `connection`. A record without an `id` header is known by its position. Raises
        RecordFailed with BeyondDedupHorizon for one that is too old to tell.
        """
        if not records:
            return []
        topic, partition = records[0].topic, records[0].partition
        place = (self._application, topic, partition)
        by_id: dict[str, ConsumedRecord] = {}
        for record in records:
            by_id.setdefault(record.header("id") or record.position, record)
        times = [record.timestamp_milliseconds for record in by_id.values()]
        added = {id_ for (id_,) in connection.execute(_ADD, (*place, list(by_id), times))}
        fresh = [record for id_, record in by_id.items() if id_ in added]
        found = connection.execute(_HORIZON, place).fetchone()
        if found is not None:
            self._refuse_older(fresh, found[0])
        self._prune(connection, topic, partition, max(times))
        return fresh

    @staticmethod
    def _refuse_older(fresh: list[ConsumedRecord], forgotten_milliseconds: int) -> None:
        for record in fresh:
            if record.timestamp_milliseconds <= forgotten_milliseconds:
                error = BeyondDedupHorizon(
                    f"{record.position} is not newer than ids that are forgotten already",
                    kept="the record, untouched",
                    next_step="look whether it was applied, and redrive it only if it was not",
                )
                raise RecordFailed(record, error)

    def _prune(self, connection: Any, topic: str, partition: int, now_milliseconds: int) -> None:
        """Forget what is older than the horizon, in stream time; the first batch of a worker looks once."""
        if now_milliseconds < self._prune_at.get((topic, partition), 0):
            return
        self._prune_at[topic, partition] = now_milliseconds + self._horizon // PRUNES_PER_HORIZON
        connection.execute(
            _FORGET,
            {
                "application": self._application,
                "topic": topic,
                "partition": partition,
                "before": now_milliseconds - self._horizon,
            },
        )
