"""Definitions that break a rule: refused while their module is imported, naming the step and the way to fix it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.saga.support import (
    OPENED,
    Agreed,
    Denied,
    Do,
    No,
    Opened,
    Undone,
    Yes,
    chain,
    do,
    named,
    other,
    pivot,
    retriable,
    saga,
    service,
    step,
    take,
    undo,
)
from towpath.saga import (
    COMPENSATE,
    HALT,
    NO_EFFECT,
    PROCEED,
    Backoff,
    DefinitionError,
    Saga,
    Undo,
    UndoStart,
    days,
    hours,
    seconds,
)
from towpath.saga.definition import ATTEMPTS_MAX, ITEMS_MAX, STEPS_MAX, Kind
from towpath.saga.testing import given


def wait(of: Saga[Opened], key: str = "asked", **said: Any) -> Any:
    """Add a wait."""
    add: Any = of.wait
    return add(key, **({"succeeds": Agreed, "within": hours(1), "on_timeout": HALT} | said))


def each(of: Saga[Opened], **said: Any) -> Any:
    """Add an each."""
    said = {"limit": 2, "over": named("lines", lambda event, *_: event.lines)} | said
    add: Any = of.each
    return add(service, do("pick"), undo=NO_EFFECT, succeeds=Yes, within=seconds(1), **said)


# Each definition, the words of its cause, and the words of its fix.
WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "name": (lambda: saga("Place-Order"), "saga Place-Order: the name is not lower-case words", "place_order"),
    "version": (
        lambda: Saga("a", version=0, starts_on=Opened, deadline=days(1)),
        "saga a: the version is 0",
        "count versions from 1",
    ),
    "deadline": (lambda: saga(deadline=seconds(0)), "the deadline is 0:00:00", "give the whole saga a deadline"),
    "no steps": (lambda: saga().definition, "has no steps", "declare at least one"),
    "key": (lambda: step(saga(), "Reserve"), "step Reserve is not lower-case words", 'key="reserve_stock"'),
    "lambda": (
        lambda: saga().step(service, lambda _: Do("x"), undo=NO_EFFECT, succeeds=Yes, within=seconds(1)),
        "step <lambda> is not lower-case words",
        "give it a key",
    ),
    "long key": (lambda: step(saga(), "a" * 64), "is not lower-case words", "give it a key"),
    "start's key": (lambda: step(saga(), "start"), "step start is the start event", "give it another key"),
    "same key": (
        lambda: [step(of, "a") for of in [saga()] for _ in range(2)],
        "step a is there already",
        "another key",
    ),
    "no undo": (
        lambda: step(saga(), "a", undo=None),
        "step a does not say how it is undone",
        "undo=NO_EFFECT if it changes nothing",
    ),
    "needs a list": (
        lambda: step((of := saga()), "b", needs=[step(of, "a")]),
        "step b needs [<step a of saga shape>], which is no handle",
        "needs=customer & stock",
    ),
    "needs another saga": (
        lambda: step(saga(), "b", needs=step(saga("elsewhere"), "a")),
        "step b needs a step of saga elsewhere",
        "saga.subsaga",
    ),
    "joins another saga": (
        lambda: step(saga(), "a") & step(saga("elsewhere"), "b"),
        "& joins a handle of this saga to <step b of saga elsewhere>",
        "join handles",
    ),
    "joins a word": (lambda: step(saga(), "a") & "b", "joins a handle of this saga to 'b'", "join handles"),  # type: ignore[operator]
    "builder's parameters": (
        lambda: saga().step(
            service, named("two", lambda a, b: Do("x")), undo=NO_EFFECT, succeeds=Yes, within=seconds(1)
        ),
        "step two calls two(a, b), which must take 1 arguments: the start event",
        "change its parameters",
    ),
    "condition's parameters": (
        lambda: step((of := saga()), "b", needs=step(of, "a"), when=named("one", lambda event: True)),
        "step b calls one(event), which must take 2 arguments: the start event, the result of a",
        "change its parameters",
    ),
    "list's parameters": (
        lambda: each(saga(), over=named("none", lambda: ())),
        "step pick calls none(), which must take 1 arguments",
        "change its parameters",
    ),
    "undo's parameters": (
        lambda: step(saga(), "a", undo=Undo(named("two", lambda a, b: Do("x")), succeeds=Undone)),
        "step a calls two(a, b), which must take 1 arguments: the start event",
        "change its parameters",
    ),
    "start undo's parameters": (
        lambda: saga(undo=UndoStart(named("one", lambda a: Do("x")), by=other, succeeds=Undone, within=seconds(1))),
        "step start calls one(a), which must take 2 arguments: the start event, the cause",
        "change its parameters",
    ),
    "start undo's participant": (
        lambda: saga(undo=UndoStart(take("start"), by=None, succeeds=Undone, within=seconds(1))),  # type: ignore[arg-type]
        "the undo of the start names no participant",
        "by=orders",
    ),
    "success and failure": (
        lambda: step(saga(), "a", fails=(No, Yes)),
        "step a declares Yes as success and as failure",
        "choose one",
    ),
    "no class": (lambda: step(saga(), "a", fails="No"), "step a declares 'No' as a reply", "name the record's class"),
    "within": (lambda: step(saga(), "a", within=seconds(0)), "step a has within=0:00:00", "below the saga's"),
    "within over deadline": (lambda: step(saga(), "a", within=days(5)), "step a has within=5 days", "below the saga's"),
    "retry_for": (
        lambda: step(saga(), "a", within=seconds(2), retry_for=seconds(1)),
        "retry_for=0:00:01 below within=0:00:02",
        "raise it",
    ),
    "attempts": (lambda: step(saga(), "a", attempts=0), "step a has attempts=0", "from 1"),
    "too many attempts": (lambda: step(saga(), "a", attempts=ATTEMPTS_MAX + 1), "has attempts=1000001", "from 1"),
    "backoff": (lambda: step(saga(), "a", backoff=Backoff(first=timedelta(0))), "Backoff(first=", "0 < first <= most"),
    "backoff's order": (
        lambda: step(saga(), "a", backoff=Backoff(first=seconds(2), most=seconds(1))),
        "Backoff(first=",
        "0 < first <= most",
    ),
    "backoff's factor": (lambda: step(saga(), "a", backoff=Backoff(factor=0)), "factor=0", "a factor of at least 1"),
    "undo's timing": (
        lambda: step(saga(), "a", undo=undo("a", attempts=0)),
        "step a (its undo) has attempts=0",
        "from 1",
    ),
    "undo's needs": (
        lambda: step((of := saga()), "b", undo=undo("b", needs=step(of, "a"))),
        "step b has an undo that needs a, which may not be there",
        "only what comes before the step",
    ),
    "undo's needs of another saga": (
        lambda: step(saga(), "b", undo=undo("b", needs=step(saga("elsewhere"), "a"))),
        "step b needs a step of saga elsewhere",
        "same saga",
    ),
    "limit": (lambda: each(saga(), limit=0), "step pick has limit=0", f"from 1 to {ITEMS_MAX}"),
    "limit too high": (lambda: each(saga(), limit=ITEMS_MAX + 1), "step pick has limit=1001", "from 1 to 1000"),
    "too many steps": (
        lambda: [step(of, f"s{number}") for of in [saga()] for number in range(STEPS_MAX)],
        f"step s63 is one too many: a saga has at most {STEPS_MAX - 1}",
        "sub-saga",
    ),
    "beside the pivot": (
        lambda: pivot((of := saga()), after=(step(of, "a"), step(of, "b"))[0]),
        "step pivot is the pivot, and b may still be under way when it is sent",
        "after=b",
    ),
    "second pivot": (
        lambda: pivot((of := saga()), "p2", after=pivot(of)),
        "step p2 is a second pivot beside pivot",
        "one of them",
    ),
    "step after the pivot": (
        lambda: step((of := saga()), "a", after=pivot(of)),
        "step a could not be undone: it is declared past the point of no return",
        "declare it before the pivot",
    ),
    "retriable beside the pivot": (
        lambda: (of := saga(), pivot(of), retriable(of, "r")),
        "step r may run beside the pivot pivot",
        "let it come after pivot",
    ),
    "retriable without pivot": (
        lambda: retriable((of := saga()), "r", after=step(of, "a")),
        "step r is retriable, but no pivot precedes it",
        "declare the pivot first",
    ),
    "pivot after retriable": (
        lambda: pivot((of := saga()), after=retriable(of, "r")),
        "step pivot follows retriable steps",
        "declare the pivot before them",
    ),
    "step after retriable": (
        lambda: step((of := saga()), "a", after=retriable(of, "r")),
        "could not be undone",
        "before the pivot",
    ),
    "wait beside the pivot": (
        lambda: (of := saga(), pivot(of), wait(of)),
        "step asked may run beside the pivot",
        "let it come after",
    ),
    "wait's time": (lambda: wait(saga(), within=seconds(0)), "step asked waits no time", "fix it"),
    "wait longer than the saga": (lambda: wait(saga(), within=days(4)), "or longer than the whole saga", "fix it"),
    "delay's time": (lambda: saga().delay("d", lasts=days(9)), "step d waits no time, or longer", "fix it"),
    "two waits, one signal": (
        lambda: (of := saga(), wait(of, "a", fails=Denied), wait(of, "b", succeeds=Denied)),
        "step b waits for Denied, and so does a",
        "signals of its own",
    ),
    "wait fails past the pivot": (
        lambda: wait((of := saga()), fails=Denied, after=pivot(of)),
        "step asked may fail past the point of no return",
        "on_timeout=PROCEED or HALT",
    ),
    "wait compensates past the pivot": (
        lambda: wait((of := saga()), on_timeout=COMPENSATE, after=pivot(of)),
        "step asked may fail past the point of no return",
        "precede the pivot",
    ),
    "used too early": (
        lambda: (of := saga(), step(of, "a"), of.definition, step(of, "b")),
        "step b is declared after the definition was used",
        "in one module",
    ),
}


@pytest.mark.parametrize(("define", "cause", "fix"), WRONG.values(), ids=WRONG.keys())
def test_a_broken_rule_is_named_with_its_mending(define: Callable[[], Any], cause: str, fix: str) -> None:
    """Raised by the line that breaks it."""
    with pytest.raises(DefinitionError) as raised:
        define()
    assert cause in raised.value.cause
    assert fix in raised.value.next_step
    assert str(raised.value) == f"{raised.value.cause}\nnext: {raised.value.next_step}"


def test_what_is_allowed_past_the_pivot() -> None:
    """Retriable steps, waits that go on or halt, delays."""
    made = saga()
    decided = pivot(made)
    pause = made.delay("pause", lasts=hours(1), after=decided)
    asked = wait(made, on_timeout=PROCEED, after=pause)
    retriable(made, "last", needs=asked)
    assert [defined.kind for defined in made.definition.steps[2:]] == [Kind.RETRIABLE] * 3


def test_a_wait_among_retriable_steps_is_one_of_them() -> None:
    """A saga of retriable steps alone may wait, but not fail."""
    made = saga()
    first = retriable(made, "first")
    wait(made, on_timeout=PROCEED, after=first)
    assert made.definition.committed_from_start


def test_a_builder_written_in_c_is_taken_at_its_word() -> None:
    """It tells nothing about its parameters."""
    made = saga()
    made.step(service, str, key="text", undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
    given(made, OPENED).expect(str(OPENED))


def test_a_definition_is_compiled_once() -> None:
    """Handing it out twice gives the same tables."""
    made = chain()
    assert made.definition is made.definition
    assert made.name == made.definition.name == "chain"
    assert made.definition.step("pivot").kind is Kind.PIVOT


def test_masks_tell_what_comes_before_and_after() -> None:
    """Bits of ancestors and descendants, start included."""
    defined = chain().definition
    assert defined.ancestors == (0b0, 0b1, 0b11, 0b111, 0b1111)
    assert defined.descendants == (0b11110, 0b11100, 0b11000, 0b10000, 0b0)


def test_a_key_keeps_a_step_when_its_function_is_renamed() -> None:
    """`key` is what state, history and topics know."""
    made = saga()
    handle = made.step(service, do("new_name"), key="old_name", undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
    assert handle.key == "old_name"
    assert repr(handle) == "<step old_name of saga shape>"
    assert made.definition.steps[1].key == "old_name"


def test_resources_are_declared_by_name() -> None:
    """One or several."""
    made = saga()
    step(made, "a", holds="stock", touches=("order", "customer"))
    assert (made.definition.steps[1].holds, made.definition.steps[1].touches) == (("stock",), ("order", "customer"))


def test_an_undo_has_the_times_of_its_step_and_a_day() -> None:
    """Unless it says otherwise."""
    made = saga(deadline=days(9))
    step(made, "a", within=days(2), undo=undo("a"))
    step(made, "b", within=seconds(7), undo=undo("b", within=seconds(3), retry_for=hours(1), attempts=4))
    first, second = (defined.undo for defined in made.definition.steps[1:])
    assert first is not None
    assert second is not None
    assert (first.policy.within_milliseconds, first.policy.retry_for_milliseconds) == (172_800_000, 172_800_000)
    assert second.policy.attempts == 4
    assert (second.policy.within_milliseconds, second.policy.retry_for_milliseconds) == (3_000, 3_600_000)
