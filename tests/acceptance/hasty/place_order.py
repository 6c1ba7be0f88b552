"""Version 2 of place_order: the same steps, whose attempts are used up within seconds."""

from dataclasses import replace
from typing import Any

from sagas.place_order import saga as patient
from towpath.saga import Definition, Saga, days
from towpath.saga.definition import OnTimeout, Policy, StepDefinition

APPROVED_WITHIN_MILLISECONDS = 5_000
WITHIN_MILLISECONDS, ATTEMPTS, ALTOGETHER_MILLISECONDS = 1_500, 2, 6_000


def hasty(policy: Policy | None) -> Any:
    """Return a policy of a few seconds."""
    if policy is None:
        return None
    return replace(
        policy,
        within_milliseconds=WITHIN_MILLISECONDS,
        attempts=ATTEMPTS,
        retry_for_milliseconds=ALTOGETHER_MILLISECONDS,
        backoff_first_milliseconds=100,
        backoff_most_milliseconds=100,
    )


def hasty_step(step: StepDefinition) -> StepDefinition:
    """Return a step that gives up soon: what may be stuck past the pivot, and each undo; nobody approves: it halts."""
    if step.key == "approval":
        return replace(step, wait_milliseconds=APPROVED_WITHIN_MILLISECONDS, on_timeout=OnTimeout.HALT)
    undo = step.undo and replace(step.undo, policy=hasty(step.undo.policy))
    soon = step.key in ("confirm_order", "capture_payment")
    return replace(step, undo=undo, policy=hasty(step.policy) if soon else step.policy)


class Hasty(Saga[Any]):
    """A saga whose definition is another one's, changed."""

    @property
    def definition(self) -> Definition:
        """Return version 2."""
        steps = tuple(hasty_step(step) for step in patient.definition.steps)
        return replace(patient.definition, version=2, steps=steps)


saga = Hasty("place_order", version=2, starts_on=patient.definition.starts_on, deadline=days(4))
