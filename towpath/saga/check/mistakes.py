"""Mistakes that definitions show by themselves, without a walk: most were meant otherwise, and no rule forbids them."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from towpath.saga.check.properties import Breach, Property
from towpath.saga.check.timing import words_for
from towpath.saga.definition import Activity, Definition

Place: TypeAlias = tuple[int, int]  # which definition, which step


def judge_mistakes(definition: Definition) -> Iterator[Breach]:
    """Yield what one definition shows."""
    yield from _waits_in_a_chain(definition)
    deadline = definition.deadline_milliseconds
    for step in definition.steps:
        if step.policy is not None and step.policy.retry_for_milliseconds > deadline:
            retried = words_for(step.policy.retry_for_milliseconds)
            words = f"is retried for {retried}, and the saga's deadline of {words_for(deadline)} stops it before that"
            yield Breach(Property.FITS_IN_TIME, step.key, words)
        if step.undo is not None and step.undo.build is not None and step.undo.build is step.build:
            words = "is undone by its own command: that would do it a second time"
            yield Breach(Property.SAME_COMMAND, step.key, words)
        for kind in step.outcomes:
            if step.activity not in (Activity.WAIT, Activity.NEXT) and kind in definition.starts:
                words = f"is answered by {kind.__name__}, which also starts the saga: each instance would start another"
                yield Breach(Property.AMBIGUOUS, step.key, words)


def _waits_in_a_chain(definition: Definition) -> Iterator[Breach]:
    """Yield waits that cannot last as long as they say, since waits before them may have taken the time."""
    deadline = definition.deadline_milliseconds
    ends: list[int] = []
    for step in definition.steps:
        begins = max((ends[required] for required in step.requires), default=0)
        ends.append(begins + step.wait_milliseconds)
        if step.activity is Activity.WAIT and begins and step.wait_milliseconds < deadline < ends[-1]:
            words = (
                f"waits {words_for(step.wait_milliseconds)} after up to {words_for(begins)} of waiting before it, and "
                f"the saga's deadline of {words_for(deadline)} comes first: raise the deadline, or wait shorter"
            )
            yield Breach(Property.FITS_IN_TIME, step.key, words)


def judge_each_other(definitions: Sequence[Definition]) -> Iterator[tuple[Definition, Breach]]:
    """Yield waits of sagas that wait for each other: each for an event that comes only after the other's wait."""
    behind = {place: _waits_before(definitions, place) for place in _waits(definitions)}
    for first, others in behind.items():
        for second in others:
            if first[0] < second[0] and first in behind.get(second, ()):
                one, other = definitions[first[0]], definitions[second[0]]
                last = other.steps[second[1]].key
                words = (
                    f"waits for what saga {other.name} sends only after {last}, which waits for what this saga sends "
                    "only after this wait: neither ever comes"
                )
                yield one, Breach(Property.DEADLOCK, one.steps[first[1]].key, words)


def _waits(definitions: Sequence[Definition]) -> Iterator[Place]:
    for number, definition in enumerate(definitions):
        for position, step in enumerate(definition.steps):
            if step.activity is Activity.WAIT:
                yield number, position


def _waits_before(definitions: Sequence[Definition], place: Place) -> set[Place]:
    """Return the waits that come before whatever sends a signal of this wait; none where others may send it, too."""
    number, position = place
    found: list[set[Place]] = []
    for kind, succeeds in definitions[number].steps[position].outcomes.items():
        if not succeeds:
            continue
        senders = [
            (other, sender)
            for other, definition in enumerate(definitions)
            for sender, step in enumerate(definition.steps)
            if step.activity is not Activity.WAIT and kind in step.outcomes and other != number
        ]
        if not senders:
            return set()
        found += [_waits_above(definitions[other], other, sender) for other, sender in senders]
    return set.intersection(*found) if found else set()


def _waits_above(definition: Definition, number: int, sender: int) -> set[Place]:
    above = definition.ancestors[sender]
    return {
        (number, place)
        for place, step in enumerate(definition.steps)
        if above >> place & 1 and step.activity is Activity.WAIT
    }
