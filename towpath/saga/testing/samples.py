"""A valid value for any record class, from the types of its fields: where a test does not care which."""

import dataclasses
import types
import typing
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

_SCALARS: dict[Any, Any] = {
    str: "sample",
    int: 1,
    float: 1.0,
    bool: True,
    bytes: b"sample",
    datetime: datetime(2026, 1, 1, tzinfo=UTC),
    date: date(2026, 1, 1),
    Decimal: Decimal(1),
    UUID: UUID(int=1),
    type(None): None,
}


def sample(kind: Any) -> Any:  # noqa: PLR0911 - a case each
    """Return a value of type `kind`, always the same. Raises TypeError for a type that it does not know."""
    if isinstance(kind, typing.TypeVar):
        return None  # as of a sub-saga that says nothing of what it came to
    if kind in _SCALARS:
        return _SCALARS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union or origin is types.UnionType:
        return sample(arguments[0])
    if origin in (tuple, list):
        return origin((sample(arguments[0]),))
    if origin is dict:
        return {}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"no sample of {kind!r} is known: pass one")
    hints = typing.get_type_hints(kind)
    return typing.cast("Any", kind)(**{field.name: sample(hints[field.name]) for field in dataclasses.fields(kind)})
