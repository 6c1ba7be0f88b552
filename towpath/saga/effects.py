"""All that a decision can ask the world to do. The orchestrator performs them, in order, in one transaction."""

from enum import StrEnum
from typing import Generic, TypeVar

from towpath.saga.inputs import Timer
from towpath.saga.keys import idempotency_key_of, saga_id_of, start_id_of_child
from towpath.saga.state import Direction, ParentReference, Status
from towpath.saga.value import value

ResultT = TypeVar("ResultT")


@value
class SubsagaCompleted(Generic[ResultT]):
    """A sub-saga completed: the result that its parent's step has. `result` is the sub-saga's own, None if it has none.

    A class's fields need a default where older states lack them; that of `result` stands for "it has none".
    """

    saga: str
    saga_id: str
    result: ResultT = None  # type: ignore[assignment]  # a saga without a result is a SubsagaCompleted[None]


@value
class SubsagaCompensated:
    """A sub-saga left nothing behind: a business failure of its step, or the answer to its undo.

    It compensated, or it never began: its start was refused, or its parent asked for the undo before there was a start.
    """

    saga: str
    saga_id: str


@value
class SendCommand:
    """Send a command to a participant, answer to this saga's replies by `deadline_milliseconds`."""

    saga: str
    saga_id: str
    key: str
    participant: str
    step: str
    item: str
    direction: Direction
    attempt: int
    round: int
    command: object
    deadline_milliseconds: int

    @property
    def idempotency_key(self) -> str:
        """Return the key under which the participant records its outcome; all attempts of a round share it."""
        return idempotency_key_of(self.saga_id, self.step, self.item, self.direction, self.round)

    @property
    def undoes(self) -> str | None:
        """Return the idempotency key of the command that this one undoes (None unless it is an undo).

        What can be undone is never repeated after a recorded outcome, so its round is always the first.
        """
        if self.direction is Direction.DO:
            return None
        return idempotency_key_of(self.saga_id, self.step, self.item, Direction.DO, 1)


@value
class StartSaga:
    """Start a sub-saga with `event`, under the business key `child_key`. Its instance is `child_saga_id`."""

    saga: str
    saga_id: str
    key: str
    step: str
    attempt: int
    round: int
    child: str
    child_version: int
    event: object
    item: str = ""
    child_key: str = ""  # empty: the parent's

    @property
    def start_id(self) -> str:
        """Return the id that the child's start event has: the same, however often it is sent."""
        return start_id_of_child(self.saga_id, self.step, self.item)

    @property
    def child_saga_id(self) -> str:
        """Return the id of the child's instance."""
        return saga_id_of(self.child, self.start_id)

    @property
    def parent(self) -> ParentReference:
        """Return what the child's `Started` carries, so that its ending finds back."""
        asked = (Direction.DO, self.attempt, self.round)
        return ParentReference(self.saga, self.saga_id, self.key, self.step, *asked, self.item)


@value
class CompensateSaga:
    """Ask a sub-saga (`ParentAsked`) to undo itself, whether it still runs or has completed."""

    saga: str
    saga_id: str
    key: str
    step: str
    attempt: int
    round: int
    child: str
    item: str = ""
    child_key: str = ""  # empty: the parent's

    @property
    def child_saga_id(self) -> str:
        """Return the id of the child's instance."""
        return saga_id_of(self.child, start_id_of_child(self.saga_id, self.step, self.item))

    @property
    def parent(self) -> ParentReference:
        """Return what the child's `ParentAsked` carries."""
        asked = (Direction.UNDO, self.attempt, self.round)
        return ParentReference(self.saga, self.saga_id, self.key, self.step, *asked, self.item)


@value
class AnswerParent:
    """Tell the parent how this sub-saga ended, as a `Replied` to the step that `parent` names."""

    saga_id: str
    parent: ParentReference
    reply: SubsagaCompleted[object] | SubsagaCompensated


@value
class PublishEvent:
    """Publish an event in this saga's own topic of events; nobody answers. `number` counts a wait's reminders."""

    saga: str
    saga_id: str
    key: str
    step: str
    event: object
    number: int = 0

    @property
    def event_id(self) -> str:
        """Return the id of the event: the same, however often it is published."""
        return idempotency_key_of(self.saga_id, self.step, str(self.number or ""), Direction.DO, 1)


@value
class StartNext:
    """Start the next instance of this saga with `event`, under the business key `next_key`."""

    saga: str
    saga_id: str
    step: str
    event: object
    next_key: str

    @property
    def start_id(self) -> str:
        """Return the id that the start event has: the same, however often it is sent."""
        return start_id_of_child(self.saga_id, self.step)


@value
class SetTimer:
    """Deliver `TimerFired(timer)` once `due_milliseconds` has come. Setting a timer that runs moves it."""

    saga_id: str
    timer: Timer
    due_milliseconds: int


@value
class CancelTimer:
    """The timer is no longer wanted; one that fires all the same is refused."""

    saga_id: str
    timer: Timer


class Happened(StrEnum):
    """What an input was taken for, in the history."""

    STARTED = "started"
    REPLIED = "replied"
    TIMER_FIRED = "timer_fired"
    SIGNALLED = "signalled"
    OPERATOR_ASKED = "operator_asked"
    PARENT_ASKED = "parent_asked"
    UPGRADED = "upgraded"
    REFUSED = "refused"


@value
class Record:
    """One entry of the history; each decision has exactly one, its first effect.

    What was sent in answer stands beside it, in the decision's other effects. `detail` names the class of the message,
    the kind of timer or the action; `reason` says why an input was refused, or a person's reason. `status` is the
    saga's after the decision, None where no such saga exists.
    """

    saga_id: str
    input_id: str
    at_milliseconds: int
    happened: Happened
    detail: str
    step: str
    item: str
    direction: Direction
    attempt: int
    round: int
    reason: str
    actor: str
    status: Status | None


@value
class Finish:
    """The saga has ended: `status` is completed or compensated."""

    saga_id: str
    status: Status


Sending = SendCommand | StartSaga | CompensateSaga | AnswerParent | PublishEvent | StartNext
Effect = Sending | SetTimer | CancelTimer | Record | Finish
