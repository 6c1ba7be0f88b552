"""Finds a small record that shows a break: written by the one form, unreadable or different under the other.

Pure. The records are made by chance with a known seed, the plainest first, so that the same break shows the same
record each time. What is shown was really decoded, by fastavro.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from towpath.contract.avro_readers import FastavroReader, write_body
from towpath.contract.finding import as_text
from towpath.contract.json_form import write_json
from towpath.contract.sample import sample
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

_TRIES: Final = 60
_READER: Final = FastavroReader()


@dataclass(frozen=True, slots=True)
class Witness:
    """A record as JSON, and what the reader makes of it."""

    record: Any
    outcome: str

    def __str__(self) -> str:
        return f"{as_text(self.record)} ({self.outcome})"


def witness(name: str, *, reader: Schemas, writer: Schemas, place: str) -> Witness | None:
    """Return a record that `writer` writes and `reader` does not read as it was meant; None where none was found.

    `place` is the path of the break: its field is varied first. A change of meaning that decodes to the same number
    (another logical type) is shown by the value that the reader sees.
    """
    avro_written, avro_wanted = writer.avro(name, docs=False), reader.avro(name, docs=False)
    for datum in _candidates(name, writer, place):
        try:
            body = write_body(avro_written, datum)
            shown = write_json(writer, name, _READER.read(body, writer=avro_written, reader=avro_written))
        except Exception:  # noqa: S112 - a form that fastavro cannot write shows nothing
            continue
        try:
            read = _READER.read(body, writer=avro_written, reader=avro_wanted)
        except Exception as error:
            return Witness(shown, f"cannot be read: {type(error).__name__}")
        seen = _json(reader, name, read)
        if seen is None or _differs(shown, seen):
            return Witness(shown, f"would be read as {as_text(seen if seen is not None else read)}")
    return None


def _candidates(name: str, writer: Schemas, place: str) -> Iterator[dict[str, Any]]:
    """Yield the plainest record, then it with the field at `place` varied, then whole records by chance."""
    drawn = sample(writer, name, Random(name))  # noqa: S311 - test data
    plain = {item.name: _plain(writer, item.type, drawn[item.name]) for item in writer.record(name).fields}
    yield plain
    chance = Random(f"{name} {place}")  # noqa: S311 - test data
    wanted = place.split(".")[1].rstrip("[]{}") if "." in place else ""
    for attempt in range(_TRIES):
        varied = sample(writer, name, chance)
        yield {**plain, wanted: varied[wanted]} if wanted in varied and attempt < _TRIES // 2 else varied


def _plain(schemas: Schemas, schema: AvroType, drawn: Any) -> Any:  # noqa: PLR0911 - a case each
    """Return the plainest value of a type; `drawn` where only chance knows one (a logical type)."""
    match schema:
        case Primitive(logical=None):
            return _PLAIN[schema.name]
        case Array():
            return []
        case Map():
            return {}
        case Union(nullable=True):
            return None
        case Reference(name=name):
            match schemas[name]:
                case EnumSchema(symbols=symbols):
                    return symbols[0]
                case FixedSchema():
                    return drawn
                case RecordSchema(fields=fields):
                    return {item.name: _plain(schemas, item.type, drawn[item.name]) for item in fields}
        case _:
            return drawn


_PLAIN: Final[dict[str, Any]] = {
    "null": None,
    "boolean": False,
    "int": 1,
    "long": 1,
    "float": 0.5,
    "double": 0.5,
    "bytes": b"",
    "string": "a",
}


def _json(schemas: Schemas, name: str, datum: Any) -> Any:
    try:
        return write_json(schemas, name, datum)
    except Exception:
        return None


def _differs(written: Any, read: Any) -> bool:
    """Return whether what both have is not the same: what only one of them has is no misreading."""
    if isinstance(written, dict) and isinstance(read, dict):
        return any(_differs(written[key], read[key]) for key in written.keys() & read.keys())
    if isinstance(written, list) and isinstance(read, list):
        return len(written) != len(read) or any(map(_differs, written, read))
    return type(written) is not type(read) or bool(written != read)
