"""Independent judges of what the Avro files promise: fastavro, which carries our records, and Apache's own `avro`.

Neither sees our rules: each only reads bytes. Where both read what `compatibility` calls readable, and get the same,
the promise holds for Python consumers at least; Java's registry judges once more when a schema is registered.
"""

import importlib.metadata
import importlib.util
import io
import json
from collections.abc import Mapping
from typing import Any, Protocol

import fastavro

Avro = Mapping[str, Any]


class Judge(Protocol):
    """Reads a record that `writer` wrote, as `reader` sees it; raises whatever it likes where that cannot be."""

    @property
    def name(self) -> str:
        """Return library and version."""
        ...

    def read(self, body: bytes, *, writer: Avro, reader: Avro) -> Any:
        """Return the datum, records as dictionaries, branches of unions unnamed."""
        ...


class FastavroJudge:
    """The library that carries our records at run time."""

    name = f"fastavro {fastavro.__version__}"

    def read(self, body: bytes, *, writer: Avro, reader: Avro) -> Any:
        """Return the datum as fastavro resolves it. Raises where bytes are left over."""
        buffer = io.BytesIO(body)
        datum = fastavro.schemaless_reader(buffer, _parsed(writer), _parsed(reader))
        _require_end(buffer, body)
        return datum


class ApacheJudge:
    """Apache's own library for Python."""

    def __init__(self) -> None:
        self.name = f"avro {importlib.metadata.version('avro')}"

    def read(self, body: bytes, *, writer: Avro, reader: Avro) -> Any:
        """Return the datum as Apache's library resolves it. Raises where bytes are left over."""
        import avro.io
        import avro.schema

        buffer = io.BytesIO(body)
        parsed = [avro.schema.parse(json.dumps(schema)) for schema in (writer, reader)]
        datum = avro.io.DatumReader(parsed[0], parsed[1]).read(avro.io.BinaryDecoder(buffer))
        _require_end(buffer, body)
        return datum


def judges() -> tuple[Judge, ...]:
    """Return the judges that are installed: fastavro always, Apache's where a developer has it."""
    apache = (ApacheJudge(),) if importlib.util.find_spec("avro") else ()
    return (FastavroJudge(), *apache)


def write_body(avro: Avro, datum: Any) -> bytes:
    """Return a datum as Avro's binary form, without the registry's prefix."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, _parsed(avro), datum)
    return buffer.getvalue()


def _parsed(avro: Avro) -> Any:
    return fastavro.parse_schema(dict(avro), named_schemas={})


def _require_end(buffer: io.BytesIO, body: bytes) -> None:
    if buffer.tell() != len(body):
        raise ValueError(f"{len(body) - buffer.tell()} bytes are left over")
