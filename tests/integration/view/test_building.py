"""What a version begins with and what becomes of it while it is built: nothing late, lost, or done in silence."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from schemas.records.order import OrderConfirmed, OrderRejected
from tests.integration.stream.test_lost_tail import READ, Counts, Course
from tests.integration.view.test_folding import NOW, TOLD, VIEW, Count, told
from tests.integration.view.test_versions import PARTITIONS, PROJECT, TOPIC, Shop, shop, sum_view, until
from tests.reference_records import CODEC
from towpath.cli import view_building, view_versions, views
from towpath.contract.record import Record
from towpath.errors import RefusedError
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import write
from towpath.settings import Settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.engine import holds
from towpath.stream.engine.postgres import create_stream_tables
from towpath.stream.faust_app.agent import StreamApp
from towpath.view import Changes, Occurrence, RowSource, View
from towpath.view.agent import create_view
from towpath.view.postgres import ViewTable
from towpath.view.versions import replacing
from towpath.view.versions.building.postgres import begin_with_rows
from towpath.view.versions.log import bounds_of
from towpath.view.versions.postgres import (
    WORKER,
    built_versions,
    drop,
    last_swap,
    note_decision,
    published_version,
    swap,
    taken_back,
    views_connection,
)
from towpath.view.versions.standing import VersionDecision
from towpath.view.view import group_name

__all__ = ["shop"]
pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]
BOTH = frozenset({1, 2})


@dataclass(frozen=True, slots=True)
class Status:
    """What was said of an order last."""

    order_id: str
    status: str


def fold_status(row: Status | None, record: Any, at: Occurrence) -> Status:
    """Keep the last word."""
    return Status(at.key, "rejected" if isinstance(record, OrderRejected) else "confirmed")


STATUSES = View(
    name="statuses",
    topics=(TOPIC,),
    row=Status,
    key="order_id",
    folds=frozenset({OrderConfirmed, OrderRejected}),
    fold=fold_status,
)


@pytest.fixture
def with_outbox(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings by which a service writes the shop's topic, through the outbox of the test's database."""
    outbox = shop.settings.postgres.urls["views"]
    postgres = shop.settings.postgres.model_copy(update={"urls": {"views": outbox, "order": outbox}})
    monkeypatch.setattr(view_building, "writers_of", lambda *_: {"order": (TOPIC,)})
    monkeypatch.setattr(view_building, "broker_of", lambda _: shop.broker)
    monkeypatch.setattr(view_building, "codec_of", lambda *_: CODEC)
    monkeypatch.setattr(view_building, "outbox_records", shop.outbox_records)
    return shop.settings.model_copy(update={"postgres": postgres})


def emit(connection: Connection, record: Record) -> None:
    """Write a record of order `a` into the outbox."""
    message = OutboxMessage(id=uuid4(), topic=TOPIC, key="a", type=record.SCHEMA_NAME, payload=CODEC.encode(record))
    write(connection, [message])
    connection.commit()


def capture(shop: Shop, settings: Settings, partition_of: Callable[[int], int] = lambda number: number) -> None:
    """Carry what the outbox holds into the topic."""
    for captured in shop.outbox_records(settings, "order", (TOPIC,)):
        shop.broker.append(TOPIC, captured.value, key=captured.key, headers=captured.headers,
                           timestamp_milliseconds=captured.timestamp_milliseconds,
                           partition=partition_of(captured.partition))  # fmt: skip


def build_from_outbox(shop: Shop, settings: Settings, view: View[Any]) -> dict[str, Any]:
    """Begin a version with the outbox, let its worker fold the topic, and return its rows."""
    bounds = bounds_of(shop.broker, [TOPIC])
    view_building.begin(settings, view, view_building.Source.OUTBOX, bounds, {}, "ada", "a test of mine")

    async def go_on() -> None:
        await shop.start(view)
        await until(lambda: shop.caught_up(view))
        await shop.stop_all()

    asyncio.run(go_on())
    return shop.rows(view)


@pytest.mark.parametrize(("topic_lost", "outbox_lost"), [(1, 2), (2, 1), (3, 0)])
def test_a_version_of_outboxes_and_topics_folds_each_record_in_its_turn(
    connection: Connection, shop: Shop, with_outbox: Settings, topic_lost: int, outbox_lost: int
) -> None:
    """Whichever of the two goes further back; by default topics keep four times as long as outboxes."""
    confirmed = [OrderConfirmed(order_id="a", confirmed_at=NOW) for _ in range(2)]
    for record in (*confirmed, OrderRejected(order_id="a", reason="late", rejected_at=NOW)):
        emit(connection, record)
    capture(shop, with_outbox)
    place = next(place for place, end in bounds_of(shop.broker, [TOPIC]).ends.items() if end)
    shop.broker.log_of(place).expire(topic_lost)
    connection.execute("DELETE FROM outbox WHERE sequence < (SELECT min(sequence) FROM outbox) + %s", (outbox_lost,))
    connection.commit()
    assert build_from_outbox(shop, with_outbox, STATUSES) == {"a": Status("a", "rejected")}


def test_a_version_of_outboxes_folds_a_record_once_though_its_topic_has_grown_since(
    connection: Connection, shop: Shop, with_outbox: Settings
) -> None:
    """What lies in the partition that its key had before is known there."""
    for _ in range(3):
        emit(connection, OrderConfirmed(order_id="a", confirmed_at=NOW))
    capture(shop, with_outbox, lambda today: (today + 1) % PARTITIONS)
    assert build_from_outbox(shop, with_outbox, VIEW)["a"].confirmations == 3


class Second(Counts):
    """The workers of version 2."""

    view = replace(VIEW, version=2, from_row=lambda row: Count(**row))

    def app(self, broker: MemoryBroker, **options: Any) -> StreamApp:
        """Return a worker."""
        return create_view(self.settings, self.view, CODEC, slot="a", broker=broker, siblings=BOTH, **options)


def test_a_version_that_begins_with_the_rows_of_a_held_one_is_held(
    connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what lies at the offsets that the log has lost would be folded by nobody."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 0.1)
    subject = Counts(connection, database_url)
    course = Course(subject)
    before = course.write(0, *(f"a-{number}" for number in range(READ)))

    async def first() -> None:
        async with course.working() as until_:
            await until_(lambda: subject.applied() == sorted(before))
            course.lose_tail()
            await until_(course.is_held)

    async def second() -> None:
        async with course.working() as until_:
            await until_(lambda: bool(course.statuses and course.statuses[-1].held))

    asyncio.run(first())
    course.write(0, *(f"n-{number}" for number in range(READ)))
    decision = VersionDecision("counts", "build", 1, 2, "test", "a test")
    with views_connection(subject.settings) as own:
        begin_with_rows(own, subject.settings.project.name, Second.view, decision, CODEC)
    course.subject = Second(connection, database_url)
    asyncio.run(second())


def _broken(key: str, row: Any) -> Record | None:
    raise ValueError(key)


TELLING_TWO = replace(TOLD, version=2, from_row=lambda row: Count(**row))


@pytest.fixture
def told_shop(connection: Connection, shop: Shop) -> Shop:
    """Return a shop whose first version has begun and has one row."""
    create_stream_tables(connection)
    ViewTable(VIEW).create(connection)
    ViewTable(VIEW).store(connection, {"a": Count("a", 3, None, NOW)})
    for number in range(PARTITIONS):
        connection.execute(
            "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset)"
            " VALUES (%s, %s, %s, 'x', 0)", (f"{PROJECT}-view-counts-v1", TOPIC, number)
        )  # fmt: skip
    connection.commit()
    return shop


BUILD_TWO = VersionDecision("counts", "build", 1, 2, "test", "a test")
DROP_TWO = VersionDecision("counts", "drop", 2, None, "test", "a test")


def test_who_is_told_of_changes_is_told_of_the_rows_that_a_version_begins_with(
    connection: Connection, told_shop: Shop
) -> None:
    """Whoever folds its topic has the table."""
    broken: Any = replace(TELLING_TWO, changes=Changes("counts.events", _broken))
    with pytest.raises(RefusedError, match="cannot tell of the row of a"), told_shop.connected() as own:
        begin_with_rows(own, PROJECT, broken, BUILD_TWO, CODEC)
    with told_shop.connected() as own:
        assert begin_with_rows(own, PROJECT, TELLING_TWO, BUILD_TWO, CODEC) == 1
    assert told(connection) == [("a", "3")]


@pytest.mark.parametrize(("changes", "ids"), [("nothing", 1), ("the row", 2), ("the offsets", 2)])
def test_a_version_that_was_dropped_tells_anew_of_rows_that_have_changed_since(
    connection: Connection, told_shop: Shop, changes: str, ids: int
) -> None:
    """Who is told knows events by their ids. A row that is again as it was may have been another meanwhile."""
    with told_shop.connected() as own:
        begin_with_rows(own, PROJECT, TELLING_TWO, BUILD_TWO, CODEC)
    with told_shop.connected() as own:
        drop(own, PROJECT, DROP_TWO)
        if changes == "the row":
            ViewTable(VIEW).store(own, {"a": Count("a", 4, None, NOW)})
        elif changes == "the offsets":
            own.execute("UPDATE towpath_offsets SET next_offset = 2 WHERE partition = 0")
    with told_shop.connected() as own:
        begin_with_rows(own, PROJECT, TELLING_TWO, BUILD_TWO, CODEC)
    assert told(connection) == [("a", "3"), ("a", "4" if changes == "the row" else "3")]
    found = connection.execute("SELECT count(DISTINCT id) FROM outbox WHERE topic = 'counts.events'").fetchall()
    assert found == [(ids,)]


def test_a_version_that_is_dropped_under_its_worker_begins_anew_with_the_next(
    connection: Connection, shop: Shop
) -> None:
    """The worker waits: no record is dead, and what it has noted meanwhile is nobody's progress."""
    one, two = sum_view(RowSource.ONE_KEY, 1), sum_view(RowSource.ONE_KEY, 2)

    async def main() -> None:
        await shop.start(one)
        shop.send(40)
        await shop.start(two, "build", siblings=BOTH)
        await until(lambda: shop.caught_up(two))
        with shop.connected() as own:
            drop(own, PROJECT, VersionDecision("sums", "drop", 2, None, "test", "a test"))
        shop.send(5)
        await until(lambda: shop.caught_up(one))
        await asyncio.sleep(3)
        await shop.stop_all()

    async def again() -> None:
        await shop.start(two, "build", siblings=BOTH)
        await until(lambda: shop.caught_up(two))
        await shop.stop_all()

    asyncio.run(main())
    assert connection.execute("SELECT count(*) FROM outbox WHERE dead IS NOT NULL").fetchall() == [(0,)]
    connection.rollback()
    asyncio.run(again())
    assert shop.swap(two, 2) is None
    assert shop.rows(two) == shop.rows(one)


def test_a_version_that_somebody_holds_is_not_dropped_now(shop: Shop, database_url: str) -> None:
    """With what to run once it is free."""
    with shop.connected() as own:
        create_stream_tables(own)
        for version in (1, 2):
            ViewTable(replace(VIEW, version=version)).create(own)
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM counts_v2")
        with pytest.raises(RefusedError, match="in an open transaction"), shop.connected() as own:
            drop(own, PROJECT, VersionDecision("counts", "drop", 2, None, "test", "a test"))


@pytest.mark.parametrize(
    ("built", "names"),
    [
        (b"CREATE VIEW report AS SELECT * FROM counts_v2", "view report"),
        (b"CREATE FUNCTION mine() RETURNS boolean RETURN counts_v2_is_published()", "function mine()"),
    ],
    ids=["an SQL view", "a function"],
)
def test_a_version_on_which_something_is_built_is_kept_and_that_is_named(
    shop: Shop, database_url: str, built: bytes, names: str
) -> None:
    """With what to do, and the command that then does it."""
    with shop.connected() as own:
        create_stream_tables(own)
        for version in (1, 2):
            ViewTable(replace(VIEW, version=version)).create(own)
    with psycopg.connect(database_url) as own:
        own.execute(built)
    with pytest.raises(RefusedError) as refused, shop.connected() as own:
        drop(own, PROJECT, DROP_TWO)
    assert names in refused.value.cause
    assert (refused.value.next_step or "").endswith("towpath views drop counts --version 2 --reason REASON")
    with psycopg.connect(database_url) as own:
        own.execute(f"DROP {names}".encode())
    with shop.connected() as own:
        drop(own, PROJECT, DROP_TWO)
        assert built_versions(own, "counts") == [1]


def test_the_last_version_of_a_view_goes_once_its_name_is_taken_from_readers(shop: Shop) -> None:
    """By the statement that is named, of a view that the project has no more."""
    only = VersionDecision("counts", "drop", 1, None, "test", "a test")
    with shop.connected() as connection:
        ViewTable(VIEW).create(connection)
    with pytest.raises(RefusedError) as refused, shop.connected() as connection:
        drop(connection, PROJECT, only)
    assert "(DROP VIEW counts)" in (refused.value.next_step or "")
    with shop.connected() as connection:
        connection.execute("DROP VIEW counts")
    with shop.connected() as connection:
        drop(connection, PROJECT, only)
        assert built_versions(connection, "counts") == []


def test_a_version_with_keys_in_quarantine_is_published_by_force_alone(shop: Shop) -> None:
    """Its fold fails for keys that the published one has: readers would miss these rows."""
    one = sum_view(RowSource.ONE_KEY, 1)

    def fold(row: Any, record: Any, at: Any) -> Any:
        if at.key == poison:
            raise ValueError("a programmer's mistake")
        return one.fold(row, record, at)

    two = replace(one, version=2, fold=fold)
    shop.send(40)
    poison = (shop.records()[0].key or b"").decode()

    async def main() -> None:
        for view in (one, two):
            await shop.start(view, siblings=BOTH)
        await until(lambda: shop.caught_up(one) and shop.caught_up(two))
        await shop.stop_all()

    asyncio.run(main())
    with pytest.raises(RefusedError, match=r"version 2 of view sums has keys in quarantine \(1\)") as refused:
        shop.swap(two, 2)
    assert "--force" in str(refused.value)
    assert shop.swap(two, 2, force=True) is None
    assert shop.swap(one, 1, "rollback") is None


NOT_OURS = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'must be owner of view counts'; END $$;
CREATE EVENT TRIGGER refusing ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION refuse()
"""


@pytest.mark.parametrize(
    ("refuses", "mends", "says"),
    [
        ("CREATE VIEW mine AS SELECT reason FROM counts", "DROP VIEW mine", "drop these"),
        (NOT_OURS, "DROP EVENT TRIGGER refusing", r"must be owner(.|\n)*ALTER VIEW counts OWNER TO"),
    ],
    ids=["an SQL view over the published one", "another role owns the name"],
)
def test_a_version_without_a_predecessor_is_published_once_nothing_refuses_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, refuses: str, mends: str, says: str
) -> None:
    """A person, who is told what, may see to it meanwhile; the worker folds on."""
    monkeypatch.setattr(replacing, "REPLACE_SECONDS", 0.1)
    monkeypatch.setattr(replacing, "REFUSED_SECONDS", 0.1)
    two = replace(sum_view(RowSource.ONE_KEY, 2), name="counts")
    refusals: list[RefusedError] = []

    def noted(*arguments: Any, **options: Any) -> str | None:
        try:
            return swap(*arguments, **options)
        except RefusedError as error:
            refusals.append(error)
            raise

    monkeypatch.setattr(replacing, "swap", noted)
    with shop.connected() as own:
        ViewTable(VIEW).create(own)
        own.execute(refuses)

    def published() -> int | None:
        with shop.connected() as own:
            return published_version(own, "counts")

    async def main() -> None:
        await shop.start(two)
        await until(lambda: len(refusals) > 1, 30)
        with shop.connected() as own:
            own.execute(mends)
        await until(lambda: published() == 2, 30)
        await shop.stop_all()

    asyncio.run(main())
    assert re.search(says, str(refusals[0]))


@pytest.mark.parametrize(
    ("actor", "action", "before", "after", "stays"),
    [
        ("ada", "rollback", 2, 1, True),
        (WORKER, "rollback", 2, 1, True),
        (WORKER, "promote", 2, 1, False),
    ],
)
def test_what_a_person_took_from_readers_stays_taken_whatever_the_person_is_called(
    shop: Shop, actor: str, action: str, before: int, after: int, stays: bool
) -> None:
    """The user of a container often is `worker`; of its own accord a worker does nothing but promote."""
    with shop.connected() as own:
        ViewTable(VIEW).create(own)
        note_decision(own, VersionDecision("counts", action, before, after, actor, "its rows are wrong"))
        assert (taken_back(own, "counts", before) is not None) == stays


def test_a_rehearsed_promotion_is_refused_as_the_run_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind or in quarantine is told by the dry run; where it goes well, that publishes nothing."""
    one, two = sum_view(RowSource.ONE_KEY, 1), sum_view(RowSource.ONE_KEY, 2)
    monkeypatch.setattr(views, "load_settings", lambda: shop.settings)
    monkeypatch.setattr(view_versions, "declared_views", lambda _: {"sums": {1: one, 2: two}})
    for module in (views, view_versions):
        monkeypatch.setattr(module, "broker_of", lambda _: shop.broker)

    monkeypatch.setattr(view_building, "FOLDED_SECONDS", 0.2)

    def promote(timeout: float = 0, **more: Any) -> None:
        views.promote("sums", "a test", version=2, timeout=timeout, yes=True, **more)

    async def fold(view: View[Any]) -> None:
        await shop.start(view)
        await until(lambda: shop.caught_up(view))
        await shop.stop(view.version)

    shop.send(20)
    asyncio.run(fold(one))
    with shop.connected() as connection:
        ViewTable(two).create(connection)
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="has yet to read") as refused:
            promote(dry_run=dry_run)
        assert (refused.value.next_step or "").startswith("towpath views build sums --version 2, then: ")
        with pytest.raises(RefusedError, match="nobody folds version 2"):
            promote(dry_run=dry_run, when_ready=True, timeout=20)
    asyncio.run(fold(two))
    with shop.connected() as connection:
        parked = "INSERT INTO towpath_parked (application, partition, key, behind) VALUES (%s, 0, 'k', 'there')"
        connection.execute(parked, (group_name(PROJECT, "sums", 2),))
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match=r"version 2 of view sums has keys in quarantine \(1\)"):
            promote(dry_run=dry_run)
    with shop.connected() as connection:
        connection.execute("DELETE FROM towpath_parked")
        before = last_swap(connection, "sums")
    promote(dry_run=True)
    with shop.connected() as connection:
        assert (published_version(connection, "sums"), last_swap(connection, "sums")) == (1, before)
    promote()
    with shop.connected() as connection:
        assert published_version(connection, "sums") == 2
