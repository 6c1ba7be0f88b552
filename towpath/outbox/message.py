"""A message as a service leaves it in its outbox. Pure.

The one rule: a message is encoded when it is made, so that one that breaks its contract raises in the caller's own
code, and its transaction cannot commit.
"""

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any
from uuid import UUID

from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.tracing import traceparent

PAYLOAD_BYTES_MAX = 900_000
"""Kafka takes 1,048,576 bytes a record by default; the rest is room for key, headers and framing (outbox.sql)."""
INT4_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxMessage:
    """One row of the outbox. Every field but topic, key and payload becomes a header of its own name, as text.

    `id` identifies the message for ever: who writes the same message again must give the same id, for it is by the
    id that consumers drop what they have seen.

    Raises ValueError for an attempt or a round past 32 bits: psycopg's binary COPY would write another number.
    """

    id: UUID
    topic: str
    key: str
    type: str
    payload: bytes
    saga_id: UUID | None = None
    saga: str | None = None
    step: str | None = None
    direction: str | None = None
    attempt: int | None = None
    round: int | None = None
    item: str | None = None
    reply_to: str | None = None
    traceparent: str | None = None
    deadline: str | None = None
    tenant: str | None = None
    idempotency_key: str | None = None
    undoes: str | None = None
    replay_id: str | None = None
    dead: str | None = None

    def __post_init__(self) -> None:
        """Hold the numbers to their columns."""
        for number in (self.attempt, self.round):
            if number is not None and abs(number) > INT4_MAX:
                raise ValueError(f"an attempt or a round of {number} is past 32 bits")

    @property
    def record_bytes(self) -> int:
        """Return how many bytes of key, payload and headers a topic must take, as the outbox counts them."""
        texts = (getattr(self, name) for name in TEXT_COLUMNS if name != "topic")
        return len(self.payload) + sum(len(text.encode()) for text in texts if text is not None)


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(OutboxMessage))
HEADER_COLUMNS: tuple[str, ...] = tuple(name for name in COLUMNS if name not in {"id", "topic", "key", "payload"})
"""The columns that travel as headers; `id` does too, EventRouter adds it by itself."""
TEXT_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(OutboxMessage) if field.type in (str, str | None))

values_of = attrgetter(*COLUMNS)


def from_record(codec: Codec, topic: str, key: str, record: Record, *, id: UUID, **headers: Any) -> OutboxMessage:  # noqa: A002 - the column's name
    """Return the message that carries `record`; `headers` are further fields of `OutboxMessage`.

    Raises what `codec.encode` raises where the record breaks its schema. Where no `traceparent` is given, it is that of
    the span that is open here, whoever traces.
    """
    headers.setdefault("traceparent", traceparent())
    return OutboxMessage(id=id, topic=topic, key=key, type=record.SCHEMA_NAME, payload=codec.encode(record), **headers)
