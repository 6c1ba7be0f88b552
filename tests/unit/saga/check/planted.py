"""Sagas with one planted mistake each, and their mended twins.

Each function returns the saga (or sagas, side by side) with its mistake, or, if `mended`, without it. `PLANTED` holds
them by name, with the property that is broken and the step where it is.
"""

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

    def definitions(self, *, mended: bool) -> list[Definition]:
        """Return the definitions to check side by side."""
        built = self.build(mended)
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
def a_builder_takes_no_none_of_a_step_that_may_be_skipped(mended: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", when=is_large)
    undoable(saga, "second", ask_with_or_without if mended else ask_with, needs=first)
    return saga


@planted(Property.MISSING_RESULT, "second")
def a_builder_without_annotations_reads_a_skipped_result(mended: bool) -> Built:
    def build(event, result):  # type: ignore[no-untyped-def]
        return Ask(f"{event.order_id} {result.number if result is not None or not mended else 0}")

    saga = begin()
    first = undoable(saga, "first", when=is_large)
    undoable(saga, "second", build, needs=first)
    return saga


@planted(Property.MISSING_RESULT, "confirm")
def the_pivot_reads_an_answer_that_may_never_come(mended: bool) -> Built:
    def build(event: Begun, answer: Approved) -> Ask:
        return Ask(answer.by)

    def build_mended(event: Begun, answer: Approved | None) -> Ask:
        return Ask(answer.by if answer is not None else "nobody")

    saga = begin()
    first = undoable(saga, "first")
    answer = saga.wait("answer", after=first, succeeds=Approved, within=hours(1), on_timeout=PROCEED)
    command: Any = build_mended if mended else build  # a type checker would catch it
    saga.pivot(shop, command, key="confirm", needs=answer, succeeds=Well, within=seconds(10))
    return saga


@planted(Property.MISSING_RESULT, "second")
def an_undo_needs_a_result_that_may_be_skipped(mended: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", when=is_large)
    undo = Undo(ask_with_or_without if mended else ask_with, needs=first, succeeds=TakenBack)
    confirm(saga, undoable(saga, "second", after=first, undo=undo))
    return saga


@planted(Property.MISSING_RESULT, "ship")
def a_step_past_the_pivot_needs_a_result_that_may_be_skipped(mended: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", when=is_large)
    pivot = confirm(saga, first)
    ship(saga, pivot, ask_with_or_without if mended else ask_with, needs=first)
    return saga


@planted(Property.MISSING_RESULT, "second")
def a_builder_knows_one_of_two_results(mended: bool) -> Built:
    def build(event: Begun, result: Well | AlsoWell) -> Ask:
        return Ask(f"{result.number}")

    saga = begin()
    first = undoable(saga, "first", succeeds=one_of(Well, AlsoWell))
    undoable(saga, "second", build if mended else ask_with, needs=first)
    return saga


# --- functions that raise ---------------------------------------------------------------------------------------------


def ask_divided(event: Begun) -> Ask:
    """Raise for a quantity of 1, which is valid."""
    return Ask(f"{10 // (event.quantity - 1)}")


@planted(Property.BUILDER_RAISES, "second")
def a_builder_raises_on_valid_data(mended: bool) -> Built:
    return two_steps(command=ask if mended else ask_divided)


@planted(Property.BUILDER_RAISES, "second")
def a_condition_raises_on_valid_data(mended: bool) -> Built:
    def when(event: Begun) -> bool:
        return event.lines[0 if mended else 1] == "sample"

    return two_steps(when=when)


@planted(Property.BUILDER_RAISES, "items")
def a_list_raises_on_valid_data(mended: bool) -> Built:
    def over(event: Begun) -> list[str]:
        return event.lines[: 10 if mended else 10 // (event.quantity - 1)]

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


@planted(Property.BUILDER_RAISES, "second")
def an_undo_raises_on_valid_data(mended: bool) -> Built:
    return two_steps(undo=Undo(take_back if mended else ask_divided, succeeds=TakenBack))


@planted(Property.BUILDER_RAISES, "items")
def the_undo_of_an_item_raises_on_valid_data(mended: bool) -> Built:
    def undo(event: Begun, item: str) -> Ask:
        return Ask(item if mended else str(int(item)))

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
def the_undo_of_the_start_takes_for_granted_that_a_reply_was_the_cause(mended: bool) -> Built:
    def undo(event: Begun, cause: Cause) -> Ask:
        if mended and cause.reply is None:
            return Ask(cause.reason)
        assert isinstance(cause.reply, Badly)
        return Ask(cause.reply.reason)

    saga = begin(undo=UndoStart(undo, by=shop, succeeds=TakenBack, within=seconds(10)))
    confirm(saga, undoable(saga, "first"))
    return saga


# --- functions that are none ------------------------------------------------------------------------------------------

_numbers = itertools.count()


@planted(Property.IMPURE, "second")
def a_builder_gives_another_command_each_time(mended: bool) -> Built:
    def build(event: Begun) -> Ask:
        return Ask(event.order_id if mended else f"{event.order_id} {next(_numbers)}")

    return two_steps(command=build)


@planted(Property.IMPURE, "second")
def a_builder_changes_the_start_event(mended: bool) -> Built:
    def build(event: Begun) -> Ask:
        lines = list(event.lines) if mended else event.lines
        lines.append("one more")
        return Ask(f"{event.order_id}")

    return two_steps(command=build)


@planted(Property.IMPURE, "second")
def a_condition_depends_on_how_often_it_was_asked(mended: bool) -> Built:
    def when(event: Begun) -> bool:
        return event.quantity > 5 if mended else next(_numbers) % 2 == 0

    return two_steps(when=when)


@planted(Property.WRONG_VALUE, "second")
def a_condition_returns_no_truth_value(mended: bool) -> Built:
    def when(event: Begun) -> bool:
        found: Any = event.lines
        return bool(found) if mended else found

    return two_steps(when=when)


@planted(Property.WRONG_VALUE, "second")
def a_builder_forgets_to_return_its_command(mended: bool) -> Built:
    def build(event: Begun) -> object:
        command = Ask(event.order_id)
        return command if mended else None

    return two_steps(command=build)


@planted(Property.WRONG_VALUE, "items")
def a_list_is_a_generator(mended: bool) -> Built:
    def over(event: Begun) -> Any:
        found: Iterator[str] = (line for line in event.lines)
        return tuple(found) if mended else found

    saga = begin()
    saga.each(shop, ask_item, key="items", over=over, limit=5, succeeds=Well, undo=NO_EFFECT, within=seconds(10))
    return saga


def _two_lines(kind: type) -> Sequence[object]:
    return (Begun("1", 1, ["a", "b"]),) if kind is Begun else ()


@planted(Property.LIST_TOO_LONG, "items", Samples(examples=_two_lines))
def an_example_has_more_items_than_the_limit(mended: bool) -> Built:
    saga = begin()
    saga.each(
        shop,
        ask_item,
        key="items",
        over=lines_of,
        limit=2 if mended else 1,
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
def a_sub_saga_is_started_with_something_else(mended: bool) -> Built:
    start: Any = start_child if mended else ask
    saga = begin()
    saga.subsaga(child(), start, within=hours(2))
    return saga


@planted(Property.BUILDER_RAISES, "inner")
def a_mistake_inside_a_sub_saga(mended: bool) -> Built:
    def build(event: ChildBegun) -> Ask:
        return Ask(event.order_id if mended else event.order_id[99])

    saga = begin()
    saga.subsaga(child(build=build), start_child, within=hours(2))
    return saga


def _only_asks(_: str, command: object) -> str:
    return "" if isinstance(command, Ask) else f"{type(command).__name__} is not in its topic"


@planted(Property.WRONG_VALUE, "second", Samples(complaint=_only_asks))
def a_command_that_its_participant_does_not_take(mended: bool) -> Built:
    def build(event: Begun) -> object:
        return Ask(event.order_id) if mended else Badly("no command")

    return two_steps(command=build)


# --- time -------------------------------------------------------------------------------------------------------------


@planted(Property.COMPLETES, "")
def delays_last_longer_than_the_saga_may(mended: bool) -> Built:
    saga = begin(deadline=days(4 if mended else 3))
    first = saga.delay("first", lasts=hours(40))
    second = saga.delay("second", lasts=hours(40), after=first)
    undoable(saga, "third", after=second)
    return saga


@planted(Property.COMPLETES, "child")
def a_sub_saga_cannot_answer_in_time(mended: bool) -> Built:
    saga = begin()
    undo_for = minutes(1)
    saga.subsaga(child(rest=minutes(30), undo_for=undo_for), start_child, within=minutes(60 if mended else 20))
    return saga


@planted(Property.FITS_IN_TIME, "answer")
def the_deadline_comes_before_the_time_of_a_wait_is_over(mended: bool) -> Built:
    saga = begin(deadline=days(3))
    first = saga.delay("first", lasts=days(2))
    answer = saga.wait("answer", after=first, succeeds=Approved, within=hours(20 if mended else 40), on_timeout=PROCEED)
    undoable(saga, "second", after=answer)
    return saga


@planted(Property.FITS_IN_TIME, "second")
def attempts_that_can_never_begin(mended: bool) -> Built:
    return two_steps(within=days(1), attempts=3 if mended else 9)


@planted(Property.FITS_IN_TIME, "second (its undo)")
def attempts_of_an_undo_that_can_never_begin(mended: bool) -> Built:
    undo = Undo(take_back, succeeds=TakenBack, within=hours(10), attempts=2 if mended else 9, retry_for=hours(20))
    return two_steps(undo=undo)


@planted(Property.FITS_IN_TIME, "child")
def the_undo_of_a_sub_saga_takes_longer_than_its_parent_waits(mended: bool) -> Built:
    saga = begin()
    saga.subsaga(child(undo_for=minutes(1) if mended else days(1)), start_child, within=hours(2))
    return saga


@planted(Property.FITS_IN_TIME, "second")
def waits_in_a_chain_last_longer_than_the_saga(mended: bool) -> Built:
    saga = begin(deadline=days(4 if mended else 2))
    first = saga.wait("first", succeeds=Approved, within=days(1), on_timeout=COMPENSATE)
    second = saga.wait("second", after=first, succeeds=Declined, within=hours(30), on_timeout=COMPENSATE)
    undoable(saga, "third", after=second)
    return saga


@planted(Property.FITS_IN_TIME, "second")
def a_step_is_retried_for_longer_than_the_saga_lasts(mended: bool) -> Built:
    return two_steps(retry_for=days(3 if mended else 9))


@planted(Property.DEADLOCK, "paid")
def two_sagas_wait_for_each_other(mended: bool) -> Built:
    buy, sell = begin("buy"), begin("sell")
    paid = buy.wait("paid", succeeds=Approved, within=hours(1), on_timeout=COMPENSATE)
    undoable(buy, "ship", after=paid, succeeds=AlsoWell)
    shipped = sell.wait("shipped", succeeds=AlsoWell, within=hours(1), on_timeout=COMPENSATE)
    undoable(sell, "pay", succeeds=Approved, **({} if mended else {"after": shipped}))
    return [buy, sell]


@planted(Property.SAME_COMMAND, "second")
def a_step_is_undone_by_its_own_command(mended: bool) -> Built:
    return two_steps(undo=Undo(take_back if mended else ask, succeeds=TakenBack))


@planted(Property.AMBIGUOUS, "second")
def a_saga_starts_itself_by_the_answer_to_its_step(mended: bool) -> Built:
    return two_steps(succeeds=Well if mended else Begun)


def _many_numbers(kind: type) -> Sequence[object]:
    return [Begun("1", number, ["a"]) for number in range(8)] if kind is Begun else ()


@planted(Property.CONSTANT, "second", Samples(examples=_many_numbers))
def a_condition_comes_out_alike_on_everything(mended: bool) -> Built:
    return two_steps(when=is_large if mended else lambda event: event.quantity >= 0)


# --- what is there in vain --------------------------------------------------------------------------------------------


@planted(Property.UNREACHABLE, "start")
def the_undo_of_the_start_can_never_be_owed(mended: bool) -> Built:
    undo = None if mended else UndoStart(take_back_start, by=shop, succeeds=TakenBack, within=seconds(10))
    # A start that is refused is undone, too; here none is.
    saga = begin(undo=undo, second_start=SecondStart.INDEPENDENT)
    saga.retriable(shop, ask, key="ship", succeeds=Well, within=seconds(10))
    return saga


@planted(Property.ENDS, "confirm")
def a_list_that_was_accepted_is_too_long_past_the_pivot(mended: bool) -> Built:
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
        limit=5 if mended else 1,
        succeeds=Well,
        after=pivot,
        within=seconds(10),
    )
    return saga


# --- locks ------------------------------------------------------------------------------------------------------------


@planted(Property.UNDECLARED_LOCK, "first")
def a_saga_touches_what_another_one_holds(mended: bool) -> Built:
    one, two = begin("one"), begin("two")
    undoable(one, "first", **({"holds": "stock"} if mended else {"touches": "stock"}))
    undoable(two, "first", holds="stock")
    return [one, two]


@planted(Property.LOCK_ORDER, "second")
def two_sagas_take_locks_in_opposite_order(mended: bool) -> Built:
    one, two = begin("one"), begin("two")
    undoable(one, "second", after=undoable(one, "first", holds="stock"), holds="order")
    first, second = ("stock", "order") if mended else ("order", "stock")
    undoable(two, "second", after=undoable(two, "first", holds=first), holds=second)
    return [one, two]


@planted(Property.LOCK_ORDER, "first")
def two_branches_take_the_same_lock(mended: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first", holds="stock")
    undoable(saga, "second", holds="stock", **({"after": first} if mended else {}))
    return saga


@planted(Property.LOCK_KEPT, "second")
def a_lock_is_never_given_back(mended: bool) -> Built:
    undo: Any = Undo(take_back, succeeds=TakenBack) if mended else NO_EFFECT
    return two_steps(holds="stock", undo=undo)


# --- messages that are two things -------------------------------------------------------------------------------------


@planted(Property.AMBIGUOUS, "answer")
def the_start_event_is_also_a_signal(mended: bool) -> Built:
    saga = begin()
    signal: type = Approved if mended else Begun
    saga.wait("answer", succeeds=signal, within=hours(1), on_timeout=COMPENSATE)
    return saga


@planted(Property.AMBIGUOUS, "answer")
def a_signal_is_also_a_reply(mended: bool) -> Built:
    saga = begin()
    first = undoable(saga, "first")
    signal: type = Approved if mended else Well
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
def a_step_past_the_pivot_may_fail(mended: bool) -> Built:
    outcomes: dict[type, bool] = {Well: True} if mended else {Well: True, Badly: False}
    return changed(pivoted(), "ship", lambda step: replace(step, outcomes=outcomes))


@planted(Property.PIVOT, "")
def a_wait_past_the_pivot_compensates(mended: bool) -> Built:
    on_timeout = OnTimeout.PROCEED if mended else OnTimeout.COMPENSATE
    return changed(pivoted(), "answer", lambda step: replace(step, on_timeout=on_timeout))


@planted(Property.PIVOT, "")
def an_answer_past_the_pivot_means_failure(mended: bool) -> Built:
    outcomes: dict[type, bool] = {Approved: True} if mended else {Approved: True, Declined: False}
    return changed(pivoted(), "answer", lambda step: replace(step, outcomes=outcomes))


@planted(Property.ONE_INBOX, "second")
def an_undo_goes_to_another_inbox(mended: bool) -> Built:
    def change(step: StepDefinition) -> StepDefinition:
        assert step.undo is not None
        return step if mended else replace(step, undo=replace(step.undo, participant="another"))

    return changed(two_steps(), "second", change)


@planted(Property.UNREACHABLE, "confirm")
def the_pivot_has_an_undo(mended: bool) -> Built:
    undo = two_steps().definition.step("first").undo
    return changed(pivoted(), "confirm", lambda step: step if mended else replace(step, undo=undo))


@planted(Property.COMPLETES, "")
def a_step_can_only_fail(mended: bool) -> Built:
    outcomes: dict[type, bool] = {Well: True, Badly: False} if mended else {Badly: False}
    return changed(two_steps(), "second", lambda step: replace(step, outcomes=outcomes))


@planted(Property.ENDS, "first")
def an_undo_can_only_be_refused(mended: bool) -> Built:
    def change(step: StepDefinition) -> StepDefinition:
        assert step.undo is not None
        outcomes: dict[type, bool] = {TakenBack: True, NotTakenBack: False} if mended else {NotTakenBack: False}
        return replace(step, undo=replace(step.undo, outcomes=outcomes))

    return changed(two_steps(), "first", change)


@planted(Property.ENDS, "second")
def an_undo_has_no_reply(mended: bool) -> Built:
    def change(step: StepDefinition) -> StepDefinition:
        assert step.undo is not None
        return replace(step, undo=replace(step.undo, outcomes={TakenBack: True} if mended else {}))

    return changed(two_steps(), "second", change)
