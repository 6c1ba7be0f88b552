"""Reads from a saga's topics what can be about one instance, and no more.

The one rule: all that concerns a business key lies in its key's partition of each topic, so that is what is read, from
the time on that is asked for. An id tells no partition: the others are read only where that one knows nothing of it,
and records about other instances are never decoded.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.codec import Codec
    from towpath.orchestrator.instance_status import KeptInstance
    from towpath.orchestrator.mapping import Opener
    from towpath.orchestrator.records import HistoryEntry
    from towpath.saga.definition import Definition
    from towpath.stream.broker.record import ConsumedRecord

LOOKS_BACK = (timedelta(hours=1), timedelta(days=1), None)
"""How far back the latest record of a kind is looked for, one after the other: most questions are about today."""


class InstanceReader:
    """Reads for questions about single instances. `records` counts what Kafka sent for them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counts: dict[str, int] = {}
        self.records = 0

    def of_key(self, topic: str, key: str, since: datetime | None = None) -> "Iterator[ConsumedRecord]":
        """Yield the records of a business key in `topic`, from `since` on. Raises WorldError."""
        encoded = key.encode()
        for numbers in self._numbers(topic, key)[:1]:
            yield from (record for record in self._read(topic, numbers, since) if record.key == encoded)

    def backwards(self, topic: str, which: str) -> "Iterator[Iterator[ConsumedRecord]]":
        """Yield again and again more of what may concern a key or an id, from its end back: stop at what you look for.

        Its key's partition of the last hour, of the last day, and whole; then the other partitions.
        """
        now = datetime.now(UTC)
        nearest, *others = self._numbers(topic, which) or ((),)
        for back in LOOKS_BACK:
            yield self._read(topic, nearest, None if back is None else now - back)
        for further in others:
            yield self._read(topic, further, None)

    def instances(
        self,
        saga: str,
        which: str,
        codec: "Codec",
        opener: "Opener | None" = None,
        definitions: "Mapping[int, Definition] | None" = None,
    ) -> "tuple[KeptInstance, ...]":
        """Return the instances of that business key, or the one of that id; see `instances_in`."""
        from towpath.orchestrator import envelope
        from towpath.orchestrator.instance_status import instances_in

        topic = envelope.topic_of(saga, envelope.STATE)
        for numbers in self._numbers(topic, which):
            near = (record for record in self._read(topic, numbers, None) if _may_be_about(record, which.encode()))
            told = instances_in(near, codec, opener, definitions)
            found = tuple(one for one in told if which in (one.state.saga_id, one.state.key))
            if found:
                return found
        return ()

    def state_of_key(self, saga: str, key: str) -> dict[bytes, bytes]:
        """Return what the state of a saga has about a business key, by its own keys: instances and early signals."""
        from towpath.orchestrator import envelope

        topic, kept = envelope.topic_of(saga, envelope.STATE), dict[bytes, bytes]()
        for numbers in self._numbers(topic, key)[:1]:
            for record in self._read(topic, numbers, None):
                if record.value is None:
                    kept.pop(record.key or b"", None)
                elif _may_be_about(record, key.encode()):
                    kept[record.key or b""] = record.value
        return kept

    def history(self, saga: str, which: str, codec: "Codec") -> "dict[str, list[tuple[int, HistoryEntry]]]":
        """Return the entries about a business key or an id, by instance, each with its offset."""
        from towpath.orchestrator import envelope
        from towpath.orchestrator.recording import placed_entries_of

        topic = envelope.topic_of(saga, envelope.HISTORY)
        for numbers in self._numbers(topic, which):
            found = placed_entries_of(self._read(topic, numbers, None), codec, which)
            if found:
                return found
        return {}

    def _numbers(self, topic: str, which: str) -> list[tuple[int, ...]]:
        """Return the partition of a key, then all others; nothing for a topic that does not exist."""
        from towpath.stream.broker.kafka import KafkaBroker
        from towpath.stream.broker.partitioner import partition_of

        if topic not in self._counts:
            broker = KafkaBroker(self._settings.kafka, self._settings.stream)
            self._counts[topic] = broker.partition_counts([topic]).get(topic, 0)
        count = self._counts[topic]
        if not count:
            return []
        own = partition_of(which.encode(), count)
        others = tuple(number for number in range(count) if number != own)
        return [(own,), others] if others else [(own,)]

    def _read(self, topic: str, numbers: tuple[int, ...], since: datetime | None) -> "Iterator[ConsumedRecord]":
        from towpath.stream.broker.kafka import read_records

        for record in read_records(self._settings, [topic], since, numbers) if numbers else ():
            self.records += 1
            yield record


def _may_be_about(record: "ConsumedRecord", which: bytes) -> bool:
    """Say whether a record of a state topic can be about a key or an id: Avro writes a string as its bytes."""
    from towpath.orchestrator.retention import PARENT_OVER

    key = record.key or b""
    return key[:1] == PARENT_OVER or key[1:] == which or record.value is None or which in record.value
