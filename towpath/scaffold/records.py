"""Records as a person names them on a command line, written as Avro files with an example each. Pure.

A field is `name:type`: a type of Avro's own, `time`, `date` or `uuid`; `type[]` is a list of them, `type?` may be null.
"""

import json
import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from towpath.errors import ConfigurationError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*\Z")
_NAME_CHARS_MAX: Final = 40
"""Of PostgreSQL's 63 for a table or slot, and a file system's 255 for a file: the rest is for what stands around it."""
_RECORD_CHARS_MAX: Final = _NAME_CHARS_MAX + len("Requested")  # of the longest saga's name, its start event
_TAKEN: Final[Mapping[str, frozenset[str]]] = {
    # A service's name is its database's: these are PostgreSQL's own, and that of the views.
    "service": frozenset({"postgres", "template0", "template1", "views"}),
    "view": frozenset({"sagas"}),  # the engine's own, of all instances
}
_RECORD: Final = re.compile(r"[A-Z][A-Za-z0-9]*\Z")
_TYPES: Final[Mapping[str, Any]] = {
    **{name: name for name in ("boolean", "int", "long", "float", "double", "string", "bytes")},
    "time": {"type": "long", "logicalType": "timestamp-micros"},
    "date": {"type": "int", "logicalType": "date"},
    "uuid": {"type": "string", "logicalType": "uuid"},
}
_EXAMPLES: Final[Mapping[str, Any]] = {
    "boolean": True,
    "int": 1,
    "long": 1_250,
    "float": 0.5,
    "double": 0.5,
    "bytes": "",
    "time": "2026-03-14T09:26:55.120000+00:00",
    "date": "2026-03-14",
    "uuid": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field: its name, its type as an Avro file says it, a value for the example, and what it is."""

    name: str
    type: Any
    example: Any
    doc: str = ""


@dataclass(frozen=True, slots=True)
class RecordSpec:
    """One record of a service: `fields` in their order."""

    service: str
    name: str
    doc: str
    fields: tuple[FieldSpec, ...]

    def full_name(self, project: str) -> str:
        """Return its full name: the project's namespace, the service, the record."""
        return f"{namespace(project)}.{self.service}.{self.name}"

    def avro(self, project: str) -> str:
        """Return the text of its Avro file."""
        lines = ",\n".join("    " + json.dumps(_field(field), ensure_ascii=False) for field in self.fields)
        head = {"type": "record", "name": self.name, "namespace": f"{namespace(project)}.{self.service}"}
        shown = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
        return f'{{\n{shown}  "doc": {json.dumps(self.doc, ensure_ascii=False)},\n  "fields": [\n{lines}\n  ]\n}}\n'

    def example(self) -> dict[str, Any]:
        """Return one good example."""
        return {field.name: field.example for field in self.fields}


def _field(field: FieldSpec) -> dict[str, Any]:
    default = {"default": None} if isinstance(field.type, list) else {}
    return {"name": field.name, "type": field.type, **default, **({"doc": field.doc} if field.doc else {})}


def namespace(project: str) -> str:
    """Return the first part of the full names of a project's records."""
    return project.replace("-", "_")


def parse_fields(words: Iterable[str]) -> tuple[FieldSpec, ...]:
    """Return the fields that `name:type` words name. Raises ConfigurationError naming the one that is none."""
    fields = tuple(field_of(word) for word in words)
    names = [field.name for field in fields]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigurationError(
            f"the field {twice[0]!r} is given twice",
            kept="the project as it was",
            next_step="leave one of them out: towpath add record --help",
        )
    return fields


def field_of(word: str, doc: str = "") -> FieldSpec:
    """Return the field that one `name:type` names; without a type it is a string."""
    name, _, kind = word.partition(":")
    kind = kind or "string"
    plain = kind.removesuffix("?").removesuffix("[]")
    if not _NAME.match(name) or plain not in _TYPES:
        raise ConfigurationError(
            f"{word!r} is no field: write name:type, where a type is one of {', '.join(_TYPES)}, with [] behind it for "
            "a list of them, or ? where it may be null",
            next_step="towpath add record --help",
        )
    type_: Any = _TYPES[plain]
    example = _EXAMPLES.get(plain, f"{name.removesuffix('_id').replace('_', '-')}-1")
    if kind.removesuffix("?").endswith("[]"):
        type_, example = {"type": "array", "items": type_}, [example]
    if kind.endswith("?"):
        type_, example = ["null", type_], None
    return FieldSpec(name, type_, example, doc)


def split_record(name: str) -> tuple[str, str]:
    """Return service and record of `order.OrderPlaced`. Raises ConfigurationError for anything else."""
    service, _, record = name.partition(".")
    if not _NAME.match(service) or not _RECORD.match(record):
        raise ConfigurationError(
            f"{name!r} is no record: write <service>.<Record>, as in order.OrderPlaced",
            next_step="towpath add record --help",
        )
    if len(record) > _RECORD_CHARS_MAX:
        raise ConfigurationError(
            f"{record!r} is too long for the name of a record",
            kept="the project as it was",
            next_step=f"name it in at most {_RECORD_CHARS_MAX} letters",
        )
    return require_name(service, "service"), record


def require_name(name: str, what: str) -> str:
    """Return `name` if a service, saga or view may be called so. Raises ConfigurationError."""
    if not _NAME.match(name):
        raise ConfigurationError(
            f"{name!r} is no name of a {what}: use lower case letters, digits and _, a letter first",
            next_step=f"call the {what} otherwise, as in order or order_status",
        )
    reason = (
        "is a word of Python's own, so that nothing could import it"
        if keyword.iskeyword(name)
        else f"has more than {_NAME_CHARS_MAX} letters"
        if len(name) > _NAME_CHARS_MAX
        else "is taken already"
        if name in _TAKEN.get(what, ())
        else None
    )
    if reason is not None:
        raise ConfigurationError(
            f"{name!r} is no name of a {what}: it {reason}",
            kept="the project as it was",
            next_step=f"call the {what} otherwise, as in order or order_status",
        )
    return name


def class_name(name: str) -> str:
    """Return `stock_levels` as `StockLevels`."""
    return "".join(part.capitalize() for part in name.split("_"))
