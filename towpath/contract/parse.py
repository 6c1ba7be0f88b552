"""Reads Avro's JSON into `towpath.contract.schema`, refusing by name whatever Avro would silently ignore. Pure."""

import difflib
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from towpath.contract.schema import (
    LOGICAL_TYPES,
    MISSING,
    PRIMITIVES,
    Array,
    AvroType,
    EnumSchema,
    Field,
    FixedSchema,
    Map,
    NamedSchema,
    Primitive,
    RecordSchema,
    Reference,
    Union,
)
from towpath.errors import ContractError

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Attribute -> whether it must be there, for each complex type.
_ATTRIBUTES: Final[Mapping[str, frozenset[str]]] = {
    "record": frozenset({"type", "name", "namespace", "doc", "aliases", "fields"}),
    "enum": frozenset({"type", "name", "namespace", "doc", "aliases", "symbols", "default"}),
    "fixed": frozenset({"type", "name", "namespace", "doc", "aliases", "size"}),
    "array": frozenset({"type", "items"}),
    "map": frozenset({"type", "values"}),
    "field": frozenset({"name", "type", "default", "doc", "aliases"}),
    "primitive": frozenset({"type", "logicalType", "precision", "scale"}),
}


def parse(content: Any, *, source: str) -> dict[str, NamedSchema]:
    """Return the named schemas that one Avro file defines, the outermost first, by full name.

    `source` names the file in errors. Raises ContractError, naming the place, for anything that is not Avro and for
    attributes that Avro does not know.
    """
    parser = _Parser(source)
    if not isinstance(content, dict) or content.get("type") not in {"record", "enum", "fixed"}:
        raise ContractError(f"{source}: a file holds one record, enum or fixed", next_step="give it a type and a name")
    outermost = parser.type(content, "", source)
    assert isinstance(outermost, Reference)
    found = parser.found
    return {outermost.name: found[outermost.name], **found}


def misspelt(unknown: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """Return ` (did you mean ...?)` where `unknown` looks like one of `known`, else nothing.

    `likeness` is difflib's ratio from which on two names look alike, between 0 and 1.
    """
    close = difflib.get_close_matches(unknown, sorted(known), n=1, cutoff=likeness)
    return f" (did you mean {close[0]!r}?)" if close else ""


class _Parser:
    """Walks one file; remembers the named types that it defines."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.found: dict[str, NamedSchema] = {}

    def type(self, content: Any, namespace: str, where: str) -> AvroType:  # noqa: PLR0911 - a case each
        if isinstance(content, str):
            return Primitive(content) if content in PRIMITIVES else Reference(_full_name(content, namespace))
        if isinstance(content, list):
            return self._union(content, namespace, where)
        if not isinstance(content, dict):
            raise self._error(where, f"{content!r} is no Avro type")
        kind = content.get("type")
        if kind in {"record", "enum", "fixed"}:
            return self._named(kind, content, namespace, where)
        if kind == "array":
            self._known(content, "array", where, required={"items"})
            return Array(self.type(content["items"], namespace, f"{where}[]"))
        if kind == "map":
            self._known(content, "map", where, required={"values"})
            return Map(self.type(content["values"], namespace, f"{where}{{}}"))
        if isinstance(kind, dict | list):
            self._known(content, "primitive", where, required={"type"})
            return self.type(kind, namespace, where)
        if kind in PRIMITIVES:
            return self._primitive(kind, content, where)
        raise self._error(where, f"{kind!r} is no Avro type{misspelt(str(kind), PRIMITIVES | {'record', 'enum'})}")

    def _primitive(self, name: str, content: dict[str, Any], where: str) -> Primitive:
        self._known(content, "primitive", where, required=set())
        logical = content.get("logicalType")
        if logical is None:
            return Primitive(name)
        if logical not in LOGICAL_TYPES:
            raise self._error(where, f"unknown logical type {logical!r}{misspelt(str(logical), LOGICAL_TYPES)}")
        if name not in LOGICAL_TYPES[logical]:
            raise self._error(where, f"{logical} is carried by {sorted(LOGICAL_TYPES[logical])}, not by {name}")
        if logical != "decimal":
            return Primitive(name, logical)
        precision, scale = content.get("precision"), content.get("scale", 0)
        if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision:
            raise self._error(where, "a decimal needs a precision, and a scale between 0 and the precision")
        return Primitive(name, logical, precision, scale)

    def _union(self, content: list[Any], namespace: str, where: str) -> Union:
        branches = tuple(self.type(branch, namespace, where) for branch in content)
        kinds = [branch.name if isinstance(branch, Primitive | Reference) else type(branch) for branch in branches]
        if len(branches) < 2 or len(set(kinds)) != len(kinds) or any(isinstance(b, Union) for b in branches):
            raise self._error(where, "a union needs two or more different types and holds no union")
        return Union(branches)

    def _named(self, kind: str, content: dict[str, Any], namespace: str, where: str) -> Reference:
        self._known(
            content, kind, where, required={"name"} | {"record": {"fields"}, "enum": {"symbols"}}.get(kind, {"size"})
        )
        name = _full_name(content["name"], content.get("namespace", namespace))
        for part in name.split("."):
            if not _NAME.match(part):
                raise self._error(where, f"{name!r} is no Avro name")
        if name in self.found:
            raise self._error(where, f"{name} is defined twice")
        own_namespace = name.rpartition(".")[0]
        aliases = tuple(_full_name(alias, own_namespace) for alias in content.get("aliases", ()))
        common = {"doc": content.get("doc", ""), "aliases": aliases}
        if kind == "enum":
            self.found[name] = EnumSchema(name, self._symbols(content, name), content.get("default"), **common)
        elif kind == "fixed":
            self.found[name] = FixedSchema(name, content["size"], **common)
        else:
            self.found[name] = RecordSchema(name, ())  # so that a field may refer to the record that holds it
            fields = tuple(self._field(item, own_namespace, name) for item in content["fields"])
            names = [item.name for item in fields]
            if len(set(names)) != len(names):
                raise self._error(name, "two fields have the same name")
            self.found[name] = RecordSchema(name, fields, **common)
        return Reference(name)

    def _symbols(self, content: dict[str, Any], where: str) -> tuple[str, ...]:
        symbols = tuple(content["symbols"])
        if not symbols or len({symbol.upper() for symbol in symbols}) != len(symbols):
            raise self._error(where, "the symbols must be there, and differ in more than their case")
        for symbol in symbols:
            if not _NAME.match(symbol):
                raise self._error(where, f"{symbol!r} is no symbol of an enum")
        default = content.get("default")
        if default is not None and default not in symbols:
            raise self._error(where, f"the default {default!r} is none of the symbols{misspelt(str(default), symbols)}")
        return symbols

    def _field(self, content: Any, namespace: str, record: str) -> Field:
        if not isinstance(content, dict) or not isinstance(content.get("name"), str):
            raise self._error(record, f"a field needs a name: {content!r}")
        name = content["name"]
        where = f"{record}.{name}"
        self._known(content, "field", where, required={"type"})
        if not _NAME.match(name) or keyword.iskeyword(name) or name.startswith("_") or name.isupper():
            raise self._error(where, "a field's name is lower case and not a word of Python")
        schema = self.type(content["type"], namespace, where)
        default = content.get("default", MISSING)
        if default is not MISSING:
            self._check_default(schema, default, where)
        return Field(name, schema, default, content.get("doc", ""), tuple(content.get("aliases", ())))

    def _check_default(self, schema: AvroType, default: Any, where: str) -> None:
        """Avro takes a union's default to be of its first branch; most libraries let anything pass."""
        first = schema.branches[0] if isinstance(schema, Union) else schema
        match first:
            case Primitive(name="null"):
                fits = default is None
            case Primitive(name="boolean"):
                fits = isinstance(default, bool)
            case Primitive(name="int" | "long"):
                fits = isinstance(default, int) and not isinstance(default, bool)
            case Primitive(name="float" | "double"):
                fits = isinstance(default, int | float) and not isinstance(default, bool)
            case Primitive():
                fits = isinstance(default, str)
            case Array():
                fits = isinstance(default, list)
            case Map():
                fits = isinstance(default, dict)
            case _:  # an enum's symbol, a record's fields, a fixed's bytes: checked where the type is known
                fits = default is not None
        if not fits:
            also = ", the first type of the union" if isinstance(schema, Union) else ""
            raise self._error(where, f"the default {default!r} does not fit the type{also}")

    def _known(self, content: dict[str, Any], kind: str, where: str, *, required: set[str]) -> None:
        known = _ATTRIBUTES[kind]
        for attribute in content:
            if attribute not in known:
                raise self._error(where, f"unknown attribute {attribute!r}{misspelt(attribute, known)}")
        for attribute in sorted(required - set(content)):
            raise self._error(where, f"{attribute!r} is missing")

    def _error(self, where: str, problem: str) -> ContractError:
        place = "" if where == self._source else f"{where}: "
        return ContractError(f"{self._source}: {place}{problem}", next_step=f"mend {self._source}")


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
