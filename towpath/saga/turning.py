"""How a saga stops going forward: started compensating, or halted where what it decides cannot be kept or sent.

Rule of this file: what is under way is closed here and nowhere else, so that no timer of it stays behind.
"""

from towpath.saga.decision_builder import SAGA_TIMER, DecisionBuilder, becoming
from towpath.saga.inputs import Input, Replied, Signalled, TimerFired, Unfit
from towpath.saga.state import Cause, CauseKind, Direction, StepState, StepStatus

_STUCK, _UNDO_STUCK = StepStatus.STUCK, StepStatus.UNDO_STUCK
# Tuples, not sets: `in` then compares identities and hashes nothing.
_OPEN = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.WAITING, StepStatus.STUCK)


def committed(builder: DecisionBuilder) -> bool:
    """Say whether the point of no return has passed: the pivot was sent, or there is nothing that could be undone."""
    pivot = builder.definition.pivot
    if pivot is None:
        return builder.definition.committed_from_start
    return builder.steps[pivot].status is not StepStatus.PENDING


def turn_round(builder: DecisionBuilder, cause: Cause) -> None:
    """Stop going forward: nothing is asked any more, and all that was sent is undone."""
    builder.direction = Direction.UNDO
    builder.cause = cause
    builder.cancel_deadline()
    close(builder, StepStatus.UNKNOWN, StepStatus.ABANDONED)


def close(builder: DecisionBuilder, sent_becomes: StepStatus, waiting_becomes: StepStatus) -> None:
    """End everything that is under way; its timers no longer run."""
    for position, item, cell in builder.cells():
        if cell.status in _OPEN:
            builder.cancel(position, item, cell)
            asked = builder.definition.steps[position].policy is not None
            builder.put(position, item, becoming(cell, sent_becomes if asked else waiting_becomes))


def find(builder: DecisionBuilder, step: str, item: str) -> tuple[int, StepState] | str:
    """Return where a step (or item) stands in the tables, and its state; or why there is none."""
    position = builder.definition.index.get(step)
    if position is None:
        return f"this saga has no step {step}"
    state = builder.steps[position]
    if not item and not state.items:
        return position, state
    for cell in state.items:
        if cell.key == item:
            return position, cell
    return f"step {step} has no such item"


def halt(builder: DecisionBuilder, unfit: Unfit) -> str | None:
    """Leave to a person what an input would have changed; return why it is refused where it would change no step."""
    input_ = unfit.input
    if isinstance(input_, TimerFired) and input_.timer == SAGA_TIMER:
        builder.deadline = 0
        builder.cause = Cause(CauseKind.TOO_LARGE, reason=unfit.reason)
        close(builder, _STUCK, _STUCK)
        return None
    found = _concerned(builder, input_)
    if found is None:
        return unfit.reason
    position, item, cell, direction = found
    builder.cancel(position, item, cell)
    builder.put(position, item, becoming(cell, _STUCK if direction is Direction.DO else _UNDO_STUCK))
    if builder.direction is Direction.DO:
        # Backward, the cause is what the undos are told, and stays; the history has the reason.
        builder.cause = Cause(CauseKind.TOO_LARGE, builder.definition.steps[position].key, item, reason=unfit.reason)
    return None


def _concerned(builder: DecisionBuilder, input_: Input) -> tuple[int, str, StepState, Direction] | None:
    """Return the step (or item) under way that an input settles or moves on, None where it is no such input."""
    match input_:
        case Replied():
            step, item, direction = input_.step, input_.item, input_.direction
        case TimerFired():
            step, item, direction = input_.timer.step, input_.timer.item, input_.timer.direction
        case Signalled() if type(input_.signal) in builder.definition.waits:
            position = builder.definition.waits[type(input_.signal)]
            cell = builder.steps[position]
            return None if cell.status is StepStatus.PENDING else (position, "", cell, Direction.DO)
        case _:
            return None
    found = find(builder, step, item)
    return None if isinstance(found, str) else (found[0], item, found[1], direction)
