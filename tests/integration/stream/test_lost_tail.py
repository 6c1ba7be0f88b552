"""A service and a view whose topic lost its tail below where their databases stand: held alone, nothing passed over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr

from pipelines.services.catalog import list_product, service
from schemas.records.catalog import ReserveStock, StockLine
from schemas.records.order import OrderConfirmed
from tests.commands import Asking
from tests.integration.participant.test_worker import STREAM
from tests.integration.service_fixture import Asked, NewService
from tests.integration.view.test_folding import NOW, VIEW, Count
from tests.reference_records import CATALOGUE, CODEC, SETTINGS
from tests.unit.stream.support import in_transaction
from towpath.orchestrator.envelope import headers_of
from towpath.participant.agent import application_name as service_group
from towpath.participant.agent import create_participant
from towpath.positions.decision import decide
from towpath.positions.postgres import accept_in_database, database_standings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.position import HoldKind
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds, idle
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.faust_app.agent import StreamApp
from towpath.view.agent import application_name as view_group
from towpath.view.agent import create_view
from towpath.view.postgres import ViewTable

pytestmark = pytest.mark.stack
READ, KEPT, LOST_SIGHT_SECONDS = 8, 5, 0.5
"""Records that are read, those of them that the log still has, and how long a hold must last to be believed."""


class Subject(Protocol):
    """What reads a topic into a database, and says which keys it has applied, as often as it has."""

    application: str
    topic: str
    url: str

    def app(self, broker: MemoryBroker, **options: Any) -> StreamApp:
        """Return a worker."""

    def write(self, broker: MemoryBroker, partition: int, key: str) -> None:
        """Write one record of a key."""

    def applied(self) -> list[str]:
        """Return the keys, sorted."""


class Catalog:
    """The workers of a service: a key is applied where its reply lies in the outbox."""

    topic = "catalog.commands"

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.settings = asked.settings.model_copy(update={"stream": STREAM})
        self.application = service_group(self.settings, service.name)
        self.url = self.settings.postgres.database_url(service.name)
        with asked.connection.transaction():
            list_product(
                asked.connection, CODEC, sku="vase", name="Vase", unit_price_cents=900, on_hand=99, event_id=uuid4()
            )

    def app(self, broker: MemoryBroker, **options: Any) -> StreamApp:
        """Return a worker."""
        return create_participant(self.settings, service, CODEC, CATALOGUE, slot="a", broker=broker, **options)

    def write(self, broker: MemoryBroker, partition: int, key: str) -> None:
        """Ask for a vase."""
        lines = (StockLine(sku="vase", quantity=1),)
        record = Asking(ReserveStock(order_id=key, lines=lines), key=key, step="stock").arriving()
        broker.append(self.topic, record.value, key=record.key, headers=record.headers, partition=partition)

    def applied(self) -> list[str]:
        """Return the orders that were answered."""
        rows = self.asked.rows("SELECT key FROM outbox WHERE topic = 'place_order.replies' ORDER BY key")
        return [key for (key,) in rows]


class Counts:
    """The workers of a view: a key is applied as often as its row counts."""

    topic = "order.events"

    def __init__(self, connection: psycopg.Connection[Any], url: str) -> None:
        self.connection, self.url = connection, url
        postgres = SETTINGS.postgres.model_copy(update={"urls": {"views": SecretStr(url)}})
        self.settings = SETTINGS.model_copy(update={"postgres": postgres, "stream": STREAM})
        self.application = view_group(self.settings, VIEW)

    def app(self, broker: MemoryBroker, **options: Any) -> StreamApp:
        """Return a worker."""
        return create_view(self.settings, VIEW, CODEC, slot="a", broker=broker, **options)

    def write(self, broker: MemoryBroker, partition: int, key: str) -> None:
        """Confirm an order."""
        record = OrderConfirmed(order_id=key, confirmed_at=NOW)
        headers = headers_of(id=str(uuid4()), type=record.SCHEMA_NAME)
        broker.append(self.topic, CODEC.encode(record), key=key.encode(), headers=headers, partition=partition)

    def applied(self) -> list[str]:
        """Return the orders that were counted."""
        rows: list[Count] = list(ViewTable(VIEW).all_rows(self.connection))
        self.connection.rollback()
        return sorted(row.order_id for row in rows for _ in range(row.confirmations))


@pytest.fixture(params=["service", "view"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Return each of them, with a database of its own."""
    if request.param == "service":
        new_service: NewService = request.getfixturevalue("new_service")
        return Catalog(new_service(service))
    return Counts(request.getfixturevalue("connection"), request.getfixturevalue("database_url"))


class Course:
    """A subject on a broker with two partitions, its workers one after the other."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.broker = MemoryBroker(STREAM)
        for topic in (subject.topic, f"{subject.topic}.dead"):
            self.broker.create_topic(topic, 2)
        self.place = TopicPartition(subject.topic, 0)
        self.statuses: list[WorkerStatus] = []
        self.leader_forgotten = False

    def write(self, partition: int, *keys: str) -> list[str]:
        """Write records; return their keys."""
        for key in keys:
            self.subject.write(self.broker, partition, key)
        return list(keys)

    def lose_tail(self) -> None:
        """Have the log end where its first records do."""
        with self.broker.changed:
            self.broker.log_of(self.place).truncate(KEPT)

    def change_leader(self) -> None:
        """Have another leader write the log from its end on, first of all what it aborts."""
        with self.broker.changed:
            log = self.broker.log_of(self.place)
            log.truncate(log.end)
        in_transaction(self.broker, self.place.topic, b"aborted").abort()

    def stands_at(self) -> int:
        """Return where the database stands."""
        with psycopg.connect(self.subject.url) as connection:
            (row,) = connection.execute(
                "SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets WHERE topic = %s AND partition = %s",
                self.place,
            ).fetchall()
        return int(row[0])

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Callable[[Callable[[], bool]], Any]]:
        """Run a worker, which may be waited with until something holds."""
        self.statuses.clear()
        app = self.subject.app(self.broker, on_status=self.statuses.append)

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(30):
                while not await asyncio.to_thread(condition):
                    if app.crash_reason is not None:
                        raise app.crash_reason
                    await asyncio.sleep(0.02)

        await app.start()
        try:
            yield until
        finally:
            await app.stop()

    def is_held(self) -> bool:
        """Say whether the last status tells of the hold, of that partition alone, and of what to run next."""
        if not self.statuses or not self.statuses[-1].held:
            return False
        status = self.statuses[-1]
        (held,) = status.held
        assert held.partition == str(self.place)
        assert not status.is_ready
        if self.leader_forgotten:
            # Nobody can tell then how long the log was when it was cut, and for whoever comes later nor that it was.
            assert held.kind in (HoldKind.BEYOND_END.value, HoldKind.RESTORED.value)
            assert " --from OFFSET, " in (held.next_step or "")
            return True
        assert held.kind == HoldKind.BEYOND_END.value
        if "where it was cut nobody has noted" in held.reason:
            return False  # the cluster is asked, and has not answered yet
        assert f"the log ended at {KEPT}: it has lost {READ - KEPT} records" in held.reason
        assert held.next_step == (
            f"towpath positions accept {self.subject.application} {self.subject.topic} 0 --from {KEPT} --reason REASON"
        )
        assert not status.is_ready
        assert status.words.startswith(f"holds {self.place} (")
        return str(TopicPartition(self.subject.topic, 1)) in status.serving

    def forget_leader(self) -> None:
        """Have the database not know under which leader it read, as after a person's decision."""
        self.leader_forgotten = True
        with psycopg.connect(self.subject.url) as connection:
            connection.execute("UPDATE towpath_offsets SET leader_epoch = -1")

    def accept(self, from_offset: int = KEPT) -> None:
        """Look, and decide, as `towpath positions` does."""
        looked = database_standings(self.broker, self.subject.application, self.subject.url, {})
        (standing,) = [one for one in looked if one.held is not None]
        assert (standing.partition, standing.stored) == (self.place, READ)
        accept_in_database(decide(standing, from_offset, actor="ada", reason="lost its tail"), self.subject.url, {})


@pytest.mark.parametrize("moment", ["under a worker", "between two workers", "and grew again between them"])
def test_a_topic_that_lost_its_tail_holds_its_partition_alone(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What comes at the lost offsets waits, also once the log has grown past where the database stands; then applies.

    Whoever begins after that finds the offset well within the log: the note of the worker before it tells, or the
    leader's epoch where there was none.
    """
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.1)
    course = Course(subject)
    before = course.write(0, *(f"a-{number}" for number in range(READ)))
    new = [f"n-{number}" for number in range(READ)]

    async def main() -> None:
        async with course.working() as until:
            await until(lambda: subject.applied() == sorted(before))
            if moment == "under a worker":
                course.lose_tail()
                await until(course.is_held)
        if moment == "between two workers":
            course.forget_leader()
        if moment != "under a worker":
            course.lose_tail()
        if moment == "and grew again between them":
            course.write(0, *new)
        async with course.working() as until:
            await until(course.is_held)
            if moment != "and grew again between them":
                course.write(0, *new)
            beside = course.write(1, "b-0", "b-1")
            await until(lambda: subject.applied() == sorted(before + beside))
            await asyncio.sleep(LOST_SIGHT_SECONDS)
            assert course.is_held()
        async with course.working() as until:
            await until(course.is_held)
            assert subject.applied() == sorted(before + beside)
            course.accept()
            await until(lambda: subject.applied() == sorted(before + beside + new))
            await until(lambda: course.statuses[-1].is_ready)

    asyncio.run(main())


class Outsider(Counts):
    """The workers of a view of a topic whose producer writes no ids."""

    def write(self, broker: MemoryBroker, partition: int, key: str) -> None:
        """Confirm an order."""
        record = OrderConfirmed(order_id=key, confirmed_at=NOW)
        headers = headers_of(type=record.SCHEMA_NAME)
        broker.append(self.topic, CODEC.encode(record), key=key.encode(), headers=headers, partition=partition)


@pytest.mark.parametrize("from_offset", [KEPT, KEPT - 3])
def test_records_without_ids_are_new_at_the_lost_offsets_alone(
    connection: psycopg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch, from_offset: int
) -> None:
    """They are known by their positions; those that the log still has are known also to who reads them again."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.1)
    subject = Outsider(connection, database_url)
    course = Course(subject)
    before = course.write(0, *(f"a-{number}" for number in range(READ)))

    async def main() -> None:
        async with course.working() as until:
            await until(lambda: subject.applied() == sorted(before))
            course.lose_tail()
            await until(course.is_held)
            new = course.write(0, *(f"n-{number}" for number in range(READ)))
            course.accept(from_offset)
            await until(lambda: course.stands_at() == KEPT + READ)
        assert subject.applied() == sorted(before + new)

    asyncio.run(main())


def test_what_another_leader_aborted_is_no_lost_tail(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position moves past it, under the leader that wrote it: the next worker reads on from there."""
    monkeypatch.setattr(idle, "IDLE_ADVANCE_SECONDS", 0.1)
    monkeypatch.setattr(idle, "AGAIN_SECONDS", 0.1)
    course = Course(subject)
    before = course.write(0, *(f"a-{number}" for number in range(READ)))

    async def main() -> None:
        async with course.working() as until:
            await until(lambda: subject.applied() == sorted(before))
            course.change_leader()
            await until(lambda: course.stands_at() == READ + 2)
        async with course.working() as until:
            more = course.write(0, "b-0")
            await until(lambda: subject.applied() == sorted(before + more))

    asyncio.run(main())
