"""Calls of an author's functions that come to an end: one that does not is given up, and not called again.

What is counted is the time of the processor, by the timer that POSIX gives a process for it (setitimer(2)), so that a
busy machine makes nothing endless. It is the one clock of this room, and nothing but giving up depends on it. Only the
main thread can be interrupted so; in any other, and where there is no such timer, the call is a plain one.
"""

import signal
from collections.abc import Callable, Sequence
from typing import Any

SECONDS_MAX = 2.0  # a thousand times what building a message takes
_AGAIN_SECONDS = 0.1  # for a function that catches everything


class Endless(BaseException):
    """A function did not come to an end. No `Exception`: its own `except` clauses do not hold it up."""


class BoundedCalls:
    """Calls functions, each for `SECONDS_MAX` of the processor's time at most."""

    def __init__(self, seconds_max: float = SECONDS_MAX) -> None:
        self._seconds_max = seconds_max
        self._endless: set[int] = set()  # by identity: a function need not be hashable

    def __call__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """Return what the function does. Raises whatever it raises, and `Endless`."""
        if id(function) in self._endless:
            raise Endless

        def give_up(*_: object) -> None:
            self._endless.add(id(function))
            raise Endless

        try:
            before = signal.signal(signal.SIGVTALRM, give_up)
        except (AttributeError, ValueError):
            return function(*arguments)
        signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds_max, _AGAIN_SECONDS)
        try:
            return function(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
