"""What it costs to encode and decode a typical record: an order with three lines, as a typed object.

`python -m bench.codec [--json]`. Beside it, fastavro's own dictionaries, without our
types, checks or wire format. No network, one core. Each figure is given by the clock on the wall and, as `cpu_...`, by
the processor time that it took: the two part when neighbours want the core, and the limit is judged by the second.
"""

import argparse
import dataclasses
import io
import json
import statistics
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter_ns, thread_time_ns
from typing import Any, Final

import fastavro

from schemas.records.order import OrderLine, OrderPlaced
from towpath.contract.codec import Codec
from towpath.contract.files import load_contracts, schema_sets
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


def cost(work: Callable[[], Any]) -> tuple[float, float]:
    """Return what one call of `work` takes, in microseconds of the wall's clock and of the processor: medians over
    rounds, so that a neighbour's burst does not count.
    """
    wall, processor = [], []
    for _ in range(ROUNDS):
        begun, begun_processor = perf_counter_ns(), thread_time_ns()
        for _ in range(CALLS):
            work()
        wall.append((perf_counter_ns() - begun) / CALLS / 1_000)
        processor.append((thread_time_ns() - begun_processor) / CALLS / 1_000)
    return statistics.median(wall), statistics.median(processor)


def measure() -> dict[str, float | int]:
    """Return the figures, in microseconds unless the name says otherwise."""
    contracts = load_contracts(schema_sets(load_settings()))
    codec = Codec.of(contracts)
    order = typical_order()
    payload = codec.encode(order)
    schema = fastavro.parse_schema(contracts.schemas.avro(order.SCHEMA_NAME, docs=False), named_schemas={})
    datum = dataclasses.asdict(order)
    encode, cpu_encode = cost(lambda: codec.encode(order))
    decode, cpu_decode = cost(lambda: codec.decode(payload))
    write, cpu_write = cost(lambda: _write(schema, datum))
    read, cpu_read = cost(lambda: _read(schema, payload))
    figures = {
        "encode_microseconds": encode,
        "decode_microseconds": decode,
        "together_microseconds": encode + decode,
        "cpu_encode_microseconds": cpu_encode,
        "cpu_decode_microseconds": cpu_decode,
        "cpu_together_microseconds": cpu_encode + cpu_decode,
        "fastavro_dictionaries_together_microseconds": write + read,
        "cpu_fastavro_dictionaries_together_microseconds": cpu_write + cpu_read,
    }
    rounded = {name: round(value, 2) for name, value in figures.items()}
    return {**rounded, "limit_microseconds": LIMIT_MICROSECONDS, "payload_bytes": len(payload)}


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
            print(f"{name:50} {value:>10}")
    sys.exit(figures["cpu_together_microseconds"] > LIMIT_MICROSECONDS)


if __name__ == "__main__":
    main()
