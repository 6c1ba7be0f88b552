"""A tiny world for the tests of the machine: one command, one yes, one no, one undo; and sagas of every shape."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from towpath.saga import (
    COMPENSATE,
    NO_EFFECT,
    Cause,
    Participant,
    Saga,
    Step,
    Undo,
    UndoEach,
    UndoStart,
    days,
    hours,
    seconds,
)


@dataclass(frozen=True, slots=True)
class Opened:
    """Starts every saga here."""

    number: int = 1
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Do:
    """Asks a service to do something; `given` is what its builder received."""

    what: str
    given: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Take:
    """Asks a service to undo something."""

    what: str
    given: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Yes:
    """It is done."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class No:
    """It cannot be done, and left no effect."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Undone:
    """It is undone."""


@dataclass(frozen=True, slots=True)
class Kept:
    """It cannot be undone."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """A person agrees."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A person does not."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """Nobody declares this."""


service = Participant("service")
other = Participant("other")
OPENED = Opened()


def named(key: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the name by which a step will know it."""
    function.__name__ = key
    return function


def do(key: str) -> Callable[..., Do]:
    """Return a builder called `key` that takes whatever it is given."""
    return named(key, lambda _event, *given: Do(key, given))


def take(key: str) -> Callable[..., Take]:
    """Return a builder of the undo of `key`."""
    return named(f"take_{key}", lambda _event, *given: Take(key, given))


def undo(key: str, **said: Any) -> Undo[Opened]:
    """Return an undo that may fail."""
    return Undo(take(key), succeeds=Undone, fails=Kept, **said)


def saga(name: str = "shape", **said: Any) -> Saga[Opened]:
    """Return an empty saga of four days whose start needs no undo."""
    return Saga(name, version=1, starts_on=Opened, deadline=said.pop("deadline", days(4)), **said)


def start_undo() -> UndoStart[Opened]:
    """Return an undo of the start that tells what it learnt of the cause."""

    def close(_: Opened, cause: Cause) -> Take:
        return Take("start", (str(cause),))

    return UndoStart(close, by=other, succeeds=Undone, within=seconds(10))


def step(of: Saga[Opened], key: str, **said: Any) -> Step[Opened, Any]:
    """Add a step that can be undone, if nothing else is said."""
    said.setdefault("undo", undo(key))
    said.setdefault("fails", No)
    said.setdefault("within", seconds(10))
    made: Step[Opened, Any] = of.step(service, do(key), succeeds=Yes, **said)
    return made


def pivot(of: Saga[Opened], key: str = "pivot", **said: Any) -> Step[Opened, Any]:
    """Add a pivot that may fail."""
    said.setdefault("within", seconds(10))
    made: Step[Opened, Any] = of.pivot(service, do(key), succeeds=Yes, fails=No, **said)
    return made


def retriable(of: Saga[Opened], key: str, **said: Any) -> Step[Opened, Any]:
    """Add a step past the pivot."""
    said.setdefault("within", seconds(10))
    made: Step[Opened, Any] = of.retriable(service, do(key), succeeds=Yes, **said)
    return made


# --- shapes -----------------------------------------------------------------------------------------------------------


def chain(**said: Any) -> Saga[Opened]:
    """Return first -> second -> pivot -> last, and an undo of the start."""
    made = saga("chain", undo=start_undo(), **said)
    first = step(made, "first")
    second = step(made, "second", needs=first)
    decided = pivot(made, needs=second)
    retriable(made, "last", needs=decided)
    return made


def diamond() -> Saga[Opened]:
    """Return root -> (left, right) -> join, all of which can be undone, and no pivot."""
    made = saga("diamond", undo=start_undo())
    root = step(made, "root")
    left, right = step(made, "left", needs=root), step(made, "right", needs=root)
    step(made, "join", needs=left & right)
    return made


def decision(**said: Any) -> Saga[Opened]:
    """Return first -> a person's decision -> pivot."""
    made = saga("decision")
    first = step(made, "first")
    wait: dict[str, Any] = {"after": first, "within": hours(1), "on_timeout": COMPENSATE, "fails": Denied} | said
    asked = made.wait("asked", succeeds=Agreed, **wait)
    pivot(made, after=asked)
    return made


def basket(limit: int = 3) -> Saga[Opened]:
    """Return check -> one command for each line -> pivot -> one more for each line."""
    made = saga("basket")
    lines = named("lines", lambda event, *_: event.lines)
    checked = step(made, "check", undo=NO_EFFECT)
    picked: Step[Opened, Any] = made.each(
        service,
        do("pick"),
        needs=checked,
        over=lines,
        limit=limit,
        undo=UndoEach(take("pick"), succeeds=Undone, fails=Kept),
        succeeds=Yes,
        fails=No,
        within=seconds(10),
    )
    decided = pivot(made, needs=picked)
    made.retriable_each(service, do("ship"), needs=decided, over=lines, limit=limit, succeeds=Yes, within=seconds(10))
    return made


def child() -> Saga[Opened]:
    """Return a saga that can be undone even after it has completed."""
    made = saga("child")
    step(made, "inner")
    return made


def parent() -> Saga[Opened]:
    """Return before -> the child -> pivot."""
    made = saga("parent")
    before = step(made, "before")
    begun: Any = named("begin_child", lambda event, *_: event)
    inner = made.subsaga(child(), begun, needs=before, within=hours(1))
    pivot(made, after=inner)
    return made


def long_way() -> Saga[Opened]:
    """Return retriable steps alone: committed from the start."""
    made = saga("long_way")
    first = retriable(made, "first")
    retriable(made, "second", needs=first)
    return made


SHAPES: dict[str, Callable[[], Saga[Opened]]] = {
    shape.__name__: shape for shape in (chain, diamond, decision, basket, child, parent, long_way)
}
