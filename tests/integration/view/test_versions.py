"""Versions of a view on a real database, folded by real workers over the memory broker: built, swapped, compared."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from schemas.records.order import OrderConfirmed
from tests.integration.participant.test_worker import STREAM
from tests.integration.view.test_folding import NOW, VIEW, Count
from tests.unit.orchestrator.desktop import CODEC
from towpath.demo.verdict import fold_topics
from towpath.errors import ConfigurationError, ContractError, RefusedError
from towpath.orchestrator.envelope import headers_of
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import write
from towpath.replay.outbox.postgres import OutboxSource, range_of
from towpath.replay.plan import OutboxRange
from towpath.settings import Settings, load_settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.view import Occurrence, RowSource, View
from towpath.view.agent import Folding, create_view
from towpath.view.postgres import ViewTable
from towpath.view.versions.building.postgres import begin_at_topics, begin_with_records, begin_with_rows
from towpath.view.versions.building.shortfall import expired, require_whole
from towpath.view.versions.compare.in_flux import keys_between
from towpath.view.versions.compare.postgres import begin_snapshot, compare
from towpath.view.versions.log import any_between, bounds_of, records_between
from towpath.view.versions.postgres import (
    WORKER,
    built_versions,
    drop,
    last_swap,
    publish,
    published_version,
    swap,
    vector_of,
    views_connection,
)
from towpath.view.versions.replacing import REPLACE_SECONDS, require_not_taken_back
from towpath.view.versions.standing import VersionDecision, between
from towpath.view.view import group_name

pytestmark = pytest.mark.stack

TOPIC, PARTITIONS = "order.events", 3
PROJECT = load_settings(environment=False).project.name
Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Sum:
    """How many confirmations a group of orders had; `twice` is what a second version adds."""

    name: str
    confirmations: int
    twice: int = 0


def fold_sum(row: Sum | None, record: OrderConfirmed, at: Occurrence) -> Sum:
    """Count, whatever the order."""
    count = (row.confirmations if row else 0) + 1
    return Sum(at.key[:1] if row is None else row.name, count, 2 * count)


def sum_view(rows: RowSource, version: int) -> View[Sum]:
    """Return a view that counts by order, or by the first letter of orders from all partitions."""
    many = rows is RowSource.MANY_KEYS
    return View(
        name="sums",
        topics=(TOPIC,),
        row=Sum,
        key="name",
        folds=frozenset({OrderConfirmed}),
        fold=fold_sum if many else (lambda row, record, at: replace(fold_sum(row, record, at), name=at.key)),
        row_key=(lambda _, at: at.key[:1]) if many else (lambda _, at: at.key),
        rows=rows,
        version=version,
        from_row=lambda row: Sum(row["name"], row["confirmations"], row["twice"]),
        indexes=(("confirmations",),),
    )


class Shop:
    """A log, a database, and the workers of views between them."""

    def __init__(self, database_url: str, seed: int) -> None:
        settings = load_settings(environment=False)
        postgres = settings.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
        self.settings: Settings = settings.model_copy(update={"postgres": postgres, "stream": STREAM})
        self.broker = MemoryBroker(STREAM)
        self.broker.create_topic(TOPIC, PARTITIONS)
        self.broker.create_topic(f"{TOPIC}.dead", PARTITIONS)
        self.chance = random.Random(seed)
        self.apps: dict[tuple[int, str], Any] = {}
        self._sent: list[tuple[bytes, str]] = []

    def send(self, count: int) -> None:
        """Append confirmations of random orders, and now and then one that was sent before."""
        for _ in range(count):
            if self._sent and self.chance.random() < 0.1:
                key, id_ = self.chance.choice(self._sent)
            else:
                key, id_ = f"{self.chance.choice('abc')}-{self.chance.randrange(20)}".encode(), f"e{len(self._sent)}"
                self._sent.append((key, id_))
            record = OrderConfirmed(order_id=key.decode(), confirmed_at=NOW)
            headers = headers_of(id=id_, type=record.SCHEMA_NAME)
            self.broker.append(TOPIC, CODEC.encode(record), key=key, headers=headers)

    @staticmethod
    def outbox_records(settings: Settings, service: str, topics: tuple[str, ...]) -> Iterator[ConsumedRecord]:
        """Yield what an outbox holds, as records."""
        with psycopg.connect(settings.postgres.database_url(service)) as connection:
            found = range_of(connection, service, topics)
        yield from OutboxSource(settings, found, topics, {TOPIC: PARTITIONS}).read(_everything(found))

    def records(self) -> list[ConsumedRecord]:
        """Return the whole log, partition by partition."""
        ends = bounds_of(self.broker, [TOPIC]).ends
        return list(records_between(self.broker, {place: (0, end) for place, end in ends.items()}))

    async def start(self, view: View[Any], slot: str = "a", **options: Any) -> None:
        """Start a worker of a version."""
        app = create_view(self.settings, view, CODEC, slot=slot, broker=self.broker, **options)
        await app.start()
        self.apps[view.version, slot] = app

    async def stop(self, version: int, slot: str = "a") -> None:
        """Stop a worker."""
        await self.apps.pop((version, slot)).stop()

    async def stop_all(self) -> None:
        """Stop what runs."""
        for version, slot in list(self.apps):
            await self.stop(version, slot)

    def connected(self) -> Any:
        """Connect to the views' database."""
        return views_connection(self.settings)

    def caught_up(self, view: View[Any]) -> bool:
        """Return whether a version has folded the whole log."""
        with self.connected() as connection:
            vector = vector_of(connection, group_name(PROJECT, view.name, view.version))
        return all(vector.get(place, -1) >= end for place, end in bounds_of(self.broker, view.topics).ends.items())

    def swap(self, view: View[Any], version: int, action: str = "promote", *, force: bool = False) -> str | None:
        """Publish a version; return why it is not to be."""
        with self.connected() as connection:
            before = published_version(connection, view.name)
            connection.commit()
            return swap(
                connection,
                PROJECT,
                VersionDecision(view.name, action, before, version, "test", "a test"),
                ends=bounds_of(self.broker, view.topics).ends,
                has_records=partial(any_between, self.broker),
                force=force,
            )

    def rows(self, view: View[Any]) -> dict[str, Any]:
        """Return a version's rows by key."""
        with self.connected() as connection:
            return {getattr(row, view.key): row for row in ViewTable(view).all_rows(connection)}


@pytest.fixture
def shop(connection: Connection, database_url: str) -> Shop:
    """Return a shop with an empty log; the database has an outbox for dead letters."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    return Shop(database_url, seed)


async def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait, in a thread of its own, until something is so."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


@contextmanager
def reading(database_url: str, view: str) -> Iterator[list[str]]:
    """Poll a view by its stable name all the while; yield what was wrong with what was seen."""
    wrong: list[str] = []
    seen: dict[str, int] = {}
    stopped = threading.Event()

    def poll() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not stopped.is_set():
                try:
                    query = sql.SQL("SELECT name, confirmations FROM {}").format(sql.Identifier(view))
                    found: dict[str, int] = dict(connection.execute(query).fetchall())
                except psycopg.Error as error:
                    wrong.append(f"{type(error).__name__}: {error}")
                    return
                wrong.extend(
                    f"{key}: {found.get(key)} after {count}" for key, count in seen.items() if found.get(key, 0) < count
                )
                seen.update(found)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield wrong
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("rows", RowSource)
def test_a_view_is_the_fold_of_its_log_whatever_happens_to_its_versions(
    shop: Shop, database_url: str, rows: RowSource
) -> None:
    """Versions built, promoted, rolled back and rebuilt while records come, some twice; workers come and go.

    Readers never see a row go or fall back, and in the end each version is the fold of the log.
    """
    one, two, three = (sum_view(rows, version) for version in (1, 2, 3))
    siblings = frozenset({1, 2, 3})

    async def main() -> list[str]:
        shop.send(40)
        await shop.start(one, siblings=siblings)
        await until(lambda: shop.caught_up(one))
        with reading(database_url, "sums") as wrong:
            try:
                await shop.start(two, "a", siblings=siblings)
                await shop.start(one, "b", siblings=siblings)
                for version in (2, 1, 2):
                    shop.send(shop.chance.randrange(60))
                    action = "promote" if version == 2 else "rollback"
                    await until(lambda v=version, a=action: shop.swap(two, v, a) is None)  # type: ignore[misc]
                    await shop.stop(*shop.chance.choice(list(shop.apps)))
                    for view, slot in ((one, "c"), (two, "c")):
                        if (view.version, slot) not in shop.apps:
                            await shop.start(view, slot, siblings=siblings)
                with shop.connected() as connection:
                    decision = VersionDecision("sums", "build", 2, 3, "test", "a test", "from snapshot")
                    begin_with_rows(connection, PROJECT, three, decision, CODEC)
                shop.send(30)
                await shop.start(three, siblings=siblings)
                await until(lambda: shop.swap(three, 3) is None)
                await until(lambda: all(map(shop.caught_up, (one, two, three))))
            finally:
                await shop.stop_all()
        return wrong

    assert asyncio.run(main()) == []
    records = shop.records()
    for view in (one, two, three):
        assert shop.rows(view) == fold_topics(view, records, CODEC), f"version {view.version}"


def test_a_row_changed_under_the_same_version_is_refused_with_the_difference(shop: Shop) -> None:
    """Before anything is folded, and with what to do."""

    @dataclass(frozen=True, slots=True)
    class Other:
        order_id: str
        confirmations: str
        at: Any
        reason_code: int | None

    Other.__annotations__["at"] = Count.__annotations__["at"]
    with shop.connected() as connection:
        ViewTable(VIEW).create(connection)
    with pytest.raises(ContractError, match=r"\+ reason_code bigint; - reason text; ~ confirmations bigint") as refusal:
        create_view(shop.settings, replace(VIEW, row=cast("Any", Other)), CODEC, slot="a", broker=shop.broker)
    assert "raise the version of counts to 2" in str(refusal.value)


def test_a_version_that_is_behind_is_not_published(shop: Shop) -> None:
    """Readers would see rows go back in time; forced, it is."""
    one, two = sum_view(RowSource.ONE_KEY, 1), sum_view(RowSource.ONE_KEY, 2)

    async def main() -> None:
        shop.send(20)
        await shop.start(one)
        await until(lambda: shop.caught_up(one))
        await shop.stop(1)

    asyncio.run(main())
    with shop.connected() as connection:
        ViewTable(two).create(connection)
    assert "has yet to read 2" in (shop.swap(two, 2) or "")
    assert shop.swap(two, 2, force=True) is None
    with shop.connected() as connection:
        assert last_swap(connection, "sums") == VersionDecision("sums", "promote", 1, 2, "test", "a test")


def test_a_version_whose_predecessor_nobody_folds_publishes_itself(shop: Shop) -> None:
    """Once it has come as far: where the project keeps both, a person promotes."""
    one, two = sum_view(RowSource.ONE_KEY, 1), sum_view(RowSource.ONE_KEY, 2)

    def published() -> int | None:
        with shop.connected() as connection:
            return published_version(connection, "sums")

    async def main() -> None:
        shop.send(20)
        await shop.start(one)
        await until(lambda: shop.caught_up(one))
        await shop.stop(1)
        await shop.start(two)
        await until(lambda: published() == 2)
        await shop.stop_all()

    asyncio.run(main())
    assert shop.rows(two) == fold_topics(two, shop.records(), CODEC)


def test_a_version_that_a_person_took_from_readers_does_not_publish_itself_again(
    shop: Shop, connection: Connection
) -> None:
    """`rollback --force` is for that: rows that stand still are better than wrong ones. A newer version does."""
    one, two, three = (sum_view(RowSource.ONE_KEY, version) for version in (1, 2, 3))
    with shop.connected() as own:
        ViewTable(one).create(own)

    async def main() -> None:
        await shop.start(two)
        await until(lambda: published_version(connection, "sums") == 2)
        await shop.stop_all()
        assert shop.swap(two, 1, "rollback", force=True) is None
        decision = VersionDecision("sums", "promote", 1, 2, WORKER, "")
        with shop.connected() as own, pytest.raises(RefusedError, match="test gave readers version 1 in place of 2"):
            require_not_taken_back(own, decision)
        await shop.start(two)
        await until(lambda: shop.caught_up(two))
        await asyncio.sleep(REPLACE_SECONDS + 1)
        assert published_version(connection, "sums") == 1
        await shop.start(three)
        await until(lambda: published_version(connection, "sums") == 3)
        await shop.stop_all()

    connection.autocommit = True
    shop.send(20)
    asyncio.run(main())


def test_versions_are_compared_at_one_vector_without_what_is_between_them(shop: Shop) -> None:
    """Of two versions, one further than the other: equal but for what was changed, and a column only one has."""
    one, two = sum_view(RowSource.ONE_KEY, 1), sum_view(RowSource.ONE_KEY, 2)

    async def main() -> None:
        shop.send(60)
        for view in (one, two):
            await shop.start(view, siblings=frozenset({1, 2}))
            await until(lambda v=view: shop.caught_up(v))  # type: ignore[misc]
        await shop.stop(1)
        shop.broker.append(TOPIC, CODEC.encode(OrderConfirmed(order_id="a-1", confirmed_at=NOW)), key=b"a-1",
                           headers=headers_of(id="further", type=OrderConfirmed.SCHEMA_NAME))  # fmt: skip
        await until(lambda: shop.caught_up(two))
        await shop.stop_all()

    asyncio.run(main())
    keys = sorted(shop.rows(one).keys() - {"a-1"})
    with shop.connected() as connection:
        connection.execute("UPDATE sums_v2 SET confirmations = 1000 WHERE name = %s", (keys[0],))
        connection.execute("DELETE FROM sums_v2 WHERE name = %s", (keys[1],))
        connection.execute("DELETE FROM sums_v1 WHERE name = %s", (keys[2],))
        connection.execute("ALTER TABLE sums_v2 ADD COLUMN further int")
    with shop.connected() as connection:
        begin_snapshot(connection)
        vectors = [vector_of(connection, group_name(PROJECT, "sums", version)) for version in (1, 2)]
        ranges = between(vectors[0], vectors[1], [TOPIC])
        assert sum(high - low for low, high in ranges.values()) == 1
        left_out = keys_between(shop.broker, ranges, [one, two], CODEC)
        found = compare(connection, "sums", 1, 2, left_out=left_out)
    assert left_out == {"a-1"}
    assert (found.equal, found.different, found.only_old, found.only_new) == (len(keys) - 3, 1, 1, 1)
    assert (found.by_column, found.columns_only_new, found.left_out) == ({"confirmations": 1}, ("further",), 1)
    before = shop.rows(one)[keys[0]].confirmations
    assert [(one.key, one.kind, dict(one.columns)) for one in found.samples] == [
        (keys[0], "different", {"confirmations": (before, 1000)}),
        (keys[1], "only in the old version", {}),
        (keys[2], "only in the new version", {}),
    ]


def test_a_version_is_not_built_in_silence_where_records_have_expired(shop: Shop) -> None:
    """It is refused with the ways out; from the rows of the version before it ends equal."""
    one, two = sum_view(RowSource.ONE_KEY, 1), sum_view(RowSource.ONE_KEY, 2)
    siblings = frozenset({1, 2})

    async def fold(*views: View[Any]) -> None:
        for view in views:
            await shop.start(view, siblings=siblings)
        await until(lambda: all(map(shop.caught_up, views)))
        await shop.stop_all()

    shop.send(60)
    asyncio.run(fold(one))
    before = shop.records()
    place = TopicPartition(TOPIC, 0)
    shop.broker.log_of(place).expire(5)
    bounds = bounds_of(shop.broker, [TOPIC])
    with pytest.raises(RefusedError, match=r"order.events\[0\] begins at 5") as refusal:
        require_whole(two, expired(two, bounds, {}))
    assert "--from snapshot" in str(refusal.value)
    assert expired(replace(two, forgets=True), bounds, {}) == {}
    decision = VersionDecision("sums", "build", 1, 2, "test", "a test", "from snapshot")
    with pytest.raises(ConfigurationError, match="from_row"), shop.connected() as connection:
        begin_with_rows(connection, PROJECT, replace(two, from_row=None), decision, CODEC)
    with shop.connected() as connection:
        assert begin_with_rows(connection, PROJECT, two, decision, CODEC) == len(shop.rows(one))
    with pytest.raises(RefusedError, match="has begun"), shop.connected() as connection:
        begin_at_topics(connection, PROJECT, two, bounds, decision)
    shop.send(20)
    after = [record for record in shop.records() if record.offset >= 5 or record.partition]
    asyncio.run(fold(one, two))
    log = sorted({record.position: record for record in [*before, *after]}.values())
    assert shop.rows(one) == shop.rows(two) == fold_topics(two, log, CODEC)


def test_a_version_begins_with_what_outboxes_hold_where_its_topics_have_let_it_expire(
    shop: Shop, connection: Connection
) -> None:
    """Whole, in one transaction; what the topic still has as well is known when it comes again."""
    one = sum_view(RowSource.ONE_KEY, 1)
    outbox = shop.settings.postgres.urls["views"]
    postgres = shop.settings.postgres.model_copy(update={"urls": {"views": outbox, "order": outbox}})
    settings = shop.settings.model_copy(update={"postgres": postgres})
    messages = [
        OutboxMessage(
            id=uuid4(),
            topic=TOPIC,
            key=f"{shop.chance.choice('abc')}-{number % 7}",
            type=OrderConfirmed.SCHEMA_NAME,
            payload=CODEC.encode(OrderConfirmed(order_id=str(number), confirmed_at=NOW)),
        )
        for number in range(50)
    ]
    write(connection, messages)
    connection.commit()
    found = range_of(connection, "order", (TOPIC,))
    connection.commit()
    records = list(OutboxSource(settings, found, (TOPIC,), {TOPIC: PARTITIONS}).read(_everything(found)))
    assert [record.header("id") for record in records] == [str(message.id) for message in messages]
    for record in records:
        shop.broker.append(TOPIC, record.value, key=record.key, headers=record.headers)
    log = shop.records()
    for place, end in bounds_of(shop.broker, [TOPIC]).ends.items():
        shop.broker.log_of(place).expire(end - end // 4)
    bounds = bounds_of(shop.broker, [TOPIC])
    assert expired(one, bounds, {}), "some of it has expired"
    folding = Folding(group_name(PROJECT, one.name, one.version), one, CODEC, 10**15)
    decision = VersionDecision("sums", "build", None, 1, "test", "a test", "from outbox")
    broken = [*records[:30], records[30]._replace(value=b"no avro"), *records[31:]]
    with pytest.raises(RefusedError, match="cannot fold"), shop.connected() as own:
        begin_with_records(own, PROJECT, one, folding, broken, bounds, decision, now_milliseconds=10**13)
    with shop.connected() as own:
        begin_with_records(own, PROJECT, one, folding, records, bounds, decision, now_milliseconds=10**13)

    async def go_on() -> None:
        await shop.start(one)
        await until(lambda: shop.caught_up(one))
        await shop.stop_all()

    shop.send(20)
    asyncio.run(go_on())
    newer = [record for record in shop.records() if record.position not in {record.position for record in log}]
    assert shop.rows(one) == fold_topics(one, [*log, *newer], CODEC)


def _everything(found: OutboxRange) -> dict[TopicPartition, tuple[int, int]]:
    return {TopicPartition(TOPIC, number): (0, found.messages) for number in range(PARTITIONS)}


def test_a_replay_from_an_outbox_that_has_lost_messages_since_is_refused(shop: Shop, connection: Connection) -> None:
    """What a run had sent is known by the order of all of them; one that was written since is no part of it."""
    outbox = shop.settings.postgres.urls["views"]
    postgres = shop.settings.postgres.model_copy(update={"urls": {"views": outbox, "order": outbox}})
    settings = shop.settings.model_copy(update={"postgres": postgres})

    def emit() -> None:
        message = OutboxMessage(id=uuid4(), topic=TOPIC, key="a", type="x", payload=b"x")
        write(connection, [message])
        connection.commit()

    for _ in range(5):
        emit()
    # A message that was emitted anew is the same message.
    connection.execute(
        "INSERT INTO outbox (id, topic, key, type, payload) SELECT id, topic, key, type, payload FROM outbox LIMIT 2"
    )
    connection.commit()
    found = range_of(connection, "order", (TOPIC,))
    connection.commit()
    emit()
    source = OutboxSource(settings, found, (TOPIC,), {TOPIC: PARTITIONS})
    assert len(list(source.read(_everything(found)))) == found.messages == 5
    connection.execute("DELETE FROM outbox WHERE sequence = (SELECT min(sequence) FROM outbox)")
    connection.execute("DELETE FROM outbox WHERE sequence = (SELECT min(sequence) FROM outbox)")
    connection.commit()
    with pytest.raises(RefusedError, match="is not what was planned for"):
        list(source.read(_everything(found)))


def test_a_swap_keeps_what_was_granted_and_refuses_to_break_what_is_built_on_it(
    connection: Connection, database_url: str, shop: Shop
) -> None:
    """A reader's role reads on, whatever columns the new version has; an SQL view over it is named, not dropped."""
    one, two = VIEW, replace(sum_view(RowSource.ONE_KEY, 2), name="counts")
    role, clerk = (sql.Identifier(f"{name}_{abs(hash(database_url)) % 10**9}") for name in ("reader", "clerk"))
    with shop.connected() as own:
        ViewTable(one).create(own)
        ViewTable(two).create(own)
        own.execute(sql.SQL("CREATE ROLE {}; CREATE ROLE {}").format(role, clerk))
        own.execute(sql.SQL("GRANT SELECT ON counts TO {}").format(role))
        own.execute(sql.SQL("GRANT SELECT (confirmations, reason) ON counts TO {}").format(clerk))
        own.execute("CREATE VIEW mine AS SELECT reason FROM counts")
    try:
        with pytest.raises(RefusedError, match="view mine depends on"):
            shop.swap(two, 2, force=True)
        connection.execute("DROP VIEW mine")
        connection.commit()
        assert shop.swap(two, 2, force=True) is None
        connection.execute(sql.SQL("SET ROLE {}").format(role))
        assert connection.execute("SELECT count(twice) FROM counts").fetchall() == [(0,)]
        connection.execute(sql.SQL("SET ROLE {}").format(clerk))  # of the columns that both have
        assert connection.execute("SELECT count(confirmations) FROM counts").fetchall() == [(0,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(twice) FROM counts")
    finally:
        connection.rollback()
        connection.execute("RESET ROLE")
        for one_role in (role, clerk):
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(one_role))
        connection.commit()


def test_only_the_published_version_tells_listeners(shop: Shop, database_url: str) -> None:
    """One that is being built would tell them its whole history."""
    with shop.connected() as connection:
        for version in (1, 2):
            ViewTable(replace(VIEW, version=version)).create(connection)
    row = Count("a", 1, None, NOW)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN counts")
        told = []
        for version, key in ((1, "from 1"), (2, "from 2")):
            with shop.connected() as connection:
                publish(connection, "counts", version)
            for written in (1, 2):
                with shop.connected() as connection:
                    table = ViewTable(replace(VIEW, version=written))
                    table.store(connection, {"a": replace(row, order_id=f"{key} written to {written}")})
            told += [one.payload for one in listener.notifies(timeout=5, stop_after=1)]
    assert told == ["from 1 written to 1", "from 2 written to 2"]


def test_a_dropped_version_leaves_nothing(shop: Shop) -> None:
    """The published one cannot be dropped; another goes with its offsets and ids."""
    one, two = sum_view(RowSource.ONE_KEY, 1), sum_view(RowSource.ONE_KEY, 2)

    async def main() -> None:
        shop.send(20)
        for view in (one, two):
            await shop.start(view, siblings=frozenset({1, 2}))
        await until(lambda: shop.caught_up(one) and shop.caught_up(two))
        await shop.stop_all()

    asyncio.run(main())
    with pytest.raises(RefusedError, match="readers see"), shop.connected() as connection:
        drop(connection, PROJECT, VersionDecision("sums", "drop", 1, None, "test", "a test"))
    with shop.connected() as connection:
        drop(connection, PROJECT, VersionDecision("sums", "drop", 2, None, "test", "a test"))
    with shop.connected() as connection:
        assert built_versions(connection, "sums") == [1]
        for table in ("towpath_offsets", "towpath_seen"):
            query = sql.SQL("SELECT DISTINCT application FROM {}").format(sql.Identifier(table))
            assert connection.execute(query).fetchall() == [(group_name(PROJECT, "sums", 1),)]
