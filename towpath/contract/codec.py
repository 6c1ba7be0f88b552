"""Encodes records and decodes them, in the registry's wire format: 0x00, the schema's id in 4 bytes, the Avro body.

No network: all ids are known before the first record. A record written under an older version of its schema is
resolved to the class of today.
"""

import hashlib
import io
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import fastavro
from fastavro.types import Schema as FastavroSchema

from towpath.contract.convert import Converter, Unfit, compile_converters
from towpath.contract.explain import explain
from towpath.contract.files import Contracts, SchemaSet, load_classes, load_contracts
from towpath.contract.json_form import read_json, write_json
from towpath.contract.record import Record
from towpath.contract.schema import Schemas
from towpath.errors import ContractError, PeerError

_PREFIX: Final = struct.Struct(">bI")
_MAGIC: Final = 0
WIRE_PREFIX_BYTES: Final = _PREFIX.size


class UndecodableRecord(PeerError):
    """The bytes are not what their schema says; `schema_id` is None where not even that could be read."""

    def __init__(self, cause: str, *, schema_id: int | None = None) -> None:
        super().__init__(
            cause,
            kept="the record, untouched",
            next_step="ask the owner of the topic which program wrote it, and how",
        )
        self.schema_id = schema_id


class UnknownSchema(PeerError):
    """The record names a schema id that this process does not know; `schema_id` carries it."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(
            f"no schema with id {schema_id} is known",
            kept="the record, untouched",
            next_step=f"towpath contracts register, or deploy the version that knows schema {schema_id}",
        )
        self.schema_id = schema_id


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema under which records were written, and the id that the registry gave it."""

    schema_id: int
    avro: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the full name of the record."""
        namespace = self.avro.get("namespace")
        return f"{namespace}.{self.avro['name']}" if namespace else str(self.avro["name"])


@dataclass(frozen=True, slots=True)
class _Writing:
    prefix: bytes
    schema: FastavroSchema
    converter: Converter


@dataclass(frozen=True, slots=True)
class _Reading:
    """`reader` is None where the writer wrote the form of today: then nothing needs resolving."""

    name: str
    writer: FastavroSchema
    reader: FastavroSchema | None
    converter: Converter


class Codec:
    """Encodes and decodes the records of one set of contracts. Safe to share between threads."""

    def __init__(
        self,
        schemas: Schemas,
        classes: Mapping[str, type[Any]],
        current: Mapping[str, int],
        writers: Iterable[WriterSchema],
    ) -> None:
        """Build a codec that writes each record named in `current` under that id, and reads all of `writers`.

        `classes` are the generated records and enums, as `towpath.contract.files.load_classes` returns them.
        """
        self._schemas = schemas
        self._converters = compile_converters(schemas, classes)
        self._parsed = {name: _parsed(schemas.avro(name, docs=False)) for name in self._converters}
        self._by_class = {classes[name]: self._writing(name, schema_id) for name, schema_id in current.items()}
        self._by_id: dict[int, _Reading] = {}
        self._names = {
            alias: item.name
            for item in schemas.records()
            if item.name in classes
            for alias in (item.name, *item.aliases)
        }
        for writer in writers:
            self.learn(writer)

    @classmethod
    def offline(cls, sets: Iterable[SchemaSet]) -> "Codec":
        """Build a codec that needs no registry: ids are derived from the schemas, so they are the same everywhere.

        For tests and the memory broker. Released versions are readable under ids of their own.
        """
        return cls.of(load_contracts(sets))

    @classmethod
    def of(cls, contracts: Contracts) -> "Codec":
        """Build an offline codec of contracts that are loaded already."""
        current: dict[str, int] = {}
        writers: dict[int, WriterSchema] = {}
        for record in contracts.schemas.records():
            forms = [contracts.schemas, *contracts.versions(record.name).values()]
            current[record.name] = derived_id(forms[0], record.name)
            for form in forms:
                schema_id = derived_id(form, record.name)
                writers[schema_id] = WriterSchema(schema_id, form.avro(record.name, docs=False))
        return cls(contracts.schemas, load_classes(contracts), current, writers.values())

    def learn(self, writer: WriterSchema) -> None:
        """Make records under one more id readable. Raises ContractError where no class of ours can hold them."""
        name = self._names.get(writer.name)
        if name is None:
            raise ContractError(f"no class for records of type {writer.name}", next_step="towpath contracts generate")
        same = _stripped(writer.avro) == _stripped(self._schemas.avro(name, docs=False))
        reader = None if same else self._parsed[name]
        self._by_id[writer.schema_id] = _Reading(name, _parsed(writer.avro), reader, self._converters[name])

    def knows(self, schema_id: int) -> bool:
        """Return whether records under this id can be decoded."""
        return schema_id in self._by_id

    def encode(self, record: Record) -> bytes:
        """Return `record` in wire format. Raises ContractError, naming the field, for a value that does not fit."""
        writing = self._by_class.get(record.__class__)
        if writing is None:
            raise ContractError(
                f"{type(record).__name__} has no schema id: no topic lists it among its values",
                next_step="name it in schemas/topics, then run towpath contracts register",
            )
        buffer = io.BytesIO()
        buffer.write(writing.prefix)
        try:
            fastavro.schemaless_writer(buffer, writing.schema, writing.converter.out(record))
        except (Unfit, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            raise ContractError(
                f"{record.SCHEMA_NAME}: {explain(self._schemas, record) or error}",
                next_step="mend the code that builds it",
            ) from error
        return buffer.getvalue()

    def decode(self, payload: bytes) -> Record:
        """Return the record in `payload`, as the class of today.

        Raises UnknownSchema for an id that is not known, UndecodableRecord for bytes that are not what they claim.
        """
        reading = self._by_id.get(schema_id_of(payload))
        if reading is None:
            raise UnknownSchema(schema_id_of(payload))
        buffer = io.BytesIO(payload)
        buffer.seek(_PREFIX.size)
        try:
            record = reading.converter.back(_read(buffer, reading.writer, reading.reader))
        except Exception as error:  # whatever the bytes made fastavro stumble over: the record is at fault, not we
            raise UndecodableRecord(
                f"{reading.name}: {type(error).__name__} while decoding {len(payload)} bytes",
                schema_id=schema_id_of(payload),
            ) from error
        if buffer.tell() != len(payload):
            raise UndecodableRecord(
                f"{reading.name}: {len(payload) - buffer.tell()} bytes are left over", schema_id=schema_id_of(payload)
            )
        return record

    def to_json(self, record: Record) -> Any:
        """Return `record` as JSON for people (see `towpath.contract.json_form`)."""
        return write_json(self._schemas, record.SCHEMA_NAME, self._converters[record.SCHEMA_NAME].out(record))

    def from_json(self, name: str, value: Any) -> Record:
        """Return the record of type `name` that `value` describes. Raises ContractError naming every problem."""
        reading = read_json(self._schemas, name, value)
        if reading.problems:
            raise ContractError(f"{name}: {'; '.join(reading.problems)}", next_step="mend the JSON")
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._parsed[name], reading.datum)
        body.seek(0)
        return self._converters[name].back(_read(body, self._parsed[name], None))

    def type_of(self, payload: bytes) -> str:
        """Return the full name of the record in `payload`, without decoding it. Raises as `decode` does."""
        reading = self._by_id.get(schema_id_of(payload))
        if reading is None:
            raise UnknownSchema(schema_id_of(payload))
        return reading.name

    def _writing(self, name: str, schema_id: int) -> _Writing:
        return _Writing(wire_prefix(schema_id), self._parsed[name], self._converters[name])


def schema_id_of(payload: bytes) -> int:
    """Return the schema id in front of `payload`. Raises UndecodableRecord where there is none."""
    if len(payload) < _PREFIX.size or payload[0] != _MAGIC:
        raise UndecodableRecord(f"{len(payload)} bytes that do not begin as the registry's wire format does")
    return int.from_bytes(payload[1:5], "big")


def wire_prefix(schema_id: int) -> bytes:
    """Return what stands in front of a body that was written under `schema_id`."""
    return _PREFIX.pack(_MAGIC, schema_id)


def derived_id(schemas: Schemas, name: str) -> int:
    """Return the id that an offline codec gives a schema: 31 bits of its fingerprint."""
    return int.from_bytes(hashlib.sha256(schemas.fingerprint(name).encode()).digest()[:4], "big") >> 1


def _read(buffer: io.BytesIO, writer: FastavroSchema, reader: FastavroSchema | None) -> Any:
    """Return the next datum in the form that `Converter.back` takes: a record out of several carries its name."""
    return fastavro.schemaless_reader(buffer, writer, reader, return_record_name=True, return_record_name_override=True)


def _parsed(avro: Mapping[str, Any]) -> FastavroSchema:
    return fastavro.parse_schema(dict(avro), named_schemas={})


def _stripped(avro: Any) -> Any:
    """Return a schema without its documentation."""
    if isinstance(avro, Mapping):
        return {key: _stripped(value) for key, value in avro.items() if key != "doc"}
    return [_stripped(item) for item in avro] if isinstance(avro, list) else avro
