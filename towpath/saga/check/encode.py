"""Tells states apart, by small numbers: what the machine looks at, without data and without times.

Of a step: its status, how many attempts are left (none, one, more), whether the round is the first, whether a timer
runs, an answer that came before its wait (success or failure), and how its account stands. Of the saga: its status and
direction, whether its deadline runs, what its parent last asked, and what the oracle has said for good.

On the way back a step that owes nothing (any more) refuses all that concerns it, however it came to that; so, in the
reduced form, it tells states apart no longer, but for whether its result is there, where an undo may ask for it.
"""

from collections.abc import Hashable
from typing import TypeAlias

from towpath.saga.check.abstract import Choice
from towpath.saga.check.ledger import Account, Entry, Ledger, account_of, owes
from towpath.saga.definition import Definition
from towpath.saga.inputs import Input, OperatorAsked, Replied, Signalled, TimerFired
from towpath.saga.state import Direction, SagaState, StepState, StepStatus

Key: TypeAlias = tuple[int, ...]

_ATTEMPTED = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.UNDOING, StepStatus.UNDO_BACKOFF)
_UNDO_ROUNDS = (StepStatus.UNDOING, StepStatus.UNDO_BACKOFF, StepStatus.UNDO_STUCK, StepStatus.UNDO_FAILED)
_OVER = (
    StepStatus.PENDING,
    StepStatus.SUCCEEDED,
    StepStatus.SKIPPED,
    StepStatus.DECLINED,
    StepStatus.FAILED,
    StepStatus.UNKNOWN,
    StepStatus.ABANDONED,
    StepStatus.UNDONE,
)
_OWES_NOTHING, _OWES_NOTHING_AND_IS_MISSING = 0, -1  # the codes of such a step


class Encoder:
    """Numbers what it has seen; the first number of a key is the saga's, one for each step follows."""

    def __init__(self, definition: Definition, *, reduced: bool) -> None:
        self.definition = definition
        self.reduced = reduced
        self._numbers: dict[Hashable, int] = {}
        self._asked_for = {need for step in definition.steps if step.undo is not None for need in step.undo.needs}

    def key(
        self,
        state: SagaState,
        ledger: Ledger,
        facts: tuple[Choice, ...],
        before: SagaState | None = None,
        old_ledger: Ledger = (),
        old_key: Key | None = None,
    ) -> Key:
        """Return the key of a state. What is before it saves work: steps that did not change keep their number."""
        backward = state.direction is Direction.UNDO
        parent = state.parent.direction._value_ if state.parent is not None else ""
        head = self._number(
            (state.status._value_, backward, bool(state.deadline_milliseconds), parent, facts and tuple(facts))
        )
        if before is None or old_key is None or before.direction is not state.direction:
            codes = [
                self._step(position, step, ledger[position], backward=backward)
                for position, step in enumerate(state.steps)
            ]
            return (head, *codes)
        codes = list(old_key)
        codes[0] = head
        for position, (step, old) in enumerate(zip(state.steps, before.steps, strict=True)):
            if step is not old or ledger[position] is not old_ledger[position]:
                codes[position + 1] = self._step(position, step, ledger[position], backward=backward)
        return tuple(codes)

    def local(self, key: Key, input_: Input) -> int:
        """Return the number, in a key, of the step that an input concerns; -1 where it concerns none."""
        step = ""
        if isinstance(input_, Replied | OperatorAsked):
            step = input_.step
        elif isinstance(input_, TimerFired):
            step = input_.timer.step
        elif isinstance(input_, Signalled):
            places = (self.definition.waits, self.definition.prolongs, self.definition.gathers)
            place = next((found[type(input_.signal)] for found in places if type(input_.signal) in found), None)
            return key[1 + place] if place is not None else -1
        return key[1 + self.definition.index[step]] if step else -1

    def _number(self, content: Hashable) -> int:
        number = self._numbers.get(content)
        if number is None:
            number = self._numbers[content] = len(self._numbers) + 1
        return number

    def whole(self, position: int, step: StepState, entry: Entry) -> int:
        """Return the number that tells all apart of one step, on the way back too."""
        if step.items:
            items = [self.one(position, item, account_of(entry, item.key)) for item in step.items]
            return self._number((position, tuple(sorted(items) if self.reduced else items)))
        account = Account(max(entry, default=Account.NEVER)) if isinstance(entry, tuple) else entry
        number = self.one(position, step, account)
        return number if not isinstance(entry, tuple) else self._number((position, number, owes(entry)))

    def _step(self, position: int, step: StepState, entry: Entry, *, backward: bool) -> int:
        over = self.reduced and backward and step.status in _OVER
        if over and (self.definition.steps[position].undo is None or not owes(entry)):
            missing = position in self._asked_for and step.result is None and not step.items
            return _OWES_NOTHING_AND_IS_MISSING if missing else _OWES_NOTHING
        return self.whole(position, step, entry)

    def one(self, position: int, cell: StepState, account: Account) -> int:
        """Return the number that tells all apart of one step without items, or of one item."""
        status = cell.status
        left = max(-1, min(2, cell.attempt_last - cell.attempt)) if status in _ATTEMPTED else 0
        round_ = min(2, cell.round) if status in _UNDO_ROUNDS else 0
        answer, step = 0, self.definition.steps[position]
        if step.gather is not None and status in (StepStatus.PENDING, StepStatus.STUCK):
            left, round_ = cell.attempt_last if status is StepStatus.PENDING else 0, cell.round
        if status is StepStatus.PENDING and cell.result is not None:
            answer = 1 if step.outcomes.get(type(cell.result)) else 2
            answer = 3 if type(cell.result) in step.tolerated else answer
        if status is StepStatus.WAITING and cell.give_up_milliseconds:
            left, round_ = cell.attempt_last - cell.attempt, cell.round
        running = cell.due_milliseconds != 0
        return self._number((position, status._value_, left, round_, answer, running, account._value_))
