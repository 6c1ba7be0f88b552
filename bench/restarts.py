"""How soon `place_order` serves again after its broker: `python -m bench.restarts [--json] [--freeze SECONDS]`.

A stack of its own and all workers of the reference project, under a load of orders. Kafka is killed (frozen before,
with --freeze) and started again by its supervisor; the clocks run from the new broker's first answer to an admin client
until the saga's group has committed further (`serving`), and until an order that was placed after that answer has
ended (`order_ended`: capture and all services serve, too). At the end every order must have ended once, and be found in
the databases. Needs a machine that has only this to do; twenty restarts take about ten minutes.
"""

import argparse
import json
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bench.saga_forms import FiveSteps, connect
from bench.saga_ours import Ours, our_stack
from towpath.orchestrator.agent import application_name
from towpath.stack.client import StackClient
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import BrokerAway
from towpath.stream.broker.record import TopicPartition

ORDERS_PER_SECOND = 20.0
"""Two cores drain about a hundred a second: what a restart held up is worked off before the next one."""
READ_BY_THE_SAGA = ("order.events", "place_order.replies")
SERVING_PROMISED_SECONDS = 15.0
"""What p99 of `serving` must not exceed."""
SERVING_SECONDS_MAX = 180.0
BETWEEN_SECONDS = 5.0
DRAIN_SECONDS = 180.0
LOOK_SECONDS = 0.1
OFTEN = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 200}
"""The broker's first answer is to be seen at once, not after ten seconds."""
PART = "kafka"


class Load:
    """Places orders at a steady rate, in a thread, until it is told to stop."""

    def __init__(self, ours: Ours, per_second: float) -> None:
        self._ours, self._per_second = ours, per_second
        self._stopping = threading.Event()
        self._failed: Exception | None = None
        self.placed: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begin = time.monotonic()
        try:
            with connect(self._ours.settings, self._ours.form.start_service) as connection:
                while not self._stopping.is_set():
                    (key,) = self._ours.keys(1)
                    self._ours.place(connection, key)
                    self.placed[key] = time.time()
                    self._stopping.wait(max(begin + len(self.placed) / self._per_second - time.monotonic(), 0))
        except Exception as error:
            self._failed = error

    def placed_since(self, moment: float) -> list[str]:
        """Return the orders that were placed from this moment on. Raises what ended the placing."""
        if self._failed is not None:
            raise self._failed
        return [key for key, at in list(self.placed.items()) if at >= moment]

    def stop(self) -> list[str]:
        """Place no more, and return all that were placed."""
        self._stopping.set()
        self._thread.join()
        return self.placed_since(0)


@dataclass(frozen=True, slots=True)
class Served:
    """Seconds from the broker's first answer, None where it took longer than it may."""

    serving: float | None
    order_ended: float | None


class Restarts:
    """Kills the broker and watches who serves again."""

    def __init__(self, ours: Ours, load: Load) -> None:
        self._ours, self._load = ours, load
        self._broker = KafkaBroker(ours.settings.kafka, ours.settings.stream)
        self._group = application_name(ours.settings, ours.form.saga)
        # One for all restarts: librdkafka has closed a socket of somebody else's when one was thrown away.
        self._admin = AdminClient({**ours.settings.kafka.client_config(), **OFTEN, "log_level": 0})
        topics = self._admin.list_topics(timeout=10).topics
        self._places = [TopicPartition(name, number) for name in READ_BY_THE_SAGA for number in topics[name].partitions]

    def one(self, freeze_seconds: float) -> Served:
        """Kill the broker once, frozen before for so long; return how soon it was served again."""
        with StackClient(self._ours.settings.stack_home) as client:
            before = client.status()[PART].pid
            if freeze_seconds:
                client.kill(PART, signal.SIGSTOP)
                time.sleep(freeze_seconds)
            client.kill(PART)
            while client.status()[PART].pid in (before, None):
                time.sleep(LOOK_SECONDS)
        while not self._answers():
            time.sleep(LOOK_SECONDS)
        answered, began = time.time(), time.monotonic()
        # Only what the group commits from here on is new: its coordinator tells no offset before it has loaded them.
        stood, serving, order_ended = -1, None, None
        while time.monotonic() - began < SERVING_SECONDS_MAX and None in (serving, order_ended):
            if serving is None:
                stands = self._total()
                stood = stands if stood < 0 else stood
                serving = time.monotonic() - began if stands > stood >= 0 else None
            if order_ended is None and any(
                key in self._ours.follower.ended for key in self._load.placed_since(answered)
            ):
                order_ended = time.monotonic() - began
            time.sleep(LOOK_SECONDS)
        return Served(serving, order_ended)

    def _answers(self) -> bool:
        try:
            self._admin.list_topics(timeout=1.0)
        except KafkaException:
            return False
        return True

    def _total(self) -> int:
        """Return the sum of the group's offsets, -1 while the cluster does not say."""
        try:
            return sum(self._broker.group_offsets(self._group, self._places).values())
        except BrokerAway:
            return -1


def measure(restarts: int, freeze_seconds: float, per_second: float) -> dict[str, Any]:
    """Return percentiles of the seconds, and what became of the orders."""
    with our_stack(FiveSteps()) as ours:
        load = Load(ours, per_second)
        if not _wait_for_one(ours, load):
            raise SystemExit(f"no order has ended within {SERVING_SECONDS_MAX:.0f} s of the start: nothing to restart")
        watch = Restarts(ours, load)
        found = []
        for number in range(restarts):
            found.append(watch.one(freeze_seconds))
            note(f"restart {number + 1}: {_said(found[-1].serving)}, an order ended {_said(found[-1].order_ended)}")
            time.sleep(BETWEEN_SECONDS)
        keys = load.stop()
        all_ended = ours.follower.wait_for(keys, DRAIN_SECONDS)
        verified = ours.verified(keys)
    serving = percentiles([one.serving for one in found])
    return {
        "restarts": restarts,
        "frozen_seconds": freeze_seconds,
        "orders_per_second": per_second,
        "serving_seconds": serving,
        "held": serving["p99"] is not None and serving["p99"] <= SERVING_PROMISED_SECONDS,
        "order_ended_seconds": percentiles([one.order_ended for one in found]),
        "orders": len(keys),
        "all_ended": all_ended,
        **verified,
        "complete": all_ended and verified["completed"] == verified["verified_in_databases"] == len(keys),
    }


def _wait_for_one(ours: Ours, load: Load) -> bool:
    deadline = time.monotonic() + SERVING_SECONDS_MAX
    while not any(key in ours.follower.ended for key in load.placed_since(0)):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def percentiles(found: list[float | None]) -> dict[str, float | None]:
    """Return p50, p99 and the longest, None for one that was never seen; of twenty, p99 is the longest."""
    ranked = sorted(float("inf") if one is None else one for one in found)
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    chosen = {name: ranked[min(int(len(ranked) * share), len(ranked) - 1)] for name, share in at.items()}
    return {name: None if one == float("inf") else round(one, 1) for name, one in chosen.items()}


def _said(seconds: float | None) -> str:
    return f"not within {SERVING_SECONDS_MAX:.0f} s" if seconds is None else f"after {seconds:.1f} s"


def note(text: str) -> None:
    """Say how it gets on; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print; return 1 where an order was lost, or nobody served again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--restarts", type=_positive, default=20, help="how often the broker is restarted")
    parser.add_argument("--freeze", type=float, default=0.0, help="seconds for which it is frozen before it is killed")
    parser.add_argument("--rate", type=float, default=ORDERS_PER_SECOND, help="orders placed a second")
    options = parser.parse_args()
    result = measure(options.restarts, options.freeze, options.rate)
    print(json.dumps(result, indent=None if options.json else 2))
    return 0 if result["complete"] and result["serving_seconds"]["max"] is not None else 1


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
