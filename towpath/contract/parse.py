"""Reads Avro's JSON into `towpath.contract.schema`. Pure.

Two ways: a project's own files strictly, where what looks like a misspelt attribute or logical type is refused, since
a promise that is ignored is a broken one; foreign schemas (a registry's, or files to import) as Avro's libraries do.
Either way every mistake of a file is found, not the first alone.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from towpath.contract.binary import PRECISION_MAX
from towpath.contract.choice import alike
from towpath.contract.defaults import default_problem
from towpath.contract.problems import BrokenSchemas, JsonPath, Problem, line_of
from towpath.contract.schema import (
    LOGICAL_TYPES,
    MISSING,
    NULL,
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
    Schemas,
    Union,
    branch_name,
    references,
    unions,
)
from towpath.contract.values import DURATION_BYTES, UUID_BYTES

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
NAMED_KINDS: Final = frozenset({"record", "error", "enum", "fixed"})
_COMPLEX: Final = NAMED_KINDS | {"array", "map"}
# Objects inside each other in a file; more would pass Python's own limit of frames somewhere.
_NESTING_MAX: Final = 64
_ORDERS: Final = frozenset({"ascending", "descending", "ignore"})
# The attributes that each complex type may have, and those that it must have.
_ATTRIBUTES: Final[Mapping[str, frozenset[str]]] = {
    "record": frozenset({"type", "name", "namespace", "doc", "aliases", "fields"}),
    "error": frozenset({"type", "name", "namespace", "doc", "aliases", "fields"}),
    "enum": frozenset({"type", "name", "namespace", "doc", "aliases", "symbols", "default"}),
    "fixed": frozenset({"type", "name", "namespace", "doc", "aliases", "size", "logicalType", "precision", "scale"}),
    "array": frozenset({"type", "items"}),
    "map": frozenset({"type", "values"}),
    "field": frozenset({"name", "type", "default", "doc", "aliases", "order"}),
    "primitive": frozenset({"type", "logicalType", "precision", "scale"}),
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "record": ("name", "fields"),
    "error": ("name", "fields"),
    "enum": ("name", "symbols"),
    "fixed": ("name", "size"),
    "array": ("items",),
    "map": ("values",),
    "field": ("name", "type"),
    "primitive": ("type",),
}
# From here on a custom attribute looks like one of Avro's with a letter wrong; `doc` and `docs` are two things.
_LIKENESS: Final = 0.8


@dataclass(slots=True)
class ParsedFile:
    """What one file defines: `schemas` by full name, the outermost first; `outermost` are those at its top.

    `problems` is empty for a file that can be used; `notes` say what of a foreign one
    means nothing to Avro. `text` is the file's own, where it is known, for its lines.
    """

    source: str
    text: str | None
    foreign: bool = False
    schemas: dict[str, NamedSchema] = field(default_factory=dict)
    outermost: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    paths: dict[str, JsonPath] = field(default_factory=dict)

    def find(self, place: str, path: JsonPath, text: str, fix: str = "") -> None:
        """Add a problem."""
        line = None if self.text is None else line_of(self.text, path)
        self.problems.append(Problem(self.source, line, place, text, fix or f"correct {self.source}"))

    def check_closed(self, schemas: Schemas, *, hint: str = "") -> None:
        """Add a problem for each name that `schemas` do not define, and each default that does not fit its type."""
        for name, schema in self.schemas.items():
            if not isinstance(schema, RecordSchema):
                continue
            for item in schema.fields:
                place = f"{name}.{item.name}"
                for target in dict.fromkeys(references(item.type)):
                    if target not in schemas:
                        meant = misspelt(target, schemas.by_name) or misspelt(target.rpartition(".")[2], PRIMITIVES)
                        self.find(
                            place,
                            self.paths.get(place, ()),
                            f"unknown type {target!r}{meant}{hint}",
                            "define it in a file of its own, or correct the name",
                        )
            if not self.foreign:
                self._check_defaults(schema, schemas)
                self._check_unions(schema, schemas)

    def _check_unions(self, schema: RecordSchema, schemas: Schemas) -> None:
        for item in schema.fields:
            for union in unions(item.type):
                if any(target not in schemas for target in references(union)):
                    continue
                pair = alike(schemas, union)
                if pair is not None:
                    place = f"{schema.name}.{item.name}"
                    self.find(
                        place,
                        self.paths.get(place, ()),
                        f"no Python value tells {pair[0]} from {pair[1]} in this union: one would become the other",
                        "put each into a record of its own",
                    )

    def _check_defaults(self, schema: RecordSchema, schemas: Schemas) -> None:
        for item in schema.fields:
            inside = {name for target in references(item.type) for name in schemas.reachable(target)}
            if not item.has_default or any(
                target not in schemas for name in inside for target in references(schemas[name])
            ):
                continue
            if any(target not in schemas for target in references(item.type)):
                continue
            problem = default_problem(schemas, item.type, item.default)
            if problem:
                place = f"{schema.name}.{item.name}"
                self.find(place, self.paths.get(place, ()), f"the default {item.default!r} does not fit: {problem}")


def parse(content: Any, *, source: str, foreign: bool = False) -> dict[str, NamedSchema]:
    """Return the named schemas that one Avro file defines, the outermost first, by full name.

    `source` names the file in errors. With `foreign`, attributes and logical types that Avro ignores are no mistakes.
    Raises BrokenSchemas with every mistake; types that other files define are no mistakes here.
    """
    found = parse_file(content, source=source, foreign=foreign)
    if found.problems:
        raise BrokenSchemas(found.problems)
    found.check_closed(Schemas(found.schemas))
    defaults = [problem for problem in found.problems if "unknown type" not in problem.text]
    if defaults:
        raise BrokenSchemas(defaults)
    return found.schemas


def parse_file(content: Any, *, source: str, text: str | None = None, foreign: bool = False) -> ParsedFile:
    """Return what one file defines, and everything that is wrong with it. `text` gives its problems their lines."""
    found = ParsedFile(source, text, foreign)
    parser = _Parser(found)
    whole = content if isinstance(content, list) else [content]
    outermost: dict[str, None] = {}
    for place, item in enumerate(whole):
        path: JsonPath = (place,) if isinstance(content, list) else ()
        kind = item.get("type") if isinstance(item, dict) else None
        named = isinstance(kind, str) and kind in NAMED_KINDS
        if not foreign and (not isinstance(item, dict) or not (named or isinstance(content, list))):
            found.find(
                "", path, "a file holds one record, enum or fixed, or a list of them", "give it a type and a name"
            )
            continue
        # A foreign file may be any type: a list or map of records brings in its records.
        outermost |= dict.fromkeys(references(parser.type(item, "", source, path)))
    found.outermost = tuple(outermost)
    first = {name: found.schemas[name] for name in outermost if name in found.schemas}
    found.schemas = {**first, **found.schemas}
    return found


def misspelt(unknown: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """Return ` (did you mean ...?)` where `unknown` looks like one of `known`, else nothing.

    `likeness` is difflib's ratio from which on two names look alike, between 0 and 1.
    """
    close = difflib.get_close_matches(unknown, sorted(known), n=1, cutoff=likeness)
    return f" (did you mean {close[0]!r}?)" if close else ""


class _Parser:
    """Walks one file, and goes on after a mistake: what is wrong counts as null."""

    def __init__(self, file: ParsedFile) -> None:
        self._file = file
        self._strict = not file.foreign

    def type(self, content: Any, namespace: str, where: str, path: JsonPath) -> AvroType:
        if len(path) > 2 * _NESTING_MAX:
            return self._wrong(where, path[: 2 * _NESTING_MAX], f"types are nested deeper than {_NESTING_MAX} levels")
        if isinstance(content, str):
            return self._by_name(content, namespace, where, path)
        if isinstance(content, list):
            return self._union(content, namespace, where, path)
        if isinstance(content, dict):
            return self._object(content, namespace, where, path)
        return self._wrong(where, path, f"{content!r} is no Avro type")

    def _by_name(self, name: str, namespace: str, where: str, path: JsonPath) -> AvroType:
        if name in PRIMITIVES:
            return Primitive(name)
        if name in _COMPLEX:
            missing = _REQUIRED[name][-1]
            return self._wrong(
                where, path, f'{name!r} is no type by itself: write {{"type": "{name}", "{missing}": ...}}'
            )
        full = _full_name(name, namespace)
        # Without a namespace of its own, a name may also mean a type that has none.
        return Reference(name if full not in self._file.schemas and name in self._file.schemas else full)

    def _object(  # noqa: PLR0911 - a case each
        self, content: dict[str, Any], namespace: str, where: str, path: JsonPath
    ) -> AvroType:
        kind = content.get("type")
        if isinstance(kind, dict | list):
            return self.type(kind, namespace, where, (*path, "type"))
        if not isinstance(kind, str):
            return self._wrong(where, path, f"{kind!r} is no Avro type")
        if kind in NAMED_KINDS:
            return self._named(kind, content, namespace, where, path)
        if kind in {"array", "map"}:
            inner = {"array": "items", "map": "values"}[kind]
            if not self._known(content, kind, where, path):
                return NULL
            found = self.type(content[inner], namespace, f"{where}{'[]' if kind == 'array' else '{}'}", (*path, inner))
            properties = self._properties(content, kind)
            return Array(found, properties=properties) if kind == "array" else Map(found, properties=properties)
        if kind in PRIMITIVES:
            self._known(content, "primitive", where, path)
            logical = self._logical(content, kind, where, path)
            return Primitive(kind, *logical, properties=self._properties(content, "primitive"))
        meant = misspelt(kind, PRIMITIVES | _COMPLEX, likeness=0.7)
        if meant or not _is_full_name(kind):
            return self._wrong(where, path, f"{kind!r} is no Avro type{meant}")
        return self._by_name(kind, namespace, where, path)

    def _logical(
        self, content: dict[str, Any], carrier: str, where: str, path: JsonPath, *, size: int = 0
    ) -> tuple[str | None, int | None, int | None]:
        """Return logical type, precision and scale. One that Avro does not know is an attribute like any other."""
        logical = content.get("logicalType")
        if not isinstance(logical, str):
            return None, None, None
        if logical not in LOGICAL_TYPES:
            meant = misspelt(logical, LOGICAL_TYPES, likeness=_LIKENESS)
            if meant and self._strict:
                self._wrong(where, path, f"unknown logical type {logical!r}{meant}")
            kept = "it is left out" if meant else "it stays an attribute"
            self._file.notes.append(
                f"{where}: the logical type {logical!r} is not known here{meant}: {kept}, values are plain {carrier}"
            )
            return None, None, None
        problem = _logical_problem(logical, content, carrier, size)
        if problem:
            if self._strict:
                self._wrong(where, path, problem)
            self._file.notes.append(f"{where}: Avro ignores {logical} here: {problem}")
            return None, None, None
        if logical != "decimal":
            return logical, None, None
        return logical, content["precision"], content.get("scale", 0)

    def _union(self, content: list[Any], namespace: str, where: str, path: JsonPath) -> AvroType:
        found = [self.type(branch, namespace, where, (*path, place)) for place, branch in enumerate(content)]
        names = [branch_name(branch) for branch in found]
        if not found or len(set(names)) != len(names) or any(isinstance(branch, Union) for branch in found):
            return self._wrong(where, path, "a union needs different types, one at least, and holds no union")
        return Union(tuple(found))

    def _named(self, kind: str, content: dict[str, Any], namespace: str, where: str, path: JsonPath) -> AvroType:
        if not self._known(content, kind, where, path):
            return NULL
        given, space = content["name"], content.get("namespace", namespace)
        if not isinstance(given, str) or not isinstance(space, str | None):
            return self._wrong(where, path, f"{given!r} is no Avro name")
        name = _full_name(given, space or "")
        if not _is_full_name(name):
            return self._wrong(where, path, f"{name!r} is no Avro name: letters, digits and _, no digit first")
        if name in PRIMITIVES | _COMPLEX:
            return self._wrong(where, path, f"{name!r} is a type of Avro's own")
        if name in self._file.schemas:
            return self._wrong(where, path, f"{name} is defined twice")
        self._file.paths[name] = path
        own = name.rpartition(".")[0]
        common: dict[str, Any] = {
            "doc": self._text(content, name, path),
            "aliases": tuple(_full_name(alias, own) for alias in self._names(content, "aliases", name, path)),
            "properties": self._properties(content, kind),
        }
        self._file.schemas[name] = RecordSchema(name, ())  # so that a field may refer to the record that holds it
        if kind == "enum":
            symbols, default = self._symbols(content, name, path)
            self._file.schemas[name] = EnumSchema(name, symbols, default, **common)
        elif kind == "fixed":
            self._file.schemas[name] = self._fixed(content, name, path, common)
        else:
            fields = self._fields(content["fields"], own, name, path)
            self._file.schemas[name] = RecordSchema(name, fields, is_error=kind == "error", **common)
        return Reference(name)

    def _fixed(self, content: dict[str, Any], name: str, path: JsonPath, common: dict[str, Any]) -> FixedSchema:
        size = content["size"]
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            self._wrong(name, path, f"the size {size!r} is no number of bytes")
            size = 0
        logical, precision, scale = self._logical(content, "fixed", name, path, size=size)
        return FixedSchema(name, size, logical=logical, precision=precision, scale=scale, **common)

    def _symbols(self, content: dict[str, Any], where: str, path: JsonPath) -> tuple[tuple[str, ...], str | None]:
        symbols = self._names(content, "symbols", where, path)
        if content["symbols"] in (None, []):
            self._wrong(where, path, "an enum needs symbols")
        for symbol in symbols:
            if not _NAME.match(symbol):
                self._wrong(where, path, f"{symbol!r} is no symbol of an enum: letters, digits and _, no digit first")
        for twice in _twice(symbols)[:1]:
            self._wrong(where, path, f"the symbol {twice!r} stands there twice")
        default = content.get("default")
        if default is not None and default not in symbols:
            self._wrong(where, path, f"the default {default!r} is none of the symbols{misspelt(str(default), symbols)}")
            default = None
        return symbols, default

    def _fields(self, content: Any, namespace: str, record: str, path: JsonPath) -> tuple[Field, ...]:
        if not isinstance(content, list):
            self._wrong(record, path, f"the fields are a list, not {content!r}")
            return ()
        found = [self._field(item, namespace, record, (*path, "fields", place)) for place, item in enumerate(content)]
        for name in _twice(item.name for item in found if item is not None):
            self._wrong(record, path, f"two fields have the same name: {name!r}")
        return tuple({item.name: item for item in found if item is not None}.values())

    def _field(self, content: Any, namespace: str, record: str, path: JsonPath) -> Field | None:
        if not isinstance(content, dict) or not isinstance(content.get("name"), str):
            self._wrong(record, path, f"a field is an object with a name, not {content!r:.80}")
            return None
        name = content["name"]
        where = f"{record}.{name}"
        self._file.paths[where] = path
        if not self._known(content, "field", where, path):
            return None
        if not _NAME.match(name):
            self._wrong(where, path, "a field's name is made of letters, digits and _, no digit first")
            return None
        order = content.get("order", "ascending")
        if not isinstance(order, str) or order not in _ORDERS:
            self._wrong(where, path, f"the order {order!r} is none of {', '.join(sorted(_ORDERS))}")
        if "logicalType" in content:
            self._file.notes.append(
                f"{where}: its logicalType stands beside the type, not inside it, where Avro ignores it"
            )
        return Field(
            name,
            self.type(content["type"], namespace, where, (*path, "type")),
            content.get("default", MISSING),
            self._text(content, where, path),
            self._names(content, "aliases", where, path),
            order,
            self._properties(content, "field"),
        )

    def _text(self, content: dict[str, Any], where: str, path: JsonPath) -> str:
        doc = content.get("doc") or ""
        if not isinstance(doc, str):
            self._wrong(where, path, f"the doc is a text, not {doc!r:.80}")
        return str(doc)

    def _names(self, content: dict[str, Any], attribute: str, where: str, path: JsonPath) -> tuple[str, ...]:
        names = content.get(attribute) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._wrong(where, path, f"the {attribute} are a list of texts, not {names!r:.80}")
            return ()
        return tuple(names)

    def _properties(self, content: dict[str, Any], kind: str) -> Mapping[str, Any]:
        known = _ATTRIBUTES[kind]
        found = {attribute: value for attribute, value in content.items() if attribute not in known}
        if "logicalType" in known and _is_unknown_logical(content.get("logicalType")):
            # One that another library knows: kept with what belongs to it, for whoever reads the file with that.
            found |= {name: content[name] for name in ("logicalType", "precision", "scale") if name in content}
        return found

    def _known(self, content: dict[str, Any], kind: str, where: str, path: JsonPath) -> bool:
        """Return whether all is there that must be; what looks like a misspelt attribute is a problem of its own."""
        absent = _ATTRIBUTES[kind] - set(content) - {"doc"}
        for attribute in content:
            if self._strict and attribute not in _ATTRIBUTES[kind]:
                meant = misspelt(attribute, absent, likeness=_LIKENESS)
                if meant:
                    self._wrong(where, path, f"unknown attribute {attribute!r}{meant}")
        missing = [attribute for attribute in _REQUIRED[kind] if attribute not in content]
        for attribute in missing:
            self._wrong(where, path, f"{attribute!r} is missing")
        return not missing

    def _wrong(self, where: str, path: JsonPath, problem: str) -> AvroType:
        self._file.find("" if where == self._file.source else where, path, problem)
        return NULL


def _twice(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, each once, in their order."""
    return [name for name, count in Counter(names).items() if count > 1]


def _is_unknown_logical(logical: Any) -> bool:
    return (
        isinstance(logical, str)
        and logical not in LOGICAL_TYPES
        and not misspelt(logical, LOGICAL_TYPES, likeness=_LIKENESS)
    )


def _logical_problem(logical: str, content: dict[str, Any], carrier: str, size: int) -> str | None:
    if carrier not in LOGICAL_TYPES[logical]:
        return f"{logical} is carried by {sorted(LOGICAL_TYPES[logical])}, not by {carrier}"
    wanted = {"uuid": UUID_BYTES, "duration": DURATION_BYTES}.get(logical)
    if carrier == "fixed" and wanted is not None and size != wanted:
        return f"{logical} takes {wanted} bytes, not {size}"
    if logical != "decimal":
        return None
    precision, scale = content.get("precision"), content.get("scale", 0)
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (precision, scale))
    if not whole or not 0 <= scale <= precision or not 0 < precision <= PRECISION_MAX:  # type: ignore[operator]
        return f"a decimal needs a precision up to {PRECISION_MAX}, and a scale between 0 and the precision"
    if carrier == "fixed" and 10**precision > 2 ** max(8 * size - 1, 0):  # type: ignore[operator]
        return f"{size} bytes do not hold {precision} digits"
    return None


def _is_full_name(name: str) -> bool:
    return all(_NAME.match(part) for part in name.split("."))


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
