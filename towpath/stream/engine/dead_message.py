"""A dead letter as a row of an outbox, which any database takes. Pure."""

from typing import Any
from urllib.parse import quote_from_bytes
from uuid import NAMESPACE_URL, UUID, uuid5

from towpath.outbox.message import HEADER_COLUMNS, INT4_MAX, PAYLOAD_BYTES_MAX, OutboxMessage
from towpath.stream.broker.dead_letter import DeadLetter, as_reference, dead_topic, key_name, with_original
from towpath.stream.broker.record import ConsumedRecord

COLUMN_CHARACTERS_MAX = 255


def dead_message(record: ConsumedRecord, letter: DeadLetter, *, by_reference: bool = False) -> OutboxMessage:
    """Return the outbox row that carries a dead record: its payload untouched, and whatever else a column can hold.

    It can always be written: what no column of any database takes (bytes that are no text, a zero byte, letters beyond
    ASCII, a number past 32 bits, the record's own id) is in the letter alone, as JSON in ASCII. A record that does not
    fit into an outbox's row goes as a reference to its position, with its hash. The id follows from the death.
    """
    whole = with_original(record, letter)
    columns = {name: _column(record, name) for name in HEADER_COLUMNS if name != "dead"}
    columns["type"] = columns["type"] or ""
    key = quote_from_bytes(key_name(record.key or b""), safe=_PLAIN)
    said = sum(len(str(value)) for value in columns.values()) + len(key) + len(record.value or b"")
    if by_reference or said + len(text := whole.to_json()) > PAYLOAD_BYTES_MAX:
        text = as_reference(record, letter).to_json()
        record = record._replace(value=None)
    return OutboxMessage(
        id=uuid5(NAMESPACE_URL, f"dead:{letter.identity}"),
        topic=dead_topic(record.topic),
        key=key,
        payload=record.value or b"",
        dead=text,
        **columns,
    )


_PLAIN = "".join(character for character in map(chr, range(0x20, 0x7F)) if character != "%")


def _column(record: ConsumedRecord, name: str) -> Any:
    """Return what the column of a header can hold of it, None where that is nothing."""
    text = record.header(name)
    if text is None or len(text) > COLUMN_CHARACTERS_MAX or not (text.isascii() and text.isprintable()):
        return None
    try:
        if name == "saga_id":
            return UUID(text)
        if name in ("attempt", "round"):
            return int(text) if abs(int(text)) <= INT4_MAX else None
    except ValueError:
        return None
    return text
