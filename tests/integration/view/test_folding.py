"""Rows, ids and their order on a real PostgreSQL."""

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any, cast

import psycopg
import pytest

from schemas.records.order import OrderConfirmed, OrderRejected
from tests.unit.orchestrator.desktop import CODEC
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, ContractError
from towpath.orchestrator.envelope import headers_of
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.faust_app.agent import Batch, RecordFailed
from towpath.view import Changes, Indexed, Occurrence, RowCheck, RowSource, View
from towpath.view.agent import Folding
from towpath.view.dedup.horizon import BeyondDedupHorizon
from towpath.view.postgres import ViewTable
from towpath.view.versions.postgres import indexes_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MILLISECONDS = int(NOW.timestamp() * 1000)
HOUR_MILLISECONDS = 3_600_000


@dataclass(frozen=True, slots=True)
class Count:
    """How many confirmations an order had, and why it was rejected last."""

    order_id: str
    confirmations: int
    reason: str | None
    at: datetime


def fold(row: Count | None, record: OrderConfirmed | OrderRejected, at: Occurrence) -> Count | None:
    """Count confirmations; a rejection without a reason removes the row, one that is "broken" cannot be folded."""
    row = row or Count(at.key, 0, None, at.at)
    if isinstance(record, OrderConfirmed):
        return replace(row, confirmations=row.confirmations + 1, at=at.at)
    if record.reason == "broken":
        raise ValueError("a programmer's mistake")
    return replace(row, reason=record.reason, at=at.at) if record.reason else None


VIEW = View(
    name="counts",
    topics=("order.events",),
    row=Count,
    key="order_id",
    folds=frozenset({OrderConfirmed, OrderRejected}),
    fold=fold,
    notify_field="order_id",
)


@pytest.fixture
def tables(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Return a connection to a database that has the view's table and what streams keep."""
    connection.execute(resources.files("towpath.stream.engine").joinpath("stream.sql").read_bytes())
    ViewTable(VIEW).create(connection)
    connection.commit()
    return connection


def folding() -> Folding:
    """Return a worker of the view."""
    return Folding("application", VIEW, CODEC, HOUR_MILLISECONDS)


def confirmed(offset: int, key: str = "a", *, id_: str | None = None, at: int = MILLISECONDS) -> ConsumedRecord:
    """Return a confirmation as it lies in the topic."""
    return consumed(OrderConfirmed(order_id=key, confirmed_at=NOW), offset, key, id_, at)


def rejected(offset: int, reason: str, key: str = "a") -> ConsumedRecord:
    """Return a rejection as it lies in the topic."""
    return consumed(OrderRejected(order_id=key, reason=reason, rejected_at=NOW), offset, key, None, MILLISECONDS)


def consumed(record: Record, offset: int, key: str, id_: str | None, at: int) -> ConsumedRecord:
    """Return `record` as it lies in the topic."""
    headers = headers_of(id=id_ or f"event-{offset}", type=record.SCHEMA_NAME)
    return ConsumedRecord("order.events", 0, offset, at, key.encode(), CODEC.encode(record), headers)


def take(
    worker: Folding,
    connection: psycopg.Connection[Any],
    *records: ConsumedRecord,
    now: int = MILLISECONDS + HOUR_MILLISECONDS,
) -> dict[str, Count]:
    """Let a batch pass through a worker and commit; return the rows."""
    read = worker.read(Batch("order.events", 0, list(records)))
    worker.apply(connection, read=read, now_milliseconds=now)
    connection.commit()
    return {row.order_id: row for row in ViewTable(VIEW).all_rows(connection)}


def test_a_batch_folds_onto_the_rows_that_are_there(tables: psycopg.Connection[Any]) -> None:
    """Several records of a key in one batch, and of a later batch, end in one row."""
    worker = folding()
    take(worker, tables, confirmed(0), confirmed(1), confirmed(2, "b"))
    rows = take(worker, tables, confirmed(3))
    assert {key: row.confirmations for key, row in rows.items()} == {"a": 3, "b": 1}


def test_a_record_captured_twice_counts_once(tables: psycopg.Connection[Any]) -> None:
    """Within a batch, in a later one, and for a worker that was started since."""
    take(folding(), tables, confirmed(0, id_="x"), confirmed(1, id_="x"))
    rows = take(folding(), tables, confirmed(2, id_="x"))
    assert rows["a"].confirmations == 1


def test_a_rolled_back_batch_leaves_neither_rows_nor_ids(tables: psycopg.Connection[Any]) -> None:
    """So it can be taken again."""
    worker = folding()
    read = worker.read(Batch("order.events", 0, [confirmed(0)]))
    worker.apply(tables, read=read, now_milliseconds=MILLISECONDS)
    tables.rollback()
    assert take(worker, tables, confirmed(0))["a"].confirmations == 1


def test_a_record_from_the_far_future_moves_no_horizon(tables: psycopg.Connection[Any]) -> None:
    """Whatever time its producer wrote: ids are forgotten by what can be, so nothing after it is beyond the horizon."""
    future = MILLISECONDS + 40 * 365 * 24 * HOUR_MILLISECONDS
    take(folding(), tables, confirmed(0), confirmed(1, at=future), now=MILLISECONDS)
    take(folding(), tables, confirmed(2, at=MILLISECONDS + 5), now=MILLISECONDS)
    rows = take(folding(), tables, confirmed(3, at=MILLISECONDS + 3), now=MILLISECONDS)
    assert rows["a"].confirmations == 4, "a producer whose clock is a little behind is no double of anything"


def test_a_row_can_go_and_come_back(tables: psycopg.Connection[Any]) -> None:
    """A fold that returns None removes it."""
    worker = folding()
    assert take(worker, tables, confirmed(0), rejected(1, "")) == {}
    assert take(worker, tables, confirmed(2))["a"].confirmations == 1


def test_a_fold_that_fails_names_its_record(tables: psycopg.Connection[Any]) -> None:
    """Not the batch."""
    worker = folding()
    read = worker.read(Batch("order.events", 0, [confirmed(0), rejected(1, "broken"), confirmed(2)]))
    with pytest.raises(RecordFailed) as failure:
        worker.apply(tables, read=read, now_milliseconds=MILLISECONDS)
    assert failure.value.record.offset == 1


def test_a_record_that_cannot_be_decoded_names_itself() -> None:
    """It is the sender's mistake, and found before the database is asked."""
    bad = confirmed(7)._replace(value=b"no avro")
    with pytest.raises(RecordFailed) as failure:
        folding().read(Batch("order.events", 0, [confirmed(6), bad]))
    assert failure.value.record.offset == 7


def test_other_records_of_the_topic_are_passed_over_undecoded() -> None:
    """By their type header alone."""
    other = confirmed(0)._replace(value=b"no avro", headers=headers_of(id="x", type="shop.SomethingElse"))
    assert folding().read(Batch("order.events", 0, [other])) == []


def test_what_is_older_than_what_was_forgotten_is_not_guessed_at(tables: psycopg.Connection[Any]) -> None:
    """Ids are forgotten by the time of the records, and only what is not newer than those is beyond."""
    worker = folding()
    take(worker, tables, confirmed(0, at=MILLISECONDS))
    take(worker, tables, confirmed(1, at=MILLISECONDS + 2 * HOUR_MILLISECONDS))
    old = confirmed(2, id_="never seen", at=MILLISECONDS)
    with pytest.raises(RecordFailed) as failure:
        take(worker, tables, old)
    assert isinstance(failure.value.cause, BeyondDedupHorizon)
    tables.rollback()
    assert take(worker, tables, confirmed(3, at=MILLISECONDS + 1))["a"].confirmations == 3


def test_who_listens_is_told_which_row_changed(tables: psycopg.Connection[Any], database_url: str) -> None:
    """NOTIFY comes with the commit, on the channel of the view's name."""
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN counts")
        take(folding(), tables, confirmed(0, "b"))
        (told,) = listener.notifies(timeout=5, stop_after=1)
    assert (told.channel, told.payload) == ("counts", "b")


def test_readers_see_the_published_version_only(tables: psycopg.Connection[Any]) -> None:
    """A second version fills its own table beside the first until it is published."""
    take(folding(), tables, confirmed(0))
    second = ViewTable(replace(VIEW, version=2))
    second.create(tables)
    assert tables.execute("SELECT count(*) FROM counts").fetchone() == (1,)
    second.publish(tables)
    assert tables.execute("SELECT count(*) FROM counts").fetchone() == (0,)


@dataclass(frozen=True, slots=True)
class Limited:
    """A count that its row's declaration limits."""

    order_id: str
    confirmations: Annotated[int, RowCheck("confirmations > 0"), RowCheck("confirmations <= 2")]
    reason: Annotated[str, Indexed()] | None = None


LIMITED = View(
    name="limited",
    topics=("order.events",),
    row=Limited,
    key="order_id",
    folds=frozenset({OrderConfirmed}),
    fold=lambda row, record, at: Limited(at.key, (row.confirmations if row else 0) + 1),
)


def test_the_database_checks_what_a_row_declares(tables: psycopg.Connection[Any]) -> None:
    """A record whose fold breaks it changes nothing; what is declared as indexed is."""
    ViewTable(LIMITED).create(tables)
    tables.commit()
    worker = Folding("limited", LIMITED, CODEC, HOUR_MILLISECONDS)

    def take_one(offset: int) -> None:
        read = worker.read(Batch("order.events", 0, [confirmed(offset)]))
        worker.apply(tables, read=read, now_milliseconds=MILLISECONDS)
        tables.commit()

    take_one(0)
    take_one(1)
    with pytest.raises(psycopg.errors.CheckViolation, match="check_confirmations_2"):
        take_one(2)
    tables.rollback()
    assert ViewTable(LIMITED).all_rows(tables) == [Limited("a", 2)]
    indexes = tables.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'limited_v1'").fetchall()
    assert ("limited_v1_reason_idx",) in indexes


@dataclass(frozen=True, slots=True)
class Known:
    """Which orders there are."""

    order_id: str


def test_a_row_that_is_its_key_alone_is_kept(tables: psycopg.Connection[Any]) -> None:
    """As any other."""
    view: View[Known] = View(
        name="known",
        topics=("order.events",),
        row=Known,
        key="order_id",
        folds=frozenset({OrderConfirmed}),
        fold=lambda row, record, at: Known(at.key),
    )
    ViewTable(view).create(tables)
    worker = Folding("known", view, CODEC, HOUR_MILLISECONDS)
    read = worker.read(Batch("order.events", 0, [confirmed(0, "one"), confirmed(1, "two")]))
    worker.apply(tables, read=read, now_milliseconds=MILLISECONDS)
    assert ViewTable(view).all_rows(tables) == [Known("one"), Known("two")]


@dataclass(frozen=True, slots=True)
class Indexes:
    """A row whose indexes are hard to name."""

    order_id: str
    which_customer_it_was: Annotated[str, Indexed()]
    which_customer_it_is: Annotated[str, Indexed()]
    a: str
    a_b: str
    b: str
    b_c: str
    c: str


def test_each_index_is_made_once_whatever_its_name_would_be(tables: psycopg.Connection[Any]) -> None:
    """PostgreSQL cuts names at 63 bytes, and fields may be joined to the same name."""
    view: View[Indexes] = View(
        name="a_view_that_has_a_name_of_forty_eight_characters",
        topics=("order.events",),
        row=Indexes,
        key="order_id",
        folds=frozenset({OrderConfirmed}),
        fold=lambda row, record, at: row,
        indexes=(("a", "b_c"), ("a_b", "c")),
    )
    for _ in range(2):
        ViewTable(view).create(tables)
        made = indexes_of(tables, view.table)
        assert made == {("order_id",), *view.all_indexes}
        ((count,),) = tables.execute("SELECT count(*) FROM pg_indexes WHERE tablename = %s", (view.table,)).fetchall()
        assert count == len(made) == 5


def test_a_check_changed_under_the_same_version_is_refused(tables: psycopg.Connection[Any]) -> None:
    """The rows that are there were not held to it; one that is no SQL is said as such."""
    ViewTable(LIMITED).create(tables)
    tables.commit()

    @dataclass(frozen=True, slots=True)
    class Other:
        order_id: str
        confirmations: int
        reason: str | None = None

    def with_checks(*checks: RowCheck) -> View[Any]:
        Other.__annotations__["confirmations"] = Annotated[(int, *checks)] if checks else int
        return replace(LIMITED, row=cast("Any", Other))

    ViewTable(with_checks(RowCheck("confirmations > 0"), RowCheck("confirmations <= 2"))).create(tables)
    with pytest.raises(ContractError, match=r"\+ CHECK \(confirmations <= 3\); - CHECK \(confirmations <= 2\)"):
        ViewTable(with_checks(RowCheck("confirmations > 0"), RowCheck("confirmations <= 3"))).create(tables)
    tables.rollback()
    with pytest.raises(ConfigurationError, match="its table cannot be created"):
        ViewTable(replace(with_checks(RowCheck("confirmations >>> nothing")), version=2)).create(tables)


TOLD = replace(
    VIEW,
    changes=Changes(
        "counts.events",
        lambda key, row: (
            OrderRejected(order_id=key, reason="gone", rejected_at=NOW)
            if row is None
            else OrderRejected(order_id=key, reason=str(row.confirmations), rejected_at=NOW)
        ),
    ),
)


def told(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Return the keys and reasons of the change events in the outbox."""
    rows = connection.execute("SELECT topic, key, payload FROM outbox ORDER BY sequence").fetchall()
    assert {topic for topic, *_ in rows} <= {"counts.events"}
    return [(key, cast("OrderRejected", CODEC.decode(payload)).reason) for _, key, payload in rows]


def test_changes_of_rows_are_told_in_the_transaction_that_makes_them(tables: psycopg.Connection[Any]) -> None:
    """The last form of each row that a unit changed, once, whatever is repeated; folding them gives the table."""
    worker = Folding("application", TOLD, CODEC, HOUR_MILLISECONDS)
    read = worker.read(Batch("order.events", 0, [confirmed(0)]))
    worker.apply(tables, read=read, now_milliseconds=MILLISECONDS)
    tables.rollback()
    assert told(tables) == []
    take(worker, tables, confirmed(0), confirmed(1), confirmed(2, "b"))
    take(worker, tables, confirmed(3), confirmed(1))  # one of them known
    take(worker, tables, rejected(4, "", "b"))
    rows = take(worker, tables, confirmed(2, "b"))
    found = told(tables)
    assert found == [("a", "2"), ("b", "1"), ("a", "3"), ("b", "gone")]
    latest = dict(found)
    assert {key: str(row.confirmations) for key, row in rows.items()} == {
        key: reason for key, reason in latest.items() if reason != "gone"
    }
    ids = tables.execute("SELECT count(DISTINCT id) FROM outbox").fetchall()
    assert ids == [(4,)]


def test_a_change_that_cannot_be_told_names_its_record(tables: psycopg.Connection[Any]) -> None:
    """It is dead-lettered like one that cannot be folded."""

    def broken(key: str, row: Count | None) -> Record | None:
        raise ValueError(key)

    worker = Folding("application", replace(VIEW, changes=Changes("counts.events", broken)), CODEC, HOUR_MILLISECONDS)
    read = worker.read(Batch("order.events", 0, [confirmed(0), confirmed(7)]))
    with pytest.raises(RecordFailed) as failure:
        worker.apply(tables, read=read, now_milliseconds=MILLISECONDS)
    assert failure.value.record.offset == 7


ROWS, RECORDS, WORKERS = 500, 8, 4


@dataclass(frozen=True, slots=True)
class Total:
    """How many confirmations a group of orders had."""

    name: str
    confirmations: int


MANY = View(
    name="totals",
    topics=("order.events",),
    row=Total,
    key="name",
    folds=frozenset({OrderConfirmed}),
    fold=lambda row, record, at: Total(record.order_id, (row.confirmations if row else 0) + 1),
    row_key=lambda record, at: str(record.order_id),
    rows=RowSource.MANY_KEYS,
)


def test_rows_in_which_many_keys_meet_are_exact_under_many_workers(
    tables: psycopg.Connection[Any], database_url: str
) -> None:
    """500 new rows of 8 records each, spread over four partitions with a worker each: every row holds exactly 8."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    ViewTable(MANY).create(tables)
    tables.commit()
    events = [(f"row-{number % ROWS}", f"{number}") for number in range(ROWS * RECORDS)]
    random.Random(seed).shuffle(events)
    begun = threading.Barrier(WORKERS)

    def work(partition: int) -> None:
        own = Folding("application", MANY, CODEC, HOUR_MILLISECONDS)
        records = [
            consumed(OrderConfirmed(order_id=row, confirmed_at=NOW), offset, f"key-{id_}", id_, MILLISECONDS)._replace(
                partition=partition
            )
            for offset, (row, id_) in enumerate(events[partition::WORKERS])
        ]
        with psycopg.connect(database_url) as connection:
            begun.wait(60)
            while records:
                batch, records = records[:37], records[37:]
                read = own.read(Batch("order.events", partition, batch))
                own.apply(connection, read=read, now_milliseconds=MILLISECONDS)
                connection.commit()

    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(work, partition) for partition in range(WORKERS)]:
            done.result(120)
    rows = ViewTable(MANY).all_rows(tables)
    assert len(rows) == ROWS
    assert [row for row in rows if row.confirmations != RECORDS] == []
