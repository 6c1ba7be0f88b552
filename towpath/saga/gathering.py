"""How a wait gathers signals into one record: m of n approvals, the lines of a basket, a correction of an address.

Rule of this file: what is gathered changes nothing but the wait itself. What it has gathered is its result, and stands
in the state from the first signal on, before the wait has begun, too; `round` is one more than the signals gathered.
Of a wait that has not begun, `attempt_last` is 1 once what ends it has come.
"""

from dataclasses import replace

from towpath.saga.decision_builder import DecisionBuilder, becoming
from towpath.saga.definition import StepDefinition
from towpath.saga.inputs import Signalled
from towpath.saga.state import Direction, StepState, StepStatus

_PENDING, _WAITING, _STUCK = StepStatus.PENDING, StepStatus.WAITING, StepStatus.STUCK
_OVER = "the wait is over, or has what ends it"


def take_in(builder: DecisionBuilder, input_: Signalled) -> str | None:
    """Gather a signal, or say why it is refused; the wait may be over with it."""
    position = builder.definition.gathers[type(input_.signal)]
    step, cell = builder.definition.steps[position], builder.steps[position]
    assert step.gather is not None  # that is how the step was found
    if builder.direction is Direction.UNDO:
        return "the saga compensates"
    if cell.status not in (_PENDING, _WAITING, _STUCK) or (cell.status is _PENDING and cell.attempt_last):
        return _OVER
    if cell.round > step.gather.signals_max:
        return f"{step.gather.signals_max} signals were gathered already"
    gathered = builder.fold(step, cell, input_.signal)
    if cell.status is _PENDING:
        builder.put(position, "", replace(cell, round=max(1, cell.round) + 1, result=gathered))
    elif builder.enough(step, gathered):
        builder.cancel(position, "", cell)
        builder.put(position, "", becoming(cell, StepStatus.SUCCEEDED, gathered))
    elif cell.status is _WAITING:
        builder.go_on_gathering(position, cell, gathered)
    else:
        builder.put(position, "", replace(cell, round=cell.round + 1, result=gathered))
    return None


def keep_early(builder: DecisionBuilder, position: int, signal: object) -> str | None:
    """Keep what ends a wait that has not begun, until it does."""
    step, cell = builder.definition.steps[position], builder.steps[position]
    if cell.attempt_last:
        return _OVER
    # What ends it well is gathered; what fails it is all that is left to know of it.
    kept = builder.fold(step, cell, signal) if step.outcomes[type(signal)] else signal
    builder.put(position, "", replace(cell, attempt_last=1, result=kept))
    return None


def begin_gathering(builder: DecisionBuilder, position: int, step: StepDefinition) -> object | None:
    """Begin the wait with what came before it, which may be enough; return what fails it at once, if that came."""
    cell = builder.steps[position]
    if cell.attempt_last and step.outcomes.get(type(cell.result)) is False:
        return cell.result
    begun = StepState(step.key, round=cell.round, result=cell.result)
    if cell.attempt_last or (cell.result is not None and builder.enough(step, cell.result)):
        builder.put(position, "", becoming(begun, StepStatus.SUCCEEDED))
    else:
        builder.wait(position, begun)
    return None
