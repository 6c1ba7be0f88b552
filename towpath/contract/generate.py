"""Writes the record classes from the schemas. Pure and deterministic: the same schemas give the same text.

The text is as `ruff format` would leave it, at 120 columns.
"""

import re
import textwrap
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from towpath.contract.defaults import chosen, default_value
from towpath.contract.files import Contracts, LoadedSet
from towpath.contract.python_names import attributes, members, stand_in
from towpath.contract.record import Duration
from towpath.contract.schema import (
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
    has_map,
    references,
)
from towpath.errors import ContractError

_WIDTH: Final = 120
_BUILT_IN: Final = "builtins"
_PLAIN_TYPES: Final[Mapping[str, str]] = {
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "bytes": "bytes",
    "string": "str",
}
# Logical type -> the module and the name of its Python type. Nanoseconds are an int: a datetime would cut them.
_LOGICAL_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "date": ("datetime", "date"),
    "time-millis": ("datetime", "time"),
    "time-micros": ("datetime", "time"),
    "timestamp-millis": ("datetime", "datetime"),
    "timestamp-micros": ("datetime", "datetime"),
    "local-timestamp-millis": ("datetime", "datetime"),
    "local-timestamp-micros": ("datetime", "datetime"),
    "timestamp-nanos": (_BUILT_IN, "int"),
    "local-timestamp-nanos": (_BUILT_IN, "int"),
    "uuid": ("uuid", "UUID"),
    "decimal": ("decimal", "Decimal"),
    "duration": ("towpath.contract.record", "Duration"),
}


_STANDARD_MODULES: Final = frozenset(
    {"builtins", "collections.abc", "dataclasses", "datetime", "decimal", "enum", "typing", "uuid"}
)


def generate(contracts: Contracts, loaded: LoadedSet) -> dict[Path, str]:
    """Return the text of every file that belongs to one schema set, by its path.

    Raises ContractError where a schema has no Python form or two modules would need each other.
    """
    by_service: dict[str, list[str]] = defaultdict(list)
    for name, service in sorted(loaded.services.items()):
        by_service[service].append(name)
    if not loaded.source.is_package:
        return {loaded.source.target: _Module(contracts, loaded.source.records, by_service[""]).text()}
    package = loaded.source.target
    files = {package / "__init__.py": f'"""Generated: the records of {loaded.source.name}, one module a service."""\n'}
    for service, names in by_service.items():
        module = _Module(contracts, loaded.source.module(service), names)
        files[package / f"{service}.py"] = module.text()
    _refuse_circles(contracts, by_service)
    return files


def _refuse_circles(contracts: Contracts, by_service: Mapping[str, list[str]]) -> None:
    """Two modules that import each other cannot be imported at all."""
    modules = {contracts.module_of(names[0]): names for names in by_service.values()}
    needs = {
        module: {contracts.module_of(target) for name in names for target in references(contracts.schemas[name])}
        for module, names in modules.items()
    }
    for module, targets in needs.items():
        for target in targets - {module}:
            if module in needs.get(target, ()):
                raise ContractError(
                    f"{module} and {target} refer to each other's types",
                    next_step="move the types that both use into one of the two folders",
                )


class _Module:
    """One generated module."""

    def __init__(self, contracts: Contracts, module: str, names: list[str]) -> None:
        self._schemas = contracts.schemas
        self._contracts = contracts
        self._module = module
        self._names = names
        self._imports: dict[str, set[str]] = defaultdict(set)
        self._classes = contracts.class_names(module)
        self._aliases: dict[str, str] = {}
        records = [found for name in names if isinstance(found := contracts.schemas[name], RecordSchema)]
        # Inside a class, an attribute hides what the module calls by the same name.
        self._hidden = frozenset(name for found in records for name in attributes(found).values())

    def text(self) -> str:
        order = self._order()
        bodies = []
        for position, name in enumerate(order):
            schema = self._schemas[name]
            later = frozenset(order[position:])
            if isinstance(schema, RecordSchema):
                bodies.append(self._record(schema, later))
            elif isinstance(schema, EnumSchema):
                bodies.append(self._enum(schema))
        service = self._module.rpartition(".")[2]
        title = (
            f'"""Generated by `towpath contracts generate` from the Avro files of {service}; never edited by hand."""'
        )
        exported = sorted(
            (self._classes[name] for name in order if not isinstance(self._schemas[name], FixedSchema)), key=_isort_key
        )
        listed = "".join(f'    "{name}",\n' for name in exported)
        head = [f"{title}\n\n{self._import_lines()}" if self._imports else title]
        aliases = "\n".join(f"{alias} = {name}" for name, alias in sorted(self._aliases.items()))
        parts = [
            *head,
            *bodies,
            *([aliases] if aliases else []),
            f"__all__ = [\n{listed}]" if listed else "__all__ = []",
        ]
        return "\n\n\n".join(parts) + "\n"

    def _order(self) -> list[str]:
        """Return the names so that what a class contains precedes it; circles are quoted in the annotations."""
        order: dict[str, None] = {}
        for name in self._names:
            for needed in self._schemas.reachable(name):
                if needed in self._names:
                    order.setdefault(needed)
        return list(order)

    def _import_lines(self) -> str:
        standard = sorted(set(self._imports) & _STANDARD_MODULES)
        ours = sorted(set(self._imports) - _STANDARD_MODULES)
        blocks = [
            "\n".join(_import_line(module, self._imports[module]) for module in block) for block in (standard, ours)
        ]
        return "\n\n".join(block for block in blocks if block)

    def _imported(self, module: str, name: str) -> str:
        """Import a name and return what it is called here: another name where an attribute would hide it."""
        alias = stand_in(name, self._hidden)
        if alias != name:  # nor may it be what a class of this module is called
            alias = stand_in(alias, self._hidden | set(self._classes.values()))
        if module != _BUILT_IN or alias != name:
            self._imports[module].add(name if alias == name else f"{name} as {alias}")
        return alias

    def _own(self, name: str) -> str:
        """Return what a class of this module is called inside one: another name where an attribute would hide it."""
        known = self._classes[name]
        alias = stand_in(known, self._hidden)
        if alias != known:
            while alias in self._classes.values():
                alias += "_"
            self._aliases[known] = alias
        return alias

    def _enum(self, schema: EnumSchema) -> str:
        self._imports["enum"].add("StrEnum")
        doc = _docstring(schema.doc or f"The symbols of {schema.name}.", ())
        names = "\n".join(f'    {member} = "{symbol}"' for symbol, member in members(schema).items())
        return f"class {self._classes[schema.name]}(StrEnum):\n{doc}\n\n{names}"

    def _record(self, schema: RecordSchema, later: frozenset[str]) -> str:
        self._imports["dataclasses"].add("dataclass")
        class_var = self._imported("typing", "ClassVar")
        text = self._imported(_BUILT_IN, "str")
        self._imports["towpath.contract.record"].add("Record")
        names = attributes(schema)
        doc = _docstring(schema.doc or f"A record of type {schema.name}.", schema.fields)
        head = (
            "@dataclass(frozen=True, slots=True, kw_only=True)\n"
            f"class {self._classes[schema.name]}(Record):\n{doc}\n\n"
            f'    SCHEMA_NAME: {class_var}[{text}] = "{schema.name}"\n'
            f'    SCHEMA_FINGERPRINT: {class_var}[{text}] = "{self._schemas.fingerprint(schema.name)}"'
        )
        fields = "\n".join(f"    {self._field(names[item.name], item, later)}" for item in schema.fields)
        return f"{head}\n\n{fields}" if fields else head

    def _field(self, attribute: str, item: Field, later: frozenset[str]) -> str:
        annotation = self._annotation(item.type)
        if (later & set(references(item.type))) or self._uses_alias(annotation):
            annotation = f'"{annotation}"'
        if not item.has_default:
            return f"{attribute}: {annotation}"
        value = self._default(item.type, item.default)
        # What is not defined yet, or can be changed, is made anew for each record.
        inside = {name for target in references(item.type) for name in self._schemas.reachable(target)}
        if has_map(self._schemas, item.type) or (later & inside and not _is_plain(value)) or self._uses_alias(value):
            factory = self._imported("dataclasses", "field")
            made = "dict" if value == "{}" and "dict" not in self._hidden else f"lambda: {value}"
            return f"{attribute}: {annotation} = {factory}(default_factory={made})"
        return f"{attribute}: {annotation} = {value}"

    def _uses_alias(self, text: str) -> bool:
        """Return whether a text names a class by its stand-in, which is defined at the end of the module."""
        return any(re.search(rf"\b{alias}\b", text) for alias in self._aliases.values())

    def _annotation(self, schema: AvroType) -> str:
        match schema:
            case Primitive(name=name, logical=logical):
                if name == "null":
                    return "None"
                return self._imported(*(_LOGICAL_TYPES[logical] if logical else (_BUILT_IN, _PLAIN_TYPES[name])))
            case Array(items=items):
                return f"{self._imported(_BUILT_IN, 'tuple')}[{self._annotation(items)}, ...]"
            case Map(values=values):
                mapping, text = self._imported("collections.abc", "Mapping"), self._imported(_BUILT_IN, "str")
                return f"{mapping}[{text}, {self._annotation(values)}]"
            case Union():
                parts = [self._annotation(branch) for branch in schema.present]
                return " | ".join([*dict.fromkeys(parts), *(["None"] if schema.nullable else [])])
            case Reference(name=name):
                return self._named(name)

    def _named(self, name: str) -> str:
        match self._schemas[name]:
            case FixedSchema(logical=None):
                return self._imported(_BUILT_IN, "bytes")
            case FixedSchema(logical=str() as logical):
                return self._imported(*_LOGICAL_TYPES[logical])
        module = self._contracts.module_of(name)
        if module == self._module:
            return self._own(name)
        known = self._contracts.class_names(module)[name]
        # Two modules may have classes of one name, and one of theirs may have that of ours.
        taken = {*self._hidden, *self._classes.values(), *self._foreign(module)}
        alias = stand_in(known, taken)
        self._imports[module].add(known if alias == known else f"{known} as {alias}")
        return alias

    def _foreign(self, module: str) -> frozenset[str]:
        """Return what is imported from modules other than `module`, as it is called here."""
        return frozenset(
            name.rpartition(" ")[2] for other, names in self._imports.items() if other != module for name in names
        )

    def _default(self, schema: AvroType, default: Any) -> str:
        """Return the Python expression of a default given in Avro's JSON form."""
        match schema:
            case Union():
                return self._default(chosen(self._schemas, schema, default), default)
            case Array(items=items):
                values = [self._default(items, value) for value in default]
                return f"({', '.join(values)}{',' if len(values) == 1 else ''})"
            case Map(values=inner):
                pairs = ", ".join(f"{_literal(key)}: {self._default(inner, value)}" for key, value in default.items())
                return f"{{{pairs}}}"
            case Reference(name=name):
                return self._named_default(self._schemas[name], default)
            case Primitive():
                return self._expression(default_value(self._schemas, {}, schema, default))

    def _named_default(self, schema: NamedSchema, default: Any) -> str:
        match schema:
            case EnumSchema():
                return f"{self._named(schema.name)}.{members(schema)[default]}"
            case FixedSchema():
                return self._expression(default_value(self._schemas, {}, Reference(schema.name), default))
            case RecordSchema():
                names = attributes(schema)
                given = {item.name: default.get(item.name, item.default) for item in schema.fields}
                values = [f"{names[item.name]}={self._default(item.type, given[item.name])}" for item in schema.fields]
                return f"{self._named(schema.name)}({', '.join(values)})"

    def _expression(self, value: Any) -> str:  # noqa: PLR0911 - a case each
        """Return the Python source of a plain or logical value, with what it needs imported."""
        match value:
            case datetime():
                zone = f", tzinfo={self._imported('datetime', 'UTC')}" if value.tzinfo else ""
                clock = f"{value.hour}, {value.minute}, {value.second}, {value.microsecond}"
                day = f"{value.year}, {value.month}, {value.day}"
                return f"{self._imported('datetime', 'datetime')}({day}, {clock}{zone})"
            case date():
                return f"{self._imported('datetime', 'date')}({value.year}, {value.month}, {value.day})"
            case time():
                clock = f"{value.hour}, {value.minute}, {value.second}, {value.microsecond}"
                return f"{self._imported('datetime', 'time')}({clock})"
            case UUID():
                return f'{self._imported("uuid", "UUID")}("{value}")'
            case Decimal():
                return f'{self._imported("decimal", "Decimal")}("{value}")'
            case Duration():
                counts = f"months={value.months}, days={value.days}, milliseconds={value.milliseconds}"
                return f"{self._imported('towpath.contract.record', 'Duration')}({counts})"
            case float() if not isfinite(value):
                return f'{self._imported(_BUILT_IN, "float")}("{value}")'
            case _:
                return _literal(value)


def _is_plain(expression: str) -> bool:
    """Return whether a default names nothing that a module would have to define first."""
    return expression in {"None", "True", "False", "()"} or not re.search(r"[A-Za-z_]\w*[.(]", expression)


def _literal(value: object) -> str:
    """Return a text, bytes, number, truth value or None as the formatter would write it: in double quotes."""
    if not isinstance(value, str | bytes):
        return repr(value)
    text = repr(value)
    if '"' in text or not text.lstrip("b").startswith("'"):
        return text
    prefix, inner = text.split("'", 1)
    return f'{prefix}"{inner[:-1].replace(chr(92) + chr(39), chr(39))}"'


def _isort_key(name: str) -> tuple[int, str]:
    """Order names as isort does: constants, classes, the rest."""
    rank = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return (rank, name)


def _import_line(module: str, names: set[str]) -> str:
    """Return one import, names in the order that ruff gives them."""
    ordered = sorted(names, key=_isort_key)
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= _WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"


def _docstring(text: str, fields: tuple[Field, ...]) -> str:
    """Return an indented docstring: the schema's words, then those of its fields."""
    first = textwrap.wrap(_written(text), _WIDTH - 12)
    lines = ["    " + line for line in first]
    documented = [item for item in fields if item.doc]
    if documented:
        lines.append("")
        for item in documented:
            lines += textwrap.wrap(
                f"{item.name}: {_written(item.doc)}", _WIDTH - 8, initial_indent="    ", subsequent_indent="        "
            )
    body = "\n".join(lines).lstrip().replace("\\", "\\\\").replace('"""', "'''")
    if len(lines) > 1:
        return f'    """{body}\n    """'
    # A quotation mark at the end would join those that close the text.
    return f'    """{body[:-1]}\\""""' if body.endswith('"') else f'    """{body}"""'


def _written(text: str) -> str:
    """Return a text without what no source file can hold: control characters, and halves of a character."""
    return "".join(" " if unicodedata.category(letter) in {"Cc", "Cs"} else letter for letter in text)
