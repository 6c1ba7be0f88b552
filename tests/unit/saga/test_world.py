"""The simulated world finds what is broken: each of its promises, broken on purpose in the machine, is seen."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.saga.support import OPENED, SHAPES, chain, diamond
from towpath.saga import advance, minutes
from towpath.saga.advance import Decision
from towpath.saga.effects import CancelTimer, Happened, Record, SendCommand, SetTimer
from towpath.saga.state import Direction, Status, StepStatus
from towpath.saga.testing import World, world
from towpath.saga.testing.adversary import Walk, survive

Break = Callable[[Decision], Decision]


def without(kind: type) -> Break:
    """Leave out every effect of that kind."""

    def change(decision: Decision) -> Decision:
        return replace(decision, effects=tuple(effect for effect in decision.effects if not isinstance(effect, kind)))

    return change


def state_with(**values: Any) -> Break:
    """Change the state after each decision."""

    def change(decision: Decision) -> Decision:
        return decision if decision.state is None else replace(decision, state=replace(decision.state, **values))

    return change


def refused_all(decision: Decision) -> Decision:
    """Call everything refused, and change the state all the same."""
    entry, *rest = decision.effects
    assert isinstance(entry, Record)
    return replace(decision, effects=(replace(entry, happened=Happened.REFUSED), *rest))


def twice(decision: Decision) -> Decision:
    """Write the history twice."""
    return replace(decision, effects=(decision.effects[0], *decision.effects))


def undo_first(decision: Decision) -> Decision:
    """Undo the first step together with the start, whatever comes after it."""
    found = [effect for effect in decision.effects if isinstance(effect, SendCommand)]
    if not found or found[0].direction is Direction.DO:
        return decision
    early = replace(found[0], step="start")
    return replace(decision, effects=(decision.effects[0], early, *decision.effects[1:]))


def ended_early(decision: Decision) -> Decision:
    """Say that all is undone at the first undo."""
    state = decision.state
    if state is None or state.direction is Direction.DO:
        return decision
    quiet = tuple(replace(step, due_milliseconds=0) for step in state.steps)
    cancels = [
        CancelTimer(state.saga_id, effect.timer)
        for effect in decision.effects
        if isinstance(effect, SetTimer) and effect.timer.kind.value == "attempt"
    ]
    return Decision(replace(state, status=Status.COMPENSATED, steps=quiet), (*decision.effects, *cancels))


BREAKS: dict[str, tuple[Break, str]] = {
    "no history": (without(Record), "begins with its entry"),
    "history twice": (twice, "one entry for the history"),
    "a refusal that changes": (refused_all, "a refusal changes nothing"),
    "a timer not cancelled": (without(CancelTimer), "timers are those of the state"),
    "a timer not set": (without(SetTimer), "timers are those of the state"),
    "a deadline forgotten": (state_with(deadline_milliseconds=0), "timers are those of the state"),
    "undone in the wrong order": (undo_first, "is undone before"),
    "compensated too early": (ended_early, "still done"),
}


@pytest.mark.parametrize(("change", "words"), BREAKS.values(), ids=BREAKS.keys())
def test_a_broken_machine_is_found(change: Break, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that breaks this promise does not survive the walk that a sound one survives."""
    walk = Walk((0, 0, 0, 1, 1, 1, 2, 1, 1, 0, 0, 1))
    survive(diamond(), walk)

    def broken(*given: Any) -> Decision:
        return change(advance(*given))

    monkeypatch.setattr(world, "advance", broken)
    with pytest.raises(AssertionError, match=words):
        survive(diamond(), walk)


def test_a_walk_that_fails_names_its_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note on the error tells what happened, move by move."""
    monkeypatch.setattr(world, "advance", lambda *given: without(CancelTimer)(advance(*given)))
    with pytest.raises(AssertionError) as raised:
        survive(chain(), Walk((0, 1)))
    assert raised.value.__notes__[0].startswith("moves: first answers")


def test_a_participant_keeps_its_contract() -> None:
    """One outcome for all attempts; after an undo, a late command does nothing."""
    made = World(chain().definition)
    (sent,) = made.unread
    outcome = made.definition.step("first").outcomes
    yes, no = outcome
    made.execute(sent, yes)
    made.execute(replace(sent, attempt=2), no)
    assert {type(reply.reply) for reply in made.replies} == {yes}
    assert made.done == {("first", "")}
    late = World(chain().definition)
    undo = late.definition.step("first").undo
    assert undo is not None
    late.execute(replace(sent, direction=Direction.UNDO), next(iter(undo.outcomes)))
    late.execute(sent, yes)
    assert late.done == set()
    assert len(late.replies) == 1


@pytest.mark.parametrize("name", SHAPES)
def test_the_world_offers_every_kind_of_move(name: str) -> None:
    """At the start: answers, losses, timers early and in time, repetitions, people."""
    made = World(SHAPES[name]().definition)
    names = " ".join(move.name for move in made.moves())
    for word in ("answers", "is lost", "falls due", "fires early", "asks cancel", "asks compensate", "asks resume"):
        assert word in names


def test_a_stuck_step_may_be_retried_or_skipped_with_what_is_so() -> None:
    """A person who skips tells the outcome that the participant recorded, or nothing."""
    made = World(chain(deadline=minutes(1)).definition, event=OPENED)
    for _ in range(40):
        assert made.state is not None
        if made.state.status is Status.STUCK:
            break
        usual = [move for move in made.moves() if "answers Yes" in move.name and "pivot" not in move.name]
        heard = [move for move in made.moves() if "is heard" in move.name]
        due = [move for move in made.moves() if "falls due" in move.name]
        (heard or usual or due)[0].happen()
    assert made.state is not None
    assert made.state.step("pivot").status is StepStatus.STUCK
    asks = [move.name for move in made.moves() if "pivot" in move.name and "asks" in move.name]
    assert asks == ["ada asks retry pivot"]
    yes = next(iter(made.definition.step("pivot").outcomes))
    made.execute(made.unread[0], yes)
    asks = [move.name for move in made.moves() if "pivot" in move.name and "asks" in move.name]
    assert asks == ["ada asks retry pivot", "ada asks skip pivot"]
