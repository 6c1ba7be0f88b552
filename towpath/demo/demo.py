"""What a project implements to have `towpath demo`: traffic from outside, and the invariants of its own business.

The one rule: whatever judges reads databases and topics anew; nothing that the demo remembers counts as evidence.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol, runtime_checkable

from towpath.contract.codec import Codec
from towpath.orchestrator.sagas_view import SagaInstance
from towpath.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one business key ended, as the service that owns it says. `reason` is for people."""

    status: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant of the business: `name` as in the JSON output, `detail` with the figures that were compared."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a demo. `run_id` keeps its keys apart from those of earlier runs; `chance` is seeded; `orders` is how
    many will be placed.
    """

    settings: Settings
    codec: Codec
    run_id: str
    orders: int
    chance: Random


@runtime_checkable
class Demo(Protocol):
    """A project's demo. Its methods are called from one thread, but for `decide`, which has one of its own."""

    saga: str
    """Name of the saga that each placed key starts."""

    def prepare(self, run: Run) -> None:
        """Bring in what traffic needs (customers, products), through the services' own doors."""
        ...

    def place(self, run: Run, count: int) -> Collection[str]:
        """Commit `count` more start events, each in its service's own transaction; return their business keys."""
        ...

    def decide(self, run: Run, waiting: Collection[SagaInstance]) -> None:
        """Be the people whom these instances wait for, each once."""
        ...

    def placed_keys(self, settings: Settings) -> set[str]:
        """Return every business key that its service ever accepted, read from its database."""
        ...

    def outcomes(self, settings: Settings) -> Mapping[str, Outcome]:
        """Return how each business key stands, read from the database of the service that owns it."""
        ...

    def checks(self, settings: Settings) -> list[Check]:
        """Return the invariants of the business, computed from all databases."""
        ...

    def executed_twice(self, settings: Settings) -> int:
        """Return how many commands had a second effect, counted in the ledgers of the services."""
        ...
