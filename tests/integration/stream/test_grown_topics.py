"""A real topic that is given more partitions under a running worker: it finds out by itself, and says so."""

import asyncio
import uuid
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from structlog.testing import capture_logs

from tests.conformance.conftest import KafkaCluster
from tests.integration.service_fixture import ROOT
from tests.integration.stream.test_database_unit import TABLE, applied_values, apply_all
from tests.unit.stream.support import SETTINGS, options_for, working
from towpath.clock import SystemClock, wait_until
from towpath.deadletter.watch import kafka as dead_watch
from towpath.errors import ConfigurationError
from towpath.settings import KafkaSettings, load_settings
from towpath.stream.broker import kafka
from towpath.stream.broker.dead_letter import DEAD_HEADER, describe
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord, Headers
from towpath.stream.engine.options import DatabaseOptions
from towpath.stream.engine.unit import KafkaUnit

pytestmark = pytest.mark.stack
BEFORE, AFTER = 2, 3


class Grounds:
    """A topic, its dead letters and a changelog on a real broker."""

    def __init__(self, servers: str, protocol: str) -> None:
        self.settings = SETTINGS.model_copy(update={"session_timeout_seconds": 6.0, "group_protocol": protocol})
        self.cluster = KafkaCluster(servers, self.settings)
        self.application = f"grown-{uuid.uuid4().hex[:8]}"
        self.topic, self.changelog = f"{self.application}-in", f"{self.application}-state"
        self.dead = f"{self.topic}.dead"
        for name in (self.topic, self.dead, self.changelog):
            self.cluster.topic(BEFORE, name=name)

    def options(self, **changes: Any) -> Any:
        """Return options of a worker."""
        given = {"application": self.application, "settings": self.settings}
        return options_for(self.cluster.broker, **{**given, **changes})

    def grow(self, *topics: str) -> None:
        """Give topics one more partition."""
        admin: AdminClient = self.cluster.admin
        for future in admin.create_partitions([NewPartitions(name, AFTER) for name in topics]).values():
            future.result()

    def write(self, value: str, partition: int, headers: Headers = ()) -> None:
        """Write a record."""
        producer = self.cluster.broker.producer(f"{self.application}-test")
        producer.start()
        producer.begin()
        producer.produce(self.topic, value.encode(), key=b"k", partition=partition, headers=headers)
        producer.commit({}, None)
        producer.close()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have members look at their topics twice a second, not every ten."""
    monkeypatch.setattr(kafka, "METADATA_REFRESH_MILLISECONDS", 500)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_topic_that_grows_past_its_state_ends_the_worker(kafka_servers: str, protocol: str) -> None:
    """By both group protocols: it names the topic and its changelog, and nothing of the new partition is taken."""
    grounds = Grounds(kafka_servers, protocol)
    taken: list[bytes | None] = []

    async def count(unit: KafkaUnit, groups: Groups) -> None:
        for partition, records in groups.items():
            for record in records:
                taken.append(record.value)
                unit.state(grounds.changelog, partition.partition).put(record.key or b"", record.value or b"")

    async def main() -> None:
        async with working(count, grounds.options(states=(grounds.changelog,)), [grounds.topic]) as worker:
            grounds.write("first", 0)
            await worker.until(lambda: taken == [b"first"])
            grounds.grow(grounds.topic)
            grounds.write("new", BEFORE)
            with pytest.raises(ConfigurationError) as ended:
                await worker.until(lambda: False)
        said = f"{grounds.topic} has {AFTER} partitions and {grounds.changelog} has {BEFORE}: "
        assert ended.value.cause.startswith(said)
        assert (ended.value.next_step or "").startswith("give both the same number of partitions")

    asyncio.run(main())
    assert taken == [b"first"]


@pytest.mark.parametrize("dead_too", [True, False], ids=["with its dead letters", "alone"])
def test_a_topic_of_the_database_form_that_grows_is_read_whole_or_refused(
    connection: psycopg.Connection[Any], database_url: str, kafka_servers: str, *, dead_too: bool
) -> None:
    """What was written before the worker saw the new partition is applied; where its dead have no place, it ends."""
    grounds = Grounds(kafka_servers, "classic")
    connection.execute(TABLE)
    connection.commit()
    database = DatabaseOptions(url=database_url, connection_options={})
    options = grounds.options(unit_of_work="database", database=database)

    async def main() -> None:
        async with working(apply_all, options, [grounds.topic]) as worker:
            grounds.write("first", 0)
            await worker.until(lambda: applied_values(connection) == ["first"])
            grounds.grow(*([grounds.dead] if dead_too else []), grounds.topic)
            grounds.write("new", BEFORE)
            if dead_too:
                await worker.until(lambda: applied_values(connection) == ["first", "new"])
                return
            with pytest.raises(ConfigurationError) as ended:
                await worker.until(lambda: False)
        assert ended.value.cause == f"{grounds.dead} has {BEFORE} partitions, {grounds.topic} has {AFTER}"
        command = f"kafka-topics.sh --bootstrap-server SERVERS --alter --topic {grounds.dead} --partitions {AFTER}"
        assert ended.value.next_step == f"give the dead-letter topic as many partitions as its origin: {command}"
        assert applied_values(connection) == ["first"]

    with capture_logs() as logs:
        asyncio.run(main())
    told = [line for line in logs if line["event"].startswith("topic has grown")]
    assert [(line["topic"], line["partitions_before"], line["partitions"]) for line in told] == [
        (grounds.topic, BEFORE, AFTER)
    ]


def test_dead_commands_are_followed_in_a_partition_that_is_added(
    kafka_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real broker: what lies in the new partition is read from its beginning."""
    monkeypatch.setattr(dead_watch, "LOOK_SECONDS", 0.2)
    grounds = Grounds(kafka_servers, "classic")
    loaded = load_settings(ROOT, environment=False)
    settings = loaded.model_copy(update={"kafka": KafkaSettings(bootstrap_servers=kafka_servers)})
    watch = dead_watch.DeadCommandWatch(settings, [grounds.topic, "no.such"], lambda record: record.key)
    letter = describe(
        ConsumedRecord(grounds.topic, BEFORE, 0, 1, b"k", b"v"),
        ValueError("a bug"),
        application="app",
        kind="handler",
        attempts=1,
        died_milliseconds=1,
    )
    clock = SystemClock()
    try:
        assert wait_until(clock, lambda: not watch.reading(), seconds=20, every_seconds=0.1)
        grounds.grow(grounds.topic)
        grounds.write("new", BEFORE, ((DEAD_HEADER, letter.to_json().encode()),))
        assert wait_until(clock, lambda: watch.holds(b"k"), seconds=20, every_seconds=0.1)
        assert wait_until(clock, lambda: not watch.reading(), seconds=20, every_seconds=0.1)
    finally:
        watch.close()
