"""Messages that say again what an instance holds already. Pure.

The one rule: only what the machine refuses anyway is passed over, and only where nothing is lost by it: the same start
event, or the outcome that the step has. Capture may carry a message twice, and a message that was handed over
directly always comes a second time: that is no event in the life of a saga, and leaves no trace in its history.
"""

from towpath.saga.inputs import Replied
from towpath.saga.state import Direction, SagaState, StepState, StepStatus

_TAKE_REPLY = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.STUCK)
_UNDOING = (StepStatus.UNDOING, StepStatus.UNDO_BACKOFF, StepStatus.UNDO_STUCK)


def repeats_reply(state: SagaState, reply: Replied) -> bool:
    """Return whether the step that `reply` answers has that outcome already, and waits for none.

    Attempts of one round share one outcome, so it does not matter which of them was answered first. An undo's replies
    say only that it was done; of these, one for the round that is done repeats it.
    """
    cell = _cell(state, reply.step, reply.item)
    if cell is None or cell.status in _UNDOING:
        return cell is not None and reply.direction is Direction.DO and _same(cell, reply)
    if reply.direction is Direction.DO:
        return cell.status not in _TAKE_REPLY and _same(cell, reply)
    return cell.status is StepStatus.UNDONE and reply.round == cell.round and 1 <= reply.attempt <= cell.attempt


def _same(cell: StepState, reply: Replied) -> bool:
    return cell.result is not None and cell.result == reply.reply


def _cell(state: SagaState, step: str, item: str) -> StepState | None:
    for found in state.steps:
        if found.key == step:
            if not item and not found.items:
                return found
            return next((cell for cell in found.items if cell.key == item), None)
    return None
