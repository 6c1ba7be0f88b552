"""What is wrong at the end, computed from databases, topics and groups alone.

The one rule: each promise is checked from what the parts themselves say, as independently of the engine as can be:
letters are read as JSON, positions are compared with the records that were read, inboxes with commands.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

import psycopg
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelines.demo.demo import CraftyGoods
from tests.chaos.poison import READERS, SERVICES, Poison
from towpath.contract.codec import Codec
from towpath.demo.postgres import ViewsReader
from towpath.demo.verdict import fold_topics
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import sagas_view
from towpath.project import load_sagas, view_workers
from towpath.settings import Settings
from towpath.stack.config import captured_databases
from towpath.stack.groups import Application, applications
from towpath.stream.broker.kafka import read_records
from towpath.stream.broker.record import ConsumedRecord

ENDED = frozenset({"completed", "compensated"})
SHOWN_MAX = 5

Letter = tuple[str, str]
"""Application, and the position at which the record died."""


@dataclass
class Evidence:
    """What databases and topics (all of them, dead letters included) say now, each read once."""

    settings: Settings
    topics: Collection[str]
    records: dict[str, list[ConsumedRecord]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = {name: [] for name in self.topics}
        for record in read_records(self.settings, self.topics):
            self.records[record.topic].append(record)
        for found in self.records.values():
            found.sort(key=lambda record: (record.partition, record.offset))

    def ask(self, database: str, statement: Any, *values: Any) -> list[Any]:
        """Return the rows of a question to one database."""
        options: dict[str, Any] = dict(self.settings.postgres.connection_options())
        url = self.settings.postgres.database_url(database)
        with psycopg.connect(url, connect_timeout=10, **options) as connection:
            return connection.execute(statement, values).fetchall()

    @cached_property
    def admin(self) -> AdminClient:
        """Return a client that asks the cluster."""
        return AdminClient({**self.settings.kafka.client_config(), "log_level": 0})

    @cached_property
    def letters(self) -> dict[Letter, list[tuple[str, ConsumedRecord]]]:
        """Return every dead letter (its header as it is, once each) by application and position."""
        found: dict[Letter, dict[str, ConsumedRecord]] = defaultdict(dict)
        for topic, records in self.records.items():
            for record in records if topic.endswith(".dead") else ():
                text = record.header("dead")
                try:
                    said = json.loads(text or "")
                    place = f"{said['topic']}[{said['partition']}]@{said['offset']}"
                    found[said["application"], place].setdefault(text or "", record)
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue  # somebody else's record
        return {place: list(each.items()) for place, each in found.items()}


@dataclass(frozen=True)
class Case:
    """What is judged: the orders of one run, and what was sent beside them.

    `expected` is what quarantine must hold, `before` the letters that lay there when the run began.
    """

    settings: Settings
    codec: Codec
    run_id: str
    placed: Collection[str]
    cancelled: Collection[str]
    expected: Mapping[Letter, Poison]
    poisoned: Collection[str]
    """Positions of all poison, whoever reads it, and of what was dead before."""
    before: Collection[Letter]

    def wrongs(self, evidence: Evidence) -> list[str]:
        """Return everything that is wrong, in words; empty where every promise was kept."""
        history = list(self._history(evidence))
        return [
            *self._orders(evidence, history),
            *self._cancellations(evidence, history),
            *self._books(),
            *self._commands(evidence),
            *self._views(evidence),
            *_outboxes(evidence),
            *_groups(evidence),
            *_transactions(evidence),
            *self._quarantine(evidence),
        ]

    def _history(self, evidence: Evidence) -> Iterator[HistoryEntry]:
        for saga in ("place_order", "cancel_order"):
            for record in evidence.records[f"{saga}.history"]:
                if record.position not in self.poisoned and record.value is not None:
                    entry = self.codec.decode(record.value)
                    assert isinstance(entry, HistoryEntry)
                    yield entry

    def _orders(self, evidence: Evidence, history: Iterable[HistoryEntry]) -> Iterator[str]:
        """Every order ended once: one instance, one ending, and the owner's word agrees."""
        rows = evidence.ask("order", "SELECT order_id, status FROM customer_order WHERE order_id LIKE %s", self._like)
        standing = dict(rows)
        yield from _some("orders were committed and are not there", set(self.placed) - standing.keys())
        endings = _endings(entry for entry in history if entry.saga == "place_order")
        for order_id, status in standing.items():
            found = endings.get(order_id, {})
            wanted = {"rejected": "compensated", "confirmed": "completed", "cancelled": "completed"}.get(status)
            if (
                len(found) != 1
                or [ended for ended, _ in found.values()] != [1]
                or {s for _, s in found.values()} != {wanted}
            ):
                yield f"order {order_id} is {status}; its instances: {found or 'none'}"

    def _cancellations(self, evidence: Evidence, history: Iterable[HistoryEntry]) -> Iterator[str]:
        """Every cancellation ended once."""
        rows = evidence.ask("order", "SELECT order_id, status FROM customer_order WHERE refund_cents IS NOT NULL")
        standing = {key: status for key, status in rows if key.startswith(self._prefix)}
        yield from _some("cancellations were asked for and are not there", set(self.cancelled) - standing.keys())
        endings = _endings(entry for entry in history if entry.saga == "cancel_order")
        for order_id, status in standing.items():
            found = endings.get(order_id, {})
            wanted = {"cancelled": "completed", "confirmed": "compensated"}.get(status)
            if list(found.values()) != [(1, wanted)]:
                yield f"the cancellation of {order_id}, which is {status}: its instances: {found or 'none'}"

    def _books(self) -> Iterator[str]:
        """Money and stock are conserved, and no command had two effects."""
        demo = CraftyGoods()
        for check in demo.checks(self.settings):
            if not check.holds:
                yield f"{check.name}: {check.detail}"
        if twice := demo.executed_twice(self.settings):
            yield f"{twice} commands had a second effect"

    def _commands(self, evidence: Evidence) -> Iterator[str]:
        """Every command that a saga sent for this run has one outcome in its service's inbox; none has another."""
        for service in SERVICES:
            sent: set[UUID] = set()
            for record in evidence.records[f"{service}.commands"]:
                key = record.key or b""
                if record.position not in self.poisoned and key.startswith(self._prefix.encode()):
                    sent.add(UUID(record.header("idempotency_key") or ""))
            rows = evidence.ask(service, "SELECT idempotency_key FROM inbox WHERE key LIKE %s", self._like)
            answered = {key for (key,) in rows}
            yield from _some(f"commands to {service} have no outcome", map(str, sent - answered))
            yield from _some(f"outcomes of {service} have no command", map(str, answered - sent))

    def _views(self, evidence: Evidence) -> Iterator[str]:
        """Each view is a fold of its topics."""
        views = [*view_workers(self.settings).values(), sagas_view(load_sagas(self.settings))]
        reader = ViewsReader(self.settings)
        try:
            rows = reader.rows(views)
        finally:
            reader.close()
        for view in views:
            good = (
                record
                for topic in view.topics
                for record in evidence.records[topic]
                if record.position not in self.poisoned and record.value is not None
            )
            folded, kept = fold_topics(view, good, self.codec), rows[view.table]
            keys = [key for key in folded.keys() | kept.keys() if folded.get(key) != kept.get(key)]
            yield from _some(f"rows of view {view.name} are not the fold of the log", keys)

    def _quarantine(self, evidence: Evidence) -> Iterator[str]:
        """It holds the poison, each once for each reader, untouched, and nothing else."""
        letters = {place: found for place, found in evidence.letters.items() if place not in self.before}
        missing = self.expected.keys() - letters.keys()
        yield from _some(
            "records of poison are not in quarantine", (f"{self.expected[one].kind}: {one}" for one in missing)
        )
        for place in letters.keys() - self.expected.keys():
            text, _ = letters[place][0]
            yield f"{place} is in quarantine, and is no poison: {json.loads(text)['cause']}"
        for place in letters.keys() & self.expected.keys():
            if len(letters[place]) != 1:
                yield f"{place} died {len(letters[place])} times"
            text, record = letters[place][0]
            poison, said = self.expected[place], json.loads(text)
            if said.get("reference") is None and record.value != (
                poison.value or (b"" if said.get("valueless") else None)
            ):
                yield f"{place}: its letter has another value than it had"

    @property
    def _prefix(self) -> str:
        return f"order-{self.run_id}-"

    @property
    def _like(self) -> str:
        return f"{self._prefix}%"


def _endings(history: Iterable[HistoryEntry]) -> dict[str, dict[str, tuple[int, str]]]:
    """Return how often each instance ended and how it stands, by its id, by business key."""
    found: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    for entry in history:
        if entry.saga_id:
            ended, before = found[entry.key].get(entry.saga_id, (0, ""))
            ended += entry.status in ENDED and before not in ENDED
            found[entry.key][entry.saga_id] = (ended, entry.status)
    return found


def _outboxes(evidence: Evidence) -> Iterator[str]:
    """Every message of every outbox lies in its topic."""
    carried = {
        topic: {record.header("id") for record in records if record.header("handed_over") is None}
        for topic, records in evidence.records.items()
    }
    for database in captured_databases(evidence.settings):
        rows = evidence.ask(database, "SELECT id::text, topic FROM outbox")
        missing = Counter(topic for id_, topic in rows if id_ not in carried.get(topic, ()))
        for topic, count in missing.items():
            yield f"{count} messages of the outbox of {database} are not in {topic}"
        known = evidence.ask(database, "SELECT count(*) FROM outbox_skipped")
        if known != [(0,)]:
            yield f"{known[0][0]} messages of {database} were stepped over"


def _groups(evidence: Evidence) -> Iterator[str]:
    """Each group has a member, and has read every record of its topics."""
    groups = applications(evidence.settings)
    described = evidence.admin.describe_consumer_groups(list(groups), request_timeout=30)
    for name, future in described.items():
        if not future.result(30).members:
            yield f"group {name} has no member"
    last: dict[tuple[str, int], int] = {}
    for topic, records in evidence.records.items():
        for record in records:
            last[topic, record.partition] = record.offset
    for group in groups.values():
        positions = _positions(evidence, group)
        read = {place: end for place, end in last.items() if group.worker in READERS.get(place[0], ())}
        for (topic, partition), end in read.items():
            position = positions.get((topic, partition), 0)
            if position <= end:
                yield f"group {group.name} stands at {position} of {topic}[{partition}], which goes on to {end}"


def _positions(evidence: Evidence, group: Application) -> dict[tuple[str, int], int]:
    if group.database is not None:
        rows = evidence.ask(
            group.database,
            "SELECT topic, partition, next_offset FROM towpath_offsets WHERE application = %s",
            group.name,
        )
        return {(topic, partition): offset for topic, partition, offset in rows}
    (future,) = evidence.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group.name)]).values()
    return {(one.topic, one.partition): one.offset for one in future.result(30).topic_partitions}


def _transactions(evidence: Evidence) -> Iterator[str]:
    """No partition of the project's topics has a transaction that is open."""
    metadata = evidence.admin.list_topics(timeout=30).topics
    places = [
        TopicPartition(topic, partition)
        for topic in evidence.records
        if topic in metadata
        for partition in metadata[topic].partitions
    ]
    ends = {}
    for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
        asked = {place: OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
        answers = evidence.admin.list_offsets(asked, isolation_level=level, request_timeout=30)
        ends[level] = {(place.topic, place.partition): one.result(30).offset for place, one in answers.items()}
    stable, high = ends[IsolationLevel.READ_COMMITTED], ends[IsolationLevel.READ_UNCOMMITTED]
    for place, end in high.items():
        if stable[place] != end:
            yield f"a transaction is open in {place[0]}[{place[1]}], at {stable[place]} of {end}"


def _some(what: str, which: Iterable[str]) -> Iterator[str]:
    found = sorted(which)
    if found:
        yield f"{len(found)} {what}: {', '.join(found[:SHOWN_MAX])}{' ...' if len(found) > SHOWN_MAX else ''}"
