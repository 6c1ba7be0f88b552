"""Compiles, once per record class, the functions that turn a record into what fastavro writes and back.

Pure. A record is walked by straight-line code made for its class, so that no field is looked up by name at run time;
that is what keeps encode and decode together within 40 microseconds (bench/codec.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isinf, isnan
from typing import Any, Final
from uuid import UUID

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

Datum = dict[str, Any]
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
INT_RANGE: Final = range(-(2**31), 2**31)
# The largest number that a float of 32 bits holds.
SINGLE_MAX: Final = (2 - 2**-23) * 2.0**127
LONG_RANGE: Final = range(-(2**63), 2**63)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MICROSECOND: Final = timedelta(microseconds=1)


class Unfit(ValueError):
    """A value does not fit its field. The text says what it is and what the field takes, never the value."""


def unfit(value: object, takes: str) -> Any:
    """Raise Unfit; an expression, so that compiled code can call it."""
    raise Unfit(f"takes {takes}, not {type(value).__name__}")


def _milliseconds(value: Any) -> int:
    """Return an aware datetime as whole milliseconds since 1970; what is finer is cut off, as the schema says."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        unfit(value, "a datetime with a time zone")
    return int((value - EPOCH) // _MILLISECOND)


def _microseconds(value: Any) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        unfit(value, "a datetime with a time zone")
    return int((value - EPOCH) // _MICROSECOND)


def _instance(kind: type[Any], takes: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        return value if isinstance(value, kind) else unfit(value, takes)

    return check


def _date(value: Any) -> date:
    # A datetime is a date to Python; its time would be lost without a word.
    if not isinstance(value, date) or isinstance(value, datetime):
        unfit(value, "a date")
    return value  # type: ignore[no-any-return]


def _uuid(value: Any) -> str:
    return str(value) if isinstance(value, UUID) else str(unfit(value, "a UUID"))


def _float(value: Any) -> float:
    # Type checkers let an int stand for a float, so it may.
    return float(value) if value.__class__ in (float, int) else float(unfit(value, "a float"))


def _single(value: Any) -> float:
    """Return a float that 32 bits hold; fastavro would write a larger one as infinity."""
    number = _float(value)
    return number if abs(number) <= SINGLE_MAX or isinf(number) or isnan(number) else float(unfit(value, "32 bits"))


def fits_decimal(value: Decimal, precision: int, scale: int) -> bool:
    """Return whether a decimal field holds `value` exactly: Avro keeps it as a whole number of its smallest units."""
    _, digits, exponent = value.as_tuple()
    return isinstance(exponent, int) and -exponent <= scale and len(digits) + exponent + scale <= precision


def _decimal(value: Any, precision: int, scale: int) -> Decimal:
    # fastavro counts the digits as they are written, and lets 1234567 into 8 digits with 2 after the point.
    fits = isinstance(value, Decimal) and fits_decimal(value, precision, scale)
    return value if fits else unfit(value, "another Decimal")  # type: ignore[no-any-return]


# Helpers that compiled code calls, by the name under which it finds them.
_HELPERS: Final[Mapping[str, Any]] = {
    "unfit": unfit,
    "float_of": _float,
    "single": _single,
    "milliseconds": _milliseconds,
    "microseconds": _microseconds,
    "date": _date,
    "time": _instance(time, "a time of day"),
    "decimal": _decimal,
    "uuid": _uuid,
    "array": _instance(tuple, "a tuple"),
    "mapping": _instance(dict, "a dict"),
}
_LOGICAL_HELPERS: Final = {
    "timestamp-millis": "milliseconds",
    "timestamp-micros": "microseconds",
    "date": "date",
    "time-millis": "time",
    "time-micros": "time",
    "uuid": "uuid",
}


@dataclass(frozen=True, slots=True)
class Converter:
    """What turns records of one class into data that fastavro writes (`out`), and what it read back (`back`)."""

    out: Callable[[Any], Datum]
    back: Callable[[Datum], Record]


def compile_converters(schemas: Schemas, classes: Mapping[str, type[Any]]) -> dict[str, Converter]:
    """Return a converter for each record among `classes` (records and the enums that they hold), by full name."""
    compiler = _Compiler(schemas)
    records = [name for name in classes if isinstance(schemas[name], RecordSchema)]
    source = "\n".join(compiler.functions(schemas.record(name)) for name in records)
    names: dict[str, Any] = {**_HELPERS, **{f"class_{_safe(name)}": found for name, found in classes.items()}}
    exec(compile(source, "<towpath.contract.convert>", "exec"), names)  # noqa: S102 - the text is made above, from checked names
    return {name: Converter(names[f"out_{_safe(name)}"], names[f"back_{_safe(name)}"]) for name in records}


class _Compiler:
    """Writes the source of the converters."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._counter = 0

    def functions(self, schema: RecordSchema) -> str:
        """Return the two functions of one record as source."""
        name = _safe(schema.name)
        out = ", ".join(f"{item.name!r}: {self._out(item.type, f'r.{item.name}')}" for item in schema.fields)
        back = ", ".join(f"{item.name}={self._back(item.type, f'd[{item.name!r}]')}" for item in schema.fields)
        return (
            f"def out_{name}(r):\n"
            f"    if r.__class__ is not class_{name}: unfit(r, {schema.name!r})\n"
            f"    return {{{out}}}\n"
            f"def back_{name}(d):\n"
            f"    return class_{name}({back})\n"
        )

    def _variable(self) -> str:
        self._counter += 1
        return f"v{self._counter}"

    def _out(self, schema: AvroType, value: str) -> str:  # noqa: PLR0911 - a case each
        """Return the expression that turns the Python value `value` into fastavro's."""
        match schema:
            case Primitive(logical="decimal"):
                return f"decimal({value}, {schema.precision}, {schema.scale})"
            case Primitive(logical=str() as logical):
                return f"{_LOGICAL_HELPERS[logical]}({value})"
            case Primitive(name=name):
                return self._out_primitive(name, value)
            case Array(items=items):
                each = self._variable()
                return f"[{self._out(items, each)} for {each} in array({value})]"
            case Map(values=values):
                key, each = self._variable(), self._variable()
                return f"{{{key}: {self._out(values, each)} for {key}, {each} in mapping({value}).items()}}"
            case Union():
                return self._out_union(schema, value)
            case Reference(name=name):
                return self._out_named(name, value)

    def _out_primitive(self, name: str, value: str) -> str:
        held = self._variable()
        match name:
            case "int" | "long":
                bound = INT_RANGE if name == "int" else LONG_RANGE
                fits = f"({held} := {value}).__class__ is int and {bound.start} <= {held} < {bound.stop}"
                words = f"an int of {32 if name == 'int' else 64} bits"
            case "boolean":
                fits, words = f"({held} := {value}).__class__ is bool", "a bool"
            case "float":
                return f"single({value})"
            case "double":
                return f"({held} if ({held} := {value}).__class__ is float else float_of({held}))"
            case "bytes":
                fits, words = f"({held} := {value}).__class__ is bytes", "bytes"
            case "string":
                fits, words = f"({held} := {value}).__class__ is str", "a str"
            case _:
                fits, words = f"({held} := {value}) is None", "None"
        return f"({held} if {fits} else unfit({held}, {words!r}))"

    def _out_named(self, name: str, value: str) -> str:
        match self._schemas[name]:
            case RecordSchema():
                return f"out_{_safe(name)}({value})"
            case EnumSchema():
                held, known = self._variable(), f"class_{_safe(name)}"
                fits = f"({held} := {value}).__class__ is {known}"
                return f"({held}.value if {fits} else unfit({held}, {name!r}))"
            case FixedSchema(size=size):
                held = self._variable()
                fits = f"({held} := {value}).__class__ is bytes and len({held}) == {size}"
                return f"({held} if {fits} else unfit({held}, '{size} bytes'))"

    def _out_union(self, schema: Union, value: str) -> str:
        held = self._variable()
        branches = schema.present
        if len(branches) == 1:
            inner = self._out_branch(branches[0], held)
        else:
            inner = f"unfit({held}, 'another type')"
            for branch in reversed(branches):
                assert isinstance(branch, Reference)  # `towpath.contract.files` lets no other union pass
                known = f"class_{_safe(branch.name)}"
                inner = f"{self._out_branch(branch, held)} if {held}.__class__ is {known} else {inner}"
        empty = "None" if schema.nullable else f"unfit({held}, 'a value')"
        return f"({empty} if ({held} := {value}) is None else {inner})"

    def _out_branch(self, branch: AvroType, held: str) -> str:
        """Name a record's branch: fastavro else tries the record against each branch, field by field."""
        inner = self._out(branch, held)
        if isinstance(branch, Reference) and isinstance(self._schemas[branch.name], RecordSchema):
            return f"({branch.name!r}, {inner})"
        return inner

    def _back(self, schema: AvroType, value: str) -> str:
        """Return the expression that turns what fastavro read into the Python value."""
        match schema:
            case Array(items=items):
                each = self._variable()
                inner = self._back(items, each)
                return f"tuple({value})" if inner == each else f"tuple([{inner} for {each} in {value}])"
            case Map(values=values):
                key, each = self._variable(), self._variable()
                inner = self._back(values, each)
                return value if inner == each else f"{{{key}: {inner} for {key}, {each} in {value}.items()}}"
            case Union():
                return self._back_union(schema, value)
            case Reference(name=name) if isinstance(self._schemas[name], RecordSchema):
                return f"back_{_safe(name)}({value})"
            case Reference(name=name) if isinstance(self._schemas[name], EnumSchema):
                return f"class_{_safe(name)}({value})"
            case _:
                return value

    def _back_union(self, schema: Union, value: str) -> str:
        held = self._variable()
        branches = schema.present
        if len(branches) == 1:
            inner = self._back(branches[0], held)
            return value if inner == held else f"(None if ({held} := {value}) is None else {inner})"
        table = ", ".join(f"{b.name!r}: back_{_safe(b.name)}" for b in branches if isinstance(b, Reference))
        found = f"{{{table}}}[{held}[0]]({held}[1])"
        return f"(None if ({held} := {value}) is None else {found})"


def _safe(name: str) -> str:
    """Return a full name as a Python identifier."""
    return name.replace("_", "__").replace(".", "_")
