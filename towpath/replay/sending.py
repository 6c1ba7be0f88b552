"""Runs a plan: sends its records once, with where it stands in the same transaction.

The one rule: a record is sent in the transaction in which the replay's own group moves past it. Killed anywhere, the
next run of the same plan goes on behind what was committed, so nothing is sent twice; two runs of a plan at a time
fence each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from towpath.clock import Clock, SystemClock, retry
from towpath.errors import RefusedError, WorldError
from towpath.replay.plan import Plan
from towpath.replay.progress import (
    RECORDS_AT_ONCE,
    Choose,
    KeepOn,
    Progress,
    chunks,
    left_of,
    reached,
    superseded,
)
from towpath.replay.source import Source
from towpath.stream.broker.port import Broker, BrokerAway, OutcomeUnknown, Producer, ProducerFenced, TransactionAborted
from towpath.stream.broker.record import ConsumedRecord, TopicPartition, with_header

REPLAY_HEADER = "replay_id"
TRANSACTIONS_PER_SECOND = 5
"""With a rate: so often at least, so that what is sent comes evenly."""
STABLE_SECONDS_MAX = 60.0
Translate = Callable[[bytes], bytes]


def group_of(project: str, replay_id: str) -> str:
    """Return the consumer group that keeps where a replay stands."""
    return f"{project}-replay-{replay_id}"


def places_kept(broker: Broker, plan: Plan) -> dict[TopicPartition, TopicPartition]:
    """Return under which partition of the target cluster the group keeps where each partition of the plan stands.

    A cluster keeps no offset of a topic that it does not have, and a captured file or another cluster may know topics
    that it lacks. Raises RefusedError where there is no such partition.
    """
    topics = {place.topic for place in plan.ranges}
    target = plan.target.topic
    counts = broker.partition_counts(topics | ({target} if target else set()))
    if (
        target is not None
        and len(topics) == 1
        and all(place.partition < counts.get(target, 0) for place in plan.ranges)
    ):
        return {place: TopicPartition(target, place.partition) for place in plan.ranges}
    for place in sorted(plan.ranges):
        if place.partition >= counts.get(place.topic, 0):
            raise RefusedError(
                f"the cluster has no {place}: neither can what lies there be sent to it, nor where this replay stands "
                "be kept",
                kept="everything: nothing was sent",
                next_step="give it the topics that it lacks, with as many partitions: towpath provision; or plan one "
                "topic at a time, with --to-topic TOPIC of as many partitions",
            )
    return {place: place for place in plan.ranges}


def standing_of(broker: Broker, project: str, plan: Plan) -> dict[TopicPartition, int]:
    """Return up to where each partition was sent. Raises BrokerAway, also while a transaction is open over it."""
    kept = places_kept(broker, plan)
    member = broker.member(group_of(project, plan.replay_id), client_id=f"{project}-replay")
    try:
        stored = member.committed(list(kept.values()))
    finally:
        member.close()
    return {
        place: begin if (offset := stored[kept[place]]) is None else offset for place, (begin, _) in plan.ranges.items()
    }


class Sending:
    """One run of a plan into topics of `broker`, which may be another cluster than the one that is read.

    `translate` makes of a value what the target cluster's readers can read.
    """

    def __init__(
        self,
        broker: Broker,
        project: str,
        plan: Plan,
        choose: Choose,
        source: Source,
        translate: Translate | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._broker = broker
        self._group = group_of(project, plan.replay_id)
        self._project = project
        self._plan = plan
        self._choose = choose
        self._source = source
        self._translate = translate
        self._kept = places_kept(broker, plan)
        self._to: dict[TopicPartition, tuple[str, int | None]] = {}
        self._mark = plan.replay_id.encode()

    def run(self, keep_on: KeepOn) -> Progress:
        """Send what is left, and return how far it came; `keep_on` is asked after each transaction.

        Raises RefusedError where another run of this plan has begun, WorldError where the cluster is away.
        """
        producer = self._broker.producer(self._group)
        producer.start()
        try:
            return self._run(producer, keep_on)
        except ProducerFenced as error:
            raise superseded(self._plan.replay_id) from error
        except (TransactionAborted, OutcomeUnknown) as error:
            raise WorldError(
                f"replay {self._plan.replay_id}: {error.cause}",
                kept="what was committed, and where it stands",
                next_step="run the plan again: it goes on there",
            ) from error
        finally:
            producer.close()

    def _run(self, producer: Producer, keep_on: KeepOn) -> Progress:
        standing = self._standing()
        left = left_of(self._plan, standing)
        self._source.require_unchanged(left)
        began, sent = self._clock.monotonic_seconds(), 0
        progress = Progress(0, standing, 0.0)
        for chunk in chunks(self._source.read(left), _transaction_size(self._plan.rate)):
            # Made ready first: who is asked for it (a registry, the cluster) may take its time, a transaction may not.
            ready = [self._ready(record) for record in self._choose(chunk)]
            producer.begin()
            for topic, value, options in ready:
                producer.produce(topic, value, **options)
            moved = reached(chunk)
            producer.commit_for_group(self._group, self._as_kept(moved))
            standing = {**standing, **moved}
            sent += len(ready)
            progress = Progress(sent, standing, self._clock.monotonic_seconds() - began)
            if not keep_on(progress):
                return progress
            if self._plan.rate:
                self._clock.sleep(began + sent / self._plan.rate - self._clock.monotonic_seconds())
        ends = {place: end for place, (_, end) in self._plan.ranges.items()}
        if ends != standing:
            producer.begin()
            producer.commit_for_group(self._group, self._as_kept(ends))
        return replace(progress, offsets=ends, seconds=self._clock.monotonic_seconds() - began)

    def _as_kept(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {self._kept[place]: offset for place, offset in offsets.items()}

    def _standing(self) -> dict[TopicPartition, int]:
        # A transaction that a killed run left open has just been ended by this producer's start.
        return retry(
            self._clock,
            lambda: standing_of(self._broker, self._project, self._plan),
            on=BrokerAway,
            seconds=STABLE_SECONDS_MAX,
            every_seconds=0.2,
        )

    def _ready(self, record: ConsumedRecord) -> tuple[str, bytes | None, dict[str, Any]]:
        """Return topic, value and the rest of what is sent."""
        topic, partition = self._target_of(record)
        value = record.value
        if self._translate is not None and value is not None:
            value = self._translate(value)
        return (
            topic,
            value,
            {
                "key": record.key,
                "headers": with_header(record.headers, REPLAY_HEADER, self._mark),
                "partition": partition,
                # Its own time, by which consumers know whether they can still tell that they have applied it.
                "timestamp_milliseconds": record.timestamp_milliseconds,
            },
        )

    def _target_of(self, record: ConsumedRecord) -> tuple[str, int | None]:
        """Return topic and partition: the same partition, whoever chose it; of a topic with another count, by key.

        Though its topic has been given partitions since, a record goes back into its own, where its consumers know it.
        """
        place = record.topic_partition
        if place not in self._to:
            topic = self._plan.target.topic_of(record)
            if topic == record.topic and self._plan.target.cluster is None:
                self._to[place] = topic, record.partition
                return self._to[place]
            counts = self._broker.partition_counts([topic, record.topic])
            same = counts.get(topic, 0) == self._plan.partition_counts.get(record.topic, counts.get(record.topic))
            self._to[place] = topic, record.partition if same else None
        return self._to[place]


def _transaction_size(rate: float | None) -> int:
    if not rate:
        return RECORDS_AT_ONCE
    return max(1, min(RECORDS_AT_ONCE, int(rate / TRANSACTIONS_PER_SECOND)))
