"""When an instance is forgotten: a time after it is over, which it is once nobody can ask for it any more. Pure.

The one rule: a sub-saga that has completed can be undone as long as its parent has not ended. So an instance is over
when it has ended and (if it has a parent) its parent is over too; then it is given its time, and tells its children.
A parent that needs a person keeps its children for as long as that takes, and the marks of those that never began.
"""

from towpath.contract.codec import Codec
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.record_context import RecordContext
from towpath.saga.decision_builder import child_keys_of
from towpath.saga.definition import Definition
from towpath.saga.keys import saga_id_of, start_id_of_child
from towpath.saga.state import Direction, SagaState, StepStatus

FORGET = "forget"
PARENT_OVER = b"p"
"""Key, before an instance's id, of the note that its parent is over."""


class Retention:
    """Sets the timers that in the end remove what a partition keeps."""

    def __init__(self, codec: Codec, retention_milliseconds: int) -> None:
        self._codec = codec
        self._retention_milliseconds = retention_milliseconds

    def ended(self, context: RecordContext, definition: Definition, state: SagaState) -> None:
        """Learn that an instance has ended: it is over, unless its parent may still ask for it."""
        if state.parent is None or context.state.get(_noted(state.saga_id)) is not None:
            self._over(context, definition, state)

    def parent_ended(self, context: RecordContext, definition: Definition, state: SagaState) -> None:
        """Learn that the parent of an instance is over: so is the instance, if it has ended, else when it does."""
        if context.state.get(_noted(state.saga_id)) is None:
            context.state.put(_noted(state.saga_id), b"1")
            if state.ended:
                self._over(context, definition, state)

    @staticmethod
    def is_over(context: RecordContext, state: SagaState) -> bool:
        """Say whether an instance has ended and nobody can ask for it any more."""
        return state.ended and (state.parent is None or context.state.get(_noted(state.saga_id)) is not None)

    def forgotten(self, context: RecordContext, saga_id: str) -> None:
        """Remove what was noted about an instance that is forgotten."""
        if context.state.get(_noted(saga_id)) is not None:
            context.state.delete(_noted(saga_id))

    def forget_later(self, context: RecordContext, subject: str, key: str, due_milliseconds: int) -> None:
        """Set the timer that in the end removes `subject` from the state."""
        fired = wire.TimerFired(
            saga_id=subject, kind=FORGET, step="", direction=Direction.DO.value, due_milliseconds=due_milliseconds
        )
        timer_key = _timer_key(subject)
        headers = envelope.headers_of(id=timer_key.decode(), type=fired.SCHEMA_NAME, saga_id=subject)
        context.timers.set(
            timer_key, due_milliseconds, self._codec.encode(fired), record_key=key.encode(), headers=headers
        )

    def never_mind(self, context: RecordContext, subject: str) -> None:
        """Cancel that timer."""
        context.timers.cancel(_timer_key(subject))

    def parent_of_withdrawn_ended(self, context: RecordContext, saga_id: str) -> None:
        """Learn that the parent of a withdrawn sub-saga is over: what is noted of it is given the same time."""
        if context.state.get(_noted(saga_id)) is None:
            context.state.put(_noted(saga_id), b"1")
            self._give_time(context, saga_id, envelope.business_key(context.record))

    def _give_time(self, context: RecordContext, saga_id: str, key: str) -> None:
        due = context.record.timestamp_milliseconds + self._retention_milliseconds
        self.forget_later(context, saga_id, key, due)

    def _over(self, context: RecordContext, definition: Definition, state: SagaState) -> None:
        self._give_time(context, state.saga_id, state.key)
        for declared, step in zip(definition.steps, state.steps, strict=True):
            if declared.child is None or step.status in (StepStatus.PENDING, StepStatus.SKIPPED):
                continue
            for item, key in child_keys_of(definition, state, declared).items():
                start_id = start_id_of_child(state.saga_id, step.key, item)
                self._tell(context, state, declared.child.name, start_id, key)

    def _tell(self, context: RecordContext, state: SagaState, child: str, start_id: str, key: str) -> None:
        told = wire.ParentEnded(saga=state.saga, saga_id=state.saga_id)
        context.unit.send(
            envelope.topic_of(child, envelope.SIGNALS),
            self._codec.encode(told),
            key=key.encode(),
            headers=envelope.headers_of(
                id=f"{start_id}:ended",
                type=told.SCHEMA_NAME,
                saga_id=saga_id_of(child, start_id),
                **dict(state.headers),
            ),
        )


def _noted(saga_id: str) -> bytes:
    return PARENT_OVER + saga_id.encode()


def _timer_key(subject: str) -> bytes:
    return f"{FORGET}:{subject}".encode()
