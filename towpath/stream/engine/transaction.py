"""The two forms of a unit of work share this shape; the Kafka form is here, the database form in `postgres.py`.

The one rule: whatever a form guards its offsets with, an answer to "did it commit" is definite, or the worker starts
over from what is committed.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import structlog

from towpath.clock import Clock, epoch_milliseconds
from towpath.errors import WorldError
from towpath.stream.broker.port import Broker, GroupMetadata, Groups, OutcomeUnknown, Producer
from towpath.stream.broker.position import PartitionHeld
from towpath.stream.broker.record import TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine.unit import KafkaUnit, Unit
from towpath.stream.state.partition_state import Checkpoint
from towpath.stream.state.stores import PartitionStores

log = structlog.get_logger("towpath.stream.engine.transaction")
OWED_SECONDS_MAX = 1.0
"""How long offsets of units that wrote nothing wait for one that does: so far behind the truth the lag may look."""
LATE_START_SECONDS_MAX = 60.0
"""How long after it was given up a producer's start may still reach its coordinator: the client's socket time-out."""
InThread = Callable[..., Awaitable[Any]]
"""Runs a blocking call in the one thread that owns the broker's clients."""


class Transaction(Protocol):
    """A form of the unit of work.

    `epochs` are the leader epochs of what was read last, for each partition that has one: they are kept beside the
    offsets, and tell a log that lost its tail and grew again from the one that was read.
    """

    epochs: dict[TopicPartition, int]

    @property
    def is_ready(self) -> bool:
        """Return False where it has to be started anew: never started, or its connection is gone."""
        ...

    async def start(self) -> None:
        """Make ready, and fence the ghosts of this worker; called again after an unknown outcome.

        Raises WorldError while a dependency is away.
        """
        ...

    @property
    def may_fence_itself(self) -> bool:
        """Return whether a start that was given up may still come through, and fence the one after it."""
        ...

    async def positions(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, int | PartitionHeld | None] | None:
        """Return where to read on, or why it cannot be read; None if the group's own offsets say it."""
        ...

    async def note(self, partition: TopicPartition, text: str, offset: int) -> bool:
        """Write a note beside a stored offset, if that is `offset`; return False where the group's are to bear it."""
        ...

    def open(self, number: int, groups: Groups) -> Unit:
        """Begin a unit of work over `groups`."""
        ...

    @property
    def owes_offsets(self) -> bool:
        """Return whether units that wrote nothing have waited long enough for a commit of their offsets alone."""
        ...

    def forget_offsets(self, partitions: Iterable[TopicPartition]) -> None:
        """Commit nothing for these partitions that no unit's commit has brought: they are another's, or read anew."""
        ...

    async def commit(self, unit: Unit, offsets: Mapping[TopicPartition, int], metadata: GroupMetadata | None) -> bool:
        """Commit, or raise one of the errors of `port.py`. Return False where there was nothing to write yet."""
        ...

    async def abort(self, unit: Unit) -> None:
        """End the unit as if it had never been. Raises OutcomeUnknown or ProducerFenced."""
        ...

    async def close(self) -> None:
        """Close what was opened."""
        ...


class KafkaTransaction:
    """Outputs, changelog, timers, dead letters and offsets in one Kafka transaction (KIP-98, KIP-447)."""

    def __init__(
        self,
        broker: Broker,
        stores: PartitionStores,
        clock: Clock,
        *,
        application: str,
        transactional_id: str,
        in_thread: InThread,
        limits: RecordLimits,
    ) -> None:
        self._broker = broker
        self._limits = limits
        self._stores = stores
        self._clock = clock
        self._application = application
        self._transactional_id = transactional_id
        self._in_thread = in_thread
        self._producer: Producer | None = None
        self._failed_start_seconds: float | None = None
        self._owed: dict[TopicPartition, int] = {}
        self.epochs: dict[TopicPartition, int] = {}
        self._owed_since_seconds = 0.0

    @property
    def is_ready(self) -> bool:
        """Return whether there is a producer."""
        return self._producer is not None

    async def start(self) -> None:
        """Start a producer, in place of an earlier one: what its predecessors left open is settled by this.

        After an unknown outcome the overlay may be committed or not, so it is dropped, and the caller has every
        store catch up.
        """
        await self.close()
        self._stores.forget()
        producer = self._broker.producer(self._transactional_id)
        try:
            await self._in_thread(producer.start)
        except WorldError:
            self._failed_start_seconds = self._clock.monotonic_seconds()
            raise
        self._producer = producer

    @property
    def may_fence_itself(self) -> bool:
        """Return whether a start that was given up may still reach the coordinator, and fence the one after it."""
        failed = self._failed_start_seconds
        return failed is not None and self._clock.monotonic_seconds() - failed < LATE_START_SECONDS_MAX

    async def positions(self, partitions: Iterable[TopicPartition]) -> None:  # noqa: ARG002
        """Return None: the group's own offsets are part of the transaction."""
        return

    async def note(self, partition: TopicPartition, text: str, offset: int) -> bool:  # noqa: ARG002
        """Return False: the group's own offsets bear it."""
        return False

    def open(self, number: int, groups: Groups) -> KafkaUnit:
        """Begin a unit. The transaction itself begins with the first record that is sent."""
        assert self._producer is not None, "start() comes first"
        self._stores.open_unit()
        return KafkaUnit(
            number,
            self._application,
            groups,
            now_milliseconds=epoch_milliseconds(self._clock),
            producer=self._producer,
            stores=self._stores,
            limits=self._limits,
        )

    @property
    def owes_offsets(self) -> bool:
        """Return whether offsets of units that wrote nothing wait, for as long as they may."""
        return bool(self._owed) and self._clock.monotonic_seconds() - self._owed_since_seconds >= OWED_SECONDS_MAX

    def forget_offsets(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget offsets that wait: under a later generation they would pass, and set its owner back."""
        for partition in partitions:
            self._owed.pop(partition, None)

    async def commit(self, unit: Unit, offsets: Mapping[TopicPartition, int], metadata: GroupMetadata | None) -> bool:
        """Changelog, then offsets and commit, then the stores: in that order alone is a kill at any point harmless.

        A unit that wrote nothing needs no transaction: if its records are read again, nothing is written again. Its
        offsets go with the next one that does, or alone after a second.
        """
        assert isinstance(unit, KafkaUnit)
        assert self._producer is not None
        changelog = unit.send_changelog()
        if not unit.begun and (offsets or not self._owed):
            if not self._owed:
                self._owed_since_seconds = self._clock.monotonic_seconds()
            self._owed.update(offsets)
            unit.close()
            self._stores.close_unit()
            return False
        unit.begin()
        unit.close()
        self._stores.close_unit()
        together = {**self._owed, **offsets}
        notes = self._stores.notes(together)
        await self._in_thread(self._producer.commit, together, metadata, self.epochs, notes)
        self._owed.clear()
        self._settle(changelog)
        for function in unit.committed:
            function()
        return True

    def _settle(self, ends: Mapping[TopicPartition, list[int]]) -> None:
        """Write what was committed into the stores. `ends` say where the last record of each changelog lies.

        Raises OutcomeUnknown where that was not told: a store that has more than its checkpoint says would be taken for
        one whose changelog has lost its tail, so it is read from there instead.
        """
        now_milliseconds = epoch_milliseconds(self._clock)
        for state in self._stores.changed():
            before = state.store.checkpoint()
            assert before is not None, "a store serves only after its catch-up"
            end = ends[state.changelog]
            if state.changes and not end:
                raise OutcomeUnknown(f"{state.changelog}: where the commit lies was not told")
            state.settle(Checkpoint(end[-1] + 1 if end else before.offset, before.topic_id, now_milliseconds))

    async def abort(self, unit: Unit) -> None:
        """Abort the transaction and forget the overlay."""
        assert isinstance(unit, KafkaUnit)
        assert self._producer is not None
        unit.close()
        self._stores.close_unit()
        if unit.begun:
            await self._in_thread(self._producer.abort)
            unit.begun = False
        self._stores.forget()

    async def close(self) -> None:
        """Drop the producer; an open transaction ends by its time-out, or when this slot's next worker starts."""
        if self._producer is not None:
            await self._in_thread(self._producer.close)
            self._producer = None
