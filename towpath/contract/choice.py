"""Which branch of a union a Python value belongs to. Pure.

Branches are told apart by the class of the value; the narrower branch is asked first: an int before a long, 4 bytes
before bytes. A float that could be both float and double is written as double, which holds it exactly.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from towpath.contract.record import Duration
from towpath.contract.schema import (
    NULL,
    Array,
    AvroType,
    EnumSchema,
    FixedSchema,
    Map,
    Primitive,
    RecordSchema,
    Reference,
    Schemas,
    Union,
    branch_name,
)
from towpath.contract.values import INT_RANGE, LONG_RANGE, unscaled

Predicate = Callable[[Any], bool]
# The whole numbers that a double holds, one and all.
_EXACT_INTS: Final = range(-(2**53), 2**53 + 1)
_FIRST: Final = ("boolean", "int", "long", "double", "float")


def choices(schemas: Schemas, union: Union) -> Iterator[tuple[int, AvroType]]:
    """Yield index and branch in the order in which a value is tried."""

    def rank(entry: tuple[int, AvroType]) -> int:
        branch = entry[1]
        if branch == NULL:
            return -2
        if isinstance(branch, Reference) and isinstance(schemas[branch.name], FixedSchema):
            return -1
        return _FIRST.index(branch.name) if isinstance(branch, Primitive) and branch.name in _FIRST else -1

    yield from sorted(enumerate(union.branches), key=rank)


def alike(schemas: Schemas, union: Union) -> tuple[str, str] | None:
    """Return two branches of a union whose values no class of Python tells apart, so that one would be written as the
    other; None where there are none. Plain numbers of two sizes are no such pair: the number stays the same.
    """
    seen: dict[str, str] = {}
    for branch in union.branches:
        kind = _python_kind(schemas, branch)
        if kind is not None and kind in seen:
            return seen[kind], branch_name(branch)
        other = next((known for known in seen if "bytes" in (kind, known) and _fixed(kind) + _fixed(known) == 1), None)
        if other is not None:
            return seen[other], branch_name(branch)
        if kind is not None:
            seen[kind] = branch_name(branch)
    return None


def _fixed(kind: str | None) -> bool:
    return kind is not None and kind.endswith(" bytes")


def _python_kind(schemas: Schemas, branch: AvroType) -> str | None:
    found = schemas[branch.name] if isinstance(branch, Reference) else branch
    match found:
        case FixedSchema(size=size, logical=None):
            return f"{size} bytes"
        case FixedSchema(logical=str() as logical) | Primitive(logical=str() as logical):
            return "time" if logical.startswith("time-") else logical
        case Primitive(name="bytes"):
            return "bytes"
        case _:
            return None


def predicate(schemas: Schemas, branch: AvroType, classes: Mapping[str, type[Any]]) -> Predicate:
    """Return the function that says whether a Python value is meant for `branch`."""
    match branch:
        case Primitive():
            return _primitive(branch.name, branch.logical, branch.precision, branch.scale)
        case Array():
            return lambda value: value.__class__ is tuple
        case Map():
            return lambda value: value.__class__ is dict
        case Reference(name=name):
            match schemas[name]:
                case RecordSchema() | EnumSchema():
                    known = classes[name]
                    return lambda value: value.__class__ is known
                case FixedSchema(size=size, logical=None):
                    return lambda value: value.__class__ is bytes and len(value) == size
                case FixedSchema() as fixed:
                    return _primitive("fixed", fixed.logical, fixed.precision, fixed.scale)
        case Union():
            raise AssertionError("a union holds no union")


def _primitive(name: str, logical: str | None, precision: int | None, scale: int | None) -> Predicate:
    if logical == "decimal":
        return lambda value: unscaled(value, precision or 0, scale or 0) is not None
    return _LOGICAL.get(logical or "") or _PLAIN[name]


_LOGICAL: Final[Mapping[str, Predicate]] = {
    "timestamp-millis": lambda value: isinstance(value, datetime) and value.tzinfo is not None,
    "timestamp-micros": lambda value: isinstance(value, datetime) and value.tzinfo is not None,
    "local-timestamp-millis": lambda value: isinstance(value, datetime) and value.tzinfo is None,
    "local-timestamp-micros": lambda value: isinstance(value, datetime) and value.tzinfo is None,
    "date": lambda value: isinstance(value, date) and not isinstance(value, datetime),
    "time-millis": lambda value: isinstance(value, time),
    "time-micros": lambda value: isinstance(value, time),
    "uuid": lambda value: isinstance(value, UUID),
    "duration": lambda value: isinstance(value, Duration),
    "decimal": lambda value: isinstance(value, Decimal),
}
_PLAIN: Final[Mapping[str, Predicate]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: value.__class__ is bool,
    "int": lambda value: value.__class__ is int and value in INT_RANGE,
    "long": lambda value: value.__class__ is int and value in LONG_RANGE,
    "float": lambda value: value.__class__ is float or (value.__class__ is int and value in _EXACT_INTS),
    "double": lambda value: value.__class__ is float or (value.__class__ is int and value in _EXACT_INTS),
    "string": lambda value: value.__class__ is str,
    "bytes": lambda value: value.__class__ is bytes,
}
