"""Independent judges of what the Avro files promise: fastavro, which carries our records, and Apache's own `avro`.

Neither sees our rules: each only reads bytes. Where both read what `compatibility` calls readable, and get the same,
the promise holds for Python consumers at least; Java's registry judges once more when a schema is registered.
"""

import importlib.metadata
import importlib.util
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

import fastavro

from towpath.contract.datum import encode_datum
from towpath.contract.parse import parse
from towpath.contract.schema import Schemas

Avro = Mapping[str, Any]
# Logical types that one of the two libraries reads as plain values (avro 1.12.2; fastavro a UUID on fixed): both are
# asked for the plain values, else every such field would be one that "they see differently".
_UNKNOWN_TO_ONE: Final = frozenset(
    {
        "uuid",
        "duration",
        "timestamp-nanos",
        "local-timestamp-millis",
        "local-timestamp-micros",
        "local-timestamp-nanos",
    }
)
# Forms that stay parsed: a test reads many records of one schema after each other, under few others.
_FORMS_KEPT: Final = 256


class CannotJudge(Exception):
    """The library lacks what this pair of schemas needs, so its answer would say nothing of the schemas."""


class Judge(Protocol):
    """Reads a record that `writer` wrote, as `reader` sees it; raises whatever it likes where that cannot be."""

    @property
    def name(self) -> str:
        """Return library and version."""
        ...

    def read(self, body: bytes, *, writer: Avro, reader: Avro) -> Any:
        """Return the datum, records as dictionaries, branches of unions unnamed. May raise CannotJudge."""
        ...


class FastavroReader:
    """The library that carries our records at run time."""

    name = f"fastavro {fastavro.__version__}"

    def read(self, body: bytes, *, writer: Avro, reader: Avro) -> Any:
        """Return the datum as fastavro resolves it. Raises where bytes are left over."""
        buffer = io.BytesIO(body)
        datum = fastavro.schemaless_reader(buffer, _parsed(writer), _parsed(reader))
        _require_end(buffer, body)
        return datum


class ApacheReader:
    """Apache's own library for Python.

    Its reader knows no aliases, no default of an enum, and no promotion inside lists and maps, though its own
    compatibility checker does (seen with avro 1.12.2): where the two contradict each other, it cannot judge. Nor can
    it where it refuses a default that the specification allows, as the whole number 1 for a double; whether defaults
    are valid is judged when the files are read. A record whose short name is that of a primitive type it takes for that
    type, and for itself, without end.
    """

    def __init__(self) -> None:
        self.name = f"avro {importlib.metadata.version('avro')}"

    def read(self, body: bytes, *, writer: Avro, reader: Avro) -> Any:
        """Return the datum as Apache's library resolves it. Raises where bytes are left over."""
        import avro.compatibility
        import avro.errors
        import avro.io

        if writer != reader and "aliases" in json.dumps(reader):
            raise CannotJudge(self.name)
        written, wanted = _apache_parsed(json.dumps(writer)), _apache_parsed(json.dumps(reader))
        buffer = io.BytesIO(body)
        try:
            datum = avro.io.DatumReader(written, wanted).read(avro.io.BinaryDecoder(buffer))
        except (avro.errors.InvalidDefaultException, RecursionError) as error:
            raise CannotJudge(self.name) from error
        except avro.errors.SchemaResolutionException as error:
            checker = avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
            verdict = checker.get_compatibility(wanted, written)
            if verdict.compatibility is avro.compatibility.SchemaCompatibilityType.compatible:
                raise CannotJudge(self.name) from error
            raise
        _require_end(buffer, body)
        return datum


def judges() -> tuple[Judge, ...]:
    """Return the judges that are installed: fastavro always, Apache's where a developer has it."""
    apache = (ApacheReader(),) if importlib.util.find_spec("avro") else ()
    return (FastavroReader(), *apache)


def write_body(avro: Avro, datum: Any) -> bytes:
    """Return a datum (see `towpath.contract.datum`) as Avro's binary form, without the registry's prefix."""
    schemas, name = _own_parsed(json.dumps(avro))
    return encode_datum(schemas, name, datum)


@lru_cache(_FORMS_KEPT)
def _own_parsed(text: str) -> tuple[Schemas, str]:
    found = parse(json.loads(text), source="a schema", foreign=True)
    return Schemas(found), next(iter(found))


def _parsed(avro: Avro) -> Any:
    return _fastavro_parsed(json.dumps(avro))


@lru_cache(_FORMS_KEPT)
def _fastavro_parsed(text: str) -> Any:
    return fastavro.parse_schema(_common(json.loads(text)), named_schemas={})


@lru_cache(_FORMS_KEPT)
def _apache_parsed(text: str) -> Any:
    import avro.schema

    return avro.schema.parse(json.dumps(_common(json.loads(text))))


def _common(avro: Any) -> Any:
    """Return a schema without the logical types that one of the libraries does not know."""
    if isinstance(avro, list):
        return [_common(item) for item in avro]
    if not isinstance(avro, dict):
        return avro
    logical = avro.get("logicalType")
    left_out = isinstance(logical, str) and logical in _UNKNOWN_TO_ONE
    return {
        key: _common(value) if key in {"type", "items", "values", "fields"} else value
        for key, value in avro.items()
        if not (left_out and key == "logicalType")
    }


def _require_end(buffer: io.BytesIO, body: bytes) -> None:
    if buffer.tell() != len(body):
        raise ValueError(f"{len(body) - buffer.tell()} bytes are left over")
