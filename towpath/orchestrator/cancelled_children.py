"""Sub-sagas that never began and never shall: their start was refused, or their undo was asked for before it. Pure.

The one rule: a parent that was told that nothing was left behind can rely on it. So that there is no instance is noted
in the state, and a start that comes later, or once more, is answered in the same way instead of taking effect. The note
is kept as an instance is: until its parent is over, and then for its time. Starts from before the parent was over are
refused after that, as those of forgotten instances are.
"""

from towpath.orchestrator.record_context import RecordContext
from towpath.saga.keys import saga_id_of, start_id_of_child
from towpath.saga.state import ParentReference

_WITHDRAWN = b"w"


def withdraw(context: RecordContext, saga_id: str, parent_saga_id: str) -> None:
    """Note that the sub-saga of that id must not begin, and that this was so at the time of the record at hand."""
    newest = max(context.record.timestamp_milliseconds, _noted(context, saga_id)[0])
    context.state.put(_WITHDRAWN + saga_id.encode(), f"{newest} {parent_saga_id}".encode())


def withdrawn_by(context: RecordContext, saga_id: str) -> str | None:
    """Return the id of the parent of a sub-saga that must not begin, None for any other."""
    return _noted(context, saga_id)[1] or None


def forget_withdrawn(context: RecordContext, saga_id: str) -> int | None:
    """Remove what is noted; return the newest time of it (ms since 1970, UTC), None where nothing is."""
    newest, parent = _noted(context, saga_id)
    if not parent:
        return None
    context.state.delete(_WITHDRAWN + saga_id.encode())
    return newest


def started_by(saga: str, saga_id: str, parent: ParentReference) -> bool:
    """Say whether `saga_id` is the id that the sub-saga of that step of its parent has: nobody else may ask for it."""
    return saga_id == saga_id_of(saga, start_id_of_child(parent.saga_id, parent.step, parent.item))


def _noted(context: RecordContext, saga_id: str) -> tuple[int, str]:
    time, _, parent = (context.state.get(_WITHDRAWN + saga_id.encode()) or b"-1 ").decode().partition(" ")
    return int(time), parent
