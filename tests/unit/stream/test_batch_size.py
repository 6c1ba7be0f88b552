"""A unit of work takes what fits into the time aimed at, between a floor and the limit of the settings."""

import pytest

from towpath.stream.engine.batch_size import RECORDS_AT_FIRST, RECORDS_MIN, BatchSize, Gathering


def after(size: BatchSize, seconds_a_record: float, units: int = 20, unit_seconds: float = 0.0) -> int:
    """Return what the size is once so many full units went like this."""
    for _ in range(units):
        size.took(size.records, size.records * seconds_a_record, unit_seconds)
    return size.records


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
    size = BatchSize(2_000, 0.1)
    assert after(size, 0.1) == RECORDS_MIN
    assert after(size, 10e-6, units=60) == 2_000


def test_a_small_unit_says_nothing() -> None:
    """One record with the commit's whole cost would look slow: it is not counted, and neither is none."""
    size = BatchSize(2_000, 0.1)
    after(size, 100e-6)
    size.took(1, 0.02, 0.0)
    size.took(0, 0.02, 0.0)
    assert size.records == pytest.approx(1_000, rel=0.02)


def test_a_small_unit_that_took_long_counts() -> None:
    """Where records come slowly and are slow, too, the next unit must not take more of them."""
    size = BatchSize(2_000, 0.1)
    after(size, 10e-6)
    for _ in range(20):
        size.took(50, 5.0, 0.0)
    assert size.records == RECORDS_MIN


def test_slow_commits_do_not_make_records_dear() -> None:
    """The commit is told apart: units do not shrink because commits are slow, they grow with them."""
    slow = after(BatchSize(2_000, 0.1, Gathering(units_worth=4.0)), 1e-3, unit_seconds=0.2)
    assert slow == pytest.approx(800, rel=0.02), "four times what the commit takes"
    assert slow > after(BatchSize(2_000, 0.1), 1e-3, unit_seconds=0.001)


def test_records_gather_only_where_many_come() -> None:
    """A few records are handled at once; a crowd gathers until it is worth its commit, and never for longer."""
    size = BatchSize(2_000, 0.1, Gathering(units_worth=4.0, seconds_max=0.25, crowd_records=24))
    for _ in range(20):
        size.took(23, 0.001, 0.02)
    assert size.gather_seconds == 0.0
    size.took(24, 0.001, 0.02)
    assert size.gather_seconds == pytest.approx(0.079, rel=0.05)
    size.took(24, 0.5, 0.02)
    assert size.gather_seconds == 0.0, "it was worth its commit"
    for _ in range(20):
        size.took(24, 0.001, 1.0)
    assert size.gather_seconds == 0.25


def test_a_full_unit_is_followed_at_once() -> None:
    """Where more waits than a unit takes there is nothing to gather."""
    size = BatchSize(2_000, 0.1)
    after(size, 1e-3)
    size.took(size.records, 0.001, 0.05)
    assert size.gather_seconds == 0.0
