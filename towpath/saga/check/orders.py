"""In which order steps that run side by side are let go on: few orders, in which every two steps are seen either way.

What happens to one step changes nothing of another that runs beside it, until the two are joined or the saga turns
round. So the walk lets one step go on at a time while the others wait (a persistent set, as in Godefroid's thesis of
1996); which one, an order says. In the first order it is the step that stands first. For each step that is then never
ahead of one beside it there is an order in which all that it requires, and it itself, go first. With k branches side by
side there are k orders, and the walk grows by the number of branches and not by its exponential.
"""

from collections.abc import Sequence
from typing import TypeAlias

from towpath.saga.definition import Definition

Order: TypeAlias = tuple[int, ...]  # by position of the step: its rank, the smallest goes first


def orders_of(definition: Definition) -> list[Order]:
    """Return the orders; the first is that of the definition."""
    count = len(definition.steps)
    orders = [tuple(range(count))]
    orders += [_led_by(definition, target) for target in _targets(definition)]
    return orders


def _led_by(definition: Definition, target: int) -> Order:
    """Return the order in which `target`, and all that it requires, go first."""
    first = definition.ancestors[target] | 1 << target
    return tuple(
        position + (0 if first >> position & 1 else len(definition.steps)) for position in _positions(definition)
    )


def _targets(definition: Definition) -> Sequence[int]:
    """Return the steps that lead an order, so that each step is ahead of each one beside it in some order."""
    targets: list[int] = []
    for position in reversed(_positions(definition)):
        beside = [other for other in range(1, position) if not definition.ancestors[position] >> other & 1]
        if any(not _ahead(definition, targets, position, other) for other in beside):
            targets.append(position)
    return targets


def _ahead(definition: Definition, targets: Sequence[int], position: int, other: int) -> bool:
    """Say whether `position` is ahead of `other`, which stands before it, in an order that is there already."""
    return any(
        (definition.ancestors[target] | 1 << target) >> position & 1
        and not (definition.ancestors[target] | 1 << target) >> other & 1
        for target in targets
    )


def _positions(definition: Definition) -> range:
    return range(len(definition.steps))
