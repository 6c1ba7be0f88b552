"""Other ways to turn the same order into Avro and back: each is a pair of functions, encode and decode.

What gives typed objects and what gives dictionaries is told apart by the names. A library that is not installed is
left out (`requirements/bench.in` says how to get them).
"""

import dataclasses
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import fastavro

PEERS: Final = Path(__file__).parents[2] / ".bench-peers"
Pair = tuple[Callable[[], bytes], Callable[[bytes], Any]]


def contenders(avro: dict[str, Any], order: Any) -> dict[str, Pair]:
    """Return each contender by name; `avro` is the order's schema, `order` the order, as our own class."""
    if PEERS.is_dir() and str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))  # last: what Towpath itself uses stays as it is
    datum = dataclasses.asdict(order)
    found = {"fastavro_dictionaries": _fastavro(avro, datum)}
    makers: tuple[tuple[str, Callable[[], dict[str, Pair]]], ...] = (
        ("authlib", lambda: _confluent(avro, datum, order)),
        ("dataclasses_avroschema", lambda: {"dataclasses_avroschema_typed": _dataclasses_avroschema(datum)}),
        ("pydantic_avro", lambda: {"pydantic_avro_typed": _pydantic_avro(datum)}),
    )
    for library, make in makers:
        if importlib.util.find_spec(library) is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found |= make()
    return found


def _fastavro(avro: dict[str, Any], datum: dict[str, Any]) -> Pair:
    schema = fastavro.parse_schema(avro, named_schemas={})

    def encode() -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, datum)
        return buffer.getvalue()

    return encode, lambda payload: fastavro.schemaless_reader(io.BytesIO(payload), schema, None)


def _confluent(avro: dict[str, Any], datum: dict[str, Any], order: Any) -> dict[str, Pair]:
    """Confluent's serializer with a registry in memory: to dictionaries, and to our classes by its two hooks."""
    import json

    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    client = SchemaRegistryClient.new_client({"url": "mock://bench"})
    context = SerializationContext("orders", MessageField.VALUE)
    known, line = type(order), type(order.lines[0])

    def typed(found: dict[str, Any], _: Any) -> Any:
        return known(**{**found, "lines": tuple(line(**item) for item in found["lines"])})

    plain = AvroSerializer(client, json.dumps(avro))
    from_typed = AvroSerializer(client, json.dumps(avro), to_dict=lambda record, _: dataclasses.asdict(record))
    to_plain, to_typed = AvroDeserializer(client, None), AvroDeserializer(client, None, from_dict=typed)
    return {
        "confluent_kafka_dictionaries": (lambda: plain(datum, context), lambda payload: to_plain(payload, context)),
        "confluent_kafka_typed": (lambda: from_typed(order, context), lambda payload: to_typed(payload, context)),
    }


def _dataclasses_avroschema(datum: dict[str, Any]) -> Pair:
    from dataclasses_avroschema import AvroModel, types

    @dataclasses.dataclass
    class OrderLine(AvroModel):  # type: ignore[misc]
        sku: str
        quantity: types.Int32
        unit_price_cents: int

    @dataclasses.dataclass
    class OrderPlaced(AvroModel):  # type: ignore[misc]
        order_id: str
        customer_id: str
        lines: list[OrderLine]
        total_cents: int
        currency: str
        card_token: str
        placed_at: types.DateTimeMicro

    lines = [OrderLine(**item) for item in datum["lines"]]
    built = OrderPlaced(**{**datum, "lines": lines})
    return built.serialize, OrderPlaced.deserialize


def _pydantic_avro(datum: dict[str, Any]) -> Pair:
    """Schemas from pydantic's classes; fastavro writes what they dump, as its own documentation shows."""
    from pydantic_avro.base import AvroBase

    class OrderLine(AvroBase):  # type: ignore[misc]
        sku: str
        quantity: int
        unit_price_cents: int

    class OrderPlaced(AvroBase):  # type: ignore[misc]
        order_id: str
        customer_id: str
        lines: list[OrderLine]
        total_cents: int
        currency: str
        card_token: str
        placed_at: datetime

    schema = fastavro.parse_schema(OrderPlaced.avro_schema(), named_schemas={})
    built = OrderPlaced(**datum)

    def encode() -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, built.model_dump())
        return buffer.getvalue()

    def decode(payload: bytes) -> Any:
        return OrderPlaced.model_validate(fastavro.schemaless_reader(io.BytesIO(payload), schema, None))

    return encode, decode
