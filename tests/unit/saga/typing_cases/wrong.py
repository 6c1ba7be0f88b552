"""Definitions that are wrong: each line marked E must be found by the type checker, and no other line."""

# fmt: off
# ruff: noqa: E501

from tests.unit.saga.support import Agreed, Denied, Do, Kept, No, Opened, Take, Undone, Yes, service
from tests.unit.saga.typing_cases.right import (
    alone,
    for_line,
    is_noted,
    lines,
    take_after,
    total,
    with_all,
    with_both,
    with_maybe,
    with_yes,
)
from towpath.saga import HALT, NO_EFFECT, PROCEED, Saga, Undo, UndoEach, hours, one_of, seconds, tolerated


def for_number(_: Opened, first: Yes, number: int) -> Do:
    return Do(first.note * number)


def take_number(_: Opened, number: int) -> Take:
    return Take("x" * number)


def answer(_: Opened, agreed: Agreed) -> Do:
    return Do(str(agreed))


def not_a_bool(_: Opened) -> str:
    return "yes"


def from_elsewhere(_: Denied) -> Do:
    return Do("x")


def alone_opened(event: Opened) -> Opened:
    return event


def all_lines(event: Opened) -> tuple[str, ...]:
    return event.lines


def fold(_: Opened, so_far: Yes | None, one: Agreed) -> Yes:
    return so_far or Yes(str(one))


saga = Saga("wrong", version=1, starts_on=Opened, deadline=hours(1))
other = Saga("other", version=1, starts_on=Denied, deadline=hours(1))
a = saga.step(service, alone, key="a", undo=NO_EFFECT, succeeds=Yes, fails=No, within=seconds(1))
b = saga.step(service, alone, key="b", undo=NO_EFFECT, succeeds=No, within=seconds(1))
maybe = saga.step(service, alone, key="m", when=not_a_bool, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: a condition that is no bool
d = saga.step(service, with_yes, key="d", needs=a, when=is_noted, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
items = saga.each(service, for_line, needs=a, over=lines, limit=9, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
late = saga.wait("late", succeeds=Agreed, within=seconds(9), on_timeout=PROCEED)

saga.step(service, with_both, key="e1", needs=a, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: asks for a result that it does not need
saga.step(service, with_both, key="e2", undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: asks for results and needs none
saga.step(service, with_yes, key="e3", needs=a & b, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: needs a result that it does not take
saga.step(service, with_both, key="e4", needs=b & a, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: takes them in another order
saga.step(service, with_yes, key="e5", needs=b, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: asks for a reply that the step does not declare
saga.step(service, with_yes, key="e6", needs=d, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: forgets that the step may be skipped
saga.step(service, with_yes, key="e7", needs=items, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: takes one reply of many
saga.step(service, with_all, key="e8", needs=a, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: takes many of one
saga.step(service, answer, key="e9", needs=late, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: forgets that silence proceeds
saga.step(service, from_elsewhere, key="e10", undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: takes another start event
saga.step(service, alone, key="e11", undo=NO_EFFECT, succeeds=Yes)  # E: gives an attempt no deadline
saga.step(service, alone, key="e12", succeeds=Yes, within=seconds(1))  # E: does not say how it is undone
saga.step(service, alone, key="e13", undo=Undo(take_after, succeeds=Undone), succeeds=Yes, within=seconds(1))  # E: an undo that asks for a result
saga.step(service, alone, key="e14", undo=Undo(take_after, needs=b, succeeds=Undone), succeeds=Yes, within=seconds(1))  # E: an undo that needs another
saga.step(service, alone, key="e15", undo=NO_EFFECT, succeeds="Yes", within=seconds(1))  # E: a reply that is no class
saga.step(service, alone, key="e16", undo=NO_EFFECT, succeeds=Yes, wihtin=seconds(1))  # E: a word that is misspelt
saga.step(service, alone, key="e17", undo=NO_EFFECT, succeeds=Yes, within=10)  # E: a duration without its unit
saga.step(service, with_maybe, key="e18", needs=[d], undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: needs a list
saga.each(service, for_number, needs=a, over=lines, limit=9, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: takes another kind of item
saga.each(service, for_line, needs=a, over=lines, limit=9, undo=UndoEach(take_number, succeeds=Kept), succeeds=Yes, within=seconds(1))  # E: undoes another kind of item
saga.pivot(service, alone, key="e21", undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: a pivot with an undo
saga.retriable(service, alone, key="e22", succeeds=Yes, fails=No, within=seconds(1))  # E: a retriable step that fails
saga.wait("e23", succeeds=Agreed, within=seconds(9))  # E: does not say what silence means
saga.wait("e24", succeeds=Agreed, within=seconds(9), on_timeout=HALT, when=is_noted)  # E: a condition on a result that it does not need
other.step(service, from_elsewhere, after=a, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: orders by another saga's step
saga.result(is_noted, event=Agreed, needs=a)  # E: a function that gives another result
saga.publish(total, event=Agreed)  # E: an event whose function asks for what it is not given
saga.result(total, event=Denied, needs=a)  # E: a result of another class
tolerant = saga.step(service, alone, key="e30", undo=NO_EFFECT, succeeds=one_of(Yes, tolerated(No)), within=seconds(1))
saga.step(service, with_yes, key="e31", needs=tolerant, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: forgets that a failure is tolerated
stands_in = saga.step(service, alone, key="e32", instead_of=b, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
saga.step(service, with_yes, key="e33", needs=stands_in, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: forgets that the other may have been done
card, _free = saga.choose("way", by=not_a_bool, options=("card", "free"))
joined = saga.merge("joined", saga.step(service, alone, key="e34", after=card, undo=NO_EFFECT, succeeds=Yes, within=seconds(1)), _free)
saga.step(service, with_yes, key="e35", needs=joined, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))  # E: forgets that a branch has no result
saga.choose("e36", by=is_noted, needs=a, options=("card", "free"))  # E: a choice by what is no text
saga.delay("e37", until=not_a_bool, at_most=hours(1))  # E: a time that is none
a & other.delay("pause", lasts=seconds(1))  # E: joins handles of two sagas
saga.subsaga_each(other, alone_opened, over=all_lines, limit=9, within=hours(1))  # E: starts one for each without its item
saga.gather("e38", of=Agreed, into=Yes, by=alone, enough=is_noted, limit=9, within=hours(1), on_timeout=HALT)  # E: a fold that gathers nothing
saga.gather("e39", of=Agreed, into=Yes, by=fold, limit=9, within=hours(1), on_timeout=HALT)  # E: does not say what ends it
saga.then_starts(alone)  # E: starts the next with a command
