"""Waiting by a clock: the one loop, and the one that calls again after an error."""

import pytest

from towpath.clock import ManualClock, retry, wait_until


def test_what_holds_at_once_is_not_waited_for() -> None:
    """Not even with no time at all."""
    clock = ManualClock()
    assert wait_until(clock, lambda: 7, seconds=0, every_seconds=1) == 7
    assert clock.monotonic_seconds() == 0


def test_it_looks_until_it_holds() -> None:
    """And returns what was found then."""
    clock = ManualClock()
    found = wait_until(
        clock, clock.monotonic_seconds, holds=lambda seconds: seconds >= 3, seconds=60, every_seconds=0.5
    )
    assert found == 3


def test_it_looks_once_more_when_the_time_is_over() -> None:
    """What was found last is returned, whether it holds or not."""
    clock, looks = ManualClock(), []
    assert not wait_until(clock, lambda: looks.append(1), seconds=1, every_seconds=0.4)
    assert len(looks) == 4
    assert clock.monotonic_seconds() == pytest.approx(1.2)


def test_an_error_is_tried_again() -> None:
    """Until the call succeeds; false is a result like any other."""
    clock, calls = ManualClock(), []

    def call() -> bool:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return False

    assert retry(clock, call, on=ConnectionError, seconds=10, every_seconds=1) is False
    assert clock.monotonic_seconds() == 2


def test_the_last_error_is_raised_when_the_time_is_over() -> None:
    """And one of another kind at once."""
    clock = ManualClock()

    def fail() -> None:
        raise KeyError(clock.monotonic_seconds())

    with pytest.raises(KeyError, match="3"):
        retry(clock, fail, on=KeyError, seconds=2.5, every_seconds=1)
    with pytest.raises(KeyError, match="3"):
        retry(clock, fail, on=ValueError, seconds=60, every_seconds=1)
