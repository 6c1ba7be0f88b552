"""What databases, topics and groups say: all that the judge of the chaos test hears, each question asked once.

The one rule: everything comes from the parts themselves, nothing from what a worker or the test remembers.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

import psycopg
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelines.demo.demo import CraftyGoods
from schemas.records.order import OrderCancellationRequested
from towpath.demo import Check
from towpath.demo.postgres import ViewsReader
from towpath.settings import Settings
from towpath.stack.groups import Application, applications
from towpath.stream.broker.kafka import read_records
from towpath.stream.broker.record import ConsumedRecord
from towpath.view import View

Letter = tuple[str, str]
"""Application, and the position at which the record died."""
Place = tuple[str, int]
"""Topic and partition."""


@dataclass
class Evidence:
    """What is there now. `records` are those of all topics, dead letters included, each partition's in order."""

    settings: Settings
    topics: Collection[str]
    records: dict[str, list[ConsumedRecord]] = field(default_factory=dict)

    def read(self) -> "Evidence":
        """Read all topics."""
        self.records = {name: [] for name in self.topics}
        for record in read_records(self.settings, self.topics):
            self.records[record.topic].append(record)
        for found in self.records.values():
            found.sort(key=lambda record: (record.partition, record.offset))
        return self

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

    # Databases

    def _ask(self, database: str, statement: Any, *values: Any) -> list[Any]:
        options: dict[str, Any] = dict(self.settings.postgres.connection_options())
        url = self.settings.postgres.database_url(database)
        with psycopg.connect(url, connect_timeout=10, **options) as connection:
            return connection.execute(statement, values).fetchall()

    def orders(self, prefix: str) -> dict[str, str]:
        """Return the status of each order whose id begins so."""
        return dict(
            self._ask("order", "SELECT order_id, status FROM customer_order WHERE order_id LIKE %s", f"{prefix}%")
        )

    def cancellations(self, prefix: str) -> dict[str, str]:
        """Return the status of each order that somebody asked to cancel, whatever became of it.

        The order alone does not tell: where a cancellation was taken back, nothing of it is left there.
        """
        return dict(
            self._ask(
                "order",
                "SELECT order_id, status FROM customer_order WHERE order_id LIKE %s AND order_id IN"
                " (SELECT key FROM outbox WHERE type = %s)",
                f"{prefix}%",
                OrderCancellationRequested.SCHEMA_NAME,
            )
        )

    def answered(self, service: str, prefix: str) -> set[UUID]:
        """Return the idempotency keys of the commands that a service has an outcome for."""
        rows = self._ask(service, "SELECT idempotency_key FROM inbox WHERE key LIKE %s", f"{prefix}%")
        return {key for (key,) in rows}

    def outbox(self, database: str) -> list[tuple[str, str]]:
        """Return id and topic of each message of an outbox."""
        return self._ask(database, "SELECT id::text, topic FROM outbox")

    def skipped(self, database: str) -> int:
        """Return how many messages of an outbox were stepped over."""
        return int(self._ask(database, "SELECT count(*) FROM outbox_skipped")[0][0])

    def books(self) -> list[Check]:
        """Return what the shop says of money and stock."""
        return CraftyGoods().checks(self.settings)

    def executed_twice(self) -> int:
        """Return how many commands had a second effect."""
        return CraftyGoods().executed_twice(self.settings)

    def rows(self, views: Iterable[View[Any]]) -> dict[str, dict[str, Any]]:
        """Return every row of each view, by table and key."""
        reader = ViewsReader(self.settings)
        try:
            return reader.rows(views)
        finally:
            reader.close()

    # Kafka

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({**self.settings.kafka.client_config(), "log_level": 0})

    @cached_property
    def groups(self) -> Mapping[str, Application]:
        """Return the project's consumer groups, by name."""
        return applications(self.settings)

    def members(self) -> dict[str, int]:
        """Return how many members each group has."""
        described = self._admin.describe_consumer_groups(list(self.groups), request_timeout=30)
        return {name: len(future.result(30).members) for name, future in described.items()}

    def positions(self, group: Application) -> dict[Place, int]:
        """Return where a group stands, by the store that it goes on from."""
        if group.database is not None:
            rows = self._ask(
                group.database,
                "SELECT topic, partition, next_offset FROM towpath_offsets WHERE application = %s",
                group.name,
            )
            return {(topic, partition): offset for topic, partition, offset in rows}
        (future,) = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group.name)]).values()
        return {(one.topic, one.partition): one.offset for one in future.result(30).topic_partitions}

    def ends(self) -> dict[Place, tuple[int, int]]:
        """Return the last stable offset and the high watermark of each partition of the topics."""
        metadata = self._admin.list_topics(timeout=30).topics
        places = [
            TopicPartition(topic, partition)
            for topic in self.records
            if topic in metadata
            for partition in metadata[topic].partitions
        ]
        found = []
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
            asked = {place: OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
            answers = self._admin.list_offsets(asked, isolation_level=level, request_timeout=30)
            found.append({(place.topic, place.partition): one.result(30).offset for place, one in answers.items()})
        stable, high = found
        return {place: (stable[place], end) for place, end in high.items()}
