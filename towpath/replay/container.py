"""Records in an Avro object container, as they lay in their topics: nothing of them is decoded.

The one rule: what is read is byte for byte what was written. A block that a killed run left half is none: the file is
cut before it. Any Avro library reads the file: it carries its schema (Avro 1.12, "Object Container Files").
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import fastavro

from towpath.errors import ConfigurationError
from towpath.stream.broker.record import ConsumedRecord

MAGIC = b"Obj\x01"
SUFFIX = ".avro"
SYNC_BYTES = 16
CUT_OFF = (StopIteration, ValueError, EOFError, IndexError, KeyError)
"""What the library raises where a file ends, or ends too early."""
SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "CapturedRecord",
        "namespace": "towpath.replay",
        "doc": "A record as it lay in its topic: key, value and headers are what the broker had, undecoded.",
        "fields": [
            {"name": "topic", "type": "string"},
            {"name": "partition", "type": "int"},
            {"name": "offset", "type": "long"},
            {"name": "timestamp_milliseconds", "type": "long"},
            {"name": "key", "type": ["null", "bytes"]},
            {"name": "value", "type": ["null", "bytes"]},
            {
                "name": "headers",
                "type": {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "Header",
                        "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": ["null", "bytes"]}],
                    },
                },
            },
        ],
    }
)


def is_container(path: Path) -> bool:
    """Return whether a file is an Avro object container, by its first bytes; by its name where these are cut off."""
    if not path.exists():
        return path.suffix == SUFFIX
    with path.open("rb") as file:
        begins = file.read(len(MAGIC))
    return begins == MAGIC or (path.suffix == SUFFIX and MAGIC.startswith(begins))


def append(file: IO[bytes], records: Iterable[ConsumedRecord]) -> None:
    """Write records as further blocks behind the whole blocks of `file`, which stands at its end."""
    plain = (
        {**record._asdict(), "headers": [{"name": name, "value": value} for name, value in record.headers]}
        for record in records
    )
    fastavro.writer(file, SCHEMA, plain, codec="deflate")


def whole_blocks(file: IO[bytes], name: str) -> Iterator[tuple[int, list[ConsumedRecord]]]:
    """Yield each whole part of a file that stands at its beginning, the header first: where it ends, and its records.

    Ends before a part that is not whole. Raises ConfigurationError for a file of other records.
    """
    try:
        blocks: Any = fastavro.block_reader(file)
    except CUT_OFF as error:
        if not _is_half_a_header(file):
            raise ConfigurationError(
                f"the header of {name} cannot be read: {error}",
                kept="the file, as it is",
                next_step="capture anew: towpath replay plan --topic TOPIC --to-file FILE.avro",
            ) from error
        return  # nothing follows it
    written = blocks.writer_schema
    if not isinstance(written, dict) or written.get("name") != "towpath.replay.CapturedRecord":
        raise ConfigurationError(
            f"{name} has records of another schema",
            kept="the file, as it is",
            next_step="capture anew: towpath replay plan --topic TOPIC --to-file FILE.avro",
        )
    yield file.tell(), []
    while True:
        try:
            block = next(blocks)
            records = [_record_of(plain) for plain in block]
        except CUT_OFF:
            return  # the end, or cut off within the block
        yield block.offset + block.size, records


def _is_half_a_header(file: IO[bytes]) -> bool:
    """Return whether a killed run may have left this: what a header begins with, up to its random mark at the end."""
    written = BytesIO()
    append(written, ())
    header = written.getvalue()
    begins = header[:-SYNC_BYTES]
    file.seek(0)
    found = file.read(len(header))  # no more: it may be anybody's file, of any size
    return len(found) < len(header) and found[: len(begins)] == begins[: len(found)]


def _record_of(plain: dict[str, Any]) -> ConsumedRecord:
    headers = tuple((header["name"], header["value"]) for header in plain["headers"])
    return ConsumedRecord(**{**plain, "headers": headers})


def read_container(path: Path) -> Iterator[ConsumedRecord]:
    """Yield the records of a container's whole blocks. Raises ConfigurationError where something follows them."""
    with path.open("rb") as file:
        whole = 0
        for end, records in whole_blocks(file, str(path)):
            yield from records
            whole = end
        if whole != path.stat().st_size:
            raise ConfigurationError(
                f"{path} is not whole: what follows byte {whole} is no block",
                kept="the file, as it is",
                next_step="let the run that wrote it go on: towpath replay run PLAN --reason REASON",
            )
