"""Calls into a client library that may not come back, made in a thread that can be given up. Pure.

Why: librdkafka's `send_offsets_to_transaction` takes a time-out and does not heed it (librdkafka #5456): it waits for
a change of its connections, and where the group's coordinator went away at the wrong moment none comes (#5511). A
worker that waited along would hold its partitions for ever.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from towpath.clock import Clock, SystemClock

T = TypeVar("T")

LOOK_SECONDS = 1.0
LOOKS_ANSWERED_MAX = 5
"""A call that is outstanding while the cluster has answered so many looks in a row waits for what will not come: a
coordinator that loads its log takes a second or two."""


class BoundedCaller:
    """Makes calls one after another in a thread of its own, and waits for each no longer than it is told to.

    The thread is a daemon: one that never comes back does not keep its process alive either.
    """

    def __init__(self, name: str, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], T], seconds: float, is_answered: Callable[[], bool] | None = None) -> T:
        """Return what `function` returns, or raise what it raises.

        Raises TimeoutError after `seconds`; and before that once `is_answered`, which is asked every second and may
        block for one, has said several times in a row that the cluster answers others.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        answer: Future[T] = Future()
        self._calls.put((function, answer))
        deadline, answered = self._clock.monotonic_seconds() + seconds, 0
        while True:
            left = max(deadline - self._clock.monotonic_seconds(), 0.0)
            try:
                return answer.result(left if is_answered is None else min(left, LOOK_SECONDS))
            except TimeoutError:
                # One that the function itself raised is its answer.
                if answer.done() or self._clock.monotonic_seconds() >= deadline or is_answered is None:
                    raise
            answered = answered + 1 if is_answered() else 0
            if answered == LOOKS_ANSWERED_MAX:
                raise TimeoutError("the cluster answers others, and this call does not come back")

    def close(self) -> None:
        """Let the thread end once it is idle."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, answer = call
            try:
                answer.set_result(function())
            except BaseException as error:
                answer.set_exception(error)
