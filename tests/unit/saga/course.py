"""Sagas that decide their own course: by choices, fallbacks, tolerated failures, reminders, times, events, results."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.unit.saga.support import (
    Agreed,
    Denied,
    Kept,
    No,
    Opened,
    Undone,
    Yes,
    do,
    named,
    pivot,
    retriable,
    saga,
    service,
    start_undo,
    step,
    take,
    undo,
)
from towpath.saga import (
    COMPENSATE,
    NO_EFFECT,
    PROCEED,
    Participant,
    Prolong,
    Remind,
    Saga,
    Step,
    UndoEach,
    hours,
    one_of,
    seconds,
    tolerated,
)

billing = Participant("billing")
SHOW = datetime(2026, 6, 1, 20, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """An event that a saga publishes; `given` is what its builder received."""

    given: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """A saga's result."""

    of: str = ""


@dataclass(frozen=True, slots=True)
class Reminded:
    """An event that reminds somebody."""

    number: int = 1


@dataclass(frozen=True, slots=True)
class MoreTime:
    """Prolongs a wait."""


@dataclass(frozen=True, slots=True)
class CalledOff:
    """Cancels a saga."""


@dataclass(frozen=True, slots=True)
class OpenedElsewhere:
    """Starts a saga as well as Opened does."""

    number: int = 2
    lines: tuple[str, ...] = ()


def tell(_: object, *given: object) -> Told:
    """Publish what is known."""
    return Told(given)


def summary(_: object, *given: object) -> Summary:
    """Say what the saga came to."""
    return Summary(", ".join(type(result).__name__ for result in given))


def method_of(event: Any, *_: object) -> str:
    """Choose how the order is paid for."""
    return ("card", "invoice", "free")[event.number % 3]


def remind(_: Opened, first: Yes, number: int) -> Reminded:
    """Remind whoever should answer."""
    return Reminded(number if isinstance(first, Yes) else 0)


def at_the_show(*_: object) -> datetime:
    """Say when the show begins."""
    return SHOW


def choice() -> Saga[Opened]:
    """Return first -> by card, by invoice (two steps), or for nothing -> joined -> pivot -> an event -> the result."""
    made = saga("choice", undo=start_undo())
    first = step(made, "first")
    card, invoice, free = made.choose("method", by=method_of, needs=first, options=("card", "invoice", "free"))
    charged = step(made, "charge", after=card)
    drawn_up = step(made, "draw_up", after=invoice)
    sent = step(made, "send_invoice", needs=drawn_up)
    paid = made.merge("paid", charged, sent, free)
    decided = pivot(made, needs=paid)
    made.publish(tell, event=Told, needs=paid & decided, key="announce")
    made.result(summary, event=Summary, needs=decided)
    return made


def choice_in_a_choice() -> Saga[Opened]:
    """Return a choice in a branch of another, joined again, past the pivot."""
    made = saga("choice_in_a_choice")
    decided = pivot(made)
    outer, other, _ = made.choose("outer", by=method_of, needs=decided, options=("card", "invoice", "free"))
    inner, rest, last = made.choose("inner", by=_inner, after=outer, options=("left", "right", "none"))
    left = retriable(made, "go_left", after=inner)
    joined = made.merge("joined", left, rest, last)
    retriable(made, "go_on", needs=joined)
    retriable(made, "elsewhere", after=other)
    return made


def _inner(event: Any) -> str:
    return ("left", "right", "none")[event.number % 3]


def fallback() -> Saga[Opened]:
    """Return three carriers, each instead of the one before, a gift that may be declined, the pivot."""
    made = saga("fallback", undo=start_undo())
    first = step(made, "by_road")
    second = step(made, "by_rail", instead_of=first)
    third = step(made, "by_air", instead_of=second)
    gift: Step[Opened, Any] = made.step(
        service, do("gift"), needs=third, undo=undo("gift"), succeeds=one_of(Yes, tolerated(No)), within=seconds(10)
    )
    pivot(made, needs=third & gift)
    return made


def partial() -> Saga[Opened]:
    """Return a list of which some items may be declined, then the pivot, which is told of each."""
    made = saga("partial")
    picked: Step[Opened, Any] = made.each(
        service,
        do("pick"),
        over=named("lines", lambda event, *_: event.lines),
        limit=3,
        undo=UndoEach(take("pick"), succeeds=Undone, fails=Kept),
        succeeds=one_of(Yes, tolerated(No)),
        within=seconds(10),
    )
    pivot(made, needs=picked)
    return made


def reminding() -> Saga[Opened]:
    """Return a wait that reminds three times and can be prolonged twice, in a saga that an event cancels."""
    made = saga("reminding", cancel_on=CalledOff)
    first = step(made, "first")
    asked = made.wait(
        "asked",
        needs=first,
        succeeds=Agreed,
        fails=Denied,
        within=hours(10),
        on_timeout=COMPENSATE,
        reminds=Remind(remind, event=Reminded, every=hours(2), times=3),
        prolonged=Prolong(MoreTime, by=hours(5), times=2),
    )
    pivot(made, after=asked)
    return made


def timed() -> Saga[Opened]:
    """Return a delay until a time from the data, before the pivot and after it."""
    made = saga("timed", deadline=hours(200))
    early = made.delay("doors", until=at_the_show, at_most=hours(48), after=step(made, "first"))
    decided = pivot(made, after=early)
    later = made.delay("review", until=at_the_show, at_most=hours(48), after=decided)
    retriable(made, "ask_for_review", after=later)
    return made


def side_by_side() -> Saga[Opened]:
    """Return three steps in a row, of which the undo of the second need not wait."""
    made = saga("side_by_side", undo=start_undo())
    first = step(made, "first")
    second = step(made, "second", needs=first, undo=undo("second", in_order=False))
    step(made, "third", needs=second)
    return made


def two_starts() -> Saga[Any]:
    """Return a saga that either of two events starts, and that comes to something before it can no longer be undone."""
    made: Saga[Any] = Saga(
        "two_starts", version=1, starts_on=one_of(Opened, OpenedElsewhere), deadline=hours(4), cancel_on=CalledOff
    )
    first = step(made, "first")
    silent = made.wait("silent", after=first, succeeds=Agreed, within=hours(1), on_timeout=PROCEED)
    made.result(summary, event=Summary, needs=first & silent)
    return made


def with_child() -> Saga[Opened]:
    """Return a saga that reads the result of its sub-saga."""
    made = saga("with_child")
    child = made.subsaga(two_starts(), named("begin", lambda event: event), returns=Summary, within=hours(30))
    checked = step(made, "check", needs=child, undo=NO_EFFECT)
    pivot(made, after=checked)
    return made


COURSES: dict[str, Callable[[], Saga[Any]]] = {
    course.__name__: course
    for course in (
        choice,
        choice_in_a_choice,
        fallback,
        partial,
        reminding,
        timed,
        side_by_side,
        two_starts,
        with_child,
    )
}
