"""Data of any schema without a class for it: released versions, samples, JSON. Pure, and not on the hot path.

A datum is what fastavro would call one: a record is a dictionary by the fields' names, an array a list, an enum its
symbol, a logical value its Python value; where a union has several types beside null, a pair of the branch's name and
its datum.
"""

from typing import Any

from towpath.contract import values
from towpath.contract.binary import count_at, int_at, long_at, malformed, size_at, varint, zigzag
from towpath.contract.logical import conversion_of
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
from towpath.contract.structs import DOUBLE, SINGLE


def encode_datum(schemas: Schemas, name: str, datum: Any) -> bytes:
    """Return a datum of the type called `name` in Avro's binary form. The datum must fit."""
    buffer = bytearray()
    _write(schemas, Reference(name), datum, buffer)
    return bytes(buffer)


def decode_datum(schemas: Schemas, name: str, body: bytes) -> Any:
    """Return the datum that `body` holds. Raises what `binary` raises; for bytes of our own making."""
    datum, place = _read(schemas, Reference(name), body, 0)
    if place != len(body):
        malformed(f"{len(body) - place} bytes are left over")
    return datum


def _write(schemas: Schemas, schema: AvroType, datum: Any, buffer: bytearray) -> None:
    match schema:
        case Primitive():
            buffer += _primitive(schema, datum)
        case Array(items=items):
            _write_items(schemas, [(None, item) for item in datum], items, buffer)
        case Map(values=inner):
            _write_items(schemas, list(datum.items()), inner, buffer)
        case Union(branches=branches):
            branch, inner = _branch(schema, datum)
            buffer += varint(zigzag(branches.index(branch)))
            _write(schemas, branch, inner, buffer)
        case Reference(name=name):
            match schemas[name]:
                case RecordSchema(fields=fields):
                    for item in fields:
                        _write(schemas, item.type, datum[item.name], buffer)
                case EnumSchema(symbols=symbols):
                    buffer += varint(zigzag(symbols.index(datum)))
                case FixedSchema() as fixed:
                    buffer += _fixed(fixed, datum)


def _write_items(schemas: Schemas, items: list[tuple[Any, Any]], schema: AvroType, buffer: bytearray) -> None:
    if items:
        buffer += varint(zigzag(len(items)))
    for key, item in items:
        if key is not None:
            buffer += _primitive(Primitive("string"), key)
        _write(schemas, schema, item, buffer)
    buffer += b"\0"


def _branch(schema: Union, datum: Any) -> tuple[AvroType, Any]:
    if datum is None and schema.nullable:
        return NULL, None
    if len(schema.present) == 1:
        return schema.present[0], datum
    name, inner = datum
    return next(branch for branch in schema.branches if branch_name(branch) == name), inner


def _primitive(schema: Primitive, datum: Any) -> bytes:
    if schema.logical == "decimal":
        datum = values.decimal_bytes_of(datum, schema.precision or 0, schema.scale or 0)
    elif (to_raw := values.TO_RAW.get(schema.logical or "")) is not None:
        datum = to_raw(datum)
    match schema.name:
        case "null":
            return b""
        case "boolean":
            return b"\1" if datum else b"\0"
        case "int" | "long":
            return varint(zigzag(datum))
        case "float":
            return SINGLE.pack(datum)
        case "double":
            return DOUBLE.pack(datum)
        case name:
            content: bytes = datum.encode() if name == "string" else datum
            return varint(zigzag(len(content))) + content


def _fixed(schema: FixedSchema, datum: Any) -> bytes:
    match schema.logical:
        case "decimal":
            return values.decimal_fixed_of(datum, schema.precision or 0, schema.scale or 0, schema.size)
        case "uuid":
            return values.uuid_bytes_of(datum)
        case "duration":
            return values.duration_bytes_of(datum)
        case _:
            return bytes(datum)


def _read(schemas: Schemas, schema: AvroType, body: bytes, place: int) -> tuple[Any, int]:
    match schema:
        case Primitive():
            raw, place = _read_raw(schema.name, body, place)
            return _logical(schema, raw), place
        case Array(items=items):
            pairs, place = _read_items(schemas, items, body, place, keyed=False)
            return [item for _, item in pairs], place
        case Map(values=inner):
            pairs, place = _read_items(schemas, inner, body, place, keyed=True)
            return dict(pairs), place
        case Union(branches=branches):
            index, place = size_at(body, place)
            datum, place = _read(schemas, branches[index], body, place)
            return schema.datum(branches[index], datum), place
        case Reference(name=name):
            return _read_named(schemas, name, body, place)


def _read_named(schemas: Schemas, name: str, body: bytes, place: int) -> tuple[Any, int]:
    match schemas[name]:
        case RecordSchema(fields=fields):
            found: dict[str, Any] = {}
            for item in fields:
                found[item.name], place = _read(schemas, item.type, body, place)
            return found, place
        case EnumSchema(symbols=symbols):
            index, place = size_at(body, place)
            return symbols[index], place
        case FixedSchema() as fixed:
            return _logical(fixed, body[place : place + fixed.size]), place + fixed.size


def _read_items(
    schemas: Schemas, schema: AvroType, body: bytes, place: int, *, keyed: bool
) -> tuple[list[tuple[Any, Any]], int]:
    found: list[tuple[Any, Any]] = []
    while True:
        count, place = count_at(body, place)
        if not count:
            return found, place
        for _ in range(count):
            key, place = _read_raw("string", body, place) if keyed else (None, place)
            item, place = _read(schemas, schema, body, place)
            found.append((key, item))


def _read_raw(name: str, body: bytes, place: int) -> tuple[Any, int]:  # noqa: PLR0911 - a case each
    match name:
        case "null":
            return None, place
        case "boolean":
            return body[place] == 1, place + 1
        case "int":
            return int_at(body, place)
        case "long":
            return long_at(body, place)
        case "float":
            return SINGLE.unpack_from(body, place)[0], place + SINGLE.size
        case "double":
            return DOUBLE.unpack_from(body, place)[0], place + DOUBLE.size
        case _:
            size, place = size_at(body, place)
            content = body[place : place + size]
            return content.decode() if name == "string" else content, place + size


def _logical(schema: Primitive | FixedSchema, raw: Any) -> Any:
    conversion = conversion_of(schema, schema)
    assert conversion is not None
    return conversion(raw)
