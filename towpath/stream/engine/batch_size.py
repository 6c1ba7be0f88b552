"""How many records the next unit of work takes, and how long records may gather for it. Pure.

The one rule: what a unit costs and what a record costs are two figures. A unit takes what can be handled in the time
that is aimed at, its own cost not counted: a controller that divides the whole time by the records sees dear records
whenever commits are slow, takes fewer of them, and in the end does nothing but commit.
"""

from dataclasses import dataclass

RECORDS_MIN = 20
RECORDS_AT_FIRST = 500
WEIGHT = 0.3
"""Of the newest unit in the moving average: a few units after a change, the size follows it."""


@dataclass(frozen=True, slots=True)
class Gathering:
    """How long records may gather while many come: until they are worth `units_worth` times what a unit itself costs.

    At 8 a ninth of the time goes into units, the rest into records. `seconds_max` bounds the wait: a saga of five steps
    waits eleven times, and what a longer one saves is 3 % of a saga's processor time at most. With `crowd_records` in
    one unit many are believed to come: 200 sagas a second, which nobody should wait for, bring about 30 a unit.
    """

    units_worth: float = 8.0
    seconds_max: float = 0.04
    crowd_records: int = 48


class BatchSize:
    """Learns from each unit what it costs by itself and what its records do."""

    def __init__(self, records_max: int, seconds_aimed: float, gathering: Gathering | None = None) -> None:
        self._records_max = records_max
        self._seconds_aimed = seconds_aimed
        self._gathering = gathering or Gathering()
        self._seconds_a_record: float | None = None
        self._seconds_a_unit = 0.0
        self._gather_seconds = 0.0

    @property
    def records(self) -> int:
        """Return how many records the next unit takes at most."""
        if self._seconds_a_record is None:
            return min(RECORDS_AT_FIRST, self._records_max)
        # At least as long as the unit itself costs, or more time goes into units than into records.
        aimed = max(self._seconds_aimed, self._gathering.units_worth * self._seconds_a_unit)
        fitting = int(aimed / self._seconds_a_record)
        return min(max(fitting, RECORDS_MIN), self._records_max)

    @property
    def gather_seconds(self) -> float:
        """Return how long to let records gather before the next unit, 0 unless many came with the last one."""
        return self._gather_seconds

    def took(self, records: int, seconds: float, unit_seconds: float) -> None:
        """Learn that the records of a unit took so long, and the unit by itself (its commit) `unit_seconds`."""
        if not records:
            return
        taken_at_most = self.records  # as it was when the unit took them
        self._seconds_a_unit += WEIGHT * (unit_seconds - self._seconds_a_unit)
        self._gather_seconds = 0.0
        if self._gathering.crowd_records <= records < taken_at_most:
            worth = self._gathering.units_worth * self._seconds_a_unit - seconds
            self._gather_seconds = min(max(worth, 0.0), self._gathering.seconds_max)
        # A few quick ones say little: what is the same for every unit weighs too much in them.
        if records < self.records // 2 and seconds <= self._seconds_aimed:
            return
        newest = max(seconds / records, 1e-9)
        before = self._seconds_a_record
        self._seconds_a_record = newest if before is None else before + WEIGHT * (newest - before)
