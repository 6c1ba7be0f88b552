"""How conditions side by side are combined: all ways of a few, and of many those in which most come out alike.

Ten conditions come out in a thousand ways. So, where more than `ALL_WAYS_MAX` steps have a condition, the walk goes on
only where at most `UNLIKE_MAX` of those decided so far is unlike the others: every two are then still seen in all four
ways. Those whose results one function receives together are combined in every way all the same.
"""

from towpath.saga.definition import Definition
from towpath.saga.state import SagaState, StepStatus

ALL_WAYS_MAX = 4
UNLIKE_MAX = 1


class Conditions:
    """The steps of one definition that have a condition, and those whose results are received together."""

    def __init__(self, definition: Definition) -> None:
        self._conditional = [position for position, step in enumerate(definition.steps) if step.when is not None]
        received = [step.needs for step in definition.steps]
        received += [step.undo.needs for step in definition.steps if step.undo is not None]
        conditional = set(self._conditional)
        together = {frozenset(conditional.intersection(needs)) for needs in received}
        self._together = [frozenset[int](), *(each for each in together if len(each) > UNLIKE_MAX)]

    @property
    def bounded(self) -> bool:
        """Say whether some ways are left out."""
        return len(self._conditional) > ALL_WAYS_MAX

    def usual(self, state: SagaState) -> bool:
        """Say whether the conditions decided so far came out in a way that is walked."""
        if not self.bounded:
            return True
        skipped = {place for place in self._conditional if state.steps[place].status is StepStatus.SKIPPED}
        ran = {place for place in self._conditional if state.steps[place].status is not StepStatus.PENDING} - skipped
        return any(min(len(skipped - each), len(ran - each)) <= UNLIKE_MAX for each in self._together)
