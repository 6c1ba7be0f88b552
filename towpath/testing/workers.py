"""Runs a project's workers by turns, one after the other, until nothing is left to do: no waiting, no chance of order.

Each worker is the engine's own loop (`UnitLoop`): units of work, transactions, state, timers and dead letters are
those of production. Only two things differ: the broker never waits, and time is a `ManualClock`. The one rule: a
worker's turn ends before the next one's begins, so the same test runs in the same order every time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from towpath.clock import ManualClock, SystemClock, epoch_milliseconds
from towpath.errors import ProgrammerError
from towpath.settings import StreamSettings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.batch_size import Gathering
from towpath.stream.engine.failures import AgentFailed, named_in
from towpath.stream.engine.loop import UnitLoop
from towpath.stream.engine.options import StreamOptions
from towpath.stream.engine.unit import Unit
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.faust_app.wiring import build_loop, stores_of
from towpath.stream.state.stores import PartitionStores

T = TypeVar("T")
Handler = Callable[[Any, Groups], Awaitable[None]]

STREAM = StreamSettings(
    # A person may stand in a debugger meanwhile: an hour, and the order that the engine requires.
    batch_seconds_max=3_600.0,
    transaction_timeout_seconds=3_700.0,
    session_timeout_seconds=3_800.0,
    poll_interval_seconds_max=3_900.0,
    # A test wants to see what fails the first time, and each time.
    handler_attempts_max=1,
    dead_letter_share_max=1.0,
)
NO_GATHERING = Gathering(seconds_max=0.0)

QUIET_TURNS = 2
"""Turns in which nothing happens before a worker is believed to have nothing left: one may only give a record up."""
WAITING_SECONDS_MAX = 120.0
"""How long a worker may wait for something that is away, in virtual time or in real, before the test fails."""
PAUSE_SECONDS = 0.002
"""Real seconds between rounds while a store is read, which a thread does; a back-off takes virtual time alone."""


class SteppedBroker(MemoryBroker):
    """The memory broker, but nobody ever waits at it: what is there is returned, or nothing."""

    def __init__(self, settings: StreamSettings, clock: ManualClock) -> None:
        super().__init__(settings, _StandingClock(clock))
        self.written = 0

    def wait(self, ready: Callable[[], T | None], timeout_seconds: float) -> T | None:  # noqa: ARG002 - it never waits
        """Return what is ready now."""
        return ready()

    def add_record(self, *arguments: Any) -> ConsumedRecord:
        """Append a record, and count it."""
        self.written += 1
        return super().add_record(*arguments)

    def ends(self, topics: Iterable[str]) -> tuple[int, ...]:
        """Return where topics of one partition end, markers included."""
        with self.changed:
            return tuple(self.log_of(TopicPartition(topic, 0)).end for topic in topics)


class _StandingClock:
    """Gives records the virtual time; sessions and transactions do not expire when days pass at once."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic_seconds(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        """Return at once: nobody waits at this broker."""


class _Agents:
    """One function as the agents of a worker; keeps what it raised, for the test's own traceback."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.handled = 0
        self.raised: dict[str, BaseException] = {}

    async def handle(self, unit: Unit, groups: Groups, seconds: float) -> None:  # noqa: ARG002 - a test has its own
        """Call the function."""
        self.handled += sum(map(len, groups.values()))
        try:
            await self._handler(unit, groups)
        except Exception as error:
            if (named := named_in(error)) is not None:
                self._note(named.record, named.cause)
                raise AgentFailed(named.cause, named.record) from error
            records = [record for group in groups.values() for record in group]
            self._note(records[0], error)
            raise AgentFailed(error, records[0] if len(records) == 1 else None) from error

    def _note(self, record: ConsumedRecord, cause: BaseException) -> None:
        self.raised[record.position] = cause

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Do nothing."""

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Do nothing."""

    async def ready(self) -> None:
        """Do nothing: the worker's status says it."""


@dataclass
class _Worker:
    name: str
    loop: UnitLoop
    agents: _Agents
    stores: PartitionStores
    topics: tuple[str, ...]
    keeps_timers: bool
    told: list[WorkerStatus]
    paused: bool = False
    subscribed: bool = False
    quiet_turns: int = 0
    ends: tuple[int, ...] = ()
    """Where its topics ended before its last turn."""

    @property
    def status(self) -> WorkerStatus | None:
        """Return how it stands, None before it has said so."""
        return self.told[-1] if self.told else None

    @property
    def is_ready(self) -> bool:
        """Return whether it serves all that it owns, and waits for nothing."""
        return self.status is not None and self.status.is_ready


@dataclass
class Workers:
    """The workers of a project."""

    broker: SteppedBroker
    clock: ManualClock
    _all: list[_Worker] = field(default_factory=list)
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def add(self, name: str, application: str, topics: Iterable[str], handler: Handler, **more: Any) -> None:
        """Add a worker that handles the records of `topics` with `handler`; `more` are fields of `StreamOptions`."""
        told: list[WorkerStatus] = []
        options = StreamOptions(
            application=application,
            slot="1",
            broker=self.broker,
            settings=STREAM,
            clock=self.clock,
            gathering=NO_GATHERING,
            on_status=told.append,
            **more,
        )
        agents, stores = _Agents(handler), stores_of(options)
        loop = build_loop(options, agents, stores=stores)
        keeps_timers = options.timers_topic is not None
        self._all.append(_Worker(name, loop, agents, stores, tuple(topics), keeps_timers, told))

    def pause(self, name: str, *, paused: bool) -> None:
        """Have a worker of that name, or of that kind and name (`service:catalog`), take no turns, or take them again.

        Raises ProgrammerError for a name that none has.
        """
        found = [worker for worker in self._all if name in (worker.name, worker.name.partition(":")[2])]
        if not found:
            raise ProgrammerError(
                f"there is no worker {name!r}", next_step=f"use one of {', '.join(worker.name for worker in self._all)}"
            )
        for worker in found:
            worker.paused = paused

    def raised(self, position: str) -> BaseException | None:
        """Return what the function that handled the record at `position` raised, if it did."""
        return next((worker.agents.raised[position] for worker in self._all if position in worker.agents.raised), None)

    def until_quiet(self, relay: Callable[[], int]) -> None:
        """Let every worker take turns until no record is left; `relay` carries outboxes, and says how many messages.

        Raises AssertionError where a worker waits for something that stays away, or cannot go on.
        """
        self._run(self._until_quiet(relay))

    def next_due(self) -> datetime | None:
        """Return when the next timer falls due, None where none runs."""
        awake = [worker for worker in self._all if not worker.paused]
        dues = [due for worker in awake if (due := self._due_milliseconds(worker)) is not None]
        if not dues:
            return None
        seconds = (min(dues) - self.now_milliseconds) / 1000
        return self.clock.now() + timedelta(seconds=max(seconds, 0.0))

    @property
    def now_milliseconds(self) -> int:
        """Return the virtual time, as records have it."""
        return epoch_milliseconds(self.clock)

    def advance_to(self, moment: datetime) -> None:
        """Let virtual time pass until `moment`, to the millisecond above."""
        self.clock.advance(max((moment - self.clock.now()).total_seconds(), 0.0))
        if self.clock.now().microsecond % 1000:
            self.clock.advance((1000 - self.clock.now().microsecond % 1000) / 1_000_000)

    def close(self) -> None:
        """Let every worker leave, without finishing what is open."""
        try:
            for worker in self._all:
                self._run(worker.loop.close())
            self._all.clear()
        finally:
            self._runner.close()

    def _run(self, body: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._runner.run(body)
            return
        body.close()
        raise ProgrammerError(
            "a project in memory runs its workers in an event loop of its own, and this thread has one already",
            next_step="in an asynchronous test: await asyncio.to_thread(project.run)",
        )

    async def _until_quiet(self, relay: Callable[[], int]) -> None:
        real, waited_seconds = SystemClock(), 0.0
        began: float | None = None
        while True:
            moved = relay()
            awake = [worker for worker in self._all if not worker.paused]
            wanted = [worker for worker in awake if self._wants_a_turn(worker)]
            for worker in wanted:
                await self._turn(worker)
            if all(worker.is_ready for worker in awake):
                began, waited_seconds = None, 0.0
                if not moved and not wanted:
                    return
                continue
            held = any(worker.status is not None and worker.status.held for worker in awake)
            began = real.monotonic_seconds() if began is None else began
            if held or max(waited_seconds, real.monotonic_seconds() - began) > WAITING_SECONDS_MAX:
                raise AssertionError(_stuck(awake))
            back_off = min((seconds for worker in awake if (seconds := worker.loop.waits_seconds)), default=0.0)
            self.clock.advance(back_off)
            waited_seconds += back_off
            await asyncio.sleep(0.0 if back_off else PAUSE_SECONDS)

    def _wants_a_turn(self, worker: _Worker) -> bool:
        """Return whether there may be something for a worker to do: most have nothing most of the time."""
        if not worker.is_ready or worker.quiet_turns < QUIET_TURNS or self.broker.ends(worker.topics) != worker.ends:
            return True
        due = self._due_milliseconds(worker)
        return due is not None and due <= self.now_milliseconds

    def _due_milliseconds(self, worker: _Worker) -> int | None:
        if not worker.keeps_timers:
            return None
        dues = [worker.stores.timers(number).next_due_milliseconds() for number in worker.stores.partitions]
        return min((due for due in dues if due is not None), default=None)

    async def _turn(self, worker: _Worker) -> None:
        if not worker.subscribed:
            worker.subscribed = True
            await worker.loop.subscribe(worker.topics)
        worker.ends = self.broker.ends(worker.topics)
        before = self._mark(worker)
        await worker.loop.turn()
        # Tasks that the turn began (a store that is read) go on beside the next one's.
        await asyncio.sleep(0)
        worker.quiet_turns = worker.quiet_turns + 1 if self._mark(worker) == before else 0

    def _mark(self, worker: _Worker) -> tuple[int, ...]:
        """Return what changes whenever a worker does anything."""
        return self.broker.written, worker.agents.handled, worker.loop.ownership.changes


def _stuck(workers: Iterable[_Worker]) -> str:
    standing = [(worker.name, worker.status.words if worker.status else "has not begun") for worker in workers]
    waiting = {worker.name for worker in workers if not worker.is_ready}
    return "\n".join(
        ["the project cannot go on:", *(f"  {name} {words}" for name, words in standing if name in waiting)]
    )
