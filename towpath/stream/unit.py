"""The unit of work, as an agent sees it: what it sends, keeps and gives up stands or falls with its input's offsets.

The one rule: a unit that is closed takes nothing more. Work that an agent left running beside its record finds that
out, instead of slipping into somebody else's transaction.
"""

from collections.abc import Callable, Mapping

from towpath.errors import ProgrammerError
from towpath.stream.broker import Groups, Producer
from towpath.stream.dead import REDRIVE_HEADER, DeadLetter, dead_headers, dead_topic, describe
from towpath.stream.record import ConsumedRecord, Headers, TopicPartition
from towpath.stream.state import State
from towpath.stream.stores import PartitionStores
from towpath.stream.timers import Timers


class UnitClosed(ProgrammerError):
    """Something was sent or kept in a unit of work that has ended."""


class Unit:
    """What the two forms have in common: the records, whether it is open, and the count of its dead letters."""

    def __init__(self, number: int, application: str, groups: Groups) -> None:
        self.number = number
        self.application = application
        self.groups = groups
        self.open = True
        self.dead: list[DeadLetter] = []

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
        letter = describe(record, cause, application=self.application, kind=kind, attempts=attempts, behind=behind)
        self._send_dead(record, letter)
        self.dead.append(letter)
        return letter

    def _send_dead(self, record: ConsumedRecord, letter: DeadLetter) -> None:
        raise NotImplementedError

    def held_back(self, record: ConsumedRecord) -> str | None:
        """Return the position of the dead record that `record` has to follow, or None."""
        raise NotImplementedError


class KafkaUnit(Unit):
    """Outputs, state, timers and dead letters in one Kafka transaction with the offsets of the input."""

    def __init__(
        self, number: int, application: str, groups: Groups, *, producer: Producer, stores: PartitionStores
    ) -> None:
        super().__init__(number, application, groups)
        self._producer = producer
        self._stores = stores
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
        """Send a record in this unit. By its key to a partition, as Java's clients do, where none is named."""
        if not self.open:
            self.require_open()
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
        return self._stores.timers(partition)

    def begin(self) -> None:
        """Begin the transaction, if nothing was sent yet."""
        if not self.begun:
            self._producer.begin()
            self.begun = True

    def held_back(self, record: ConsumedRecord) -> str | None:
        """Return the position of the dead record that `record` has to follow, or None."""
        parked = self._stores.parked(record.partition)
        if parked is None:
            return None
        if record.key is not None and record.header(REDRIVE_HEADER) == "last":
            parked.unpark(record.key)
        return parked.behind(record)

    def _send_dead(self, record: ConsumedRecord, letter: DeadLetter) -> None:
        self.send(
            dead_topic(record.topic),
            record.value,
            key=record.key,
            headers=dead_headers(record, letter),
            partition=record.partition,
            timestamp_milliseconds=record.timestamp_milliseconds,
        )
        parked = self._stores.parked(record.partition)
        if parked is not None:
            parked.park(record)

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
