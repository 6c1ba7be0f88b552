"""What a worker does without a record: timers fire, and offsets move that no unit with records has committed.

The one rule: each of these is a unit of work like any other, guarded by the group's generation.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from towpath.clock import Clock, epoch_milliseconds
from towpath.stream.broker.port import Broker, GroupMetadata, Groups, OutputRefused
from towpath.stream.broker.position import HoldKind, PartitionHeld
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.assignment import Assignment, Phase
from towpath.stream.engine.membership import Membership
from towpath.stream.engine.timer_gate import TimerGate
from towpath.stream.engine.transaction import Transaction
from towpath.stream.engine.unit import KafkaUnit, Unit

IDLE_ADVANCE_SECONDS = 30.0
"""How often positions are moved past transaction markers, at a moment in which no record waits: one commit for all."""
AGAIN_SECONDS = 1.0
"""How soon it is tried again where an end had to be read once more."""


class Idle:
    """The units without records of one worker.

    `open_unit` begins one, `guarded` runs one to a definite end, `waiting` says whether records of a partition wait,
    `hold` holds the partitions of a number.
    """

    def __init__(
        self,
        broker: Broker,
        member: Membership,
        transaction: Transaction,
        ownership: Assignment,
        timer_gate: TimerGate | None,
        *,
        open_unit: Callable[[Groups], Unit],
        guarded: Callable[[Unit, Awaitable[bool]], Awaitable[bool]],
        waiting: Callable[[TopicPartition], bool],
        hold: Callable[[int, PartitionHeld], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._member = member
        self._transaction = transaction
        self._ownership = ownership
        self._timer_gate = timer_gate
        self._open_unit = open_unit
        self._guarded = guarded
        self._waiting = waiting
        self._hold = hold
        self._clock = clock
        self._passed_seconds = self._clock.monotonic_seconds()
        self._leaders: dict[TopicPartition, int] = {}

    @property
    def is_due(self) -> bool:
        """Return whether a moment without records is wanted, for positions that are to be moved past markers."""
        return self._clock.monotonic_seconds() - self._passed_seconds >= IDLE_ADVANCE_SECONDS

    async def turn(self, metadata: GroupMetadata | None) -> None:
        """Fire what is due, or else commit how far units have come that wrote nothing."""
        if await self.fire_timers(metadata):
            return
        if self._transaction.owes_offsets:
            await self.commit_owed(metadata)
        elif self.is_due:
            self._passed_seconds = self._clock.monotonic_seconds()
            await self._pass_markers(metadata)

    async def commit_owed(self, metadata: GroupMetadata | None) -> None:
        """Commit how far units have come that wrote nothing."""
        await self._guarded(unit := self._open_unit({}), self._commit(unit, {}, metadata))

    async def _commit(self, unit: Unit, ends: Mapping[TopicPartition, int], metadata: GroupMetadata | None) -> bool:
        await self._transaction.commit(unit, ends, metadata)
        self._ownership.processed_to(ends.items())
        return True

    async def _pass_markers(self, metadata: GroupMetadata | None) -> None:
        """Commit the ends of partitions that were read to their end.

        Behind the last record lie transaction markers. A position that stayed before them would look, once retention
        has removed the records, as if something had expired unread.
        """
        owned = self._ownership
        reached = {p: owned.read_to(p, waiting=False) for p in owned.in_phase(Phase.SERVING)}
        ends = await self._read_under_one_leader({p: end for p, end in reached.items() if end > owned.processed(p)})
        if ends:
            unit = self._open_unit({partition: [] for partition in ends})
            await self._guarded(unit, self._commit(unit, ends, metadata))

    async def _read_under_one_leader(self, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the ends of which the leader is known; the others are read once more, from the last record on.

        The leader's epoch is kept beside a position, and tells later whether the log is still the one that was read up
        to there. Behind the last record may lie what a later leader wrote: an aborted transaction, a marker. With the
        epoch of the record the position would look like a tail that was lost, and to write down the leader of now could
        hide that one was lost: of an end that an earlier one had, nobody knows whether it is still there. So the leader
        must be the same as before the end was read; the client checks the log up to the last record when it is sought.
        """
        if not ends:
            return ends
        epochs = self._transaction.epochs
        leaders = await asyncio.to_thread(self._broker.leader_epochs, list(ends))
        same = {p for p in ends if leaders[p] in (epochs.get(p, -1), self._leaders.get(p))}
        epochs.update({p: leaders[p] for p in same})
        others = [p for p in ends if p not in same]
        if others:
            begins = await asyncio.to_thread(self._broker.begin_offsets, others)
            self._passed_seconds -= IDLE_ADVANCE_SECONDS - AGAIN_SECONDS
            positions = {p: max(self._ownership.processed(p), min(begins[p], ends[p])) for p in others}
            whole = {p: epochs.get(p, -1) for p in others if positions[p] == self._ownership.processed(p)}
            await self._member.seek(positions, whole)
            self._leaders.update({p: leaders[p] for p in others})
            self._ownership.sought(others)
        return {p: end for p, end in ends.items() if p in same}

    async def fire_timers(self, metadata: GroupMetadata | None) -> bool:
        """Fire the due timers of one partition; return whether there were any. Records of others may wait meanwhile."""
        gate = self._timer_gate
        if gate is None:
            return False
        number = await gate.next_ready(self._ownership, self._waiting, epoch_milliseconds(self._clock))
        if number is None:
            return False
        unit = self._open_unit({})
        assert isinstance(unit, KafkaUnit)
        await self._guarded(unit, self._fire(gate, unit, number, metadata))
        return True

    async def _fire(self, gate: TimerGate, unit: KafkaUnit, number: int, metadata: GroupMetadata | None) -> bool:
        # The offsets do not move; they carry the group's generation, which fences a ghost.
        offsets = {place: self._ownership.processed(place) for place in self._ownership.with_number(number)}
        try:
            fired = gate.fire(unit, number)
            await self._transaction.commit(unit, offsets, metadata)
        except OutputRefused as error:
            # It fitted when it was set: the topic takes less now. Only a person can say how large its records may be.
            await self._transaction.abort(unit)
            await self._hold(number, _timer_refused(gate.topic, number, error))
            return False
        gate.fired(number, fired, epoch_milliseconds(self._clock))
        return True


def _timer_refused(topic: str, number: int, error: OutputRefused) -> PartitionHeld:
    return PartitionHeld(
        HoldKind.TIMER,
        f"a timer of {topic}[{number}] is due, and its record is refused: {error.cause}",
        kept="the timer, and all the others of its partition; they are tried again by themselves",
        next_step=f"raise max.message.bytes in schemas/topics/{topic}.yaml, then: towpath provision",
    )
