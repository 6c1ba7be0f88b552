"""Opens and catches up the stores of partitions that were assigned, beside the loop, which goes on polling."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Event
from types import MappingProxyType
from typing import Any, TypeVar

import structlog

from towpath import metrics
from towpath.clock import Clock
from towpath.errors import WorldError
from towpath.stream.broker.port import Broker
from towpath.stream.broker.position import HoldKind, PartitionHeld, accept_command
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.failures import backoff_seconds
from towpath.stream.state.changelog import NONE_NOTED, CatchUpStopped, StrangeChangelog, catch_up
from towpath.stream.state.partition_state import Store
from towpath.stream.state.stores import PartitionStores, StoreFactory

log = structlog.get_logger("towpath.stream.engine.recovery")

NOTHING_NOTED: Mapping[int, Mapping[str, int]] = MappingProxyType({})
T = TypeVar("T")
THREADS_MAX = 32
"""Catch-ups side by side; more partitions wait for one that has come to its end."""
LOOKS_MAX = 2
LOOK_AGAIN_SECONDS = 0.5
"""A broker that has just started may, for a moment, not know its log's whole end."""


class Recovery:
    """The stores of one worker on their way to serving."""

    def __init__(
        self,
        broker: Broker,
        stores: PartitionStores,
        open_store: StoreFactory,
        clock: Clock,
        *,
        application: str,
        slot: str = "",
    ) -> None:
        self._broker = broker
        self._stores = stores
        self._open_store = open_store
        self._clock = clock
        self._application = application
        self._slot = slot
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stops: dict[int, Event] = {}
        # Threads of its own: a catch-up takes one for as long as it lasts, and the loop, which waits for others,
        # must find one free whatever the number of partitions.
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="catch-up")

    def begin(self, numbers: Iterable[int], noted: Mapping[int, Mapping[str, int]] = NOTHING_NOTED) -> None:
        """Begin to catch up the stores of partition `numbers`, those that do not serve already.

        `noted` says of each number into which changelogs, by id, the group's state went, and how far at least.
        """
        for number in numbers:
            if number in self._stores.partitions or number in self._tasks:
                continue
            if not self._stores.changelogs:
                self._stores.serve(number, {})
                continue
            stop = self._stops[number] = Event()
            self._tasks[number] = asyncio.create_task(self._restore(number, stop, noted.get(number, NONE_NOTED)))

    def finished(self) -> tuple[set[int], dict[int, PartitionHeld]]:
        """Return the numbers that serve, and those that cannot, each with why.

        Raises what a catch-up raised, unless a dependency was at fault.
        """
        held: dict[int, PartitionHeld] = {}
        for number, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[number]
                try:
                    task.result()
                except PartitionHeld as error:
                    held[number] = error
        return set(self._stores.partitions), held

    async def _restore(self, number: int, stop: Event, noted: Mapping[str, int]) -> None:
        opened: dict[str, Store] = {}
        try:
            for name in self._stores.changelogs:
                changelog = TopicPartition(name, number)
                store = opened[name] = await self._open(changelog, stop)
                await self._catch_up(changelog, store, stop, noted)
        except CatchUpStopped:
            await self._close(opened.values())
            return
        except BaseException:
            await self._close(opened.values())
            raise
        self._stores.serve(number, opened)

    async def _open(self, changelog: TopicPartition, stop: Event) -> Store:
        """Open a store, for as long as it takes: another process may still hold it, or the disk be full."""
        failures = 0
        while not stop.is_set():
            try:
                return await self._in_thread(self._open_store, changelog)
            except WorldError as error:
                failures += 1
                log.warning("store cannot be opened yet", changelog=str(changelog), reason=str(error))
                await self._in_thread(stop.wait, backoff_seconds(failures))
        raise CatchUpStopped(str(changelog))

    async def _catch_up(self, changelog: TopicPartition, store: Store, stop: Event, noted: Mapping[str, int]) -> None:
        failures = looks = 0
        while True:
            try:
                taken = await self._in_thread(self._read, changelog, store, noted, stop.is_set)
            except StrangeChangelog as error:
                looks += 1
                if looks == LOOKS_MAX:
                    raise self._held(changelog, error) from error
                await self._in_thread(stop.wait, LOOK_AGAIN_SECONDS)
                continue
            except WorldError as error:
                failures += 1
                log.warning("catch-up waits", changelog=str(changelog), reason=error.cause)
                await self._in_thread(stop.wait, backoff_seconds(failures))
                continue
            log.info("store serves", changelog=str(changelog), records=taken)
            return

    def _held(self, changelog: TopicPartition, error: StrangeChangelog) -> PartitionHeld:
        accept = f"{accept_command(self._application, changelog)} --slot {self._slot}"
        if not error.has_store:
            return PartitionHeld(
                HoldKind.CHANGELOG,
                str(error),
                kept="the group's offsets; its partition number is not served",
                next_step="start the worker of the slot whose store is left, if one is, and write that back: "
                f"towpath positions rewrite --help; or go on without the state: {accept}",
            )
        if error.is_continued:
            return PartitionHeld(
                HoldKind.CHANGELOG,
                str(error),
                kept="the store of this worker, which has what the changelog lost; its partition number is not served",
                next_step="another worker went on without what was lost: look into both, then give the store up: "
                f"{accept}",
            )
        rewrite = f"towpath positions rewrite {self._application} {changelog.topic} {changelog.partition}"
        return PartitionHeld(
            HoldKind.CHANGELOG,
            str(error),
            kept="the store of this worker, which may be the last copy; its partition number is not served",
            next_step=f"{rewrite} --slot {self._slot} --reason REASON writes the store into the changelog; or give the "
            f"store up: {accept}",
        )

    def _read(
        self,
        changelog: TopicPartition,
        store: Store,
        noted: Mapping[str, int],
        should_stop: Callable[[], bool],
    ) -> int:
        if should_stop():
            raise CatchUpStopped(str(changelog))
        return catch_up(
            self._broker,
            changelog,
            store,
            self._clock,
            noted=noted,
            should_stop=should_stop,
            progress=self._tell_progress,
        )

    def _tell_progress(self, changelog: TopicPartition, left: int) -> None:
        metrics.RESTORE_RECORDS_LEFT.labels(self._application, changelog.topic, changelog.partition).set(left)

    async def withdraw(self, numbers: Iterable[int]) -> None:
        """Stop serving `numbers`, stop their catch-up, and close their stores."""
        stores: list[Store] = []
        for number in numbers:
            stop = self._stops.pop(number, None)
            if stop is not None:
                stop.set()
            task = self._tasks.pop(number, None)
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)
            stores.extend(self._stores.withdraw(number))
        await self._close(stores)

    async def close(self) -> None:
        """Stop everything and close every store."""
        await self.withdraw([*self._tasks, *self._stores.partitions])
        self._threads.shutdown(wait=False)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        run = partial(copy_context().run, call, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def _close(self, stores: Iterable[Store]) -> None:
        for store in stores:
            await self._in_thread(store.close)
