"""A view's row is the fold of its key's records, and a declaration that cannot work is refused at once."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.records.order import OrderConfirmed, OrderRejected
from tests.commands import CODEC
from towpath.contract.record import Record
from towpath.errors import ConfigurationError, PeerError
from towpath.stream.broker.dead_letter import Mark
from towpath.stream.broker.record import Batch, ConsumedRecord
from towpath.stream.engine.failures import RecordFailed
from towpath.view import Changes, Occurrence, RowSource, View
from towpath.view.agent import Folding
from towpath.view.postgres import COLUMN_TYPES
from towpath.view.view import column_types, fold_records

AT = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Count:
    """How many records a key had."""

    key: str
    records: int
    last: datetime | None


def count(row: Count | None, record: Record, at: Occurrence) -> Count | None:
    """Count, and forget the key at a rejection."""
    if isinstance(record, OrderRejected):
        return None
    return replace(row, records=row.records + 1) if row else Count(at.key, 1, at.at)


def declare(**changes: Any) -> View[Count]:
    """Return a view that works, but for `changes`."""
    declaration: dict[str, Any] = {
        "name": "counts", "topics": ("order.events",), "row": Count, "key": "key",
        "folds": frozenset({OrderConfirmed, OrderRejected}), "fold": count,
    }  # fmt: skip
    return View(**{**declaration, **changes})


def confirmed(key: str) -> tuple[str, Record, Occurrence]:
    """Return a record of `key`."""
    return key, OrderConfirmed(order_id=key, confirmed_at=AT), Occurrence("order.events", key, "id", AT)


def rejected(key: str) -> tuple[str, Record, Occurrence]:
    """Return a record that ends the row of `key`."""
    return key, OrderRejected(order_id=key, reason="x", rejected_at=AT), Occurrence("order.events", key, "id", AT)


def test_records_of_one_key_fold_in_order_onto_its_stored_row() -> None:
    """The second record of a batch sees what the first one made of the row."""
    stored = {"a": Count("a", 5, None)}
    changed = fold_records(declare(), stored, [confirmed("a"), confirmed("b"), confirmed("a")])
    assert changed == {"a": Count("a", 7, None), "b": Count("b", 1, AT)}


def test_a_removed_row_begins_afresh_within_a_batch() -> None:
    """A removal hides the stored row from the records after it."""
    changed = fold_records(declare(), {"a": Count("a", 5, None)}, [rejected("a"), confirmed("a")])
    assert changed == {"a": Count("a", 1, AT)}
    assert fold_records(declare(), {"a": Count("a", 5, None)}, [rejected("a")]) == {"a": None}


def test_a_record_that_changes_nothing_writes_nothing() -> None:
    """An unknown key's removal is no change."""
    assert fold_records(declare(), {}, [rejected("z")]) == {}


def test_columns_follow_the_fields_of_the_row() -> None:
    """A field that may be None is a column that may be null."""
    assert column_types(declare(), COLUMN_TYPES) == [
        ("key", "text NOT NULL"), ("records", "bigint NOT NULL"), ("last", "timestamptz"),
    ]  # fmt: skip


@dataclass
class Mutable:
    """A row that could change behind the view's back."""

    key: str


@dataclass(frozen=True)
class Nested:
    """A row with a field that no column can hold."""

    key: str
    items: list[str]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Order Status"}, "not a table name"),
        ({"row": Mutable}, "not a frozen dataclass"),
        ({"key": "order"}, "no field 'order'"),
        ({"notify_field": "nothing"}, "no field 'nothing'"),
        ({"topics": ()}, "no topics"),
        ({"key": "records"}, "its field records is not"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    """The message names the view and the mistake."""
    with pytest.raises(ConfigurationError, match=words):
        declare(**changes)


def test_a_field_without_column_type_is_refused() -> None:
    """The message names the field."""
    with pytest.raises(ConfigurationError, match="field items"):
        column_types(declare(row=Nested), COLUMN_TYPES)


def test_a_redriven_record_counts_for_when_it_was_written() -> None:
    """Its own timestamp is that of the redrive: a sale of last month must not count for today."""
    mark = Mark("app", "app order.events[0]@1 5", None, False, 1, 5, int(AT.timestamp() * 1000))
    value = CODEC.encode(OrderConfirmed(order_id="a", confirmed_at=AT))
    record = ConsumedRecord("order.events", 0, 9, 1_900_000_000_000, b"a", value, (mark.to_header(),))
    (folded,) = Folding("app", declare(), CODEC, 1).read(Batch("order.events", 0, [record]))
    assert folded.occurrence.at == AT


@pytest.mark.parametrize("milliseconds", [2**62, -(2**62), 10**15])
def test_a_time_that_no_calendar_has_is_its_senders_mistake(milliseconds: int) -> None:
    """In a header or the record's own: not the handler's, and that record's alone."""
    mark = Mark("app", "app order.events[0]@1 5", None, False, 1, 5, milliseconds)
    value = CODEC.encode(OrderConfirmed(order_id="a", confirmed_at=AT))
    for at, headers in ((5, (mark.to_header(),)), (milliseconds, ())):
        record = ConsumedRecord("order.events", 0, 9, at, b"a", value, headers)
        with pytest.raises(RecordFailed) as failure:
            Folding("app", declare(), CODEC, 1).read(Batch("order.events", 0, [record]))
        assert isinstance(failure.value.cause, PeerError)


def test_a_row_key_of_its_own_is_refused_unless_the_view_says_what_meets_in_a_row() -> None:
    """Else two workers would overwrite each other's new rows, and nobody would know."""
    with pytest.raises(ConfigurationError, match="several keys") as refusal:
        declare(row_key=lambda record, _: record.order_id)
    assert "RowSource.MANY_KEYS" in str(refusal.value)
    for rows in RowSource:
        assert declare(row_key=lambda record, _: record.order_id, rows=rows).many_keys is (rows is RowSource.MANY_KEYS)


def test_a_view_that_says_one_key_and_has_several_is_caught() -> None:
    """The record in which two keys meet is the one that fails, before anything is folded."""
    view = declare(row_key=lambda *_: "all", rows=RowSource.ONE_KEY)
    records = [
        ConsumedRecord(
            "order.events", 0, offset, 0, key, CODEC.encode(OrderConfirmed(order_id="o", confirmed_at=AT)),
            (("type", OrderConfirmed.SCHEMA_NAME.encode()),),
        )
        for offset, key in enumerate((b"a", b"a", b"b"))
    ]  # fmt: skip
    with pytest.raises(RecordFailed) as failure:
        Folding("application", view, CODEC, 1000).read(Batch("order.events", 0, records))
    assert failure.value.record.offset == 2
    many = declare(row_key=lambda *_: "all", rows=RowSource.MANY_KEYS)
    assert len(Folding("application", many, CODEC, 1000).read(Batch("order.events", 0, records))) == 3


def test_a_record_without_a_key_fails_where_all_of_a_row_are_to_have_one_key() -> None:
    """Such records lie in any partition: two workers would overwrite each other's rows."""
    value = CODEC.encode(OrderConfirmed(order_id="o", confirmed_at=AT))
    batch = Batch("order.events", 0, [ConsumedRecord("order.events", 0, 7, 0, None, value)])
    for rows, fails in ((RowSource.ONE_KEY, True), (RowSource.MANY_KEYS, False)):
        folding = Folding("application", declare(row_key=lambda record, _: record.order_id, rows=rows), CODEC, 1000)
        if fails:
            with pytest.raises(RecordFailed, match=r"order.events\[0\]@7") as failure:
                folding.read(batch)
            assert "has no key" in str(failure.value.cause)
        else:
            assert len(folding.read(batch)) == 1
    passed = declare(row_key=lambda *_: None, rows=RowSource.ONE_KEY)
    assert Folding("application", passed, CODEC, 1000).read(batch) == []


def test_a_worker_writes_and_reads_the_records_of_its_topics_and_of_its_changes() -> None:
    """Its codec has both, or no change could be told."""
    changes: Changes[Count] = Changes("counts.events", lambda key, row: None)
    assert declare(changes=changes).codec_topics == ("order.events", "counts.events")
