"""What a replay would send, to whom, and what they would make of it. Pure: records in, a value that a file keeps.

The one rule: a plan fixes the range of offsets of each partition, so running it sends what was planned, whatever comes
to the topics meanwhile (the replayed records themselves among it).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from towpath.errors import ConfigurationError, TowpathError
from towpath.replay.captured import text_of
from towpath.replay.selection import Judged, Predicate, Selection
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

TOP_KEYS = 5
FORM = 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where records go: into their own topics (`topic` and `file` None), into another topic, or into a file.

    `cluster` is the file that says how to reach another cluster and its registry, None for the project's own.
    """

    topic: str | None = None
    file: str | None = None
    cluster: str | None = None

    def topic_of(self, record: ConsumedRecord) -> str:
        """Return the topic that a record goes to."""
        return self.topic or record.topic


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a consumer makes of the records that it has applied before.

    `recognises` is how, None where it cannot; `beyond` counts the records of which it can no longer tell. `oldest` is
    the time (milliseconds) of the oldest record of each partition that it can tell of.
    """

    consumer: str
    topic: str
    records: int
    recognises: str | None
    beyond: int = 0
    beyond_why: str = ""
    oldest: Mapping[str, int] = field(default_factory=dict)

    @property
    def harmless(self) -> bool:
        """Return whether it does nothing twice."""
        return self.recognises is not None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(slots=True)
class Counted:
    """What the records of a range come to."""

    records: int = 0
    bytes: int = 0
    without_id: int = 0
    types: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    schemas: Counter[tuple[int, str]] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    first_unreadable: dict[str, str] = field(default_factory=dict)
    topics: Counter[str] = field(default_factory=Counter)
    oldest_milliseconds: int | None = None
    newest_milliseconds: int | None = None

    def add(self, record: ConsumedRecord, problem: str | None, place: str | None = None) -> None:
        """Count one record; `problem` is why today's readers cannot read it, `place` where it lies if in no topic."""
        self.records += 1
        self.bytes += len(record.key or b"") + len(record.value or b"")
        self.without_id += record.header("id") is None
        type_ = record.header("type") or "no type"
        self.types[type_] += 1
        self.keys[(record.key or b"").decode("utf-8", "replace")] += 1
        self.topics[record.topic] += 1
        if record.value is not None and len(record.value) > 5 and record.value[0] == 0:
            self.schemas[int.from_bytes(record.value[1:5], "big"), type_] += 1
        if problem is not None:
            self.unreadable[problem] += 1
            self.first_unreadable.setdefault(problem, place or record.position)
        at = record.timestamp_milliseconds
        self.oldest_milliseconds = at if self.oldest_milliseconds is None else min(self.oldest_milliseconds, at)
        self.newest_milliseconds = at if self.newest_milliseconds is None else max(self.newest_milliseconds, at)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "records": self.records,
            "bytes": self.bytes,
            "without_id": self.without_id,
            "types": dict(self.types.most_common()),
            "keys": len(self.keys),
            "top_keys": dict(self.keys.most_common(TOP_KEYS)),
            "schemas": [
                {"id": schema_id, "type": type_, "records": count}
                for (schema_id, type_), count in self.schemas.most_common()
            ],
            "unreadable": [
                {"problem": problem, "records": count, "first": self.first_unreadable[problem]}
                for problem, count in self.unreadable.most_common()
            ],
            "topics": dict(sorted(self.topics.items())),
            "oldest_milliseconds": self.oldest_milliseconds,
            "newest_milliseconds": self.newest_milliseconds,
        }


Ranges = Mapping[TopicPartition, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class OutboxRange:
    """What a plan reads of a service's outbox: all that lay there when it was made.

    Its messages are numbered in the order of commit: that is the offset of the records made of them. `order` is a
    digest of that order, so that a run that goes on counts as the one before it.
    """

    service: str
    sequence_end: int
    messages: int
    order: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One replay: what it reads, where it sends it, what was counted, and what is known of who receives it."""

    replay_id: str
    selection: Selection
    target: Target
    ranges: Ranges
    topic_ids: Mapping[str, str]
    by_time: bool
    rate: float | None
    counted: Mapping[str, Any]
    recognitions: Sequence[Recognition]
    problems: tuple[str, ...] = ()
    """Why it is not to be run, unless a person says so."""
    source: str | None = None
    """The captured file that is read in place of the topics."""
    outbox: OutboxRange | None = None
    """The outbox that is read in place of the topics."""
    partition_counts: Mapping[str, int] = field(default_factory=dict)
    """How many partitions the topics have that the records come from, where these are known."""

    @property
    def records(self) -> int:
        """Return how many records it sends."""
        return int(self.counted["records"])

    @property
    def seconds(self) -> float | None:
        """Return how long it takes at its rate, None where it has none."""
        return None if not self.rate else self.records / self.rate

    @property
    def order(self) -> str:
        """Return in which order it sends."""
        if self.outbox is not None:
            return "as they were committed, across partitions"
        if self.by_time:
            return "by the time of the records, across partitions; within a partition as they lie"
        return "partition after partition, as they lie: the order of each key is kept"

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` reads them back."""
        return {
            "form": FORM,
            "replay_id": self.replay_id,
            "source": self.source,
            "outbox": None if self.outbox is None else asdict(self.outbox),
            "partition_counts": dict(self.partition_counts),
            "selection": self.selection.to_json(),
            "to": asdict(self.target),
            "ranges": [
                {"topic": place.topic, "partition": place.partition, "begin": begin, "end": end}
                for place, (begin, end) in sorted(self.ranges.items())
            ],
            "topic_ids": dict(self.topic_ids),
            "by_time": self.by_time,
            "rate": self.rate,
            "order": self.order,
            "seconds": self.seconds,
            "counted": dict(self.counted),
            "consumers": [one.to_json() for one in self.recognitions],
            "problems": list(self.problems),
        }

    @classmethod
    def from_text(cls, name: str, text: str) -> "Plan":
        """Return the plan that a file keeps. Raises ConfigurationError for anything else."""
        try:
            plain = json.loads(text)
            if plain["form"] != FORM:
                raise ValueError(f"its form is {plain['form']}, not {FORM}")
            made = cls(
                replay_id=str(plain["replay_id"]),
                selection=Selection.from_json(plain["selection"]),
                target=Target(**plain["to"]),
                ranges={
                    TopicPartition(text_of(one["topic"]), _number(one["partition"])): (
                        _number(one["begin"]),
                        _number(one["end"]),
                    )
                    for one in plain["ranges"]
                },
                topic_ids=plain["topic_ids"],
                by_time=bool(plain["by_time"]),
                rate=None if plain["rate"] is None else float(plain["rate"]),
                counted=plain["counted"],
                recognitions=[Recognition(**one) for one in plain["consumers"]],
                problems=tuple(plain["problems"]),
                source=plain["source"],
                outbox=None if plain["outbox"] is None else OutboxRange(**plain["outbox"]),
                partition_counts={text_of(name): _number(one) for name, one in plain["partition_counts"].items()},
            )
            lacking = sorted(Counted().to_json().keys() - made.counted.keys())
            if lacking or not isinstance(made.counted["records"], int):
                raise ValueError(f"it does not say what was counted: {', '.join(lacking) or 'records'}")
            return made
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigurationError(
                f"{name} is no plan: {error}", next_step="make one: towpath replay plan --topic TOPIC --output FILE"
            ) from error


def _number(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is no number from 0 on")
    return value


def chosen(
    records: Iterable[ConsumedRecord],
    selection: Selection,
    decode: Callable[[bytes], Any],
    predicate: Predicate | None,
    judged: Judged | None = None,
) -> Iterable[ConsumedRecord]:
    """Yield the records that a selection takes.

    What has no value or cannot be decoded does not meet a predicate, and is counted in `judged`.
    """
    judged = Judged() if judged is None else judged
    for record in records:
        if not selection.takes(record):
            continue
        if predicate is None:
            yield record
            continue
        if record.value is None:
            judged.leave_out(record, "it has no value")
            continue
        try:
            decoded = decode(record.value)
        except TowpathError as error:
            judged.leave_out(record, error.cause)
            continue
        if predicate(decoded, record):
            yield record


def problems_of(counted: Counted, target: Target, recognitions: Iterable[Recognition]) -> tuple[str, ...]:
    """Return why a replay is not to be run unless a person says so."""
    if target.file is not None:
        return ()
    found = []
    if counted.without_id:
        found.append(f"{counted.without_id} records have no id: whoever takes them takes them for new ones, each time")
    for one in recognitions:
        if not one.harmless:
            found.append(f"{one.consumer} reads {one.topic}, and cannot tell that {one.records} records are repeated")
        elif one.beyond:
            found.append(f"{one.consumer} can no longer tell of {one.beyond} records of {one.topic}: {one.beyond_why}")
    return tuple(found)
