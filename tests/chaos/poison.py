"""Records that nobody can apply, of every kind that was seen to stop a worker, and who must quarantine each. Pure.

The one rule: what must be in quarantine at the end follows from this file and the positions that Kafka acknowledged,
and from nothing that a worker says.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from schemas.records.catalog import ReserveStock, StockLine
from schemas.records.identity import VerifyCustomer
from schemas.records.order import OrderCancellationRequested, OrderConfirmed, OrderPlaced
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.records import HistoryEntry
from towpath.stream.broker.record import Headers

NO_AVRO = b"no Avro at all"
NO_SCHEMA = b"\0" + (2**31 - 1).to_bytes(4, "big") + b"of a schema that nobody registered"
NEAR_LIMIT_BYTES = 1_040_000
"""A topic takes 1,048,588 bytes of key, value, headers and what Kafka adds."""
HUGE_HEADER_BYTES = 300_000
LONG_KEY_BYTES = 4_000
PAST_32_BITS = 99_999_999_999

KINDS = (
    "no Avro",
    "cut short",
    "unknown schema",
    "near the limit",
    "no value",
    "no headers",
    "huge header",
    "attempt past 32 bits",
    "zero byte in the key",
    "key that is no text",
    "long key",
    "no key",
)

INDEX_ROW_TOO_LARGE = "index row too large"
BLOCKS = "blocks its worker"
IS_CANCELLED = "is cancelled"
STOPS_ITERATION = "stops iteration"
KINDS_FOR_FOLD = (INDEX_ROW_TOO_LARGE, BLOCKS, IS_CANCELLED, STOPS_ITERATION)
"""Good records that `failing_view` fails on: what a handler does is in no record."""
_FOR_FOLD = "poison for a fold"

SERVICES = ("identity", "catalog", "order", "payment")
"""Those of the shop."""

READERS: Mapping[str, tuple[str, ...]] = {
    **{f"{service}.commands": (f"service:{service}",) for service in SERVICES},
    "order.events": ("saga:place_order", "saga:cancel_order", "view:order_status"),
    **{
        f"{saga}.{kind}": (f"saga:{saga}",)
        for saga in ("place_order", "cancel_order")
        for kind in ("replies", "timers", "operator")
    },
    "place_order.signals": ("saga:place_order",),
    "place_order.history": ("view:sagas",),
    "cancel_order.history": ("view:sagas",),
}
"""Who reads what, by the workers' names; what is not here has no reader."""

TYPES_OF: Mapping[tuple[str, str], frozenset[str]] = {
    ("order.events", "saga:place_order"): frozenset({OrderPlaced.SCHEMA_NAME}),
    ("order.events", "saga:cancel_order"): frozenset({OrderCancellationRequested.SCHEMA_NAME}),
    ("order.events", "view:order_status"): frozenset({OrderPlaced.SCHEMA_NAME, OrderConfirmed.SCHEMA_NAME}),
    ("place_order.history", "view:sagas"): frozenset({HistoryEntry.SCHEMA_NAME}),
    ("cancel_order.history", "view:sagas"): frozenset({HistoryEntry.SCHEMA_NAME}),
}
"""Of the types that poison says it is: which of them a reader that looks at the type takes for its own."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that nobody can apply. `readers` are the workers that must quarantine it, each once."""

    kind: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    readers: frozenset[str]


def every_kind(topics: Mapping[str, int], codec: Codec, chance: Random) -> list[Poison]:
    """Return one of each kind for each of `topics` (by name: how many partitions), in random order.

    Dead-letter topics, which no worker reads, get two.
    """
    made = [
        _poison(kind, topic, chance.randrange(partitions), codec, chance)
        for topic, partitions in topics.items()
        for kind in (chance.sample(KINDS, 2) if topic.endswith(".dead") else KINDS)
        if not (topic.endswith(".state") and kind == "no key")  # Kafka takes none into a compacted topic
    ]
    made += [_for_fold(kind, chance.randrange(topics["order.events"]), codec, chance) for kind in KINDS_FOR_FOLD]
    chance.shuffle(made)
    return made


def _for_fold(kind: str, partition: int, codec: Codec, chance: Random) -> Poison:
    order_id = f"{_FOR_FOLD}: {kind}: {chance.randbytes(LONG_KEY_BYTES if kind == INDEX_ROW_TOO_LARGE else 8).hex()}"
    headers = headers_of(id=str(uuid.UUID(int=chance.getrandbits(128))), type=OrderConfirmed.SCHEMA_NAME)
    value = codec.encode(OrderConfirmed(order_id=order_id, confirmed_at=datetime.fromtimestamp(0, UTC)))
    return Poison(kind, "order.events", partition, order_id.encode(), value, headers, frozenset({"view:order_status"}))


def kind_for_fold(order_id: str) -> str | None:
    """Return in which way the fold of this order is to fail; None for an order of the shop."""
    prefix, _, rest = order_id.partition(": ")
    return rest.partition(": ")[0] if prefix == _FOR_FOLD else None


def _poison(kind: str, topic: str, partition: int, codec: Codec, chance: Random) -> Poison:
    name = f"poison-{chance.getrandbits(64):016x}"
    key: bytes | None = name.encode()
    value: bytes | None = NO_AVRO
    headers = _good_headers(topic, name, chance)
    match kind:
        case "cut short":
            value = (_good_value(topic, name, codec) or NO_SCHEMA)[:-3]
        case "unknown schema":
            value = NO_SCHEMA
        case "near the limit":
            value = chance.randbytes(1_000) + bytes(NEAR_LIMIT_BYTES)
        case "no value":
            value = None
        case "no headers":
            headers = ()
        case "huge header":
            headers = (*headers, ("x-huge", bytes(HUGE_HEADER_BYTES)))
        case "attempt past 32 bits":
            headers = tuple(header for header in headers if header[0] != "attempt")
            headers = (*headers, ("attempt", b"%d" % PAST_32_BITS))
            value = _good_value(topic, name, codec) or NO_AVRO
        case "zero byte in the key":
            key = b"poison\0" + name.encode()
        case "key that is no text":
            key = b"\xff\xfe" + name.encode()
        case "long key":
            key = name.encode() + b"k" * LONG_KEY_BYTES
        case "no key":
            key = None
    return Poison(kind, topic, partition, key, value, headers, frozenset(_refusing(topic, value, headers)))


def _good_headers(topic: str, name: str, chance: Random) -> Headers:
    """Return the headers that a record of this topic has, so that the poison comes far before it is seen for it."""
    id_ = str(uuid.UUID(int=chance.getrandbits(128)))
    if topic.endswith(".events"):
        return headers_of(id=id_, type=chance.choice((None, OrderPlaced.SCHEMA_NAME)))
    if topic.endswith(".history"):
        return headers_of(id=id_, type=HistoryEntry.SCHEMA_NAME)
    types: dict[str, type[Record]] = {"identity.commands": VerifyCustomer, "catalog.commands": ReserveStock}
    asked = types.get(topic)
    return headers_of(
        id=id_,
        type=asked.SCHEMA_NAME if asked else "craftygoods.order.ConfirmOrder",
        saga="place_order",
        saga_id=str(uuid.UUID(int=chance.getrandbits(128))),
        step="poison",
        direction="do",
        attempt=1,
        round=1,
        idempotency_key=str(uuid.UUID(int=chance.getrandbits(128))),
        reply_to="place_order.replies",
    )


def _good_value(topic: str, name: str, codec: Codec) -> bytes | None:
    """Return a value that this topic's reader can decode; only where what it leads to is rolled back with the rest."""
    match topic:
        case "identity.commands":
            return codec.encode(VerifyCustomer(order_id=name, customer_id=name, total_cents=1, currency="EUR"))
        case "catalog.commands":
            return codec.encode(ReserveStock(order_id=name, lines=(StockLine(sku=name, quantity=1),)))
        case _:
            return None


def _refusing(topic: str, value: bytes | None, headers: Headers) -> Iterator[str]:
    said = dict(headers).get("type")
    type_ = None if said is None else said.decode()
    for reader in READERS.get(topic, ()):
        own = TYPES_OF.get((topic, reader))
        passes_over = own is not None and type_ is not None and type_ not in own
        # A view has nothing to fold in a record without a value.
        if not passes_over and not (reader.startswith("view:") and value is None):
            yield reader


def expected_letters(
    sent: Iterable[tuple[Poison, int]], applications: Mapping[str, str]
) -> dict[tuple[str, str], Poison]:
    """Return what quarantine must hold of `sent` (poison, offset): by application and position.

    `applications` are the consumer groups by worker.
    """
    return {
        (applications[reader], f"{poison.topic}[{poison.partition}]@{offset}"): poison
        for poison, offset in sent
        for reader in poison.readers
    }
