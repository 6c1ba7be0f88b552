"""A saga's definition as tables that the machine reads: what `Saga` (language.py) compiles to.

Rule of this file: data only, frozen, indexed. Indexes live in memory alone; whatever leaves the process (state,
commands, timers, history) names a step by its stable key. Steps stand in an order in which every step follows all that
it requires; index 0 is always the start event itself, whose "do" has happened when a saga begins.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Limits, each with its arithmetic.
STEPS_MAX = 64  # one bit a step in the masks below; the largest sagas published have about 20
ITEMS_MAX = 1_000  # a state of 1,000 items of 100 bytes each is 100 kB, a tenth of Kafka's default message limit
ATTEMPTS_MAX = 1_000_000  # "no limit but the time": at 1 s each this is 11 days
START_KEY = "start"


class Kind(StrEnum):
    """Where a step stands to the point of no return."""

    START = "start"
    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


class Activity(StrEnum):
    """What a step does."""

    START = "start"
    COMMAND = "command"
    WAIT = "wait"
    DELAY = "delay"
    SUBSAGA = "subsaga"


class OnTimeout(StrEnum):
    """What it means that nobody answered a wait in time."""

    COMPENSATE = "compensate"
    PROCEED = "proceed"
    HALT = "halt"


class SecondStart(StrEnum):
    """What becomes of a start event whose key has an instance of this saga already.

    A start that is refused is an instance that ends compensated, whose cause says why: whoever started it learns of it
    as of any other ending, and the undo of the start, if there is one, is sent (unless it says `when_refused=False`).
    """

    REFUSE_WHILE_OPEN = "refuse"  # until the instance has ended; the next start begins one
    REFUSE_ALWAYS = "refuse_always"  # a key has one instance, for ever
    INDEPENDENT = "independent"  # every start begins an instance of its own


@dataclass(frozen=True, slots=True)
class Participant:
    """A service that executes commands; they travel in the topic `<name>.commands`."""

    name: str

    @property
    def commands_topic(self) -> str:
        """Return the topic that this participant reads its commands from."""
        return f"{self.name}.commands"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long one attempt may take, how many there may be, and how long apart.

    A round of attempts ends at `attempts`, or when the next one would begin later than `retry_for_milliseconds` after
    the first, whichever comes first. Attempt n + 1 follows a failed attempt n after a time between 0 and
    min(backoff_most, backoff_first * backoff_factor ** (n - 1)) milliseconds.
    """

    within_milliseconds: int
    attempts: int
    retry_for_milliseconds: int
    backoff_first_milliseconds: int
    backoff_most_milliseconds: int
    backoff_factor: int

    def ceiling_milliseconds(self, attempt: int) -> int:
        """Return the longest pause that may follow failed attempt number `attempt`, which counts from 1."""
        # 2 ** 40 ms are 34 years: a bound on the exponent keeps the integer small whatever the attempt.
        grown: int = self.backoff_first_milliseconds * self.backoff_factor ** min(attempt - 1, 40)
        return min(self.backoff_most_milliseconds, grown)


@dataclass(frozen=True, slots=True)
class UndoDefinition:
    """How a step (or the start event) is undone."""

    participant: str
    build: Callable[..., object] | None  # None: a sub-saga, which undoes itself
    needs: tuple[int, ...]
    outcomes: Mapping[type, bool]  # reply class -> whether it means undone; False means that it cannot be
    policy: Policy
    takes_cause: bool = False  # the start's undo learns why
    when_refused: bool = False  # the start is undone also where the saga was not to begin


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step. Functions receive the start event, then the results of `needs` in order, then the item if any."""

    key: str
    kind: Kind
    activity: Activity
    requires: tuple[int, ...] = ()  # steps that must be settled before this one begins
    needs: tuple[int, ...] = ()  # those of them whose results the functions receive
    participant: str = ""
    build: Callable[..., object] | None = None
    outcomes: Mapping[type, bool] = field(default_factory=dict)  # reply or signal class -> success?
    policy: Policy | None = None
    undo: UndoDefinition | None = None
    when: Callable[..., bool] | None = None
    over: Callable[..., Any] | None = None  # the list of an `each`
    items_max: int = 0
    on_timeout: OnTimeout | None = None
    wait_milliseconds: int = 0  # of a wait: its deadline; of a delay: its length
    child: "Definition | None" = None
    holds: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole saga, compiled. Build one by hand only to explore it with other functions (see `dataclasses.replace`)."""

    name: str
    version: int
    starts_on: type
    deadline_milliseconds: int
    steps: tuple[StepDefinition, ...]
    second_start: SecondStart = SecondStart.REFUSE_WHILE_OPEN
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)
    waits: Mapping[type, int] = field(init=False, repr=False, compare=False)
    pivot: int | None = field(init=False)
    committed_from_start: bool = field(init=False)
    ancestors: tuple[int, ...] = field(init=False, repr=False)  # per step, a bit mask of all that come before it
    descendants: tuple[int, ...] = field(init=False, repr=False)  # per step, a bit mask of all that come after it

    def __post_init__(self) -> None:
        steps = self.steps
        ancestors: list[int] = []
        for step in steps:
            mask = 0
            for required in step.requires:
                mask |= ancestors[required] | 1 << required
            ancestors.append(mask)
        descendants = tuple(
            sum(1 << later for later, mask in enumerate(ancestors) if mask >> position & 1)
            for position in range(len(steps))
        )
        pivots = [position for position, step in enumerate(steps) if step.kind is Kind.PIVOT]
        derived = {
            "index": {step.key: position for position, step in enumerate(steps)},
            "waits": {
                signal: position
                for position, step in enumerate(steps)
                if step.activity is Activity.WAIT
                for signal in step.outcomes
            },
            "pivot": pivots[0] if pivots else None,
            "committed_from_start": all(step.kind in (Kind.START, Kind.RETRIABLE) for step in steps),
            "ancestors": tuple(ancestors),
            "descendants": descendants,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def step(self, key: str) -> StepDefinition:
        """Return the step with that key. Raises KeyError."""
        return self.steps[self.index[key]]

    @property
    def kind(self) -> Kind:
        """Return what this saga is as a step of another one.

        With a pivot it is a pivot there; of retriable steps alone it is retriable; else it can be undone after it
        has completed, and so is compensatable.
        """
        if self.committed_from_start:
            return Kind.RETRIABLE
        return Kind.COMPENSATABLE if self.pivot is None else Kind.PIVOT
