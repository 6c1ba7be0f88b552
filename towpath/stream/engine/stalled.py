"""Notices a worker that has come to a stop in the middle of a turn, and ends its process.

The one rule: it looks from a thread of its own, since the event loop, or the unit's thread, is what does not come back.
Nothing that waits for either can help: no poll, no signal, no clean stop.
"""

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass

import structlog

from towpath.clock import Clock
from towpath.errors import ProgrammerError
from towpath.settings import StreamSettings
from towpath.stream.engine.failures import Work, or_give_up

log = structlog.get_logger("towpath.stream.engine.stalled")

STALLED_POLL_INTERVALS = 5
"""After one poll interval the group has given the partitions to others. A handler that takes some of them still ends,
and is then found (`HandlerTooSlow`); by default five are five minutes, forty times what a transaction may take."""
LOOK_SECONDS_MAX = 1.0


class WorkerStalled(ProgrammerError):
    """A worker's handlers, or what they wait for, never came back: the process ends, since nothing else would."""


@dataclass(slots=True)
class TurnProgress:
    """What the loop of an application is in the middle of. Written by the loop alone."""

    application: str
    step: int = 0
    began_seconds: float | None = None
    work: Work | None = None

    def begins(self, now_seconds: float, work: Work | None = None) -> None:
        """Note that a turn begins, or another step of one: its unit of work, or a new member in place of a hung one."""
        self.step += 1
        self.began_seconds, self.work = now_seconds, work

    def ends(self) -> None:
        """Note that the turn has ended."""
        self.began_seconds = self.work = None


class StallWatch:
    """Looks at the progress of one worker. `tell` makes its status say why, for as long as the step goes on."""

    def __init__(
        self,
        progress: TurnProgress,
        settings: StreamSettings,
        clock: Clock,
        tell: Callable[[str, Callable[[], bool]], None],
        end: Callable[[WorkerStalled], None],
    ) -> None:
        self._progress = progress
        self._tells_after_seconds = settings.poll_interval_seconds_max
        self._ends_after_seconds = STALLED_POLL_INTERVALS * settings.poll_interval_seconds_max
        self._clock = clock
        self._tell = tell
        self._end = end
        self._told_step: int | None = None

    def look(self) -> None:
        """Tell of a step that takes longer than the group waits, and end the process where it never seems to end."""
        step, began, work = self._progress.step, self._progress.began_seconds, self._progress.work
        if began is None:
            return
        seconds = self._clock.monotonic_seconds() - began
        if seconds < self._tells_after_seconds:
            return
        place = "the worker" if work is None else work.place
        cause = f"{place}: has not come back from a handler, or what it waits for, for {seconds:.0f} s"
        if seconds >= self._ends_after_seconds:
            fix = (
                "see in the traceback at the end of the log what each thread stands at; give what a handler waits for "
                "a time-out of its own"
            )
            self._end(
                WorkerStalled(
                    cause,
                    kept="every record whose offset is not committed: it is read again",
                    next_step=fix if work is None else f"{fix}; {or_give_up(self._progress.application, work.place)}",
                )
            )
        elif self._told_step != step:
            self._told_step = step
            log.error("worker has stalled", reason=cause, ends_after_seconds=self._ends_after_seconds)
            self._tell(cause, lambda: self._progress.step == step and self._progress.began_seconds is not None)


def end_process(error: WorkerStalled) -> None:
    """Say what happened and what each thread stands at, and end the process without waiting for any of them."""
    try:
        log.critical("worker stops", error=type(error).__qualname__, reason=str(error))
        faulthandler.dump_traceback(all_threads=True)
    finally:
        os._exit(int(error.exit_code))


@contextmanager
def watching(find: Callable[[], StallWatch | None], settings: StreamSettings) -> Iterator[None]:
    """Look for as long as the body runs, once there is something to look at.

    What holds the interpreter itself (a regular expression that backtracks without end) keeps this thread from looking,
    too: then the process ends by a timer that needs no interpreter, and only the traceback of each thread says where.
    """
    done = threading.Event()
    ends_after_seconds = STALLED_POLL_INTERVALS * settings.poll_interval_seconds_max
    look_seconds = min(LOOK_SECONDS_MAX, settings.poll_interval_seconds_max / 4)

    def arm() -> None:
        faulthandler.dump_traceback_later(ends_after_seconds, exit=True)

    def look() -> None:
        watch = None
        while not done.wait(look_seconds):
            arm()
            try:
                watch = watch or find()
                if watch is not None:
                    watch.look()
            except Exception:  # a status that cannot be written, say: whoever looks no more ends a worker that is well
                log.exception("cannot look whether the worker goes on")

    thread = threading.Thread(target=copy_context().run, args=(look,), name="towpath-stalls", daemon=True)
    arm()
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()
