"""What may be promised, and what comes back. Pure: shelves in, shelves or a shortage out.

The one rule: an order gets all that it asks for, or nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol


class Line(Protocol):
    """Some pieces of an article."""

    @property
    def sku(self) -> str:
        """Return the article."""
        ...

    @property
    def quantity(self) -> int:
        """Return the pieces."""
        ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """The stock of one article: pieces in the shelf, and how many of them are promised."""

    sku: str
    on_hand: int
    reserved: int

    @property
    def available(self) -> int:
        """Return the pieces that may still be promised."""
        return self.on_hand - self.reserved


@dataclass(frozen=True, slots=True)
class Shortage:
    """The first article, in the order of the lines, of which there is not enough."""

    sku: str
    requested: int
    available: int


def pieces(lines: Iterable[Line]) -> dict[str, int]:
    """Return the pieces by article; an article may stand in several lines."""
    total: dict[str, int] = {}
    for line in lines:
        total[line.sku] = total.get(line.sku, 0) + line.quantity
    return total


def reserve(shelves: Mapping[str, Shelf], wanted: Mapping[str, int]) -> dict[str, Shelf] | Shortage:
    """Return the shelves that change when `wanted` is promised, or the shortage that forbids it."""
    for sku, quantity in wanted.items():
        available = shelves[sku].available if sku in shelves else 0
        if quantity > available:
            return Shortage(sku, quantity, available)
    return {sku: replace(shelves[sku], reserved=shelves[sku].reserved + n) for sku, n in wanted.items()}


def give_back(shelves: Mapping[str, Shelf], returned: Mapping[str, int]) -> dict[str, Shelf]:
    """Return the shelves that change when promised pieces become available again."""
    return {sku: replace(shelves[sku], reserved=shelves[sku].reserved - n) for sku, n in returned.items()}


def restockable(promised: Mapping[str, int], lines: Iterable[Line]) -> dict[str, int]:
    """Return what of `lines` can come back: never more than is still promised to the order."""
    found = {sku: min(n, promised.get(sku, 0)) for sku, n in pieces(lines).items()}
    return {sku: n for sku, n in found.items() if n > 0}
