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

T = TypeVar("T")


class BoundedCaller:
    """Makes calls one after another in a thread of its own, and waits for each no longer than it is told to.

    The thread is a daemon: one that never comes back does not keep its process alive either.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], T], seconds: float) -> T:
        """Return what `function` returns, or raise what it raises. Raises TimeoutError after `seconds`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        answer: Future[T] = Future()
        self._calls.put((function, answer))
        return answer.result(seconds)

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
