"""Makes random data of a schema, for tests of every kind. Pure: chance comes in as a `Random` with a known seed."""

import string
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final
from uuid import UUID

from towpath.contract.record import Duration
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
from towpath.contract.values import EPOCH, LOCAL_EPOCH

_ITEMS_MAX: Final = 3
# Records may contain themselves; past this depth lists stay empty and what may be null is null.
_DEPTH_MAX: Final = 6
_TEXTS: Final = string.ascii_letters + string.digits + " -_äß€漢\u0000\U0001f6a3"
_MILLISECONDS_2100: Final = 4_102_444_800_000


def sample(schemas: Schemas, name: str, chance: Random) -> dict[str, Any]:
    """Return one random datum of the record called `name` (see `towpath.contract.datum`)."""
    return {item.name: _value(schemas, item.type, chance, 0) for item in schemas.record(name).fields}


def _value(schemas: Schemas, schema: AvroType, chance: Random, depth: int) -> Any:  # noqa: PLR0911 - a case each
    match schema:
        case Primitive():
            return _plain(schema.logical or schema.name, schema, chance)
        case Array(items=items):
            return [_value(schemas, items, chance, depth + 1) for _ in range(_count(chance, depth))]
        case Map(values=values):
            return {_text(chance): _value(schemas, values, chance, depth + 1) for _ in range(_count(chance, depth))}
        case Union():
            if schema.nullable and (depth >= _DEPTH_MAX or not schema.present or chance.random() < 0.3):
                return None
            # Deep inside, what holds no record again, so that a record that contains itself comes to an end.
            shallow = [branch for branch in schema.present if not isinstance(branch, Reference)]
            branch = chance.choice(shallow if shallow and depth >= _DEPTH_MAX else schema.present)
            return schema.datum(branch, _value(schemas, branch, chance, depth + 1))
        case Reference(name=name):
            match schemas[name]:
                case RecordSchema(fields=fields):
                    return {item.name: _value(schemas, item.type, chance, depth + 1) for item in fields}
                case EnumSchema(symbols=symbols):
                    return chance.choice(symbols)
                case FixedSchema(size=size, logical=None):
                    return chance.randbytes(size)
                case FixedSchema(logical=str() as logical) as fixed:
                    return _plain(logical, fixed, chance)


def _count(chance: Random, depth: int) -> int:
    return 0 if depth >= _DEPTH_MAX else chance.randint(0, _ITEMS_MAX)


def _text(chance: Random) -> str:
    return "".join(chance.choices(_TEXTS, k=chance.randint(0, 12)))


def _whole(chance: Random, bits: int) -> int:
    """Return a number that is small, or at the edge of what `bits` bits hold: both have their own encoding."""
    largest = 2 ** (bits - 1)
    return chance.choice((chance.randint(-70, 70), chance.randint(-largest, largest - 1), -largest, largest - 1))


def _plain(kind: str, schema: Primitive | FixedSchema, chance: Random) -> Any:
    if kind != "decimal":
        return _MAKE[kind](chance)
    digits = chance.randint(1, schema.precision or 1)
    largest: int = 10**digits - 1
    sign, digits_of = chance.randint(0, 1), tuple(int(digit) for digit in str(chance.randint(0, largest)))
    return Decimal((sign if any(digits_of) else 0, digits_of, -(schema.scale or 0)))


def _single(chance: Random) -> float:
    """Return a number that 32 bits hold exactly."""
    return chance.randint(-(2**20), 2**20) / 1024


def _time_of_day(chance: Random, step: int) -> time:
    micros = chance.randrange(0, 86_400_000_000, step)
    return (datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).time()


_MAKE: Final[Mapping[str, Callable[[Random], Any]]] = {
    "null": lambda _: None,
    "boolean": lambda chance: chance.random() < 0.5,
    "int": lambda chance: _whole(chance, 32),
    "long": lambda chance: _whole(chance, 64),
    "float": _single,
    "double": lambda chance: chance.uniform(-1e9, 1e9),
    "bytes": lambda chance: chance.randbytes(chance.randint(0, 12)),
    "string": _text,
    "date": lambda chance: date(1970, 1, 1) + timedelta(days=chance.randint(-20_000, 40_000)),
    "time-millis": lambda chance: _time_of_day(chance, 1000),
    "time-micros": lambda chance: _time_of_day(chance, 1),
    "timestamp-millis": lambda chance: EPOCH + timedelta(milliseconds=chance.randint(0, _MILLISECONDS_2100)),
    "timestamp-micros": lambda chance: EPOCH + timedelta(microseconds=chance.randint(0, _MILLISECONDS_2100 * 1000)),
    "timestamp-nanos": lambda chance: _whole(chance, 64),
    "local-timestamp-millis": lambda chance: (
        LOCAL_EPOCH + timedelta(milliseconds=chance.randint(-(10**12), _MILLISECONDS_2100))
    ),
    "local-timestamp-micros": lambda chance: (
        LOCAL_EPOCH + timedelta(microseconds=chance.randint(-(10**15), _MILLISECONDS_2100 * 1000))
    ),
    "local-timestamp-nanos": lambda chance: _whole(chance, 64),
    "duration": lambda chance: Duration(
        months=chance.randrange(2**32), days=chance.randrange(400), milliseconds=chance.randrange(2**32)
    ),
    "uuid": lambda chance: UUID(int=chance.getrandbits(128)),
}
