"""A saga of twelve steps in three parallel branches: the size that must be checked in under ten seconds."""

from typing import Any

from tests.unit.saga.check.words import (
    Approved,
    Badly,
    Begun,
    Declined,
    TakenBack,
    Well,
    ask,
    shop,
    take_back,
    take_back_start,
)
from towpath.saga import COMPENSATE, Saga, Step, Undo, UndoStart, days, hours, seconds


def branched(branches: int, length: int, *, attempts: int = 3, approval: bool = True) -> Saga[Begun]:
    """Return a saga of parallel branches, then a wait for a person, a pivot and what follows it."""
    saga = Saga(
        "branched",
        version=1,
        starts_on=Begun,
        deadline=days(4),
        undo=UndoStart(take_back_start, by=shop, succeeds=TakenBack, within=seconds(10)),
    )
    tips: list[Step[Begun, Well]] = []
    for branch in range(branches):
        for number in range(length):
            after: dict[str, Any] = {"after": tips.pop()} if number else {}
            tips.append(
                saga.step(
                    shop,
                    ask,
                    key=f"branch_{branch}_{number}",
                    undo=Undo(take_back, succeeds=TakenBack, attempts=attempts),
                    succeeds=Well,
                    fails=Badly,
                    within=seconds(10),
                    attempts=attempts,
                    **after,
                )
            )
    joined: Any = tips[0]
    for tip in tips[1:]:
        joined = joined & tip
    if approval:
        joined = saga.wait(
            "approval", after=joined, succeeds=Approved, fails=Declined, within=hours(24), on_timeout=COMPENSATE
        )
    pivot = saga.pivot(shop, ask, key="confirm", after=joined, succeeds=Well, fails=Badly, within=seconds(10))
    saga.retriable(shop, ask, key="ship", after=pivot, succeeds=Well, within=seconds(10), attempts=attempts)
    return saga
