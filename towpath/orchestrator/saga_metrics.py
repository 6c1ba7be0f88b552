"""What decisions tell the metrics: counted once their unit is committed, from the machine's own state and effects.

The one rule: nothing here can fail a unit or change a decision; it only reads what was decided.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import repeat
from typing import Any

from towpath import metrics
from towpath.saga.advance import Decision
from towpath.saga.definition import Activity, Definition
from towpath.saga.effects import Happened, Record, SendCommand
from towpath.saga.inputs import Input, Replied, Signalled
from towpath.saga.state import Direction, SagaState, Status, StepState, StepStatus

# Tuples, not sets, and the values of members as labels: a member's hash is computed in Python, and costs as much as the
# rest of a count. And members as names of this file: an enumeration looks its own up slowly.
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
_DO, _UNDO = Direction.DO.value, Direction.UNDO.value
_FORWARD, _REFUSED = Direction.DO, Happened.REFUSED
_RUNNING, _STUCK, _ENDINGS = Status.RUNNING, Status.STUCK, (Status.COMPLETED, Status.COMPENSATED)
_PENDING, _SENT, _SUCCEEDED = StepStatus.PENDING, StepStatus.SENT, StepStatus.SUCCEEDED
_UNDOING, _WAITING = StepStatus.UNDOING, StepStatus.WAITING
_UNDER_WAY = (_SENT, _WAITING, _UNDOING)


class Tally:
    """What a unit's decisions about a saga come to, noted as they are made, and told once the unit is committed.

    Counts are kept by counter and labels, and times by histogram, so that a unit of 500 records tells each once; what
    nearly every record tells is kept by a name alone. A note is made once in a hundred microseconds of other work, so
    what it costs is less what it does than how much memory it touches: twice as much as where notes follow each other.
    Nothing is kept that the collector of garbage would walk over again and again: no decision, and no tuple for each.
    """

    def __init__(self, saga: str) -> None:
        self._saga = saga
        self.clear()

    def clear(self) -> None:
        """Forget what was noted: its unit was aborted, or it is told."""
        self._started: defaultdict[int, int] = defaultdict(int)  # by version
        self._ended: defaultdict[str, list[int]] = defaultdict(list)  # by status: milliseconds since the start
        self._sent: defaultdict[str, int] = defaultdict(int)  # first commands, by step
        # Of steps that succeeded, by definition and step: milliseconds from when their attempt's time was over, so
        # mostly below 0. `_definition` is the one that `_answered` is of.
        self._answers: list[tuple[Definition, defaultdict[str, list[int]]]] = []
        self._definition: Definition | None = None
        self._answered: defaultdict[str, list[int]] = defaultdict(list)
        self._counted: defaultdict[tuple[Any, ...], int] = defaultdict(int)
        self._observed: defaultdict[tuple[Any, ...], list[float]] = defaultdict(list)

    def note(self, definition: Definition, before: SagaState | None, input_: Input, decision: Decision) -> None:
        """Note one decision: about which instance (None: it began), on what input, and what came of it."""
        for effect in decision.effects:
            if type(effect) is SendCommand:
                if effect.attempt == 1 and effect.direction is _FORWARD:
                    self._sent[effect.step] += 1
                else:
                    self._note_command(effect)
            elif type(effect) is Record and effect.happened is _REFUSED:
                self._counted[metrics.SAGA_INPUTS_REFUSED, type(input_).__name__] += 1
        after = decision.state
        if after is None or after is before:
            return
        if before is None:
            self._started[after.version] += 1
        if after.status is not (_RUNNING if before is None else before.status):
            self._note_status(after, input_.at_milliseconds)
        self._note_steps(definition, before, after, input_)

    def _note_steps(self, definition: Definition, before: SagaState | None, after: SagaState, input_: Input) -> None:
        answered = type(input_) is Replied
        for was, is_ in _pairs(before, after):
            if was is is_:
                continue
            status = is_.status
            if is_.items:
                self._note_items(definition, was, is_, input_)
            elif answered and status is _SUCCEEDED and was is not None and was.status is _SENT and was.due_milliseconds:
                if definition is not self._definition:
                    self._turn_to(definition)
                self._answered[is_.key].append(input_.at_milliseconds - was.due_milliseconds)
            # That a command was sent is told by its effect.
            elif status is not _SENT and status is not _PENDING and (was is None or was.status is not status):
                self._note_step(definition, is_.key, was, is_, input_)

    def _turn_to(self, definition: Definition) -> None:
        """Note answers of another version."""
        self._definition, self._answered = definition, defaultdict(list)
        for known, answered in self._answers:
            if known is definition:
                self._answered = answered
                return
        self._answers.append((definition, self._answered))

    def _note_command(self, effect: SendCommand) -> None:
        """Note a command that is not the first of its step, or undoes it."""
        again = "first" if effect.attempt == 1 else "again"
        self._counted[metrics.STEP_COMMANDS, effect.step, effect.direction._value_, again] += 1

    def _note_status(self, after: SagaState, at_milliseconds: int) -> None:
        """Note that an instance ended or came to need a person."""
        if after.status in _ENDINGS:
            self._ended[after.status._value_].append(at_milliseconds - after.started_milliseconds)
        elif after.status is _STUCK:
            self._counted[metrics.SAGAS_STUCK,] += 1

    def _note_items(self, definition: Definition, was: StepState | None, is_: StepState, input_: Input) -> None:
        items = {} if was is None else {item.key: item for item in was.items}
        for item in is_.items:
            known = items.get(item.key)
            if known is None or known.status is not item.status:
                self._note_step(definition, is_.key, known, item, input_)

    def _note_step(
        self, definition: Definition, step: str, was: StepState | None, is_: StepState, input_: Input
    ) -> None:
        """Note the new status of a step or item."""
        if is_.status in _OUTCOMES:
            self._counted[metrics.STEPS, step, is_.status._value_] += 1
        if was is not None and was.status in _UNDER_WAY and isinstance(input_, Replied | Signalled):
            seconds = _under_way_seconds(definition, step, was, input_.at_milliseconds)
            if seconds is not None:
                direction = _UNDO if was.status is _UNDOING else _DO
                self._observed[metrics.STEP_SECONDS, step, direction].append(seconds)

    def take(self) -> Callable[[], None] | None:
        """Return what tells the metrics what was noted, and begin anew; None where nothing was."""
        counted, observed = self._counted, self._observed
        for version, number in self._started.items():
            counted[metrics.SAGAS_STARTED, version] = number
        for status, found in self._ended.items():
            counted[metrics.SAGAS_ENDED, status] = len(found)
            observed[metrics.SAGA_SECONDS, status] = _seconds(found)
        for step, number in self._sent.items():
            counted[metrics.STEP_COMMANDS, step, _DO, "first"] = number
        for definition, answered in self._answers:
            for step, found in answered.items():
                counted[metrics.STEPS, step, _SUCCEEDED._value_] += len(found)
                policy = definition.steps[definition.index[step]].policy
                if policy is not None:
                    observed[metrics.STEP_SECONDS, step, _DO] += _seconds(found, policy.within_milliseconds)
        if not counted and not observed:
            return None
        self.clear()
        return partial(_tell, self._saga, counted, observed)


def _tell(saga: str, counted: dict[tuple[Any, ...], int], observed: dict[tuple[Any, ...], list[float]]) -> None:
    for (counter, *labels), number in counted.items():
        _labelled(counter, saga, *labels).inc(number)
    for (histogram, *labels), found in observed.items():
        _labelled(histogram, saga, *labels).observe_all(found)


@cache
def _labelled(metric: Any, *labels: Any) -> Any:
    """Return a metric's child; there are as many as the project has sagas, steps and types."""
    return metric.labels(*labels)


def _seconds(milliseconds: list[int], more_milliseconds: int = 0) -> list[float]:
    return [max(each + more_milliseconds, 0) / 1000 for each in milliseconds]


def _pairs(before: SagaState | None, after: SagaState) -> Iterable[tuple[StepState | None, StepState]]:
    """Return each step as it was, None where it was not there, and as it is."""
    if before is None:
        return zip(repeat(None), after.steps)
    if len(before.steps) == len(after.steps):
        return zip(before.steps, after.steps)  # noqa: B905 - they are as many, and to say so costs as much as the call
    earlier = {step.key: step for step in before.steps}
    return [(earlier.get(step.key), step) for step in after.steps]


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
