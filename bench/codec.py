"""What it costs to encode and decode a typical record: an order with three lines, as a typed object.

`python -m bench.codec [--json]`. Beside it, fastavro's own dictionaries, without our
types, checks or wire format. No network, one core.
"""

import argparse
import io
import json
import statistics
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any, Final

import fastavro

from schemas.records.order import OrderLine, OrderPlaced
from towpath.contract.codec import Codec
from towpath.contract.convert import compile_converters
from towpath.contract.files import load_classes, load_contracts, schema_sets
from towpath.settings import load_settings

CALLS: Final = 5_000
ROUNDS: Final = 15
# The design's bar for encode and decode together.
LIMIT_MICROSECONDS: Final = 40.0


def typical_order() -> OrderPlaced:
    """Return an order with three lines."""
    lines = tuple(OrderLine(sku=f"sku-{n:04}", quantity=n + 1, unit_price_cents=1_999 + n) for n in range(3))
    return OrderPlaced(
        order_id="order-000123",
        customer_id="customer-0042",
        lines=lines,
        total_cents=sum(line.quantity * line.unit_price_cents for line in lines),
        currency="EUR",
        card_token="tok_abcdefghijkl",
        placed_at=datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC),
    )


def microseconds(work: Callable[[], Any]) -> float:
    """Return what one call of `work` takes: the median over rounds, so that a neighbour's burst does not count."""
    rounds = []
    for _ in range(ROUNDS):
        begun = perf_counter_ns()
        for _ in range(CALLS):
            work()
        rounds.append((perf_counter_ns() - begun) / CALLS / 1_000)
    return statistics.median(rounds)


def measure() -> dict[str, float | int]:
    """Return the figures, in microseconds unless the name says otherwise."""
    contracts = load_contracts(schema_sets(load_settings()))
    codec = Codec.of(contracts)
    order = typical_order()
    payload = codec.encode(order)
    encode = microseconds(lambda: codec.encode(order))
    decode = microseconds(lambda: codec.decode(payload))
    converter = compile_converters(contracts.schemas, load_classes(contracts))[order.SCHEMA_NAME]
    schema = fastavro.parse_schema(contracts.schemas.avro(order.SCHEMA_NAME, docs=False), named_schemas={})
    datum = {**converter.out(order), "placed_at": order.placed_at}
    return {
        "encode_microseconds": round(encode, 2),
        "decode_microseconds": round(decode, 2),
        "together_microseconds": round(encode + decode, 2),
        "limit_microseconds": LIMIT_MICROSECONDS,
        "payload_bytes": len(payload),
        "fastavro_dictionaries_encode_microseconds": round(microseconds(lambda: _write(schema, datum)), 2),
        "fastavro_dictionaries_decode_microseconds": round(microseconds(lambda: _read(schema, payload)), 2),
    }


def _write(schema: Any, datum: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, datum)
    return buffer.getvalue()


def _read(schema: Any, payload: bytes) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(payload[5:]), schema, None)


def main() -> None:
    """Measure and print; the exit code is 1 where the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    as_json = parser.parse_args().json
    figures = measure()
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:45} {value:>10}")
    sys.exit(figures["together_microseconds"] > LIMIT_MICROSECONDS)


if __name__ == "__main__":
    main()
