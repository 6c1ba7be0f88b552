"""Records as JSON that people write and read: examples, dead letters, the command line. Pure.

Texts, numbers, lists and objects as they are; a time is ISO 8601 with its zone (without one where the type is local), a
UUID, date or decimal is a text, bytes are base64, an enum is its symbol, a duration `{"months": 1, "days": 2,
"milliseconds": 3}`, null stands for itself; where a field takes one of several types, the value is `{"<type>": ...}`
with the name of the type. A field with a default may be left out; a field that the schema does not know is refused.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from towpath.contract.defaults import default_datum
from towpath.contract.parse import misspelt
from towpath.contract.record import Duration
from towpath.contract.schema import (
    Array,
    AvroType,
    EnumSchema,
    Field,
    FixedSchema,
    Map,
    Primitive,
    RecordSchema,
    Reference,
    Schemas,
    Union,
    branch_name,
)
from towpath.contract.values import INT_RANGE, LONG_RANGE, SINGLE_MAX, unscaled

_KINDS: Final[Mapping[type, str]] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: a datum (see `towpath.contract.datum`), of use only where `problems` is empty."""

    datum: Any
    problems: tuple[str, ...]


def read_json(schemas: Schemas, name: str, value: Any) -> Reading:
    """Read JSON as a record of type `name`. Every problem is told, each with the path of the field."""
    reader = _Reader(schemas)
    datum = reader.record(schemas.record(name), value, "")
    return Reading(datum, tuple(reader.problems))


def write_json(schemas: Schemas, name: str, datum: Any) -> Any:
    """Return a datum (see `towpath.contract.datum`) as JSON."""
    return _write(schemas, Reference(name), datum)


class _Refused(Exception):
    pass


@dataclass(slots=True)
class _Reader:
    """Reads one value; collects the problems instead of stopping at the first."""

    schemas: Schemas
    problems: list[str] = field(default_factory=list)

    def record(self, schema: RecordSchema, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return self._refuse(path, f"takes an object ({schema.name}), not {_kind(value)}")
        prefix = f"{path}." if path else ""
        known = [item.name for item in schema.fields]
        for name in value:
            if name not in known:
                self._refuse(f"{prefix}{name}", f"unknown field{misspelt(name, known)}")
        return {item.name: self._field(item, value, f"{prefix}{item.name}") for item in schema.fields}

    def _field(self, item: Field, value: dict[str, Any], path: str) -> Any:
        if item.name in value:
            return self._value(item.type, value[item.name], path)
        if not item.has_default:
            return self._refuse(path, "missing")
        return default_datum(self.schemas, item.type, item.default)

    def _value(self, schema: AvroType, value: Any, path: str) -> Any:  # noqa: PLR0911 - a case each
        match schema:
            case Primitive():
                return self._primitive(schema, value, path)
            case Array(items=items):
                if not isinstance(value, list):
                    return self._refuse(path, f"takes a list, not {_kind(value)}")
                return [self._value(items, item, f"{path}[{place}]") for place, item in enumerate(value)]
            case Map(values=values):
                if not isinstance(value, dict):
                    return self._refuse(path, f"takes an object, not {_kind(value)}")
                return {key: self._value(values, item, f"{path}{{{key}}}") for key, item in value.items()}
            case Union():
                return self._union(schema, value, path)
            case Reference(name=name):
                return self._named(name, value, path)

    def _union(self, schema: Union, value: Any, path: str) -> Any:
        if value is None and schema.nullable:
            return None
        if len(schema.present) == 1:
            return self._value(schema.present[0], value, path)
        by_name = {branch_name(branch): branch for branch in schema.present}
        if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in by_name:
            return self._refuse(path, f"takes an object with one key out of {', '.join(by_name)}")
        (name,) = value
        return (name, self._value(by_name[name], value[name], path))

    def _named(self, name: str, value: Any, path: str) -> Any:
        match self.schemas[name]:
            case RecordSchema() as schema:
                return self.record(schema, value, path)
            case EnumSchema(symbols=symbols):
                if value not in symbols:
                    shown = misspelt(value, symbols) if isinstance(value, str) else ""
                    return self._refuse(path, f"takes one of {', '.join(symbols)}{shown}")
                return value
            case FixedSchema(logical=str() as logical, precision=precision, scale=scale):
                return self._primitive(Primitive("bytes", logical, precision, scale), value, path)
            case FixedSchema(size=size):
                content = self._primitive(Primitive("bytes"), value, path)
                if content is not None and len(content) != size:
                    return self._refuse(path, f"takes {size} bytes, not {len(content)}")
                return content

    def _primitive(self, schema: Primitive, value: Any, path: str) -> Any:
        try:
            return _TAKE[schema.logical or schema.name](schema, value)
        except _Refused as error:
            return self._refuse(path, str(error))

    def _refuse(self, path: str, problem: str) -> None:
        self.problems.append(f"{path or 'the record'}: {problem}")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _take_class(kind: type, takes: str) -> Callable[[Primitive, Any], Any]:
    def take(_: Primitive, value: Any) -> Any:
        if type(value) is not kind:
            raise _Refused(f"takes {takes}, not {_kind(value)}")
        return value

    return take


def _take_whole(schema: Primitive, value: Any) -> int:
    bits, allowed = (32, INT_RANGE) if schema.name == "int" else (64, LONG_RANGE)
    if type(value) is not int:
        raise _Refused(f"takes a whole number, not {_kind(value)}")
    if value not in allowed:
        raise _Refused(f"takes a whole number of {bits} bits, not a larger one")
    return value


def _take_number(schema: Primitive, value: Any) -> float:
    if type(value) not in (int, float):
        raise _Refused(f"takes a number, not {_kind(value)}")
    if schema.name == "float" and abs(value) > SINGLE_MAX:
        raise _Refused("takes a number of 32 bits, not a larger one")
    return float(value)


def _take_bytes(_: Primitive, value: Any) -> bytes:
    try:
        return base64.b64decode(_take_text(value, "bytes in base64"), validate=True)
    except binascii.Error:
        raise _Refused("takes bytes in base64, not another text") from None


def _take_text(value: Any, takes: str) -> str:
    if not isinstance(value, str):
        raise _Refused(f"takes {takes}, not {_kind(value)}")
    return value


def _take_parsed(parse: Callable[[str], Any], takes: str) -> Callable[[Primitive, Any], Any]:
    def take(_: Primitive, value: Any) -> Any:
        try:
            return parse(_take_text(value, takes))
        except ValueError:
            raise _Refused(f"takes {takes}, not another text") from None

    return take


def _aware(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError("no zone")
    return parsed


def _without_zone(parsed: Any) -> Any:
    if parsed.tzinfo is not None:
        raise ValueError("a zone")
    return parsed


def _take_duration(_: Primitive, value: Any) -> Duration:
    takes = "an object of months, days and milliseconds, whole numbers of 32 bits, none negative"
    parts = {"months", "days", "milliseconds"}
    if not isinstance(value, dict) or not set(value) <= parts:
        raise _Refused(f"takes {takes}, not {_kind(value)}")
    if not all(type(part) is int and 0 <= part < 2**32 for part in value.values()):
        raise _Refused(f"takes {takes}, not another one")
    return Duration(**value)


def _take_decimal(schema: Primitive, value: Any) -> Decimal:
    takes = f"a decimal of {schema.precision} digits, {schema.scale} after the point, as a text"
    try:
        parsed = Decimal(_take_text(value, takes))
    except InvalidOperation:
        raise _Refused(f"takes {takes}, not another text") from None
    if unscaled(parsed, schema.precision or 0, schema.scale or 0) is None:
        raise _Refused(f"takes {takes}, not another one")
    return parsed


_TIME: Final = "a time in ISO 8601 with its zone"
_LOCAL_TIME: Final = "a time in ISO 8601 without a zone"
_TAKE: Final[Mapping[str, Callable[[Primitive, Any], Any]]] = {
    "null": _take_class(type(None), "null"),
    "boolean": _take_class(bool, "true or false"),
    "int": _take_whole,
    "long": _take_whole,
    "float": _take_number,
    "double": _take_number,
    "bytes": _take_bytes,
    "string": _take_class(str, "a text"),
    "date": _take_parsed(date.fromisoformat, "a date in ISO 8601"),
    "time-millis": _take_parsed(lambda text: _without_zone(time.fromisoformat(text)), "a time of day in ISO 8601"),
    "time-micros": _take_parsed(lambda text: _without_zone(time.fromisoformat(text)), "a time of day in ISO 8601"),
    "timestamp-millis": _take_parsed(_aware, _TIME),
    "timestamp-micros": _take_parsed(_aware, _TIME),
    "timestamp-nanos": _take_whole,
    "local-timestamp-millis": _take_parsed(lambda text: _without_zone(datetime.fromisoformat(text)), _LOCAL_TIME),
    "local-timestamp-micros": _take_parsed(lambda text: _without_zone(datetime.fromisoformat(text)), _LOCAL_TIME),
    "local-timestamp-nanos": _take_whole,
    "duration": _take_duration,
    "uuid": _take_parsed(UUID, "a UUID"),
    "decimal": _take_decimal,
}


def _write(schemas: Schemas, schema: AvroType, datum: Any) -> Any:
    match schema:
        case Array(items=items):
            return [_write(schemas, items, item) for item in datum]
        case Map(values=values):
            return {key: _write(schemas, values, item) for key, item in datum.items()}
        case Union():
            return _write_union(schemas, schema, datum)
        case Reference(name=name):
            named = schemas[name]
            if isinstance(named, RecordSchema):
                return {item.name: _write(schemas, item.type, datum[item.name]) for item in named.fields}
            return _plain(datum)
        case _:
            return _plain(datum)


def _plain(datum: Any) -> Any:
    match datum:
        case bytes():
            return base64.b64encode(datum).decode()
        case date() | datetime() | time():
            return datum.isoformat()
        case Duration():
            return {"months": datum.months, "days": datum.days, "milliseconds": datum.milliseconds}
        case UUID() | Decimal():
            return str(datum)
        case _:
            return datum


def _write_union(schemas: Schemas, schema: Union, datum: Any) -> Any:
    if datum is None:
        return None
    if len(schema.present) == 1:
        return _write(schemas, schema.present[0], datum)
    name, inner = datum
    branch = next(branch for branch in schema.present if branch_name(branch) == name)
    return {name: _write(schemas, branch, inner)}
