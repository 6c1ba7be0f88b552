"""What ends a process, raised by a function of a view: nothing is lost by it, and the worker says where it stands."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from schemas.records.order import OrderConfirmed, OrderRejected
from tests.integration.stream.test_database_blocking import BLOCKS_SECONDS
from tests.integration.view.test_folding import NOW, VIEW, Count, fold
from tests.integration.view.test_read_again import Ledger, ledger
from tests.unit.stream.test_blocking import BLOCKING
from tests.unit.stream.test_handler_exits import EXITS
from towpath.contract.record import Record
from towpath.stream.engine.failures import HandlerExit
from towpath.view import Changes, Occurrence, RowSource, View

__all__ = ["ledger"]

pytestmark = pytest.mark.stack


def raising_fold(error: BaseException) -> View[Count]:
    def folds(row: Count | None, record: OrderConfirmed | OrderRejected, at: Occurrence) -> Count | None:
        if at.key == "BAD":
            raise error
        return fold(row, record, at)

    return replace(VIEW, fold=folds)


def raising_row_key(error: BaseException) -> View[Count]:
    def row_key(_: Any, at: Occurrence) -> str:
        if at.key == "BAD":
            raise error
        return at.key

    return replace(VIEW, row_key=row_key, rows=RowSource.ONE_KEY)


def raising_change(error: BaseException) -> View[Count]:
    def change(key: str, row: Count | None) -> Record:
        if key == "BAD":
            raise error
        return OrderRejected(order_id=key, reason=str(row), rejected_at=NOW)

    return replace(VIEW, changes=Changes("counts.events", change))


FORMS = pytest.mark.parametrize(
    "raising", [raising_fold, raising_row_key, raising_change], ids=lambda form: form.__name__.removeprefix("raising_")
)
Raising = Callable[[BaseException], View[Count]]


def offsets(ledger: Ledger) -> int:
    (total,) = ledger.connection.execute("SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets").fetchall()[0]
    ledger.connection.rollback()
    return int(total)


@FORMS
@pytest.mark.parametrize("exit_", EXITS, ids=lambda kind: kind.__name__)
def test_what_ends_a_process_ends_a_views_worker_before_its_record(
    ledger: Ledger, raising: Raising, exit_: type[BaseException]
) -> None:
    """Nothing of the unit is committed or quarantined, the error names the record; mended, the view folds all."""
    ledger.confirm(0, "a", "BAD", "b")
    with pytest.raises(HandlerExit, match=rf"order\.events\[0\]@1: {exit_.__name__} "):
        ledger.read_all(raising(exit_(0)))
    assert (offsets(ledger), ledger.rows(), ledger.letters()) == (0, {}, [])
    assert ledger.read_all() == {"a": 1, "BAD": 1, "b": 1}


@FORMS
def test_a_cancellation_in_a_view_is_its_records_failure_alone(ledger: Ledger, raising: Raising) -> None:
    """CancelledError is no order to end: its record is dead after its attempts, all others are folded."""
    ledger.confirm(0, "a", "BAD", "b")
    assert ledger.read_all(raising(asyncio.CancelledError())) == {"a": 1, "b": 1}
    (letter,) = ledger.letters()
    attempts = ledger.settings.stream.handler_attempts_max
    assert (letter.position, letter.error, letter.attempts) == ("order.events[0]@1", "CancelledError", attempts)


def test_a_fold_that_blocks_is_its_records_failure_alone(ledger: Ledger) -> None:
    """It holds the unit's own thread past the transaction's end; all others are folded, each once."""

    def folds(row: Count | None, record: OrderConfirmed | OrderRejected, at: Occurrence) -> Count | None:
        if at.key == "BAD":
            time.sleep(BLOCKS_SECONDS)
        return fold(row, record, at)

    ledger.settings = ledger.settings.model_copy(update={"stream": BLOCKING})
    ledger.confirm(0, "a", "BAD", "b")
    assert ledger.read_all(replace(VIEW, fold=folds)) == {"a": 1, "b": 1}
    (letter,) = ledger.letters()
    attempts = BLOCKING.handler_attempts_max
    assert (letter.position, letter.error, letter.attempts) == ("order.events[0]@1", "HandlerTooSlow", attempts)
