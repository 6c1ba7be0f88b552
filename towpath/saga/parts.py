"""What the sentences of a saga were given, before it is judged (rules.py) and compiled (definition.py).

Rule of this file: data only, as it was said.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from towpath.saga.definition import Activity, Definition, GatherDefinition, Kind, OnTimeout, Participant
from towpath.saga.spelling import spelt

if TYPE_CHECKING:
    from towpath.saga.rules import Draft


@spelt
@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause after failed attempt n lies between 0 and min(most, first * factor ** (n - 1)), evenly spread."""

    first: timedelta = timedelta(seconds=1)
    most: timedelta = timedelta(minutes=5)
    factor: int = 2


@spelt
@dataclass(frozen=True, slots=True)
class UndoSubsaga:
    """How long a sub-saga may take to undo itself; `in_order=False`: it waits for no other undo, and none for it."""

    within: timedelta
    in_order: bool = True


class Handles(Protocol):
    """What a rule sees of joined handles: the draft that they belong to, and where in it."""

    @property
    def draft(self) -> "Draft":
        """Return the draft of their saga."""
        ...

    @property
    def positions(self) -> tuple[int, ...]:
        """Return their positions, in order."""
        ...


@dataclass(frozen=True, slots=True)
class UndoParts:
    """What an `Undo`, `UndoEach` or `UndoStart` was given, not yet judged."""

    command: Callable[..., object]
    succeeds: type
    fails: tuple[type, ...]
    needs: "Handles | None"
    by: Participant | None
    timing: Mapping[str, Any]
    when_refused: bool = False
    in_order: bool = True


@dataclass(frozen=True, slots=True)
class RemindParts:
    """What a `Remind` was given, not yet judged."""

    build: Callable[..., object]
    event: type
    every: timedelta
    times: int


@dataclass(frozen=True, slots=True)
class ProlongParts:
    """What a `Prolong` was given, not yet judged."""

    on: type
    by: timedelta
    times: int


@dataclass(frozen=True, slots=True)
class StepParts:
    """What a step was given, not yet judged."""

    key: str
    kind: Kind
    activity: Activity
    needs: "Handles | None" = None
    after: "Handles | None" = None
    participant: Participant | None = None
    build: Callable[..., object] | None = None
    succeeds: tuple[type, ...] = ()
    fails: tuple[type, ...] = ()
    timing: Mapping[str, Any] | None = None
    undo: UndoParts | None = None
    when: Callable[..., bool] | None = None
    over: Callable[..., Any] | None = None
    items_max: int = 0
    on_timeout: OnTimeout | None = None
    wait: timedelta | None = None
    child: Definition | None = None
    holds: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    tolerated: tuple[type, ...] = ()
    instead_of: "Handles | None" = None
    until: Callable[..., Any] | None = None
    remind: RemindParts | None = None
    prolong: "ProlongParts | None" = None
    keyed_by: Callable[..., str] | None = None
    undo_subsaga: UndoSubsaga | None = None
    gather: GatherDefinition | None = None
    enough: int = 0
