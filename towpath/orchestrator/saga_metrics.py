"""What decisions tell the metrics: counted once their unit is committed, from the machine's own state and effects.

The one rule: nothing here can fail a unit or change a decision; it only reads what was decided.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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
_UNDER_WAY = (StepStatus.SENT, StepStatus.WAITING, StepStatus.UNDOING)
_ANSWERS = (Replied, Signalled)
_DO, _UNDO = Direction.DO.value, Direction.UNDO.value


class Decided(NamedTuple):
    """One decision: about which instance (None: it began), on what input, and what came of it."""

    definition: Definition
    before: SagaState | None
    input: Input
    decision: Decision


class Tally:
    """What a unit's decisions come to, noted as they are made, and told to the metrics once the unit is committed.

    Counts are kept by counter and labels, so that a unit of 500 records looks each up once; of the decisions themselves
    nothing is kept, or the collector of garbage would walk over their states again and again.
    """

    def __init__(self) -> None:
        self._counted: defaultdict[tuple[Any, ...], int] = defaultdict(int)
        self._observed: list[tuple[Histogram, float]] = []

    def note(self, one: Decided) -> None:
        """Note one decision."""
        saga, before, after = one.definition.name, one.before, one.decision.state
        entry = one.decision.effects[0]
        assert isinstance(entry, Record), "the first effect of each decision is its entry for the history"
        counted = self._counted
        if entry.happened is Happened.REFUSED:
            counted[metrics.SAGA_INPUTS_REFUSED, saga, type(one.input).__name__] += 1
        for effect in one.decision.effects:
            if isinstance(effect, SendCommand):
                again = "first" if effect.attempt == 1 else "again"
                direction = _DO if effect.direction is Direction.DO else _UNDO
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
                    direction = _UNDO if was.status is StepStatus.UNDOING else _DO
                    self._observed.append((_labelled(metrics.STEP_SECONDS, saga, step, direction), seconds))

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
            self._observed.append((_labelled(metrics.SAGA_SECONDS, saga, after.status._value_), seconds))

    def clear(self) -> None:
        """Forget what was noted: its unit was aborted."""
        self._counted.clear()
        self._observed.clear()

    def take(self) -> Callable[[], None] | None:
        """Return what tells the metrics what was noted, and begin anew; None where nothing was."""
        if not self._counted and not self._observed:
            return None
        told = partial(_tell, dict(self._counted), tuple(self._observed))
        self.clear()
        return told


def _tell(counted: dict[tuple[Any, ...], int], observed: tuple[tuple[Histogram, float], ...]) -> None:
    for (counter, *labels), number in counted.items():
        counter.labels(*labels).inc(number)
    for histogram, seconds in observed:
        histogram.observe(seconds)


@cache
def _labelled(histogram: Histogram, *labels: str) -> Histogram:
    """Return a histogram's child; there are as many as the project has sagas and steps."""
    return histogram.labels(*labels)


def _changed(before: SagaState | None, after: SagaState) -> Iterator[tuple[str, StepState | None, StepState]]:
    """Yield each step, and item of an each, whose status changed, with its state before and after."""
    pairs: Iterable[tuple[StepState | None, StepState]]
    if before is None or len(before.steps) != len(after.steps):
        earlier = {} if before is None else {step.key: step for step in before.steps}
        pairs = ((earlier.get(step.key), step) for step in after.steps)
    else:
        pairs = zip(before.steps, after.steps, strict=True)
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
