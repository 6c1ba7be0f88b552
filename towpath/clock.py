"""The port through which time comes in. Nothing else in the engine reads a clock for a decision."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Where code outside the pure rooms gets the time from."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Return seconds that never run backwards, for measuring and for deadlines in this process."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return once so many seconds have passed; none or less is none."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic_seconds(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the thread for `seconds`."""
        time.sleep(max(seconds, 0.0))


class ManualClock:
    """A clock that moves only when told, for tests and simulations."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._now = start

    def now(self) -> datetime:
        """Return the time that the last `advance` reached."""
        return self._now

    def monotonic_seconds(self) -> float:
        """Return the seconds advanced so far."""
        return (self._now - self._start).total_seconds()

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`, which must not be negative."""
        if seconds < 0:
            raise ValueError("a clock does not run backwards")
        self._now += timedelta(seconds=seconds)

    def sleep(self, seconds: float) -> None:
        """Move forward by `seconds`, and return at once."""
        self.advance(max(seconds, 0.0))


def epoch_milliseconds(clock: Clock) -> int:
    """Return the wall-clock time in milliseconds since 1970, as records carry it."""
    return int(clock.now().timestamp() * 1000)


def wait_until(
    clock: Clock,
    look: Callable[[], T],
    *,
    seconds: float,
    every_seconds: float,
    holds: Callable[[T], object] = bool,
) -> T:
    """Look until what `look` returns `holds`, by default until it is true; after `seconds` no more. Return it.

    It looks at least once, and once more after the last wait.
    """
    deadline = clock.monotonic_seconds() + seconds
    while not holds(found := look()) and clock.monotonic_seconds() < deadline:
        clock.sleep(every_seconds)
    return found


def retry(clock: Clock, call: Callable[[], T], *, on: type[Exception], seconds: float, every_seconds: float) -> T:
    """Return what `call` returns; while it raises an error of the kind `on`, call it again.

    Raises the last one once `seconds` have passed.
    """
    deadline = clock.monotonic_seconds() + seconds
    while True:
        try:
            return call()
        except on:
            if clock.monotonic_seconds() >= deadline:
                raise
        clock.sleep(every_seconds)
