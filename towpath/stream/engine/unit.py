"""The unit of work, as an agent sees it: what it sends, keeps and gives up stands or falls with its input's offsets.

The one rule: a unit that is closed takes nothing more. Work that an agent left running beside its record finds that
out, instead of slipping into somebody else's transaction.
"""

from collections.abc import Callable, Mapping

from towpath.errors import PeerError, ProgrammerError
from towpath.stream.broker.dead_letter import (
    DEAD_HEADER,
    FOLLOWER,
    STAND_IN,
    DeadLetter,
    as_bytes,
    as_reference,
    dead_headers,
    dead_topic,
    describe,
    key_name,
    read_mark,
)
from towpath.stream.broker.port import Groups, Producer
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.stream.broker.record_limits import WEIGHED_FROM_BYTES, RecordLimits
from towpath.stream.state.parking import Admission, Parked, admit, admit_redriven, park
from towpath.stream.state.partition_state import State
from towpath.stream.state.stores import PartitionStores
from towpath.stream.state.timers import Timers


class UnitClosed(ProgrammerError):
    """Something was sent or kept in a unit of work that has ended."""


class Unit:
    """What the two forms have in common: the records, whether it is open, and the count of its dead letters."""

    def __init__(self, number: int, application: str, groups: Groups, *, now_milliseconds: int) -> None:
        self.number = number
        self.application = application
        self.groups = groups
        self.now_milliseconds = now_milliseconds
        self.open = True
        self.by_reference = False
        self.dead: list[DeadLetter] = []
        self.committed: list[Callable[[], object]] = []
        self.timer_numbers: set[int] = set()

    def after_commit(self, function: Callable[[], object]) -> None:
        """Call `function` once the unit is committed, at once and in the event loop's thread; never after an abort.

        A worker that is killed in between has committed and not called: what is done here may be lost. A unit that
        wrote nothing calls nothing: it may be repeated.
        """
        self.require_open()
        self.committed.append(function)

    def require_open(self) -> None:
        """Raise UnitClosed if it has ended."""
        if not self.open:
            raise UnitClosed(
                f"unit of work {self.number} has ended",
                kept="nothing of this call",
                next_step="await everything that an agent starts for a record before it takes the next one",
            )

    def close(self) -> None:
        """Take nothing more."""
        self.open = False

    def dead_letter(
        self,
        record: ConsumedRecord,
        *,
        cause: BaseException | str,
        kind: str = "peer",
        attempts: int = 1,
        behind: str | None = None,
    ) -> DeadLetter:
        """Send `record`, untouched, to its topic's dead-letter topic, in this unit of work.

        Its key is parked where the application parks keys: later records of it follow until it is redriven.
        """
        self.require_open()
        # Asked of our own errors alone: those of others may answer anything, or raise.
        parks = self._parks(record) and (not isinstance(cause, PeerError) or getattr(cause, "parks_key", True))
        parked, mark = self._parked(record), read_mark(record)
        redriven = mark is not None
        if parks and parked is not None and behind is None and not redriven:
            behind = parked.behind
        letter = describe(
            record,
            cause,
            application=self.application,
            kind=kind,
            attempts=attempts,
            died_milliseconds=self.now_milliseconds,
            parked=parks,
            behind=behind,
        )
        self._send_dead(record, letter)
        if parks:
            after = park(parked, record.position, follows=behind is not None, redriven=redriven)
            if mark is not None and mark.behind is not None and mark.application == self.application:
                after = after.spanning(record.topic, mark.first_offset, -1)  # its key has waited since it died first
            self._park(record, after.spanning(record.topic, record.offset, record.timestamp_milliseconds))
        self.dead.append(letter)
        return letter

    def admit(self, record: ConsumedRecord) -> Admission:
        """Return what is to be done with `record`; one that comes from quarantine is held no more from here on."""
        parked = self._parked(record)
        mark = read_mark(record) if record.headers else None
        if mark is None:
            return admit(parked, record.topic, record.offset, record.timestamp_milliseconds)
        own = mark.application == self.application
        if parked is not None and own:
            settled = parked.settled(record.topic, record.offset, record.timestamp_milliseconds)
            if settled is None:  # it had its turn before the key waited for what it waits for now
                return Admission.PASS_OVER if mark.drop or mark.stand_in else Admission.APPLY
            if settled:
                return Admission.PASS_OVER
        if mark.stand_in:
            if own and self._parks(record):
                self._stand_in(record)
            return Admission.PASS_OVER
        admission, after = admit_redriven(mark, parked, self.application)
        if after is not None and own:
            after = after.spanning(record.topic, record.offset, record.timestamp_milliseconds)
        if after != parked:
            self._park(record, after)
        return admission

    def follow(self, record: ConsumedRecord) -> DeadLetter:
        """Send `record` into quarantine behind the dead one that its key waits for."""
        parked = self._parked(record)
        assert parked is not None, "only a record of a parked key follows"
        behind = parked.behind
        return self.dead_letter(record, cause=f"follows {behind}", kind=FOLLOWER, behind=behind)

    def _stand_in(self, record: ConsumedRecord) -> None:
        """Let the key of `record` wait for it, and for nothing that died before."""
        self._park(record, None)
        self.dead_letter(record, cause="stands in for dead letters that are no longer there", kind=STAND_IN)

    def _send_dead(self, record: ConsumedRecord, letter: DeadLetter) -> None:
        raise NotImplementedError

    def _parks(self, record: ConsumedRecord) -> bool:
        """Return whether the death of `record` parks its key."""
        raise NotImplementedError

    def _parked(self, record: ConsumedRecord) -> Parked | None:
        """Return how the key of `record` is parked, None if it goes on."""
        raise NotImplementedError

    def _park(self, record: ConsumedRecord, parked: Parked | None) -> None:
        """Park the key of `record`, or let it go on, in this unit."""
        raise NotImplementedError


class KafkaUnit(Unit):
    """Outputs, state, timers and dead letters in one Kafka transaction with the offsets of the input."""

    def __init__(
        self,
        number: int,
        application: str,
        groups: Groups,
        *,
        now_milliseconds: int,
        producer: Producer,
        stores: PartitionStores,
        limits: RecordLimits | None = None,
    ) -> None:
        super().__init__(number, application, groups, now_milliseconds=now_milliseconds)
        self._producer = producer
        self._stores = stores
        self._limits = limits or RecordLimits()
        self.begun = False
        self.sent = 0

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_milliseconds: int | None = None,
        delivered: Callable[[int], None] | None = None,
    ) -> None:
        """Send a record in this unit. By its key to a partition, as Java's clients do, where none is named.

        Raises OutputRefused for one that is too large for its topic.
        """
        if not self.open:
            self.require_open()
        if value is not None and len(value) > WEIGHED_FROM_BYTES:
            self._limits.check(topic, key, value, headers)
        if not self.begun:
            self.begin()
        self._producer.produce(
            topic,
            value,
            key=key,
            headers=headers,
            partition=partition,
            timestamp_milliseconds=timestamp_milliseconds,
            delivered=delivered,
        )
        self.sent += 1

    @property
    def changelogs(self) -> tuple[str, ...]:
        """Return the changelogs that the application declared."""
        return self._stores.changelogs

    def state(self, changelog: str, partition: int) -> State:
        """Return the state that `changelog` keeps for `partition`, which must be one of this worker's."""
        self.require_open()
        return self._stores.state(changelog, partition)

    def timers(self, partition: int) -> Timers:
        """Return the timers of `partition`, which must be one of this worker's."""
        self.require_open()
        self.timer_numbers.add(partition)
        return self._stores.timers(partition)

    def begin(self) -> None:
        """Begin the transaction, if nothing was sent yet."""
        if not self.begun:
            self._producer.begin()
            self.begun = True

    def _parks(self, record: ConsumedRecord) -> bool:
        return record.key is not None and self._stores.parked(record.partition) is not None

    def _parked(self, record: ConsumedRecord) -> Parked | None:
        keys = self._stores.parked(record.partition)
        return None if not keys or record.key is None else keys.get(key_name(record.key))

    def _park(self, record: ConsumedRecord, parked: Parked | None) -> None:
        keys = self._stores.parked(record.partition)
        assert keys is not None
        assert record.key is not None
        keys.put(key_name(record.key), parked)

    def _send_dead(self, record: ConsumedRecord, letter: DeadLetter) -> None:
        topic = dead_topic(record.topic)
        key, value, headers = record.key, record.value, dead_headers(record, letter)
        if self.by_reference or not self._limits.fit(topic, key, value, headers):
            letter = as_reference(record, letter)
            key, value, headers = as_bytes(letter.key), None, ((DEAD_HEADER, letter.to_json().encode()),)
        self.send(
            topic,
            value,
            key=key,
            headers=headers,
            partition=record.partition,
            # Not its own, which the letter has: retention would count from then, and take an old record at once.
            timestamp_milliseconds=letter.died_milliseconds,
        )

    def send_changelog(self) -> Mapping[TopicPartition, list[int]]:
        """Send what changed in the state to its changelogs; the lists get the offset of each one's last record.

        One record a key, however often it changed: that is what compaction would leave of them.
        """
        offsets: dict[TopicPartition, list[int]] = {}
        for state in self._stores.changed():
            changes = state.changes
            last = len(changes) - 1
            told = offsets[state.changelog] = []
            for index, (key, value) in enumerate(changes.items()):
                self.send(
                    state.changelog.topic,
                    value,
                    key=key,
                    partition=state.changelog.partition,
                    delivered=told.append if index == last else None,
                )
        return offsets
