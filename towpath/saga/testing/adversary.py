"""Hypothesis against any definition: random walks through a world that does its worst (world.py).

    test_place_order_survives = survival_test(place_order.saga)

or, where a test has more to ask:

    @settings(deadline=None)
    @given(walks())
    def test_place_order_survives_any_world(walk: Walk) -> None:
        survive(place_order.saga, walk)

A walk that breaks a promise is shrunk by Hypothesis to a short one, and printed move by move.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings, strategies

from towpath.saga.definition import Definition
from towpath.saga.inputs import Action, OperatorAsked
from towpath.saga.language import Saga
from towpath.saga.state import Status
from towpath.saga.testing.samples import sample
from towpath.saga.testing.world import Sampler, World

# Resuming cures what is stuck, once the world is kind: one resume for each way to be stuck, with room to spare.
RESUMES_MAX = 8


@dataclass(frozen=True, slots=True)
class Walk:
    """Which of the possible moves is made, again and again; the numbers count round the moves that there are."""

    choices: tuple[int, ...]


def walks(moves_max: int = 60) -> strategies.SearchStrategy[Walk]:
    """Return a strategy for walks of at most `moves_max` moves."""
    return strategies.lists(strategies.integers(0, 1_000), max_size=moves_max).map(lambda made: Walk(tuple(made)))


def survival_test(
    saga: Saga[Any] | Definition, *, sampler: Sampler = sample, walks_max: int = 100, moves_max: int = 60
) -> Callable[[], None]:
    """Return a test for pytest: the saga survives `walks_max` random walks of at most `moves_max` moves each.

    A walk has no time limit of its own: Hypothesis gives an example 200 ms by default, which on a busy machine says
    nothing about the saga. What fails is printed with the line that runs it again (`@reproduce_failure`).
    """

    @settings(max_examples=walks_max, deadline=None, print_blob=True)
    @given(walk=walks(moves_max))
    def test(walk: Walk) -> None:
        survive(saga, walk, sampler)

    test.__doc__ = "Whatever the world does, the saga keeps its promises and ends."
    return test


def survive(saga: Saga[Any] | Definition | World, walk: Walk, sampler: Sampler = sample) -> World:
    """Take a saga (or a world that has one under way) through a walk, then let the world be kind, and see that it ends.

    The world asserts its promises at every decision. At last it answers everything; then the saga must end without a
    person, or be stuck and end after a person resumed it. Returns the world, for further questions.
    """
    world = saga if isinstance(saga, World) else World(saga.definition if isinstance(saga, Saga) else saga, sampler)
    try:
        _walk(world, walk.choices)
        status = world.settle()
        for _ in range(RESUMES_MAX):
            if status is not Status.STUCK:
                break
            world.give(OperatorAsked(f"resume-{len(world.log)}", world.now, Action.RESUME, "ada", "the world is kind"))
            status = world.settle()
        assert status is not Status.STUCK, "stuck for ever, though everything is answered"
        assert len(world.finished) == 1, f"finished {len(world.finished)} times"
    except AssertionError as error:
        error.add_note("moves: " + "; ".join(world.made))
        raise
    return world


def _walk(world: World, choices: Sequence[int]) -> None:
    for choice in choices:
        moves = world.moves()
        if not moves:
            return
        move = moves[choice % len(moves)]
        world.made.append(move.name)
        move.happen()
