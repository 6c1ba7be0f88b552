"""Sagas that decide their own course: by choices, fallbacks, tolerated failures, reminders, times, events, results."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.unit.saga.support import (
    Agreed,
    Denied,
    Do,
    Kept,
    No,
    Opened,
    Take,
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
    UndoSubsaga,
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


def with_children() -> Saga[Opened]:
    """Return a saga with a sub-saga for each line, of which some may fail."""
    made = saga("with_children")
    each = made.subsaga_each(
        two_starts(),
        named("begin_one", lambda event, _line: event),
        over=named("lines", lambda event: event.lines),
        keyed_by=named("line", lambda _event, line: line),
        limit=9,
        returns=Summary,
        may_fail=True,
        undo=UndoSubsaga(within=hours(26)),
        within=hours(30),
    )
    pivot(made, after=step(made, "check", needs=each, undo=NO_EFFECT))
    return made


def subscription() -> Saga[Opened]:
    """Return a link of a chain: a delay, a charge, a result, and what starts the next."""
    made = saga("subscription", keyed_by=named("key_of", lambda event: f"key-{event.number}"))
    month = made.delay("month", lasts=hours(24))
    charged = step(made, "charge", after=month)
    made.result(summary, event=Summary, needs=charged & month)
    made.then_starts(named("next_month", lambda event, _: event if event.number else None), needs=charged)
    return made


def contest(enough: int = 1, **said: Any) -> Saga[Opened]:
    """Return a saga that asks for each line, and of which some are enough; a step before, a pivot after."""
    made = saga("contest")
    before = step(made, "before")
    said.setdefault(
        "undo", UndoEach(named("take_offer", lambda _, line: Take("offer", (line,))), succeeds=Undone, fails=Kept)
    )
    offers: Any = made.each(
        service,
        named("offer", lambda _, line: Do("offer", (line,))),
        over=named("lines", lambda event: event.lines),
        limit=4,
        enough=enough,
        succeeds=Yes,
        fails=No,
        within=seconds(10),
        after=before,
        **said,
    )
    pivot(made, needs=offers)
    return made


def contest_in_a_chain() -> Saga[Opened]:
    """Return a contest that the next follows."""
    made = contest()
    made.then_starts(named("next_round", lambda event: event))
    return made


def contest_of_prices() -> Saga[Opened]:
    """Return a saga of which some are enough, where there is nothing to undo."""
    return contest(undo=NO_EFFECT)


@dataclass(frozen=True, slots=True)
class Vote:
    """Somebody votes."""

    by: str = "ada"


@dataclass(frozen=True, slots=True)
class Votes:
    """Who has voted so far."""

    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PollClosed:
    """Nobody votes any more."""


def count_vote(_: Opened, votes: Votes | None, more: Vote | PollClosed) -> Votes:
    """Count each of them once."""
    before = votes.by if votes is not None else ()
    return Votes(before if isinstance(more, PollClosed) or more.by in before else (*before, more.by))


def two_have_voted(_: Opened, votes: Votes) -> bool:
    """Two of them are enough."""
    return len(votes.by) >= 2


def gathering(**said: Any) -> Saga[Opened]:
    """Return a saga that waits for two votes of at most five, beside a step; a veto compensates."""
    made = saga("gathering")
    before = step(made, "before")
    said = {"enough": two_have_voted, "ended_by": PollClosed, "on_timeout": COMPENSATE, **said}
    votes: Any = made.gather(
        "votes", of=Vote, into=Votes, by=count_vote, limit=5, within=hours(24), fails=Denied, after=before, **said
    )
    pivot(made, needs=votes)
    return made


def gathering_in_its_time() -> Saga[Opened]:
    """Return a saga that goes on, past its pivot, with what has come in its time; reminded of it."""
    made = saga("gathering_in_its_time")
    first = pivot(made)
    votes = made.gather(
        "votes",
        of=Vote,
        into=Votes,
        by=count_vote,
        limit=2,
        within=hours(24),
        on_timeout=PROCEED,
        after=first,
        reminds=Remind(named("reminded", lambda _, number: Reminded(number)), event=Reminded, every=hours(10), times=2),
    )
    retriable(made, "count", needs=votes)
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
        with_children,
        subscription,
        contest,
        contest_in_a_chain,
        contest_of_prices,
        gathering,
        gathering_in_its_time,
    )
}
