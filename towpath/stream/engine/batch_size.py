"""How many records the next unit of work takes. Pure.

The one rule: a unit takes what can be handled in the time that is aimed at. Few records a unit would spend the time on
commits, many would let the first of them wait for the last; how many is right depends on what the agents do with one.
"""

RECORDS_MIN = 20
RECORDS_AT_FIRST = 500
WEIGHT = 0.3
"""Of the newest unit in the moving average: a few units after a change, the pace follows it."""


class BatchSize:
    """Learns from each unit how many records fit into the time aimed at."""

    def __init__(self, records_max: int, seconds_aimed: float) -> None:
        self._records_max = records_max
        self._seconds_aimed = seconds_aimed
        self._seconds_a_record: float | None = None

    @property
    def records(self) -> int:
        """Return how many records the next unit takes at most."""
        if self._seconds_a_record is None:
            return min(RECORDS_AT_FIRST, self._records_max)
        fitting = int(self._seconds_aimed / self._seconds_a_record)
        return min(max(fitting, RECORDS_MIN), self._records_max)

    def took(self, records: int, seconds: float) -> None:
        """Learn that a unit of `records` took so long.

        A small and quick one says little: most of its time is its commit's.
        """
        if not records or (records < self.records // 2 and seconds <= self._seconds_aimed):
            return
        newest = max(seconds / records, 1e-9)
        before = self._seconds_a_record
        self._seconds_a_record = newest if before is None else before + WEIGHT * (newest - before)
