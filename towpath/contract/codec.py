"""Encodes records and decodes them, in the registry's wire format: 0x00, the schema's id in 4 bytes, the Avro body.

No network: all ids are known before the first record. A record written under an older version of its schema is
resolved to the class of today.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from towpath.contract.binary import Malformed
from towpath.contract.datum import decode_datum, encode_datum
from towpath.contract.decoder import Decoder, compile_decoder
from towpath.contract.encoder import compile_encoders
from towpath.contract.explain import explain
from towpath.contract.field_rules import compile_rules, guarded
from towpath.contract.files import Contracts, SchemaSet, load_classes, load_contracts
from towpath.contract.json_form import read_json, write_json
from towpath.contract.parse import parse
from towpath.contract.record import Record
from towpath.contract.resolution import Resolution
from towpath.contract.schema import Schemas
from towpath.errors import ContractError, PeerError

_PREFIX: Final = struct.Struct(">bI")
_MAGIC: Final = 0
WIRE_PREFIX_BYTES: Final = _PREFIX.size
# What an encoder raises for a value that does not fit (Unfit is a ValueError).
_UNFIT: Final = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError, struct.error)


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


class _Reading:
    """One known writer's schema. The decoder is compiled when the first record comes: most versions never do."""

    __slots__ = ("_classes", "_decoder", "_resolution", "_written", "name")

    def __init__(self, name: str, resolution: Resolution, written: str, classes: Mapping[str, type[Any]]) -> None:
        self.name = name
        self._resolution = resolution
        self._written = written
        self._classes = classes
        self._decoder: Decoder | None = None

    def decode(self, payload: bytes, place: int) -> Record:
        """Return the record that fills `payload` from `place` on. Raises UndecodableRecord."""
        try:
            decoder = self._decoder
            if decoder is None:
                # Two threads may both compile; either result is as good.
                decoder = self._decoder = compile_decoder(
                    self.name, self._resolution, self._classes, written=self._written
                )
            record, end = decoder(payload, place)
        except Malformed as error:
            raise self._undecodable(payload, str(error)) from error
        except Exception as error:  # whatever the bytes made us stumble over: the record is at fault
            raise self._undecodable(payload, f"{type(error).__name__} while decoding {len(payload)} bytes") from error
        if end != len(payload):
            rest = len(payload) - end
            raise self._undecodable(payload, f"{rest} bytes are left over" if rest > 0 else "the bytes end too early")
        return record

    def _undecodable(self, payload: bytes, problem: str) -> UndecodableRecord:
        return UndecodableRecord(f"{self.name}: {problem}", schema_id=int.from_bytes(payload[1:5], "big"))


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
        self._classes = classes
        self._encoders = compile_encoders(schemas, classes)
        rules = compile_rules(schemas)
        self._by_class = {
            classes[name]: (wire_prefix(schema_id), guarded(self._encoders[name], rules.get(name)))
            for name, schema_id in current.items()
        }
        self._by_prefix: dict[bytes, _Reading] = {}
        self._own: dict[str, _Reading] = {}
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
        forms: dict[int, tuple[str, Schemas]] = {}
        for record in contracts.schemas.records():
            current[record.name] = derived_id(contracts.schemas, record.name)
            for form in (contracts.schemas, *contracts.versions(record.name).values()):
                forms[derived_id(form, record.name)] = (record.name, form)
        codec = cls(contracts.schemas, load_classes(contracts), current, ())
        for schema_id, (name, form) in forms.items():
            codec._learn(schema_id, name, form)
        return codec

    def learn(self, writer: WriterSchema) -> None:
        """Make records under one more id readable. Raises ContractError where no class of ours can hold them."""
        if writer.name not in self._names:
            raise ContractError(f"no class for records of type {writer.name}", next_step="towpath contracts generate")
        written = Schemas(parse(writer.avro, source=f"schema {writer.schema_id}", foreign=True))
        self._learn(writer.schema_id, writer.name, written)

    def _learn(self, schema_id: int, written: str, form: Schemas) -> None:
        name = self._names[written]
        resolution = Resolution.of(name, reader=self._schemas, writer=form)
        self._by_prefix[wire_prefix(schema_id)] = _Reading(name, resolution, written, self._classes)

    def name_of(self, written: str) -> str | None:
        """Return the record of today that reads what was written under the name `written`; None where none does."""
        return self._names.get(written)

    def knows(self, schema_id: int) -> bool:
        """Return whether records under this id can be decoded."""
        return wire_prefix(schema_id) in self._by_prefix

    def encode(self, record: Record) -> bytes:
        """Return `record` in wire format. Raises ContractError, naming the field, for a value that does not fit."""
        writing = self._by_class.get(record.__class__)
        if writing is None:
            raise ContractError(
                f"{type(record).__name__} has no schema id: no topic lists it among its values",
                next_step="name it in schemas/topics, then run towpath contracts register",
            )
        buffer = bytearray(writing[0])
        try:
            writing[1](record, buffer, 0)
        except _UNFIT as error:
            raise self._unfit(record, error) from error
        return bytes(buffer)

    def _unfit(self, record: Record, error: Exception) -> ContractError:
        return ContractError(
            f"{record.SCHEMA_NAME}: {explain(self._schemas, self._classes, record) or error}",
            next_step="correct the code that builds it",
        )

    def decode(self, payload: bytes) -> Record:
        """Return the record in `payload`, as the class of today.

        Raises UnknownSchema for an id that is not known, UndecodableRecord for bytes that are not what they claim:
        cut, padded, malformed, or past one of the limits in `towpath.contract.binary`.
        """
        if payload.__class__ is not bytes:
            payload = bytes(payload)
        return self._reading(payload).decode(payload, WIRE_PREFIX_BYTES)

    def _reading(self, payload: bytes) -> _Reading:
        reading = self._by_prefix.get(payload[:WIRE_PREFIX_BYTES])
        if reading is None:
            raise UnknownSchema(schema_id_of(payload))
        return reading

    def to_json(self, record: Record) -> Any:
        """Return `record` as JSON for people (see `towpath.contract.json_form`). Raises ContractError as `encode`."""
        buffer = bytearray()
        try:
            self._encoders[record.SCHEMA_NAME](record, buffer, 0)
        except _UNFIT as error:
            raise self._unfit(record, error) from error
        datum = decode_datum(self._schemas, record.SCHEMA_NAME, bytes(buffer))
        return write_json(self._schemas, record.SCHEMA_NAME, datum)

    def from_json(self, name: str, value: Any) -> Record:
        """Return the record of type `name` that `value` describes. Raises ContractError naming every problem."""
        reading = read_json(self._schemas, name, value)
        if reading.problems:
            raise ContractError(f"{name}: {'; '.join(reading.problems)}", next_step="correct the JSON")
        own = self._own.get(name)
        if own is None:
            resolution = Resolution.of(name, reader=self._schemas, writer=self._schemas)
            own = self._own[name] = _Reading(name, resolution, name, self._classes)
        return own.decode(encode_datum(self._schemas, name, reading.datum), 0)

    def type_of(self, payload: bytes) -> str:
        """Return the full name of the record in `payload`, without decoding it. Raises as `decode` does."""
        return self._reading(bytes(payload[:WIRE_PREFIX_BYTES])).name


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
