"""Avro schemas as frozen values: what the generator, the codec and the compatibility rules reason about.

Pure. Attributes that Avro does not know are kept as `properties`: they are annotations, and no part of what is promised
to readers.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from towpath.errors import ContractError

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
# Logical type -> the Avro types that may carry it.
LOGICAL_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    "time-micros": frozenset({"long"}),
    "timestamp-millis": frozenset({"long"}),
    "timestamp-micros": frozenset({"long"}),
    "timestamp-nanos": frozenset({"long"}),
    "local-timestamp-millis": frozenset({"long"}),
    "local-timestamp-micros": frozenset({"long"}),
    "local-timestamp-nanos": frozenset({"long"}),
    "uuid": frozenset({"string", "fixed"}),
    "decimal": frozenset({"bytes", "fixed"}),
    "duration": frozenset({"fixed"}),
}
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _annotations() -> Any:
    """Return the field for attributes of a type that has no name: kept, and no part of what makes two types equal."""
    return field(default_factory=lambda: _NOTHING, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Primitive:
    """One of Avro's eight primitive types, perhaps with a logical type on top."""

    name: str
    logical: str | None = None
    precision: int | None = None
    scale: int | None = None
    properties: Mapping[str, Any] = _annotations()


@dataclass(frozen=True, slots=True)
class Array:
    """A list of `items`."""

    items: "AvroType"
    properties: Mapping[str, Any] = _annotations()


@dataclass(frozen=True, slots=True)
class Map:
    """Texts to `values`."""

    values: "AvroType"
    properties: Mapping[str, Any] = _annotations()


@dataclass(frozen=True, slots=True)
class Union:
    """One of `branches`."""

    branches: tuple["AvroType", ...]

    @property
    def nullable(self) -> bool:
        """Return whether null is among the branches."""
        return NULL in self.branches

    @property
    def present(self) -> tuple["AvroType", ...]:
        """Return the branches other than null."""
        return tuple(branch for branch in self.branches if branch != NULL)

    def datum(self, branch: "AvroType", inner: Any) -> Any:
        """Return a datum of one branch: with the branch's name where more than one is possible."""
        return inner if branch == NULL or len(self.present) == 1 else (branch_name(branch), inner)


@dataclass(frozen=True, slots=True)
class Reference:
    """A named type, by its full name; `Schemas` holds what it stands for."""

    name: str


AvroType = Primitive | Array | Map | Union | Reference
NULL: Final = Primitive("null")


def branch_name(branch: AvroType) -> str:
    """Return the name that Avro's JSON gives a branch of a union."""
    return branch.name if isinstance(branch, Primitive | Reference) else type(branch).__name__.lower()


class _Missing:
    """The default of a field that has none (null is a default like any other)."""

    def __repr__(self) -> str:
        return "no default"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record. `default` is Avro's JSON form of it, or MISSING; `properties` are attributes of yours."""

    name: str
    type: AvroType
    default: Any = MISSING
    doc: str = ""
    aliases: tuple[str, ...] = ()
    order: str = "ascending"
    properties: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @property
    def has_default(self) -> bool:
        """Return whether a reader can do without this field."""
        return self.default is not MISSING


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """A record; `name` is the full name. `is_error` is true of those that Avro's protocols call errors."""

    name: str
    fields: tuple[Field, ...]
    doc: str = ""
    aliases: tuple[str, ...] = ()
    is_error: bool = False
    properties: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class EnumSchema:
    """An enumeration; `default` is what a reader takes for a symbol that it does not know."""

    name: str
    symbols: tuple[str, ...]
    default: str | None = None
    doc: str = ""
    aliases: tuple[str, ...] = ()
    properties: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class FixedSchema:
    """`size` bytes, no more and no less, perhaps with a logical type on top."""

    name: str
    size: int
    doc: str = ""
    aliases: tuple[str, ...] = ()
    logical: str | None = None
    precision: int | None = None
    scale: int | None = None
    properties: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


NamedSchema = RecordSchema | EnumSchema | FixedSchema


@dataclass(frozen=True, slots=True)
class Schemas:
    """Named schemas that refer to each other by full name; closed once `towpath.contract.files` has loaded them."""

    by_name: Mapping[str, NamedSchema] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __getitem__(self, name: str) -> NamedSchema:
        return self.by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def record(self, name: str) -> RecordSchema:
        """Return the record called `name`. Raises ContractError where it is none."""
        found = self.by_name.get(name)
        if not isinstance(found, RecordSchema):
            raise ContractError(f"{name} is not a record of these schemas", next_step="add its .avsc file")
        return found

    def records(self) -> Iterator[RecordSchema]:
        """Yield the records, by name."""
        for name in sorted(self.by_name):
            if isinstance(found := self.by_name[name], RecordSchema):
                yield found

    def reachable(self, name: str) -> tuple[str, ...]:
        """Return `name` and every named schema that it contains, each once, the contained ones first."""
        order: list[str] = []
        seen: set[str] = set()

        def visit(current: str) -> None:
            if current in seen or current not in self.by_name:
                return
            seen.add(current)
            for target in references(self.by_name[current]):
                visit(target)
            order.append(current)

        visit(name)
        return tuple(order)

    def avro(self, name: str, *, docs: bool = True) -> dict[str, Any]:
        """Return the schema called `name` as one JSON object that needs no other: each named type is written out
        where it first occurs, and by name after that.
        """
        return _Writer(self, docs).named(name)

    def fingerprint(self, name: str) -> str:
        """Return the SHA-256 of the whole schema, documentation aside, as 64 hexadecimal digits.

        Unlike Avro's parsing canonical form it keeps defaults, aliases and logical types: they decide what a reader
        makes of a record.
        """
        found = self._fingerprints.get(name)
        if found is None:
            text = json.dumps(self.avro(name, docs=False), sort_keys=True, separators=(",", ":"))
            found = self._fingerprints[name] = hashlib.sha256(text.encode()).hexdigest()
        return found


def references(schema: NamedSchema | AvroType) -> Iterator[str]:
    """Yield the full names that `schema` refers to directly."""
    match schema:
        case RecordSchema():
            for item in schema.fields:
                yield from references(item.type)
        case Array(items=inner) | Map(values=inner):
            yield from references(inner)
        case Union(branches=branches):
            for branch in branches:
                yield from references(branch)
        case Reference(name=name):
            yield name


def unions(schema: NamedSchema | AvroType) -> Iterator[Union]:
    """Yield every union that `schema` itself writes down."""
    match schema:
        case RecordSchema():
            for item in schema.fields:
                yield from unions(item.type)
        case Array(items=inner) | Map(values=inner):
            yield from unions(inner)
        case Union(branches=branches):
            yield schema
            for branch in branches:
                yield from unions(branch)


def has_map(schemas: Schemas, schema: AvroType) -> bool:
    """Return whether values of a type hold a map: the one thing in a record that a program can change."""

    def holds(current: AvroType) -> bool:
        match current:
            case Map():
                return True
            case Array(items=inner):
                return holds(inner)
            case Union(branches=branches):
                return any(holds(branch) for branch in branches)
            case _:
                return False

    inside = {name for target in references(schema) for name in schemas.reachable(target)}
    records = [schemas[name] for name in inside]
    return holds(schema) or any(
        holds(item.type) for found in records if isinstance(found, RecordSchema) for item in found.fields
    )


class _Writer:
    """Writes one schema as JSON, each named type in full once."""

    def __init__(self, schemas: Schemas, docs: bool) -> None:
        self._schemas = schemas
        self._docs = docs
        self._written: set[str] = set()

    def named(self, name: str) -> dict[str, Any]:
        self._written.add(name)
        schema = self._schemas[name]
        namespace, _, short = name.rpartition(".")
        head: dict[str, Any] = {"name": short, "namespace": namespace}
        if self._docs and schema.doc:
            head["doc"] = schema.doc
        if schema.aliases:
            head["aliases"] = list(schema.aliases)
        if self._docs:
            head |= schema.properties
        match schema:
            case RecordSchema():
                kind = "error" if schema.is_error else "record"
                return {"type": kind, **head, "fields": [self._field(item) for item in schema.fields]}
            case EnumSchema():
                default = {} if schema.default is None else {"default": schema.default}
                return {"type": "enum", **head, "symbols": list(schema.symbols), **default}
            case FixedSchema():
                return {"type": "fixed", **head, "size": schema.size, **_logical(schema)}

    def _field(self, item: Field) -> dict[str, Any]:
        written: dict[str, Any] = {"name": item.name, "type": self._type(item.type)}
        if item.has_default:
            written["default"] = item.default
        if self._docs and item.doc:
            written["doc"] = item.doc
        if item.aliases:
            written["aliases"] = list(item.aliases)
        if self._docs:
            written |= {"order": item.order} if item.order != "ascending" else {}
            written |= item.properties
        return written

    def _type(self, schema: AvroType) -> Any:
        match schema:
            case Primitive():
                more = {**_logical(schema), **self._properties(schema)}
                return {"type": schema.name, **more} if more else schema.name
            case Array():
                return {"type": "array", "items": self._type(schema.items), **self._properties(schema)}
            case Map():
                return {"type": "map", "values": self._type(schema.values), **self._properties(schema)}
            case Union():
                return [self._type(branch) for branch in schema.branches]
            case Reference():
                return schema.name if schema.name in self._written else self.named(schema.name)

    def _properties(self, schema: Primitive | Array | Map) -> Mapping[str, Any]:
        return schema.properties if self._docs else {}


def _logical(schema: Primitive | FixedSchema) -> dict[str, Any]:
    """Return the attributes of a logical type; none where there is none."""
    numbers = {"logicalType": schema.logical, "precision": schema.precision, "scale": schema.scale}
    return {name: value for name, value in numbers.items() if value is not None}
