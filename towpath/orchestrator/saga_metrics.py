"""What decisions tell the metrics: counted once their unit is committed, from the machine's own state and effects.

The one rule: nothing here can fail a unit or change a decision; it only reads what was decided.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from towpath import metrics
from towpath.saga.advance import Decision
from towpath.saga.definition import Activity, Definition
from towpath.saga.effects import Happened, Record, SendCommand
from towpath.saga.inputs import Input, Replied, Signalled
from towpath.saga.state import Direction, SagaState, Status, StepState, StepStatus

_OUTCOMES = frozenset(
    {
        StepStatus.SUCCEEDED,
        StepStatus.SKIPPED,
        StepStatus.DECLINED,
        StepStatus.FAILED,
        StepStatus.UNKNOWN,
        StepStatus.ABANDONED,
        StepStatus.STUCK,
        StepStatus.UNDONE,
        StepStatus.UNDO_STUCK,
        StepStatus.UNDO_FAILED,
    }
)
_UNDER_WAY = frozenset({StepStatus.SENT, StepStatus.WAITING, StepStatus.UNDOING})


class Decided(NamedTuple):
    """One decision: about which instance (None: it began), on what input, and what came of it."""

    definition: Definition
    before: SagaState | None
    input: Input
    decision: Decision


def count(decided: Iterable[Decided]) -> None:
    """Count what was decided. Called once the unit in which it was is committed."""
    for one in decided:
        _count(one)


def _count(one: Decided) -> None:
    saga, before, after = one.definition.name, one.before, one.decision.state
    entry = one.decision.effects[0]
    assert isinstance(entry, Record), "the first effect of each decision is its entry for the history"
    if entry.happened is Happened.REFUSED:
        metrics.SAGA_INPUTS_REFUSED.labels(saga, type(one.input).__name__).inc()
    for effect in one.decision.effects:
        if isinstance(effect, SendCommand):
            again = "first" if effect.attempt == 1 else "again"
            metrics.STEP_COMMANDS.labels(saga, effect.step, effect.direction.value, again).inc()
    if after is None or after is before:
        return
    _count_status(saga, before, after, one.input.at_milliseconds)
    for step, was, is_ in _changed(before, after):
        if is_.status in _OUTCOMES:
            metrics.STEPS.labels(saga, step, is_.status.value).inc()
        if isinstance(one.input, Replied | Signalled) and was is not None and was.status in _UNDER_WAY:
            seconds = _under_way_seconds(one.definition, step, was, one.input.at_milliseconds)
            if seconds is not None:
                direction = Direction.UNDO if was.status is StepStatus.UNDOING else Direction.DO
                metrics.STEP_SECONDS.labels(saga, step, direction.value).observe(seconds)


def _count_status(saga: str, before: SagaState | None, after: SagaState, at_milliseconds: int) -> None:
    if before is None:
        metrics.SAGAS_STARTED.labels(saga, str(after.version)).inc()
    if before is not None and before.status is after.status:
        return
    if after.status is Status.STUCK:
        metrics.SAGAS_STUCK.labels(saga).inc()
    elif after.ended:
        metrics.SAGAS_ENDED.labels(saga, after.status.value).inc()
        seconds = max(at_milliseconds - after.started_milliseconds, 0) / 1000
        metrics.SAGA_SECONDS.labels(saga, after.status.value).observe(seconds)


def _changed(before: SagaState | None, after: SagaState) -> Iterator[tuple[str, StepState | None, StepState]]:
    """Yield each step, and item of an each, whose status changed, with its state before and after."""
    if before is None or len(before.steps) != len(after.steps):
        earlier = {} if before is None else {step.key: step for step in before.steps}
        pairs = [(earlier.get(step.key), step) for step in after.steps]
    else:
        pairs = list(zip(before.steps, after.steps, strict=True))
    for was, is_ in pairs:
        if was is is_:
            continue
        if is_.items:
            items = {} if was is None else {item.key: item for item in was.items}
            for item in is_.items:
                known = items.get(item.key)
                if known is None or known.status is not item.status:
                    yield is_.key, known, item
        elif (was is None or was.status is not is_.status) and is_.status is not StepStatus.PENDING:
            yield is_.key, was, is_


def _under_way_seconds(definition: Definition, step: str, was: StepState, at_milliseconds: int) -> float | None:
    """Return for how long the last command of a step was out, or its wait open; None where no timer tells."""
    declared = definition.steps[definition.index[step]]
    if not was.due_milliseconds:
        return None
    if was.status is StepStatus.WAITING:
        if declared.activity is not Activity.WAIT or declared.remind is not None or was.round > 1:
            return None
        within = declared.wait_milliseconds
    else:
        policy = declared.policy if was.status is StepStatus.SENT else declared.undo and declared.undo.policy
        if not policy:
            return None
        within = policy.within_milliseconds
    return max(at_milliseconds - (was.due_milliseconds - within), 0) / 1000
