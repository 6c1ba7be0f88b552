"""One run of a unit of work through the agents: what is still being handled, and how it ended. Pure.

The one rule: a record counts as handled only if an agent took it and came back for the next. A stream that skips a
record (because flow is suspended, or its run is over) acknowledges it all the same; here that is a failure.
"""

import asyncio
from contextvars import ContextVar

from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.failures import AgentFailed
from towpath.stream.engine.unit import Unit

current_unit: ContextVar[Unit | None] = ContextVar("towpath_current_unit", default=None)
"""The unit of work of the record that the running task handles; inherited by the tasks that it starts."""


class Interrupted(Exception):
    """A run was cut short by no fault of a record: the worker stops, or partitions change hands."""


class Run:
    """A unit of work on its way through the agents."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.too_slow = False
        self.outstanding = 1
        self.tasks: dict[asyncio.Task[object], list[ConsumedRecord]] = {}
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def given(self) -> None:
        """Count one more message that agents have been given."""
        self.outstanding += 1

    def taken(self, records: list[ConsumedRecord]) -> None:
        """Note that the running task took a message."""
        task = asyncio.current_task()
        if task is not None:
            self.tasks[task] = records

    def handled(self) -> None:
        """Count one message that every agent has handled; the last one ends the run."""
        self.outstanding -= 1
        if self.outstanding == 0 and not self.finished.done():
            self.finished.set_result(None)

    def fail(self, cause: BaseException, records: list[ConsumedRecord] | None = None) -> None:
        """End the run with a failure; the first one counts."""
        if self.finished.done():
            return
        culprit = records[0] if records and len(records) == 1 else None
        self.finished.set_exception(AgentFailed(cause, culprit))
        # Awaited by whoever waits for the run, if anybody still does.
        self.finished.exception()

    def interrupt(self) -> None:
        """End the run without blame."""
        if not self.finished.done():
            self.finished.set_exception(Interrupted())
            self.finished.exception()
