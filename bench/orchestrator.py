"""What an orchestrator's record costs: `python -m bench.orchestrator [--json] [--sagas N]`.

`place_order` from start to completion, through everything but the broker: headers and Avro in, the machine, Avro and
headers out, state, timers and history. The run is recorded first, answers included, then handled again by a fresh
orchestrator under the processor's clock. What a worker spends in the client and in transactions comes on top
(`python -m bench.stream`).
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.advance import order
from sagas.place_order import saga
from schemas.records.catalog import ReserveStock, StockReserved
from schemas.records.identity import CustomerVerified, VerifyCustomer
from schemas.records.order import ConfirmOrder, OrderConfirmed
from schemas.records.payment import AuthorisePayment, CapturePayment, PaymentAuthorised, PaymentCaptured
from towpath.contract.codec import Codec
from towpath.contract.files import schema_sets
from towpath.orchestrator.core import Observe, Orchestrator
from towpath.orchestrator.envelope import headers_of
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.stream.state.partition_state import Checkpoint, MemoryStore, State
from towpath.stream.state.timers import Timers

UNIT_RECORDS = 500
CARRIED = frozenset({"saga_id", "saga", "step", "item", "direction", "attempt", "round"})
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANSWERS: dict[type, Callable[[Any], Any]] = {
    VerifyCustomer: lambda command: CustomerVerified(order_id=command.order_id, customer_id=command.customer_id),
    ReserveStock: lambda command: StockReserved(order_id=command.order_id, reservation_id=f"r-{command.order_id}"),
    AuthorisePayment: lambda command: PaymentAuthorised(
        order_id=command.order_id, authorisation_id=f"a-{command.order_id}", amount_cents=command.amount_cents
    ),
    ConfirmOrder: lambda command: OrderConfirmed(order_id=command.order_id, confirmed_at=NOW),
    CapturePayment: lambda command: PaymentCaptured(
        order_id=command.order_id, capture_id=f"c-{command.order_id}", amount_cents=command.amount_cents
    ),
}


@dataclass
class Worker:
    """An orchestrator with a unit of work in memory, which notes what is sent while `noting`, and tells `observe`."""

    codec: Codec
    noting: bool = False
    observe: Observe | None = None
    now_milliseconds: int = 2**62
    sent: list[tuple[str, bytes, bytes, Headers]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = Orchestrator(
            {saga.definition.version: saga.definition},
            self.codec,
            start_topic="order.events",
            finished_retention_milliseconds=86_400_000,
            observe=self.observe,
        )
        self._state = State(TopicPartition(f"{saga.name}.state", 0), MemoryStore())
        self._state.writable = True
        self._timers = Timers(self._state)

    def send(self, topic: str, value: Any, *, key: Any, headers: Headers = (), partition: int | None = None) -> None:
        """Note a command."""
        if self.noting and partition is None:
            self.sent.append((topic, key, value, headers))

    def state(self, changelog: str, partition: int) -> State:  # noqa: ARG002 - the only one
        """Return the state."""
        return self._state

    def timers(self, partition: int) -> Timers:  # noqa: ARG002 - the only ones
        """Return the timers."""
        return self._timers

    def settle(self) -> None:
        """End a unit of work."""
        self._state.settle(Checkpoint(0, "topic", 0))


def recorded(codec: Codec, sagas: int) -> list[ConsumedRecord]:
    """Return the inputs of so many sagas, all of one round before those of the next."""
    worker = Worker(codec, noting=True)
    inputs: list[ConsumedRecord] = []

    def give(topic: str, key: bytes, payload: bytes, headers: Headers) -> None:
        at = int(NOW.timestamp() * 1000) + len(inputs)
        record = ConsumedRecord(topic, 0, len(inputs), at, key, payload, headers)
        inputs.append(record)
        worker.core.handle(record, worker)

    for number in range(sagas):
        # Below the limit above which a person must approve.
        event = order(number * 4 + 1)
        headers = headers_of(id=f"event-{number}", type=event.SCHEMA_NAME)
        give("order.events", event.order_id.encode(), codec.encode(event), headers)
    while worker.sent:
        commands, worker.sent = worker.sent, []
        for _, key, payload, headers in commands:
            command = codec.decode(payload)
            answer = ANSWERS[type(command)](command)
            carried = {name: value for name, value in headers if name in CARRIED}
            told = {name: (value or b"").decode() for name, value in carried.items()}
            own = headers_of(id=f"reply-{len(inputs)}", type=answer.SCHEMA_NAME, **told)
            give(f"{saga.name}.replies", key, codec.encode(answer), own)
        worker.settle()
    return inputs


def measure(sagas: int) -> dict[str, Any]:
    """Return what one core does in a second."""
    codec = Codec.offline(schema_sets(load_settings()))
    inputs = recorded(codec, sagas)
    worker = Worker(codec)
    began = time.process_time()
    for number, record in enumerate(inputs, 1):
        worker.core.handle(record, worker)
        if number % UNIT_RECORDS == 0:
            worker.settle()
    worker.settle()
    seconds = time.process_time() - began
    return {
        "sagas_per_second": round(sagas / seconds),
        "records_per_second": round(len(inputs) / seconds),
        "microseconds_per_record": round(seconds / len(inputs) * 1e6, 1),
        "records_per_saga": len(inputs) / sagas,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--sagas", type=int, default=2_000)
    arguments = parser.parse_args()
    found = measure(arguments.sagas)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
