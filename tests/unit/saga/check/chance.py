"""Small sagas made at random from a seed: every kind of step, joined in every way."""

from random import Random
from typing import Any

from tests.unit.saga.check.planted import begin, undoable
from tests.unit.saga.check.words import (
    Approved,
    Badly,
    Begun,
    Declined,
    NotTakenBack,
    TakenBack,
    Well,
    ask,
    ask_item,
    is_large,
    lines_of,
    shop,
    take_back,
    take_back_item,
    take_back_start,
)
from towpath.saga import (
    COMPENSATE,
    HALT,
    NO_EFFECT,
    PROCEED,
    Definition,
    Saga,
    Undo,
    UndoEach,
    UndoStart,
    hours,
    seconds,
)


def small(seed: int) -> Definition:
    """Return a saga of two or three steps before the pivot, if it has one, and up to two after it."""
    dice = Random(seed)
    undo = UndoStart(take_back_start, by=shop, succeeds=TakenBack, within=seconds(10), attempts=1)
    saga = begin("chance", undo=undo if dice.random() < 0.5 else None)
    handles: list[Any] = []
    signals = [Approved, Declined]
    for number in range(dice.choice((2, 2, 3))):
        after = _some(dice, handles)
        handles.append(_before(saga, dice, f"step_{number}", after, signals))
    if dice.random() < 0.7:
        everything = _joined(handles)
        fails: dict[str, Any] = {"fails": Badly} if dice.random() < 0.5 else {}
        pivot = saga.pivot(
            shop, ask, key="pivot", after=everything, succeeds=Well, within=seconds(10), attempts=1, **fails
        )
        for number in range(dice.choice((0, 1, 2))):
            saga.retriable(shop, ask, key=f"late_{number}", after=pivot, succeeds=Well, within=seconds(10), attempts=1)
    return saga.definition


def _some(dice: Random, handles: list[Any]) -> Any:
    chosen = [handle for handle in handles if dice.random() < 0.5]
    return _joined(chosen) if chosen else None


def _joined(handles: list[Any]) -> Any:
    joined = handles[0]
    for handle in handles[1:]:
        joined = joined & handle
    return joined


def _before(saga: Saga[Begun], dice: Random, key: str, after: Any, signals: list[type]) -> Any:
    said: dict[str, Any] = {"after": after} if after is not None else {}
    kind = dice.choice(("step", "step", "step", "each", "wait", "delay"))
    if kind == "wait" and signals:
        on_timeout = dice.choice((COMPENSATE, PROCEED, HALT))
        return saga.wait(key, succeeds=signals.pop(), within=hours(1), on_timeout=on_timeout, **said)
    if kind == "delay":
        return saga.delay(key, lasts=hours(1), **said)
    undo_attempts = dice.choice((1, 2))
    if kind == "each":
        undo: Any = UndoEach(take_back_item, succeeds=TakenBack, attempts=1)
        return saga.each(
            shop,
            ask_item,
            key=key,
            over=lines_of,
            limit=5,
            succeeds=Well,
            fails=Badly,
            undo=undo if dice.random() < 0.7 else NO_EFFECT,
            within=seconds(10),
            attempts=1,
            **said,
        )
    if dice.random() < 0.3:
        said["when"] = is_large
    if dice.random() < 0.3:
        said["undo"] = NO_EFFECT
    else:
        refused: dict[str, Any] = {"fails": NotTakenBack} if dice.random() < 0.4 else {}
        said["undo"] = Undo(take_back, succeeds=TakenBack, attempts=undo_attempts, **refused)
    return undoable(saga, key, attempts=dice.choice((1, 2)), **said)
