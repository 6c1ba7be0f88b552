"""Says which value of a record does not fit its schema, once encoding has failed. Pure, and not on the hot path."""

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from math import inf
from typing import Any, Final
from uuid import UUID

from towpath.contract.binary import DEPTH_MAX
from towpath.contract.choice import choices, predicate
from towpath.contract.python_names import attributes
from towpath.contract.record import Duration, Record
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
)
from towpath.contract.values import INT_RANGE, LONG_RANGE, SINGLE_MAX, unscaled

# Python's class for each type and logical type, and what a field of it takes, in words.
_CLASSES: Final[dict[str, tuple[type[Any], str]]] = {
    "null": (type(None), "None"),
    "boolean": (bool, "a bool"),
    "int": (int, "an int of 32 bits"),
    "long": (int, "an int of 64 bits"),
    "float": (float, "a float"),
    "double": (float, "a float"),
    "bytes": (bytes, "bytes"),
    "string": (str, "a str"),
    "date": (date, "a date"),
    "time-millis": (time, "a time of day without a zone"),
    "time-micros": (time, "a time of day without a zone"),
    "timestamp-millis": (datetime, "a datetime with a time zone"),
    "timestamp-micros": (datetime, "a datetime with a time zone"),
    "timestamp-nanos": (int, "an int of 64 bits"),
    "local-timestamp-millis": (datetime, "a datetime without a time zone"),
    "local-timestamp-micros": (datetime, "a datetime without a time zone"),
    "local-timestamp-nanos": (int, "an int of 64 bits"),
    "uuid": (UUID, "a UUID"),
    "decimal": (Decimal, "a Decimal"),
    "duration": (Duration, "a Duration"),
}


def explain(schemas: Schemas, classes: Mapping[str, type[Any]], record: Record) -> str | None:
    """Return the path of the first value that does not fit and what its field takes; None where all seem to fit."""
    return _Explainer(schemas, classes).record(schemas.record(record.SCHEMA_NAME), record, "", 0)


class _Explainer:
    """Walks one record beside its schema."""

    def __init__(self, schemas: Schemas, classes: Mapping[str, type[Any]]) -> None:
        self._schemas = schemas
        self._classes = classes

    def record(self, schema: RecordSchema, value: Any, path: str, depth: int) -> str | None:
        if getattr(value, "SCHEMA_NAME", None) != schema.name:
            return _wrong(path, value, schema.name)
        if depth > DEPTH_MAX:
            return f"{path:.60}... is nested deeper than {DEPTH_MAX} levels"
        for name, attribute in attributes(schema).items():
            inner = f"{path}.{name}" if path else name
            if not hasattr(value, attribute):
                return f"{inner} is missing from the class"
            item = next(item for item in schema.fields if item.name == name)
            problem = self._value(item.type, getattr(value, attribute), inner, depth)
            if problem:
                return problem
        return None

    def _value(self, schema: AvroType, value: Any, path: str, depth: int) -> str | None:  # noqa: PLR0911 - a case each
        match schema:
            case Primitive():
                return _primitive(schema, value, path)
            case Array(items=items):
                if type(value) is not tuple:
                    return _wrong(path, value, "a tuple")
                found = (self._value(items, item, f"{path}[{place}]", depth) for place, item in enumerate(value))
                return next(filter(None, found), None)
            case Map(values=values):
                if type(value) is not dict:
                    return _wrong(path, value, "a dict")
                keys = (_primitive(Primitive("string"), key, f"a key of {path}") for key in value)
                inner = (self._value(values, item, f"{path}{{}}", depth) for item in value.values())
                return next(filter(None, (*keys, *inner)), None)
            case Union():
                return self._union(schema, value, path, depth)
            case Reference(name=name):
                return self._named(name, value, path, depth)

    def _union(self, schema: Union, value: Any, path: str, depth: int) -> str | None:
        """Explain by the branch that is meant: the one whose class the value has."""
        if value is None and schema.nullable:
            return None
        if len(schema.present) == 1:
            return self._value(schema.present[0], value, path, depth)
        for _, branch in choices(self._schemas, schema):
            if branch != NULL and predicate(self._schemas, branch, self._classes)(value):
                return self._value(branch, value, path, depth)
        alike = [branch for branch in schema.present if self._same_class(branch, value)]
        if len(alike) == 1:
            return self._value(alike[0], value, path, depth)
        takes = [self._takes(branch) for branch in schema.present]
        return _wrong(path, value, " or ".join(dict.fromkeys([*takes, *(["None"] if schema.nullable else [])])))

    def _same_class(self, branch: AvroType, value: Any) -> bool:
        if isinstance(branch, Primitive):
            return type(value) is _CLASSES[branch.logical or branch.name][0]
        found = self._schemas[branch.name] if isinstance(branch, Reference) else None
        if isinstance(found, FixedSchema):
            return type(value) is (bytes if found.logical is None else _CLASSES[found.logical][0])
        return False

    def _takes(self, branch: AvroType) -> str:
        match branch:
            case Primitive():
                return _CLASSES[branch.logical or branch.name][1]
            case Reference(name=name):
                found = self._schemas[name]
                if isinstance(found, FixedSchema):
                    return f"{found.size} bytes" if found.logical is None else _CLASSES[found.logical][1]
                return name
            case Array():
                return "a tuple"
            case _:
                return "a dict"

    def _named(self, name: str, value: Any, path: str, depth: int) -> str | None:
        match self._schemas[name]:
            case RecordSchema() as schema:
                return self.record(schema, value, path, depth + 1)
            case EnumSchema():
                return None if type(value) is self._classes[name] else _wrong(path, value, name)
            case FixedSchema(size=size, logical=None):
                fits = isinstance(value, bytes) and len(value) == size
                return None if fits else _wrong(path, value, f"{size} bytes")
            case FixedSchema() as fixed:
                carrier = Primitive("fixed", fixed.logical, fixed.precision, fixed.scale)
                return _primitive(carrier, value, path)


def _primitive(schema: Primitive, value: Any, path: str) -> str | None:  # noqa: C901 - a case for each Python type
    kind, takes = _CLASSES[schema.logical or schema.name]
    fits = isinstance(value, kind)
    if kind is int:
        fits = type(value) is int and value in (INT_RANGE if schema.name == "int" else LONG_RANGE)
        if type(value) is int and not fits:
            return f"{path} takes {takes}, not a larger one"
    elif kind is float:
        fits = type(value) in (float, int)
        if fits and schema.name == "float" and SINGLE_MAX < abs(value) < inf:
            return f"{path} takes a float of 32 bits, not a larger one"
    elif kind is datetime:
        fits = isinstance(value, datetime) and (value.tzinfo is None) is (schema.logical or "").startswith("local")
    elif kind is date:
        fits = isinstance(value, date) and not isinstance(value, datetime)
    elif kind is time:
        fits = isinstance(value, time) and value.tzinfo is None
    elif kind is Decimal:
        takes = f"a Decimal of {schema.precision} digits, {schema.scale} after the point"
        if fits:
            exact = unscaled(value, schema.precision or 0, schema.scale or 0) is not None
            return None if exact else f"{path} takes {takes}, not one that would be rounded or cut"
    elif kind is Duration:
        if fits and not all(type(part) is int and 0 <= part < 2**32 for part in _parts(value)):
            return f"{path} takes {takes} whose parts are not negative and hold 32 bits"
    elif kind is str and fits:
        return _text(value, path)
    return None if fits else _wrong(path, value, takes)


def _parts(value: Duration) -> tuple[int, int, int]:
    return value.months, value.days, value.milliseconds


def _text(value: str, path: str) -> str | None:
    if type(value) is not str:
        return _wrong(path, value, "a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"{path} takes a str of whole characters; at {error.start} stands half of one"
    return None


def _wrong(path: str, value: Any, takes: str) -> str:
    return f"{path or 'the record'} takes {takes}, not {type(value).__name__}"
