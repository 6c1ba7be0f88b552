"""A unit of work takes what fits into the time aimed at, between a floor and the limit of the settings."""

import pytest

from towpath.stream.engine.batch_size import RECORDS_AT_FIRST, RECORDS_MIN, BatchSize


def after(pace: BatchSize, seconds_a_record: float, units: int = 20) -> int:
    """Return what the pace is once so many full units went like this."""
    for _ in range(units):
        pace.took(pace.records, pace.records * seconds_a_record)
    return pace.records


def test_it_begins_in_the_middle() -> None:
    """Before the first unit nothing is known; a smaller limit holds even then."""
    assert BatchSize(2_000, 0.1).records == RECORDS_AT_FIRST
    assert BatchSize(7, 0.1).records == 7


@pytest.mark.parametrize(
    ("seconds_a_record", "records"),
    [(10e-6, 2_000), (100e-6, 1_000), (1e-3, 100), (1.0, RECORDS_MIN)],
    ids=["quick", "middling", "slow", "very slow"],
)
def test_it_follows_the_work(seconds_a_record: float, records: int) -> None:
    """Quick records fill the limit, slow ones a tenth of a second, and never fewer than the floor."""
    assert after(BatchSize(2_000, 0.1), seconds_a_record) == pytest.approx(records, rel=0.02)


def test_it_recovers_from_slow_times() -> None:
    """What was slow once, because a database was, need not stay slow."""
    pace = BatchSize(2_000, 0.1)
    assert after(pace, 0.1) == RECORDS_MIN
    assert after(pace, 10e-6, units=60) == 2_000


def test_a_small_unit_says_nothing() -> None:
    """One record with the commit's whole cost would look slow: it is not counted, and neither is none."""
    pace = BatchSize(2_000, 0.1)
    after(pace, 100e-6)
    pace.took(1, 0.02)
    pace.took(0, 0.02)
    assert pace.records == pytest.approx(1_000, rel=0.02)


def test_a_small_unit_that_took_long_counts() -> None:
    """Where records come slowly and are slow, too, the next unit must not take more of them."""
    pace = BatchSize(2_000, 0.1)
    after(pace, 10e-6)
    for _ in range(20):
        pace.took(50, 5.0)
    assert pace.records == RECORDS_MIN
