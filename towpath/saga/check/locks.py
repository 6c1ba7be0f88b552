"""Semantic locks: a saga is not isolated, so a step says which resource it holds until the saga ends.

A saga that only touches what another saga uses may read what is then undone ("dirty read"), or write over it. The
countermeasure is as old as sagas (Garcia-Molina and Salem, 1987; "semantic lock" in Richardson's Microservices
Patterns, chapter 4); whether it was taken can be seen from the definitions of all sagas together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from towpath.saga.check.properties import Breach, Property
from towpath.saga.definition import Definition, Kind


@dataclass(frozen=True, slots=True)
class _Use:
    """A step uses a resource."""

    definition: Definition
    position: int
    resource: str
    holds: bool

    @property
    def key(self) -> str:
        return self.definition.steps[self.position].key

    def follows(self, other: "_Use") -> bool:
        return bool(self.definition.ancestors[self.position] >> other.position & 1)


def judge_locks(definitions: Sequence[Definition]) -> Iterator[tuple[Definition, Breach]]:
    """Yield what is wrong with the locks of sagas that run side by side, each with the saga that must be fixed."""
    uses = [use for definition in definitions for use in _uses(definition)]
    yield from _undeclared(uses)
    yield from _kept(uses)
    for definition in definitions:
        yield from _side_by_side([use for use in uses if use.definition is definition and use.holds])
    yield from _crossing(uses)


def _uses(definition: Definition) -> Iterator[_Use]:
    for position, step in enumerate(definition.steps):
        for resource in step.holds:
            yield _Use(definition, position, resource, True)
        for resource in step.touches:
            if resource not in step.holds:
                yield _Use(definition, position, resource, False)


def _undeclared(uses: Sequence[_Use]) -> Iterator[tuple[Definition, Breach]]:
    for use in uses:
        if use.holds or any(
            other.holds and other.resource == use.resource and other.definition is use.definition and use.follows(other)
            for other in uses
        ):
            continue
        others = sorted(
            {
                other.definition.name
                for other in uses
                if other.resource == use.resource and other.definition.name != use.definition.name
            }
        )
        if others:
            words = f"touches {use.resource} without holding it, and so does or holds it saga {', '.join(others)}"
            yield use.definition, Breach(Property.UNDECLARED_LOCK, use.key, words)


def _kept(uses: Sequence[_Use]) -> Iterator[tuple[Definition, Breach]]:
    for use in uses:
        step = use.definition.steps[use.position]
        if use.holds and step.kind is Kind.COMPENSATABLE and step.undo is None:
            words = f"holds {use.resource} and has no undo that would give it back"
            yield use.definition, Breach(Property.LOCK_KEPT, use.key, words)


def _side_by_side(uses: Sequence[_Use]) -> Iterator[tuple[Definition, Breach]]:
    for number, use in enumerate(uses):
        for other in uses[number + 1 :]:
            beside = not use.follows(other) and not other.follows(use) and use.position != other.position
            if beside and use.resource == other.resource:
                words = f"holds {use.resource}, and so does {other.key}, which may run beside it"
                yield use.definition, Breach(Property.LOCK_ORDER, use.key, words)


def _crossing(uses: Sequence[_Use]) -> Iterator[tuple[Definition, Breach]]:
    """Two sagas that take the same two resources in opposite order may wait for each other for ever."""
    orders = {
        (second.definition.name, first.resource, second.resource): second
        for first in uses
        for second in uses
        if first.holds and second.holds and first.definition is second.definition and second.follows(first)
    }
    for (name, first, second), use in orders.items():
        for other, held, taken in orders:
            if name < other and first != second and (held, taken) == (second, first):
                words = f"takes {second} while {first} is held, and saga {other} takes them the other way round"
                yield use.definition, Breach(Property.LOCK_ORDER, use.key, words)
