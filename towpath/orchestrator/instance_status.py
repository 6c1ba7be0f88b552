"""Where instances stand, told by the state topic itself: no view and no worker is needed. Pure.

The one rule: names, ids and times alone. Records of the business stay closed unless the caller brings an opener, so
whatever is listed or exported holds no customer's data.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from towpath.contract.codec import Codec
from towpath.orchestrator import records as wire
from towpath.orchestrator.instances import INSTANCE
from towpath.orchestrator.mapping import Nameplates, Opener, state_from_wire
from towpath.orchestrator.retention import PARENT_OVER
from towpath.saga.definition import Definition
from towpath.saga.definition_snapshot import fingerprint_of
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
class KeptInstance:
    """One instance: its state, with a nameplate for each record, and when that was written.

    `needed` says that it may still change, or must answer: it has not ended, or it is a sub-saga whose parent may ask
    for it yet. `held` says why a worker with the definitions at hand would not decide about it.
    """

    state: SagaState
    changed_milliseconds: int
    needed: bool
    held: str | None = None

    @property
    def stuck(self) -> bool:
        """Say whether it needs a person."""
        return self.state.status is Status.STUCK

    @property
    def under_way(self) -> tuple[str, ...]:
        """Return the steps that it waits for or that need a person, and how they stand."""
        steps = tuple(f"{step.key} {step.status.value}" for step in self.state.steps if step.status in _UNDER_WAY)
        return steps if self.held is None else (self.held, *steps)


def _held_by(state: SagaState, written_under: str, known: Mapping[int, tuple[Definition, str]]) -> str | None:
    """Return why an instance, written under the definition of that fingerprint, waits for another deployment."""
    if state.version not in known:
        return f"version {state.version}, which is not deployed"
    definition, fingerprint = known[state.version]
    edited = written_under not in ("", fingerprint)
    if edited or {step.key for step in state.steps} != definition.index.keys():
        return f"version {state.version} as it was: it was edited since"
    return None


def instances_in(
    records: Iterable[ConsumedRecord],
    codec: Codec,
    opener: Opener | None = None,
    definitions: Mapping[int, Definition] | None = None,
) -> Iterator[KeptInstance]:
    """Yield every instance in the records of a state topic, read from its beginning: the oldest start first.

    `opener` opens the business's records in the states; by default they stay closed. With `definitions` it is looked
    whether these can decide about each. Raises PeerError for a record that is not what it must be.
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
    known = {version: (definition, fingerprint_of(definition)) for version, definition in (definitions or {}).items()}
    found = []
    for record in latest.values():
        decoded = codec.decode(record.value or b"")
        assert isinstance(decoded, wire.SagaState)
        state = state_from_wire(decoded, opener)
        needed = not state.ended or (state.parent is not None and state.saga_id.encode() not in parents_over)
        looked = needed and definitions is not None
        held = _held_by(state, decoded.definition, known) if looked else None
        found.append(KeptInstance(state, record.timestamp_milliseconds, needed, held))
    found.sort(key=lambda instance: (instance.state.started_milliseconds, instance.state.saga_id))
    yield from found
