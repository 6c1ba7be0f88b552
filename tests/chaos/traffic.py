"""Customers who go on ordering, deciding and cancelling while everything breaks, and programs that write nonsense.

The one rule: what it remembers is only what was committed for certain; the judge reads databases, not this.
"""

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from random import Random
from typing import Any, NamedTuple

import psycopg
from confluent_kafka import Producer

from pipelines.demo.demo import CraftyGoods
from pipelines.demo.postgres import connected
from pipelines.demo.traffic import Shop, basket, event_id, open_shop
from pipelines.services.order import place_order, request_cancellation
from pipelines.services.order.postgres import all_standings
from tests.chaos.poison import SERVICES, Poison
from towpath.clock import SystemClock
from towpath.contract.codec import Codec
from towpath.demo.demo import Run
from towpath.demo.postgres import ViewsReader
from towpath.errors import TowpathError
from towpath.settings import Settings
from towpath.stream.broker.kafka import read_records

ORDERS_PER_SECOND = 3.0
DECIDING_SECONDS = 3.0
CANCELLED_SHARE = 0.15
DELIVERY_SECONDS_MAX = 300


class Row(NamedTuple):
    """What a program writes into an outbox; `topic` None stands for the service's own, `ahead` moves the time."""

    topic: str | None = None
    key: str = "k"
    payload: bytes = b""
    ahead: timedelta = timedelta()


REFUSED_ROWS: Mapping[str, Row] = {
    "a name that no topic may have": Row(topic="catalog events"),
    "a topic that is misspelt": Row(topic="catalog.evnets"),
    "local time of Tokyo": Row(ahead=timedelta(hours=9)),
    "a time before 1970": Row(ahead=timedelta(days=-365 * 60)),
    "more than a record holds": Row(key="k" * 200_000, payload=bytes(900_000)),
    "a payload past its limit": Row(payload=bytes(900_001)),
}
"""Rows that an outbox must refuse: Debezium would stop at each of them."""


class Traffic:
    """Everything that comes from outside, from the first order until `end`; runs in a thread of its own."""

    def __init__(self, settings: Settings, codec: Codec, run_id: str, orders_max: int, seed: int) -> None:
        self._settings = settings
        self._codec = codec
        self._chance = Random(f"{seed} traffic")
        self._run = Run(settings, codec, run_id, orders_max, Random(run_id))
        self._demo = CraftyGoods()
        # The same seed as the demo's own: what it brings in is what is ordered.
        self._shop: Shop = open_shop(run_id, Random(run_id), orders_max)
        self._clock = SystemClock()
        self._numbers = 0
        self._decided: set[str] = set()
        self._seen_confirmed: set[str] = set()
        self._ending, self._placing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="traffic")
        self.placed: set[str] = set()
        """Orders whose transaction was committed for certain."""
        self.cancelled: set[str] = set()
        self.refused_rows = Counter[str]()
        self.accepted_rows: list[str] = []
        self.troubles = Counter[str]()
        self.failure: BaseException | None = None

    def begin(self) -> None:
        """Open the shop, and let customers in."""
        self._demo.prepare(self._run)
        self._placing.set()
        self._thread.start()

    def close_shop(self) -> None:
        """Let nobody order or cancel any more; what waits for a person is still decided."""
        self._placing.clear()

    def end(self) -> None:
        """Stop. Raises what ended it before that, if anything did."""
        self._ending.set()
        self._thread.join(60)
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        next_decision = time.monotonic()
        try:
            while not self._ending.is_set():
                if self._placing.is_set():
                    self._try(self._place)
                    if self._chance.random() < 0.1:
                        self._try(self._write_what_is_refused)
                if time.monotonic() >= next_decision:
                    next_decision = time.monotonic() + DECIDING_SECONDS
                    self._try(self._decide)
                    if self._placing.is_set():
                        self._try(self._cancel)
                self._ending.wait(self._chance.expovariate(ORDERS_PER_SECOND))
        except BaseException as error:
            self.failure = error

    def _try(self, action: Callable[[], None]) -> None:
        """Do something that may fail because a part is away; then it is not done, and the next thing is."""
        try:
            action()
        except (psycopg.OperationalError, psycopg.InterfaceError, TowpathError) as error:
            self.troubles[f"{action.__name__}: {type(error).__name__}"] += 1

    def _place(self) -> None:
        number, self._numbers = self._numbers, self._numbers + 1
        order = basket(self._shop, number, self._chance, self._clock.now())
        with connected(self._settings, "order") as connection:
            place_order(connection, self._codec, order, event_id=event_id(order.order_id))
        self.placed.add(order.order_id)

    def _decide(self) -> None:
        reader = ViewsReader(self._settings)
        try:
            found = reader.instances("place_order", self.placed)
        finally:
            reader.close()
        waiting = [one for one in found if one.waiting_for and one.saga_id not in self._decided]
        if waiting:
            self._demo.decide(self._run, waiting)
            self._decided.update(one.saga_id for one in waiting)

    def _cancel(self) -> None:
        """Cancel some of the orders that were confirmed and paid for."""
        with connected(self._settings, "payment") as connection:
            paid = dict(
                connection.execute("SELECT order_id, authorisation_id FROM authorisation WHERE captured_cents > 0")
            )
        with connected(self._settings, "order") as connection:
            standings = all_standings(connection)
        confirmed = sorted(key for key in self.placed & paid.keys() if standings.get(key, ("",))[0] == "confirmed")
        for key in confirmed:
            if key in self._seen_confirmed:
                continue
            self._seen_confirmed.add(key)
            if self._chance.random() >= CANCELLED_SHARE:
                continue
            with connected(self._settings, "order") as connection:
                request_cancellation(
                    connection,
                    self._codec,
                    key,
                    reason="changed my mind",
                    requested_by="customer",
                    authorisation_id=paid[key],
                    event_id=event_id(f"cancellation:{key}"),
                )
            self.cancelled.add(key)

    def _write_what_is_refused(self) -> None:
        """Write a row that Kafka would refuse; its transaction must fail, and with it nothing else."""
        service, what = self._chance.choice(SERVICES), self._chance.choice(list(REFUSED_ROWS))
        row = REFUSED_ROWS[what]
        at = self._clock.now().replace(tzinfo=None) + row.ahead
        with connected(self._settings, service) as connection:
            try:
                connection.execute(
                    "INSERT INTO outbox (id, topic, key, type, payload, created_at) VALUES (%s, %s, %s, 'x', %s, %s)",
                    (uuid.uuid4(), row.topic or f"{service}.events", row.key, row.payload, at),
                )
            except psycopg.errors.CheckViolation:
                self.refused_rows[what] += 1
            else:
                self.accepted_rows.append(f"{service}: {what}")
            connection.rollback()


class Poisoner:
    """Sends poison, and knows where each record lies once Kafka has acknowledged it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = Producer(
            {
                **settings.kafka.client_config(),
                "enable.idempotence": True,
                "message.max.bytes": 2_000_000,
                "message.timeout.ms": DELIVERY_SECONDS_MAX * 1000,
                "linger.ms": 0,
                "log_level": 0,
            }
        )
        self.sent: list[tuple[Poison, int]] = []
        self._unplaced: list[Poison] = []
        self.failed: list[str] = []
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="poison")
        self._thread.start()

    def send(self, poison: Poison) -> None:
        """Send a record to its partition."""

        def delivered(error: Any, message: Any) -> None:
            if error is None and message.offset() is not None:
                self.sent.append((poison, message.offset()))
            elif error is None:  # the client infers it from a later one's answer: see towpath/stream/broker/producer
                self._unplaced.append(poison)
            else:
                self.failed.append(f"{poison.kind} to {poison.topic}: {error}")

        self._producer.produce(
            poison.topic,
            poison.value,
            poison.key,
            partition=poison.partition,
            headers=list(poison.headers),
            on_delivery=delivered,
        )

    def finish(self) -> None:
        """Wait until Kafka has all of it."""
        left = self._producer.flush(DELIVERY_SECONDS_MAX)
        while self._unplaced:
            poison = self._unplaced.pop()
            offset = self._find(poison)
            if offset is not None:
                self.sent.append((poison, offset))
                continue
            self.send(poison)
            left += self._producer.flush(DELIVERY_SECONDS_MAX)
        self._serving.set()
        self._thread.join(30)
        if left:
            self.failed.append(f"{left} records of poison were not acknowledged")

    def _find(self, poison: Poison) -> int | None:
        """Return where a record lies, None where it does not; of several alike, where no other is known to lie."""
        known = {offset for one, offset in self.sent if (one.topic, one.partition) == (poison.topic, poison.partition)}
        like = (poison.partition, poison.key, poison.value)
        for record in read_records(self._settings, [poison.topic]):
            if (record.partition, record.key, record.value) == like and record.offset not in known:
                return record.offset
        return None

    def _serve(self) -> None:
        while not self._serving.wait(0.1):
            with contextlib.suppress(BufferError):
                self._producer.poll(0)
