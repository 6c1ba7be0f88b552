"""What decisions tell the metrics: counted once their unit is committed, from the machine's own state and effects.

The one rule: nothing here can fail a unit or change a decision; it only reads what was decided.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

from prometheus_client import Histogram

from towpath import metrics
from towpath.saga.advance import Decision
from towpath.saga.definition import Activity, Definition
from towpath.saga.effects import Happened, Record, SendCommand
from towpath.saga.inputs import Input, Replied, Signalled
from towpath.saga.state import Direction, SagaState, Status, StepState, StepStatus

# Tuples, not sets, and the values of members as labels: a member's hash is computed in Python, and costs as much as the
# rest of a count.
_OUTCOMES = (
    StepStatus.SUCCEEDED,
    StepStatus.UNDONE,
    StepStatus.SKIPPED,
    StepStatus.DECLINED,
    StepStatus.FAILED,
    StepStatus.UNKNOWN,
    StepStatus.ABANDONED,
    StepStatus.STUCK,
    StepStatus.UNDO_STUCK,
    StepStatus.UNDO_FAILED,
)
_ANSWERS = (Replied, Signalled)
_DO, _UNDO = Direction.DO.value, Direction.UNDO.value
_FORWARD, _REFUSED = Direction.DO, Happened.REFUSED
_PENDING, _SENT, _UNDOING, _WAITING = StepStatus.PENDING, StepStatus.SENT, StepStatus.UNDOING, StepStatus.WAITING
_UNDER_WAY = (_SENT, _WAITING, _UNDOING)


class Decided(NamedTuple):
    """One decision: about which instance (None: it began), on what input, and what came of it."""

    definition: Definition
    before: SagaState | None
    input: Input
    decision: Decision


class Tally:
    """What a unit's decisions come to, noted as they are made, and told to the metrics once the unit is committed.

    Counts are kept by counter and labels, so that a unit of 500 records looks each up once. Nothing is kept that the
    collector of garbage would walk over again and again: no decision, and no tuple for each of them.
    """

    def __init__(self) -> None:
        self._counted: defaultdict[tuple[Any, ...], int] = defaultdict(int)
        self._observed: defaultdict[Histogram, list[float]] = defaultdict(list)

    def note(self, one: Decided) -> None:
        """Note one decision."""
        saga, before, after = one.definition.name, one.before, one.decision.state
        entry = one.decision.effects[0]
        assert isinstance(entry, Record), "the first effect of each decision is its entry for the history"
        counted = self._counted
        if entry.happened is _REFUSED:
            counted[metrics.SAGA_INPUTS_REFUSED, saga, type(one.input).__name__] += 1
        for effect in one.decision.effects:
            if type(effect) is SendCommand:
                again = "first" if effect.attempt == 1 else "again"
                direction = _DO if effect.direction is _FORWARD else _UNDO
                counted[metrics.STEP_COMMANDS, saga, effect.step, direction, again] += 1
        if after is None or after is before:
            return
        self._note_status(saga, before, after, one.input.at_milliseconds)
        for step, was, is_ in _changed(before, after):
            if is_.status in _OUTCOMES:
                counted[metrics.STEPS, saga, step, is_.status._value_] += 1
            if isinstance(one.input, _ANSWERS) and was is not None and was.status in _UNDER_WAY:
                seconds = _under_way_seconds(one.definition, step, was, one.input.at_milliseconds)
                if seconds is not None:
                    direction = _UNDO if was.status is _UNDOING else _DO
                    self._observed[_labelled(metrics.STEP_SECONDS, saga, step, direction)].append(seconds)

    def _note_status(self, saga: str, before: SagaState | None, after: SagaState, at_milliseconds: int) -> None:
        if before is None:
            self._counted[metrics.SAGAS_STARTED, saga, after.version] += 1
        if before is not None and before.status is after.status:
            return
        if after.status is Status.STUCK:
            self._counted[metrics.SAGAS_STUCK, saga] += 1
        elif after.ended:
            self._counted[metrics.SAGAS_ENDED, saga, after.status._value_] += 1
            seconds = max(at_milliseconds - after.started_milliseconds, 0) / 1000
            self._observed[_labelled(metrics.SAGA_SECONDS, saga, after.status._value_)].append(seconds)

    def clear(self) -> None:
        """Forget what was noted: its unit was aborted."""
        self._counted.clear()
        self._observed.clear()

    def take(self) -> Callable[[], None] | None:
        """Return what tells the metrics what was noted, and begin anew; None where nothing was."""
        if not self._counted and not self._observed:
            return None
        told = partial(_tell, self._counted, self._observed)
        self._counted, self._observed = defaultdict(int), defaultdict(list)
        return told


def _tell(counted: dict[tuple[Any, ...], int], observed: dict[Histogram, list[float]]) -> None:
    for (counter, *labels), number in counted.items():
        counter.labels(*labels).inc(number)
    for histogram, found in observed.items():
        for seconds in found:
            histogram.observe(seconds)


@cache
def _labelled(histogram: Histogram, *labels: str) -> Histogram:
    """Return a histogram's child; there are as many as the project has sagas and steps."""
    return histogram.labels(*labels)


def _changed(before: SagaState | None, after: SagaState) -> list[tuple[str, StepState | None, StepState]]:
    """Return each step, and item of an each, whose status changed, with its state before and after."""
    pairs: list[tuple[StepState | None, StepState]]
    if before is None or len(before.steps) != len(after.steps):
        earlier = {} if before is None else {step.key: step for step in before.steps}
        pairs = [(earlier.get(step.key), step) for step in after.steps]
    else:
        pairs = [(was, is_) for was, is_ in zip(before.steps, after.steps, strict=True) if was is not is_]
    changed: list[tuple[str, StepState | None, StepState]] = []
    for was, is_ in pairs:
        if is_.items:
            items = {} if was is None else {item.key: item for item in was.items}
            for item in is_.items:
                known = items.get(item.key)
                if known is None or known.status is not item.status:
                    changed.append((is_.key, known, item))
        elif (was is None or was.status is not is_.status) and is_.status is not _PENDING:
            changed.append((is_.key, was, is_))
    return changed


def _under_way_seconds(definition: Definition, step: str, was: StepState, at_milliseconds: int) -> float | None:
    """Return for how long the last command of a step was out, or its wait open; None where no timer tells."""
    declared = definition.steps[definition.index[step]]
    if not was.due_milliseconds:
        return None
    if was.status is _WAITING:
        if declared.activity is not Activity.WAIT or declared.remind is not None or was.round > 1:
            return None
        within = declared.wait_milliseconds
    else:
        policy = declared.policy if was.status is _SENT else declared.undo and declared.undo.policy
        if not policy:
            return None
        within = policy.within_milliseconds
    return max(at_milliseconds - (was.due_milliseconds - within), 0) / 1000
