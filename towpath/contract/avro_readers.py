"""Independent judges of what the Avro files promise: fastavro, which carries our records, and Apache's own `avro`.

Neither sees our rules: each only reads bytes. Where both read what `compatibility` calls readable, and get the same,
the promise holds for Python consumers at least; Java's registry judges once more when a schema is registered.
"""

import importlib.metadata
import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

import fastavro

from towpath.contract.datum import encode_datum
from towpath.contract.parse import parse
from towpath.contract.schema import Schemas

Avro = Mapping[str, Any]
Parsed = TypeVar("Parsed")
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
        datum = fastavro.schemaless_reader(buffer, _fastavro_parsed(writer), _fastavro_parsed(reader))
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

        (written, _), (wanted, has_aliases) = _apache_parsed(writer), _apache_parsed(reader)
        if has_aliases and writer != reader:
            raise CannotJudge(self.name)
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
    schemas, name = _own_parsed(avro)
    return encode_datum(schemas, name, datum)


def _kept(parse: Callable[[Any], Parsed]) -> Callable[[Avro], Parsed]:
    """Return `parse` for schemas that are asked for again and again: one that is the same object is found without
    writing it as text, one that says the same without parsing it.

    The object is kept with what came of it, so that no other can take its place in memory. It must not be changed.
    """
    by_text = lru_cache(_FORMS_KEPT)(lambda text: parse(json.loads(text)))
    kept: dict[int, tuple[Avro, Parsed]] = {}

    def parsed(avro: Avro) -> Parsed:
        found = kept.get(id(avro))
        if found is None:
            if len(kept) >= _FORMS_KEPT:
                del kept[next(iter(kept))]
            found = kept[id(avro)] = (avro, by_text(json.dumps(avro)))
        return found[1]

    return parsed


@_kept
def _own_parsed(avro: Any) -> tuple[Schemas, str]:
    found = parse(avro, source="a schema", foreign=True)
    return Schemas(found), next(iter(found))


@_kept
def _fastavro_parsed(avro: Any) -> Any:
    return fastavro.parse_schema(_common(avro), named_schemas={})


@_kept
def _apache_parsed(found: Any) -> tuple[Any, bool]:
    """Return the schema, and whether there is an alias in it."""
    import avro.schema

    text = json.dumps(_common(found))
    return avro.schema.parse(text), '"aliases"' in text


def _require_end(buffer: io.BytesIO, body: bytes) -> None:
    if buffer.tell() != len(body):
        raise ValueError(f"{len(body) - buffer.tell()} bytes are left over")


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
