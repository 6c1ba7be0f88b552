"""Says which value of a record does not fit its schema, once encoding has failed. Pure, and not on the hot path."""

from dataclasses import fields
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from math import inf
from typing import Any, Final
from uuid import UUID

from towpath.contract.convert import INT_RANGE, LONG_RANGE, SINGLE_MAX, fits_decimal
from towpath.contract.record import Record
from towpath.contract.schema import (
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
    "time-millis": (time, "a time of day"),
    "time-micros": (time, "a time of day"),
    "timestamp-millis": (datetime, "a datetime with a time zone"),
    "timestamp-micros": (datetime, "a datetime with a time zone"),
    "uuid": (UUID, "a UUID"),
    "decimal": (Decimal, "a Decimal"),
}


def explain(schemas: Schemas, record: Record) -> str | None:
    """Return the path of the first value that does not fit and what its field takes; None where all seem to fit."""
    return _record(schemas, schemas.record(record.SCHEMA_NAME), record, "")


def _record(schemas: Schemas, schema: RecordSchema, value: Any, path: str) -> str | None:
    if getattr(value, "SCHEMA_NAME", None) != schema.name:
        return _wrong(path, value, schema.name)
    present = {item.name for item in fields(value)}
    for item in schema.fields:
        inner = f"{path}.{item.name}" if path else item.name
        if item.name not in present:
            return f"{inner} is missing from the class"
        problem = _value(schemas, item.type, getattr(value, item.name), inner)
        if problem:
            return problem
    return None


def _value(schemas: Schemas, schema: AvroType, value: Any, path: str) -> str | None:  # noqa: PLR0911 - a case each
    match schema:
        case Primitive():
            return _primitive(schema, value, path)
        case Array(items=items):
            if not isinstance(value, tuple):
                return _wrong(path, value, "a tuple")
            found = (_value(schemas, items, item, f"{path}[{place}]") for place, item in enumerate(value))
        case Map(values=values):
            if not isinstance(value, dict):
                return _wrong(path, value, "a dict")
            found = (_value(schemas, values, item, f"{path}{{}}") for item in value.values())
        case Union():
            if value is None and schema.nullable:
                return None
            problems = [_value(schemas, branch, value, path) for branch in schema.present]
            return None if None in problems else problems[0]
        case Reference(name=name):
            return _named(schemas, name, value, path)
    return next((problem for problem in found if problem), None)


def _named(schemas: Schemas, name: str, value: Any, path: str) -> str | None:
    match schemas[name]:
        case RecordSchema() as schema:
            return _record(schemas, schema, value, path)
        case EnumSchema(symbols=symbols):
            fits = isinstance(value, Enum) and value.value in symbols
            return None if fits else _wrong(path, value, name)
        case FixedSchema(size=size):
            fits = isinstance(value, bytes) and len(value) == size
            return None if fits else _wrong(path, value, f"{size} bytes")


def _primitive(schema: Primitive, value: Any, path: str) -> str | None:
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
        fits = isinstance(value, datetime) and value.tzinfo is not None
    elif kind is date:
        fits = isinstance(value, date) and not isinstance(value, datetime)
    elif kind is Decimal:
        fits = fits and fits_decimal(value, schema.precision or 0, schema.scale or 0)
        takes = f"a Decimal of {schema.precision} digits, {schema.scale} after the point"
    return None if fits else _wrong(path, value, takes)


def _wrong(path: str, value: Any, takes: str) -> str:
    return f"{path or 'the record'} takes {takes}, not {type(value).__name__}"
