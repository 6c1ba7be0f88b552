"""The stores of the partitions that this worker owns. Pure: what a store is made of comes in as a function.

The one rule: a store serves only between being caught up and being given away.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from towpath.errors import ProgrammerError
from towpath.stream.broker.record import TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.state.changelog import write_changelogs
from towpath.stream.state.parking import ParkedKeys
from towpath.stream.state.partition_state import State, Store
from towpath.stream.state.timers import Timers

StoreFactory = Callable[[TopicPartition], Store]


@dataclass(slots=True)
class _Serving:
    states: dict[str, State]
    timers: Timers | None
    parked: ParkedKeys | None


class PartitionStores:
    """State, timers and parked keys by partition number.

    The first changelog is the home of timers and parked keys.
    """

    def __init__(
        self,
        changelogs: tuple[str, ...],
        *,
        parks: bool,
        limits: RecordLimits | None = None,
        timers_topic: str | None = None,
    ) -> None:
        self.changelogs = changelogs
        self._limits = limits or RecordLimits()
        self._timers_topic = timers_topic or ""
        self._parks = parks and bool(changelogs)
        self._serving: dict[int, _Serving] = {}

    def serve(self, partition: int, stores: dict[str, Store]) -> None:
        """Take up a partition whose stores, by changelog, have caught up."""
        states = {
            name: State(TopicPartition(name, partition), store, bytes_max=self._limits.of(name))
            for name, store in stores.items()
        }
        home = states[self.changelogs[0]] if self.changelogs else None
        self._serving[partition] = _Serving(
            states,
            Timers(home, topic=self._timers_topic, limits=self._limits) if home is not None else None,
            ParkedKeys(home) if self._parks and home is not None else None,
        )

    def withdraw(self, partition: int) -> list[Store]:
        """Stop serving a partition; return its stores, for the caller to close or catch up."""
        serving = self._serving.pop(partition, None)
        return [] if serving is None else [state.store for state in serving.states.values()]

    @property
    def partitions(self) -> list[int]:
        """Return the partitions that are served."""
        return list(self._serving)

    def _get(self, partition: int) -> _Serving:
        try:
            return self._serving[partition]
        except KeyError:
            raise ProgrammerError(
                f"partition {partition} is not this worker's",
                next_step="keep state under the partition of the record that is handled",
            ) from None

    def state(self, changelog: str, partition: int) -> State:
        """Return a state. Raises ProgrammerError for a partition or changelog that is not this worker's."""
        states = self._get(partition).states
        if changelog not in states:
            raise ProgrammerError(
                f"{changelog} is no changelog of this application", next_step=f"declare it in states={self.changelogs}"
            )
        return states[changelog]

    def timers(self, partition: int) -> Timers:
        """Return the timers of a partition. Raises ProgrammerError where the application keeps no state."""
        timers = self._get(partition).timers
        if timers is None:
            raise ProgrammerError("timers need a changelog", next_step="declare one: create_app(..., states=(...,))")
        return timers

    def parked(self, partition: int) -> ParkedKeys | None:
        """Return the parked keys of a partition, or None where keys are not parked."""
        serving = self._serving.get(partition)
        return serving.parked if serving else None

    def notes(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, str]:
        """Return the notes beside the offsets of `partitions`: into which changelogs their state goes, and how far."""
        places = list(partitions)
        noted = {number: self._note(number) for number in {place.partition for place in places}}
        return {place: note for place in places if (note := noted[place.partition]) is not None}

    def _note(self, number: int) -> str | None:
        serving = self._serving.get(number)
        ends: dict[str, int] = {}
        for state in serving.states.values() if serving is not None else ():
            checkpoint = state.store.checkpoint()
            if checkpoint is not None:
                ends[checkpoint.topic_id] = state.end_min
        return write_changelogs(ends) if ends else None

    def changed(self) -> list[State]:
        """Return the states that the open unit has changed."""
        return [state for state in self._all() if state.is_changed]

    def open_unit(self) -> None:
        """Let the states be written to."""
        for state in self._all():
            state.writable = True

    def close_unit(self) -> None:
        """Let nothing write to the states."""
        for state in self._all():
            state.writable = False

    def forget(self) -> None:
        """After an abort: forget what the unit changed."""
        for serving in self._serving.values():
            touched = any(state.is_changed for state in serving.states.values())
            for state in serving.states.values():
                state.forget()
            if touched and serving.parked is not None:
                serving.parked.reload()

    def _all(self) -> Iterator[State]:
        for serving in self._serving.values():
            yield from serving.states.values()
