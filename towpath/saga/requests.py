"""The requests of people that an instance remembers, and what prolongs a wait or is gathered by one: each is decided
once, whatever was decided.

A person's request does not refuse its own repetition by matching, as a reply or a timer does: "retry" fits again a day
later. So the ids of the requests last decided are kept, of those that were refused too: what was refused once must not
be applied later, to something that the person never saw. One that is older than the newest id forgotten is refused
rather than guessed at.
"""

from collections.abc import Container
from dataclasses import replace
from typing import TypeGuard

from towpath.saga.definition import Definition
from towpath.saga.inputs import Hindered, Input, OperatorAsked, Signalled
from towpath.saga.state import SagaState, StepState, direction_of

Recent = tuple[tuple[str, int], ...]


def not_new(recent: Recent, forgotten_milliseconds: int, input_: OperatorAsked | Signalled) -> str | None:
    """Say why a request may not be decided, whatever it asks for."""
    if isinstance(input_, OperatorAsked) and not (input_.actor and input_.reason):
        return "a request of a person names the actor and the reason"
    if any(id_ == input_.id for id_, _ in recent):
        return "the request was already applied"
    if input_.at_milliseconds <= forgotten_milliseconds:
        return "the request is older than those whose ids are still held: ask again"
    return None


def is_request(input_: Input, counted: Container[type]) -> TypeGuard[OperatorAsked | Signalled]:
    """Say whether nothing but its own id tells an input from its repetition; `counted` are signals of that kind."""
    return isinstance(input_, OperatorAsked) or (isinstance(input_, Signalled) and type(input_.signal) in counted)


def outdated(input_: OperatorAsked, cell: StepState) -> str | None:
    """Say why a request is about a step as it no longer stands; what the person saw may be left unsaid (attempt 0)."""
    seen = (input_.direction, input_.attempt, input_.round)
    stands = (direction_of(cell.status), cell.attempt, cell.round)
    if not input_.attempt or seen == stands:
        return None
    way, attempt, round_ = stands
    return f"the person saw another attempt; the step stands at {way.value}, attempt {attempt} of round {round_}"


def remembered(recent: Recent, forgotten_milliseconds: int, input_: Input, most: int) -> tuple[Recent, int]:
    """Return what is remembered once a request has been decided, `most` at most, and the newest time that is not."""
    recent = (*recent, (input_.id, input_.at_milliseconds))
    if len(recent) <= most:
        return recent, forgotten_milliseconds
    return recent[1:], max(forgotten_milliseconds, recent[0][1])


def with_refused(state: SagaState, input_: Input, definition: Definition) -> SagaState:
    """Return the state that remembers a request which was refused; one that can never be taken need not be."""
    if isinstance(input_, Hindered):
        input_ = input_.input
    if (
        not is_request(input_, definition.counted)
        or not_new(state.recent, state.forgotten_milliseconds, input_) is not None
    ):
        return state
    recent, forgotten = remembered(state.recent, state.forgotten_milliseconds, input_, definition.recent_max)
    return replace(state, recent=recent, forgotten_milliseconds=forgotten)
