"""Runs the functions of a definition on data: examples of the contracts, and generated records.

Which results may be missing when a function is called is known for all states (the walk noted every call), and held
against the function's annotations; what the results contain is a sample. Each function is called twice on the same data
and must give the same, since a retry sends the command anew, and an inbox knows it by its key alone; and once more in
another process (elsewhere.py), since the retry may be sent by another worker, on another day.
"""

import copy
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from towpath.saga.check.abstract import Call, Role
from towpath.saga.check.bounded import BoundedCalls, Endless
from towpath.saga.check.elsewhere import Elsewhere, Tried, spread
from towpath.saga.check.explore import Exploration
from towpath.saga.check.properties import Breach, Property
from towpath.saga.decision_builder import wrong_list
from towpath.saga.definition import Activity, Definition, GatherDefinition, StepDefinition
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted
from towpath.saga.state import Cause
from towpath.saga.testing.samples import sample

_BUILDING_EVENTS = (Activity.EVENT, Activity.RESULT, Activity.NEXT)
ROWS_TELLING = 6  # sets of data on which a condition should have come out both ways
ROWS_MAX = 200  # of arguments for one function: beyond that each value is taken in turn, not each combination


def _plain_sample(kind: type) -> Sequence[object]:
    try:
        return (sample(kind),)
    except TypeError:
        return ()


def _nothing(_: type) -> Sequence[object]:
    return ()


def _no_complaint(_: str, __: object) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Samples:
    """Where data comes from. `examples` are what a contract shows as good; `generated` may be anything valid.

    `complaint` says in words why a participant does not take a command; empty where it does.
    """

    examples: Callable[[type], Sequence[object]] = _nothing
    generated: Callable[[type], Sequence[object]] = _plain_sample
    complaint: Callable[[str, object], str] = _no_complaint

    def of(self, kind: type) -> Sequence[object]:
        """Return all samples of a record class, the examples first."""
        return (*self.examples(kind), *self.generated(kind))


@dataclass(frozen=True, slots=True)
class SampledBreach:
    """A breach, with the call that shows it. `arguments` are without item and cause, which stand beside them.

    `told_by_a_call` is false where a single call in one process does not show it.
    """

    breach: Breach
    role: Role
    arguments: tuple[object, ...] = ()
    item: int | None = None
    cause: Cause | None = None
    told_by_a_call: bool = True


@dataclass(slots=True)
class Sampled:
    """What was run."""

    functions: int = 0
    calls: int = 0
    elsewhere: int = 0  # of them, repeated in another process
    without_data: set[str] = field(default_factory=set)
    breaches: list[SampledBreach] = field(default_factory=list)


class Sampler:
    """Runs the functions of one definition."""

    def __init__(self, exploration: Exploration, samples: Samples, elsewhere: Elsewhere | None = None) -> None:
        self.definition: Definition = exploration.definition
        self.exploration = exploration
        self.samples = samples
        self.elsewhere = elsewhere
        self.result = Sampled()
        self._call = BoundedCalls()
        self._tried: dict[tuple[str, Role], list[Tried]] = {}

    def run(self) -> Sampled:
        """Run every function that the walk has seen called, with what was missing then."""
        for call in sorted(self.exploration.calls, key=lambda call: (call.step, call.role, call.missing)):
            step = self.definition.step(call.step)
            function = _function(step, call.role)
            self.result.functions += 1
            self._judge_annotations(step, call, function)
            rows = list(self._rows(step, call))
            for arguments in rows:
                self._try(step, call, function, arguments)
            if call.role is Role.WHEN:
                self._judge_condition(step, function, rows)
        self._try_key()
        if self.elsewhere is not None:
            self._try_elsewhere(self.elsewhere)
        return self.result

    def _try_key(self) -> None:
        """Run what gives a start event its key, which no walk asks for."""
        keyed_by, start = self.definition.keyed_by, self.definition.steps[0]
        if keyed_by is None:
            return
        self.result.functions += 1
        for kind in self.definition.starts:
            for event in self._of(kind):
                self._run(start, Call(start.key, Role.KEYED_BY, ()), keyed_by, (event,))

    def _try_elsewhere(self, elsewhere: Elsewhere) -> None:
        """Repeat calls in another process; what comes out otherwise there depends on more than the arguments."""
        tried = [each for of_one in self._tried.values() for each in spread(of_one)]
        for each, words in zip(tried, elsewhere(self.definition.name, self.definition.version, tried), strict=True):
            self.result.elsewhere += words is not None
            if words:
                breach = Breach(Property.IMPURE, each.step, words)
                self.result.breaches.append(SampledBreach(breach, each.role, told_by_a_call=False))

    def _note(self, rule: Property, step: str, words: str, role: Role, *context: Any) -> None:
        self.result.breaches.append(SampledBreach(Breach(rule, step, words), role, *context))

    def _judge_condition(
        self, step: StepDefinition, function: Callable[..., Any], rows: Sequence[tuple[object, ...]]
    ) -> None:
        """A condition that comes out alike on much data is probably not the one that was meant."""
        if len(rows) < ROWS_TELLING:
            return
        try:
            answers = {bool(self._call(function, arguments)) for arguments in rows}
        except (Exception, Endless):  # it is told where the condition itself is tried
            return
        if len(answers) == 1:
            name = getattr(function, "__name__", "a function")
            held = "holds for all" if answers == {True} else "holds for none"
            words = f"{name} {held} of {len(rows)} sets of data: add an example for which it comes out otherwise"
            breach = Breach(Property.CONSTANT, step.key, words)
            self.result.breaches.append(SampledBreach(breach, Role.WHEN, told_by_a_call=False))

    # --- what is there ----------------------------------------------------------------------------------------------

    def _needs(self, step: StepDefinition, role: Role) -> tuple[int, ...]:
        return step.undo.needs if role is Role.UNDO and step.undo is not None else step.needs

    def _judge_annotations(self, step: StepDefinition, call: Call, function: Callable[..., Any]) -> None:
        """Hold what a function may be given against what its parameters are declared to take."""
        try:
            hints = typing.get_type_hints(function)
            parameters = list(inspect.signature(function).parameters)
        except (TypeError, ValueError, NameError):
            return  # a function without annotations, or with ones that cannot be read
        for place, position in enumerate(self._needs(step, call.role)):
            hint = hints.get(parameters[place + 1], Any) if place + 1 < len(parameters) else Any
            needed = self.definition.steps[position]
            name = getattr(function, "__name__", "a function")
            results = self.definition.results_of(position)
            if call.missing[place] and not admits(hint, type(None)) and results:
                words = f"{name} takes a {_name(hint)}, and gets None where {needed.key} is skipped"
                self._note(Property.MISSING_RESULT, step.key, words, call.role)
            elif not call.missing[place] and needed.over is None:
                for kind, ok in results.items():
                    if ok and not admits(hint, kind):
                        words = f"{name} takes a {_name(hint)}, and may get a {kind.__name__} of {needed.key}"
                        self._note(Property.MISSING_RESULT, step.key, words, call.role)

    def _rows(self, step: StepDefinition, call: Call) -> Iterator[tuple[object, ...]]:
        columns: list[Sequence[object]] = [[event for kind in self.definition.starts for event in self._of(kind)]]
        if step.gather is not None and call.role in (Role.FOLD, Role.ENOUGH):
            columns += self._gathered(step.gather, step.outcomes, call.role)
            yield from _combined(columns)
            return
        for missing, position in zip(call.missing, self._needs(step, call.role), strict=True):
            columns.append((None,) if missing else self._results(position))
        yield from _combined(columns)

    def _gathered(
        self, gather: GatherDefinition, outcomes: Mapping[type, bool], role: Role
    ) -> Iterator[Sequence[object]]:
        """Yield what may have been gathered, and (to be gathered) the signals."""
        so_far = self._of(gather.into)
        yield so_far if role is Role.ENOUGH else (None, *so_far)
        if role is Role.FOLD:
            kinds = (*gather.signals, *(kind for kind, succeeds in outcomes.items() if succeeds))
            yield [signal for kind in kinds for signal in self._of(kind)]

    def _of(self, kind: type) -> Sequence[object]:
        found = self.samples.of(kind)
        if not found:
            self.result.without_data.add(kind.__name__)
        return found

    def _results(self, position: int) -> Sequence[object]:
        """Return results that a step may have; of an `each`, tuples of up to two."""
        step, declared = self.definition.steps[position], self.definition.results_of(position)
        child = step.child
        if child is not None and child.result is not None:
            (kind,) = child.steps[child.result].outcomes
            completed = [SubsagaCompleted(child.name, "child-1", result) for result in self._of(kind)]
            return self._endings(step, child.name, completed)
        results = [result for kind, ok in declared.items() if ok for result in self._of(kind)]
        if step.over is None:
            return results or ((None,) if not declared else ())
        if step.enough:
            return [(result,) * step.enough for result in results]
        return _lists(results)

    def _endings(self, step: StepDefinition, child: str, completed: list[SubsagaCompleted[object]]) -> Sequence[object]:
        """Return endings of sub-sagas that a step may have; of a list, one that compensated where it may."""
        if step.over is None:
            return completed
        compensated = [SubsagaCompensated(child, "child-1")] if step.tolerated else []
        return _lists([*completed, *compensated])

    # --- running ----------------------------------------------------------------------------------------------------

    def _try(
        self, step: StepDefinition, call: Call, function: Callable[..., Any], arguments: tuple[object, ...]
    ) -> None:
        role = call.role
        if role is Role.UNDO and step.undo is not None and step.undo.takes_cause:
            for cause in self._causes():
                self._run(step, call, function, arguments, cause=cause)
        elif role is Role.REMIND and step.remind is not None:
            for number in (1, step.remind.reminders_max):
                self._run(step, call, function, arguments, item=number, value=number)
        elif step.over is not None and role in (Role.BUILD, Role.UNDO, Role.KEYED_BY):
            items = self._list(step, arguments)
            for item in range(len(items)):
                self._run(step, call, function, arguments, item=item, value=items[item])
        else:
            self._run(step, call, function, arguments)

    def _list(self, step: StepDefinition, arguments: tuple[object, ...]) -> Sequence[Any]:
        """Return the items of an `each` for these arguments; none where that fails, which is told of the list."""
        assert step.over is not None
        try:
            found = self._call(step.over, arguments[: len(step.needs) + 1])
            return () if wrong_list(found) else found
        except (Exception, Endless):  # it is told where the list itself is tried
            return ()

    def _causes(self) -> Iterator[Cause]:
        for kind, step, reply in sorted(self.exploration.causes, key=str):
            for value in self._of(reply) if reply is not None else (None,):
                yield Cause(kind, step, "", value, "ada", "checked")

    def _run(
        self,
        step: StepDefinition,
        call: Call,
        function: Callable[..., Any],
        arguments: tuple[object, ...],
        *,
        item: int | None = None,
        value: object = None,
        cause: Cause | None = None,
    ) -> None:
        given = (*arguments, *(() if item is None else (value,)), *(() if cause is None else (cause,)))
        self.result.calls += 1

        def returned(value: object) -> None:
            self._tried.setdefault((step.key, call.role), []).append(Tried(step.key, call.role, given, value))

        tried = try_function(step, call.role, function, given, self.samples.complaint, returned, self._call)
        for breach in tried:
            missing_is_to_blame = breach.rule is Property.BUILDER_RAISES and any(call.missing)
            rule = Property.MISSING_RESULT if missing_is_to_blame else breach.rule
            self._note(rule, step.key, breach.words, call.role, arguments, item, cause)
        if call.role is Role.OVER and arguments[0] in self.samples.examples(type(arguments[0])):
            count = len(self._list(step, arguments))
            if count > step.items_max:
                words = f"an example has {count} items, and the limit is {step.items_max}"
                self._note(Property.LIST_TOO_LONG, step.key, words, call.role, arguments)


def _combined(columns: Sequence[Sequence[object]]) -> Iterator[tuple[object, ...]]:
    """Yield every combination of what may be given; beyond ROWS_MAX of them, each value in turn."""
    count = 1
    for column in columns:
        count *= len(column)
    if count <= ROWS_MAX:
        yield from itertools.product(*columns)
    elif count:
        longest = max(map(len, columns))
        yield from itertools.islice(zip(*(itertools.cycle(column) for column in columns), strict=False), longest)


def _lists(results: Sequence[object]) -> list[tuple[object, ...]]:
    """Return no result, each alone, and two alike; two that differ, where there are such."""
    apart = [(results[0], results[-1])] if len(results) > 1 else []
    return [(), *((result,) for result in results), *((result, result) for result in results[:2]), *apart]


def _function(step: StepDefinition, role: Role) -> Callable[..., Any]:
    function = {
        Role.BUILD: step.build,
        Role.CHOOSE: step.build,
        Role.WHEN: step.when,
        Role.OVER: step.over,
        Role.UNTIL: step.until,
        Role.KEYED_BY: step.keyed_by,
        Role.FOLD: step.gather.fold if step.gather is not None else None,
        Role.ENOUGH: step.gather.enough if step.gather is not None else None,
        Role.UNDO: step.undo.build if step.undo is not None else None,
        Role.REMIND: step.remind.build if step.remind is not None else None,
    }[role]
    assert function is not None  # it was called
    return function


def try_function(
    step: StepDefinition,
    role: Role,
    function: Callable[..., Any],
    given: tuple[object, ...],
    complaint: Callable[[str, object], str] = _no_complaint,
    returned: Callable[[object], None] | None = None,
    call: BoundedCalls | None = None,
) -> Iterator[Breach]:
    """Call a function twice on the same data; yield what is wrong with that.

    `returned` is told what a function gave that was the same both times.
    """
    name = getattr(function, "__name__", "a function")
    before = _copied(given)
    call = call or BoundedCalls()
    try:
        first, second = call(function, given), call(function, given)
    except Endless:
        yield Breach(Property.BUILDER_RAISES, step.key, f"{name} does not come to an end: it was given up")
        return
    except (Exception, SystemExit) as error:  # whatever it is, it is what is looked for
        yield Breach(Property.BUILDER_RAISES, step.key, f"{name} raises {type(error).__name__}: {error}")
        return
    if before is not None and before != given:
        yield Breach(Property.IMPURE, step.key, f"{name} changes what it is given")
    elif not _same(first, second):
        yield Breach(Property.IMPURE, step.key, f"{name} gives another {type(first).__name__} each time it is called")
    elif returned is not None:
        returned(first)
    wrong = _wrong(step, role, first)
    if wrong:
        yield Breach(Property.WRONG_VALUE, step.key, f"{name} returns {wrong}")
    elif role is Role.BUILD and step.participant:
        words = complaint(step.participant, first)
        if words:
            yield Breach(
                Property.WRONG_VALUE, step.key, f"{name} returns what {step.participant} does not take: {words}"
            )
    elif role is Role.UNDO and step.undo is not None and step.undo.participant:
        words = complaint(step.undo.participant, first)
        if words:
            yield Breach(Property.WRONG_VALUE, step.key, f"{name} returns what the undo cannot send: {words}")


def _wrong(step: StepDefinition, role: Role, value: object) -> str:  # noqa: PLR0911 - a case each
    """Say what is wrong with the value that a function returned."""
    kind = type(value).__name__
    if role is Role.FOLD and step.gather is not None:
        fits = type(value) is step.gather.into
        return "" if fits else f"a {kind}, not the {step.gather.into.__name__} that it gathers into"
    if role in (Role.WHEN, Role.ENOUGH):
        return "" if isinstance(value, bool) else f"a {kind}, not true or false"
    if role is Role.OVER:
        return wrong_list(value)
    if role is Role.KEYED_BY:
        return "" if isinstance(value, str) and value else f"{value!r}, not a key"
    if role is Role.CHOOSE:
        return "" if value in step.options else f"{value!r}, which is none of {', '.join(step.options)}"
    if role is Role.UNTIL:
        zoned = isinstance(value, datetime) and value.tzinfo is not None
        return "" if zoned else f"a {kind}, not a time with its zone"
    if value is None:
        return "" if step.activity is Activity.NEXT else "nothing"
    if isinstance(value, type):
        return f"the class {value.__name__}, not a record of it"
    if isinstance(value, tuple | list | dict | set | frozenset):
        return f"a {kind}, not a record"
    declared = {step.remind.event} if role is Role.REMIND and step.remind is not None else set(step.outcomes)
    published = role is Role.REMIND or (role is Role.BUILD and step.activity in _BUILDING_EVENTS)
    if published and type(value) not in declared:
        return f"a {kind}, not the {', '.join(each.__name__ for each in declared)} that it says"
    if step.child is not None and role is Role.BUILD and not isinstance(value, step.child.starts):
        starts = " or ".join(each.__name__ for each in step.child.starts)
        return f"a {kind}, not the {starts} that starts saga {step.child.name}"
    return ""


def _copied(given: tuple[object, ...]) -> tuple[object, ...] | None:
    try:
        return copy.deepcopy(given)
    except Exception:  # data that cannot be copied cannot be compared either
        return None


def _same(first: object, second: object) -> bool:
    """Say whether two values are equal; two iterators over nothing comparable are told of as wrong values."""
    return first == second or (type(first) is type(second) and hasattr(first, "__next__"))


def admits(hint: Any, kind: type) -> bool:
    """Say whether a parameter declared so takes an object of a class; when in doubt, it does."""
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if hint is None:
        return kind is type(None)
    origin = typing.get_origin(hint)
    if origin is typing.Union or origin is types.UnionType:
        return any(admits(part, kind) for part in typing.get_args(hint))
    target = origin if origin is not None else hint
    return not isinstance(target, type) or issubclass(kind, target)


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def classes_by_name(definition: Definition) -> Mapping[str, type]:
    """Return the record classes that arguments of functions are made of, by name."""
    kinds = {*definition.starts, *(kind for step in definition.steps for kind in step.outcomes)}
    return {kind.__name__: kind for kind in kinds}
