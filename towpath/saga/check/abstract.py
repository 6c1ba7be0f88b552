"""A definition without its data: the same graph and policies, its functions replaced by questions to an oracle.

The machine that is explored is the one in production; only what it is given is abstract. Three things are replaced:
- a condition, by a choice of true or false; a list of an `each`, by a choice of its length. A function is pure, so the
  same function of the same results is chosen once in the life of an instance, however many steps share it;
- a builder, by a token; which results it was given, and which were missing, is noted;
- the numbers of a policy, where no more of them can be told apart: see ATTEMPTS_TOLD_APART.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from towpath.saga.definition import Definition, Kind, Policy, StepDefinition, UndoDefinition
from towpath.saga.state import Direction

# The first attempt, one in the middle, the last. The machine compares an attempt with the first and the last of its
# round only, so that all those between behave alike.
ATTEMPTS_TOLD_APART = 3

# No item, one, two that stand for any number of alike ones, and one more than the limit.
ITEMS_TOLD_APART = 2

# Both ends of a round by time are explored by firing the timer in time and too late (see moves.py), whatever
# `retry_for` says; so it is set out of the way of timers that fire in time: 30,000 years in milliseconds.
RETRY_FOR_EVER_MILLISECONDS = 10**15


@dataclass(frozen=True, slots=True)
class Token:
    """Stands for a command, or an event that starts a sub-saga."""

    step: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of the oracle: to which question (a group of functions that always agree), and what."""

    group: int
    value: int


@dataclass(frozen=True, slots=True)
class BuilderCall:
    """A builder was called: which step's, which way, and which of the results that it needs were missing."""

    step: str
    direction: Direction
    missing: tuple[bool, ...]


@dataclass(slots=True)
class Oracle:
    """Answers the abstract functions by a script, and notes what it was asked.

    `facts` holds what was chosen before in the life of the instance; beyond the script, the first option is taken.
    """

    options: list[tuple[int, ...]] = field(default_factory=list)
    lasting: set[int] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    script: Sequence[int] = ()
    facts: Mapping[int, int] = field(default_factory=dict)
    asked: list[tuple[int, int]] = field(default_factory=list)  # group, index of the option taken
    taken: list[Choice] = field(default_factory=list)
    calls: set[BuilderCall] = field(default_factory=set)

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
        if self.options[choice.group] == (1, 0):
            return f"{name} holds" if choice.value else f"{name} does not hold"
        return f"{name} has {'too many' if choice.value > ITEMS_TOLD_APART else choice.value} items"


class Items:
    """A list of which only the length matters; it is chosen when the machine asks for it."""

    __slots__ = ("group", "items_max", "oracle")

    def __init__(self, oracle: Oracle, group: int, items_max: int) -> None:
        self.oracle = oracle
        self.group = group
        self.items_max = items_max

    def __len__(self) -> int:
        return self.oracle.ask(self.group)

    def __getitem__(self, position: int) -> str:
        return f"item {position}"


class Abstraction:
    """The abstract twin of a definition, and the oracle that its functions ask."""

    def __init__(self, definition: Definition) -> None:
        self.concrete = definition
        self.oracle = Oracle()
        self._groups: dict[tuple[object, tuple[int, ...], bool], int] = {}
        self.definition = replace(definition, steps=tuple(self._step(step) for step in definition.steps))

    def _step(self, step: StepDefinition) -> StepDefinition:
        items_max = min(step.items_max, ITEMS_TOLD_APART)
        return replace(
            step,
            build=None if step.build is None else self._builder(step.key, Direction.DO, len(step.needs)),
            when=None if step.when is None else self._condition(step.when, step.needs),
            over=None if step.over is None else self._list(step, items_max),
            items_max=items_max,
            policy=None if step.policy is None else _policy(step.policy),
            undo=None if step.undo is None else self._undo(step.key, step.undo),
        )

    def _undo(self, key: str, undo: UndoDefinition) -> UndoDefinition:
        build = None if undo.build is None else self._builder(key, Direction.UNDO, len(undo.needs))
        return replace(undo, build=build, policy=_policy(undo.policy))

    def _builder(self, key: str, direction: Direction, needs: int) -> Callable[..., object]:
        token, oracle = Token(key, direction), self.oracle

        def build(_: object, *arguments: object) -> object:
            missing = tuple(argument is None for argument in arguments[:needs])
            oracle.calls.add(BuilderCall(key, direction, missing))
            return token

        return build

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

    def _condition(self, function: Callable[..., bool], needs: tuple[int, ...]) -> Callable[..., bool]:
        oracle, group = self.oracle, self._group(function, needs, (1, 0))
        return lambda *_: bool(oracle.ask(group))

    def _list(self, step: StepDefinition, items_max: int) -> Callable[..., Any]:
        assert step.over is not None
        # The longest comes last: what is usual is found by the shortest path.
        options = (1, *(count for count in range(2, items_max + 1)), 0, ITEMS_TOLD_APART + 1)
        group = self._group(step.over, step.needs, options)
        if step.kind is Kind.RETRIABLE:
            self.oracle.lasting.add(group)  # a list that was too long is so when it is retried
        oracle = self.oracle
        return lambda *_: Items(oracle, group, items_max)


def _policy(policy: Policy) -> Policy:
    return replace(
        policy,
        attempts=min(policy.attempts, ATTEMPTS_TOLD_APART),
        retry_for_milliseconds=RETRY_FOR_EVER_MILLISECONDS,
    )


_blanks: dict[type, object] = {}


def blank(kind: type) -> Any:
    """Return an object of a record class with nothing in it: the machine looks at its class alone."""
    if kind not in _blanks:
        try:
            _blanks[kind] = object.__new__(kind)
        except TypeError:  # a class that is not built on object alone, as a tuple with names is
            _blanks[kind] = kind.__new__(kind)
    return _blanks[kind]
