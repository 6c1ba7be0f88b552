"""Brings a worker's partitions from assigned to served, or to held: positions first, then stores, then records.

The one rule: a partition is served from a position that its log has, with stores that have caught up, or not at all.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import structlog

from towpath import metrics
from towpath.clock import Clock
from towpath.stream.broker.port import UNKNOWN_END, Broker
from towpath.stream.broker.position import (
    NOTED_KINDS,
    HoldKind,
    PartitionHeld,
    judge,
    lost_tail,
    read_lost_tail,
    write_lost_tail,
)
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.assignment import Assignment, Phase
from towpath.stream.engine.holds import Holds
from towpath.stream.engine.membership import Membership
from towpath.stream.engine.recovery import Recovery
from towpath.stream.engine.shown_holds import ShownHolds
from towpath.stream.engine.transaction import Transaction
from towpath.stream.engine.worker_status import HeldPartition, WorkerStatus
from towpath.stream.state.changelog import read_changelogs

log = structlog.get_logger("towpath.stream.engine.settling")

LOOK_AGAIN_SECONDS = 0.5
"""A broker that has just started may, for a moment, not know its log's whole end."""
LOOKS_MAX = 10
"""Before a loss is believed, which is noted for good; of one that is known already, one look more is enough."""


class Settling:
    """The partitions of one worker on their way."""

    def __init__(
        self,
        broker: Broker,
        assignment: Assignment,
        recovery: Recovery,
        *,
        application: str,
        keeps_state: bool,
        skip_expired: bool,
        check_topics: Callable[[], None],
        slot: str,
        on_status: Callable[[WorkerStatus], None] | None,
        drop: Callable[[frozenset[TopicPartition]], None],
        commit_owed: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._assignment = assignment
        self._recovery = recovery
        self._application = application
        self._keeps_state = keeps_state
        self._skip_expired = skip_expired
        self._check_topics = check_topics
        self._topics_checked = False
        self.cut: dict[TopicPartition, int] = {}
        """Where the cluster says that logs end that were cut, until it is dealt with; UNKNOWN_END where it cannot."""
        self._too_short = frozenset[TopicPartition]()
        self._slot = slot
        self._on_status = on_status
        self._drop = drop
        self._commit_owed = commit_owed
        self._status_seen: tuple[object, ...] = ()
        self._telling = threading.Lock()
        self.holds = Holds(application, clock)
        self._shown = ShownHolds(clock, assignment.__contains__)

    def assigned(self) -> None:
        """Note that partitions were assigned: their topics may have changed since they were last looked at."""
        self._topics_checked = False

    def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget partitions that are another worker's now."""
        gone = list(partitions)
        self.holds.release(gone)
        self._shown.forget(gone)
        self._too_short -= set(gone)
        for partition in gone:
            self.cut.pop(partition, None)  # whoever has it next asks for itself, and has processed something else

    def cuts(self) -> list[tuple[TopicPartition, int]]:
        """Return what is known of cut logs whose partitions are settled: of others nobody knows how far they were read.

        What is returned stays in `cut` until the caller has dealt with it.
        """
        return [(p, end) for p, end in self.cut.items() if self._assignment.phase(p) not in (None, Phase.UNSETTLED)]

    def hold(self, partition: TopicPartition, error: PartitionHeld) -> list[TopicPartition]:
        """Hold a partition, and with it, where state is kept, those of its number; return which, to be paused."""
        return self._hold_each({partition: error}, {partition})

    def _hold_each(
        self, errors: Mapping[TopicPartition, PartitionHeld], looked_at: Collection[TopicPartition]
    ) -> list[TopicPartition]:
        """Hold partitions for what is wrong with them, and those that wait along with them; return which.

        What waits of them is forgotten: it is read again from where each goes on.
        """
        whose: dict[TopicPartition, TopicPartition] = {}
        for partition, error in sorted(errors.items()):
            # What waits for a version is tried by its next record: trying the others along with it would serve them.
            alone = not self._keeps_state or error.kind is HoldKind.VERSION
            for place in [partition] if alone else self._assignment.with_number(partition.partition):
                whose.setdefault(place, partition)
        for place, first in whose.items():
            # A reason of its own stays where nobody has looked at it now, or only its next record can tell.
            own = self.holds.own(place)
            stays = own is not None and (place not in looked_at or own.kind in NOTED_KINDS)
            reason = errors.get(place, own if stays else None)
            self.holds.hold(place, reason or errors[first], first if reason is None else place)
        self._assignment.set_phase(whose, Phase.HELD)
        self._drop(frozenset(whose))
        return list(whose)

    async def settle(self, transaction: Transaction, member: Membership) -> list[TopicPartition]:
        """Move partitions on; return those that are served from now on.

        Raises ConfigurationError where topics no longer fit each other, WorldError while something is away.
        """
        self._try_held_again()
        unsettled = self._assignment.in_phase(Phase.UNSETTLED)
        if unsettled:
            await self._find_positions(unsettled, transaction, member)
        restoring = self._assignment.in_phase(Phase.RESTORING)
        if not restoring:
            return []
        done, held = self._recovery.finished()
        for number, error in held.items():
            partitions = self._assignment.with_number(number)
            await self._hold_found(dict.fromkeys(partitions, error), partitions, member)
        served = [partition for partition in restoring if partition.partition in done]
        if served:
            self._assignment.set_phase(served, Phase.SERVING)
            self.holds.release(partition for partition in served if not self._is_tried_by_records(partition))
            await member.resume(served)
        return served

    async def _hold_found(
        self, errors: Mapping[TopicPartition, PartitionHeld], looked_at: Collection[TopicPartition], member: Membership
    ) -> None:
        """Hold what cannot go on. Of those that wait along with it some were served, and read, until now."""
        if errors:
            await self._commit_owed()
            await member.pause(self._hold_each(errors, looked_at))

    async def show_holds(self, member: Membership) -> None:
        """Note beside the group's offsets what only this worker can tell. Raises MemberHung."""
        await self._shown.show(self.holds.errors, member)

    def _try_held_again(self) -> None:
        # One that was assigned later than others of its number waits along with them, or goes on with them.
        later = self._assignment.in_phase(Phase.UNSETTLED) if self._keeps_state and len(self.holds) else []
        for partition in [*self.holds.due(), *later]:
            together = self._assignment.with_number(partition.partition) if self._keeps_state else [partition]
            tried = [place for place in together if self._assignment.phase(place) is Phase.HELD]
            self.holds.trying(tried)
            self._assignment.set_phase(tried, Phase.UNSETTLED)

    def _is_tried_by_records(self, partition: TopicPartition) -> bool:
        """Return whether only its next record can tell whether a held partition goes on."""
        error = self.holds.errors.get(partition)
        return error is not None and error.kind is HoldKind.VERSION

    def processed(self, partitions: Iterable[TopicPartition]) -> None:
        """Note that records of these were applied: whatever held them is over."""
        if len(self.holds):
            self.holds.release(partitions)

    async def _find_positions(
        self, unsettled: list[TopicPartition], transaction: Transaction, member: Membership
    ) -> None:
        if not self._topics_checked:
            await asyncio.to_thread(self._check_topics)
            self._topics_checked = True
        for partition in unsettled:
            self.cut.pop(partition, None)  # said of a position that is found anew now, and asked for anew
        found = await transaction.positions(unsettled)
        noted: dict[int, dict[str, int]] = {}
        if found is None:
            found = self._noted(await member.committed(unsettled), member.notes)
            transaction.epochs.update({p: member.epochs.get(p, -1) for p in unsettled})
            self._shown.found(member.notes)
            for partition, note in member.notes.items():
                went = noted.setdefault(partition.partition, {})
                for topic_id, end in read_changelogs(note).items():
                    went[topic_id] = max(end, went.get(topic_id, 0))
        begins, ends = await asyncio.to_thread(self._bounds, unsettled)
        stored = {p: at for p, at in found.items() if isinstance(at, int)}
        behind = [p for p, at in stored.items() if at > ends[p]]
        looks = 1 if self._too_short.issuperset(behind) else LOOKS_MAX
        while looks and any(stored[p] > ends[p] for p in behind):
            looks -= 1
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            ends |= await asyncio.to_thread(self._broker.end_offsets, behind)
        positions, errors = self._judged(found, begins, ends)
        await self._hold_found(errors, unsettled, member)
        # Where a log was cut that is too short, the cluster tells of a position with an epoch. Until it has, nothing is
        # noted, so that whoever settles next asks as well; of one without, nobody can tell for good.
        cut = {p: stored[p] for p in behind if stored[p] > ends[p]}
        self._too_short = self._too_short.difference(unsettled).union(cut)
        asked = {p: at for p, at in cut.items() if transaction.epochs.get(p, -1) >= 0}
        for partition in cut.keys() - asked.keys():
            await self._note(partition, UNKNOWN_END, stored[partition], transaction, member)
        await member.pause(unsettled)
        going = {p: offset for p, offset in positions.items() if self._assignment.phase(p) is Phase.UNSETTLED}
        # Of a position that was not stored, but chosen here, nothing is known but that the log has it.
        await member.seek(going, {p: transaction.epochs.get(p, -1) for p, at in going.items() if found.get(p) == at})
        for partition in going.keys() & stored.keys():
            if going[partition] > stored[partition]:
                self._tell_skipped(partition, stored[partition], going[partition])
        # Where records were passed over, what is committed lies before them still: an idle worker moves it on.
        self._assignment.processed_to({**going, **stored}.items())
        await member.seek(asked, transaction.epochs)
        self._assignment.sought(going)
        self._assignment.set_phase(going, Phase.RESTORING)
        self._recovery.begin({partition.partition for partition in going}, noted)

    async def cut_off(
        self, partition: TopicPartition, end: int, transaction: Transaction, member: Membership
    ) -> list[TopicPartition]:
        """Hold a partition whose log has lost what was read of it, though it has grown again; return what is held."""
        stored = self._assignment.processed(partition)
        held = self.hold(partition, lost_tail(self._application, partition, stored, end))
        await self._note(partition, end, stored, transaction, member)
        return held

    def _noted(
        self, found: Mapping[TopicPartition, int | None], notes: Mapping[TopicPartition, str]
    ) -> dict[TopicPartition, int | PartitionHeld | None]:
        """Put holds in place of offsets beside which is noted that their log has lost its tail."""
        noted: dict[TopicPartition, int | PartitionHeld | None] = dict(found)
        for partition, note in notes.items():
            stored, end = found.get(partition), read_lost_tail(note)
            if stored is not None and end is not None:
                noted[partition] = lost_tail(self._application, partition, stored, end)
        return noted

    async def _note(
        self, partition: TopicPartition, end: int, stored: int, transaction: Transaction, member: Membership
    ) -> None:
        """Have the hold outlive this worker: once the log has grown past the offset, nothing else would tell.

        Nothing is noted where `stored` is not the stored offset any more: a person has decided meanwhile, and the next
        try goes by that.
        """
        if await transaction.note(partition, write_lost_tail(end), stored):
            return
        # Asked for the note that is there now, too: it stays beside the new one.
        if (await member.committed([partition])).get(partition) == stored:
            await member.note(partition, stored, write_lost_tail(end, member.notes.get(partition, "")))

    def _bounds(self, partitions: list[TopicPartition]) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        return self._broker.begin_offsets(partitions), self._broker.end_offsets(partitions)

    def _judged(
        self,
        found: Mapping[TopicPartition, int | PartitionHeld | None],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, PartitionHeld]]:
        """Return where to read on, and why of others nothing can be read."""
        positions: dict[TopicPartition, int] = {}
        errors: dict[TopicPartition, PartitionHeld] = {}
        for partition, begin in begins.items():
            stored = found.get(partition)
            if stored is None:
                positions[partition] = begin
                continue
            error = stored if isinstance(stored, PartitionHeld) else None
            if isinstance(stored, int):
                error = judge(self._application, partition, stored, begin, ends[partition])
                positions[partition] = stored
            if error is None:
                continue
            if error.kind is HoldKind.EXPIRED and self._skip_expired:
                positions[partition] = begin
                continue
            errors[partition] = error
        return positions, errors

    def _tell_skipped(self, partition: TopicPartition, stored: int, begin: int) -> None:
        log.error("expired records are skipped", partition=str(partition), stored=stored, begin=begin)
        metrics.RECORDS_EXPIRED.labels(self._application, partition.topic).inc(begin - stored)

    def tell_status(self, *, is_member: bool, waiting_for: str | None) -> None:
        """Tell whoever wants to know how the worker stands, where that has changed."""
        seen = (is_member, waiting_for, self._assignment.changes, self.holds.changes)
        if self._on_status is not None and seen != self._status_seen:
            with self._telling:
                self._status_seen = seen
                self._on_status(self._status(is_member=is_member, waiting_for=waiting_for))

    def tell_stalled(self, reason: str, goes_on: Callable[[], bool]) -> None:
        """Tell, from another thread, that the loop has come to a stop, if that `goes_on`; its next turn tells anew."""
        with self._telling:
            if self._on_status is not None and goes_on():
                self._status_seen = ()
                stalled = WorkerStatus(
                    application=self._application,
                    slot=self._slot,
                    is_member=False,
                    waiting_for=reason,
                    has_stalled=True,
                )
                self._on_status(stalled)

    def _status(self, *, is_member: bool, waiting_for: str | None) -> WorkerStatus:
        errors = self.holds.errors
        in_phase = self._assignment.in_phase
        recovering = [*in_phase(Phase.UNSETTLED), *in_phase(Phase.RESTORING)]
        return WorkerStatus(
            application=self._application,
            slot=self._slot,
            is_member=is_member,
            serving=tuple(sorted(str(p) for p in in_phase(Phase.SERVING) if p not in errors)),
            recovering=tuple(sorted(str(p) for p in recovering if p not in errors)),
            held=tuple(
                HeldPartition(partition=str(p), kind=e.kind.value, reason=e.cause, next_step=e.next_step)
                for p, e in sorted(errors.items())
            ),
            waiting_for=waiting_for,
        )
