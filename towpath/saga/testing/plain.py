"""Records as plain JSON values, and back by the types of their fields: the form of golden histories.

Only what golden files hold is written here; on the wire records are Avro (towpath.contract). A record is any dataclass.
"""

import base64
import dataclasses
import types
import typing
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

_TO_TEXT: dict[type, Callable[[Any], str]] = {
    bytes: lambda value: base64.b64encode(value).decode(),
    datetime: datetime.isoformat,
    date: date.isoformat,
    UUID: str,
    Decimal: str,
}


def to_plain(value: object) -> Any:
    """Return the JSON value of a record, a field or an enum. Raises TypeError for what has none."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(element) for element in value]
    if isinstance(value, dict):
        return {str(key): to_plain(element) for key, element in value.items()}
    if type(value) not in _TO_TEXT:
        raise TypeError(f"a {type(value).__name__} has no plain form")
    return _TO_TEXT[type(value)](value)


def from_plain(kind: Any, plain: Any) -> Any:
    """Return the value of type `kind` that `plain` tells. Raises TypeError or ValueError where it tells none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union or origin is types.UnionType:
        return _first_that_fits(arguments, plain)
    if kind is None or kind is type(None):
        if plain is not None:
            raise TypeError("expected null")
        return None
    if origin in (tuple, list):
        elements = [from_plain(arguments[0], element) for element in plain]
        return tuple(elements) if origin is tuple else elements
    if origin is dict:
        return {key: from_plain(arguments[1], element) for key, element in plain.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], element) for name, element in plain.items()})
    return _scalar(kind, plain)


def _first_that_fits(kinds: tuple[Any, ...], plain: Any) -> Any:
    for kind in kinds:
        try:
            return from_plain(kind, plain)
        except (TypeError, ValueError, AttributeError, KeyError):
            continue
    raise TypeError(f"none of {kinds} fits")


def _scalar(kind: Any, plain: Any) -> Any:
    if kind in (datetime, date):
        return kind.fromisoformat(plain)
    if kind is bytes:
        return base64.b64decode(plain)
    if kind in (UUID, Decimal) or (isinstance(kind, type) and issubclass(kind, Enum)):
        return kind(plain)
    if kind is float and type(plain) is int:
        return float(plain)
    if type(plain) is not kind:
        raise TypeError(f"expected {kind}, found {type(plain).__name__}")
    return plain
