"""How many instances there are by status, how old they are, and which run out of time: looked up at a scrape.

The one rule: one query on the view of instances, whose rows outnumber what is under way; it reads them all, so it is
asked at most every few seconds, whoever scrapes.
"""

from collections.abc import Iterator, Mapping

import psycopg
from psycopg import errors, sql

from towpath import metrics
from towpath.clock import Clock, SystemClock
from towpath.metrics import Sample
from towpath.orchestrator.sagas_view import NAME
from towpath.saga.definition import Definition
from towpath.saga.state import Status

CONNECT_TIMEOUT_SECONDS = 2
STATEMENT_MILLISECONDS = 5_000
LOOK_SECONDS = 5.0
NEAR = 0.9
"""The share of its time after which a running saga counts as near its deadline."""

_COUNTS = sql.SQL(
    "SELECT saga, version, status, count(*)::float8, extract(epoch FROM now() - min(started_at))::float8,"
    " extract(epoch FROM now() - min(updated_at))::float8,"
    " count(*) FILTER (WHERE started_at < now() - make_interval(secs => near.seconds))::float8"
    " FROM {} LEFT JOIN unnest(%s::text[], %s::bigint[], %s::float8[]) AS near (saga, version, seconds)"
    " USING (saga, version) GROUP BY saga, version, status"
).format(sql.Identifier(NAME))


class SagaGauges:
    """Samples the view of instances, in the database at `url`. `sagas` are the definitions by name and version."""

    def __init__(
        self,
        url: str,
        connection_options: Mapping[str, str],
        sagas: Mapping[str, Mapping[int, Definition]],
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._url = url
        self._options = dict(connection_options)
        self._near_seconds = {
            (saga, version): definition.deadline_milliseconds / 1000 * NEAR
            for saga, versions in sagas.items()
            for version, definition in versions.items()
        }
        self._looked_seconds = float("-inf")
        self._samples: list[Sample] = []

    def __call__(self) -> list[Sample]:
        """Return the samples. Raises psycopg's errors where the database is away."""
        if self._clock.monotonic_seconds() - self._looked_seconds >= LOOK_SECONDS:
            self._samples = list(self._look())
            self._looked_seconds = self._clock.monotonic_seconds()
        return self._samples

    def _look(self) -> Iterator[Sample]:
        asked = ([saga for saga, _ in self._near_seconds], [version for _, version in self._near_seconds])
        with psycopg.connect(
            self._url,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            options=f"-c statement_timeout={STATEMENT_MILLISECONDS}",
            autocommit=True,
            **self._options,  # type: ignore[arg-type]
        ) as connection:
            try:
                rows = connection.execute(_COUNTS, (*asked, list(self._near_seconds.values()))).fetchall()
            except errors.UndefinedTable:  # no worker has kept the view yet
                return
            ages: dict[tuple[str, str], tuple[float, float]] = {}
            near = dict.fromkeys(self._near_seconds, 0.0)
            for saga, version, status, count, age, unchanged, late in rows:
                yield metrics.SAGAS, (saga, str(version), status), count
                if status == Status.RUNNING.value and (saga, version) in near:
                    near[saga, version] = late
                known = ages.get((saga, status), (0.0, 0.0))
                ages[saga, status] = (max(known[0], age), max(known[1], unchanged))
            for labels, (age, unchanged) in ages.items():
                yield metrics.SAGA_AGE_SECONDS, labels, age
                yield metrics.SAGA_UNCHANGED_SECONDS, labels, unchanged
            for (saga, version), count in near.items():
                yield metrics.SAGAS_NEAR_DEADLINE, (saga, str(version)), count
