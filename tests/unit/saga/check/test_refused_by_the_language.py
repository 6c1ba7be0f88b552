"""Mistakes that never come to a check: the language refuses them while their module is imported.

The other half of the split is in planted.py; `saga check` tells these as violations of the property `definition`.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.saga.check.planted import begin, confirm, ship, undoable
from tests.unit.saga.check.words import Approved, Ask, Badly, Begun, TakenBack, Well, ask, ask_again, shop, take_back
from towpath.saga import COMPENSATE, DefinitionError, Saga, Undo, days, seconds


def two_pivots(saga: Saga[Begun]) -> None:
    """There is one point of no return."""
    pivot = confirm(saga, undoable(saga, "first"))
    saga.pivot(shop, ask, key="again", after=pivot, succeeds=Well, within=seconds(10))


def a_step_beside_the_pivot(saga: Saga[Begun]) -> None:
    """What runs beside the pivot could neither be undone nor be sure to succeed."""
    first = undoable(saga, "first")
    undoable(saga, "second")
    confirm(saga, first)


def a_step_that_can_be_undone_past_the_pivot(saga: Saga[Begun]) -> None:
    """Past the pivot nothing is undone."""
    undoable(saga, "second", after=confirm(saga, undoable(saga, "first")))


def a_retriable_step_beside_the_pivot(saga: Saga[Begun]) -> None:
    """What must succeed waits until it is sure that it must."""
    first = undoable(saga, "first")
    confirm(saga, first)
    ship(saga, first)


def a_retriable_step_without_a_pivot(saga: Saga[Begun]) -> None:
    """What must succeed follows a point of no return."""
    ship(saga, undoable(saga, "first"))


def a_wait_past_the_pivot_that_compensates(saga: Saga[Begun]) -> None:
    """Past the pivot no time-out can undo anything."""
    pivot = confirm(saga, undoable(saga, "first"))
    saga.wait("answer", after=pivot, succeeds=Approved, within=days(1), on_timeout=COMPENSATE)


def no_word_about_the_undo(saga: Saga[Begun]) -> None:
    """Every step says how it is undone, or that it changes nothing."""
    step: Any = saga.step
    step(shop, ask, succeeds=Well, within=seconds(10))


def an_undo_that_needs_what_comes_later(saga: Saga[Begun]) -> None:
    """What an undo needs is there whenever it is owed."""

    def undo(event: Begun, result: Well) -> Ask:
        return Ask(f"{event.order_id} {result.number}")

    later = undoable(saga, "later")
    undoable(saga, "first", undo=Undo(undo, needs=later, succeeds=TakenBack))


def a_builder_with_the_wrong_parameters(saga: Saga[Begun]) -> None:
    """A builder takes the start event and what its step needs."""
    first = undoable(saga, "first")
    undoable(saga, "second", ask, needs=first)


def a_reply_that_is_success_and_failure(saga: Saga[Begun]) -> None:
    """Each reply means one thing."""
    undoable(saga, "first", succeeds=Well, fails=(Well, Badly))


def two_waits_for_one_signal(saga: Saga[Begun]) -> None:
    """A signal finds its wait by its class."""
    first = saga.wait("first", succeeds=Approved, within=days(1), on_timeout=COMPENSATE)
    saga.wait("second", after=first, succeeds=Approved, within=days(1), on_timeout=COMPENSATE)


def no_attempt_at_all(saga: Saga[Begun]) -> None:
    """A step is tried at least once."""
    undoable(saga, "first", attempts=0)


def an_attempt_longer_than_the_saga(saga: Saga[Begun]) -> None:
    """One attempt fits in the saga's deadline."""
    undoable(saga, "first", within=days(9))


def a_wait_longer_than_the_saga(saga: Saga[Begun]) -> None:
    """A wait fits in the saga's deadline."""
    saga.wait("answer", succeeds=Approved, within=days(9), on_timeout=COMPENSATE)


def a_list_without_a_limit(saga: Saga[Begun]) -> None:
    """Everything has a limit."""
    each: Any = saga.each
    each(shop, lambda event, item: ask(event), key="items", over=lambda event: (), limit=0, succeeds=Well,
         undo=Undo(take_back, succeeds=TakenBack), within=seconds(10))  # fmt: skip


def a_key_twice(saga: Saga[Begun]) -> None:
    """A key names one step."""
    undoable(saga, "first")
    undoable(saga, "first", ask_again)


def a_handle_of_another_saga(saga: Saga[Begun]) -> None:
    """A saga is made of its own steps."""
    other = undoable(begin("other"), "first")
    undoable(saga, "second", after=other)


def no_deadline(_: Saga[Begun]) -> None:
    """Every saga ends."""
    begin("timeless", deadline=timedelta(0))


def no_steps(_: Saga[Begun]) -> None:
    """A saga does something."""
    assert begin("empty").definition


MISTAKES: tuple[Callable[[Saga[Begun]], None], ...] = (
    two_pivots,
    a_step_beside_the_pivot,
    a_step_that_can_be_undone_past_the_pivot,
    a_retriable_step_beside_the_pivot,
    a_retriable_step_without_a_pivot,
    a_wait_past_the_pivot_that_compensates,
    no_word_about_the_undo,
    an_undo_that_needs_what_comes_later,
    a_builder_with_the_wrong_parameters,
    a_reply_that_is_success_and_failure,
    two_waits_for_one_signal,
    no_attempt_at_all,
    an_attempt_longer_than_the_saga,
    a_wait_longer_than_the_saga,
    a_list_without_a_limit,
    a_key_twice,
    a_handle_of_another_saga,
    no_deadline,
    no_steps,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_language_refuses_the_mistake(mistake: Callable[[Saga[Begun]], None]) -> None:
    """The definition raises where the mistake is made, and says how to fix it."""
    with pytest.raises(DefinitionError) as raised:
        mistake(begin())
    assert raised.value.next_step
