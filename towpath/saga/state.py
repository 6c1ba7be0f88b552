"""The state of one saga instance: frozen, and complete. With its definition it says all that the machine knows.

The machine has no clock: every time here was read from a record (milliseconds since 1970, UTC).
"""

from collections.abc import Iterable
from enum import StrEnum

from towpath.saga.value import value


class Status(StrEnum):
    """How a saga stands. Completed and compensated are endings; stuck is a halt that needs a person."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    STUCK = "stuck"


class Direction(StrEnum):
    """Which way a saga, or a command, goes."""

    DO = "do"
    UNDO = "undo"


class StepStatus(StrEnum):
    """How a step, or one item of an `each`, stands."""

    PENDING = "pending"  # not begun; a wait may already hold its answer
    SENT = "sent"  # its command is out, unanswered
    BACKOFF = "backoff"  # an attempt was not answered in time; the next one follows after a pause
    WAITING = "waiting"  # a wait or a delay has begun
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"  # its condition did not hold, or nobody answered and that means to proceed
    DECLINED = "declined"  # a business failure that is tolerated: settled, with that reply as its result, owing nothing
    FAILED = "failed"  # business failure, or an answer that did not come: by contract it left no effect
    UNKNOWN = "unknown"  # was sent, will not be asked again: it may or may not have happened
    ABANDONED = "abandoned"  # a wait or delay that compensation ended
    STUCK = "stuck"  # its attempts or the saga's time are used up past the pivot: needs a person
    UNDOING = "undoing"  # its undo is out, unanswered
    UNDO_BACKOFF = "undo_backoff"
    UNDO_STUCK = "undo_stuck"  # the undo's attempts are used up, its outcome is unknown: needs a person
    UNDO_FAILED = "undo_failed"  # the participant said that it cannot be undone: needs a person
    UNDONE = "undone"


# Tuples, not sets: `in` then compares identities and hashes nothing.
NEED_A_PERSON = (StepStatus.STUCK, StepStatus.UNDO_STUCK, StepStatus.UNDO_FAILED)
BEING_UNDONE = (StepStatus.UNDOING, StepStatus.UNDO_BACKOFF, StepStatus.UNDO_STUCK, StepStatus.UNDO_FAILED)
_BACKWARD = (*BEING_UNDONE, StepStatus.UNDONE)


def direction_of(status: StepStatus) -> Direction:
    """Return the direction of the command that the attempt and round of a step or item are those of."""
    return Direction.UNDO if status in _BACKWARD else Direction.DO


class CauseKind(StrEnum):
    """Why a saga started compensating."""

    STEP_FAILED = "step_failed"
    STEP_EXHAUSTED = "step_exhausted"
    WAIT_TIMED_OUT = "wait_timed_out"
    TOO_MANY_ITEMS = "too_many_items"
    TOO_FEW_ITEMS = "too_few_items"  # fewer than would be enough
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    OPERATOR = "operator"
    PARENT = "parent"
    REFUSED = "refused"  # it was not to begin: the key has an instance already
    TOO_LATE = "too_late"  # a delay would end later than it may
    TOO_LARGE = "too_large"  # not started compensating, but stuck: what follows is larger than its topic takes


@value
class Cause:
    """Why a saga compensates, or is stuck because what follows is too large. The start event's undo receives it.

    `step` and `item` name where it happened, if it happened at a step; `reply` is the business failure, if it was one,
    or the event that cancelled it. `actor` and `reason` are those of the person who asked, if a person did; of a start
    that was refused, `reason` says why.
    """

    kind: CauseKind
    step: str = ""
    item: str = ""
    reply: object | None = None
    actor: str = ""
    reason: str = ""

    def __str__(self) -> str:
        if self.kind is CauseKind.STEP_FAILED:
            return f"{self.step}: {type(self.reply).__name__}"
        if self.kind is CauseKind.REFUSED:
            return f"{self.kind.value}: {self.reason}"
        if self.kind is CauseKind.TOO_LARGE:
            return f"{self.step or 'the saga'} cannot go on: {self.reason}"
        if self.kind is CauseKind.CANCELLED and self.reply is not None:
            return f"{self.kind.value} by {type(self.reply).__name__}"
        if self.actor:
            return f"{self.kind.value} by {self.actor}: {self.reason}"
        return f"{self.step}: {self.kind.value}" if self.step else self.kind.value


@value
class StepState:
    """One step, or one item of an `each` (then `key` is the item's, and an `each` step carries them in `items`).

    `attempt` and `round` are those of the command last sent in the direction that `status` tells. `due_milliseconds`
    is when the running timer fires, 0 where none runs. `attempt_last` and `give_up_milliseconds` bound the present
    round. Of a wait that reminds or can be prolonged, they are the number of its last timer and when it is over, and
    `round` is one more than the times that it was prolonged. `result` is the reply, signal or event that settled the
    step, kept while it is undone.
    """

    key: str
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0
    round: int = 0
    due_milliseconds: int = 0
    attempt_last: int = 0
    give_up_milliseconds: int = 0
    result: object | None = None
    items: tuple["StepState", ...] = ()


def need_a_person(steps: Iterable[StepState]) -> bool:
    """Say whether any step can go on only with the help of a person."""
    for step in steps:  # noqa: SIM110 - three times as fast as `any`, and asked in every decision
        if step.status in NEED_A_PERSON:
            return True
    return False


@value
class ParentReference:
    """Where a sub-saga sends its ending: the step (and item) of its parent, and what that last asked (`direction`)."""

    saga: str
    saga_id: str
    key: str
    step: str
    direction: Direction
    attempt: int
    round: int
    item: str = ""


@value
class SagaState:
    """One instance of a saga.

    `key` is the business key that all its topics are keyed by; `headers` came with the start (trace, tenant) and are
    carried, never read. `deadline_milliseconds` is when the saga's deadline falls due, 0 once it no longer runs.
    `recent` holds id and time of the requests last decided, oldest first (see requests.py);
    `forgotten_milliseconds` is the newest time among those no longer held.
    """

    saga: str
    version: int
    saga_id: str
    key: str
    start_id: str
    started_milliseconds: int
    event: object
    status: Status
    direction: Direction
    deadline_milliseconds: int
    steps: tuple[StepState, ...]
    cause: Cause | None = None
    recent: tuple[tuple[str, int], ...] = ()
    forgotten_milliseconds: int = -1
    parent: ParentReference | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def step(self, key: str) -> StepState:
        """Return the state of the step with that key. Raises KeyError."""
        for step in self.steps:
            if step.key == key:
                return step
        raise KeyError(key)

    @property
    def ended(self) -> bool:
        """Say whether the saga has ended. A sub-saga that completed may still be asked to compensate."""
        return self.status is Status.COMPLETED or self.status is Status.COMPENSATED
