"""What a sentence of the language may say: words that are unknown, missing or of the wrong kind are refused at once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.saga.support import OPENED, No, Opened, Undone, Yes, child, do, named, pivot, saga, service, step, take
from towpath import saga as room
from towpath.saga import (
    COMPENSATE,
    NO_EFFECT,
    Backoff,
    DefinitionError,
    Participant,
    Prolong,
    Remind,
    Saga,
    Undo,
    UndoStart,
    days,
    hours,
    seconds,
)
from towpath.saga.advance import advance
from towpath.saga.errors import BuilderError
from towpath.saga.inputs import Started

SAGA: Any = Saga
ROOM: Any = room
UNDO: Any = Undo  # what a type checker would not let through
SAID: dict[str, Any] = {"succeeds": Yes, "within": seconds(10)}
ITEMS: dict[str, Any] = {**SAID, "over": lambda event: event.lines, "limit": 3}
WAIT: dict[str, Any] = {"succeeds": Yes, "within": hours(1), "on_timeout": COMPENSATE}


async def awaits(_: Opened) -> object:
    """Return what must be awaited."""


def without(said: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the words without one."""
    return {key: value for key, value in said.items() if key != name}


def begin_child(event: Opened) -> Opened:
    """Start the sub-saga."""
    return event


def after_a_pivot(of: Saga[Opened]) -> dict[str, Any]:
    """Return what says that a step comes after the pivot."""
    return {"after": pivot(of), **SAID}


def yields(_: Opened) -> Iterator[object]:
    """Yield what should be returned."""
    yield _


class Awaited:
    """What it returns must be awaited."""

    async def __call__(self, _: Opened) -> object:
        """Return nothing in time."""


REMIND: Any = Remind
PROLONG: Any = Prolong
START_UNDONE_BY_TEXT: Any = UndoStart(take("start"), by="post", succeeds=Undone, within=hours(1))  # type: ignore[arg-type]
GATHER: dict[str, Any] = {
    "of": Yes,
    "into": No,
    "by": do("by"),
    "enough": do("enough"),
    "limit": 3,
    "within": hours(1),
    "on_timeout": COMPENSATE,
}

Says = Callable[[Any], object]
WRONG: dict[str, tuple[Says, str, str]] = {
    "a misspelt word": (
        lambda s: s.step(service, do("a"), undo=NO_EFFECT, attemps=7, **SAID),
        "knows no attemps=",
        "did you mean attempts",
    ),
    "a word that nobody could mean": (
        lambda s: s.step(service, do("a"), undo=NO_EFFECT, colour="red", **SAID),
        "knows no colour=",
        "it takes after=",
    ),
    "a condition of a sub-saga": (
        lambda s: s.subsaga(child(), begin_child, within=hours(1), when=bool),
        "knows no when=",
        "saga.choose",
    ),
    "attempts of a sub-saga": (
        lambda s: s.subsaga(child(), begin_child, within=hours(1), attempts=3),
        "knows no attempts=",
        "started once",
    ),
    "a condition of the pivot": (lambda s: s.pivot(service, do("a"), when=bool, **SAID), "no when=", "always passes"),
    "a failure past the pivot": (
        lambda s: s.retriable(service, do("a"), fails=No, **after_a_pivot(s)),
        "no fails=",
        "nothing is undone",
    ),
    "a misspelt word of an undo": (
        lambda _: UNDO(take("a"), succeeds=Undone, retry=days(1)),
        "no retry=",
        "retry_for=",
    ),
    "no reply": (lambda s: s.pivot(service, do("a"), within=seconds(1)), "lacks succeeds=", "say succeeds="),
    "no time": (lambda s: s.pivot(service, do("a"), succeeds=Yes), "lacks within=", "say within="),
    "a wait without a meaning of time": (lambda s: s.wait("w", **without(WAIT, "on_timeout")), "lacks on_timeout=", ""),
    "a delay of no length": (lambda s: s.delay("d"), "a delay lasts", "say lasts="),
    "a delay until a time, without bound": (lambda s: s.delay("d", until=awaits), "lacks at_most=", ""),
    "a number for a time": (
        lambda s: s.pivot(service, do("a"), succeeds=Yes, within=10),
        "within=10 is a int",
        "seconds(10)",
    ),
    "a text for a number": (
        lambda s: s.pivot(service, do("a"), attempts="3", **SAID),
        "attempts='3' is a str",
        "whole number",
    ),
    "a text for a participant": (
        lambda s: s.pivot("payments", do("a"), **SAID),
        "'payments' is no participant",
        'Participant("payments")',
    ),
    "no function": (lambda s: s.pivot(service, "pay", **SAID), "builds no command", "give the function"),
    "no undo": (lambda s: s.step(service, do("a"), undo=take("a"), **SAID), "says no undo", "undo=Undo("),
    "an async builder": (lambda s: s.pivot(service, awaits, **SAID), "awaits is async", "plain function"),
    "an async condition": (
        lambda s: s.step(service, do("a"), undo=NO_EFFECT, when=awaits, **SAID),
        "awaits is async",
        "",
    ),
    "an async undo": (lambda _: UNDO(awaits, succeeds=Undone), "awaits is async", ""),
    "an async start of a sub-saga": (lambda s: s.subsaga(child(), awaits, within=hours(1)), "awaits is async", ""),
    "no saga as a sub-saga": (
        lambda s: s.subsaga("child", begin_child, within=hours(1)),
        "'child' is no saga",
        "import",
    ),
    "a list without a limit": (
        lambda s: s.each(service, do("a"), undo=NO_EFFECT, **without(ITEMS, "limit")),
        "lacks limit=",
        "",
    ),
    "a saga whose deadline is a number": (
        lambda _: SAGA("s", version=1, starts_on=Opened, deadline=10),
        "deadline=10 is no time",
        "days(4)",
    ),
    "a saga that starts on a text": (
        lambda _: SAGA("s", version=1, starts_on="Opened", deadline=days(1)),
        "'Opened', which is no class",
        "",
    ),
    "a saga whose version is a text": (
        lambda _: SAGA("s", version="1", starts_on=Opened, deadline=days(1)),
        "version='1' is no whole number",
        "",
    ),
    "a saga without a name": (
        lambda _: SAGA(7, version=1, starts_on=Opened, deadline=days(1)),
        "no text",
        "",
    ),
    "a version that no state can hold": (
        lambda _: SAGA("s", version=2**31, starts_on=Opened, deadline=days(1)),
        "version=2147483648 is too large",
        "from 1",
    ),
    "a deadline that no date can name": (
        lambda _: SAGA("s", version=1, starts_on=Opened, deadline=days(10**6)),
        "a hundred years",
        "then_starts",
    ),
    "a saga that starts on None": (
        lambda _: SAGA("s", version=1, starts_on=None, deadline=days(1)),
        "starts on None, which is no class",
        "class",
    ),
    "a saga that starts on nothing": (
        lambda _: SAGA("s", version=1, starts_on=(), deadline=days(1)),
        "starts on nothing",
        "class",
    ),
    "a saga that a text cancels": (
        lambda _: SAGA("s", version=1, starts_on=Opened, deadline=days(1), cancel_on="Closed"),
        "cancelled by 'Closed', which is no class",
        "class",
    ),
    "a text for what a second start means": (
        lambda _: SAGA("s", version=1, starts_on=Opened, deadline=days(1), second_start="REFUSE"),
        "second_start='REFUSE' is none",
        "SecondStart.REFUSE_ALWAYS",
    ),
    "a bare function for the undo of the start": (
        lambda _: SAGA("s", version=1, starts_on=Opened, deadline=days(1), undo=take("start")),
        "says no undo",
        "UndoStart(",
    ),
    "a text for who undoes the start": (
        lambda _: SAGA("s", version=1, starts_on=Opened, deadline=days(1), undo=START_UNDONE_BY_TEXT),
        "names no participant",
        "by=orders",
    ),
    "a participant that has no topic": (
        lambda s: s.pivot(Participant("büro 1"), do("a"), **SAID),
        "no topic can be called büro 1.commands",
        "plain letters",
    ),
    "a participant that has no topic, for the undo of the start": (
        lambda _: UndoStart(take("start"), by=Participant("büro 1"), succeeds=Undone, within=hours(1)),
        "no topic can be called büro 1.commands",
        "plain letters",
    ),
    "a builder that yields": (lambda s: s.pivot(service, yields, **SAID), "yields yields", "return its value"),
    "a list that is yielded": (
        lambda s: s.each(service, do("a"), undo=NO_EFFECT, **{**ITEMS, "over": yields}),
        "yields yields",
        "a list is returned whole",
    ),
    "an object that is awaited when it is called": (
        lambda s: s.pivot(service, Awaited(), key="a", **SAID),
        "is async",
        "plain function",
    ),
    "an undo without a function": (lambda _: UNDO(None, succeeds=Undone), "builds no command", "give the function"),
    "a start of a sub-saga without a function": (
        lambda s: s.subsaga(child(), None, within=hours(1)),
        "builds no command",
        "give the function",
    ),
    "a result that is no function": (lambda s: s.result(OPENED, event=Opened), "builds no command", ""),
    "a next start that is no function": (lambda s: s.then_starts("next"), "builds no command", ""),
    "no time of an attempt": (
        lambda s: s.pivot(service, do("a"), succeeds=Yes, within=None),
        "within=None is a NoneType",
        "seconds(10)",
    ),
    "a wait whose time means nothing": (
        lambda s: s.wait("w", **{**WAIT, "on_timeout": None}),
        "on_timeout=None",
        "one of COMPENSATE",
    ),
    "a number for the key of a wait": (lambda s: s.wait(3, **WAIT), "step 3 is not lower-case", "key="),
    "no key": (lambda s: s.pivot(service, do("a"), key=None, **SAID), "key=None", "a text"),
    "numbers for the times of a pause": (
        lambda s: s.pivot(service, do("a"), backoff=Backoff(1, 2), **SAID),  # type: ignore[arg-type]
        "backoff=Backoff(first=1",
        "two times",
    ),
    "a pause that grows by a fraction": (
        lambda s: s.pivot(service, do("a"), backoff=Backoff(factor=1.5), **SAID),  # type: ignore[arg-type]
        "factor=1.5",
        "a whole number",
    ),
    "none that is enough": (
        lambda s: s.each(service, do("a"), undo=NO_EFFECT, enough=0, fails=No, **ITEMS),
        "enough=0",
        "leave it out",
    ),
    "a function for a reminder": (lambda s: s.wait("w", reminds=do("a"), **WAIT), "reminds=", "Remind("),
    "a class for what prolongs": (lambda s: s.wait("w", prolonged=No, **WAIT), "prolonged=", "Prolong("),
    "a reminder every eight": (
        lambda _: REMIND(do("a"), event=Yes, every=8, times=2),
        "every=8 is a int",
        "a time",
    ),
    "half a reminder": (
        lambda _: REMIND(do("a"), event=Yes, every=hours(1), times=2.5),
        "times=2.5 is a float",
        "whole number",
    ),
    "a text for a reminder's event": (
        lambda _: REMIND(do("a"), event="Late", every=hours(1), times=2),
        "event='Late' is a str",
        "class",
    ),
    "a text that prolongs": (lambda _: PROLONG("Away", by=hours(1), times=2), "on='Away' is a str", "class"),
    "prolonged by a number": (lambda _: PROLONG(No, by=3, times=2), "by=3 is a int", "a time"),
    "gathers a text": (lambda s: s.gather("g", **{**GATHER, "of": "Yes"}), "of='Yes' is a str", "class of a record"),
    "gathers nothing": (lambda s: s.gather("g", **{**GATHER, "of": ()}), "of=() is a tuple", "class of a record"),
    "a delay with two lengths": (
        lambda s: s.delay("d", lasts=hours(1), at_most=hours(2)),
        "says at_most=, too",
        "leave it out",
    ),
    "branches in one text": (
        lambda s: s.choose("c", by=do("a"), options="card"),
        "options='card' is a str",
        "two branches or more",
    ),
    "branches without an order": (
        lambda s: s.choose("c", by=do("a"), options={"card", "cash"}),
        "is a set",
        "in order",
    ),
    "one branch": (lambda s: s.choose("c", by=do("a"), options=("card",)), "is a tuple", "two branches or more"),
    "a merge of a tuple": (
        lambda s: s.merge("m", s.choose("c", by=do("a"), options=("card", "cash"))),
        "which is no handle",
        'saga.merge("m", first, second)',
    ),
    "a merge of another saga's branches": (
        lambda s: s.merge("m", *saga().choose("c", by=str, options=("card", "cash"))),
        "needs a step of saga",
        "same saga",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_nobody_reads_is_refused_where_it_is_said(name: str) -> None:
    """With the saga, the step, what is wrong, and what was probably meant."""
    say, cause, fix = WRONG[name]
    with pytest.raises(DefinitionError) as raised:
        say(saga())
    assert cause in raised.value.cause
    assert fix in raised.value.next_step


class Endless:
    """Has items, and says not how many."""

    def __getitem__(self, number: int) -> int:
        return number


@pytest.mark.parametrize(
    ("lines", "kind"), [({"a": 1}, "dict"), ("two", "str"), (7, "int"), ({1, 2}, "set"), (Endless(), "Endless")]
)
def test_a_list_that_is_none_is_an_error_of_its_function(lines: object, kind: str) -> None:
    """A dictionary would give a command a key, and a text a letter."""
    made = saga()
    made.each(service, do("a"), undo=NO_EFFECT, **{**ITEMS, "over": named("lines", lambda _: lines)})
    with pytest.raises(BuilderError, match=f"lines returned a {kind}, not a list or a tuple"):
        advance(made.definition, None, Started("id", 0, OPENED, "key"))


def test_what_is_right_is_taken() -> None:
    """Every word of a step that can be undone."""
    made = saga()
    step(made, "a", attempts=2, retry_for=hours(1), holds=("one", "two"), touches="three", when=lambda _: True)
    assert made.definition.step("a").holds == ("one", "two")


@pytest.mark.parametrize(
    ("call", "says", "step"),
    [
        (
            lambda: ROOM.Saga("x", version=1, starts_on=int, dedline=days(1)),
            "missing a required",
            "did you mean deadline=?",
        ),
        (ROOM.Saga, "missing a required argument: 'name'", "it takes name=, version="),
        (lambda: ROOM.Undo(do("a"), suceeds=int), "'succeeds'", "did you mean succeeds=?"),
        (lambda: ROOM.UndoStart(do("a"), succeeds=int), "missing a required argument: 'by'", "it takes command=, by="),
        (lambda: ROOM.Backoff(frst=days(1)), "unexpected keyword argument 'frst'", "did you mean first=?"),
        (ROOM.UndoSubsaga, "'within'", "it takes within="),
        (ROOM.Participant, "'name'", "it takes name="),
        (
            lambda: ROOM.Saga("x", version=1, starts_on=int, deadline=days(1)).merge("k", aftr=1),
            "'aftr'",
            "did you mean after=?",
        ),
        (
            lambda: ROOM.Saga("x", version=1, starts_on=int, deadline=days(1)).step(service),
            "'command'",
            "it takes participant=",
        ),
        (lambda: ROOM.days("3"), "days('3') is no duration", "say days(10)"),
        (lambda: hours(float("inf")), "hours(inf) is no duration", "say hours(10)"),
        (lambda: seconds(float("nan")), "seconds(nan) is no duration", "say seconds(10)"),
        (lambda: days(10**12), "is no duration", "say days(10)"),
    ],
)
def test_a_call_that_python_cannot_bind_says_what_was_meant(call: Callable[[], object], says: str, step: str) -> None:
    """As every other mistake in a definition, and not as Python's own error out of the library."""
    with pytest.raises(DefinitionError) as caught:
        call()
    assert says in caught.value.cause
    assert step in caught.value.next_step
