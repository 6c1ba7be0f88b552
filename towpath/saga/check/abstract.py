"""A definition without its data: the same graph and policies, its functions replaced by questions to an oracle.

The machine that is explored is the one in production; only what it is given is abstract. Three things are replaced:
- a condition, by a choice of true or false; a list of an `each`, by a choice of its length. A function is pure, so the
  same function of the same results is chosen once in the life of an instance, however many steps share it;
- a builder, by a token; which results it was given, and which were missing, is noted;
- the numbers of a policy, where no more of them can be told apart: see ATTEMPTS_TOLD_APART.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from towpath.saga.definition import (
    Activity,
    Definition,
    GatherDefinition,
    Kind,
    Policy,
    ProlongDefinition,
    RemindDefinition,
    StepDefinition,
    UndoDefinition,
)

# The first attempt, one in the middle, the last. The machine compares an attempt with the first and the last of its
# round only, so that all those between behave alike.
ATTEMPTS_TOLD_APART = 3

# No item, one, two that stand for any number of alike ones, and one more than the limit.
ITEMS_TOLD_APART = 2

# Items that are enough: one of two shows what becomes of the other, and none that there are too few.
ENOUGH_TOLD_APART = 1

# Reminders of a wait, signals that it gathers, and times that it is prolonged: the first, and the last, which stands
# for all after the first.
REMINDERS_TOLD_APART = 2

# Both ends of a round by time are explored by firing the timer in time and too late (see moves.py), whatever
# `retry_for` says; so it is set out of the way of timers that fire in time: 30,000 years in milliseconds.
RETRY_FOR_EVER_MILLISECONDS = 10**15


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of the oracle: to which question (a group of functions that always agree), and what."""

    group: int
    value: int


class Role(StrEnum):
    """What a function of a definition is for."""

    BUILD = "build"
    UNDO = "undo"
    WHEN = "when"
    OVER = "over"
    CHOOSE = "choose"
    UNTIL = "until"
    REMIND = "remind"
    KEYED_BY = "keyed_by"
    FOLD = "fold"
    ENOUGH = "enough"


@dataclass(frozen=True, slots=True)
class Token:
    """Stands for a command, or an event that starts a sub-saga."""

    step: str
    role: Role


@dataclass(frozen=True, slots=True)
class Call:
    """A function of a step was called; `missing` says which of the results that it needs were not there."""

    step: str
    role: Role
    missing: tuple[bool, ...]


@dataclass(slots=True)
class Oracle:
    """Answers the abstract functions by a script, and notes what it was asked.

    `facts` holds what was chosen before in the life of the instance; beyond the script, the first option is taken.
    """

    options: list[tuple[int, ...]] = field(default_factory=list)
    lasting: set[int] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    says: dict[int, tuple[str, ...]] = field(default_factory=dict)  # of choices and times: their options in words
    script: Sequence[int] = ()
    facts: Mapping[int, int] = field(default_factory=dict)
    asked: list[tuple[int, int]] = field(default_factory=list)  # group, index of the option taken
    taken: list[Choice] = field(default_factory=list)
    calls: set[Call] = field(default_factory=set)

    def begin(self, script: Sequence[int], facts: tuple[Choice, ...]) -> None:
        """Prepare for one decision."""
        self.script = script
        self.facts = {fact.group: fact.value for fact in facts} if facts else {}
        self.asked = []
        self.taken = []

    def ask(self, group: int) -> int:
        """Return the answer of a group, chosen now unless it was chosen before."""
        if group in self.facts:
            return self.facts[group]
        for choice in self.taken:
            if choice.group == group:
                return choice.value
        place = len(self.asked)
        index = self.script[place] if place < len(self.script) else 0
        value = self.options[group][index]
        self.asked.append((group, index))
        self.taken.append(Choice(group, value))
        return value

    def lasting_facts(self, facts: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """Return the facts after a decision: those of before, and those that another step will ask for."""
        new = tuple(choice for choice in self.taken if choice.group in self.lasting)
        return tuple(sorted((*facts, *new), key=lambda choice: choice.group)) if new else facts

    def words(self, choice: Choice) -> str:
        """Say a choice in words."""
        name = self.names[choice.group]
        if choice.group in self.says:
            return f"{name} says {self.says[choice.group][choice.value]}"
        if self.options[choice.group] == (1, 0):
            return f"{name} holds" if choice.value else f"{name} does not hold"
        count = "too many" if choice.value > ITEMS_TOLD_APART else str(choice.value)
        return f"{name} has {count} item{'' if choice.value == 1 else 's'}"


class Items:
    """A list of which only the length matters; it is chosen when the machine asks for it."""

    __slots__ = ("group", "oracle")

    def __init__(self, oracle: Oracle, group: int) -> None:
        self.oracle = oracle
        self.group = group

    def __len__(self) -> int:
        return self.oracle.ask(self.group)

    def __getitem__(self, position: int) -> str:
        return f"item {position}"


class Moment(datetime):
    """A time of which only that matters whether a delay may last until it: the first of all, or the last."""

    def __new__(cls, *, far: bool) -> "Moment":
        """Make one of the two."""
        # Not 1970 itself: a timer that is due at 0 is one that does not run.
        return super().__new__(cls, 9999 if far else 1970, 1, 1, microsecond=1_000, tzinfo=UTC)

    def timestamp(self) -> float:
        """Return seconds since 1970; of the last of all times, more than any timer can reach."""
        return 10.0**30 if self.year == 9999 else super().timestamp()


class Abstraction:
    """The abstract twin of a definition, and the oracle that its functions ask."""

    def __init__(self, definition: Definition) -> None:
        self.concrete = definition
        self.oracle = Oracle()
        self._groups: dict[tuple[object, tuple[int, ...], bool], int] = {}
        steps = tuple(self._step(step) for step in definition.steps)
        # What keys a start event is no question of its course: it is run on data (see sampling.py).
        keyed_by = None if definition.keyed_by is None else (lambda _: "key")
        self.definition = replace(definition, steps=steps, keyed_by=keyed_by)

    def _step(self, step: StepDefinition) -> StepDefinition:
        items_max = min(step.items_max, ITEMS_TOLD_APART)
        return replace(
            step,
            build=self._build(step),
            when=None if step.when is None else self._condition(step),
            over=None if step.over is None else self._list(step, items_max),
            until=None if step.until is None else self._time(step),
            remind=None if step.remind is None else self._reminder(step, step.remind),
            prolong=None if step.prolong is None else _prolong(step.prolong),
            keyed_by=None if step.keyed_by is None else self._key(step),
            gather=None if step.gather is None else self._gather(step, step.gather),
            items_max=items_max,
            enough=min(step.enough, ENOUGH_TOLD_APART),
            policy=None if step.policy is None else _policy(step.policy),
            undo=None if step.undo is None else self._undo(step.key, step.undo),
        )

    def _build(self, step: StepDefinition) -> Callable[..., object] | None:
        if step.build is None:
            return None
        if step.activity is Activity.CHOICE:
            return self._choice(step)
        if step.activity is Activity.NEXT:
            return self._next(step)
        if step.activity in (Activity.EVENT, Activity.RESULT):
            return self._event(step)
        return self._builder(step.key, Role.BUILD, len(step.needs))

    def _next(self, step: StepDefinition) -> Callable[..., object]:
        """Return a function that starts another instance, or says that there is none."""
        assert step.build is not None
        oracle, group = self.oracle, self._group(step.build, step.needs, (0, 1))
        oracle.says[group] = ("no more", "one more")
        note, (kind, *_) = self._noting(step.key, Role.BUILD, len(step.needs)), step.outcomes

        def build(*arguments: object) -> object:
            note(arguments)
            return blank(kind) if oracle.ask(group) else None

        return build

    def _event(self, step: StepDefinition) -> Callable[..., object]:
        """Return a builder of blank events: unlike a command, an event is a result that other steps may read."""
        note, (kind,) = self._noting(step.key, Role.BUILD, len(step.needs)), step.outcomes

        def build(*arguments: object) -> object:
            note(arguments)
            return blank(kind)

        return build

    def _gather(self, step: StepDefinition, gather: GatherDefinition) -> GatherDefinition:
        """Gather into blank records; after each signal there may be enough, or not."""
        calls, enough = self.oracle.calls, gather.enough

        def fold(*_: object) -> object:
            calls.add(Call(step.key, Role.FOLD, ()))
            return blank(gather.into)

        return replace(
            gather,
            fold=fold,
            enough=None if enough is None else self._enough(step.key, enough),
            signals_max=min(gather.signals_max, REMINDERS_TOLD_APART),
        )

    def _enough(self, key: str, function: Callable[..., bool]) -> Callable[..., bool]:
        oracle, group = self.oracle, self._group(function, (), (0, 1))
        oracle.says[group] = ("not enough", "enough")

        def enough(*_: object) -> bool:
            oracle.calls.add(Call(key, Role.ENOUGH, ()))
            return bool(oracle.ask(group))

        return enough

    def _key(self, step: StepDefinition) -> Callable[..., str]:
        note = self._noting(step.key, Role.KEYED_BY, len(step.needs))

        def keyed_by(*arguments: object) -> str:
            note(arguments)
            return "child key"

        return keyed_by

    def _reminder(self, step: StepDefinition, remind: RemindDefinition) -> RemindDefinition:
        note = self._noting(step.key, Role.REMIND, len(step.needs))

        def build(*arguments: object) -> object:
            note(arguments)
            return blank(remind.event)

        return replace(remind, build=build, reminders_max=min(remind.reminders_max, REMINDERS_TOLD_APART))

    def _choice(self, step: StepDefinition) -> Callable[..., str]:
        assert step.build is not None
        options = tuple(range(len(step.options)))
        oracle, group = self.oracle, self._group(step.build, step.needs, options)
        oracle.says[group] = step.options
        note = self._noting(step.key, Role.CHOOSE, len(step.needs))

        def choose(*arguments: object) -> str:
            note(arguments)
            return step.options[oracle.ask(group)]

        return choose

    def _time(self, step: StepDefinition) -> Callable[..., Moment]:
        assert step.until is not None
        oracle, group = self.oracle, self._group(step.until, step.needs, (0, 1))
        oracle.says[group] = ("a time that is near enough", "a time that is too far away")
        if step.kind is Kind.RETRIABLE:
            oracle.lasting.add(group)
        note = self._noting(step.key, Role.UNTIL, len(step.needs))

        def until(*arguments: object) -> Moment:
            note(arguments)
            return Moment(far=bool(oracle.ask(group)))

        return until

    def _undo(self, key: str, undo: UndoDefinition) -> UndoDefinition:
        build = None if undo.build is None else self._builder(key, Role.UNDO, len(undo.needs))
        return replace(undo, build=build, policy=_policy(undo.policy))

    def _builder(self, key: str, role: Role, needs: int) -> Callable[..., object]:
        token, note = Token(key, role), self._noting(key, role, needs)

        def build(*arguments: object) -> object:
            note(arguments)
            return token

        return build

    def _noting(self, key: str, role: Role, needs: int) -> Callable[[tuple[object, ...]], None]:
        calls = self.oracle.calls

        def note(arguments: tuple[object, ...]) -> None:
            calls.add(Call(key, role, tuple(argument is None for argument in arguments[1 : needs + 1])))

        return note

    def _group(self, function: Callable[..., Any], needs: tuple[int, ...], options: tuple[int, ...]) -> int:
        identity = (function, needs, options == (1, 0))
        oracle = self.oracle
        if identity in self._groups:
            group = self._groups[identity]
            oracle.lasting.add(group)
            return group
        group = self._groups[identity] = len(oracle.options)
        oracle.options.append(options)
        oracle.names.append(getattr(function, "__name__", "a function"))
        return group

    def _condition(self, step: StepDefinition) -> Callable[..., bool]:
        assert step.when is not None
        oracle, group = self.oracle, self._group(step.when, step.needs, (1, 0))
        note = self._noting(step.key, Role.WHEN, len(step.needs))

        def when(*arguments: object) -> bool:
            note(arguments)
            return bool(oracle.ask(group))

        return when

    def _list(self, step: StepDefinition, items_max: int) -> Callable[..., Any]:
        assert step.over is not None
        # The usual comes first: it is what the shortest paths are made of.
        options = (1, *(count for count in range(2, items_max + 1)), 0, ITEMS_TOLD_APART + 1)
        oracle, group = self.oracle, self._group(step.over, step.needs, options)
        if step.kind is Kind.RETRIABLE:
            oracle.lasting.add(group)  # a list that was too long is so when it is retried
        note = self._noting(step.key, Role.OVER, len(step.needs))

        def over(*arguments: object) -> Items:
            note(arguments)
            return Items(oracle, group)

        return over


def _policy(policy: Policy) -> Policy:
    return replace(
        policy,
        attempts=min(policy.attempts, ATTEMPTS_TOLD_APART),
        retry_for_milliseconds=RETRY_FOR_EVER_MILLISECONDS,
    )


def _prolong(prolong: ProlongDefinition) -> ProlongDefinition:
    return replace(prolong, times_max=min(prolong.times_max, REMINDERS_TOLD_APART))


_blanks: dict[type, object] = {}


def blank(kind: type) -> Any:
    """Return an object of a record class with nothing in it: the machine looks at its class alone."""
    if kind not in _blanks:
        try:
            _blanks[kind] = object.__new__(kind)
        except TypeError:  # a class that is not built on object alone, as a tuple with names is
            _blanks[kind] = cast("Any", kind).__new__(kind)
    return _blanks[kind]
