"""This worker's member of its group, whether the group still has it, and another one in its place.

The one rule: a client library is asked, and watched. librdkafka's search for its coordinator can hang for ever after a
broker's restart, and a member that waits for it neither serves nor says so. The group itself knows who its members
are: while an admin client is answered and this worker is not among them for long, its member is given up for a new one.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import structlog

from towpath import metrics
from towpath.clock import Clock
from towpath.errors import WorldError
from towpath.stream.broker.port import Broker, GroupMember, GroupMetadata, Member, MemberFenced, MemberSpent, Polled
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.slot import client_id, holder_in, is_alive, read_holder

log = structlog.get_logger("towpath.stream.engine.membership")
T = TypeVar("T")

CALL_SECONDS_MAX = 30.0
"""Longest call into a member: twice what its own slowest one (15 s, reading offsets) takes at most."""
WATCH_SECONDS = 10.0
"""Between two looks at a group that has this worker."""
WATCH_SECONDS_LOST = 1.0
"""Between two looks at a group that has not."""


class MemberHung(WorldError):
    """The group's member cannot go on, or does not come back from a call: only another member can."""


class MembershipWatch:
    """For how long a worker has been no member while the cluster answered. Pure; times are monotonic seconds."""

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._lost_since_seconds: float | None = None
        self._lost_seconds = 0.0

    @property
    def is_lost(self) -> bool:
        """Return whether the group did not have this worker when it was last asked."""
        return self._lost_since_seconds is not None

    def answered(self, metadata: GroupMetadata | None, members: frozenset[str], asked_seconds: float) -> None:
        """Note who the group said that its members are when it was asked."""
        if metadata is not None and metadata.is_member and metadata.member in members:
            self._lost_since_seconds = None
            return
        since = self._lost_since_seconds
        self._lost_since_seconds = asked_seconds if since is None else since
        self._lost_seconds = asked_seconds - self._lost_since_seconds

    def unanswered(self) -> None:
        """Note that the cluster does not answer: nobody can be a member now, and no new one could join."""
        self._lost_since_seconds = None

    @property
    def is_overdue(self) -> bool:
        """Return whether the member is to be given up: it was none for so long, from one look to another.

        A worker that did something else meanwhile has not looked, and may have joined since.
        """
        return self.is_lost and self._lost_seconds >= self._seconds_max


class Membership:
    """The member, the one thread that its calls belong to, and the watch over it."""

    def __init__(
        self, broker: Broker, clock: Clock, *, application: str, slot: str, holder: str, lost_seconds_max: float
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._application = application
        self._slot = slot
        self._own = read_holder(holder)
        self._client_id = client_id(application, slot, holder)
        self._lost_seconds_max = lost_seconds_max
        self._topics: list[str] = []
        self._watch = MembershipWatch(lost_seconds_max)
        self._look: asyncio.Task[tuple[GroupMember, ...]] | None = None
        self._looked_seconds = self._clock.monotonic_seconds()
        self._executor, self._member = self._made()

    def _made(self) -> tuple[ThreadPoolExecutor, Member]:
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"{self._application}-broker")
        member = self._broker.member(self._application, client_id=self._client_id, slot=self._slot)
        return executor, member

    def in_thread(self, call: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """Run a blocking call in the thread that owns the broker's clients."""
        return asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *arguments))

    async def _call(self, call: Callable[..., T], *arguments: Any) -> T:
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                return await self.in_thread(call, *arguments)
        except TimeoutError as error:
            raise MemberHung(f"{self._application}: a call into the Kafka client did not come back") from error

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group."""
        self._topics = sorted(topics)
        await self._call(self._member.subscribe, self._topics)

    async def poll(self, records_max: int, timeout_seconds: float) -> Polled:
        """Wait for records or a rebalance. Raises MemberHung, MemberFenced where another live worker has the slot."""
        try:
            return await self._call(self._member.poll, records_max, timeout_seconds)
        except MemberFenced as error:
            if await self.is_anothers():
                raise
            # A join whose answer was lost in a broker's restart is repeated, and the coordinator takes the repetition
            # for a second worker of this slot: it fences the worker's own earlier self.
            raise MemberHung(f"{self._application}: fenced, and no other worker has slot {self._slot}") from error

    async def is_anothers(self) -> bool:
        """Return whether another worker that lives, or may live, holds this slot."""
        if self._own is None:
            return True
        try:
            members = await asyncio.to_thread(self._broker.group_members, self._application)
        except WorldError:
            return False  # the group cannot be asked now; if another has the slot, the next member is fenced again
        named = {holder_in(member, self._application, self._slot) for member in members} - {None, str(self._own)}
        holders = [read_holder(text) for text in named if text is not None]
        return any(known is None or is_alive(known, self._own) is not False for known in holders)

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Read nothing from `partitions`."""
        await self._call(self._member.pause, partitions)

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read from `partitions` again."""
        await self._call(self._member.resume, partitions)

    async def seek(self, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int]) -> None:
        """Read on from these offsets, reached under the leaders that `epochs` has."""
        try:
            await self._call(self._member.seek, positions, epochs)
        except MemberSpent as error:
            raise MemberHung(f"{self._application}: {error.cause}") from error

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Return the group's stable offsets. Raises BrokerAway."""
        return await self._call(self._member.committed, partitions)

    @property
    def notes(self) -> Mapping[TopicPartition, str]:
        """Return what is noted beside the offsets that `committed` last returned."""
        return self._member.notes

    @property
    def epochs(self) -> Mapping[TopicPartition, int]:
        """Return the leader epochs beside the offsets that `committed` last returned."""
        return self._member.epochs

    async def note(self, partition: TopicPartition, offset: int, text: str) -> None:
        """Commit an offset as it is, with a note beside it. Raises BrokerAway."""
        await self._call(self._member.note, partition, offset, text)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for display."""
        await self._call(self._member.commit, offsets)

    async def is_overdue(self, metadata: GroupMetadata | None) -> bool:
        """Look at the group now and then, beside the caller; return whether the member is to be given up."""
        now = self._clock.monotonic_seconds()
        if self._look is not None and self._look.done():
            look, self._look = self._look, None
            try:
                self._watch.answered(metadata, frozenset(member.id for member in look.result()), self._looked_seconds)
            except WorldError:
                self._watch.unanswered()
        well = metadata is not None and metadata.is_member and not self._watch.is_lost
        if self._look is None and now - self._looked_seconds >= (WATCH_SECONDS if well else WATCH_SECONDS_LOST):
            self._looked_seconds = now
            self._look = asyncio.create_task(asyncio.to_thread(self._broker.group_members, self._application))
        return self._watch.is_overdue

    async def replace(self, reason: str) -> None:
        """Give the member up, whatever it is doing, and join with a new one."""
        log.warning("member is replaced", application=self._application, slot=self._slot, reason=reason)
        metrics.MEMBERS_REPLACED.labels(self._application).inc()
        executor, member = self._executor, self._member
        executor.shutdown(wait=False)
        # It may never come back from this either; its thread does not keep the process alive.
        threading.Thread(target=member.abandon, name=f"{self._application}-abandoned", daemon=True).start()
        self._watch = MembershipWatch(self._lost_seconds_max)
        self._executor, self._member = self._made()
        await self.subscribe(self._topics)

    async def close(self) -> None:
        """Leave the group."""
        if self._look is not None:
            self._look.cancel()
        await self._call(self._member.close)

    def end(self) -> None:
        """Let the thread go, once nothing else needs it."""
        self._executor.shutdown(wait=False)
