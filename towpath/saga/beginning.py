"""How steps begin that wait for nobody: whether a step is skipped, and what is settled in the moment that it begins.

Rule of this file: what begins here ends here, in the same decision, and cannot fail; all else is decided in advance.py.
"""

from towpath.saga.contest import others_are_being_undone
from towpath.saga.decision_builder import DecisionBuilder
from towpath.saga.definition import Activity, Kind, StepDefinition
from towpath.saga.state import StepState, StepStatus

_SUCCEEDED, _SKIPPED, _DECLINED = StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.DECLINED


def is_skipped(builder: DecisionBuilder, step: StepDefinition) -> bool:
    """Say whether a step that could begin does not: its branch is not taken, what it stands in for was done, or its
    condition does not hold.
    """
    for branch in step.only_in:
        if builder.steps[branch].status is not _SUCCEEDED:
            return True
    if step.instead_of is not None and builder.steps[step.instead_of].status is not _DECLINED:
        return True
    return step.when is not None and not builder.call(step, step.when, builder.arguments(step.needs))


def settle_at_once(builder: DecisionBuilder, position: int, step: StepDefinition) -> None:
    """Begin a choice, a merge, or the publishing of an event or of the saga's result."""
    if step.activity is Activity.CHOICE:
        _choose(builder, position, step)
    elif step.activity is Activity.NEXT:
        _start_next(builder, position, step)
    elif step.activity is Activity.MERGE:
        builder.put(position, "", StepState(step.key, _SUCCEEDED))
    else:
        _publish(builder, position, step)


def _start_next(builder: DecisionBuilder, position: int, step: StepDefinition) -> None:
    """Start the next instance of the saga, unless its function says that there is none.

    Not before items that were not needed are undone: this instance is open until then, and its key takes no other.
    """
    if others_are_being_undone(builder):
        return
    event = builder.call(step, step.build, builder.arguments(step.needs))
    builder.put(position, "", StepState(step.key, _SUCCEEDED))
    if event is not None:
        builder.start_next(step, event)


def _choose(builder: DecisionBuilder, position: int, step: StepDefinition) -> None:
    """Decide which of the branches, which follow the choice in the tables, is taken."""
    taken = builder.option(step)
    builder.put(position, "", StepState(step.key, _SUCCEEDED))
    for number in range(len(step.options)):
        branch = position + 1 + number
        status = _SUCCEEDED if number == taken else _SKIPPED
        builder.put(branch, "", StepState(builder.definition.steps[branch].key, status))


def _publish(builder: DecisionBuilder, position: int, step: StepDefinition) -> None:
    """Publish an event, or the saga's result; one that the parent may still ask back is told to the parent alone."""
    event = builder.call(step, step.build, builder.arguments(step.needs))
    builder.put(position, "", StepState(step.key, _SUCCEEDED, result=event))
    asked_back = builder.parent is not None and builder.definition.kind is Kind.COMPENSATABLE
    if step.activity is Activity.EVENT or not asked_back:
        builder.publish(step, event)
