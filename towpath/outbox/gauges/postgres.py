"""How many rows of an outbox are not captured yet, how old they are, and what its slot keeps: looked up at a scrape.

The one rule: one short-lived connection a scrape, with a statement time-out, so that metrics never hold a service up.
"""

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg

from towpath import metrics
from towpath.metrics import Sample
from towpath.outbox.names import slot_name
from towpath.settings import Settings

CONNECT_TIMEOUT_SECONDS = 2
STATEMENT_MILLISECONDS = 2_000
ROWS_COUNTED_MAX = 100_000
"""A backlog beyond this is told as this: what matters is that it grows, and its age and bytes go on telling how far."""
PLACES_MAX = 1_000
"""Places in the write-ahead log that are remembered with their time: at a scrape each 15 s, four hours."""

_SLOT = """
SELECT (now() AT TIME ZONE 'UTC'), pg_current_wal_lsn() - '0/0'::pg_lsn,
  confirmed_flush_lsn - '0/0'::pg_lsn, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn),
  coalesce(wal_status = 'lost', false)
FROM (SELECT) AS here LEFT JOIN pg_replication_slots ON slot_name = %s
"""
_ROWS = """
SELECT count(*), extract(epoch FROM (now() AT TIME ZONE 'UTC') - min(created_at))
FROM (SELECT created_at FROM public.outbox WHERE created_at > %s LIMIT %s) AS waiting
"""


class OutboxGauges:
    """Samples one service's outbox and slot.

    Which rows are captured, no column says. So each scrape notes where the log stands; once the slot has confirmed
    that place, all that was written before it is captured. Hence rows written before the first scrape are not counted,
    and a row counts until the next scrape after its capture at most: an upper bound, exact within one interval.
    """

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._service = service
        self._slot = slot_name(settings.project.name, service)
        self._places: deque[tuple[int, datetime]] = deque(maxlen=PLACES_MAX)
        self._captured_to: datetime | None = None

    def __call__(self) -> Iterator[Sample]:
        """Yield the samples. Raises psycopg's errors where the database is away."""
        options: dict[str, Any] = dict(self._settings.postgres.connection_options())
        with psycopg.connect(
            self._settings.postgres.database_url(self._service),
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            options=f"-c statement_timeout={STATEMENT_MILLISECONDS}",
            autocommit=True,
            **options,
        ) as connection:
            ((now, written, confirmed, kept, lost),) = connection.execute(_SLOT, (self._slot,)).fetchall()
            yield metrics.SLOT_LOST, (self._service,), float(confirmed is None or lost)
            if kept is not None:
                yield metrics.SLOT_WAL_BYTES, (self._service,), float(kept)
            if confirmed is not None:
                yield metrics.SLOT_LAG_BYTES, (self._service,), float(max(written - confirmed, 0))
            since = self._since(now, int(written), None if confirmed is None else int(confirmed))
            ((rows, seconds),) = connection.execute(_ROWS, (since, ROWS_COUNTED_MAX)).fetchall()
            yield metrics.OUTBOX_ROWS, (self._service,), float(rows)
            yield metrics.OUTBOX_SECONDS, (self._service,), float(seconds or 0)

    def _since(self, now: datetime, written: int, confirmed: int | None) -> datetime:
        """Return up to when everything is known to be captured."""
        self._places.append((written, now))
        self._captured_to = self._captured_to or now
        while confirmed is not None and self._places and self._places[0][0] <= confirmed:
            self._captured_to = self._places.popleft()[1]
        return self._captured_to
