"""How long a saga may take, from its policies alone: at most without a person, and at least whatever happens.

Replies are taken to be decided when they arrive and timers to fire when they are due; a halt (a step that is stuck)
ends the reckoning, as an ending does. A late answer to a step that is stuck begins what follows it; that is after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from towpath.saga.check.properties import Breach, Property
from towpath.saga.definition import ATTEMPTS_MAX, Activity, Definition, Kind, Policy, StepDefinition

_CEILINGS_GROW_TO = 42  # from attempt 41 on, the ceiling of the pause no longer grows (see Policy)


@dataclass(frozen=True, slots=True)
class Duration:
    """The longest ways through a saga, in milliseconds."""

    forward_milliseconds: int  # until it has completed, started compensating or halted
    turning_milliseconds: int  # until it can start compensating last
    undo_milliseconds: int  # from there, until all is undone or the last undo is given up

    @property
    def worst_milliseconds(self) -> int:
        """Return the longest time that a saga takes to its ending or halt, without a person."""
        return max(self.forward_milliseconds, self.turning_milliseconds + self.undo_milliseconds)


def duration_of(definition: Definition) -> Duration:
    """Return the longest times. They are always finite: every saga has a deadline, and every undo an end."""
    ends: list[int] = []
    for step in definition.steps:
        begins = max((ends[required] for required in step.requires), default=0)
        ends.append(begins + _longest(step))
    deadline = definition.deadline_milliseconds
    turning = max((ends[place] for place, step in enumerate(definition.steps) if _may_turn(step)), default=0)
    return Duration(min(deadline, max(ends)), min(deadline, turning), _longest_undo(definition))


def _longest(step: StepDefinition) -> int:
    return step.wait_longest_milliseconds if step.policy is None else round_milliseconds(step.policy)


def _may_turn(step: StepDefinition) -> bool:
    return step.kind is Kind.COMPENSATABLE or step.kind is Kind.PIVOT


def _longest_undo(definition: Definition) -> int:
    if definition.committed_from_start:
        return 0
    longest = [0] * len(definition.steps)  # from the first undo until the step is undone
    for position in range(len(definition.steps) - 1, -1, -1):
        step = definition.steps[position]
        own = round_milliseconds(step.undo.policy) if step.undo is not None else 0
        later = [longest[other] for other in range(len(longest)) if definition.undone_before[position] >> other & 1]
        longest[position] = own + max(later, default=0)
    return max(longest)


def round_milliseconds(policy: Policy) -> int:
    """Return how long a round of attempts lasts at most: the last attempt begins no later than `retry_for` allows."""
    begins, retries = 0, policy.attempts - 1
    for attempt in range(1, min(retries, _CEILINGS_GROW_TO) + 1):
        begins += policy.within_milliseconds + policy.ceiling_milliseconds(attempt)
    if retries > _CEILINGS_GROW_TO:
        each = policy.within_milliseconds + policy.ceiling_milliseconds(_CEILINGS_GROW_TO)
        begins += (retries - _CEILINGS_GROW_TO) * each
    return min(begins, policy.retry_for_milliseconds) + policy.within_milliseconds


def fastest_milliseconds(definition: Definition) -> list[int]:
    """Return, for each step, how early it can begin if everything else takes no time; last, the earliest completion."""
    ends: list[int] = []
    begins: list[int] = []
    for step in definition.steps:
        begins.append(max((ends[required] for required in step.requires), default=0))
        own = step.wait_milliseconds if step.activity is Activity.DELAY and step.until is None else 0
        if step.child is not None:
            own = fastest_milliseconds(step.child)[-1]
        skippable = step.when is not None or step.only_in or step.instead_of is not None
        ends.append(begins[-1] + (0 if skippable else own))
    return [*begins, max(ends)]


# --- what does not fit ------------------------------------------------------------------------------------------------


def judge_timing(definition: Definition) -> Iterator[Breach]:
    """Yield what cannot happen in the time that there is, so that it was not meant so."""
    deadline = definition.deadline_milliseconds
    *begins, completes = fastest_milliseconds(definition)
    if completes >= deadline:
        words = f"its delays take {words_for(completes)}, and its deadline is {words_for(deadline)}"
        yield Breach(Property.COMPLETES, "", words)
        return
    for step, begin in zip(definition.steps, begins, strict=True):
        left = deadline - begin
        if step.activity is Activity.WAIT and step.wait_longest_milliseconds >= left:
            words = (
                f"waits {words_for(step.wait_longest_milliseconds)}, and the saga's deadline comes before that is over"
            )
            yield Breach(Property.FITS_IN_TIME, step.key, words)
        if step.policy is not None:
            yield from _judge_attempts(step.key, step.policy, min(left, step.policy.retry_for_milliseconds))
        if step.undo is not None and step.child is None:
            policy = step.undo.policy
            yield from _judge_attempts(f"{step.key} (its undo)", policy, policy.retry_for_milliseconds)
        if step.child is not None and step.policy is not None:
            yield from _judge_child(step, step.child, step.policy)


def _judge_attempts(key: str, policy: Policy, left: int) -> Iterator[Breach]:
    last_begins = (policy.attempts - 1) * policy.within_milliseconds
    if policy.attempts < ATTEMPTS_MAX and last_begins > left:
        fit = left // policy.within_milliseconds + 1
        words = (
            f"has {policy.attempts} attempts of {words_for(policy.within_milliseconds)}, and only {fit} of them "
            f"can begin in the {words_for(left)} that it has"
        )
        yield Breach(Property.FITS_IN_TIME, key, words)


def _judge_child(step: StepDefinition, child: Definition, policy: Policy) -> Iterator[Breach]:
    within, least = policy.within_milliseconds, fastest_milliseconds(child)[-1]
    if least >= within:
        words = f"waits {words_for(within)} for saga {child.name}, which takes at least {words_for(least)}"
        yield Breach(Property.COMPLETES, step.key, words)
    undo = duration_of(child).undo_milliseconds
    if step.undo is not None and undo > step.undo.policy.within_milliseconds:
        waits = words_for(step.undo.policy.within_milliseconds)
        words = f"waits {waits} for the undo of saga {child.name}, which may take {words_for(undo)}"
        yield Breach(Property.FITS_IN_TIME, step.key, words)


def words_for(milliseconds: int) -> str:
    """Say a duration in its two largest units."""
    units = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1))
    parts: list[str] = []
    for name, size in units:
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "no time"
