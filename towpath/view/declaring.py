"""What a row's declaration says of its columns beside their types, and of who is told when it changes. Pure.

@dataclass(frozen=True, slots=True)
class OrderRow:
    order_id: str
    status: Annotated[str, Indexed()]
    total_cents: Annotated[int, RowCheck("total_cents >= 0")]
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args, get_type_hints
from uuid import UUID, uuid5

from towpath.contract.record import Record

Row = TypeVar("Row")
_CHANGES = UUID("8f6f2c0e-43a5-5c57-9a0c-6f2a51c3d6f4")
"""Namespace of the ids of change events (RFC 9562, version 5)."""


@dataclass(frozen=True, slots=True)
class RowCheck:
    """What must hold of each row: a condition in SQL about the row's columns, checked by the database.

    A record whose fold breaks it is dead-lettered: the row stays as it was.
    """

    condition: str


@dataclass(frozen=True, slots=True)
class Indexed:
    """The field has an index of its own."""


@dataclass(frozen=True, slots=True)
class Changes(Generic[Row]):
    """Change events of one version's rows, through the outbox of the views' database into a topic of their own.

    `record` makes the event of a row's key and the row as it has become, None where it is no more; what it returns
    None for is not told. Each unit of work tells the last form of each row that it changed, in its own transaction:
    whoever folds the topic has the table. A version has a topic of its own, since each version tells all that it
    folds, the history that it is built from included.
    """

    topic: str
    record: Callable[[str, Row | None], Record | None]

    def event_id(self, application: str, key: str, event_id: str) -> UUID:
        """Return the id of the event that tells of a row after `event_id` was folded into it."""
        return uuid5(_CHANGES, f"{application}/{key}/{event_id}")


def marks_of(row: type[Any], kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a row that are marked with a `kind`, each with its mark."""
    for name, hint in get_type_hints(row, include_extras=True).items():
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, kind):
                yield name, mark
        # `Annotated[int, ...] | None` has its mark one level down.
        for option in get_args(hint):
            for mark in getattr(option, "__metadata__", ()):
                if isinstance(mark, kind):
                    yield name, mark


def checks_of(row: type[Any]) -> Mapping[str, str]:
    """Return the conditions of a row by the names of their constraints."""
    found: dict[str, str] = {}
    for name, check in marks_of(row, RowCheck):
        number = sum(known.rpartition("_")[0] == f"check_{name}" for known in found) + 1
        found[f"check_{name}_{number}"] = check.condition
    return found
