"""The loop of a worker: poll, run one unit of work, commit; and what to do when any of that fails.

The one rule: partitions change hands inside `poll` only, and `poll` is only called while no unit is open. So whatever
is done between two polls is done by the owner, and group metadata taken with a batch is that batch's own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import structlog

from towpath.clock import Clock, epoch_milliseconds
from towpath.errors import PeerError, WorldError
from towpath.settings import StreamSettings
from towpath.stream.broker.dead_letter import FOLLOWER, STAND_IN, traceback_of, words_of
from towpath.stream.broker.port import (
    Assigned,
    Broker,
    BrokerAway,
    GroupMetadata,
    Groups,
    OutcomeUnknown,
    OutputRefused,
    ProducerFenced,
    Revoked,
    StaleMember,
    TransactionAborted,
)
from towpath.stream.broker.position import PartitionHeld
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.agents import Agents, Fault
from towpath.stream.engine.assignment import Assignment, Phase
from towpath.stream.engine.batch_size import BatchSize, Gathering
from towpath.stream.engine.failures import (
    BACKOFF_SECONDS_MAX,
    BROKER_BACKOFF_SECONDS_MAX,
    AgentFailed,
    Backlog,
    Blame,
    DeadShare,
    Work,
    after_failure,
    backoff_seconds,
    blame,
    blocked,
    ends_the_worker,
    found_in,
    halve,
    handler_exit,
    retry_seconds,
    single_out,
)
from towpath.stream.engine.idle import Idle
from towpath.stream.engine.membership import MemberHung, Membership
from towpath.stream.engine.record_spans import facts_of
from towpath.stream.engine.recovery import Recovery
from towpath.stream.engine.run import Interrupted
from towpath.stream.engine.settling import Settling
from towpath.stream.engine.stalled import StallWatch, TurnProgress, end_process
from towpath.stream.engine.timer_gate import TimerGate
from towpath.stream.engine.transaction import Transaction
from towpath.stream.engine.unit import Unit
from towpath.stream.engine.unit_metrics import UnitMetrics
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.state.parking import Admission

log = structlog.get_logger("towpath.stream.engine.loop")
T = TypeVar("T")

BROKER_ERRORS = (StaleMember, TransactionAborted, OutcomeUnknown, ProducerFenced)
"""What the broker says of a unit, whoever hears it: never a record's fault."""

IDLE_POLL_SECONDS = 0.25  # longest poll: a stop is noticed after so long at the latest
CLOCK_STEP_SECONDS = 1e-6  # what a clock may not be able to tell: `ManualClock` counts microseconds, as dates do
SETTLING_POLL_SECONDS = 0.02  # longest poll while stores catch up: so much too late a partition is served at most


class UnitLoop:
    """One worker's loop."""

    def __init__(
        self,
        broker: Broker,
        transaction_of: Callable[["UnitLoop"], Transaction],
        agents: Agents,
        restoring: Recovery,
        settings: StreamSettings,
        clock: Clock,
        *,
        application: str,
        slot: str,
        holder: str = "",
        world_errors: tuple[type[BaseException], ...] = (),
        learn: Callable[[BaseException], BaseException] | None = None,
        timer_gate: TimerGate | None = None,
        gathering: Gathering | None = None,
        keeps_state: bool = False,
        check_topics: Callable[[list[str]], None] = lambda _topics: None,
        on_status: Callable[[WorkerStatus], None] | None = None,
    ) -> None:
        self.application = application
        self.settings = settings
        self.ownership = Assignment()
        self._progress = TurnProgress(application)
        self._broker = broker
        self._agents = agents
        self._restoring = restoring
        self._clock = clock
        self._world_errors = world_errors
        self._learn = learn
        self._timer_gate = timer_gate
        self._check_topics = check_topics
        self._backlog = Backlog(settings.batch_records_max, settings.dead_records.get(application, ()))
        self._settling = Settling(
            broker,
            self.ownership,
            restoring,
            application=application,
            keeps_state=keeps_state,
            skip_expired=settings.expired_records == "skip",
            check_topics=self.check_topics,
            slot=slot,
            on_status=on_status,
            drop=self._backlog.drop,
            commit_owed=lambda: self._idle.commit_owed(self._metadata),
            clock=clock,
        )
        lost_seconds_max = settings.membership_seconds_max
        self._member = Membership(
            broker, clock, application=application, slot=slot, holder=holder, lost_seconds_max=lost_seconds_max
        )
        self._transaction = transaction_of(self)
        self._batch_size = BatchSize(settings.batch_records_max, settings.batch_seconds_aimed, gathering)
        self._idle = Idle(
            broker,
            self._member,
            self._transaction,
            self.ownership,
            timer_gate,
            open_unit=self._open_unit,
            guarded=self._guarded,
            waiting=self._backlog.holds,
            hold=self._hold_number,
            clock=clock,
        )
        self._dead_share = DeadShare(settings.dead_letter_share_max)
        self._fault = Fault()
        self._number = 0
        self._metadata: GroupMetadata | None = None
        self._stopping = False
        self._ready_told = False
        self._started = False
        self._running: Unit | None = None
        self._commit_took_seconds = 0.0
        self._gather_seconds = 0.0
        self._metrics = UnitMetrics(application, broker, self.ownership, self._backlog.holds, clock)

    def in_thread(self, call: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """Run a blocking call in the thread that owns the broker's clients."""
        return self._member.in_thread(call, *arguments)

    @property
    def current(self) -> Unit | None:
        """Return the open unit of work, if there is one."""
        return self._running

    @property
    def _is_member(self) -> bool:
        return self._metadata is not None and self._metadata.is_member

    @property
    def waits_seconds(self) -> float:
        """Return for how long a dependency that is away is still left alone, by the clock; 0 where none is."""
        left = self._fault.until_seconds - self._clock.monotonic_seconds()
        return left if left > CLOCK_STEP_SECONDS else 0.0

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group. The loop itself is `run`."""
        self.ownership.topics = frozenset(topics)
        await self._member.subscribe(sorted(self.ownership.topics))

    def check_topics(self) -> None:
        """Raise ConfigurationError where topics no longer fit each other, BrokerAway where Kafka is away. Blocks."""
        self._check_topics(sorted(self.ownership.topics))

    async def show_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets to the group without a transaction, for people who look at lag."""
        await self._member.commit(offsets)

    async def run(self) -> None:
        """Work until `stop`. What this raises is not a record's fault: the worker ends with it."""
        while not self._stopping:
            await self.turn()

    def stall_watch(self) -> StallWatch:
        """Return what looks whether the turns of this loop end; for a thread of its own, in a process of its own."""
        return StallWatch(self._progress, self.settings, self._clock, self._settling.tell_stalled, end_process)

    def stop(self) -> None:
        """Finish the open unit, then return from `run`."""
        self._stopping = True

    async def close(self) -> None:
        """Abort what is open, leave the group, close stores and clients."""
        try:
            if self._running is not None:
                await self._transaction.abort(self._running)
                self._running = None
            await self._restoring.close()
            await self._member.close()
            await self._transaction.close()
        finally:
            self._metrics.close()
            self._member.end()

    async def turn(self) -> None:
        """Poll once, and do what that calls for: a step of `run`, for whoever drives several workers by turns."""
        self._progress.begins(self._clock.monotonic_seconds())
        try:
            await self._take_turn()
        except MemberHung as error:
            self._progress.begins(self._clock.monotonic_seconds())  # what hung may have taken its longest time
            await self._replace_member(error.cause)
        finally:
            self._progress.ends()
        self._settling.tell_status(is_member=self._is_member, waiting_for=self._fault.reason)

    async def _take_turn(self) -> None:
        await self._gather()
        polled = await self._member.poll(
            1 if self._backlog or self._fault.failures else self._batch_size.records, self._poll_seconds()
        )
        self._metadata = polled.metadata
        self._settling.cut.update(polled.truncated)  # before the changes: of what is given away nothing is kept
        for change in polled.changes:
            await self._change_hands(change)
        for partition, offset in polled.ends.items():
            self.ownership.seen_end(partition, offset)
        self._transaction.epochs.update(polled.epochs)
        self._lose_positions(polled.unpositioned)
        # What comes before a partition is served will come again, from where its offset is found to be.
        self._backlog.add({p: records for p, records in polled.groups.items() if self.ownership.serves(p)})
        if await self._member.is_overdue(polled.metadata):
            await self._replace_member("its group does not have it, though the cluster answers")
            return
        if self.waits_seconds:
            return
        try:
            await self._start_if_needed()
            await self._hold_cut_logs()
            await self._settle()
            # While this worker is no member, its records may be another's: the next polls will tell.
            work = self._backlog.take() if self._is_member else None
            if work is not None:
                await self._run_work(work)
            elif self._is_member:
                await self._idle.turn(self._metadata)
            if work is None and self._fault.failures:
                await self._world_is_back()
        except MemberHung:
            raise
        except WorldError as error:
            await self._wait_for_world(error)

    async def _gather(self) -> None:
        """Under load, let records gather: a unit of its own for each few costs more than they do."""
        seconds, self._gather_seconds = self._gather_seconds, 0.0
        if seconds and not self._backlog and not self._fault.failures and not self._stopping:
            await asyncio.sleep(seconds)

    def _lose_positions(self, partitions: set[TopicPartition]) -> None:
        """The log no longer has what was to be read next: find out anew where these stand, or hold them."""
        lost = frozenset(partition for partition in partitions if self.ownership.serves(partition))
        if lost:
            log.warning("position is not in the log", partitions=sorted(map(str, lost)))
            self._backlog.drop(lost)
            self._transaction.forget_offsets(lost)
            self.ownership.set_phase(lost, Phase.UNSETTLED)

    async def _hold_cut_logs(self) -> None:
        """Hold partitions whose log has lost what was applied; of what was only read ahead, read what there is now."""
        if self._settling.cut and self._is_member:
            await self._idle.commit_owed(self._metadata)  # a note is written beside what was processed, or not at all
        for partition, end in self._settling.cuts():
            if end >= self.ownership.processed(partition):  # UNKNOWN_END never is
                self._lose_positions({partition})
            else:
                held = await self._settling.cut_off(partition, end, self._transaction, self._member)
                self._transaction.forget_offsets(held)  # a later commit would take away the note beside the offset
                await self._member.pause(held)
            del self._settling.cut[partition]

    async def _replace_member(self, reason: str) -> None:
        """Go on with a new member; what this worker owned is lost, as when its session had ended."""
        owned = self.ownership.partitions
        if owned:
            await self._change_hands(Revoked(owned, lost=True))
        self._metadata = None
        self._fault.paused.clear()
        await self._member.replace(reason)

    def _poll_seconds(self) -> float:
        if self.waits_seconds:
            return min(IDLE_POLL_SECONDS, self.waits_seconds)
        if self._backlog:
            return 0.0
        if self.ownership.in_phase(Phase.RESTORING) or self.ownership.in_phase(Phase.UNSETTLED):
            return SETTLING_POLL_SECONDS
        if self._is_member and self._idle.is_due:
            return 0.0  # in steady traffic, a poll that waits always comes back with a record
        if self._timer_gate is None:
            return IDLE_POLL_SECONDS
        return min(IDLE_POLL_SECONDS, self._timer_gate.seconds_to_next(epoch_milliseconds(self._clock)))

    # Partitions

    async def _change_hands(self, change: Assigned | Revoked) -> None:
        if isinstance(change, Revoked):
            self._backlog.drop(change.partitions)
            self._transaction.forget_offsets(change.partitions)
            self.ownership.revoke(change.partitions)
            self._settling.revoked(change.partitions)
            gone = {p.partition for p in change.partitions} - self.ownership.numbers
            await self._restoring.withdraw(gone)
            log.info("partitions revoked", partitions=sorted(map(str, change.partitions)), lost=change.lost)
            await self._agents.revoked(change.partitions)
            return
        self._ready_told = False
        self._settling.assigned()
        self.ownership.assign(change.partitions)
        log.info("partitions assigned", partitions=sorted(map(str, change.partitions)))
        await self._agents.assigned(self.ownership.partitions)

    async def _start_if_needed(self) -> None:
        if not (self._started and self._transaction.is_ready):
            await self._transaction.start()
            self._started = True

    async def _settle(self) -> None:
        """Move partitions on: stable offsets first, then stores, then serve."""
        served = await self._settling.settle(self._transaction, self._member)
        if served and self._timer_gate is not None:
            self._timer_gate.begin({partition.partition for partition in served})
        if self._is_member:
            await self._settling.show_holds(self._member)
        owned = self.ownership.partitions
        if not self._ready_told and owned and len(self.ownership.in_phase(Phase.SERVING)) == len(owned):
            self._ready_told = True
            await self._agents.ready()

    async def _start_over(self, work: Work | None = None, *, recover: bool) -> None:
        """Forget what was read and go on from what is committed; after an unknown outcome the stores catch up, too.

        What the failures of `work`, and of what waits, have taught is kept in mind.
        """
        if work is not None:
            self._backlog.remember(work)
        self._backlog.drop()
        self._transaction.forget_offsets(self.ownership.partitions)
        self.ownership.unsettle()
        if recover:
            await self._restoring.withdraw(self.ownership.numbers)
            self._started = False

    # Units of work

    async def _run_work(self, work: Work) -> None:
        began = self._clock.monotonic_seconds()
        self._progress.begins(began, work)
        unit = self._open_unit(work.groups)
        unit.by_reference = work.by_reference
        try:
            committed = await self._guarded(unit, self._attempt(unit, work), work)
        except WorldError:
            # Whatever it was: this work is neither committed nor waiting any more, so it must be read again.
            await self._start_over(recover=True)
            raise
        if committed:
            seconds = self._clock.monotonic_seconds() - began
            self._metrics.took(seconds)
            self._batch_size.took(len(work), seconds - self._commit_took_seconds, self._commit_took_seconds)
            self._gather_seconds = self._batch_size.gather_seconds
            if self._fault.failures:
                await self._world_is_back()
            self._progress.begins(self._clock.monotonic_seconds())  # what hangs from here on is none of its records
            await self._idle.fire_timers(self._metadata)  # in steady traffic there is no other moment

    def _open_unit(self, groups: Groups) -> Unit:
        self._number += 1
        return self._transaction.open(self._number, groups)

    async def _attempt(self, unit: Unit, work: Work) -> bool:
        """Handle and commit; return False where the agents' failure was dealt with."""
        began = self._clock.monotonic_seconds()
        try:
            await self._handle(unit, work)
            self._check_time(began)
            await self._commit(unit, work)
        except Interrupted:
            await self._abort(unit, "interrupted")
            self._backlog.put_back([work])
            return False
        except AgentFailed as failure:
            await self._failed(unit, work, failure, began)
            return False
        except OutputRefused as error:
            # Of a dead letter, or at the commit, of some record of this unit: whose it is, smaller units tell.
            await self._failed(unit, work, AgentFailed(error, None), began)
            return False
        return True

    def _check_time(self, began: float) -> None:
        """Raise AgentFailed for handlers that outlived the transaction: only one that blocks is not cut off before.

        Raised before the commit, so that the broker's refusal of that is not taken for a fault of the broker.
        """
        seconds = self._clock.monotonic_seconds() - began
        if seconds >= self.settings.transaction_timeout_seconds:
            raise AgentFailed(blocked(seconds), None)

    async def _failed(self, unit: Unit, work: Work, failure: AgentFailed, began: float) -> None:
        """Settle what becomes of a failed unit's records, then abort it: an abort may find the transaction gone."""
        failure.record = work.own(failure.record)
        if ends_the_worker(failure.cause):
            await self._abort(unit, "agent")
            place = failure.record.position if failure.record is not None else work.place
            raise handler_exit(failure.cause, place, self.application) from failure.cause
        brokers = found_in(failure.cause, BROKER_ERRORS)
        if brokers is not None or blame(failure.cause, self._world_errors) is Blame.WORLD:
            try:
                self._check_time(began)
                if brokers is not None:
                    raise brokers from failure
            except AgentFailed as slow:
                failure = slow
        await self._after_failure(unit, work, failure)

    async def _guarded(self, unit: Unit, body: Awaitable[bool], work: Work | None = None) -> bool:
        """Run one unit of work to a definite end; return whether it was committed."""
        began = self._clock.monotonic_seconds()
        self._running = unit
        try:
            try:
                return await body
            except (TransactionAborted, StaleMember) as error:
                log.warning("transaction aborted", unit=unit.number, reason=error.cause)
                await self._abort(unit, "broker")
                await self._start_over(work, recover=False)
        except ProducerFenced:
            # The coordinator says the same of what outlived its time-out, and of a start of our own that came late.
            own = self._clock.monotonic_seconds() - began >= self.settings.transaction_timeout_seconds
            if not own and not self._transaction.may_fence_itself:
                raise
            log.warning("producer was fenced, and by no other worker", unit=unit.number)
            self._metrics.aborted("timeout")
            unit.close()
            await self._start_over(work, recover=True)
        except OutcomeUnknown as error:
            log.warning("commit was not answered", unit=unit.number, reason=error.cause)
            self._metrics.aborted("unknown")
            await self._start_over(work, recover=True)
        finally:
            self._running = None
        return False

    async def _handle(self, unit: Unit, work: Work) -> None:
        groups = self._admitted(unit, work.groups)
        if not groups:
            return
        if work.verdict is not None:
            self._give_up(unit, work)
            return
        await self._agents.handle(unit, groups, self.settings.batch_seconds_max)

    def _admitted(self, unit: Unit, groups: Groups) -> Groups:
        """Return what the agents are to handle; what follows a dead record goes into quarantine here."""
        kept: Groups = {}
        for partition, records in groups.items():
            applied: list[ConsumedRecord] = []
            for record in records:
                admission = unit.admit(record)
                if admission is Admission.APPLY:
                    applied.append(record)
                elif admission is Admission.FOLLOW:
                    unit.follow(record)
            if applied:
                kept[partition] = applied
        return kept

    def _give_up(self, unit: Unit, work: Work) -> None:
        record = work.only
        assert record is not None
        assert work.verdict is not None
        self._dead_share.check(0 if work.is_declared_dead else 1)
        who = blame(work.verdict, self._world_errors)
        letter = unit.dead_letter(record, cause=work.verdict, kind=who.value, attempts=work.attempts)
        log.error(
            "record is dead",
            position=record.position,
            cause=letter.cause,
            error=letter.error,
            fingerprint=letter.fingerprint,
            attempts=work.attempts,
            **facts_of(record),
        )

    async def _commit(self, unit: Unit, work: Work) -> None:
        offsets = {partition: records[-1].offset + 1 for partition, records in work.groups.items()}
        began = self._clock.monotonic_seconds()
        wrote = await self._transaction.commit(unit, offsets, self._metadata)
        self._commit_took_seconds = self._clock.monotonic_seconds() - began
        self._settling.processed(offsets)
        self.ownership.processed_to(offsets.items())
        for partition, offset in offsets.items():
            self._backlog.committed(partition, offset)
        self._metrics.committed(unit, work.groups, self._commit_took_seconds if wrote else None)
        dead = sum(letter.kind not in (FOLLOWER, STAND_IN) for letter in unit.dead)
        self._dead_share.applied(len(work) - len(unit.dead))
        self._dead_share.died(0 if work.is_declared_dead else dead)
        if self._timer_gate is not None:
            self._timer_gate.reset({*unit.timer_numbers, *(partition.partition for partition in offsets)})

    async def _abort(self, unit: Unit, reason: str) -> None:
        self._metrics.aborted(reason)
        await self._transaction.abort(unit)

    # Failures

    async def _after_failure(self, unit: Unit, work: Work, failure: AgentFailed) -> None:
        who = blame(failure.cause, self._world_errors)
        if self._learn is not None and who is Blame.PEER and (peer := found_in(failure.cause, (PeerError,))):
            await self._transaction.abort(unit)
            failure = AgentFailed(await asyncio.to_thread(self._learn, peer), failure.record)
            who = blame(failure.cause, self._world_errors)
        if held := found_in(failure.cause, (PartitionHeld,)):
            await self._abort(unit, "agent")
            await self._hold(work, failure, held)
            return
        if who is Blame.WORLD:
            self._backlog.put_back([work])
            await self._abort(unit, "agent")
            await self._wait_for_world(failure.cause)
            return
        works = after_failure(work, failure, who, attempts_max=self.settings.handler_attempts_max)
        self._backlog.put_back(works)
        await self._abort(unit, "agent")
        log.warning(
            "unit of work failed",
            records=len(work),
            culprit=failure.record.position if failure.record else None,
            error=type(failure.cause).__qualname__,
            reason=words_of(failure.cause),
            **({"exception": traceback_of(failure.cause)} if work.only is not None else {}),
            **facts_of(failure.record or work.only),
        )
        if who is Blame.HANDLER and work.only is not None and work.verdict is None:
            await asyncio.sleep(retry_seconds(work.attempts, self.settings.handler_retry_seconds))

    async def _hold(self, work: Work, failure: AgentFailed, error: PartitionHeld) -> None:
        """Hold the partition of the record that has to wait; the others go on."""
        culprit = failure.record or work.only
        if culprit is None and len(work.groups) > 1:
            self._backlog.put_back(halve(work))
            return
        if culprit is not None and work.only is None:
            self._backlog.put_back(single_out(work, culprit))
            return
        partition = next(iter(work.groups)) if culprit is None else culprit.topic_partition
        await self._idle.commit_owed(self._metadata)  # a later commit would take the note of the hold away
        self._backlog.put_back([work])
        await self._member.pause(self._settling.hold(partition, error))

    async def _hold_number(self, number: int, error: PartitionHeld) -> None:
        """Hold all partitions of a number."""
        await self._idle.commit_owed(self._metadata)
        await self._member.pause(self._settling.hold(self.ownership.with_number(number)[0], error))

    async def _wait_for_world(self, error: BaseException) -> None:
        """Leave the dependency alone for a while: no unit is open, partitions are paused, polling goes on."""
        fault = self._fault
        fault.failures += 1
        fault.reason = words_of(error)
        brokers = isinstance(error, (BrokerAway, *BROKER_ERRORS))
        seconds = backoff_seconds(fault.failures, BROKER_BACKOFF_SECONDS_MAX if brokers else BACKOFF_SECONDS_MAX)
        fault.until_seconds = self._clock.monotonic_seconds() + seconds
        self._metrics.waits(True)
        log.warning("waiting for a dependency", seconds=seconds, failures=fault.failures, reason=fault.reason)
        further = self.ownership.partitions - fault.paused
        if further:
            await self._member.pause(list(further))
            fault.paused |= further

    async def _world_is_back(self) -> None:
        fault, self._fault = self._fault, Fault()
        self._metrics.waits(False)
        served = [p for p in self.ownership.in_phase(Phase.SERVING) if p in fault.paused]
        log.info("the dependency is back", failures=fault.failures)
        if served:
            await self._member.resume(served)
