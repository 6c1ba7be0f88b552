"""When timers may fire.

The one rule: timers never outrun replies. After an outage every deadline is due while the replies lie unread, so a
timer fires only once the inputs of its partition have been read up to where they ended when it was found to be due,
and never while the application says that capture is behind.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from towpath import metrics
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.assignment import Assignment
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.state.stores import PartitionStores
from towpath.stream.state.timers import Timer

log = structlog.get_logger("towpath.stream.engine.timer_gate")

TIMERS_PER_UNIT_MAX = 500
HELD_SECONDS = 0.25
"""How long to wait before the hold is asked about again."""
HELD_TIMER_MILLISECONDS = 10_000
"""How long a timer that is held by itself is put off each time: one write to the store for each."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Timers due at `until_milliseconds` may fire once every partition has been read to its end of that moment."""

    until_milliseconds: int
    ends: dict[TopicPartition, int]


class TimerGate:
    """Decides for each partition when its due timers fire, and fires them."""

    def __init__(
        self,
        broker: Broker,
        stores: PartitionStores,
        *,
        application: str,
        topic: str,
        hold: Callable[[], bool] | None = None,
        hold_timer: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._broker = broker
        self._stores = stores
        self.topic = topic
        self._hold = hold
        self._hold_timer = hold_timer
        self._next_due: dict[int, int | None] = {}
        self._gates: dict[int, Gate] = {}
        self._held = False
        self._fired = metrics.TIMERS_FIRED.labels(application)
        self._lateness = metrics.TIMER_LATENESS_SECONDS.labels(application)

    def reset(self, numbers: set[int]) -> None:
        """Look at the next timers anew, after a commit."""
        served = self._stores.partitions
        for number in numbers:
            if number in served:
                self._next_due[number] = self._stores.timers(number).next_due_milliseconds()

    def begin(self, numbers: set[int]) -> None:
        """Look at timers of partitions that begin to be served: their logs may have ended elsewhere before."""
        for number in numbers:
            self._gates.pop(number, None)
        self.reset(numbers)

    def seconds_to_next(self, now_milliseconds: int) -> float:
        """Return how long until the next timer falls due."""
        served = self._stores.partitions
        times = [due for number in served if (due := self._next_due.get(number)) is not None]
        if not times:
            return float("inf")
        seconds = max(min(times) - now_milliseconds, 0) / 1000
        return max(seconds, HELD_SECONDS) if self._held else seconds

    async def next_ready(
        self, ownership: Assignment, waiting: Callable[[TopicPartition], bool], now_milliseconds: int
    ) -> int | None:
        """Return a partition number whose due timers may fire now, or None."""
        self._held = False
        for number in self._stores.partitions:
            due = self._next_due.get(number)
            if due is None or due > now_milliseconds:
                continue
            if self._hold is not None and self._hold():
                self._held = True
                self._gates.clear()  # what capture brings then lies behind these ends
                return None
            inputs = ownership.with_number(number)
            if len(inputs) < len(ownership.topics) or not all(map(ownership.serves, inputs)):
                continue  # co-located topics may be assigned one by one
            gate = self._gates.get(number)
            # One left over from a cancelled timer knows older ends, or a later time, if the clock was set back.
            if gate is None or set(gate.ends) != set(inputs) or not due <= gate.until_milliseconds <= now_milliseconds:
                ends = await asyncio.to_thread(self._broker.end_offsets, inputs)
                gate = self._gates[number] = Gate(now_milliseconds, ends)
            if all(ownership.read_to(p, waiting=waiting(p)) >= end for p, end in gate.ends.items()):
                return number
        return None

    def fire(self, unit: KafkaUnit, number: int) -> list[Timer]:
        """Produce the records of the due timers into their own partition and take them out of the index.

        A timer that is held by itself is put off: what it says of its time stays as it was.
        """
        timers = self._stores.timers(number)
        until_milliseconds = self._gates[number].until_milliseconds
        due: list[Timer] = []
        held: list[Timer] = []
        for timer in timers.due(until_milliseconds):
            (held if self._hold_timer is not None and self._hold_timer(timer.key) else due).append(timer)
            if len(due) + len(held) == TIMERS_PER_UNIT_MAX:
                break
        for timer in held:
            later = until_milliseconds + HELD_TIMER_MILLISECONDS
            timers.set(timer.key, later, timer.payload, record_key=timer.record_key, headers=timer.headers)
        for timer in due:
            unit.send(self.topic, timer.payload, key=timer.record_key, headers=timer.headers, partition=number)
            timers.cancel(timer.key)
        return due

    def fired(self, number: int, timers: list[Timer], now_milliseconds: int) -> None:
        """Note that the unit which fired `timers` was committed."""
        self._fired.inc(len(timers))
        self._lateness.observe_all([max(now_milliseconds - timer.due_milliseconds, 0) / 1000 for timer in timers])
        if len(timers) < TIMERS_PER_UNIT_MAX:
            del self._gates[number]
        self.reset({number})
