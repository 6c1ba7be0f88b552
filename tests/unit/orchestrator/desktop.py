"""A unit of work on the product's own memory store: what `Orchestrator.handle` does with a record can be looked at."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from schemas.records.order import OrderLine, OrderPlaced
from towpath.clock import ManualClock
from towpath.contract.codec import Codec
from towpath.contract.files import schema_sets
from towpath.contract.record import Record
from towpath.orchestrator.core import Observe, Orchestrator
from towpath.orchestrator.envelope import headers_of
from towpath.saga import Saga
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.state.partition_state import Checkpoint, MemoryStore, State
from towpath.stream.state.timers import Timers

CODEC = Codec.offline(schema_sets(load_settings()))
HOUR_MILLISECONDS = 3_600_000


@dataclass(frozen=True, slots=True)
class Sent:
    """One record that a unit sent."""

    topic: str
    key: str
    headers: dict[str, str]
    record: Any
    partition: int | None


@dataclass
class Desktop:
    """One worker with one partition; `clock` gives each record its time, `limits` say what its unit would send."""

    orchestrator: Orchestrator
    clock: ManualClock = field(default_factory=ManualClock)
    limits: RecordLimits = field(default_factory=RecordLimits)
    sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._state = State(TopicPartition(f"{self.orchestrator.name}.state", 0), MemoryStore())
        self._state.writable = True
        self._timers = Timers(self._state)
        self._offset = 0

    # --- The port that the orchestrator works on

    @property
    def now_milliseconds(self) -> int:
        """Return the time that it is for the worker; records may say another."""
        return int(self.clock.now().timestamp() * 1000)

    def send(
        self, topic: str, value: bytes | None, *, key: bytes | None, headers: Headers, partition: int | None = None
    ) -> None:
        """Note what was sent."""
        assert value is not None
        assert key is not None
        self.limits.check(topic, key, value, headers)
        texts = {name: (text or b"").decode() for name, text in headers}
        self.sent.append(Sent(topic, key.decode(), texts, CODEC.decode(value), partition))

    def state(self, changelog: str, partition: int) -> State:
        """Return the one state."""
        assert (changelog, partition) == self._state.changelog
        return self._state

    def timers(self, partition: int) -> Timers:
        """Return the timers of the one partition."""
        return self._timers

    # --- What a test does with it

    def give(self, topic: str, record: Record | bytes, *, key: str | None = "order-1", **headers: Any) -> list[Sent]:
        """Let `record` arrive and its unit commit; return what the unit sent."""
        return self.give_at(None, topic, record, key=key, **headers)

    def give_at(
        self, at: datetime | None, topic: str, record: Record | bytes, *, key: str | None = "order-1", **headers: Any
    ) -> list[Sent]:
        """Let `record` arrive whose own time is `at` (None: now), and its unit commit; return what the unit sent."""
        self._take(topic, record, key, headers, at)
        self._state.settle(Checkpoint(0, "topic", 0))
        return self._drain()

    def give_and_abort(self, topic: str, record: Record, **headers: Any) -> None:
        """Let `record` arrive, and the unit that took it abort."""
        self._take(topic, record, "order-1", headers)
        self._state.forget()
        self._drain()

    def fire_timers(self) -> list[Sent]:
        """Let every due timer fire, in order; return what that sent."""
        sent: list[Sent] = []
        now = int(self.clock.now().timestamp() * 1000)
        for timer in list(self._timers.due(now)):
            self._timers.cancel(timer.key)
            headers = {name: (text or b"").decode() for name, text in timer.headers}
            key = (timer.record_key or b"").decode()
            sent += self.give(f"{self.orchestrator.name}.timers", timer.payload, key=key, **headers)
        return sent

    def timers_set(self) -> list[str]:
        """Return the keys of the timers that run, the next one first."""
        return [timer.key.decode() for timer in self._timers.due(2**62)]

    def stored(self) -> dict[bytes, bytes]:
        """Return the state."""
        return dict(self._state.scan())

    def reply(self, command: Sent, record: Record, **changes: Any) -> list[Sent]:
        """Answer `command` as a participant would."""
        names = ("saga_id", "saga", "step", "item", "direction", "attempt", "round")
        headers = {name: command.headers[name] for name in names if name in command.headers}
        own = {"id": f"reply-{self._offset}", "type": record.SCHEMA_NAME}
        return self.give(command.headers["reply_to"], record, key=command.key, **{**headers, **own, **changes})

    def _take(
        self,
        topic: str,
        record: Record | bytes,
        key: str | None,
        headers: dict[str, Any],
        at: datetime | None = None,
    ) -> None:
        self._offset += 1
        payload = record if isinstance(record, bytes) else CODEC.encode(record)
        time = int((at or self.clock.now()).timestamp() * 1000)
        encoded = None if key is None else key.encode()
        consumed = ConsumedRecord(topic, 0, self._offset, time, encoded, payload, headers_of(**headers))
        self.orchestrator.handle(consumed, self)

    def _drain(self) -> list[Sent]:
        sent, self.sent = self.sent, []
        return sent


def desktop(
    *sagas: Saga[Any],
    start_topic: str = "order.events",
    observe: Observe | None = None,
    limits: RecordLimits | None = None,
) -> Desktop:
    """Return a worker that runs these versions of one saga; instances are forgotten an hour after their end."""
    definitions = {saga.definition.version: saga.definition for saga in sagas}
    return Desktop(
        Orchestrator(
            definitions,
            CODEC,
            start_topic=start_topic,
            finished_retention_milliseconds=HOUR_MILLISECONDS,
            observe=observe,
            limits=limits,
        ),
        limits=limits or RecordLimits(),
    )


def order_placed(order_id: str = "order-1", total_cents: int = 20_00) -> OrderPlaced:
    """Return an order of one line."""
    return OrderPlaced(
        order_id=order_id,
        customer_id="customer-1",
        lines=(OrderLine(sku="chair", quantity=1, unit_price_cents=total_cents),),
        total_cents=total_cents,
        currency="EUR",
        card_token="card-1",
        placed_at=ManualClock().now(),
    )


def commands(sent: list[Sent]) -> list[Sent]:
    """Return the commands among what was sent."""
    return [message for message in sent if message.topic.endswith(".commands")]


def history(sent: list[Sent]) -> list[Any]:
    """Return the history entries among what was sent."""
    return [message.record for message in sent if message.topic.endswith(".history")]
