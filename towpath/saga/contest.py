"""An `each` of which some items are enough: the first of n carriers, two of three offers.

Rule of this file: as soon as enough have succeeded the others are undone, while the saga goes on; it ends once they
are. An item that fails is declined, one that is not answered is undone, as long as enough can still succeed; one that
is stuck still can.
"""

from towpath.saga.decision_builder import DecisionBuilder, becoming
from towpath.saga.state import BEING_UNDONE, Direction, StepState, StepStatus

_OPEN = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.STUCK)  # stuck: its reply was too large when it came


def enough_can_succeed(builder: DecisionBuilder, position: int) -> bool:
    """Say whether enough items have succeeded, or still can; where they have, give up the others."""
    step, items = builder.definition.steps[position], builder.steps[position].items
    open_ = [item for item in items if item.status in _OPEN]
    succeeded = sum(item.status is StepStatus.SUCCEEDED for item in items)
    if succeeded < step.enough:
        return succeeded + len(open_) >= step.enough
    for item in open_:
        builder.cancel(position, item.key, item)
        give_up_item(builder, position, item)
    return True


def give_up_item(builder: DecisionBuilder, position: int, item: StepState) -> None:
    """Undo an item that may have been done; where there is nothing to undo, hear of it no more."""
    if builder.definition.steps[position].undo is None:
        builder.put(position, item.key, becoming(item, StepStatus.UNKNOWN))
    else:
        builder.send_anew(position, item.key, item, Direction.UNDO)


def others_are_being_undone(builder: DecisionBuilder) -> bool:
    """Say whether the saga must wait for the undo of an item that was not needed."""
    contests = builder.definition.contests
    return bool(contests) and any(
        item.status in BEING_UNDONE for position in contests for item in builder.steps[position].items
    )
