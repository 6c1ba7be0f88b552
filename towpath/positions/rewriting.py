"""Writes a store back into a changelog that was made anew or lost its tail: the last copy, made the first again.

The one rule: afterwards the changelog says of every key what the store says, and of no key more. It may be broken off
and run again: the checkpoint, written last, is what lets the worker serve.
"""

from dataclasses import dataclass

from towpath.clock import Clock, epoch_milliseconds
from towpath.errors import RefusedError
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record import TopicPartition
from towpath.stream.state.changelog import DECIDED, bounds_of, strangeness
from towpath.stream.state.partition_state import Checkpoint, Store

RECORDS_PER_TRANSACTION = 500


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What writing a store back takes: `changes` by key, None removing what the store does not have."""

    changelog: TopicPartition
    found: str
    changes: dict[bytes, bytes | None]
    keys: int


def plan_rewriting(broker: Broker, changelog: TopicPartition, store: Store) -> Rewriting:
    """Return what is to be written. Raises RefusedError where the changelog is what the store has followed."""
    bounds = bounds_of(broker, changelog)
    checkpoint = store.checkpoint()
    found = strangeness(broker, changelog, store, bounds)
    if found is None:
        raise RefusedError(
            f"{changelog} is what its store has followed: there is nothing to write back",
            kept="both",
            next_step="towpath positions list",
        )
    if found.is_continued:
        raise _begun_by_another(str(found))
    content = dict(store.scan(b""))
    written = _content_of(broker, changelog, bounds.begin, bounds.end)
    if checkpoint is not None and checkpoint.topic_id != bounds.topic_id:
        strange = [key for key, value in written.items() if not key.startswith(DECIDED) and content.get(key) != value]
        if strange:
            raise _begun_by_another(f"{changelog} was made anew, and {len(strange)} keys of it are not the store's")
    changes: dict[bytes, bytes | None] = {key: None for key in written if key not in content}
    changes |= {key: value for key, value in content.items() if written.get(key) != value}
    return Rewriting(changelog, str(found), changes, len(content))


def _begun_by_another(cause: str) -> RefusedError:
    return RefusedError(
        f"{cause}: another worker has begun with it",
        kept="both",
        next_step="compare them, or give the store up: towpath positions accept --help",
    )


def rewrite(broker: Broker, plan: Rewriting, store: Store, clock: Clock, *, application: str, decision: bytes) -> int:
    """Write it, and a record of `decision`; return how many records that were."""
    now_milliseconds = epoch_milliseconds(clock)
    changes = list(plan.changes.items())
    producer = broker.producer(f"{application}-rewriting-{plan.changelog.topic}-{plan.changelog.partition}")
    producer.start()
    try:
        changes.append((DECIDED + str(now_milliseconds).encode(), decision))
        for first in range(0, len(changes), RECORDS_PER_TRANSACTION):
            producer.begin()
            for key, value in changes[first : first + RECORDS_PER_TRANSACTION]:
                producer.produce(plan.changelog.topic, value, key=key, partition=plan.changelog.partition)
            producer.commit({}, None)
    finally:
        producer.close()
    bounds = bounds_of(broker, plan.changelog)
    store.apply({}, Checkpoint(bounds.end, bounds.topic_id, now_milliseconds))
    return len(changes)


def give_up(
    broker: Broker, changelog: TopicPartition, store: Store, clock: Clock, *, application: str, decision: bytes
) -> int:
    """Forget what a store holds and note the decision in the changelog; return how many keys were given up.

    Raises RefusedError where the changelog is what the store has followed.
    """
    keys = keys_given_up(broker, changelog, store)
    producer = broker.producer(f"{application}-rewriting-{changelog.topic}-{changelog.partition}")
    producer.start()
    try:
        producer.begin()
        at = str(epoch_milliseconds(clock)).encode()
        producer.produce(changelog.topic, decision, key=DECIDED + at, partition=changelog.partition)
        producer.commit({}, None)
    finally:
        producer.close()
    store.clear()
    return keys


def keys_given_up(broker: Broker, changelog: TopicPartition, store: Store) -> int:
    """Return how many keys a store would lose; none where it has followed nothing, and so has nothing to lose.

    Raises RefusedError where the changelog is what the store has followed.
    """
    checkpoint = store.checkpoint()
    if checkpoint is not None and strangeness(broker, changelog, store, bounds_of(broker, changelog)) is None:
        raise RefusedError(
            f"{changelog} is what its store has followed: there is nothing to give up",
            kept="both",
            next_step="towpath positions list",
        )
    return sum(1 for _ in store.scan(b""))


def _content_of(broker: Broker, changelog: TopicPartition, begin: int, end: int) -> dict[bytes, bytes]:
    content: dict[bytes, bytes] = {}
    reader, reached = broker.reader(changelog, begin), begin
    try:
        while reached < end:
            records, reached = reader.poll(0.2)
            for record in records:
                if record.key is None:
                    continue
                if record.value is None:
                    content.pop(record.key, None)
                else:
                    content[record.key] = record.value
    finally:
        reader.close()
    return content
