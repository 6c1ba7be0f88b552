"""A saga's definition as tables that the machine reads: what `Saga` (language.py) compiles to.

Rule of this file: data only, frozen, indexed. Indexes live in memory alone; whatever leaves the process (state,
commands, timers, history) names a step by its stable key. Steps stand in an order in which every step follows all that
it requires; index 0 is always the start event itself, whose "do" has happened when a saga begins.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from towpath.saga.errors import DefinitionError
from towpath.saga.spelling import spelt

# Limits, each with its arithmetic.
STEPS_MAX = 64  # one bit a step in the masks below; the largest sagas published have about 20
ITEMS_MAX = 1_000  # a state of 1,000 items of 100 bytes each is 100 kB, a tenth of Kafka's default message limit
ATTEMPTS_MAX = 1_000_000  # "no limit but the time": at 1 s each this is 11 days
RECENT_MAX = 16  # requests of people, who make a few an hour at most
START_KEY = "start"
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")  # what Kafka takes as a topic's name, with room for ".commands"


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
    CHOICE = "choice"  # decides which of the branches that follow it is taken; settled at once
    BRANCH = "branch"  # one of them: succeeds if it is taken, else it is skipped, with all that lies in it
    MERGE = "merge"  # joins the branches of a choice: its result is that of the branch that was taken
    EVENT = "event"  # publishes an event; settled at once, nobody answers
    RESULT = "result"  # the same, of the saga's result: the last step
    NEXT = "next"  # starts the next instance of this saga, or none: after all else


# What is settled in the decision in which it begins.
AT_ONCE = (Activity.CHOICE, Activity.BRANCH, Activity.MERGE, Activity.EVENT, Activity.RESULT, Activity.NEXT)


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


@spelt
@dataclass(frozen=True, slots=True)
class Participant:
    """A service that executes commands; they travel in the topic `<name>.commands`.

    Raises DefinitionError for a name that no topic can have.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse a name that nothing could reach, whatever the participant is asked for."""
        if not isinstance(self.name, str) or not _TOPIC.fullmatch(self.name):
            raise DefinitionError(
                f"no topic can be called {self.name}.commands, so nothing reaches that participant",
                next_step="name the service in plain letters, digits, ., _ and -",
            )

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
class RemindDefinition:
    """What a wait publishes while nobody answers: an event every so often, at most so many times.

    Its function receives what the step's condition would, then the number of the reminder, from 1.
    """

    build: Callable[..., object]
    event: type
    every_milliseconds: int
    reminders_max: int


@dataclass(frozen=True, slots=True)
class ProlongDefinition:
    """An event that moves the deadline of a wait that is under way, by so much, at most so many times."""

    signal: type
    by_milliseconds: int
    times_max: int


@dataclass(frozen=True, slots=True)
class GatherDefinition:
    """How a wait gathers signals into one record, its result: one after the other, at most so many.

    `fold` receives the start event, what was gathered so far (None at first) and the signal; so does it what ends the
    wait well. `enough`, of the start event and what was gathered, may end it as well.
    """

    signals: tuple[type, ...]
    into: type
    fold: Callable[..., object]
    signals_max: int
    enough: Callable[..., bool] | None = None


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
    in_order: bool = True  # False: it waits for no other undo of a step, and none of them waits for it


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
    wait_milliseconds: int = 0  # of a wait: its deadline; of a delay: its length, or the longest it may be
    child: "Definition | None" = None
    holds: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    where: str = field(default="", compare=False, repr=False)  # file and line of its sentence: shop/buy.py:12
    tolerated: tuple[type, ...] = ()  # outcomes that settle the step though nothing was done: they are results
    instead_of: int | None = None  # begins only if that step was declined; else it takes over its result
    options: tuple[str, ...] = ()  # of a choice: its branches, which are the steps that follow it, in this order
    only_in: tuple[int, ...] = ()  # the branches in which this step lies: it begins only if all of them are taken
    until: Callable[..., Any] | None = None  # of a delay: when it is over
    remind: RemindDefinition | None = None
    prolong: ProlongDefinition | None = None
    keyed_by: Callable[..., str] | None = None  # the business key of a sub-saga; None: see DecisionBuilder.child_key
    gather: GatherDefinition | None = None
    enough: int = 0  # of an `each`: so many successes settle it, and the others are undone; 0: all of them

    @property
    def wait_longest_milliseconds(self) -> int:
        """Return how long a wait or a delay may last at most, with every prolongation."""
        prolong = self.prolong
        return self.wait_milliseconds + (prolong.by_milliseconds * prolong.times_max if prolong is not None else 0)


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole saga, compiled. Build one by hand only to explore it with other functions (see `dataclasses.replace`)."""

    name: str
    version: int
    starts_on: type
    deadline_milliseconds: int
    steps: tuple[StepDefinition, ...]
    second_start: SecondStart = SecondStart.REFUSE_WHILE_OPEN
    also_starts_on: tuple[type, ...] = ()
    cancels: tuple[type, ...] = ()  # signals that cancel the saga
    keyed_by: Callable[..., str] | None = None  # the business key of a start event; None: the key of its record
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)
    waits: Mapping[type, int] = field(init=False, repr=False, compare=False)
    prolongs: Mapping[type, int] = field(init=False, repr=False, compare=False)
    gathers: Mapping[type, int] = field(init=False, repr=False, compare=False)
    counted: frozenset[type] = field(init=False, repr=False, compare=False)  # signals that only their id tells apart
    recent_max: int = field(init=False, repr=False, compare=False)  # ids of requests and such signals that are kept
    pivot: int | None = field(init=False)
    committed_from_start: bool = field(init=False)
    ancestors: tuple[int, ...] = field(init=False, repr=False)  # per step, a bit mask of all that come before it
    descendants: tuple[int, ...] = field(init=False, repr=False)  # per step, a bit mask of all that come after it
    undone_before: tuple[int, ...] = field(init=False, repr=False)  # per step, a mask of all that its undo waits for
    result: int | None = field(init=False)
    conditional: int = field(init=False, repr=False, compare=False)  # a mask: steps that may be skipped
    composed: int = field(init=False, repr=False, compare=False)  # a mask: whose result is not simply its own
    contests: tuple[int, ...] = field(init=False, repr=False, compare=False)  # those of which some items are enough

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
        free = sum(
            1 << position for position, step in enumerate(steps) if step.undo is not None and not step.undo.in_order
        )
        undone_before = tuple(
            # The start's undo is the last, whatever the others wait for.
            after if not position else 0 if free >> position & 1 else after & ~free
            for position, after in enumerate(descendants)
        )
        results = [position for position, step in enumerate(steps) if step.activity is Activity.RESULT]
        pivots = [position for position, step in enumerate(steps) if step.kind is Kind.PIVOT]
        derived = {
            "index": {step.key: position for position, step in enumerate(steps)},
            "waits": {
                signal: position
                for position, step in enumerate(steps)
                if step.activity is Activity.WAIT
                for signal in step.outcomes
            },
            "prolongs": {
                step.prolong.signal: position for position, step in enumerate(steps) if step.prolong is not None
            },
            "gathers": {
                signal: position
                for position, step in enumerate(steps)
                if step.gather is not None
                for signal in step.gather.signals
            },
            "recent_max": RECENT_MAX + sum(step.gather.signals_max for step in steps if step.gather is not None),
            "conditional": sum(
                1 << position
                for position, step in enumerate(steps)
                if step.when is not None or step.only_in or step.instead_of is not None
            ),
            "composed": sum(
                1 << position
                for position, step in enumerate(steps)
                if step.over is not None or step.instead_of is not None or step.activity is Activity.MERGE
            ),
            "contests": tuple(position for position, step in enumerate(steps) if step.enough),
            "undone_before": undone_before,
            "result": results[0] if results else None,
            "pivot": pivots[0] if pivots else None,
            "committed_from_start": all(step.kind in (Kind.START, Kind.RETRIABLE) for step in steps),
            "ancestors": tuple(ancestors),
            "descendants": descendants,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "counted", frozenset((*self.prolongs, *self.gathers)))

    @property
    def starts(self) -> tuple[type, ...]:
        """Return every class of event that starts this saga."""
        return (self.starts_on, *self.also_starts_on)

    @property
    def signals(self) -> frozenset[type]:
        """Return every class of signal that this saga takes: for waits, for what prolongs them, for what cancels it."""
        return frozenset((*self.waits, *self.counted, *self.cancels))

    def results_of(self, position: int) -> Mapping[type, bool]:
        """Return the classes that the result of a step may have, and whether each lets the saga go on."""
        step = self.steps[position]
        if step.activity is Activity.MERGE:
            return {kind: ok for need in step.needs for kind, ok in self.results_of(need).items()}
        if step.gather is not None:
            return {step.gather.into: True}
        if step.instead_of is None:
            return step.outcomes
        declined = self.steps[step.instead_of].tolerated
        others = {kind: ok for kind, ok in self.results_of(step.instead_of).items() if kind not in declined}
        return {**others, **step.outcomes}

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
