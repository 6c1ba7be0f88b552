"""Runs a plan: sends its records once, with where it stands in the same transaction.

The one rule: a record is sent in the transaction in which the replay's own group moves past it. Killed anywhere, the
next run of the same plan goes on behind what was committed, so nothing is sent twice; two runs of a plan at a time
fence each other.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from towpath.clock import Clock, SystemClock, retry
from towpath.errors import RefusedError, WorldError
from towpath.replay.captured import line_of, record_of
from towpath.replay.plan import Plan, Ranges
from towpath.replay.reading import read_file, read_ranges, within
from towpath.stream.broker.port import Broker, BrokerAway, OutcomeUnknown, Producer, ProducerFenced, TransactionAborted
from towpath.stream.broker.record import ConsumedRecord, TopicPartition, with_header

REPLAY_HEADER = "replay_id"
RECORDS_PER_TRANSACTION = 1_000
TRANSACTIONS_PER_SECOND = 5
"""With a rate: so often at least, so that what is sent comes evenly."""
STABLE_SECONDS_MAX = 60.0
Choose = Callable[[Iterable[ConsumedRecord]], Iterable[ConsumedRecord]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: records sent by this run, and the offsets up to which all was sent by any."""

    sent: int
    offsets: Mapping[TopicPartition, int]
    seconds: float


def group_of(project: str, replay_id: str) -> str:
    """Return the consumer group that keeps where a replay stands."""
    return f"{project}-replay-{replay_id}"


def standing_of(broker: Broker, project: str, plan: Plan) -> dict[TopicPartition, int]:
    """Return up to where each partition was sent. Raises BrokerAway, also while a transaction is open over it."""
    member = broker.member(group_of(project, plan.replay_id), client_id=f"{project}-replay")
    try:
        stored = member.committed(list(plan.ranges))
    finally:
        member.close()
    return {place: begin if (offset := stored[place]) is None else offset for place, (begin, _) in plan.ranges.items()}


def left_of(plan: Plan, standing: Mapping[TopicPartition, int]) -> Ranges:
    """Return what is left to be read of a plan."""
    return {place: (max(begin, standing.get(place, begin)), end) for place, (begin, end) in plan.ranges.items()}


def require_unchanged(broker: Broker, plan: Plan, left: Ranges) -> None:
    """Raise RefusedError where topics are not what they were when the plan was made."""
    if plan.source is not None:
        return
    topics = {place.topic for place in plan.ranges}
    ids = broker.topic_ids(topics)
    for topic in sorted(topics):
        if ids.get(topic) != plan.topic_ids.get(topic):
            raise RefusedError(
                f"{topic} is not the topic that was planned for: it was made anew",
                kept="everything: nothing was sent",
                next_step="plan anew: towpath replay plan --topic TOPIC",
            )
    begins = broker.begin_offsets(list(left))
    for place, (begin, end) in left.items():
        if begin < end and begins[place] > begin:
            raise RefusedError(
                f"{place} begins at {begins[place]}: records from {begin} on, which were planned, have expired since",
                kept="everything: nothing was sent",
                next_step="plan anew: towpath replay plan --topic TOPIC",
            )


def read_plan(broker: Broker, plan: Plan, left: Ranges) -> Iterator[ConsumedRecord]:
    """Yield what is left to be read of a plan, from its topics or its file."""
    if plan.source is None:
        return read_ranges(broker, left, by_time=plan.by_time)
    return within(read_file(Path(plan.source)), left)


class Sending:
    """One run of a plan into topics."""

    def __init__(self, broker: Broker, project: str, plan: Plan, choose: Choose, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._broker = broker
        self._group = group_of(project, plan.replay_id)
        self._project = project
        self._plan = plan
        self._choose = choose
        self._counts = broker.partition_counts([plan.target.topic]) if plan.target.topic else {}

    def run(self, keep_on: Callable[[Progress], bool]) -> Progress:
        """Send what is left, and return how far it came; `keep_on` is asked after each transaction.

        Raises RefusedError where another run of this plan has begun, WorldError where the cluster is away.
        """
        producer = self._broker.producer(self._group)
        producer.start()
        try:
            return self._run(producer, keep_on)
        except ProducerFenced as error:
            raise RefusedError(
                f"another run of replay {self._plan.replay_id} has begun since",
                kept="what was sent, and where it stands",
                next_step=f"towpath replay show {self._plan.replay_id}",
            ) from error
        except (TransactionAborted, OutcomeUnknown) as error:
            raise WorldError(
                f"replay {self._plan.replay_id}: {error.cause}",
                kept="what was committed, and where it stands",
                next_step="run the plan again: it goes on there",
            ) from error
        finally:
            producer.close()

    def _run(self, producer: Producer, keep_on: Callable[[Progress], bool]) -> Progress:
        standing = self._standing()
        left = left_of(self._plan, standing)
        require_unchanged(self._broker, self._plan, left)
        began, sent = self._clock.monotonic_seconds(), 0
        progress = Progress(0, standing, 0.0)
        size = _transaction_size(self._plan.rate)
        for chunk in _chunks(read_plan(self._broker, self._plan, left), size):
            producer.begin()
            records = list(self._choose(chunk))
            for record in records:
                self._produce(producer, record)
            standing = {**standing, **{record.topic_partition: record.offset + 1 for record in chunk}}
            moved = {record.topic_partition: standing[record.topic_partition] for record in chunk}
            producer.commit_for_group(self._group, moved)
            sent += len(records)
            progress = Progress(sent, standing, self._clock.monotonic_seconds() - began)
            if not keep_on(progress):
                return progress
            if self._plan.rate:
                self._clock.sleep(began + sent / self._plan.rate - self._clock.monotonic_seconds())
        ends = {place: end for place, (_, end) in self._plan.ranges.items()}
        if ends != standing:
            producer.begin()
            producer.commit_for_group(self._group, ends)
        return replace(progress, offsets=ends, seconds=self._clock.monotonic_seconds() - began)

    def _standing(self) -> dict[TopicPartition, int]:
        # A transaction that a killed run left open has just been ended by this producer's start.
        return retry(
            self._clock,
            lambda: standing_of(self._broker, self._project, self._plan),
            on=BrokerAway,
            seconds=STABLE_SECONDS_MAX,
            every_seconds=0.2,
        )

    def _produce(self, producer: Producer, record: ConsumedRecord) -> None:
        topic = self._plan.target.topic_of(record)
        same = topic == record.topic or self._counts.get(topic, 0) == self._broker_count(record.topic)
        producer.produce(
            topic,
            record.value,
            key=record.key,
            headers=with_header(record.headers, REPLAY_HEADER, self._plan.replay_id.encode()),
            # The same partition, whoever chose it; of a topic with another count, by the key.
            partition=record.partition if same else None,
            # Its own time, by which consumers know whether they can still tell that they have applied it.
            timestamp_milliseconds=record.timestamp_milliseconds,
        )

    def _broker_count(self, topic: str) -> int:
        if topic not in self._counts:
            self._counts = {**self._counts, **self._broker.partition_counts([topic])}
        return self._counts[topic]


def _transaction_size(rate: float | None) -> int:
    if not rate:
        return RECORDS_PER_TRANSACTION
    return max(1, min(RECORDS_PER_TRANSACTION, int(rate / TRANSACTIONS_PER_SECOND)))


def _chunks(records: Iterator[ConsumedRecord], size: int) -> Iterator[list[ConsumedRecord]]:
    while chunk := list(islice(records, size)):
        yield chunk


def write_file(
    broker: Broker,
    plan: Plan,
    path: Path,
    choose: Choose,
    keep_on: Callable[[Progress], bool],
    clock: Clock | None = None,
) -> Progress:
    """Write a plan's records into a file, behind those of an earlier run of it; a line that it left half is cut."""
    clock = clock or SystemClock()
    standing = {place: begin for place, (begin, _) in plan.ranges.items()}
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        whole = 0
        for line in iter(file.readline, ""):
            if not line.endswith("\n"):
                break
            record = record_of(line)
            standing[record.topic_partition] = record.offset + 1
            whole = file.tell()
        file.truncate(whole)
        file.seek(whole)
        began, sent = clock.monotonic_seconds(), 0
        left = left_of(plan, standing)
        require_unchanged(broker, plan, left)
        progress = Progress(0, standing, 0.0)
        for chunk in _chunks(read_plan(broker, plan, left), RECORDS_PER_TRANSACTION):
            records = list(choose(chunk))
            file.writelines(map(line_of, records))
            standing.update({record.topic_partition: record.offset + 1 for record in chunk})
            sent += len(records)
            progress = Progress(sent, dict(standing), clock.monotonic_seconds() - began)
            if not keep_on(progress):
                break
    return progress
