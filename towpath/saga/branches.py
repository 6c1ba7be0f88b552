"""The rules about branches: where a step lies, what may be joined, and what stands in for what.

Rule of this file: it reads steps that were judged before, and says what is wrong in words (cause, and the way to fix
it); who declares the step raises it.
"""

from collections.abc import Sequence
from typing import TypeAlias

from towpath.saga.definition import Activity, StepDefinition

Steps: TypeAlias = Sequence[StepDefinition]
Wrong: TypeAlias = tuple[str, str]


def branches_of(steps: Steps, position: int) -> frozenset[int]:
    """Return the branches in which a step lies, or which it is."""
    step = steps[position]
    return frozenset((*step.only_in, position) if step.activity is Activity.BRANCH else step.only_in)


def choice_of(steps: Steps, branch: int) -> int:
    """Return the choice that a branch belongs to: it stands before its branches."""
    return next(position for position in range(branch, -1, -1) if steps[position].activity is Activity.CHOICE)


def inherited(steps: Steps, requires: Sequence[int]) -> tuple[int, ...] | Wrong:
    """Return the branches of a step that requires these: all of theirs. Two of one choice never come together."""
    branches = sorted(frozenset().union(*(branches_of(steps, position) for position in requires)))
    taken: dict[int, int] = {}
    for branch in branches:
        choice = choice_of(steps, branch)
        if choice in taken:
            names = f"{steps[taken[choice]].key} and {steps[branch].key}"
            return (
                f"comes after {names}, of which {steps[choice].key} takes only one",
                "join the branches first: saga.merge(...), and need what that returns",
            )
        taken[choice] = branch
    return tuple(branches)


def merged(steps: Steps, joined: Sequence[int]) -> tuple[int, ...] | Wrong:
    """Return the branches that are left once `joined`, one step of each branch of one choice, are joined."""
    inside = [branches_of(steps, position) for position in joined]
    around = frozenset.intersection(*inside) if inside else frozenset[int]()
    own = [branches - around for branches in inside]
    choices = {choice_of(steps, branch) for branches in own for branch in branches}
    if any(len(branches) != 1 for branches in own) or len(choices) != 1:
        names = ", ".join(steps[position].key for position in joined)
        return (
            f"joins {names}, which are not one step of each branch of one choice",
            "give it the last step of each branch, or the branch itself where nothing lies in it",
        )
    (choice,) = choices
    branches = [branch for found in own for branch in found]
    all_ = range(choice + 1, choice + 1 + len(steps[choice].options))
    if sorted(branches) != list(all_):
        missing = [steps[branch].key for branch in all_ if branch not in branches] or ["a branch twice"]
        return (
            f"joins the branches of {steps[choice].key} without {', '.join(missing)}",
            "give it one step of each branch, or the branch itself where nothing lies in it",
        )
    return tuple(sorted(around))


def may_stand_in(steps: Steps, other: int) -> Wrong | None:
    """Say why no step can be declared instead of `other`."""
    step = steps[other]
    if step.policy is None or step.over is not None or all(step.outcomes.values()):
        return (
            f"stands in for {step.key}, which cannot be declined",
            "let it name a step for one command, or a sub-saga, with a business failure: fails=...",
        )
    users = [user.key for user in steps if other in user.requires]
    if users:
        return (
            f"stands in for {step.key}, and {', '.join(users)} needs that one already",
            f"declare it right after {step.key}, and let the others need what this method returns",
        )
    return None


def replaced_by(steps: Steps, position: int) -> int | None:
    """Return the step that stands in for another, if one does."""
    return next((number for number, step in enumerate(steps) if step.instead_of == position), None)
