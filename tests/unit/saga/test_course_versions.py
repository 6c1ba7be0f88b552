"""Branches, fallbacks, reminders and results across versions: recorded, compared, upgraded, stored, drawn."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.saga.course import (
    COURSES,
    CalledOff,
    MoreTime,
    Summary,
    choice,
    fallback,
    method_of,
    reminding,
    summary,
    two_starts,
)
from tests.unit.saga.support import OPENED, Agreed, No, Opened, Yes, chain, pivot, saga, step
from towpath.saga import COMPENSATE, Definition, Prolong, Saga, hours
from towpath.saga.check import explore
from towpath.saga.definition_snapshot import definition_of, definition_snapshot_of, differences, fingerprint_of
from towpath.saga.diagram import flow_of, to_mermaid
from towpath.saga.state import SagaState, StepStatus
from towpath.saga.state_snapshot import state_from_tree, state_to_snapshot
from towpath.saga.testing import given
from towpath.saga.upgrade import Outcome, judge

NEW_WORDS = {"tolerated", "instead_of", "options", "only_in", "until", "remind", "prolong", "also_starts_on", "cancels"}
NEW_WORDS |= {"keyed_by", "gather", "enough"}


@pytest.mark.parametrize("name", COURSES)
def test_what_is_recorded_is_read_back(name: str) -> None:
    """A definition that was read from its snapshot has that snapshot again, and the same fingerprint."""
    snapshot = definition_snapshot_of(COURSES[name]().definition)
    read = definition_of(snapshot)
    assert definition_snapshot_of(read) == snapshot
    assert fingerprint_of(read) == fingerprint_of(COURSES[name]().definition)


@pytest.mark.parametrize(
    "name",
    [
        *("choice", "fallback", "reminding", "timed", "two_starts", "with_child", "with_children"),
        *("subscription", "contest", "gathering", "gathering_in_its_time"),
    ],
)
def test_what_was_recorded_can_be_explored(name: str) -> None:
    """Without its functions: as many states as with them."""
    definition = COURSES[name]().definition
    recorded = definition_of(definition_snapshot_of(definition))
    assert len(explore(recorded).nodes) == len(explore(definition).nodes)


def test_words_that_are_not_used_stand_in_no_snapshot() -> None:
    """So that what was recorded before there were such words is equal to what is recorded now."""
    snapshot = definition_snapshot_of(chain().definition)
    assert not NEW_WORDS & set(snapshot)
    assert not any(NEW_WORDS & set(each) for each in snapshot["steps"])
    assert not any("in_order" in (each["undo"] or {}) for each in snapshot["steps"])


def test_a_changed_word_is_told() -> None:
    """By step and by name."""
    words = differences(definition_snapshot_of(reminding().definition), definition_snapshot_of(_patient(3).definition))
    assert any("times_max was 2 and is 3" in word for word in words)
    assert any(word.startswith("cancels was ['CalledOff'] and is None") for word in words)


def _patient(times: int, version: int = 1, signal: type = MoreTime) -> Saga[Opened]:
    made = Saga("reminding", version=version, starts_on=Opened, deadline=hours(96))
    first = step(made, "first")
    asked = made.wait(
        "asked",
        after=first,
        succeeds=Agreed,
        within=hours(10),
        on_timeout=COMPENSATE,
        prolonged=Prolong(signal, by=hours(5), times=times),
    )
    pivot(made, after=asked)
    return made


# --- upgrades ---------------------------------------------------------------------------------------------------------


def of_version(made: Saga[Any], version: int) -> Definition:
    """Return the same definition under another number."""
    return replace(made.definition, version=version)


def states() -> list[SagaState]:
    """Return the states of an order that was paid by invoice, one after the other."""
    talk = given(choice(), Opened(number=1)).expect_anything()
    for _ in range(3):
        talk.when(Yes()).expect_anything()
    return [decision.state for decision in talk.decisions if decision.state is not None]


def test_an_instance_goes_on_in_its_branch() -> None:
    """Under the same definition, whatever it has come to."""
    verdicts = {judge(choice().definition, of_version(choice(), 2), state).outcome for state in states()}
    assert verdicts == {Outcome.MIGRATE}


def _other_branches() -> Saga[Opened]:
    """Return `choice` with branches of other names."""
    made = saga("choice")
    first = step(made, "first")
    card, cash = made.choose("method", by=method_of, needs=first, options=("card", "cash"))
    charged = step(made, "charge", after=card)
    paid = made.merge("paid", charged, cash)
    pivot(made, needs=paid)
    return made


def test_a_branch_that_is_gone_pins_who_has_taken_it() -> None:
    """Whoever has not yet chosen may go on."""
    before, after = states()[:1], states()[1:]
    new = of_version(_other_branches(), 2)
    old = replace(choice().definition, steps=tuple(replace(each, undo=None) for each in choice().definition.steps))
    assert judge(old, new, before[0]).outcome is Outcome.MIGRATE
    verdict = judge(old, new, after[0])
    assert verdict.outcome is Outcome.PIN
    assert "method was decided between other branches" in verdict.reasons


def test_a_step_that_moved_into_a_branch_that_is_not_taken_is_pinned() -> None:
    """It has begun there, where it would never begin now."""
    definition = choice().definition
    card = definition.index["card"]
    moved = tuple(
        replace(each, only_in=(card,)) if each.key in ("draw_up", "send_invoice") else each for each in definition.steps
    )
    verdict = judge(definition, replace(definition, version=2, steps=moved), states()[1])
    assert verdict.reasons == ("draw_up has begun, and card, in which it lies now, is not taken",)


def test_a_failure_that_is_no_longer_tolerated_pins_who_met_it() -> None:
    """And who may meet it yet: its reply, on its way, means the opposite now."""
    definition = fallback().definition
    strict = tuple(
        replace(each, tolerated=(), outcomes={Yes: True, No: False}) if each.key == "gift" else each
        for each in definition.steps
    )
    new = replace(definition, version=2, steps=strict)
    talk = given(fallback(), OPENED).expect_anything().when(Yes()).expect_anything()
    asked = talk.state
    declined = talk.when(No()).expect_anything().state
    assert any("tolerated" in reason for reason in judge(definition, new, asked).reasons)
    assert "gift was declined with No, which is not tolerated any more" in judge(definition, new, declined).reasons


def test_a_result_may_be_added_to_a_running_saga() -> None:
    """Nobody has waited for it yet."""
    talk = given(chain(), OPENED).expect_anything().when(Yes()).expect_anything()
    grown = chain()
    grown.result(summary, event=Summary)
    assert judge(chain().definition, of_version(grown, 2), talk.state).outcome is Outcome.MIGRATE


def test_a_wait_is_prolonged_by_what_it_was_prolonged_by() -> None:
    """An event that is on its way would not be known."""
    old, new = _patient(2), _patient(2, version=2, signal=CalledOff)
    waiting = given(old, OPENED).expect_anything().when(Yes()).state
    assert (
        "asked awaits MoreTime, which no longer prolongs it" in judge(old.definition, new.definition, waiting).reasons
    )


def test_a_start_event_may_be_added_and_not_taken_away() -> None:
    """Instances of either go on."""
    old = replace(two_starts().definition, also_starts_on=())
    state = given(two_starts(), OPENED).expect_anything().state
    both = replace(two_starts().definition, version=2)
    assert judge(old, both, state).outcome is Outcome.MIGRATE
    one = replace(two_starts().definition, version=2, also_starts_on=())
    assert judge(two_starts().definition, one, state).outcome is Outcome.PIN


# --- stored and drawn -------------------------------------------------------------------------------------------------


def test_a_state_is_read_as_it_was_written() -> None:
    """With declined steps, branches and a result."""
    talk = given(choice(), Opened(number=1)).expect_anything()
    for _ in range(4):
        talk.when(Yes()).expect_anything()
    state = talk.state
    assert state.step("result").result == Summary("Yes")
    assert state_from_tree(choice().definition, state_to_snapshot(state)) == state
    declined = given(fallback(), OPENED).expect_anything().when(No()).expect_anything().state
    assert declined.step("by_road").status is StepStatus.DECLINED
    assert state_from_tree(fallback().definition, state_to_snapshot(declined)) == declined


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("choice", ("chooses by method_of", "if it is chosen", "joins the branches", "publishes Told")),
        ("fallback", ("instead of by_road", "goes on after: No")),
        (
            "reminding",
            ("reminds: Reminded, every 2 h, 3 times at most", "prolonged: MoreTime", "cancelled by CalledOff"),
        ),
        ("timed", ("lasts until at_the_show, 2 d at most",)),
        ("side_by_side", ("in any order",)),
        ("two_starts", ("Opened or OpenedElsewhere", "publishes Summary")),
        ("with_children", ("saga two_starts version 1, for each of up to 9", "each keyed by line", "goes on after:")),
        ("subscription", ("keyed by key_of", "starts the next by next_month, or none")),
        ("contest", ("for each of up to 4, of which 1 is enough",)),
        ("gathering", ("gathers Vote, 5 at most, into Votes", "until two_have_voted", "ended by PollClosed")),
    ],
)
def test_the_drawing_says_it(name: str, words: tuple[str, ...]) -> None:
    """In the words of the definition."""
    drawn = to_mermaid(flow_of(COURSES[name]().definition))
    assert [word for word in words if word not in drawn] == []
