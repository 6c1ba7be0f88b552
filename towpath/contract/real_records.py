"""Reads records that really exist as each of their readers does: what examples and chance did not think of. Pure.

A record comes as bytes with the schema that wrote it, whether it was taken from a topic or from a file.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final

from towpath.contract.avro_readers import FastavroReader, write_body
from towpath.contract.codec import WIRE_PREFIX_BYTES, Codec, WriterSchema, derived_id, wire_prefix
from towpath.contract.datum import encode_datum
from towpath.contract.files import Contracts, ends_with
from towpath.contract.finding import Finding
from towpath.contract.json_form import read_json
from towpath.contract.parse import misspelt
from towpath.contract.parties import Parties
from towpath.contract.schema import Schemas
from towpath.errors import TowpathError

RULE: Final = "real-record"
_READER: Final = FastavroReader()
WriterOf = Callable[[int], WriterSchema | None]


@dataclass(frozen=True, slots=True)
class RealRecord:
    """One record. `origin` says where it lies; `writer` is the schema that wrote it, None where nobody knows it.

    `problem` says why what lies there is no record at all.
    """

    origin: str
    topic: str
    body: bytes
    schema_id: int
    writer: WriterSchema | None
    problem: str = ""


def _unreadable(origin: str, topic: str, problem: str) -> RealRecord:
    return RealRecord(origin, topic, b"", 0, None, problem)


@dataclass(slots=True)
class RecordCheck:
    """Reads records one after the other, and keeps one finding a cause, with how many records show it."""

    contracts: Contracts
    parties: Parties
    codec: Codec
    records: int = 0
    readings: int = 0
    _found: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    _count: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _learned: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def read(self, records: Iterable[RealRecord]) -> None:
        """Read each of `records` as all its readers do."""
        for record in records:
            self.records += 1
            if record.problem:
                file = record.topic or record.origin.rpartition(":")[0]
                self._note(record, file, "nobody", record.problem, record.problem, (), "correct or remove it")
                continue
            if record.writer is None:
                problem = f"no schema with id {record.schema_id} is registered"
                self._note(record, record.topic, "nobody", problem, "unknown id", (), "register what wrote it")
                continue
            if self.codec.name_of(record.writer.name) is None:
                problem = f"no Avro file defines {record.writer.name}"
                self._note(record, record.topic, "nobody", problem, "unknown", (), "add it to the Avro files")
                continue
            self._read(record, record.writer)

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found."""
        return tuple(
            Finding(one.rule, one.subject, f"{one.problem} ({count} of {self.records} records)", one.breaks, one.fix)
            for key, one in self._found.items()
            for count in [self._count[key]]
        )

    def _read(self, record: RealRecord, writer: WriterSchema) -> None:
        name = self.codec.name_of(writer.name) or writer.name
        here = [party for party, use in self.parties.readers(name) if not record.topic or use.topic == record.topic]
        own = tuple(dict.fromkeys(one.label for one in here if name not in self._schemas_of(one.name)))
        self.readings += 1
        if self._learned.get(record.schema_id) != writer.avro:
            self.codec.learn(WriterSchema(record.schema_id, writer.avro))
            self._learned[record.schema_id] = writer.avro
        try:
            self.codec.decode(wire_prefix(record.schema_id) + record.body)
        except TowpathError as error:
            fix = "keep what wrote it as a released version, and change the schema so that it can be read"
            self._note(record, name, "the form of today", error.cause, type(error).__name__, own, fix)
        for party in dict.fromkeys(one.name for one in here if name in self._schemas_of(one.name)):
            self.readings += 1
            wanted = self._schemas_of(party)[name].avro(name, docs=False)
            try:
                _READER.read(record.body, writer=writer.avro, reader=wanted)
            except Exception as error:  # a library raises what it likes
                file = f"schemas/readers/{party}/{name.rpartition('.')[2]}.avsc"
                said = f"{type(error).__name__}: {error}"
                self._note(record, name, party, said, type(error).__name__, (party,), f"see {file}")

    def _schemas_of(self, party: str) -> Mapping[str, Any]:
        return self.parties.reader_schemas.get(party, {})

    def _note(
        self, record: RealRecord, subject: str, reader: str, said: str, kind: str, breaks: tuple[str, ...], fix: str
    ) -> None:
        key = (subject or record.origin, reader, kind)
        self._count[key] += 1
        if key not in self._found:
            cannot = "nobody can" if reader == "nobody" else f"{reader} cannot"
            problem = f"{record.origin}: {cannot} read it: {said}"
            self._found[key] = Finding(RULE, key[0], problem, breaks, fix)


def from_wire(origin: str, topic: str, value: bytes | None, writer_of: WriterOf) -> RealRecord | None:
    """Return a record in the registry's wire format; None for a tombstone."""
    if value is None:
        return None
    if len(value) < WIRE_PREFIX_BYTES or value[0] != 0:
        return _unreadable(origin, topic, "it is not in the registry's wire format")
    schema_id = int.from_bytes(value[1:WIRE_PREFIX_BYTES], "big")
    return RealRecord(origin, topic, value[WIRE_PREFIX_BYTES:], schema_id, writer_of(schema_id))


def from_lines(shown: str, text: str, contracts: Contracts, writer_of: WriterOf) -> Iterator[RealRecord]:
    """Yield the records of a file of JSON lines: `{"value": "<base64 of the wire format>"}`, or `{"type": "<full
    name>", "record": {...}}` with an optional `"version"`. Both may name their `"topic"`. A name that only one record
    ends with may be short. A line that is neither has a `problem`.
    """
    form = cache(partial(_form, contracts))  # once for all lines of a type and version
    for number, line in enumerate(text.split("\n"), 1):  # a text may hold what `splitlines` takes for an end
        if not line.strip():
            continue
        origin = f"{shown}:{number}"
        try:
            content = json.loads(line)
            topic = str(content.get("topic", ""))
            if "value" in content:
                found = from_wire(origin, topic, base64.b64decode(content["value"], validate=True), writer_of)
                if found is not None:
                    yield found
                continue
            yield _written(origin, topic, content, form)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            said = error.args[0] if isinstance(error, _NoRecord) else f"{_FORMS}: {error}"
            yield _unreadable(origin, "", str(said))


_FORMS: Final = 'it is neither {"value": "<base64>"} nor {"type": ..., "record": ...}'


class _NoRecord(ValueError):
    """A line that says of which type it is, and is no record of it."""


def _written(
    origin: str, topic: str, content: Mapping[str, Any], form: Callable[[str, Any], tuple[Schemas, WriterSchema]]
) -> RealRecord:
    schemas, writer = form(str(content["type"]), content.get("version"))
    reading = read_json(schemas, writer.name, content["record"])
    if reading.problems:
        raise _NoRecord(f"it is no {writer.name}: {'; '.join(reading.problems)}")
    return RealRecord(origin, topic, encode_datum(schemas, writer.name, reading.datum), writer.schema_id, writer)


def _form(contracts: Contracts, given: str, version: Any) -> tuple[Schemas, WriterSchema]:
    """Return what wrote a line of that type and version. Raises _NoRecord."""
    name = _full_name(given, contracts)
    forms = contracts.versions(name)
    if version is not None and int(version) not in forms:
        raise _NoRecord(f"version {version} of {name} was never released")
    schemas = contracts.schemas if version is None else forms[int(version)]
    # An id that no registry gives: only this process sees it.
    return schemas, WriterSchema(derived_id(schemas, name), schemas.avro(name, docs=False))


def _full_name(given: str, contracts: Contracts) -> str:
    known = [record.name for record in contracts.schemas.records()]
    meant = [name for name in known if ends_with(name, given)]
    if given in known or len(meant) == 1:
        return given if given in known else meant[0]
    several = f" (one of {', '.join(meant)})" if meant else misspelt(given, known)
    raise _NoRecord(f"no Avro file defines {given}{several}")


def from_container(shown: str, stream: Any) -> Iterator[RealRecord]:
    """Yield the records of an Avro object container file (`.avro`), which carries its own schema.

    Where the file breaks off or holds something else, the last one has a `problem`.
    """
    import fastavro

    number = 0
    try:
        reader = fastavro.reader(stream)
        avro: Any = reader.writer_schema
        if not isinstance(avro, dict) or "name" not in avro:
            yield _unreadable(f"{shown}:1", "", "its schema is no record")
            return
        writer = WriterSchema(2**31 - 1, {key: value for key, value in avro.items() if not key.startswith("__")})
        for number, datum in enumerate(reader, 1):
            yield RealRecord(f"{shown}:{number}", "", write_body(writer.avro, datum), writer.schema_id, writer)
    except Exception as error:  # a library raises what it likes
        said = f"it is no Avro container file, or it is cut off: {type(error).__name__}: {error}"
        yield _unreadable(f"{shown}:{number + 1}", "", said)
