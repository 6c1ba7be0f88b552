"""The instances of a saga in the state of their partition: loaded, stored, and in the end forgotten. Pure.

The one rule: what is kept in memory is only a cache of what the unit of work reads; it is believed while the bytes
agree, so an aborted unit leaves nothing behind.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from towpath.contract.codec import Codec
from towpath.errors import PeerError
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages, state_from_wire, state_to_wire
from towpath.orchestrator.record_context import RecordContext
from towpath.saga.definition import Definition
from towpath.saga.definition_snapshot import fingerprint_of
from towpath.saga.state import SagaState
from towpath.stream.broker.position import HoldKind, PartitionHeld

STATES_REMEMBERED_MAX = 10_000
"""Decoded instances kept beside their bytes: at about 4.3 KiB each, 43 MiB."""
INSTANCE, _FORGOTTEN = b"i", b"f"


def instance_key(saga_id: str) -> bytes:
    """Return the key of an instance in the state."""
    return INSTANCE + saga_id.encode()


class MissingVersion(PartitionHeld):
    """An instance is of a version that this worker was not deployed with: it waits rather than guess."""

    def __init__(self, state: SagaState, known: Mapping[int, Definition]) -> None:
        super().__init__(
            HoldKind.VERSION,
            f"saga {state.saga} {state.saga_id} is of version {state.version}; this worker has {sorted(known)}",
            kept="the instance and its input; the partition waits",
            next_step=f"deploy version {state.version} of {state.saga} beside the newer one",
        )


class OtherDefinition(PartitionHeld):
    """An instance was written under another definition of the same version: it waits rather than guess."""

    def __init__(self, state: SagaState) -> None:
        super().__init__(
            HoldKind.VERSION,
            f"saga {state.saga} {state.saga_id} was begun under another definition: version {state.version} was "
            "edited since",
            kept="the instance and its input; the partition waits",
            next_step=f"deploy version {state.version} of {state.saga} as it was, and the edited one beside it as "
            f"version {state.version + 1}",
        )


class BeyondDedupHorizon(PeerError):
    """A start is older than instances that were forgotten already: whether it ran before can no longer be told."""

    parks_key = False
    """It is older than what is no longer known: nothing that comes after it has to wait for it."""


class Kept(NamedTuple):
    """An instance as it is kept: its bytes, and the two forms that they stand for."""

    content: bytes
    state: SagaState
    written: wire.SagaState


class Instances:
    """Reads and writes instances in the context at hand."""

    def __init__(self, codec: Codec, messages: Messages) -> None:
        self._codec = codec
        self._messages = messages
        self._known: OrderedDict[str, Kept] = OrderedDict()
        self._fingerprints: dict[int, tuple[Definition, str]] = {}

    def load(self, context: RecordContext, saga_id: str) -> SagaState | None:
        """Return the instance, or None if none of that id has started or it is forgotten."""
        content = context.state.get(instance_key(saga_id))
        if content is None:
            return None
        known = self._known.get(saga_id)
        if known is not None and known.content == content:
            return known.state
        decoded = self._codec.decode(content)
        assert isinstance(decoded, wire.SagaState)
        state = state_from_wire(decoded, self._messages)
        self._remember(Kept(content, state, decoded))
        return state

    def under_definition(self, state: SagaState, definitions: Mapping[int, Definition]) -> tuple[Definition, SagaState]:
        """Return the definition of an instance that was just loaded, and its state with the steps in that order.

        Raises MissingVersion where there is none of its version, OtherDefinition where the one of that version is not
        the one that it was written under; an instance that has ended has nothing left to decide but a parent's undo.
        """
        definition = definitions.get(state.version)
        if definition is None:
            raise MissingVersion(state, definitions)
        written_under = self._known[state.saga_id].written.definition
        keys = tuple(step.key for step in state.steps)
        decided = state.ended and state.parent is None
        edited = written_under not in ("", self._fingerprint(definition)) and not decided
        if edited or set(keys) != definition.index.keys():
            raise OtherDefinition(state)
        if keys == tuple(definition.index):
            return definition, state
        return definition, replace(state, steps=tuple(state.step(key) for key in definition.index))

    def encoded(self, definition: Definition, state: SagaState) -> Kept:
        """Return the instance as `definition` has left it, as it is kept."""
        known = self._known.get(state.saga_id)
        before = None if known is None else (known.state, known.written)
        written = state_to_wire(state, self._messages, self._fingerprint(definition), before)
        return Kept(self._codec.encode(written), state, written)

    def stored_bytes(self, saga_id: str) -> int:
        """Return how many bytes an instance has that was just loaded."""
        return len(self._known[saga_id].content)

    def store(self, context: RecordContext, kept: Kept) -> None:
        """Keep an instance as it was encoded."""
        context.state.put(instance_key(kept.state.saga_id), kept.content)
        self._remember(kept)

    def has_ended(self, context: RecordContext, saga_id: str) -> bool:
        """Say whether an instance that has begun has ended; one that is forgotten had."""
        state = self.load(context, saga_id)
        return state is None or state.ended

    def forget(self, context: RecordContext, saga_id: str) -> SagaState | None:
        """Remove an instance whose retention is over, and note how far back the memory of starts now reaches.

        Return it as it was; None, and leave all, if it has not ended (any more). That its key had one stays.
        """
        state = self.load(context, saga_id)
        if state is None or not state.ended:
            return None
        context.state.delete(instance_key(saga_id))
        self._known.pop(saga_id, None)
        self.forgotten_up_to(context, state.started_milliseconds)
        return state

    def forgotten_up_to(self, context: RecordContext, milliseconds: int) -> None:
        """Note that what became of a start of that time is no longer known."""
        newest = max(milliseconds, self._forgotten_milliseconds(context))
        context.state.put(_FORGOTTEN, str(newest).encode())

    def refuse_beyond_horizon(self, context: RecordContext) -> None:
        """Raise BeyondDedupHorizon for a start that is not newer than an instance already forgotten."""
        if context.record.timestamp_milliseconds <= self._forgotten_milliseconds(context):
            raise BeyondDedupHorizon(
                f"{context.record.position}: the start is not newer than instances that are forgotten already",
                kept="the record, untouched",
                next_step=f"look whether its saga ran; if it never did: towpath dead redrive {context.record.topic} "
                f"{context.record.position}",
            )

    def _forgotten_milliseconds(self, context: RecordContext) -> int:
        return int(context.state.get(_FORGOTTEN) or b"-1")

    def _fingerprint(self, definition: Definition) -> str:
        known = self._fingerprints.get(definition.version)
        if known is None or known[0] is not definition:
            known = self._fingerprints[definition.version] = (definition, fingerprint_of(definition))
        return known[1]

    def _remember(self, kept: Kept) -> None:
        self._known[kept.state.saga_id] = kept
        self._known.move_to_end(kept.state.saga_id)
        if len(self._known) > STATES_REMEMBERED_MAX:
            self._known.popitem(last=False)
