"""Records in a file, one a line, as they lay in their topics: nothing of them is decoded. Pure.

The one rule: what is read from a line is byte for byte what was written into it, and where it lay.
"""

import base64
import json
from typing import Any

from towpath.errors import ConfigurationError
from towpath.stream.broker.record import ConsumedRecord

LINE_BEGINS = b'{"topic":"'
"""How each line begins that `line_of` writes."""


def line_of(record: ConsumedRecord) -> str:
    """Return a record as a line of a captured file: where it lay, and all of it as base64."""

    def text(value: bytes | None) -> str | None:
        return None if value is None else base64.b64encode(value).decode()

    plain: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_milliseconds": record.timestamp_milliseconds,
        "key": text(record.key),
        "value": text(record.value),
        "headers": [[name, text(value)] for name, value in record.headers],
    }
    return json.dumps(plain, separators=(",", ":")) + "\n"


def record_of(line: str | bytes) -> ConsumedRecord:
    """Return the record of a line that `line_of` wrote. Raises ConfigurationError for anything else."""

    def data(value: str | None) -> bytes | None:
        return None if value is None else base64.b64decode(value, validate=True)

    try:
        plain = json.loads(line)
        return ConsumedRecord(
            text_of(plain["topic"]),
            int(plain["partition"]),
            int(plain["offset"]),
            int(plain["timestamp_milliseconds"]),
            data(plain["key"]),
            data(plain["value"]),
            tuple((text_of(name), data(value)) for name, value in plain["headers"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise no_record(str(error)) from error


def no_record(why: str) -> ConfigurationError:
    """Return the error for a line that `line_of` did not write."""
    return ConfigurationError(
        f"a line is no captured record: {why}",
        kept="the file, as it is",
        next_step="capture anew: towpath replay plan --topic TOPIC --to-file FILE",
    )


def text_of(value: Any) -> str:
    """Return what is a text. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
