"""Defaults: whether the JSON of one fits its type, and the value that it stands for. Pure.

The rules are those of Avro 1.12: a union's default may be of any branch (the first that it fits), bytes are a text of
code points up to 255, and a record's default may leave out fields that have defaults themselves.
"""

from collections.abc import Mapping
from typing import Any

from towpath.contract.logical import conversion_of
from towpath.contract.python_names import attributes
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
from towpath.contract.structs import SINGLE
from towpath.contract.values import INT_RANGE, LONG_RANGE, SINGLE_MAX


def default_problem(schemas: Schemas, schema: AvroType, default: Any) -> str | None:  # noqa: PLR0911 - a case each
    """Return why a default does not fit its type; None where it fits."""
    match schema:
        case Union(branches=branches):
            problems = [default_problem(schemas, branch, default) for branch in branches]
            return None if None in problems else f"it fits no type of the union: {'; '.join(filter(None, problems))}"
        case Array(items=items):
            if not isinstance(default, list):
                return _takes("a list", default)
            return next(filter(None, (default_problem(schemas, items, item) for item in default)), None)
        case Map(values=inner):
            if not isinstance(default, dict):
                return _takes("an object", default)
            return next(filter(None, (default_problem(schemas, inner, item) for item in default.values())), None)
        case Reference(name=name):
            return _named_problem(schemas, name, default)
        case Primitive():
            return _plain_problem(schema, default) or _logical_problem(schema, default)


def _named_problem(schemas: Schemas, name: str, default: Any) -> str | None:  # noqa: PLR0911 - a case each
    match schemas[name]:
        case EnumSchema(symbols=symbols):
            return None if default in symbols else f"{name} takes one of {', '.join(symbols)}, not {default!r}"
        case FixedSchema(size=size) as fixed:
            if _latin(default) is None or len(default) != size:
                return _takes(f"a text of {size} code points up to 255", default)
            return _logical_problem(fixed, default)
        case RecordSchema(fields=fields):
            if not isinstance(default, dict):
                return _takes(f"an object ({name})", default)
            unknown = sorted(set(default) - {item.name for item in fields})
            if unknown:
                return f"{name} has no field {unknown[0]!r}"
            for item in fields:
                if item.name not in default and not item.has_default:
                    return f"{name}.{item.name} is left out, and has no default itself"
                problem = default_problem(schemas, item.type, default[item.name]) if item.name in default else None
                if problem:
                    return f"{name}.{item.name}: {problem}"
            return None


def _plain_problem(schema: Primitive, default: Any) -> str | None:  # noqa: PLR0911 - a case each
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    match schema.name:
        case "null":
            return None if default is None else _takes("null", default)
        case "boolean":
            return None if isinstance(default, bool) else _takes("true or false", default)
        case "int" | "long":
            bits, allowed = (32, INT_RANGE) if schema.name == "int" else (64, LONG_RANGE)
            fits = is_number and isinstance(default, int) and default in allowed
            return None if fits else _takes(f"a whole number of {bits} bits", default)
        case "float":
            return None if is_number and abs(default) <= SINGLE_MAX else _takes("a number of 32 bits", default)
        case "double":
            try:
                return None if is_number and float(default) == default else _takes("a number", default)
            except OverflowError:
                return _takes("a number of 64 bits", default)
        case "bytes":
            return None if _latin(default) is not None else _takes("a text of code points up to 255", default)
        case _:
            return None if isinstance(default, str) else _takes("a text", default)


def _logical_problem(schema: Primitive | FixedSchema, default: Any) -> str | None:
    try:
        _converted(schema, default)
    except (ValueError, OverflowError):
        return f"{default!r} is no {schema.logical}"
    return None


def _takes(takes: str, default: Any) -> str:
    return f"it takes {takes}, not {default!r}"


def _latin(default: Any) -> bytes | None:
    try:
        return default.encode("latin-1") if isinstance(default, str) else None
    except UnicodeEncodeError:
        return None


def _raw(schema: Primitive | FixedSchema, default: Any) -> Any:
    if isinstance(schema, FixedSchema) or schema.name == "bytes":
        return _latin(default)
    if schema.name == "float":  # what 32 bits make of it, so that a default equals itself once it has travelled
        return SINGLE.unpack(SINGLE.pack(default))[0]
    return float(default) if schema.name == "double" else default


def _converted(schema: Primitive | FixedSchema, default: Any) -> Any:
    conversion = conversion_of(schema, schema)
    assert conversion is not None
    return conversion(_raw(schema, default))


def chosen(schemas: Schemas, union: Union, default: Any) -> AvroType:
    """Return the branch that a union's default belongs to: the first that it fits."""
    fitting = (branch for branch in union.branches if default_problem(schemas, branch, default) is None)
    return next(fitting, union.branches[0])


def default_value(  # noqa: PLR0911 - a case each
    schemas: Schemas, classes: Mapping[str, type[Any]], schema: AvroType, default: Any
) -> Any:
    """Return a default as the value that a record holds. The default must fit (see `default_problem`)."""
    match schema:
        case Union():
            return default_value(schemas, classes, chosen(schemas, schema, default), default)
        case Array(items=items):
            return tuple(default_value(schemas, classes, items, item) for item in default)
        case Map(values=inner):
            return {key: default_value(schemas, classes, inner, item) for key, item in default.items()}
        case Reference(name=name):
            match schemas[name]:
                case EnumSchema():
                    return classes[name](default)
                case FixedSchema() as fixed:
                    return _converted(fixed, default)
                case RecordSchema() as record:
                    names = attributes(record)
                    given = {item.name: default.get(item.name, item.default) for item in record.fields}
                    return classes[name](
                        **{
                            names[item.name]: default_value(schemas, classes, item.type, given[item.name])
                            for item in record.fields
                        }
                    )
        case Primitive():
            return _converted(schema, default)


def default_datum(schemas: Schemas, schema: AvroType, default: Any) -> Any:  # noqa: PLR0911 - a case each
    """Return a default as a datum (see `towpath.contract.datum`). The default must fit (see `default_problem`)."""
    match schema:
        case Union():
            branch = chosen(schemas, schema, default)
            datum = default_datum(schemas, branch, default)
            return schema.datum(branch, datum)
        case Array(items=items):
            return [default_datum(schemas, items, item) for item in default]
        case Map(values=inner):
            return {key: default_datum(schemas, inner, item) for key, item in default.items()}
        case Reference(name=name):
            match schemas[name]:
                case RecordSchema(fields=fields):
                    given = {item.name: default.get(item.name, item.default) for item in fields}
                    return {item.name: default_datum(schemas, item.type, given[item.name]) for item in fields}
                case FixedSchema() as fixed:
                    return _converted(fixed, default)
                case _:
                    return default
        case Primitive():
            return _converted(schema, default)
