"""A view in three versions, the second with another column: what is built, swapped and dropped in tests."""

from dataclasses import dataclass
from typing import Any

from schemas.records.order import OrderConfirmed
from towpath.settings import load_settings
from towpath.stream.broker.record import TopicPartition
from towpath.view import Occurrence, View

PROJECT = load_settings(environment=False).project.name
TOPIC, PARTITIONS, OFFSET = "order.events", 3, 100


@dataclass(frozen=True, slots=True)
class Sum:
    """How many confirmations an order had."""

    name: str
    confirmations: int


@dataclass(frozen=True, slots=True)
class Further:
    """The same, and twice as many."""

    name: str
    confirmations: int
    twice: int


def fold(row: Sum | None, record: OrderConfirmed, at: Occurrence) -> Sum:
    """Count."""
    return Sum(at.key, (row.confirmations if row else 0) + 1)


def fold_further(row: Further | None, record: OrderConfirmed, at: Occurrence) -> Further:
    """Count, and double."""
    count = (row.confirmations if row else 0) + 1
    return Further(at.key, count, 2 * count)


def _version(number: int, row: Any, how: Any) -> View[Any]:
    return View(
        name="sums",
        topics=(TOPIC,),
        row=row,
        key="name",
        folds=frozenset({OrderConfirmed}),
        fold=how,
        version=number,
        from_row=lambda found: Further(found["name"], found["confirmations"], 2 * found["confirmations"]),
        indexes=(("confirmations",),),
        notify_field="name",
    )


ONE, TWO, THREE = _version(1, Sum, fold), _version(2, Further, fold_further), _version(3, Further, fold_further)


def ends() -> dict[TopicPartition, int]:
    """Return up to where the topic goes."""
    return {TopicPartition(TOPIC, number): OFFSET for number in range(PARTITIONS)}
