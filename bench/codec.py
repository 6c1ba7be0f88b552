"""What it costs to encode and decode a typical record: an order with three lines, as a typed object.

`python -m bench.codec [--json]`. Beside it, in the same run: fastavro's own dictionaries, without types, checks or
wire format, and the other codecs of `bench/contenders/codecs.py` that are installed. No network, one core. Each figure
is given by the clock on the wall and, as `cpu_...`, by the processor time that it took: the two part when neighbours
want the core, and the limit is judged by the second.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter_ns, thread_time_ns
from typing import Any, Final

from bench.contenders.codecs import Pair, contenders
from schemas.records.order import OrderLine, OrderPlaced
from towpath.contract.codec import Codec
from towpath.contract.files import load_contracts, schema_sets
from towpath.settings import load_settings

CALLS: Final = 1_000
ROUNDS: Final = 9
# Encode and decode together, by processor time, over what fastavro takes for dictionaries in the same run.
LIMIT_RATIO: Final = 1.3


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
    pairs: dict[str, Pair] = {"": (lambda: codec.encode(order), codec.decode)}
    pairs |= contenders(contracts.schemas.avro(order.SCHEMA_NAME, docs=False), order)
    figures: dict[str, float | int] = {}
    for name, (encode, decode) in pairs.items():
        written = encode()
        decode(written)
        measured = cost(encode), cost(lambda decode=decode, written=written: decode(written))  # type: ignore[misc]
        prefix = f"{name}_" if name else ""
        for clock, label in enumerate(("", "cpu_")):
            figures[f"{label}{prefix}encode_microseconds"] = round(measured[0][clock], 2)
            figures[f"{label}{prefix}decode_microseconds"] = round(measured[1][clock], 2)
            figures[f"{label}{prefix}together_microseconds"] = round(measured[0][clock] + measured[1][clock], 2)
        if name:
            ours = figures["cpu_together_microseconds"]
            figures[f"ratio_to_{name}"] = round(ours / figures[f"cpu_{prefix}together_microseconds"], 2)
    return {**figures, "limit_ratio_to_fastavro_dictionaries": LIMIT_RATIO, "payload_bytes": len(payload)}


def main() -> None:
    """Measure and print; the exit code is 1 where the limit is passed, or a codec that gives typed objects is ahead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    as_json = parser.parse_args().json
    figures = measure()
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:50} {value:>10}")
    typed = [value for name, value in figures.items() if name.startswith("ratio_to_") and name.endswith("_typed")]
    slow = figures["ratio_to_fastavro_dictionaries"] > LIMIT_RATIO or any(ratio >= 1 for ratio in typed)
    sys.exit(slow)


if __name__ == "__main__":
    main()
