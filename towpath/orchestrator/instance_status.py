"""Where instances stand, told by the state topic itself: no view and no worker is needed. Pure.

The one rule: names, ids and times alone. Records of the business stay closed unless the caller brings an opener, so
whatever is listed or exported holds no customer's data.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from towpath.contract.codec import Codec
from towpath.orchestrator import records as wire
from towpath.orchestrator.instances import INSTANCE
from towpath.orchestrator.mapping import Nameplates, Opener, state_from_wire
from towpath.orchestrator.retention import PARENT_OVER
from towpath.saga.state import SagaState, Status, StepStatus
from towpath.stream.broker.record import ConsumedRecord

_UNDER_WAY = (
    StepStatus.SENT,
    StepStatus.BACKOFF,
    StepStatus.WAITING,
    StepStatus.STUCK,
    StepStatus.UNDOING,
    StepStatus.UNDO_BACKOFF,
    StepStatus.UNDO_STUCK,
    StepStatus.UNDO_FAILED,
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: its state, with a nameplate for each record, and when that was written.

    `needed` says that it may still change: it has not ended, or it is a completed sub-saga that its parent may ask
    back.
    """

    state: SagaState
    changed_milliseconds: int
    needed: bool

    @property
    def stuck(self) -> bool:
        """Say whether it needs a person."""
        return self.state.status is Status.STUCK

    @property
    def under_way(self) -> tuple[str, ...]:
        """Return the steps that it waits for or that need a person, and how they stand."""
        return tuple(f"{step.key} {step.status.value}" for step in self.state.steps if step.status in _UNDER_WAY)


def instances_in(records: Iterable[ConsumedRecord], codec: Codec, opener: Opener | None = None) -> Iterator[Instance]:
    """Yield every instance in the records of a state topic, read from its beginning: the oldest start first.

    `opener` opens the business's records in the states; by default they stay closed. Raises PeerError for a record
    that is not what it must be.
    """
    latest: dict[tuple[int, bytes], ConsumedRecord] = {}
    parents_over: set[bytes] = set()
    for record in records:
        key = record.key or b""
        kind, rest = key[:1], key[1:]
        if kind == PARENT_OVER:
            (parents_over.discard if record.value is None else parents_over.add)(rest)
        elif kind == INSTANCE and record.value is not None:
            latest[record.partition, key] = record
        elif kind == INSTANCE:
            latest.pop((record.partition, key), None)
    opener = opener or Nameplates()
    found = []
    for record in latest.values():
        decoded = codec.decode(record.value or b"")
        assert isinstance(decoded, wire.SagaState)
        state = state_from_wire(decoded, opener)
        asked_back = (
            state.status is Status.COMPLETED and state.parent is not None and state.saga_id.encode() not in parents_over
        )
        found.append(Instance(state, record.timestamp_milliseconds, not state.ended or asked_back))
    found.sort(key=lambda instance: (instance.state.started_milliseconds, instance.state.saga_id))
    yield from found
