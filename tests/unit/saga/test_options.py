"""What a sentence of the language may say: words that are unknown, missing or of the wrong kind are refused at once."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.saga.support import OPENED, No, Opened, Undone, Yes, child, do, named, pivot, saga, service, step, take
from towpath.saga import COMPENSATE, NO_EFFECT, DefinitionError, Saga, Undo, days, hours, seconds
from towpath.saga.advance import advance
from towpath.saga.errors import BuilderError
from towpath.saga.inputs import Started

SAGA: Any = Saga
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
