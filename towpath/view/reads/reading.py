"""What is asked of a view, and what comes back. Pure.

The one rule: an answer says of which version and which offsets it is, read in the same snapshot as the rows; the same
tag therefore means the same rows.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from towpath.errors import ConfigurationError, WorldError
from towpath.stream.broker.record import TopicPartition

Row = TypeVar("Row")
LIMIT_MAX = 1_000
_POSITION = re.compile(r"^(?P<topic>[A-Za-z0-9._-]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)$")

_ID = re.compile(r"[^\0\ud800-\udfff]+", re.DOTALL)
"""What a database takes as a text."""


class Comparing(StrEnum):
    """How a field is compared."""

    EQUAL = "eq"
    LESS = "lt"
    AT_MOST = "le"
    MORE = "gt"
    AT_LEAST = "ge"

    @property
    def sql(self) -> str:
        """Return the operator."""
        return {"eq": "=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[self.value]


@dataclass(frozen=True, slots=True)
class Filter:
    """A field and what it is compared with; None is compared by being equal alone."""

    field: str
    value: Any
    comparing: Comparing = Comparing.EQUAL


@dataclass(frozen=True, slots=True)
class Seen:
    """What a read must have seen: the position of a record (`topic[partition]@offset`), or the id of an event.

    The id is that of the outbox row, which its writer knows before Kafka has it. Raises ConfigurationError for what is
    the id of no event.
    """

    position: str | None = None
    event_id: str | None = None

    def __post_init__(self) -> None:
        if self.event_id is not None and not _ID.fullmatch(self.event_id):
            raise ConfigurationError(f"{self.event_id!r} is no id of an event", next_step="take that of the outbox row")

    @property
    def place(self) -> tuple[TopicPartition, int] | None:
        """Return partition and offset of the position. Raises ConfigurationError for what is none."""
        if self.position is None:
            return None
        found = _POSITION.fullmatch(self.position)
        if found is None:
            raise ConfigurationError(
                f"{self.position!r} is no position", next_step="write it as topic[partition]@offset"
            )
        return TopicPartition(found["topic"], int(found["partition"])), int(found["offset"])

    def __str__(self) -> str:
        return self.position or f"event {self.event_id}"


class NotYetRead(WorldError):
    """The view has not folded what was to be seen, and the time for it is over."""


@dataclass(frozen=True, slots=True)
class Read(Generic[Row]):
    """A row (None where there is none for the key), and the tag of what it was read from."""

    row: Row | None
    tag: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows in the order of their keys; `after` is where the next page begins, None behind the last."""

    rows: tuple[Row, ...]
    after: Any
    tag: str


def tag_of(version: int, vector: Mapping[TopicPartition, int]) -> str:
    """Return the tag of what a version is the fold of: the same for the same offsets, another for any other."""
    text = ";".join(f"{place}@{offset}" for place, offset in sorted(vector.items()))
    return f"v{version}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"
