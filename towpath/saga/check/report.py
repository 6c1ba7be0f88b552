"""What a check says: for each saga what was proved, under which bounds and assumptions, and what was only sampled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from towpath.saga.advance import advance
from towpath.saga.check.abstract import (
    ATTEMPTS_TOLD_APART,
    ENOUGH_TOLD_APART,
    ITEMS_TOLD_APART,
    REMINDERS_TOLD_APART,
)
from towpath.saga.check.conditions import ALL_WAYS_MAX, UNLIKE_MAX
from towpath.saga.check.diagram import Walk, draw
from towpath.saga.check.elsewhere import Elsewhere
from towpath.saga.check.endings import judge_graph
from towpath.saga.check.explore import STATES_MAX, Exploration, Explorer, Found, Halt
from towpath.saga.check.locks import judge_locks
from towpath.saga.check.mistakes import judge_each_other, judge_mistakes
from towpath.saga.check.moves import EARLY_MAX, Moves
from towpath.saga.check.properties import Breach, Property, Violation, first_of_each
from towpath.saga.check.sampling import Sampled, Sampler, Samples
from towpath.saga.check.timing import Duration, duration_of, judge_timing
from towpath.saga.check.witness import call_test, path_test, static_test
from towpath.saga.definition import Activity, Definition
from towpath.saga.effects import Happened, Record
from towpath.saga.inputs import Action, OperatorAsked
from towpath.saga.state import StepStatus

BOUNDS: Mapping[str, Any] = {
    "attempts_told_apart": "first, middle, last" if ATTEMPTS_TOLD_APART == 3 else ATTEMPTS_TOLD_APART,
    "items_of_each": f"0 to {ITEMS_TOLD_APART}, and more than its limit",
    "rounds_of_an_undo": "first, later",
    "replies_in_flight": "any set of answers to what was sent; each may come late, twice, out of order, or never",
    "requests_of_people": "any number",
    "reminders_signals_and_prolongations_of_a_wait": f"0 to {REMINDERS_TOLD_APART}",
    "items_that_are_enough": f"{ENOUGH_TOLD_APART} of up to {ITEMS_TOLD_APART}",
    "conditions": f"every combination of up to {ALL_WAYS_MAX}; of more, those in which all but {UNLIKE_MAX} come out "
    "alike, and every combination of those whose results one function receives",
    "steps_side_by_side": "every two of them in either order",
    "signals_before_their_wait": f"up to {EARLY_MAX} held at once",
    "states_max": STATES_MAX,
}

ASSUMPTIONS: tuple[str, ...] = (
    "data is abstract: conditions and lists may come out in any way, but the same for the same function and results",
    "time is abstract: a timer that runs may fire early, in time, or too late, in any order: more than clocks allow",
    "a participant records one outcome for each idempotency key, and a business failure has no effect",
    "an undo that reaches a participant before its command makes the late command do nothing",
    "a decision's effects are performed once, in one transaction with the state: the orchestrator's promise",
    "a sub-saga answers as its own proof says; its parent may ask it to compensate at any time",
    "a sub-saga whose start is refused has answered that it left nothing behind; past the pivot, that is no answer",
    "'reached without a person' means that some replies lead there, and that they come",
)

EXHAUSTIVE: tuple[str, ...] = (
    "every order of replies, signals, timers, cancellations, requests and redeliveries that the bounds allow",
    "every outcome of every condition, and every set of results that may be missing when a function is called",
    "every input that a state must refuse: stale, repeated, early, undeclared, foreign",
    "worst-case duration, fit of waits and attempts in time, and locks between the sagas checked together",
)


@dataclass(frozen=True, slots=True)
class StuckPath:
    """A way in which the saga comes to need a person, why, and what a person can do there."""

    step: str
    status: str
    reason: str
    person_can: tuple[str, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one saga."""

    saga: str
    version: int
    states: int = 0
    transitions: int = 0
    refusals: int = 0
    seconds: float = 0.0
    duration: Duration | None = None
    violations: tuple[Violation, ...] = ()
    stuck: tuple[StuckPath, ...] = ()
    functions: int = 0
    calls: int = 0
    elsewhere: int = 0
    without_data: tuple[str, ...] = ()
    as_child: bool = False

    @property
    def ok(self) -> bool:
        """Return whether every property holds."""
        return not self.violations

    def to_json(self) -> dict[str, Any]:
        """Return the report for machines."""
        worst = self.duration.worst_milliseconds / 1000 if self.duration is not None else None
        return {
            "saga": self.saga,
            "version": self.version,
            "states": self.states,
            "transitions": self.transitions,
            "refusals": self.refusals,
            "seconds": round(self.seconds, 3),
            "violations": [
                {
                    "property": violation.rule.value,
                    "sentence": violation.sentence,
                    "step": violation.subject,
                    "words": violation.words,
                    "where": violation.where,
                    "path": list(violation.path),
                    "diagram": violation.diagram,
                }
                for violation in self.violations
            ],
            "worst_case_seconds": worst,
            "stuck": [
                {
                    "step": stuck.step,
                    "status": stuck.status,
                    "reason": stuck.reason,
                    "person_can": list(stuck.person_can),
                    "path": list(stuck.path),
                }
                for stuck in self.stuck
            ],
            "bounds": dict(BOUNDS),
            "assumptions": list(ASSUMPTIONS),
            "exhaustive": list(EXHAUSTIVE),
            "sampled": {
                "functions": self.functions,
                "calls": self.calls,
                "elsewhere": self.elsewhere,
                "without_data": list(self.without_data),
            },
            "as_child": self.as_child,
        }


def _unheard(_: str, __: int, ___: int) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Check:
    """One run over sagas that live side by side.

    `clock` gives seconds; `imports` tells where a test finds a saga of a name and version: `sagas.place_order:saga`.
    `states_max` limits each walk; `progress` is told now and then of which saga how many states were found, and how
    many of them wait to be looked at. `elsewhere` calls functions in another process.
    """

    definitions: Sequence[Definition]
    clock: Callable[[], float]
    samples: Samples = field(default_factory=Samples)
    imports: Mapping[tuple[str, int], str] = field(default_factory=dict)
    states_max: int = STATES_MAX
    progress: Callable[[str, int, int], None] = _unheard
    elsewhere: Elsewhere | None = None

    def run(self, only: str | None = None) -> list[Report]:
        """Check every saga and every sub-saga; with `only`, those of that name, beside all for their locks."""
        sagas = _with_children(self.definitions)
        together = [definition for definition, _ in sagas]
        locks = [*judge_locks(together), *judge_each_other(together)]
        return [
            self._one(definition, [breach for owner, breach in locks if owner is definition], as_child=as_child)
            for definition, as_child in sagas
            if only is None or definition.name == only
        ]

    def _one(self, definition: Definition, locks: Sequence[Breach], *, as_child: bool) -> Report:
        began = self.clock()
        exploration = Explorer(
            definition,
            as_child=as_child,
            states_max=self.states_max,
            progress=lambda found, waiting: self.progress(definition.name, found, waiting),
        ).run()
        found = [*exploration.found.values(), *judge_graph(exploration)]
        sampled = Sampler(exploration, self.samples, self.elsewhere).run()
        static = [*judge_timing(definition), *judge_mistakes(definition), *_ambiguous(definition), *locks]
        violations = [
            *(self.violation_at(definition, exploration, each) for each in found),
            *self._sampled(definition, sampled),
            *(self._static(definition, breach) for breach in first_of_each(static)),
        ]
        return Report(
            definition.name,
            definition.version,
            len(exploration.nodes),
            exploration.transitions,
            exploration.refusals,
            self.clock() - began,
            duration_of(definition),
            tuple(violations),
            tuple(_halts(exploration)),
            sampled.functions,
            sampled.calls,
            sampled.elsewhere,
            tuple(sorted(sampled.without_data)),
            as_child,
        )

    def _violation(
        self, definition: Definition, breach: Breach, test: str, path: Sequence[str] = (), diagram: str = ""
    ) -> Violation:
        key = breach.subject.removesuffix(" (its undo)")
        position = definition.index.get(key, 0) or min(1, len(definition.steps) - 1)
        where = definition.steps[position].where
        version, words = definition.version, breach.words
        return Violation(
            definition.name, version, breach.rule, breach.subject, words, tuple(path), diagram, test, where
        )

    def _where(self, definition: Definition) -> str:
        return self.imports.get((definition.name, definition.version), "")

    def violation_at(self, definition: Definition, exploration: Exploration, found: Found) -> Violation:
        """Return what a walk has found as a violation: with the way there, its picture, and its test."""
        walk = Walk(exploration.abstraction, exploration.path(found.node, found.then))
        breach = found.breach
        diagram = draw(walk, f"{breach.subject} {breach.words}".strip()) if walk.steps else ""
        where = self._where(definition)
        test = path_test(where, breach, walk.sentences) if found.then else static_test([where], breach)
        return self._violation(definition, breach, test, walk.sentences, diagram)

    def _sampled(self, definition: Definition, sampled: Sampled) -> Iterable[Violation]:
        seen = set()
        for each in sampled.breaches:
            place = (each.breach.rule, each.breach.subject)
            if place not in seen:
                seen.add(place)
                # What a condition came out as on all data, or what another process gives, is no single call here.
                test = call_test(self._where(definition), each) if each.told_by_a_call else ""
                yield self._violation(definition, each.breach, test)

    def _static(self, definition: Definition, breach: Breach) -> Violation:
        wheres = [self._where(definition)]
        if breach.rule in (Property.UNDECLARED_LOCK, Property.LOCK_ORDER, Property.DEADLOCK):
            wheres += [self._where(other) for other in self.definitions if other is not definition]
        return self._violation(definition, breach, static_test(wheres, breach))


def _with_children(definitions: Sequence[Definition]) -> list[tuple[Definition, bool]]:
    """Return each saga once, and whether another one starts it and may ask it to compensate."""
    children: dict[tuple[str, int], Definition] = {}
    open_ = list(definitions)
    while open_:
        for step in open_.pop().steps:
            if step.child is not None and (step.child.name, step.child.version) not in children:
                children[step.child.name, step.child.version] = step.child
                open_.append(step.child)
    own = {(definition.name, definition.version): definition for definition in definitions}
    return [(definition, name in children) for name, definition in {**own, **children}.items()]


def _ambiguous(definition: Definition) -> Iterable[Breach]:
    for kind in (*definition.cancels, *definition.prolongs):
        does = "cancels the saga" if kind in definition.cancels else "prolongs a wait"
        others = [step.key for step in definition.steps if kind in step.outcomes]
        if kind in definition.starts or others:
            words = f"{does} with {kind.__name__}, which also {f'answers {others[0]}' if others else 'starts it'}"
            yield Breach(Property.AMBIGUOUS, "", words)
        elif kind in definition.cancels and kind in definition.prolongs:
            yield Breach(Property.AMBIGUOUS, "", f"cancels the saga and prolongs a wait with {kind.__name__}")
    for signal, position in definition.waits.items():
        key = definition.steps[position].key
        if signal in definition.starts:
            yield Breach(Property.AMBIGUOUS, key, f"waits for {signal.__name__}, which also starts the saga")
        for step in definition.steps:
            undo = step.undo.outcomes if step.undo is not None else {}
            if step.activity is not Activity.WAIT and (signal in step.outcomes or signal in undo):
                words = f"waits for {signal.__name__}, which is also a reply to {step.key}"
                yield Breach(Property.AMBIGUOUS, key, words)


# --- halts ------------------------------------------------------------------------------------------------------------


def _halts(exploration: Exploration) -> Iterable[StuckPath]:
    """Return the ways to halt, one for each step and reason."""
    found: dict[tuple[str, str], StuckPath] = {}
    for halt in exploration.halts.values():
        reason = _reason(exploration.definition, halt)
        if (halt.step, reason) not in found:
            path = Walk(exploration.abstraction, exploration.path(halt.node)).sentences
            can = tuple(_person_can(exploration, halt))
            found[halt.step, reason] = StuckPath(halt.step, halt.status.value, reason, can, tuple(path))
    return found.values()


def _reason(definition: Definition, halt: Halt) -> str:  # noqa: PLR0911 - a case each
    step = definition.step(halt.step)
    if halt.status is StepStatus.UNDO_FAILED:
        return "the participant says that it cannot be undone"
    if halt.status is StepStatus.UNDO_STUCK:
        return "its undo was not answered until its attempts were over: it may be undone or not"
    if halt.by == "saga":
        return "the saga's deadline passed while it was under way, past the point of no return"
    if step.until is not None and halt.by != "saga":
        return "it would last longer than it may, past the point of no return"
    if halt.by == "wait":
        return "nobody answered in time, and that means to halt"
    if step.over is not None and halt.by != "attempt":
        return f"its list has more than {step.items_max} items, past the point of no return"
    return "it was not answered until its attempts were over, past the point of no return"


def _person_can(exploration: Exploration, halt: Halt) -> Iterable[str]:
    """Yield what the machine takes from a person at the halt, found by asking it."""
    node = exploration.nodes[halt.node]
    definition, oracle = exploration.abstraction.definition, exploration.abstraction.oracle
    asks = Moves(definition, as_child=False)
    for ask in asks.of_person(node.state, node.ledger, halt.step, node.now):
        oracle.begin((), node.facts)
        decision = advance(definition, node.state, ask)
        entry = decision.effects[0]
        refused = not isinstance(entry, Record) or entry.happened is Happened.REFUSED
        if refused or decision.state is None or decision.state.steps == node.state.steps:
            continue  # a list that is too long is so when it is retried
        yield f"{_asked(ask)} (then it is {decision.state.status.value})"


def _asked(ask: OperatorAsked) -> str:
    if ask.action is Action.SKIP and ask.reply is not None:
        return f"skip {ask.step} with {type(ask.reply).__name__}"
    return f"{ask.action.value} {ask.step}".strip()
