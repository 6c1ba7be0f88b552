"""Which of an outbox's messages come before what the topics still have. Pure.

The one rule: what a topic has is folded from it, in its order. Of an outbox comes what is older than that alone; what
is not captured yet comes by the topic as well, behind what the topic has already.
"""

from collections.abc import Iterable, Iterator

from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.view.dedup.horizon import event_id_of

OPEN_MILLISECONDS_MAX = 86_400_000
"""How much older than a message that committed before it one may be: nobody leaves a transaction open for a day."""


class InTopics:
    """What topics have: when the first record of each partition is from, and the ids from a time on.

    Of ids the partition does not count: an outbox tells it by what its topic has now, and a record stays where it was
    when the topic is given partitions.
    """

    def __init__(self, records: Iterable[ConsumedRecord], since_milliseconds: int) -> None:
        self.first_milliseconds: dict[TopicPartition, int] = {}
        self.ids: set[tuple[str, str]] = set()
        for record in records:
            place = record.topic_partition
            self.first_milliseconds.setdefault(place, record.timestamp_milliseconds)
            # Older than all that an outbox has, it is none of that: what is kept here grows with the outbox.
            if record.timestamp_milliseconds >= since_milliseconds - OPEN_MILLISECONDS_MAX:
                self.ids.add((record.topic, event_id_of(record)))

    def has(self, record: ConsumedRecord) -> bool:
        """Return whether the topic has a record."""
        return (record.topic, event_id_of(record)) in self.ids

    def begins_after(self, record: ConsumedRecord) -> bool:
        """Return whether all that the partition has is newer than a record."""
        first = self.first_milliseconds.get(record.topic_partition)
        return first is None or record.timestamp_milliseconds < first


def before_topics(messages: Iterable[ConsumedRecord], topics: InTopics) -> Iterator[ConsumedRecord]:
    """Yield those of an outbox's messages, in the order of their commits, that come before what the topics have.

    A message does where one behind it in its partition is in the topic, or where it is older than all that the topic
    has and none before it is in the topic: what began early and committed behind one that is there comes by the topic.
    """
    waiting: dict[TopicPartition, list[ConsumedRecord]] = {}
    met: set[TopicPartition] = set()
    for message in messages:
        place = message.topic_partition
        behind = waiting.setdefault(place, [])
        if topics.has(message):
            met.add(place)
            yield from behind
            behind.clear()
        elif place not in met and topics.begins_after(message):
            yield from (*behind, message)
            behind.clear()
        else:
            behind.append(message)
