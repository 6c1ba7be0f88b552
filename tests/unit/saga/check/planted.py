"""Sagas with one planted mistake each, and their fixed twins.

Each function returns the saga (or sagas, side by side) with its mistake, or, if `fixed`, without it. `PLANTED` holds
them by name, with the property that is broken and the step where it is.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.unit.saga.check.words import (
    AlsoWell,
    Approved,
    Ask,
    Badly,
    Begun,
    Declined,
    NotTakenBack,
    TakenBack,
    Well,
    ask,
    ask_again,
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
    Cause,
    Definition,
    Saga,
    SecondStart,
    Undo,
    UndoEach,
    UndoStart,
    UndoSubsaga,
    days,
    hours,
    minutes,
    one_of,
    seconds,
)
from towpath.saga.check import Property, Samples
from towpath.saga.definition import OnTimeout, StepDefinition

Built = Saga[Any] | Definition | Sequence[Saga[Any]]


@dataclass(frozen=True, slots=True)
class Planted:
    """A mistake: what builds it, the property that it breaks, and where."""

    build: Callable[[bool], Built]
    rule: Property
    step: str
    samples: Samples = field(default_factory=Samples)

    def definitions(self, *, fixed: bool) -> list[Definition]:
        """Return the definitions to check side by side."""
        built = self.build(fixed)
        if isinstance(built, Definition):
            return [built]
        return [saga.definition for saga in (built if isinstance(built, Sequence) else [built])]


PLANTED: dict[str, Planted] = {}
Builder = Callable[[bool], Built]


def planted(rule: Property, step: str, samples: Samples | None = None) -> Callable[[Builder], Builder]:
    """Register a mistake under its function's name."""

    def register(build: Builder) -> Builder:
        PLANTED[build.__name__] = Planted(build, rule, step, samples if samples is not None else Samples())
        return build

    return register


def begin(name: str = "planted", **said: Any) -> Saga[Begun]:
    """Return a saga that can be undone, without steps."""
    return Saga(name, version=1, starts_on=Begun, deadline=said.pop("deadline", days(4)), **said)


def undoable(saga: Saga[Begun], key: str, command: Any = ask, **said: Any) -> Any:
    """Add a step with an undo."""
    said = {"undo": Undo(take_back, succeeds=TakenBack), "succeeds": Well, "fails": Badly, **said}
    return saga.step(shop, command, key=key, within=said.pop("within", seconds(10)), **said)


def confirm(saga: Saga[Begun], after: Any, command: Any = ask, **said: Any) -> Any:
    """Add the pivot."""
    return saga.pivot(shop, command, key="confirm", after=after, succeeds=Well, within=seconds(10), **said)


def ship(saga: Saga[Begun], after: Any, command: Any = ask, **said: Any) -> Any:
    """Add a step past the pivot."""
    return saga.retriable(shop, command, key="ship", after=after, succeeds=Well, within=seconds(10), **said)


def two_steps(**second: Any) -> Saga[Begun]:
    """Return a saga of two steps and a pivot; `second` says more about the second step."""
    saga = begin()
    first = undoable(saga, "first")
    confirm(saga, undoable(saga, "second", after=first, **second))
    return saga


# --- results that are not there ---------------------------------------------------------------------------------------


def ask_with(event: Begun, result: Well) -> Ask:
    """Build a command that needs a result."""
    return Ask(f"{event.order_id} {result.number}")


def ask_with_or_without(event: Begun, result: Well | None) -> Ask:
    """Build a command that can do without a result."""
    return Ask(f"{event.order_id} {result.number if result is not None else 0}")


@planted(Property.MISSING_RESULT, "second")
def a_builder_takes_no_none_of_a_step_that_may_be_skipped(fixed: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", when=is_large)
    undoable(saga, "second", ask_with_or_without if fixed else ask_with, needs=first)
    return saga


@planted(Property.MISSING_RESULT, "second")
def a_builder_without_annotations_reads_a_skipped_result(fixed: bool) -> Built:
    def build(event, result):  # type: ignore[no-untyped-def]
        return Ask(f"{event.order_id} {result.number if result is not None or not fixed else 0}")

    saga = begin()
    first = undoable(saga, "first", when=is_large)
    undoable(saga, "second", build, needs=first)
    return saga


@planted(Property.MISSING_RESULT, "confirm")
def the_pivot_reads_an_answer_that_may_never_come(fixed: bool) -> Built:
    def build(event: Begun, answer: Approved) -> Ask:
        return Ask(answer.by)

    def build_mended(event: Begun, answer: Approved | None) -> Ask:
        return Ask(answer.by if answer is not None else "nobody")

    saga = begin()
    first = undoable(saga, "first")
    answer = saga.wait("answer", after=first, succeeds=Approved, within=hours(1), on_timeout=PROCEED)
    command: Any = build_mended if fixed else build  # a type checker would catch it
    saga.pivot(shop, command, key="confirm", needs=answer, succeeds=Well, within=seconds(10))
    return saga


@planted(Property.MISSING_RESULT, "second")
def an_undo_needs_a_result_that_may_be_skipped(fixed: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", when=is_large)
    undo = Undo(ask_with_or_without if fixed else ask_with, needs=first, succeeds=TakenBack)
    confirm(saga, undoable(saga, "second", after=first, undo=undo))
    return saga


@planted(Property.MISSING_RESULT, "ship")
def a_step_past_the_pivot_needs_a_result_that_may_be_skipped(fixed: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", when=is_large)
    pivot = confirm(saga, first)
    ship(saga, pivot, ask_with_or_without if fixed else ask_with, needs=first)
    return saga


@planted(Property.MISSING_RESULT, "second")
def a_builder_knows_one_of_two_results(fixed: bool) -> Built:
    def build(event: Begun, result: Well | AlsoWell) -> Ask:
        return Ask(f"{result.number}")

    saga = begin()
    first = undoable(saga, "first", succeeds=one_of(Well, AlsoWell))
    undoable(saga, "second", build if fixed else ask_with, needs=first)
    return saga


# --- functions that raise ---------------------------------------------------------------------------------------------


def ask_divided(event: Begun) -> Ask:
    """Raise for a quantity of 1, which is valid."""
    return Ask(f"{10 // (event.quantity - 1)}")


@planted(Property.BUILDER_RAISES, "second")
def a_builder_raises_on_valid_data(fixed: bool) -> Built:
    return two_steps(command=ask if fixed else ask_divided)


@planted(Property.BUILDER_RAISES, "second")
def a_condition_raises_on_valid_data(fixed: bool) -> Built:
    def when(event: Begun) -> bool:
        return event.lines[0 if fixed else 1] == "sample"

    return two_steps(when=when)


def items_over(over: Callable[[Begun], list[str]]) -> Built:
    """Return a saga with a step for each item of a list."""
    saga = begin()
    saga.each(
        shop,
        ask_item,
        key="items",
        over=over,
        limit=5,
        succeeds=Well,
        undo=UndoEach(take_back_item, succeeds=TakenBack),
        within=seconds(10),
    )
    return saga


@planted(Property.BUILDER_RAISES, "items")
def a_list_raises_on_valid_data(fixed: bool) -> Built:
    def over(event: Begun) -> list[str]:
        return event.lines[: 10 if fixed else 10 // (event.quantity - 1)]

    return items_over(over)


def ask_for_ever(event: Begun) -> Ask:
    """Wait for something that no loop of its own changes, whatever is raised meanwhile."""
    while event.quantity:
        with contextlib.suppress(Exception):
            assert event.lines
    return Ask("never")


@planted(Property.BUILDER_RAISES, "second")
def a_builder_does_not_come_to_an_end(fixed: bool) -> Built:
    return two_steps(command=ask if fixed else ask_for_ever)


@planted(Property.BUILDER_RAISES, "items")
def a_list_does_not_come_to_an_end(fixed: bool) -> Built:
    def over(event: Begun) -> list[str]:
        lines = list(event.lines)
        while not fixed and lines is not None:
            pass
        return lines

    return items_over(over)


@planted(Property.BUILDER_RAISES, "second")
def an_undo_raises_on_valid_data(fixed: bool) -> Built:
    return two_steps(undo=Undo(take_back if fixed else ask_divided, succeeds=TakenBack))


@planted(Property.BUILDER_RAISES, "items")
def the_undo_of_an_item_raises_on_valid_data(fixed: bool) -> Built:
    def undo(event: Begun, item: str) -> Ask:
        return Ask(item if fixed else str(int(item)))

    saga = begin()
    saga.each(
        shop,
        ask_item,
        key="items",
        over=lines_of,
        limit=5,
        succeeds=Well,
        undo=UndoEach(undo, succeeds=TakenBack),
        within=seconds(10),
    )
    return saga


@planted(Property.BUILDER_RAISES, "start")
def the_undo_of_the_start_takes_for_granted_that_a_reply_was_the_cause(fixed: bool) -> Built:
    def undo(event: Begun, cause: Cause) -> Ask:
        if fixed and cause.reply is None:
            return Ask(cause.reason)
        assert isinstance(cause.reply, Badly)
        return Ask(cause.reply.reason)

    saga = begin(undo=UndoStart(undo, by=shop, succeeds=TakenBack, within=seconds(10)))
    confirm(saga, undoable(saga, "first"))
    return saga


# --- functions that are none ------------------------------------------------------------------------------------------

_numbers = itertools.count()


@planted(Property.IMPURE, "second")
def a_builder_gives_another_command_each_time(fixed: bool) -> Built:
    def build(event: Begun) -> Ask:
        return Ask(event.order_id if fixed else f"{event.order_id} {next(_numbers)}")

    return two_steps(command=build)


@planted(Property.IMPURE, "second")
def a_builder_changes_the_start_event(fixed: bool) -> Built:
    def build(event: Begun) -> Ask:
        lines = list(event.lines) if fixed else event.lines
        lines.append("one more")
        return Ask(f"{event.order_id}")

    return two_steps(command=build)


@planted(Property.IMPURE, "second")
def a_condition_depends_on_how_often_it_was_asked(fixed: bool) -> Built:
    def when(event: Begun) -> bool:
        return event.quantity > 5 if fixed else next(_numbers) % 2 == 0

    return two_steps(when=when)


@planted(Property.WRONG_VALUE, "second")
def a_condition_returns_no_truth_value(fixed: bool) -> Built:
    def when(event: Begun) -> bool:
        found: Any = event.lines
        return bool(found) if fixed else found

    return two_steps(when=when)


@planted(Property.WRONG_VALUE, "second")
def a_builder_forgets_to_return_its_command(fixed: bool) -> Built:
    def build(event: Begun) -> object:
        command = Ask(event.order_id)
        return command if fixed else None

    return two_steps(command=build)


@planted(Property.WRONG_VALUE, "items")
def a_list_is_a_generator(fixed: bool) -> Built:
    def over(event: Begun) -> Any:
        found: Iterator[str] = (line for line in event.lines)
        return tuple(found) if fixed else found

    saga = begin()
    saga.each(shop, ask_item, key="items", over=over, limit=5, succeeds=Well, undo=NO_EFFECT, within=seconds(10))
    return saga


def _two_lines(kind: type) -> Sequence[object]:
    return (Begun("1", 1, ["a", "b"]),) if kind is Begun else ()


@planted(Property.LIST_TOO_LONG, "items", Samples(examples=_two_lines))
def an_example_has_more_items_than_the_limit(fixed: bool) -> Built:
    saga = begin()
    saga.each(
        shop,
        ask_item,
        key="items",
        over=lines_of,
        limit=2 if fixed else 1,
        succeeds=Well,
        undo=UndoEach(take_back_item, succeeds=TakenBack),
        within=seconds(10),
    )
    return saga


@dataclass(frozen=True, slots=True)
class ChildBegun:
    """Starts a sub-saga."""

    order_id: str


def child(**said: Any) -> Saga[ChildBegun]:
    """Return a sub-saga of one step that can be undone within a minute."""

    def build(event: ChildBegun) -> Ask:
        return Ask(event.order_id)

    def take_it_back(event: ChildBegun) -> Ask:
        return Ask(event.order_id)

    saga = Saga("child", version=1, starts_on=ChildBegun, deadline=said.pop("deadline", hours(1)))
    rest = saga.delay("rest", lasts=said.pop("rest", seconds(1)))
    undo = Undo(take_it_back, succeeds=TakenBack, retry_for=said.pop("undo_for", minutes(1)))
    said = {"within": seconds(10), "undo": undo, **said}
    saga.step(shop, said.pop("build", build), key="inner", after=rest, succeeds=Well, fails=Badly, **said)
    return saga


def start_child(event: Begun) -> ChildBegun:
    """Start the sub-saga."""
    return ChildBegun(event.order_id)


@planted(Property.WRONG_VALUE, "child")
def a_sub_saga_is_started_with_something_else(fixed: bool) -> Built:
    start: Any = start_child if fixed else ask
    saga = begin()
    saga.subsaga(child(), start, within=hours(2))
    return saga


@planted(Property.BUILDER_RAISES, "inner")
def a_mistake_inside_a_sub_saga(fixed: bool) -> Built:
    def build(event: ChildBegun) -> Ask:
        return Ask(event.order_id if fixed else event.order_id[99])

    saga = begin()
    saga.subsaga(child(build=build), start_child, within=hours(2))
    return saga


def _only_asks(_: str, command: object) -> str:
    return "" if isinstance(command, Ask) else f"{type(command).__name__} is not in its topic"


@planted(Property.WRONG_VALUE, "second", Samples(complaint=_only_asks))
def a_command_that_its_participant_does_not_take(fixed: bool) -> Built:
    def build(event: Begun) -> object:
        return Ask(event.order_id) if fixed else Badly("no command")

    return two_steps(command=build)


# --- time -------------------------------------------------------------------------------------------------------------


@planted(Property.COMPLETES, "")
def delays_last_longer_than_the_saga_may(fixed: bool) -> Built:
    saga = begin(deadline=days(4 if fixed else 3))
    first = saga.delay("first", lasts=hours(40))
    second = saga.delay("second", lasts=hours(40), after=first)
    undoable(saga, "third", after=second)
    return saga


@planted(Property.COMPLETES, "child")
def a_sub_saga_cannot_answer_in_time(fixed: bool) -> Built:
    saga = begin()
    undo_for = minutes(1)
    saga.subsaga(child(rest=minutes(30), undo_for=undo_for), start_child, within=minutes(60 if fixed else 20))
    return saga


@planted(Property.FITS_IN_TIME, "answer")
def the_deadline_comes_before_the_time_of_a_wait_is_over(fixed: bool) -> Built:
    saga = begin(deadline=days(3))
    first = saga.delay("first", lasts=days(2))
    answer = saga.wait("answer", after=first, succeeds=Approved, within=hours(20 if fixed else 40), on_timeout=PROCEED)
    undoable(saga, "second", after=answer)
    return saga


@planted(Property.FITS_IN_TIME, "second")
def attempts_that_can_never_begin(fixed: bool) -> Built:
    return two_steps(within=days(1), attempts=3 if fixed else 9)


@planted(Property.FITS_IN_TIME, "second (its undo)")
def attempts_of_an_undo_that_can_never_begin(fixed: bool) -> Built:
    undo = Undo(take_back, succeeds=TakenBack, within=hours(10), attempts=2 if fixed else 9, retry_for=hours(20))
    return two_steps(undo=undo)


@planted(Property.FITS_IN_TIME, "child")
def the_undo_of_a_sub_saga_takes_longer_than_its_parent_waits(fixed: bool) -> Built:
    saga = begin()
    saga.subsaga(child(undo_for=minutes(1) if fixed else days(1)), start_child, within=hours(2))
    return saga


@planted(Property.FITS_IN_TIME, "child")
def sub_sagas_have_less_time_to_undo_themselves_than_they_need(fixed: bool) -> Built:
    saga = begin()
    saga.subsaga_each(
        child(undo_for=minutes(30)),
        lambda event, _: ChildBegun(event.order_id),
        over=lines_of,
        limit=5,
        undo=UndoSubsaga(within=minutes(60 if fixed else 10)),
        within=hours(2),
    )
    return saga


@planted(Property.FITS_IN_TIME, "second")
def waits_in_a_chain_last_longer_than_the_saga(fixed: bool) -> Built:
    saga = begin(deadline=days(4 if fixed else 2))
    first = saga.wait("first", succeeds=Approved, within=days(1), on_timeout=COMPENSATE)
    second = saga.wait("second", after=first, succeeds=Declined, within=hours(30), on_timeout=COMPENSATE)
    undoable(saga, "third", after=second)
    return saga


@planted(Property.FITS_IN_TIME, "second")
def a_step_is_retried_for_longer_than_the_saga_lasts(fixed: bool) -> Built:
    return two_steps(retry_for=days(3 if fixed else 9))


@planted(Property.DEADLOCK, "paid")
def two_sagas_wait_for_each_other(fixed: bool) -> Built:
    buy, sell = begin("buy"), begin("sell")
    paid = buy.wait("paid", succeeds=Approved, within=hours(1), on_timeout=COMPENSATE)
    undoable(buy, "ship", after=paid, succeeds=AlsoWell)
    shipped = sell.wait("shipped", succeeds=AlsoWell, within=hours(1), on_timeout=COMPENSATE)
    undoable(sell, "pay", succeeds=Approved, **({} if fixed else {"after": shipped}))
    return [buy, sell]


@planted(Property.SAME_COMMAND, "second")
def a_step_is_undone_by_its_own_command(fixed: bool) -> Built:
    return two_steps(undo=Undo(take_back if fixed else ask, succeeds=TakenBack))


@planted(Property.AMBIGUOUS, "second")
def a_saga_starts_itself_by_the_answer_to_its_step(fixed: bool) -> Built:
    return two_steps(succeeds=Well if fixed else Begun)


def _many_numbers(kind: type) -> Sequence[object]:
    return [Begun("1", number, ["a"]) for number in range(8)] if kind is Begun else ()


@planted(Property.CONSTANT, "second", Samples(examples=_many_numbers))
def a_condition_comes_out_alike_on_everything(fixed: bool) -> Built:
    return two_steps(when=is_large if fixed else lambda event: event.quantity >= 0)


# --- what is there in vain --------------------------------------------------------------------------------------------


@planted(Property.UNREACHABLE, "start")
def the_undo_of_the_start_can_never_be_owed(fixed: bool) -> Built:
    undo = None if fixed else UndoStart(take_back_start, by=shop, succeeds=TakenBack, within=seconds(10))
    # A start that is refused is undone, too; here none is.
    saga = begin(undo=undo, second_start=SecondStart.INDEPENDENT)
    saga.retriable(shop, ask, key="ship", succeeds=Well, within=seconds(10))
    return saga


@planted(Property.ENDS, "confirm")
def a_list_that_was_accepted_is_too_long_past_the_pivot(fixed: bool) -> Built:
    saga = begin()
    reserved = saga.each(
        shop,
        ask_item,
        key="reserve",
        over=lines_of,
        limit=5,
        succeeds=Well,
        undo=UndoEach(take_back_item, succeeds=TakenBack),
        within=seconds(10),
    )
    pivot = confirm(saga, reserved)
    saga.retriable_each(
        shop,
        ask_item,
        key="send",
        over=lines_of,
        limit=5 if fixed else 1,
        succeeds=Well,
        after=pivot,
        within=seconds(10),
    )
    return saga


# --- locks ------------------------------------------------------------------------------------------------------------


@planted(Property.UNDECLARED_LOCK, "first")
def a_saga_touches_what_another_one_holds(fixed: bool) -> Built:
    one, two = begin("one"), begin("two")
    undoable(one, "first", **({"holds": "stock"} if fixed else {"touches": "stock"}))
    undoable(two, "first", holds="stock")
    return [one, two]


@planted(Property.LOCK_ORDER, "second")
def two_sagas_take_locks_in_opposite_order(fixed: bool) -> Built:
    one, two = begin("one"), begin("two")
    undoable(one, "second", after=undoable(one, "first", holds="stock"), holds="order")
    first, second = ("stock", "order") if fixed else ("order", "stock")
    undoable(two, "second", after=undoable(two, "first", holds=first), holds=second)
    return [one, two]


@planted(Property.LOCK_ORDER, "first")
def two_branches_take_the_same_lock(fixed: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", holds="stock")
    undoable(saga, "second", holds="stock", **({"after": first} if fixed else {}))
    return saga


@planted(Property.LOCK_KEPT, "second")
def a_lock_is_never_given_back(fixed: bool) -> Built:
    undo: Any = Undo(take_back, succeeds=TakenBack) if fixed else NO_EFFECT
    return two_steps(holds="stock", undo=undo)


# --- messages that are two things -------------------------------------------------------------------------------------


@planted(Property.AMBIGUOUS, "answer")
def the_start_event_is_also_a_signal(fixed: bool) -> Built:
    saga = begin()
    signal: type = Approved if fixed else Begun
    saga.wait("answer", succeeds=signal, within=hours(1), on_timeout=COMPENSATE)
    return saga


@planted(Property.AMBIGUOUS, "answer")
def a_signal_is_also_a_reply(fixed: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first")
    signal: type = Approved if fixed else Well
    saga.wait("answer", after=first, succeeds=signal, within=hours(1), on_timeout=HALT)
    return saga


# --- definitions that a program makes, past the rules of the language -------------------------------------------------


def changed(saga: Saga[Any], key: str, change: Callable[[StepDefinition], StepDefinition]) -> Definition:
    """Return the saga's definition with one step changed by hand."""
    definition = saga.definition
    return replace(definition, steps=tuple(change(step) if step.key == key else step for step in definition.steps))


def pivoted() -> Saga[Begun]:
    """Return a saga with a step, a pivot that may fail, a wait and a step past it."""
    saga = begin()
    pivot = confirm(saga, undoable(saga, "first"), fails=Badly)
    answer = saga.wait("answer", after=pivot, succeeds=Approved, within=hours(1), on_timeout=PROCEED)
    ship(saga, answer, ask_again)
    return saga


@planted(Property.PIVOT, "")
def a_step_past_the_pivot_may_fail(fixed: bool) -> Built:
    outcomes: dict[type, bool] = {Well: True} if fixed else {Well: True, Badly: False}
    return changed(pivoted(), "ship", lambda step: replace(step, outcomes=outcomes))


@planted(Property.PIVOT, "")
def a_wait_past_the_pivot_compensates(fixed: bool) -> Built:
    on_timeout = OnTimeout.PROCEED if fixed else OnTimeout.COMPENSATE
    return changed(pivoted(), "answer", lambda step: replace(step, on_timeout=on_timeout))


@planted(Property.PIVOT, "")
def an_answer_past_the_pivot_means_failure(fixed: bool) -> Built:
    outcomes: dict[type, bool] = {Approved: True} if fixed else {Approved: True, Declined: False}
    return changed(pivoted(), "answer", lambda step: replace(step, outcomes=outcomes))


@planted(Property.ONE_INBOX, "second")
def an_undo_goes_to_another_inbox(fixed: bool) -> Built:
    def change(step: StepDefinition) -> StepDefinition:
        assert step.undo is not None
        return step if fixed else replace(step, undo=replace(step.undo, participant="another"))

    return changed(two_steps(), "second", change)


@planted(Property.UNREACHABLE, "confirm")
def the_pivot_has_an_undo(fixed: bool) -> Built:
    undo = two_steps().definition.step("first").undo
    return changed(pivoted(), "confirm", lambda step: step if fixed else replace(step, undo=undo))


@planted(Property.COMPLETES, "")
def a_step_can_only_fail(fixed: bool) -> Built:
    outcomes: dict[type, bool] = {Well: True, Badly: False} if fixed else {Badly: False}
    return changed(two_steps(), "second", lambda step: replace(step, outcomes=outcomes))


@planted(Property.ENDS, "first")
def an_undo_can_only_be_refused(fixed: bool) -> Built:
    def change(step: StepDefinition) -> StepDefinition:
        assert step.undo is not None
        outcomes: dict[type, bool] = {TakenBack: True, NotTakenBack: False} if fixed else {NotTakenBack: False}
        return replace(step, undo=replace(step.undo, outcomes=outcomes))

    return changed(two_steps(), "first", change)


@planted(Property.ENDS, "second")
def an_undo_has_no_reply(fixed: bool) -> Built:
    def change(step: StepDefinition) -> StepDefinition:
        assert step.undo is not None
        return replace(step, undo=replace(step.undo, outcomes={TakenBack: True} if fixed else {}))

    return changed(two_steps(), "second", change)
