"""Finds a small record that shows a break: written by the one form, unreadable or different under the other.

Pure. The records are made by chance with a known seed, the plainest first, so that the same break shows the same
record each time. What is shown was really decoded, by fastavro.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from towpath.contract.avro_readers import FastavroReader
from towpath.contract.datum import encode_datum
from towpath.contract.finding import as_text
from towpath.contract.json_form import read_json, write_json
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
    meaning = _Meaning.of(avro_written, avro_wanted, reader, name, place)
    for datum in _candidates(name, writer, place):
        try:
            body = encode_datum(writer, name, datum)
            meant = _READER.read(body, writer=avro_written, reader=avro_written)
            shown = write_json(writer, name, datum)
        except Exception:  # noqa: S112 - a form that fastavro cannot write shows nothing
            continue
        try:
            read = _READER.read(body, writer=avro_written, reader=avro_wanted)
        except Exception as error:
            return Witness(shown, f"cannot be read: {type(error).__name__}")
        if _differs(meant, read):
            seen = _json(reader, name, read)
            return Witness(shown, f"would be read as {as_text(read if seen is None else seen)}")
        outcome = meaning.outcome(body, meant, shown) if meaning is not None else None
        if outcome is not None:
            return Witness(shown, outcome)
    return None


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What the reader takes the same bytes for, where nothing but the meaning of one field differs.

    fastavro resolves a logical type as its writer meant it, so a difference of meaning does not show by itself: the
    field is read here as if the reader had written it.
    """

    field: str
    taken: Any
    reader: Schemas
    name: str

    @classmethod
    def of(cls, written: Any, wanted: Any, reader: Schemas, name: str, place: str) -> "_Meaning | None":
        """Return it for the field at `place`, None where the bytes of that field differ, too."""
        field = _field_of(place)
        own, other = (next((one for one in form["fields"] if one["name"] == field), None) for form in (written, wanted))
        if own is None or other is None or _bare(own["type"]) != _bare(other["type"]):
            return None
        fields = [{**one, "type": other["type"]} if one is own else one for one in written["fields"]]
        return cls(field, {**written, "fields": fields}, reader, name)

    def outcome(self, body: bytes, meant: Any, shown: Any) -> str | None:
        """Say what the reader makes of a record, None where it is what was meant."""
        try:
            taken = _READER.read(body, writer=self.taken, reader=self.taken)
        except Exception as error:
            return f"is none that the reader knows: {self.field}: {type(error).__name__}"
        if _differs(meant, taken):
            return f"would be taken for {self.field} = {as_text(taken[self.field])}"
        for problem in read_json(self.reader, self.name, {self.field: shown[self.field]}).problems:
            if problem.startswith((f"{self.field}:", f"{self.field}.", f"{self.field}[")):
                return f"is none that the reader knows: {problem}"
        return None


def _field_of(place: str) -> str:
    """Return the record's own field in which a path lies."""
    return place.split(".")[1].partition("[")[0].partition("{")[0] if "." in place else ""


def _bare(form: Any) -> Any:
    """Return an Avro form without what its values mean: only how they lie in bytes."""
    if isinstance(form, dict):
        kept = {key: _bare(value) for key, value in form.items() if key not in _MEANING}
        return kept["type"] if kept.keys() == {"type"} else kept
    return [_bare(one) for one in form] if isinstance(form, list) else form


_MEANING: Final = frozenset({"logicalType", "precision", "scale", "default", "doc", "aliases"})


def _candidates(name: str, writer: Schemas, place: str) -> Iterator[dict[str, Any]]:
    """Yield the plainest record, then it with the field at `place` varied, then whole records by chance."""
    drawn = sample(writer, name, Random(name))  # noqa: S311 - test data
    plain = {item.name: _plain(writer, item.type, drawn[item.name]) for item in writer.record(name).fields}
    yield plain
    chance = Random(f"{name} {place}")  # noqa: S311 - test data
    wanted = _field_of(place)
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
