"""Definitions that are right: the type checker says nothing, and knows what each handle holds."""

from datetime import datetime
from typing import assert_type

from tests.unit.saga.support import Agreed, Denied, Do, No, Opened, Take, Undone, Yes, service
from towpath.saga import (
    HALT,
    NO_EFFECT,
    PROCEED,
    Prolong,
    Remind,
    Saga,
    Step,
    Undo,
    UndoEach,
    hours,
    one_of,
    seconds,
    tolerated,
)
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted


def alone(_: Opened) -> Do:
    return Do("alone")


def with_yes(_: Opened, first: Yes) -> Do:
    return Do(first.note)


def with_both(_: Opened, first: Yes, second: No) -> Do:
    return Do(first.note + second.note)


def with_maybe(_: Opened, maybe: Yes | None) -> Do:
    return Do(maybe.note if maybe else "")


def with_either(_: Opened, either: Yes | No) -> Do:
    return Do(either.note)


def with_all(_: Opened, replies: tuple[Yes, ...]) -> Do:
    return Do(str(len(replies)))


def for_line(_: Opened, first: Yes, line: str) -> Do:
    return Do(first.note + line)


def lines(event: Opened, _: Yes) -> tuple[str, ...]:
    return event.lines


def take_line(_: Opened, line: str) -> Take:
    return Take(line)


def take_after(_: Opened, first: Yes) -> Take:
    return Take(first.note)


def is_noted(_: Opened, first: Yes) -> bool:
    return bool(first.note)


def again(event: Opened, _: Yes) -> Opened:
    return event


saga = Saga("right", version=1, starts_on=Opened, deadline=hours(1))
a = saga.step(service, alone, key="a", undo=NO_EFFECT, succeeds=Yes, fails=No, within=seconds(1))
assert_type(a, Step[Opened, Yes])
b = saga.step(service, alone, key="b", undo=NO_EFFECT, succeeds=No, within=seconds(1))
c = saga.step(service, with_both, needs=a & b, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
assert_type(c, Step[Opened, Yes])
d = saga.step(service, with_yes, key="d", needs=a, when=is_noted, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
assert_type(d, Step[Opened, Yes | None])
e = saga.step(
    service,
    with_maybe,
    needs=d,
    undo=Undo(take_after, needs=a, succeeds=Undone),
    succeeds=one_of(Yes, No),
    within=seconds(1),
)
assert_type(e, Step[Opened, Yes | No])
f = saga.each(
    service,
    for_line,
    needs=a,
    over=lines,
    limit=9,
    undo=UndoEach(take_line, succeeds=Undone),
    succeeds=Yes,
    within=seconds(1),
)
assert_type(f, Step[Opened, tuple[Yes, ...]])
g = saga.wait("g", succeeds=Agreed, fails=Denied, within=seconds(9), on_timeout=HALT, after=e & f)
assert_type(g, Step[Opened, Agreed])
h = saga.wait("h", succeeds=No, within=seconds(9), on_timeout=PROCEED)
assert_type(h, Step[Opened, No | None])
saga.step(service, with_either, needs=e, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
saga.step(service, with_all, needs=f, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
child = Saga("child", version=1, starts_on=Opened, deadline=hours(1))
child.step(service, alone, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
saga.subsaga(child, again, needs=a, within=hours(0.5))


def total(_: Opened, first: Yes) -> Agreed:
    assert first.note
    return Agreed()


def total_of(_: Opened, done: SubsagaCompleted[Agreed]) -> Do:
    return Do(str(done.result))


def by_note(_: Opened, first: Yes) -> str:
    return first.note


def with_one_of_three(_: Opened, one: Yes | No | None) -> Do:
    return Do(one.note if one else "")


def in_time(_: Opened, first: Yes) -> datetime:
    return datetime.fromisoformat(first.note)


def reminder(_: Opened, first: Yes, number: int) -> Denied:
    assert first.note * number
    return Denied()


ending = Saga("ending", version=1, starts_on=Opened, deadline=hours(1))
ending.result(total, event=Agreed, needs=ending.step(service, alone, undo=NO_EFFECT, succeeds=Yes, within=seconds(1)))
i = saga.subsaga(ending, again, needs=a, returns=Agreed, within=hours(0.5), key="i")
assert_type(i, Step[Opened, SubsagaCompleted[Agreed]])
saga.step(service, total_of, needs=i, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
j = saga.step(service, alone, key="j", undo=NO_EFFECT, succeeds=one_of(Yes, tolerated(No)), within=seconds(1))
assert_type(j, Step[Opened, Yes | No])
k = saga.step(service, with_yes, key="k", needs=a, instead_of=b, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
assert_type(k, Step[Opened, No | Yes])
left, right = saga.choose("side", by=by_note, needs=a, options=("left", "right"))
assert_type(left, Step[Opened, None])
m = saga.step(service, alone, key="m", after=left, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
n = saga.merge("n", m, right)
assert_type(n, Step[Opened, Yes | None])
o = saga.delay("o", needs=a, until=in_time, at_most=hours(0.5))
assert_type(o, Step[Opened, None])
p = saga.publish(total, needs=a, event=Agreed)
assert_type(p, Step[Opened, Agreed])
q = saga.wait(
    "q",
    needs=a,
    succeeds=Agreed,
    within=hours(0.5),
    on_timeout=HALT,
    reminds=Remind(reminder, event=Denied, every=seconds(9), times=2),
    prolonged=Prolong(No, by=seconds(9), times=2),
)
assert_type(q, Step[Opened, Agreed])
either = Saga("either", version=1, starts_on=one_of(Opened, Agreed), deadline=hours(1), cancel_on=Denied)
assert_type(either, Saga[Opened | Agreed])


def lines_of(event: Opened) -> tuple[str, ...]:
    return event.lines


def begin_line(_: Opened, line: str) -> Opened:
    return Opened(1, (line,))


def key_of(_: Opened, line: str) -> str:
    return line


def with_endings(_: Opened, endings: tuple[SubsagaCompleted[Agreed] | SubsagaCompensated, ...]) -> Do:
    return Do(str(len(endings)))


def add_up(_: Opened, so_far: No | None, one: Agreed | Denied) -> No:
    return No(f"{so_far} {one}")


def is_enough(_: Opened, so_far: No) -> bool:
    return bool(so_far.note)


def another(event: Opened, gathered: No | None) -> Opened | None:
    return event if gathered else None


chained = Saga("chained", version=1, starts_on=Opened, deadline=hours(9), keyed_by=lambda event: str(event.number))
r = chained.subsaga_each(
    ending, begin_line, over=lines_of, limit=3, returns=Agreed, may_fail=True, keyed_by=key_of, within=hours(0.5)
)
assert_type(r, Step[Opened, tuple[SubsagaCompleted[Agreed] | SubsagaCompensated, ...]])
chained.step(service, with_endings, needs=r, undo=NO_EFFECT, succeeds=Yes, within=seconds(1))
s = chained.gather(
    "s", of=Agreed, ended_by=Denied, into=No, by=add_up, enough=is_enough, limit=9, within=hours(1), on_timeout=PROCEED
)
assert_type(s, Step[Opened, No | None])
t = chained.gather(
    "t", of=Yes, into=No, by=lambda *_: No(), enough=is_enough, limit=9, within=hours(1), on_timeout=HALT
)
assert_type(t, Step[Opened, No])
chained.then_starts(another, needs=s)
