"""What a view is, and how it folds: pure, so that a test or an audit can fold the same log and compare.

The one rule: a row depends on nothing but the records that have its key: those of one partition in their order or,
where the view says so, those of several partitions in any order.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from towpath.contract.record import Record
from towpath.errors import ConfigurationError, PeerError
from towpath.view.declaring import Changes, Indexed, marks_of

Row = TypeVar("Row")
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}$")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where and when a record stands in the log; `offset` tells which of two of one topic and key lies later."""

    topic: str
    key: str
    event_id: str
    at: datetime
    offset: int = 0


def table_name(view: str, version: int) -> str:
    """Return the name of the table of a view's version."""
    return f"{view}_v{version}"


def group_name(project: str, view: str, version: int) -> str:
    """Return the consumer group of the workers of a view's version, under which its offsets are kept."""
    return f"{project}-view-{view}-v{version}"


Fold = Callable[[Row | None, Any, Occurrence], Row | None]
"""`(row so far or None, record, occurrence) -> row`, or None to have no row for this key."""


class RowSource(Enum):
    """Which records a row is folded from."""

    ONE_KEY = "one key"
    """All records of a row have the same key in their topics, so one worker reads them, in their order."""
    MANY_KEYS = "many keys"
    """Records of different keys meet in a row, read by different workers in any order: the fold must give the same
    row in whatever order they come (counts, sums, the latest by a time of its own). The workers of such a view write
    one after the other, so a second one takes over from the first, and does not add to its speed."""


def record_key(_: Any, occurrence: Occurrence) -> str | None:
    """Return the key that a record has in its topic."""
    return occurrence.key


@dataclass(frozen=True, slots=True)
class View(Generic[Row]):
    """A table folded from topics.

    `row` is a frozen dataclass; its fields become the columns of the table `<name>_v<version>`, which readers reach
    through the SQL view `<name>`. Its field `key` has what `row_key` says of a record (by default the record's key;
    None passes the record over). A view with a `row_key` of its own says in `rows` whether records of several keys
    meet in a row. `folds` says which record types matter: others in the topics are passed over without being decoded.
    A new version is a new table beside the old one, filled from the beginning of the log, or from the rows of the
    version before (`from_row`); readers see it once it is promoted.
    """

    name: str
    topics: tuple[str, ...]
    row: type[Row]
    key: str
    folds: frozenset[type[Record]]
    fold: Fold[Row]
    version: int = 1
    row_key: Callable[[Any, Occurrence], str | None] = record_key
    rows: RowSource | None = None
    notify_field: str | None = None
    """Field whose new value is sent with NOTIFY on the channel `<name>` whenever a row changes."""
    indexes: tuple[tuple[str, ...], ...] = ()
    """Fields of each index beside the key's own; one of a single field may be said at the field: `Indexed()`."""
    from_row: Callable[[Mapping[str, Any]], Row | None] | None = None
    """Makes this version's row of one of the version before (its columns by name), to build without the log."""
    changes: Changes[Row] | None = None
    """Who is told of each row that changes, through the outbox; None where nobody is."""
    forgets: bool = False
    """Whether its rows may lack what retention has taken. By default a version whose topics have lost their beginning
    is not built unless a person says so."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError where the declaration cannot work."""
        if not _NAME.match(self.name):
            raise ConfigurationError(
                f"view {self.name!r}: not a table name", next_step="use lower-case letters, digits and _"
            )
        if not (is_dataclass(self.row) and self.row.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            raise ConfigurationError(
                f"view {self.name}: its row is not a frozen dataclass",
                next_step="declare the row with @dataclass(frozen=True, slots=True)",
            )
        names = {field.name for field in fields(self.row)}
        for wanted in (self.key, self.notify_field, *(field for index in self.indexes for field in index)):
            if wanted is not None and wanted not in names:
                raise ConfigurationError(
                    f"view {self.name}: its row has no field {wanted!r}", next_step=f"name one of {sorted(names)}"
                )
        if self.row_key is record_key and not _may_be_text(self.row, self.key):
            raise ConfigurationError(
                f"view {self.name}: its rows have the records' keys, which are text, and its field {self.key} is not",
                next_step=f"declare {self.key} as str; what the key says may be a field beside it",
            )
        if self.row_key is not record_key and self.rows is None:
            raise ConfigurationError(
                f"view {self.name}: its rows do not have the records' keys, and it does not say whether records of "
                "several keys meet in a row; two workers would then overwrite each other's rows",
                next_step="declare rows=RowSource.MANY_KEYS if they do, and fold in any order; else RowSource.ONE_KEY",
            )
        if self.changes is not None and self.changes.topic in self.topics:
            raise ConfigurationError(
                f"view {self.name}: it tells its changes to {self.changes.topic}, which it folds itself",
                next_step="give the changes a topic of their own",
            )
        if not self.topics:
            raise ConfigurationError(f"view {self.name}: it has no topics", next_step="name at least one")

    @property
    def many_keys(self) -> bool:
        """Return whether records of several keys meet in a row."""
        return self.rows is RowSource.MANY_KEYS

    @property
    def all_indexes(self) -> tuple[tuple[str, ...], ...]:
        """Return the fields of each index: those that the row marks, and those of `indexes`."""
        marked = tuple((name,) for name, _ in marks_of(self.row, Indexed))
        return tuple(dict.fromkeys((*marked, *self.indexes)))

    @property
    def codec_topics(self) -> tuple[str, ...]:
        """Return the topics whose records its worker reads or writes."""
        return self.topics if self.changes is None else (*self.topics, self.changes.topic)

    @property
    def table(self) -> str:
        """Return the name of this version's table."""
        return table_name(self.name, self.version)

    @property
    def type_names(self) -> Mapping[str, type[Record]]:
        """Return the record types that it folds, by the value of their `type` header."""
        return {record.SCHEMA_NAME: record for record in self.folds}


def _may_be_text(row: type[Any], field: str) -> bool:
    try:
        hint = get_type_hints(row)[field]
    except NameError:  # a type that is not there yet: `column_types` tells once it matters
        return True
    return str in {hint, *get_args(hint)}


class WrongRow(PeerError):
    """A record that belongs to one row, by its key, says that it is about another."""

    def __init__(self, view: str, field: str, record: Record) -> None:
        super().__init__(
            f"view {view}: {type(record).__name__} gives a row whose {field} is not the key of the record's row",
            kept="the record, untouched, and both rows as they were",
            next_step="ask the owner of the topic which key it writes; or give the view a row_key of its own",
        )


def fold_records(
    view: View[Row], rows: Mapping[str, Row], records: Iterable[tuple[str, Record, Occurrence]]
) -> dict[str, Row | None]:
    """Fold `records`, each with the key of its row, in order onto `rows`; return what changed, None for "no row".

    Raises WrongRow where the fold gives another row than the record's: it would be written over that.
    """
    changed: dict[str, Row | None] = {}
    for key, record, occurrence in records:
        before = changed[key] if key in changed else rows.get(key)
        after = view.fold(before, record, occurrence)
        if after is not None and getattr(after, view.key) != key:
            raise WrongRow(view.name, view.key, record)
        if after != before:
            changed[key] = after
    return changed


def column_types(view: View[Any], types: Mapping[Any, str]) -> list[tuple[str, str]]:
    """Return name and SQL type of each column, in the order of the row's fields.

    Raises ConfigurationError for a field whose type is not in `types` (or such a type or None).
    """
    columns = []
    for name, hint in get_type_hints(view.row).items():
        options = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
        plain = options - {NoneType}
        sql = types.get(next(iter(plain))) if len(plain) == 1 else None
        if sql is None:
            raise ConfigurationError(
                f"view {view.name}: field {name} has type {hint}, which has no column type",
                next_step=f"use one of {sorted(kind.__name__ for kind in types)}, or one of them or None",
            )
        columns.append((name, sql if NoneType in options else f"{sql} NOT NULL"))
    return columns
