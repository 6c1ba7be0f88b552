"""Messages that say again what an instance was told already. Pure.

The one rule: only what the machine refuses anyway is passed over, and only where nothing is lost by it: the same start
event, the outcome that the step has, or a reply that was decided before. Capture may carry a message twice, and a
message that was handed over directly always comes a second time: that is no event in the life of a saga, and leaves no
trace in its history. A signal or a person's request that comes again is answered again: somebody may wait for that.
"""

from hashlib import blake2b

from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.record_context import RecordContext
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


REPLIES_KEPT_MAX = 1_000
"""Replies of an instance that are known though no step holds them: as many as an `each` has items; 8 kB."""
_DIGEST_BYTES = 8
_REPLIES = b"r"


class UnheldReplies:
    """Knows the replies that were decided and that no step holds: late ones, and those that said "cannot be undone".

    Each by its id and content: under a known id, something else is another reply.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def has(self, context: RecordContext, saga_id: str, reply: Replied) -> bool:
        """Return whether this very reply was decided before."""
        kept = _kept(context, saga_id)
        return self._digest(reply) in (kept[at : at + _DIGEST_BYTES] for at in range(0, len(kept), _DIGEST_BYTES))

    def add(self, context: RecordContext, saga_id: str, reply: Replied) -> None:
        """Keep a reply that was decided, in place of the oldest where there are too many."""
        kept = _kept(context, saga_id) + self._digest(reply)
        context.state.put(_REPLIES + saga_id.encode(), kept[-REPLIES_KEPT_MAX * _DIGEST_BYTES :])

    @staticmethod
    def forget(context: RecordContext, saga_id: str) -> None:
        """Remove what is kept of an instance that is forgotten."""
        if _kept(context, saga_id):
            context.state.delete(_REPLIES + saga_id.encode())

    def _digest(self, reply: Replied) -> bytes:
        payload = self._messages.wrap(reply.reply).payload
        return blake2b(reply.id.encode() + b"\0" + payload, digest_size=_DIGEST_BYTES).digest()


def _kept(context: RecordContext, saga_id: str) -> bytes:
    return context.state.get(_REPLIES + saga_id.encode()) or b""


def _same(cell: StepState, reply: Replied) -> bool:
    return cell.result is not None and cell.result == reply.reply


def _cell(state: SagaState, step: str, item: str) -> StepState | None:
    for found in state.steps:
        if found.key == step:
            if not item and not found.items:
                return found
            return next((cell for cell in found.items if cell.key == item), None)
    return None
